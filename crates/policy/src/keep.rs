//! Which points retention keeps.
//!
//! Each part of a retention keeps points of its own, and a point stays when any part keeps it. `hourly=24`
//! keeps one point of each of the last 24 hours *that have a point*: hours without one are not counted, so a
//! site that was off for a week keeps what it had. In a bucket the newest good point stays, and the newest of
//! all where none is good.
//!
//! So what stays is a function of the newest buckets, and each has its point among what stayed before:
//! applied again and again as points come, retention keeps what it would have kept of all points ever made.

use std::collections::BTreeMap;
use std::fmt;

use crate::buckets::{Calendar, KINDS, Key, Keys};
use crate::retention::Retention;
use crate::zone::Zone;

/// A point, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point<'a> {
    /// Its number. Of two points of one instant the higher is the newer.
    pub id: u64,
    /// The instant it is of, ms.
    pub at_ms: u64,
    /// The schedule that made it.
    pub schedule: &'a str,
    /// Nobody deletes it before this, ms; 0 for no lock.
    pub locked_until_ms: u64,
    /// Whether somebody said that it stays.
    pub is_held: bool,
    /// Whether it is as its schedule wants it, and all members are in it.
    pub is_good: bool,
}

/// Why a point stays; nothing is why it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Reasons(u16);

impl Reasons {
    /// It is the newest of its schedule.
    pub const NEWEST: Self = Self(1);
    /// It is the newest good one of its schedule.
    pub const NEWEST_GOOD: Self = Self(1 << 1);
    /// It is among the last.
    pub const LAST: Self = Self(1 << 2);
    /// It stands for an hour.
    pub const HOURLY: Self = Self(1 << 3);
    /// It stands for a day.
    pub const DAILY: Self = Self(1 << 4);
    /// It stands for a week.
    pub const WEEKLY: Self = Self(1 << 5);
    /// It stands for a month.
    pub const MONTHLY: Self = Self(1 << 6);
    /// It stands for a year.
    pub const YEARLY: Self = Self(1 << 7);
    /// It is young.
    pub const YOUNG: Self = Self(1 << 8);
    /// It is locked.
    pub const LOCKED: Self = Self(1 << 9);
    /// It is held.
    pub const HELD: Self = Self(1 << 10);
    /// Its schedule is gone, so nothing says when it goes.
    pub const NO_SCHEDULE: Self = Self(1 << 11);

