//! Who holds the next segment.

use units::MediumId;

/// Chooses media for segments and hears of those that fail. The pool implements it.
pub trait Ensembles: Send + Sync {
    /// Up to m+1 media that are up, in different failure domains; `turn` spreads segments over the media.
    /// Empty when there are too few to acknowledge a write safely.
    fn ensemble(&self, turn: u32) -> Vec<MediumId>;
    /// How often `medium` came back after a failure: what it was asked before says nothing of it now. 0 where media
    /// never come back.
    fn restores(&self, _medium: MediumId) -> u64 {
        0
    }
    /// `medium` did not take a write that was sent when it had been restored `restores` times. `full` when only its
    /// room is out.
    fn failed(&self, medium: MediumId, restores: u64, full: bool, reason: &str);
}
