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
const FLUSH_BYTES: usize = COMMIT_BYTES + RANGE_BYTES;
/// A deletion cuts a range in two at most.
const DELETION_BYTES: usize = DELETED_BYTES + RANGE_BYTES;
/// Part of a segment that a start record may have, percent, with a flush and with what else makes it longer: deletions make
/// room, and metadata takes some. The journal itself takes none of more than half a segment.
const FLUSH_PERCENT: usize = 43;
const SEGMENT_PERCENT: usize = 46;
/// From this part of a segment on a start record calls for a checkpoint.
const CHECKPOINT_PERCENT: usize = 38;

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
    fn start_is_below(&self, state: &State, more: usize, percent: usize) -> bool {
        let most = self.config.segment_bytes as usize / 100 * percent;
        state.start_bytes() + self.pool.row_bytes() + more <= most
    }

    /// Whether the start record takes `more` bytes of metadata.
    pub(crate) fn start_takes(&self, state: &State, more: usize) -> bool {
        self.start_is_below(state, more, SEGMENT_PERCENT)
    }

    /// Whether the start record is long, and a checkpoint would shorten it.
    pub(crate) fn start_wants_checkpoint(&self, state: &State) -> bool {
        let is_relieved = !state.commits.is_empty() || !state.deleted.is_empty() || !state.meta.is_empty();
        is_relieved && !self.start_is_below(state, 0, CHECKPOINT_PERCENT)
    }

    /// Refuses a flush whose commit would make the start record too long.
    ///
    /// # Errors
    /// `NoSpace`.
    pub(crate) fn check_flush(&self) -> Result<(), EngineError> {
        self.check_start(FLUSH_BYTES, FLUSH_PERCENT)
    }

    /// Refuses so many deletions when they would make the start record too long.
    ///
    /// # Errors
    /// `NoSpace`.
    pub(crate) fn check_deletions(&self, count: usize) -> Result<(), EngineError> {
        self.check_start(count * DELETION_BYTES, SEGMENT_PERCENT)
    }

    fn check_start(&self, more: usize, percent: usize) -> Result<(), EngineError> {
        if self.start_is_below(&self.lock(), more, percent) {
            return Ok(());
        }
        let reason = "the journal's start record is full: what it lists has to go to a checkpoint first";
        Err(EngineError::new(EngineErrorKind::NoSpace, reason))
    }
}
