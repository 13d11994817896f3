//! The rebuilder: gives every committed container k+m fragments on media that stay [I8].
//!
//! ```text
//!  a medium leaves, or is down for long
//!    ├─ its rows, those with the fewest media left first: another medium takes its place in the row
//!    │    journal: moving ─ wait for writes under way ─ fill each committed container ─ journal: moved ─ free the old
//!    └─ no other medium for it: the cleaner empties the row into the class of those that are up; the row retires
//!  all is quiet, and rows of a smaller class than the site could have hold something: the cleaner empties these
//! ```
//! Vocabulary: a row is **moving** from the record that names its target to the one that makes the target its members.
//!
//! Invariants: a row's members change behind the last fragment of the last committed container of the row, and never
//! while a container is being written to it. Which containers those are, the ledger says: while it has one of which
//! nothing is known, no row changes and none retires.
//!
//! Crash rules: a moving row is found moving; what was filled is found on the target, read, and not written again. A
//! fragment that its row does not place on a medium is freed when that medium is reconciled. A row that moves because a
//! medium was away moves no further when the medium is back, and its targets are emptied again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::{Ensembles, Entry, Row};
use pool::PoolErrorKind;
use units::{ContainerId, MediumId};

use crate::clean::Choice;
use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};
use crate::members::fragment_raw_bytes;
use crate::progress::Progress;

/// Class and number of a row.
pub(crate) type RowKey = (u8, u16);

/// Pause between two looks at whether something has to move.
const LOOK: Duration = Duration::from_secs(1);
/// Pause behind an attempt that failed: media come back, room is made.
const RETRY: Duration = Duration::from_secs(10);
/// Pause behind a pass that left something in rows that are to be emptied: it marked all that is reachable. It doubles up
/// to the longest with each pass that leaves something: what is locked may stay for years.
const EMPTIED_REST: Duration = Duration::from_secs(60);
const EMPTIED_REST_MAX: Duration = Duration::from_secs(3600);
/// Pause between looks at whether a row is written to, and for how long; a write that takes longer is looked at again
/// with the next attempt.
const WRITES_PAUSE: Duration = Duration::from_millis(50);
const WRITES_LOOKS: usize = 1200;
/// Garbage a container must have to be emptied though its row stays: all of it.
const DEAD_PERCENT: u8 = 100;

/// What the rebuilder tells of itself.
#[derive(Debug, Default)]
pub(crate) struct Rebuild {
    /// The most that was to be moved off each medium since it began to leave, bytes.
    pub(crate) most: BTreeMap<MediumId, u64>,
    /// Bytes that have moved off media in the row in work.
    pub(crate) filled: BTreeMap<MediumId, u64>,
    /// When media had last changed as the journal last went on elsewhere.
    journal_at: Option<Duration>,
    /// What is in the way.
    pub(crate) trouble: Option<String>,
    /// Something may have to move or is being moved.
    pub(crate) busy: bool,
}

pub(crate) fn lock(rebuild: &Mutex<Rebuild>) -> MutexGuard<'_, Rebuild> {
    // Plain data, valid after every statement.
    rebuild.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When rows that still hold something are emptied again.
#[derive(Default)]
struct Rest {
    until: Duration,
    length: Duration,
    /// When media had last changed as it began.
    changed: Duration,
}

impl Rest {
    fn is_over(&self, changed: Duration, now: Duration) -> bool {
        now >= self.until || changed != self.changed
    }

    fn begin(&mut self, changed: Duration, now: Duration) {
        let is_first = self.length.is_zero() || changed != self.changed;
        let length = if is_first { EMPTIED_REST } else { (2 * self.length).min(EMPTIED_REST_MAX) };
        *self = Self { until: now + length, length, changed };
    }
}

/// How a pass ended.
enum Passed {
    /// Rows that are to be emptied wait for their time.
    Resting,
    /// All that could be done is done.
    Through,
    /// Rows that are to be emptied still hold something.
    Left,
}

/// How the work on a row ended.
enum Worked {
    /// The row has its new members, or moves no more.
    Done,
    /// Media changed, or a write takes long: to be looked at again.
    Changed,
    /// Some containers could not be filled.
    Stuck(String),
}

fn key_of(row: &Row) -> RowKey {
    (row.class, row.row)
}

fn closed() -> EngineError {
    EngineError::new(EngineErrorKind::Closed, "the engine is closed")
}

