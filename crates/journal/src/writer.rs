//! The writer: group commit, one batch at a time, segments rolled over failures.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use proto::{CallError, CallErrorKind, Request, SegmentId, Transport};
use seam::{BoxFuture, Rt};
use tokio::sync::{Notify, oneshot};
use units::{Epoch, Incarnation, MediumId, PAGE, PageBuf, PageSlice, Seq, round_up_page};

use crate::{BATCH_HEADER_BYTES, BatchHeader, Ensembles, Entry, LiveSegment, SegmentHeader, Start};

/// How often a member that gave no answer is asked again before it counts as failed.
const CALL_ATTEMPTS: usize = 3;
/// Ensembles tried for one batch before its writers get an error.
const ROLL_ATTEMPTS: usize = 16;
/// Segments kept free for commits and checkpoints, which make room, when writes have filled the rest.
const CONTROL_SEGMENTS: usize = 2;

/// What the journal can be told.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Order of this incarnation.
    pub epoch: Epoch,
    /// This incarnation.
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
    /// Segments of the stream before that hold uncovered records, and the media they are on.
    pub inherited: Vec<(LiveSegment, Vec<MediumId>)>,
}

/// Why an append failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalErrorKind {
    /// Too few media take writes.
    TooFewMedia,
    /// No room for a segment.
    NoSpace,
    /// The journal was closed.
    Closed,
    /// A newer incarnation has taken over, or the position of the journal could not be recorded.
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
    /// All that recovery must know as of the last [`Sink::durable`]; the journal fills in `live`.
    fn start(&self) -> Start;
    /// `segment` is about to be used: recorded outside the journal, so that its loss cannot pass unseen.
    fn opened(&self, segment: SegmentId) -> BoxFuture<'_, Result<(), String>>;
}

/// The end of an append: the seq behind its last record.
pub type Append = oneshot::Receiver<Result<Seq, JournalError>>;

struct Queued {
    entry: Entry,
    bytes: usize,
    control: bool,
    reply: Option<oneshot::Sender<Result<Seq, JournalError>>>,
}

#[derive(Default)]
struct State {
    control: VecDeque<Queued>,
    data: VecDeque<Queued>,
    live: Vec<LiveSegment>,
    current: Option<SegmentId>,
    to_free: Vec<(MediumId, SegmentId)>,
    segments: Vec<(SegmentId, Vec<MediumId>)>,
    next_seq: Seq,
    rotate: Vec<oneshot::Sender<Result<Seq, JournalError>>>,
    closed: bool,
}

struct Shared {
    rt: Rt,
    transport: Arc<dyn Transport>,
    ensembles: Arc<dyn Ensembles>,
    sink: Arc<dyn Sink>,
    config: JournalConfig,
    state: Mutex<State>,
    wake: Notify,
    done: Notify,
}

