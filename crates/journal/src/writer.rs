//! The writer: group commit, one batch at a time, segments rolled over failures.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::{CallError, CallErrorKind, Request, SegmentId, Transport};
use seam::{BoxFuture, Rt};
use tokio::sync::{Notify, oneshot};
use units::{Epoch, Incarnation, MediumId, Seq};

use crate::lease::Leases;
use crate::queue::{Lane, Next, Queued, State};
use crate::register::Registering;
use crate::registry::Registry;
use crate::roll::Segment;
use crate::{Ensemble, Ensembles, Entry, Known, LiveSegment, Registered, Tail, Told, WitnessError};

/// How often a member that gave no answer is asked again before it counts as failed.
const CALL_ATTEMPTS: usize = 3;
/// Longest wait for more records that are on their way, as a share of what the last batch took: a batch more costs as
/// much as the last one.
const GATHER_SHARE: u32 = 4;
/// The same in times that other tasks may run.
const GATHER_YIELDS: usize = 32;
/// Records of a batch from which on nothing is waited for: it is worth its sync.
const GATHER_RECORDS: usize = 64;

/// What the journal can be told.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Order of this incarnation.
    pub epoch: Epoch,
    /// This incarnation: a new random number for each opening, failed ones included.
    pub incarnation: Incarnation,
    /// Key of the batches' MAC.
    pub key: [u8; 32],
    /// Bytes of a segment, header page included.
    pub segment_bytes: u32,
    /// Largest batch in bytes, below a quarter of a segment.
    pub batch_bytes: usize,
    /// Most segments that hold uncovered records: bounds the journal and the time of recovery.
    pub segments_max: usize,
    /// Seq of the first record.
    pub first_seq: Seq,
    /// Segments of the stream before that hold uncovered records, oldest first, and the media they are on.
    pub inherited: Vec<(LiveSegment, Vec<MediumId>)>,
    /// The last batch of the stream before.
    pub tail: Option<Tail>,
    /// What of that stream is told by the checkpoint and the backlog.
    pub told: Told,
    /// How long leases hold that media grant; zero where nobody else can take over. Then ensembles are not registered
    /// ahead: each segment is, before it is used.
    pub lease: Duration,
    /// What is known outside the journal as the stream begins.
    pub registered: Registered,
    /// Number of the first segment: above those of earlier, failed openings of this incarnation, each of which takes up to
    /// [`SEGMENTS_PER_OPENING`].
    pub first_number: u32,
}

/// Why an append failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalErrorKind {
    /// Too few media take writes.
    TooFewMedia,
    /// No room for a segment, or a record too large for one.
    NoSpace,
    /// The journal was closed.
    Closed,
    /// A newer incarnation has taken over, or the position of the journal could not be recorded. The journal takes
    /// nothing more.
    Fenced,
}

/// An append failed; it may be found after a crash or not.
#[derive(Debug, Clone, thiserror::Error)]
#[error("journal: {reason}")]
pub struct JournalError {
    /// What to do about it.
    pub kind: JournalErrorKind,
    /// What happened.
    pub reason: String,
}

/// Hears of what became durable. Calls come from one task, in order.
pub trait Sink: Send + Sync {
    /// `entries` are durable on a whole ensemble, with the seqs from `first` on. Called before any of them is
    /// acknowledged, so what it makes visible is durable.
    fn durable(&self, first: Seq, entries: Vec<Entry>);
    /// All that recovery must know as of the last [`Sink::durable`].
    fn start(&self) -> Known;
    /// A segment takes records from now on, and counts: who looked at the journal before found it emptier.
    fn begun(&self);
    /// Has this known outside the journal, in place of what was.
    fn register(&self, registered: Registered) -> BoxFuture<'_, Result<(), WitnessError>>;
}

/// The end of an append: the seq behind its last record.
pub type Append = oneshot::Receiver<Result<Seq, JournalError>>;

pub(crate) struct Shared {
    pub(crate) rt: Rt,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) ensembles: Arc<dyn Ensembles>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) config: JournalConfig,
    state: Mutex<State>,
    pub(crate) leases: Leases,
    registry: Mutex<Registry>,
    pub(crate) registering: Registering,
    pub(crate) wake: Notify,
    done: Notify,
}

/// The journal of one incarnation. [`Journal::close`] ends it.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({:?})", self.shared.config.incarnation)
    }
}

