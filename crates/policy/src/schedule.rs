//! A schedule as it is stored: when, how long, what kind of points.

use std::fmt;

use api::{Error, Result, VmName, code};
use serde::{Deserialize, Serialize};

use crate::group::Group;
use crate::limits::{EVERY_S_MAX, EVERY_S_MIN, LOCK_S_MAX};
use crate::retention::Retention;
use crate::span::{format_span, parse_span, shown};
use crate::timer::Timer;
use crate::zone::Zone;

/// When a schedule has its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum When {
    /// Every so many seconds.
    Every {
        /// The interval.
        every_s: u64,
    },
    /// At the local times that a cron expression names.
    Cron {
        /// Minute, hour, day, month, weekday.
        cron: String,
        /// The time zone; that of the group when none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zone: Option<String>,
    },
}

impl When {
    /// Reads an interval, such as `15s`, `5m`, `1h`, `1d`.
    ///
    /// # Errors
    /// `invalid_time` when it is none, or is not between a second and 366 days.
    pub fn every(text: &str) -> Result<Self> {
        let when = Self::Every { every_s: parse_span(text)? };
        when.check()?;
        Ok(when)
    }

    /// Reads a cron expression of a zone; of the group's where none is named.
    ///
    /// # Errors
    /// `invalid_time` when the expression is none, names a day that never comes, or there is no such zone.
    pub fn cron(text: &str, zone: Option<&str>) -> Result<Self> {
        let when = Self::Cron { cron: text.trim().to_owned(), zone: zone.map(str::to_owned) };
        when.check()?;
        Ok(when)
    }

    fn check(&self) -> Result<()> {
        self.timer(&Zone::utc()).map(|_| ())
    }

    /// Its slots; `zone` is the group's.
    ///
    /// # Errors
    /// `invalid_time` when the schedule is not sound.
    pub fn timer(&self, zone: &Zone) -> Result<Timer> {
        match self {
            Self::Every { every_s } => {
                if (EVERY_S_MIN..=EVERY_S_MAX).contains(every_s) {
                    return Ok(Timer::every(*every_s));
                }
                let (least, most) = (format_span(EVERY_S_MIN), format_span(EVERY_S_MAX));
                let reason = format!("a schedule cannot run every {}", format_span(*every_s));
                Err(Error::new(code::INVALID_TIME, reason)
                    .hint(format!("give {least} to {most}, such as 15m")))
            }
            Self::Cron { cron, zone: own } => {
                let own = own.as_deref().map(Zone::parse).transpose()?;
                Timer::cron(cron, own.unwrap_or_else(|| zone.clone()))
            }
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every { every_s } => write!(f, "every {}", format_span(*every_s)),
            Self::Cron { cron, zone: None } => write!(f, "at '{cron}'"),
            Self::Cron { cron, zone: Some(zone) } => write!(f, "at '{cron}' {zone}"),
        }
    }
}

/// What a point is like to the programs of its guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// As after a power cut: one instant of all disks.
    #[default]
    Crash,
    /// The guest's file systems, and what has a hook, were brought to rest before.
    Application,
}

impl Consistency {
    /// Reads `crash` or `application`.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "crash" => Ok(Self::Crash),
            "application" => Ok(Self::Application),
            _ => Err(Error::new(code::INVALID_REQUEST, format!("{} is no kind of consistency", shown(text)))
                .hint("give crash or application")),
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crash",
            Self::Application => "application",
        })
    }
}

/// A schedule of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// What it is called within its group.
    pub name: String,
    /// When it runs.
    pub when: When,
    /// Which of its points stay.
    pub keep: Retention,
    /// What its points are like.
    #[serde(default)]
    pub consistency: Consistency,
    /// For how long nobody can delete a point, seconds; 0 for not at all.
    #[serde(default)]
    pub lock_s: u64,
    /// Whether it makes no points; those there are stay under its retention.
    #[serde(default)]
    pub paused: bool,
}

impl Schedule {
    /// A crash-consistent schedule whose points are not locked.
    pub fn new(name: &str, when: When, keep: Retention) -> Self {
        let consistency = Consistency::Crash;
        Self { name: name.to_owned(), when, keep, consistency, lock_s: 0, paused: false }
    }

    /// Reads for how long points are locked, in seconds: `14d`, or `0`.
    ///
    /// # Errors
    /// `invalid_time` when it is no span, or is longer than 100 years.
    pub fn parse_lock(text: &str) -> Result<u64> {
        let lock_s = if text == "0" { 0 } else { parse_span(text)? };
        check_lock(lock_s)?;
        Ok(lock_s)
    }

    /// Its slots.
    ///
    /// # Errors
    /// `invalid_time` when schedule or zone are not sound.
    pub fn timer(&self, group: &Group) -> Result<Timer> {
        self.when.timer(&group.zone()?)
    }

    /// # Errors
    /// What is wrong with it, which its reason names.
    pub(crate) fn check(&self, group: &Group) -> Result<()> {
        VmName::parse_for("a schedule", &self.name)?;
        let sound = self
            .timer(group)
            .map(|_| ())
            .and_then(|()| self.keep.check())
            .and_then(|()| check_lock(self.lock_s));
        sound.map_err(|mut error| {
            error.reason = format!("schedule {} of group {}: {}", self.name, group.name, error.reason);
            error
        })
    }
}

fn check_lock(lock_s: u64) -> Result<()> {
    if lock_s <= LOCK_S_MAX {
        return Ok(());
    }
    let reason = format!("points cannot be locked for {}", format_span(lock_s));
    Err(Error::new(code::INVALID_TIME, reason).hint("give 100 years, 36525d, at most"))
}
