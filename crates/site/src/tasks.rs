//! Long work that somebody watches: imports and exports, running and past.
//!
//! A task is begun by its client, which tells how far it is; one that is silent for too long has failed. How far a task
//! is, is in RAM; that it began and how it ended, in the metadata store under `task/NUMBER`, the newest
//! [`HISTORY_MAX`] of them. A task that a stop or a kill of the server cut off has failed.
//!
//! A VM being imported carries its task's number, and is gone with a task that did not end well: at once where its
//! client is gone, else when no request of the client is under way any more, and after a kill with the next start. What an
//! export made for itself is in the record of its task, and goes in the same way however it ended.

mod exports;
mod files;
mod record;
mod running;
mod work;

use std::sync::Arc;
use std::time::Duration;

use api::types::{Task, TaskKind, TaskState, Vm};
use api::{Error, ErrorKind, HISTORY_MAX, RUNNING_MAX, Result, VmName, code};
use engine::Engine;
use meta::{Key, KeyValue, Op, Table, Txn};
use seam::Rt;
use tokio::sync::Notify;
use units::DiskId;

use crate::record::Record as VmRecord;
use crate::vms::Vms;
pub(crate) use record::{Forked, Record};
pub(crate) use running::Running;
pub(crate) use work::Outcome;

const TASKS: Table = Table::new("task");
/// Silence after which a client counts as gone: several of its signs of life, and a server that is very busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at who is silent.
const PAUSE: Duration = Duration::from_secs(1);
/// How often, and how long in all, the end of an import waits for requests that are under way.
const REAP_TRIES: u32 = 40;
const REAP_PAUSE: Duration = Duration::from_millis(25);
/// Longest text a client may give, bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1024;

/// What ended a task that its server did not outlive.
const RESTARTED: &str = "the server was stopped or killed while the task ran";

/// The tasks of a site.
pub(crate) struct Tasks {
    rt: Rt,
    engine: Engine,
    vms: Vms,
    running: Arc<Running>,
    patience: Duration,
    /// Held while a task begins or ends; holds whether something is left behind in the store.
    turn: tokio::sync::Mutex<Leftovers>,
    wake: Arc<Notify>,
}

/// What the store may hold of tasks that ended.
struct Leftovers {
    /// VMs of imports that did not end well, forks of exports, or tasks that a server before left running.
    may_be: bool,
}

fn key(id: u64) -> Result<Key> {
    Ok(TASKS.key().number(id).end()?)
}

