//! The data node: keeps journal segments and fragments on its media, and holds no keys.
//!
//! ```text
//!  medium   0            4 KiB  64 KiB       68 KiB 72 KiB                                                  end
//!           | superblock | seal | superblock | seal | table log | table A | table B | journal slots | fragments ... |
//!            (copy 1)            (copy 2)             ring of pages   whole table, in turns     free extents
//! ```
//! The superblock comes first, twice, because it names the site and carries its wrapped keys. The allocation table
//! says where each fragment lies: every change is one page of the table log, made durable in the same sync as the
//! fragment; the whole table is written to A and B in turns. A start reads both tables and the log, never the
//! fragments; when both tables are damaged they are rebuilt from the fragment headers and the log.
//!
//! Vocabulary: a **slot** is room for one journal segment. An **extent** is room for one fragment, in pages. A **lock** keeps
//! a fragment from being freed before a time. A **seal** says from which incarnation on the medium takes changes; a
//! **lease** keeps a medium from being sealed before a time.
//!
//! Invariants: an answer to a write is given only when it is durable. No extent holds two fragments of the table.
//! Nothing is updated in place; a freed extent is used again only when the freeing is durable. A copy that supersedes
//! another is durable before the table points to it. A lock is never lowered, and what is locked is not freed. A
//! sealed medium never takes a change of an earlier incarnation, and a seal is answered when none is under way and no lease
//! holds [I3]. Of what stands twice (superblock, seal, table) the sound one is never written while the other is damaged.
//!
//! Crash rules: a new fragment may be in the table without having landed. Its write was not answered; its CRCs tell,
//! and a write that is asked again replaces it. A page of the table log that is damaged loses its changes: a
//! fragment that is missing (decoded from the others) or some that are kept too long (freed again by whoever compares
//! the list with the commits). A table rebuilt from headers may hold fragments freed long ago, in the same way. A
//! segment found at the start takes no appends. A place that cannot be read is damage; a medium that is gone is an
//! error, and nothing of it is written anew.
//!
//! What it does not do: it knows no container's meaning, no disk, no commit; it never decides what to delete.

mod fragments;
mod gate;
mod layout;
mod load;
mod local;
mod locks;
mod node;
mod slots;
mod superblock;
mod table;

pub use layout::{Layout, Params};
pub use local::LocalTransport;
pub use node::{MediumNode, OpenError, OpenErrorKind, format, open};
pub use superblock::{Superblock, mend_superblock, read_superblock, write_superblock};

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as a superblock, a page of the table log and a table.
    pub fn fuzz_body(input: &[u8]) {
        let _ = crate::Superblock::decode(input);
        crate::table::fuzz_body(input);
    }
}

#[cfg(test)]
mod tests;
