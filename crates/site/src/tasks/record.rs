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
use api::{Error, Result, code};
use serde::{Deserialize, Serialize};
use units::DiskId;

const VERSION: u32 = 1;

/// The record of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) kind: TaskKind,
    pub(crate) target: String,
    pub(crate) state: TaskState,
    pub(crate) started_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_ms: Option<u64>,
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) counts: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) forks: Vec<Forked>,
}

/// A disk that an export reads: what a disk of its VM was when it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forked {
    /// What it is called in the VM.
    pub(crate) disk: String,
    id: u64,
    pub(crate) bytes: u64,
}

impl Forked {
    pub(crate) fn new(disk: &str, id: DiskId, bytes: u64) -> Self {
        Self { disk: disk.to_owned(), id: id.0, bytes }
    }

    pub(crate) fn id(&self) -> DiskId {
        DiskId(self.id)
    }

    /// What its export is called within the VM: a name that nothing else has.
    pub(crate) fn export(&self, task: u64) -> String {
        format!("{}:{task}", self.disk)
    }
}

impl Record {
    pub(crate) fn new(
        kind: TaskKind,
        target: &str,
        started_ms: u64,
        total_bytes: u64,
        message: String,
    ) -> Self {
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
    pub(crate) fn version(&self) -> &str {
        self.target.split('/').next().unwrap_or_default()
    }

    /// The numbers of its forks.
    pub(crate) fn fork_ids(&self) -> Vec<DiskId> {
        self.forks.iter().map(Forked::id).collect()
    }

    pub(crate) fn end(&mut self, state: TaskState, now_ms: u64, error: Option<String>) {
        self.state = state;
        self.ended_ms = Some(now_ms);
        self.error = error;
        if state == TaskState::Done {
            self.done_bytes = self.total_bytes;
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::new(code::RECORD_DAMAGED, error.to_string()))
    }

    /// Reads a record; the error says what is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.version != VERSION {
            return Err(format!("version {}, and this program knows {VERSION}", record.version));
        }
        Ok(record)
    }

    /// The task at a rate.
    pub(crate) fn task(&self, id: u64, rate: u64) -> Task {
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
    pub(crate) fn ended_task(mut self, id: u64, cut_off: &str) -> Task {
        if self.state == TaskState::Running {
            self.state = TaskState::Failed;
            self.error = Some(cut_off.to_owned());
        }
        let took_ms = self.ended_ms.map_or(0, |ended| ended.saturating_sub(self.started_ms));
        let rate = u128::from(self.done_bytes) * 1000 / u128::from(took_ms.max(1));
        self.task(id, if took_ms == 0 { 0 } else { u64::try_from(rate).unwrap_or(u64::MAX) })
    }
}
