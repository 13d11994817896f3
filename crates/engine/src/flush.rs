//! Flush: frozen generations become committed containers, in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use container::{Builder, Built, Change, UnitKind};
use journal::{JournalError, JournalErrorKind};
use units::{Address, DiskId, Fingerprint, Lba, Map, Seq};

use crate::dedup::Budget;
use crate::engine::{Engine, ToCommit};
use crate::error::{EngineError, EngineErrorKind};
use crate::generation::Generation;
use crate::state::MapChange;

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

/// A container being filled.
#[derive(Default)]
struct Filling {
    builder: Builder,
    /// What is in it.
    here: Map<Fingerprint, u16>,
    budget: Budget,
    blocks: u32,
    block_bytes: u64,
}

type Placed = (DiskId, Lba, Fingerprint, Home);

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
                    if self.shared.lock().closed {
                        // The journal holds it until the next start.
                        return;
                    }
                    self.pause().await;
                    continue;
                }
            }
            wake.await;
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
                engine.pause().await;
            }
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

    async fn pause(&self) {
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
        let pressed = self.shared.journal()?.used_percent() >= PRESSURE_PERCENT;
        let batch = {
            let mut state = self.shared.lock();
            if pressed && !state.has_ripe() {
                state.freeze();
            }
            state.next_batch(self.shared.config.container_bytes as usize)
        };
        if batch.is_empty() {
            if pressed {
                self.relieve_journal().await?;
            }
            return Ok(false);
        }
        self.flush_batch(&batch).await?;
        let covered = self.shared.lock().covered;
        self.shared.journal()?.trim(covered);
        self.shared.pool.refresh_space().await;
        self.clean_when_low();
        Ok(true)
    }

    /// The journal fills up and no write is buffered: metadata, commits and checkpoints fill it. The next start record
    /// tells what they say, so the segments before it go.
    pub(crate) async fn relieve_journal(&self) -> Result<(), EngineError> {
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

    async fn flush_batch(&self, batch: &[Arc<Generation>]) -> Result<(), EngineError> {
        let Some(last) = batch.last() else { return Ok(()) };
        let mut filling = Filling::default();
        let mut placed: Vec<Vec<Placed>> = Vec::new();
        for generation in batch {
            placed.push(self.fill(&mut filling, generation).await);
        }
        let Filling { builder, blocks, block_bytes, .. } = filling;
        let what = ToCommit { builder: &builder, covered: last.end, blocks, block_bytes };
        let changes = |built: &Built| {
            batch
                .iter()
                .zip(&placed)
                .map(|(generation, placed)| map_changes(generation, placed, built))
                .collect()
        };
        let built = self.shared.commit_container(what, changes).await?;
        self.shared.dedup.learn(&built.head, (built.fragment_bytes / units::PAGE) as u16, true);
        Ok(())
    }

    /// Puts a generation into the container: units that are new, and the map log.
    async fn fill(&self, filling: &mut Filling, generation: &Generation) -> Vec<Placed> {
        let Filling { builder, here, budget, blocks, block_bytes } = filling;
        let mut placed: Vec<Placed> = Vec::new();
        // Behind all blocks of this generation and before all of the next.
        let seq = Seq(generation.end.0.saturating_sub(1));
        for (disk, overlay) in &generation.disks {
            // A hole overrules what the maps below say; points that came after it are listed behind it.
            for (start, end) in overlay.holes().iter() {
                builder.change(Change::Hole { disk: *disk, lba: Lba(start), count: end - start, seq });
            }
            for (lba, block) in overlay.points(0, u64::MAX) {
                let fp = block.fingerprint;
                let known = match here.get(&fp) {
                    Some(slot) => Some(Home::Slot(*slot)),
                    None => self.shared.dedup.find(&self.shared.pool, &fp, budget).await.map(Home::Elsewhere),
                };
                let known = known.filter(|home| match home {
                    Home::Elsewhere(address) => self.shared.lock().note_hit(address.container),
                    Home::Slot(_) => true,
                });
                let home = known.unwrap_or_else(|| {
                    let (slot, _) = builder.add(UnitKind::Data, fp, &block.unit);
                    here.insert(fp, slot);
                    *blocks += 1;
                    *block_bytes += block.unit.len() as u64;
                    Home::Slot(slot)
                });
                let (disk, seq) = (*disk, block.seq);
                builder.change(match home {
                    Home::Slot(slot) => Change::Put { disk, lba, seq, slot },
                    Home::Elsewhere(address) => Change::Hit { disk, lba, seq, fingerprint: fp, address },
                });
                placed.push((disk, lba, fp, home));
            }
        }
        placed
    }
}

fn map_changes(generation: &Generation, placed: &[Placed], built: &Built) -> Vec<MapChange> {
    let holes = generation.disks.iter().flat_map(|(disk, overlay)| {
        overlay.holes().iter().map(|(start, end)| MapChange::Hole(*disk, Lba(start), end - start))
    });
    let puts = placed.iter().map(|(disk, lba, fp, home)| {
        let address = match home {
            Home::Slot(slot) => built.address(*slot),
            Home::Elsewhere(address) => *address,
        };
        MapChange::Put(*disk, *lba, *fp, address)
    });
    holes.chain(puts).collect()
}
