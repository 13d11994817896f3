//! Where the map is cut for checkpoints: what did not change since the last one need not be encoded again.
//!
//! A chunk is the keys from one **bound** up to the next. The first bound is the empty key; beyond it, a key is one when
//! its hash says so: the same keys are cut in the same places, in whatever order they came and whoever restores them. A
//! chunk has a stamp that no other state of it had.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::key::Key;

/// One key in so many is a bound unless told otherwise: chunks of some tens of KiB, the records of a VM or snapshot being
/// 100 to 300 bytes.
pub(crate) const KEYS_PER_CHUNK: u64 = 128;

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
    /// The same keys with other bounds.
    pub(crate) fn cut_anew<'a>(&mut self, keys_per_chunk: u64, keys: impl Iterator<Item = &'a Key>) {
        if self.keys != keys_per_chunk.max(1) {
            *self = Self { keys: keys_per_chunk.max(1), last: self.last, ..Self::default() };
            keys.for_each(|key| self.put(key));
        }
    }

    /// A key has come, or its entry has changed.
    pub(crate) fn put(&mut self, key: &Key) {
        if self.is_bound(key.as_bytes()) && !self.stamps.contains_key(key.as_bytes()) {
            // The keys behind it leave the chunk that they were in.
            self.stamp(key.as_bytes());
            self.stamps.insert(key.as_bytes().into(), 0);
        }
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
