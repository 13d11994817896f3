//! Scrub: every fragment of every committed container is read and checked, whether anybody reads it or not.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use pool::ScrubReport;
use units::{ContainerId, Incarnation, MediumId};

use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};

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

    /// Checks every fragment of every container that is committed now, and writes again what is missing or damaged.
    ///
    /// # Errors
    /// [`EngineErrorKind::Closed`] when the engine is closed meanwhile. What is wrong with single containers is told in
    /// the totals.
    pub async fn scrub(&self) -> Result<ScrubTotals, EngineError> {
        let ledger = self.shared.lock().ledger_runs();
        let listed = self.listed().await;
        let mut totals = ScrubTotals::default();
        for container in &listed {
            if self.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            match self.scrub_one(*container).await {
                Ok(report) => totals.add(*container, &report),
                Err(reason) => totals.failed.push((*container, reason)),
            }
        }
        let found: BTreeSet<(Incarnation, u32)> =
            listed.iter().map(|container| (container.incarnation, container.number)).collect();
        for run in &ledger {
            let numbers = run.committed.iter().flat_map(|(start, end)| *start..*end);
            let all = numbers.map(|number| (run.incarnation, number));
            totals.missing.extend(all.filter(|one| !found.contains(one)));
        }
        Ok(totals)
    }

    async fn scrub_one(&self, container: ContainerId) -> Result<ScrubReport, String> {
        let pool = &self.shared.pool;
        let pages = pool.fragment_pages_of(container).await.ok_or("no fragment has a sound header")?;
        let stripe = pool.stripe(container, pages).ok_or("its row is not known")?;
        pool.scrub(&stripe).await.map_err(|error| error.to_string())
    }

    /// The committed containers of which a medium that is up lists a fragment.
    async fn listed(&self) -> BTreeSet<ContainerId> {
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
        quiet && self.shared.pool.is_repaired() && !self.shared.checkpoint_running.load(Ordering::Relaxed)
    }
}
