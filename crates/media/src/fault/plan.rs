//! What goes wrong when, and its text form.
//!
//! ```text
//! plan   = rule *( ";" rule )          empty: nothing goes wrong
//! rule   = access ":" when ":" effect [ "@" part of the medium's name ]
//! access = "read" | "write" | "sync"
//! when   = n | n "+"                   the nth, or every one from the nth on; the first is 1
//! effect = "eio" | "enospc" | "lie" | "torn=" sectors | "delay=" ms | "kill" | "kill-after" | "kill-torn=" sectors
//! ```

use std::str::FromStr;
use std::time::Duration;

use units::PAGE;

/// Bytes of a sector: what a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
/// Rules in a plan: far above what a test needs, so that a broken variable is not worked on for long.
const RULES_MAX: usize = 64;
/// Longest delay: a test that waits longer hangs.
const DELAY_MAX: Duration = Duration::from_secs(600);
/// A write is torn within this many sectors: the longest write there is.
const SECTORS_MAX: usize = (64 << 20) / SECTOR;

/// What is counted and can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// [`Medium::read`](crate::Medium::read).
    Read,
    /// [`Medium::write`](crate::Medium::write), and the write in a durable one.
    Write,
    /// [`Medium::sync`](crate::Medium::sync), and the sync in a durable write.
    Sync,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Fails with [`MediaErrorKind::Io`](crate::MediaErrorKind::Io); nothing is done.
    Eio,
    /// Fails with [`MediaErrorKind::NoSpace`](crate::MediaErrorKind::NoSpace), a sync as every failed one with
    /// [`MediaErrorKind::Io`](crate::MediaErrorKind::Io); nothing is done.
    Enospc,
    /// Succeeds, but nothing is done. Not for reads.
    Lie,
    /// So many sectors of 512 bytes reach the medium, then the write fails. Only for writes.
    Torn {
        /// Sectors written.
        sectors: usize,
    },
    /// Is done after a delay. Goes with another effect on the same access.
    Delay(Duration),
    /// The process kills itself (SIGKILL) instead.
    Kill,
    /// Is done, then the process kills itself; nobody hears of the success.
    KillAfter,
    /// So many sectors reach the medium, then the process kills itself. Only for writes.
    KillTorn {
        /// Sectors written.
        sectors: usize,
    },
}

/// One thing that goes wrong on one medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it concerns.
    pub access: Access,
    /// Which one, counted over the medium from 1.
    pub nth: u64,
    /// Whether all later ones go wrong too.
    pub from_then_on: bool,
    /// What goes wrong.
    pub effect: Effect,
    /// Only media whose name contains this.
    pub medium: Option<String>,
}

/// What goes wrong, on any number of media; each counts for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// In the order of the text.
    pub rules: Vec<Rule>,
}

/// A plan's text is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault plan, rule {rule:?}: {reason}")]
pub struct PlanError {
    /// The rule.
    pub rule: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FaultPlan {
    /// The plan in the environment variable `name` (`HOLDFAST_FAULT` in the binary); an empty one when it is not
    /// set.
    ///
    /// # Errors
    /// The text is wrong.
    pub fn from_env(name: &str) -> Result<Self, PlanError> {
        match std::env::var_os(name) {
            None => Ok(Self::default()),
            Some(text) => text.to_string_lossy().parse(),
        }
    }

    /// The part of the plan that concerns this medium.
    #[must_use]
    pub fn of_medium(mut self, name: &str) -> Self {
        self.rules.retain(|rule| rule.medium.as_ref().is_none_or(|part| name.contains(part)));
        self
    }
}

impl Rule {
    /// Whether it concerns the `count`th `access`.
    pub(super) fn hits(&self, access: Access, count: u64) -> bool {
        self.access == access && (count == self.nth || self.from_then_on && count > self.nth)
    }
}

impl FromStr for FaultPlan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty());
        let parse = |(index, rule): (usize, &str)| {
            let refuse = |reason| PlanError { rule: rule.to_owned(), reason };
            if index >= RULES_MAX {
                return Err(refuse("too many rules"));
            }
            parse_rule(rule).map_err(refuse)
        };
        Ok(Self { rules: rules.enumerate().map(parse).collect::<Result<_, _>>()? })
    }
}

fn parse_rule(text: &str) -> Result<Rule, &'static str> {
    let (text, medium) = match text.split_once('@') {
        Some((text, medium)) => (text, Some(medium.to_owned())),
        None => (text, None),
    };
    let mut fields = text.split(':');
    let (Some(access), Some(when), Some(effect), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("not of the form access:n:effect");
    };
    let access = match access {
        "read" => Access::Read,
        "write" => Access::Write,
        "sync" => Access::Sync,
        _ => return Err("the access is none of read, write, sync"),
    };
    let nth: u64 = when.strip_suffix('+').unwrap_or(when).parse().map_err(|_| "which one is no number")?;
    if nth == 0 {
        return Err("the first one is 1");
    }
    let effect = parse_effect(effect)?;
    let fits = match effect {
        Effect::Torn { .. } | Effect::KillTorn { .. } => access == Access::Write,
        Effect::Lie => access != Access::Read,
        _ => true,
    };
    if !fits {
        return Err("this effect does not go with this access");
    }
    Ok(Rule { access, nth, from_then_on: when.ends_with('+'), effect, medium })
}

fn parse_effect(text: &str) -> Result<Effect, &'static str> {
    let (word, number) = match text.split_once('=') {
        Some((word, number)) => (word, Some(number.parse::<usize>().map_err(|_| "not a number after =")?)),
        None => (text, None),
    };
    let in_bounds = |sectors| if sectors <= SECTORS_MAX { Ok(sectors) } else { Err("too many sectors") };
    Ok(match (word, number) {
        ("eio", None) => Effect::Eio,
        ("enospc", None) => Effect::Enospc,
        ("lie", None) => Effect::Lie,
        ("kill", None) => Effect::Kill,
        ("kill-after", None) => Effect::KillAfter,
        ("torn", Some(sectors)) => Effect::Torn { sectors: in_bounds(sectors)? },
        ("kill-torn", Some(sectors)) => Effect::KillTorn { sectors: in_bounds(sectors)? },
        ("delay", Some(ms)) => {
            let delay = Duration::from_millis(ms as u64);
            if delay > DELAY_MAX {
                return Err("the delay is too long");
            }
            Effect::Delay(delay)
        }
        _ => return Err("no such effect, or its number is missing or too many"),
    })
}

const _: () = assert!(PAGE.is_multiple_of(SECTOR));
