//! Which disks clients have open, so that none is deleted beneath one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use units::DiskId;

/// What stands in the way of deleting or opening a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Open(usize),
    Deleting,
}

/// Disks in use; entries exist only while they are.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    disks: Mutex<BTreeMap<DiskId, Use>>,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DiskId, Use>> {
        // Whole after every statement.
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a disk into use; `None` while it is being deleted.
    pub(crate) fn open(self: &Arc<Self>, disk: DiskId) -> Option<InUse> {
        let mut disks = self.lock();
        match disks.entry(disk).or_insert(Use::Open(0)) {
            Use::Open(count) => *count += 1,
            Use::Deleting => return None,
        }
        Some(InUse { uses: self.clone(), disk })
    }

    /// Keeps clients from these disks until the guard goes; `None` when one is in use.
    pub(crate) fn delete(self: &Arc<Self>, disks: &[DiskId]) -> Option<Deleting> {
        let mut used = self.lock();
        if disks.iter().any(|disk| used.contains_key(disk)) {
            return None;
        }
        used.extend(disks.iter().map(|disk| (*disk, Use::Deleting)));
        Some(Deleting { uses: self.clone(), disks: disks.to_vec() })
    }

    /// Handles that clients have on a disk.
    pub(crate) fn count(&self, disk: DiskId) -> usize {
        match self.lock().get(&disk) {
            Some(Use::Open(count)) => *count,
            _ => 0,
        }
    }
}

/// A client's handle on a disk.
#[derive(Debug)]
pub(crate) struct InUse {
    uses: Arc<Uses>,
    disk: DiskId,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut disks = self.uses.lock();
        match disks.get_mut(&self.disk) {
            Some(Use::Open(count)) if *count > 1 => *count -= 1,
            _ => drop(disks.remove(&self.disk)),
        }
    }
}

/// Disks being deleted.
#[derive(Debug)]
pub(crate) struct Deleting {
    uses: Arc<Uses>,
    disks: Vec<DiskId>,
}

impl Drop for Deleting {
    fn drop(&mut self) {
        let mut used = self.uses.lock();
        for disk in &self.disks {
            used.remove(disk);
        }
    }
}
