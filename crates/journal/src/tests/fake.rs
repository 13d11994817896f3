//! Media, pool and sink of the tests: all in memory, every fault at a chosen request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::{CallError, CallErrorKind, ReadBytes, Request, Response, SegmentId, Transport};
use seam::{BoxFuture, Rt};
use units::{Epoch, Incarnation, MediumId, PAGE, PageBuf, Seq};

use crate::{
    Append, Backlog, BacklogAt, Ensemble, Ensembles, Entry, Fitness, Journal, JournalConfig, JournalError,
    Known, Record, Recovered, Registered, Sink, WitnessError, WitnessErrorKind,
};

pub(super) use seam::testing::run;

pub(super) use super::entries::{commit, data_of, hole, is_data, meta, record, subsets, write};

pub(super) const KEY: [u8; 32] = [7; 32];
pub(super) const SEGMENT: u32 = 64 * 1024;

pub(super) fn medium(n: u8) -> MediumId {
    MediumId([n; 16])
}

/// What happens at a chosen request that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Fails; nothing was done.
    Refused(CallErrorKind),
    /// Fails; all was done.
    Done(CallErrorKind),
    /// Fails; half of the bytes were written.
    Torn(CallErrorKind),
    /// The medium is gone from here on.
    Down,
    /// All media are gone from here on.
    Crash,
}

#[derive(Default, Clone)]
pub(super) struct FakeMedium {
    pub(super) segments: BTreeMap<SegmentId, Vec<u8>>,
    /// Bytes that are durable; absent for segments from before a restart.
    ends: BTreeMap<SegmentId, usize>,
    pub(super) down: bool,
    /// Reads no more than a page at a time.
    pub(super) unreadable: bool,
    /// Reads nothing at all and does not say so.
    pub(super) mute: bool,
    /// Answers every change so that it makes no sense.
    pub(super) senseless: bool,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) media: BTreeMap<MediumId, FakeMedium>,
    pub(super) changes: u64,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) slots: usize,
    /// Requests that change nothing.
    pub(super) reads: u64,
    /// Each request takes so long.
    pub(super) slow: Option<(Rt, Duration)>,
}

/// Media in memory behind a transport.
#[derive(Default)]
pub(super) struct FakeMedia {
    pub(super) inner: Mutex<Inner>,
}

impl FakeMedia {
    pub(super) fn new(count: u8) -> Arc<Self> {
        let media = Self::default();
        media.with(|inner| {
            inner.slots = 64;
            for n in 1..=count {
                inner.media.insert(medium(n), FakeMedium::default());
            }
        });
        Arc::new(media)
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap())
    }

    pub(super) fn fault_at(&self, n: u64, fault: Fault) {
        self.with(|inner| inner.faults.insert(n, fault));
    }

    /// The same contents after a restart of all: nothing is down, segments take no appends.
    pub(super) fn restarted(&self) -> Arc<Self> {
        let media = self.with(|inner| {
            let fresh = |m: &FakeMedium| FakeMedium { segments: m.segments.clone(), ..FakeMedium::default() };
            inner.media.iter().map(|(id, m)| (*id, fresh(m))).collect()
        });
        Arc::new(Self { inner: Mutex::new(Inner { media, slots: 64, ..Inner::default() }) })
    }

    /// One data node starts anew: its segments are there and take no appends.
    pub(super) fn restart(&self, medium: MediumId) {
        self.with(|inner| inner.media.get_mut(&medium).unwrap().ends.clear());
    }

    pub(super) fn ids(&self) -> Vec<MediumId> {
        self.with(|inner| inner.media.keys().copied().collect())
    }

    fn serve(&self, medium: MediumId, request: Request) -> Result<Response, CallErrorKind> {
        let mut inner = self.inner.lock().unwrap();
        let inner = &mut *inner;
        let changes = matches!(request, Request::SegmentOpen { .. } | Request::SegmentAppend { .. });
        let fault = if changes {
            inner.changes += 1;
            inner.faults.get(&(inner.changes - 1)).copied()
        } else {
            inner.reads += 1;
            None
        };
        match fault {
            Some(Fault::Down) => inner.media.get_mut(&medium).unwrap().down = true,
            Some(Fault::Crash) => inner.media.values_mut().for_each(|m| m.down = true),
            _ => {}
        }
        let state = inner.media.get_mut(&medium).ok_or(CallErrorKind::Failed)?;
        if state.down {
            return Err(CallErrorKind::Unreachable);
        }
        if changes && state.senseless {
            return Err(CallErrorKind::Invalid);
        }
        match fault {
            Some(Fault::Refused(kind)) => Err(kind),
            Some(Fault::Done(kind)) => state.change(request, inner.slots, false).and(Err(kind)),
            Some(Fault::Torn(kind)) => state.change(request, inner.slots, true).and(Err(kind)),
            _ => state.change(request, inner.slots, false),
        }
    }
}

