//! Opening: the one path for a first start, a restart, and a restart after a crash.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cache::Cache;
use journal::{
    Journal, JournalConfig, LiveSegment, Recovered, Registered, SEGMENTS_PER_OPENING, WitnessError,
    WitnessErrorKind,
};
use pool::Pool;
use proto::{By, CallError, SegmentId};
use seam::SiteClock;
use tokio::sync::Notify;
use units::{Epoch, Incarnation, MediumId, Seq};

use crate::body::Known;
use crate::config::{Config, Deps};
use crate::dedup::Dedup;
use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::holds::kept_time;
use crate::load::{Cast, Story, read_backlog, read_body, refill, replay, restore_meta, rows_of};
use crate::losses::{Losses, OnLoss, recover};
use crate::ranges::Ranges;
use crate::record::disks;
use crate::reseal::retiring;
use crate::sink::EngineSink;
use crate::state::State;
use crate::stubs::stubs;
use crate::witness::WitnessState;

/// Average bytes of a decoded map page.
const PAGE_RAM_BYTES: u64 = 3072;
/// Average bytes of a directory in RAM.
const CONTENTS_RAM_BYTES: u64 = 64 * 1024;
/// Media may know of so many incarnations that the witness does not, as when it was made anew.
const EPOCHS_AHEAD_MAX: u64 = 1 << 40;
/// Pause between attempts to take over.
const RETRY: Duration = Duration::from_secs(1);

impl Engine {
    /// Opens the site on the media that are there: recovers what the journal and the log hold, takes over in a new
    /// incarnation, and makes the recovered tail durable before it returns. With too few media for that it serves reads
    /// only, and takes over when media come back.
    ///
    /// # Errors
    /// [`EngineErrorKind::Lost`] when what was acknowledged is on none of the media that are there, and `config` has losses
    /// refused; the error names it.
    pub async fn open(mut deps: Deps, config: Config) -> Result<Self, EngineError> {
        let unknown = |error: WitnessError| without_witness(&error, &config);
        let witness = deps.witness.load().await.map_err(unknown)?;
        let key = deps.sealer.journal_key();
        let found = journal::newest_epoch(&*deps.transport, &deps.up, key).await?;
        if found.0 > witness.epoch.0.saturating_add(EPOCHS_AHEAD_MAX) {
            // Counting on from there would leave none for those that come.
            let reason =
                format!("a medium tells of incarnation {}, and the newest was {}", found.0, witness.epoch.0);
            return Err(EngineError::new(EngineErrorKind::Lost, reason));
        }
        let epoch = Epoch(witness.epoch.max(found).0 + 1);
        // From here on nothing more is registered for the incarnation before, and behind the seals it writes nothing.
        let registered = witness.registered();
        deps.witness.store(WitnessState { epoch, ..witness }).await.map_err(unknown)?;
        deps.transport = Arc::new(By::new(epoch, deps.transport));
        deps.up = journal::seal_media(&*deps.transport, &deps.up).await.map_err(superseded)?;
        let mut losses = Losses::new(config.on_loss);
        let mut recovered = recover(&*deps.transport, &deps.up, key, &registered, &mut losses).await?;

        let shared = new_shared(&deps, &config, epoch);
        let engine = Self { shared: shared.clone() };
        let next_seq = recovered.as_ref().map_or(Seq(1), |recovered| recovered.next_seq);
        engine.load(recovered.as_mut(), next_seq, &mut losses).await?;
        shared.pool.refresh_space().await;
        let mut opening =
            Opening { deps, first_seq: next_seq, recovered, registered, attempts: 0, lost_with: None };
        if let Err(error) = losses.allow() {
            opening.lost_with = Some(engine.up());
            engine.read_only(opening, error);
            return Ok(engine);
        }
        match engine.begin(&mut opening).await {
            Ok(()) => {}
            Err(error) if is_passing(&error) && config.on_loss != OnLoss::Accept => {
                engine.read_only(opening, error);
            }
            Err(error) => return Err(error),
        }
        Ok(engine)
    }

    /// Takes over the journal and settles its tail; from then on the engine takes writes.
    async fn begin(&self, opening: &mut Opening) -> Result<(), EngineError> {
        if self.shared.journal.get().is_none() {
            self.take_over(opening).await?;
        }
        if self.shared.config.on_loss == OnLoss::Accept && !self.losses().is_empty() {
            self.leave_losses(opening.first_seq).await?;
        } else {
            self.settle_tail().await?;
        }
        self.shared.set_stuck(None);
        self.shared.writable.store(true, Ordering::Release);
        let flusher = self.clone();
        self.shared.rt.spawn("flusher", Box::pin(flusher.run_flusher()));
        let cleaner = self.clone();
        self.shared.rt.spawn("cleaner", Box::pin(cleaner.run_cleaner()));
        let rebuilder = self.clone();
        self.shared.rt.spawn("rebuilder", Box::pin(rebuilder.run_rebuilder()));
        self.clean_up(opening);
        Ok(())
    }

