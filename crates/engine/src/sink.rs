//! The journal's sink: what became durable becomes visible here, and nowhere else [I2].

use std::sync::{Arc, Weak};

use journal::{Entry, Journal, Registered, Sink, WitnessError, WitnessErrorKind};
use seam::BoxFuture;
use units::{DiskId, Seq};

use crate::clean::is_worth_cleaning;
use crate::engine::Shared;
use crate::generation::Buffered;
use crate::state::{Flushed, State};
use crate::witness::WitnessState;

/// Feeds the engine's state.
pub(crate) struct EngineSink {
    pub(crate) shared: Weak<Shared>,
}

impl Sink for EngineSink {
    fn durable(&self, first: Seq, entries: Vec<Entry>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = shared.lock();
        let limit = shared.config.container_bytes as usize;
        let mut wake_flusher = false;
        for (i, entry) in entries.into_iter().enumerate() {
            let seq = first.plus(i as u64);
            state.next_seq = seq;
            wake_flusher |= apply(&mut state, &shared, seq, entry, limit);
            state.next_seq = seq.plus(1);
        }
        drop(state);
        if wake_flusher {
            shared.flush_wake.notify_one();
        }
    }

    fn start(&self) -> journal::Known {
        let Some(shared) = self.shared.upgrade() else { return journal::Known::default() };
        // A new segment is the moment to see whether the journal fills up.
        shared.flush_wake.notify_one();
        let rows = shared.pool.rows();
        let state = shared.lock();
        let (covered, checkpoint) = (state.covered, state.checkpoint.clone());
        let is_short = state.backlog_bytes() <= shared.config.start_backlog_bytes;
        let backlog = is_short.then(|| state.backlog());
        journal::Known { covered, checkpoint, backlog, rows }
    }

    fn begun(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        // The look that the start record asked for may have been too early, and no later one is asked for.
        if shared.journal.get().is_some_and(Journal::is_full) {
            shared.flush_wake.notify_one();
        }
    }

    fn register(&self, registered: Registered) -> BoxFuture<'_, Result<(), WitnessError>> {
        Box::pin(async move {
            let Some(shared) = self.shared.upgrade() else {
                let reason = "the engine is gone".to_owned();
                return Err(WitnessError { kind: WitnessErrorKind::Superseded, reason });
            };
            let Registered { last, ensembles } = registered;
            shared.witness.store(WitnessState { epoch: shared.epoch, last, ensembles }).await
        })
    }
}

/// Applies one durable record; says whether the flusher has something to do.
fn apply(state: &mut State, shared: &Arc<Shared>, seq: Seq, entry: Entry, limit: usize) -> bool {
    match entry {
        Entry::Write { disk, lba, fingerprint, unit } => {
            let froze = make_room(state, unit.len(), limit);
            buffer(state, disk, |state| state.active.put(disk, lba, Buffered { fingerprint, unit, seq }));
            froze
        }
        Entry::Hole { disk, lba, count } => {
            let froze = make_room(state, 0, limit);
            buffer(state, disk, |state| state.active.punch(disk, lba, count));
            state.trimmed_since_clean = state.trimmed_since_clean.saturating_add(count);
            if is_worth_cleaning(shared, state.trimmed_since_clean) {
                state.may_have_garbage = true;
                shared.clean_wake.notify_one();
            }
            froze
        }
        Entry::Meta { fingerprint, unit } => {
            state.meta.push((seq, fingerprint, unit.to_vec()));
            false
        }
        Entry::Commit(commit) => {
            let pending = state.pending.remove(&commit.container);
            state.commit(commit);
            for Flushed { changes, whole } in pending.into_iter().flat_map(|pending| pending.generations) {
                changes.iter().for_each(|change| state.apply(change));
                state.changed_since_clean += changes.len() as u64;
                state.may_have_garbage = true;
                if !whole {
                    continue;
                }
                if let Some(generation) = state.frozen.pop_front() {
                    state.buffered_bytes -= generation.ram_bytes;
                }
                state.resolve_forks();
                shared.room_wake.notify_waiters();
            }
            true
        }
        Entry::Delete(deleted) => {
            deleted.into_iter().for_each(|deleted| state.delete_container(deleted));
            false
        }
        Entry::Cut(forks) => {
            for fork in forks {
                state.fork(fork.source, fork.target, seq);
            }
            state.has_ripe()
        }
        Entry::Checkpoint(pointer) => {
            state.checkpointed(pointer);
            false
        }
        // Where the backlog stands is the journal's business.
        Entry::Backlog(_) => false,
        Entry::Row(row) => {
            shared.pool.row_journalled(&row);
            false
        }
    }
}

/// Adds to the active generation and keeps the sum of buffered bytes. Records of a deleted disk are dropped.
pub(crate) fn buffer(state: &mut State, disk: DiskId, add: impl FnOnce(&mut State)) {
    if !state.disks.contains_key(&disk) {
        return;
    }
    let before = state.active.ram_bytes;
    add(state);
    state.buffered_bytes += state.active.ram_bytes - before;
}

/// Freezes the active generation when a unit of `unit` bytes does not fit its container any more.
pub(crate) fn make_room(state: &mut State, unit: usize, limit: usize) -> bool {
    if state.active.has_room(unit, limit) {
        return false;
    }
    state.freeze();
    true
}
