//! Who holds the next segment.

use units::MediumId;

/// Chooses media for segments and hears of those that fail. The pool implements it.
pub trait Ensembles: Send + Sync {
    /// Up to m+1 media that are up, in different failure domains; `turn` spreads segments over the media.
    /// Empty when there are too few to acknowledge a write safely.
    fn ensemble(&self, turn: u32) -> Vec<MediumId>;
    /// `medium` did not take a write. `full` when only its room is out.
    fn failed(&self, medium: MediumId, full: bool, reason: &str);
}
