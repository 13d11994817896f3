//! Runs of schedules, and retention.

use std::collections::BTreeMap;

use api::{Error, Result, code, format_time};
use catalog::{Miss, NewPoint, Run, StoredGroup, StoredPoint, StoredRun, VmFacts};
use policy::{Group, Point, Schedule, Timer};

use super::{Failing, Known};
use crate::running::Shared;

/// First and longest pause before a failed run is tried again, ms.
const RETRY_MS: u64 = 1_000;
const RETRY_MS_MAX: u64 = 60_000;
/// Missed slots are counted so far; more are "at least so many".
const MISSED_MAX: usize = 100_000;
/// How often retention is looked at where no point is made, ms.
const SWEEP_MS: u64 = 60_000;
/// Points deleted in one round: the next goes on.
const DELETED_AT_ONCE: usize = 256;
/// Longest part of a group's name in the name of a point.
const GROUP_BYTES_MAX: usize = 40;

/// Something to be made now.
struct Due<'k> {
    stored: &'k StoredGroup,
    schedule: &'k Schedule,
    timer: Timer,
    read: StoredRun,
    slot_ms: u64,
}

/// What a point of a group at an instant is called: `web-20261129T233000Z`.
pub(crate) fn name_of(group: &str, at_ms: u64) -> String {
    let time: String = format_time(at_ms).chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    let group = group.get(..group.len().min(GROUP_BYTES_MAX)).unwrap_or(group);
    format!("{group}-{time}")
}

fn run_key(stored: &StoredGroup, schedule: &Schedule) -> (u64, String) {
    (stored.number, api::fold(&schedule.name))
}

