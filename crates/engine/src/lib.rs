//! The engine: the compute node's core. Reads, writes, flush, checkpoints, recovery (section 4 of docs/design.md).
//!
//! ```text
//!  write ─ split 4K ─ fingerprint ─ compress ─ seal ─► journal ensemble ─► ack, visible in the write buffer
//!                                                                             │ a generation is full
//!                        read ◄─ RAM cache ◄─ pool            dedup ─ container ─ k+m fragments ─ commit record
//!                          ▲                                                  │
//!                          └── write buffer, overlay, tree ◄──────────────────┘ map log applied to the overlay;
//!                                                             checkpoint merges overlays into trees
//! ```
//!
//! Vocabulary: a **generation** is the part of the write buffer that becomes one container. What a read sees of a
//! disk is, from the top: generations newest first, the overlay, sealed layers, the tree. A **fork** is a disk that
//! begins as another is at a **cut**.
//!
//! Invariants: a write is seen only when it is durable on its whole ensemble [I2], because only the journal's sink
//! fills the generations. A container's changes are applied only with its durable commit record; its generation goes
//! in the same step. The journal is trimmed behind durable commits only [I5]. A write is admitted only when its
//! worst-case flush fits what the pool has left beside the reserve [I10].
//!
//! Crash rules: all state is rebuilt from the newest start record, the checkpoint and the backlog, the map logs of the commits since,
//! and the journal's records that no commit covers; the same code serves every kind of restart.
//!
//! What it does not do: no names of VMs and snapshots, no protocol.

mod admission;
mod backlog;
mod body;
mod checkpoint;
mod clean;
mod config;
mod dedup;
mod departures;
mod diff;
mod disk;
mod engine;
mod error;
mod exposure;
mod flush;
mod forks;
mod generation;
mod holds;
mod kept;
mod lacks;
mod load;
mod losses;
mod mark;
mod members;
mod metadata;
mod open;
mod outcome;
mod pace;
mod pages;
mod progress;
mod ranges;
mod read;
mod rebuild;
mod reconcile;
mod record;
mod reseal;
mod scrub;
mod sink;
mod space;
mod state;
mod status;
mod stubs;
mod sweep;
mod told;
mod verify;
mod walk;
mod witness;
mod write;

pub use admission::FULL_BELOW;
pub use clean::CleanReport;
pub use config::{Config, Deps};
pub use diff::Changed;
pub use engine::Engine;
pub use error::{EngineError, EngineErrorKind};
pub use exposure::Exposure;
pub use forks::{Fork, OpenDisk, Part};
pub use holds::Hold;
pub use kept::Blocked;
pub use losses::OnLoss;
pub use members::{Joins, Moving};
pub use outcome::{MetaThrough, Through};
pub use progress::Progress;
pub use scrub::{ScrubCursor, ScrubTotals};
pub use space::{GroupSpace, SpaceReport};
pub use status::{EngineStatus, Extent};
pub use verify::VerifyReport;
pub use witness::{Witness, WitnessError, WitnessErrorKind, WitnessState};

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as a witness, a checkpoint object, a backlog, the record of retiring containers and a hold.
    pub fn fuzz_body(input: &[u8]) {
        let _ = crate::WitnessState::decode(input);
        let _ = crate::body::Body::decode(input);
        let _ = crate::reseal::Retiring::decode(input);
        let _ = crate::backlog::decode_backlog(input);
        crate::holds::fuzz_body(input);
    }
}

#[cfg(test)]
mod tests;