impl Engine {
    /// The rebuilder's task: ends with the engine.
    pub(crate) async fn run_rebuilder(self) {
        let mut rest = Rest::default();
        loop {
            // Whatever ends the wait, the look tells.
            let _ = seam::timeout(&*self.shared.rt, LOOK, self.shared.rebuild_wake.notified()).await;
            if self.shared.lock().closed {
                return;
            }
            if self.is_indexing() {
                continue;
            }
            let (changed, now) = (self.shared.pool.changed_at(), self.shared.rt.now());
            let pass = self.rebuild_pass(rest.is_over(changed, now));
            match self.shared.guarded("rebuilder", pass).await {
                Ok(Passed::Resting) => {}
                Ok(Passed::Through) => rest = Rest::default(),
                Ok(Passed::Left) => rest.begin(changed, self.shared.rt.now()),
                Err(error) if error.kind == EngineErrorKind::Closed => return,
                Err(error) => {
                    let text = error.to_string();
                    let said = lock(&self.shared.rebuild).trouble.replace(text.clone());
                    if said.as_ref() != Some(&text) {
                        tracing::warn!(%error, "the rebuild does not go on; it will be tried again");
                    }
                    self.shared.rt.sleep(RETRY).await;
                }
            }
        }
    }

    /// Whether every row is where it is to stay, and no row moves.
    pub fn is_rebuilt(&self) -> bool {
        !lock(&self.shared.rebuild).busy && !self.shared.pool.rows().iter().any(|row| self.wants_work(row))
    }

    fn wants_work(&self, row: &Row) -> bool {
        let patience = self.shared.config.rebuild_after;
        row.is_moving() || row.members.iter().any(|medium| self.shared.pool.is_to_leave(*medium, patience))
    }

    /// Works until nothing has to move, or what is left cannot.
    async fn rebuild_pass(&self, may_empty: bool) -> Result<Passed, EngineError> {
        let mut tried: BTreeSet<RowKey> = BTreeSet::new();
        let mut stuck: BTreeSet<RowKey> = BTreeSet::new();
        let mut trouble = None;
        match self.leave_journal().await {
            Err(error) if error.kind == EngineErrorKind::Closed => return Err(error),
            // Fragments move all the same.
            left => trouble = left.err().map(|error| error.to_string()).or(trouble),
        }
        while let Some(row) = self.next_row(&tried) {
            lock(&self.shared.rebuild).busy = true;
            tried.insert(key_of(&row));
            let worked = match self.aim(&row) {
                Some(aim) => self.work_on(row.clone(), aim).await,
                None => Ok(Worked::Stuck("no other medium can take its place".to_owned())),
            };
            lock(&self.shared.rebuild).filled.clear();
            match worked? {
                Worked::Done => {}
                Worked::Changed => break,
                Worked::Stuck(reason) => {
                    stuck.insert(key_of(&row));
                    trouble = Some(reason);
                }
            }
        }
        // For a better geometry alone nothing takes its room twice.
        let also_locked = !stuck.is_empty();
        if stuck.is_empty() {
            stuck = self.outgrown();
        }
        let mut passed = Passed::Through;
        if !stuck.is_empty() && !may_empty {
            passed = Passed::Resting;
        } else if !stuck.is_empty() && self.shared.pool.current_class().is_some() {
            lock(&self.shared.rebuild).busy = true;
            self.empty_rows(&stuck, also_locked).await?;
            let is_left = |row: &Row| !row.is_retired() && stuck.contains(&key_of(row));
            if self.shared.pool.rows().iter().any(is_left) {
                passed = Passed::Left;
            } else {
                trouble = None;
            }
        }
        let mut rebuild = lock(&self.shared.rebuild);
        rebuild.busy = false;
        rebuild.trouble = trouble;
        Ok(passed)
    }

