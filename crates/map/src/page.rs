//! Pages in RAM.

use serde::{Deserialize, Serialize};
use units::{Address, Fingerprint, Lba};

/// Entries of a page.
pub const FANOUT: u64 = 64;
const FANOUT_BITS: u32 = 6;

/// Where a page or block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a container that has an id.
    Stored(Address),
    /// In a container still being filled: which one, slot, byte offset, bytes.
    Pending {
        /// Count of the containers the sink has filled.
        container: u32,
        /// Slot.
        slot: u16,
        /// Byte offset.
        offset: u32,
        /// Bytes.
        length: u32,
    },
}

/// One entry of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Name of the block or page.
    pub fingerprint: Fingerprint,
    /// Where it lies.
    pub place: Place,
    /// Blocks below: 1 in a leaf.
    pub blocks: u64,
}

/// A page: the entries that are there, in order, and a bit for each of the 64 places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// 0 for a leaf.
    pub level: u8,
    pub(crate) present: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Page {
    /// A page without entries.
    pub fn empty(level: u8) -> Self {
        Self { level, present: 0, entries: Vec::new() }
    }

    /// The entry at place `index` (0 to 63).
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let bit = 1 << index;
        (self.present & bit != 0).then(|| &self.entries[self.rank(bit)])
    }

    /// Sets or clears the entry at place `index`.
    pub fn set(&mut self, index: u64, entry: Option<Entry>) {
        let bit = 1 << index;
        let rank = self.rank(bit);
        match (self.present & bit != 0, entry) {
            (true, Some(entry)) => self.entries[rank] = entry,
            (false, Some(entry)) => {
                self.entries.insert(rank, entry);
                self.present |= bit;
            }
            (true, None) => {
                self.entries.remove(rank);
                self.present &= !bit;
            }
            (false, None) => {}
        }
    }

    /// The entries that are there and their places, in order.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let mut left = self.present;
        self.entries.iter().map(move |entry| {
            let index = u64::from(left.trailing_zeros());
            left &= left.wrapping_sub(1);
            (index, entry)
        })
    }

    /// The entries that are there, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn rank(&self, bit: u64) -> usize {
        (self.present & (bit - 1)).count_ones() as usize
    }

    /// Whether no entry is there.
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// Blocks below this page.
    pub fn blocks(&self) -> u64 {
        self.entries.iter().map(|entry| entry.blocks).sum()
    }

    /// Bytes in RAM, for the cache.
    pub fn ram_bytes(&self) -> u64 {
        (size_of::<Self>() + self.entries.len() * size_of::<Entry>()) as u64
    }
}

/// The top of a disk's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Level of the top page.
    pub level: u8,
    /// Its name.
    pub fingerprint: Fingerprint,
    /// Where it lies.
    pub address: Address,
    /// Blocks in the tree.
    pub blocks: u64,
}

/// Blocks that one entry of a page of `level` stands for.
pub const fn span(level: u8) -> u64 {
    let bits = FANOUT_BITS * level as u32;
    if bits >= 64 { u64::MAX } else { 1 << bits }
}

/// Level of the top page of a disk of `blocks` blocks.
pub const fn height_for(blocks: u64) -> u8 {
    let mut level = 0;
    while level < 10 && span(level).saturating_mul(FANOUT) < blocks {
        level += 1;
    }
    level
}

/// Place of `lba` in a page of `level`.
pub(crate) fn place_of(lba: Lba, level: u8) -> u64 {
    (lba.0 / span(level)) % FANOUT
}
