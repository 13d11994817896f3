//! The cleaner: mark, then sweep (DESIGN 6).
//!
//! ```text
//!  gate ─ note hits from here ─ S0: committed, covered by a checkpoint ─ roots ─ mark ─ gate ─ condemn the unhit
//!                                                                                   │
//!       free fragments ◄─ delete record ◄─ stub durable ◄─ live units in new containers committed
//! ```
//! Vocabulary: a **candidate** is a container of S0 with garbage in it. **Condemned** gives no hits any more.
//!
//! Invariants: nothing reachable is condemned but what is moved first [I7]; an address resolves at every step [I6].
//! A flush holds the gate from its first hit until its commit is applied, so at the gate every hit is noted. Roots
//! are taken at one instant, in RAM and in the records, while no fork, deletion or settling is under way; what is
//! reached later begins there, or is in new containers, or was hit. `crates/models` checks these rules.
//! Containers that recovery reads (the last checkpoint's pieces, map logs behind it) are no candidates.
//!
//! Crash rules: copies without a stub are garbage of the next cycle; a stub beside a container that is still there
//! leads to the same bytes; fragments behind a delete record are freed by the next start.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use container::{Builder, Head, UnitKind};
use index::Holder;
use journal::{Deleted, Entry};
use map::encode_page;
use meta::Txn;
use seal::Kind;
use units::{ContainerId, PAGE, Seq};

use crate::dedup::read_head;
use crate::engine::{Engine, ToCommit};
use crate::error::{EngineError, EngineErrorKind};
use crate::mark::{Marked, Slots};
use crate::pages::{open_page, seal_page};
use crate::state::Size;
use crate::stubs;

/// Pause between looks at whether the start has found all containers.
const INDEXING_PAUSE: Duration = Duration::from_millis(100);
/// Delete records appended together.
const DELETES_AT_ONCE: usize = 64;
/// Deletions after which a checkpoint takes over what start records carry of them.
const DELETED_MAX: usize = 512;
/// Room in a container for a unit that is moved: a page sealed anew may be a little longer.
const SLACK_BYTES: usize = 4096;

/// What a cycle did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanReport {
    /// Containers looked at.
    pub containers: u64,
    /// Map pages walked.
    pub pages: u64,
    /// Containers deleted.
    pub deleted: u64,
    /// Those of them with something live, which was moved.
    pub moved: u64,
    /// Bytes moved.
    pub moved_bytes: u64,
    /// Bytes of containers freed, before parity, less what was moved.
    pub freed_bytes: u64,
    /// Candidates that duplicates were found in meanwhile.
    pub spared: u64,
    /// Stubs no longer needed.
    pub stubs_removed: u64,
}

/// A condemned container.
struct Condemned {
    container: ContainerId,
    size: Size,
    live: Option<Slots>,
}

/// The cleaner begins when less than this share of the pool is left to be written.
const LOW_PERCENT: u64 = 20;
/// And goes on until so much is, each time with containers that hold less garbage.
const ENOUGH_PERCENT: u64 = 30;
/// Least garbage of the containers that are emptied, one cycle after the other.
const STEPS: [u8; 3] = [50, 20, 5];
/// Pause between passes, and at least as long as the last took: a mark reads all metadata that is not in RAM.
const REST: Duration = Duration::from_secs(1);
/// Rest behind a pass that freed less than one part in so many of the pool: on a full pool without garbage the cleaner is
/// at work for one part of the time in so many. The deletion of a disk ends it.
const LONG_REST: Duration = Duration::from_secs(60);
const WORTHWHILE_SHARE: u64 = 100;
const IDLE_FACTOR: u32 = 20;

