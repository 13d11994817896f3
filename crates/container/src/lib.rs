//! The container: an 8 MiB unit of the log, and the fragment: one of its k+m parts (sections 4.3 and 4.6 of docs/design.md).
//!
//! ```text
//!  container                                              fragment i of k+m
//!  0        64                                            0                        header bytes
//!  | prelude | sealed units ... | directory | map log |    | header with page CRCs | container bytes i*F .. (i+1)*F |
//!                               |<------ tail ------>|    (i >= k: parity)
//! ```
//! Units come before the directory so that a unit's place is known when it is added: a map page can name another
//! page of its own container. Prelude and lengths (repeated in the commit record) say where the tail is; recovery
//! reads the tail in one piece. Units lie back to back; a cold read goes straight to a unit by its address.
//!
//! Vocabulary: a **slot** is an index into the directory. The **map log** lists every map change of the flush that
//! made the container, dedup hits and holes too. F, the fragment's payload, is ceil(container / k) to 4 KiB.
//!
//! Invariants: a container is immutable once written; one without a commit record does not exist. The directory
//! is covered by a CRC, each unit by its CRC in the directory and by its seal, each page of a fragment by a CRC in
//! the fragment's header, so that data nodes find rot without keys.
//!
//! What it does not do: no I/O, no erasure coding, no choice of media.

mod build;
mod fragment;
mod head;
mod maplog;

pub use build::{Builder, Built};
pub use fragment::{FRAGMENT_MEMBERS_MAX, FragmentHeader, fragment_bytes, header_bytes};
pub use head::{ENTRY_BYTES, Entry, FormatError, Head, HeadPlace, PRELUDE_BYTES, UnitKind};
pub use maplog::{CHANGE_BYTES_MAX, CHANGES_MAX, Change, MapLog};

/// Most slots of a container: bounds the directory (1 MiB).
pub const SLOTS_MAX: usize = 32 * 1024;

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as a head, a map log and a fragment header.
    pub fn fuzz_body(input: &[u8]) {
        let (first, rest) = input.split_at(input.len().min(crate::PRELUDE_BYTES));
        let _ = crate::Head::decode(first, rest);
        let _ = crate::MapLog::decode(input);
        let _ = crate::FragmentHeader::decode(input);
    }
}

#[cfg(test)]
mod tests;
