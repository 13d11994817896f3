//! The journal: the mirrored write-ahead log (section 4.1 of docs/design.md).
//!
//! Vocabulary: a **stream** is the journal of one incarnation, cut into **segments**. A segment lies whole on every
//! medium of its **ensemble**: m+1 media in different failure domains. A **batch** is what is made durable together:
//! whole pages, chained by a keyed hash. A **record** is one entry; its position is its **seq**. The first batch of
//! every segment is a **start** record: all that recovery must know that older segments may have said. The **witness** is
//! what stands outside the media; ensembles that it names are **registered**.
//!
//! ```text
//!  segment   | header page | batch 0: start, tail | batch 1 | batch 2 | ...
//!  batch     | header 96: stream, segment, index, first seq, MAC of the batch before, MAC | records | zeros |
//! ```
//!
//! Invariants: a batch is acknowledged when it is durable on the whole ensemble, in order, and only then seen by the
//! [`Sink`] [I2]. One batch is on its way at a time, so a bad batch with a valid one behind it is corruption and
//! never the tail. A member that fails is replaced by going on in a new segment; what was not acknowledged is
//! written again there under the same seqs. A segment goes when a durable commit covers all its records [I5]:
//! recovery does not ask for it, be the commit behind the newest start or in it. Of commits, deletions and metadata a
//! checkpoint and the **backlog** tell, up to a seq; for those behind it segments stay too. Where another process may take over, the
//! segment in use lies on an ensemble that is registered for certain; its next ones are registered ahead. Elsewhere each
//! segment is known outside before it is used.
//!
//! Crash rules: recovery takes the union of valid batches over all reachable members; the batch that was on its way
//! may be found or not. When it is found it may be on one medium only, so the first start of the new stream carries
//! the last batch along: everything in a live segment is durable on a whole ensemble, whoever reads it next. A batch
//! damaged on every member with nothing valid behind it cannot be told from one that was on its way. Recovery wants an
//! answer of a member of each registered ensemble, sealed before: so it has the newest segment, and nobody adds to it.
//!
//! A full journal: when all but two of the segments it may hold are live, writes wait, and fill at most the segment
//! that is open. Metadata goes on into a few more, so that a full site takes deletions; control records always go
//! on, so that what makes room never waits for room.
//!
//! What it does not do: it chooses no media ([`Ensembles`] does), and knows no map and no container.

mod ensemble;
mod format;
mod lease;
mod queue;
mod reader;
mod records;
mod recover;
mod register;
mod registry;
mod roll;
mod rows;
mod start;
mod takeover;
mod writer;

pub use ensemble::{ENSEMBLES_MAX, Ensemble, Ensembles, Fitness, Registered, WitnessError, WitnessErrorKind};
pub use format::{BATCH_HEADER_BYTES, BatchHeader, JournalFormatError, SegmentHeader, SegmentPlace};
pub use records::{
    BacklogPointer, CheckpointPointer, Commit, Deleted, Entry, Fork, LedgerRun, LiveSegment, MetaPiece,
    Record, Root, Row, Tail, decode_records,
};
pub use recover::{RecoverError, RecoverErrorKind, Recovered, recover, salvage};
pub use roll::SEGMENTS_PER_OPENING;
pub use start::{Backlog, BacklogAt, Known, START_BYTES_MAX, Start, Told};
pub use takeover::{newest_epoch, seal_media};
pub use writer::{Append, Journal, JournalConfig, JournalError, JournalErrorKind, Sink};

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as a segment header, with and without its key, a batch, a list of records and a first batch's tail.
    pub fn fuzz_body(input: &[u8]) {
        let key = [1; 32];
        let _ = crate::SegmentPlace::decode(input);
        let _ = crate::SegmentHeader::decode(input, &key);
        if let Ok(header) = crate::BatchHeader::peek(input) {
            let _ = header.verify(input, &key);
        }
        let _ = crate::decode_records(units::Seq(1), u32::MAX, input);
        let _ = crate::Tail::of_start(input);
    }
}

#[cfg(test)]
mod tests;
