//! What a read may return.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that change at once or not at all.
pub(crate) const BLOCK: u64 = 4096;

type Block = Arc<[u8]>;

/// A change of a disk.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write { offset: u64, data: Vec<u8> },
    Trim { offset: u64, length: u64 },
    Zero { offset: u64, length: u64 },
}

/// What is known of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged.
    Done,
    /// In flight when the server died, or answered by an error: each block may have changed.
    Maybe,
}

/// A disk: for every block, all that a read may return; the acknowledged contents first.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    size: u64,
    blocks: BTreeMap<u64, Vec<Block>>,
}

impl Change {
    fn range(&self) -> Range<u64> {
        match self {
            Self::Write { offset, data } => *offset..offset + data.len() as u64,
            Self::Trim { offset, length } | Self::Zero { offset, length } => *offset..offset + length,
        }
    }

    /// The block at `start` after the change.
    fn on(&self, start: u64, old: &[u8]) -> Block {
        let range = self.range();
        let (from, to) = (range.start.max(start), range.end.min(start + old.len() as u64));
        let mut new = old.to_vec();
        let part = &mut new[(from - start) as usize..(to - start) as usize];
        match self {
            Self::Write { offset, data } => {
                part.copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
            }
            // A block trimmed in part stays as it is.
            Self::Trim { .. } if part.len() < old.len() => {}
            Self::Trim { .. } | Self::Zero { .. } => part.fill(0),
        }
        new.into()
    }
}

impl Disk {
    /// A disk of zeros.
    pub(crate) fn new(size: u64) -> Self {
        Self { size, blocks: BTreeMap::new() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn block_bytes(&self, number: u64) -> usize {
        (self.size - number * BLOCK).min(BLOCK) as usize
    }

    pub(crate) fn apply(&mut self, change: &Change, outcome: Outcome) {
        let range = change.range();
        for number in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let zeros = || vec![Block::from(vec![0; self.block_bytes(number)])];
            let before = self.blocks.get(&number).cloned().unwrap_or_else(zeros);
            let mut after: Vec<Block> = if outcome == Outcome::Maybe { before.clone() } else { Vec::new() };
            for old in &before {
                let new = change.on(number * BLOCK, old);
                if !after.contains(&new) {
                    after.push(new);
                }
            }
            self.blocks.insert(number, after);
        }
    }

    /// Compares what was read at `offset`, a multiple of the block, with what may be there. With `settle`, what was
    /// read is from now on what must be there.
    pub(crate) fn judge(&mut self, offset: u64, read: &[u8], settle: bool) -> Result<(), String> {
        for (number, found) in (offset / BLOCK..).zip(read.chunks(BLOCK as usize)) {
            let Some(allowed) = self.blocks.get_mut(&number) else {
                if found.iter().any(|byte| *byte != 0) {
                    return Err(format!("block {number} was never written and is {}", id(found)));
                }
                continue;
            };
            let Some(at) = allowed.iter().position(|block| **block == *found) else {
                let allowed: Vec<String> = allowed.iter().map(|block| id(block)).collect();
                return Err(format!("block {number} is {}, not {}", id(found), allowed.join(" or ")));
            };
            if settle {
                *allowed = vec![allowed.swap_remove(at)];
            }
        }
        Ok(())
    }
}

/// A block as its first bytes, where its value's number stands, and a sum over the rest.
fn id(block: &[u8]) -> String {
    let number = u64::from_le_bytes(block[..8].try_into().unwrap());
    let sum = block.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    format!("{number:#x} (sum {sum:08x})")
}

#[test]
fn the_model_tells_old_from_new_and_wrong() {
    let mut disk = Disk::new(3 * BLOCK + 512);
    let write = |offset, byte, length| Change::Write { offset, data: vec![byte; length] };
    disk.apply(&write(0, 1, 8192), Outcome::Done);
    disk.apply(&write(100, 2, 10), Outcome::Maybe);
    let mut old = vec![1; 8192];
    disk.judge(0, &old, false).unwrap();
    let mut new = old.clone();
    new[100..110].fill(2);
    disk.judge(0, &new, true).unwrap();
    disk.judge(0, &old, false).unwrap_err();
    old[0] = 3;
    disk.judge(0, &old, false).unwrap_err();
    // In part: no effect on the first block, all of the second.
    disk.apply(&Change::Trim { offset: 1, length: 8191 }, Outcome::Done);
    new[4096..].fill(0);
    disk.judge(0, &new, false).unwrap();
    disk.apply(&Change::Zero { offset: 0, length: 101 }, Outcome::Done);
    new[..101].fill(0);
    disk.judge(0, &new, false).unwrap();
    disk.apply(&write(3 * BLOCK, 7, 512), Outcome::Done);
    disk.judge(3 * BLOCK, &[7; 512], false).unwrap();
    disk.apply(&Change::Trim { offset: 3 * BLOCK, length: 512 }, Outcome::Done);
    disk.judge(3 * BLOCK, &[0; 512], false).unwrap();
    disk.judge(2 * BLOCK, &[1; 512], false).unwrap_err();
}
