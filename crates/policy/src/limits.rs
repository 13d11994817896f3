//! How much there may be of what.

/// Shortest interval of a schedule, seconds: more often than that is no schedule but the journal itself.
pub const EVERY_S_MIN: u64 = 1;
/// Longest interval of a schedule, seconds: a leap year.
pub const EVERY_S_MAX: u64 = 366 * DAY_S;
/// Longest lock of a schedule's points, seconds: 100 years, as for every hold.
pub const LOCK_S_MAX: u64 = 36_525 * DAY_S;
/// Longest time that retention keeps all points, seconds: 100 years.
pub(crate) const FOR_S_MAX: u64 = LOCK_S_MAX;
/// Largest number of retention, of points or of buckets: `keep` answers in some ms for as many points.
pub const KEEP_COUNT_MAX: u32 = 100_000;
/// Most schedules of a group: seconds, hours, nights and a few more; each is looked at in every round.
pub const SCHEDULES_MAX: usize = 8;
/// Most tags, folders, patterns and regexes of a group, its excludes among them: its record stays some KiB.
pub const RULES_MAX: usize = 64;
/// Most of these that are regexes: each costs memory for its automaton.
pub const REGEXES_MAX: usize = 8;
/// Most VMs that a group names, those it excludes among them: more are selected by a tag or a folder.
pub const VMS_NAMED_MAX: usize = 256;
/// Most groups of a site: all are compiled together.
pub const GROUPS_MAX: usize = 1000;
/// Highest priority of a group; the lowest is as far below zero.
pub const PRIORITY_MAX: i32 = 1000;
/// Longest pattern for names, bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 255;
/// Longest regex, bytes.
pub const REGEX_BYTES_MAX: usize = 255;
/// Largest automaton of a regex, and largest cache for running it, bytes: a regex for names needs a tenth.
pub(crate) const REGEX_COMPILED_BYTES_MAX: usize = 128 << 10;
/// Longest cron expression, bytes: all sixty minutes fit.
pub const CRON_BYTES_MAX: usize = 255;
/// Most days that a simulation looks ahead: ten years.
pub const SIMULATED_DAYS_MAX: u32 = 3660;
/// Longest text of a time, a span or a zone, bytes: what is longer is none.
pub(crate) const TEXT_BYTES_MAX: usize = 64;

/// Seconds of a day that no clock changes.
pub(crate) const DAY_S: u64 = 86_400;
/// The same in ms.
pub(crate) const DAY_MS: u64 = DAY_S * 1000;
/// Latest instant that is counted with, ms: the year 9000, within what every part can count.
pub(crate) const MS_MAX: u64 = 221_845_392_000_000;
