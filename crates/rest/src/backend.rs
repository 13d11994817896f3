//! What does the work behind the interface.

mod files;
mod media;
mod trash;
mod upkeep;

use api::types::{
    AddDisk, AttachInfo, Begun, Change, ChangeDisk, Changes, CreateVm, Definition, ListSnapshots, NewClone,
    NewExport, NewImport, NewSnapshot, Progress, Reverted, Snapshot, Snapshots, Status, Task, TaskKind, Vm,
    VmSummary, WhichChanges,
};
use api::{Problem, Version, VmName, code};
use seam::BoxFuture;
use site::Site;

pub use files::Filing;
pub use media::MediaChanges;
pub use trash::Trashing;
pub use upkeep::Upkeep;

/// Answer of a backend.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Problem>>;

/// What the interface offers, done.
pub trait Backend: Trashing + Upkeep + MediaChanges + Filing {
    /// How the site is.
    fn status(&self) -> Answer<'_, Status>;
    /// Every VM, by name.
    fn vms(&self) -> Answer<'_, Vec<VmSummary>>;
    /// A VM by name.
    fn vm<'a>(&'a self, name: &'a str) -> Answer<'a, Vm>;
    /// Makes a VM.
    fn create_vm(&self, new: CreateVm) -> Answer<'_, Vm>;
    /// Gives a VM another name.
    fn rename_vm<'a>(&'a self, name: &'a str, new: &'a str) -> Answer<'a, Vm>;
    /// Adds a disk.
    fn add_disk<'a>(&'a self, name: &'a str, new: AddDisk) -> Answer<'a, Vm>;
    /// Removes a disk.
    fn remove_disk<'a>(&'a self, name: &'a str, disk: &'a str) -> Answer<'a, ()>;
    /// Changes a disk.
    fn change_disk<'a>(&'a self, name: &'a str, disk: &'a str, change: ChangeDisk) -> Answer<'a, Vm>;
    /// How a guest gets a disk.
    fn attach_info<'a>(&'a self, name: &'a str, disk: &'a str) -> Answer<'a, AttachInfo>;
    /// The text stored with a VM.
    fn definition<'a>(&'a self, name: &'a str) -> Answer<'a, Definition>;
    /// Stores a text with a VM.
    fn set_definition<'a>(&'a self, name: &'a str, definition: Definition) -> Answer<'a, ()>;
    /// Snapshots, by VM and name.
    fn snapshots(&self, which: ListSnapshots) -> Answer<'_, Snapshots>;
    /// Makes a snapshot.
    fn snapshot<'a>(&'a self, vm: &'a str, new: NewSnapshot) -> Answer<'a, Snapshot>;
    /// A snapshot by name.
    fn show_snapshot<'a>(&'a self, vm: &'a str, name: &'a str) -> Answer<'a, Snapshot>;
    /// Gives a snapshot another name.
    fn rename_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, new: &'a str) -> Answer<'a, Snapshot>;
    /// What changed on a disk up to a snapshot, or up to now.
    fn changes<'a>(
        &'a self,
        vm: &'a str,
        snapshot: Option<&'a str>,
        which: WhichChanges,
    ) -> Answer<'a, Changes>;
    /// Puts a VM back to a snapshot.
    fn revert<'a>(&'a self, vm: &'a str, snapshot: &'a str) -> Answer<'a, Reverted>;
    /// Makes a VM that begins as another is.
    fn clone_vm(&self, new: NewClone) -> Answer<'_, Vm>;
    /// Every task, the newest first.
    fn tasks(&self) -> Answer<'_, Vec<Task>>;
    /// A task by its number.
    fn task(&self, id: u64) -> Answer<'_, Task>;
    /// Ends a task that is not wanted any more.
    fn cancel_task(&self, id: u64) -> Answer<'_, Task>;
    /// Makes a VM that is being imported.
    fn begin_import(&self, new: NewImport) -> Answer<'_, Begun>;
    /// Makes a task for reading disks.
    fn begin_export(&self, new: NewExport) -> Answer<'_, Begun>;
    /// The client of a task lives, and is this far.
    fn progress(&self, kind: TaskKind, id: u64, progress: Progress) -> Answer<'_, Task>;
    /// Ends a task well.
    fn finish(&self, kind: TaskKind, id: u64) -> Answer<'_, Task>;
    /// Ends a task that its client could not do.
    fn give_up(&self, kind: TaskKind, id: u64, reason: String) -> Answer<'_, Task>;
}

