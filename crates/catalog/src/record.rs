//! The record of a VM in the metadata store, under `vm/NAME`, in lower case.
//!
//! ```text
//!  {"version": 2, "created_ms": <Unix ms>,
//!   "disks": [{"name": "disk0", "id": <number>},
//!             {"name": "debian.iso", "id": <number>, "file_bytes": <count>}, ...],
//!   "name": "<text>", "definition": <number>, "import": <task>, "number": <number>, "snapshots": <count>,
//!   "held_until_ms": <site time, ms>, "attributes": {"folder": "<text>", "tags": [...], "labels": {...}}}
//! ```
//! The record does not say how large a disk is: the engine does. A file is a disk with `file_bytes`, its length;
//! while it is being stored it carries `"storing": {"task": <number>, "replace": <bool>}`. `name` is there when the
//! VM's name has capitals. `definition` is there when the VM has one: its key is `definition/NUMBER`. `import` is
//! there while the VM is being imported. `number` comes with the first snapshot; `snapshots` counts the names given
//! without being asked; `held_until_ms` is there when one is or was held, and is the longest of these holds.

use api::types::Attributes;
use api::{VmName, fold};
use meta::Stored;
use serde::{Deserialize, Serialize};
use units::DiskId;

const VERSION: u32 = 2;

/// The record of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) created_ms: u64,
    pub(crate) disks: Vec<DiskRecord>,
    /// How its name is written, where that is not how it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) definition: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) import: Option<u64>,
    /// By which its snapshots know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u64>,
    /// Names given to its snapshots so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) snapshots: u64,
    /// No snapshot of it is held longer, site time in ms.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) held_until_ms: u64,
    /// What it is ordered by.
    #[serde(default)]
    pub(crate) attributes: Attributes,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A disk in the record of its VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskRecord {
    pub(crate) name: String,
    id: u64,
    /// Of a file, its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file_bytes: Option<u64>,
    /// A file that is not whole yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) storing: Option<Storing>,
}

/// How a file is being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Storing {
    /// Its task.
    pub(crate) task: u64,
    /// Whether it takes the place of one of this name.
    pub(crate) replace: bool,
}

impl DiskRecord {
    pub(crate) fn new(name: String, id: DiskId) -> Self {
        Self { name, id: id.0, file_bytes: None, storing: None }
    }

    /// A disk, or a file of a length.
    pub(crate) fn of(name: String, id: DiskId, file_bytes: Option<u64>) -> Self {
        Self { file_bytes, ..Self::new(name, id) }
    }

    pub(crate) fn is_disk(&self) -> bool {
        self.file_bytes.is_none()
    }

    /// What its export is called within the VM: a name that nothing else has while it is being stored.
    pub(crate) fn export(&self) -> String {
        match self.storing {
            None => self.name.clone(),
            Some(storing) => format!("{}:{}", self.name, storing.task),
        }
    }

    pub(crate) fn id(&self) -> DiskId {
        DiskId(self.id)
    }
}

impl Stored for Record {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Record {
    /// A VM made now, with disks `disk0`, `disk1`, ...
    pub(crate) fn new(name: &VmName, created_ms: u64, disks: impl IntoIterator<Item = DiskId>) -> Self {
        let disks = disks.into_iter().enumerate();
        let disks = disks.map(|(number, id)| DiskRecord::new(format!("disk{number}"), id)).collect();
        Self {
            version: VERSION,
            created_ms,
            disks,
            name: name.spelled(),
            definition: None,
            import: None,
            number: None,
            snapshots: 0,
            held_until_ms: 0,
            attributes: Attributes::default(),
        }
    }

    /// What it is called, as it is written; `found` is what it was found by.
    pub(crate) fn called(&self, found: &str) -> String {
        self.name.clone().unwrap_or_else(|| fold(found))
    }

    /// Its disks, files left out.
    pub(crate) fn only_disks(&self) -> impl Iterator<Item = &DiskRecord> {
        self.disks.iter().filter(|disk| disk.is_disk())
    }

    /// Its disks and those of its files that are whole.
    pub(crate) fn whole(&self) -> impl Iterator<Item = &DiskRecord> {
        self.disks.iter().filter(|disk| disk.storing.is_none())
    }

    /// A task that stores a file.
    pub(crate) fn storing(&self) -> Option<u64> {
        self.disks.iter().find_map(|disk| disk.storing).map(|storing| storing.task)
    }

    /// The ids of all its disks and files.
    pub(crate) fn ids(&self) -> Vec<DiskId> {
        self.disks.iter().map(DiskRecord::id).collect()
    }

    /// Name of the next disk: one number above the highest there is.
    pub(crate) fn next_disk(&self) -> String {
        let number = |disk: &DiskRecord| disk.name.strip_prefix("disk")?.parse::<u64>().ok();
        let highest = self.disks.iter().filter_map(number).max();
        format!("disk{}", highest.map_or(0, |highest| highest.saturating_add(1)))
    }
}
