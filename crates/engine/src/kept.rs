//! What the cleaner leaves alone because a map page is lost for good: what that named nobody knows any more.
//!
//! A page never changes, and what it names was committed before it: containers of its own incarnation with lower numbers, or
//! of incarnations before. Contents that moved since are where the stubs of those lead. All of that is **kept**: it is emptied
//! as a whole or not at all, and its stubs stay. What is newer than the page it cannot name, so the cleaner goes on there.
//! Incarnations have no order by their ids: only this one is known to be newer than the others.
//!
//! A page is lost for good when all media of the site are there, what they hold is known, and it cannot be read or opened, twice.
//! With media away nothing is concluded, and a mark that needs them fails.

use std::collections::BTreeSet;

use units::{ContainerId, DiskId, Incarnation};

use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::mark::Marked;
use crate::state::State;

/// What keeps the cleaner from containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Map pages that are lost.
    pub pages: u64,
    /// Disks whose maps they are of, as far as they were met: each page is met once.
    pub disks: Vec<DiskId>,
    /// Containers that are kept for what the pages may have named.
    pub containers: u64,
}

/// Pages that are lost, as a mark met them.
#[derive(Debug, Default)]
pub(crate) struct LostPages {
    /// Where each was to be found.
    at: Vec<ContainerId>,
    disks: BTreeSet<DiskId>,
    /// Containers with a stub that does not lead to what was looked for.
    astray: BTreeSet<ContainerId>,
}

impl LostPages {
    /// A page in this container cannot be had, of the map of `disk`.
    pub(crate) fn add(&mut self, container: ContainerId, disk: Option<DiskId>) {
        self.at.push(container);
        self.disks.extend(disk);
    }

    /// Something is not where the stub of its container leads.
    pub(crate) fn add_astray(&mut self, container: ContainerId) {
        self.astray.insert(container);
    }

    fn is_none(&self) -> bool {
        self.at.is_empty() && self.astray.is_empty()
    }

    /// Whether one of them may name something in a container, or led there when it was written.
    pub(crate) fn may_name(&self, id: ContainerId, here: Incarnation) -> bool {
        self.at.iter().any(|page| match id.incarnation == page.incarnation {
            true => id.number <= page.number,
            false => id.incarnation != here,
        })
    }
}

impl Shared {
    /// Whether what cannot be read now is lost for good.
    pub(crate) fn is_all_there(&self) -> bool {
        use std::sync::atomic::Ordering;
        self.pool.health().iter().all(|health| health.up)
            && !self.indexing.load(Ordering::Relaxed)
            && self.reconciling.load(Ordering::Relaxed) == 0
    }

    /// Lets a loss that is for good pass.
    ///
    /// # Errors
    /// The error, when it is something else.
    pub(crate) fn pass_loss(&self, error: EngineError) -> Result<(), EngineError> {
        if error.kind == EngineErrorKind::Lost && self.is_all_there() { Ok(()) } else { Err(error) }
    }
}

impl State {
    /// Containers that a lost page may name, and those that stubs lead to from there; the stubs count as met.
    fn kept(&self, marked: &mut Marked, here: Incarnation) -> BTreeSet<ContainerId> {
        if marked.lost.is_none() {
            return BTreeSet::new();
        }
        let lost = &marked.lost;
        let is_named = |id: &ContainerId| lost.may_name(*id, here);
        let stubs: Vec<ContainerId> =
            self.stubs.keys().copied().filter(|id| is_named(id) || lost.astray.contains(id)).collect();
        let led = stubs.iter().filter_map(|stub| self.stubs.get(stub)).flatten().map(|to| to.container);
        let named = self.sizes.keys().chain(&self.unread).copied().filter(is_named);
        let kept = named.chain(led).filter(|id| self.is_committed(*id)).collect();
        marked.met.extend(stubs);
        kept
    }
}

impl Engine {
    /// What is to be left alone because of what a mark met; the status says so from here on.
    pub(crate) fn keep_named(&self, marked: &mut Marked) -> BTreeSet<ContainerId> {
        let mut state = self.shared.lock();
        let kept = state.kept(marked, self.shared.incarnation);
        let blocked = (!marked.lost.is_none()).then(|| Blocked {
            pages: marked.lost.at.len() as u64,
            disks: marked.lost.disks.iter().copied().collect(),
            containers: kept.len() as u64,
        });
        if let Some(blocked) = &blocked {
            tracing::warn!(?blocked, "map pages are lost: what they may have named is not freed");
        }
        state.cleaning_blocked = blocked;
        kept
    }
}
