//! A site that runs: its parts, what can be asked of it, and its end.

mod trash;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use api::types::{
    AttachInfo, Change, ChangeAttributes, ListVms, Snapshot, Status, Task, TaskKind, TaskState, TrashItem,
    Vm, VmSummary,
};
use api::{Error, Result, Version, VmName, code};
use budget::Budget;
use data::Superblock;
use engine::{Engine, EngineError, EngineErrorKind};
use seal::KeyRing;
use seam::{BoxFuture, Rt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use units::MediumId;

use crate::attributes::Pick;
use crate::clients::ClientLimits;
use crate::definition;
use crate::directory::Directory;
use crate::home::{Away, Home};
use crate::keeper;
use crate::lock::Lock;
use crate::probe;
use crate::rekey::Rekey;
use crate::status::{Judging, judge};
use crate::tasks::Tasks;
use crate::trash::Deletion;
use crate::turns::Turns;
use crate::vms::Vms;

/// How long clients have to take their replies when the site stops.
const CLIENTS_WITHIN: Duration = Duration::from_secs(10);
/// How long the engine has to write its buffer; what it does not, the journal holds.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);

/// How often is looked whether the engine has ended by itself.
const ENDED_LOOK: Duration = Duration::from_secs(1);
/// How long an engine that writes nothing any more may take to end.
const ABANDON_WITHIN: Duration = Duration::from_secs(5);

/// What a site is made of.
pub(crate) struct Parts {
    pub(crate) rt: Rt,
    pub(crate) home: Arc<dyn Home>,
    pub(crate) directory: Directory,
    pub(crate) engine: Engine,
    /// Media that could not be opened, with the reason.
    pub(crate) absent: Vec<(MediumId, String)>,
    /// The superblock whose keys every medium must carry, as it was at the start.
    pub(crate) keys_from: Superblock,
    /// The site's secrets, opened.
    pub(crate) ring: KeyRing,
    /// How long clients of tasks may be silent; else as tasks have it.
    pub(crate) task_patience: Option<Duration>,
    /// What clients may take of the server.
    pub(crate) clients: ClientLimits,
    /// Who else may open the disks.
    pub(crate) nbd_group: Option<u32>,
    /// Held as long as the site runs.
    pub(crate) _lock: Arc<Lock>,
}

pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) vms: Vms,
    pub(crate) tasks: Tasks,
    /// Changes of a VM wait for each other.
    pub(crate) turns: Turns,
    away: Mutex<BTreeMap<MediumId, Away>>,
    server: tokio::sync::Mutex<Option<nbd::Server>>,
    /// What VMs and snapshots take, as last computed.
    pub(crate) space: Mutex<Option<Arc<api::types::Space>>>,
    /// The superblock whose keys every medium must carry.
    pub(crate) keys: tokio::sync::Mutex<Superblock>,
    /// What is to be done of a rotation of the data key.
    pub(crate) rekey: Mutex<Rekey>,
    /// A drain is at work, or comes to its end.
    pub(crate) draining: Mutex<bool>,
    /// Why the media of a node that is to be emptied do not leave.
    pub(crate) drain_refused: Mutex<Option<String>>,
    /// What was found lost before the start is known to the engine.
    pub(crate) damage_is_loaded: AtomicBool,
    /// Held while media join or leave.
    pub(crate) media_turn: tokio::sync::Mutex<()>,
    /// Held while the record of scrubs is changed.
    pub(crate) scrubbing: tokio::sync::Mutex<()>,
    /// What media lacked when a scrub was last begun for it, and how often each had come back.
    pub(crate) scrubbed_for: Mutex<BTreeMap<MediumId, (u64, u64)>>,
    pub(crate) stopping: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn away(&self) -> MutexGuard<'_, BTreeMap<MediumId, Away>> {
        // Whole after every statement.
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a close that failed so is one that the next start completes.
fn can_wait(error: &EngineError) -> bool {
    matches!(error.kind, EngineErrorKind::TooFewMedia | EngineErrorKind::NoSpace)
}

/// A running site. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Site({})", self.shared.parts.directory.root().display())
    }
}

