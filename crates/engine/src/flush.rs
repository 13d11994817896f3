//! Flush: frozen generations become committed containers, in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use container::{Builder, Built, CHANGE_BYTES_MAX, CHANGES_MAX, Change, PRELUDE_BYTES, UnitKind};
use journal::{JournalError, JournalErrorKind};
use units::{Address, DiskId, Fingerprint, Lba, Map, Seq};

use crate::dedup::Budget;
use crate::engine::{Engine, Shared, ToCommit};
use crate::error::{EngineError, EngineErrorKind};
use crate::generation::{Buffered, CHANGE_BYTES, CONTAINER_FIXED_BYTES, Generation};
use crate::state::{Flushed, MapChange};

/// Pause after a flush that failed: media may come back, room may be made.
const RETRY: Duration = Duration::from_secs(1);
/// From this use of the journal on, whatever is buffered is flushed, full container or not.
const PRESSURE_PERCENT: usize = 50;

/// Where a block of the generation ends up.
#[derive(Clone, Copy)]
enum Home {
    Slot(u16),
    Elsewhere(Address),
}

/// A change of a generation that is in the container.
enum Placed {
    Hole(DiskId, Lba, u64),
    Block(DiskId, Lba, Fingerprint, Home),
}

impl Placed {
    fn change(&self, built: &Built) -> MapChange {
        match *self {
            Self::Hole(disk, lba, count) => MapChange::Hole(disk, lba, count),
            Self::Block(disk, lba, fingerprint, Home::Slot(slot)) => {
                MapChange::Put(disk, lba, fingerprint, built.address(slot))
            }
            Self::Block(disk, lba, fingerprint, Home::Elsewhere(address)) => {
                MapChange::Put(disk, lba, fingerprint, address)
            }
        }
    }
}

/// What the container has of one generation.
#[derive(Default)]
struct Part {
    placed: Vec<Placed>,
    whole: bool,
}

/// A container being filled.
#[derive(Default)]
struct Filling {
    builder: Builder,
    /// What is in it.
    here: Map<Fingerprint, u16>,
    /// Generations of which something is in it, the oldest first.
    parts: Vec<Part>,
    /// Bytes of the map log, at most.
    log_bytes: usize,
    blocks: u32,
    block_bytes: u64,
}

/// Generations on their way into containers.
struct Flushing<'a> {
    shared: &'a Shared,
    /// Most bytes of a container.
    limit: usize,
    filling: Filling,
    budget: Budget,
    /// Behind the last generation that is in containers as a whole.
    covered: Seq,
}

