//! What does the work behind the interface.

mod files;
mod media;
mod trash;
mod upkeep;

use seam::BoxFuture;
use site::{Site, Version, VmName};

use crate::problem::Problem;
use crate::types::{
    AddDisk, AttachInfo, Begun, Change, ChangeDisk, Changes, Clients, CreateVm, Definition, Disk, Geometry,
    Health, ListSnapshots, Medium, MediumState, Moving, NewClone, NewExport, NewImport, NewSnapshot,
    Progress, Reverted, Snapshot, SnapshotDisk, Snapshots, Status, Task, TaskKind, TaskState, TrashTotals,
    Unreadable, Vm, VmState, VmSummary, WhichChanges,
};

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
            let running = |task: &site::Task| task.state == site::TaskState::Running;
            let tasks = Self::tasks(self).await?.into_iter().filter(running).map(Task::from);
            Ok(Status { tasks: tasks.collect(), ..Self::status(self).await?.into() })
        })
    }

    fn vms(&self) -> Answer<'_, Vec<VmSummary>> {
        Box::pin(async move { Ok(Self::vms(self).await?.into_iter().map(VmSummary::from).collect()) })
    }

    fn vm<'a>(&'a self, name: &'a str) -> Answer<'a, Vm> {
        Box::pin(async move { Ok(Self::vm(self, &VmName::parse(name)?).await?.into()) })
    }

    fn create_vm(&self, new: CreateVm) -> Answer<'_, Vm> {
        Box::pin(async move {
            let sizes: Vec<u64> = new.disks.iter().map(|disk| disk.bytes).collect();
            Ok(Self::create_vm(self, &VmName::parse(&new.name)?, &sizes).await?.into())
        })
    }

    fn rename_vm<'a>(&'a self, name: &'a str, new: &'a str) -> Answer<'a, Vm> {
        Box::pin(async move {
            Ok(Self::rename_vm(self, &VmName::parse(name)?, &VmName::parse(new)?).await?.into())
        })
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
            Ok(vm.into())
        })
    }

    fn remove_disk<'a>(&'a self, name: &'a str, disk: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { Ok(Self::remove_disk(self, &VmName::parse(name)?, disk).await?) })
    }

    fn change_disk<'a>(&'a self, name: &'a str, disk: &'a str, change: ChangeDisk) -> Answer<'a, Vm> {
        Box::pin(async move {
            let name = VmName::parse(name)?;
            Ok(Self::resize_disk(self, &name, disk, change.bytes, change.shrink).await?.into())
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
                return Err(Problem::new("invalid_request", format!("{vm} is no snapshot"), hint));
            }
            let limit = which.limit as usize;
            let found = Self::snapshots(self, vm.as_ref(), after.as_ref(), limit).await?;
            let last = found.last().filter(|_| found.len() >= limit);
            let next = last.map(|last| format!("{}@{}", last.vm, last.name));
            Ok(Snapshots { items: found.into_iter().map(Snapshot::from).collect(), next })
        })
    }

    fn snapshot<'a>(&'a self, vm: &'a str, new: NewSnapshot) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            let name = new.name.as_deref().map(snapshot_name).transpose()?;
            Ok(Self::snapshot(self, &VmName::parse(vm)?, name.as_ref()).await?.into())
        })
    }

    fn show_snapshot<'a>(&'a self, vm: &'a str, name: &'a str) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            Ok(Self::show_snapshot(self, &VmName::parse(vm)?, &snapshot_name(name)?).await?.into())
        })
    }

    fn rename_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, new: &'a str) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            let (vm, name, new) = (VmName::parse(vm)?, snapshot_name(name)?, snapshot_name(new)?);
            Ok(Self::rename_snapshot(self, &vm, &name, &new).await?.into())
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
            Ok(Reverted { vm: vm.into(), kept_as: kept_as.into() })
        })
    }

    fn clone_vm(&self, new: NewClone) -> Answer<'_, Vm> {
        Box::pin(async move {
            let (from, name) = (Version::parse(&new.from)?, VmName::parse(&new.name)?);
            Ok(Self::clone_vm(self, &from, &name).await?.into())
        })
    }

    fn tasks(&self) -> Answer<'_, Vec<Task>> {
        Box::pin(async move { Ok(Self::tasks(self).await?.into_iter().map(Task::from).collect()) })
    }

    fn task(&self, id: u64) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::task(self, id).await?.into()) })
    }

    fn cancel_task(&self, id: u64) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::cancel_task(self, id).await?.into()) })
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
            Ok(Self::task_progress(self, id, kind.into(), done_bytes, total_bytes).await?.into())
        })
    }

    fn finish(&self, kind: TaskKind, id: u64) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::finish_task(self, id, kind.into()).await?.into()) })
    }

    fn give_up(&self, kind: TaskKind, id: u64, reason: String) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::fail_task(self, id, kind.into(), &reason).await?.into()) })
    }
}

