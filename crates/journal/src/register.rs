//! Keeping ensembles registered, beside the writer.
//!
//! The writer asks for nothing that a registered ensemble would do as well for, and waits only where none can be used. So
//! while nothing outside the media answers, segments follow each other on the ensembles that are registered, and one of
//! their failure domains may fail where there are enough.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::SegmentId;
use tokio::sync::Notify;
use units::MediumId;

use crate::ensemble::{Ensemble, Registered, WitnessErrorKind};
use crate::registry::Choice;
use crate::writer::{JournalError, JournalErrorKind, Shared, Writer, too_few};

/// How long the writer waits for a better ensemble while it could go on with a lesser one: a store that is well answers
/// many times faster.
const BETTER_WAIT: Duration = Duration::from_secs(1);
/// How long the writer waits for any ensemble, below the 30 s after which guests give up on a disk.
const PATIENCE: Duration = Duration::from_secs(27);
/// Pause behind a store without an answer.
const RETRY: Duration = Duration::from_millis(200);
/// How often it is looked what is to be registered: media fail and return unseen.
const LOOK: Duration = Duration::from_millis(500);

/// What writer and keeper tell each other.
#[derive(Debug, Default)]
pub(crate) struct Registering {
    /// The keeper runs; until then the writer stores by itself.
    runs: AtomicBool,
    /// To the keeper: something else may be wanted.
    asked: Notify,
    /// To the writer: something else is registered.
    changed: Notify,
}

impl Registering {
    pub(crate) fn begin(&self) {
        self.runs.store(true, Ordering::Release);
    }

    /// What is registered has changed, or the journal ends.
    pub(crate) fn tell(&self) {
        self.changed.notify_waiters();
        self.asked.notify_one();
    }
}

impl Shared {
    /// Has registered what is wanted until the journal ends.
    pub(crate) async fn keep_registered(self: Arc<Self>) {
        while !self.lock().finished && self.lock().fenced().is_none() {
            let pause = match self.register_once().await {
                Ok(()) => LOOK,
                Err(_) => RETRY,
            };
            let _ = seam::timeout(&*self.rt, pause, self.registering.asked.notified()).await;
        }
    }

    /// One store, if there is anything to store.
    async fn register_once(&self) -> Result<(), JournalError> {
        let (next, narrowing) = {
            let mut registry = self.lock_registry();
            let Some(next) = registry.next_store(&*self.ensembles) else { return Ok(()) };
            let narrowing = registry.narrowing(&next);
            (next, narrowing)
        };
        if let Err(error) = self.are_there(&narrowing).await {
            self.lock_registry().not_stored();
            return Err(error);
        }
        match self.sink.register(next).await {
            Ok(()) => {
                self.lock_registry().stored();
                self.registering.changed.notify_waiters();
                Ok(())
            }
            Err(error) if error.kind == WitnessErrorKind::Superseded => {
                let fenced = JournalError { kind: JournalErrorKind::Fenced, reason: error.reason };
                self.end_if_fenced(&fenced);
                Err(fenced)
            }
            Err(error) => {
                self.lock_registry().not_stored();
                tracing::warn!(%error, "what the journal may use next could not be registered");
                Err(too_few(&error.reason))
            }
        }
    }

    /// That the writer reaches all members of `ensembles`. When it is cut off from all media it finds one after the other
    /// failed; what it would go on on last must not be what whoever takes over has to have.
    async fn are_there(&self, ensembles: &[Ensemble]) -> Result<(), JournalError> {
        let members: BTreeSet<MediumId> = ensembles.iter().flat_map(Ensemble::members).copied().collect();
        let asked = members.into_iter().map(|medium| self.ask_lease(medium));
        let failed: Vec<_> = seam::join_all(asked).await.into_iter().flatten().collect();
        failed.iter().for_each(|(error, restores)| self.lost_lease(error, *restores));
        match failed.first() {
            Some((error, _)) => Err(too_few(&error.reason)),
            None => Ok(()),
        }
    }

    /// Segment `id` stands whole on its members and takes records from now on. Where ensembles are not registered, this is
    /// known outside first.
    pub(crate) async fn now_in(&self, id: SegmentId) -> Result<(), JournalError> {
        if self.leases.are_used() {
            self.lock_registry().opened(id);
            self.registering.asked.notify_one();
            return Ok(());
        }
        let registered = Registered { last: Some(id), ensembles: Vec::new() };
        self.sink.register(registered).await.map_err(|error| JournalError {
            kind: JournalErrorKind::Fenced,
            reason: format!("the position could not be recorded: {error}"),
        })
    }
}

impl Writer {
    /// The media of segment `number`, registered where that must be; none when too few are up.
    pub(crate) async fn next_members(&self, number: u32) -> Result<Vec<MediumId>, JournalError> {
        let shared = &self.shared;
        if !shared.leases.are_used() {
            return Ok(shared.ensembles.ensemble(number));
        }
        let begun = shared.rt.now();
        loop {
            let changed = shared.registering.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(fenced) = shared.lock().fenced() {
                return Err(fenced);
            }
            let waited = shared.rt.now() - begun;
            let left = {
                let mut registry = shared.lock_registry();
                let (members, patience) = match registry.choose(&*shared.ensembles, number) {
                    Choice::TooFew => return Ok(Vec::new()),
                    Choice::Fit(members) => (Some(members), Duration::ZERO),
                    Choice::Stopgap(members, false) => (Some(members), BETTER_WAIT),
                    Choice::Stopgap(members, true) => (Some(members), Duration::ZERO),
                    Choice::Unregistered => (None, PATIENCE),
                };
                let left = patience.saturating_sub(waited);
                if left.is_zero() {
                    let members = members.ok_or_else(unregistered)?;
                    registry.open(&members);
                    return Ok(members);
                }
                left
            };
            if shared.registering.runs.load(Ordering::Acquire) {
                shared.registering.asked.notify_one();
                let _ = seam::timeout(&*shared.rt, left.min(LOOK), changed).await;
            } else if shared.register_once().await.is_err() {
                shared.rt.sleep(left.min(RETRY)).await;
            }
        }
    }
}

fn unregistered() -> JournalError {
    too_few("no ensemble that is registered can be used, and no other could be registered in time")
}