impl Journal {
    /// Opens the first segment of a stream and starts the writer. When this returns, the start record is durable on
    /// a whole ensemble, and with it the last batch of the stream before, which may have been on one medium only:
    /// the stream has taken over.
    ///
    /// # Errors
    /// When no ensemble takes the first segment.
    pub async fn open(
        rt: Rt,
        transport: Arc<dyn Transport>,
        ensembles: Arc<dyn Ensembles>,
        sink: Arc<dyn Sink>,
        config: JournalConfig,
    ) -> Result<Self, JournalError> {
        assert!(config.batch_bytes * 4 <= config.segment_bytes as usize, "a segment holds several batches");
        let (tail, next_number) = (config.tail.clone(), config.first_number);
        let state = Mutex::new(State::new(&config));
        let (wake, done) = (Notify::new(), Notify::new());
        let leases = Leases::new(config.lease);
        let registry = Mutex::new(Registry::new(config.registered.clone()));
        let shared = Arc::new(Shared {
            rt: rt.clone(),
            transport,
            ensembles,
            sink,
            config,
            state,
            leases,
            registry,
            registering: Registering::default(),
            wake,
            done,
        });
        let mut writer = Writer {
            shared: shared.clone(),
            segment: None,
            next_number,
            last_mac: [0; 16],
            tail,
            last: Last::default(),
        };
        let opened = writer.roll().await;
        if opened.is_err() {
            writer.free_trimmed();
        }
        opened?;
        shared.registering.begin();
        rt.spawn("journal writer", Box::pin(shared.clone().write(writer)));
        if shared.leases.are_used() {
            rt.spawn("journal leases", Box::pin(shared.clone().keep_leases()));
            rt.spawn("journal ensembles", Box::pin(shared.clone().keep_registered()));
        }
        Ok(Self { shared })
    }

    /// Appends a write or hole, in order with the others; resolves when all of `entries` are durable.
    /// The caller bounds the bytes it has under way.
    pub fn append(&self, entries: Vec<Entry>) -> Append {
        self.push(entries, Lane::Data)
    }

    /// Appends metadata, ahead of queued writes; resolves when durable. It waits only when the journal is full beyond
    /// `segments_max`.
    pub fn append_meta(&self, entries: Vec<Entry>) -> Append {
        self.push(entries, Lane::Meta)
    }

    /// Appends commits, rows and checkpoints, ahead of all else, however full the journal is; resolves when durable.
    pub fn append_control(&self, entries: Vec<Entry>) -> Append {
        self.push(entries, Lane::Control)
    }

    fn push(&self, entries: Vec<Entry>, lane: Lane) -> Append {
        let append = self.shared.lock().push(entries, lane, &self.shared.config);
        self.shared.wake.notify_one();
        append
    }

    /// Tells that committed containers cover every record before `covered`: older segments go, as far as what else they tell
    /// is told elsewhere. Only to be called with the seq of a durable commit record [I5].
    pub fn trim(&self, covered: Seq) {
        self.shared.lock().trim(covered);
        self.shared.wake.notify_one();
    }

    /// Share of the journal that is in use, in percent; from 50 on the engine flushes whatever it has. More than 100
    /// when other records than writes had to go on in a full journal.
    pub fn used_percent(&self) -> usize {
        let state = self.shared.lock();
        state.live.len() * 100 / self.shared.config.segments_max
    }

    /// Segments that would go with [`Journal::trim`], were what they tell told elsewhere.
    pub fn untold(&self, covered: Seq) -> usize {
        self.shared.lock().untold(covered)
    }

    /// Up to where checkpoint and backlog tell what happened.
    pub fn told(&self) -> Told {
        self.shared.lock().told.clone()
    }

    /// Segments that metadata may still open before it waits for a trim.
    pub fn segments_for_meta(&self) -> usize {
        self.shared.lock().segments_for_meta(&self.shared.config)
    }

    /// The least that `measure` gives for the members of a segment that holds uncovered records, or of an ensemble that may
    /// be registered.
    pub fn least_of(&self, measure: &dyn Fn(&[MediumId]) -> usize) -> usize {
        let live = self.shared.lock().least_of(measure).unwrap_or(0);
        let registry = self.shared.lock_registry();
        registry.possible().iter().map(|ensemble| measure(ensemble.members())).fold(live, usize::min)
    }

    /// The least that `measure` gives for the members of a segment that holds uncovered records; `None` without one.
    pub fn least_live(&self, measure: &dyn Fn(&[MediumId]) -> usize) -> Option<usize> {
        self.shared.lock().least_of(measure)
    }

    /// Whether a segment that holds uncovered records or takes new ones, or an ensemble that may be registered, is on
    /// `medium`.
    pub fn is_on(&self, medium: MediumId) -> bool {
        let is_member = |ensemble: &Ensemble| ensemble.members().contains(&medium);
        self.shared.lock().is_on(medium) || self.shared.lock_registry().possible().iter().any(is_member)
    }

    /// Seq of the next record.
    pub fn next_seq(&self) -> Seq {
        self.shared.lock().next_seq
    }

