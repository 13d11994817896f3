//! Which blocks have writes under way: a write to part of a block must have it alone.
//!
//! A whole-block write shares its range with others: their order is the journal's. A partial write reads, merges and
//! writes; it waits for every write under way on its blocks, and they wait for it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use units::DiskId;

#[derive(Debug)]
struct Held {
    id: u64,
    disk: DiskId,
    start: u64,
    end: u64,
    alone: bool,
}

/// Ranges of blocks with writes under way.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    held: Mutex<(u64, Vec<Held>)>,
    released: Notify,
}

/// A held range; dropping it lets others go on.
pub(crate) struct RangeGuard<'a> {
    ranges: &'a Ranges,
    id: u64,
}

impl Ranges {
    /// Holds the blocks `start .. end` of a disk, alone or shared.
    pub(crate) async fn hold(&self, disk: DiskId, start: u64, end: u64, alone: bool) -> RangeGuard<'_> {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(id) = self.try_hold(disk, start, end, alone) {
                return RangeGuard { ranges: self, id };
            }
            released.await;
        }
    }

    fn try_hold(&self, disk: DiskId, start: u64, end: u64, alone: bool) -> Option<u64> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let conflict = |h: &Held| h.disk == disk && h.start < end && start < h.end && (alone || h.alone);
        if held.1.iter().any(conflict) {
            return None;
        }
        held.0 += 1;
        let id = held.0;
        held.1.push(Held { id, disk, start, end, alone });
        Some(id)
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut held = self.ranges.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.1.retain(|h| h.id != self.id);
        drop(held);
        self.ranges.released.notify_waiters();
    }
}
