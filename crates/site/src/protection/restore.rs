//! Restores: a VM as it was at a point, beside what it is now or in its place.

use std::time::Duration;

use api::types::{FromPoint, NewRestore, RestoredVm, RestoredVms};
use api::{Error, Result, Version, VmName, code, format_time};
use catalog::{PointRecord, PointState, StoredPoint};
use policy::{Zone, parse_instant};

use crate::running::{Shared, Site};

/// Where a point is to be found.
struct Wanted<'w> {
    at_ms: Option<u64>,
    point: Option<u64>,
    group: Option<&'w str>,
}

impl Site {
    /// Restores a VM, or all VMs of a point of a group. VMs that could not be restored are told with the reason; others
    /// stay restored.
    ///
    /// # Errors
    /// `vm_not_found`, `group_not_found`, `point_not_found`, `invalid_time`; `invalid_request` for what makes no sense
    /// together; for one VM why it failed.
    pub async fn restore_points(&self, asked: &NewRestore) -> Result<RestoredVms> {
        let began = self.runtime().now();
        let shared = &self.shared;
        shared.load_points().await?;
        let wrong =
            |reason: &str, hint: &str| Err(Error::new(code::INVALID_REQUEST, reason).hint(hint.to_owned()));
        if asked.at.is_some() && asked.point.is_some() {
            return wrong("`at` and `point` both say which point", "give one of them");
        }
        let now_ms = shared.parts.engine.site_time_ms();
        let zone = asked.zone.as_deref().map_or_else(|| Ok(Zone::utc()), Zone::parse)?;
        let at_ms = asked.at.as_deref().map(|at| parse_instant(at, now_ms, &zone)).transpose()?;
        let wanted = Wanted { at_ms, point: asked.point, group: asked.group.as_deref() };
        match (&asked.vm, &asked.group) {
            (Some(vm), None) => {
                let vm = VmName::parse(vm)?;
                let point = shared.point_of(&vm, &wanted).await?;
                let restored = shared.restore_vm(&vm, &point.record, asked).await?;
                Ok(self.restored(&point, vec![restored], began))
            }
            (None, Some(group)) => {
                let Some(suffix) = &asked.suffix else {
                    return wrong(
                        "a group is restored beside what it is now: `suffix` is missing",
                        "give what is put behind the name of each VM, such as -r1",
                    );
                };
                if asked.new_name.is_some() || asked.in_place || asked.disk.is_some() {
                    return wrong("a group takes `suffix` alone", "restore VMs one by one for the rest");
                }
                let point = shared.point_of_group(group, &wanted).await?;
                let mut all = Vec::new();
                for member in &point.record.members {
                    all.push(shared.restore_member(member, &point.record, suffix).await);
                }
                Ok(self.restored(&point, all, began))
            }
            _ => wrong("either `vm` or `group` says what is to be restored", "give one of them"),
        }
    }