    /// Whether a write may have to wait until a trim makes room.
    pub fn is_full(&self) -> bool {
        self.shared.lock().is_full(&self.shared.config)
    }

    /// Fails the writes that wait for room in a full journal: nothing makes room at present. They may be found after a
    /// crash or not.
    pub fn fail_waiting(&self, error: &JournalError) {
        self.shared.lock().fail_waiting(&self.shared.config, error);
    }

    /// Goes on in a new segment, whose start record holds all that is known by then; resolves when it is durable.
    pub fn rotate(&self) -> Append {
        let rotation = self.shared.lock().rotate();
        self.shared.wake.notify_one();
        rotation
    }

    /// Waits until it is certain that no other incarnation has taken over before this was called: what was read by then may
    /// be answered.
    ///
    /// # Errors
    /// `Fenced` when one has; `TooFewMedia` when that cannot be found out.
    pub async fn readable(&self) -> Result<(), JournalError> {
        self.shared.readable().await
    }

    /// Whether another incarnation has taken over, as far as this one has heard.
    pub fn is_fenced(&self) -> bool {
        self.shared.lock().fenced().is_some()
    }

    /// Whether the writer panicked: nothing is written any more.
    pub fn is_broken(&self) -> bool {
        self.shared.lock().broken
    }

    /// Refuses new appends, waits until the queued ones are done, and ends the writer. Queued writes that wait for
    /// room in a full journal fail: nothing makes room any more. Leases are given back at the end: no read is answered from
    /// then on.
    pub async fn close(&self) {
        self.shared.lock().refuse(closed());
        self.shared.wake.notify_one();
        loop {
            let done = self.shared.done.notified();
            if self.shared.lock().finished {
                break;
            }
            done.await;
        }
        if self.shared.leases.are_used() {
            self.shared.release().await;
        }
    }
}

fn closed() -> JournalError {
    JournalError { kind: JournalErrorKind::Closed, reason: "the journal is closed".into() }
}

pub(crate) fn too_few(reason: &str) -> JournalError {
    JournalError { kind: JournalErrorKind::TooFewMedia, reason: reason.into() }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data, valid after every statement: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_registry(&self) -> MutexGuard<'_, Registry> {
        // As above.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's task. One that panics leaves nobody waiting: what is queued fails, and what comes is refused.
    async fn write(self: Arc<Self>, mut writer: Writer) {
        let work = async move { writer.run().await };
        if let Err(panicked) = seam::guard(&*self.rt, "journal writer", work).await {
            let reason = format!("a bug: the journal's writer panicked: {}", panicked.0);
            let error = JournalError { kind: JournalErrorKind::Closed, reason };
            let mut state = self.lock();
            state.refuse(error.clone());
            state.fail_queued(&error);
            state.broken = true;
        }
        self.lock().finished = true;
        self.done.notify_waiters();
    }

    pub(crate) fn id(&self, number: u32) -> SegmentId {
        SegmentId { epoch: self.config.epoch, stream: self.config.incarnation, number }
    }

    /// Asks every member; gives those that failed.
    pub(crate) async fn all(&self, members: &[MediumId], request: impl Fn() -> Request) -> Vec<Failure> {
        let calls = members.iter().map(|medium| self.ask(*medium, request()));
        seam::join_all(calls).await.into_iter().flatten().collect()
    }

    async fn ask(&self, medium: MediumId, request: Request) -> Option<Failure> {
        let restores = self.ensembles.restores(medium);
        let grants = matches!(request, Request::SegmentOpen { .. } | Request::SegmentAppend { .. });
        let mut last = None;
        for _ in 0..CALL_ATTEMPTS {
            let sent = self.rt.now();
            match self.call(medium, restores, request.clone()).await {
                Ok(_) => {
                    if grants {
                        self.leases.grant(medium, sent);
                    }
                    return None;
                }
                Err(error) if error.kind == CallErrorKind::Unreachable => last = Some(error),
                Err(error) => return Some(Failure { error, restores }),
            }
        }
        last.map(|error| Failure { error, restores })
    }

    /// A request that is given up when the medium turns out to be silent.
    async fn call(
        &self,
        medium: MediumId,
        restores: u64,
        request: Request,
    ) -> Result<proto::Response, CallError> {
        if !self.leases.are_used() {
            return self.transport.call(medium, request).await;
        }
        tokio::select! {
            biased;
            answer = self.transport.call(medium, request) => answer,
            () = self.leases.silent(medium, restores) => {
                let reason = "it gave no answer to a request for a lease".to_owned();
                Err(CallError { kind: CallErrorKind::Unreachable, medium, reason })
            }
        }
    }

    /// A fenced writer must not go on with members that have not heard of it yet [I3].
    pub(crate) fn end_if_fenced(&self, error: &JournalError) {
        if error.kind == JournalErrorKind::Fenced {
            let mut state = self.lock();
            state.refuse(error.clone());
            state.fail_queued(error);
            drop(state);
            self.leases.end();
            self.registering.tell();
            self.wake.notify_one();
        }
    }
}

