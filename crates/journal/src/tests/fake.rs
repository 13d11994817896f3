//! Media, pool and sink of the tests: all in memory, every fault at a chosen request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proto::{CallError, CallErrorKind, ReadBytes, Request, Response, SegmentId, Transport};
use seam::{BoxFuture, Rt};
use units::{DiskId, Epoch, Fingerprint, Incarnation, Lba, MediumId, PAGE, PageBuf, Seq};

use crate::{
    Append, Commit, Ensembles, Entry, Journal, JournalConfig, JournalError, Record, Recovered, Sink, Start,
};

pub(super) use seam::testing::run;

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
            _ => return Err(CallErrorKind::Invalid),
        }
        Ok(Response::Done)
    }
}

impl Transport for FakeMedia {
    fn call(&self, medium: MediumId, request: Request) -> BoxFuture<'_, Result<Response, CallError>> {
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

/// A pool that takes media out when they fail.
#[derive(Default)]
pub(super) struct FakePool {
    pub(super) media: Vec<MediumId>,
    pub(super) out: Mutex<BTreeSet<MediumId>>,
    pub(super) width: usize,
}

impl Ensembles for FakePool {
    fn ensemble(&self, turn: u32) -> Vec<MediumId> {
        let out = self.out.lock().unwrap();
        let up: Vec<MediumId> = self.media.iter().filter(|id| !out.contains(id)).copied().collect();
        if up.len() < 2 {
            return Vec::new();
        }
        (0..self.width.min(up.len())).map(|i| up[(turn as usize + i) % up.len()]).collect()
    }

    fn failed(&self, medium: MediumId, _restores: u64, full: bool, _reason: &str) {
        if !full {
            self.out.lock().unwrap().insert(medium);
        }
    }
}

#[derive(Default)]
pub(super) struct SinkState {
    pub(super) next: Seq,
    pub(super) start: Start,
    /// All that became durable, by seq.
    pub(super) durable: BTreeMap<Seq, Entry>,
    pub(super) witness: Option<SegmentId>,
    pub(super) refuse: bool,
}

/// A sink that checks I2: what it hears of stands whole on every member of the segment last opened.
pub(super) struct FakeSink {
    pub(super) media: Arc<FakeMedia>,
    pub(super) state: Mutex<SinkState>,
}

impl FakeSink {
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
        let witness = self.state.lock().unwrap().witness.expect("a segment was opened before");
        self.assert_durable(witness, &entries);
        let mut state = self.state.lock().unwrap();
        assert_eq!(first, state.next, "in order, without gaps");
        for (i, entry) in entries.into_iter().enumerate() {
            let seq = first.plus(i as u64);
            if let Entry::Commit(commit) = &entry {
                state.start.covered = state.start.covered.max(commit.covered);
                state.start.commits.push(commit.clone());
            }
            state.durable.insert(seq, entry);
            state.next = seq.plus(1);
        }
    }

    fn start(&self) -> Start {
        self.state.lock().unwrap().start.clone()
    }

    fn opened(&self, segment: SegmentId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            if state.refuse {
                return Err("the disk is full".into());
            }
            assert!(Some(segment) > state.witness, "segments are opened in order");
            state.witness = Some(segment);
            Ok(())
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
}

impl Default for Options {
    fn default() -> Self {
        Self { epoch: 1, segments_max: 8, batch_bytes: 8192 }
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
        let mut start = recovered.map(|r| r.start.clone()).unwrap_or_default();
        for (_, record) in recovered.iter().flat_map(|r| &r.records) {
            if let Record::Commit(commit) = record {
                start.covered = start.covered.max(commit.covered);
                start.commits.push(commit.clone());
            }
        }
        let state = Mutex::new(SinkState { next, start, ..SinkState::default() });
        let sink = Arc::new(FakeSink { media: media.clone(), state });
        let on = |id| {
            let holders = recovered.iter().flat_map(|r| &r.segments).filter(move |(_, have)| *have == id);
            holders.map(|(medium, _)| *medium).collect::<Vec<_>>()
        };
        let config = JournalConfig {
            epoch: Epoch(options.epoch),
            incarnation: Incarnation(options.epoch * 100),
            key: KEY,
            segment_bytes: SEGMENT,
            batch_bytes: options.batch_bytes,
            segments_max: options.segments_max,
            first_seq: next,
            inherited: recovered.iter().flat_map(|r| &r.live).map(|l| (*l, on(l.id()))).collect(),
            tail: recovered.and_then(|r| r.tail.clone()),
        };
        let journal = Journal::open(rt.clone(), media.clone(), pool.clone(), sink.clone(), config).await?;
        Ok(Self { journal, media: media.clone(), pool, sink })
    }

