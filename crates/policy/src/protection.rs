//! How well a VM is protected: the age of its newest good point against its target.

use std::fmt;

use crate::timer::Timer;

/// Slack is a tenth of the target, and within these bounds, ms: a point takes a moment to make, and a tenth
/// of a day would hide a night that failed.
const SLACK_MS_MIN: u64 = 2_000;
const SLACK_MS_MAX: u64 = 600_000;

/// How well a VM is protected; the worse the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No schedule is to make points of it: its group is paused or has none, or it is in no group.
    Excluded,
    /// Its newest good point is no older than the target and its slack.
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

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Excluded => "excluded",
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Severe => "severe",
            Self::Critical => "critical",
            Self::Never => "never",
        })
    }
}

/// How well a VM is protected, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// In a word.
    pub state: State,
    /// Age of its newest good point, ms.
    pub age_ms: Option<u64>,
    /// How old that may be, ms: the shortest interval of its schedules.
    pub target_ms: Option<u64>,
}

/// How much older than the target a point may be, ms.
pub fn slack_ms(target_ms: u64) -> u64 {
    (target_ms / 10).clamp(SLACK_MS_MIN, SLACK_MS_MAX)
}

/// How well a VM is protected at `now_ms`, by the schedules of its group that make points, when its newest
/// good point is of `newest_good_ms`.
pub fn protection<'t>(
    timers: impl IntoIterator<Item = &'t Timer>,
    newest_good_ms: Option<u64>,
    now_ms: u64,
) -> Protection {
    let from_ms = newest_good_ms.unwrap_or(now_ms);
    let target_ms = timers.into_iter().filter_map(|timer| timer.interval_at(from_ms)).min();
    let age_ms = newest_good_ms.map(|newest| now_ms.saturating_sub(newest));
    let state = match (target_ms, age_ms) {
        (None, _) => State::Excluded,
        (_, None) => State::Never,
        (Some(target), Some(age)) => {
            let within = |times: u64| age <= target.saturating_mul(times).saturating_add(slack_ms(target));
            let states = [(1, State::Ok), (2, State::Late), (4, State::Severe)];
            states.into_iter().find(|(times, _)| within(*times)).map_or(State::Critical, |(_, state)| state)
        }
    };
    Protection { state, age_ms, target_ms }
}