    /// Serves reads while too few media are up, or no room is left, to take over; tries again until it can.
    fn read_only(&self, mut opening: Opening, error: EngineError) {
        tracing::error!(%error, "reads only: the journal cannot be taken over yet");
        self.shared.set_stuck(Some(error));
        let engine = self.clone();
        let task = async move {
            loop {
                engine.shared.rt.sleep(RETRY).await;
                if engine.shared.lock().closed {
                    return;
                }
                // What is lost with these media is lost.
                if opening.lost_with.as_ref().is_some_and(|media| *media == engine.up()) {
                    continue;
                }
                match engine.shared.guarded("take-over", engine.begin_again(&mut opening)).await {
                    Ok(()) => return,
                    Err(error) if error.kind == EngineErrorKind::Closed => {
                        tracing::error!(%error, "another incarnation has taken over");
                        return engine.shared.set_stuck(Some(error));
                    }
                    Err(error) => engine.shared.set_stuck(Some(error)),
                }
            }
        };
        self.shared.rt.spawn("take over", Box::pin(task));
    }

    /// [`Engine::begin`], with the story that the media that are there now tell: those that came back may hold more of
    /// the journal than those at the start did.
    async fn begin_again(&self, opening: &mut Opening) -> Result<(), EngineError> {
        self.shared.pool.refresh_space().await;
        if self.shared.journal.get().is_none() {
            let witness = opening.deps.witness.load().await;
            let witness = witness.map_err(|error| without_witness(&error, &self.shared.config))?;
            if witness.epoch != self.shared.epoch {
                let reason = format!("incarnation {} has taken over", witness.epoch.0);
                return Err(EngineError::new(EngineErrorKind::Closed, reason));
            }
            let key = self.shared.sealer.journal_key();
            let transport = &*opening.deps.transport;
            let sealed = journal::seal_media(transport, &self.up()).await.map_err(superseded)?;
            opening.registered = witness.registered();
            let was_lost = opening.lost_with.is_some();
            opening.lost_with = was_lost.then(|| self.up());
            let mut losses = Losses::new(self.shared.config.on_loss);
            let mut again = recover(transport, &sealed, key, &opening.registered, &mut losses).await?;
            if !was_lost {
                // What is told already is whole.
                losses.allow()?;
            }
            let next_seq = again.as_ref().map_or(Seq(1), |found| found.next_seq);
            if was_lost || next_seq > opening.first_seq {
                self.load(again.as_mut(), next_seq, &mut losses).await?;
                (opening.first_seq, opening.recovered) = (next_seq, again);
                if let Err(error) = losses.allow() {
                    opening.lost_with = Some(self.up());
                    return Err(error);
                }
                opening.lost_with = None;
            }
        }
        self.begin(opening).await
    }

    pub(crate) fn up(&self) -> Vec<MediumId> {
        let health = self.shared.pool.health();
        health.iter().filter(|health| health.up).map(|health| health.medium).collect()
    }

