//! Retention as it is said and stored. What it means is in `keep`.

use std::fmt;

use api::{Error, Result, code};
use serde::{Deserialize, Serialize};

use crate::limits::{FOR_S_MAX, KEEP_COUNT_MAX};
use crate::span::{format_span, parse_span, shown};

/// Which points of a schedule stay: all that any part of it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Retention {
    /// The newest points, so many.
    pub last: u32,
    /// The newest point of each hour, of so many hours that have one.
    pub hourly: u32,
    /// The same of days.
    pub daily: u32,
    /// The same of weeks, which begin on Monday.
    pub weekly: u32,
    /// The same of months.
    pub monthly: u32,
    /// The same of years.
    pub yearly: u32,
    /// All points younger than this, seconds.
    pub for_s: u64,
}

impl Retention {
    /// Sets how many of the newest points stay: `--keep-last 10`.
    ///
    /// # Errors
    /// `invalid_request` when it is no number, or too large a one.
    pub fn set_last(&mut self, text: &str) -> Result<()> {
        self.last = count(text)?;
        Ok(())
    }

    /// Sets of how many hours, days, weeks, months and years a point stays:
    /// `--keep hourly=24,daily=7,weekly=4,monthly=12,yearly=3`. What is not named is left as it is.
    ///
    /// # Errors
    /// `invalid_request` when a word is unknown or comes twice, or a number is none or too large.
    pub fn set_buckets(&mut self, text: &str) -> Result<()> {
        let mut set = *self;
        let mut seen = Vec::new();
        for part in text.split(',') {
            let wrong = |what: &str| {
                Error::new(code::INVALID_REQUEST, format!("{} {what}", shown(part))).hint(
                    "give it as hourly=24,daily=7,weekly=4,monthly=12,yearly=3, each once or not at all",
                )
            };
            let (word, number) = part.split_once('=').ok_or_else(|| wrong("is not WORD=NUMBER"))?;
            let word = word.trim();
            let Some((_, field)) = set.buckets_mut().into_iter().find(|(known, _)| *known == word) else {
                return Err(wrong("names no bucket of retention"));
            };
            if seen.contains(&word) {
                return Err(wrong("says something that was said before"));
            }
            *field = count(number.trim())?;
            seen.push(word);
        }
        *self = set;
        Ok(())
    }

    /// Sets for how long all points stay: `--for 30d`.
    ///
    /// # Errors
    /// `invalid_time` when it is no span, or is longer than 100 years.
    pub fn set_for(&mut self, text: &str) -> Result<()> {
        let for_s = parse_span(text)?;
        check_for(for_s)?;
        self.for_s = for_s;
        Ok(())
    }

    fn buckets_mut(&mut self) -> [(&'static str, &mut u32); 5] {
        [
            ("hourly", &mut self.hourly),
            ("daily", &mut self.daily),
            ("weekly", &mut self.weekly),
            ("monthly", &mut self.monthly),
            ("yearly", &mut self.yearly),
        ]
    }

    /// Whether it can be used.
    ///
    /// # Errors
    /// `invalid_request` when it keeps nothing, or a number is too large; `invalid_time` when a time is too
    /// long.
    pub fn check(&self) -> Result<()> {
        if *self == Self::default() {
            return Err(Error::new(code::INVALID_REQUEST, "this retention keeps nothing")
                .hint("say what stays: --keep-last 10, --keep daily=7, --for 30d, or several of them"));
        }
        let Self { last, hourly, daily, weekly, monthly, yearly, for_s } = *self;
        for number in [last, hourly, daily, weekly, monthly, yearly] {
            check_count(number)?;
        }
        check_for(for_s)
    }
}

impl fmt::Display for Retention {
    /// As the command line has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = *self;
        let buckets = set.buckets_mut().into_iter().filter(|(_, number)| **number > 0);
        let buckets: Vec<String> = buckets.map(|(word, number)| format!("{word}={number}")).collect();
        let mut parts = Vec::new();
        if self.last > 0 {
            parts.push(format!("--keep-last {}", self.last));
        }
        if !buckets.is_empty() {
            parts.push(format!("--keep {}", buckets.join(",")));
        }
        if self.for_s > 0 {
            parts.push(format!("--for {}", format_span(self.for_s)));
        }
        f.write_str(&parts.join(" "))
    }
}

fn count(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().unwrap_or(u32::MAX)).ok_or_else(|| {
        Error::new(code::INVALID_REQUEST, format!("{} is no number", shown(text)))
            .hint("give a whole number, such as 10")
    })?;
    check_count(number)?;
    Ok(number)
}

fn check_count(number: u32) -> Result<()> {
    if number <= KEEP_COUNT_MAX {
        return Ok(());
    }
    Err(Error::new(code::INVALID_REQUEST, "retention cannot keep so many points")
        .hint(format!("give {KEEP_COUNT_MAX} at most")))
}

fn check_for(for_s: u64) -> Result<()> {
    if for_s <= FOR_S_MAX {
        return Ok(());
    }
    Err(Error::new(code::INVALID_TIME, format!("points cannot be kept for {}", format_span(for_s)))
        .hint("give 100 years, 36525d, at most"))
}
