//! The catalogue of a site: its VMs with their disks, files, definitions, folders, tags and labels, their snapshots, protection groups with their points, what
//! is in the trash, and what clients import and export.
//!
//! ```text
//!  Catalog ── changes ── each in its turn ─► one transaction of records and disks ─► engine
//!     │  └─── exports ── what NBD clients open ──────────────────────────────────────► engine
//!  Transfers ── imports, exports, files being stored: tasks whose clients do the work
//! ```
//! Vocabulary: a **VM** is a name with disks; a disk's **export** is `VM/DISK`. A **version** is a VM as it is now, or was
//! at a snapshot.
//!
//! Invariants: what a disk's size is, the engine says; the record of a VM does not repeat it. A disk in use by a client is
//! never deleted, cut or renamed. A change of a VM is one transaction, but for a shrink. What is held nothing deletes.
//!
//! Crash rules: what is there after a kill is what the last whole transaction made; what an import or export left goes with
//! the next round.
//!
//! What it does not do: it runs no guests, and knows nothing of media.
#![forbid(unsafe_code)]

mod attributes;
mod catalog;
mod changes;
mod definition;
mod disks;
mod exports;
mod files;
mod groups;
mod hold;
mod points;
mod record;
mod schema;
mod snapshots;
mod transfers;
mod trash;
mod turns;
mod uses;
mod versions;

pub use catalog::{Catalog, VmFacts};
pub use groups::{Miss, Run, StoredGroup, StoredRun};
pub use points::{LeftOut, Member, NewPoint, POINT_DISKS_MAX, PointRecord, PointState, StoredPoint};
pub use transfers::Transfers;
pub use trash::Deletion;
pub use versions::Named;

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    use meta::Stored;

    /// Decodes `input` as a record of a VM, of a snapshot, of the trash, of a group, a run and a point, and an export's name.
    pub fn fuzz_body(input: &[u8]) {
        let _ = crate::record::Record::decode(input);
        let _ = crate::snapshots::SnapshotRecord::decode(input);
        let _ = crate::trash::Record::decode(input);
        let _ = crate::groups::GroupRecord::decode(input);
        let _ = crate::groups::Run::decode(input);
        let _ = crate::points::PointRecord::decode(input).map(|point| point.is_good());
        if let Ok(text) = std::str::from_utf8(input) {
            let _ = crate::exports::parts(text);
        }
    }
}

#[cfg(test)]
mod tests;
