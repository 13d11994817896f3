//! Locks of containers: media that refuse to free their fragments before a time.

use std::collections::{BTreeMap, BTreeSet};

use proto::{Request, Response};
use units::{ContainerId, MediumId};

use crate::stripe::Pool;

/// Containers in one request or answer.
const AT_ONCE: usize = 1024;

impl Pool {
    /// Has no medium free any fragment of these containers before a time; one that was locked longer stays so. Says whether
    /// every medium of every one of them has it durable now.
    pub async fn lock_containers(&self, containers: &BTreeSet<ContainerId>, until_ms: u64) -> bool {
        // What is filled elsewhere meanwhile takes its lock from where it was: it must be there first.
        let _turn = self.turn().await;
        let mut by_medium: BTreeMap<MediumId, Vec<ContainerId>> = BTreeMap::new();
        let mut all = true;
        for container in containers {
            match self.stripe(*container, 1) {
                Some(stripe) => {
                    stripe
                        .media()
                        .into_iter()
                        .for_each(|medium| by_medium.entry(medium).or_default().push(*container));
                }
                None => all = false,
            }
        }
        let asks = by_medium.into_iter().map(|(medium, locked)| self.lock_on(medium, locked, until_ms));
        all & seam::join_all(asks).await.into_iter().all(|done| done)
    }

    async fn lock_on(&self, medium: MediumId, containers: Vec<ContainerId>, until_ms: u64) -> bool {
        for some in containers.chunks(AT_ONCE) {
            let request = Request::FragmentLock { containers: some.to_vec(), until_ms };
            if !matches!(self.ask(medium, request).await, Ok(Response::Done)) {
                return false;
            }
        }
        true
    }

    /// The containers that a medium within reach would not free now, and until when. Where another of their media has less
    /// of it, because it was away or was written anew, it is told.
    pub async fn locks(&self) -> BTreeMap<ContainerId, u64> {
        let up: Vec<MediumId> = self.health().iter().filter(|m| m.up).map(|m| m.medium).collect();
        let lists = seam::join_all(up.iter().map(|medium| self.locks_on(*medium))).await;
        let lists: BTreeMap<MediumId, BTreeMap<ContainerId, u64>> =
            up.into_iter().zip(lists).filter_map(|(medium, list)| Some((medium, list?))).collect();
        let mut locks: BTreeMap<ContainerId, u64> = BTreeMap::new();
        for (container, until_ms) in lists.values().flatten() {
            let latest = locks.entry(*container).or_default();
            *latest = (*latest).max(*until_ms);
        }
        let mut lacking: BTreeMap<(MediumId, u64), Vec<ContainerId>> = BTreeMap::new();
        for (container, until_ms) in &locks {
            let media = self.stripe(*container, 1).map(|stripe| stripe.media()).unwrap_or_default();
            for medium in media {
                let has = |list: &BTreeMap<ContainerId, u64>| {
                    list.get(container).is_some_and(|has| has >= until_ms)
                };
                if lists.get(&medium).is_some_and(|list| !has(list)) {
                    lacking.entry((medium, *until_ms)).or_default().push(*container);
                }
            }
        }
        for ((medium, until_ms), containers) in lacking {
            self.lock_on(medium, containers, until_ms).await;
        }
        locks
    }

    /// What one medium has locked; `None` when it does not tell all.
    async fn locks_on(&self, medium: MediumId) -> Option<BTreeMap<ContainerId, u64>> {
        let mut found = BTreeMap::new();
        let mut after = None;
        loop {
            let request = Request::LockList { after, limit: AT_ONCE as u32 };
            let Ok(Response::Locks(list)) = self.ask(medium, request).await else { return None };
            match list.last() {
                Some((last, _)) if after.is_none_or(|after| *last > after) => after = Some(*last),
                _ => return Some(found),
            }
            found.extend(list);
        }
    }
}
