//! What goes over the wire, for server and client alike. Sizes are bytes, times milliseconds since the Unix epoch.

mod attributes;
mod files;
mod groups;
mod media;
mod points;
mod snapshots;
mod tasks;
mod trash;
mod upkeep;
mod vms;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use attributes::{Attributes, ChangeAttributes, ListVms};
pub use files::{ChangeFile, NewFile};
pub use groups::{
    Group, GroupChange, GroupSpec, GroupsFile, HowFar, HowToSet, Keep, Membership, NewRun, Outlook,
    Protection, ProtectionState, ProtectionTotals, Rules, Schedule, ScheduleState,
};
pub use media::{Moving, NewMedium};
pub use points::{
    FromPoint, LeftOut, ListPoints, NewRestore, Point, PointMember, PointSummary, Points, RestoredVm,
    RestoredVms,
};
pub use snapshots::Asked;
pub use snapshots::{
    AddDisk, Change, ChangeSnapshot, Changes, Diff, DiskClone, DiskDiff, ListSnapshots, NewClone,
    NewSnapshot, Revert, Reverted, Snapshot, SnapshotDisk, Snapshots, WhichChanges,
};
pub use tasks::{Begun, GiveUp, NewExport, NewImport, Progress, Task, TaskKind, TaskState};
pub use trash::{
    EmptyTrash, HowToDelete, ListTrash, NewHold, Restore, Restored, Trash, TrashItem, TrashKind,
    TrashSetting, TrashTotals,
};
pub use upkeep::{
    Clock, GARBAGE_PERCENT, Keys, ListSpace, NewClean, NewPassphrase, NewSpace, ScrubEvery, Scrubbing, Space,
    SpaceRow,
};
pub use vms::{
    AttachInfo, ChangeDisk, ChangeVm, CreateVm, Definition, Disk, NewDisk, Vm, VmState, VmSummary,
};

/// How the site is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is as it should be.
    Ok,
    /// It serves, and something wants attention.
    Degraded,
    /// It cannot take writes.
    Failed,
}

/// What a medium does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MediumState {
    /// Takes part.
    Up,
    /// Takes part, and had no room for the last write.
    Full,
    /// Failed, or is not there.
    Down,
}

/// A medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Medium {
    /// Its id: 32 hex digits.
    pub id: String,
    /// Where it is or was.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// What it does.
    pub state: MediumState,
    /// Everything on it is to move to the others, and then it leaves.
    #[serde(default)]
    pub leaving: bool,
    /// How far what it held has moved to the others; absent when nothing moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
    /// Why it is down, or why nothing moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Fragments of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Geometry {
    /// Fragments of data.
    pub data: usize,
    /// Fragments of parity.
    pub parity: usize,
}

/// What cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unreadable {
    /// Containers of which too few fragments are on media that are up: they can be read when media come back.
    pub short_containers: u64,
    /// Containers of which something is lost though enough media are up.
    pub damaged_containers: u64,
    /// Disks that reach what cannot be read, as `VM/DISK` or `VM@SNAPSHOT/DISK`, in order; at most 100.
    pub affected: Vec<String>,
    /// How many such disks there are; absent while that is being found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected_count: Option<usize>,
}

/// How the site is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The site: 32 hex digits.
    pub site: String,
    /// The judgement.
    pub health: Health,
    /// Why it is not `ok`.
    pub reasons: Vec<String>,
    /// What to do about the reasons.
    pub next: Vec<String>,
    /// What is worth knowing and no fault.
    pub notices: Vec<String>,
    /// Whether writes are taken; else the site serves reads only.
    pub writable: bool,
    /// Media that may fail now without loss; 0 as well while something cannot be read.
    pub can_lose_now: usize,
    /// What cannot be read now; absent when everything can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Unreadable>,
    /// Fragments of a new container; absent when there can be none now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<Geometry>,
    /// How many VMs there are.
    pub vms: usize,
    /// How well they are protected.
    #[serde(default)]
    pub protection: ProtectionTotals,
    /// Size of all disks of VMs, those being imported too.
    pub provisioned_bytes: u64,
    /// Written by guests and not overwritten or trimmed, duplicates counted each time; holes and zeros are not in it.
    pub logical_bytes: u64,
    /// Blocks stored, each once: duplicates gone, but what was overwritten or deleted since is still in it, and what snapshots
    /// alone hold. So `logical_bytes` by this is the least that deduplication saves.
    pub unique_bytes: u64,
    /// What they take compressed and sealed, before parity.
    pub stored_bytes: u64,
    /// What that takes on media, parity included.
    pub raw_bytes: u64,
    /// Room of the media that are up.
    pub raw_capacity_bytes: u64,
    /// What guests can write now wherever on their disks they write it, duplicates and compression not counted on; 0 when
    /// writes are refused.
    pub usable_bytes: u64,
    /// What they can most likely write: as `usable_bytes`, and blocks that are neighbours share what their maps take.
    #[serde(default)]
    pub likely_bytes: u64,
    /// Acknowledged and in the journal, not yet in a container.
    pub buffered_bytes: u64,
    /// How much of the journal's bound is used.
    pub journal_used_percent: usize,
    /// Fragments found missing or damaged since the start.
    pub faults: u64,
    /// Fragments repaired since the start.
    pub repaired: u64,
    /// What is in the trash: restorable, and not counted in what is provisioned.
    pub trash: TrashTotals,
    /// Clients of disks.
    #[serde(default)]
    pub clients: Clients,
    /// Tasks that run, the newest first.
    pub tasks: Vec<Task>,
    /// The media, in the site's order.
    pub media: Vec<Medium>,
}

