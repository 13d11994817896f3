//! The cleaner: mark, then sweep (section 6.2 of docs/design.md).
//!
//! ```text
//!  gate ─ note hits from here ─ S0: committed, covered by a checkpoint ─ roots ─ mark ─ gate ─ condemn the unhit
//!                                                                                   │
//!       free fragments ◄─ delete record ◄─ stub durable ◄─ live units in new containers committed
//! ```
//! Vocabulary: a **candidate** is a container of S0 with garbage in it, or a small one among many. **Condemned** gives no hits any more.
//!
//! Invariants: nothing reachable is condemned but what is moved first [I7]; an address resolves at every step [I6].
//! A flush holds the gate from its first hit until its commit is applied, so at the gate every hit is noted. Roots
//! are taken at one instant, in RAM and in the records, while no fork, deletion or settling is under way; what is
//! reached later begins there, or is in new containers, or was hit. `crates/models` checks these rules.
//! Containers that recovery reads (the last checkpoint's pieces, map logs behind it) are no candidates. Those that a medium
//! has locked are emptied only with their row: what is live in them is locked in its new place first, and the media keep
//! what is left until its time.
//!
//! Where a map page is lost for good, what it may have named is left alone ([`crate::kept`]): chosen for other reasons than
//! garbage, as when its row is emptied, it is moved as a whole.
//!
//! Crash rules: copies without a stub are garbage of the next cycle; a stub beside a container that is still there
//! leads to the same bytes; fragments behind a delete record are freed by the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use container::{Head, UnitKind};
use units::{BLOCK_U64, ContainerId};

use crate::dedup::read_head;
use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::mark::{Marked, Slots};
use crate::outcome::TURNSTILE_BYTES;
use crate::progress::Progress;
use crate::state::Size;
use crate::stubs;

/// Pause between looks at whether the start has found all containers.
const INDEXING_PAUSE: Duration = Duration::from_millis(100);
/// Deletions after which a checkpoint takes them over.
const DELETED_MAX: usize = 512;

/// A container is small when it has at most one part in so many of the bytes that one may have.
const SMALL_SHARE: u64 = 4;
/// So many small containers are made into few: media have room for a number of fragments too, and each costs a request
/// when it is read or checked.
const MERGED_LEAST: usize = 8;

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
pub(crate) struct Condemned {
    pub(crate) container: ContainerId,
    pub(crate) size: Size,
    pub(crate) live: Option<Slots>,
    /// All of it moves but what is lost: nobody knows what of it is live.
    pub(crate) whole: bool,
    /// The media keep it until then, ms; 0 when it is not locked.
    pub(crate) locked_until_ms: u64,
}

/// Which containers a cycle empties.
pub(crate) struct Choice<'a> {
    /// Those of which at least so much is garbage, percent of the slots.
    pub(crate) garbage_percent: u8,
    /// And these, whatever is in them.
    pub(crate) also: &'a (dyn Fn(ContainerId) -> bool + Send + Sync),
    /// These also when a medium has them locked.
    pub(crate) also_locked: bool,
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

/// Whether so many blocks that may have become garbage are worth a pass where room is short.
pub(crate) fn is_worth_cleaning(shared: &Shared, blocks: u64) -> bool {
    let capacity = shared.pool.space().raw_capacity;
    let least = (capacity / WORTHWHILE_SHARE).max(u64::from(shared.config.container_bytes));
    blocks.saturating_mul(BLOCK_U64) >= least
}

