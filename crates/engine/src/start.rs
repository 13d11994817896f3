//! The bound of the start record: every segment of the journal begins with one, so one that outgrew its segment would end
//! the journal, and every start after it.
//!
//! What grows it says so here before it does: flushes, deletions and metadata are refused when they would bring it over its
//! bound, with an error that names what is missing, a checkpoint. Reads go on, and a restart finds all as it was.

use crate::engine::Shared;
use crate::error::{EngineError, EngineErrorKind};
use crate::state::State;

/// Most bytes of a commit in a start record: container 19, three numbers of 32 bits 15, the map log's name 16, ordinal and
/// seq 20, blocks and their bytes 15.
const COMMIT_BYTES: usize = 85;
/// Most bytes of a deletion: container 19, two numbers of 32 bits.
const DELETED_BYTES: usize = 29;
/// Most bytes of a range of the ledger: two numbers of 32 bits.
const RANGE_BYTES: usize = 10;
/// Bytes of an incarnation in the ledger besides its ranges: its id and their number.
const INCARNATION_BYTES: usize = 20;
/// Most bytes of a piece of the checkpoint: a name and an address.
const PIECE_BYTES: usize = 51;
/// A commit makes a range at most.
pub(crate) const FLUSH_BYTES: usize = COMMIT_BYTES + RANGE_BYTES;
/// A deletion cuts a range in two at most.
pub(crate) const DELETION_BYTES: usize = DELETED_BYTES + RANGE_BYTES;
/// Part of a segment that a start record may have, percent. The journal itself takes none of more than half a segment.
const SEGMENT_PERCENT: usize = 45;

impl State {
    /// Bytes that the start record needs at most, without rows.
    pub(crate) fn start_bytes(&self) -> usize {
        let ranges: usize =
            self.ledger.values().map(|ranges| ranges.len() * RANGE_BYTES + INCARNATION_BYTES).sum();
        let pieces = self.checkpoint.as_ref().map_or(0, |pointer| pointer.pieces.len() * PIECE_BYTES);
        self.commits.len() * COMMIT_BYTES
            + self.deleted.len() * DELETED_BYTES
            + ranges
            + pieces
            + self.meta_bytes()
    }
}

impl Shared {
    /// Whether the start record takes `more` bytes.
    pub(crate) fn start_takes(&self, state: &State, more: usize) -> bool {
        let most = self.config.segment_bytes as usize / 100 * SEGMENT_PERCENT;
        state.start_bytes() + self.pool.row_bytes() + more <= most
    }

    /// Refuses what would make the start record too long.
    ///
    /// # Errors
    /// `NoSpace`.
    pub(crate) fn check_start(&self, more: usize) -> Result<(), EngineError> {
        if self.start_takes(&self.lock(), more) {
            return Ok(());
        }
        let reason = "the journal's start record is full: what it lists has to go to a checkpoint first";
        Err(EngineError::new(EngineErrorKind::NoSpace, reason))
    }
}
