//! Tasks, and work that a client does for one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Disk, NewDisk};

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Fills a new VM.
    Import,
    /// Reads disks of a VM.
    Export,
    /// Frees what nothing reaches any more.
    Clean,
    /// Reads every fragment, checks it, and repairs what is wrong.
    Scrub,
    /// Opens every block that anything reaches.
    Verify,
    /// Computes what VMs and snapshots take.
    Space,
    /// Seals everything under a new data key.
    Rekey,
    /// Moves everything off a medium that leaves.
    Drain,
    /// Writes anew what a lost medium held.
    Rebuild,
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Under way.
    Running,
    /// Ended as it should.
    Done,
    /// Ended for a reason in `error`.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
}

impl TaskKind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Export => "export",
            Self::Clean => "clean",
            Self::Scrub => "scrub",
            Self::Verify => "verify",
            Self::Space => "space",
            Self::Rekey => "rekey",
            Self::Drain => "drain",
            Self::Rebuild => "rebuild",
        }
    }
}

impl TaskState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Long work: running, or of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its number; a later task has a higher one.
    pub id: u64,
    /// What it does.
    pub kind: TaskKind,
    /// To what: `VM`, `VM@SNAPSHOT`, a disk of one of them as its export is named, or `site`.
    pub target: String,
    /// Where it is.
    pub state: TaskState,
    /// When it began.
    pub started_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Bytes done, as whoever does it counts them.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes a second: lately while it runs, in all when it has ended.
    pub rate: u64,
    /// Seconds that are left at this rate; absent when it does not run or the rate is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Where from, where to, or what exactly.
    pub message: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What came of work of the server, by name; sizes end in `_bytes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// What it found wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// A VM to be imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewImport {
    /// Name of the new VM.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web02"
    )]
    pub name: String,
    /// Its disks: `disk0`, `disk1`, and so on.
    #[schema(min_items = 1, max_items = 32)]
    pub disks: Vec<NewDisk>,
    /// Where from, for people.
    pub source: String,
}

/// An export to be watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewExport {
    /// What is exported: `VM` or `VM@SNAPSHOT`.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$",
        min_length = 1,
        max_length = 127,
        example = "web01"
    )]
    pub vm: String,
    /// One of its disks; else all of them, as they are at one instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Where to, for people.
    pub destination: String,
}

/// A task that has begun, and the disks it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Begun {
    /// The task.
    pub task: Task,
    /// The disks, with their exports.
    pub disks: Vec<Disk>,
}

/// How far a task is: also the sign that its client lives. One that is silent for 60 s has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Bytes done.
    #[serde(deserialize_with = "crate::count::whole")]
    pub done_bytes: u64,
    /// Bytes in all.
    #[serde(deserialize_with = "crate::count::whole")]
    pub total_bytes: u64,
}

/// Why a task's client gives up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    /// The reason, for people.
    pub error: String,
}
