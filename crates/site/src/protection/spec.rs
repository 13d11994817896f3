//! Groups as the interface says them, and as they are stored.

use api::types::{self, GroupSpec};
use api::{Error, Result, code};
use policy::{Group, Retention, Rules, Schedule, When, format_span};

/// What is stored of a group that was said so.
pub(super) fn group_of(spec: &GroupSpec) -> Result<Group> {
    let group = Group {
        priority: spec.priority,
        zone: spec.zone.clone(),
        paused: spec.paused,
        include: rules_of(&spec.include),
        exclude: rules_of(&spec.exclude),
        schedules: spec.schedules.iter().map(schedule_of).collect::<Result<_>>()?,
        ..Group::new(&spec.name)
    };
    group.check()?;
    Ok(group)
}

/// How a stored group is said.
pub(super) fn spec_of(group: &Group) -> GroupSpec {
    GroupSpec {
        name: group.name.clone(),
        priority: group.priority,
        zone: group.zone.clone(),
        paused: group.paused,
        include: rules_said(&group.include),
        exclude: rules_said(&group.exclude),
        schedules: group.schedules.iter().map(schedule_said).collect(),
    }
}

fn rules_of(rules: &types::Rules) -> Rules {
    let types::Rules { vms, tags, folders, match_names, regexes } = rules.clone();
    Rules { vms, tags, folders, patterns: match_names, regexes }
}

fn rules_said(rules: &Rules) -> types::Rules {
    let Rules { vms, tags, folders, patterns, regexes } = rules.clone();
    types::Rules { vms, tags, folders, match_names: patterns, regexes }
}

fn schedule_of(said: &types::Schedule) -> Result<Schedule> {
    let wrong = |what: &str| {
        Error::new(code::INVALID_REQUEST, format!("schedule {} {what}", said.name))
            .hint("give it `every`, such as 15m, or `cron`, such as '0 2 * * *', with `zone` where it is not the group's")
    };
    let when = match (&said.every, &said.cron, &said.zone) {
        (Some(every), None, None) => When::every(every)?,
        (None, Some(cron), zone) => When::cron(cron, zone.as_deref())?,
        (Some(_), None, Some(_)) => return Err(wrong("runs every so often, in all time zones alike")),
        (Some(_), Some(_), _) => return Err(wrong("cannot have `every` and `cron`")),
        (None, None, _) => return Err(wrong("has neither `every` nor `cron`")),
    };
    let types::Keep { last, hourly, daily, weekly, monthly, yearly, young } = &said.keep;
    let mut keep = Retention {
        last: *last,
        hourly: *hourly,
        daily: *daily,
        weekly: *weekly,
        monthly: *monthly,
        yearly: *yearly,
        for_s: 0,
    };
    if let Some(young) = young {
        keep.set_for(young)?;
    }
    let lock_s = said.lock.as_deref().map_or(Ok(0), Schedule::parse_lock)?;
    Ok(Schedule { lock_s, paused: said.paused, ..Schedule::new(&said.name, when, keep) })
}

fn schedule_said(schedule: &Schedule) -> types::Schedule {
    let (every, cron, zone) = match &schedule.when {
        When::Every { every_s } => (Some(format_span(*every_s)), None, None),
        When::Cron { cron, zone } => (None, Some(cron.clone()), zone.clone()),
    };
    let Retention { last, hourly, daily, weekly, monthly, yearly, for_s } = schedule.keep;
    let young = (for_s > 0).then(|| format_span(for_s));
    types::Schedule {
        name: schedule.name.clone(),
        every,
        cron,
        zone,
        keep: types::Keep { last, hourly, daily, weekly, monthly, yearly, young },
        lock: (schedule.lock_s > 0).then(|| format_span(schedule.lock_s)),
        paused: schedule.paused,
    }
}

/// What differs between two groups, one line each.
pub(super) fn differences(old: &GroupSpec, new: &GroupSpec) -> Vec<String> {
    let lines = |spec: &GroupSpec| -> Vec<String> {
        let mut lines = vec![
            format!("name: {}", spec.name),
            format!("priority: {}", spec.priority),
            format!("zone: {}", spec.zone),
            format!("paused: {}", spec.paused),
        ];
        for (what, rules) in [("include", &spec.include), ("exclude", &spec.exclude)] {
            for (kind, rules) in [
                ("VM", &rules.vms),
                ("tag", &rules.tags),
                ("folder", &rules.folders),
                ("match", &rules.match_names),
                ("regex", &rules.regexes),
            ] {
                lines.extend(rules.iter().map(|rule| format!("{what} {kind} {rule}")));
            }
        }
        lines.extend(spec.schedules.iter().map(schedule_line));
        lines
    };
    let (old, new) = (lines(old), lines(new));
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

/// A schedule in a line.
fn schedule_line(schedule: &types::Schedule) -> String {
    let Ok(known) = schedule_of(schedule) else { return format!("schedule {}", schedule.name) };
    let lock =
        if known.lock_s > 0 { format!(" --lock {}", format_span(known.lock_s)) } else { String::new() };
    let paused = if known.paused { " (paused)" } else { "" };
    format!("schedule {} {} {}{lock}{paused}", known.name, known.when, known.keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_said_as_it_was() {
        let spec = GroupSpec {
            name: "web".to_owned(),
            priority: 3,
            zone: "Europe/Berlin".to_owned(),
            include: types::Rules { match_names: vec!["web*".to_owned()], ..types::Rules::default() },
            schedules: vec![
                types::Schedule {
                    name: "often".to_owned(),
                    every: Some("15s".to_owned()),
                    keep: types::Keep { last: 10, young: Some("2h".to_owned()), ..types::Keep::default() },
                    ..types::Schedule::default()
                },
                types::Schedule {
                    name: "nightly".to_owned(),
                    cron: Some("0 2 * * *".to_owned()),
                    zone: Some("UTC".to_owned()),
                    keep: types::Keep { daily: 7, ..types::Keep::default() },
                    lock: Some("14d".to_owned()),
                    ..types::Schedule::default()
                },
            ],
            ..GroupSpec::default()
        };
        let group = group_of(&spec).unwrap();
        assert_eq!(group.schedules[0].keep.for_s, 7200);
        assert_eq!(spec_of(&group), spec);
        assert!(differences(&spec, &spec).is_empty());
        let mut other = spec.clone();
        other.schedules[0].keep.last = 5;
        other.include.tags.push("prod".to_owned());
        assert_eq!(
            differences(&spec, &other),
            [
                "- schedule often every 15s --keep-last 10 --for 2h",
                "+ include tag prod",
                "+ schedule often every 15s --keep-last 5 --for 2h",
            ]
        );
        for (wrong, code) in [
            (
                GroupSpec { schedules: vec![types::Schedule::default()], ..spec.clone() },
                code::INVALID_REQUEST,
            ),
            (GroupSpec { zone: "Mars/Olympus".to_owned(), ..spec.clone() }, code::INVALID_TIME),
        ] {
            assert_eq!(group_of(&wrong).unwrap_err().code, code, "{wrong:?}");
        }
    }
}