fn snapshot_name(text: &str) -> site::Result<VmName> {
    VmName::parse_for("a snapshot", text)
}

fn no_disk(from: &str) -> Problem {
    Problem::new("invalid_request", format!("{from} names no disk"), "give it as VM/DISK or VM@SNAPSHOT/DISK")
}

fn begun((task, vm): (site::Task, site::Vm)) -> Begun {
    Begun { task: task.into(), disks: vm.disks.into_iter().map(Disk::from).collect() }
}

impl From<TaskKind> for site::TaskKind {
    fn from(kind: TaskKind) -> Self {
        match kind {
            TaskKind::Import => Self::Import,
            TaskKind::Export => Self::Export,
            TaskKind::Clean => Self::Clean,
            TaskKind::Scrub => Self::Scrub,
            TaskKind::Verify => Self::Verify,
            TaskKind::Space => Self::Space,
            TaskKind::Rekey => Self::Rekey,
            TaskKind::Drain => Self::Drain,
            TaskKind::Rebuild => Self::Rebuild,
        }
    }
}

impl From<site::Task> for Task {
    fn from(task: site::Task) -> Self {
        Self {
            id: task.id,
            kind: match task.kind {
                site::TaskKind::Import => TaskKind::Import,
                site::TaskKind::Export => TaskKind::Export,
                site::TaskKind::Clean => TaskKind::Clean,
                site::TaskKind::Scrub => TaskKind::Scrub,
                site::TaskKind::Verify => TaskKind::Verify,
                site::TaskKind::Space => TaskKind::Space,
                site::TaskKind::Rekey => TaskKind::Rekey,
                site::TaskKind::Drain => TaskKind::Drain,
                site::TaskKind::Rebuild => TaskKind::Rebuild,
            },
            target: task.target,
            state: match task.state {
                site::TaskState::Running => TaskState::Running,
                site::TaskState::Done => TaskState::Done,
                site::TaskState::Failed => TaskState::Failed,
                site::TaskState::Cancelled => TaskState::Cancelled,
            },
            started_ms: task.started_ms,
            ended_ms: task.ended_ms,
            done_bytes: task.done_bytes,
            total_bytes: task.total_bytes,
            rate: task.rate,
            seconds_left: task.seconds_left,
            message: task.message,
            error: task.error,
            counts: task.counts,
            findings: task.findings,
        }
    }
}

/// What cannot be read, when there is such.
fn unreadable(unreadable: site::Unreadable) -> Option<Unreadable> {
    let is_some = !unreadable.is_none();
    let site::Unreadable { short, damaged, affected, affected_count } = unreadable;
    is_some.then_some(Unreadable {
        short_containers: short,
        damaged_containers: damaged,
        affected,
        affected_count,
    })
}