    /// The journal leaves media that are to be left, and segments with fewer copies than new ones have: those that it goes
    /// on in are elsewhere, and what is in the others goes into containers. The latter once for each change of media.
    async fn leave_journal(&self) -> Result<(), EngineError> {
        let journal = self.shared.journal()?;
        let patience = self.shared.config.rebuild_after;
        let is_on_leaving = |health: &pool::MediumHealth| {
            self.shared.pool.is_to_leave(health.medium, patience) && journal.is_on(health.medium)
        };
        let changed = self.shared.pool.changed_at();
        let up = self.up();
        let copies = |members: &[MediumId]| {
            let there: Vec<MediumId> = members.iter().copied().filter(|medium| up.contains(medium)).collect();
            self.shared.pool.domains(&there).len()
        };
        let is_thin = journal.least_of(&copies) < self.shared.pool.ensemble(0).len();
        let is_new = lock(&self.shared.rebuild).journal_at != Some(changed);
        let is_to_go = self.shared.pool.health().iter().any(is_on_leaving) || is_thin && is_new;
        if !is_to_go {
            return Ok(());
        }
        lock(&self.shared.rebuild).journal_at = Some(changed);
        lock(&self.shared.rebuild).busy = true;
        match journal.rotate().await {
            Ok(done) => done?,
            Err(_) => return Err(closed()),
        };
        self.drain().await?;
        // What is behind the checkpoint stands on the old segments alone where no start record has it.
        self.tell_backlog().await?;
        let _gate = self.shared.flush_gate.lock().await;
        self.relieve_journal().await
    }

    /// The row to work on next: the one whose containers have the fewest fragments to spare.
    fn next_row(&self, tried: &BTreeSet<RowKey>) -> Option<Row> {
        let pool = &self.shared.pool;
        let up = self.up();
        let spare = |row: &Row| {
            let there = row.members.iter().filter(|medium| up.contains(medium)).count();
            let k = pool::CLASSES.get(usize::from(row.class)).map_or(0, |class| class.k);
            (there as i64 - k as i64, !row.is_moving(), row.class, row.row)
        };
        let rows = pool.rows().into_iter();
        rows.filter(|row| self.wants_work(row) && !tried.contains(&key_of(row))).min_by_key(spare)
    }

    /// The media the row is to have; `None` when one that leaves has no successor.
    fn aim(&self, row: &Row) -> Option<Vec<MediumId>> {
        let pool = &self.shared.pool;
        let patience = self.shared.config.rebuild_after;
        // What moves already goes on as long as the medium is away.
        let since = |index: usize| match row.target.get(index) {
            Some(target) if *target != row.members[index] => Duration::ZERO,
            _ => patience,
        };
        let leaves = |index: usize| pool.is_to_leave(row.members[index], since(index));
        let mut takers = pool.takers();
        let full: Vec<MediumId> =
            pool.health().into_iter().filter(|health| health.full).map(|health| health.medium).collect();
        if takers.iter().any(|taker| !full.contains(taker)) {
            takers.retain(|taker| !full.contains(taker));
        }
        let count = takers.len().max(1);
        takers.rotate_left(usize::from(row.row) % count);
        let mut aim = row.members.clone();
        for index in (0..row.members.len()).filter(|index| leaves(*index)) {
            let before = row.target.get(index).copied().filter(|target| *target != row.members[index]);
            // One that is away for a moment is waited for.
            let is_full = |target: &MediumId| full.contains(target) && !takers.contains(target);
            let kept = before.filter(|target| !pool.is_to_leave(*target, patience) && !is_full(target));
            // One more of a domain that has one would go with it.
            let crowds = |medium: &MediumId| {
                let stays = |at: &usize| *at < index || *at > index && !leaves(*at);
                (0..aim.len()).filter(stays).any(|at| pool.fail_together(*medium, aim[at]))
            };
            let taken = |medium: &MediumId| {
                row.members.contains(medium)
                    || row.target.contains(medium)
                    || aim.contains(medium)
                    || crowds(medium)
            };
            aim[index] = match kept {
                Some(target) => target,
                None => *takers.iter().find(|taker| !taken(taker))?,
            };
        }
        Some(aim)
    }

    /// Brings a row to its aim.
    async fn work_on(&self, row: Row, aim: Vec<MediumId>) -> Result<Worked, EngineError> {
        let containers = self.containers_in_rows(&BTreeSet::from([key_of(&row)])).await?;
        if containers.is_empty() && aim != row.members && self.retire(&row).await? {
            return Ok(Worked::Done);
        }
        let moving = if aim == row.members {
            if !row.is_moving() {
                return Ok(Worked::Done);
            }
            row.changed(aim, Vec::new())
        } else if aim == row.target {
            row.clone()
        } else {
            row.changed(row.members.clone(), aim)
        };
        if moving != row {
            tracing::info!(class = row.class, row = row.row, from = ?row.members, to = ?moving.target, "a row moves");
            self.change_row(&moving).await?;
            // What was filled elsewhere before.
            self.free_left(&row.target, &moving, &containers).await;
        }
        if !moving.is_moving() {
            return Ok(Worked::Done);
        }
        if !self.wait_for_writes(&moving).await? {
            return Ok(Worked::Changed);
        }
        self.fill_row(&moving).await
    }

