//! Which disks clients have open, so that none is deleted, renamed or cut beneath one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use units::DiskId;

/// What clients do with a disk.
#[derive(Debug, Default)]
struct Use {
    /// Handles that clients have on it.
    open: usize,
    /// No new handle is given.
    closed: bool,
    gate: Arc<Gate>,
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

    /// Takes a disk into use; `None` while it is closed.
    pub(crate) fn open(self: &Arc<Self>, disk: DiskId) -> Option<InUse> {
        let mut disks = self.lock();
        let entry = disks.entry(disk).or_default();
        if entry.closed {
            return None;
        }
        entry.open += 1;
        Some(InUse { uses: self.clone(), disk, gate: entry.gate.clone() })
    }

    /// Keeps clients from these disks until the guard goes; `None` when one is in use.
    pub(crate) fn close(self: &Arc<Self>, disks: &[DiskId]) -> Option<Closed> {
        let mut used = self.lock();
        if disks.iter().any(|disk| used.contains_key(disk)) {
            return None;
        }
        used.extend(disks.iter().map(|disk| (*disk, Use { closed: true, ..Use::default() })));
        Some(Closed { uses: self.clone(), disks: disks.to_vec() })
    }

    /// Takes these disks away from their clients, whose handles fail from now on; `None` while a request of theirs is
    /// still under way or another holds the disks closed: ask again.
    pub(crate) fn revoke(self: &Arc<Self>, disks: &[DiskId]) -> Option<Closed> {
        let mut used = self.lock();
        if disks.iter().any(|disk| used.get(disk).is_some_and(|entry| entry.closed)) {
            return None;
        }
        // Every gate, whether or not one of them is still passed.
        let passing =
            disks.iter().filter_map(|disk| used.get(disk)).filter(|entry| !entry.gate.shut()).count();
        if passing > 0 {
            return None;
        }
        for disk in disks {
            used.entry(*disk).or_default().closed = true;
        }
        Some(Closed { uses: self.clone(), disks: disks.to_vec() })
    }

    /// Handles that clients have on a disk.
    pub(crate) fn count(&self, disk: DiskId) -> usize {
        self.lock().get(&disk).map_or(0, |entry| entry.open)
    }
}

/// What a client's requests on a disk pass; shut for good when the disk is taken away.
#[derive(Debug, Default)]
struct Gate {
    passing: AtomicUsize,
    is_shut: AtomicBool,
}

impl Gate {
    /// Lets nothing more pass; true when nothing is under way.
    fn shut(&self) -> bool {
        // One total order of this store and the count: whoever passed is counted here, or sees the gate shut.
        self.is_shut.store(true, Ordering::SeqCst);
        self.passing.load(Ordering::SeqCst) == 0
    }
}

/// A client's handle on a disk.
#[derive(Debug)]
pub(crate) struct InUse {
    uses: Arc<Uses>,
    disk: DiskId,
    gate: Arc<Gate>,
}

impl InUse {
    /// Begins a request; `None` when the disk was taken away. The request ends with the guard.
    pub(crate) fn pass(&self) -> Option<Passing<'_>> {
        self.gate.passing.fetch_add(1, Ordering::SeqCst);
        let passing = Passing { gate: &self.gate };
        (!self.gate.is_shut.load(Ordering::SeqCst)).then_some(passing)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut disks = self.uses.lock();
        if let Some(entry) = disks.get_mut(&self.disk) {
            entry.open -= 1;
            if entry.open == 0 && !entry.closed {
                disks.remove(&self.disk);
            }
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Passing<'a> {
    gate: &'a Gate,
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.gate.passing.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Disks kept from clients.
#[derive(Debug)]
pub(crate) struct Closed {
    uses: Arc<Uses>,
    disks: Vec<DiskId>,
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut used = self.uses.lock();
        for disk in &self.disks {
            if let Some(entry) = used.get_mut(disk) {
                entry.closed = false;
                if entry.open == 0 {
                    used.remove(disk);
                }
            }
        }
    }
}