impl Engine {
    /// The flusher's task: ends when the engine is closed and nothing is left.
    pub(crate) async fn run_flusher(self) {
        loop {
            let wake = self.shared.flush_wake.notified();
            tokio::pin!(wake);
            wake.as_mut().enable();
            if self.is_over() {
                return;
            }
            let flushed = self.shared.guarded("flusher", self.flush_once()).await;
            match flushed {
                Ok(any) => {
                    if any {
                        self.shared.set_stuck(None);
                    }
                    self.tell_backlog_when_due();
                    self.checkpoint_when_due().await;
                    if any {
                        continue;
                    }
                }
                Err(error) if error.kind == EngineErrorKind::Closed => {
                    // The journal takes nothing more: whoever waits for a flush waits no longer.
                    self.shared.lock().closed = true;
                    self.shared.clean_wake.notify_one();
                    self.shared.set_stuck(Some(error));
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "flush failed, it will be tried again: the journal holds what was acknowledged");
                    self.shared.set_stuck(Some(error));
                    self.give_up_waiting();
                    // It may be what makes the room that the flush lacks.
                    self.tell_backlog_when_due();
                    self.checkpoint_when_due().await;
                    if self.shared.lock().closed {
                        // The journal holds it until the next start.
                        return;
                    }
                    self.pause().await;
                    continue;
                }
            }
            if self.shared.lock().checkpoint_trouble.is_none() {
                wake.await;
            } else if seam::timeout(&*self.shared.rt, RETRY, wake).await.is_err() {
                // Room that came back below wakes nobody.
                self.shared.pool.refresh_space().await;
            }
        }
    }

    /// Starts a checkpoint beside the flush; waits for it only when the maps in RAM grow to twice their limit.
    async fn checkpoint_when_due(&self) {
        if !self.wants_checkpoint(1) {
            return;
        }
        if self.shared.checkpoint_running.swap(true, Ordering::Relaxed) {
            if self.wants_checkpoint(2) {
                drop(self.shared.checkpointing.lock().await);
            }
            return;
        }
        let engine = self.clone();
        let task = async move {
            let taken = engine.checkpoint_once().await;
            if let Err(error) = &taken {
                tracing::warn!(%error, "checkpoint failed, it will be tried again");
                engine.shared.lock().room_wanted |= error.kind == EngineErrorKind::NoSpace;
                engine.pause().await;
            }
            // What a checkpoint supersedes is garbage too, also where no guest writes.
            engine.clean_when_low();
            // Before the disks are settled: their records may wait until the next checkpoint made room for metadata.
            engine.shared.checkpoint_running.store(false, Ordering::Relaxed);
            engine.shared.flush_wake.notify_one();
            if taken.is_ok() {
                engine.settle().await;
            }
        };
        self.shared.rt.spawn("checkpoint", Box::pin(task));
    }

    /// Writes that wait in a full journal for a flush to make room wait no longer when flushes fail for long.
    fn give_up_waiting(&self) {
        let Some(error) = self.shared.stuck_for_good() else { return };
        let kind = match error.kind {
            EngineErrorKind::NoSpace => JournalErrorKind::NoSpace,
            _ => JournalErrorKind::TooFewMedia,
        };
        let error = JournalError { kind, reason: error.reason };
        if let Some(journal) = self.shared.journal.get() {
            journal.fail_waiting(&error);
        }
    }

    pub(crate) async fn pause(&self) {
        self.shared.rt.sleep(RETRY).await;
        self.shared.pool.refresh_space().await;
    }

    fn is_over(&self) -> bool {
        self.shared.lock().ended
    }

    /// Flushes the oldest frozen generations, as many as fit a container; under pressure the active one is frozen first.
    /// False when there is nothing to do.
    pub(crate) async fn flush_once(&self) -> Result<bool, EngineError> {
        let _gate = self.shared.flush_gate.lock().await;
        let pressed = self.shared.uncovered_percent()? >= PRESSURE_PERCENT;
        let limit = self.shared.container_limit();
        let batch = {
            let mut state = self.shared.lock();
            if pressed && !state.has_ripe() {
                state.freeze();
            }
            state.next_batch(limit)
        };
        if batch.is_empty() {
            if self.shared.journal()?.used_percent() >= PRESSURE_PERCENT {
                self.relieve_journal().await?;
            }
            return Ok(false);
        }
        self.shared.maybe_yield().await;
        let flushed = self.flush_batch(&batch, limit).await;
        // Where a part failed too: the generations before it are in containers.
        let covered = self.shared.lock().covered;
        self.shared.maybe_yield().await;
        self.shared.journal()?.trim(covered);
        match flushed {
            // The room left is in smaller pieces: what is not written yet goes there.
            Err(error) if error.kind == EngineErrorKind::NoSpace => {
                return if self.shared.container_limit() < limit { Ok(true) } else { Err(error) };
            }
            done => done?,
        }
        self.shared.pool.refresh_space().await;
        self.clean_when_low();
        Ok(true)
    }

    /// The journal fills up and no write is buffered: metadata, commits and checkpoints fill it. The next start record, or the
    /// log, tells what they say, so the segments before it go.
    pub(crate) async fn relieve_journal(&self) -> Result<(), EngineError> {
        let is_idle = {
            let state = self.shared.lock();
            state.active.is_empty() && state.frozen.is_empty()
        };
        if is_idle {
            self.shorten_start().await?;
        }
        let (before, covered) = {
            let mut state = self.shared.lock();
            if !state.active.is_empty() || !state.frozen.is_empty() {
                return Ok(());
            }
            let before = state.covered;
            state.covered = state.next_seq;
            (before, state.covered)
        };
        let journal = self.shared.journal()?;
        let gone = || EngineError::new(EngineErrorKind::Closed, "the journal is gone");
        if let Err(error) = journal.rotate().await.map_err(|_| gone())? {
            let mut state = self.shared.lock();
            if state.covered == covered {
                state.covered = before;
            }
            return Err(error.into());
        }
        journal.trim(covered);
        Ok(())
    }

    /// Puts generations into containers: one, where it has room for them all.
    async fn flush_batch(&self, batch: &[Arc<Generation>], limit: usize) -> Result<(), EngineError> {
        let (filling, budget) = (Filling::default(), Budget::default());
        let mut flushing = Flushing { shared: &self.shared, limit, filling, budget, covered: Seq(0) };
        for generation in batch {
            flushing.add(generation).await?;
        }
        flushing.commit().await
    }
}

