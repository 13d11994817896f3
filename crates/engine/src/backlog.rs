//! The backlog: commits, deletions and metadata behind the last checkpoint, and where it stands (decision 0016).
//!
//! ```text
//!  short   in the start record of each new segment
//!  long    in the journal's segments alone, which stay for it; once some stay for nothing else it is written to the log,
//!          and a record in the journal names it
//! ```
//! So a start record has a bound whatever the site holds, and nothing waits for a checkpoint to make one fit. The pieces in
//! the log are what recovery reads: the cleaner keeps away from them as from those of the checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use journal::{Backlog, BacklogAt, BacklogPointer, Entry, MetaPiece};
use serde::{Deserialize, Serialize};
use units::Seq;

use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::state::State;

const VERSION: u8 = 1;
/// Most bytes of a commit in a start record: container 19, three numbers of 32 bits 15, the map log's name 16, ordinal and
/// seq 20, blocks and their bytes 15.
const COMMIT_BYTES: usize = 85;
/// Most bytes of a deletion: container 19, two numbers of 32 bits.
const DELETED_BYTES: usize = 29;
/// Share of the journal, in percent, that may stay for nothing but the backlog before that is told elsewhere: below what
/// makes writes wait, and rare enough that it costs little beside them.
const UNTOLD_PERCENT: usize = 25;

/// A backlog as it stands in the log.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    backlog: Backlog,
}

pub(crate) fn decode_backlog(bytes: &[u8]) -> Option<Backlog> {
    match postcard::take_from_bytes::<Stored>(bytes) {
        Ok((stored, [])) if stored.version == VERSION => Some(stored.backlog),
        _ => None,
    }
}

impl State {
    /// Bytes that the backlog needs at most in a start record.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.commits.len() * COMMIT_BYTES + self.deleted.len() * DELETED_BYTES + self.meta_bytes()
    }

    pub(crate) fn backlog(&self) -> Backlog {
        Backlog { commits: self.commits.clone(), meta: self.meta.clone(), deleted: self.deleted.clone() }
    }

    /// Number of the last checkpoint; 0 before the first.
    pub(crate) fn checkpoint_number(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |pointer| pointer.number)
    }
}

impl Shared {
    fn is_backlog_short(&self) -> bool {
        self.lock().backlog_bytes() <= self.config.start_backlog_bytes
    }

    /// Whether segments of the journal stay for nothing but the backlog.
    fn is_backlog_due(&self) -> bool {
        let Some(journal) = self.journal.get() else { return false };
        let untold = journal.untold(self.lock().covered);
        untold > 0 && untold * 100 >= UNTOLD_PERCENT * self.config.segments_max as usize
    }

    /// Share of the journal, in percent, that is in use for more than the backlog.
    pub(crate) fn uncovered_percent(&self) -> Result<usize, EngineError> {
        let journal = self.journal()?;
        let untold = journal.untold(self.lock().covered) * 100 / (self.config.segments_max as usize).max(1);
        Ok(journal.used_percent().saturating_sub(untold))
    }

    /// What of backlogs in the log is needed no more may go.
    fn drop_told(&self) {
        let Some(journal) = self.journal.get() else { return };
        let needed = match journal.told().backlog {
            BacklogAt::Log(pointer) => Some(pointer.told),
            _ => None,
        };
        let mut state = self.lock();
        let before = state.backlogs.len();
        state.backlogs.retain(|(told, _)| Some(*told) == needed);
        state.may_have_garbage |= state.backlogs.len() < before;
    }
}

impl Engine {
    /// Where segments of the journal stay for the backlog alone, has it told elsewhere, beside the flush.
    pub(crate) fn tell_backlog_when_due(&self) {
        if let Ok(_turn) = self.shared.telling.try_lock() {
            self.shared.drop_told();
        }
        if !self.shared.is_backlog_due() || self.shared.telling_runs.swap(true, Ordering::Relaxed) {
            return;
        }
        let engine = self.clone();
        let task = async move {
            let told = engine.shared.guarded("backlog", engine.tell_backlog()).await;
            if let Err(error) = &told {
                tracing::warn!(%error, "the journal's backlog is not told elsewhere yet: it will be tried again");
                engine.shared.lock().room_wanted |= error.kind == EngineErrorKind::NoSpace;
                engine.pause().await;
            }
            engine.shared.telling_runs.store(false, Ordering::Relaxed);
            engine.shared.flush_wake.notify_one();
        };
        self.shared.rt.spawn("backlog", Box::pin(task));
    }

    /// Has the backlog told by a start record or by the log, so that no segment of the journal stays for it.
    ///
    /// # Errors
    /// When the journal or the pool does not take it.
    pub(crate) async fn tell_backlog(&self) -> Result<(), EngineError> {
        let _turn = self.shared.telling.lock().await;
        let journal = self.shared.journal()?;
        let is_short = self.shared.is_backlog_short();
        self.shared.maybe_yield().await;
        if is_short {
            journal.rotate().await.map_err(|_| closed())??;
        } else {
            self.write_backlog().await?;
        }
        self.shared.drop_told();
        let covered = self.shared.lock().covered;
        self.shared.maybe_yield().await;
        journal.trim(covered);
        Ok(())
    }

    /// Before a new start record is to tell all: a backlog that is too long for one goes to the log.
    pub(crate) async fn shorten_start(&self) -> Result<(), EngineError> {
        let _turn = self.shared.telling.lock().await;
        if self.shared.is_backlog_short() {
            return Ok(());
        }
        self.write_backlog().await?;
        self.shared.drop_told();
        Ok(())
    }

    /// Writes the backlog, as of now, to the log.
    async fn write_backlog(&self) -> Result<(), EngineError> {
        let (backlog, told, behind, before) = {
            let state = self.shared.lock();
            let before: Vec<Arc<[MetaPiece]>> =
                state.backlogs.iter().map(|(_, pieces)| pieces.clone()).collect();
            (state.backlog(), state.next_seq, state.checkpoint_number(), before)
        };
        let stored = Stored { version: VERSION, backlog };
        let bytes = postcard::to_stdvec(&stored).expect("plain values always encode");
        let mut used = BTreeMap::new();
        before.iter().flat_map(|pieces| pieces.iter()).for_each(|piece| {
            *used.entry(piece.address.container).or_default() += u64::from(piece.address.length);
        });
        let worth = self.shared.worth_keeping(&used);
        let known = before.iter().flat_map(|pieces| pieces.iter());
        let known = known.filter(|piece| worth.contains(&piece.address.container));
        let mut writer = self.piece_writer(known);
        let names = writer.add(&bytes).await?;
        writer.commit().await?;
        let (root, pieces) = writer.tree(writer.named(&names)).await?;
        self.shared.lock().backlogs.push((told, pieces.into()));
        let entry = Entry::Backlog(BacklogPointer { root, behind, told });
        self.shared.journal()?.append_control(vec![entry]).await.map_err(|_| closed())??;
        tracing::debug!(told = told.0, bytes = bytes.len(), "the backlog stands in the log");
        Ok(())
    }
}

/// Pieces of a backlog in the log, by the seq up to which it tells.
pub(crate) type Kept = (Seq, Arc<[MetaPiece]>);

fn closed() -> EngineError {
    EngineError::new(EngineErrorKind::Closed, "the journal is gone")
}
