//! The start record: what recovery must know from before a segment, and how much of that the segments still tell.
//!
//! The **backlog** is what commits, deletions and metadata records say that no checkpoint has yet. A short one stands in the
//! start record itself. A long one stands in the log, or nowhere but in the records: then the segments from **told** on stay,
//! and recovery reads them. So no start record grows with what the site holds.

use serde::{Deserialize, Serialize};
use units::{Fingerprint, Seq};

use crate::{BacklogPointer, CheckpointPointer, Commit, Deleted, Entry, LiveSegment, Record, Row};

/// Most bytes of a start record.
pub const START_BYTES_MAX: usize = 64 << 10;

/// What happened behind a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// Commits, oldest first.
    pub commits: Vec<Commit>,
    /// Metadata records: seq, name, sealed unit.
    pub meta: Vec<(Seq, Fingerprint, Vec<u8>)>,
    /// Containers deleted.
    pub deleted: Vec<Deleted>,
}

/// Where the backlog stands that a start record goes by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BacklogAt {
    /// There is none.
    #[default]
    Nowhere,
    /// In this start record.
    Here(Backlog),
    /// In that of an earlier segment, which is live.
    Start(LiveSegment),
    /// In the log.
    Log(BacklogPointer),
}

/// All that recovery must know from before this segment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Start {
    /// Writes, holes and cuts before this seq are covered by commits.
    pub covered: Seq,
    /// Older segments that hold records from `covered` or from `told` on, oldest first.
    pub live: Vec<LiveSegment>,
    /// The last checkpoint.
    pub checkpoint: Option<CheckpointPointer>,
    /// Commits, deletions and metadata records before this seq are told by the checkpoint and the backlog; the others stand in
    /// the segments.
    pub told: Seq,
    /// What the checkpoint has not.
    pub backlog: BacklogAt,
    /// The layout.
    #[serde(with = "crate::rows")]
    pub rows: Vec<Row>,
}

/// What the sink knows of a start; where a backlog that is too long stands the journal knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Writes, holes and cuts before this seq are covered by commits.
    pub covered: Seq,
    /// The last checkpoint.
    pub checkpoint: Option<CheckpointPointer>,
    /// What it has not, as of the last record; `None` when that is too much for a start record.
    pub backlog: Option<Backlog>,
    /// The layout.
    pub rows: Vec<Row>,
}

/// Up to where checkpoint and backlog tell what happened, as one record after the other becomes durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Records before it are told.
    pub before: Seq,
    /// The last checkpoint.
    pub checkpoint: Option<CheckpointPointer>,
    /// What it has not; never `Here`.
    pub backlog: BacklogAt,
}

impl Told {
    /// As the start record of `segment` says.
    pub(crate) fn by(start: &Start, segment: LiveSegment) -> Self {
        let backlog = match &start.backlog {
            BacklogAt::Here(_) => BacklogAt::Start(segment),
            elsewhere => elsewhere.clone(),
        };
        Self { before: start.told, checkpoint: start.checkpoint.clone(), backlog }
    }

    /// A checkpoint's record: of one that was there before nothing is to be learnt.
    fn checkpointed(&mut self, pointer: &CheckpointPointer) {
        if pointer.number <= self.number() {
            return;
        }
        self.checkpoint = Some(pointer.clone());
        if pointer.told >= self.before {
            (self.before, self.backlog) = (pointer.told, BacklogAt::Nowhere);
        }
    }

    /// A backlog's record. One that a checkpoint has overtaken counts for nothing.
    fn written(&mut self, pointer: &BacklogPointer) {
        if pointer.behind == self.number() && pointer.told > self.before {
            (self.before, self.backlog) = (pointer.told, BacklogAt::Log(*pointer));
        }
    }

    /// Number of the last checkpoint.
    pub fn number(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |pointer| pointer.number)
    }

    /// A record is found.
    pub(crate) fn found(&mut self, record: &Record) {
        match record {
            Record::Checkpoint(pointer) => self.checkpointed(pointer),
            Record::Backlog(pointer) => self.written(pointer),
            _ => {}
        }
    }

    /// A record is durable.
    pub(crate) fn durable(&mut self, entry: &Entry) {
        match entry {
            Entry::Checkpoint(pointer) => self.checkpointed(pointer),
            Entry::Backlog(pointer) => self.written(pointer),
            _ => {}
        }
    }

    /// Whether the backlog stands in the start record of this segment.
    pub(crate) fn is_in(&self, segment: LiveSegment) -> bool {
        self.backlog == BacklogAt::Start(segment)
    }
}
