//! The engine's handle and what its parts share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cache::{BlockCache, Cache};
use container::{Builder, Built};
use journal::{Commit, Entry, Journal};
use map::Page;
use pool::{Pool, PoolErrorKind};
use proto::Transport;
use seal::Sealer;
use seam::{Rt, SiteClock};
use tokio::sync::Notify;
use units::{ContainerId, DiskId, Epoch, Incarnation, MediumId, Seq};

use crate::body::Known;
use crate::config::Config;
use crate::dedup::Dedup;
use crate::error::{EngineError, EngineErrorKind};
use crate::generation::Generation;
use crate::ranges::Ranges;
use crate::rebuild::Rebuild;
use crate::reconcile::Looking;
use crate::state::{Flushed, PendingCommit, State};
use crate::stubs::Contents;
use crate::witness::Witness;

/// Everything the parts of an engine share.
pub(crate) struct Shared {
    pub(crate) rt: Rt,
    pub(crate) config: Config,
    pub(crate) clock: SiteClock,
    /// Data nodes may not know of all holds.
    pub(crate) holds_pending: AtomicBool,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) witness: Arc<dyn Witness>,
    /// The way to the media, for this incarnation.
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) pool: Pool,
    pub(crate) journal: OnceLock<Journal>,
    pub(crate) meta: Mutex<Option<Arc<meta::Embedded>>>,
    pub(crate) state: Mutex<State>,
    pub(crate) ranges: Ranges,
    pub(crate) blocks: BlockCache,
    pub(crate) pages: Cache<(ContainerId, u16), Arc<Page>>,
    pub(crate) dedup: Dedup,
    /// Number of the next container.
    pub(crate) minted: AtomicU32,
    /// Ordinal of the next commit; held while the record is queued, so that ordinals follow the journal's order.
    pub(crate) ordinal: Mutex<u64>,
    /// The flusher has something to do.
    pub(crate) flush_wake: Notify,
    /// Room in the write buffer, or an end to waiting for it.
    pub(crate) room_wake: Notify,
    /// Why the write buffer cannot be flushed now.
    pub(crate) stuck: Mutex<Option<Stuck>>,
    pub(crate) checkpointing: tokio::sync::Mutex<Known>,
    /// The journal is taken over and its tail settled: writes may come.
    pub(crate) writable: AtomicBool,
    pub(crate) checkpoint_running: AtomicBool,
    /// Held by what has the backlog told elsewhere.
    pub(crate) telling: tokio::sync::Mutex<()>,
    pub(crate) telling_runs: AtomicBool,
    /// What metadata transactions pass.
    pub(crate) turnstiles: crate::outcome::Turnstiles,
    pub(crate) indexing: AtomicBool,
    /// Lists of media that are being gone through: what they have is not known yet.
    pub(crate) reconciling: AtomicUsize,
    /// Held by a flush from its first hit until its commit is applied.
    pub(crate) flush_gate: tokio::sync::Mutex<()>,
    /// Shared by what makes, deletes and settles disks, from its first look until RAM and records agree.
    pub(crate) fork_gate: tokio::sync::RwLock<()>,
    /// Disks that leave, and what begins from them.
    pub(crate) departures: crate::departures::Departures,
    /// Held by the cleaner.
    pub(crate) cleaning: tokio::sync::Mutex<()>,
    /// The cleaner may have something to do.
    pub(crate) clean_wake: Notify,
    /// What is on its way to the journal, by the key epoch it may be sealed under.
    pub(crate) sealing: crate::reseal::SealingCounts,
    /// How fast background work may go.
    pub(crate) pace: crate::pace::Pace,
    /// What moves to other media.
    pub(crate) rebuild: Mutex<Rebuild>,
    pub(crate) rebuild_wake: Notify,
    /// Media that lack fragments.
    pub(crate) lacks: crate::lacks::Lacks,
    /// Disks of which something cannot be read.
    pub(crate) affected: crate::exposure::Affected,
    /// Directories that stubs lead to.
    pub(crate) moved: Cache<ContainerId, Arc<Contents>>,
    /// Disk numbers that are free for this incarnation.
    pub(crate) reserved_ids: tokio::sync::Mutex<std::ops::Range<u64>>,
}

/// Nothing can be flushed.
#[derive(Debug)]
pub(crate) struct Stuck {
    /// Why, as last seen.
    error: EngineError,
    /// From when on.
    since: Duration,
}

/// What a flush or checkpoint wants committed.
pub(crate) struct ToCommit<'a> {
    pub(crate) builder: &'a Builder,
    pub(crate) covered: Seq,
    pub(crate) blocks: u32,
    pub(crate) block_bytes: u64,
}

