//! What retention will keep of the points that a schedule is to make.
//!
//! Nothing is stepped through run by run. The points of an hour that are neither the newest of it, nor among
//! the last, nor young or locked, are never kept; and the last, the young and the locked are those from some
//! instant on, so they are counted. What is left is one point for each hour, which `keep` judges once for
//! each day.

use api::{Error, Result, code};

use crate::buckets::Calendar;
use crate::group::Group;
use crate::keep::{Point, Reasons, keep};
use crate::limits::{DAY_MS, MS_MAX, SIMULATED_DAYS_MAX};
use crate::retention::Retention;
use crate::schedule::Schedule;
use crate::timer::Timer;
use crate::zone::Zone;

/// What there is of a schedule at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// The instant, ms.
    pub at_ms: u64,
    /// How many points.
    pub points: u64,
    /// The oldest of them, ms.
    pub oldest_ms: Option<u64>,
}

/// A point that there is at the end, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The instant it is of, ms.
    pub at_ms: u64,
    /// Its number, when it exists already.
    pub id: Option<u64>,
    /// Why it is there.
    pub reasons: Reasons,
}

/// What is to come of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The schedule.
    pub schedule: String,
    /// Points that it makes in all.
    pub made: u64,
    /// What there is now and after each day.
    pub days: Vec<Day>,
    /// At the end: those that exist already, and those made before `all_from_ms`; oldest first.
    pub kept: Vec<Kept>,
    /// At the end: each that is made from this instant on, ms, is there, since it is among the last, young or
    /// locked.
    pub all_from_ms: u64,
    /// How many these are.
    pub all: u64,
}

/// What each schedule of a group will have, over `days` days from `now_ms` on, when every run makes a good
/// point. `existing` are the points that the group has now, in any order.
///
/// # Errors
/// What is wrong with the group; `invalid_time` for more than ten years.
pub fn simulate(group: &Group, existing: &[Point<'_>], now_ms: u64, days: u32) -> Result<Vec<Timeline>> {
    if days > SIMULATED_DAYS_MAX {
        return Err(Error::new(code::INVALID_TIME, format!("cannot look {days} days ahead"))
            .hint(format!("give {SIMULATED_DAYS_MAX} days at most")));
    }
    group.check()?;
    let now_ms = now_ms.min(MS_MAX);
    let zone = group.zone()?;
    let of_schedule = |schedule: &Schedule| -> Result<Timeline> {
        let timer = (!group.paused && !schedule.paused).then(|| schedule.timer(group)).transpose()?;
        let own = existing.iter().filter(|point| point.schedule.eq_ignore_ascii_case(&schedule.name));
        let own: Vec<Point<'_>> = own.map(|point| Point { schedule: "", ..*point }).collect();
        let end_ms = now_ms + u64::from(days) * DAY_MS;
        let made = Made::new(timer.as_ref(), now_ms, end_ms);
        Ok(Simulation::new(schedule, &zone, made, own, now_ms).run(days))
    };
    group.schedules.iter().map(of_schedule).collect()
}

/// The slots of a simulation: after its begin, until its end.
enum Made {
    None,
    Regular { begin_ms: u64, period_ms: u64 },
    Listed(Vec<u64>),
}

impl Made {
    fn new(timer: Option<&Timer>, begin_ms: u64, end_ms: u64) -> Self {
        match timer.map(|timer| (timer, timer.period_ms())) {
            None => Self::None,
            Some((_, Some(period_ms))) => Self::Regular { begin_ms, period_ms },
            Some((timer, None)) => {
                Self::Listed(timer.slots(begin_ms).take_while(|slot| *slot <= end_ms).collect())
            }
        }
    }

    /// How many there are up to an instant.
    fn until(&self, ms: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Regular { begin_ms, period_ms } => (ms / period_ms).saturating_sub(begin_ms / period_ms),
            Self::Listed(slots) => slots.partition_point(|slot| *slot <= ms) as u64,
        }
    }

    /// The slot of a number, from 1 on; there must be as many.
    fn nth(&self, number: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Regular { begin_ms, period_ms } => (begin_ms / period_ms + number) * period_ms,
            Self::Listed(slots) => slots.get(number as usize - 1).copied().unwrap_or(0),
        }
    }

    /// The newest slot of each hour, of the slots after `from_ms` until `to_ms`.
    fn newest_of_hours(&self, calendar: &mut Calendar<'_>, from_ms: u64, to_ms: u64) -> Vec<u64> {
        let mut found = Vec::new();
        let (mut number, last) = (self.until(from_ms), self.until(to_ms));
        while number < last {
            let end_ms = calendar.hour_end(self.nth(number + 1));
            number = self.until((end_ms - 1).min(to_ms));
            found.push(self.nth(number));
        }
        found
    }
}

