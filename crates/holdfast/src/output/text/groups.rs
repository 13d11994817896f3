//! Groups, points and restores for people.

use api::format_time;
use api::types::{
    Group, GroupChange, GroupSpec, Membership, Outlook, Point, PointSummary, Protection, ProtectionState,
    ProtectionTotals, RestoredVm, RestoredVms, Rules, Schedule,
};

use super::table;

/// A span in the two largest units that it has.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(units.len() - 1);
    let (mut rest, mut text) = (seconds, String::new());
    for (name, unit) in units.iter().skip(first).take(2) {
        let count = rest / unit;
        rest %= unit;
        if count > 0 || text.is_empty() {
            text += &format!("{count}{name}");
        }
    }
    text
}

fn time(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), format_time)
}

/// The first line of `status`.
pub(super) fn totals(totals: &ProtectionTotals) -> String {
    let ProtectionTotals { protected, of, excluded, worst, worst_age_ms, worst_state } = totals;
    let mut text = format!("{protected} of {of} VMs within their target");
    if let (Some(worst), Some(state)) = (worst, worst_state) {
        let age = worst_age_ms.map_or_else(|| "no point yet".to_owned(), |age| format!("{} old", span(age)));
        text += &format!("; oldest: {worst}, {age}, {}", state.word());
    }
    if *excluded > 0 {
        text += &format!("; {excluded} excluded");
    }
    text
}

/// How well a VM is protected, in a cell.
pub(super) fn protection_cell(protection: Option<&Protection>) -> String {
    let Some(protection) = protection else { return "-".to_owned() };
    match (protection.state, protection.age_ms) {
        (ProtectionState::Excluded | ProtectionState::Never, _) | (_, None) => {
            protection.state.word().to_owned()
        }
        (state, Some(age_ms)) => format!("{} ({} old)", state.word(), span(age_ms)),
    }
}

/// How well a VM is protected, in lines.
pub(super) fn protection_lines(protection: Option<&Protection>) -> String {
    let Some(protection) = protection else { return String::new() };
    let target = protection.target_ms.map_or_else(String::new, |target| format!(", target {}", span(target)));
    let group = protection.group.as_deref().unwrap_or("none");
    format!("protection: {}{target}\ngroup: {group}: {}\n", protection_cell(Some(protection)), protection.why)
}

pub(in crate::output) fn groups(groups: &[Group]) -> String {
    let row = |group: &Group| {
        let points: u64 = group.schedules.iter().map(|schedule| schedule.points).sum();
        let last = group.schedules.iter().filter_map(|schedule| schedule.last_ms).max();
        let next = group.schedules.iter().filter_map(|schedule| schedule.next_ms).min();
        let state = if group.spec.paused {
            "paused"
        } else if group.schedules.iter().any(|schedule| schedule.trouble.is_some()) {
            "failing"
        } else if group.schedules.is_empty() {
            "no schedule"
        } else {
            "ok"
        };
        vec![
            group.spec.name.clone(),
            state.to_owned(),
            group.members.to_string(),
            (points + group.points_without_schedule).to_string(),
            time(last),
            time(next),
        ]
    };
    table(&["NAME", "STATE", "VMS", "POINTS", "NEWEST", "NEXT"], groups.iter().map(row).collect())
}

fn rules(what: &str, rules: &Rules) -> Vec<String> {
    let kinds = [
        ("VM", &rules.vms),
        ("tag", &rules.tags),
        ("folder", &rules.folders),
        ("name like", &rules.match_names),
        ("name matches", &rules.regexes),
    ];
    let said = kinds.into_iter().filter(|(_, rules)| !rules.is_empty());
    said.map(|(kind, rules)| format!("{what} {kind}: {}", rules.join(", "))).collect()
}

fn when(schedule: &Schedule) -> String {
    match (&schedule.every, &schedule.cron) {
        (Some(every), _) => format!("every {every}"),
        (None, Some(cron)) => {
            let zone = schedule.zone.as_deref().map_or_else(String::new, |zone| format!(" {zone}"));
            format!("at '{cron}'{zone}")
        }
        (None, None) => "-".to_owned(),
    }
}

fn keep(schedule: &Schedule) -> String {
    let keep = &schedule.keep;
    let counts = [
        ("last", keep.last),
        ("hourly", keep.hourly),
        ("daily", keep.daily),
        ("weekly", keep.weekly),
        ("monthly", keep.monthly),
        ("yearly", keep.yearly),
    ];
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let mut parts: Vec<String> = counts.map(|(word, count)| format!("{word}={count}")).collect();
    parts.extend(keep.young.iter().map(|young| format!("for {young}")));
    parts.join(",")
}

fn said(spec: &GroupSpec) -> Vec<String> {
    let mut lines = rules("takes", &spec.include);
    lines.extend(rules("leaves out", &spec.exclude));
    lines.push(format!("time zone: {}", spec.zone));
    if spec.priority != 0 {
        lines.push(format!("priority: {}", spec.priority));
    }
    lines
}

