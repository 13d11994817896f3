//! Disks that leave, and others that begin as they were or take them into use: never both at once.
//!
//! Whether the record of a disk that leaves is needed for a fork is looked at before the transaction that
//! removes it, and a fork says so behind its own. So a disk does not leave while a fork of it is under way,
//! and no fork begins while its source leaves. What waits for one or the other holds nothing meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use units::DiskId;

/// How many use a disk or have it leave.
#[derive(Debug, Default)]
struct Counts {
    using: usize,
    leaving: usize,
}

/// Disks that are used or leave.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    disks: Mutex<BTreeMap<DiskId, Counts>>,
    over: Notify,
}

/// Keeps disks from leaving, and those that leave from being used.
pub(crate) struct Stay<'a> {
    departures: &'a Departures,
    using: Vec<DiskId>,
    leaving: Vec<DiskId>,
}

impl Departures {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DiskId, Counts>> {
        // Whole after every statement.
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until none of `using` leaves and none of `leaving` is used, but by the caller itself.
    pub(crate) async fn enter(&self, using: Vec<DiskId>, leaving: Vec<DiskId>) -> Stay<'_> {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if self.try_enter(&using, &leaving) {
                return Stay { departures: self, using, leaving };
            }
            over.await;
        }
    }

    fn try_enter(&self, using: &[DiskId], leaving: &[DiskId]) -> bool {
        let mut disks = self.lock();
        let is_left = |disk: &DiskId| disks.get(disk).is_some_and(|counts| counts.leaving > 0);
        let is_used = |disk: &DiskId| disks.get(disk).is_some_and(|counts| counts.using > 0);
        if using.iter().any(is_left) || leaving.iter().any(is_used) {
            return false;
        }
        using.iter().for_each(|disk| disks.entry(*disk).or_default().using += 1);
        leaving.iter().for_each(|disk| disks.entry(*disk).or_default().leaving += 1);
        true
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        let mut disks = self.departures.lock();
        for disk in &self.using {
            disks.entry(*disk).or_default().using -= 1;
        }
        for disk in &self.leaving {
            disks.entry(*disk).or_default().leaving -= 1;
        }
        disks.retain(|_, counts| counts.using + counts.leaving > 0);
        drop(disks);
        self.departures.over.notify_waiters();
    }
}
