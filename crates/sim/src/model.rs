//! The reference model: it knows every write, and judges every read by what a correct disk could return (section 11 of docs/design.md).
//!
//! Writes and reads may run at once. A write of several blocks is atomic per block. A write cut off by a crash
//! happened before the crash or never; one that failed may happen until a write begun later takes effect, or a crash.
//! A read proves what was in effect, so later reads must not go back. Contents tell writes apart; where several
//! writes have the same contents, a read is right when any of them explains it. The model's own clock orders events
//! at the same virtual time, so its calls must come in the order things happen: `begin_` before the operation is
//! sent, the end after its answer is in.
//!
//! What it does not do: it does not judge the order between blocks, so it does not check that a group cut is causal.

mod fill;
mod history;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use units::{BLOCK, BLOCK_U64, DiskId, Lba};

pub use fill::{Contents, Fill};
use history::{Block, Stamp, Wrong};

/// Violations one [`Model::final_check`] reports: the first few tell the story.
const VIOLATIONS_MAX: usize = 16;
/// Other places a [`Violation`] names that hold the contents found.
const ELSEWHERE_MAX: usize = 4;

/// A write known to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(u64);

/// A read that has begun. Until it is checked or abandoned the model forgets nothing it may return.
#[derive(Debug)]
#[must_use]
pub struct ReadId {
    stamp: Stamp,
    at: Duration,
}

/// What is wrong with a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationKind {
    /// The contents were never written to this block: torn, misplaced, or made up.
    NeverWritten,
    /// The contents were written once, but something newer was in effect before the read began.
    Superseded,
    /// A block that was written lies beyond the end of what a final check was given.
    Missing,
}

/// A read that no correct disk could have answered so.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{kind:?}: disk {} lba {}: a read begun #{} {:?}, ended #{} {:?}, found {found}; history of the block:\n  {}",
    disk.0, lba.0, begun.0, begun.1, ended.0, ended.1, history.join("\n  ")
)]
pub struct Violation {
    /// What is wrong.
    pub kind: ViolationKind,
    /// The disk.
    pub disk: DiskId,
    /// The block.
    pub lba: Lba,
    /// When the read began: stamp of the model's clock, virtual time.
    pub begun: (u64, Duration),
    /// When it ended.
    pub ended: (u64, Duration),
    /// The contents, in words.
    pub found: String,
    /// The writes of the block, in words, in the order they began.
    pub history: Vec<String>,
}

struct Span {
    disk: DiskId,
    first: Lba,
    count: u64,
}

/// The reference model of all disks.
pub struct Model {
    fill: Fill,
    zero: u128,
    clock: Stamp,
    values: u64,
    blocks: BTreeMap<(DiskId, Lba), Block>,
    running: BTreeMap<OpId, Span>,
    /// Writes cut off by the last crash of their disk: their answers may still be on the way to the guest.
    cut_off: BTreeMap<OpId, Span>,
    /// Those answers say nothing: see [`Model::doubt`].
    in_doubt: bool,
    reads: BTreeSet<Stamp>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({} blocks written, {} writes running)", self.blocks.len(), self.running.len())
    }
}

impl Model {
    /// A model of disks that hold zeros.
    pub fn new(fill: Fill) -> Self {
        Self {
            fill,
            zero: hash(&[0; BLOCK]),
            clock: 0,
            values: 0,
            blocks: BTreeMap::new(),
            running: BTreeMap::new(),
            cut_off: BTreeMap::new(),
            in_doubt: false,
            reads: BTreeSet::new(),
        }
    }

    /// Contents of a value id not used before: unlike all others, unless the fill makes it a duplicate.
    pub fn next_value(&mut self) -> Contents {
        self.values += 1;
        Contents::Value(self.values)
    }

    /// The bytes of `contents`.
    pub fn bytes(&self, contents: &Contents) -> [u8; BLOCK] {
        match contents {
            Contents::Zero => [0; BLOCK],
            Contents::Value(id) => self.fill.block(*id),
            Contents::Bytes(bytes) => **bytes,
        }
    }

