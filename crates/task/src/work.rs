//! Work the server does itself: it needs no client, and each kind runs once at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::types::{Task, TaskKind, TaskState};
use api::{Error, Result, code};
use engine::Progress;
use meta::{Op, Stored};

use crate::record::Record;
use crate::tasks::{Tasks, key, plain};

/// Most findings in a record; the rest is counted.
const FINDINGS_MAX: usize = 64;

/// What came of work.
#[derive(Debug, Default)]
pub struct Outcome {
    counts: BTreeMap<String, u64>,
    findings: Vec<String>,
    /// What is to be said of it in the place of what was said when it began.
    message: Option<String>,
}

impl Outcome {
    /// With words in the place of those that it began with.
    pub fn said(message: String) -> Self {
        Self { message: Some(message), ..Self::default() }
    }

    /// With a number of something.
    #[must_use]
    pub fn count(mut self, what: &str, number: u64) -> Self {
        self.counts.insert(what.to_owned(), number);
        self
    }

    /// Something that is wrong, for people.
    pub fn find(&mut self, what: String) {
        self.findings.push(what);
    }
}

impl Tasks {
    /// Refuses work of a kind that runs already.
    ///
    /// # Errors
    /// `task_running`.
    pub fn check_idle(&self, kind: TaskKind) -> Result<()> {
        let Some(id) = self.running.of_kind(kind) else { return Ok(()) };
        let reason = format!("task {id} is at it already: {}", kind.word());
        Err(Error::new(code::TASK_RUNNING, reason)
            .hint(format!("wait for it (`task show {id}`) or cancel it: `task cancel {id}`")))
    }

    /// Makes a task of work of the server, which tells in what is given how far it is, and is asked there to end.
    ///
    /// # Errors
    /// `task_running`, `too_many_tasks`, and when the record cannot be stored.
    pub async fn begin_work(
        &self,
        kind: TaskKind,
        target: &str,
        message: &str,
    ) -> Result<(Task, Arc<Progress>)> {
        let turn = self.turn().await;
        self.check_idle(kind)?;
        let (id, txn) = self.make_room(&turn).await?;
        let record = Record::new(kind, target, self.rt.wall_ms(), 0, plain(message));
        self.engine.apply(txn.then(Op::put(key(id)?, record.encode()?)), &[], &[]).await?;
        let progress = Arc::new(Progress::default());
        self.running.insert_work(id, record, self.rt.now(), progress.clone());
        tracing::info!(task = id, kind = kind.word(), target, "task begun");
        Ok((self.task(id).await?, progress))
    }

    /// Ends a task of work of the server with what came of it. One that was cancelled has ended already.
    ///
    /// # Errors
    /// When the record cannot be stored.
    pub async fn end_work(&self, id: u64, done: Result<Outcome>) -> Result<()> {
        let _turn = self.turn().await;
        self.running.look(self.rt.now());
        let Some(mut record) = self.running.record(id) else { return Ok(()) };
        match done {
            Ok(outcome) => {
                record.end(TaskState::Done, self.rt.wall_ms(), None);
                record.counts = outcome.counts;
                record.message = outcome.message.map_or(record.message, |said| plain(&said));
                let more = outcome.findings.len().saturating_sub(FINDINGS_MAX);
                record.findings =
                    outcome.findings.iter().take(FINDINGS_MAX).map(|text| plain(text)).collect();
                if more > 0 {
                    record.findings.push(format!("and {more} more"));
                }
            }
            Err(error) if error.code == code::TASK_ENDED => {
                record.end(TaskState::Cancelled, self.rt.wall_ms(), None);
            }
            Err(error) => record.end(TaskState::Failed, self.rt.wall_ms(), Some(plain(&error.to_string()))),
        }
        let txn = meta::Txn::new().then(Op::put(key(id)?, record.encode()?));
        let stored = self.engine.apply(txn, &[], &[]).await;
        self.running.remove(id);
        tracing::info!(task = id, kind = record.kind.word(), state = ?record.state, error = record.error, "task ended");
        stored?;
        Ok(())
    }
}