impl Shared {
    /// Runs a piece of background work; a panic in it is an error like any other, and noted for `status`.
    pub(crate) async fn guarded<T>(
        &self,
        task: &'static str,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let outcome = seam::guard(&*self.rt, task, work).await;
        outcome.unwrap_or_else(|panicked| Err(EngineError::panicked(task, &panicked)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Changed in steps that cannot panic half-way; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between two looks at the state, where others may come in.
    pub(crate) async fn maybe_yield(&self) {
        seam::maybe_yield(&*self.rt).await;
    }

    /// Waits until it is certain that no other incarnation had taken over before this was called [I3].
    pub(crate) async fn check_owner(&self) -> Result<(), EngineError> {
        if self.config.lease.is_zero() {
            return Ok(());
        }
        let reason = "the journal is not taken over yet";
        let journal = self.journal.get();
        let journal = journal.ok_or_else(|| EngineError::new(EngineErrorKind::TooFewMedia, reason))?;
        Ok(journal.readable().await?)
    }

    /// Most bytes of a container that is written now: less than the full size where the media's room is in pieces.
    pub(crate) fn container_limit(&self) -> usize {
        let full = self.config.container_bytes as usize;
        match self.pool.space().place_bytes as usize {
            // None finds a place, as far as is known: a write tells.
            0 => full,
            place => place.min(full),
        }
    }

    pub(crate) fn journal(&self) -> Result<&Journal, EngineError> {
        self.journal
            .get()
            .ok_or_else(|| EngineError::new(EngineErrorKind::Closed, "the engine is not open yet"))
    }

    /// Writes a container and makes its commit record durable; `changes` tells what the commit changes in the maps, for
    /// each generation of which something is in it.
    pub(crate) async fn commit_container(
        &self,
        what: ToCommit<'_>,
        changes: impl FnOnce(&Built) -> Vec<Flushed>,
    ) -> Result<Built, EngineError> {
        let mint = || {
            let number = self.minted.fetch_add(1, Ordering::Relaxed);
            self.lock().undecided.insert(number);
            number
        };
        // What is given up is garbage wherever some of it is left.
        let abandon = |number: u32| {
            self.lock().undecided.remove(&number);
        };
        let written = self.pool.write(what.builder, &self.sealer, self.incarnation, &mint, &abandon).await;
        let is_in_pieces = self.container_limit() < self.config.container_bytes as usize;
        if is_in_pieces || written.as_ref().is_err_and(|error| error.kind == PoolErrorKind::NoSpace) {
            // What finds a place changes with each container.
            self.pool.refresh_space().await;
        }
        let written = written?;
        // Kept until the commit is durable: until then the row does not move.
        let _using = written.using;
        let built = written.built;
        let container = built.head.container;
        let pending = PendingCommit { generations: changes(&built) };
        self.lock().pending.insert(container, pending);
        let mut commit = Commit {
            container,
            total: built.head.total,
            entries: built.head.entries.len() as u32,
            map_log_bytes: built.head.map_log_bytes,
            map_log: built.head.map_log,
            ordinal: 0,
            covered: what.covered,
            blocks: what.blocks,
            block_bytes: what.block_bytes,
        };
        let append = {
            let journal = self.journal()?;
            let mut ordinal = self.ordinal.lock().unwrap_or_else(PoisonError::into_inner);
            commit.ordinal = *ordinal;
            *ordinal += 1;
            let mut entries: Vec<Entry> = written.new_row.into_iter().map(Entry::Row).collect();
            entries.push(Entry::Commit(commit));
            journal.append_control(entries)
        };
        let result = match append.await {
            Ok(result) => result.map_err(EngineError::from),
            Err(_) => Err(EngineError::new(EngineErrorKind::Closed, "the journal is gone")),
        };
        if let Err(error) = result {
            // The record may be found after a crash; the fragments stay until recovery has decided.
            self.lock().pending.remove(&container);
            return Err(error);
        }
        self.lock().undecided.remove(&container.number);
        tracing::debug!(%container, "container committed");
        Ok(built)
    }
}

/// The engine of one compute node. Cheap to clone; all operations may run at once.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine(epoch {})", self.shared.epoch.0)
    }
}

impl Engine {
    /// The metadata store.
    pub fn meta(&self) -> Arc<dyn meta::Store> {
        self.shared.embedded().expect("an open engine has its metadata store")
    }

    /// The pool below.
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// The epoch of this incarnation.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// Size of a disk in bytes.
    pub fn disk_bytes(&self, disk: DiskId) -> Option<u64> {
        self.shared.lock().disks.get(&disk).filter(|disk| !disk.gone).map(|disk| disk.bytes)
    }

