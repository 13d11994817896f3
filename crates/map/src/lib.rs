//! The block map of a disk: an immutable Merkle radix tree over lba, and a mutable overlay above it (section 5 of docs/design.md).
//!
//! Vocabulary: a **page** has up to 64 entries; a **leaf** (level 0) names blocks, a page of level n names pages of
//! level n-1. The **root** is the top page's name and address. The **overlay** holds what changed since the tree
//! was written; a checkpoint **merges** it and gives a new root.
//!
//! A page is stored in two parts: the fingerprints (and block counts), whose keyed hash is the page's name, so that
//! the same contents have the same root on every site; and the addresses, which are local.
//!
//! Invariants: the tree is canonical: fixed fan-out, holes and empty pages absent, height from the disk's size. Pages
//! are never changed; a merge writes new ones and leaves the others shared.
//!
//! What it does not do: it neither seals nor stores pages; [`Pages`] loads and [`PageSink`] stores.

mod diff;
mod format;
mod merge;
mod overlay;
mod page;
mod read;

pub use diff::diff;
pub use format::{MapFormatError, PageParts, decode_page, encode_page};
pub use merge::{Kept, MergeError, PageSink, Top, merge};
pub use overlay::{Found, HoleSet, Overlay};
pub use page::{Entry, FANOUT, Page, Place, Root, height_for, span};
pub use read::{Extent, Pages, extents, lookup};

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as a page, cut in two as its first two bytes say.
    pub fn fuzz_body(input: &[u8]) {
        let Some((cut, rest)) = input.split_first_chunk() else { return };
        let (fps, addresses) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*cut))));
        let container =
            units::ContainerId { incarnation: units::Incarnation(1), number: 0, class: 0, row: 0 };
        let _ = crate::decode_page(fps, addresses, container, 1);
    }
}

#[cfg(test)]
mod tests;
