//! The claim: which incarnation owns the site, in the metadata store, changed by compare and swap.
//!
//! Each attempt to own the site writes a random number of its own with what it claims: of two attempts that claim the same one
//! alone finds its own record where an answer was lost. What was asked and not answered may be done later: a handle that meets
//! a record of its own goes on from there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::{Witness, WitnessError, WitnessErrorKind, WitnessState};
use meta::{Compare, Key, Op, Revision, Store, Txn};
use seam::{BoxFuture, Rt};

/// No answer within this time counts as none: the journal goes on with what is registered.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often a handle swaps over what stores of its own have left that it heard nothing of.
const SWAPS_MAX: usize = 4;
/// Bytes of the random number before the state.
const NONCE_BYTES: usize = 16;

type Outcome<T> = Result<T, WitnessError>;

fn unanswered(reason: impl ToString) -> WitnessError {
    WitnessError { kind: WitnessErrorKind::Unanswered, reason: reason.to_string() }
}

fn superseded() -> WitnessError {
    let reason = "another incarnation has claimed the site".to_owned();
    WitnessError { kind: WitnessErrorKind::Superseded, reason }
}

/// What a record claims.
pub(crate) fn decode(bytes: &[u8]) -> Option<WitnessState> {
    WitnessState::decode(bytes.get(NONCE_BYTES..)?)
}

/// The claim as one incarnation sees it.
pub(crate) struct Claim {
    rt: Rt,
    store: Arc<dyn Store>,
    key: Key,
    /// Tells what this one wrote from what others did.
    nonce: [u8; NONCE_BYTES],
    /// The revision of what it last read or wrote; none where there is no record.
    seen: Mutex<Revision>,
    /// Stores come one after the other.
    turn: tokio::sync::Mutex<()>,
}

impl Claim {
    pub(crate) fn new(rt: &Rt, store: Arc<dyn Store>) -> api::Result<Self> {
        let key = crate::records::claim_key()?;
        let mut nonce = [0; NONCE_BYTES];
        rt.fill_random(&mut nonce);
        let (seen, turn) = (Mutex::new(Revision::NONE), tokio::sync::Mutex::default());
        Ok(Self { rt: rt.clone(), store, key, nonce, seen, turn })
    }

    fn seen(&self) -> MutexGuard<'_, Revision> {
        // Plain data.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn in_time<T>(&self, work: impl Future<Output = meta::Result<T>>) -> Outcome<T> {
        match seam::timeout(&*self.rt, DEADLINE, work).await {
            Ok(done) => done.map_err(unanswered),
            Err(seam::Elapsed) => Err(unanswered("the metadata store does not answer")),
        }
    }

    /// What the store has, and its revision.
    async fn read(&self) -> Outcome<(Option<Arc<[u8]>>, Revision)> {
        let kv = self.in_time(self.store.get(&self.key)).await?.kv;
        let at = kv.as_ref().map_or(Revision::NONE, |kv| kv.mod_revision);
        Ok((kv.map(|kv| kv.value), at))
    }

    async fn load_state(&self) -> Outcome<WitnessState> {
        let _turn = self.turn.lock().await;
        let (value, at) = self.read().await?;
        let state = match value {
            Some(bytes) => decode(&bytes).ok_or_else(|| {
                unanswered("the claim in the metadata store is damaged, or of another version")
            })?,
            None => WitnessState::default(),
        };
        *self.seen() = at;
        Ok(state)
    }

    async fn store_state(&self, state: WitnessState) -> Outcome<()> {
        let _turn = self.turn.lock().await;
        let bytes = [&self.nonce[..], &state.encode()[..]].concat();
        for _ in 0..SWAPS_MAX {
            let seen = *self.seen();
            let unchanged = match seen {
                Revision::NONE => Compare::absent(self.key.clone()),
                at => Compare::unchanged(self.key.clone(), at),
            };
            let txn = Txn::new().when(unchanged).then(Op::put(self.key.clone(), bytes.clone()));
            let done = self.in_time(self.store.txn(txn)).await?;
            if done.succeeded {
                *self.seen() = done.revision;
                return Ok(());
            }
            let (value, at) = self.read().await?;
            let is_own = value.is_some_and(|value| value.starts_with(&self.nonce));
            if !is_own {
                return Err(superseded());
            }
            // A store before, whose answer was lost.
            *self.seen() = at;
        }
        Err(unanswered("stores that were not answered get in the way"))
    }
}

impl Witness for Claim {
    fn load(&self) -> BoxFuture<'_, Outcome<WitnessState>> {
        Box::pin(self.load_state())
    }

    fn store(&self, state: WitnessState) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(self.store_state(state))
    }
}