impl Backend for Site {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move {
            let running = |task: &api::types::Task| task.state == api::types::TaskState::Running;
            let tasks = Self::tasks(self).await?.into_iter().filter(running);
            Ok(Status { tasks: tasks.collect(), ..Self::status(self).await?.into() })
        })
    }

    fn vms(&self) -> Answer<'_, Vec<VmSummary>> {
        Box::pin(async move { Ok(Self::vms(self).await?.into_iter().collect()) })
    }

    fn vm<'a>(&'a self, name: &'a str) -> Answer<'a, Vm> {
        Box::pin(async move { Ok(Self::vm(self, &VmName::parse(name)?).await?) })
    }

    fn create_vm(&self, new: CreateVm) -> Answer<'_, Vm> {
        Box::pin(async move {
            let sizes: Vec<u64> = new.disks.iter().map(|disk| disk.bytes).collect();
            Ok(Self::create_vm(self, &VmName::parse(&new.name)?, &sizes).await?)
        })
    }

    fn rename_vm<'a>(&'a self, name: &'a str, new: &'a str) -> Answer<'a, Vm> {
        Box::pin(async move { Ok(Self::rename_vm(self, &VmName::parse(name)?, &VmName::parse(new)?).await?) })
    }

    fn add_disk<'a>(&'a self, name: &'a str, new: AddDisk) -> Answer<'a, Vm> {
        Box::pin(async move {
            let name = VmName::parse(name)?;
            let vm = match new {
                AddDisk::Empty(new) => Self::add_disk(self, &name, new.bytes).await?,
                AddDisk::Clone(new) => {
                    let (from, disk) = Version::parse_with_disk(&new.from)?;
                    let disk = disk.ok_or_else(|| no_disk(&new.from))?;
                    Self::clone_disk(self, &from, disk, &name).await?
                }
            };
            Ok(vm)
        })
    }

    fn remove_disk<'a>(&'a self, name: &'a str, disk: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { Ok(Self::remove_disk(self, &VmName::parse(name)?, disk).await?) })
    }

    fn change_disk<'a>(&'a self, name: &'a str, disk: &'a str, change: ChangeDisk) -> Answer<'a, Vm> {
        Box::pin(async move {
            let name = VmName::parse(name)?;
            Ok(Self::resize_disk(self, &name, disk, change.bytes, change.shrink).await?)
        })
    }

    fn attach_info<'a>(&'a self, name: &'a str, disk: &'a str) -> Answer<'a, AttachInfo> {
        Box::pin(async move {
            let site::AttachInfo { export, socket, uri, qemu, libvirt } =
                Self::attach_info(self, &VmName::parse(name)?, disk).await?;
            Ok(AttachInfo { export, socket, uri, qemu, libvirt })
        })
    }

    fn definition<'a>(&'a self, name: &'a str) -> Answer<'a, Definition> {
        Box::pin(async move { Ok(Definition { text: Self::definition(self, &VmName::parse(name)?).await? }) })
    }

    fn set_definition<'a>(&'a self, name: &'a str, definition: Definition) -> Answer<'a, ()> {
        Box::pin(
            async move { Ok(Self::set_definition(self, &VmName::parse(name)?, &definition.text).await?) },
        )
    }

    fn snapshots(&self, which: ListSnapshots) -> Answer<'_, Snapshots> {
        Box::pin(async move {
            let vm = which.vm.as_deref().map(VmName::parse).transpose()?;
            let after = which.after.as_deref().map(Version::parse).transpose()?;
            if let Some(Version { vm, snapshot: None }) = &after {
                let hint = "give it as VM@SNAPSHOT";
                return Err(Problem::new(code::INVALID_REQUEST, format!("{vm} is no snapshot"), hint));
            }
            let limit = which.limit as usize;
            let found = Self::snapshots(self, vm.as_ref(), after.as_ref(), limit).await?;
            let last = found.last().filter(|_| found.len() >= limit);
            let next = last.map(|last| format!("{}@{}", last.vm, last.name));
            Ok(Snapshots { items: found.into_iter().collect(), next })
        })
    }

    fn snapshot<'a>(&'a self, vm: &'a str, new: NewSnapshot) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            let name = new.name.as_deref().map(snapshot_name).transpose()?;
            Ok(Self::snapshot(self, &VmName::parse(vm)?, name.as_ref()).await?)
        })
    }

    fn show_snapshot<'a>(&'a self, vm: &'a str, name: &'a str) -> Answer<'a, Snapshot> {
        Box::pin(
            async move { Ok(Self::show_snapshot(self, &VmName::parse(vm)?, &snapshot_name(name)?).await?) },
        )
    }

    fn rename_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, new: &'a str) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            let (vm, name, new) = (VmName::parse(vm)?, snapshot_name(name)?, snapshot_name(new)?);
            Ok(Self::rename_snapshot(self, &vm, &name, &new).await?)
        })
    }

    fn changes<'a>(
        &'a self,
        vm: &'a str,
        snapshot: Option<&'a str>,
        which: WhichChanges,
    ) -> Answer<'a, Changes> {
        Box::pin(async move {
            let vm = VmName::parse(vm)?;
            let version = |name: &str| {
                Ok::<_, site::SiteError>(Version { vm: vm.clone(), snapshot: Some(snapshot_name(name)?) })
            };
            let new = match snapshot {
                Some(snapshot) => version(snapshot)?,
                None => Version { vm: vm.clone(), snapshot: None },
            };
            let old = which.against.as_deref().map(version).transpose()?;
            let limit = which.limit as usize;
            let found = Self::diff(self, old.as_ref(), &new, &which.disk, which.offset, limit).await?;
            let items: Vec<Change> = found
                .into_iter()
                .map(|found| Change { offset: found.offset, length: found.length, mapped: found.mapped })
                .collect();
            let last = items.last().filter(|_| items.len() >= limit);
            let next = last.map(|last| last.offset + last.length);
            Ok(Changes { items, next })
        })
    }

    fn revert<'a>(&'a self, vm: &'a str, snapshot: &'a str) -> Answer<'a, Reverted> {
        Box::pin(async move {
            let (vm, kept_as) = Self::revert(self, &VmName::parse(vm)?, &snapshot_name(snapshot)?).await?;
            Ok(Reverted { vm, kept_as })
        })
    }

    fn clone_vm(&self, new: NewClone) -> Answer<'_, Vm> {
        Box::pin(async move {
            let (from, name) = (Version::parse(&new.from)?, VmName::parse(&new.name)?);
            Ok(Self::clone_vm(self, &from, &name).await?)
        })
    }

    fn tasks(&self) -> Answer<'_, Vec<Task>> {
        Box::pin(async move { Ok(Self::tasks(self).await?.into_iter().collect()) })
    }

    fn task(&self, id: u64) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::task(self, id).await?) })
    }

    fn cancel_task(&self, id: u64) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::cancel_task(self, id).await?) })
    }

    fn begin_import(&self, new: NewImport) -> Answer<'_, Begun> {
        Box::pin(async move {
            let sizes: Vec<u64> = new.disks.iter().map(|disk| disk.bytes).collect();
            let name = VmName::parse(&new.name)?;
            Ok(begun(Self::begin_import(self, &name, &sizes, &new.source).await?))
        })
    }

    fn begin_export(&self, new: NewExport) -> Answer<'_, Begun> {
        Box::pin(async move {
            let from = Version::parse(&new.vm)?;
            Ok(begun(Self::begin_export(self, &from, new.disk.as_deref(), &new.destination).await?))
        })
    }

    fn progress(&self, kind: TaskKind, id: u64, progress: Progress) -> Answer<'_, Task> {
        Box::pin(async move {
            let Progress { done_bytes, total_bytes } = progress;
            Ok(Self::task_progress(self, id, kind, done_bytes, total_bytes).await?)
        })
    }

    fn finish(&self, kind: TaskKind, id: u64) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::finish_task(self, id, kind).await?) })
    }

    fn give_up(&self, kind: TaskKind, id: u64, reason: String) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::fail_task(self, id, kind, &reason).await?) })
    }
}

fn snapshot_name(text: &str) -> api::Result<VmName> {
    VmName::parse_for("a snapshot", text)
}

fn no_disk(from: &str) -> Problem {
    Problem::new(
        code::INVALID_REQUEST,
        format!("{from} names no disk"),
        "give it as VM/DISK or VM@SNAPSHOT/DISK",
    )
}

fn begun((task, vm): (api::types::Task, api::types::Vm)) -> Begun {
    Begun { task, disks: vm.disks }
}
