//! Commands about groups.

use std::collections::BTreeMap;

use api::types::{Group, GroupChange, GroupSpec, HowToSet, Membership, Outlook, Point, ScheduleState};
use api::{Error, Result, code, fold};
use catalog::{StoredGroup, VmFacts};

use super::spec::{differences, group_of, spec_of};
use super::{Known, State};
use crate::running::{Shared, Site};

pub(super) fn not_found(name: &str) -> Error {
    Error::new(code::GROUP_NOT_FOUND, format!("there is no group {name}"))
        .hint("`group list` shows those there are")
}

/// Refuses a change of what the built-in group is.
fn check_built_in(read: &policy::Group, new: Option<&policy::Group>) -> Result<()> {
    let built_in = |what: &str| {
        let reason = format!("the built-in group {} {what}", read.name);
        Err(Error::new(code::GROUP_BUILT_IN, reason)
            .hint("pause it, take its schedules away, or have it exclude VMs"))
    };
    match new {
        None if read.is_built_in() => built_in("is not deleted"),
        Some(new) if read.is_built_in() && !new.is_built_in() => built_in("keeps its name"),
        _ => Ok(()),
    }
}

impl Site {
    /// All groups, by name.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn groups(&self) -> Result<Vec<Group>> {
        let shared = &self.shared;
        let (known, vms) = (shared.known_groups().await?, shared.catalog.facts().await?);
        Ok(known.stored.values().map(|stored| shared.show_group(&known, stored, &vms)).collect())
    }

    /// A group by name.
    ///
    /// # Errors
    /// `group_not_found`.
    pub async fn group(&self, name: &str) -> Result<Group> {
        let shared = &self.shared;
        let known = shared.known_groups().await?;
        let stored = known.get(name).ok_or_else(|| not_found(name))?;
        Ok(shared.show_group(&known, stored, &shared.catalog.facts().await?))
    }

    /// Makes a group.
    ///
    /// # Errors
    /// `group_exists`; what is wrong with it.
    pub async fn create_group(&self, spec: &GroupSpec) -> Result<Group> {
        let group = group_of(spec)?;
        let shared = &self.shared;
        {
            let _turn = shared.protection.turn.lock().await;
            let known = shared.read_groups().await?;
            if let Some(taken) = known.get(&group.name) {
                let reason = format!("there is a group {} already", taken.group.name);
                return Err(Error::new(code::GROUP_EXISTS, reason).hint("choose another name"));
            }
            let mut all: Vec<policy::Group> = known.groups.all().to_vec();
            all.push(group.clone());
            policy::Groups::new(all)?;
            let done = shared.catalog.add_group(&group).await;
            shared.forget_groups();
            done?;
        }
        self.group(&group.name).await
    }

    /// Puts what a group says in the place of what it said; gives what differs.
    ///
    /// # Errors
    /// `group_not_found`, `group_exists`, `group_built_in`; `group_changed` when it is not at the revision that was
    /// named; what is wrong with it.
    pub async fn set_group(&self, name: &str, spec: &GroupSpec, how: HowToSet) -> Result<GroupChange> {
        let group = group_of(spec)?;
        let shared = &self.shared;
        shared.load_points().await?;
        let turn = shared.protection.turn.lock().await;
        let known = shared.read_groups().await?;
        let stored = known.get(name).ok_or_else(|| not_found(name))?;
        check_built_in(&stored.group, Some(&group))?;
        if how.revision.is_some_and(|revision| revision != stored.revision.0) {
            let reason = format!("group {name} was changed meanwhile");
            return Err(Error::new(code::GROUP_CHANGED, reason).hint("look at it and try again"));
        }
        let others = known.groups.all().iter().filter(|other| fold(&other.name) != fold(name));
        policy::Groups::new(others.cloned().chain([group.clone()]).collect())?;
        let now_ms = shared.parts.engine.site_time_ms();
        let differences = differences(&spec_of(&stored.group), &spec_of(&group));
        let gone_before = shared.to_go(stored.number, &stored.group, now_ms)?.len();
        let gone_then = shared.to_go(stored.number, &group, now_ms)?.len();
        let points_to_go = gone_then.saturating_sub(gone_before) as u64;
        if !how.dry_run && !differences.is_empty() {
            let done = shared.catalog.set_group(stored, &group).await;
            let done = match done {
                Ok(_) => shared.restart_runs(stored, &group, now_ms).await,
                Err(error) => Err(error),
            };
            shared.forget_groups();
            done?;
        }
        drop(turn);
        let shown = if how.dry_run { stored.group.name.clone() } else { group.name.clone() };
        let mut group = self.group(&shown).await?;
        if how.dry_run {
            group.spec = spec.clone();
        }
        Ok(GroupChange { group, differences, points_to_go, dry_run: how.dry_run })
    }

    /// Deletes a group. Its points stay until somebody deletes them.
    ///
    /// # Errors
    /// `group_not_found`, `group_built_in`.
    pub async fn delete_group(&self, name: &str) -> Result<String> {
        let shared = &self.shared;
        let _turn = shared.protection.turn.lock().await;
        let known = shared.read_groups().await?;
        let stored = known.get(name).ok_or_else(|| not_found(name))?;
        check_built_in(&stored.group, None)?;
        let done = shared.catalog.remove_group(stored).await;
        shared.forget_groups();
        done?;
        Ok(stored.group.name.clone())
    }

    /// Which VMs are in a group now, or would be if it said this, and why.
    ///
    /// # Errors
    /// `group_not_found`; what is wrong with it.
    pub async fn preview_group(&self, name: &str, spec: Option<&GroupSpec>) -> Result<Vec<Membership>> {
        let shared = &self.shared;
        let known = shared.known_groups().await?;
        let vms = shared.catalog.facts().await?;
        let would_be;
        let (groups, name) = match spec {
            Some(spec) => {
                let others = known.groups.all().iter().filter(|other| fold(&other.name) != fold(&spec.name));
                would_be = policy::Groups::new(others.cloned().chain([group_of(spec)?]).collect())?;
                (&would_be, spec.name.as_str())
            }
            None => (&known.groups, known.get(name).ok_or_else(|| not_found(name))?.group.name.as_str()),
        };
        let mut members = Vec::new();
        for vm in &vms {
            let member = groups.of(&policy::Vm { name: &vm.name, attributes: &vm.attributes, group: None });
            let is_in = member.group().is_some_and(|group| group.name.eq_ignore_ascii_case(name));
            let is_out = member.excluded.is_some_and(|(group, _)| group.name.eq_ignore_ascii_case(name));
            if is_in || is_out {
                members.push(Membership { vm: vm.name.clone(), why: member.to_string() });
            }
        }
        Ok(members)
    }

    /// Makes a point of a group now, as one of its schedules would, the first when none is said.
    ///
    /// # Errors
    /// `group_not_found`, `schedule_not_found`; `invalid_request` when no VM is in it; `no_space`; what the engine says.
    pub async fn run_group(&self, name: &str, schedule: Option<&str>) -> Result<Point> {
        let made = self.shared.run_now(name, schedule).await?;
        self.point(made.id).await
    }

    /// What retention will keep of the points that a group is to make, `days` days ahead.
    ///
    /// # Errors
    /// `group_not_found`.
    pub async fn simulate_group(&self, name: &str, days: u32) -> Result<Vec<Outlook>> {
        let shared = &self.shared;
        shared.load_points().await?;
        let known = shared.known_groups().await?;
        let stored = known.get(name).ok_or_else(|| not_found(name))?;
        let facts: Vec<_> = {
            let state = shared.protection.lock();
            let index = state.index.as_ref();
            let points = index.into_iter().flat_map(|index| index.of(stored.number));
            points.map(|(place, facts)| (*place, facts.clone())).collect()
        };
        let points: Vec<policy::Point<'_>> = facts
            .iter()
            .map(|((at_ms, id), facts)| policy::Point {
                id: *id,
                at_ms: *at_ms,
                schedule: &facts.schedule,
                locked_until_ms: facts.locked_until_ms,
                is_held: false,
                is_good: facts.is_good,
            })
            .collect();
        let now_ms = shared.parts.engine.site_time_ms();
        let lines = policy::simulate(&stored.group, &points, now_ms, days)?;
        Ok(lines.iter().map(outlook).collect())
    }
}

