//! Time zones: how far local time is from UTC, and since when. Their data is part of the program.

use std::sync::LazyLock;

use api::{Error, Result, code};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

use crate::limits::{MS_MAX, TEXT_BYTES_MAX};
use crate::span::shown;

/// The zones that the program carries; those of the machine may be older or none.
static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// A stretch of time in which local time is as far from UTC throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Its first ms; the least number when it has no beginning.
    pub(crate) from_ms: i64,
    /// The first ms after it; the greatest number when it has no end.
    pub(crate) until_ms: i64,
    /// Local time less UTC.
    pub(crate) offset_ms: i64,
    /// The same in the stretch before.
    pub(crate) offset_before_ms: i64,
}

impl Stretch {
    /// Whether an instant is in it.
    pub(crate) fn has(&self, ms: i64) -> bool {
        (self.from_ms..self.until_ms).contains(&ms)
    }
}

/// An instant as jiff counts; what is beyond [`MS_MAX`] counts as that.
pub(crate) fn stamp(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(signed(ms)).unwrap_or(Timestamp::MAX)
}

/// An instant as a signed number; what is beyond [`MS_MAX`] counts as that.
pub(crate) fn signed(ms: u64) -> i64 {
    ms.min(MS_MAX) as i64
}

/// The date of a day, counted from the Unix epoch.
pub(crate) fn date_of(day: i64) -> Date {
    let stamp = Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or(Timestamp::MAX);
    Offset::UTC.to_datetime(stamp).date()
}

fn offset_ms(offset: Offset) -> i64 {
    i64::from(offset.seconds()) * 1000
}

impl Zone {
    /// Universal time.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Finds a zone by its IANA name, such as `Europe/Berlin`, in any case.
    ///
    /// # Errors
    /// `invalid_time` when there is none of this name.
    pub fn parse(name: &str) -> Result<Self> {
        let found = (name.len() <= TEXT_BYTES_MAX).then(|| BUNDLED.get(name).ok()).flatten();
        let found = found.filter(|zone| !zone.is_unknown());
        found.map(Self).ok_or_else(|| {
            Error::new(code::INVALID_TIME, format!("{} is no time zone", shown(name)))
                .hint("give its IANA name, such as Europe/Berlin, America/New_York or UTC")
        })
    }

    /// The zone's name, as the database writes it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The stretch that an instant is in.
    pub(crate) fn stretch(&self, ms: i64) -> Stretch {
        let stamp = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        let at = stamp(ms);
        let offset = self.0.to_offset(at);
        let mut stretch = Stretch {
            from_ms: i64::MIN,
            until_ms: i64::MAX,
            offset_ms: offset_ms(offset),
            offset_before_ms: offset_ms(offset),
        };
        // A transition may change the zone's abbreviation alone: such a one ends no stretch.
        for change in self.0.preceding(stamp(ms.saturating_add(1))) {
            let before = self.0.to_offset(stamp(change.timestamp().as_millisecond() - 1));
            if before != offset {
                stretch.from_ms = change.timestamp().as_millisecond();
                stretch.offset_before_ms = offset_ms(before);
                break;
            }
        }
        let next = self.0.following(at).find(|change| change.offset() != offset);
        if let Some(next) = next {
            stretch.until_ms = next.timestamp().as_millisecond();
        }
        stretch
    }

    /// The instant of a local time, in ms: of one that comes twice the first, and of one that is left out the
    /// first instant after the gap. `None` outside of 1970 to 9000.
    pub(crate) fn instant(&self, local: DateTime) -> Option<u64> {
        let ambiguous = self.0.to_ambiguous_timestamp(local);
        let is_left_out = matches!(ambiguous.offset(), jiff::tz::AmbiguousOffset::Gap { .. });
        let first = ambiguous.earlier().ok()?;
        let at = if is_left_out { self.0.following(first).next()?.timestamp() } else { first };
        u64::try_from(at.as_millisecond()).ok().filter(|ms| *ms <= MS_MAX)
    }

    /// The local time of an instant.
    pub(crate) fn local(&self, ms: u64) -> DateTime {
        self.0.to_datetime(stamp(ms))
    }

    /// For arithmetic with calendar spans.
    pub(crate) fn inner(&self) -> &TimeZone {
        &self.0
    }
}
