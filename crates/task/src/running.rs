//! The tasks that run now, in RAM.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::Version;
use api::types::{Task, TaskKind};
use engine::Progress;

use crate::record::{Forked, Record};

/// Weight of the newest stretch in the rate: it follows a change within a few signs of life.
const NEWEST: f64 = 0.3;
/// Stretches shorter than this say nothing of the rate.
const STRETCH_MIN: Duration = Duration::from_millis(200);
/// What is left is said when it is not more than so many times what was seen: beyond that it is a guess.
const LEFT_FACTOR: u32 = 100;

/// A task that runs.
struct Live {
    record: Record,
    begun: Duration,
    /// When its client was last heard of.
    heard: Duration,
    /// Bytes a second, from when on and from how many bytes the next stretch counts.
    rate: Option<f64>,
    since: Duration,
    from: u64,
    /// Of work of the server.
    work: Option<Arc<Progress>>,
}

impl Live {
    fn progress(&mut self, done: u64, total: u64, now: Duration) {
        self.heard = now;
        self.record.total_bytes = total;
        self.record.done_bytes = done.min(total);
        if self.rate.is_none() && self.record.done_bytes == 0 {
            // What comes before the first byte says nothing of the rest.
            self.since = now;
        }
        let stretch = now.saturating_sub(self.since);
        if stretch >= STRETCH_MIN {
            let newest = self.record.done_bytes.saturating_sub(self.from) as f64 / stretch.as_secs_f64();
            self.rate = Some(self.rate.map_or(newest, |rate| rate + NEWEST * (newest - rate)));
            self.since = now;
            self.from = self.record.done_bytes;
        }
    }
}

/// The tasks that run now.
#[derive(Default)]
pub struct Running {
    tasks: Mutex<BTreeMap<u64, Live>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running({} tasks)", self.count())
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Live>> {
        // Whole after every statement.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, id: u64, record: Record, now: Duration) {
        self.lock()
            .insert(id, Live { record, begun: now, heard: now, rate: None, since: now, from: 0, work: None });
    }

    /// Work of the server, which tells how far it is in `work`.
    pub(crate) fn insert_work(&self, id: u64, record: Record, now: Duration, work: Arc<Progress>) {
        let live = Live { record, begun: now, heard: now, rate: None, since: now, from: 0, work: Some(work) };
        self.lock().insert(id, live);
    }

    /// Looks how far work of the server is.
    pub(crate) fn look(&self, now: Duration) {
        for live in self.lock().values_mut() {
            if let Some(work) = live.work.clone() {
                let (done, total) = work.now();
                live.progress(done, total, now);
            }
        }
    }

    /// Asks work of the server to end.
    pub(crate) fn stop_work(&self, id: u64) {
        if let Some(work) = self.lock().get(&id).and_then(|live| live.work.clone()) {
            work.cancel();
        }
    }

    /// A task of this kind that runs.
    pub(crate) fn of_kind(&self, kind: TaskKind) -> Option<u64> {
        self.lock().iter().find(|(_, live)| live.record.kind == kind).map(|(id, _)| *id)
    }

    pub(crate) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Whether the task runs.
    pub fn holds(&self, id: u64) -> bool {
        self.lock().contains_key(&id)
    }

    /// Whether a task exports what the NBD server calls `export`: alone, or with the other disks of its VM.
    pub fn exports(&self, export: &str) -> bool {
        let of = |target: &str| {
            export.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let tasks = self.lock();
        tasks.values().any(|live| live.record.kind == TaskKind::Export && of(&live.record.target))
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn record(&self, id: u64) -> Option<Record> {
        self.lock().get(&id).map(|live| live.record.clone())
    }

    /// The disk that an export which runs made for itself and gives by this name.
    pub fn fork(&self, version: &Version, export: &str) -> Option<Forked> {
        let (_, task) = export.rsplit_once(':')?;
        let task = task.parse().ok()?;
        let tasks = self.lock();
        let record = &tasks.get(&task)?.record;
        let of_it = Version::parse(record.version()).is_ok_and(|own| own == *version);
        record.forks.iter().find(|fork| of_it && fork.export(task) == export).cloned()
    }

    /// The tasks that made disks for themselves.
    pub fn with_forks(&self) -> Vec<(u64, Record)> {
        let tasks = self.lock();
        let with = tasks.iter().filter(|(_, live)| !live.record.forks.is_empty());
        with.map(|(id, live)| (*id, live.record.clone())).collect()
    }

    /// The client of a task was heard of.
    pub(crate) fn progress(&self, id: u64, done: u64, total: u64, now: Duration) {
        if let Some(live) = self.lock().get_mut(&id) {
            live.progress(done, total, now);
        }
    }

    /// Tasks whose clients were not heard of for longer than `patience`.
    pub(crate) fn silent(&self, now: Duration, patience: Duration) -> Vec<u64> {
        let tasks = self.lock();
        let silent = |live: &Live| live.work.is_none() && now.saturating_sub(live.heard) > patience;
        let silent = tasks.iter().filter(|(_, live)| silent(live));
        silent.map(|(id, _)| *id).collect()
    }

    /// A task that runs.
    pub(crate) fn task(&self, id: u64) -> Option<Task> {
        let tasks = self.lock();
        let live = tasks.get(&id)?;
        let mut task = live.record.task(id, live.rate.map_or(0, |rate| rate as u64));
        let seen = live.heard.saturating_sub(live.begun) * LEFT_FACTOR;
        task.seconds_left = task.seconds_left.filter(|left| *left <= seen.as_secs());
        Some(task)
    }
}