pub(in crate::output) fn group(group: &Group) -> String {
    let paused = if group.spec.paused { ", paused" } else { "" };
    let mut lines = vec![format!("{}{paused}: {} VMs", group.spec.name, group.members)];
    lines.extend(said(&group.spec));
    lines.extend(group.notices.iter().map(|notice| format!("note: {notice}")));
    if group.points_without_schedule > 0 {
        let count = group.points_without_schedule;
        lines.push(format!("note: {count} points are of schedules that are gone; they stay until deleted"));
    }
    let row = |schedule: &Schedule| {
        let state = group.schedules.iter().find(|state| state.name == schedule.name);
        let trouble = state.and_then(|state| state.trouble.clone());
        let told = if schedule.paused { "paused".to_owned() } else { trouble.unwrap_or_default() };
        vec![
            schedule.name.clone(),
            when(schedule),
            keep(schedule),
            schedule.lock.clone().unwrap_or_else(|| "-".to_owned()),
            state.map_or(0, |state| state.points).to_string(),
            time(state.and_then(|state| state.last_ms)),
            time(state.and_then(|state| state.next_ms)),
            state.map_or(0, |state| state.missed).to_string(),
            told,
        ]
    };
    let heads = ["SCHEDULE", "WHEN", "KEEPS", "LOCK", "POINTS", "NEWEST", "NEXT", "MISSED", ""];
    let schedules = table(&heads, group.spec.schedules.iter().map(row).collect());
    format!("{}\n{schedules}", lines.join("\n"))
}

pub(in crate::output) fn members(members: &[Membership]) -> String {
    let row = |member: &Membership| vec![member.vm.clone(), member.why.clone()];
    table(&["VM", "WHY"], members.iter().map(row).collect())
}

pub(in crate::output) fn outlook(lines: &[Outlook]) -> String {
    let row = |line: &Outlook| {
        let reasons: Vec<String> =
            line.reasons.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        vec![
            line.schedule.clone(),
            line.made.to_string(),
            line.now.to_string(),
            line.most.to_string(),
            line.at_end.to_string(),
            time(line.oldest_ms),
            reasons.join(", "),
        ]
    };
    let heads = ["SCHEDULE", "MADE", "NOW", "MOST", "AT END", "OLDEST", "KEPT AS"];
    table(&heads, lines.iter().map(row).collect())
}

pub(in crate::output) fn group_changes(changes: &[GroupChange]) -> String {
    let mut lines = Vec::new();
    for change in changes {
        let would = if change.dry_run { "would be changed" } else { "changed" };
        let name = &change.group.spec.name;
        if change.differences.is_empty() {
            lines.push(format!("{name}: nothing differs"));
            continue;
        }
        lines.push(format!("{name}: {would}"));
        lines.extend(change.differences.iter().map(|line| format!("  {line}")));
        if change.points_to_go > 0 {
            lines.push(format!("  {} points go by its retention", change.points_to_go));
        }
    }
    lines.join("\n") + "\n"
}

fn lock(until_ms: u64) -> String {
    if until_ms == 0 { "-".to_owned() } else { format_time(until_ms) }
}

pub(in crate::output) fn points(points: &[PointSummary]) -> String {
    let row = |point: &PointSummary| {
        let group = if point.group.is_empty() { "(deleted)" } else { &point.group };
        vec![
            point.id.to_string(),
            point.name.clone(),
            group.to_owned(),
            point.schedule.clone(),
            format_time(point.at_ms),
            point.members.to_string(),
            if point.is_good { "whole" } else { "partial" }.to_owned(),
            lock(point.locked_until_ms),
        ]
    };
    let heads = ["POINT", "NAME", "GROUP", "SCHEDULE", "TIME", "VMS", "STATE", "LOCKED UNTIL"];
    table(&heads, points.iter().map(row).collect())
}

pub(in crate::output) fn point(point: &Point) -> String {
    let mut lines = vec![
        format!("point {}: {}", point.id, point.name),
        format!("time: {}", format_time(point.at_ms)),
        format!("group: {}, schedule: {}", point.group, point.schedule),
        format!("state: {}", if point.is_good { "whole" } else { "partial" }),
    ];
    if let Some(due_ms) = point.due_ms {
        lines.push(format!("due: {}", format_time(due_ms)));
    }
    if point.locked_until_ms > 0 {
        lines.push(format!("locked until: {}", format_time(point.locked_until_ms)));
    }
    let left = point.left_out.iter().map(|left| format!("left out: {}: {}", left.vm, left.why));
    lines.extend(left);
    let row = |member: &api::types::PointMember| {
        let snapshot = member.snapshot.clone().unwrap_or_else(|| "(VM is gone)".to_owned());
        vec![member.vm.clone(), snapshot, member.note.clone().unwrap_or_default()]
    };
    let members = table(&["VM", "SNAPSHOT", ""], point.members.iter().map(row).collect());
    format!("{}\n{members}", lines.join("\n"))
}

pub(in crate::output) fn restored(done: &RestoredVms) -> String {
    let from = &done.from;
    let row = |vm: &RestoredVm| {
        let kept = vm.kept_as.as_ref().map_or_else(String::new, |kept| format!("what it was is {kept}"));
        let told = vm.failed.clone().map_or(kept, |failed| format!("FAILED: {failed}"));
        vec![vm.vm.clone(), vm.restored_as.clone().unwrap_or_else(|| "-".to_owned()), told]
    };
    let vms = table(&["VM", "RESTORED AS", ""], done.vms.iter().map(row).collect());
    format!("from point {} of {}, in {} ms\n{vms}", from.id, format_time(from.at_ms), done.took_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        for (ms, text) in [
            (0, "0s"),
            (999, "0s"),
            (5_000, "5s"),
            (60_000, "1m"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(span(ms), text, "{ms}");
        }
    }
}
