//! Writing a batch, over as many segments as it takes; opening the next segment.

use proto::{CallErrorKind, Request};
use units::{MediumId, PAGE, PageBuf, PageSlice, Seq, round_up_page};

use crate::format::MEMBERS_MAX;
use crate::writer::{Failure, JournalError, JournalErrorKind, Writer, too_few};
use crate::{
    BATCH_HEADER_BYTES, BacklogAt, BatchHeader, Entry, Known, LiveSegment, START_BYTES_MAX, SegmentHeader,
    Start,
};

/// Ensembles tried for one batch before its writers get an error.
const ROLL_ATTEMPTS: usize = 16;
/// Numbers of segments that one opening of a journal may take before it fails.
pub const SEGMENTS_PER_OPENING: u32 = ROLL_ATTEMPTS as u32;

/// The segment that takes records.
pub(crate) struct Segment {
    number: u32,
    members: Vec<MediumId>,
    offset: u32,
    index: u32,
    previous: [u8; 16],
}

impl Segment {
    /// Bytes that are left in it.
    pub(crate) fn left(&self, segment_bytes: u32) -> usize {
        (segment_bytes - self.offset) as usize
    }
}

impl Writer {
    /// Makes one batch durable on a whole ensemble, over as many segments as it takes.
    pub(crate) async fn write(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut payload = vec![0; BATCH_HEADER_BYTES];
        entries.iter().for_each(|entry| entry.encode(&mut payload));
        let room = self.shared.config.segment_bytes;
        for _ in 0..ROLL_ATTEMPTS {
            let fits = |segment: &Segment| round_up_page(payload.len()) <= segment.left(room);
            if !self.segment.as_ref().is_some_and(fits) {
                self.roll().await?;
            }
            // A start that carries a tail may leave too little; the one behind it carries none.
            let Some(segment) = self.segment.as_ref().filter(|segment| fits(segment)) else { continue };
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
            tracing::warn!(?id, ?failures, "a batch was not taken: going on in a new segment");
            // Going on here would need the member that failed; the new segment starts at the same seq.
            self.segment = None;
            self.report(&failures, true)?;
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

    /// Tells the pool of media that failed. With `used`, a member that does not know the segment as the writer does is
    /// not one of them: its data node started anew since the segment was opened, and takes part in the next.
    fn report(&self, failures: &[Failure], used: bool) -> Result<(), JournalError> {
        let errors = || failures.iter().map(|failure| &failure.error);
        if let Some(fenced) = errors().find(|error| error.kind == CallErrorKind::Fenced) {
            return Err(JournalError { kind: JournalErrorKind::Fenced, reason: fenced.to_string() });
        }
        for Failure { error, restores } in failures {
            let forgot = matches!(error.kind, CallErrorKind::Invalid | CallErrorKind::NotFound);
            if !(used && forgot) {
                let full = error.kind == CallErrorKind::NoSpace;
                self.shared.ensembles.failed(error.medium, *restores, full, &error.reason);
            }
        }
        Ok(())
    }

    /// Opens the next segment on the next ensemble: header, then start record. Outside, the ensemble is known before, or where
    /// ensembles are not registered the segment behind.
    pub(crate) async fn roll(&mut self) -> Result<(), JournalError> {
        self.segment = None;
        let mut full = false;
        for attempt in 0..ROLL_ATTEMPTS {
            self.free_trimmed();
            let number = self.next_number;
            let members = self.next_members(number).await?;
            if members.is_empty() {
                break;
            }
            assert!(members.len() <= MEMBERS_MAX, "an ensemble has at most {MEMBERS_MAX} members");
            self.next_number += 1;
            let failures = match self.start_segment(number, &members).await? {
                Ok(segment) => {
                    self.last_mac = segment.previous;
                    self.segment = Some(segment);
                    self.tail = None;
                    return Ok(());
                }
                Err(failures) => failures,
            };
            tracing::warn!(number, ?failures, "a segment was not taken");
            full |= failures.iter().any(|failure| failure.error.kind == CallErrorKind::NoSpace);
            self.shared.lock().give_up(self.shared.id(number), &members);
            self.shared.lock_registry().give_up();
            // A data node may start anew between the header and the start record, but not each time.
            self.report(&failures, attempt == 0)?;
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
    ) -> Result<Result<Segment, Vec<Failure>>, JournalError> {
        let config = &self.shared.config;
        let id = self.shared.id(number);
        let (start, first_seq, payload) = self.start_payload()?;
        let header = SegmentHeader { id, slot_bytes: config.segment_bytes, members: members.to_vec() };
        let header = PageBuf::copy_of(&header.encode(&config.key)).share();
        let open = || Request::SegmentOpen { id, header: header.clone() };
        let failures = self.shared.all(members, open).await;
        if !failures.is_empty() {
            return Ok(Err(failures));
        }
        let previous = self.last_mac;
        let mut segment =
            Segment { number, members: members.to_vec(), offset: PAGE as u32, index: 0, previous };
        let (bytes, batch) = self.seal(&segment, &payload, 0);
        let append = || Request::SegmentAppend { id, offset: PAGE as u32, bytes: bytes.clone() };
        let failures = self.shared.all(members, append).await;
        if !failures.is_empty() {
            return Ok(Err(failures));
        }
        self.shared.leases.opened(members);
        self.shared.now_in(id).await?;
        segment.offset += batch.batch_bytes() as u32;
        segment.index = 1;
        segment.previous = batch.mac;
        let live = LiveSegment { epoch: id.epoch, stream: id.stream, number, first_seq };
        let mut state = self.shared.lock();
        state.begun(&start, live);
        state.enlist(live, members);
        drop(state);
        self.shared.sink.begun();
        Ok(Ok(segment))
    }

    /// The first batch of a segment, behind the room for its header: start record and tail. With the record, and the first seq
    /// the segment holds.
    fn start_payload(&self) -> Result<(Start, Seq, Vec<u8>), JournalError> {
        let Known { covered, checkpoint, backlog, rows } = self.shared.sink.start();
        let (start, first_seq) = {
            let state = self.shared.lock();
            let first_seq = self.tail.as_ref().map_or(state.next_seq, |tail| tail.first);
            let (told, backlog) = match backlog {
                Some(backlog) => (state.next_seq, BacklogAt::Here(backlog)),
                None => (state.told.before, state.told.backlog.clone()),
            };
            let stays = |live: &LiveSegment| live.first_seq < first_seq || backlog == BacklogAt::Start(*live);
            let live = state.live.iter().copied().filter(stays).collect();
            (Start { covered, live, checkpoint, told, backlog, rows }, first_seq)
        };
        let mut payload = vec![0; BATCH_HEADER_BYTES];
        start.encode(&mut payload);
        let most = START_BYTES_MAX.min(self.shared.config.segment_bytes as usize / 2);
        if round_up_page(payload.len()) > most {
            let reason = "the start record leaves no room in a segment".into();
            return Err(JournalError { kind: JournalErrorKind::NoSpace, reason });
        }
        if let Some(tail) = &self.tail {
            tail.encode(&mut payload);
        }
        Ok((start, first_seq, payload))
    }
}