impl Site {
    pub(crate) fn new(parts: Parts) -> Self {
        let vms = Vms {
            engine: parts.engine.clone(),
            uses: Arc::default(),
            running: Arc::default(),
            definitions: Arc::default(),
            trash: Arc::default(),
        };
        let tasks = Tasks::new(parts.rt.clone(), vms.clone(), parts.task_patience);
        let away = parts.absent.iter().cloned().map(|(id, reason)| (id, Away::for_now(reason)));
        let away = Mutex::new(away.collect());
        let (stopping, _) = watch::channel(false);
        let rt = parts.rt.clone();
        let is_due = crate::rekey::is_due(&parts.keys_from.epochs);
        let rekey = Mutex::new(if is_due { Rekey::Due } else { Rekey::Idle });
        let keys = tokio::sync::Mutex::new(parts.keys_from.clone());
        let shared = Arc::new(Shared {
            parts,
            vms,
            tasks,
            turns: Turns::default(),
            away,
            server: tokio::sync::Mutex::default(),
            space: Mutex::default(),
            draining: Mutex::default(),
            drain_refused: Mutex::default(),
            damage_is_loaded: AtomicBool::new(false),
            media_turn: tokio::sync::Mutex::default(),
            scrubbing: tokio::sync::Mutex::default(),
            scrubbed_for: Mutex::default(),
            keys,
            rekey,
            stopping,
        });
        let clock = rt.clone();
        spawn_loop(&shared, "media probe", move |site, stopping| probe::run(site, stopping, clock.clone()));
        spawn_loop(&shared, "task watch", watch_tasks);
        spawn_loop(&shared, "keeper", keeper::run);
        Self { shared }
    }

    /// Waits until the engine has ended by itself: it serves nothing any more, and the site is to be started again.
    pub async fn ended(&self) {
        while !self.engine().is_superseded() {
            self.runtime().sleep(ENDED_LOOK).await;
        }
    }

    /// The site's directory.
    pub fn directory(&self) -> &Directory {
        &self.shared.parts.directory
    }

    /// The runtime it runs on.
    pub fn runtime(&self) -> &Rt {
        &self.shared.parts.rt
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.shared.parts.engine
    }

    /// Serves the disks on the NBD socket.
    ///
    /// # Errors
    /// `nbd_socket` when the socket cannot be claimed; `permission_denied` when it cannot be given to its group.
    pub async fn serve(&self) -> Result<()> {
        let mut server = self.shared.server.lock().await;
        if server.is_some() {
            return Ok(());
        }
        let exports = Arc::new(self.shared.vms.clone());
        let path = self.directory().nbd_socket();
        let budget = self.budget().clone();
        let started =
            nbd::Server::start(self.runtime().clone(), exports, &path, self.nbd_limits(), budget).await;
        *server =
            Some(started.map_err(|error| Error::new(code::NBD_SOCKET, error.to_string()).caused_by(error))?);
        self.shared.parts.nbd_group.map_or(Ok(()), |group| crate::group::admit(self.directory(), group))
    }

    /// Serves the disks to those whom [`Site::serve_client`] is given.
    pub async fn serve_without_socket(&self) {
        let mut server = self.shared.server.lock().await;
        if server.is_none() {
            let exports = Arc::new(self.shared.vms.clone());
            let (rt, budget) = (self.runtime().clone(), self.budget().clone());
            *server = Some(nbd::Server::without_socket(rt, exports, self.nbd_limits(), budget));
        }
    }

    fn nbd_limits(&self) -> nbd::Limits {
        nbd::Limits { connections: self.shared.parts.clients.connections, ..nbd::Limits::default() }
    }

    /// Memory for what clients send and are sent: every front end asks it.
    pub fn budget(&self) -> &Budget {
        &self.shared.parts.clients.budget
    }

