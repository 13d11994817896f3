//! Protection: groups make points of their VMs, retention lets go of them, and each VM has one number that says how old
//! its newest good point is.
//!
//! What is durable is the groups, how far the runs of each schedule are, and the points (`catalog`). In RAM stands what of
//! each point retention asks for, read once behind the start: some 60 bytes a point.
//!
//! A run's point and how far its schedule is are one transaction: a slot has one point or none, whatever ends the server.
//! However many slots have passed, one run makes up for them; those before it are missed, with a cause. A run that fails is
//! tried again, with longer and longer pauses, until the next slot takes its place.

mod groups;
mod index;
mod measure;
mod points;
mod restore;
mod runs;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::Result;
use catalog::{StoredGroup, StoredRun};
use policy::Groups;
use tokio::sync::Notify;

use crate::running::Shared;
use index::Index;
#[cfg(test)]
pub(crate) use runs::name_of;

/// What is known of protection.
#[derive(Debug, Default)]
pub(crate) struct Protection {
    state: Mutex<State>,
    /// Something may be due sooner than was thought.
    pub(crate) wake: Notify,
    /// Held by a round.
    round: tokio::sync::Mutex<()>,
    /// Held while groups are changed, and while they are read anew.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Points, once they were read.
    index: Option<Index>,
    /// Groups, until somebody changes one.
    groups: Option<Arc<Known>>,
    /// How far the runs of schedules are, by group and schedule in lower case.
    runs: BTreeMap<(u64, String), StoredRun>,
    /// Runs that fail.
    failing: BTreeMap<(u64, String), Failing>,
    /// When retention was last looked at, for each group, site time in ms.
    swept_ms: BTreeMap<u64, u64>,
    /// When the next run is due, site time in ms.
    next_ms: Option<u64>,
}

/// A run that fails.
#[derive(Debug, Clone)]
struct Failing {
    attempts: u32,
    retry_ms: u64,
    reason: String,
}

/// The groups of a site.
#[derive(Debug)]
pub(crate) struct Known {
    /// Compiled, the built-in one among them.
    groups: Groups,
    /// As they are stored, by name in lower case.
    stored: BTreeMap<String, StoredGroup>,
}

impl Known {
    fn new(stored: Vec<StoredGroup>) -> Result<Self> {
        let groups = Groups::new(stored.iter().map(|stored| stored.group.clone()).collect())?;
        let stored = stored.into_iter().map(|stored| (api::fold(&stored.group.name), stored)).collect();
        Ok(Self { groups, stored })
    }

    fn get(&self, name: &str) -> Option<&StoredGroup> {
        self.stored.get(&api::fold(name))
    }

    fn by_number(&self, number: u64) -> Option<&StoredGroup> {
        self.stored.values().find(|stored| stored.number == number)
    }
}

impl Protection {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No round begins while what is given is there.
    #[cfg(test)]
    pub(crate) async fn stop_rounds(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.round.lock().await
    }

    /// How long the next round may wait, from `now_ms` on.
    pub(crate) fn pause(&self, now_ms: u64) -> Duration {
        let next_ms = self.lock().next_ms;
        let until = next_ms.map_or(PAUSE_MAX, |next| Duration::from_millis(next.saturating_sub(now_ms)));
        until.clamp(PAUSE_MIN, PAUSE_MAX)
    }
}

/// Longest and shortest pause between two looks at what is due.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(20);

impl Shared {
    /// The groups of the site, the built-in one among them.
    pub(crate) async fn known_groups(&self) -> Result<Arc<Known>> {
        if let Some(known) = self.protection.lock().groups.clone() {
            return Ok(known);
        }
        let _turn = self.protection.turn.lock().await;
        self.read_groups().await
    }

    /// The same, for one that has the turn of groups.
    async fn read_groups(&self) -> Result<Arc<Known>> {
        if let Some(known) = self.protection.lock().groups.clone() {
            return Ok(known);
        }
        let mut stored = self.catalog.groups().await?;
        if !stored.iter().any(|stored| stored.group.is_built_in()) && self.parts.engine.is_writable() {
            let mut group = policy::Group::built_in();
            if !self.parts.default_points {
                group.schedules.clear();
            }
            stored.push(self.catalog.add_group(&group).await?);
        }
        let known = Arc::new(Known::new(stored)?);
        self.protection.lock().groups = Some(known.clone());
        Ok(known)
    }

    /// Has what is known of points, reading them once.
    async fn load_points(&self) -> Result<()> {
        if self.protection.lock().index.is_some() {
            return Ok(());
        }
        let mut index = Index::default();
        self.catalog.for_each_point(|point| index.add(&point)).await?;
        self.protection.lock().index = Some(index);
        Ok(())
    }

    /// One round: what was cut off is cleared away, what is due is made, what retention lets go of goes.
    pub(crate) async fn protect(&self) -> Result<()> {
        if !self.parts.engine.is_writable() {
            return Ok(());
        }
        let _alone = self.protection.round.lock().await;
        self.load_points().await?;
        let mut first = self.clear_remnants().await;
        let known = self.known_groups().await?;
        first = first.and(self.make_due(&known).await);
        first.and(self.let_go(&known).await)
    }

    /// Deletes what a crash left of points that were being made or deleted, and holds what was locked and is not held.
    async fn clear_remnants(&self) -> Result<()> {
        let (remnants, unheld): (BTreeSet<u64>, BTreeSet<u64>) = {
            let state = self.protection.lock();
            state
                .index
                .as_ref()
                .map(|index| (index.remnants.clone(), index.unheld.clone()))
                .unwrap_or_default()
        };
        for id in remnants {
            self.catalog.delete_point(id).await?;
            if let Some(index) = &mut self.protection.lock().index {
                index.remnants.remove(&id);
            }
        }
        for id in unheld {
            self.catalog.keep_locks(&[id]).await?;
            if let Some(index) = &mut self.protection.lock().index {
                index.unheld.remove(&id);
            }
        }
        Ok(())
    }
}