    pub(super) fn durable(&self) -> BTreeMap<Seq, Entry> {
        self.sink.state.lock().unwrap().durable.clone()
    }

    pub(super) fn witness(&self) -> Option<SegmentId> {
        self.sink.state.lock().unwrap().witness
    }
}

/// Waits for an append.
pub(super) async fn end(append: Append) -> Result<Seq, JournalError> {
    append.await.expect("every append is answered")
}

/// Whether an append is not answered within a virtual second.
pub(super) async fn waits(rt: &Rt, append: &mut Append) -> bool {
    seam::timeout(&**rt, std::time::Duration::from_secs(1), append).await.is_err()
}

/// A write of `bytes` bytes that nothing else equals.
pub(super) fn write(n: u64, bytes: usize) -> Entry {
    let unit: Vec<u8> = (0..bytes).map(|i| (n as usize * 31 + i * 7) as u8).collect();
    Entry::Write { disk: DiskId(1), lba: Lba(n), fingerprint: Fingerprint([n as u8; 16]), unit: unit.into() }
}

pub(super) fn hole(n: u64) -> Entry {
    Entry::Hole { disk: DiskId(2), lba: Lba(n), count: n + 1 }
}

pub(super) fn meta(n: u64, bytes: usize) -> Entry {
    Entry::Meta { fingerprint: Fingerprint([n as u8; 16]), unit: Bytes::from(vec![n as u8; bytes]) }
}

pub(super) fn commit(ordinal: u64, covered: Seq) -> Entry {
    let container =
        units::ContainerId { incarnation: Incarnation(1), number: ordinal as u32, row: 0, class: 1 };
    Entry::Commit(Commit {
        container,
        total: 4096,
        entries: 1,
        map_log_bytes: 100,
        map_log: Fingerprint([9; 16]),
        ordinal,
        covered,
        blocks: 1,
        block_bytes: 4096,
    })
}

/// What an entry reads back as.
pub(super) fn record(entry: &Entry) -> Record {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    crate::decode_records(Seq(1), 1, &bytes).unwrap().remove(0).1
}

pub(super) fn is_data(record: &Record) -> bool {
    matches!(record, Record::Write { .. } | Record::Hole { .. })
}

/// The writes and holes that were recovered.
pub(super) fn data_of(recovered: &Recovered) -> BTreeMap<Seq, Record> {
    recovered.records.iter().filter(|(_, r)| is_data(r)).cloned().collect()
}

/// All ways to leave out up to `most` of `ids`: what is left.
pub(super) fn subsets(ids: &[MediumId], most: usize) -> Vec<Vec<MediumId>> {
    (0..1u32 << ids.len())
        .filter(|out| out.count_ones() as usize <= most)
        .map(|out| {
            let here = ids.iter().enumerate().filter(|(i, _)| out >> i & 1 == 0);
            here.map(|(_, id)| *id).collect()
        })
        .collect()
}

#[test]
fn the_fake_pool_spreads_and_drops() {
    let pool = FakePool { media: (1..=4).map(medium).collect(), width: 3, ..FakePool::default() };
    assert_eq!(pool.ensemble(1), vec![medium(2), medium(3), medium(4)]);
    pool.failed(medium(3), 0, true, "full");
    pool.failed(medium(2), 0, false, "broken");
    assert_eq!(pool.ensemble(0), vec![medium(1), medium(3), medium(4)]);
}
