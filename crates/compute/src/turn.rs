//! The turn: who tries to serve the site.

use std::sync::Arc;
use std::time::Duration;

use api::Result;
use cluster::store_error;
use meta::{Compare, ErrorKind, LeaseId, Op, Revision, Store, Txn};
use seam::Rt;
use tokio::sync::watch;
use units::NodeId;

use crate::records::{Serving, serving_key, serving_range};

/// How long whoever has the turn may be silent. etcd grants no shorter leases than 2 s.
const TTL: Duration = Duration::from_secs(3);
/// How often it is heard.
const KEEP: Duration = Duration::from_millis(700);
/// Pause before the store is asked again.
const PAUSE: Duration = Duration::from_millis(300);
/// Without news the record is read again after so long.
const LOOK: Duration = Duration::from_secs(5);

/// Tells who serves, as far as the metadata store says, until nobody listens.
pub(crate) async fn watch_serving(rt: Rt, store: Arc<dyn Store>, told: watch::Sender<Option<Serving>>) {
    loop {
        let from = match look(&*store).await {
            Ok((serving, from)) => {
                told.send_if_modified(|known| {
                    let is_news = *known != serving;
                    *known = serving;
                    is_news
                });
                from
            }
            Err(error) => {
                tracing::debug!(%error, "who serves cannot be read");
                tokio::select! {
                    () = rt.sleep(PAUSE) => continue,
                    () = told.closed() => return,
                }
            }
        };
        tokio::select! {
            () = news(&rt, &*store, from) => {}
            () = told.closed() => return,
        }
    }
}

async fn look(store: &dyn Store) -> Result<(Option<Serving>, Revision)> {
    let got = store.get(&serving_key()?).await.map_err(|error| store_error(&error))?;
    let serving = got.kv.map(|kv| Serving::decode(&kv.value)).transpose()?;
    Ok((serving, got.revision.next()))
}

/// Waits until the record may have changed, or a look is due.
async fn news(rt: &Rt, store: &dyn Store, from: Revision) {
    let changed = async { store.watch(serving_range(), from).await?.next().await.map(drop) };
    if let Ok(Err(error)) = seam::timeout(&**rt, LOOK, changed).await {
        tracing::debug!(%error, "who serves is not watched");
        rt.sleep(PAUSE).await;
    }
}

/// The turn, as long as it is kept.
pub(crate) struct Turn {
    rt: Rt,
    store: Arc<dyn Store>,
    own: Serving,
    lease: LeaseId,
}

impl Turn {
    /// Takes the turn when nobody has it; `None` when somebody does.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn take(rt: &Rt, store: &Arc<dyn Store>, own: &Serving) -> Result<Option<Self>> {
        let lease = grant(&**store, own).await?;
        Ok(lease.map(|lease| Self { rt: rt.clone(), store: store.clone(), own: own.clone(), lease }))
    }

    /// Keeps the turn. Whoever serves goes on when it is lost: the media tell whether another has taken over.
    pub(crate) async fn keep(&mut self) {
        loop {
            self.rt.sleep(KEEP).await;
            match self.store.keep_alive(self.lease).await {
                Ok(_) => {}
                Err(error) if error.kind == ErrorKind::LeaseNotFound => {
                    tracing::warn!("the turn was lost: taking it again");
                    match grant(&*self.store, &self.own).await {
                        Ok(Some(lease)) => self.lease = lease,
                        Ok(None) => tracing::warn!("another compute node has the turn"),
                        Err(error) => tracing::debug!(%error, "the turn is not taken yet"),
                    }
                }
                Err(error) => tracing::debug!(%error, "the turn is not kept"),
            }
        }
    }

    /// Gives the turn back, so that another need not wait for its end.
    pub(crate) async fn give_back(self) {
        if let Ok(Err(error)) = seam::timeout(&*self.rt, TTL, self.store.revoke(self.lease)).await {
            tracing::debug!(%error, "the turn ends by itself");
        }
    }
}

/// Ends the turn of a node that is none of the site's any more.
///
/// # Errors
/// When the store does not answer.
pub async fn end_turn(store: &dyn Store, node: NodeId) -> Result<()> {
    let key = serving_key()?;
    let got = store.get(&key).await.map_err(|error| store_error(&error))?;
    let Some(kv) = got.kv else { return Ok(()) };
    if Serving::decode(&kv.value).is_ok_and(|serving| serving.node == node) {
        let unchanged = Compare::unchanged(key.clone(), kv.mod_revision);
        // One that does not succeed has another there.
        store
            .txn(Txn::new().when(unchanged).then(Op::delete(&key)))
            .await
            .map_err(|error| store_error(&error))?;
    }
    Ok(())
}

/// The lease with which `own` has the turn; `None` when another has it.
async fn grant(store: &dyn Store, own: &Serving) -> Result<Option<LeaseId>> {
    let (key, value) = (serving_key()?, own.encode()?);
    let lease = store.grant(TTL).await.map_err(|error| store_error(&error))?.id;
    let txn =
        Txn::new().when(Compare::absent(key.clone())).then(Op::put_leased(key.clone(), value.clone(), lease));
    match store.txn(txn).await {
        Ok(done) if done.succeeded => Ok(Some(lease)),
        // Nobody knows: it is ours when it stands there under this lease.
        Ok(_) | Err(meta::Error { kind: ErrorKind::Unknown, .. }) => {
            let got = store.get(&key).await.map_err(|error| store_error(&error))?;
            if got.kv.is_some_and(|kv| kv.lease == Some(lease)) {
                return Ok(Some(lease));
            }
            // It ends by itself where that fails.
            let _ = store.revoke(lease).await;
            Ok(None)
        }
        Err(error) => Err(store_error(&error)),
    }
}