impl Shared {
    /// The VMs of a group, of those there are.
    pub(super) fn members_of<'v>(known: &Known, group: &Group, vms: &'v [VmFacts]) -> Vec<&'v VmFacts> {
        let is_in = |vm: &&VmFacts| {
            let vm = policy::Vm { name: &vm.name, attributes: &vm.attributes, group: None };
            known.groups.of(&vm).group().is_some_and(|of| of.name == group.name)
        };
        vms.iter().filter(is_in).collect()
    }

    /// Makes the points that are due, each group's after the other's.
    pub(super) async fn make_due(&self, known: &Known) -> Result<()> {
        let now_ms = self.parts.engine.site_time_ms();
        let (mut due, mut next_ms) = (Vec::new(), None::<u64>);
        for stored in known.stored.values() {
            for schedule in stored.group.running() {
                let timer = schedule.timer(&stored.group)?;
                let read = self.run_state(stored, schedule, now_ms).await?;
                let after_ms = read.run.after_ms();
                match timer.due(now_ms, after_ms) {
                    Some(slot_ms) if self.may_try(stored, schedule, now_ms) => {
                        due.push(Due { stored, schedule, timer, read, slot_ms });
                    }
                    Some(_) => {}
                    None => next_ms = [next_ms, timer.next_after(after_ms)].into_iter().flatten().min(),
                }
            }
        }
        self.protection.lock().next_ms = next_ms;
        if due.is_empty() {
            return Ok(());
        }
        let vms = self.catalog.facts().await?;
        let room = self.has_room_for_points().await;
        let mut first = Ok(());
        for due in due {
            let done = match &room {
                Ok(()) => self.run_slot(known, &due, &vms).await,
                Err(error) => Err(Error::new(error.code, error.reason.clone())),
            };
            let key = run_key(due.stored, due.schedule);
            let mut state = self.protection.lock();
            match done {
                Ok(()) => {
                    state.failing.remove(&key);
                    state.swept_ms.remove(&due.stored.number);
                }
                Err(error) => {
                    // Somebody else may have noted how far the runs are.
                    state.runs.remove(&key);
                    let attempts = state.failing.get(&key).map_or(0, |failing| failing.attempts);
                    let pause_ms = (RETRY_MS << attempts.min(6)).min(RETRY_MS_MAX);
                    let reason = error.reason.to_string();
                    let retry_ms = now_ms.saturating_add(pause_ms);
                    state.failing.insert(key, Failing { attempts: attempts + 1, retry_ms, reason });
                    let (group, schedule) = (&due.stored.group.name, &due.schedule.name);
                    tracing::debug!(group, schedule, %error, "no point was made");
                    first = first.and(Err(error));
                }
            }
        }
        first
    }

    fn may_try(&self, stored: &StoredGroup, schedule: &Schedule, now_ms: u64) -> bool {
        let state = self.protection.lock();
        let failing = state.failing.get(&run_key(stored, schedule));
        // A clock that was set far ahead and back makes nobody wait.
        failing.is_none_or(|failing| !(now_ms..now_ms + RETRY_MS_MAX).contains(&failing.retry_ms))
    }

    /// How far the runs of a schedule are; it counts from now on when nothing is known.
    async fn run_state(&self, stored: &StoredGroup, schedule: &Schedule, now_ms: u64) -> Result<StoredRun> {
        let key = run_key(stored, schedule);
        if let Some(known) = self.protection.lock().runs.get(&key) {
            return Ok(known.clone());
        }
        let mut read = self.catalog.run_of(stored.number, &schedule.name, now_ms).await?;
        if read.revision == meta::Revision::NONE {
            read = self.catalog.note_run(stored.number, &schedule.name, &read, &Run::since(now_ms)).await?;
        }
        self.protection.lock().runs.insert(key, read.clone());
        Ok(read)
    }

    /// Whether points may be made: what they keep takes room.
    async fn has_room_for_points(&self) -> Result<()> {
        let status = self.parts.engine.status().await;
        if crate::status::has_room_for_points(&status) {
            return Ok(());
        }
        Err(Error::new(code::NO_SPACE, "the pool is nearly full: no points are made until there is room"))
    }

    /// Makes the point of a slot, and notes it.
    async fn run_slot(&self, known: &Known, due: &Due<'_>, vms: &[VmFacts]) -> Result<()> {
        let Due { stored, schedule, timer, read, slot_ms } = due;
        let run = self.after_slot(stored, schedule, timer, read, *slot_ms);
        let new = (*slot_ms, Some((read.clone(), run)));
        self.make_of_group(known, stored, schedule, vms, new).await?;
        // Its revision is the store's.
        self.protection.lock().runs.remove(&run_key(stored, schedule));
        self.run_state(stored, schedule, *slot_ms).await.map(drop)
    }

    /// How far the runs of a schedule are behind the one of a slot.
    fn after_slot(
        &self,
        stored: &StoredGroup,
        schedule: &Schedule,
        timer: &Timer,
        read: &StoredRun,
        slot_ms: u64,
    ) -> Run {
        let mut run = read.run.clone();
        let missed = timer.slots(run.after_ms()).take_while(|missed| *missed < slot_ms).take(MISSED_MAX);
        let (mut count, mut ends) = (0, None::<(u64, u64)>);
        for missed_ms in missed {
            count += 1;
            ends = Some((ends.map_or(missed_ms, |(from_ms, _)| from_ms), missed_ms));
        }
        if let Some((from_ms, until_ms)) = ends {
            let failing = self.protection.lock().failing.get(&run_key(stored, schedule)).cloned();
            let cause = failing.map_or_else(
                || "the site was not running, or took no writes".to_owned(),
                |failing| failing.reason,
            );
            run.miss(Miss { from_ms, until_ms, count, cause });
        }
        run.slot_ms = slot_ms;
        run
    }

    /// Makes a point of a group's VMs; `None` when there is none.
    pub(super) async fn make_of_group(
        &self,
        known: &Known,
        stored: &StoredGroup,
        schedule: &Schedule,
        vms: &[VmFacts],
        (due_ms, run): (u64, Option<(StoredRun, Run)>),
    ) -> Result<Option<StoredPoint>> {
        let members: Vec<String> =
            Self::members_of(known, &stored.group, vms).into_iter().map(|vm| vm.name.clone()).collect();
        let at_ms = self.parts.engine.site_time_ms();
        let new = NewPoint {
            group: stored.number,
            schedule: &schedule.name,
            name: &name_of(&stored.group.name, if due_ms == 0 { at_ms } else { due_ms }),
            members: &members,
            consistency: schedule.consistency,
            notes: BTreeMap::new(),
            due_ms,
            lock_ms: schedule.lock_s.saturating_mul(1000),
            run,
        };
        let made = self.catalog.make_point(&new).await?;
        if let (Some(made), Some(index)) = (&made, &mut self.protection.lock().index) {
            index.add(made);
        }
        Ok(made)
    }

    /// The points of a group that retention lets go of.
    pub(super) fn to_go(&self, number: u64, group: &Group, now_ms: u64) -> Result<Vec<u64>> {
        let zone = group.zone()?;
        let state = self.protection.lock();
        let Some(index) = &state.index else { return Ok(Vec::new()) };
        let point = |((at_ms, id), facts): (&super::index::Place, &'_ super::index::Facts)| {
            (*at_ms, *id, facts.schedule.clone(), facts.locked_until_ms, facts.is_good)
        };
        let facts: Vec<_> = index.of(number).map(point).collect();
        drop(state);
        let points: Vec<Point<'_>> = facts
            .iter()
            .map(|(at_ms, id, schedule, locked_until_ms, is_good)| Point {
                id: *id,
                at_ms: *at_ms,
                schedule,
                locked_until_ms: *locked_until_ms,
                is_held: false,
                is_good: *is_good,
            })
            .collect();
        let retention = |schedule: &str| group.schedule(schedule).map(|schedule| &schedule.keep);
        let reasons = policy::keep(&points, retention, &zone, now_ms);
        let gone = points.iter().zip(reasons).filter(|(_, reasons)| !reasons.stays());
        Ok(gone.map(|(point, _)| point.id).collect())
    }

    /// Deletes what retention lets go of.
    pub(super) async fn let_go(&self, known: &Known) -> Result<()> {
        let now_ms = self.parts.engine.site_time_ms();
        let (mut first, mut deleted) = (Ok(()), 0);
        for stored in known.stored.values() {
            let swept_ms = self.protection.lock().swept_ms.get(&stored.number).copied();
            if swept_ms.is_some_and(|swept| (swept..swept + SWEEP_MS).contains(&now_ms)) {
                continue;
            }
            let mut is_done = true;
            for id in self.to_go(stored.number, &stored.group, now_ms)? {
                if deleted == DELETED_AT_ONCE {
                    is_done = false;
                    break;
                }
                match self.forget_point(id).await {
                    Ok(()) => deleted += 1,
                    // A client reads it: it goes another time.
                    Err(error) if error.code == code::VM_IN_USE => {}
                    Err(error) => first = first.and(Err(error)),
                }
            }
            if is_done {
                self.protection.lock().swept_ms.insert(stored.number, now_ms);
            }
        }
        first
    }

    /// Deletes a point, and what is known of it.
    pub(super) async fn forget_point(&self, id: u64) -> Result<()> {
        let point = match self.catalog.point(id).await {
            Err(error) if error.code == code::POINT_NOT_FOUND => return Ok(()),
            point => point?,
        };
        self.catalog.delete_point(id).await?;
        let orphaned = self.protection.lock().index.as_mut().map(|index| index.remove(&point));
        for vm in orphaned.into_iter().flatten() {
            self.find_newest(vm).await?;
        }
        Ok(())
    }

    /// Finds the newest good point of a VM, among its snapshots.
    async fn find_newest(&self, vm: u64) -> Result<()> {
        for id in self.catalog.points_of_vm(vm).await?.into_iter().rev() {
            let Ok(point) = self.catalog.point(id).await else { continue };
            let is_good = point.record.members.iter().any(|member| member.vm == vm && member.note.is_none());
            if is_good && point.record.state == catalog::PointState::Whole {
                if let Some(index) = &mut self.protection.lock().index {
                    index.found_newest(vm, (point.record.at_ms, id));
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes a point of a group now.
    pub(super) async fn run_now(&self, name: &str, schedule: Option<&str>) -> Result<StoredPoint> {
        self.load_points().await?;
        let known = self.known_groups().await?;
        let stored = known.get(name).ok_or_else(|| super::groups::not_found(name))?;
        let found = match schedule {
            Some(schedule) => stored.group.schedule(schedule),
            None => stored.group.schedules.first(),
        };
        let schedule = found.ok_or_else(|| {
            let what = schedule.map_or_else(|| "any schedule".to_owned(), |name| format!("schedule {name}"));
            Error::new(code::SCHEDULE_NOT_FOUND, format!("group {} does not have {what}", stored.group.name))
                .hint("`group show` has its schedules; `group schedule add` makes one")
        })?;
        self.has_room_for_points().await?;
        let vms = self.catalog.facts().await?;
        let made = self.make_of_group(&known, stored, schedule, &vms, (0, None)).await?;
        self.protection.lock().swept_ms.remove(&stored.number);
        self.protection.wake.notify_one();
        made.ok_or_else(|| {
            Error::new(code::INVALID_REQUEST, format!("group {} has no VM that is ready", stored.group.name))
                .hint("`group preview` shows which VMs are in it, and `vm show` in which group a VM is")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_called_after_its_group_and_instant() {
        assert_eq!(name_of("web", 1_796_081_400_000), "web-20261130T233000Z");
        let long = "a".repeat(63);
        let name = name_of(&long, 1_796_081_400_000);
        assert!(api::VmName::parse_for("a point", &format!("{name}-12")).is_ok(), "{name}");
    }
}
