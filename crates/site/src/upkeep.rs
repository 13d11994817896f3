//! Work the site does for itself: cleaning, scrubbing, verifying, accounting for space. Each is a task.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::types::{Scrubbing, Space, SpaceRow, Task, TaskKind};
use api::{Error, Result, SCRUB_EVERY_S_MAX, SCRUB_EVERY_S_MIN, SPACE_ROWS_AT_ONCE, VmName, code};
use engine::{EngineError, Progress, ScrubCursor, ScrubTotals, VerifyReport};
use meta::{Key, Op, Stored, Table, Txn};
use serde::{Deserialize, Serialize};
use units::{ContainerId, DiskId};

use crate::running::{Shared, Site};
use task::Outcome;

const SCRUB: Table<meta::Site> = Table::new("scrub");
const VERSION: u32 = 1;
/// Pause between two scrubs where nobody says otherwise.
const SCRUB_EVERY_S: u64 = 7 * 86_400;
/// How often a scrub that runs notes how far it is.
const NOTED_EVERY: Duration = Duration::from_secs(30);

/// How often the site is scrubbed, and how the last time went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScrubState {
    version: u32,
    /// Seconds between the beginnings of two scrubs; 0: only when asked for.
    pub(crate) every_s: u64,
    /// When the last one began, site time in ms since the Unix epoch; 0 before the first.
    pub(crate) begun_ms: u64,
    /// When one last came to its end.
    pub(crate) done_ms: u64,
    /// Containers that could not be mended or are missing, as the last one that came to its end found.
    pub(crate) damaged: u64,
    /// The task that found it.
    pub(crate) task: u64,
    /// Where one that was interrupted goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<ContainerId>,
    /// Containers of which something is known to be lost, with the pages of each fragment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) known: Vec<(ContainerId, u16)>,
}

impl Default for ScrubState {
    fn default() -> Self {
        Self {
            version: VERSION,
            every_s: SCRUB_EVERY_S,
            begun_ms: 0,
            done_ms: 0,
            damaged: 0,
            task: 0,
            cursor: None,
            known: Vec::new(),
        }
    }
}

impl Stored for ScrubState {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl ScrubState {
    /// When the next one is due, milliseconds since the Unix epoch; `None` when it waits to be asked for.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        match (self.cursor, self.every_s) {
            (Some(_), _) => Some(self.begun_ms),
            (None, 0) => None,
            (None, every_s) => Some(self.begun_ms.saturating_add(every_s * 1000)),
        }
    }

    /// The state in the words of the interface.
    fn told(&self) -> Scrubbing {
        let since = |ms: u64| (ms > 0).then_some(ms);
        Scrubbing {
            every_s: since(self.every_s),
            begun_ms: since(self.begun_ms),
            done_ms: since(self.done_ms),
            next_ms: self.next_ms().filter(|_| self.begun_ms > 0),
            damaged: self.damaged,
            task: since(self.task),
        }
    }
}

fn scrub_key() -> Result<Key> {
    Ok(SCRUB.key().number(0).end()?)
}

impl Site {
    /// Frees what nothing reaches any more, in containers of which at least `garbage_percent` is garbage.
    ///
    /// # Errors
    /// `task_running`, `too_many_tasks`.
    pub async fn begin_clean(&self, garbage_percent: u8) -> Result<Task> {
        let message = format!("containers with at least {garbage_percent} % garbage");
        let (task, progress) = self.shared.tasks.begin_work(TaskKind::Clean, "site", &message).await?;
        let engine = self.engine().clone();
        self.work(task.id, async move {
            let report = engine.clean(garbage_percent, &progress).await?;
            Ok(Outcome::default()
                .count("containers", report.containers)
                .count("pages", report.pages)
                .count("deleted", report.deleted)
                .count("moved", report.moved)
                .count("moved_bytes", report.moved_bytes)
                .count("freed_bytes", report.freed_bytes.saturating_sub(report.moved_bytes)))
        });
        Ok(task)
    }

    /// Opens every block that a VM or snapshot reaches.
    ///
    /// # Errors
    /// `task_running`, `too_many_tasks`.
    pub async fn begin_verify(&self) -> Result<Task> {
        let message = "every block of every VM and snapshot";
        let (task, progress) = self.shared.tasks.begin_work(TaskKind::Verify, "site", message).await?;
        let (engine, shared) = (self.engine().clone(), self.shared.clone());
        self.work(task.id, async move {
            let VerifyReport { units, bytes, lost_units, damaged, affected } =
                engine.verify(&progress).await?;
            let mut outcome = Outcome::default()
                .count("units", units)
                .count("bytes", bytes)
                .count("lost_units", lost_units)
                .count("affected", affected.len() as u64);
            damaged.iter().for_each(|container| outcome.find(format!("container {container} is damaged")));
            shared.name_affected(&mut outcome, &affected).await;
            Ok(outcome)
        });
        Ok(task)
    }

