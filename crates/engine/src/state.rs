//! What the engine knows, under one lock. Critical sections are short and never wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use journal::{CheckpointPointer, Commit, LedgerRun};
use map::{Overlay, Root};
use serde::{Deserialize, Serialize};
use units::{Address, BLOCK_U64, ContainerId, DiskId, Fingerprint, Incarnation, Lba, Seq};

use crate::generation::Generation;

/// One disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) bytes: u64,
    pub(crate) root: Option<Root>,
    pub(crate) overlay: Overlay,
    /// The overlay a checkpoint is merging: still above the root, below `overlay`.
    pub(crate) merging: Option<Arc<Overlay>>,
}

impl Disk {
    pub(crate) fn blocks(&self) -> u64 {
        self.bytes.div_ceil(BLOCK_U64)
    }
}

/// One change of a map, with its address known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MapChange {
    Put(DiskId, Lba, Fingerprint, Address),
    Hole(DiskId, Lba, u64),
}

/// What to do when a commit record becomes durable.
#[derive(Debug)]
pub(crate) struct PendingCommit {
    pub(crate) changes: Vec<MapChange>,
    /// The oldest frozen generation goes.
    pub(crate) ends_generation: bool,
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

/// The boundary of a checkpoint that is being taken, or failed and will be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) commits_before: u64,
    pub(crate) totals: Totals,
}

/// The engine's state.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) disks: BTreeMap<DiskId, Disk>,
    pub(crate) active: Generation,
    pub(crate) frozen: VecDeque<Arc<Generation>>,
    /// Seq behind the last durable record.
    pub(crate) next_seq: Seq,
    /// Every record before it is covered by durable commits.
    pub(crate) covered: Seq,
    pub(crate) commits: Vec<Commit>,
    pub(crate) next_ordinal: u64,
    pub(crate) pending: BTreeMap<ContainerId, PendingCommit>,
    pub(crate) meta: Vec<(Seq, Fingerprint, Vec<u8>)>,
    pub(crate) checkpoint: Option<CheckpointPointer>,
    pub(crate) cut: Option<Cut>,
    pub(crate) ledger: BTreeMap<Incarnation, Vec<(u32, u32)>>,
    pub(crate) totals: Totals,
    /// RAM of generations that are not yet committed.
    pub(crate) buffered_bytes: u64,
    /// Charged by writes that are under way.
    pub(crate) under_way_bytes: u64,
    /// Blocks of writes that are under way: they hold grants too.
    pub(crate) under_way_blocks: u64,
    pub(crate) closed: bool,
    /// What was to be written before the end is written: the flusher ends.
    pub(crate) ended: bool,
    /// Since when metadata finds no room in start records.
    pub(crate) meta_waits_since: Option<std::time::Duration>,
}

impl State {
    /// Ends the active generation.
    pub(crate) fn freeze(&mut self) {
        if self.active.is_empty() {
            return;
        }
        self.active.end = self.next_seq;
        let generation = std::mem::take(&mut self.active);
        self.frozen.push_back(Arc::new(generation));
    }

    /// Map changes since the last checkpoint began.
    pub(crate) fn overlay_entries(&self) -> usize {
        self.disks.values().map(|disk| disk.overlay.len()).sum()
    }

    pub(crate) fn apply(&mut self, change: &MapChange) {
        match *change {
            MapChange::Put(disk, lba, fingerprint, address) => {
                if let Some(disk) = self.disks.get_mut(&disk) {
                    disk.overlay.put(lba, (fingerprint, address));
                }
            }
            MapChange::Hole(disk, lba, count) => {
                if let Some(disk) = self.disks.get_mut(&disk) {
                    disk.overlay.punch(lba, count);
                }
            }
        }
    }

    /// A commit record is durable: the container is part of the site from here on.
    pub(crate) fn commit(&mut self, commit: Commit) {
        self.enter_committed(commit.container);
        self.totals.blocks += u64::from(commit.blocks);
        self.totals.container_bytes += u64::from(commit.total);
        self.totals.raw_bytes += raw_bytes(&commit);
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

    pub(crate) fn is_committed(&self, id: ContainerId) -> bool {
        self.ledger.get(&id.incarnation).is_some_and(|runs| {
            let at = runs.partition_point(|(start, _)| *start <= id.number);
            at > 0 && runs[at - 1].1 > id.number
        })
    }

    pub(crate) fn ledger_runs(&self) -> Vec<LedgerRun> {
        let run = |(incarnation, committed): (&Incarnation, &Vec<(u32, u32)>)| LedgerRun {
            incarnation: *incarnation,
            committed: committed.clone(),
        };
        self.ledger.iter().map(run).collect()
    }

    /// A checkpoint record is durable: what it holds need not be carried any longer.
    pub(crate) fn checkpointed(&mut self, pointer: CheckpointPointer) {
        self.commits.retain(|commit| commit.ordinal >= pointer.commits_before);
        self.meta.retain(|(seq, ..)| *seq >= pointer.meta_before);
        self.checkpoint = Some(pointer);
    }

    /// Whether a checkpoint would hold anything that the last one does not.
    pub(crate) fn changed_since_checkpoint(&self) -> bool {
        let Some(pointer) = &self.checkpoint else { return true };
        self.cut.is_some()
            || self.meta.iter().any(|(seq, ..)| *seq > pointer.meta_before)
            || self.disks.values().any(|disk| !disk.overlay.is_empty() || disk.merging.is_some())
    }

    pub(crate) fn meta_bytes(&self) -> usize {
        self.meta.iter().map(|(_, _, unit)| unit.len() + 32).sum()
    }
}

/// Bytes of all fragments of a container, headers included.
pub(crate) fn raw_bytes(commit: &Commit) -> u64 {
    let Some(class) = pool::CLASSES.get(usize::from(commit.container.class)) else { return 0 };
    let payload = container::fragment_bytes(commit.total as usize, class.k);
    (class.width() * (payload + container::header_bytes(payload))) as u64
}
