//! Imports, exports and files that are stored: work of clients, and what it leaves when it ends.
//!
//! A VM being imported carries its task's number, and is gone with a task that did not end well: at once where its
//! client is gone, else when no request of the client is under way any more, and after a kill with the next start. What an
//! export made for itself is in the record of its task, and goes in the same way however it ended.

mod exports;
mod files;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::types::{Task, TaskKind, TaskState, Vm};
use api::{ErrorKind, Result, VmName, code};
use engine::Engine;
use meta::{KeyValue, Txn};
use seam::Rt;
use task::{Record, Tasks, Turn};
use units::DiskId;

use crate::catalog::Catalog;
use crate::record::Record as VmRecord;

/// How often, and how long in all, the end of an import waits for requests that are under way.
const REAP_TRIES: u32 = 40;
const REAP_PAUSE: Duration = Duration::from_millis(25);

/// Work of clients on the catalogue.
pub struct Transfers {
    rt: Rt,
    engine: Engine,
    catalog: Catalog,
    tasks: Arc<Tasks>,
    /// The store may hold VMs of imports that did not end well, forks of exports, or tasks that a server before left running.
    may_have_leftovers: AtomicBool,
}

impl std::fmt::Debug for Transfers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transfers({:?})", self.tasks)
    }
}

impl Transfers {
    /// Those of `catalog`.
    pub fn new(catalog: Catalog, tasks: Arc<Tasks>) -> Self {
        let (rt, engine) = (catalog.rt.clone(), catalog.engine.clone());
        Self { rt, engine, catalog, tasks, may_have_leftovers: AtomicBool::new(true) }
    }

    /// Makes a VM that is being imported: its disks are there for NBD clients as long as the task runs, and the VM is in
    /// no list. `source` says where from, for people. One transaction makes the VM and its task.
    ///
    /// # Errors
    /// As for a new VM; `too_many_tasks`.
    pub async fn begin_import(&self, name: &VmName, sizes: &[u64], source: &str) -> Result<(Task, Vm)> {
        let turn = self.tasks.turn().await;
        let (id, txn) = self.tasks.make_room(&turn).await?;
        let disks = self.catalog.new_disks(sizes).await?;
        let total = sizes.iter().sum();
        let record = self.tasks.record_of(TaskKind::Import, name.as_str(), total, source);
        let mut vm = VmRecord::new(name, record.started_ms, disks.iter().map(|(id, _)| *id));
        vm.import = Some(id);
        let txn = txn.then(self.tasks.put(id, &record)?);
        self.catalog.put_new(name, &vm, txn, &disks).await?;
        let task = self.tasks.begun(id, record, &turn).await?;
        tracing::info!(task = id, vm = %name, "import begun");
        Ok((task, self.catalog.describe(name.as_str(), &vm).await?))
    }

    /// Ends a task well: the VM of an import is in lists from here on, with the same transaction.
    ///
    /// # Errors
    /// `task_not_found`, also for a task of another kind; `task_ended` when it does not run any more.
    pub async fn finish(&self, id: u64, kind: TaskKind) -> Result<Task> {
        self.tasks.check_kind(id, kind).await?;
        let turn = self.tasks.turn().await;
        let record = self.tasks.ending(id, TaskState::Done, None).await?;
        let txn = Txn::new().then(self.tasks.put(id, &record)?);
        match kind {
            TaskKind::Import if files::of(&record.target).is_some() => {
                self.finish_file(id, &record.target, txn).await?;
            }
            TaskKind::Import => {
                let name = VmName::parse(&record.target)?;
                let (kv, mut vm) = self.catalog.find(&name).await?;
                vm.import = None;
                self.catalog.replace(&name, &kv, &vm, txn, &[], &[]).await?;
            }
            _ => self.note_end(id, &record).await?,
        }
        self.tasks.ended(id, &record, &turn);
        self.reap_forks_patiently(id, &record).await;
        Ok(self.tasks.shown(id, record))
    }

    /// Ends a task that its client could not do; the VM of an import is deleted.
    ///
    /// # Errors
    /// As for an end that is well.
    pub async fn fail(&self, id: u64, kind: TaskKind, reason: &str) -> Result<Task> {
        self.tasks.check_kind(id, kind).await?;
        self.end_badly(id, TaskState::Failed, Some(reason)).await
    }

    /// Ends a task that is not wanted any more, whatever its kind; its client hears of it when it next says how far it is.
    ///
    /// # Errors
    /// `task_not_found`; `task_ended` when it does not run any more; `rebuild_goes_on` for a rebuild.
    pub async fn cancel(&self, id: u64) -> Result<Task> {
        match self.tasks.record(id).await?.kind {
            TaskKind::Import | TaskKind::Export => self.end_badly(id, TaskState::Cancelled, None).await,
            _ => self.tasks.cancel_work(id).await,
        }
    }