/// A member's error, and how often it had been restored when it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: CallError,
    pub(crate) restores: u64,
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: Option<Segment>,
    pub(crate) next_number: u32,
    /// MAC of the last acknowledged batch: the chain goes on from it in the next segment.
    pub(crate) last_mac: [u8; 16],
    /// The last batch of the stream before, until a start record has taken it along.
    pub(crate) tail: Option<Tail>,
    pub(crate) last: Last,
}

/// How the last batch went.
#[derive(Debug, Default)]
pub(crate) struct Last {
    records: usize,
    /// What was queued when it ended.
    queued: usize,
    took: Duration,
    ended: Duration,
}

impl Writer {
    async fn run(&mut self) {
        loop {
            self.free_trimmed();
            self.rotate().await;
            self.gather().await;
            let config = &self.shared.config;
            let left = self.segment.as_ref().map_or(0, |segment| segment.left(config.segment_bytes));
            let next = self.shared.lock().next(config, left);
            match next {
                Next::Batch(batch) => self.commit(batch).await,
                Next::Wait => self.shared.wake.notified().await,
                Next::End => break,
            }
        }
        self.free_trimmed();
    }

    /// Waits a little for those that were answered by the last batch: they write again at once, and in one batch with
    /// what came meanwhile all of them pay for one sync instead of two.
    async fn gather(&self) {
        let expected = self.last.records + self.last.queued;
        let until = self.last.ended + self.last.took / GATHER_SHARE;
        for _ in 0..GATHER_YIELDS {
            let queued = self.shared.lock().queued();
            let few = queued > 0 && queued < expected.min(GATHER_RECORDS);
            if !few || self.shared.rt.now() >= until {
                return;
            }
            seam::yield_now().await;
        }
    }

    async fn rotate(&mut self) {
        let waiting = self.shared.lock().take_rotations();
        if waiting.is_empty() {
            return;
        }
        let done = self.roll().await;
        if let Err(error) = &done {
            self.shared.end_if_fenced(error);
        }
        let answer = done.map(|()| self.shared.lock().next_seq);
        waiting.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
    }

    async fn commit(&mut self, batch: Vec<Queued>) {
        let mut entries = Vec::with_capacity(batch.len());
        let mut replies = Vec::new();
        // By lane: whether the rest of an append is still queued.
        let mut unfinished = [false; 3];
        for (i, queued) in batch.into_iter().enumerate() {
            unfinished[queued.lane as usize] = queued.reply.is_none();
            entries.push(queued.entry);
            replies.extend(queued.reply.map(|reply| (i as u64 + 1, reply)));
        }
        let begun = self.shared.rt.now();
        let written = self.write(&entries).await;
        let (records, ended) = (entries.len(), self.shared.rt.now());
        match written {
            Ok(()) => {
                let first = {
                    let mut state = self.shared.lock();
                    let first = state.next_seq;
                    state.next_seq = first.plus(entries.len() as u64);
                    entries.iter().for_each(|entry| state.told.durable(entry));
                    first
                };
                self.shared.sink.durable(first, entries);
                for (behind, reply) in replies {
                    let _ = reply.send(Ok(first.plus(behind)));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "journal append failed");
                replies.into_iter().for_each(|(_, reply)| drop(reply.send(Err(error.clone()))));
                let mut state = self.shared.lock();
                for lane in Lane::ALL {
                    if unfinished[lane as usize] {
                        state.fail_rest(lane, &error);
                    }
                }
                drop(state);
                self.shared.end_if_fenced(&error);
            }
        }
        let queued = self.shared.lock().queued();
        self.last = Last { records, queued, took: ended.saturating_sub(begun), ended };
    }

    pub(crate) fn free_trimmed(&self) {
        let freed = self.shared.lock().take_to_free();
        if freed.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let task = async move {
            // A member that does not hear it tells of the segment at the next start, where it is passed over.
            let calls = freed.iter().map(|(medium, id)| shared.ask(*medium, Request::SegmentFree(vec![*id])));
            let failures = seam::join_all(calls).await.into_iter().flatten();
            for Failure { error, restores } in failures {
                if error.kind == CallErrorKind::Failed {
                    shared.ensembles.failed(error.medium, restores, false, &error.reason);
                }
            }
        };
        self.shared.rt.spawn("journal trim", Box::pin(task));
    }
}
