//! Containers that something is known to be lost of: what reads, mending and verification found, until they are mended,
//! found whole or deleted.

use std::collections::BTreeMap;

use units::ContainerId;

use crate::read::Stripe;
use crate::stripe::{Pool, lock};

/// Containers that are remembered; more are found again by the next read or scrub.
const HURT_MAX: usize = 1 << 16;

/// What is known of a container.
#[derive(Debug, Clone, Copy)]
struct Wound {
    /// 0 where no header says.
    fragment_pages: u16,
    /// Its fragments are sound, and give other bytes than were written: mending finds nothing to mend.
    wrong: bool,
    /// Media came back since it was looked at.
    again: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Hurt(BTreeMap<ContainerId, Wound>, Looks);

/// How often all were to be looked at again.
pub(crate) type Looks = u64;

impl Hurt {
    fn enter(&mut self, container: ContainerId, fragment_pages: u16, wrong: bool) {
        if let Some(wound) = self.0.get_mut(&container) {
            wound.wrong |= wrong;
            wound.fragment_pages = wound.fragment_pages.max(fragment_pages);
        } else if self.0.len() < HURT_MAX {
            self.0.insert(container, Wound { fragment_pages, wrong, again: false });
        }
    }

    /// All its fragments were found sound, or made so.
    pub(crate) fn mended(&mut self, container: ContainerId) {
        if self.0.get(&container).is_some_and(|wound| !wound.wrong) {
            self.0.remove(&container);
        }
    }

    pub(crate) fn forget(&mut self, container: ContainerId) {
        self.0.remove(&container);
    }

    /// Media came back: each is to be looked at again.
    fn look_again(&mut self) {
        self.1 += 1;
        self.0.values_mut().for_each(|wound| wound.again = true);
    }

    /// One that is to be looked at again, with the pages of each fragment.
    fn next(&mut self) -> Option<(ContainerId, u16)> {
        // Without a header there is nothing to mend: a scrub looks for one.
        let is_due = |wound: &Wound| wound.again && wound.fragment_pages > 0;
        let (container, wound) = self.0.iter_mut().find(|(_, wound)| is_due(wound))?;
        wound.again = false;
        Some((*container, wound.fragment_pages))
    }
}

impl Pool {
    /// Notes that something in a container cannot be read; `wrong` when its fragments are sound and yet not what was written.
    pub(crate) fn hurt(&self, container: ContainerId, fragment_pages: u16, wrong: bool) {
        lock(&self.shared.hurt).enter(container, fragment_pages, wrong);
    }

    /// How often all that is lost was to be looked at again.
    pub(crate) fn looks(&self) -> Looks {
        lock(&self.shared.hurt).1
    }

    /// [`Pool::hurt`] by a read that began after so many looks: media may have come back meanwhile.
    pub(crate) fn hurt_since(&self, looks: Looks, container: ContainerId, fragment_pages: u16, wrong: bool) {
        self.hurt(container, fragment_pages, wrong);
        if self.looks() != looks {
            self.look_again();
        }
    }

    /// Notes that something in a container cannot be read. `fragment_pages`: pages of each fragment, 0 where no header says.
    pub fn note_hurt(&self, container: ContainerId, fragment_pages: u16) {
        self.hurt(container, fragment_pages, false);
    }

    /// Notes containers that something was found lost of earlier; each is looked at again.
    pub fn load_hurt(&self, containers: &[(ContainerId, u16)]) {
        containers.iter().for_each(|(container, pages)| self.note_hurt(*container, *pages));
        self.look_again();
    }

    /// Everything in a container that anything reaches was found to be what was written.
    pub fn found_whole(&self, container: ContainerId) {
        lock(&self.shared.hurt).forget(container);
    }

    /// Containers that something is known to be lost of, with the pages of each fragment. Those that are not `committed` are
    /// forgotten.
    pub fn known_hurt(&self, committed: &dyn Fn(ContainerId) -> bool) -> Vec<(ContainerId, u16)> {
        let mut hurt = lock(&self.shared.hurt);
        hurt.0.retain(|container, _| committed(*container));
        hurt.0.iter().map(|(container, wound)| (*container, wound.fragment_pages)).collect()
    }

    /// Media came back: what was lost without them may be whole.
    pub(crate) fn look_again(&self) {
        lock(&self.shared.hurt).look_again();
        self.start_repairs();
    }

    /// A container to look at again.
    pub(crate) fn next_hurt(&self) -> Option<Stripe> {
        let mut hurt = lock(&self.shared.hurt);
        std::iter::from_fn(|| hurt.next()).find_map(|(container, pages)| self.stripe(container, pages))
    }
}