impl Engine {
    /// The task that cleans when room gets low; ends with the engine.
    pub(crate) async fn run_cleaner(self) {
        loop {
            self.shared.clean_wake.notified().await;
            if self.shared.lock().closed {
                return;
            }
            let begun = self.shared.rt.now();
            self.shared.lock().disks_deleted = false;
            let Ok(freed) = self.clean_until_enough().await else { return };
            let took = self.shared.rt.now().saturating_sub(begun);
            let capacity = self.shared.pool.space().raw_capacity;
            let rest =
                if freed * WORTHWHILE_SHARE >= capacity { took } else { LONG_REST.max(took * IDLE_FACTOR) };
            self.rest(rest.max(REST)).await;
            self.clean_when_low();
        }
    }

    /// Cycles until enough room is left or nothing is found any more; gives the bytes freed, or an error when the engine
    /// is closed.
    async fn clean_until_enough(&self) -> Result<u64, EngineError> {
        let (mut freed, mut deleted) = (0, 0);
        for percent in STEPS {
            if self.has_room_left(ENOUGH_PERCENT) || !self.shared.lock().may_have_garbage {
                return Ok(freed);
            }
            match self.clean(percent).await {
                Ok(report) => {
                    tracing::info!(percent, ?report, "cleaned");
                    freed += report.freed_bytes.saturating_sub(report.moved_bytes);
                    deleted += report.deleted;
                }
                Err(error) if error.kind == EngineErrorKind::Closed => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the cleaner will try again");
                    return Ok(freed);
                }
            }
        }
        if deleted == 0 {
            self.shared.lock().may_have_garbage = false;
            self.shared.room_wake.notify_waiters();
        }
        Ok(freed)
    }

    /// Waits until the rest is over, disks were deleted or the engine is closed.
    async fn rest(&self, span: Duration) {
        let until = self.shared.rt.now() + span;
        loop {
            let left = until.saturating_sub(self.shared.rt.now());
            let is_wanted = {
                let state = self.shared.lock();
                state.closed || state.disks_deleted
            };
            if left.is_zero() || is_wanted {
                return;
            }
            let woken = seam::timeout(&*self.shared.rt, left, self.shared.clean_wake.notified()).await;
            if woken.is_ok() && self.shared.lock().closed {
                self.shared.clean_wake.notify_one();
            }
        }
    }

    /// Has the cleaner look whether there is something to do.
    pub(crate) fn clean_when_low(&self) {
        if !self.has_room_left(LOW_PERCENT) {
            self.shared.clean_wake.notify_one();
        }
    }

    fn has_room_left(&self, percent: u64) -> bool {
        let space = self.shared.pool.space();
        let left = u128::from(self.shared.left(&self.shared.lock()));
        // What is used is counted with parity and what is left without: as shares of a whole they compare.
        let whole = u128::from(space.raw_capacity);
        let free = whole.saturating_sub(u128::from(space.raw_used));
        let usable = u128::from(space.usable()).max(1);
        left * free * 100 >= whole * usable * u128::from(percent)
    }

    /// Runs a whole cycle: containers of which at least `garbage_percent` of the slots are garbage are emptied and
    /// deleted, those with nothing live in any case. One cycle runs at a time.
    ///
    /// # Errors
    /// When something cannot be read, moved or recorded; what was done until then stands, the next cycle goes on.
    pub async fn clean(&self, garbage_percent: u8) -> Result<CleanReport, EngineError> {
        let _turn = self.shared.cleaning.lock().await;
        self.check_writable()?;
        // Until then nobody knows which containers there are.
        while self.is_indexing() {
            if self.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            self.shared.rt.sleep(INDEXING_PAUSE).await;
        }
        self.shared.dedup.forget_condemned();
        self.show_garbage().await?;
        {
            let _gate = self.shared.flush_gate.lock().await;
            self.shared.lock().hits = Some(BTreeSet::new());
        }
        let swept = self.cycle(garbage_percent).await;
        self.shared.lock().hits = None;
        self.shared.pool.refresh_space().await;
        self.shared.room_wake.notify_waiters();
        swept
    }

    /// A checkpoint: what it takes over is no longer needed for recovery. Where there is no room for one, what is garbage
    /// already makes some.
    async fn show_garbage(&self) -> Result<(), EngineError> {
        if !self.shared.lock().changed_since_checkpoint() {
            return Ok(());
        }
        match self.take_checkpoint().await {
            Err(error) if error.kind == EngineErrorKind::NoSpace => {
                tracing::warn!(%error, "the cleaner begins without a checkpoint");
                Ok(())
            }
            done => done,
        }
    }

    async fn cycle(&self, garbage_percent: u8) -> Result<CleanReport, EngineError> {
        let candidates = self.shared.lock().candidates();
        let stubs: Vec<ContainerId> = self.shared.lock().stubs.keys().copied().collect();
        let marked = self.mark().await?;
        let mut report = CleanReport {
            containers: candidates.len() as u64,
            pages: marked.pages,
            ..CleanReport::default()
        };
        report.stubs_removed = self.remove_stubs(&stubs, &marked).await?;
        let chosen = self.choose(&candidates, &marked, garbage_percent).await;
        let condemned = self.condemn(chosen, &mut report).await;
        let swept = self.sweep(&condemned, &mut report).await;
        // What could not be deleted may give hits again.
        let left: Vec<ContainerId> = condemned.iter().map(|condemned| condemned.container).collect();
        {
            let state = self.shared.lock();
            left.iter().filter(|id| state.is_committed(**id)).for_each(|id| self.shared.dedup.pardon(*id));
        }
        swept?;
        if self.shared.lock().deleted.len() >= DELETED_MAX {
            self.take_checkpoint().await?;
        }
        Ok(report)
    }

    /// Stubs that were there before the mark and that it did not meet go.
    async fn remove_stubs(&self, known: &[ContainerId], marked: &Marked) -> Result<u64, EngineError> {
        let free: Vec<ContainerId> =
            known.iter().filter(|stub| !marked.met.contains(stub)).copied().collect();
        for some in free.chunks(DELETES_AT_ONCE) {
            let then = some.iter().map(|stub| stubs::delete(*stub)).collect::<Result<Vec<_>, _>>()?;
            self.meta().txn(Txn { then, ..Txn::default() }).await?;
            let mut state = self.shared.lock();
            some.iter().for_each(|stub| drop(state.stubs.remove(stub)));
            // A read may still be on its way with what it found before the mark.
            state.deletions += 1;
        }
        Ok(free.len() as u64)
    }

    /// Candidates with enough garbage: those with nothing live first.
    async fn choose(&self, candidates: &[ContainerId], marked: &Marked, percent: u8) -> Vec<Condemned> {
        let mut chosen = Vec::new();
        for container in candidates {
            let live = marked.live.get(container).cloned();
            let Some(size) = self.size(*container).await else { continue };
            let count = live.as_ref().map_or(0, Slots::count);
            let garbage = u64::from(size.entries.saturating_sub(count)) * 100;
            let enough = garbage > 0 && garbage >= u64::from(percent) * u64::from(size.entries);
            if count == 0 || enough {
                chosen.push((count, Condemned { container: *container, size, live }));
            }
        }
        chosen.sort_by_key(|(count, condemned)| (*count, condemned.container));
        chosen.into_iter().map(|(_, condemned)| condemned).collect()
    }

    async fn size(&self, container: ContainerId) -> Option<Size> {
        if let Some(size) = self.shared.lock().sizes.get(&container) {
            return Some(*size);
        }
        let pages = self.shared.pool.fragment_pages_of(container).await?;
        let size = size_of(&read_head(&self.shared.pool, container, pages).await?);
        self.shared.lock().sizes.insert(container, size);
        Some(size)
    }

    /// The second barrier: what a duplicate was found in since the cycle began is spared, the rest gives no hit from
    /// here on.
    async fn condemn(&self, chosen: Vec<Condemned>, report: &mut CleanReport) -> Vec<Condemned> {
        let _gate = self.shared.flush_gate.lock().await;
        let mut state = self.shared.lock();
        let mut needed = state.hits.take().unwrap_or_default();
        needed.extend(state.anchored());
        let (spared, condemned): (Vec<Condemned>, Vec<Condemned>) =
            chosen.into_iter().partition(|chosen| needed.contains(&chosen.container));
        report.spared = spared.len() as u64;
        condemned.iter().for_each(|condemned| self.shared.dedup.condemn(condemned.container));
        condemned
    }

    async fn sweep(&self, condemned: &[Condemned], report: &mut CleanReport) -> Result<(), EngineError> {
        let (dead, alive): (Vec<&Condemned>, Vec<&Condemned>) =
            condemned.iter().partition(|condemned| condemned.live.is_none());
        for some in dead.chunks(DELETES_AT_ONCE) {
            self.delete_containers(some, report).await?;
        }
        let mut moving = Moving::default();
        for condemned in alive {
            let first = moving.written.len();
            self.move_live(condemned, &mut moving, report).await?;
            moving.whole.push_back(Whole { condemned, first, last: moving.written.len() });
            // Room for what comes next is made as soon as it can be.
            self.publish(&mut moving, report).await?;
        }
        self.write_moved(&mut moving).await?;
        self.publish(&mut moving, report).await
    }

    /// Copies what is live in a container, opened and checked, into the container being filled.
    async fn move_live<'a>(
        &self,
        condemned: &'a Condemned,
        moving: &mut Moving<'a>,
        report: &mut CleanReport,
    ) -> Result<(), EngineError> {
        let id = condemned.container;
        let lost = |what: &str| EngineError::new(EngineErrorKind::Lost, format!("container {id}: {what}"));
        let pool = &self.shared.pool;
        let pages = pool.fragment_pages_of(id).await.ok_or_else(|| lost("no fragment is within reach"))?;
        let head = read_head(pool, id, pages).await.ok_or_else(|| lost("its directory is lost"))?;
        let live = condemned.live.as_ref();
        for (slot, entry) in head.entries.iter().enumerate() {
            let slot = slot as u16;
            if !live.is_some_and(|live| live.contains(slot)) {
                continue;
            }
            if self.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            let limit = self.shared.config.container_bytes as usize;
            if !moving.builder.has_room(1, entry.length as usize + SLACK_BYTES, limit) {
                self.write_moved(moving).await?;
            }
            let address = head.address(slot, pages).ok_or_else(|| lost("its directory makes no sense"))?;
            let sealer = &self.shared.sealer;
            let mut unit: Option<Vec<u8>> = None;
            let mut check = |bytes: &[u8]| {
                let mut plain = Vec::new();
                unit = match entry.kind {
                    UnitKind::Data => sealer
                        .open(Kind::Data, entry.fingerprint, bytes, &mut plain)
                        .ok()
                        .map(|_| bytes.to_vec()),
                    UnitKind::Page(level) => {
                        // Pages say where in their own container others lie: they are sealed anew.
                        open_page(sealer, level, entry.fingerprint, &address, bytes)
                            .map(|page| seal_page(sealer, level, &encode_page(&page, &|_| None)).1)
                    }
                    UnitKind::Meta => None,
                };
                unit.is_some()
            };
            pool.read_unit(&address, &mut check).await?;
            let unit = unit.ok_or_else(|| lost("a unit cannot be opened"))?;
            moving.builder.add(entry.kind, entry.fingerprint, &unit);
            if entry.kind == UnitKind::Data {
                moving.blocks += 1;
                moving.block_bytes += unit.len() as u64;
            }
            report.moved_bytes += unit.len() as u64;
        }
        Ok(())
    }

    async fn write_moved(&self, moving: &mut Moving<'_>) -> Result<(), EngineError> {
        if moving.builder.is_empty() {
            return Ok(());
        }
        let builder = std::mem::take(&mut moving.builder);
        let (blocks, block_bytes) =
            (std::mem::take(&mut moving.blocks), std::mem::take(&mut moving.block_bytes));
        let what = ToCommit { builder: &builder, covered: Seq(0), blocks, block_bytes };
        let built = self.shared.commit_container(what, |_| Vec::new()).await?;
        let fragment_pages = (built.fragment_bytes / PAGE) as u16;
        self.shared.dedup.learn(&built.head, fragment_pages, true);
        moving.written.push(Holder { container: built.head.container, fragment_pages });
        Ok(())
    }

    /// Containers whose live contents are all committed elsewhere get their stubs and go.
    async fn publish(&self, moving: &mut Moving<'_>, report: &mut CleanReport) -> Result<(), EngineError> {
        let mut stubbed: Vec<&Condemned> = Vec::new();
        while let Some(whole) = moving.whole.pop_front_if(|whole| whole.last < moving.written.len()) {
            let to = &moving.written[whole.first..=whole.last];
            let from = whole.condemned.container;
            let mut changed = self.shared.lock().led_on(from, to);
            changed.push((from, to.to_vec()));
            for stub in changed.chunks(DELETES_AT_ONCE) {
                let then = stub.iter().map(|(from, to)| stubs::put(*from, to));
                let then = then.collect::<Result<Vec<_>, _>>()?;
                self.meta().txn(Txn { then, ..Txn::default() }).await?;
                let mut state = self.shared.lock();
                state.stubs.extend(stub.iter().cloned());
                // A read on its way may look for what nothing reaches any more.
                state.deletions += 1;
            }
            stubbed.push(whole.condemned);
        }
        for some in stubbed.chunks(DELETES_AT_ONCE) {
            self.delete_containers(some, report).await?;
            report.moved += some.len() as u64;
        }
        Ok(())
    }

    async fn delete_containers(
        &self,
        doomed: &[&Condemned],
        report: &mut CleanReport,
    ) -> Result<(), EngineError> {
        let deleted: Vec<Deleted> = doomed
            .iter()
            .map(|doomed| Deleted {
                container: doomed.container,
                total: doomed.size.total,
                blocks: doomed.size.blocks,
            })
            .collect();
        {
            // A checkpoint's totals have a deletion or not, as the order of their records says.
            let _turn = self.shared.checkpointing.lock().await;
            let append = self.shared.journal()?.append_control(vec![Entry::Delete(deleted.clone())]);
            match append.await {
                Ok(result) => result?,
                Err(_) => return Err(EngineError::new(EngineErrorKind::Closed, "the journal is gone")),
            };
        }
        for deleted in &deleted {
            self.shared.pool.delete(deleted.container).await;
            report.deleted += 1;
            report.freed_bytes += u64::from(deleted.total);
        }
        self.shared.pool.refresh_space().await;
        self.shared.room_wake.notify_waiters();
        Ok(())
    }
}

