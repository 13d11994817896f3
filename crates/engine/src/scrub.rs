//! Scrub: every fragment of every committed container is read and checked, whether anybody reads it or not.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use pool::ScrubReport;
use units::{ContainerId, DiskId, Incarnation, MediumId};

use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};
use crate::progress::Progress;
use crate::verify::Lost;

/// Containers on either side of one with an error that are looked at next: errors come in neighbourhoods.
const NEIGHBOURS: usize = 4;

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubTotals {
    /// Containers looked at.
    pub containers: u64,
    /// Fragments that were sound.
    pub sound: u64,
    /// Fragments that were missing or damaged and have been written again.
    pub repaired: u64,
    /// Fragments on media out of reach.
    pub away: u64,
    /// Containers whose sound fragments contradict each other.
    pub contradicting: Vec<ContainerId>,
    /// Containers that could not be mended, and why.
    pub failed: Vec<(ContainerId, String)>,
    /// Committed containers of which no medium within reach has a fragment.
    pub missing: Vec<(Incarnation, u32)>,
    /// Disks that reach containers that could not be mended, or that are missing.
    pub affected: Vec<DiskId>,
}

/// How far a scrub is: kept by whoever wants to go on from there.
#[derive(Debug, Default)]
pub struct ScrubCursor(Mutex<Option<ContainerId>>);

impl ScrubCursor {
    /// Goes on behind a container.
    pub fn behind(last: Option<ContainerId>) -> Self {
        Self(Mutex::new(last))
    }

    /// The last container that all before it, in order, were looked at with.
    pub fn last(&self) -> Option<ContainerId> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, last: ContainerId) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }
}

impl ScrubTotals {
    fn add(&mut self, container: ContainerId, report: &ScrubReport) {
        self.containers += 1;
        self.sound += report.sound as u64;
        self.repaired += report.repaired as u64;
        self.away += report.away as u64;
        if !report.matching {
            self.contradicting.push(container);
        }
    }
}

impl Engine {
    /// Forgets what is cached in RAM: the next reads come from the media. For tests and
    /// the simulator: what the media give is judged, not what RAM remembers.
    pub fn drop_caches(&self) {
        self.shared.blocks.clear();
        self.shared.pages.clear();
        self.shared.moved.clear();
    }

    /// Checks every fragment of every container that is committed now, behind the cursor, and writes again what is missing
    /// or damaged. Neighbours of an error come next. `progress` counts bytes of fragments.
    ///
    /// # Errors
    /// [`EngineErrorKind::Closed`] when the engine is closed meanwhile, `Cancelled`. What is wrong with single containers is
    /// told in the totals.
    pub async fn scrub(&self, cursor: &ScrubCursor, progress: &Progress) -> Result<ScrubTotals, EngineError> {
        progress.expect(self.committed_raw_bytes());
        let (is_whole, lacking) = (cursor.last().is_none(), self.lacking_within_reach());
        let ledger = self.shared.lock().ledger_runs();
        let listed = self.listed().await;
        let ordered: Vec<ContainerId> =
            listed.iter().copied().filter(|id| cursor.last().is_none_or(|last| *id > last)).collect();
        let mut totals = ScrubTotals::default();
        let mean = self.committed_raw_bytes() / listed.len().max(1) as u64;
        progress.expect(mean * ordered.len() as u64);
        let mut done = vec![false; ordered.len()];
        let mut urgent: VecDeque<usize> = VecDeque::new();
        let (mut next, mut step) = (0, self.step());
        while next < ordered.len() || !urgent.is_empty() {
            progress.check()?;
            if self.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            let at = urgent.pop_front().unwrap_or(next);
            if !std::mem::replace(&mut done[at], true) {
                if self.scrub_into(ordered[at], &mut totals).await {
                    let near = at.saturating_sub(NEIGHBOURS)..ordered.len().min(at + NEIGHBOURS + 1);
                    urgent.extend(near.filter(|near| !done[*near]));
                }
                progress.add(mean);
                step = self.next_step(step).await;
            }
            while done.get(next) == Some(&true) {
                cursor.set(ordered[next]);
                next += 1;
            }
        }
        drop(step);
        let found: BTreeSet<(Incarnation, u32)> =
            listed.iter().map(|container| (container.incarnation, container.number)).collect();
        for run in &ledger {
            let numbers = run.committed.iter().flat_map(|(start, end)| *start..*end);
            let all = numbers.map(|number| (run.incarnation, number));
            totals.missing.extend(all.filter(|one| !found.contains(one)));
        }
        {
            // What the cleaner deleted while media listed theirs is not missing.
            let state = self.shared.lock();
            totals.missing.retain(|(incarnation, number)| state.has_committed(*incarnation, *number));
        }
        if is_whole && totals.failed.is_empty() {
            self.scrubbed(&lacking);
        }
        self.name_affected(&mut totals, progress).await?;
        Ok(totals)
    }

    /// Looks at one container; true when something was wrong. One that the cleaner deleted meanwhile is not.
    async fn scrub_into(&self, container: ContainerId, totals: &mut ScrubTotals) -> bool {
        match self.scrub_one(container).await {
            Ok(report) => {
                totals.add(container, &report);
                report.repaired > 0 || !report.matching
            }
            Err(_) if !self.shared.lock().is_committed(container) => false,
            Err(reason) => {
                totals.failed.push((container, reason));
                true
            }
        }
    }

    /// Which disks reach what is lost.
    async fn name_affected(&self, totals: &mut ScrubTotals, progress: &Progress) -> Result<(), EngineError> {
        let failed = totals.failed.iter().map(|(container, _)| *container);
        let lost = Lost::of(failed, totals.missing.iter().copied());
        totals.affected = self.affected_by(&lost, progress).await?;
        Ok(())
    }

    async fn scrub_one(&self, container: ContainerId) -> Result<ScrubReport, String> {
        let pool = &self.shared.pool;
        let Some(pages) = pool.fragment_pages_of(container).await else {
            pool.note_hurt(container, 0);
            return Err("no fragment has a sound header".to_owned());
        };
        let stripe = pool.stripe(container, pages).ok_or("its row is not known")?;
        pool.scrub(&stripe).await.map_err(|error| error.to_string())
    }

    /// The committed containers of which a medium that is up lists a fragment.
    pub(crate) async fn listed(&self) -> BTreeSet<ContainerId> {
        let found: Mutex<BTreeSet<ContainerId>> = Mutex::default();
        let keep = |container: ContainerId| {
            if self.shared.lock().is_committed(container) {
                found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(container);
            }
        };
        let up: Vec<MediumId> = self.up();
        for medium in up {
            // Says yes to all: lists, and frees nothing.
            self.shared.pool.reconcile(medium, &|_| true, &keep).await;
        }
        found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes that the fragments of all committed containers take, headers included.
    pub fn committed_raw_bytes(&self) -> u64 {
        self.shared.lock().totals.raw_bytes
    }

    /// Whether nothing waits to be flushed or repaired.
    pub fn is_settled(&self) -> bool {
        let state = self.shared.lock();
        let quiet = state.active.is_empty() && state.frozen.is_empty() && state.pending.is_empty();
        drop(state);
        quiet
            && self.shared.pool.is_repaired()
            && !self.shared.checkpoint_running.load(Ordering::Relaxed)
            && self.shared.telling.try_lock().is_ok()
    }
}