fn outlook(line: &policy::Timeline) -> Outlook {
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for kept in &line.kept {
        for word in kept.reasons.words() {
            *reasons.entry(word.to_owned()).or_default() += 1;
        }
    }
    if line.all > 0 {
        *reasons.entry("last, young or locked".to_owned()).or_default() += line.all;
    }
    let last = line.days.last();
    Outlook {
        schedule: line.schedule.clone(),
        made: line.made,
        now: line.days.first().map_or(0, |day| day.points),
        most: line.days.iter().map(|day| day.points).max().unwrap_or(0),
        at_end: last.map_or(0, |day| day.points),
        oldest_ms: last.and_then(|day| day.oldest_ms),
        reasons,
    }
}

impl Shared {
    fn forget_groups(&self) {
        self.protection.lock().groups = None;
        self.protection.wake.notify_one();
    }

    /// Schedules that run again, or at other times, count from now on: what lies before is not missed.
    async fn restart_runs(&self, old: &StoredGroup, new: &policy::Group, now_ms: u64) -> Result<()> {
        for schedule in &new.schedules {
            let before = old.group.schedule(&schedule.name);
            let ran = before.is_some_and(|before| !before.paused && !old.group.paused);
            let runs = !schedule.paused && !new.paused;
            let is_same =
                before.is_some_and(|before| before.when == schedule.when) && old.group.zone == new.zone;
            if !runs || ran && is_same {
                continue;
            }
            let read = self.catalog.run_of(old.number, &schedule.name, now_ms).await?;
            let mut run = read.run.clone();
            run.since_ms = run.since_ms.max(now_ms);
            self.catalog.note_run(old.number, &schedule.name, &read, &run).await?;
        }
        let mut state = self.protection.lock();
        let State { runs, failing, swept_ms, .. } = &mut *state;
        runs.retain(|(group, _), _| *group != old.number);
        failing.retain(|(group, _), _| *group != old.number);
        swept_ms.remove(&old.number);
        Ok(())
    }

