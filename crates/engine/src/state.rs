//! What the engine knows, under one lock. Critical sections are short and never wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use index::Holder;
use journal::{CheckpointPointer, Commit, Deleted, LedgerRun, MetaPiece};
use map::{Overlay, Root};
use serde::{Deserialize, Serialize};
use units::{Address, ContainerId, DiskId, Fingerprint, Incarnation, Lba, Seq};

use crate::disk::{Disk, Layer};
use crate::generation::{Generation, Room};

/// Generations that cuts froze before they are flushed: a read looks into each.
const FROZEN_MAX: usize = 16;

/// One change of a map, with its address known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MapChange {
    Put(DiskId, Lba, Fingerprint, Address),
    Hole(DiskId, Lba, u64),
}

/// What to do when a commit record becomes durable.
#[derive(Debug)]
pub(crate) struct PendingCommit {
    /// What of each generation is in it, oldest first.
    pub(crate) generations: Vec<Flushed>,
}

/// What a container has of a generation.
#[derive(Debug)]
pub(crate) struct Flushed {
    pub(crate) changes: Vec<MapChange>,
    /// With it all of the generation is in containers: it goes.
    pub(crate) whole: bool,
}

/// A committed container, as its commit record has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes.
    pub(crate) total: u32,
    /// Slots.
    pub(crate) entries: u32,
    /// Blocks of guest data.
    pub(crate) blocks: u32,
}

/// Totals over all committed containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Blocks of guest data stored.
    pub(crate) blocks: u64,
    /// Bytes of containers: reduced, before parity.
    pub(crate) container_bytes: u64,
    /// Bytes of fragments: with parity and headers.
    pub(crate) raw_bytes: u64,
}

/// A disk as a checkpoint takes it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) disk: DiskId,
    pub(crate) root: Option<Root>,
    pub(crate) layers: Vec<Arc<Layer>>,
    pub(crate) blocks: u64,
}

/// The boundary of a checkpoint that is being taken, or failed and will be tried again.
#[derive(Debug)]
pub(crate) struct Boundary {
    pub(crate) commits_before: u64,
    /// Seq of the first record behind it.
    pub(crate) seq: Seq,
    pub(crate) totals: Totals,
    /// The disks, those with fewer layers first: what a disk shares with others is merged once.
    pub(crate) parts: Vec<Part>,
    /// Map changes that the layers held when it was drawn.
    pub(crate) entries: usize,
    /// Deletions that the totals count.
    pub(crate) deleted: usize,
}