    /// Serves an NBD client whom another port let in, until it leaves or is hung up on, as when disks are not served.
    /// Dropping what is given hangs up.
    pub async fn serve_client<S>(&self, stream: S) -> BoxFuture<'static, ()>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        match &*self.shared.server.lock().await {
            Some(server) => server.serve(stream),
            None => Box::pin(async {}),
        }
    }

    /// Stops in good order: clients are answered and cut off, the write buffer goes to the log, the journal ends.
    /// What could not be written is in the journal and found at the next start.
    ///
    /// That is no error while media are missing or full.
    ///
    /// # Errors
    /// When the engine could not write all for another reason, or not in time. The site is stopped all the same.
    pub async fn stop(&self) -> Result<()> {
        self.shared.stopping.send_replace(true);
        if let Some(server) = self.shared.server.lock().await.take() {
            let cut_off = server.stop(CLIENTS_WITHIN).await;
            if cut_off > 0 {
                tracing::warn!(cut_off, "clients did not take their replies in time");
            }
        }
        match seam::timeout(&**self.runtime(), CLOSE_WITHIN, self.engine().close()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if can_wait(&error) => {
                tracing::warn!(%error, "the write buffer stays in the journal until the next start");
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(seam::Elapsed) => {
                let reason = format!("the write buffer was not written within {} s", CLOSE_WITHIN.as_secs());
                Err(Error::new(code::CLOSE_TIMEOUT, reason)
                    .hint("nothing is lost: the journal holds it until the next start"))
            }
        }
    }

    /// Ends what serves a site that another process has taken over: clients are hung up on, and find it there.
    pub async fn abandon(&self) {
        self.shared.stopping.send_replace(true);
        drop(self.shared.server.lock().await.take());
        // It can write nothing any more; what it was told of as done the other has.
        let closed = seam::timeout(&**self.runtime(), ABANDON_WITHIN, self.engine().close()).await;
        tracing::debug!(?closed, "the engine is given up");
    }

    /// How the site is.
    pub async fn status(&self) -> Result<Status> {
        let engine = self.engine().status().await;
        let exposure = self.shared.named_exposure(engine.exposure.clone()).await;
        let records = self.shared.vms.records().await?;
        let vms = records.iter().filter(|(_, record)| record.import.is_none()).count();
        let disks = records.iter().flat_map(|(_, record)| record.ids());
        let provisioned_bytes = disks.map(|disk| self.engine().disk_bytes(disk).unwrap_or(0)).sum();
        let parts = &self.shared.parts;
        let (manifest, shared_devices) = (parts.home.manifest(), parts.home.shared_devices());
        let shown = |entry: &crate::manifest::Entry| (entry.id(), parts.home.shown(entry), entry.bytes);
        let media = manifest.media.iter().map(shown).collect();
        let away = self.shared.away().clone();
        let writable = self.engine().is_writable();
        let removed = parts.home.removed();
        let mut status =
            judge(manifest.site(), engine, writable, media, (&away, &removed), &shared_devices, vms);
        let trash = self.shared.vms.trash_totals().await?;
        status.0.provisioned_bytes = provisioned_bytes;
        status.add_trash(trash);
        status.add_unreadable(self.shared.unreadable(&exposure).await?);
        status.add_clock(self.clock());
        status.add_keys(&self.keys().await);
        // Held while the server starts and stops, when it has none.
        let clients =
            self.shared.server.try_lock().ok().and_then(|server| server.as_ref().map(nbd::Server::clients));
        status.add_clients(&self.shared.parts.clients, clients);
        let refused = self.shared.drain_refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Judging(mut status) = status;
        let running = |task: &Task| task.state == TaskState::Running;
        status.tasks = self.tasks().await?.into_iter().filter(running).collect();
        status.notices.extend(refused.map(|why| format!("a node that is to be emptied cannot be: {why}")));
        Ok(status)
    }

    /// Makes a VM with disks `disk0`, `disk1`, ... of these sizes in bytes.
    ///
    /// # Errors
    /// `vm_exists`, `invalid_size`, `disk_count`, `too_many_vms`, and what the engine says.
    pub async fn create_vm(&self, name: &VmName, disks: &[u64]) -> Result<Vm> {
        self.shared.vms.create(&**self.runtime(), name, disks).await
    }

    /// The VMs that `which` asks for, by name.
    ///
    /// # Errors
    /// `invalid_request` and `invalid_name` for a question that nothing could answer.
    pub async fn vms(&self, which: &ListVms) -> Result<Vec<VmSummary>> {
        self.shared.vms.summaries(&Pick::new(which)?).await
    }

    /// Changes the folder, tags and labels of a VM, whoever has its disks open.
    ///
    /// # Errors
    /// `vm_not_found`; `invalid_name`; `invalid_request` for too many.
    pub async fn change_attributes(&self, name: &VmName, change: &ChangeAttributes) -> Result<Vm> {
        self.turn(&[name], || Box::pin(self.shared.vms.change_attributes(name, change))).await
    }

    /// A VM by name.
    ///
    /// # Errors
    /// `vm_not_found`.
    pub async fn vm(&self, name: &VmName) -> Result<Vm> {
        self.shared.vms.show(name).await
    }

    /// Deletes a VM with its disks: into the trash, which is what is given, or for good.
    ///
    /// # Errors
    /// `vm_not_found`; `vm_has_snapshots`; `snapshot_held`; `vm_in_use` while a client has a disk open; `vm_importing`. Changes of one VM
    /// come one after the other; `vm_changed` when tasks keep changing it, `busy` when those before do not end.
    pub async fn delete_vm(&self, name: &VmName, how: Deletion) -> Result<Option<TrashItem>> {
        self.turn(&[name], || Box::pin(self.shared.vms.delete(name, how))).await
    }

    /// Gives a VM another name.
    ///
    /// # Errors
    /// `vm_in_use`: a client that lost its connection would not find its disk again. `vm_exists`.
    pub async fn rename_vm(&self, name: &VmName, new: &VmName) -> Result<Vm> {
        self.turn(&[name], || Box::pin(self.shared.vms.rename(name, new))).await
    }

    /// Adds an empty disk of `bytes`.
    ///
    /// # Errors
    /// `invalid_size`, `disk_count`.
    pub async fn add_disk(&self, name: &VmName, bytes: u64) -> Result<Vm> {
        self.turn(&[name], || Box::pin(self.shared.vms.add_disk(name, bytes))).await
    }

    /// Removes a disk with its data.
    ///
    /// # Errors
    /// `disk_not_found`; `vm_in_use` while a client has this disk open; `disk_count` for the last one.
    pub async fn remove_disk(&self, name: &VmName, disk: &str) -> Result<()> {
        self.turn(&[name], || Box::pin(self.shared.vms.remove_disk(name, disk))).await
    }

    /// Changes the size of a disk. Clients that have it open see a larger one when they open it again. After a kill in
    /// the middle of a shrink the size may still be the old one, and the end of the disk zeros.
    ///
    /// # Errors
    /// `would_shrink` without `shrink`; `vm_in_use` when it would shrink beneath a client; `disk_not_found`;
    /// `invalid_size`.
    pub async fn resize_disk(&self, name: &VmName, disk: &str, bytes: u64, shrink: bool) -> Result<Vm> {
        self.turn(&[name], || Box::pin(self.shared.vms.resize_disk(name, disk, bytes, shrink))).await
    }

    /// Stores a text with a VM; an empty one removes it.
    ///
    /// # Errors
    /// `definition_too_large`.
    pub async fn set_definition(&self, name: &VmName, text: &str) -> Result<()> {
        self.turn(&[name], || {
            Box::pin(self.shared.vms.set_definition(name, text, self.definition_bytes_max()))
        })
        .await
    }

    /// Makes a change of VMs behind those that came before it.
    pub(crate) async fn turn<'a, T>(
        &'a self,
        vms: &[&VmName],
        change: impl Fn() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        self.shared.turns.change(&**self.runtime(), vms, change).await
    }

    fn definition_bytes_max(&self) -> usize {
        definition::bytes_max(self.shared.parts.keys_from.params.segment_bytes)
    }

    /// The text stored with a VM.
    ///
    /// # Errors
    /// `no_definition`.
    pub async fn definition(&self, name: &VmName) -> Result<String> {
        self.shared.vms.definition(name).await
    }

    /// Makes a snapshot of a VM: all its disks at one instant, and its definition. Without a name it gets the next of `s1`,
    /// `s2`, ...
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_exists`, `vm_importing`, and what the engine says.
    pub async fn snapshot(&self, vm: &VmName, name: Option<&VmName>) -> Result<Snapshot> {
        self.turn(&[vm], || Box::pin(self.shared.vms.snapshot(&**self.runtime(), vm, name))).await
    }

    /// Snapshots of one VM or all, by VM and name; at most `limit`, and 1,000, of those behind `after`.
    ///
    /// # Errors
    /// `vm_not_found`.
    pub async fn snapshots(
        &self,
        vm: Option<&VmName>,
        after: Option<&Version>,
        limit: usize,
    ) -> Result<Vec<Snapshot>> {
        self.shared.vms.snapshots(vm, after, limit).await
    }

    /// A snapshot by name.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`.
    pub async fn show_snapshot(&self, vm: &VmName, name: &VmName) -> Result<Snapshot> {
        self.shared.vms.show_snapshot(vm, name).await
    }

    /// Deletes a snapshot: into the trash, which is what is given, or `now` for good. Others are not touched, nor VMs and
    /// disks that began as it.
    ///
    /// # Errors
    /// `snapshot_not_found`; `snapshot_held`; `vm_in_use` while a client reads it.
    pub async fn delete_snapshot(&self, vm: &VmName, name: &VmName, now: bool) -> Result<Option<TrashItem>> {
        self.turn(&[vm], || Box::pin(self.shared.vms.delete_snapshot(vm, name, now))).await
    }

    /// Holds a snapshot until a time, RFC 3339 or a span from now on such as `30d`: no command deletes it before.
    ///
    /// # Errors
    /// `snapshot_not_found`, `invalid_time`; `hold_shorter` than the hold it has.
    pub async fn hold_snapshot(&self, vm: &VmName, name: &VmName, until: &str) -> Result<Snapshot> {
        self.turn(&[vm], || Box::pin(self.shared.vms.hold_snapshot(vm, name, until))).await
    }

    /// Gives a snapshot another name.
    ///
    /// # Errors
    /// `snapshot_not_found`, `snapshot_exists`; `vm_in_use` while a client reads it.
    pub async fn rename_snapshot(&self, vm: &VmName, name: &VmName, new: &VmName) -> Result<Snapshot> {
        self.turn(&[vm], || Box::pin(self.shared.vms.rename_snapshot(vm, name, new))).await
    }

    /// Makes a VM that begins as another is at this instant, or was at a snapshot. It copies no data.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`, `vm_exists`, `too_many_vms`.
    pub async fn clone_vm(&self, from: &Version, new: &VmName) -> Result<Vm> {
        self.turn(&[&from.vm], || {
            Box::pin(self.shared.vms.clone_vm(&**self.runtime(), from, new, self.definition_bytes_max()))
        })
        .await
    }

    /// Adds a disk to a VM that begins as a disk of a VM or snapshot is.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`, `disk_not_found`, `disk_count`.
    pub async fn clone_disk(&self, from: &Version, disk: &str, vm: &VmName) -> Result<Vm> {
        self.turn(&[&from.vm, vm], || Box::pin(self.shared.vms.clone_disk(from, disk, vm))).await
    }

    /// Puts a VM back to a snapshot: disks, their names and sizes, and definition. Gives the VM, and the snapshot that was
    /// made of it before.
    ///
    /// # Errors
    /// `vm_in_use` while a client has a disk open; `vm_not_found`, `snapshot_not_found`.
    pub async fn revert(&self, vm: &VmName, name: &VmName) -> Result<(Vm, Snapshot)> {
        self.turn(&[vm], || Box::pin(self.shared.vms.revert(&**self.runtime(), vm, name))).await
    }

    /// The stretches of a disk from `offset` on that differ between two versions of a VM, at most `limit`; without `old`
    /// those that hold data in `new`.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`, `disk_not_found`.
    pub async fn diff(
        &self,
        old: Option<&Version>,
        new: &Version,
        disk: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<Change>> {
        self.shared.vms.diff(old, new, disk, offset, limit).await
    }

    /// Makes a VM that is being imported: its disks are there for NBD clients as long as the task runs, and the VM is in
    /// no list. `source` says where from, for people.
    ///
    /// # Errors
    /// As for a new VM; `too_many_tasks`.
    pub async fn begin_import(&self, name: &VmName, disks: &[u64], source: &str) -> Result<(Task, Vm)> {
        self.shared.tasks.begin_import(name, disks, source).await
    }

    /// Makes a task for reading the disks of a VM, or one of them, as they are at this instant, whatever happens to the VM
    /// while the task runs; the VM is given with these only, and with exports that go with the task.
    ///
    /// # Errors
    /// `vm_not_found`, `disk_not_found`, `vm_importing`, `too_many_tasks`.
    pub async fn begin_export(&self, name: &Version, disk: Option<&str>, to: &str) -> Result<(Task, Vm)> {
        self.turn(&[&name.vm], || Box::pin(self.shared.tasks.begin_export(name, disk, to))).await
    }

    /// The client of a task is alive and this far; a task that does not run any more says so in its state.
    ///
    /// # Errors
    /// `task_not_found`, also for a task of another kind. So for every change of a task.
    pub async fn task_progress(&self, id: u64, kind: TaskKind, done: u64, total: u64) -> Result<Task> {
        self.shared.tasks.progress(id, kind, done, total).await
    }

    /// Ends a task well; an imported VM is in lists from here on.
    ///
    /// # Errors
    /// `task_ended` when it does not run any more.
    pub async fn finish_task(&self, id: u64, kind: TaskKind) -> Result<Task> {
        self.shared.tasks.finish(id, kind).await
    }

    /// Ends a task that its client could not do; the VM of an import is deleted.
    ///
    /// # Errors
    /// `task_ended` when it does not run any more.
    pub async fn fail_task(&self, id: u64, kind: TaskKind, reason: &str) -> Result<Task> {
        self.shared.tasks.fail(id, kind, reason).await
    }

    /// Ends a task that is not wanted any more; the VM of an import is deleted.
    ///
    /// # Errors
    /// `task_ended` when it does not run any more.
    pub async fn cancel_task(&self, id: u64) -> Result<Task> {
        self.shared.tasks.cancel(id).await
    }

    /// A task by its number.
    ///
    /// # Errors
    /// `task_not_found`.
    pub async fn task(&self, id: u64) -> Result<Task> {
        self.shared.tasks.task(id).await
    }

    /// Running tasks and those of the past that are remembered, the newest first.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn tasks(&self) -> Result<Vec<Task>> {
        self.shared.tasks.tasks().await
    }

    /// How a guest gets a disk, or a file as a CD-ROM.
    ///
    /// # Errors
    /// `vm_not_found`, `disk_not_found`, `vm_importing`.
    pub async fn attach_info(&self, name: &VmName, disk: &str) -> Result<AttachInfo> {
        let (vm, position, is_file) = self.shared.vms.disk_position(name, disk).await?;
        let (export, socket) = (format!("{vm}/{disk}"), self.directory().nbd_socket());
        Ok(if is_file {
            crate::attach::file(&export, position, &socket)
        } else {
            crate::attach::disk(&export, position, &socket)
        })
    }
}