    async fn end_badly(&self, id: u64, state: TaskState, error: Option<&str>) -> Result<Task> {
        let turn = self.tasks.turn().await;
        let record = self.tasks.ending(id, state, error).await?;
        self.note_end(id, &record).await?;
        self.tasks.ended(id, &record, &turn);
        self.reap_forks_patiently(id, &record).await;
        if record.kind == TaskKind::Import {
            let before = self.may_have_leftovers.swap(true, Ordering::Relaxed);
            let left = !self.reap_patiently(id, &record.target).await? || before;
            self.may_have_leftovers.store(left, Ordering::Relaxed);
        }
        Ok(self.tasks.shown(id, record))
    }

    /// Deletes the VM of an import that ended badly; false when its client is not off it yet.
    async fn reap_patiently(&self, id: u64, target: &str) -> Result<bool> {
        if let Some((vm, _)) = files::of(target) {
            return self.reap_file_patiently(id, &VmName::parse(vm)?).await;
        }
        let name = VmName::parse(target)?;
        for _ in 0..REAP_TRIES {
            let (kv, vm) = match self.catalog.find(&name).await {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
                Err(error) => return Err(error),
            };
            if vm.import != Some(id) || self.reap(&name, &kv, &vm).await? {
                return Ok(true);
            }
            self.rt.sleep(REAP_PAUSE).await;
        }
        self.tasks.wake();
        Ok(false)
    }

    async fn reap(&self, name: &VmName, kv: &KeyValue, vm: &VmRecord) -> Result<bool> {
        let disks: Vec<DiskId> = vm.ids();
        let Some(_closed) = self.catalog.uses.revoke(&disks) else { return Ok(false) };
        self.catalog.remove(name, kv, vm, Txn::new()).await?;
        tracing::info!(vm = %name, "VM of an import that did not end well deleted");
        Ok(true)
    }

    /// Fails tasks whose clients are silent, and clears away what ended badly; false when something is left.
    ///
    /// # Errors
    /// When the metadata cannot be read or changed.
    pub async fn round(&self) -> Result<bool> {
        let (silent, reason) = self.tasks.silent();
        for id in silent {
            match self.end_badly(id, TaskState::Failed, Some(&reason)).await {
                Err(error) if error.code != code::TASK_ENDED => return Err(error),
                _ => {}
            }
        }
        let turn = self.tasks.turn().await;
        if self.may_have_leftovers.load(Ordering::Relaxed) && self.engine.is_writable() {
            let all = self.clear(&turn).await?;
            self.may_have_leftovers.store(!all, Ordering::Relaxed);
        }
        Ok(!self.may_have_leftovers.load(Ordering::Relaxed))
    }

    /// Ends what a server before left running, deletes VMs whose import does not run and forks whose export does not; false
    /// when some are in use.
    async fn clear(&self, _turn: &Turn<'_>) -> Result<bool> {
        let (mut all, running) = (true, self.tasks.running());
        for (id, mut record) in self.tasks.stored().await? {
            if record.state == TaskState::Running && !running.holds(id) {
                self.tasks.cut_off(&mut record);
                self.note_end(id, &record).await?;
            }
            if !running.holds(id) {
                all &= self.reap_forks(id, &record).await?;
            }
        }
        for (name, vm) in self.catalog.records().await? {
            if vm.import.is_some_and(|task| !running.holds(task)) {
                let name = VmName::parse(&name)?;
                let (kv, vm) = self.catalog.find(&name).await?;
                all &= self.reap(&name, &kv, &vm).await?;
            }
            for task in vm.disks.iter().filter_map(|disk| disk.storing).map(|storing| storing.task) {
                if !running.holds(task) {
                    all &= self.reap_file(task, &VmName::parse(&name)?).await?;
                }
            }
        }
        Ok(all)
    }

    /// Notes how a task ended. One whose forks are to go ends even where there is no room to say so.
    async fn note_end(&self, id: u64, record: &Record) -> Result<()> {
        match self.engine.apply(Txn::new().then(self.tasks.put(id, record)?), &[], &[]).await {
            Err(error) if error.kind == engine::EngineErrorKind::NoSpace && !record.forks.is_empty() => {
                tracing::warn!(%error, task = id, "the end of an export cannot be noted");
                Ok(())
            }
            done => done.map(drop).map_err(Into::into),
        }
    }
}
