//! Which media are up.

use std::collections::BTreeMap;

use units::MediumId;

/// What is known of a medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediumHealth {
    /// The medium.
    pub medium: MediumId,
    /// Takes part in new stripes and segments.
    pub up: bool,
    /// Had no room for the last write.
    pub full: bool,
    /// Why it is down, for people.
    pub reason: Option<String>,
}

/// The media of the site, in their order.
#[derive(Debug, Default)]
pub struct Health {
    media: Vec<MediumId>,
    down: BTreeMap<MediumId, String>,
    full: BTreeMap<MediumId, bool>,
}

impl Health {
    /// A site with these media; those in `up` are there.
    pub fn new(media: &[MediumId], up: &[MediumId]) -> Self {
        let missing = media.iter().filter(|medium| !up.contains(medium));
        Self {
            media: media.to_vec(),
            down: missing.map(|medium| (*medium, "missing at the start".to_owned())).collect(),
            full: BTreeMap::new(),
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

    pub(crate) fn is_up(&self, medium: MediumId) -> bool {
        !self.down.contains_key(&medium)
    }

    /// `medium` failed; says whether that is news.
    pub(crate) fn failed(&mut self, medium: MediumId, reason: &str) -> bool {
        self.media.contains(&medium) && self.down.insert(medium, reason.to_owned()).is_none()
    }

    pub(crate) fn restored(&mut self, medium: MediumId) {
        self.down.remove(&medium);
        self.full.remove(&medium);
    }

    pub(crate) fn set_full(&mut self, medium: MediumId, full: bool) {
        self.full.insert(medium, full);
    }

    pub(crate) fn list(&self) -> Vec<MediumHealth> {
        let health = |medium: &MediumId| MediumHealth {
            medium: *medium,
            up: self.is_up(*medium),
            full: self.full.get(medium).copied().unwrap_or(false),
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
