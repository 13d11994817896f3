//! Outcomes of metadata transactions: none of the engine's ends without one.
//!
//! In a store of many servers an answer may be lost, and what was asked for may have happened, or not, or happen yet. Each
//! transaction therefore passes a **turnstile**: a key that it alone changes meanwhile, and whose last change it compares
//! with. When its answer is lost, a transaction that changes the turnstile only, on the same condition, decides: of the two
//! one can happen. Where the second did, the first never will; else the turnstile's value says that it did. RAM follows what
//! was decided, and callers that go away change nothing: the work runs in a task of its own.
//!
//! What only deletes passes no turnstile, which would be a put where a full store takes none: asked again it either deletes, or
//! its conditions have failed for good, and what it was to delete is there or not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meta::{Compare, ErrorKind, Key, KeyRange, Op, Revision, Shard, Store, Table, Txn, TxnResult};

use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};

const TURNSTILES: Table<Shard> = Table::new("turnstile");
/// More than a turnstile takes in the record of a transaction.
pub(crate) const TURNSTILE_BYTES: usize = 128;
/// Pause before a store that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// What stands between the engine and its metadata store, as a store of many servers does: for tests.
#[derive(Clone)]
pub struct MetaThrough(pub Arc<Through>);

/// Gives the store that the engine uses in the place of another.
pub type Through = dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync;

impl std::fmt::Debug for MetaThrough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetaThrough")
    }
}

/// Turnstiles that no transaction passes now.
#[derive(Debug, Default)]
pub(crate) struct Turnstiles(Mutex<Idle>);

#[derive(Debug, Default)]
struct Idle {
    idle: Vec<Turnstile>,
    /// Number of the next: one whose transaction was left without an outcome is never used again.
    next: u64,
}

#[derive(Debug)]
struct Turnstile {
    key: Key,
    /// Its last change; `None` before it was looked at.
    changed: Option<Revision>,
}

impl Turnstiles {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Plain data, valid after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Turnstile, EngineError> {
        let mut idle = self.lock();
        if let Some(turnstile) = idle.idle.pop() {
            return Ok(turnstile);
        }
        let key = TURNSTILES.key().number(idle.next).end()?;
        idle.next += 1;
        Ok(Turnstile { key, changed: None })
    }

    fn give_back(&self, turnstile: Turnstile) {
        self.lock().idle.push(turnstile);
    }
}

impl Shared {
    /// The metadata store, as the engine uses it.
    pub(crate) fn store(&self) -> Result<Arc<dyn Store>, EngineError> {
        let store = self.embedded();
        let store =
            store.ok_or_else(|| EngineError::new(EngineErrorKind::Closed, "the engine is not open"))?;
        Ok(match &self.config.meta_through {
            Some(through) => through.0(store),
            None => store,
        })
    }

    /// Runs a transaction; its outcome is certain when this returns.
    ///
    /// # Errors
    /// Nothing was done; or the engine is closed, and the next opening finds out.
    pub(crate) async fn decided(&self, txn: Txn) -> Result<TxnResult, EngineError> {
        let store = self.store()?;
        let deleted = |op: &Op| match op {
            Op::Delete(range) => Some(range.clone()),
            Op::Put { .. } => None,
        };
        if let Some(ranges) = txn.then.iter().map(deleted).collect::<Option<Vec<_>>>() {
            return self.deleted(&*store, txn, ranges).await;
        }
        let mut turnstile = self.turnstiles.take()?;
        loop {
            let before = self.last_change(&*store, &mut turnstile).await?;
            let nonce = seam::random_u64(&*self.rt).to_le_bytes();
            let pass = Op::put(turnstile.key.clone(), nonce);
            let asked = txn.clone().when(Compare::unchanged(turnstile.key.clone(), before)).then(pass);
            match store.txn(asked).await {
                Ok(result) if result.succeeded => {
                    turnstile.changed = Some(result.revision);
                    self.turnstiles.give_back(turnstile);
                    return Ok(result);
                }
                Ok(result) => {
                    turnstile.changed = None;
                    // Where another process passed the turnstile meanwhile, nothing is said of the conditions themselves.
                    if self.last_change(&*store, &mut turnstile).await? == before {
                        self.turnstiles.give_back(turnstile);
                        return Ok(result);
                    }
                    continue;
                }
                Err(error) if error.kind == ErrorKind::Unknown => {
                    tracing::warn!(%error, "the outcome of a metadata transaction is unknown: finding out");
                }
                Err(error) => {
                    self.turnstiles.give_back(turnstile);
                    return Err(error.into());
                }
            }
            if let Some(revision) = self.find_out(&*store, &mut turnstile, before, &nonce).await? {
                self.turnstiles.give_back(turnstile);
                return Ok(TxnResult { succeeded: true, revision });
            }
        }
    }

