//! The trash, and holds.

use crate::limits::{TRASH_AT_ONCE, TRASH_KEEP_MAX};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Asked;

/// Most items in one answer.
const ITEMS_MAX: u64 = TRASH_AT_ONCE as u64;

/// What something in the trash was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrashKind {
    /// A VM, with its snapshots.
    Vm,
    /// A snapshot.
    Snapshot,
}

/// Something in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrashItem {
    /// Its number: names need not be unique here.
    pub id: u64,
    /// What it was.
    pub kind: TrashKind,
    /// What it was called: `VM` or `VM@SNAPSHOT`.
    pub name: String,
    /// When it was deleted, site time.
    pub deleted_ms: u64,
    /// When it goes for good, site time; 0 while it goes.
    pub expires_ms: u64,
    /// Size of its disks.
    pub bytes: u64,
    /// What of it held data as the guest saw it; a VM's snapshots are not counted.
    pub used_bytes: u64,
    /// Snapshots that are in the trash with a VM.
    pub snapshots: u64,
}

/// What is in the trash, by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trash {
    /// What it lists.
    pub items: Vec<TrashItem>,
    /// `after` for what may come behind; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// How long what is deleted now stays; 0 when there is no trash.
    pub keep_seconds: u64,
}

/// The trash in sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TrashTotals {
    /// How many things are in it.
    pub items: usize,
    /// Size of their disks.
    pub bytes: u64,
    /// What of that held data as guests saw it, duplicates counted each time.
    pub used_bytes: u64,
}

/// Which part of the trash is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListTrash {
    /// What has a number above this one.
    #[param(minimum = 0, maximum = 9_223_372_036_854_775_807_u64, default = 0)]
    #[serde(default)]
    pub after: u64,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 1000)]
    #[serde(default = "most")]
    pub limit: u64,
}

fn most() -> u64 {
    ITEMS_MAX
}

impl Asked for ListTrash {
    fn check(&self) -> Result<(), String> {
        if !(1..=ITEMS_MAX).contains(&self.limit) {
            return Err(format!("limit: {} is not from 1 to {ITEMS_MAX}", self.limit));
        }
        let most = i64::MAX as u64;
        if self.after > most { Err(format!("after: {} is above {most}", self.after)) } else { Ok(()) }
    }
}

/// How something is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HowToDelete {
    /// For good, past the trash.
    #[param(default = false)]
    #[serde(default)]
    pub now: bool,
    /// A VM with all its snapshots; else one that has some is not deleted.
    #[param(default = false)]
    #[serde(default)]
    pub with_snapshots: bool,
}

impl Asked for HowToDelete {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// How long what is deleted stays in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrashSetting {
    /// Seconds; 0 for no trash.
    #[schema(minimum = 0, maximum = 31_622_400, example = 86_400)]
    #[serde(deserialize_with = "crate::count::whole")]
    pub keep_seconds: u64,
}

const _: () = assert!(TRASH_KEEP_MAX.as_secs() == 31_622_400);

/// What is to go from the trash for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmptyTrash {
    /// The numbers. What is not in the trash any more is passed over.
    #[schema(min_items = 1, max_items = 1000, example = json!([1]))]
    #[serde(deserialize_with = "crate::count::whole_each")]
    pub items: Vec<u64>,
}

impl EmptyTrash {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        match self.items.len() as u64 {
            1..=ITEMS_MAX => Ok(()),
            many => Err(format!("{many} items, not 1 to {ITEMS_MAX}")),
        }
    }
}

/// Under what name something is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Another name than it had: of the VM, or of the snapshot without its VM.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01-old"
    )]
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
}

/// Something is there again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restored {
    /// The name it has now: `VM` or `VM@SNAPSHOT`.
    pub restored: String,
}

/// Until when a snapshot is to be held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHold {
    /// A time to come as RFC 3339 has it, or a span from now on: `12h`, `30d`, `1y`.
    #[schema(min_length = 1, max_length = 64, example = "1s")]
    pub until: String,
}
