//! Protection groups: which VMs, when points are made of them, which points stay.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Asked;

/// A text that is there: no `null`.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

fn utc() -> String {
    "UTC".to_owned()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What selects VMs: each that any of these fits. Case tells no names apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// These VMs.
    #[schema(max_items = 256)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<String>,
    /// VMs that have one of these tags.
    #[schema(max_items = 64)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// VMs in one of these folders or below it.
    #[schema(max_items = 64)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
    /// VMs whose names are like one of these: `*` stands for any characters, `?` for one.
    #[schema(max_items = 64)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_names: Vec<String>,
    /// VMs whose whole names match one of these regular expressions.
    #[schema(max_items = 8)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regexes: Vec<String>,
}

impl Rules {
    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which points of a schedule stay: all that any part of it keeps. At least one part is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// The newest points, so many.
    #[schema(maximum = 100_000)]
    #[serde(skip_serializing_if = "is_zero")]
    pub last: u32,
    /// The newest point of each hour, of so many hours that have one.
    #[schema(maximum = 100_000)]
    #[serde(skip_serializing_if = "is_zero")]
    pub hourly: u32,
    /// The same of days, in the group's time zone.
    #[schema(maximum = 100_000)]
    #[serde(skip_serializing_if = "is_zero")]
    pub daily: u32,
    /// The same of weeks, which begin on Monday.
    #[schema(maximum = 100_000)]
    #[serde(skip_serializing_if = "is_zero")]
    pub weekly: u32,
    /// The same of months.
    #[schema(maximum = 100_000)]
    #[serde(skip_serializing_if = "is_zero")]
    pub monthly: u32,
    /// The same of years.
    #[schema(maximum = 100_000)]
    #[serde(skip_serializing_if = "is_zero")]
    pub yearly: u32,
    /// All points younger than this span.
    #[schema(nullable = false, min_length = 1, max_length = 64, example = "30d")]
    #[serde(rename = "for", deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub young: Option<String>,
}

/// When points are made, and how long they stay. It has `every` or `cron`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// What it is called within its group.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "hourly"
    )]
    pub name: String,
    /// A point every so often, counted from the Unix epoch on.
    #[schema(nullable = false, min_length = 1, max_length = 64, example = "15m")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// A point at these times: minute, hour, day of the month, month, day of the week.
    #[schema(nullable = false, min_length = 1, max_length = 255, example = "0 2 * * *")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Time zone of `cron`, where it is not the group's.
    #[schema(nullable = false, min_length = 1, max_length = 64, example = "Europe/Berlin")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Which points stay.
    pub keep: Keep,
    /// For how long nobody can delete a point.
    #[schema(nullable = false, min_length = 1, max_length = 64, example = "14d")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Whether it makes no points; those there are stay under its retention.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
}

/// A protection group, as an administrator says it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// What it is called; names that differ in case alone are one.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web"
    )]
    pub name: String,
    /// Of two groups whose rules are of one kind the one with the higher priority has the VM.
    #[schema(minimum = -1000, maximum = 1000)]
    #[serde(default)]
    pub priority: i32,
    /// The time zone of its calendar, and of cron expressions that name none.
    #[schema(min_length = 1, max_length = 64, example = "Europe/Berlin")]
    #[serde(default = "utc")]
    pub zone: String,
    /// Whether it makes no points; those there are stay under their retention.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Which VMs it takes. The built-in group `default` has none: it takes what no other group takes.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub include: Rules,
    /// Which of them it does not take.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub exclude: Rules,
    /// When it makes points, and which stay.
    #[schema(max_items = 8)]
    #[serde(default)]
    pub schedules: Vec<Schedule>,
}

/// The command line: groups as a file has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupsFile {
    /// The groups.
    pub groups: Vec<GroupSpec>,
}

/// What there is of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleState {
    /// The schedule.
    pub name: String,
    /// When its next point is due; absent while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
    /// When its newest point was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ms: Option<u64>,
    /// Points that there are.
    pub points: u64,
    /// Points that were due and were not made, since the schedule began.
    pub missed: u64,
    /// Why the last attempt made no point; absent when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A protection group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// What was said.
    pub spec: GroupSpec,
    /// Counts changes: a change may say which it is to follow.
    pub revision: u64,
    /// How many VMs are in it now.
    pub members: usize,
    /// What there is of each schedule.
    pub schedules: Vec<ScheduleState>,
    /// Points whose schedule is gone: nothing says when they go.
    #[serde(default)]
    pub points_without_schedule: u64,
    /// What is worth knowing, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// How a group is changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HowToSet {
    /// Changes nothing, and answers with what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Only when the group is as it was at this revision.
    #[param(nullable = false)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

impl Asked for HowToSet {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What came of a change of a group, or would come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupChange {
    /// The group as it is then.
    pub group: Group,
    /// What differs, one line each.
    pub differences: Vec<String>,
    /// How many points its retention lets go of that it kept before.
    pub points_to_go: u64,
    /// Whether it was only asked what would be.
    pub dry_run: bool,
}

/// A VM that is in a group now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Membership {
    /// The VM.
    pub vm: String,
    /// By which rule, or why it is not in the group that would have it.
    pub why: String,
}

/// A run of a group's schedule that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// The schedule; its first one when nothing is said.
    #[schema(nullable = false, min_length = 1, max_length = 63, example = "hourly")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// For how long is looked ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HowFar {
    /// Days.
    #[param(minimum = 1, maximum = 3660, default = 400)]
    #[serde(default = "days")]
    pub days: u32,
}

fn days() -> u32 {
    400
}

impl Default for HowFar {
    fn default() -> Self {
        Self { days: days() }
    }
}

impl Asked for HowFar {
    fn check(&self) -> Result<(), String> {
        match self.days {
            1..=3660 => Ok(()),
            days => Err(format!("{days} days: give 1 to 3660")),
        }
    }
}

/// What is to come of a schedule when every run makes a good point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outlook {
    /// The schedule.
    pub schedule: String,
    /// Points that it makes in all.
    pub made: u64,
    /// Points that there are now.
    pub now: u64,
    /// The most points that there are after a day.
    pub most: u64,
    /// Points that there are at the end.
    pub at_end: u64,
    /// The oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// How many points there are at the end for each reason.
    pub reasons: std::collections::BTreeMap<String, u64>,
}

/// How well a VM is protected, in a word; the worse the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProtectionState {
    /// No schedule is to make points of it.
    Excluded,
    /// Its newest good point is no older than the target.
    Ok,
    /// No older than twice the target.
    Late,
    /// No older than four times the target.
    Severe,
    /// Older still.
    Critical,
    /// There is no good point.
    Never,
}

impl ProtectionState {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Severe => "severe",
            Self::Critical => "critical",
            Self::Never => "never",
        }
    }
}

/// How well a VM is protected: the age of its newest good point against its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Protection {
    /// In a word.
    pub state: ProtectionState,
    /// Age of its newest good point, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// How old that may be, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ms: Option<u64>,
    /// The group it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Why it is in that group, or in none.
    pub why: String,
}

/// How well all VMs are protected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ProtectionTotals {
    /// VMs within their target.
    pub protected: usize,
    /// VMs that have a target.
    pub of: usize,
    /// VMs that no schedule is to make points of.
    pub excluded: usize,
    /// The VM that is furthest behind its target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<String>,
    /// Age of its newest good point, ms; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_age_ms: Option<u64>,
    /// Its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_state: Option<ProtectionState>,
}