/// The number of points that are to be made.
const TO_BE_MADE: u64 = u64::MAX;

/// What there is at an instant: those that are listed, and all that are made from an instant on.
struct Look {
    day: Day,
    kept: Vec<Kept>,
    all_from_ms: u64,
    all: u64,
}

struct Simulation<'s> {
    schedule: &'s Schedule,
    zone: &'s Zone,
    made: Made,
    /// How many existing points there were.
    before: Vec<u64>,
    /// Points that may be kept; those to be made have no number of their own.
    points: Vec<Point<'s>>,
    now_ms: u64,
}

impl<'s> Simulation<'s> {
    fn new(schedule: &'s Schedule, zone: &'s Zone, made: Made, points: Vec<Point<'s>>, now_ms: u64) -> Self {
        let mut before: Vec<u64> = points.iter().map(|point| point.at_ms).collect();
        before.sort_unstable_by(|a, b| b.cmp(a));
        Self { schedule, zone, made, before, points, now_ms }
    }

    fn run(mut self, days: u32) -> Timeline {
        let mut calendar = Calendar::new(self.zone);
        let mut last = self.look(self.now_ms);
        let mut done = vec![last.day];
        for day in 1..=u64::from(days) {
            let at_ms = self.now_ms + day * DAY_MS;
            for slot in self.made.newest_of_hours(&mut calendar, at_ms - DAY_MS, at_ms) {
                let locked_until_ms = slot.saturating_add(self.lock_ms());
                let id = TO_BE_MADE;
                let point =
                    Point { id, at_ms: slot, schedule: "", locked_until_ms, is_held: false, is_good: true };
                self.points.push(point);
            }
            last = self.look(at_ms);
            done.push(last.day);
        }
        let Look { day, kept, all_from_ms, all } = last;
        let made = self.made.until(day.at_ms);
        Timeline { schedule: self.schedule.name.clone(), made, days: done, kept, all_from_ms, all }
    }

    fn lock_ms(&self) -> u64 {
        self.schedule.lock_s.saturating_mul(1000)
    }

    /// From which instant on every point is there at `at_ms`.
    fn all_from(&self, at_ms: u64) -> u64 {
        let keep = &self.schedule.keep;
        let made = self.made.until(at_ms);
        let last = u64::from(keep.last);
        let last_from = match (last, made.checked_sub(last)) {
            (0, _) => u64::MAX,
            (_, Some(gone)) => self.made.nth(gone + 1),
            (_, None) => {
                let place = ((last - made) as usize).min(self.before.len());
                let existing = place.checked_sub(1).map(|place| self.before[place]);
                existing.or_else(|| (made > 0).then(|| self.made.nth(1))).unwrap_or(u64::MAX)
            }
        };
        let young_from =
            (keep.for_s > 0).then(|| (at_ms + 1).saturating_sub(keep.for_s.saturating_mul(1000)));
        last_from.min(young_from.unwrap_or(u64::MAX))
    }

    /// What there is at an instant. `points` lose what goes.
    fn look(&mut self, at_ms: u64) -> Look {
        let any_from_ms = self.all_from(at_ms);
        // Locks of existing points are their own; those of points to be made count from the instant of each.
        let lock_ms = self.lock_ms();
        let locked_from_ms = if lock_ms > 0 { (at_ms + 1).saturating_sub(lock_ms) } else { u64::MAX };
        let all_from_ms = any_from_ms.min(locked_from_ms).max(self.now_ms + 1);
        let retention = Retention { last: 0, ..self.schedule.keep };
        let reasons = keep(&self.points, |_| Some(&retention), self.zone, at_ms);
        let points = std::mem::take(&mut self.points);
        let mut kept = Vec::new();
        for (point, mut reasons) in points.into_iter().zip(reasons) {
            let is_made = point.id == TO_BE_MADE;
            if point.at_ms >= any_from_ms && !reasons.has(Reasons::YOUNG) {
                reasons = reasons.and(Reasons::LAST);
            }
            if reasons.stays() {
                self.points.push(point);
                if !is_made || point.at_ms < all_from_ms {
                    kept.push(Kept { at_ms: point.at_ms, id: (!is_made).then_some(point.id), reasons });
                }
            }
        }
        kept.sort_by_key(|kept| (kept.at_ms, kept.id));
        let made = self.made.until(at_ms);
        let all = made.saturating_sub(self.made.until(all_from_ms - 1));
        let oldest_of_all = (all > 0).then(|| self.made.nth(made - all + 1));
        let oldest_ms = kept.first().map(|kept| kept.at_ms).into_iter().chain(oldest_of_all).min();
        Look { day: Day { at_ms, points: all + kept.len() as u64, oldest_ms }, kept, all_from_ms, all }
    }
}
