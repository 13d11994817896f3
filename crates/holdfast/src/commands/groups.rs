//! Commands about protection groups, points and restores.

use std::path::Path;

use api::types::{
    Deleted, GroupChange, GroupSpec, GroupsFile, HowToSet, Keep, List, ListPoints, NewRestore, NewRun,
    Points, Rules, Schedule,
};
use api::{Error, POINTS_AT_ONCE, code};

use super::{Asking, read_text, really};
use crate::arguments::{
    GroupCommand, PointCommand, RestoreArguments, RuleArguments, ScheduleArguments, ScheduleCommand,
};
use crate::failure::Failure;

/// What is said of a schedule on a command line.
fn schedule_of(name: &str, said: ScheduleArguments) -> Result<Schedule, Failure> {
    let mut keep = policy::Retention::default();
    if let Some(last) = &said.keep_last {
        keep.set_last(last)?;
    }
    if let Some(buckets) = &said.keep {
        keep.set_buckets(buckets)?;
    }
    let policy::Retention { last, hourly, daily, weekly, monthly, yearly, .. } = keep;
    Ok(Schedule {
        name: name.to_owned(),
        every: said.every,
        cron: said.cron,
        zone: None,
        keep: Keep { last, hourly, daily, weekly, monthly, yearly, young: said.young },
        lock: said.lock,
        paused: false,
    })
}

/// `spec` with what is said of its rules; what is not said stays.
fn with_rules(mut spec: GroupSpec, said: RuleArguments) -> GroupSpec {
    let RuleArguments { match_names, regex, tag, folder, vm, exclude, exclude_tag, tz, priority } = said;
    let Rules { vms, tags, folders, match_names: patterns, regexes } = &mut spec.include;
    let excluded = &mut spec.exclude;
    for (known, said) in [
        (patterns, match_names),
        (regexes, regex),
        (tags, tag),
        (folders, folder),
        (vms, vm),
        (&mut excluded.match_names, exclude),
        (&mut excluded.tags, exclude_tag),
    ] {
        if !said.is_empty() {
            *known = said;
        }
    }
    spec.zone = tz.unwrap_or(spec.zone);
    spec.priority = priority.unwrap_or(spec.priority);
    spec
}

impl Asking {
    pub(super) async fn group(&self, command: GroupCommand) -> Result<(), Failure> {
        let (client, printer) = (&self.client, self.printer);
        let failed = |error| self.failed(error);
        match command {
            GroupCommand::Create { name, rules, schedule, schedule_name } => {
                let spec = GroupSpec { name, zone: "UTC".to_owned(), ..GroupSpec::default() };
                let mut spec = with_rules(spec, rules);
                if schedule.every.is_some() || schedule.cron.is_some() {
                    spec.schedules.push(schedule_of(&schedule_name, schedule)?);
                }
                printer.group(&client.create_group(&spec).await.map_err(failed)?)
            }
            GroupCommand::Set { name, rules } => {
                self.change_group(&name, true, |spec| Ok(with_rules(spec, rules))).await
            }
            GroupCommand::List => printer.groups(&client.groups().await.map_err(failed)?),
            GroupCommand::Show { name } => printer.group(&client.group(&name).await.map_err(failed)?),
            GroupCommand::Preview { name } => {
                printer.members(&client.preview_group(&name, None).await.map_err(failed)?)
            }
            GroupCommand::Simulate { name, days } => {
                printer.outlook(&client.simulate_group(&name, days).await.map_err(failed)?)
            }
            GroupCommand::Pause { name } => self.pause(&name, true).await,
            GroupCommand::Resume { name } => self.pause(&name, false).await,
            GroupCommand::Run { name, schedule } => {
                printer.point(&client.run_group(&name, &NewRun { schedule }).await.map_err(failed)?)
            }
            GroupCommand::Rename { old, new } => {
                self.change_group(&old, true, |spec| Ok(GroupSpec { name: new, ..spec })).await
            }
            GroupCommand::Delete { name, yes } => {
                really(yes, || format!("group {name} would be deleted; its points stay"))?;
                let gone = client.delete_group(&name).await.map_err(failed)?;
                printer.done(&gone, &format!("group {} deleted; its points stay: `point list`", gone.deleted))
            }
            GroupCommand::Schedule(command) => self.schedule(command).await,
            GroupCommand::Apply { file, dry_run, yes } => self.apply(&file, dry_run, yes).await,
            GroupCommand::Export { names } => self.export_groups(&names).await,
        }
    }