/// The engine's state.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) disks: BTreeMap<DiskId, Disk>,
    pub(crate) active: Generation,
    pub(crate) frozen: VecDeque<Arc<Generation>>,
    /// Frozen generations that end here or before are to be flushed; the others may wait for more.
    pub(crate) ripe: Seq,
    /// Entries of all overlays.
    pub(crate) overlaid: usize,
    /// Entries of all layers.
    pub(crate) layered: Arc<AtomicUsize>,
    /// Disks whose record says what they began as, with the disk whose changes before a cut that needs.
    pub(crate) unsettled: BTreeMap<DiskId, Option<DiskId>>,
    /// Deleted disks whose record stays until those that began as them are settled.
    pub(crate) tombstones: BTreeSet<DiskId>,
    /// Seq behind the last durable record.
    pub(crate) next_seq: Seq,
    /// Every record before it is covered by durable commits.
    pub(crate) covered: Seq,
    pub(crate) commits: Vec<Commit>,
    pub(crate) next_ordinal: u64,
    pub(crate) pending: BTreeMap<ContainerId, PendingCommit>,
    pub(crate) meta: Vec<(Seq, Fingerprint, Vec<u8>)>,
    pub(crate) checkpoint: Option<CheckpointPointer>,
    /// Every piece that reading the last checkpoint takes: the object's, and those of its list.
    pub(crate) pieces: Arc<[MetaPiece]>,
    /// The same for checkpoints whose record was sent to the journal.
    pub(crate) coming: Vec<(CheckpointPointer, Arc<[MetaPiece]>)>,
    /// Backlogs in the log that recovery may read.
    pub(crate) backlogs: Vec<crate::backlog::Kept>,
    pub(crate) boundary: Option<Arc<Boundary>>,
    /// Containers deleted since the last checkpoint.
    pub(crate) deleted: Vec<Deleted>,
    /// Something changed since the cleaner last found nothing to free.
    pub(crate) may_have_garbage: bool,
    /// Disks were deleted since the cleaner last began.
    pub(crate) disks_deleted: bool,
    /// A write waits for room since the cleaner last began.
    pub(crate) room_wanted: bool,
    /// When the cleaner last made room.
    pub(crate) room_made: Duration,
    /// Map changes since then: each may have made a block garbage.
    pub(crate) changed_since_clean: u64,
    /// Blocks trimmed since then, those in the write buffer too.
    pub(crate) trimmed_since_clean: u64,
    /// Bytes of containers that nothing reached and the cleaner left when it last looked, those not worth the move; `None` where
    /// disks were deleted since.
    pub(crate) garbage_left: Option<u64>,
    /// Roots as the last checkpoint lists them: recovery begins there.
    pub(crate) listed: BTreeMap<DiskId, Root>,
    /// Count of deletions, moves and removed stubs: what an address led to before may be gone.
    pub(crate) deletions: u64,
    /// Numbers of containers of this incarnation that are being written, or whose commit may be found or not behind a crash.
    pub(crate) undecided: BTreeSet<u32>,
    /// Rows, by class and number, that the cleaner empties whatever their garbage: nothing of theirs stays.
    pub(crate) emptying: BTreeSet<(u8, u16)>,
    /// Deleted containers that media kept as the cleaner last looked.
    pub(crate) locked_garbage: BTreeSet<ContainerId>,
    /// What is known of committed containers.
    pub(crate) sizes: BTreeMap<ContainerId, Size>,
    /// Committed containers that media list and whose directory could not be read.
    pub(crate) unread: BTreeSet<ContainerId>,
    /// Where the contents of deleted containers went.
    pub(crate) stubs: BTreeMap<ContainerId, Vec<Holder>>,
    /// While the cleaner marks: containers that duplicates were found in.
    pub(crate) hits: Option<BTreeSet<ContainerId>>,
    pub(crate) ledger: BTreeMap<Incarnation, Vec<(u32, u32)>>,
    /// Containers that may hold units of a retired key epoch.
    pub(crate) retiring: crate::reseal::Ends,
    pub(crate) totals: Totals,
    /// RAM of generations that are not yet committed.
    pub(crate) buffered_bytes: u64,
    /// Charged by writes that are under way.
    pub(crate) under_way_bytes: u64,
    /// Blocks of writes that are under way: they hold grants too.
    pub(crate) under_way_blocks: u64,
    /// What the opening found lost.
    pub(crate) doubt: crate::losses::Doubt,
    pub(crate) closed: bool,
    /// What was to be written before the end is written: the flusher ends.
    pub(crate) ended: bool,
    /// What kept the cleaner from containers when it last looked.
    pub(crate) cleaning_blocked: Option<crate::kept::Blocked>,
    /// Why the last checkpoint failed.
    pub(crate) checkpoint_trouble: Option<crate::error::EngineError>,
    /// Since when metadata finds no room in the journal.
    pub(crate) meta_waits_since: Option<std::time::Duration>,
}

impl State {
    /// Ends the active generation: all that is buffered now is to be flushed.
    pub(crate) fn freeze(&mut self) {
        self.end_generation(self.next_seq);
        if let Some(last) = self.frozen.back() {
            self.ripe = last.end;
        }
    }

    /// Ends the active generation at a cut: all in it is before the cut. Alone it may be too little for a container.
    pub(crate) fn freeze_at(&mut self, cut: Seq) {
        self.end_generation(cut);
        if self.frozen.len() > FROZEN_MAX {
            self.freeze();
        }
    }

    fn end_generation(&mut self, end: Seq) {
        if self.active.is_empty() {
            return;
        }
        self.active.end = end;
        let generation = std::mem::take(&mut self.active);
        self.frozen.push_back(Arc::new(generation));
    }

    /// Whether a generation is to be flushed.
    pub(crate) fn has_ripe(&self) -> bool {
        self.frozen.front().is_some_and(|generation| generation.end <= self.ripe)
    }

