//! Who holds the next segment, and what is known of that outside the media.

use proto::SegmentId;
use units::MediumId;

use crate::format::MEMBERS_MAX;

/// Most ensembles that are registered at once: some of the stream that writes, and those of the ones before until it has
/// a segment of its own.
pub const ENSEMBLES_MAX: usize = 32;

/// A set of media in different failure domains that hold a segment whole; in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ensemble(Vec<MediumId>);

impl Ensemble {
    /// The ensemble of `members`, in any order; `None` when there are none, too many, or one twice.
    pub fn new(members: &[MediumId]) -> Option<Self> {
        let mut sorted = members.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let is_sound = (1..=MEMBERS_MAX).contains(&sorted.len()) && sorted.len() == members.len();
        is_sound.then_some(Self(sorted))
    }

    /// Its media, in order.
    pub fn members(&self) -> &[MediumId] {
        &self.0
    }
}

impl std::fmt::Display for Ensemble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, medium) in self.0.iter().enumerate() {
            write!(f, "{}{medium}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What stands outside the media of a journal: with it, that its newest segment is missing cannot pass unseen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registered {
    /// A segment that took records, and none before it is needed any more to find the newest. Where ensembles are
    /// registered it may be behind the newest segment.
    pub last: Option<SegmentId>,
    /// The newest segment lies on one of these. None where `last` is the newest segment.
    pub ensembles: Vec<Ensemble>,
}

/// Why it is not certain that something is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WitnessErrorKind {
    /// Another incarnation has claimed the site: it is not, and never will be.
    Superseded,
    /// No answer: it may be, now or later, until a later request is answered.
    Unanswered,
}

/// Something could not be registered, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct WitnessError {
    /// What is certain.
    pub kind: WitnessErrorKind,
    /// What happened.
    pub reason: String,
}

/// What an ensemble is good for at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// A member is down, or a write there would not be safe.
    Unfit,
    /// A write is safe there, but segments are to lie elsewhere where they can: it is smaller than need be, or a member
    /// is leaving.
    Stopgap,
    /// As good as what [`Ensembles::ensemble`] gives.
    Fit,
}

/// Chooses media for segments and hears of those that fail. The pool implements it.
pub trait Ensembles: Send + Sync {
    /// Up to m+1 media that are up, in different failure domains; `turn` spreads segments over the media.
    /// Empty when there are too few to acknowledge a write safely.
    fn ensemble(&self, turn: u32) -> Vec<MediumId>;
    /// What [`Ensembles::ensemble`] would give without the failure domain of `lost`; where that were less than it gives
    /// now, without `lost` alone. Empty when that were less too.
    fn spare(&self, turn: u32, lost: MediumId) -> Vec<MediumId>;
    /// What segments on `members` are worth.
    fn fitness(&self, members: &[MediumId]) -> Fitness;
    /// Whether two media fail together.
    fn fail_together(&self, a: MediumId, b: MediumId) -> bool;
    /// How often `medium` came back after a failure: what it was asked before says nothing of it now. 0 where media
    /// never come back.
    fn restores(&self, _medium: MediumId) -> u64 {
        0
    }
    /// `medium` did not take a write that was sent when it had been restored `restores` times. `full` when only its
    /// room is out.
    fn failed(&self, medium: MediumId, restores: u64, full: bool, reason: &str);
}
