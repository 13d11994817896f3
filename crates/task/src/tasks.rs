//! The tasks of a site, running and past.

use std::sync::Arc;
use std::time::Duration;

use api::types::{Task, TaskKind, TaskState};
use api::{Error, HISTORY_MAX, RUNNING_MAX, Result, code};
use engine::Engine;
use meta::{Key, KeyValue, Op, Site, Stored, Table, Txn};
use seam::Rt;
use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::record::Record;
use crate::running::Running;

const TASKS: Table<Site> = Table::new("task");
/// Silence after which a client counts as gone: several of its signs of life, and a server that is very busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at who is silent.
const PAUSE: Duration = Duration::from_secs(1);
/// The same when something that ended is not cleared away yet.
const SOON: Duration = Duration::from_millis(25);
/// Longest text a client may give, bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1024;

/// What ended a task that its server did not outlive.
const RESTARTED: &str = "the server was stopped or killed while the task ran";

/// The tasks of a site.
pub struct Tasks {
    pub(crate) rt: Rt,
    pub(crate) engine: Engine,
    pub(crate) running: Arc<Running>,
    patience: Duration,
    turn: Mutex<()>,
    wake: Arc<Notify>,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tasks({:?})", self.running)
    }
}

/// Whoever has it begins or ends tasks, nobody else does.
#[derive(Debug)]
pub struct Turn<'a> {
    _held: MutexGuard<'a, ()>,
}

pub(crate) fn key(id: u64) -> Result<Key> {
    Ok(TASKS.key().number(id).end()?)
}

