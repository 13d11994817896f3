//! A group as it is stored: its rules, its schedules.

use std::borrow::Cow;

use api::{Error, Result, VmName, code, parse_folder};
use globset::{Glob, GlobBuilder};
use meta::Stored;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::limits::{
    PATTERN_BYTES_MAX, PRIORITY_MAX, REGEX_BYTES_MAX, REGEX_COMPILED_BYTES_MAX, REGEXES_MAX, RULES_MAX,
    SCHEDULES_MAX, VMS_NAMED_MAX,
};
use crate::retention::Retention;
use crate::schedule::{Schedule, When};
use crate::span::shown;
use crate::zone::Zone;

const VERSION: u32 = 1;

/// The name of the built-in group, which takes every VM that no other takes.
pub const DEFAULT_GROUP: &str = "default";

/// What selects VMs: each that any of these fits. Case tells no names apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// These VMs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<String>,
    /// VMs that have one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// VMs in one of these folders or below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
    /// VMs whose names are like one of these: `*` stands for any characters, `?` for one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<String>,
    /// VMs whose whole names match one of these regular expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regexes: Vec<String>,
}

impl Rules {
    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many there are, VMs that are named left out.
    fn len(&self) -> usize {
        self.tags.len() + self.folders.len() + self.patterns.len() + self.regexes.len()
    }

    /// Whether each rule can be used; `what` is said before the reason of an error.
    ///
    /// # Errors
    /// `invalid_name` or `invalid_request` for a rule that is none.
    pub fn check(&self, what: &str) -> Result<()> {
        let names = self.vms.iter().try_for_each(|vm| VmName::parse(vm).map(|_| ()));
        let tags = || self.tags.iter().try_for_each(|tag| VmName::parse_for("a tag", tag).map(|_| ()));
        let folders = || self.folders.iter().try_for_each(|folder| parse_folder(folder).map(|_| ()));
        let patterns = || self.patterns.iter().try_for_each(|text| glob(text).map(|_| ()));
        let regexes = || self.regexes.iter().try_for_each(|text| regex(text).map(|_| ()));
        let all = names.and_then(|()| tags()).and_then(|()| folders()).and_then(|()| patterns());
        all.and_then(|()| regexes()).map_err(|mut error| {
            error.reason = format!("{what}: {}", error.reason);
            error
        })
    }
}

/// A pattern for names, ready to be matched.
pub(crate) fn glob(text: &str) -> Result<Glob> {
    let wrong = || {
        Error::new(code::INVALID_REQUEST, format!("{} is no pattern for names", shown(text)))
            .hint("give it as 'web*': * for any characters, ? for one")
    };
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX || !text.bytes().all(is_fit) {
        return Err(wrong());
    }
    GlobBuilder::new(text).case_insensitive(true).build().map_err(|_| wrong())
}

/// A regular expression for whole names, which are ASCII, ready to be matched.
pub(crate) fn regex(text: &str) -> Result<Regex> {
    let wrong = |what: &str| {
        Error::new(code::INVALID_REQUEST, format!("{} {what}", shown(text)))
            .hint("give one that fits the whole name, such as 'web[0-9]+'")
    };
    if text.is_empty() || text.len() > REGEX_BYTES_MAX {
        return Err(wrong(&format!("is no regular expression of 1 to {REGEX_BYTES_MAX} characters")));
    }
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.unicode(false).case_insensitive(true).size_limit(REGEX_COMPILED_BYTES_MAX);
        builder.dfa_size_limit(REGEX_COMPILED_BYTES_MAX).nest_limit(20).build()
    };
    // By itself first: what closes a bracket that it did not open would get out of the whole name's.
    let whole = build(text).and_then(|_| build(&format!(r"\A(?:{text})\z")));
    whole.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => wrong("is too large a regular expression"),
        error => {
            let error = error.to_string();
            let cause = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            wrong(&format!("is no regular expression: {cause}"))
        }
    })
}

