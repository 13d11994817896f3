//! Which media are up, and which are full.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use journal::Fitness;
use units::{MediumId, NodeId};

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
    /// The data nodes that hold the media, where there are such.
    nodes: BTreeMap<MediumId, NodeId>,
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

    /// `medium` is on `node`: it fails with the other media there.
    pub(crate) fn set_node(&mut self, medium: MediumId, node: NodeId) {
        self.nodes.insert(medium, node);
    }

    /// `media` by failure domain: the node; where all media of the site are on one, each medium by itself. In order of
    /// the first medium of each.
    pub(crate) fn domains(&self, media: &[MediumId]) -> Vec<Vec<MediumId>> {
        let first = self.media.first().and_then(|medium| self.nodes.get(medium));
        let is_one = first.is_none() || self.media.iter().all(|medium| self.nodes.get(medium) == first);
        let mut domains: Vec<(Option<NodeId>, Vec<MediumId>)> = Vec::new();
        for medium in media {
            let node = self.nodes.get(medium).copied().filter(|_| !is_one);
            match domains.iter_mut().find(|(known, _)| node.is_some() && *known == node) {
                Some((_, media)) => media.push(*medium),
                None => domains.push((node, vec![*medium])),
            }
        }
        domains.into_iter().map(|(_, media)| media).collect()
    }

    /// Whether `a` and `b` fail together.
    pub(crate) fn fail_together(&self, a: MediumId, b: MediumId) -> bool {
        self.domains(&[a, b]).len() < 2
    }

    /// Failure domains of the site, but no more than two count: below that nothing new is safe.
    pub(crate) fn least_domains(&self) -> usize {
        self.domains(&self.media).len().min(2)
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
        if self.domains(&staying).len() < self.least_domains() { up } else { staying }
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
        self.nodes.remove(&medium);
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

    /// Media of the next segment: one of each of m+1 failure domains that take what is new, never of fewer than 2 where
    /// the site has 2 (section 4.1 of docs/design.md).
    pub(crate) fn ensemble(&self, turn: u32) -> Vec<MediumId> {
        self.ensemble_among(&self.fit(), turn)
    }

    fn ensemble_among(&self, media: &[MediumId], turn: u32) -> Vec<MediumId> {
        let fit = self.domains(media);
        let wanted = self.ensemble_domains();
        if fit.len() < self.least_domains() || fit.is_empty() {
            return Vec::new();
        }
        let start = turn as usize * wanted;
        let member = |at: usize| {
            let media = &fit[at % fit.len()];
            media[at / fit.len() % media.len()]
        };
        (start..start + wanted.min(fit.len())).map(member).collect()
    }

    /// Failure domains of an ensemble when all are up.
    fn ensemble_domains(&self) -> usize {
        self.domains(&self.media).len().min(3)
    }

    /// [`Health::ensemble`] without the failure domain of `lost`; where that gives fewer media, without `lost` alone; none
    /// where that gives fewer too.
    pub(crate) fn spare(&self, turn: u32, lost: MediumId) -> Vec<MediumId> {
        let width = self.ensemble(turn).len();
        let without = |whole: bool| {
            let mut left = self.fit();
            left.retain(|medium| *medium != lost && !(whole && self.fail_together(*medium, lost)));
            self.ensemble_among(&left, turn)
        };
        [true, false].into_iter().map(without).find(|spare| spare.len() == width).unwrap_or_default()
    }

    /// What a segment on `members` is worth.
    pub(crate) fn fitness(&self, members: &[MediumId]) -> Fitness {
        let is_apart = self.domains(members).len() == members.len();
        if !is_apart
            || members.len() < self.least_domains()
            || !members.iter().all(|medium| self.is_up(*medium))
        {
            return Fitness::Unfit;
        }
        let fit = self.fit();
        let width = self.domains(&fit).len().min(self.ensemble_domains());
        let is_fit = members.len() >= width && members.iter().all(|medium| fit.contains(medium));
        if is_fit { Fitness::Fit } else { Fitness::Stopgap }
    }

    /// How many losses, each of a medium or of a whole failure domain, leave at least `k` of `members`, those that are
    /// down gone already.
    pub(crate) fn survives(&self, members: &[MediumId], k: usize) -> usize {
        let there: Vec<MediumId> = members.iter().copied().filter(|medium| self.is_up(*medium)).collect();
        let mut sizes: Vec<usize> = self.domains(&there).iter().map(Vec::len).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let mut spare = there.len().saturating_sub(k);
        let lost = sizes.into_iter().take_while(|size| {
            let fits = *size <= spare;
            spare = spare.saturating_sub(*size);
            fits
        });
        lost.count()
    }
}