    const BUCKETS: [Self; KINDS] = [Self::HOURLY, Self::DAILY, Self::WEEKLY, Self::MONTHLY, Self::YEARLY];
    const WORDS: [(Self, &'static str); 12] = [
        (Self::NEWEST, "newest"),
        (Self::NEWEST_GOOD, "newest good"),
        (Self::LAST, "last"),
        (Self::HOURLY, "hourly"),
        (Self::DAILY, "daily"),
        (Self::WEEKLY, "weekly"),
        (Self::MONTHLY, "monthly"),
        (Self::YEARLY, "yearly"),
        (Self::YOUNG, "young"),
        (Self::LOCKED, "locked"),
        (Self::HELD, "held"),
        (Self::NO_SCHEDULE, "no schedule"),
    ];

    /// Whether the point stays.
    pub fn stays(self) -> bool {
        self != Self::default()
    }

    /// Whether all of `other` are among them.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Each in a word or two.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().filter(move |(reason, _)| self.has(*reason)).map(|(_, word)| word)
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Reasons {
    /// The words with commas between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(", "))
    }
}

/// Why each of `points` stays at `now_ms`, in their order. `retention` gives what a schedule says; the points
/// of one that says nothing stay. Buckets are those of `zone`.
///
/// Points may be in any order; about `n log n` steps.
pub fn keep<'r>(
    points: &[Point<'_>],
    retention: impl Fn(&str) -> Option<&'r Retention>,
    zone: &Zone,
    now_ms: u64,
) -> Vec<Reasons> {
    let mut newest_first: Vec<usize> = (0..points.len()).collect();
    newest_first.sort_by(|a, b| {
        let key = |at: &usize| (points[*at].schedule, points[*at].at_ms, points[*at].id);
        key(b).cmp(&key(a))
    });
    let mut reasons = vec![Reasons::default(); points.len()];
    let mut calendar = Calendar::new(zone);
    for of_schedule in newest_first.chunk_by(|a, b| points[*a].schedule == points[*b].schedule) {
        match of_schedule.first().and_then(|at| retention(points[*at].schedule)) {
            Some(retention) => {
                keep_schedule(points, of_schedule, retention, &mut calendar, now_ms, &mut reasons)
            }
            None => of_schedule.iter().for_each(|at| reasons[*at].add(Reasons::NO_SCHEDULE)),
        }
    }
    for (point, reasons) in points.iter().zip(&mut reasons) {
        if point.locked_until_ms > now_ms {
            reasons.add(Reasons::LOCKED);
        }
        if point.is_held {
            reasons.add(Reasons::HELD);
        }
    }
    reasons
}

/// The same for the points of one schedule: `newest_first` are their places.
fn keep_schedule(
    points: &[Point<'_>],
    newest_first: &[usize],
    retention: &Retention,
    calendar: &mut Calendar<'_>,
    now_ms: u64,
    reasons: &mut [Reasons],
) {
    if let Some(newest) = newest_first.first() {
        reasons[*newest].add(Reasons::NEWEST);
    }
    if let Some(newest) = newest_first.iter().find(|at| points[**at].is_good) {
        reasons[*newest].add(Reasons::NEWEST_GOOD);
    }
    for last in newest_first.iter().take(retention.last as usize) {
        reasons[*last].add(Reasons::LAST);
    }
    let for_ms = retention.for_s.saturating_mul(1000);
    for young in
        newest_first.iter().filter(|at| points[**at].at_ms.saturating_add(for_ms) > now_ms && for_ms > 0)
    {
        reasons[*young].add(Reasons::YOUNG);
    }
    let counts = [retention.hourly, retention.daily, retention.weekly, retention.monthly, retention.yearly];
    if counts == [0; KINDS] {
        return;
    }
    let mut buckets = counts.map(Newest::new);
    for at in newest_first {
        let keys: Keys = calendar.keys(points[*at].at_ms);
        for (kind, key) in buckets.iter_mut().zip(keys) {
            kind.see(key, *at, points[*at].is_good);
        }
    }
    for (kind, reason) in buckets.iter().zip(Reasons::BUCKETS) {
        kind.of.values().for_each(|found| reasons[found.at].add(reason));
    }
}

/// The newest buckets of one kind that have a point, with the point that stands for each.
struct Newest {
    count: usize,
    of: BTreeMap<Key, Found>,
    /// The bucket of the last point, when nothing better can come for it.
    settled: Option<Key>,
}

struct Found {
    at: usize,
    is_good: bool,
}

impl Newest {
    fn new(count: u32) -> Self {
        Self { count: count as usize, of: BTreeMap::new(), settled: None }
    }

    /// Takes note of a point that is older than those before.
    fn see(&mut self, key: Key, at: usize, is_good: bool) {
        if self.count == 0 || self.settled == Some(key) {
            return;
        }
        let is_full = self.of.len() == self.count;
        if is_full && self.of.first_key_value().is_some_and(|(oldest, _)| key < *oldest) {
            self.settled = Some(key);
            return;
        }
        let found = self.of.entry(key).or_insert(Found { at, is_good });
        if is_good && !found.is_good {
            *found = Found { at, is_good };
        }
        if found.is_good {
            self.settled = Some(key);
        }
        // A date can come back for some minutes where clocks are set back over midnight.
        if self.of.len() > self.count {
            self.of.pop_first();
        }
    }
}
