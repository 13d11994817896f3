//! The record of a snapshot.

use api::types::{Snapshot, SnapshotDisk};
use api::{disk_bytes_for, fold};
use meta::Stored;
use serde::{Deserialize, Serialize};
use units::DiskId;

use crate::record::{DiskRecord, is_zero};

/// The version of the record that this program writes.
pub(super) const VERSION: u32 = 2;

/// A disk as its record in a snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(super) name: String,
    pub(super) id: u64,
    /// Size of a disk, length of a file.
    pub(super) bytes: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_file: bool,
}

impl Kept {
    /// The record of a disk or file of a VM that begins as this one.
    pub(super) fn record(&self, id: DiskId) -> DiskRecord {
        DiskRecord::of(self.name.clone(), id, self.is_file.then_some(self.bytes))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The record of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) version: u32,
    /// A number that nothing else has.
    pub(crate) number: u64,
    pub(crate) created_ms: u64,
    pub(crate) disks: Vec<Kept>,
    /// How its name is written, where that is not how it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) definition: Option<u64>,
    /// No command deletes it before, site time in ms; 0 for no hold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) held_until_ms: u64,
    /// The group whose schedule made it, by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<u64>,
    /// The point that it is a part of, by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) point: Option<u64>,
    /// Where it was made, when that was another site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
}

/// What a snapshot of another site was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The site: 32 hex digits.
    site: String,
    /// The number of its VM there.
    vm: u64,
    /// Its own number there.
    number: u64,
}

impl Stored for SnapshotRecord {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl SnapshotRecord {
    pub(crate) fn ids(&self) -> Vec<DiskId> {
        self.disks.iter().map(|disk| DiskId(disk.id)).collect()
    }

    /// What it is called, as it is written; `found` is what it was found by.
    pub(crate) fn called(&self, found: &str) -> String {
        self.name.clone().unwrap_or_else(|| fold(found))
    }

    /// The names and numbers of its disks.
    pub(crate) fn named(&self) -> Vec<(String, DiskId)> {
        self.disks.iter().map(|disk| (disk.name.clone(), DiskId(disk.id))).collect()
    }

    /// The number and size of a disk, or of the disk that holds a file.
    pub(crate) fn disk(&self, name: &str) -> Option<(DiskId, u64)> {
        let disk = self.disks.iter().find(|disk| disk.name == name)?;
        let bytes = if disk.is_file { disk_bytes_for(disk.bytes) } else { disk.bytes };
        Some((DiskId(disk.id), bytes))
    }

    /// Size of one of its disks.
    pub(crate) fn disk_bytes(&self, disk: DiskId) -> u64 {
        self.disks.iter().find(|found| found.id == disk.0).map_or(0, |found| found.bytes)
    }

    pub(super) fn show(&self, vm: &str, name: &str) -> Snapshot {
        let name = self.called(name);
        let disk = |disk: &Kept| SnapshotDisk {
            name: disk.name.clone(),
            export: format!("{vm}@{name}/{}", disk.name),
            bytes: disk.bytes,
        };
        Snapshot {
            vm: vm.to_owned(),
            name: name.clone(),
            created_ms: self.created_ms,
            has_definition: self.definition.is_some(),
            held_until_ms: self.held_until_ms,
            enforced_until_ms: 0,
            disks: self.disks.iter().filter(|found| !found.is_file).map(disk).collect(),
            files: self.disks.iter().filter(|found| found.is_file).map(disk).collect(),
        }
    }
}
