//! Times as people write and read them, and the error of what is held until one.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::codes::code;
use crate::error::{Error, Result};

/// The longest hold: longer than any rule of retention asks for, and short enough that a slip of the finger is found.
const HOLD_YEARS_MAX: i64 = 100;
/// Longest text of a time: what is longer is none.
const TEXT_BYTES_MAX: usize = 64;

/// A time in ms since the Unix epoch, as RFC 3339 has it, UTC.
pub fn format_time(ms: u64) -> String {
    let stamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| format!("{ms} ms"), |stamp| format!("{stamp:.0}"))
}

/// Reads a time to come: RFC 3339, or a span from `now_ms` on, such as `30d`, `12h`, `1y`.
///
/// # Errors
/// `invalid_time` when it is neither, is past, or is more than 100 years away.
pub fn parse_until(text: &str, now_ms: u64) -> Result<u64> {
    let shown: String = text.chars().take(TEXT_BYTES_MAX).collect();
    let wrong = |what: &str| Error::new(code::INVALID_TIME, format!("{shown:?} {what}"));
    let now = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let now = now.ok_or_else(|| wrong("cannot be counted from the time of this site"))?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(wrong("is no time"));
    }
    let later = |span: Span| now.to_zoned(TimeZone::UTC).checked_add(span).map(|at| at.timestamp());
    let until = match (text.parse::<Timestamp>(), text.parse::<Span>()) {
        (Ok(until), _) => until,
        (_, Ok(span)) => later(span).map_err(|_| wrong("is too long a span"))?,
        _ => return Err(wrong("is no time")),
    };
    if until <= now {
        return Err(wrong(&format!("is not to come: site time is {}", format_time(now_ms))));
    }
    if later(Span::new().years(HOLD_YEARS_MAX)).is_ok_and(|last| until > last) {
        return Err(wrong("is more than 100 years away"));
    }
    Ok(u64::try_from(until.as_millisecond()).unwrap_or(0))
}

/// Reads a span, such as `24h` or `7d`, in whole seconds; `0` for none.
///
/// # Errors
/// `invalid_time`.
pub fn parse_span(text: &str) -> Result<std::time::Duration> {
    let shown: String = text.chars().take(TEXT_BYTES_MAX).collect();
    let wrong = || Error::new(code::INVALID_TIME, format!("{shown:?} is no span of time"));
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    let zero = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    let span = text.get(..text.len().min(TEXT_BYTES_MAX)).and_then(|text| text.parse::<Span>().ok());
    let end = span.and_then(|span| zero.checked_add(span).ok()).ok_or_else(wrong)?;
    let seconds = u64::try_from(end.timestamp().as_second()).map_err(|_| wrong())?;
    Ok(std::time::Duration::from_secs(seconds))
}

/// Something is held.
pub fn held(what: &str, until_ms: u64) -> Error {
    let until = format_time(until_ms);
    Error::new(code::SNAPSHOT_HELD, format!("{what} is held until {until}"))
        .hint(format!("it can be deleted from {until} on, site time; nothing ends a hold before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_767_225_600_000; // 2026-01-01

    #[test]
    fn times_are_dates_or_spans_to_come() {
        assert_eq!(format_time(NOW), "2026-01-01T00:00:00Z");
        let day = 86_400_000;
        for (text, until) in [
            ("2026-01-02T00:00:00Z", NOW + day),
            ("2026-01-02T02:00:00+02:00", NOW + day),
            ("1d", NOW + day),
            ("30d", NOW + 30 * day),
            ("12h", NOW + day / 2),
            ("90m", NOW + 5_400_000),
            ("1y", NOW + 365 * day),
            ("2mo", NOW + 59 * day),
        ] {
            assert_eq!(parse_until(text, NOW).unwrap(), until, "{text}");
        }
        for text in [
            "",
            "1",
            "tomorrow",
            "2026-01-01",
            "0s",
            "-1d",
            "2025-12-31T23:59:59Z",
            "101y",
            "999999y",
            "\u{e4}",
        ] {
            assert_eq!(parse_until(text, NOW).unwrap_err().code, "invalid_time", "{text}");
        }
        assert!(parse_until("100y", NOW).is_ok() && parse_until(&"1d ".repeat(50), NOW).is_err());
    }

    #[test]
    fn spans_are_whole_seconds() {
        for (text, seconds) in [("0", 0), ("24h", 86_400), ("7d", 604_800), ("90s", 90), ("1h30m", 5400)] {
            assert_eq!(parse_span(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "24", "-1d", "soon"] {
            assert_eq!(parse_span(text).unwrap_err().code, "invalid_time", "{text}");
        }
    }
}