    /// A medium that was down is there again and takes part in what is written from now on.
    ///
    /// It hears first who writes now: before that an incarnation of before might still change it. One that does not hear it
    /// stays down, and whoever looks after it tries again.
    pub async fn medium_returned(&self, medium: MediumId) {
        let sealed = match journal::seal_media(&*self.shared.transport, &[medium]).await {
            Ok(sealed) if sealed.is_empty() => return,
            Ok(sealed) => sealed,
            Err(error) => return tracing::warn!(%error, "another incarnation has the medium"),
        };
        let looking = Looking::begin(&self.shared);
        self.shared.pool.restore(medium);
        self.shared.flush_wake.notify_one();
        self.shared.rebuild_wake.notify_one();
        // What is committed is certain only when the journal is taken over; that looks at all media then.
        if self.is_writable() {
            let engine = self.clone();
            // What it missed while it was away.
            let task = async move {
                engine.reconcile(&sealed).await;
                drop(looking);
            };
            self.shared.rt.spawn("reconcile a medium", Box::pin(task));
        }
    }

    /// Whether writes are taken: false while too few media are up to take the journal over.
    pub fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Acquire)
    }

    /// Whether another incarnation has taken the site over, as far as this one has heard, or the journal's writer is gone:
    /// this one serves nothing any more.
    pub fn is_superseded(&self) -> bool {
        let is_closed = |error: EngineError| error.kind == EngineErrorKind::Closed;
        self.shared.journal.get().is_some_and(|journal| journal.is_fenced() || journal.is_broken())
            || self.shared.stuck_error().is_some_and(is_closed)
    }

    /// Why a change cannot be taken now.
    ///
    /// # Errors
    /// [`EngineErrorKind::TooFewMedia`] and what else is in the way.
    pub fn check_writable(&self) -> Result<(), EngineError> {
        if self.is_writable() {
            return Ok(());
        }
        let reason = || EngineError::new(EngineErrorKind::TooFewMedia, "the site serves reads only");
        Err(self.shared.stuck_error().unwrap_or_else(reason))
    }

    /// Whether the index still lacks containers that were there at the start.
    pub fn is_indexing(&self) -> bool {
        self.shared.indexing.load(Ordering::Relaxed)
    }

    /// Makes every acknowledged write durable: they all are.
    ///
    /// # Errors
    /// When the disk does not exist.
    pub async fn flush(&self, disk: DiskId) -> Result<(), EngineError> {
        self.shared.lock().check(disk, 0, 0)
    }

    /// Writes to containers what is in the write buffer now; what comes meanwhile may stay there.
    ///
    /// # Errors
    /// When the pool or the journal does not take it; nothing is lost, the journal still holds it.
    pub async fn drain(&self) -> Result<(), EngineError> {
        let until = {
            let mut state = self.shared.lock();
            state.freeze();
            state.frozen.back().map(|newest| newest.end)
        };
        let Some(until) = until else { return Ok(()) };
        loop {
            let waited = self.shared.room_wake.notified();
            tokio::pin!(waited);
            waited.as_mut().enable();
            let is_out = |oldest: &Arc<Generation>| oldest.end > until;
            let is_over = {
                let state = self.shared.lock();
                if state.frozen.front().is_none_or(is_out) {
                    return Ok(());
                }
                state.ended
            };
            if is_over {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            if let Some(error) = self.shared.stuck_error() {
                return Err(error);
            }
            self.shared.flush_wake.notify_one();
            waited.await;
        }
    }

    /// Writes the buffer and the maps to the log and ends the journal; later calls fail with
    /// [`EngineErrorKind::Closed`].
    ///
    /// # Errors
    /// When something could not be written; it stands in the journal and is found at the next start.
    pub async fn close(&self) -> Result<(), EngineError> {
        self.shared.lock().closed = true;
        self.shared.clean_wake.notify_one();
        self.shared.rebuild_wake.notify_one();
        if !self.is_writable() {
            self.shared.room_wake.notify_waiters();
            return Ok(());
        }
        let drained = self.drain().await;
        let checkpointed = match drained {
            Ok(()) => self.checkpoint().await,
            Err(error) => Err(error),
        };
        self.shared.journal()?.close().await;
        self.shared.lock().ended = true;
        self.shared.room_wake.notify_waiters();
        self.shared.flush_wake.notify_one();
        checkpointed
    }
}

impl Shared {
    pub(crate) fn embedded(&self) -> Option<Arc<meta::Embedded>> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn stuck_error(&self) -> Option<EngineError> {
        self.lock_stuck().as_ref().map(|stuck| stuck.error.clone())
    }

    /// Why nothing could be flushed for so long that writes wait no longer.
    pub(crate) fn stuck_for_good(&self) -> Option<EngineError> {
        let (now, patience) = (self.rt.now(), self.config.write_patience);
        let stuck = self.lock_stuck();
        let stuck = stuck.as_ref().filter(|stuck| now.saturating_sub(stuck.since) >= patience)?;
        Some(stuck.error.clone())
    }

    fn lock_stuck(&self) -> MutexGuard<'_, Option<Stuck>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_stuck(&self, error: Option<EngineError>) {
        let now = self.rt.now();
        let mut stuck = self.lock_stuck();
        let since = stuck.as_ref().map_or(now, |stuck| stuck.since);
        *stuck = error.map(|error| Stuck { error, since });
        drop(stuck);
        self.room_wake.notify_waiters();
    }
}
