//! Which media are up, and which are full.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
    /// Its fragments are to move away, and nothing new goes there.
    pub leaving: bool,
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
    down: BTreeMap<MediumId, Down>,
    leaving: BTreeSet<MediumId>,
    /// When a medium last came, went, failed or returned.
    changed: Duration,
    full: BTreeSet<MediumId>,
    /// How often each medium was restored: tells an answer from before a restore from one after it.
    restores: BTreeMap<MediumId, u64>,
}

/// A medium that is down.
#[derive(Debug)]
struct Down {
    reason: String,
    since: Duration,
}

impl Health {
    /// A site with these media; those in `up` are there.
    pub fn new(media: &[MediumId], up: &[MediumId], now: Duration) -> Self {
        let missing = media.iter().filter(|medium| !up.contains(medium));
        let down =
            |medium: &MediumId| (*medium, Down { reason: "missing at the start".to_owned(), since: now });
        Self { media: media.to_vec(), down: missing.map(down).collect(), changed: now, ..Self::default() }
    }

    /// All media of the site.
    pub fn media(&self) -> &[MediumId] {
        &self.media
    }

    /// Those that are up.
    pub fn up(&self) -> Vec<MediumId> {
        self.media.iter().filter(|medium| self.is_up(**medium)).copied().collect()
    }

    /// Those that take what is new: up, and not leaving. While too few of them are left to keep anything safe, those
    /// that leave still do.
    pub(crate) fn fit(&self) -> Vec<MediumId> {
        let up = self.up();
        let staying: Vec<MediumId> =
            up.iter().filter(|medium| !self.leaving.contains(medium)).copied().collect();
        if staying.len() < self.media.len().min(2) { up } else { staying }
    }

    /// Those that take what is new and were not found full.
    pub(crate) fn with_room(&self) -> Vec<MediumId> {
        let mut fit = self.fit();
        fit.retain(|medium| !self.full.contains(medium));
        fit
    }

    /// Whether fragments are to move away from `medium`: it is leaving, is no medium of the site, or has been down for
    /// `patience`.
    pub(crate) fn is_to_leave(&self, medium: MediumId, patience: Duration, now: Duration) -> bool {
        let is_old = |down: &Down| now.saturating_sub(down.since) >= patience;
        !self.media.contains(&medium)
            || self.leaving.contains(&medium)
            || self.down.get(&medium).is_some_and(is_old)
    }

    /// Since when no medium came, went, failed or returned; `None` while one is down or leaving.
    pub(crate) fn quiet_since(&self) -> Option<Duration> {
        (self.down.is_empty() && self.leaving.is_empty()).then_some(self.changed)
    }

    /// When a medium last came, went, failed or returned.
    pub(crate) fn changed_at(&self) -> Duration {
        self.changed
    }

    pub(crate) fn set_leaving(&mut self, medium: MediumId, leaving: bool, now: Duration) {
        self.changed = now;
        if leaving {
            self.leaving.insert(medium);
        } else {
            self.leaving.remove(&medium);
        }
    }

    /// A medium joins, behind `behind` or last; it is up.
    pub(crate) fn join(&mut self, medium: MediumId, behind: Option<MediumId>, now: Duration) {
        if self.media.contains(&medium) {
            return;
        }
        self.changed = now;
        let at = behind.and_then(|behind| self.media.iter().position(|have| *have == behind));
        self.media.insert(at.map_or(self.media.len(), |at| at + 1), medium);
    }

    /// A medium is none of the site's any more.
    pub(crate) fn forget(&mut self, medium: MediumId, now: Duration) {
        self.changed = now;
        self.media.retain(|have| *have != medium);
        self.down.remove(&medium);
        self.leaving.remove(&medium);
        self.full.remove(&medium);
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
    pub(crate) fn failed(&mut self, medium: MediumId, reason: &str, now: Duration) -> bool {
        let news = self.is_up(medium);
        if news {
            self.changed = now;
            self.down.insert(medium, Down { reason: reason.to_owned(), since: now });
        }
        news
    }

    pub(crate) fn restored(&mut self, medium: MediumId, now: Duration) {
        if self.down.remove(&medium).is_some() {
            self.changed = now;
        }
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
            leaving: self.leaving.contains(medium),
            reason: self.down.get(medium).map(|down| down.reason.clone()),
        };
        self.media.iter().map(health).collect()
    }

    /// Media of the next segment: m+1 of those that take what is new, never fewer than 2 where the site has 2 (DESIGN 4.1).
    pub(crate) fn ensemble(&self, turn: u32) -> Vec<MediumId> {
        let fit = self.fit();
        let wanted = self.media.len().min(3);
        let least = self.media.len().min(2);
        if fit.len() < least || fit.is_empty() {
            return Vec::new();
        }
        let start = turn as usize * wanted;
        (0..wanted.min(fit.len())).map(|i| fit[(start + i) % fit.len()]).collect()
    }
}