/// Clients of disks, and what they hold of the server's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Clients {
    /// Connections to disks.
    pub connections: usize,
    /// How many there may be; those of tasks are beyond it.
    pub connections_max: usize,
    /// Clients refused since the start, for want of connections, memory or open files.
    pub refused: u64,
    /// Clients cut off since the start because they did not take their replies.
    pub cut_off: u64,
    /// Bytes held or set aside for requests and replies, those of the interface too.
    pub memory_used_bytes: usize,
    /// How many there may be.
    pub memory_bytes: usize,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// What it lists.
    pub items: Vec<T>,
}

/// Something is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// Its name.
    pub deleted: String,
    /// What it is in the trash; absent when it is gone for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash: Option<TrashItem>,
}

/// The command line: why a command failed, on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// What it is: one of the codes of `holdfast explain`.
    pub code: String,
    /// What happened, to what.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
}

/// The command line: a code of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The code.
    pub code: String,
    /// It in a few words.
    pub title: String,
    /// How it comes about.
    pub cause: String,
    /// What to do next.
    pub next: String,
    /// Status of an HTTP answer that carries it; absent when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Exit code of a command that ends with it.
    pub exit: u8,
}

/// The command line: how far an import or export is, a line each on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The task.
    pub progress: Task,
}

/// The command line: files that were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// Their paths.
    pub written: Vec<String>,
}

/// The command line: a script for a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Script {
    /// The script.
    pub script: String,
}

/// The command line: a site's directory was made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovered {
    /// The site's directory.
    pub recovered: String,
    /// The site's id.
    pub site: String,
    /// Its media that are there.
    pub media: usize,
    /// Its media that are not.
    pub missing: usize,
    /// What was given up for good, one sentence each.
    pub lost: Vec<String>,
}

/// The command line: the server serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Serving {
    /// The site's directory.
    pub serving: String,
    /// Whether this start made the site.
    pub is_new: bool,
}

/// A node of a site of many nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its id, 32 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it does: data, compute or manager.
    pub role: String,
    /// Where other nodes find it; absent when it does not listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What becomes of it: active or draining.
    pub state: String,
    /// How many of the site's media are on it; absent when it is no data node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<u64>,
    /// When it joined, ms since the Unix epoch.
    pub joined_ms: u64,
    /// When its newest certificate ends, ms since the Unix epoch.
    pub certificate_ends_ms: u64,
}

/// The command line: a client that is no node has its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewClient {
    /// Its name.
    pub client: String,
    /// Where its certificate and key are.
    pub folder: String,
    /// When the certificate ends, ms since the Unix epoch.
    pub certificate_ends_ms: u64,
}

/// The command line: the metadata store of a site was made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MetadataRestored {
    /// The site.
    pub site: String,
    /// How many nodes it has.
    pub nodes: u64,
    /// When the copy was taken that it was made from, ms since the Unix epoch.
    pub taken_ms: u64,
}

/// The command line: a token lets one node join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What the node is to type. Whoever has it can join.
    pub token: String,
    /// What the node will do: data, compute or manager.
    pub role: String,
    /// For how many seconds it is good.
    pub life_s: u64,
}

/// The command line: a node has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Joined {
    /// The node's directory.
    pub joined: String,
    /// The node's id, 32 hex digits.
    pub id: String,
    /// What it does: data, compute or manager.
    pub role: String,
    /// The site's id, 32 hex digits.
    pub site: String,
}

/// The command line: a site of many nodes was founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Founded {
    /// The directory of its first manager.
    pub founded: String,
    /// The site's id, 32 hex digits.
    pub site: String,
    /// A file of settings for each member of etcd, which lies beside its certificate and key.
    pub etcd: Vec<String>,
    /// The file with the recovery key.
    pub recovery_key: String,
}

/// The command line: a node serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeServing {
    /// The node's directory.
    pub serving: String,
    /// What it does: data, compute or manager.
    pub role: String,
    /// Where it listens.
    pub address: String,
}