impl From<site::Status> for Status {
    fn from(status: site::Status) -> Self {
        Self {
            site: status.site.to_string(),
            health: match status.health {
                site::Health::Ok => Health::Ok,
                site::Health::Degraded => Health::Degraded,
                site::Health::Failed => Health::Failed,
            },
            reasons: status.reasons,
            next: status.next,
            notices: status.notices,
            writable: status.writable,
            can_lose_now: status.can_lose_now,
            unreadable: unreadable(status.unreadable),
            geometry: status.geometry.map(|(data, parity)| Geometry { data, parity }),
            vms: status.vms,
            provisioned_bytes: status.provisioned_bytes,
            logical_bytes: status.logical_bytes,
            unique_bytes: status.unique_bytes,
            stored_bytes: status.stored_bytes,
            raw_bytes: status.raw_bytes,
            raw_capacity_bytes: status.raw_capacity_bytes,
            usable_bytes: status.usable_bytes,
            likely_bytes: status.likely_bytes,
            buffered_bytes: status.buffered_bytes,
            journal_used_percent: status.journal_used_percent,
            faults: status.faults,
            repaired: status.repaired,
            trash: TrashTotals {
                items: status.trash.items,
                bytes: status.trash.bytes,
                used_bytes: status.trash.used_bytes,
            },
            clients: Clients {
                connections: status.clients.connections,
                connections_max: status.clients.connections_max,
                refused: status.clients.refused,
                cut_off: status.clients.cut_off,
                memory_used_bytes: status.clients.memory_used_bytes,
                memory_bytes: status.clients.memory_bytes,
            },
            tasks: Vec::new(),
            media: status.media.into_iter().map(Medium::from).collect(),
        }
    }
}

impl From<site::MediumStatus> for Medium {
    fn from(medium: site::MediumStatus) -> Self {
        Self {
            id: medium.id.to_string(),
            path: medium.path.display().to_string(),
            bytes: medium.bytes,
            state: match medium.state {
                site::MediumState::Up => MediumState::Up,
                site::MediumState::Full => MediumState::Full,
                site::MediumState::Down => MediumState::Down,
            },
            leaving: medium.leaving,
            moving: medium.moving.map(|(done_bytes, left_bytes)| Moving { done_bytes, left_bytes }),
            reason: medium.reason,
        }
    }
}

impl From<site::VmSummary> for VmSummary {
    fn from(vm: site::VmSummary) -> Self {
        Self { name: vm.name, created_ms: vm.created_ms, disks: vm.disks, bytes: vm.bytes }
    }
}

impl From<site::Disk> for Disk {
    fn from(disk: site::Disk) -> Self {
        Self {
            name: disk.name,
            export: disk.export,
            bytes: disk.bytes,
            used_bytes: disk.used_bytes,
            clients: disk.clients,
        }
    }
}

impl From<site::Vm> for Vm {
    fn from(vm: site::Vm) -> Self {
        Self {
            name: vm.name,
            state: match vm.state {
                site::VmState::Ready => VmState::Ready,
                site::VmState::Importing => VmState::Importing,
            },
            created_ms: vm.created_ms,
            has_definition: vm.has_definition,
            disks: vm.disks.into_iter().map(Disk::from).collect(),
            files: vm.files.into_iter().map(Disk::from).collect(),
        }
    }
}

impl From<site::Snapshot> for Snapshot {
    fn from(snapshot: site::Snapshot) -> Self {
        let disk = |disk: site::SnapshotDisk| SnapshotDisk {
            name: disk.name,
            export: disk.export,
            bytes: disk.bytes,
        };
        Self {
            vm: snapshot.vm,
            name: snapshot.name,
            created_ms: snapshot.created_ms,
            has_definition: snapshot.has_definition,
            held_until_ms: snapshot.held_until_ms,
            enforced_until_ms: snapshot.enforced_until_ms,
            disks: snapshot.disks.into_iter().map(disk).collect(),
            files: snapshot.files.into_iter().map(disk).collect(),
        }
    }
}
