//! Times as people say them.

use api::{Error, Result, code};
use jiff::civil::{Date, DateTime, Time};
use jiff::{Span, Timestamp};

use crate::limits::{MS_MAX, TEXT_BYTES_MAX};
use crate::span::shown;
use crate::zone::{Zone, stamp};

/// Reads an instant, ms: `now`; `2h ago`, or `30d` for as long ago; `today`, `yesterday`, `yesterday 18:00`;
/// `2026-11-29`, `2026-11-29 18:00`; RFC 3339 such as `2026-11-29T18:00:00Z`. A day alone is its beginning.
///
/// Local times are those of `zone`. Of one that comes twice the first is meant, and for one that is left out
/// the first instant after the gap. Days, weeks, months and years ago are counted by the calendar, hours and
/// less as time passes.
///
/// # Errors
/// `invalid_time` when it is none of these, or before 1970 or after 9000.
pub fn parse_instant(text: &str, now_ms: u64, zone: &Zone) -> Result<u64> {
    let wrong = |what: &str| {
        Error::new(code::INVALID_TIME, format!("{} {what}", shown(text)))
            .hint("give it as '2h ago', 'yesterday 18:00', '2026-11-29 18:00' or 2026-11-29T18:00:00Z")
    };
    let words = text.trim().to_ascii_lowercase();
    if text.len() > TEXT_BYTES_MAX || words.is_empty() {
        return Err(wrong("is no time"));
    }
    let far = || wrong("is too far from now");
    if words == "now" {
        return Ok(now_ms.min(MS_MAX));
    }
    if let Ok(at) = words.to_ascii_uppercase().parse::<Timestamp>() {
        return in_bounds(at).ok_or_else(far);
    }
    if let Some(local) = local_time(&words, zone.local(now_ms).date()) {
        return zone.instant(local).ok_or_else(far);
    }
    let span = words.strip_suffix("ago").map_or(words.as_str(), str::trim_end);
    // What has a colon is a time of day to people, whatever else it may be.
    let span: Option<Span> = span.parse().ok().filter(|_| !span.contains(':'));
    let span = span.ok_or_else(|| wrong("is no time"))?;
    if span.is_negative() {
        return Err(wrong("is a span back in time"));
    }
    let now = stamp(now_ms).to_zoned(zone.inner().clone());
    let at = now.checked_sub(span).map_err(|_| far())?;
    in_bounds(at.timestamp()).ok_or_else(far)
}

fn in_bounds(at: Timestamp) -> Option<u64> {
    u64::try_from(at.as_millisecond()).ok().filter(|ms| *ms <= MS_MAX)
}

/// A day with or without a time of day: `yesterday 18:00`, `2026-11-29T18:00:05`.
fn local_time(words: &str, today: Date) -> Option<DateTime> {
    let (day, time) =
        match words.split_once([' ', 't']).filter(|(day, _)| day.starts_with(|c: char| c.is_ascii_digit())) {
            Some((day, time)) => (day, Some(time)),
            None => words.split_once(' ').map_or((words, None), |(day, time)| (day, Some(time))),
        };
    let day = match day {
        "today" => today,
        "yesterday" => today.yesterday().ok()?,
        day => date(day)?,
    };
    let time = time.map_or(Some(Time::midnight()), |text| time_of_day(text.trim_start()))?;
    Some(day.to_datetime(time))
}

/// A date as `2026-11-29`.
fn date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let is_date = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    is_date.then(|| text.parse().ok()).flatten()
}

/// A time of day as `18:00` or `18:00:05`.
fn time_of_day(text: &str) -> Option<Time> {
    let is_time =
        matches!(text.len(), 4 | 5 | 7 | 8) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let mut parts = text.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let is_whole = is_time && parts.next().is_none();
    is_whole.then(|| Time::new(hour, minute, second, 0).ok()).flatten()
}