impl Engine {
    /// The task that cleans when room gets low; ends with the engine.
    pub(crate) async fn run_cleaner(self) {
        loop {
            self.shared.clean_wake.notified().await;
            if self.shared.lock().closed {
                return;
            }
            if self.has_room_left(ENOUGH_PERCENT) {
                continue;
            }
            let begun = self.shared.rt.now();
            {
                let mut state = self.shared.lock();
                (state.disks_deleted, state.room_wanted) = (false, false);
                (state.changed_since_clean, state.trimmed_since_clean) = (0, 0);
            }
            let Ok(freed) = self.clean_until_enough().await else { return };
            let took = self.shared.rt.now().saturating_sub(begun);
            let capacity = self.shared.pool.space().raw_capacity;
            let rest = match freed {
                Some(freed) if freed * WORTHWHILE_SHARE >= capacity => took,
                Some(_) => LONG_REST.max(took * IDLE_FACTOR),
                // Soon enough for a write that waits for room.
                None => took.min(self.shared.config.write_patience / 4),
            };
            self.rest(rest.max(REST), took.max(REST)).await;
            self.clean_when_low();
        }
    }

    /// Cycles until enough room is left or nothing is found any more; gives the bytes freed, `None` when a cycle failed, or
    /// an error when the engine is closed.
    async fn clean_until_enough(&self) -> Result<Option<u64>, EngineError> {
        let (mut freed, mut deleted) = (0, 0);
        for percent in STEPS {
            if self.has_room_left(ENOUGH_PERCENT) || !self.shared.lock().may_have_garbage {
                return Ok(Some(freed));
            }
            let progress = Progress::default();
            match self.shared.guarded("cleaner", self.clean(percent, &progress)).await {
                Ok(report) => {
                    tracing::info!(percent, ?report, "cleaned");
                    freed += report.freed_bytes.saturating_sub(report.moved_bytes);
                    deleted += report.deleted;
                }
                Err(error) if error.kind == EngineErrorKind::Closed => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the cleaner will try again");
                    if error.kind == EngineErrorKind::Bug {
                        // It may have ended between a deletion and what that frees.
                        self.reconcile(&self.up()).await;
                    }
                    return Ok(None);
                }
            }
        }
        if deleted == 0 {
            self.shared.lock().may_have_garbage = false;
            self.shared.room_wake.notify_waiters();
        }
        Ok(Some(freed))
    }

    /// Waits until the rest is over, disks were deleted, a write waits for room that overwriting may have made, so much was
    /// trimmed or overwritten that a pass is worth it and `least` has passed, or the engine is closed.
    async fn rest(&self, span: Duration, least: Duration) {
        let begun = self.shared.rt.now();
        let until = begun + span;
        loop {
            let now = self.shared.rt.now();
            let is_rested = now >= begun + least;
            let next = if is_rested { until } else { begun + least };
            let left = next.saturating_sub(now);
            let is_wanted = {
                let state = self.shared.lock();
                let overwritten = state.changed_since_clean * BLOCK_U64;
                let is_worth_it = overwritten >= u64::from(self.shared.config.container_bytes);
                let changed = state.changed_since_clean.max(state.trimmed_since_clean);
                state.closed
                    || state.disks_deleted
                    || (state.room_wanted && is_worth_it)
                    || (is_rested && is_worth_cleaning(&self.shared, changed))
            };
            if now >= until || is_wanted {
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

    pub(crate) fn has_room_left(&self, percent: u64) -> bool {
        let space = self.shared.pool.space();
        let left = u128::from(self.shared.left(&self.shared.lock()));
        // What is used is counted with parity and what is left without: as shares of a whole they compare.
        let whole = u128::from(space.raw_capacity);
        let free = whole.saturating_sub(u128::from(space.raw_used));
        let usable = u128::from(space.usable()).max(1);
        left * free * 100 >= whole * usable * u128::from(percent)
    }

    /// Runs a whole cycle: containers of which at least `garbage_percent` of the slots are garbage are emptied and
    /// deleted, those with nothing live in any case, and small ones where there are many. One cycle runs at a time.
    /// `progress` counts bytes: of map pages, while what is reached is looked for among all that is stored, and then of the
    /// containers that are chosen.
    ///
    /// # Errors
    /// `Cancelled`; when something cannot be read, moved or recorded. What was done until then stands, the next cycle goes
    /// on.
    pub async fn clean(&self, garbage_percent: u8, progress: &Progress) -> Result<CleanReport, EngineError> {
        self.clean_chosen(&Choice { garbage_percent, also: &|_| false, also_locked: false }, progress).await
    }

    /// [`Engine::clean`] of the containers that are chosen so.
    pub(crate) async fn clean_chosen(
        &self,
        choice: &Choice<'_>,
        progress: &Progress,
    ) -> Result<CleanReport, EngineError> {
        self.expect_all(progress);
        let _turn = self.shared.cleaning.lock().await;
        self.check_writable()?;
        // Until then nobody knows which containers there are.
        while self.is_indexing() {
            if self.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            progress.check()?;
            self.shared.rt.sleep(INDEXING_PAUSE).await;
        }
        self.shared.dedup.forget_condemned();
        self.flush_trims().await?;
        self.show_garbage().await?;
        {
            let _gate = self.shared.flush_gate.lock().await;
            self.shared.lock().hits = Some(BTreeSet::new());
        }
        let swept = self.cycle(choice, progress).await;
        self.shared.lock().hits = None;
        self.shared.pool.refresh_space().await;
        self.shared.room_wake.notify_waiters();
        swept
    }

    /// What is trimmed in the write buffer alone is still data to a mark: it goes to a container first. Where that finds no
    /// room, what is garbage already makes some.
    async fn flush_trims(&self) -> Result<(), EngineError> {
        let is_trimmed = {
            let state = self.shared.lock();
            let mut generations = state.frozen.iter().map(|frozen| &**frozen).chain([&state.active]);
            generations.any(|generation| generation.holes > 0)
        };
        if !is_trimmed {
            return Ok(());
        }
        match self.drain().await {
            Err(error) if error.kind == EngineErrorKind::NoSpace => {
                tracing::warn!(%error, "the cleaner begins before the write buffer is flushed");
                Ok(())
            }
            done => done,
        }
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

    async fn cycle(&self, choice: &Choice<'_>, progress: &Progress) -> Result<CleanReport, EngineError> {
        let locked = self.shared.pool.locks().await;
        self.free_unlocked(&locked).await;
        let mut candidates = self.shared.lock().candidates();
        // A deletion of what the media keep frees nothing: only whoever wants the row empty wants it.
        let is_spared =
            |id: &ContainerId| locked.contains_key(id) && !(choice.also_locked && (choice.also)(*id));
        candidates.retain(|container| !is_spared(container));
        self.shared.maybe_yield().await;
        let stubs: Vec<ContainerId> = self.shared.lock().stubs.keys().copied().collect();
        self.shared.maybe_yield().await;
        let mut marked = self.mark(progress).await?;
        let kept = self.keep_named(&mut marked);
        let mut report = CleanReport {
            containers: candidates.len() as u64,
            pages: marked.pages,
            ..CleanReport::default()
        };
        report.stubs_removed = self.remove_stubs(&stubs, &marked).await?;
        let (chosen, garbage) = self.choose(&candidates, (&marked, &kept), choice, &locked).await;
        self.shared.maybe_yield().await;
        let condemned = self.condemn(chosen, &mut report).await;
        self.shared.maybe_yield().await;
        let swept = self.sweep(&condemned, &mut report, progress).await;
        let freed = report.freed_bytes.saturating_sub(report.moved_bytes);
        self.shared.lock().garbage_left = Some(garbage.saturating_sub(freed));
        // What could not be deleted may give hits again.
        let left: Vec<ContainerId> = condemned.iter().map(|condemned| condemned.container).collect();
        {
            let state = self.shared.lock();
            left.iter().filter(|id| state.is_committed(**id)).for_each(|id| self.shared.dedup.pardon(*id));
        }
        if self.shared.lock().deleted.len() >= DELETED_MAX {
            self.take_checkpoint().await?;
        }
        swept?;
        Ok(report)
    }

    /// What was deleted while the media kept it is freed once they do no more.
    async fn free_unlocked(&self, locked: &BTreeMap<ContainerId, u64>) {
        let over = {
            let mut state = self.shared.lock();
            let before = std::mem::take(&mut state.locked_garbage);
            state.locked_garbage = locked.keys().copied().filter(|id| !state.is_committed(*id)).collect();
            before.difference(&state.locked_garbage).next().is_some()
        };
        if over {
            self.reconcile(&self.up()).await;
        }
    }

    /// Stubs that were there before the mark and that it did not meet go.
    async fn remove_stubs(&self, known: &[ContainerId], marked: &Marked) -> Result<u64, EngineError> {
        let free: Vec<ContainerId> =
            known.iter().filter(|stub| !marked.met.contains(stub)).copied().collect();
        let limit = self.shared.config.meta_record_bytes() - TURNSTILE_BYTES;
        for (some, txn) in stubs::in_txns(&free, limit, |stub| stubs::delete(*stub))? {
            self.shared.decided(txn).await?;
            let mut state = self.shared.lock();
            some.iter().for_each(|stub| drop(state.stubs.remove(stub)));
            // A read may still be on its way with what it found before the mark.
            state.deletions += 1;
        }
        Ok(free.len() as u64)
    }

    /// Candidates with enough garbage, and small ones where they are many: those with nothing live first. Tells as well how many
    /// bytes of all candidates are garbage.
    async fn choose(
        &self,
        candidates: &[ContainerId],
        (marked, kept): (&Marked, &BTreeSet<ContainerId>),
        choice: &Choice<'_>,
        locked: &BTreeMap<ContainerId, u64>,
    ) -> (Vec<Condemned>, u64) {
        let (mut chosen, mut small, mut garbage_bytes) = (Vec::new(), Vec::new(), 0);
        for container in candidates {
            let whole = kept.contains(container);
            if whole && !(choice.also)(*container) {
                continue;
            }
            let Some(size) = self.size(*container).await else { continue };
            let live =
                if whole { Some(Slots::all(size.entries)) } else { marked.live.get(container).cloned() };
            let count = live.as_ref().map_or(0, Slots::count);
            let garbage = u64::from(size.entries.saturating_sub(count)) * 100;
            garbage_bytes += u64::from(size.total) * garbage / (u64::from(size.entries).max(1) * 100);
            let enough =
                garbage > 0 && garbage >= u64::from(choice.garbage_percent) * u64::from(size.entries);
            let locked_until_ms = locked.get(container).copied().unwrap_or(0);
            let is_wanted = count == 0 || enough || (choice.also)(*container);
            // Where room is in pieces, those that are written now are none: moving them would go on for ever.
            let is_small = u64::from(size.total) * SMALL_SHARE <= self.shared.container_limit() as u64;
            let condemned = (count, Condemned { container: *container, size, live, whole, locked_until_ms });
            match (is_wanted, is_small) {
                (true, _) => chosen.push(condemned),
                (false, true) => small.push(condemned),
                (false, false) => {}
            }
        }
        if small.len() >= MERGED_LEAST {
            chosen.append(&mut small);
        }
        chosen.sort_by_key(|(count, condemned)| (*count, condemned.container));
        (chosen.into_iter().map(|(_, condemned)| condemned).collect(), garbage_bytes)
    }

    pub(crate) async fn size(&self, container: ContainerId) -> Option<Size> {
        if let Some(size) = self.shared.lock().sizes.get(&container) {
            return Some(*size);
        }
        let pages = self.shared.pool.fragment_pages_of(container).await?;
        let size = size_of(&read_head(&self.shared.pool, container, pages).await?);
        self.shared.lock().learn_size(container, size);
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

    /// Containers that recovery reads: pieces of the last checkpoint and of the backlog, and map logs behind it.
    pub(crate) fn anchored(&self) -> BTreeSet<ContainerId> {
        let backlogs = self.backlogs.iter().flat_map(|(_, pieces)| pieces.iter());
        let pieces = self.pieces.iter().chain(backlogs).map(|piece| piece.address.container);
        pieces.chain(self.commits.iter().map(|commit| commit.container)).collect()
    }
}