impl FakeMedium {
    fn change(&mut self, request: Request, slots: usize, torn: bool) -> Result<Response, CallErrorKind> {
        match request {
            Request::SegmentOpen { id, header } => {
                if self.segments.contains_key(&id) {
                    return Ok(Response::Done);
                }
                if self.segments.len() >= slots {
                    return Err(CallErrorKind::NoSpace);
                }
                let mut bytes = vec![0; SEGMENT as usize];
                let take = if torn { 100 } else { PAGE };
                bytes[..take].copy_from_slice(&header.as_ref()[..take]);
                self.segments.insert(id, bytes);
                self.ends.insert(id, PAGE);
            }
            Request::SegmentAppend { id, offset, bytes } => {
                let have = self.segments.get_mut(&id).ok_or(CallErrorKind::NotFound)?;
                let durable = self.ends.get_mut(&id).ok_or(CallErrorKind::Invalid)?;
                let end = offset as usize + bytes.len();
                if end <= *durable {
                    return Ok(Response::Done);
                }
                if offset as usize != *durable || end > have.len() {
                    return Err(CallErrorKind::Invalid);
                }
                let take = if torn { bytes.len() / 2 } else { bytes.len() };
                have[offset as usize..offset as usize + take].copy_from_slice(&bytes.as_ref()[..take]);
                if !torn {
                    *durable = end;
                }
            }
            Request::SegmentFree(ids) => ids.iter().for_each(|id| {
                self.segments.remove(id);
                self.ends.remove(id);
            }),
            Request::SegmentList => {
                let pages = self.segments.values().map(|bytes| PageBuf::copy_of(&bytes[..PAGE]).share());
                return Ok(Response::Segments(pages.collect()));
            }
            Request::SegmentRead { id, offset, length } => {
                let bytes = self.segments.get(&id).ok_or(CallErrorKind::NotFound)?;
                if self.mute {
                    return Err(CallErrorKind::Unreachable);
                }
                if self.unreadable && length as usize > PAGE {
                    return Err(CallErrorKind::Failed);
                }
                let pages = PageBuf::copy_of(&bytes[offset as usize..(offset + length) as usize]);
                return Ok(Response::Bytes(ReadBytes::new(pages, 0, length as usize)));
            }
            Request::Lease | Request::Release => {}
            _ => return Err(CallErrorKind::Invalid),
        }
        Ok(Response::Done)
    }
}

impl Transport for FakeMedia {
    fn call_by(
        &self,
        _: Epoch,
        medium: MediumId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, CallError>> {
        Box::pin(async move {
            let slow = self.with(|inner| inner.slow.clone());
            match slow {
                Some((rt, latency)) => rt.sleep(latency).await,
                None => seam::yield_now().await,
            }
            let answer = self.serve(medium, request);
            seam::yield_now().await;
            answer.map_err(|kind| CallError { kind, medium, reason: format!("{kind:?}") })
        })
    }
}

/// A pool that takes media out when they fail; each fails by itself.
#[derive(Default)]
pub(super) struct FakePool {
    pub(super) media: Vec<MediumId>,
    pub(super) out: Mutex<BTreeSet<MediumId>>,
    pub(super) leaving: Mutex<BTreeSet<MediumId>>,
    pub(super) restored: Mutex<u64>,
    pub(super) width: usize,
}

impl FakePool {
    /// All media are back.
    pub(super) fn restore(&self) {
        self.out.lock().unwrap().clear();
        *self.restored.lock().unwrap() += 1;
    }