/// What is being moved.
#[derive(Default)]
struct Moving<'a> {
    builder: Builder,
    blocks: u32,
    block_bytes: u64,
    /// Containers written.
    written: Vec<Holder>,
    /// Containers all of whose live contents are in `written` and `builder`, the oldest first.
    whole: VecDeque<Whole<'a>>,
}

/// A container that was copied to those written from `first` to `last`.
struct Whole<'a> {
    condemned: &'a Condemned,
    first: usize,
    last: usize,
}

/// What the head of a container says of its size.
pub(crate) fn size_of(head: &Head) -> Size {
    let blocks = head.entries.iter().filter(|entry| entry.kind == UnitKind::Data).count() as u32;
    Size { total: head.total, entries: head.entries.len() as u32, blocks }
}

impl crate::state::State {
    /// Committed containers that recovery does not need.
    fn candidates(&self) -> Vec<ContainerId> {
        let anchored = self.anchored();
        let known = self.sizes.keys().copied();
        known.filter(|id| self.is_committed(*id) && !anchored.contains(id)).collect()
    }

    /// Containers that recovery reads: pieces of the last checkpoint, and map logs behind it.
    fn anchored(&self) -> BTreeSet<ContainerId> {
        let pieces = self.checkpoint.iter().flat_map(|pointer| &pointer.pieces);
        let pieces = pieces.map(|piece| piece.address.container);
        pieces.chain(self.commits.iter().map(|commit| commit.container)).collect()
    }
}