    fn tick(&mut self) -> Stamp {
        self.clock += 1;
        self.clock
    }

    fn oldest_read(&self) -> Stamp {
        self.reads.first().copied().unwrap_or(self.clock + 1)
    }

    /// A write of `contents`, one block each from `first` on, is about to be sent. A trim is a write of zeros.
    pub fn begin_write(&mut self, disk: DiskId, first: Lba, contents: &[Contents], now: Duration) -> OpId {
        let stamp = self.tick();
        for (lba, contents) in (first.0..).zip(contents) {
            let hash = hash(&self.bytes(contents));
            let block = self.blocks.entry((disk, Lba(lba))).or_insert_with(|| Block::new(self.zero));
            block.begin(stamp, contents.clone(), hash, stamp, now);
        }
        let op = OpId(stamp);
        self.running.insert(op, Span { disk, first, count: contents.len() as u64 });
        op
    }

    /// The write was acknowledged. The acknowledgement may arrive after a crash; it happened before it then.
    ///
    /// # Panics
    /// When `op` has ended before.
    pub fn end_write(&mut self, op: OpId, now: Duration) {
        if self.in_doubt && self.cut_off.remove(&op).is_some() {
            return;
        }
        self.finish(op, |block, stamp| block.ack(op.0, stamp, now));
    }

    /// The write returned an error: it may have happened, and may yet happen until it is superseded.
    ///
    /// # Panics
    /// When `op` has ended before.
    pub fn fail_write(&mut self, op: OpId, now: Duration) {
        if self.cut_off.remove(&op).is_some() {
            return; // the crash says more about it
        }
        self.finish(op, |block, stamp| block.fail(op.0, stamp, now));
    }

    fn finish(&mut self, op: OpId, end: impl Fn(&mut Block, Stamp)) {
        let span = self.running.remove(&op).or_else(|| self.cut_off.remove(&op));
        let span = span.expect("a write ends once, and before the crash after the one that cut it off");
        let stamp = self.tick();
        let oldest_read = self.oldest_read();
        for (_, block) in self.blocks.range_mut(span.keys()) {
            end(block, stamp);
            block.prune(oldest_read);
        }
    }

    /// Everything stopped: writes that run are cut off, those that failed will not happen any more if they have not.
    /// Answers still on the way may be given to [`Model::end_write`] until the next crash.
    pub fn crash(&mut self, now: Duration) {
        let disks: BTreeSet<DiskId> = self.blocks.keys().map(|(disk, _)| *disk).collect();
        disks.into_iter().for_each(|disk| self.crash_disk(disk, now));
    }

    /// As [`Model::crash`], for one disk: the node that served it stopped.
    pub fn crash_disk(&mut self, disk: DiskId, now: Duration) {
        let stamp = self.tick();
        self.in_doubt = false;
        self.cut_off.retain(|_, span| span.disk != disk);
        self.cut_off.extend(self.running.extract_if(.., |_, span| span.disk == disk));
        self.blocks.range_mut(whole(disk)).for_each(|(_, block)| block.crash(stamp, now));
    }

    /// More was damaged than the site tolerates: what was acknowledged after `since` may be gone, and what is
    /// acknowledged late. To be told after the crash.
    pub fn doubt(&mut self, since: Duration) {
        self.in_doubt = true;
        self.blocks.values_mut().for_each(|block| block.doubt(since));
    }

    /// A read is about to be sent.
    pub fn begin_read(&mut self, now: Duration) -> ReadId {
        let stamp = self.tick();
        self.reads.insert(stamp);
        ReadId { stamp, at: now }
    }

    /// The read came to nothing: it failed, or its answer was lost.
    pub fn abandon_read(&mut self, read: ReadId) {
        self.reads.remove(&read.stamp);
    }