/// A text fit for records and terminals.
fn plain(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Tasks {
    pub(crate) fn new(rt: Rt, vms: Vms, patience: Option<Duration>) -> Self {
        Self {
            rt,
            engine: vms.engine.clone(),
            running: vms.running.clone(),
            vms,
            patience: patience.unwrap_or(PATIENCE),
            turn: tokio::sync::Mutex::new(Leftovers { may_be: true }),
            wake: Arc::default(),
        }
    }

    /// Makes a VM that is being imported, and its task: one transaction.
    pub(crate) async fn begin_import(
        &self,
        name: &VmName,
        sizes: &[u64],
        source: &str,
    ) -> Result<(Task, Vm)> {
        let _turn = self.turn.lock().await;
        let (id, txn) = self.make_room().await?;
        let disks = self.vms.new_disks(sizes).await?;
        let total = sizes.iter().sum();
        let record = Record::new(TaskKind::Import, name.as_str(), self.rt.wall_ms(), total, plain(source));
        let mut vm = VmRecord::new(name, record.started_ms, disks.iter().map(|(id, _)| *id));
        vm.import = Some(id);
        let txn = txn.then(Op::put(key(id)?, record.encode()?));
        self.vms.put_new(name, &vm, txn, &disks).await?;
        self.running.insert(id, record, self.rt.now());
        tracing::info!(task = id, vm = %name, "import begun");
        Ok((self.task(id).await?, self.vms.describe(name.as_str(), &vm).await?))
    }

    /// A number for a new task, and what makes room for it in the history.
    async fn make_room(&self) -> Result<(u64, Txn)> {
        if self.running.count() >= RUNNING_MAX {
            let reason = format!("{RUNNING_MAX} tasks are running, the most there can be");
            return Err(Error::new(code::TOO_MANY_TASKS, reason)
                .hint("wait for one to end, or cancel one: `task list`"));
        }
        let known = self.stored().await?;
        let id = known.last().map_or(1, |(id, _)| id + 1);
        let surplus = (known.len() + 1).saturating_sub(HISTORY_MAX);
        // A record that has forks is how they are found.
        let past = |(id, record): &&(u64, Record)| !self.running.holds(*id) && record.forks.is_empty();
        let mut txn = Txn::new();
        for (old, _) in known.iter().filter(past).take(surplus) {
            txn = txn.then(Op::delete(&key(*old)?));
        }
        Ok((id, txn))
    }

    /// The client of a task says how far it is; the answer says whether to go on.
    pub(crate) async fn progress(&self, id: u64, kind: TaskKind, done: u64, total: u64) -> Result<Task> {
        self.check_kind(id, kind).await?;
        self.running.progress(id, done, total, self.rt.now());
        self.task(id).await
    }

    /// Ends a task well: the VM of an import is there with the same transaction.
    pub(crate) async fn finish(&self, id: u64, kind: TaskKind) -> Result<Task> {
        self.check_kind(id, kind).await?;
        let mut leftovers = self.turn.lock().await;
        let mut record = self.running_record(id).await?;
        record.end(TaskState::Done, self.rt.wall_ms(), None);
        let txn = Txn::new().then(Op::put(key(id)?, record.encode()?));
        match kind {
            TaskKind::Import if files::of(&record.target).is_some() => {
                self.finish_file(id, &record.target, txn).await?;
            }
            TaskKind::Import => {
                let name = VmName::parse(&record.target)?;
                let (kv, mut vm) = self.vms.find(&name).await?;
                vm.import = None;
                self.vms.replace(&name, &kv, &vm, txn, &[], &[]).await?;
            }
            _ => self.note_end(id, &record).await?,
        }
        self.running.remove(id);
        tracing::info!(task = id, target = record.target, "task done");
        self.reap_forks_patiently(id, &record, &mut leftovers).await;
        Ok(record.ended_task(id, RESTARTED))
    }

    /// Ends a task that its client could not do.
    pub(crate) async fn fail(&self, id: u64, kind: TaskKind, reason: &str) -> Result<Task> {
        self.check_kind(id, kind).await?;
        self.end_badly(id, TaskState::Failed, Some(plain(reason))).await
    }

    /// Ends a task that is not wanted any more; its client hears of it when it next says how far it is.
    ///
    /// # Errors
    /// `rebuild_goes_on` for a rebuild.
    pub(crate) async fn cancel(&self, id: u64) -> Result<Task> {
        if self.running.record(id).is_some_and(|record| record.kind == TaskKind::Rebuild) {
            let reason = format!("task {id} is a rebuild, which nobody began");
            return Err(Error::new(code::REBUILD_GOES_ON, reason));
        }
        self.end_badly(id, TaskState::Cancelled, None).await
    }

    async fn end_badly(&self, id: u64, state: TaskState, error: Option<String>) -> Result<Task> {
        let mut leftovers = self.turn.lock().await;
        let mut record = self.running_record(id).await?;
        record.end(state, self.rt.wall_ms(), error);
        self.note_end(id, &record).await?;
        self.running.stop_work(id);
        self.running.remove(id);
        tracing::info!(task = id, target = record.target, ?state, error = record.error, "task ended");
        self.reap_forks_patiently(id, &record, &mut leftovers).await;
        if record.kind == TaskKind::Import {
            let before = std::mem::replace(&mut leftovers.may_be, true);
            leftovers.may_be = !self.reap_patiently(id, &record.target).await? || before;
        }
        Ok(record.ended_task(id, RESTARTED))
    }

    /// Deletes the VM of an import that ended badly; false when its client is not off it yet.
    async fn reap_patiently(&self, id: u64, target: &str) -> Result<bool> {
        if let Some((vm, _)) = files::of(target) {
            return self.reap_file_patiently(id, &VmName::parse(vm)?).await;
        }
        let name = VmName::parse(target)?;
        for _ in 0..REAP_TRIES {
            let (kv, vm) = match self.vms.find(&name).await {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
                Err(error) => return Err(error),
            };
            if vm.import != Some(id) || self.reap(&name, &kv, &vm).await? {
                return Ok(true);
            }
            self.rt.sleep(REAP_PAUSE).await;
        }
        self.wake.notify_one();
        Ok(false)
    }

    async fn reap(&self, name: &VmName, kv: &KeyValue, vm: &VmRecord) -> Result<bool> {
        let disks: Vec<DiskId> = vm.ids();
        let Some(_closed) = self.vms.uses.revoke(&disks) else { return Ok(false) };
        self.vms.remove(name, kv, vm, Txn::new()).await?;
        tracing::info!(vm = %name, "VM of an import that did not end well deleted");
        Ok(true)
    }

    /// Fails tasks whose clients are silent, and clears away what ended badly; false when something is left.
    pub(crate) async fn round(&self) -> Result<bool> {
        self.running.look(self.rt.now());
        for id in self.running.silent(self.rt.now(), self.patience) {
            let reason = format!("no sign of life from its client for {} s", self.patience.as_secs());
            match self.end_badly(id, TaskState::Failed, Some(reason)).await {
                Err(error) if error.code != code::TASK_ENDED => return Err(error),
                _ => {}
            }
        }
        let mut leftovers = self.turn.lock().await;
        if leftovers.may_be && self.engine.is_writable() {
            leftovers.may_be = !self.clear().await?;
        }
        Ok(!leftovers.may_be)
    }

    /// Ends what a server before left running, deletes VMs whose import does not run and forks whose export does not; false
    /// when some are in use.
    async fn clear(&self) -> Result<bool> {
        let mut all = true;
        for (id, mut record) in self.stored().await? {
            if record.state == TaskState::Running && !self.running.holds(id) {
                record.end(TaskState::Failed, self.rt.wall_ms(), Some(RESTARTED.to_owned()));
                self.note_end(id, &record).await?;
            }
            if !self.running.holds(id) {
                all &= self.reap_forks(id, &record).await?;
            }
        }
        for (name, vm) in self.vms.records().await? {
            if vm.import.is_some_and(|task| !self.running.holds(task)) {
                let name = VmName::parse(&name)?;
                let (kv, vm) = self.vms.find(&name).await?;
                all &= self.reap(&name, &kv, &vm).await?;
            }
            for task in vm.disks.iter().filter_map(|disk| disk.storing).map(|storing| storing.task) {
                if !self.running.holds(task) {
                    all &= self.reap_file(task, &VmName::parse(&name)?).await?;
                }
            }
        }
        Ok(all)
    }

    /// A task by its number.
    pub(crate) async fn task(&self, id: u64) -> Result<Task> {
        self.running.look(self.rt.now());
        if let Some(task) = self.running.task(id) {
            return Ok(task);
        }
        Ok(self.stored_record(id).await?.ended_task(id, RESTARTED))
    }

    /// Every task, the newest first.
    pub(crate) async fn tasks(&self) -> Result<Vec<Task>> {
        self.running.look(self.rt.now());
        let task = |(id, record): (u64, Record)| {
            self.running.task(id).unwrap_or_else(|| record.ended_task(id, RESTARTED))
        };
        Ok(self.stored().await?.into_iter().rev().map(task).collect())
    }

    async fn check_kind(&self, id: u64, kind: TaskKind) -> Result<()> {
        let found = match self.running.record(id) {
            Some(record) => record.kind,
            None => self.stored_record(id).await?.kind,
        };
        if found == kind { Ok(()) } else { Err(not_found(id)) }
    }

    /// The record of a task that runs, with its progress.
    async fn running_record(&self, id: u64) -> Result<Record> {
        if let Some(record) = self.running.record(id) {
            return Ok(record);
        }
        let state = self.stored_record(id).await?.ended_task(id, RESTARTED).state;
        let reason = format!("task {id} has ended: {}", state.word());
        Err(Error::new(code::TASK_ENDED, reason).hint(format!("see `task show {id}`")))
    }

    async fn stored_record(&self, id: u64) -> Result<Record> {
        let kv = self.engine.meta().get(&key(id)?).await?.kv.ok_or_else(|| not_found(id))?;
        decode(id, &kv)
    }

    /// Every record, oldest first.
    async fn stored(&self) -> Result<Vec<(u64, Record)>> {
        let (kvs, _) = meta::list(&*self.engine.meta(), TASKS.all(), 2 * HISTORY_MAX).await?;
        let numbered = |kv: &KeyValue| {
            let id = TASKS.segments(&kv.key).and_then(|mut segments| segments.number());
            let id = id.ok_or_else(|| damaged(&kv.key.to_string(), "no number of a task"))?;
            Ok((id, decode(id, kv)?))
        };
        kvs.iter().map(numbered).collect()
    }

    /// Waits until it is time for another round.
    pub(crate) fn pause(&self) -> impl Future<Output = ()> + use<> {
        let (rt, wake) = (self.rt.clone(), self.wake.clone());
        async move {
            tokio::select! {
                () = rt.sleep(PAUSE) => {}
                () = wake.notified() => rt.sleep(REAP_PAUSE).await,
            }
        }
    }
}

fn not_found(id: u64) -> Error {
    Error::new(code::TASK_NOT_FOUND, format!("there is no such task {id}"))
        .hint("`task list` shows the running ones and the newest of the past")
}

fn decode(id: u64, kv: &KeyValue) -> Result<Record> {
    Record::decode(&kv.value).map_err(|reason| damaged(&format!("task {id}"), &reason))
}

fn damaged(what: &str, reason: &str) -> Error {
    Error::new(code::RECORD_DAMAGED, format!("the record of {what}: {reason}"))
}
