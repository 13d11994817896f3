//! Points: what runs of schedules made, each all members of a group at one instant.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Asked;
use crate::limits::POINTS_AT_ONCE;

/// A VM in a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PointMember {
    /// The VM, as it is called now; as it was called where it is no more.
    pub vm: String,
    /// Its snapshot, `VM@SNAPSHOT`; absent when that was deleted with its VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// What is less than was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A VM that was to be in a point and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    /// The VM.
    pub vm: String,
    /// Why it is not in it.
    pub why: String,
}

/// A point in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PointSummary {
    /// Its number.
    pub id: u64,
    /// What it, and the snapshot of each of its members, is called.
    pub name: String,
    /// The group that made it; empty when that is no more.
    pub group: String,
    /// The schedule that made it.
    pub schedule: String,
    /// The instant it is of.
    pub at_ms: u64,
    /// How many VMs are in it.
    pub members: usize,
    /// Whether it is as its schedule wanted it, and every member is in it.
    pub is_good: bool,
    /// Nobody deletes it before.
    pub locked_until_ms: u64,
}

/// Points, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Points {
    /// The points.
    pub items: Vec<PointSummary>,
    /// `before` for what may come behind; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    /// Its number.
    pub id: u64,
    /// What it, and the snapshot of each of its members, is called.
    pub name: String,
    /// The group that made it; empty when that is no more.
    pub group: String,
    /// The schedule that made it.
    pub schedule: String,
    /// The instant it is of.
    pub at_ms: u64,
    /// When it was due; absent when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
    /// Whether it is as its schedule wanted it, and every member is in it.
    pub is_good: bool,
    /// Nobody deletes it before; 0 for no lock.
    pub locked_until_ms: u64,
    /// The VMs in it.
    pub members: Vec<PointMember>,
    /// The VMs that were to be in it and are not.
    pub left_out: Vec<LeftOut>,
}

/// Which points are listed: those to which all applies that is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListPoints {
    /// This group made them.
    #[param(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// This VM is in them.
    #[param(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// They are of this instant or later: as `2h ago`, `yesterday 18:00`, or RFC 3339.
    #[param(nullable = false, min_length = 1, max_length = 64, example = "2h ago")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// They are of this instant or earlier.
    #[param(nullable = false, min_length = 1, max_length = 64, example = "yesterday 18:00")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The time zone of times without one; UTC when nothing is said.
    #[param(nullable = false, min_length = 1, max_length = 64, example = "Europe/Berlin")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Nobody can delete them now.
    #[serde(default)]
    pub locked: bool,
    /// Only those behind this place: `next` of an earlier answer.
    #[param(nullable = false, pattern = "^[0-9]{1,20}-[0-9]{1,20}$", min_length = 3, max_length = 41)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 1000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl ListPoints {
    /// How many at most.
    pub fn limit(&self) -> usize {
        self.limit.map_or(POINTS_AT_ONCE, |limit| limit as usize)
    }
}

impl Asked for ListPoints {
    fn check(&self) -> Result<(), String> {
        let limit = self.limit();
        if !(1..=POINTS_AT_ONCE).contains(&limit) {
            return Err(format!("limit {limit}: give 1 to {POINTS_AT_ONCE}"));
        }
        Ok(())
    }
}

/// What is to be restored, and how: a VM under another name, in its place, or one disk of it; or all VMs of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRestore {
    /// The VM.
    #[schema(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// The group, in the place of a VM.
    #[schema(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63
    )]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The newest point of this instant or before: as `2h ago`, `yesterday 18:00`, or RFC 3339. Without it and without
    /// `point`, the newest there is.
    #[schema(nullable = false, min_length = 1, max_length = 64, example = "yesterday 18:00")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The time zone of a time without one; UTC when nothing is said.
    #[schema(nullable = false, min_length = 1, max_length = 64, example = "Europe/Berlin")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// This point.
    #[schema(nullable = false)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// The name of the restored VM, beside the one there is.
    #[schema(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01-r1"
    )]
    #[serde(rename = "as", default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
    /// Of a group: what is put behind the name of each VM.
    #[schema(
        nullable = false,
        pattern = "^[A-Za-z0-9._-]{1,62}$",
        min_length = 1,
        max_length = 62,
        example = "-r1"
    )]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Puts the VM back; what it is now is kept in a snapshot.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_place: bool,
    /// A disk alone, which is added to the VM.
    #[schema(nullable = false, min_length = 1, max_length = 255, example = "disk0")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
}

/// A text that is there: no `null`.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The point that something was restored from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FromPoint {
    /// Its number.
    pub id: u64,
    /// What it is called.
    pub name: String,
    /// The instant it is of.
    pub at_ms: u64,
}

/// A VM that was restored, or why it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoredVm {
    /// The VM.
    pub vm: String,
    /// What it is now; absent when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_as: Option<String>,
    /// The snapshot that has what the VM was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_as: Option<String>,
    /// Why it was not restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoredVms {
    /// From which point.
    pub from: FromPoint,
    /// The VMs.
    pub vms: Vec<RestoredVm>,
    /// How long it took, ms.
    pub took_ms: u64,
}
