//! The workload: always the same.

use crate::harness::Random;

use super::model::{BLOCK, Change};

/// Disk of the VM that is always there; its last block is not whole.
pub(crate) const MAIN: &str = "web01/disk0";
pub(crate) const MAIN_BYTES: u64 = (6 << 20) + 1536;
/// Made in the middle of the workload.
pub(crate) const NEW: &str = "web02";
pub(crate) const NEW_DISK: &str = "web02/disk0";
pub(crate) const NEW_BYTES: u64 = 1 << 20;
/// Deleted in the middle of the workload.
pub(crate) const OLD: &str = "old01";
pub(crate) const OLD_DISK: &str = "old01/disk0";
pub(crate) const OLD_BYTES: u64 = 1 << 20;

/// The snapshot, and its disk.
pub(crate) const SNAPSHOT: &str = "web01@kept";
pub(crate) const SNAPSHOT_DISK: &str = "web01@kept/disk0";

/// Containers of 128 KiB that the site has when the workload begins: some more, and a checkpoint is due.
const CONTAINERS_BEFORE: u64 = 13;
/// Changes of the workload: enough for eight containers and as many segments.
const CHANGES: u64 = 46;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Change(&'static str, Change),
    Flush,
    Create(&'static str, u64),
    Delete(&'static str),
    /// Makes the snapshot of the VM that is always there.
    Snapshot,
    DeleteSnapshot,
    /// Has the cleaner free all it can.
    Clean,
    /// Has every block opened.
    Verify,
    /// Puts another medium in the place of one.
    Replace,
    /// Sees that it is done: what was begun goes on by itself, and what was not is asked for again.
    Replaced,
    /// Waits until what a lost medium held is made again on others.
    Rebuilt,
}

/// Media that the site begins with.
pub(crate) const MEDIA: usize = 6;
/// Media that a site of that many, or of one more, can lose when it is whole.
pub(crate) const CAN_LOSE: u64 = 2;
/// The medium that leaves or is lost, and the one that comes.
pub(crate) const OLD_MEDIUM: &str = "00.img";
pub(crate) const NEW_MEDIUM: &str = "06.img";

/// Blocks of the value with this number: it stands in front, followed by noise that shrinks a little.
pub(crate) fn value(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + BLOCK as usize);
    let mut part = number << 16;
    while bytes.len() < length {
        let mut block = part.to_le_bytes().to_vec();
        block.extend(Random(part).bytes(BLOCK as usize - 8 - 256));
        block.resize(BLOCK as usize, 0x5a);
        bytes.extend(block);
        part += 1;
    }
    bytes.truncate(length);
    bytes
}

/// What the site holds before the workload.
pub(crate) fn before() -> Vec<Step> {
    let piece = 29 * BLOCK;
    let write =
        |number: u64| Change::Write { offset: number * piece, data: value(number + 1, piece as usize) };
    let mut steps = vec![Step::Create("web01", MAIN_BYTES), Step::Create(OLD, OLD_BYTES)];
    steps.push(Step::Change(OLD_DISK, write(1)));
    steps.extend((1..CONTAINERS_BEFORE).map(|number| Step::Change(MAIN, write(number))));
    steps
}

/// The workload.
pub(crate) fn workload() -> Vec<Step> {
    let mut random = Random(2);
    let mut steps = Vec::new();
    for number in 0..CHANGES {
        match number {
            12 => steps.push(Step::Create(NEW, NEW_BYTES)),
            25 => steps.push(Step::Delete(OLD)),
            _ if number % 16 == 15 => steps.push(Step::Flush),
            _ => {}
        }
        let to_new = number > 12 && number % 8 == 5;
        let (export, size) = if to_new { (NEW_DISK, NEW_BYTES) } else { (MAIN, MAIN_BYTES) };
        steps.push(Step::Change(export, change(&mut random, number, size)));
    }
    steps
}

/// A workload that gives the cleaner much to move and to free: what a snapshot keeps is overwritten, cleaned around,
/// let go and cleaned away.
pub(crate) fn upkeep() -> Vec<Step> {
    let mut random = Random(3);
    // Each a part of what a container has: the rest of it must be moved.
    let overwrite = |random: &mut Random, number: u64| {
        let offset = random.below(MAIN_BYTES / BLOCK - 16) * BLOCK;
        Step::Change(MAIN, Change::Write { offset, data: value(5000 + number, 8 * BLOCK as usize) })
    };
    let mut steps = vec![Step::Snapshot];
    steps.extend((0..8).map(|number| overwrite(&mut random, number)));
    steps.extend([Step::Delete(OLD), Step::Clean]);
    steps.extend((8..16).map(|number| overwrite(&mut random, number)));
    steps.extend([Step::DeleteSnapshot, Step::Clean, overwrite(&mut random, 16), Step::Clean]);
    steps
}

/// A medium is replaced between changes.
pub(crate) fn replacement() -> Vec<Step> {
    let mut random = Random(4);
    let mut change = |number| Step::Change(MAIN, change(&mut random, number, MAIN_BYTES));
    let mut steps: Vec<Step> = (0..6).map(&mut change).collect();
    steps.push(Step::Replace);
    steps.extend((6..9).map(&mut change));
    steps
}

/// What a lost medium held is made again on others between changes.
pub(crate) fn rebuild() -> Vec<Step> {
    let mut random = Random(5);
    let mut change = |number| Step::Change(MAIN, change(&mut random, number, MAIN_BYTES));
    let mut steps: Vec<Step> = (0..6).map(&mut change).collect();
    steps.push(Step::Rebuilt);
    steps.extend((6..9).map(&mut change));
    steps
}

fn change(random: &mut Random, number: u64, size: u64) -> Change {
    // Every fifth repeats the contents of one before it, elsewhere.
    let name = 1000 + if number % 5 == 4 { random.below(number) } else { number };
    let blocks = size / BLOCK;
    let write = |offset, length| Change::Write { offset, data: value(name, length) };
    match number % 9 {
        // A part of a block, or of two.
        0 | 5 => write(random.below(size - 5000), 1 + random.below(4999) as usize),
        // The last block, which is not whole.
        7 if number.is_multiple_of(2) => write(size / BLOCK * BLOCK - 300, 300 + (size % BLOCK) as usize),
        1 | 7 => write(random.below(blocks) * BLOCK, BLOCK as usize),
        // Many blocks; the edges only partly.
        2 | 6 => write(random.below(size - (40 << 12)), (32 << 10) + random.below(32 << 12) as usize),
        4 => {
            let count = 4 + random.below(12);
            write(random.below(blocks - count) * BLOCK, (count * BLOCK) as usize)
        }
        3 => {
            let offset = random.below(size - (96 << 10));
            Change::Trim { offset, length: 1 + random.below(96 << 10) }
        }
        _ => {
            let offset = random.below(size - (48 << 10));
            Change::Zero { offset, length: 1 + random.below(48 << 10) }
        }
    }
}