/// A text fit for records and terminals.
pub(crate) fn plain(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Tasks {
    /// The tasks in the store of `engine`. Clients may be silent for `patience`.
    pub fn new(rt: Rt, engine: Engine, patience: Option<Duration>) -> Self {
        Self {
            rt,
            engine,
            running: Arc::default(),
            patience: patience.unwrap_or(PATIENCE),
            turn: Mutex::default(),
            wake: Arc::default(),
        }
    }

    /// Those that run.
    pub fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// Waits until nobody else begins or ends tasks.
    pub async fn turn(&self) -> Turn<'_> {
        Turn { _held: self.turn.lock().await }
    }

    /// A number for a new task, and what makes room for it in the history.
    ///
    /// # Errors
    /// `too_many_tasks`.
    pub async fn make_room(&self, _turn: &Turn<'_>) -> Result<(u64, Txn)> {
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

    /// The record of a task whose client begins now; `note` is what the client says of it.
    pub fn record_of(&self, kind: TaskKind, target: &str, total: u64, note: &str) -> Record {
        Record::new(kind, target, self.rt.wall_ms(), total, plain(note))
    }

    /// What puts the record of a task.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn put(&self, id: u64, record: &Record) -> Result<Op> {
        Ok(Op::put(key(id)?, record.encode()?))
    }

    /// What forgets a task.
    ///
    /// # Errors
    /// When there can be no such number.
    pub fn forget(&self, id: u64) -> Result<Op> {
        Ok(Op::delete(&key(id)?))
    }

    /// A task, whose record is stored, runs from now on.
    ///
    /// # Errors
    /// When it cannot be shown.
    pub async fn begun(&self, id: u64, record: Record, _turn: &Turn<'_>) -> Result<Task> {
        self.running.insert(id, record, self.rt.now());
        self.task(id).await
    }

    /// A task whose end is stored runs no more.
    pub fn ended(&self, id: u64, record: &Record, _turn: &Turn<'_>) {
        self.running.stop_work(id);
        self.running.remove(id);
        tracing::info!(task = id, kind = record.kind.word(), target = record.target, state = ?record.state,
            error = record.error, "task ended");
    }

    /// The record of a task that runs, as it is when it ends now.
    ///
    /// # Errors
    /// `task_ended`, `task_not_found`.
    pub async fn ending(&self, id: u64, state: TaskState, error: Option<&str>) -> Result<Record> {
        let mut record = self.running_record(id).await?;
        record.end(state, self.rt.wall_ms(), error.map(plain));
        Ok(record)
    }

    /// Ends work of the server that is not wanted any more.
    ///
    /// # Errors
    /// `rebuild_goes_on` for a rebuild; `task_ended`, `task_not_found`.
    pub async fn cancel_work(&self, id: u64) -> Result<Task> {
        if self.running.record(id).is_some_and(|record| record.kind == TaskKind::Rebuild) {
            let reason = format!("task {id} is a rebuild, which nobody began");
            return Err(Error::new(code::REBUILD_GOES_ON, reason));
        }
        let turn = self.turn().await;
        let record = self.ending(id, TaskState::Cancelled, None).await?;
        self.engine.apply(Txn::new().then(self.put(id, &record)?), &[], &[]).await?;
        self.ended(id, &record, &turn);
        Ok(self.shown(id, record))
    }

    /// The client of a task says how far it is; the answer says whether to go on.
    ///
    /// # Errors
    /// `task_not_found`, also for a task of another kind.
    pub async fn progress(&self, id: u64, kind: TaskKind, done: u64, total: u64) -> Result<Task> {
        self.check_kind(id, kind).await?;
        self.running.progress(id, done, total, self.rt.now());
        self.task(id).await
    }

    /// Running tasks whose clients were silent for too long, and what is to be said of that.
    pub fn silent(&self) -> (Vec<u64>, String) {
        self.running.look(self.rt.now());
        let reason = format!("no sign of life from its client for {} s", self.patience.as_secs());
        (self.running.silent(self.rt.now(), self.patience), reason)
    }

    /// The task of a record that runs no more.
    pub fn shown(&self, id: u64, record: Record) -> Task {
        record.ended_task(id, RESTARTED)
    }

    /// `record` as that of a task that its server did not outlive.
    pub fn cut_off(&self, record: &mut Record) {
        record.end(TaskState::Failed, self.rt.wall_ms(), Some(RESTARTED.to_owned()));
    }

    /// A task by its number.
    ///
    /// # Errors
    /// `task_not_found`.
    pub async fn task(&self, id: u64) -> Result<Task> {
        self.running.look(self.rt.now());
        if let Some(task) = self.running.task(id) {
            return Ok(task);
        }
        Ok(self.shown(id, self.stored_record(id).await?))
    }

    /// Running tasks and those of the past that are remembered, the newest first.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn tasks(&self) -> Result<Vec<Task>> {
        self.running.look(self.rt.now());
        let task =
            |(id, record): (u64, Record)| self.running.task(id).unwrap_or_else(|| self.shown(id, record));
        Ok(self.stored().await?.into_iter().rev().map(task).collect())
    }

    /// The record of a task, running or not.
    ///
    /// # Errors
    /// `task_not_found`.
    pub async fn record(&self, id: u64) -> Result<Record> {
        match self.running.record(id) {
            Some(record) => Ok(record),
            None => self.stored_record(id).await,
        }
    }

    /// Requires that a task is of this kind.
    ///
    /// # Errors
    /// `task_not_found`.
    pub async fn check_kind(&self, id: u64, kind: TaskKind) -> Result<()> {
        if self.record(id).await?.kind == kind { Ok(()) } else { Err(not_found(id)) }
    }

    /// The record of a task that runs, with its progress.
    async fn running_record(&self, id: u64) -> Result<Record> {
        if let Some(record) = self.running.record(id) {
            return Ok(record);
        }
        let state = self.shown(id, self.stored_record(id).await?).state;
        let reason = format!("task {id} has ended: {}", state.word());
        Err(Error::new(code::TASK_ENDED, reason).hint(format!("see `task show {id}`")))
    }

    async fn stored_record(&self, id: u64) -> Result<Record> {
        let kv = self.engine.meta().get(&key(id)?).await?.kv.ok_or_else(|| not_found(id))?;
        decode(id, &kv)
    }

    /// Every record, oldest first.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn stored(&self) -> Result<Vec<(u64, Record)>> {
        let (kvs, _) = meta::list(&*self.engine.meta(), TASKS.all(), 2 * HISTORY_MAX).await?;
        let numbered = |kv: &KeyValue| {
            let id = TASKS.segments(&kv.key).and_then(|mut segments| segments.number());
            let id = id.ok_or_else(|| damaged(&kv.key.to_string(), "no number of a task"))?;
            Ok((id, decode(id, kv)?))
        };
        kvs.iter().map(numbered).collect()
    }

    /// Something that ended wants to be cleared away: the next look comes soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until it is time for another look. One loop may wait so: a wake-up reaches one alone.
    pub fn pause(&self) -> impl Future<Output = ()> + use<> {
        let (rt, wake) = (self.rt.clone(), self.wake.clone());
        async move {
            tokio::select! {
                () = rt.sleep(PAUSE) => {}
                () = wake.notified() => rt.sleep(SOON).await,
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