    fn up(&self) -> Vec<MediumId> {
        let out = self.out.lock().unwrap();
        self.media.iter().filter(|id| !out.contains(id)).copied().collect()
    }

    fn fit(&self) -> Vec<MediumId> {
        let leaving = self.leaving.lock().unwrap();
        self.up().into_iter().filter(|id| !leaving.contains(id)).collect()
    }

    fn of(&self, up: &[MediumId], turn: u32) -> Vec<MediumId> {
        if up.len() < 2 {
            return Vec::new();
        }
        (0..self.width.min(up.len())).map(|i| up[(turn as usize + i) % up.len()]).collect()
    }
}

impl Ensembles for FakePool {
    fn ensemble(&self, turn: u32) -> Vec<MediumId> {
        self.of(&self.fit(), turn)
    }

    fn spare(&self, turn: u32, lost: MediumId) -> Vec<MediumId> {
        let mut others = self.fit();
        others.retain(|medium| *medium != lost);
        let spare = self.of(&others, turn);
        if spare.len() < self.ensemble(turn).len() { Vec::new() } else { spare }
    }

    fn fitness(&self, members: &[MediumId]) -> Fitness {
        let (up, fit) = (self.up(), self.fit());
        if members.len() < 2 || !members.iter().all(|medium| up.contains(medium)) {
            Fitness::Unfit
        } else if members.len() < self.width.min(fit.len()) || !members.iter().all(|m| fit.contains(m)) {
            Fitness::Stopgap
        } else {
            Fitness::Fit
        }
    }

    fn fail_together(&self, a: MediumId, b: MediumId) -> bool {
        a == b
    }

    fn restores(&self, _medium: MediumId) -> u64 {
        *self.restored.lock().unwrap()
    }

    fn failed(&self, medium: MediumId, restores: u64, full: bool, _reason: &str) {
        if !full && restores == *self.restored.lock().unwrap() {
            self.out.lock().unwrap().insert(medium);
        }
    }
}

#[derive(Default)]
pub(super) struct SinkState {
    pub(super) next: Seq,
    pub(super) known: Known,
    /// What is known is too much for a start record.
    pub(super) is_long: bool,
    /// All that became durable, by seq.
    pub(super) durable: BTreeMap<Seq, Entry>,
    pub(super) witness: Witness,
}

/// How the witness answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Answers {
    /// At once.
    #[default]
    Well,
    /// What is asked is not done, and nobody says so.
    Never,
    /// Done or not, now or later, answered or not.
    AsItLikes(u64),
    /// Somebody else has taken over.
    Superseded,
}

/// What stands outside the media, changed by compare and swap: of what was never answered at most one happens, and none
/// behind one that was.
#[derive(Default)]
pub(super) struct Witness {
    pub(super) answers: Answers,
    pub(super) holds: Registered,
    /// What was asked for and may happen yet.
    late: Vec<Registered>,
    pub(super) stores: u64,
    dice: u64,
}

impl Witness {
    fn roll(&mut self, count: u64) -> u64 {
        let Answers::AsItLikes(seed) = self.answers else { return 0 };
        self.dice =
            (self.dice ^ seed).wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.dice >> 33) % count
    }

    /// Something that was never answered happens.
    fn happen(&mut self) {
        if !self.late.is_empty() && self.roll(3) == 0 {
            let at = self.roll(self.late.len() as u64) as usize;
            self.holds = std::mem::take(&mut self.late).swap_remove(at);
        }
    }

    /// Whether it was answered.
    fn store(&mut self, registered: Registered) -> Result<(), WitnessErrorKind> {
        self.stores += 1;
        self.happen();
        let what = match self.answers {
            Answers::Well => 0,
            Answers::Never => 1,
            Answers::AsItLikes(_) => self.roll(4),
            Answers::Superseded => return Err(WitnessErrorKind::Superseded),
        };
        match what {
            0 => {
                (self.holds, self.late) = (registered, Vec::new());
                return Ok(());
            }
            1 => {}
            2 => self.late.push(registered),
            _ => (self.holds, self.late) = (registered, Vec::new()),
        }
        Err(WitnessErrorKind::Unanswered)
    }
}