impl Flushing<'_> {
    /// Puts a generation into the container: units that are new, and the map log. What is full meanwhile is written.
    async fn add(&mut self, generation: &Generation) -> Result<(), EngineError> {
        self.filling.parts.push(Part::default());
        // Behind all blocks of this generation and before all of the next.
        let seq = Seq(generation.end.0.saturating_sub(1));
        for (disk, overlay) in &generation.disks {
            // A hole overrules what the maps below say; points that came after it are listed behind it.
            for (start, end) in overlay.holes().iter() {
                self.make_room(0).await?;
                let (disk, lba, count) = (*disk, Lba(start), end - start);
                self.put(Change::Hole { disk, lba, count, seq }, Placed::Hole(disk, lba, count));
            }
            for (lba, block) in overlay.points(0, u64::MAX) {
                self.add_block(*disk, lba, block).await?;
            }
        }
        if let Some(part) = self.filling.parts.last_mut() {
            part.whole = true;
        }
        self.covered = generation.end;
        Ok(())
    }

    async fn add_block(&mut self, disk: DiskId, lba: Lba, block: &Buffered) -> Result<(), EngineError> {
        let Buffered { fingerprint, unit, seq } = block;
        let (fingerprint, seq) = (*fingerprint, *seq);
        self.make_room(unit.len()).await?;
        let known = match self.filling.here.get(&fingerprint) {
            Some(slot) => Some(Home::Slot(*slot)),
            None => {
                let found = self.shared.dedup.find(&self.shared.pool, &fingerprint, &mut self.budget).await;
                self.shared.maybe_yield().await;
                found.map(Home::Elsewhere)
            }
        };
        let known = known.filter(|home| match home {
            Home::Elsewhere(address) => self.shared.lock().note_hit(address.container),
            Home::Slot(_) => true,
        });
        let home = known.unwrap_or_else(|| {
            let filling = &mut self.filling;
            let (slot, _) = filling.builder.add(UnitKind::Data, fingerprint, unit);
            filling.here.insert(fingerprint, slot);
            filling.blocks += 1;
            filling.block_bytes += unit.len() as u64;
            Home::Slot(slot)
        });
        let change = match home {
            Home::Slot(slot) => Change::Put { disk, lba, seq, slot },
            Home::Elsewhere(address) => Change::Hit { disk, lba, seq, fingerprint, address },
        };
        self.put(change, Placed::Block(disk, lba, fingerprint, home));
        Ok(())
    }

    fn put(&mut self, change: Change, placed: Placed) {
        self.filling.log_bytes += match change {
            Change::Hit { .. } => CHANGE_BYTES_MAX,
            Change::Put { .. } | Change::Hole { .. } => CHANGE_BYTES,
        };
        self.filling.builder.change(change);
        if let Some(part) = self.filling.parts.last_mut() {
            part.placed.push(placed);
        }
    }

    /// Writes the container when it takes no further change with a unit of `unit` bytes, and goes on with the generation
    /// in the next.
    async fn make_room(&mut self, unit: usize) -> Result<(), EngineError> {
        let builder = &self.filling.builder;
        let changes = builder.changes().len();
        // No more than generations count, so that one that fits is not cut.
        let slack = CONTAINER_FIXED_BYTES - PRELUDE_BYTES + self.filling.log_bytes + CHANGE_BYTES;
        if changes == 0 || changes < CHANGES_MAX && builder.has_room(1, slack + unit, self.limit) {
            return Ok(());
        }
        self.commit().await?;
        self.filling.parts.push(Part::default());
        Ok(())
    }

    /// Writes the container being filled.
    async fn commit(&mut self) -> Result<(), EngineError> {
        let Filling { builder, parts, blocks, block_bytes, .. } = std::mem::take(&mut self.filling);
        let what = ToCommit { builder: &builder, covered: self.covered, blocks, block_bytes };
        let changes = |built: &Built| {
            let flushed = |Part { placed, whole }: Part| Flushed {
                changes: placed.iter().map(|placed| placed.change(built)).collect(),
                whole,
            };
            parts.into_iter().map(flushed).collect()
        };
        let built = self.shared.commit_container(what, changes).await?;
        self.shared.dedup.learn(&built.head, (built.fragment_bytes / units::PAGE) as u16, true);
        Ok(())
    }
}