    /// Runs a transaction that only deletes.
    async fn deleted(
        &self,
        store: &dyn Store,
        txn: Txn,
        ranges: Vec<KeyRange>,
    ) -> Result<TxnResult, EngineError> {
        let mut result = store.txn(txn.clone()).await;
        let is_unknown = |error: &meta::Error| error.kind == ErrorKind::Unknown;
        if !result.as_ref().is_err_and(is_unknown) {
            return Ok(result?);
        }
        while result.as_ref().is_err_and(|error| is_passing(error.kind)) {
            self.wait_for_store().await?;
            result = store.txn(txn.clone()).await;
        }
        let mut result = result?;
        if !result.succeeded && !ranges.is_empty() {
            let mut left = false;
            for range in ranges {
                left |= !store.range(range, 1, None).await?.kvs.is_empty();
            }
            result.succeeded = !left;
        }
        Ok(result)
    }

    /// Whether a transaction that was to set the turnstile to `nonce` has: the revision; `None` when it never will.
    async fn find_out(
        &self,
        store: &dyn Store,
        turnstile: &mut Turnstile,
        before: Revision,
        nonce: &[u8],
    ) -> Result<Option<Revision>, EngineError> {
        loop {
            let key = turnstile.key.clone();
            let bar = Op::put(key.clone(), seam::random_u64(&*self.rt).to_le_bytes());
            let bar = Txn::new().when(Compare::unchanged(key, before)).then(bar);
            match store.txn(bar).await {
                Ok(_) => break,
                Err(error) if is_passing(error.kind) => self.wait_for_store().await?,
                Err(error) => return Err(error.into()),
            }
        }
        // Nothing compares with `before` and succeeds any more.
        turnstile.changed = None;
        loop {
            match store.get(&turnstile.key).await {
                Ok(found) => {
                    let kv = found.kv.filter(|kv| *kv.value == *nonce);
                    return Ok(kv.map(|kv| kv.mod_revision));
                }
                Err(error) if is_passing(error.kind) => self.wait_for_store().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn last_change(
        &self,
        store: &dyn Store,
        turnstile: &mut Turnstile,
    ) -> Result<Revision, EngineError> {
        if let Some(changed) = turnstile.changed {
            return Ok(changed);
        }
        let kv = store.get(&turnstile.key).await?.kv;
        let changed = kv.map_or(Revision::NONE, |kv| kv.mod_revision);
        turnstile.changed = Some(changed);
        Ok(changed)
    }

    async fn wait_for_store(&self) -> Result<(), EngineError> {
        if self.lock().closed {
            return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
        }
        self.rt.sleep(RETRY).await;
        Ok(())
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unknown | ErrorKind::Unavailable)
}

impl Engine {
    /// Does something to its end, whether or not its caller waits for that.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let shared = self.shared.clone();
        let task = async move {
            // A caller that is gone does not want to know.
            let _gone = sender.send(shared.guarded(name, work).await);
        };
        self.shared.rt.spawn(name, Box::pin(task));
        let gone = |_| EngineError::new(EngineErrorKind::Closed, "the engine is closed");
        receiver.await.map_err(gone)?
    }
}
