//! Goal: the interface answers every request, sound or not, as its types say.
//! Model: a backend in RAM behind the real server, asked by the real client and by raw bytes on the socket.

mod files;
mod fuzz;
mod raw;
mod snapshots;
mod trash;
mod typed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Problem;
use api::types::{
    AddDisk, AttachInfo, Begun, Change, ChangeDisk, Changes, Clients, Clock, CreateVm, Definition, Disk,
    Geometry, Health, Keys, ListSnapshots, ListSpace, NewClean, NewClone, NewExport, NewImport,
    NewPassphrase, NewSnapshot, NewSpace, Progress, Reverted, ScrubEvery, Scrubbing, Snapshot, Snapshots,
    Space, Status, Task, TaskKind, TaskState, TrashItem, TrashTotals, Vm, VmState, VmSummary, WhichChanges,
};
use api::types::{Medium, NewMedium};
use budget::Budget;
use client::Client;
use seam::{Rt, TokioRuntime};
use tempfile::TempDir;

use crate::{Answer, Backend, MediaChanges, Server, Upkeep};

/// VMs in RAM.
#[derive(Default)]
struct Fake {
    vms: Mutex<BTreeMap<String, Vm>>,
    definitions: Mutex<BTreeMap<String, Definition>>,
    /// By `VM@SNAPSHOT`.
    snapshots: Mutex<BTreeMap<String, Snapshot>>,
    trash: Mutex<Vec<TrashItem>>,
    /// Set: answers to `status` and ends of changes wait.
    hangs: tokio::sync::watch::Sender<bool>,
}

impl Fake {
    async fn wait(&self) {
        self.hangs.subscribe().wait_for(|hangs| !hangs).await.unwrap();
    }
}

fn problem(code: &str) -> Problem {
    Problem::new(api::Code::find(code).unwrap(), "why", "what next")
}

fn task(id: u64, kind: TaskKind, state: TaskState) -> Task {
    Task {
        id,
        kind,
        target: "a".to_owned(),
        state,
        started_ms: 1,
        ended_ms: None,
        done_bytes: 2,
        total_bytes: 3,
        rate: 4,
        seconds_left: Some(5),
        message: "from there".to_owned(),
        error: None,
        counts: BTreeMap::new(),
        findings: Vec::new(),
    }
}

impl Upkeep for Fake {
    fn clean(&self, _: NewClean) -> Answer<'_, Task> {
        at_once(Err(problem("task_running")))
    }

    fn scrub(&self) -> Answer<'_, Task> {
        at_once(Err(problem("task_running")))
    }

    fn scrubbing(&self) -> Answer<'_, Scrubbing> {
        at_once(Ok(scrubbing(Some(7))))
    }

    fn set_scrubbing(&self, every: ScrubEvery) -> Answer<'_, Scrubbing> {
        at_once(Ok(scrubbing(every.every_s)))
    }

    fn verify(&self) -> Answer<'_, Task> {
        at_once(Err(problem("task_running")))
    }

    fn keys(&self) -> Answer<'_, Keys> {
        at_once(Ok(Keys { current_epoch: 2, oldest_epoch: 1, held_until_ms: Some(7) }))
    }

    fn clock(&self) -> Answer<'_, Clock> {
        at_once(Ok(Clock { site_ms: 1, host_ms: 2 }))
    }

    fn accept_clock(&self) -> Answer<'_, Clock> {
        at_once(Ok(Clock { site_ms: 2, host_ms: 2 }))
    }

    fn rotate_key(&self) -> Answer<'_, Task> {
        at_once(Err(problem("media_down")))
    }

    fn change_passphrase(&self, _: NewPassphrase) -> Answer<'_, Keys> {
        at_once(Err(problem("no_passphrase")))
    }

    fn compute_space(&self, _: NewSpace) -> Answer<'_, Task> {
        at_once(Err(problem("vm_not_found")))
    }

    fn space(&self, _: ListSpace) -> Answer<'_, Space> {
        at_once(Err(problem("no_space_report")))
    }
}

