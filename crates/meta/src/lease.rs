//! Which leases live, and until when. A plain state machine: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::store::LeaseId;

#[derive(Debug)]
struct Entry {
    ttl: Duration,
    /// On the runtime's clock.
    deadline: Duration,
    /// Ended: its keys are being deleted, nothing brings it back.
    ended: bool,
}

/// All leases, with their deadlines in order.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    entries: BTreeMap<LeaseId, Entry>,
    deadlines: BTreeSet<(Duration, LeaseId)>,
}

impl Leases {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Adds a lease; the id is new.
    pub(crate) fn grant(&mut self, id: LeaseId, ttl: Duration, now: Duration) {
        let deadline = now + ttl;
        self.entries.insert(id, Entry { ttl, deadline, ended: false });
        self.deadlines.insert((deadline, id));
    }

    /// The time to live of a lease that has not ended.
    pub(crate) fn live(&self, id: LeaseId, now: Duration) -> Option<Duration> {
        self.entries.get(&id).filter(|entry| !entry.ended && now < entry.deadline).map(|entry| entry.ttl)
    }

    /// Starts its time anew; `None` once it has ended.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Duration) -> Option<Duration> {
        let ttl = self.live(id, now)?;
        self.move_deadline(id, now + ttl);
        Some(ttl)
    }

    /// Ends a lease that lives; its keys are still there. Whether it did.
    pub(crate) fn end(&mut self, id: LeaseId, now: Duration) -> bool {
        let lived = self.live(id, now).is_some();
        if lived {
            self.move_deadline(id, now);
            self.mark_ended(id);
        }
        lived
    }

    /// Ends the lease that is longest past its deadline and gives it.
    pub(crate) fn due(&mut self, now: Duration) -> Option<LeaseId> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.mark_ended(id);
        Some(id)
    }

    /// When the next lease ends.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Forgets a lease whose keys are gone.
    pub(crate) fn remove(&mut self, id: LeaseId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.deadlines.remove(&(entry.deadline, id));
        }
    }

    fn move_deadline(&mut self, id: LeaseId, deadline: Duration) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.deadlines.remove(&(entry.deadline, id));
            entry.deadline = deadline;
            self.deadlines.insert((deadline, id));
        }
    }

    fn mark_ended(&mut self, id: LeaseId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.ended = true;
        }
    }
}

#[cfg(test)]
mod tests;