/// The journal of one incarnation.
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
    /// a whole ensemble: the stream has taken over.
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
        let state = State {
            next_seq: config.first_seq,
            live: config.inherited.iter().map(|(live, _)| *live).collect(),
            segments: config.inherited.iter().map(|(live, media)| (live.id(), media.clone())).collect(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            rt: rt.clone(),
            transport,
            ensembles,
            sink,
            config,
            state: Mutex::new(state),
            wake: Notify::new(),
            done: Notify::new(),
        });
        let mut writer = Writer { shared: shared.clone(), segment: None, next_number: 0, last_mac: [0; 16] };
        writer.roll().await?;
        rt.spawn("journal writer", Box::pin(async move { writer.run().await }));
        Ok(Self { shared })
    }

    /// Appends a write or hole, in order with the others; resolves when all of `entries` are durable.
    /// The caller bounds the bytes it has under way.
    pub fn append(&self, entries: Vec<Entry>) -> Append {
        self.push(entries, false)
    }

    /// Appends metadata, commits, rows and checkpoints, ahead of queued writes; resolves when durable.
    pub fn append_control(&self, entries: Vec<Entry>) -> Append {
        self.push(entries, true)
    }

    fn push(&self, entries: Vec<Entry>, control: bool) -> Append {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.shared.lock();
        if state.closed || entries.is_empty() {
            let answer = if state.closed { Err(closed()) } else { Ok(state.next_seq) };
            drop(state);
            let _ = sender.send(answer);
            return receiver;
        }
        let queue = if control { &mut state.control } else { &mut state.data };
        let count = entries.len();
        let mut sender = Some(sender);
        for (i, entry) in entries.into_iter().enumerate() {
            let reply = if i + 1 == count { sender.take() } else { None };
            queue.push_back(Queued { bytes: entry.encoded_bytes(), entry, control, reply });
        }
        drop(state);
        self.shared.wake.notify_one();
        receiver
    }

    /// Tells that committed containers cover every record before `covered`: older segments go.
    /// Only to be called with the seq of a durable commit record [I5].
    pub fn trim(&self, covered: Seq) {
        let mut state = self.shared.lock();
        assert!(covered <= state.next_seq, "I5: trim goes no further than what was written");
        let State { live, current, to_free, segments, next_seq, .. } = &mut *state;
        while let Some(first) = live.first().copied() {
            let end = live.get(1).map_or(*next_seq, |next| next.first_seq);
            if Some(first.id()) == *current || end > covered {
                break;
            }
            live.remove(0);
            release(segments, to_free, first.id());
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Share of the journal that is in use, in percent; from 50 on the engine flushes whatever it has.
    pub fn used_percent(&self) -> usize {
        let state = self.shared.lock();
        state.live.len() * 100 / self.shared.config.segments_max
    }

    /// Seq of the next record.
    pub fn next_seq(&self) -> Seq {
        self.shared.lock().next_seq
    }

    /// Goes on in a new segment, whose start record holds all that is known by then; resolves when it is durable.
    pub fn rotate(&self) -> Append {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.shared.lock();
        if state.closed {
            let _ = sender.send(Err(closed()));
        } else {
            state.rotate.push(sender);
        }
        drop(state);
        self.shared.wake.notify_one();
        receiver
    }

    /// Refuses new appends, waits until the queued ones are done, and ends the writer.
    pub async fn close(&self) {
        let done = self.shared.done.notified();
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        done.await;
    }
}

fn release(
    segments: &mut Vec<(SegmentId, Vec<MediumId>)>,
    to_free: &mut Vec<(MediumId, SegmentId)>,
    id: SegmentId,
) {
    if let Some(at) = segments.iter().position(|(have, _)| *have == id) {
        let (_, members) = segments.remove(at);
        to_free.extend(members.into_iter().map(|medium| (medium, id)));
    }
}

fn closed() -> JournalError {
    JournalError { kind: JournalErrorKind::Closed, reason: "the journal is closed".into() }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is plain data, valid after every statement: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, number: u32) -> SegmentId {
        SegmentId { epoch: self.config.epoch, stream: self.config.incarnation, number }
    }

    /// Asks every member; gives those that failed.
    async fn all(&self, members: &[MediumId], request: impl Fn() -> Request) -> Vec<CallError> {
        let calls = members.iter().map(|medium| self.ask(*medium, request()));
        seam::join_all(calls).await.into_iter().flatten().collect()
    }

    async fn ask(&self, medium: MediumId, request: Request) -> Option<CallError> {
        let mut last = None;
        for _ in 0..CALL_ATTEMPTS {
            match self.transport.call(medium, request.clone()).await {
                Ok(_) => return None,
                Err(error) if error.kind == CallErrorKind::Unreachable => last = Some(error),
                Err(error) => return Some(error),
            }
        }
        last
    }
}

struct Segment {
    number: u32,
    members: Vec<MediumId>,
    offset: u32,
    index: u32,
    previous: [u8; 16],
}

struct Writer {
    shared: Arc<Shared>,
    segment: Option<Segment>,
    next_number: u32,
    /// MAC of the last acknowledged batch: the chain goes on from it in the next segment.
    last_mac: [u8; 16],
}

impl Writer {
    async fn run(mut self) {
        loop {
            self.free_trimmed();
            self.rotate().await;
            match self.next_batch() {
                Some(batch) => self.commit(batch).await,
                None if self.finished() => break,
                None => self.shared.wake.notified().await,
            }
        }
        self.shared.done.notify_waiters();
        self.shared.done.notify_one();
    }

    async fn rotate(&mut self) {
        let waiting = std::mem::take(&mut self.shared.lock().rotate);
        if waiting.is_empty() {
            return;
        }
        let done = self.roll().await;
        let answer = done.map(|()| self.shared.lock().next_seq);
        waiting.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
    }

    fn finished(&self) -> bool {
        let state = self.shared.lock();
        state.closed && state.control.is_empty() && state.data.is_empty()
    }

