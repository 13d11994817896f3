//! Leases: while all members of the segment in use have promised to let nobody take over, reads may be answered
//! (section 7.2 of docs/design.md, [I3]).
//!
//! A medium that is sealed for a later incarnation waits until the leases that it granted have run out; whoever takes over
//! seals a member of each ensemble that is registered, so one of the segment in use. Which one is not known: the leases of
//! *all* its members count.
//!
//! Members are asked for leases before the ones they granted run out. One that gives no answer does not hold up the others:
//! requests to it are given up, and the journal goes on in a new segment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::{CallError, CallErrorKind, Request};
use tokio::sync::Notify;
use units::{Map, MediumId};

use crate::writer::{JournalError, JournalErrorKind, Shared};

/// A lease ends for its holder this part of its term early: clocks do not run alike.
const MARGIN: u32 = 8;
/// How often a member is asked for a lease before it counts as silent.
const ATTEMPTS: u32 = 2;
/// How long a read waits for leases.
const READ_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    /// Until when each medium lets nobody take over.
    until: Map<MediumId, Duration>,
    /// Members of the segment in use.
    members: Vec<MediumId>,
    /// Media that gave no answer, and how often they had come back by then.
    silent: Map<MediumId, u64>,
    /// Somebody has taken over, or the journal has ended: no answer counts any more.
    ended: bool,
}

pub(crate) struct Leases {
    /// How long a lease holds; zero where nobody else can take over.
    term: Duration,
    state: Mutex<State>,
    changed: Notify,
}

impl Leases {
    pub(crate) fn new(term: Duration) -> Self {
        Self { term, state: Mutex::default(), changed: Notify::new() }
    }

    pub(crate) fn are_used(&self) -> bool {
        !self.term.is_zero()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a lease is relied on.
    fn usable(&self) -> Duration {
        self.term - self.term / MARGIN
    }

    /// `medium` granted a lease to a request that was sent at `sent`.
    pub(crate) fn grant(&self, medium: MediumId, sent: Duration) {
        if self.are_used() {
            let until = sent + self.usable();
            let mut state = self.lock();
            if state.ended {
                return;
            }
            let known = state.until.entry(medium).or_default();
            *known = until.max(*known);
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Records go to the segment of `members` from now on.
    pub(crate) fn opened(&self, members: &[MediumId]) {
        self.lock().members = members.to_vec();
        self.changed.notify_waiters();
    }

    /// Until when nobody can take over.
    fn until(&self) -> Duration {
        let state = self.lock();
        let of = |medium: &MediumId| state.until.get(medium).copied().unwrap_or_default();
        let least = state.members.iter().map(of).min().unwrap_or_default();
        if state.members.is_empty() { Duration::ZERO } else { least }
    }

    /// The members that are to be asked for a lease.
    fn due(&self, now: Duration) -> Vec<MediumId> {
        let state = self.lock();
        let soon = now + self.usable() * 3 / 4;
        let is_due = |medium: &MediumId| state.until.get(medium).is_none_or(|until| *until < soon);
        state.members.iter().copied().filter(is_due).collect()
    }

    /// Whether `medium` gave no answer since it came back for the `restores`th time.
    pub(crate) fn is_silent(&self, medium: MediumId, restores: u64) -> bool {
        self.lock().silent.get(&medium).is_some_and(|at| *at >= restores)
    }

    /// Waits until `medium` counts as silent.
    pub(crate) async fn silent(&self, medium: MediumId, restores: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_silent(medium, restores) {
                return;
            }
            changed.await;
        }
    }

    fn give_up(&self, medium: MediumId, restores: u64) {
        self.lock().silent.insert(medium, restores);
        self.changed.notify_waiters();
    }

    /// Somebody has taken over, or the journal ends. Gives the media that granted leases before.
    pub(crate) fn end(&self) -> Vec<MediumId> {
        let mut state = self.lock();
        state.ended = true;
        let granted = std::mem::take(&mut state.until).into_keys().collect();
        drop(state);
        self.changed.notify_waiters();
        granted
    }
}

impl Shared {
    /// Keeps leases of the members until the journal ends.
    pub(crate) async fn keep_leases(self: Arc<Self>) {
        let pause = self.leases.term / 12;
        loop {
            self.rt.sleep(pause).await;
            // What is asked for behind the end would hold up whoever takes over.
            if self.lock().finished {
                return;
            }
            let due = self.leases.due(self.rt.now());
            let asked = due.into_iter().map(|medium| self.ask_lease(medium));
            for (error, restores) in seam::join_all(asked).await.into_iter().flatten() {
                self.lost_lease(&error, restores);
            }
        }
    }

    /// Gives all leases back, so that whoever takes over need not wait for their end: no read is answered from here on.
    pub(crate) async fn release(&self) {
        let limit = self.leases.term / 6;
        let given = self.leases.end().into_iter().map(|medium| async move {
            let released = self.transport.call(medium, Request::Release);
            if !matches!(seam::timeout(&*self.rt, limit, released).await, Ok(Ok(_))) {
                tracing::debug!(?medium, "a lease ends by itself");
            }
        });
        seam::join_all(given).await;
    }

    pub(crate) async fn ask_lease(&self, medium: MediumId) -> Option<(CallError, u64)> {
        let restores = self.ensembles.restores(medium);
        let limit = self.leases.term / 6;
        let mut reason = String::new();
        for _ in 0..ATTEMPTS {
            let sent = self.rt.now();
            match seam::timeout(&*self.rt, limit, self.transport.call(medium, Request::Lease)).await {
                Ok(Ok(_)) => {
                    self.leases.grant(medium, sent);
                    return None;
                }
                Ok(Err(error)) if error.kind != CallErrorKind::Unreachable => return Some((error, restores)),
                Ok(Err(error)) => reason = error.reason,
                Err(seam::Elapsed) => reason = format!("no answer within {} ms", limit.as_millis()),
            }
        }
        Some((CallError { kind: CallErrorKind::Unreachable, medium, reason }, restores))
    }

    pub(crate) fn lost_lease(&self, error: &CallError, restores: u64) {
        if error.kind == CallErrorKind::Fenced {
            let reason = error.to_string();
            return self.end_if_fenced(&JournalError { kind: JournalErrorKind::Fenced, reason });
        }
        tracing::warn!(%error, "no lease: going on without it");
        self.leases.give_up(error.medium, restores);
        self.ensembles.failed(error.medium, restores, false, &error.reason);
        // Nobody waits for it.
        drop(self.lock().rotate());
        self.wake.notify_one();
    }

    /// Waits until it is certain that nobody has taken over before this was called.
    pub(crate) async fn readable(&self) -> Result<(), JournalError> {
        if !self.leases.are_used() {
            return Ok(());
        }
        let end = self.rt.now() + READ_PATIENCE;
        loop {
            let changed = self.leases.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(fenced) = self.lock().fenced() {
                return Err(fenced);
            }
            let now = self.rt.now();
            if now < self.leases.until() {
                return Ok(());
            }
            if now >= end || self.lock().finished {
                let reason = "no leases of the members of the journal's segment".to_owned();
                return Err(JournalError { kind: JournalErrorKind::TooFewMedia, reason });
            }
            let _ = seam::timeout(&*self.rt, end - now, changed).await;
        }
    }
}
