//! Spans of time as administrators write them: `15s`, `5m`, `1h`, `30d`.

use api::{Error, Result, code};
use jiff::Span;

use crate::limits::{DAY_S, TEXT_BYTES_MAX};

/// A text as it is shown in a message: not all of a long one.
pub(crate) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(TEXT_BYTES_MAX).collect::<String>())
}

/// Reads a span of fixed length, in whole seconds; a day has 24 hours.
///
/// # Errors
/// `invalid_time` when it is none, is negative, or is not of a fixed length, as months are.
pub fn parse_span(text: &str) -> Result<u64> {
    let wrong = |what: &str| {
        Error::new(code::INVALID_TIME, format!("{} {what}", shown(text)))
            .hint("give it as 15s, 5m, 1h, 30d or 2w, or several such as 1h30m")
    };
    // What has a colon is a time of day to people.
    let is_fit = text.len() <= TEXT_BYTES_MAX && !text.contains(':');
    let span: Option<Span> = is_fit.then(|| text.parse().ok()).flatten();
    let span = span.ok_or_else(|| wrong("is no span of time"))?;
    if span.is_negative() {
        return Err(wrong("is a span back in time"));
    }
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(wrong("has no fixed length: months and years differ, so count in days"));
    }
    if span.get_milliseconds() != 0 || span.get_microseconds() != 0 || span.get_nanoseconds() != 0 {
        return Err(wrong("is not of whole seconds"));
    }
    let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
    let minutes = i64::from(span.get_hours()) * 60 + span.get_minutes();
    let seconds = days * DAY_S as i64 + minutes * 60 + span.get_seconds();
    u64::try_from(seconds).map_err(|_| wrong("is no span of time"))
}

/// A span of seconds as [`parse_span`] reads it, in the largest unit that it is a whole number of.
pub fn format_span(seconds: u64) -> String {
    let units = [(DAY_S, 'd'), (3600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (unit, letter) = unit.unwrap_or((1, 's'));
    format!("{}{letter}", seconds / unit)
}