    /// Takes what one batch holds; writes wait while the journal has no room left for them.
    fn next_batch(&self) -> Option<Vec<Queued>> {
        let config = &self.shared.config;
        let mut state = self.shared.lock();
        let mut batch = Vec::new();
        let mut bytes = BATCH_HEADER_BYTES;
        take(&mut state.control, &mut batch, &mut bytes, config.batch_bytes, true);
        if state.live.len() + CONTROL_SEGMENTS < config.segments_max {
            take(&mut state.data, &mut batch, &mut bytes, config.batch_bytes, true);
        } else {
            // What is left of the segments kept for control stays for control.
            let left =
                self.segment.as_ref().map_or(0, |segment| (config.segment_bytes - segment.offset) as usize);
            take(&mut state.data, &mut batch, &mut bytes, left.min(config.batch_bytes), false);
        }
        (!batch.is_empty()).then_some(batch)
    }

    async fn commit(&mut self, batch: Vec<Queued>) {
        let mut entries = Vec::with_capacity(batch.len());
        let mut replies = Vec::new();
        let mut unfinished = [false; 2];
        for (i, queued) in batch.into_iter().enumerate() {
            unfinished[usize::from(queued.control)] = queued.reply.is_none();
            entries.push(queued.entry);
            replies.extend(queued.reply.map(|reply| (i as u64 + 1, reply)));
        }
        match self.write(&entries).await {
            Ok(()) => {
                let first = {
                    let mut state = self.shared.lock();
                    let first = state.next_seq;
                    state.next_seq = first.plus(entries.len() as u64);
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
                self.fail_rest(unfinished, &error);
            }
        }
    }

    /// What is still queued of an append whose first part failed must not succeed.
    fn fail_rest(&self, [data, control]: [bool; 2], error: &JournalError) {
        let mut state = self.shared.lock();
        let State { data: data_queue, control: control_queue, .. } = &mut *state;
        for (queue, unfinished) in [(data_queue, data), (control_queue, control)] {
            let mut unfinished = unfinished;
            while unfinished && let Some(queued) = queue.pop_front() {
                if let Some(reply) = queued.reply {
                    let _ = reply.send(Err(error.clone()));
                    unfinished = false;
                }
            }
        }
    }

    /// Makes one batch durable on a whole ensemble, over as many segments as it takes.
    async fn write(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut payload = vec![0; BATCH_HEADER_BYTES];
        entries.iter().for_each(|entry| entry.encode(&mut payload));
        let room = self.shared.config.segment_bytes as usize;
        for _ in 0..ROLL_ATTEMPTS {
            let fits = |segment: &Segment| segment.offset as usize + round_up_page(payload.len()) <= room;
            if !self.segment.as_ref().is_some_and(fits) {
                self.roll().await?;
            }
            let Some(segment) = &self.segment else { continue };
            let (bytes, header) = self.seal(segment, &payload, entries.len() as u32);
            let (id, offset) = (self.shared.id(segment.number), segment.offset);
            let request = || Request::SegmentAppend { id, offset, bytes: bytes.clone() };
            let failures = self.shared.all(&segment.members, request).await;
            if failures.is_empty() {
                if let Some(segment) = &mut self.segment {
                    segment.offset += header.batch_bytes() as u32;
                    segment.index += 1;
                    segment.previous = header.mac;
                }
                self.last_mac = header.mac;
                return Ok(());
            }
            // Going on here would need the member that failed; the new segment starts at the same seq.
            self.segment = None;
            self.report(&failures)?;
        }
        Err(too_few("no ensemble took the batch"))
    }

    fn seal(&self, segment: &Segment, payload: &[u8], records: u32) -> (PageSlice, BatchHeader) {
        let mut buf = PageBuf::copy_of(payload);
        let header = BatchHeader {
            segment: self.shared.id(segment.number),
            index: segment.index,
            first_seq: self.shared.lock().next_seq,
            records,
            payload_bytes: (payload.len() - BATCH_HEADER_BYTES) as u32,
            previous: segment.previous,
            mac: [0; 16],
        };
        let header = header.seal(buf.as_mut(), &self.shared.config.key);
        (buf.share(), header)
    }

    fn report(&self, failures: &[CallError]) -> Result<(), JournalError> {
        for failure in failures {
            if failure.kind == CallErrorKind::Fenced {
                return Err(JournalError { kind: JournalErrorKind::Fenced, reason: failure.to_string() });
            }
            let full = failure.kind == CallErrorKind::NoSpace;
            self.shared.ensembles.failed(failure.medium, full, &failure.reason);
        }
        Ok(())
    }

    /// Opens the next segment on the next ensemble: header, then start record, then the record outside.
    async fn roll(&mut self) -> Result<(), JournalError> {
        self.segment = None;
        let previous = self.last_mac;
        let mut full = false;
        for _ in 0..ROLL_ATTEMPTS {
            let number = self.next_number;
            let members = self.shared.ensembles.ensemble(number);
            if members.is_empty() {
                break;
            }
            self.next_number += 1;
            let failures = match self.start_segment(number, &members, previous).await? {
                Ok(segment) => {
                    self.last_mac = segment.previous;
                    self.segment = Some(segment);
                    return Ok(());
                }
                Err(failures) => failures,
            };
            full |= failures.iter().any(|failure| failure.kind == CallErrorKind::NoSpace);
            let id = self.shared.id(number);
            self.shared.lock().to_free.extend(members.iter().map(|medium| (*medium, id)));
            self.report(&failures)?;
        }
        if full {
            let reason = "no room for a journal segment".into();
            return Err(JournalError { kind: JournalErrorKind::NoSpace, reason });
        }
        Err(too_few("too few media are up to acknowledge a write"))
    }

    async fn start_segment(
        &self,
        number: u32,
        members: &[MediumId],
        previous: [u8; 16],
    ) -> Result<Result<Segment, Vec<CallError>>, JournalError> {
        let config = &self.shared.config;
        let id = self.shared.id(number);
        let header = SegmentHeader { id, slot_bytes: config.segment_bytes, members: members.to_vec() };
        let header = PageBuf::copy_of(&header.encode(&config.key)).share();
        let open = || Request::SegmentOpen { id, header: header.clone() };
        let failures = self.shared.all(members, open).await;
        if !failures.is_empty() {
            return Ok(Err(failures));
        }
        let mut segment =
            Segment { number, members: members.to_vec(), offset: PAGE as u32, index: 0, previous };
        let mut start = self.shared.sink.start();
        start.live = {
            let state = self.shared.lock();
            state.live.iter().copied().filter(|live| live.first_seq < state.next_seq).collect()
        };
        let mut payload = vec![0; BATCH_HEADER_BYTES];
        start.encode(&mut payload);
        if round_up_page(payload.len()) * 2 > config.segment_bytes as usize {
            return Err(too_few("the start record leaves no room in a segment"));
        }
        let (bytes, batch) = self.seal(&segment, &payload, 0);
        let append = || Request::SegmentAppend { id, offset: PAGE as u32, bytes: bytes.clone() };
        let failures = self.shared.all(members, append).await;
        if !failures.is_empty() {
            return Ok(Err(failures));
        }
        self.shared.sink.opened(id).await.map_err(|reason| JournalError {
            kind: JournalErrorKind::Fenced,
            reason: format!("the position could not be recorded: {reason}"),
        })?;
        segment.offset += batch.batch_bytes() as u32;
        segment.index = 1;
        segment.previous = batch.mac;
        self.enlist(number, members);
        Ok(Ok(segment))
    }

    /// The segment takes records from now on; one before it that got none holds nothing recovery needs.
    fn enlist(&self, number: u32, members: &[MediumId]) {
        let mut state = self.shared.lock();
        let next_seq = state.next_seq;
        let State { live, current, to_free, segments, .. } = &mut *state;
        if let Some(last) = live.last().copied()
            && last.first_seq == next_seq
        {
            live.pop();
            release(segments, to_free, last.id());
        }
        let id = self.shared.id(number);
        live.push(LiveSegment { epoch: id.epoch, stream: id.stream, number, first_seq: next_seq });
        segments.push((id, members.to_vec()));
        *current = Some(id);
    }

    fn free_trimmed(&self) {
        let freed = std::mem::take(&mut self.shared.lock().to_free);
        if freed.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let task = async move {
            // A member that does not hear it tells of the segment at the next start, where it is passed over.
            let calls = freed.iter().map(|(medium, id)| shared.ask(*medium, Request::SegmentFree(vec![*id])));
            seam::join_all(calls).await;
        };
        self.shared.rt.spawn("journal trim", Box::pin(task));
    }
}

/// Moves records to the batch while they fit; with `alone`, a record larger than a batch goes by itself.
fn take(queue: &mut VecDeque<Queued>, batch: &mut Vec<Queued>, bytes: &mut usize, limit: usize, alone: bool) {
    while let Some(first) = queue.front() {
        if *bytes + first.bytes > limit && !(alone && batch.is_empty()) {
            break;
        }
        *bytes += first.bytes;
        batch.extend(queue.pop_front());
    }
}

fn too_few(reason: &str) -> JournalError {
    JournalError { kind: JournalErrorKind::TooFewMedia, reason: reason.into() }
}