/// Runs a loop of the site in the background; one that panics begins anew.
fn spawn_loop<F: Future<Output = ()> + Send + 'static>(
    shared: &Arc<Shared>,
    name: &'static str,
    begin: impl Fn(Weak<Shared>, watch::Receiver<bool>) -> F + Send + Sync + 'static,
) {
    let (site, stopping, rt) = (Arc::downgrade(shared), shared.stopping.subscribe(), shared.parts.rt.clone());
    let own = rt.clone();
    let work = async move { seam::restart(&*own, name, || begin(site.clone(), stopping.clone())).await };
    rt.spawn(name, Box::pin(work));
}

/// Looks after tasks until the site stops or is gone.
async fn watch_tasks(site: Weak<Shared>, mut stopping: watch::Receiver<bool>) {
    let mut said = false;
    loop {
        let Some(shared) = site.upgrade() else { return };
        let round = match shared.tasks.round().await {
            Ok(_) => match shared.watch_media().await {
                Ok(()) => shared.upkeep_when_due().await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match round {
            Ok(()) => said = false,
            // Said once: the next round tries again.
            Err(error) if !said => {
                tracing::warn!(%error, "tasks cannot be looked after");
                said = true;
            }
            Err(_) => {}
        }
        // Nothing of the site may be held while nothing is done: it goes when its owner drops it.
        let pause = shared.tasks.pause();
        drop(shared);
        tokio::select! {
            () = pause => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

#[cfg(test)]
impl Site {
    /// One round of the probe, now.
    pub(crate) async fn probe(&self) {
        probe::round(&self.shared).await;
    }

    /// Clears away what tasks left behind; false when something is left.
    pub(crate) async fn clear_tasks(&self) -> bool {
        self.shared.tasks.round().await.expect("the store takes it")
    }

    pub(crate) fn exports(&self) -> Vms {
        self.shared.vms.clone()
    }
}
