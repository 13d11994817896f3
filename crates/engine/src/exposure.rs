//! What could be lost, and what cannot be read now.
//!
//! A container can be read whole as long as k members of its row are up. Of one with fewer, a block is read where all of
//! its pieces are on members that are up, and no other. Containers that no medium lists, and those that something was found
//! lost of, count too: what cannot be read never drops out of the account.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pool::Pool;
use units::{ContainerId, DiskId, MediumId};

use crate::engine::Engine;
use crate::progress::Progress;
use crate::rebuild::RowKey;

/// What could be lost, and what cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exposure {
    /// Media that are up, or whole failure domains of them, that may fail now without loss: of what is stored, of what the
    /// journal holds, and of what is written next. 0 as well while something cannot be read.
    pub can_lose: usize,
    /// Rows with containers of which too few members are up; while nothing can be written, rows that may have some.
    pub short_rows: usize,
    /// Containers in them, and those that no medium that is up lists.
    pub short_containers: u64,
    /// Containers of which something was found lost though enough members are up.
    pub damaged: Vec<ContainerId>,
    /// All media of a part of the journal are down: what it holds is in RAM alone.
    pub in_ram_alone: bool,
    /// Disks of which something cannot be read, in order; `None` while that is being found out.
    pub affected: Option<Vec<DiskId>>,
}

/// What decides which disks are affected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Cause {
    short: BTreeSet<RowKey>,
    unseen: u64,
    damaged: Vec<ContainerId>,
    up: Vec<MediumId>,
}

impl Cause {
    fn is_none(&self) -> bool {
        self.short.is_empty() && self.unseen == 0 && self.damaged.is_empty()
    }
}

/// Which disks are affected, as last found out.
#[derive(Debug, Default)]
pub(crate) struct Affected(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    of: Cause,
    disks: Vec<DiskId>,
    /// From then on it is looked for anew: disks come and go.
    good_until: Duration,
    is_looking: bool,
}

/// Which disks are affected is looked for anew after so long, and after so many times what the last search took.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
const LOOK_FACTOR: u32 = 20;

impl Engine {
    /// What could be lost, and what cannot be read now. Which disks that touches is found out in the background.
    pub fn exposure(&self) -> Exposure {
        let pool = &self.shared.pool;
        // Which containers there are is known when all media were looked through, and that is done with the takeover.
        let is_writable = self.is_writable();
        let is_indexing = self.is_indexing() || self.is_reconciling() || !is_writable;
        let (used, unseen) = {
            let state = self.shared.lock();
            let mut used: BTreeMap<RowKey, u64> = BTreeMap::new();
            let known = state.sizes.keys().chain(&state.unread).filter(|id| state.is_committed(**id));
            for id in known {
                *used.entry((id.class, id.row)).or_default() += 1;
            }
            let all: u64 = state.ledger.values().flatten().map(|(start, end)| u64::from(end - start)).sum();
            // While media are looked through, most are unknown.
            let unseen = if is_indexing { 0 } else { all.saturating_sub(used.values().sum()) };
            (used, unseen)
        };
        let media: BTreeSet<MediumId> = pool.health().iter().map(|health| health.medium).collect();
        // What a medium lacks it may lack of any container.
        let lacking = self.lacking();
        let has_all = |medium: &&MediumId| !lacking.contains_key(medium);
        let mut next = pool.current_class().map_or(0, |class| class.m);
        let mut short: BTreeSet<RowKey> = BTreeSet::new();
        for row in pool.rows() {
            let key = (row.class, row.row);
            let may_be_used = is_indexing && row.members.iter().all(|medium| media.contains(medium));
            if !used.contains_key(&key) && !may_be_used {
                continue;
            }
            let k = pool::CLASSES.get(usize::from(row.class)).map_or(0, |class| class.k);
            let members: Vec<MediumId> = row.members.iter().filter(has_all).copied().collect();
            next = next.min(pool.survives(&members, k));
            if (used.contains_key(&key) || !is_writable) && !has_enough(pool, &row.members, k) {
                short.insert(key);
            }
        }
        let survives = |members: &[MediumId]| pool.survives(members, 1);
        let journal = self.shared.journal.get();
        let is_up = |members: &[MediumId]| usize::from(has_enough(pool, members, 1));
        let in_ram_alone = journal.is_some_and(|journal| journal.least_live(&is_up) == Some(0));
        let damaged: Vec<ContainerId> = self.damaged().into_iter().map(|(id, _)| id).collect();
        let damaged = damaged.into_iter().filter(|id| !short.contains(&(id.class, id.row))).collect();
        let cause = Cause { short, unseen, damaged, up: self.up() };
        Exposure {
            can_lose: match cause.is_none() {
                true => next.min(journal.map_or(0, |journal| journal.least_of(&survives))),
                false => 0,
            },
            short_rows: cause.short.len(),
            short_containers: unseen + cause.short.iter().filter_map(|row| used.get(row)).sum::<u64>(),
            damaged: cause.damaged.clone(),
            in_ram_alone,
            affected: self.affected(cause),
        }
    }

    /// Whether media that came back are being looked through.
    pub(crate) fn is_reconciling(&self) -> bool {
        self.shared.reconciling.load(Ordering::Relaxed) > 0
    }

    /// Committed containers that something was found lost of, with the pages of each fragment.
    pub fn damaged(&self) -> Vec<(ContainerId, u16)> {
        let state = self.shared.lock();
        self.shared.pool.known_hurt(&|id| state.is_committed(id))
    }

    /// Takes up what was found lost before a restart; it is looked at again.
    pub fn load_damaged(&self, containers: &[(ContainerId, u16)]) {
        self.shared.pool.load_hurt(containers);
    }

    /// The disks of which something cannot be read for this cause, when that is known; else it is being found out from here
    /// on.
    fn affected(&self, cause: Cause) -> Option<Vec<DiskId>> {
        let mut known = self.shared.affected.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cause.is_none() {
            return Some(Vec::new());
        }
        let begun = self.shared.rt.now();
        let found = (known.of == cause).then(|| known.disks.clone());
        let is_new = found.is_some() && begun < known.good_until;
        if !is_new && !std::mem::replace(&mut known.is_looking, true) {
            let engine = self.clone();
            let task = async move {
                let found = engine.shared.guarded("search for what is lost", engine.find_affected(&cause));
                let found = found.await;
                let mut known = engine.shared.affected.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.is_looking = false;
                let now = engine.shared.rt.now();
                match found {
                    // Media that went or came meanwhile make it an answer to no question.
                    Ok(_) if cause.up != engine.up() => {}
                    Ok(disks) => {
                        known.good_until = now + LOOK_AGAIN.max((now - begun) * LOOK_FACTOR);
                        (known.of, known.disks) = (cause, disks);
                    }
                    Err(error) => tracing::debug!(%error, "which disks are affected was not found out"),
                }
            };
            self.shared.rt.spawn("search for what is lost", Box::pin(task));
        }
        found
    }

    async fn find_affected(&self, cause: &Cause) -> Result<Vec<DiskId>, crate::EngineError> {
        let progress = Progress::default();
        let mut lost = self.lost_in(&cause.damaged.iter().copied().collect(), &progress).await?;
        lost.is_by_reach_too(self.shared.pool.clone());
        self.affected_by(&lost, &progress).await
    }
}

fn has_enough(pool: &Pool, members: &[MediumId], k: usize) -> bool {
    pool.count_up(members) >= k
}
