//! Snapshots, clones, and what differs between versions of a VM.

use crate::limits::{CHANGES_AT_ONCE, DISK_BYTES_MAX, SNAPSHOTS_AT_ONCE};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{NewDisk, Vm};

/// Most items in one answer of a list that goes on.
const ITEMS_MAX: u64 = SNAPSHOTS_AT_ONCE as u64;

/// A disk or file in a snapshot, or a file in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotDisk {
    /// Name within the VM.
    pub name: String,
    /// What an NBD client opens, to read: `VM@SNAPSHOT/DISK`.
    pub export: String,
    /// Its size.
    pub bytes: u64,
}

/// A VM's disks at one instant, with its definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// The VM.
    pub vm: String,
    /// Its name, one of its VM.
    pub name: String,
    /// When it was made.
    pub created_ms: u64,
    /// Whether a definition is stored with it.
    pub has_definition: bool,
    /// Until when nobody deletes it, site time; 0 when it is not held.
    pub held_until_ms: u64,
    /// Until when the data nodes refuse to free its data, whatever else is asked of them; 0 while they were not all told.
    pub enforced_until_ms: u64,
    /// Its disks.
    pub disks: Vec<SnapshotDisk>,
    /// Its files: `bytes` is the length.
    pub files: Vec<SnapshotDisk>,
}

/// Snapshots, by VM and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshots {
    /// What it lists.
    pub items: Vec<Snapshot>,
    /// The last of them, `VM@SNAPSHOT`: `after` for what may come behind. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which snapshots are listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListSnapshots {
    /// Those of this VM; else all.
    #[param(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Those behind this one, `VM@SNAPSHOT`, whether or not it is there.
    #[param(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}@[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 3,
        max_length = 127,
        example = "web01@s1"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 1000)]
    #[serde(default = "most")]
    pub limit: u64,
}

/// Which changes of a disk are listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WhichChanges {
    /// The disk.
    #[param(example = "disk0")]
    pub disk: String,
    /// Since this snapshot of the VM; else all that the disk holds.
    #[param(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "s1"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// Those from this byte on.
    #[param(minimum = 0, maximum = 70_368_744_177_664_u64, default = 0)]
    #[serde(default)]
    pub offset: u64,
    /// How many at most. Of a disk that is written to each answer is of one instant.
    #[param(minimum = 1, maximum = 65_536, default = 1000)]
    #[serde(default = "most")]
    pub limit: u64,
}

fn most() -> u64 {
    ITEMS_MAX
}

/// What can be asked behind the `?` of a path.
pub trait Asked: DeserializeOwned {
    /// Says what is wrong with its numbers.
    ///
    /// # Errors
    /// When one is out of bounds.
    fn check(&self) -> Result<(), String>;
}

impl Asked for ListSnapshots {
    fn check(&self) -> Result<(), String> {
        check_limit(self.limit, ITEMS_MAX)
    }
}

impl Asked for WhichChanges {
    fn check(&self) -> Result<(), String> {
        if self.offset > DISK_BYTES_MAX {
            return Err(format!(
                "offset: {} is behind the end of the largest disk, {DISK_BYTES_MAX}",
                self.offset
            ));
        }
        check_limit(self.limit, CHANGES_AT_ONCE as u64)
    }
}

const _: () = assert!(CHANGES_AT_ONCE == 65_536);

fn check_limit(limit: u64, most: u64) -> Result<(), String> {
    if (1..=most).contains(&limit) { Ok(()) } else { Err(format!("limit: {limit} is not from 1 to {most}")) }
}

/// A snapshot to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSnapshot {
    /// Its name; else the next of `s1`, `s2`, and so on.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "before-upgrade"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What changes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeSnapshot {
    /// Its new name.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "good"
    )]
    pub name: String,
}

/// A stretch of a disk that differs between two versions of its VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Its first byte.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Whether the newer version holds data there; else it is a hole, which reads as zeros.
    pub mapped: bool,
}

/// What differs, by offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// The stretches, whole blocks of 4096 bytes.
    pub items: Vec<Change>,
    /// `offset` for what may come behind; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// The snapshot that a VM is to be put back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revert {
    /// Its name.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", min_length = 1, max_length = 63, example = "s1")]
    pub snapshot: String,
}

/// A VM that was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reverted {
    /// The VM as it is now.
    pub vm: Vm,
    /// What it was before.
    pub kept_as: Snapshot,
}

/// A VM to be made that begins as another is, or was at a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClone {
    /// What it begins as: `VM` or `VM@SNAPSHOT`.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$",
        min_length = 1,
        max_length = 127,
        example = "web01"
    )]
    pub from: String,
    /// Its name.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "www1"
    )]
    pub name: String,
}

/// A disk to be made that begins as another is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskClone {
    /// What it begins as: `VM/DISK` or `VM@SNAPSHOT/DISK`.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?/disk[0-9]{1,20}$",
        min_length = 7,
        max_length = 152,
        example = "web01/disk0"
    )]
    pub from: String,
}

/// A disk to be added: an empty one of a size, or one that begins as another is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, try_from = "Fields")]
pub enum AddDisk {
    /// An empty one.
    Empty(NewDisk),
    /// A clone.
    Clone(DiskClone),
}

/// The fields of either form, so that an error can say what is wrong with them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, deserialize_with = "bytes")]
    bytes: Option<u64>,
    #[serde(default, deserialize_with = "from")]
    from: Option<String>,
}

/// No `null`: a field that is there has a value.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    crate::count::whole(deserializer).map(Some)
}

fn from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl TryFrom<Fields> for AddDisk {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        match (fields.bytes, fields.from) {
            (Some(bytes), None) => Ok(Self::Empty(NewDisk { bytes })),
            (None, Some(from)) => Ok(Self::Clone(DiskClone { from })),
            (Some(_), Some(_)) => {
                Err("a disk has `bytes` when it is empty or `from` when it is a clone, not both")
            }
            (None, None) => Err("a disk needs `bytes` when it is empty or `from` when it is a clone"),
        }
    }
}

/// The command line: what differs on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskDiff {
    /// The disk.
    pub disk: String,
    /// Bytes of all stretches, whole blocks.
    pub bytes: u64,
    /// How many stretches there are.
    pub stretches: u64,
    /// The stretches, by offset.
    pub items: Vec<Change>,
}

/// The command line: what differs between two versions of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diff {
    /// The older version.
    pub from: String,
    /// The newer one.
    pub to: String,
    /// Bytes of all stretches of all disks.
    pub bytes: u64,
    /// The disks of the newer one.
    pub disks: Vec<DiskDiff>,
}