/// A sink that checks I2: what it hears of stands whole on every member of the segment last opened, and where ensembles are
/// registered on one of them.
pub(super) struct FakeSink {
    pub(super) rt: Rt,
    pub(super) media: Arc<FakeMedia>,
    pub(super) leases: bool,
    pub(super) state: Mutex<SinkState>,
}

impl FakeSink {
    /// The newest segment.
    fn segment(&self) -> SegmentId {
        if !self.leases {
            return self.state.lock().unwrap().witness.holds.last.expect("a segment was opened before");
        }
        let newest = |inner: &mut Inner| inner.media.values().flat_map(|m| m.segments.keys()).max().copied();
        let newest = self.media.with(newest).expect("a segment is somewhere");
        let members = self.media.with(|inner| {
            let holders = inner.media.iter().filter(|(_, m)| m.segments.contains_key(&newest));
            holders.map(|(id, _)| *id).collect::<Vec<_>>()
        });
        let mut state = self.state.lock().unwrap();
        state.witness.happen();
        let known = &state.witness.holds.ensembles;
        assert!(
            known.contains(&Ensemble::new(&members).unwrap()),
            "{members:?} are not registered: {known:?}"
        );
        newest
    }

    fn assert_durable(&self, segment: SegmentId, entries: &[Entry]) {
        let mut records = Vec::new();
        entries.iter().for_each(|entry| entry.encode(&mut records));
        self.media.with(|inner| {
            let header = inner
                .media
                .values()
                .filter_map(|m| m.segments.get(&segment))
                .find_map(|bytes| crate::SegmentHeader::decode(&bytes[..PAGE], &KEY).ok());
            for member in header.expect("the segment is somewhere").members {
                let bytes = inner.media[&member].segments.get(&segment).expect("a member has the segment");
                let found = (PAGE..bytes.len() - records.len())
                    .step_by(PAGE)
                    .any(|at| bytes[at + crate::BATCH_HEADER_BYTES..].starts_with(&records));
                assert!(found, "I2: a batch is seen that {member} has not got");
            }
        });
    }
}

impl Sink for FakeSink {
    fn durable(&self, first: Seq, entries: Vec<Entry>) {
        self.assert_durable(self.segment(), &entries);
        let mut state = self.state.lock().unwrap();
        assert_eq!(first, state.next, "in order, without gaps");
        for (i, entry) in entries.into_iter().enumerate() {
            let seq = first.plus(i as u64);
            if let Entry::Commit(commit) = &entry {
                state.commit(commit);
            }
            if let Entry::Checkpoint(pointer) = &entry {
                state.checkpointed(pointer);
            }
            state.durable.insert(seq, entry);
            state.next = seq.plus(1);
        }
    }

    fn start(&self) -> Known {
        let state = self.state.lock().unwrap();
        let backlog = state.known.backlog.clone().filter(|_| !state.is_long);
        Known { backlog, ..state.known.clone() }
    }

    fn begun(&self) {}

    fn register(&self, registered: Registered) -> BoxFuture<'_, Result<(), WitnessError>> {
        Box::pin(async move {
            let answer = {
                let mut state = self.state.lock().unwrap();
                let before = &state.witness.holds.last;
                assert!(registered.last >= *before, "segments are opened in order");
                state.witness.store(registered)
            };
            if self.leases && answer == Err(WitnessErrorKind::Unanswered) {
                self.rt.sleep(Duration::from_secs(2)).await;
            }
            answer.map_err(|kind| WitnessError { kind, reason: format!("{kind:?}") })
        })
    }
}

/// A journal with everything around it.
pub(super) struct Site {
    pub(super) journal: Journal,
    pub(super) media: Arc<FakeMedia>,
    pub(super) pool: Arc<FakePool>,
    pub(super) sink: Arc<FakeSink>,
}

pub(super) struct Options {
    pub(super) epoch: u64,
    pub(super) segments_max: usize,
    pub(super) batch_bytes: usize,
    /// Leases are used, so ensembles are registered.
    pub(super) leases: bool,
    pub(super) registered: Registered,
    pub(super) answers: Answers,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            epoch: 1,
            segments_max: 8,
            batch_bytes: 8192,
            leases: false,
            registered: Registered::default(),
            answers: Answers::Well,
        }
    }
}

