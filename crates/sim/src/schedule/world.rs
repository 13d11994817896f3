//! What guests, nemesis and judge share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::{Engine, EngineError, EngineErrorKind};
use seam::{BoxFuture, Runtime};
use tokio::sync::oneshot;
use units::{BLOCK_U64, DiskId};

use crate::executor::{Control, SimRuntime};
use crate::ground::{Life, Site, engine_error};
use crate::model::Model;

use super::holds::Holds;
use super::plan::{Family, Plan};
use super::vms::Known;

/// Blocks with a write under way: one whose contents depend on what is there must have them alone.
#[derive(Debug, Clone, Copy)]
struct Held {
    id: u64,
    start: u64,
    end: u64,
    alone: bool,
}

/// A disk as the guests know it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) bytes: u64,
    /// The largest size it ever had.
    pub(super) bytes_max: u64,
    /// Its size is changing: requests beyond this may be refused.
    pub(super) shrinking_to: Option<u64>,
    /// How often its size was to change.
    pub(super) resizes: u64,
    /// It is being deleted.
    pub(super) leaving: bool,
    /// A snapshot.
    pub(super) read_only: bool,
    /// When its creation was acknowledged.
    created: Option<Duration>,
    /// Its creation may be lost with the newest batch of the journal.
    doubtful: bool,
    held: Vec<Held>,
}

impl Disk {
    /// It is there, and its size is known.
    pub(super) fn is_settled(&self) -> bool {
        self.shrinking_to.is_none() && !self.leaving
    }

    /// Which of its sizes it has, when that is `bytes` and stays so for now.
    pub(super) fn steady(&self, bytes: u64) -> Option<u64> {
        (self.bytes == bytes && self.shrinking_to.is_none()).then_some(self.resizes)
    }
}

/// The run of the process that serves requests now.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) engine: Engine,
    pub(super) site: ::site::Site,
    pub(super) rt: Arc<SimRuntime>,
}

pub(super) struct Shared {
    pub(super) model: Model,
    pub(super) disks: BTreeMap<DiskId, Disk>,
    pub(super) kept: Holds,
    pub(super) vms: Known,
    pub(super) serving: Option<Serving>,
    /// The engine is being closed.
    pub(super) closing: bool,
    /// Until when requests may find no room below.
    pub(super) host_full_until: Duration,
    /// Guests are to stop.
    pub(super) over: bool,
    /// Requests answered.
    pub(super) answered: u64,
    wrong: Option<String>,
    holds: u64,
    /// A medium that never comes back.
    pub(super) banned: Option<usize>,
}

/// Room that is there again is found so soon: a write under way may wait for three answers that never come.
const ROOM_FOUND: Duration = Duration::from_secs(30);

/// What all parts of a schedule share.
pub(super) struct World {
    pub(super) control: Control,
    pub(super) rt: Arc<SimRuntime>,
    pub(super) plan: Plan,
    pub(super) site: Site,
    shared: Mutex<Shared>,
    tracing: bool,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The process died.
    Died,
    /// The caller gave up.
    GaveUp,
    /// The engine refused.
    Refused(EngineError),
}

impl World {
    pub(super) fn new(control: &Control, plan: Plan, site: Site, tracing: bool) -> Self {
        let shared = Shared {
            model: Model::new(plan.fill),
            disks: BTreeMap::new(),
            kept: Holds::default(),
            vms: Known::default(),
            serving: None,
            closing: false,
            host_full_until: Duration::ZERO,
            over: false,
            answered: 0,
            wrong: None,
            holds: 0,
            banned: None,
        };
        Self {
            control: control.clone(),
            rt: control.world(),
            plan,
            site,
            shared: Mutex::new(shared),
            tracing,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.control.now()
    }

    /// An event for the digest, and for whoever reads a trace.
    pub(super) fn note(&self, event: fmt::Arguments<'_>) {
        let text = event.to_string();
        self.control.trace(text.as_bytes());
        if self.tracing {
            eprintln!("{:>14?} {text}", self.now());
        }
    }

    /// Something is wrong; the first of these is the verdict.
    pub(super) fn wrong(&self, what: impl fmt::Display) {
        let text = what.to_string();
        self.note(format_args!("WRONG: {text}"));
        let mut shared = self.lock();
        shared.wrong.get_or_insert(text);
        shared.over = true;
    }

    pub(super) fn verdict(&self) -> Option<String> {
        self.lock().wrong.clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// The process that serves now; waits for one. `None` when the guests are to stop.
    pub(super) async fn serving(&self) -> Option<Serving> {
        let begun = self.now();
        loop {
            {
                let shared = self.lock();
                if shared.over {
                    return None;
                }
                if let Some(serving) = &shared.serving
                    && !shared.closing
                {
                    return Some(serving.clone());
                }
            }
            self.rt.sleep(look_again(self.now() - begun)).await;
        }
    }

    /// Runs a request within the process, no longer than `patience`.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        serving: &Serving,
        patience: Option<Duration>,
        request: impl FnOnce(Engine) -> BoxFuture<'static, Result<T, EngineError>>,
    ) -> Result<T, Unanswered> {
        self.answered(serving, patience, request(serving.engine.clone())).await
    }

    /// Asks the site; the administrator does not give up.
    pub(super) async fn ask_site<T: Send + 'static>(
        &self,
        serving: &Serving,
        request: impl FnOnce(::site::Site) -> BoxFuture<'static, api::Result<T>>,
    ) -> Result<T, Unanswered> {
        let answer = self.ask_api(serving, request(serving.site.clone())).await;
        answer.map_err(|error| match error {
            Some(error) => Unanswered::Refused(engine_error(error)),
            None => Unanswered::Died,
        })
    }