    /// Fills every committed container of a moving row, and makes the targets its members.
    async fn fill_row(&self, row: &Row) -> Result<Worked, EngineError> {
        let containers = self.containers_in_rows(&BTreeSet::from([key_of(row)])).await?;
        let mut failure = None;
        let mut step = self.step();
        for container in &containers {
            step = self.next_step(step).await;
            for index in (0..row.members.len()).filter(|index| row.target[*index] != row.members[*index]) {
                if self.shared.lock().closed {
                    return Err(closed());
                }
                if self.aim(row).as_ref() != Some(&row.target) {
                    return Ok(Worked::Changed);
                }
                let begun = self.shared.rt.now();
                let is_committed = |id: ContainerId| self.shared.lock().is_committed(id);
                match self.shared.pool.fill(*container, index, &is_committed).await {
                    Ok(bytes) => {
                        self.note_filled(row.members[index], *container);
                        self.pace(bytes, begun).await;
                    }
                    Err(error) if error.kind == PoolErrorKind::Lost => {
                        // A deletion may have come between.
                        if is_committed(*container) {
                            failure = failure.or(Some(error.to_string()));
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if let Some(failure) = failure {
            return Ok(Worked::Stuck(failure));
        }
        // Where a target went meanwhile, the media that still have the fragments are all there is.
        let up = self.up();
        let is_new = |(index, target): &(usize, &MediumId)| row.members[*index] != **target;
        if let Some((_, away)) = row.target.iter().enumerate().filter(is_new).find(|(_, to)| !up.contains(to))
        {
            return Ok(Worked::Stuck(format!("medium {away} went while fragments were moved to it")));
        }
        let moved = row.changed(row.target.clone(), Vec::new());
        self.change_row(&moved).await?;
        tracing::info!(class = row.class, row = row.row, containers = containers.len(), "a row has moved");
        self.free_left(&row.members, &moved, &containers).await;
        self.shared.pool.refresh_space().await;
        Ok(Worked::Done)
    }

    fn note_filled(&self, from: MediumId, container: ContainerId) {
        let total = self.shared.lock().sizes.get(&container).map_or(0, |size| size.total);
        *lock(&self.shared.rebuild).filled.entry(from).or_default() += fragment_raw_bytes(container, total);
    }

    /// Never more than so many bytes each second; beside guests less.
    async fn pace(&self, bytes: u64, begun: Duration) {
        let rate = self.shared.config.rebuild_bytes_per_second.max(1);
        let wanted = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        let took = self.shared.rt.now().saturating_sub(begun);
        if wanted > took {
            self.shared.rt.sleep(wanted - took).await;
        }
    }

    /// Makes a version of a row durable. Nothing is mended, deleted or filled meanwhile.
    async fn change_row(&self, row: &Row) -> Result<(), EngineError> {
        let _turn = self.shared.pool.turn().await;
        match self.shared.journal()?.append_control(vec![Entry::Row(row.clone())]).await {
            Ok(result) => drop(result?),
            Err(_) => return Err(closed()),
        }
        Ok(())
    }

    /// Frees the fragments of `containers` on media that had them and that `row` does not name in their place.
    async fn free_left(&self, before: &[MediumId], row: &Row, containers: &[ContainerId]) {
        for (index, medium) in before.iter().enumerate() {
            if row.places(index).all(|place| place != *medium) {
                let fragments: Vec<(ContainerId, u8)> =
                    containers.iter().map(|container| (*container, index as u8)).collect();
                self.shared.pool.free_fragments(*medium, &fragments).await;
            }
        }
    }

    /// Waits until what is being written to a row is committed or given up; false when that takes long.
    async fn wait_for_writes(&self, row: &Row) -> Result<bool, EngineError> {
        for _ in 0..WRITES_LOOKS {
            if !self.shared.pool.is_written_to(row) {
                return Ok(true);
            }
            if self.shared.lock().closed {
                return Err(closed());
            }
            self.shared.rt.sleep(WRITES_PAUSE).await;
        }
        Ok(false)
    }

    /// The committed containers of some rows.
    ///
    /// # Errors
    /// When the ledger has a container of which nothing is known: it may be of any row.
    async fn containers_in_rows(&self, rows: &BTreeSet<RowKey>) -> Result<Vec<ContainerId>, EngineError> {
        let is_wanted = |id: &&ContainerId| rows.contains(&(id.class, id.row));
        let known = |listed: &BTreeSet<ContainerId>| {
            let state = self.shared.lock();
            let others = listed.iter().filter(|id| state.is_committed(**id) && !state.sizes.contains_key(id));
            let others: Vec<ContainerId> = others.copied().collect();
            let total: u64 = state.ledger.values().flatten().map(|(start, end)| u64::from(end - start)).sum();
            let complete = (state.sizes.len() + others.len()) as u64 == total;
            let all = state.sizes.keys().chain(&others).filter(is_wanted).copied();
            complete.then(|| all.collect::<Vec<_>>())
        };
        if let Some(containers) = known(&BTreeSet::new()) {
            return Ok(containers);
        }
        let listed = self.listed().await;
        known(&listed).ok_or_else(|| {
            let reason =
                "a committed container is on none of the media that are up: bring those that are down back";
            EngineError::new(EngineErrorKind::Lost, reason)
        })
    }

    /// Rows of a class smaller than the site could have, or with several members in a failure domain, when it has been so
    /// for long and something is in them.
    fn outgrown(&self) -> BTreeSet<RowKey> {
        let pool = &self.shared.pool;
        let quiet = pool.quiet_for().is_some_and(|quiet| quiet >= self.shared.config.rebuild_after);
        let Some(class) = pool.current_class().filter(|_| quiet) else { return BTreeSet::new() };
        let is_small = |row: &Row| {
            pool::CLASSES
                .get(usize::from(row.class))
                .is_some_and(|other| other.k < class.k || other.m < class.m)
        };
        let is_crowded = |row: &Row| pool.domains(&row.members).len() < row.members.len();
        let is_outgrown = |row: &&Row| !row.is_retired() && (is_small(row) || is_crowded(row));
        pool.rows().iter().filter(is_outgrown).map(key_of).collect()
    }

    /// Has the cleaner move what is live in some rows to others, and retires those that are empty.
    async fn empty_rows(&self, rows: &BTreeSet<RowKey>, also_locked: bool) -> Result<(), EngineError> {
        if !self.containers_in_rows(rows).await?.is_empty() {
            self.shared.lock().emptying = rows.clone();
            let emptied = self.empty_once(also_locked).await;
            self.shared.lock().emptying.clear();
            emptied?;
        }
        for row in self.shared.pool.rows().iter().filter(|row| rows.contains(&key_of(row))) {
            self.retire(row).await?;
        }
        Ok(())
    }

    async fn empty_once(&self, also_locked: bool) -> Result<(), EngineError> {
        let anchored = {
            let state = self.shared.lock();
            state.anchored().iter().any(|id| state.is_emptying(*id))
        };
        if anchored {
            // The next checkpoint stands elsewhere.
            self.take_checkpoint().await?;
        }
        let rows = self.shared.lock().emptying.clone();
        let also = move |id: ContainerId| rows.contains(&(id.class, id.row));
        let choice = Choice { garbage_percent: DEAD_PERCENT, also: &also, also_locked };
        let report = self.clean_chosen(&choice, &Progress::default()).await?;
        tracing::info!(?report, "rows emptied");
        Ok(())
    }

    /// Retires a row that no committed container names; false when one does, or is about to.
    async fn retire(&self, row: &Row) -> Result<bool, EngineError> {
        // What the cleaner deletes it frees by the row.
        let _cleaning = self.shared.cleaning.lock().await;
        if row.is_retired() || !self.shared.pool.close_row(row) {
            return Ok(false);
        }
        let retired = match self.containers_in_rows(&BTreeSet::from([key_of(row)])).await {
            Ok(containers) if containers.is_empty() => {
                self.change_row(&row.changed(Vec::new(), Vec::new())).await.map(|()| true)
            }
            other => other.map(|_| false),
        };
        if !matches!(retired, Ok(true)) {
            self.shared.pool.reopen_row(row);
        }
        retired
    }
}