impl Site {
    /// Opens a stream on `media`, behind what was `recovered`.
    pub(super) async fn open(
        rt: &Rt,
        media: &Arc<FakeMedia>,
        recovered: Option<&Recovered>,
        options: Options,
    ) -> Result<Self, JournalError> {
        let ids = media.ids();
        let pool = Arc::new(FakePool { media: ids, width: 3, ..FakePool::default() });
        let next = recovered.map_or(Seq(1), |r| r.next_seq);
        let witness =
            Witness { answers: options.answers, holds: options.registered.clone(), ..Witness::default() };
        let known = Known { backlog: Some(Backlog::default()), ..Known::default() };
        let mut state = SinkState { next, known, witness, ..SinkState::default() };
        if let Some(recovered) = recovered {
            state.known.covered = recovered.start.covered;
            state.known.checkpoint = recovered.told.checkpoint.clone();
            state.known.backlog = Some(recovered.backlog.clone());
            state.is_long = matches!(recovered.told.backlog, BacklogAt::Log(_));
        }
        for (_, record) in recovered.iter().flat_map(|r| &r.records) {
            if let Record::Commit(commit) = record {
                state.commit(commit);
            }
        }
        let state = Mutex::new(state);
        let leases = options.leases;
        let sink = Arc::new(FakeSink { rt: rt.clone(), media: media.clone(), leases, state });
        let on = |id| {
            let holders = recovered.iter().flat_map(|r| &r.segments).filter(move |(_, have)| *have == id);
            holders.map(|(medium, _)| *medium).collect::<Vec<_>>()
        };
        let config = JournalConfig {
            lease: if leases { Duration::from_secs(3) } else { Duration::ZERO },
            registered: options.registered,
            first_number: 0,
            epoch: Epoch(options.epoch),
            incarnation: Incarnation(options.epoch * 100),
            key: KEY,
            segment_bytes: SEGMENT,
            batch_bytes: options.batch_bytes,
            segments_max: options.segments_max,
            first_seq: next,
            inherited: recovered.iter().flat_map(|r| &r.live).map(|l| (*l, on(l.id()))).collect(),
            tail: recovered.and_then(|r| r.tail.clone()),
            told: recovered.map(|r| r.told.clone()).unwrap_or_default(),
        };
        let journal = Journal::open(rt.clone(), media.clone(), pool.clone(), sink.clone(), config).await?;
        Ok(Self { journal, media: media.clone(), pool, sink })
    }

    pub(super) fn durable(&self) -> BTreeMap<Seq, Entry> {
        self.sink.state.lock().unwrap().durable.clone()
    }

    pub(super) fn witness(&self) -> Option<SegmentId> {
        self.registered().last
    }

    /// What the witness says.
    pub(super) fn registered(&self) -> Registered {
        self.sink.state.lock().unwrap().witness.holds.clone()
    }

    pub(super) fn set_answers(&self, answers: Answers) {
        self.sink.state.lock().unwrap().witness.answers = answers;
    }

    /// How often something was to be registered.
    pub(super) fn stores(&self) -> u64 {
        self.sink.state.lock().unwrap().witness.stores
    }
}

/// Where ensembles are not registered.
pub(super) fn by_last(last: Option<SegmentId>) -> Registered {
    Registered { last, ensembles: Vec::new() }
}

/// Waits for an append.
pub(super) async fn end(append: Append) -> Result<Seq, JournalError> {
    append.await.expect("every append is answered")
}

/// Whether an append is not answered within a virtual second.
pub(super) async fn waits(rt: &Rt, append: &mut Append) -> bool {
    seam::timeout(&**rt, std::time::Duration::from_secs(1), append).await.is_err()
}

#[test]
fn the_fake_pool_spreads_and_drops() {
    let pool = FakePool { media: (1..=4).map(medium).collect(), width: 3, ..FakePool::default() };
    assert_eq!(pool.ensemble(1), vec![medium(2), medium(3), medium(4)]);
    pool.failed(medium(3), 0, true, "full");
    pool.failed(medium(2), 0, false, "broken");
    assert_eq!(pool.ensemble(0), vec![medium(1), medium(3), medium(4)]);
}