    /// Computes what VMs and snapshots take: each by itself when `of` is empty, and those of `of` together else, which is
    /// what deleting them all would free.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`, `disk_not_found`, `task_running`, `too_many_tasks`.
    pub async fn begin_space(&self, of: &[String]) -> Result<Task> {
        let (names, groups, message) = if of.is_empty() {
            let all = self.shared.catalog.versions().await?;
            let (names, groups): (Vec<String>, Vec<Vec<DiskId>>) = all
                .into_iter()
                .map(|(name, disks)| (name, disks.into_iter().map(|(_, id)| id).collect()))
                .unzip();
            (names, groups, "what each VM and snapshot takes")
        } else {
            (Vec::new(), vec![self.shared.catalog.disks_of(of).await?], "what is freed when they are deleted")
        };
        let target = if of.is_empty() { "site".to_owned() } else { of.join(" ") };
        let (task, progress) = self.shared.tasks.begin_work(TaskKind::Space, &target, message).await?;
        let shared = self.shared.clone();
        self.work(task.id, async move { shared.account(names, groups, &progress).await });
        Ok(task)
    }

    /// What VMs and snapshots take, as last computed; at most `limit` rows, and 1,000, of those behind `after`.
    ///
    /// # Errors
    /// `no_space_report`.
    pub fn space(&self, vm: Option<&VmName>, after: Option<&str>, limit: usize) -> Result<Space> {
        let table = self.shared.space.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let table = table.ok_or_else(|| {
            let reason = "what VMs and snapshots take was not computed since the server started";
            Error::new(code::NO_SPACE_REPORT, reason).hint("have it computed: `holdfast space`")
        })?;
        let is_of = |row: &SpaceRow, vm: &VmName| {
            let own = row.name.split(['@', ':']).next().unwrap_or_default();
            own.eq_ignore_ascii_case(vm.as_str())
        };
        let of_vm = |row: &&SpaceRow| vm.is_none_or(|vm| is_of(row, vm));
        let behind = |row: &&SpaceRow| after.is_none_or(|after| row.name.as_str() > after);
        let limit = limit.clamp(1, SPACE_ROWS_AT_ONCE);
        let items = table.items.iter().filter(of_vm).filter(behind);
        let items: Vec<SpaceRow> = items.take(limit).cloned().collect();
        let next = items.last().filter(|_| items.len() == limit).map(|row| row.name.clone());
        let Space { taken_ms, live_bytes, stored_bytes, .. } = *table;
        Ok(Space { taken_ms, live_bytes, stored_bytes, items, next })
    }

    /// Reads every fragment, checks it, and repairs what is wrong.
    ///
    /// # Errors
    /// `task_running`, `too_many_tasks`.
    pub async fn begin_scrub(&self) -> Result<Task> {
        self.shared.begin_scrub(None).await
    }

    /// How often the site is scrubbed, and how the last time went.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn scrubbing(&self) -> Result<Scrubbing> {
        Ok(self.shared.scrub_state().await?.told())
    }

    /// Sets how often the site is scrubbed; 0: only when asked for.
    ///
    /// # Errors
    /// `invalid_request` when it is neither 0 nor from an hour to a year.
    pub async fn set_scrub_every(&self, every_s: u64) -> Result<Scrubbing> {
        if every_s != 0 && !(SCRUB_EVERY_S_MIN..=SCRUB_EVERY_S_MAX).contains(&every_s) {
            let reason = format!(
                "a scrub every {every_s} s: it can be every hour at most, every year at least, or never (0)"
            );
            return Err(Error::new(code::INVALID_REQUEST, reason));
        }
        Ok(self.shared.change_scrub(|state| state.every_s = every_s).await?.told())
    }

    fn work(&self, task: u64, work: impl Future<Output = Result<Outcome>> + Send + 'static) {
        self.shared.clone().spawn_work(task, work);
    }
}

