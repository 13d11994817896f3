//! Which media are up, and which are full.

use std::collections::{BTreeMap, BTreeSet};

use units::MediumId;

/// What is known of a medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediumHealth {
    /// The medium.
    pub medium: MediumId,
    /// Takes part in new stripes and segments.
    pub up: bool,
    /// Had no room for a fragment when last asked.
    pub full: bool,
    /// Why it is down, for people.
    pub reason: Option<String>,
}

/// The media of the site, in their order.
///
/// One request that the medium refuses as failed, or three attempts at one request without an answer, take the medium
/// down, and only [`Pool::restore`](crate::Pool::restore) brings it up again. That is harsh, and meant to be: a
/// medium that is taken for up and is not holds up every write for the transport's deadline, while one that is down
/// for no reason costs redundancy of new stripes, shows in `status`, and is restored by one call.
#[derive(Debug, Default)]
pub struct Health {
    media: Vec<MediumId>,
    down: BTreeMap<MediumId, String>,
    full: BTreeSet<MediumId>,
    /// How often each medium was restored: tells an answer from before a restore from one after it.
    restores: BTreeMap<MediumId, u64>,
}

impl Health {
    /// A site with these media; those in `up` are there.
    pub fn new(media: &[MediumId], up: &[MediumId]) -> Self {
        let missing = media.iter().filter(|medium| !up.contains(medium));
        Self {
            media: media.to_vec(),
            down: missing.map(|medium| (*medium, "missing at the start".to_owned())).collect(),
            full: BTreeSet::new(),
            restores: BTreeMap::new(),
        }
    }

    /// All media of the site.
    pub fn media(&self) -> &[MediumId] {
        &self.media
    }

    /// Those that are up.
    pub fn up(&self) -> Vec<MediumId> {
        self.media.iter().filter(|medium| self.is_up(**medium)).copied().collect()
    }

    /// Those that are up and were not found full.
    pub(crate) fn with_room(&self) -> Vec<MediumId> {
        let mut up = self.up();
        up.retain(|medium| !self.full.contains(medium));
        up
    }

    /// Whether `medium` is one of the site's and up.
    pub(crate) fn is_up(&self, medium: MediumId) -> bool {
        !self.down.contains_key(&medium) && self.media.contains(&medium)
    }

    /// How often `medium` was restored.
    pub(crate) fn restores(&self, medium: MediumId) -> u64 {
        self.restores.get(&medium).copied().unwrap_or(0)
    }

    /// `medium` failed; says whether that is news.
    pub(crate) fn failed(&mut self, medium: MediumId, reason: &str) -> bool {
        let news = self.is_up(medium);
        if news {
            self.down.insert(medium, reason.to_owned());
        }
        news
    }

    pub(crate) fn restored(&mut self, medium: MediumId) {
        self.down.remove(&medium);
        self.full.remove(&medium);
        *self.restores.entry(medium).or_default() += 1;
    }

    pub(crate) fn set_full(&mut self, medium: MediumId, full: bool) {
        if full {
            self.full.insert(medium);
        } else {
            self.full.remove(&medium);
        }
    }

    pub(crate) fn list(&self) -> Vec<MediumHealth> {
        let health = |medium: &MediumId| MediumHealth {
            medium: *medium,
            up: self.is_up(*medium),
            full: self.full.contains(medium),
            reason: self.down.get(medium).cloned(),
        };
        self.media.iter().map(health).collect()
    }

    /// Media of the next segment: m+1 of those that are up, never fewer than 2 where the site has 2 (DESIGN 4.1).
    pub(crate) fn ensemble(&self, turn: u32) -> Vec<MediumId> {
        let up = self.up();
        let wanted = self.media.len().min(3);
        let least = self.media.len().min(2);
        if up.len() < least || up.is_empty() {
            return Vec::new();
        }
        let start = turn as usize * wanted;
        (0..wanted.min(up.len())).map(|i| up[(start + i) % up.len()]).collect()
    }
}
