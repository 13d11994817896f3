//! When a schedule has its runs.
//!
//! The slots of an interval are its multiples counted from the Unix epoch, so groups with one interval have
//! the same slots, and none drifts. The slots of a cron expression are local times. Where clocks go forward,
//! the runs that are left out are one, at the first instant after the gap. Where clocks go back, a local time
//! that comes twice has its run the first time; an expression that restricts no hour means every hour that
//! passes, and has its runs both times.
//!
//! However many slots have passed, one run is due: that of the newest.

use api::Result;

use crate::cron::Cron;
use crate::limits::MS_MAX;
use crate::zone::{Stretch, Zone, signed};

/// How far the next slot is looked for, ms: see `cron`.
const AHEAD_MS: i64 = 41 * 366 * 86_400_000;
const MINUTE_MS: u64 = 60_000;

/// The slots of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Every { period_ms: u64 },
    Cron { cron: Box<Cron>, zone: Zone },
}

impl Timer {
    /// A slot every so many seconds. Requires at least one.
    pub(crate) fn every(seconds: u64) -> Self {
        Self(Kind::Every { period_ms: seconds.max(1).saturating_mul(1000) })
    }

    pub(crate) fn cron(expression: &str, zone: Zone) -> Result<Self> {
        Ok(Self(Kind::Cron { cron: Box::new(Cron::parse(expression)?), zone }))
    }

    /// The distance of slots, where it is always the same.
    pub(crate) fn period_ms(&self) -> Option<u64> {
        match &self.0 {
            Kind::Every { period_ms } => Some(*period_ms),
            Kind::Cron { .. } => None,
        }
    }

    /// The first slot after an instant, ms; `None` when there is none that can be counted.
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        self.slots(after_ms).next()
    }

    /// The slots after an instant, ascending.
    pub fn slots(&self, after_ms: u64) -> Slots<'_> {
        Slots { timer: self, after_ms, stretch: None }
    }

    /// The slot whose run is due at `now_ms`, when `since_ms` is the slot of the last run, or from when on
    /// the schedule counts: the newest that came after it, or `None`.
    pub fn due(&self, now_ms: u64, since_ms: u64) -> Option<u64> {
        let mut newest = self.next_after(since_ms).filter(|slot| *slot <= now_ms)?;
        if let Kind::Every { period_ms } = &self.0 {
            return Some(now_ms.min(MS_MAX) / period_ms * period_ms);
        }
        // The newest is `next_after` of all instants between its predecessor and itself: halve what is left
        // of them.
        let (mut low, mut high) = (newest, now_ms);
        while low < high {
            let middle = low.midpoint(high);
            match self.next_after(middle).filter(|slot| *slot <= now_ms) {
                Some(later) => (newest, low) = (later, later),
                None => high = middle,
            }
        }
        Some(newest)
    }

    /// How long after a point of `at_ms` the next is to come, ms: the interval, or the distance to the next
    /// slot from the minute in which the point was made.
    pub fn interval_at(&self, at_ms: u64) -> Option<u64> {
        match &self.0 {
            Kind::Every { period_ms } => Some(*period_ms),
            Kind::Cron { .. } => Some(self.next_after(at_ms)? - at_ms / MINUTE_MS * MINUTE_MS),
        }
    }
}

/// The slots of a timer from an instant on.
#[derive(Debug, Clone)]
pub struct Slots<'t> {
    timer: &'t Timer,
    after_ms: u64,
    /// That of the last slot: most have the next one too.
    stretch: Option<Stretch>,
}

impl Iterator for Slots<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.after_ms >= MS_MAX {
            return None;
        }
        let next = match &self.timer.0 {
            Kind::Every { period_ms } => (self.after_ms / period_ms + 1) * period_ms,
            Kind::Cron { cron, zone } => {
                let (at, stretch) = next_of(cron, zone, self.after_ms, self.stretch)?;
                self.stretch = Some(stretch);
                at
            }
        };
        self.after_ms = next;
        (next <= MS_MAX).then_some(next)
    }
}

/// The first slot of a cron expression after an instant, and its stretch.
fn next_of(cron: &Cron, zone: &Zone, after_ms: u64, known: Option<Stretch>) -> Option<(u64, Stretch)> {
    let from = signed(after_ms) + 1;
    let limit = from.saturating_add(AHEAD_MS);
    let mut stretch = known.filter(|stretch| stretch.has(from)).unwrap_or_else(|| zone.stretch(from));
    loop {
        if let Some(at) = first_within(cron, &stretch, from, limit) {
            return Some((u64::try_from(at).ok()?, stretch));
        }
        if stretch.until_ms >= limit {
            return None;
        }
        stretch = zone.stretch(stretch.until_ms);
    }
}

/// The first slot in a stretch, from `from` on and before `limit`.
fn first_within(cron: &Cron, stretch: &Stretch, from: i64, limit: i64) -> Option<i64> {
    let begin = from.max(stretch.from_ms);
    let mut local = begin + stretch.offset_ms;
    if stretch.from_ms > i64::MIN {
        let (ended, begins) =
            (stretch.from_ms + stretch.offset_before_ms, stretch.from_ms + stretch.offset_ms);
        // Clocks went forward: what lies in the gap is made up for as the stretch begins.
        if begin == stretch.from_ms && ended < begins && cron.first(ended, begins).is_some() {
            return Some(begin);
        }
        // Clocks went back: until the local time at which the last stretch ended all has been.
        if !cron.is_every_hour() {
            local = local.max(ended);
        }
    }
    let until = stretch.until_ms.min(limit);
    cron.first(local, until.saturating_add(stretch.offset_ms)).map(|local| local - stretch.offset_ms)
}
