//! The rules of protection groups: which VM is in which group, when a point is due, which points retention
//! keeps.
//!
//! `group` (what an administrator says) -> `members` (which VMs) -> `timer` (when) -> `keep` (which points
//! stay) -> `protection` (how well a VM is protected). `simulate` looks ahead with the same rules.
//!
//! Vocabulary: a **group** is a rule that selects VMs, with schedules. A **schedule** says when points are
//! made, how long they stay and what they are like. A **slot** is an instant at which a schedule has a run. A
//! **point** is what a run made: all members at one instant. A **bucket** is a calendar hour, day, week,
//! month or year of the group's time zone.
//!
//! ```text
//!  a group's record, JSON; parts that are empty, zero, false or null may be left out
//!  {"version": 1, "name": "web", "priority": 0, "zone": "Europe/Berlin", "paused": false,
//!   "include": {"vms": [...], "tags": [...], "folders": [...], "patterns": ["web*"], "regexes": [...]},
//!   "exclude": {...},
//!   "schedules": [{"name": "hourly", "when": {"every_s": 3600} or {"cron": "0 2 * * *", "zone": "UTC"},
//!                  "keep": {"last": 10, "hourly": 24, "daily": 7, "weekly": 4, "monthly": 12, "yearly": 3,
//!                           "for_s": 60},
//!                  "consistency": "crash" or "application", "lock_s": 0, "paused": false}]}
//! ```
//!
//! Invariants: every instant is an argument, in ms since the Unix epoch; the same arguments give the same
//! answer on every machine, since the data of time zones is part of the program. A VM is in one group at
//! most. Retention never lets go of a schedule's newest point, of its newest good one, or of one that is
//! locked or held. What retention keeps of the points that it left is what it would have kept of all.
//!
//! What it does not do: no input or output, no clock, nothing is stored and nothing runs.
#![forbid(unsafe_code)]

mod buckets;
mod cron;
mod group;
mod keep;
mod limits;
mod members;
mod protection;
mod retention;
mod said;
mod schedule;
mod simulate;
mod span;
mod timer;
mod zone;

pub use group::{DEFAULT_GROUP, Group, Rules};
pub use keep::{Point, Reasons, keep};
pub use limits::{
    CRON_BYTES_MAX, EVERY_S_MAX, EVERY_S_MIN, GROUPS_MAX, KEEP_COUNT_MAX, LOCK_S_MAX, PRIORITY_MAX,
    REGEX_BYTES_MAX, REGEXES_MAX, RULES_MAX, SCHEDULES_MAX, SIMULATED_DAYS_MAX, VMS_NAMED_MAX,
};
pub use members::{Groups, Member, Place, Rule, Vm};
pub use protection::{Protection, State, protection, slack_ms};
pub use retention::Retention;
pub use said::parse_instant;
pub use schedule::{Consistency, Schedule, When};
pub use simulate::{Day, Kept, Timeline, simulate};
pub use span::{format_span, parse_span};
pub use timer::{Slots, Timer};
pub use zone::Zone;

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    use meta::Stored;

    use crate::{Consistency, Group, Groups, Retention, Schedule, When, Zone};

    /// Reads `input` as a group's record and as every text that an administrator gives, and uses what it
    /// reads.
    pub fn fuzz_body(input: &[u8]) {
        if let Ok(group) = Group::decode(input)
            && group.check().is_ok()
        {
            for schedule in &group.schedules {
                if let Ok(timer) = schedule.timer(&group) {
                    let _ = timer.next_after(0);
                }
            }
            let _ = Groups::new(vec![group]);
        }
        let Ok(text) = std::str::from_utf8(input) else { return };
        let _ = (
            crate::parse_span(text),
            When::every(text),
            Consistency::parse(text),
            Schedule::parse_lock(text),
        );
        let _ = Zone::parse(text).map(|zone| crate::parse_instant("yesterday 18:00", 1 << 40, &zone));
        let _ = crate::parse_instant(text, 1 << 40, &Zone::utc());
        let mut keep = Retention::default();
        let _ = (keep.set_last(text), keep.set_buckets(text), keep.set_for(text), keep.check());
        if let Ok(timer) = When::cron(text, None).and_then(|when| when.timer(&Zone::utc())) {
            let _ = timer.due(1 << 40, 1 << 39);
        }
        let rules = crate::Rules { patterns: vec![text.to_owned()], ..crate::Rules::default() };
        let _ = rules.check("a rule");
        let rules = crate::Rules { regexes: vec![text.to_owned()], ..crate::Rules::default() };
        let _ = rules.check("a rule");
    }
}

#[cfg(test)]
mod tests;
