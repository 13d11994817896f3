//! Where the map is cut for checkpoints: what did not change since the last one need not be encoded again.
//!
//! A chunk is the keys from one **bound** up to the next. The first bound is the empty key; beyond it, a key is one when
//! its hash says so, or its value is large: the same entries are cut in the same places, in whatever order they came and
//! whoever restores them, and a change of one large value costs no other. A chunk has a stamp that no other state of it had.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::key::Key;

/// One key in so many is a bound unless told otherwise: chunks of some tens of KiB, the records of a VM or snapshot being
/// 100 to 300 bytes.
pub(crate) const KEYS_PER_CHUNK: u64 = 128;
/// A value of at least this many bytes begins a chunk: far above the record of a VM of some disks.
const LARGE_BYTES: usize = 4096;

/// The chunks of a map.
#[derive(Debug)]
pub(crate) struct Chunks {
    stamps: BTreeMap<Box<[u8]>, u64>,
    last: u64,
    /// One key in so many is a bound.
    keys: u64,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { stamps: BTreeMap::from([(Box::default(), 0)]), last: 0, keys: KEYS_PER_CHUNK }
    }
}

impl Chunks {
    /// The same entries with other bounds: keys, each with the bytes of its value.
    pub(crate) fn cut_anew<'a>(
        &mut self,
        keys_per_chunk: u64,
        entries: impl Iterator<Item = (&'a Key, usize)>,
    ) {
        if self.keys != keys_per_chunk.max(1) {
            *self = Self { keys: keys_per_chunk.max(1), last: self.last, ..Self::default() };
            entries.for_each(|(key, bytes)| self.put(key, bytes));
        }
    }

    /// A key has come with a value of `bytes` bytes, or has another value.
    pub(crate) fn put(&mut self, key: &Key, bytes: usize) {
        let (is_bound, was_bound) =
            (bytes >= LARGE_BYTES || self.is_bound(key.as_bytes()), self.stamps.contains_key(key.as_bytes()));
        match (is_bound, was_bound) {
            (true, false) => {
                // The keys behind it leave the chunk that they were in.
                self.stamp(key.as_bytes());
                self.stamps.insert(key.as_bytes().into(), 0);
            }
            // And join the chunk before.
            (false, true) => drop(self.stamps.remove(key.as_bytes())),
            _ => {}
        }
        self.stamp(key.as_bytes());
    }

    /// What is told of a key beside its value has changed.
    pub(crate) fn touch(&mut self, key: &Key) {
        self.stamp(key.as_bytes());
    }

    /// A key is gone.
    pub(crate) fn remove(&mut self, key: &Key) {
        // Where it was a bound, the keys behind it join the chunk before.
        self.stamps.remove(key.as_bytes());
        self.stamp(key.as_bytes());
    }

    fn stamp(&mut self, key: &[u8]) {
        self.last += 1;
        if let Some((_, stamp)) =
            self.stamps.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
        {
            *stamp = self.last;
        }
    }

    /// Every chunk by its bound, with its stamp.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.stamps.iter().map(|(bound, stamp)| (&**bound, *stamp))
    }

    /// Whether a key begins a chunk: FNV-1a, its bits mixed once more.
    fn is_bound(&self, key: &[u8]) -> bool {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in key {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (hash >> 33).is_multiple_of(self.keys)
    }
}

#[cfg(test)]
mod tests;