    /// Runs a command within the process; the error is `None` when that died.
    pub(super) async fn ask_api<T: Send + 'static>(
        &self,
        serving: &Serving,
        command: BoxFuture<'static, api::Result<T>>,
    ) -> Result<T, Option<api::Error>> {
        let (sender, answer) = oneshot::channel();
        serving.rt.spawn("command", Box::pin(async move { drop(sender.send(command.await)) }));
        match answer.await {
            Ok(answer) => answer.map_err(Some),
            Err(_) => Err(None),
        }
    }

    async fn answered<T: Send + 'static>(
        &self,
        serving: &Serving,
        patience: Option<Duration>,
        work: BoxFuture<'static, Result<T, EngineError>>,
    ) -> Result<T, Unanswered> {
        let (sender, answer) = oneshot::channel();
        let rt = serving.rt.clone();
        let task = async move {
            let answer = match patience {
                None => work.await.map_err(Unanswered::Refused),
                Some(patience) => match seam::timeout(&*rt, patience, work).await {
                    Ok(answer) => answer.map_err(Unanswered::Refused),
                    Err(seam::Elapsed) => Err(Unanswered::GaveUp),
                },
            };
            let _ = sender.send(answer);
        };
        serving.rt.spawn("request", Box::pin(task));
        let answer = answer.await.unwrap_or(Err(Unanswered::Died));
        self.lock().answered += 1;
        answer
    }

    /// Whether no write may be acknowledged for want of failure domains.
    pub(super) fn can_starve(&self) -> bool {
        self.plan.can_starve(&self.site.members())
    }

    /// Whether a request on `disk` that reaches to byte `end` may be refused so. `writes`: it needs room.
    pub(super) fn may_refuse(&self, error: &EngineError, disk: DiskId, end: u64, writes: bool) -> bool {
        let shared = self.lock();
        let found = shared.disks.get(&disk);
        if self.plan.family == Family::Beyond && names_something(error) {
            return true;
        }
        match error.kind {
            EngineErrorKind::Closed => shared.closing || shared.serving.is_none(),
            EngineErrorKind::NotFound => found.is_none_or(|disk| disk.leaving || disk.doubtful),
            EngineErrorKind::Invalid => found
                .is_some_and(|disk| disk.bytes < end || disk.shrinking_to.is_some_and(|bytes| bytes < end)),
            // Without room below the journal is not emptied, and full at last.
            EngineErrorKind::NoSpace => self.now() < shared.host_full_until || writes && self.plan.small,
            EngineErrorKind::TooFewMedia => self.can_starve(),
            _ => false,
        }
    }

    /// From now on there is no room below, or there is again.
    pub(super) fn set_host_full(&self, full: bool) {
        let until = if full { Duration::MAX } else { self.now() + ROOM_FOUND };
        self.lock().host_full_until = until;
    }

    /// A medium goes, or is back unless it is one that never comes back.
    pub(super) fn set_gone(&self, medium: usize, gone: bool) {
        let banned = self.lock().banned == Some(medium);
        self.site.stores()[medium].set_gone(gone || banned);
    }

    /// A medium goes for good; false when another has.
    pub(super) fn ban(&self, medium: usize) -> bool {
        if self.lock().banned.is_some() {
            return false;
        }
        self.lock().banned = Some(medium);
        self.set_gone(medium, true);
        true
    }

    /// Takes blocks for a write; `None` when another is in the way.
    pub(super) fn hold(&self, disk: DiskId, start: u64, end: u64, alone: bool) -> Option<Hold<'_>> {
        let mut shared = self.lock();
        shared.holds += 1;
        let id = shared.holds;
        let found = shared.disks.get_mut(&disk)?;
        let clash = |held: &Held| held.start < end && start < held.end && (alone || held.alone);
        if found.held.iter().any(clash) {
            return None;
        }
        found.held.push(Held { id, start, end, alone });
        Some(Hold { world: self, disk, id })
    }

    /// A disk exists from now on.
    pub(super) fn add_disk(&self, disk: DiskId, bytes: u64, read_only: bool) {
        let state = Disk {
            bytes,
            bytes_max: bytes,
            shrinking_to: None,
            resizes: 0,
            leaving: false,
            read_only,
            created: None,
            doubtful: false,
            held: Vec::new(),
        };
        self.lock().disks.insert(disk, state);
    }

    /// Its creation was acknowledged.
    pub(super) fn created(&self, disk: DiskId) {
        let now = self.now();
        if let Some(disk) = self.lock().disks.get_mut(&disk) {
            disk.created = Some(now);
        }
    }

    /// Finds out which of the disks in doubt are there.
    pub(super) async fn settle_doubts(&self, engine: &Engine) {
        let doubtful = |(id, disk): (&DiskId, &Disk)| disk.doubtful.then_some(*id);
        let disks: Vec<DiskId> = self.lock().disks.iter().filter_map(doubtful).collect();
        for id in disks {
            match engine.open_disk(id).await {
                Err(error) if error.kind == EngineErrorKind::NotFound => {
                    self.note(format_args!("disk {} is lost with the newest batch", id.0));
                    self.remove_disk(id);
                }
                Ok(_) => {
                    if let Some(disk) = self.lock().disks.get_mut(&id) {
                        disk.doubtful = false;
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// A disk exists no more.
    pub(super) fn remove_disk(&self, disk: DiskId) {
        let mut shared = self.lock();
        shared.disks.remove(&disk);
        shared.model.forget_disk(disk);
    }

    /// The process serves from now on.
    pub(super) fn serve(&self, engine: Engine, life: &Life) {
        let mut shared = self.lock();
        let site = life.site().expect("an open site");
        shared.serving = Some(Serving { engine, site, rt: life.runtime() });
        shared.closing = false;
    }

    /// The process is dead.
    pub(super) fn end_life(&self, life: Life, power_cut: bool) {
        self.lock().serving = None;
        let newest = life.newest_batches();
        if let Some(engine) = life.engine().filter(Engine::is_writable) {
            self.lock().vms.ended_at(engine.site_time_ms());
        }
        self.site.end(life, power_cut);
        let now = self.now();
        let mut shared = self.lock();
        shared.closing = false;
        shared.model.crash(now);
        // With every copy of the newest batch damaged it cannot be told from one that was torn (docs/guarantees.md).
        if self.plan.family == Family::Beyond
            && let Some(since) = newest
        {
            shared.model.doubt(since);
            for disk in shared.disks.values_mut() {
                disk.doubtful |= disk.created.is_some_and(|created| created >= since);
            }
        }
    }
}

/// Pause before the next look at something that has been waited for so long: a long wait costs few steps.
pub(super) fn look_again(waited: Duration) -> Duration {
    (waited / 1000).clamp(Duration::from_micros(500), Duration::from_millis(100))
}

/// Whether an error says what is lost or in the way: a container, segment or medium.
pub(super) fn names_something(error: &EngineError) -> bool {
    let kind = matches!(
        error.kind,
        EngineErrorKind::Lost
            | EngineErrorKind::TooFewMedia
            | EngineErrorKind::NoSpace
            | EngineErrorKind::Closed
    );
    let text = error.reason.to_lowercase();
    kind && ["container", "segment", "medi", "incarnation", "checkpoint"]
        .iter()
        .any(|word| text.contains(word))
}

/// Blocks held for a write; dropping it lets others write there.
pub(super) struct Hold<'a> {
    world: &'a World,
    disk: DiskId,
    id: u64,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some(disk) = self.world.lock().disks.get_mut(&self.disk) {
            disk.held.retain(|held| held.id != self.id);
        }
    }
}

/// Whole blocks that hold the bytes `start .. end`.
pub(super) fn blocks_of(start: u64, end: u64) -> (u64, u64) {
    (start / BLOCK_U64, end.div_ceil(BLOCK_U64))
}