    /// Judges what a read of whole blocks from `first` on returned.
    ///
    /// # Errors
    /// The first block that no correct disk could have returned.
    ///
    /// # Panics
    /// When `bytes` are not whole blocks.
    pub fn check_read(
        &mut self,
        read: ReadId,
        disk: DiskId,
        first: Lba,
        bytes: &[u8],
        now: Duration,
    ) -> Result<(), Box<Violation>> {
        self.check(read, (disk, first), bytes, now, true)
    }

    /// As [`Model::check_read`], but learns nothing: a site that could not make sure of its last writes yet may
    /// show them later.
    ///
    /// # Errors
    /// As [`Model::check_read`].
    ///
    /// # Panics
    /// As [`Model::check_read`].
    pub fn check_unsettled(
        &mut self,
        read: ReadId,
        disk: DiskId,
        first: Lba,
        bytes: &[u8],
        now: Duration,
    ) -> Result<(), Box<Violation>> {
        self.check(read, (disk, first), bytes, now, false)
    }

    fn check(
        &mut self,
        read: ReadId,
        (disk, first): (DiskId, Lba),
        bytes: &[u8],
        now: Duration,
        learn: bool,
    ) -> Result<(), Box<Violation>> {
        assert!(bytes.len().is_multiple_of(BLOCK), "a read is judged in whole blocks");
        self.reads.remove(&read.stamp);
        let end = self.tick();
        let mut blocks = (first.0..).zip(bytes.chunks_exact(BLOCK));
        blocks
            .try_for_each(|(lba, block)| self.check_block(&read, (disk, Lba(lba)), block, (end, now), learn))
    }

    fn check_block(
        &mut self,
        read: &ReadId,
        key: (DiskId, Lba),
        bytes: &[u8],
        ended: (Stamp, Duration),
        learn: bool,
    ) -> Result<(), Box<Violation>> {
        let hash = hash(bytes);
        let oldest_read = self.oldest_read();
        let wrong = match self.blocks.get_mut(&key) {
            None if hash == self.zero => return Ok(()),
            None => Wrong::NeverWritten,
            Some(block) if !learn => match block.explain(hash, read.stamp) {
                Ok(_) => return Ok(()),
                Err(wrong) => wrong,
            },
            Some(block) => match block.read(hash, read.stamp, ended.0) {
                Ok(()) => {
                    block.prune(oldest_read);
                    return Ok(());
                }
                Err(wrong) => wrong,
            },
        };
        let kind = match wrong {
            Wrong::NeverWritten => ViolationKind::NeverWritten,
            Wrong::Superseded => ViolationKind::Superseded,
        };
        let begun = (read.stamp, read.at);
        let (found, history) = (self.found(key, bytes, hash), self.history(key));
        Err(Box::new(Violation { kind, disk: key.0, lba: key.1, begun, ended, found, history }))
    }