impl MediaChanges for Fake {
    fn add_medium(&self, _: NewMedium) -> Answer<'_, Medium> {
        at_once(Err(problem("medium_in_use")))
    }

    fn drain_medium<'a>(&'a self, _: &'a str) -> Answer<'a, Task> {
        at_once(Err(problem("medium_not_found")))
    }

    fn replace_medium<'a>(&'a self, _: &'a str, _: NewMedium) -> Answer<'a, Task> {
        at_once(Err(problem("medium_not_found")))
    }
}

fn scrubbing(every_s: Option<u64>) -> Scrubbing {
    Scrubbing { every_s, begun_ms: Some(1), done_ms: None, next_ms: Some(2), damaged: 0, task: None }
}

/// An answer that is there at once.
fn at_once<'a, T: Send + 'a>(answer: Result<T, Problem>) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Backend for Fake {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move {
            self.wait().await;
            Ok(Status {
                site: "0".repeat(32),
                health: Health::Degraded,
                reasons: vec!["a reason".to_owned()],
                next: Vec::new(),
                notices: Vec::new(),
                writable: true,
                can_lose_now: 1,
                unreadable: None,
                geometry: Some(Geometry { data: 4, parity: 2 }),
                vms: 0,
                provisioned_bytes: 1,
                logical_bytes: u64::MAX,
                unique_bytes: 2,
                stored_bytes: 3,
                raw_bytes: 4,
                raw_capacity_bytes: 5,
                usable_bytes: 6,
                likely_bytes: 7,
                buffered_bytes: 7,
                journal_used_percent: 8,
                faults: 9,
                repaired: 10,
                trash: TrashTotals { items: 1, bytes: 2, used_bytes: 3 },
                clients: Clients { connections: 11, connections_max: 12, ..Clients::default() },
                tasks: Vec::new(),
                media: Vec::new(),
            })
        })
    }

    fn vms(&self) -> Answer<'_, Vec<VmSummary>> {
        let vms = self.vms.lock().unwrap();
        let summary = |vm: &Vm| VmSummary { name: vm.name.clone(), created_ms: 1, disks: 1, bytes: 2 };
        Box::pin(std::future::ready(Ok(vms.values().map(summary).collect())))
    }

    fn vm<'a>(&'a self, name: &'a str) -> Answer<'a, Vm> {
        let found = self.vms.lock().unwrap().get(name).cloned();
        let answer = found.ok_or_else(|| problem("vm_not_found"));
        Box::pin(std::future::ready(answer))
    }

    fn create_vm(&self, new: CreateVm) -> Answer<'_, Vm> {
        Box::pin(async move {
            self.wait().await;
            let mut vms = self.vms.lock().unwrap();
            if vms.contains_key(&new.name) {
                return Err(problem("vm_exists"));
            }
            let disk = Disk {
                name: "disk0".to_owned(),
                export: format!("{}/disk0", new.name),
                bytes: new.disks[0].bytes,
                used_bytes: Some(0),
                clients: 0,
            };
            let vm = Vm {
                name: new.name.clone(),
                state: VmState::Ready,
                created_ms: 1,
                has_definition: false,
                disks: vec![disk],
                files: Vec::new(),
            };
            vms.insert(new.name, vm.clone());
            Ok(vm)
        })
    }

    fn rename_vm<'a>(&'a self, name: &'a str, new: &'a str) -> Answer<'a, Vm> {
        let mut vms = self.vms.lock().unwrap();
        let Some(mut vm) = vms.remove(name) else { return at_once(Err(problem("vm_not_found"))) };
        vm.name = new.to_owned();
        vms.insert(new.to_owned(), vm.clone());
        at_once(Ok(vm))
    }

    fn add_disk<'a>(&'a self, name: &'a str, new: AddDisk) -> Answer<'a, Vm> {
        let mut vms = self.vms.lock().unwrap();
        let Some(vm) = vms.get_mut(name) else { return at_once(Err(problem("vm_not_found"))) };
        let bytes = match new {
            AddDisk::Empty(new) => new.bytes,
            AddDisk::Clone(new) => match vm.disks.iter().find(|disk| disk.export == new.from) {
                Some(disk) => disk.bytes,
                None => return at_once(Err(problem("disk_not_found"))),
            },
        };
        let disk = Disk { name: format!("disk{}", vm.disks.len()), bytes, ..vm.disks[0].clone() };
        vm.disks.push(disk);
        at_once(Ok(vm.clone()))
    }

    fn remove_disk<'a>(&'a self, name: &'a str, disk: &'a str) -> Answer<'a, ()> {
        let mut vms = self.vms.lock().unwrap();
        let Some(vm) = vms.get_mut(name) else { return at_once(Err(problem("vm_not_found"))) };
        vm.disks.retain(|found| found.name != disk);
        at_once(Ok(()))
    }

    fn change_disk<'a>(&'a self, name: &'a str, disk: &'a str, change: ChangeDisk) -> Answer<'a, Vm> {
        let mut vms = self.vms.lock().unwrap();
        let Some(vm) = vms.get_mut(name) else { return at_once(Err(problem("vm_not_found"))) };
        let Some(disk) = vm.disks.iter_mut().find(|found| found.name == disk) else {
            return at_once(Err(problem("disk_not_found")));
        };
        if change.bytes < disk.bytes && !change.shrink {
            return at_once(Err(problem("would_shrink")));
        }
        disk.bytes = change.bytes;
        at_once(Ok(vm.clone()))
    }

    fn attach_info<'a>(&'a self, name: &'a str, disk: &'a str) -> Answer<'a, AttachInfo> {
        let text = |text: &str| text.to_owned();
        at_once(Ok(AttachInfo {
            export: format!("{name}/{disk}"),
            socket: text("socket"),
            uri: text("uri"),
            qemu: vec![text("line")],
            libvirt: text("<disk/>"),
        }))
    }

    fn definition<'a>(&'a self, name: &'a str) -> Answer<'a, Definition> {
        at_once(self.definitions.lock().unwrap().get(name).cloned().ok_or_else(|| problem("no_definition")))
    }

    fn set_definition<'a>(&'a self, name: &'a str, definition: Definition) -> Answer<'a, ()> {
        self.definitions.lock().unwrap().insert(name.to_owned(), definition);
        at_once(Ok(()))
    }

    fn snapshots(&self, which: ListSnapshots) -> Answer<'_, Snapshots> {
        let snapshots = self.snapshots.lock().unwrap();
        let behind = |name: &String| which.after.as_ref().is_none_or(|after| name > after);
        let found = snapshots
            .iter()
            .filter(|(name, found)| behind(name) && which.vm.as_ref().is_none_or(|vm| found.vm == *vm));
        let items: Vec<_> = found.map(|(_, found)| found.clone()).take(which.limit as usize).collect();
        let last = items.last().filter(|_| items.len() as u64 == which.limit);
        let next = last.map(|last| format!("{}@{}", last.vm, last.name));
        at_once(Ok(Snapshots { items, next }))
    }

    fn snapshot<'a>(&'a self, vm: &'a str, new: NewSnapshot) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            self.wait().await;
            self.keep(vm, new.name.as_deref().unwrap_or("s1")).await
        })
    }

    fn show_snapshot<'a>(&'a self, vm: &'a str, name: &'a str) -> Answer<'a, Snapshot> {
        let found = self.snapshots.lock().unwrap().get(&format!("{vm}@{name}")).cloned();
        at_once(found.ok_or_else(|| problem("snapshot_not_found")))
    }

    fn rename_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, new: &'a str) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            let gone = self.snapshots.lock().unwrap().remove(&format!("{vm}@{name}"));
            gone.ok_or_else(|| problem("snapshot_not_found"))?;
            self.keep(vm, new).await
        })
    }

    fn changes<'a>(
        &'a self,
        vm: &'a str,
        snapshot: Option<&'a str>,
        which: WhichChanges,
    ) -> Answer<'a, Changes> {
        // What was asked, to be seen in the answer.
        let length =
            (vm.len() + snapshot.map_or(0, str::len) + which.against.map_or(0, |old| old.len())) as u64;
        let items = vec![Change { offset: which.offset, length, mapped: which.disk == "disk0" }];
        at_once(Ok(Changes { items, next: Some(which.limit) }))
    }

    fn revert<'a>(&'a self, vm: &'a str, snapshot: &'a str) -> Answer<'a, Reverted> {
        Box::pin(async move {
            self.show_snapshot(vm, snapshot).await?;
            Ok(Reverted { vm: self.vm(vm).await?, kept_as: self.keep(vm, "s2").await? })
        })
    }

    fn clone_vm(&self, new: NewClone) -> Answer<'_, Vm> {
        Box::pin(async move {
            let (vm, _) = new.from.split_once('@').unwrap_or((&new.from, ""));
            let vm = Vm { name: new.name, ..self.vm(vm).await? };
            self.vms.lock().unwrap().insert(vm.name.clone(), vm.clone());
            Ok(vm)
        })
    }

    fn tasks(&self) -> Answer<'_, Vec<Task>> {
        at_once(Ok(vec![task(2, TaskKind::Import, TaskState::Done)]))
    }

    fn task(&self, id: u64) -> Answer<'_, Task> {
        at_once(if id == 2 {
            Ok(task(2, TaskKind::Import, TaskState::Done))
        } else {
            Err(problem("task_not_found"))
        })
    }

    fn cancel_task(&self, id: u64) -> Answer<'_, Task> {
        at_once(Ok(task(id, TaskKind::Import, TaskState::Cancelled)))
    }

    fn begin_import(&self, new: NewImport) -> Answer<'_, Begun> {
        Box::pin(async move {
            let vm = self.create_vm(CreateVm { name: new.name, disks: new.disks }).await?;
            Ok(Begun { task: task(7, TaskKind::Import, TaskState::Running), disks: vm.disks })
        })
    }

    fn begin_export(&self, new: NewExport) -> Answer<'_, Begun> {
        Box::pin(async move {
            let vm = self.vm(&new.vm).await?;
            Ok(Begun { task: task(8, TaskKind::Export, TaskState::Running), disks: vm.disks })
        })
    }

    fn progress(&self, kind: TaskKind, id: u64, progress: Progress) -> Answer<'_, Task> {
        let Progress { done_bytes, total_bytes } = progress;
        at_once(Ok(Task { done_bytes, total_bytes, ..task(id, kind, TaskState::Running) }))
    }

    fn finish(&self, kind: TaskKind, id: u64) -> Answer<'_, Task> {
        at_once(Ok(task(id, kind, TaskState::Done)))
    }

    fn give_up(&self, kind: TaskKind, id: u64, reason: String) -> Answer<'_, Task> {
        at_once(Ok(Task { error: Some(reason), ..task(id, kind, TaskState::Failed) }))
    }
}

/// A server over [`Fake`].
struct Bench {
    temp: TempDir,
    runtime: tokio::runtime::Runtime,
    fake: Arc<Fake>,
    budget: Budget,
    server: Option<Server>,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let mut bench = Self {
            temp: TempDir::new().unwrap(),
            runtime: runtime.unwrap(),
            fake: Arc::new(Fake::default()),
            budget: Budget::new(budget::BYTES_MIN),
            server: None,
        };
        bench.server = Some(bench.start());
        bench
    }

    fn start(&self) -> Server {
        let _guard = self.runtime.enter();
        Server::start(self.rt(), self.fake.clone(), &self.socket(), self.budget.clone()).unwrap()
    }

    fn rt(&self) -> Rt {
        Arc::new(TokioRuntime::new(self.runtime.handle().clone()))
    }

    fn socket(&self) -> PathBuf {
        self.temp.path().join("api.sock")
    }

    fn client(&self, limit: Duration) -> Client {
        Client::new(self.rt(), &self.socket(), limit)
    }
}