    async fn pause(&self, name: &str, paused: bool) -> Result<(), Failure> {
        self.change_group(name, true, |spec| Ok(GroupSpec { paused, ..spec })).await
    }

    async fn schedule(&self, command: ScheduleCommand) -> Result<(), Failure> {
        let place = |spec: &GroupSpec, name: &str| {
            spec.schedules.iter().position(|schedule| schedule.name.eq_ignore_ascii_case(name))
        };
        let missing = |spec: &GroupSpec, name: &str| {
            let reason = format!("group {} has no schedule {name}", spec.name);
            Failure::from(
                Error::new(code::SCHEDULE_NOT_FOUND, reason)
                    .hint(format!("`group show {}` shows those it has", spec.name)),
            )
        };
        match command {
            ScheduleCommand::Add { group, name, schedule } => {
                let schedule = schedule_of(&name, schedule)?;
                self.change_group(&group, true, |mut spec| {
                    spec.schedules.push(schedule);
                    Ok(spec)
                })
                .await
            }
            ScheduleCommand::Set { group, name, schedule, yes } => {
                let schedule = schedule_of(&name, schedule)?;
                self.change_group(&group, yes, |mut spec| {
                    let at = place(&spec, &name).ok_or_else(|| missing(&spec, &name))?;
                    spec.schedules[at] = schedule;
                    Ok(spec)
                })
                .await
            }
            ScheduleCommand::Remove { group, name } => {
                self.change_group(&group, true, |mut spec| {
                    let at = place(&spec, &name).ok_or_else(|| missing(&spec, &name))?;
                    spec.schedules.remove(at);
                    Ok(spec)
                })
                .await
            }
        }
    }

    /// Changes a group as it is now.
    async fn change_group(
        &self,
        name: &str,
        yes: bool,
        change: impl FnOnce(GroupSpec) -> Result<GroupSpec, Failure>,
    ) -> Result<(), Failure> {
        let known = self.client.group(name).await.map_err(|error| self.failed(error))?;
        let spec = change(known.spec)?;
        let changed = self.set_group(name, &spec, Some(known.revision), false, yes).await?;
        self.printer.group(&changed.group)
    }

    /// Puts what a group says in the place of what it said. Where points go by it, that must be meant.
    async fn set_group(
        &self,
        name: &str,
        spec: &GroupSpec,
        revision: Option<u64>,
        dry_run: bool,
        yes: bool,
    ) -> Result<GroupChange, Failure> {
        let failed = |error| self.failed(error);
        if dry_run || !yes {
            let how = HowToSet { dry_run: true, revision };
            let would = self.client.set_group(name, spec, &how).await.map_err(failed)?;
            if dry_run {
                return Ok(would);
            }
            really(would.points_to_go == 0, || {
                format!("{} points of group {name} would be deleted by this retention", would.points_to_go)
            })?;
        }
        let how = HowToSet { dry_run: false, revision };
        self.client.set_group(name, spec, &how).await.map_err(failed)
    }

    async fn apply(&self, file: &Path, dry_run: bool, yes: bool) -> Result<(), Failure> {
        let text = read_text(file)?;
        let read: GroupsFile = serde_norway::from_str(&text).map_err(|error| {
            let message = format!("{}: {error}", file.display());
            Failure::usage(message, "write it as `group export` prints it")
        })?;
        let known = self.client.groups().await.map_err(|error| self.failed(error))?;
        let mut changes = Vec::new();
        for spec in &read.groups {
            let found = known.items.iter().find(|group| group.spec.name.eq_ignore_ascii_case(&spec.name));
            let change = match found {
                Some(found) => self.set_group(&spec.name, spec, Some(found.revision), dry_run, yes).await?,
                None => self.add_group(spec, dry_run).await?,
            };
            changes.push(change);
        }
        self.printer.group_changes(&List { items: changes })
    }