/// A protection group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Version of the stored form.
    pub version: u32,
    /// What it is called; names that differ in case alone are one.
    pub name: String,
    /// Of two groups whose rules are of one kind the one with the higher priority has the VM.
    #[serde(default)]
    pub priority: i32,
    /// The time zone of its buckets, and of its cron expressions that name none.
    pub zone: String,
    /// Whether it makes no points; those there are stay under their retention.
    #[serde(default)]
    pub paused: bool,
    /// Which VMs it takes. Of the built-in group none is said: it takes what is left.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub include: Rules,
    /// Which of them it does not take.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub exclude: Rules,
    /// When it makes points, and which stay.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
}

impl Stored for Group {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Group {
    /// A group without rules and schedules, in UTC.
    pub fn new(name: &str) -> Self {
        Self {
            version: VERSION,
            name: name.to_owned(),
            priority: 0,
            zone: "UTC".to_owned(),
            paused: false,
            include: Rules::default(),
            exclude: Rules::default(),
            schedules: Vec::new(),
        }
    }

    /// The built-in group as it is when nobody has changed it: a point every hour, of which 24 stay.
    pub fn built_in() -> Self {
        let keep = Retention { last: 24, ..Retention::default() };
        let schedule = Schedule::new("hourly", When::Every { every_s: 3600 }, keep);
        Self { schedules: vec![schedule], ..Self::new(DEFAULT_GROUP) }
    }

    /// Whether it is the built-in group.
    pub fn is_built_in(&self) -> bool {
        self.name.eq_ignore_ascii_case(DEFAULT_GROUP)
    }

    /// Its time zone.
    ///
    /// # Errors
    /// `invalid_time` when there is none of this name.
    pub fn zone(&self) -> Result<Zone> {
        Zone::parse(&self.zone)
    }

    /// Its schedule of a name.
    pub fn schedule(&self, name: &str) -> Option<&Schedule> {
        self.schedules.iter().find(|schedule| schedule.name.eq_ignore_ascii_case(name))
    }

    /// The schedules that make points now.
    pub fn running(&self) -> impl Iterator<Item = &Schedule> {
        self.schedules.iter().filter(|schedule| !self.paused && !schedule.paused)
    }

    /// Whether it can be used as it is.
    ///
    /// # Errors
    /// `invalid_name`, `invalid_time` or `invalid_request`, with what is wrong of what.
    pub fn check(&self) -> Result<()> {
        VmName::parse_for("a group", &self.name)?;
        let wrong = |what: Cow<'_, str>, hint: Cow<'_, str>| {
            Err(Error::new(code::INVALID_REQUEST, format!("group {} {what}", self.name)).hint(hint))
        };
        if self.is_built_in() && !self.include.is_empty() {
            return wrong(
                "takes what no other group takes".into(),
                "give it excludes only, or make a group".into(),
            );
        }
        if self.priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
            return wrong(
                format!("cannot have priority {}", self.priority).into(),
                format!("give a number from -{PRIORITY_MAX} to {PRIORITY_MAX}").into(),
            );
        }
        let both = |of: fn(&Rules) -> usize| of(&self.include) + of(&self.exclude);
        let counts = [
            (both(Rules::len), RULES_MAX, "rules", "select VMs by a tag"),
            (both(|rules| rules.regexes.len()), REGEXES_MAX, "regular expressions", "use patterns or a tag"),
            (both(|rules| rules.vms.len()), VMS_NAMED_MAX, "VMs by name", "give them a tag"),
            (self.schedules.len(), SCHEDULES_MAX, "schedules", "remove one, or make another group"),
        ];
        for (count, most, what, hint) in counts {
            if count > most {
                return wrong(format!("has {count} {what}, and {most} are the most").into(), hint.into());
            }
        }
        self.include.check(&format!("group {}", self.name))?;
        self.exclude.check(&format!("what group {} excludes", self.name))?;
        self.zone().map_err(|mut error| {
            error.reason = format!("group {}: {}", self.name, error.reason);
            error
        })?;
        for (at, schedule) in self.schedules.iter().enumerate() {
            schedule.check(self)?;
            if self.schedules[..at].iter().any(|other| other.name.eq_ignore_ascii_case(&schedule.name)) {
                let what = format!("has two schedules {}", schedule.name);
                return wrong(what.into(), "give each a name of its own".into());
            }
        }
        Ok(())
    }
}
