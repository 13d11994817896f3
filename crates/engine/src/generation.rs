//! The write buffer: generations of durable blocks that no committed container covers yet.

use std::collections::BTreeMap;

use bytes::Bytes;
use map::Overlay;
use units::{DiskId, Fingerprint, Lba, Seq};

/// RAM a buffered block costs beyond its sealed unit.
const BLOCK_OVERHEAD_BYTES: u64 = 160;
/// What a container needs for a block beside its unit: directory entry and map-log change, worst case.
pub(crate) const BLOCK_DIRECTORY_BYTES: usize = container::ENTRY_BYTES + CHANGE_BYTES;
/// Of these, the change.
pub(crate) const CHANGE_BYTES: usize = 48;
/// What a container needs besides: prelude and the map log's seal.
pub(crate) const CONTAINER_FIXED_BYTES: usize = 512;

/// A block in the write buffer.
#[derive(Debug, Clone)]
pub(crate) struct Buffered {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) unit: Bytes,
    pub(crate) seq: Seq,
}

/// The part of the write buffer that becomes one container.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    pub(crate) disks: BTreeMap<DiskId, Overlay<Buffered>>,
    /// Behind the last record in it.
    pub(crate) end: Seq,
    /// Bytes the container may need.
    pub(crate) container_bytes: usize,
    /// RAM it holds.
    pub(crate) ram_bytes: u64,
    /// Blocks in it.
    pub(crate) blocks: u64,
    /// Hole ranges in it.
    pub(crate) holes: u64,
}

/// Most changes of a container: each takes a place in its map log, and a slot where its block is new.
const CHANGES_MAX: u64 = container::CHANGES_MAX as u64;
const _: () = assert!(container::CHANGES_MAX <= container::SLOTS_MAX);

/// What several generations need of one container.
#[derive(Debug, Default)]
pub(crate) struct Room {
    bytes: usize,
    changes: u64,
}

impl Room {
    pub(crate) fn add(&mut self, generation: &Generation) {
        self.bytes += generation.container_bytes;
        self.changes += generation.changes();
    }

    pub(crate) fn fits(&self, limit: usize) -> bool {
        self.changes <= CHANGES_MAX && CONTAINER_FIXED_BYTES + self.bytes <= limit
    }
}

impl Generation {
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks == 0 && self.holes == 0
    }

    /// Map changes that it makes, at most.
    fn changes(&self) -> u64 {
        self.blocks + self.holes
    }

    /// Whether a record with a unit of `unit` bytes still fits a container of `limit` bytes.
    pub(crate) fn has_room(&self, unit: usize, limit: usize) -> bool {
        self.changes() < CHANGES_MAX
            && CONTAINER_FIXED_BYTES + self.container_bytes + unit + BLOCK_DIRECTORY_BYTES <= limit
    }

    pub(crate) fn put(&mut self, disk: DiskId, lba: Lba, block: Buffered) {
        let unit = block.unit.len();
        // A block written again in the same generation replaces the older one: its room counts until the flush.
        self.container_bytes += unit + BLOCK_DIRECTORY_BYTES;
        self.ram_bytes += unit as u64 + BLOCK_OVERHEAD_BYTES;
        if self.disks.entry(disk).or_default().put(lba, block).is_none() {
            self.blocks += 1;
        }
    }

    pub(crate) fn punch(&mut self, disk: DiskId, lba: Lba, count: u64) {
        self.container_bytes += BLOCK_DIRECTORY_BYTES;
        self.ram_bytes += BLOCK_OVERHEAD_BYTES;
        self.blocks -= self.disks.entry(disk).or_default().punch(lba, count);
        self.holes += 1;
    }
}
