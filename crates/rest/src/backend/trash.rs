//! What does the work behind the trash and holds.

use std::time::Duration;

use api::types::{Deleted, EmptyTrash, HowToDelete, ListTrash, Restored, Snapshot, Trash, TrashSetting};
use api::{Problem, VmName, code};
use site::Site;

use super::{Answer, snapshot_name};

/// Deleting, and what comes back from it.
pub trait Trashing: Send + Sync + 'static {
    /// Deletes a VM with its disks: into the trash, or for good.
    fn delete_vm<'a>(&'a self, name: &'a str, how: HowToDelete) -> Answer<'a, Deleted>;
    /// Deletes a snapshot in the same ways.
    fn delete_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, how: HowToDelete) -> Answer<'a, Deleted>;
    /// Holds a snapshot until a time.
    fn hold_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, until: &'a str) -> Answer<'a, Snapshot>;
    /// What is in the trash, by number.
    fn trash(&self, which: ListTrash) -> Answer<'_, Trash>;
    /// Sets how long what is deleted stays in the trash.
    fn set_trash(&self, setting: TrashSetting) -> Answer<'_, TrashSetting>;
    /// Takes something out of the trash again.
    fn restore<'a>(&'a self, id: u64, new: Option<&'a str>) -> Answer<'a, Restored>;
    /// Decides that things go from the trash for good.
    fn condemn_trash(&self, which: EmptyTrash) -> Answer<'_, ()>;
    /// Empties something from the trash.
    fn empty_trash(&self, id: u64) -> Answer<'_, ()>;
    /// Says what makes room, where a change found none.
    fn with_room_hint(&self, problem: Problem) -> seam::BoxFuture<'_, Problem>;
}

impl Trashing for Site {
    fn delete_vm<'a>(&'a self, name: &'a str, how: HowToDelete) -> Answer<'a, Deleted> {
        Box::pin(async move {
            let deletion = site::Deletion { now: how.now, with_snapshots: how.with_snapshots };
            let trash = Self::delete_vm(self, &VmName::parse(name)?, deletion).await?;
            Ok(Deleted { deleted: name.to_owned(), trash })
        })
    }

    fn delete_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, how: HowToDelete) -> Answer<'a, Deleted> {
        Box::pin(async move {
            let (vm, name) = (VmName::parse(vm)?, snapshot_name(name)?);
            let trash = Self::delete_snapshot(self, &vm, &name, how.now).await?;
            Ok(Deleted { deleted: format!("{vm}@{name}"), trash })
        })
    }

    fn hold_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, until: &'a str) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            Ok(Self::hold_snapshot(self, &VmName::parse(vm)?, &snapshot_name(name)?, until).await?)
        })
    }

    fn trash(&self, which: ListTrash) -> Answer<'_, Trash> {
        Box::pin(async move {
            let limit = which.limit as usize;
            let found = Self::trash(self, which.after, limit).await?;
            let next = found.last().filter(|_| found.len() >= limit).map(|last| last.id);
            let keep_seconds = self.trash_keep().await?.as_secs();
            Ok(Trash { items: found, next, keep_seconds })
        })
    }

    fn set_trash(&self, setting: TrashSetting) -> Answer<'_, TrashSetting> {
        Box::pin(async move {
            self.set_trash_keep(Duration::from_secs(setting.keep_seconds)).await?;
            Ok(setting)
        })
    }

    fn restore<'a>(&'a self, id: u64, new: Option<&'a str>) -> Answer<'a, Restored> {
        Box::pin(async move {
            let new = new.map(VmName::parse).transpose()?;
            Ok(Restored { restored: Self::restore(self, id, new.as_ref()).await? })
        })
    }

    fn condemn_trash(&self, which: EmptyTrash) -> Answer<'_, ()> {
        Box::pin(async move { Ok(Self::condemn_trash(self, &which.items).await?) })
    }

    fn empty_trash(&self, id: u64) -> Answer<'_, ()> {
        Box::pin(async move { Ok(Self::empty_trash(self, id).await?) })
    }

    fn with_room_hint(&self, mut problem: Problem) -> seam::BoxFuture<'_, Problem> {
        Box::pin(async move {
            if problem.code == code::NO_SPACE.name
                && let Ok(totals) = self.trash_totals().await
                && totals.items > 0
            {
                let used = api::format_size(totals.used_bytes);
                let empty =
                    format!("`trash empty --yes`: {} in the trash, with {used} of data", totals.items);
                problem.hint = format!("{empty}; or {}", problem.hint);
            }
            problem
        })
    }
}