    /// Judges the whole of a disk, read after everything came to rest.
    ///
    /// # Errors
    /// The first 16 violations.
    ///
    /// # Panics
    /// When `bytes` are not whole blocks.
    pub fn final_check(
        &mut self,
        disk: DiskId,
        bytes: &[u8],
        now: Duration,
    ) -> Result<(), Vec<Box<Violation>>> {
        let mut violations = Vec::new();
        for (lba, block) in (0..).zip(bytes.chunks(BLOCK)) {
            let read = self.begin_read(now);
            violations.extend(self.check_read(read, disk, Lba(lba), block, now).err());
            if violations.len() == VIOLATIONS_MAX {
                return Err(violations);
            }
        }
        let end = Lba(bytes.len() as u64 / BLOCK_U64);
        let beyond = self.lbas(disk).find(|lba| *lba >= end);
        violations.extend(beyond.map(|lba| {
            let (kind, at) = (ViolationKind::Missing, (self.clock, now));
            let (found, history) = ("nothing".to_owned(), self.history((disk, lba)));
            Box::new(Violation { kind, disk, lba, begun: at, ended: at, found, history })
        }));
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// The blocks of a disk that were ever written, in order.
    pub fn lbas(&self, disk: DiskId) -> impl Iterator<Item = Lba> {
        self.blocks.range(whole(disk)).map(|((_, lba), _)| *lba)
    }

    /// The contents of a block, when no other are possible for a read that begins now.
    pub fn current_exact(&self, disk: DiskId, lba: Lba) -> Option<[u8; BLOCK]> {
        match self.blocks.get(&(disk, lba)) {
            None => Some([0; BLOCK]),
            Some(block) => block.exact().map(|contents| self.bytes(contents)),
        }
    }

    /// The blocks a write of `bytes` at byte `offset` makes, for [`Model::begin_write`]; `None` when a block it
    /// covers only in part has more than one possible contents now.
    pub fn partial(&self, disk: DiskId, offset: u64, bytes: &[u8]) -> Option<(Lba, Vec<Contents>)> {
        let first = offset / BLOCK_U64;
        let mut contents = Vec::new();
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let start = (at % BLOCK_U64) as usize;
            let count = (BLOCK - start).min(bytes.len() - done);
            let mut block = match count {
                BLOCK => [0; BLOCK],
                _ => self.current_exact(disk, Lba(at / BLOCK_U64))?,
            };
            block[start..start + count].copy_from_slice(&bytes[done..done + count]);
            contents.push(Contents::Bytes(Arc::new(block)));
            done += count;
        }
        Some((Lba(first), contents))
    }

    /// `to` becomes what a cut of `from` may hold that was asked for at `cut` (by [`Model::begin_read`]) and is
    /// complete now: all that was acknowledged before, and of what ran at the time anything.
    pub fn clone_disk(&mut self, from: DiskId, to: DiskId, cut: ReadId, now: Duration) {
        self.forget_disk(to);
        self.reads.remove(&cut.stamp);
        let end = self.tick();
        let source = self.blocks.range(whole(from));
        let copies: Vec<_> =
            source.map(|((_, lba), block)| ((to, *lba), block.at_cut(cut.stamp, end, now))).collect();
        self.blocks.extend(copies);
    }

    /// The disk was deleted: nothing is known of it any more.
    pub fn forget_disk(&mut self, disk: DiskId) {
        self.cut_off.retain(|_, span| span.disk != disk);
        self.running.retain(|_, span| span.disk != disk);
        let keys: Vec<_> = self.blocks.range(whole(disk)).map(|(key, _)| *key).collect();
        for key in keys {
            self.blocks.remove(&key);
        }
    }

    /// The history of a block, in words.
    fn history(&self, key: (DiskId, Lba)) -> Vec<String> {
        let describe = |contents: &Contents| self.fill.describe(&self.bytes(contents));
        self.blocks.get(&key).map_or_else(|| vec!["never written".to_owned()], |block| block.lines(describe))
    }

    /// What was found, and which other blocks know it.
    fn found(&self, key: (DiskId, Lba), bytes: &[u8], hash: u128) -> String {
        let mut found = self.fill.describe(bytes);
        if hash != self.zero {
            let others = self.blocks.iter().filter(|(other, block)| **other != key && block.knows(hash));
            for ((disk, lba), _) in others.take(ELSEWHERE_MAX) {
                found += &format!(", which was written to disk {} lba {}", disk.0, lba.0);
            }
        }
        found
    }
}

impl Span {
    fn keys(&self) -> std::ops::Range<(DiskId, Lba)> {
        (self.disk, self.first)..(self.disk, Lba(self.first.0 + self.count))
    }
}

fn whole(disk: DiskId) -> std::ops::RangeInclusive<(DiskId, Lba)> {
    (disk, Lba(0))..=(disk, Lba(u64::MAX))
}

/// Identity of contents.
fn hash(bytes: &[u8]) -> u128 {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    u128::from_le_bytes(out)
}