    /// Maps, metadata and write buffer, as the journal tells them.
    async fn load(
        &self,
        recovered: Option<&mut Recovered>,
        next_seq: Seq,
        losses: &mut Losses,
    ) -> Result<(), EngineError> {
        let shared = &self.shared;
        let (mut story, mut backlogs) = (Story::default(), Vec::new());
        if let Some(recovered) = recovered {
            shared.pool.load_rows(&rows_of(recovered));
            let read = read_backlog(&shared.pool, &shared.sealer, recovered).await;
            let (backlog, pieces) = losses.or_default(read)?;
            (story, backlogs) = (Story::of(recovered, backlog), pieces);
        }
        let mut body = None;
        let mut pieces = Arc::default();
        if let Some(pointer) = &story.checkpoint {
            match read_body(&shared.pool, &shared.sealer, pointer).await {
                Ok(read) => {
                    pieces = read.1;
                    body = Some(read.0);
                }
                Err(error) => losses.meet_base(error)?,
            }
        }
        let checkpoint = body.as_ref().map(|body| body.meta.as_slice());
        let meta = Arc::new(restore_meta(shared, checkpoint, &mut story.meta, losses)?);
        let mut state = State {
            covered: story.covered,
            meta: story.meta,
            checkpoint: story.checkpoint,
            pieces,
            backlogs,
            ..State::default()
        };
        shared.clock.go_on_from(losses.or_default(kept_time(&*meta).await)?);
        shared.transport.tell_time(shared.clock.now_ms());
        let records = losses.or_default(disks(&meta).await)?;
        state.stubs = losses.or_default(stubs(&meta).await)?;
        state.retiring = losses.or_default(retiring(&meta).await)?;
        // Another store's stamps say nothing of this one.
        *shared.checkpointing.lock().await = Known::default();
        let (listed, ledger, totals) =
            body.map_or_else(Default::default, |body| (body.roots, body.ledger, body.totals));
        state.ledger = ledger.into_iter().map(|run| (run.incarnation, run.committed)).collect();
        state.totals = totals;
        state.listed = listed.iter().filter_map(|(id, root)| Some((*id, (*root)?))).collect();
        let mut cast = Cast::new(records, &listed.into_iter().collect(), &mut state);
        state.next_ordinal = state.checkpoint.as_ref().map_or(0, |pointer| pointer.commits_before);
        replay(&shared.pool, &shared.sealer, &mut state, &story.commits, &mut cast, losses).await?;
        cast.come(&mut state, story.covered, losses)?;
        for deleted in &story.deleted {
            state.leave_committed(deleted.container);
            state.sizes.remove(&deleted.container);
        }
        story.uncounted.iter().for_each(|deleted| state.uncount(deleted));
        state.deleted = story.uncounted;
        refill(&mut state, story.data, &mut cast, shared.config.container_bytes as usize, losses)?;
        state.drop_gone();
        state.next_seq = next_seq;
        *shared.ordinal.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = state.next_ordinal;
        *shared.meta.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(meta);
        state.doubt = losses.doubt(state.disks.keys());
        let mut now = shared.lock();
        state.keep_open(&now);
        *now = state;
        Ok(())
    }

    /// Behind a loss that was accepted: all that is left in the journal goes into containers, all there is into a
    /// checkpoint, and nothing leads to what is lost any more.
    async fn leave_losses(&self, first_seq: Seq) -> Result<(), EngineError> {
        loop {
            self.shared.lock().freeze();
            if !self.shared.guarded("flusher", self.flush_once()).await? {
                break;
            }
        }
        {
            let mut state = self.shared.lock();
            state.covered = state.covered.max(first_seq);
            // Written anew, so that a commit says what is covered.
            state.pieces = Arc::default();
        }
        self.take_checkpoint().await
    }

    /// Opens the stream of this incarnation. From its first start record on, the old stream is history.
    async fn take_over(&self, opening: &mut Opening) -> Result<(), EngineError> {
        let shared = &self.shared;
        opening.attempts += 1;
        let config = JournalConfig {
            epoch: shared.epoch,
            incarnation: shared.incarnation,
            key: *shared.sealer.journal_key(),
            segment_bytes: shared.config.segment_bytes,
            batch_bytes: shared.config.batch_bytes,
            segments_max: shared.config.segments_max as usize,
            first_seq: opening.first_seq,
            inherited: opening.recovered.as_ref().map(inherited).unwrap_or_default(),
            tail: opening.recovered.as_ref().and_then(|recovered| recovered.tail.clone()),
            told: opening.recovered.as_ref().map(|recovered| recovered.told.clone()).unwrap_or_default(),
            lease: shared.config.lease,
            registered: opening.registered.clone(),
            first_number: (opening.attempts - 1) * SEGMENTS_PER_OPENING,
        };
        let sink = Arc::new(EngineSink { shared: Arc::downgrade(shared) });
        let pool = Arc::new(shared.pool.clone());
        let journal =
            Journal::open(shared.rt.clone(), opening.deps.transport.clone(), pool, sink, config).await?;
        let _ = shared.journal.set(journal);
        Ok(())
    }

    /// Puts what only the old journal holds into containers. Where these have no room it stays there: all of it is
    /// durable on whole ensembles, the last batch because the first start record of the new stream took it along [I2].
    async fn settle_tail(&self) -> Result<(), EngineError> {
        loop {
            self.shared.lock().freeze();
            match self.shared.guarded("flusher", self.flush_once()).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if error.kind == EngineErrorKind::Closed => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the recovered tail does not go into containers yet: the journal holds it");
                    return Ok(());
                }
            }
        }
    }

    /// In the background: old segments, fragments without a commit, the index.
    fn clean_up(&self, opening: &Opening) {
        let engine = self.clone();
        let recovered = opening.recovered.as_ref();
        let segments = recovered.map(|recovered| recovered.segments.clone()).unwrap_or_default();
        let keep: Vec<SegmentId> =
            recovered.map(|r| r.live.iter().map(LiveSegment::id).collect()).unwrap_or_default();
        let media = self.up();
        self.shared.indexing.store(true, Ordering::Relaxed);
        let task = async move {
            let old = segments.into_iter().filter(|(_, id)| !keep.contains(id));
            let work = async {
                engine.shared.pool.free_segments(old).await;
                engine.reconcile(&media).await;
            };
            // Fewer duplicates are found without the rest of the index; nothing else depends on it.
            let _ = seam::guard(&*engine.shared.rt, "clean-up after recovery", work).await;
            engine.shared.indexing.store(false, Ordering::Relaxed);
            engine.shared.rebuild_wake.notify_one();
        };
        self.shared.rt.spawn("clean up after recovery", Box::pin(task));
    }
}

