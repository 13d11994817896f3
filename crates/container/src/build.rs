//! Putting a container together.

use seal::{Kind, Sealer};
use units::{Address, ContainerId, Fingerprint, PAGE, PageBuf, PageSlice, crc32c};

use crate::{
    CHANGES_MAX, Change, ENTRY_BYTES, Entry, Head, MapLog, PRELUDE_BYTES, SLOTS_MAX, UnitKind, fragment_bytes,
};

/// Collects units and changes; gives the same container for any id and geometry, so that a write that failed can
/// be repeated under a new id.
#[derive(Debug, Default)]
pub struct Builder {
    entries: Vec<Entry>,
    units: Vec<u8>,
    changes: Vec<Change>,
}

/// A container ready to be cut into fragments.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its head.
    pub head: Head,
    /// k * F bytes: the container, padded with zeros.
    pub bytes: PageSlice,
    /// F: payload bytes of each fragment.
    pub fragment_bytes: usize,
}

impl Built {
    /// The address of a slot.
    ///
    /// # Panics
    /// When the builder gave no such slot: a bug of the caller.
    pub fn address(&self, slot: u16) -> Address {
        self.head.address(slot, (self.fragment_bytes / PAGE) as u16).expect("the builder gave this slot")
    }
}

impl Builder {
    /// An empty container.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sealed unit and gives its slot and its byte offset in the container.
    ///
    /// # Panics
    /// When the container has no slot left: the caller checks [`Builder::has_room`] first.
    pub fn add(&mut self, kind: UnitKind, fingerprint: Fingerprint, unit: &[u8]) -> (u16, u32) {
        assert!(self.entries.len() < SLOTS_MAX, "a container has at most {SLOTS_MAX} slots");
        let slot = self.entries.len() as u16;
        let offset = (PRELUDE_BYTES + self.units.len()) as u32;
        let length = unit.len() as u32;
        self.entries.push(Entry { fingerprint, offset, length, crc: crc32c(unit), kind, origin: slot });
        self.units.extend_from_slice(unit);
        (slot, offset)
    }

    /// Adds a map change.
    ///
    /// # Panics
    /// When the map log takes no more: the caller adds [`CHANGES_MAX`] changes at most.
    pub fn change(&mut self, change: Change) {
        assert!(self.changes.len() < CHANGES_MAX, "a map log has at most {CHANGES_MAX} changes");
        self.changes.push(change);
    }

    /// The changes so far.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.changes.is_empty()
    }

    /// Bytes of units and directory so far.
    pub fn bytes(&self) -> usize {
        PRELUDE_BYTES + self.entries.len() * ENTRY_BYTES + self.units.len()
    }

    /// Whether `units` more units of `bytes` bytes in all keep the container below `limit` bytes and its slots.
    pub fn has_room(&self, units: usize, bytes: usize, limit: usize) -> bool {
        self.entries.len() + units <= SLOTS_MAX && self.bytes() + units * ENTRY_BYTES + bytes <= limit
    }

    /// The container under `id`, padded for `k` data fragments.
    pub fn build(&self, id: ContainerId, k: usize, sealer: &Sealer) -> Built {
        let mut map_log_unit = Vec::new();
        let mut map_log = Fingerprint::default();
        if !self.changes.is_empty() {
            let plain = MapLog::new(self.changes.clone()).encode();
            map_log = sealer.fingerprint(Kind::MapLog, &plain);
            sealer.seal(Kind::MapLog, map_log, &plain, &mut map_log_unit);
        }
        let units_end = PRELUDE_BYTES + self.units.len();
        let total = units_end + self.entries.len() * ENTRY_BYTES + map_log_unit.len();
        let entries = self.entries.clone();
        let map_log_bytes = map_log_unit.len() as u32;
        let head = Head { container: id, total: total as u32, entries, map_log_bytes, map_log };
        let fragment = fragment_bytes(total, k);
        let mut buf = PageBuf::zeroed(fragment * k);
        let out = buf.as_mut();
        out[PRELUDE_BYTES..units_end].copy_from_slice(&self.units);
        out[total - map_log_unit.len()..total].copy_from_slice(&map_log_unit);
        head.encode_into(&mut out[..total]);
        Built { head, bytes: buf.share(), fragment_bytes: fragment }
    }
}