    fn show_group(&self, known: &Known, stored: &StoredGroup, vms: &[VmFacts]) -> Group {
        let members = Self::members_of(known, &stored.group, vms);
        let now_ms = self.parts.engine.site_time_ms();
        let state = self.protection.lock();
        let mut points: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((at_ms, _), facts) in state.index.iter().flat_map(|index| index.of(stored.number)) {
            let (count, newest) = points.entry(&facts.schedule).or_default();
            (*count, *newest) = (*count + 1, (*newest).max(*at_ms));
        }
        let schedule = |schedule: &policy::Schedule| {
            let name = fold(&schedule.name);
            let (count, newest) = points.get(name.as_str()).copied().unwrap_or_default();
            let run = state.runs.get(&(stored.number, name.clone())).map(|stored| stored.run.clone());
            let runs = !schedule.paused && !stored.group.paused;
            let after = run.as_ref().map_or(now_ms, catalog::Run::after_ms);
            let timer = schedule.timer(&stored.group).ok();
            let failing = state.failing.get(&(stored.number, name)).filter(|_| runs);
            ScheduleState {
                name: schedule.name.clone(),
                next_ms: timer.filter(|_| runs).and_then(|timer| timer.next_after(after)),
                last_ms: (count > 0).then_some(newest),
                points: count,
                missed: run.map_or(0, |run| run.missed),
                trouble: failing.map(|failing| failing.reason.clone()),
            }
        };
        let schedules: Vec<ScheduleState> = stored.group.schedules.iter().map(schedule).collect();
        let with: u64 = schedules.iter().map(|schedule| schedule.points).sum();
        let all: u64 = points.values().map(|(count, _)| count).sum();
        let mut notices = Vec::new();
        if members.is_empty() && !stored.group.is_built_in() {
            notices.push("no VM is in it: `group preview` shows which it would take".to_owned());
        }
        if stored.group.schedules.is_empty() {
            notices.push("it has no schedule, so no points are made of its VMs".to_owned());
        }
        Group {
            spec: spec_of(&stored.group),
            revision: stored.revision.0,
            members: members.len(),
            schedules,
            points_without_schedule: all - with,
            notices,
        }
    }

    /// Runs that fail, for people: group, schedule and why.
    pub(crate) fn failing_runs(&self) -> Vec<String> {
        let state = self.protection.lock();
        let Some(known) = &state.groups else { return Vec::new() };
        let told = |((number, schedule), failing): (&(u64, String), &super::Failing)| {
            let group = &known.by_number(*number)?.group;
            let lasting = failing.attempts >= 3;
            lasting.then(|| {
                format!("schedule {schedule} of group {} makes no points: {}", group.name, failing.reason)
            })
        };
        state.failing.iter().filter_map(told).collect()
    }
}
