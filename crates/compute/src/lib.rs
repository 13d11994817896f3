//! The compute role as a process: who serves the site, media of data nodes, and the doors of a host (sections 2 and 7.2 of docs/design.md).
//!
//! ```text
//!  guest ── DIR/nbd.sock ──┐                         ┌── serves: Site ─ Engine ═══ mutual TLS ═══► data nodes
//!  admin ── DIR/api.sock ──┤─► Front ─ who serves? ──┤
//!  peers ══ mutual TLS ════┘                         └── another does: ═══ mutual TLS ═══► its Front
//! ```
//! **Vocabulary.** One compute node of a site **serves** it: it has the **turn**, a key of the metadata store that goes with
//! a lease. The others **stand by**: what comes to their doors they hand on to the one that serves. The **claim** is the
//! record by which the incarnation of an engine owns the site; media that are sealed for it enforce that.
//!
//! **Invariants.**
//! - The turn only decides who tries. Who owns the site the claim says, changed by compare and swap, and the media, which take
//!   nothing from an earlier incarnation: two that think that it is their turn do no harm.
//! - An owner goes on without the metadata store for as long as nobody takes over.
//! - A client of an owner that was superseded gets no answer but an end of its connection: it finds the next owner through the
//!   same door.
//! - Doors on the network are for nodes of the site, and what comes from a peer is not handed on again.
//!
//! **Crash rules.** All that a compute node knows is in the metadata store and on media; its directory has its identity alone.
//!
//! **What it does not do.** One compute node at a time serves all disks of a site.
#![forbid(unsafe_code)]

mod claim;
mod form;
mod front;
mod home;
mod node;
mod outside;
mod records;
mod restored;
mod tls;
mod turn;

pub use crate::home::media_of_nodes;
pub use crate::node::{ComputeOptions, run};
pub use crate::restored::{MISSING_MAX, allow_missing};
pub use crate::turn::end_turn;

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as the record of who serves, and as the claim.
    pub fn fuzz_body(input: &[u8]) {
        let _ = crate::records::Serving::decode(input);
        let _ = crate::claim::decode(input);
    }
}