    /// What goes into the next container of `limit` bytes: generations, oldest first, of which the first is ripe.
    pub(crate) fn next_batch(&self, limit: usize) -> Vec<Arc<Generation>> {
        let mut batch: Vec<Arc<Generation>> = Vec::new();
        let mut room = Room::default();
        for generation in &self.frozen {
            room.add(generation);
            if batch.is_empty() && generation.end > self.ripe || !batch.is_empty() && !room.fits(limit) {
                break;
            }
            batch.push(generation.clone());
        }
        batch
    }

    /// Map changes that no finished checkpoint has.
    pub(crate) fn map_changes(&self) -> usize {
        self.overlaid + self.layered.load(Ordering::Relaxed)
    }

    /// Those that no checkpoint under way has either.
    pub(crate) fn new_map_changes(&self) -> usize {
        let taken = self.boundary.as_ref().map_or(0, |boundary| boundary.entries);
        self.map_changes().saturating_sub(taken)
    }

    pub(crate) fn apply(&mut self, change: &MapChange) {
        match *change {
            MapChange::Put(disk, lba, fingerprint, address) => self.change(disk, |overlay| {
                overlay.put(lba, (fingerprint, address));
            }),
            MapChange::Hole(disk, lba, count) => self.change(disk, |overlay| {
                overlay.punch(lba, count);
            }),
        }
    }

    fn change(&mut self, disk: DiskId, change: impl FnOnce(&mut Overlay)) {
        let Some(disk) = self.disks.get_mut(&disk) else { return };
        let before = disk.overlay.len();
        change(&mut disk.overlay);
        self.overlaid = self.overlaid + disk.overlay.len() - before;
    }

    /// A commit record is durable: the container is part of the site from here on.
    pub(crate) fn commit(&mut self, commit: Commit) {
        self.enter_committed(commit.container);
        self.totals.blocks += u64::from(commit.blocks);
        self.totals.container_bytes += u64::from(commit.total);
        self.totals.raw_bytes += raw_bytes(commit.container, commit.total);
        let Commit { total, entries, blocks, .. } = commit;
        self.sizes.insert(commit.container, Size { total, entries, blocks });
        self.covered = self.covered.max(commit.covered);
        self.next_ordinal = self.next_ordinal.max(commit.ordinal + 1);
        self.commits.push(commit);
    }

    /// Notes a container as committed.
    pub(crate) fn enter_committed(&mut self, id: ContainerId) {
        let runs = self.ledger.entry(id.incarnation).or_default();
        let number = id.number;
        let at = runs.partition_point(|(start, _)| *start <= number);
        if at > 0 && runs[at - 1].1 > number {
            return;
        }
        let joins_before = at > 0 && runs[at - 1].1 == number;
        let joins_behind = at < runs.len() && runs[at].0 == number + 1;
        match (joins_before, joins_behind) {
            (true, true) => {
                runs[at - 1].1 = runs[at].1;
                runs.remove(at);
            }
            (true, false) => runs[at - 1].1 = number + 1,
            (false, true) => runs[at].0 = number,
            (false, false) => runs.insert(at, (number, number + 1)),
        }
    }

    /// A duplicate was found in a container; false when it does not count, because the container retires.
    pub(crate) fn note_hit(&mut self, container: ContainerId) -> bool {
        if !self.retiring.is_empty() && self.is_retiring(container) {
            return false;
        }
        if let Some(hits) = &mut self.hits {
            hits.insert(container);
        }
        true
    }

    /// A delete record is durable.
    pub(crate) fn delete_container(&mut self, deleted: Deleted) {
        let Deleted { container, total, blocks } = deleted;
        if !self.leave_committed(container) {
            return;
        }
        self.sizes.remove(&container);
        self.unread.remove(&container);
        self.deletions += 1;
        self.uncount(&deleted);
        tracing::debug!(%container, total, blocks, "container deleted");
        self.deleted.push(deleted);
    }

    /// Takes a container out of the totals.
    pub(crate) fn uncount(&mut self, deleted: &Deleted) {
        let Deleted { container, total, blocks } = *deleted;
        self.totals.blocks = self.totals.blocks.saturating_sub(u64::from(blocks));
        self.totals.container_bytes = self.totals.container_bytes.saturating_sub(u64::from(total));
        self.totals.raw_bytes = self.totals.raw_bytes.saturating_sub(raw_bytes(container, total));
    }

