//! A task, and its record in the metadata store.
//!
//! ```text
//!  {"version": 1, "kind": "import", "target": "web01", "state": "done", "started_ms": <Unix ms>, "ended_ms": <Unix ms>,
//!   "done_bytes": <number>, "total_bytes": <number>, "message": "<text>", "error": "<text>",
//!   "counts": {"<what>": <number>, ...}, "findings": ["<text>", ...],
//!   "forks": [{"disk": "disk0", "id": <number>, "bytes": <count>}, ...]}
//! ```
//! `counts` and `findings` are there when work of the server has ended that has some. `forks` are the disks that an export
//! made for itself: there from its begin until they are deleted, which may be some time behind its end.

use std::collections::BTreeMap;

use api::types::{Task, TaskKind, TaskState};
use meta::Stored;
use serde::{Deserialize, Serialize};
use units::DiskId;

const VERSION: u32 = 1;

/// The record of a task, under `task/NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// What it does.
    pub kind: TaskKind,
    /// What it is about: a VM or snapshot, one disk or file of it, a medium, the site.
    pub target: String,
    /// How it goes.
    pub state: TaskState,
    /// When it began, ms since the Unix epoch.
    pub started_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// How far it is.
    pub done_bytes: u64,
    /// How much there is to do.
    pub total_bytes: u64,
    /// What is said of it.
    pub message: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What came of it, in numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// What it found wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Disks that it made for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<Forked>,
}

/// A disk that an export reads: what a disk of its VM was when it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// What it is called in the VM.
    pub disk: String,
    id: u64,
    /// Its size.
    pub bytes: u64,
}

impl Forked {
    /// The fork `id` of a disk that is called `disk` in its VM.
    pub fn new(disk: &str, id: DiskId, bytes: u64) -> Self {
        Self { disk: disk.to_owned(), id: id.0, bytes }
    }

    /// Its number.
    pub fn id(&self) -> DiskId {
        DiskId(self.id)
    }

    /// What its export is called within the VM: a name that nothing else has.
    pub fn export(&self, task: u64) -> String {
        format!("{}:{task}", self.disk)
    }
}

impl Stored for Record {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Record {
    /// A task that begins.
    pub fn new(kind: TaskKind, target: &str, started_ms: u64, total_bytes: u64, message: String) -> Self {
        Self {
            version: VERSION,
            kind,
            target: target.to_owned(),
            state: TaskState::Running,
            started_ms,
            ended_ms: None,
            done_bytes: 0,
            total_bytes,
            message,
            error: None,
            counts: BTreeMap::new(),
            findings: Vec::new(),
            forks: Vec::new(),
        }
    }

    /// The VM or snapshot that it is about.
    pub fn version(&self) -> &str {
        self.target.split('/').next().unwrap_or_default()
    }

    /// The numbers of its forks.
    pub fn fork_ids(&self) -> Vec<DiskId> {
        self.forks.iter().map(Forked::id).collect()
    }

    /// Notes that it ended.
    pub fn end(&mut self, state: TaskState, now_ms: u64, error: Option<String>) {
        self.state = state;
        self.ended_ms = Some(now_ms);
        self.error = error;
        if state == TaskState::Done {
            self.done_bytes = self.total_bytes;
        }
    }

    /// The task at a rate.
    pub fn task(&self, id: u64, rate: u64) -> Task {
        let left = self.total_bytes.saturating_sub(self.done_bytes);
        let runs = self.state == TaskState::Running;
        Task {
            id,
            kind: self.kind,
            target: self.target.clone(),
            state: self.state,
            started_ms: self.started_ms,
            ended_ms: self.ended_ms,
            done_bytes: self.done_bytes,
            total_bytes: self.total_bytes,
            rate,
            seconds_left: left.checked_div(rate).filter(|_| runs),
            message: self.message.clone(),
            error: self.error.clone(),
            counts: self.counts.clone(),
            findings: self.findings.clone(),
        }
    }

    /// The task when it does not run; one that says it runs was `cut_off`.
    pub fn ended_task(mut self, id: u64, cut_off: &str) -> Task {
        if self.state == TaskState::Running {
            self.state = TaskState::Failed;
            self.error = Some(cut_off.to_owned());
        }
        let took_ms = self.ended_ms.map_or(0, |ended| ended.saturating_sub(self.started_ms));
        let rate = u128::from(self.done_bytes) * 1000 / u128::from(took_ms.max(1));
        self.task(id, if took_ms == 0 { 0 } else { u64::try_from(rate).unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests;
