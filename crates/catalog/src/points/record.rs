//! The record of a point.

use meta::Stored;
use policy::Consistency;
use serde::{Deserialize, Serialize};

use crate::record::is_zero;

const VERSION: u32 = 1;

/// How far a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointState {
    /// It is being made, or its making was cut off: it goes.
    Making,
    /// It is there.
    #[default]
    Whole,
    /// It is being deleted.
    Going,
}

/// A VM in a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The VM's number.
    pub vm: u64,
    /// What it was called.
    pub name: String,
    /// What is less than was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A VM that was to be in a point and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The VM.
    pub name: String,
    /// Why it is not in it.
    pub why: String,
}

/// The record of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointRecord {
    pub(super) version: u32,
    /// How far it is.
    #[serde(default)]
    pub state: PointState,
    /// The number of the group that made it.
    pub group: u64,
    /// What it and its snapshots are called.
    pub name: String,
    /// The schedule that made it.
    pub schedule: String,
    /// The instant it is of, site time in ms.
    pub at_ms: u64,
    /// The slot of its run; 0 when it was asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub due_ms: u64,
    /// What it was to be like.
    #[serde(default)]
    pub consistency: Consistency,
    /// The VMs in it.
    pub members: Vec<Member>,
    /// The VMs that were to be in it and are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Nobody deletes it before, site time in ms.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub locked_until_ms: u64,
    /// Its disks are held until then; 0 while they are not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disks_held_until_ms: u64,
}

impl Stored for PointRecord {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl PointRecord {
    pub(super) fn new(
        group: u64,
        name: String,
        schedule: String,
        at_ms: u64,
        due_ms: u64,
        consistency: Consistency,
    ) -> Self {
        Self {
            version: VERSION,
            state: PointState::Making,
            group,
            name,
            schedule,
            at_ms,
            due_ms,
            consistency,
            members: Vec::new(),
            left_out: Vec::new(),
            locked_until_ms: 0,
            disks_held_until_ms: 0,
        }
    }

    /// Whether it is as its schedule wanted it, and every member is in it.
    pub fn is_good(&self) -> bool {
        self.left_out.is_empty() && self.members.iter().all(|member| member.note.is_none())
    }
}