    /// Takes a container out of the ledger; false when it was not there.
    pub(crate) fn leave_committed(&mut self, id: ContainerId) -> bool {
        let Some(runs) = self.ledger.get_mut(&id.incarnation) else { return false };
        let at = runs.partition_point(|(start, _)| *start <= id.number);
        let Some(run) = at.checked_sub(1).and_then(|at| runs.get_mut(at)) else { return false };
        let (start, end) = *run;
        if end <= id.number {
            return false;
        }
        run.1 = id.number;
        let is_empty = run.0 == run.1;
        if id.number + 1 < end {
            runs.insert(at, (id.number + 1, end));
        }
        if is_empty && start == id.number {
            runs.remove(at - 1);
        }
        if runs.is_empty() {
            self.ledger.remove(&id.incarnation);
        }
        true
    }

    /// What is known of a container, as long as it is committed.
    pub(crate) fn learn_size(&mut self, container: ContainerId, size: Size) {
        if self.is_committed(container) {
            self.unread.remove(&container);
            self.sizes.insert(container, size);
        }
    }

    /// A committed container is there, and what it holds is not known.
    pub(crate) fn learn_unread(&mut self, container: ContainerId) {
        if self.is_committed(container) && !self.sizes.contains_key(&container) {
            self.unread.insert(container);
        }
    }

    /// Whether a container is of a row that is being emptied.
    pub(crate) fn is_emptying(&self, id: ContainerId) -> bool {
        self.emptying.contains(&(id.class, id.row))
    }

    pub(crate) fn is_committed(&self, id: ContainerId) -> bool {
        self.has_committed(id.incarnation, id.number)
    }

    /// Whether the container of this number of an incarnation is committed.
    pub(crate) fn has_committed(&self, incarnation: Incarnation, number: u32) -> bool {
        self.ledger.get(&incarnation).is_some_and(|runs| {
            let at = runs.partition_point(|(start, _)| *start <= number);
            at > 0 && runs[at - 1].1 > number
        })
    }

    pub(crate) fn ledger_runs(&self) -> Vec<LedgerRun> {
        let run = |(incarnation, committed): (&Incarnation, &Vec<(u32, u32)>)| LedgerRun {
            incarnation: *incarnation,
            committed: committed.clone(),
        };
        self.ledger.iter().map(run).collect()
    }

    /// Behind the last committed container of each incarnation.
    pub(crate) fn ledger_ends(&self) -> BTreeMap<Incarnation, u32> {
        let end = |(incarnation, runs): (&Incarnation, &Vec<(u32, u32)>)| {
            runs.last().map(|(_, end)| (*incarnation, *end))
        };
        self.ledger.iter().filter_map(end).collect()
    }

    /// A checkpoint record is durable: what it holds need not be carried any longer.
    pub(crate) fn checkpointed(&mut self, pointer: CheckpointPointer) {
        self.commits.retain(|commit| commit.ordinal >= pointer.commits_before);
        self.meta.retain(|(seq, ..)| *seq >= pointer.meta_before);
        self.deleted.clear();
        self.may_have_garbage = true;
        let superseded: u64 = self.pieces.iter().map(|piece| u64::from(piece.address.length)).sum();
        self.changed_since_clean += superseded / units::BLOCK_U64;
        let coming = self.coming.iter().position(|(coming, _)| *coming == pointer);
        if let Some((_, pieces)) = coming.and_then(|at| self.coming.drain(..=at).next_back()) {
            self.pieces = pieces;
        }
        self.checkpoint = Some(pointer);
    }

    /// Whether a checkpoint would hold anything that the last one does not.
    pub(crate) fn changed_since_checkpoint(&self) -> bool {
        let Some(pointer) = &self.checkpoint else { return true };
        self.boundary.is_some()
            || self.meta.iter().any(|(seq, ..)| *seq >= pointer.meta_before)
            || self.map_changes() > 0
    }

    pub(crate) fn meta_bytes(&self) -> usize {
        self.meta.iter().map(|(_, _, unit)| unit.len() + 32).sum()
    }
}

/// Bytes of all fragments of a container, headers included.
pub(crate) fn raw_bytes(container: ContainerId, total: u32) -> u64 {
    let Some(class) = pool::CLASSES.get(usize::from(container.class)) else { return 0 };
    let payload = container::fragment_bytes(total as usize, class.k);
    (class.width() * (payload + container::header_bytes(payload))) as u64
}