    async fn add_group(&self, spec: &GroupSpec, dry_run: bool) -> Result<GroupChange, Failure> {
        let failed = |error| self.failed(error);
        let group = if dry_run {
            let members = self.client.preview_group(&spec.name, Some(spec)).await.map_err(failed)?;
            api::types::Group {
                spec: spec.clone(),
                revision: 0,
                members: members.items.len(),
                schedules: Vec::new(),
                points_without_schedule: 0,
                notices: Vec::new(),
            }
        } else {
            self.client.create_group(spec).await.map_err(failed)?
        };
        Ok(GroupChange { group, differences: vec!["+ the group".to_owned()], points_to_go: 0, dry_run })
    }

    async fn export_groups(&self, names: &[String]) -> Result<(), Failure> {
        let known = self.client.groups().await.map_err(|error| self.failed(error))?;
        let is_named = |spec: &GroupSpec| {
            names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(&spec.name))
        };
        let specs = known.items.into_iter().map(|group| group.spec);
        let groups: Vec<GroupSpec> = specs.filter(is_named).collect();
        let missing =
            names.iter().find(|name| !groups.iter().any(|spec| spec.name.eq_ignore_ascii_case(name)));
        if let Some(missing) = missing {
            return Err(Error::new(code::GROUP_NOT_FOUND, format!("there is no group {missing}"))
                .hint("`group list` shows those there are")
                .into());
        }
        let file = GroupsFile { groups };
        let text = serde_norway::to_string(&file)
            .map_err(|error| Failure::failed(code::OUTPUT, error.to_string()))?;
        self.printer.plain(&file, &text)
    }

    pub(super) async fn point(&self, command: PointCommand) -> Result<(), Failure> {
        let (client, printer) = (&self.client, self.printer);
        let failed = |error| self.failed(error);
        match command {
            PointCommand::List { group, vm, since, until, tz, locked, limit } => {
                let which = ListPoints { group, vm, since, until, zone: tz, locked, ..ListPoints::default() };
                self.list_points(which, limit as usize).await
            }
            PointCommand::Show { id } => printer.point(&client.point(id).await.map_err(failed)?),
            PointCommand::Hold { id, until } => {
                printer.point(&client.hold_point(id, &until).await.map_err(failed)?)
            }
            PointCommand::Delete { ids, yes } => {
                really(yes, || {
                    format!("{} points with all their snapshots would be deleted for good", ids.len())
                })?;
                let mut gone: Vec<Deleted> = Vec::new();
                for id in ids {
                    gone.push(client.delete_point(id).await.map_err(failed)?);
                }
                let names: Vec<&str> = gone.iter().map(|gone| gone.deleted.as_str()).collect();
                let text = format!("deleted: {}", names.join(", "));
                printer.done(&List { items: gone.clone() }, &text)
            }
        }
    }

    async fn list_points(&self, mut which: ListPoints, limit: usize) -> Result<(), Failure> {
        let mut all = Points { items: Vec::new(), next: None };
        loop {
            let most = (limit - all.items.len()).min(POINTS_AT_ONCE);
            which.limit = u32::try_from(most).ok();
            let page = self.client.points(&which).await.map_err(|error| self.failed(error))?;
            all.items.extend(page.items);
            which.before = page.next;
            if which.before.is_none() || all.items.len() >= limit {
                all.next = which.before;
                return self.printer.points(&all);
            }
        }
    }

    pub(super) async fn restore(&self, said: RestoreArguments) -> Result<(), Failure> {
        let RestoreArguments { vm, group, at, tz, point, new_name, in_place, disk, suffix, yes } = said;
        if in_place {
            let name = vm.as_deref().unwrap_or_default();
            really(yes, || format!("VM {name} would be put back; what it is now is kept in a snapshot"))?;
        }
        let asked = NewRestore { vm, group, at, zone: tz, point, new_name, suffix, in_place, disk };
        let done = self.client.restore_points(&asked).await.map_err(|error| self.failed(error))?;
        self.printer.restored(&done)
    }
}
