//! Media that have fewer fragments than their rows place on them: one that was put back to an older copy of itself, or that
//! lost writes. That is seen when media are looked through, at the start and when one returns; a scrub mends it that comes to
//! its end with the medium there.
//!
//! Counted is what stays as it is meanwhile: containers of earlier incarnations, in rows that do not move.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use journal::{Ensembles, Row};
use units::{ContainerId, MediumId};

use crate::engine::Engine;
use crate::rebuild::RowKey;

/// How many fragments media lack.
#[derive(Debug, Default)]
pub(crate) struct Lacks(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By what they list.
    unlisted: BTreeMap<MediumId, u64>,
    /// They may lack any that they list, up to so many.
    suspects: BTreeMap<MediumId, u64>,
}

impl Lacks {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Plain data, valid after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fragments that media list, by row.
pub(crate) struct Listed {
    rows: BTreeMap<RowKey, Row>,
    counts: Mutex<BTreeMap<(MediumId, RowKey), u64>>,
}

impl Listed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(MediumId, RowKey), u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `medium` lists a fragment of `container`.
    pub(crate) fn count(&self, medium: MediumId, container: ContainerId) {
        let key = (container.class, container.row);
        if self.rows.get(&key).is_some_and(|row| row.members.contains(&medium)) {
            *self.lock().entry((medium, key)).or_default() += 1;
        }
    }
}

impl Engine {
    /// Begins to count what media list.
    pub(crate) fn begin_listing(&self) -> Listed {
        let rows = self.shared.pool.rows().into_iter().filter(|row| !row.is_moving());
        Listed { rows: rows.map(|row| ((row.class, row.row), row)).collect(), counts: Mutex::default() }
    }

    /// Compares what `media` listed with what they should have.
    pub(crate) fn end_listing(&self, listed: &Listed, media: &[MediumId]) {
        let mut expected: BTreeMap<RowKey, u64> = BTreeMap::new();
        {
            let state = self.shared.lock();
            let known = state.sizes.keys().chain(&state.unread);
            let is_counted =
                |id: &&ContainerId| id.incarnation != self.shared.incarnation && state.is_committed(**id);
            for id in known.filter(is_counted) {
                *expected.entry((id.class, id.row)).or_default() += 1;
            }
        }
        let counts = listed.lock();
        let mut lacks: BTreeMap<MediumId, u64> = media.iter().map(|medium| (*medium, 0)).collect();
        for (key, row) in &listed.rows {
            if self.shared.pool.row(key.0, key.1).as_ref() != Some(row) {
                continue;
            }
            let wanted = expected.get(key).copied().unwrap_or(0);
            for medium in row.members.iter().filter(|medium| media.contains(medium)) {
                let has = counts.get(&(*medium, *key)).copied().unwrap_or(0);
                *lacks.entry(*medium).or_default() += wanted.saturating_sub(has);
            }
        }
        let mut known = self.shared.lacks.lock();
        let known = &mut known.unlisted;
        for (medium, count) in lacks {
            if count == 0 {
                known.remove(&medium);
                continue;
            }
            tracing::warn!(%medium, fragments = count, "the medium lacks fragments that it should have");
            known.insert(medium, count);
        }
    }

    /// Something happened to what is on a medium: it may lack whatever it lists, until a scrub has ended.
    pub fn suspect(&self, medium: MediumId) {
        let rows = self.shared.pool.rows();
        let has = |row: &&Row| row.members.contains(&medium);
        let keys: Vec<RowKey> = rows.iter().filter(has).map(|row| (row.class, row.row)).collect();
        let state = self.shared.lock();
        let known = state.sizes.keys().chain(&state.unread);
        let count = known.filter(|id| keys.contains(&(id.class, id.row))).count() as u64;
        drop(state);
        self.shared.lacks.lock().suspects.insert(medium, count.max(1));
    }

    /// Media that lack fragments that they should have, and how many at most.
    pub fn lacking(&self) -> BTreeMap<MediumId, u64> {
        let known = self.shared.lacks.lock();
        let mut lacking = known.unlisted.clone();
        lacking.extend(&known.suspects);
        lacking
    }

    /// What media lack that are up, and how often each has come back: what a scrub that begins now writes again.
    pub fn lacking_within_reach(&self) -> BTreeMap<MediumId, (u64, u64)> {
        let pool = &self.shared.pool;
        let up = self.up();
        let there = self.lacking().into_iter().filter(|(medium, _)| up.contains(medium));
        there.map(|(medium, count)| (medium, (count, pool.restores(medium)))).collect()
    }

    /// A scrub has ended that began when `before` was lacking. A medium that was away meanwhile may lack it still.
    pub(crate) fn scrubbed(&self, before: &BTreeMap<MediumId, (u64, u64)>) {
        let now = self.lacking_within_reach();
        let is_left = |medium: &MediumId| before.get(medium).is_none_or(|was| now.get(medium) != Some(was));
        let mut known = self.shared.lacks.lock();
        known.unlisted.retain(|medium, _| is_left(medium));
        known.suspects.retain(|medium, _| is_left(medium));
    }
}
