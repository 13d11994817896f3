//! Cron expressions: which local minutes they name. `croner` reads them and knows the calendar; what a change
//! of the clock does to a run is said in `timer`.

use api::{Error, Result, code};
use croner::Weekday;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::Date;

use crate::limits::CRON_BYTES_MAX;
use crate::span::shown;
use crate::zone::date_of;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
/// How far a run is looked for, days. The rarest day of the calendar, a leap day on one weekday, comes after
/// 40 years.
const AHEAD_DAYS: i64 = 41 * 366;

/// A cron expression, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cron {
    cron: croner::Cron,
    /// Minutes of a day that it names, ascending.
    minutes: Vec<u16>,
    every_hour: bool,
}

impl Cron {
    /// Reads an expression of five fields, or a word such as `@daily`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(code::INVALID_TIME, format!("{} {what}", shown(text)))
                .hint("give minute, hour, day, month and weekday, such as '0 2 * * *' for every night at two")
        };
        if text.len() > CRON_BYTES_MAX || !text.is_ascii() {
            return Err(wrong("is no cron expression"));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| wrong(&format!("is no cron expression: {error}")))?;
        let (minutes, hours) = (cron.pattern.minutes.values(), cron.pattern.hours.values());
        let of_hour = |hour: u16| minutes.iter().map(move |minute| hour * 60 + minute);
        let named: Vec<u16> = hours.iter().flat_map(|hour| of_hour(*hour)).collect();
        let cron = Self { cron, minutes: named, every_hour: hours.len() == 24 };
        // From a leap year on, so that every day that ever comes does.
        let from = 10_957 * DAY_MS;
        if cron.first(from, i64::MAX).is_none() {
            return Err(wrong("names a day that never comes"));
        }
        Ok(cron)
    }

    /// Whether it restricts no hour: an hour that comes twice has its runs twice then.
    pub(crate) fn is_every_hour(&self) -> bool {
        self.every_hour
    }

    /// The first local time that it names, from `from` on and before `until`, both in ms as if local time
    /// were UTC.
    pub(crate) fn first(&self, from: i64, until: i64) -> Option<i64> {
        let from = from.div_euclid(MINUTE_MS) + i64::from(from.rem_euclid(MINUTE_MS) > 0);
        let (mut day, minute) = (from.div_euclid(1440), from.rem_euclid(1440));
        let last = day.saturating_add(AHEAD_DAYS).min(until.div_euclid(DAY_MS));
        let mut at = self.minutes.partition_point(|named| i64::from(*named) < minute);
        let mut date = date_of(day);
        while day <= last {
            if let Some(named) = self.minutes.get(at)
                && self.has(date)
            {
                let found = day * DAY_MS + i64::from(*named) * MINUTE_MS;
                return (found < until).then_some(found);
            }
            at = 0;
            day += 1;
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// Whether it names a date.
    fn has(&self, date: Date) -> bool {
        let (year, month, day) =
            (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs());
        let weekday =
            Weekday::from_days_from_sunday(date.weekday().to_sunday_zero_offset().unsigned_abs().into());
        let pattern = &self.cron.pattern;
        pattern.month_match(month.into()).unwrap_or(false)
            && pattern.day_match(year, month.into(), day.into(), weekday).unwrap_or(false)
    }
}
