//! The data role as a process: a node's directory, who it is, its media, and the port that serves them (sections 2 and 7.3 of docs/design.md).
//!
//! ```text
//!  compute ═══ mutual TLS ═══► Listener ─► Shelf ─┬─ of a medium ──► MediumNode, one for each medium of the site
//!                                                 └─ of the node ──► list, format, superblock
//! ```
//! Vocabulary: the **shelf** is all media that the node was given, served or not. A medium is **blank** when nothing stands
//! on it; it gets its id from the node, and becomes one of the site when a compute node formats it.
//!
//! Invariants: the node holds no key of the site, and nothing that it does needs one. A medium of another site, or with
//! something on it, is never written to. Only compute nodes of the node's own site are served.
//!
//! Crash rules: what the node was told is in `node.json` before it is done: the id of a blank medium, and that it is being
//! formatted, so that one that was formatted half-way is blank again.
//!
//! What it does not do: it decides nothing of what is stored, deleted or moved.
#![forbid(unsafe_code)]

mod data_node;
mod directory;
mod identity;
mod shelf;
#[cfg(test)]
mod tests;

pub use data_node::{DataNode, Options};
pub use directory::Directory;
pub use identity::{load_identity, save_certificate, save_identity, save_revoked};

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as `node.json`.
    pub fn fuzz_body(input: &[u8]) {
        let _ = crate::directory::Record::decode(input);
    }
}