/// What opening knows until the journal is taken over.
struct Opening {
    deps: Deps,
    first_seq: Seq,
    recovered: Option<Recovered>,
    /// What the witness says of the journal.
    registered: Registered,
    /// How often it was tried to open a stream.
    attempts: u32,
    /// Something is lost with these media; with others it may not be.
    lost_with: Option<Vec<MediumId>>,
}

/// What an error of the witness means for whoever opens the site. A file that fails is lost; a store that others share will
/// answer again.
fn without_witness(error: &WitnessError, config: &Config) -> EngineError {
    let kind = match error.kind {
        WitnessErrorKind::Superseded => EngineErrorKind::Closed,
        WitnessErrorKind::Unanswered if config.lease.is_zero() => EngineErrorKind::Lost,
        WitnessErrorKind::Unanswered => EngineErrorKind::Busy,
    };
    EngineError::new(kind, error.to_string())
}

/// A later incarnation was there first.
pub(crate) fn superseded(error: CallError) -> EngineError {
    EngineError::new(EngineErrorKind::Closed, error.to_string())
}

/// Whether media coming back, or room, would mend it.
fn is_passing(error: &EngineError) -> bool {
    matches!(error.kind, EngineErrorKind::TooFewMedia | EngineErrorKind::NoSpace)
}

fn new_shared(deps: &Deps, config: &Config, epoch: Epoch) -> Arc<Shared> {
    let pool =
        Pool::new(deps.rt.clone(), deps.transport.clone(), &deps.media, &deps.up, config.container_bytes);
    deps.nodes.iter().for_each(|(medium, node)| pool.set_node(*medium, *node));
    deps.leaving.iter().for_each(|medium| pool.set_leaving(*medium, true));
    Arc::new(Shared {
        rt: deps.rt.clone(),
        config: config.clone(),
        clock: SiteClock::unset(deps.rt.clone()),
        holds_pending: AtomicBool::new(true),
        sealer: deps.sealer.clone(),
        witness: deps.witness.clone(),
        transport: deps.transport.clone(),
        epoch,
        incarnation: Incarnation(seam::random_u64(&*deps.rt)),
        pool,
        journal: OnceLock::new(),
        meta: Mutex::new(None),
        state: Mutex::default(),
        ranges: Ranges::default(),
        blocks: cache::block_cache(config.block_cache_bytes),
        pages: Cache::new(config.page_cache_bytes, PAGE_RAM_BYTES, |page| page.ram_bytes()),
        dedup: Dedup::new(config.index_bytes, config.index_tag_bits),
        minted: AtomicU32::new(0),
        ordinal: Mutex::new(0),
        flush_wake: Notify::new(),
        room_wake: Notify::new(),
        stuck: Mutex::new(None),
        checkpointing: tokio::sync::Mutex::default(),
        writable: AtomicBool::new(false),
        checkpoint_running: AtomicBool::new(false),
        telling: tokio::sync::Mutex::default(),
        telling_runs: AtomicBool::new(false),
        turnstiles: crate::outcome::Turnstiles::default(),
        indexing: AtomicBool::new(false),
        reconciling: AtomicUsize::new(0),
        fork_gate: tokio::sync::RwLock::default(),
        departures: crate::departures::Departures::default(),
        flush_gate: tokio::sync::Mutex::default(),
        clean_wake: Notify::new(),
        sealing: crate::reseal::SealingCounts::default(),
        pace: crate::pace::Pace::default(),
        rebuild: Mutex::default(),
        rebuild_wake: Notify::new(),
        lacks: crate::lacks::Lacks::default(),
        affected: crate::exposure::Affected::default(),
        cleaning: tokio::sync::Mutex::default(),
        moved: Cache::new(config.page_cache_bytes, CONTENTS_RAM_BYTES, |contents| contents.ram_bytes()),
        reserved_ids: tokio::sync::Mutex::default(),
    })
}

/// The live segments of the old stream, with the media they are on.
fn inherited(recovered: &Recovered) -> Vec<(LiveSegment, Vec<MediumId>)> {
    let on = |id: SegmentId| {
        recovered.segments.iter().filter(move |(_, have)| *have == id).map(|(medium, _)| *medium)
    };
    recovered.live.iter().map(|live| (*live, on(live.id()).collect())).collect()
}