impl Shared {
    /// Does work, and ends its task.
    pub(crate) fn spawn_work(
        self: Arc<Self>,
        task: u64,
        work: impl Future<Output = Result<Outcome>> + Send + 'static,
    ) {
        let rt = self.parts.rt.clone();
        let whole = async move {
            let done = seam::guard(&*self.parts.rt, "work of the server", work).await;
            let done = done.unwrap_or_else(|panicked| {
                Err(EngineError::panicked("work of the server", &panicked).into())
            });
            if let Err(error) = self.tasks.end_work(task, done).await {
                tracing::warn!(%error, task, "the end of a task could not be noted");
            }
        };
        rt.spawn("work of the server", Box::pin(whole));
    }

    async fn account(
        &self,
        names: Vec<String>,
        groups: Vec<Vec<DiskId>>,
        progress: &Progress,
    ) -> Result<Outcome> {
        let engine = &self.parts.engine;
        let report = engine.space(&groups, progress).await?;
        let mut rows = Vec::new();
        for ((name, disks), group) in names.into_iter().zip(&groups).zip(&report.groups) {
            let mut logical_bytes = 0;
            for disk in disks {
                let Ok(open) = engine.open_disk(*disk).await else { continue };
                logical_bytes += engine.disk_usage(open.id()).await?;
            }
            let (unique_bytes, shared_bytes) = (group.unique_bytes, group.shared_bytes);
            rows.push(SpaceRow { name, logical_bytes, unique_bytes, shared_bytes });
        }
        let outcome = Outcome::default()
            .count("live_bytes", report.live_bytes)
            .count("live_units", report.live_units)
            .count("stored_bytes", report.stored_bytes);
        if rows.is_empty() && groups.len() == 1 {
            let group = report.groups.first().copied().unwrap_or_default();
            return Ok(outcome
                .count("unique_bytes", group.unique_bytes)
                .count("shared_bytes", group.shared_bytes));
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let (live_bytes, stored_bytes) = (report.live_bytes, report.stored_bytes);
        let taken_ms = self.parts.rt.wall_ms();
        let table = Space { taken_ms, live_bytes, stored_bytes, items: rows, next: None };
        *self.space.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(table));
        Ok(outcome)
    }

    /// Says which VMs and snapshots disks belong to.
    async fn name_affected(&self, outcome: &mut Outcome, affected: &[DiskId]) {
        match self.names_of(affected).await {
            Ok(names) => names.iter().for_each(|name| outcome.find(format!("{name} has lost data"))),
            Err(error) => outcome.find(format!("VMs and snapshots cannot be named: {error}")),
        }
    }

    pub(crate) async fn scrub_state(&self) -> Result<ScrubState> {
        let kv = self.parts.engine.meta().get(&scrub_key()?).await?.kv;
        let state = kv.map(|kv| ScrubState::decode(&kv.value)).transpose();
        let state = state
            .map_err(|reason| Error::new(code::RECORD_DAMAGED, format!("the record of scrubs: {reason}")))?;
        Ok(state.unwrap_or_default())
    }

    pub(crate) async fn change_scrub(&self, change: impl FnOnce(&mut ScrubState)) -> Result<ScrubState> {
        let _turn = self.scrubbing.lock().await;
        let mut state = self.scrub_state().await?;
        change(&mut state);
        let value = serde_json::to_vec(&state)
            .map_err(|error| Error::new(code::RECORD_DAMAGED, error.to_string()))?;
        self.parts.engine.apply(Txn::new().then(Op::put(scrub_key()?, value)), &[], &[]).await?;
        Ok(state)
    }

    /// Begins what is due.
    pub(crate) async fn scrub_upkeep(self: &Arc<Self>) -> Result<()> {
        self.note_damaged().await?;
        self.scrub_what_lacks().await?;
        self.scrub_when_due().await
    }

    /// Begins a scrub when one is due. The first is due a whole pause after the site was made.
    async fn scrub_when_due(self: &Arc<Self>) -> Result<()> {
        if !self.parts.engine.is_writable() || self.parts.engine.is_indexing() {
            return Ok(());
        }
        let (state, now) = (self.scrub_state().await?, self.parts.engine.site_time_ms());
        // What begins later than now was noted by a clock that was wrong.
        if state.begun_ms == 0 || state.begun_ms > now {
            self.change_scrub(|state| state.begun_ms = now).await?;
            return Ok(());
        }
        if state.next_ms().is_none_or(|next| now < next) {
            return Ok(());
        }
        match self.begin_scrub(state.cursor).await {
            Err(error) if matches!(error.code, code::TASK_RUNNING | code::TOO_MANY_TASKS) => Ok(()),
            begun => begun.map(drop),
        }
    }

