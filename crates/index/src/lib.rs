//! The fingerprint index: which container probably holds a block (section 6.1 of docs/design.md).
//!
//! Vocabulary: a **tag** is 32 bits of a fingerprint; an entry is a tag and a container number, 8 bytes. A **hook** is
//! a fingerprint the index still samples when it is full: each **level** halves how many are.
//!
//! Invariants: an answer is a guess. A dedup hit counts only when the caller has read the fingerprint in the
//! directory of a committed container. The index may be lost at any time; it is rebuilt from directories.
//!
//! It holds every fingerprint until its memory limit is reached, then every second, every fourth, ... A directory
//! that one hook leads to gives the neighbours, since blocks written together are mostly written together again
//! (sparse indexing, Lillibridge et al., FAST 2009). What is forgotten makes room: how it samples follows what is there, and
//! not what was ever written.
//!
//! What it does not do: no I/O, no persistence, no check.

mod table;

pub use table::Index;

use units::ContainerId;

/// A container the index may name: what a reader needs to read its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The container.
    pub container: ContainerId,
    /// Payload of each of its fragments, in pages.
    pub fragment_pages: u16,
}

#[cfg(test)]
mod tests;