    fn restored(&self, point: &StoredPoint, vms: Vec<RestoredVm>, began: Duration) -> RestoredVms {
        let took = self.runtime().now().saturating_sub(began);
        RestoredVms {
            from: FromPoint { id: point.id, name: point.record.name.clone(), at_ms: point.record.at_ms },
            vms,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Shared {
    /// The point that is to be restored of a VM: the one named, or the newest that is no younger than asked.
    async fn point_of(&self, vm: &VmName, wanted: &Wanted<'_>) -> Result<StoredPoint> {
        let Some(number) = self.catalog.number_of(vm).await? else {
            return Err(no_point(vm.as_str(), wanted));
        };
        let is_in = |record: &PointRecord| {
            record.state == PointState::Whole && record.members.iter().any(|member| member.vm == number)
        };
        if let Some(id) = wanted.point {
            let point = self.catalog.point(id).await?;
            if is_in(&point.record) {
                return Ok(point);
            }
            let reason = format!("VM {vm} is not in point {id}");
            return Err(Error::new(code::POINT_NOT_FOUND, reason)
                .hint(format!("`point list --vm {vm}` shows those it is in")));
        }
        for id in self.catalog.points_of_vm(number).await?.into_iter().rev() {
            let Ok(point) = self.catalog.point(id).await else { continue };
            if is_in(&point.record) && wanted.at_ms.is_none_or(|at_ms| point.record.at_ms <= at_ms) {
                return Ok(point);
            }
        }
        Err(no_point(vm.as_str(), wanted))
    }

    async fn point_of_group(&self, name: &str, wanted: &Wanted<'_>) -> Result<StoredPoint> {
        let known = self.known_groups().await?;
        let number = known.get(name).ok_or_else(|| super::groups::not_found(name))?.number;
        if let Some(id) = wanted.point {
            let point = self.catalog.point(id).await?;
            if point.record.group == number && point.record.state == PointState::Whole {
                return Ok(point);
            }
            let reason = format!("point {id} is not of group {name}");
            return Err(Error::new(code::POINT_NOT_FOUND, reason)
                .hint(format!("`point list --group {name}` shows those it has")));
        }
        let place = {
            let state = self.protection.lock();
            let before = (wanted.at_ms.unwrap_or(u64::MAX), u64::MAX);
            let newest =
                state.index.as_ref().and_then(|index| index.newest_first(Some(number), before).next());
            newest.map(|(place, ..)| place)
        };
        match place {
            Some((_, id)) => self.catalog.point(id).await,
            None => Err(no_point(wanted.group.unwrap_or(name), wanted)),
        }
    }

    async fn restore_member(
        &self,
        member: &catalog::Member,
        record: &PointRecord,
        suffix: &str,
    ) -> RestoredVm {
        let work = async {
            let names = self.catalog.vm_numbers().await?;
            let vm = names.get(&member.vm).ok_or_else(|| {
                Error::new(code::VM_NOT_FOUND, format!("VM {} is not there any more", member.name))
                    .hint("take it out of the trash first: `trash list`")
            })?;
            let new = VmName::parse(&format!("{vm}{suffix}"))?;
            let from = Version { vm: VmName::parse(vm)?, snapshot: Some(point_name(record)?) };
            Ok::<_, Error>(self.catalog.clone_vm(&from, &new).await?.name)
        };
        match work.await {
            Ok(new) => {
                RestoredVm { vm: member.name.clone(), restored_as: Some(new), kept_as: None, failed: None }
            }
            Err(error) => RestoredVm {
                vm: member.name.clone(),
                restored_as: None,
                kept_as: None,
                failed: Some(error.to_string()),
            },
        }
    }

    async fn restore_vm(&self, vm: &VmName, record: &PointRecord, asked: &NewRestore) -> Result<RestoredVm> {
        let name = point_name(record)?;
        let from = Version { vm: vm.clone(), snapshot: Some(name.clone()) };
        let (restored_as, kept_as) = match (&asked.new_name, asked.in_place, &asked.disk) {
            (None, false, Some(disk)) => {
                let now = self.catalog.clone_disk(&from, disk, vm).await?;
                let added = now.disks.last().map(|disk| disk.export.clone());
                (added, None)
            }
            (Some(new), false, None) => {
                (Some(self.catalog.clone_vm(&from, &VmName::parse(new)?).await?.name), None)
            }
            (None, true, None) => {
                let (now, kept_as) = self.catalog.revert(vm, &name).await?;
                (Some(now.name), Some(format!("{}@{}", kept_as.vm, kept_as.name)))
            }
            _ => {
                return Err(Error::new(
                    code::INVALID_REQUEST,
                    "a VM is restored under another name, in its place, or a disk of it is added to it",
                )
                .hint("give one of `as`, `in_place` and `disk`"));
            }
        };
        Ok(RestoredVm { vm: vm.to_string(), restored_as, kept_as, failed: None })
    }
}

fn point_name(record: &PointRecord) -> Result<VmName> {
    VmName::parse_for("a point", &record.name)
}

fn no_point(what: &str, wanted: &Wanted<'_>) -> Error {
    let when = wanted.at_ms.map_or_else(String::new, |at_ms| format!(" of {} or before", format_time(at_ms)));
    Error::new(code::POINT_NOT_FOUND, format!("there is no point of {what}{when}"))
        .hint("`point list` shows those there are")
}