    /// Begins a scrub where media lack fragments; once for what is lacking, also when that cannot be mended.
    async fn scrub_what_lacks(self: &Arc<Self>) -> Result<()> {
        let engine = &self.parts.engine;
        let lacking = engine.lacking_within_reach();
        let known = || self.scrubbed_for.lock().unwrap_or_else(PoisonError::into_inner);
        if lacking.is_empty() || !engine.is_writable() || engine.is_indexing() || *known() == lacking {
            return Ok(());
        }
        match self.begin_scrub(None).await {
            Err(error) if matches!(error.code, code::TASK_RUNNING | code::TOO_MANY_TASKS) => Ok(()),
            begun => {
                begun?;
                *known() = lacking;
                Ok(())
            }
        }
    }

    async fn begin_scrub(self: &Arc<Self>, behind: Option<ContainerId>) -> Result<Task> {
        let message =
            if behind.is_some() { "every fragment, from where it was interrupted" } else { "every fragment" };
        let (task, progress) = self.tasks.begin_work(TaskKind::Scrub, "site", message).await?;
        let now = self.parts.engine.site_time_ms();
        if behind.is_none() {
            self.change_scrub(|state| state.begun_ms = now).await?;
        }
        let (shared, id) = (self.clone(), task.id);
        let work = async move {
            crate::probe::look_at_superblocks(&shared).await;
            shared.scrub(behind, id, &progress).await
        };
        self.clone().spawn_work(task.id, work);
        Ok(task)
    }

    /// Scrubs, and notes now and then how far it is.
    async fn scrub(&self, behind: Option<ContainerId>, task: u64, progress: &Progress) -> Result<Outcome> {
        let engine = &self.parts.engine;
        let cursor = ScrubCursor::behind(behind);
        let done = {
            let scrub = engine.scrub(&cursor, progress);
            tokio::pin!(scrub);
            loop {
                match seam::timeout(&*self.parts.rt, NOTED_EVERY, &mut scrub).await {
                    Ok(done) => break done,
                    Err(seam::Elapsed) => self.note_scrub(|state| state.cursor = cursor.last()).await,
                }
            }
        };
        let now = self.parts.engine.site_time_ms();
        match &done {
            Ok(totals) => {
                let damaged =
                    (totals.failed.len() + totals.missing.len() + totals.contradicting.len()) as u64;
                self.note_scrub(|state| {
                    (state.cursor, state.done_ms, state.damaged, state.task) = (None, now, damaged, task);
                })
                .await;
            }
            Err(error) if error.kind == engine::EngineErrorKind::Cancelled => {
                self.note_scrub(|state| state.cursor = None).await;
            }
            Err(_) => self.note_scrub(|state| state.cursor = cursor.last()).await,
        }
        let totals = done?;
        let mut outcome = Outcome::default()
            .count("containers", totals.containers)
            .count("sound", totals.sound)
            .count("repaired", totals.repaired)
            .count("away", totals.away)
            .count("damaged", (totals.failed.len() + totals.missing.len()) as u64)
            .count("affected", totals.affected.len() as u64);
        let ScrubTotals { contradicting, failed, missing, affected, .. } = totals;
        failed
            .iter()
            .for_each(|(container, reason)| outcome.find(format!("container {container}: {reason}")));
        missing.iter().for_each(|(incarnation, number)| {
            outcome.find(format!(
                "container {:016x}-{number}: no medium within reach has a fragment of it",
                incarnation.0
            ));
        });
        contradicting.iter().for_each(|container| {
            outcome.find(format!(
                "container {container}: its fragments contradict each other; `verify` tells which data"
            ));
        });
        self.name_affected(&mut outcome, &affected).await;
        Ok(outcome)
    }

    /// As if the last scrub had been cut off in the middle.
    #[cfg(test)]
    pub(crate) async fn interrupt_scrub(&self) {
        let cursor = ScrubCursor::default();
        self.parts.engine.scrub(&cursor, &Progress::default()).await.expect("all is sound");
        let middle = cursor.last().map(|last| ContainerId { number: last.number / 2, ..last });
        self.change_scrub(|state| (state.cursor, state.done_ms) = (middle, 0)).await.expect("it is noted");
    }

    async fn note_scrub(&self, change: impl FnOnce(&mut ScrubState)) {
        if let Err(error) = self.change_scrub(change).await {
            tracing::debug!(%error, "how far the scrub is could not be noted");
        }
    }
}

#[cfg(test)]
mod tests;
