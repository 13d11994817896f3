//! The tasks that run now, in RAM.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::record::{Record, Task};

/// Weight of the newest stretch in the rate: it follows a change within a few signs of life.
const NEWEST: f64 = 0.3;
/// Stretches shorter than this say nothing of the rate.
const STRETCH_MIN: Duration = Duration::from_millis(200);

/// A task that runs.
struct Live {
    record: Record,
    /// When its client was last heard of.
    heard: Duration,
    /// Bytes a second, from when on and from how many bytes the next stretch counts.
    rate: Option<f64>,
    since: Duration,
    from: u64,
}

/// The tasks that run now.
#[derive(Default)]
pub(crate) struct Running {
    tasks: Mutex<BTreeMap<u64, Live>>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Live>> {
        // Whole after every statement.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, id: u64, record: Record, now: Duration) {
        self.lock().insert(id, Live { record, heard: now, rate: None, since: now, from: 0 });
    }

    pub(crate) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Whether the task runs.
    pub(crate) fn holds(&self, id: u64) -> bool {
        self.lock().contains_key(&id)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn record(&self, id: u64) -> Option<Record> {
        self.lock().get(&id).map(|live| live.record.clone())
    }

    /// The client of a task was heard of.
    pub(crate) fn progress(&self, id: u64, done: u64, total: u64, now: Duration) {
        let mut tasks = self.lock();
        let Some(live) = tasks.get_mut(&id) else { return };
        live.heard = now;
        live.record.total_bytes = total;
        live.record.done_bytes = done.min(total);
        let stretch = now.saturating_sub(live.since);
        if stretch >= STRETCH_MIN {
            let newest = live.record.done_bytes.saturating_sub(live.from) as f64 / stretch.as_secs_f64();
            live.rate = Some(live.rate.map_or(newest, |rate| rate + NEWEST * (newest - rate)));
            live.since = now;
            live.from = live.record.done_bytes;
        }
    }

    /// Tasks whose clients were not heard of for longer than `patience`.
    pub(crate) fn silent(&self, now: Duration, patience: Duration) -> Vec<u64> {
        let tasks = self.lock();
        let silent = tasks.iter().filter(|(_, live)| now.saturating_sub(live.heard) > patience);
        silent.map(|(id, _)| *id).collect()
    }

    /// A task that runs.
    pub(crate) fn task(&self, id: u64) -> Option<Task> {
        let tasks = self.lock();
        let live = tasks.get(&id)?;
        Some(live.record.task(id, live.rate.map_or(0, |rate| rate as u64)))
    }
}
