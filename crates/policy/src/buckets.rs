//! The calendar's buckets: which hour, day, week, month and year of a zone an instant is in.

use crate::limits::MS_MAX;
use crate::zone::{Stretch, Zone, date_of, signed};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// Kinds of buckets, shortest first. Each is made of whole ones of the first kind.
pub(crate) const KINDS: usize = 5;

/// A bucket of one kind; later ones are greater.
pub(crate) type Key = (i64, i64);

/// The buckets that an instant is in, by kind.
pub(crate) type Keys = [Key; KINDS];

/// Finds buckets; quick when instants are near each other.
pub(crate) struct Calendar<'z> {
    zone: &'z Zone,
    stretch: Stretch,
    /// Number of a day, its month and its year.
    day: (i64, i64, i64),
}

impl<'z> Calendar<'z> {
    pub(crate) fn new(zone: &'z Zone) -> Self {
        Self { zone, stretch: zone.stretch(0), day: of_day(0) }
    }

    fn local(&mut self, ms: u64) -> i64 {
        let at = signed(ms);
        if !self.stretch.has(at) {
            self.stretch = self.zone.stretch(at);
        }
        at + self.stretch.offset_ms
    }

    /// The buckets of an instant.
    pub(crate) fn keys(&mut self, ms: u64) -> Keys {
        let local = self.local(ms);
        let day = local.div_euclid(DAY_MS);
        if day != self.day.0 {
            self.day = of_day(day);
        }
        let (_, month, year) = self.day;
        // An hour that comes twice is two: the later has the smaller offset.
        let hour = (local.div_euclid(HOUR_MS), -self.stretch.offset_ms);
        // The first Monday was the fifth day.
        [hour, (day, 0), ((day + 3).div_euclid(7), 0), (month, 0), (year, 0)]
    }

    /// The first instant after the hour that an instant is in.
    pub(crate) fn hour_end(&mut self, ms: u64) -> u64 {
        let local = self.local(ms);
        let end = (local.div_euclid(HOUR_MS) + 1) * HOUR_MS - self.stretch.offset_ms;
        u64::try_from(end.min(self.stretch.until_ms)).unwrap_or(MS_MAX)
    }
}

fn of_day(day: i64) -> (i64, i64, i64) {
    let date = date_of(day);
    let year = i64::from(date.year());
    (day, year * 12 + i64::from(date.month()) - 1, year)
}
