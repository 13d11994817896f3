//! Reading a journal back: the union of what the reachable members hold.

use std::collections::BTreeMap;

use proto::{CallErrorKind, ReadBytes, Request, Response, SegmentId, Transport};
use units::{Epoch, MediumId, PAGE, Seq};

use crate::{BATCH_HEADER_BYTES, BatchHeader, LiveSegment, Record, SegmentHeader, Start, decode_records};

/// How often a medium that gave no answer is asked again.
const CALL_ATTEMPTS: usize = 3;
/// Bytes read ahead when a batch is looked for.
const READ_AHEAD: usize = 1 << 20;

/// Why a journal cannot be recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverErrorKind {
    /// More is lost or damaged than the ensemble tolerates: acknowledged writes would be missing.
    Lost,
}

/// A journal cannot be recovered from the media that are there.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the journal cannot be recovered: {reason}")]
pub struct RecoverError {
    /// What to do about it.
    pub kind: RecoverErrorKind,
    /// What is lost.
    pub reason: String,
}

/// What the journal says.
#[derive(Debug)]
pub struct Recovered {
    /// The segments that hold uncovered records, the newest last: a new stream takes them over.
    pub live: Vec<LiveSegment>,
    /// Highest epoch found on any medium.
    pub epoch: Epoch,
    /// The newest start record.
    pub start: Start,
    /// Writes and holes that `start` does not cover, and everything from behind `start`, by seq.
    pub records: Vec<(Seq, Record)>,
    /// Seq of the next record.
    pub next_seq: Seq,
    /// All segments found, of this and older streams, by medium: to be freed when a new stream has taken over.
    pub segments: Vec<(MediumId, SegmentId)>,
}

/// Reads the newest stream from `media`. `witness` is the last segment known to have been used, from outside the
/// journal. `None` when there is no journal: a new site.
///
/// # Errors
/// [`RecoverErrorKind::Lost`] when records that may have been acknowledged are on no medium that is there.
pub async fn recover(
    transport: &dyn Transport,
    media: &[MediumId],
    key: &[u8; 32],
    witness: Option<SegmentId>,
) -> Result<Option<Recovered>, RecoverError> {
    let found = list(transport, media, key).await;
    let segments = found.iter().flat_map(|(id, f)| f.holders.iter().map(|m| (*m, *id))).collect();
    let epoch = found.keys().map(|id| id.epoch).max().unwrap_or_default();
    let reader = Reader { transport, key };
    for (id, place) in found.iter().rev() {
        if let Some(last) = witness
            && *id < last
        {
            return Err(lost(format!(
                "segment {} of incarnation {:016x} (epoch {}) was in use and is on none of the media that are there",
                last.number, last.stream.0, last.epoch.0
            )));
        }
        let mut cursor = Cursor::new(*id, place);
        let Some((_, mut records)) = reader.batch(&mut cursor).await? else {
            // Never acknowledged: its start is durable nowhere. The stream went on elsewhere, or ended before.
            if Some(*id) == witness {
                return Err(lost(format!(
                    "the start of segment {} is damaged on every medium that is there",
                    id.number
                )));
            }
            continue;
        };
        let Some((next, Record::Start(start))) = records.pop() else {
            return Err(lost(format!("segment {} does not begin with a start record", id.number)));
        };
        let mut all = reader.older(&found, &start, next).await?;
        let (newest, next_seq) = reader.rest(&mut cursor, next).await?;
        all.extend(newest);
        let newest = LiveSegment { epoch: id.epoch, stream: id.stream, number: id.number, first_seq: next };
        let live = start.live.iter().copied().chain([newest]).collect();
        return Ok(Some(Recovered { live, epoch, start: *start, records: all, next_seq, segments }));
    }
    match witness {
        Some(last) => Err(lost(format!("no segment of incarnation {:016x} is on any medium", last.stream.0))),
        None => Ok(None),
    }
}

#[derive(Debug, Clone, Default)]
struct Place {
    slot_bytes: u32,
    holders: Vec<MediumId>,
}

async fn list(transport: &dyn Transport, media: &[MediumId], key: &[u8; 32]) -> BTreeMap<SegmentId, Place> {
    let answers =
        seam::join_all(media.iter().map(|medium| ask(transport, *medium, Request::SegmentList))).await;
    let mut found: BTreeMap<SegmentId, Place> = BTreeMap::new();
    for (medium, answer) in media.iter().zip(answers) {
        let Some(Response::Segments(pages)) = answer else { continue };
        for header in pages.iter().filter_map(|page| SegmentHeader::decode(page.as_ref(), key).ok()) {
            let place = found.entry(header.id).or_default();
            place.slot_bytes = header.slot_bytes;
            if !place.holders.contains(medium) {
                place.holders.push(*medium);
            }
        }
    }
    found
}

async fn ask(transport: &dyn Transport, medium: MediumId, request: Request) -> Option<Response> {
    for _ in 0..CALL_ATTEMPTS {
        match transport.call(medium, request.clone()).await {
            Ok(response) => return Some(response),
            Err(error) if error.kind == CallErrorKind::Unreachable => {}
            Err(_) => return None,
        }
    }
    None
}

/// Where reading a segment stands.
struct Cursor {
    id: SegmentId,
    slot_bytes: u32,
    members: Vec<Member>,
    offset: u32,
    index: u32,
    previous: Option<[u8; 16]>,
}

struct Member {
    medium: MediumId,
    window: Option<(u32, ReadBytes)>,
    gone: bool,
}

impl Cursor {
    fn new(id: SegmentId, place: &Place) -> Self {
        let member = |medium: &MediumId| Member { medium: *medium, window: None, gone: false };
        Self {
            id,
            slot_bytes: place.slot_bytes,
            members: place.holders.iter().map(member).collect(),
            offset: PAGE as u32,
            index: 0,
            previous: None,
        }
    }
}

struct Reader<'a> {
    transport: &'a dyn Transport,
    key: &'a [u8; 32],
}

type Batch = (BatchHeader, Vec<(Seq, Record)>);

impl Reader<'_> {
    /// The writes and holes of older segments that `start` does not cover.
    async fn older(
        &self,
        found: &BTreeMap<SegmentId, Place>,
        start: &Start,
        first_seq: Seq,
    ) -> Result<Vec<(Seq, Record)>, RecoverError> {
        let mut records = Vec::new();
        for (i, live) in start.live.iter().enumerate() {
            let end = start.live.get(i + 1).map_or(first_seq, |next| next.first_seq);
            let id = live.id();
            let none = Place::default();
            let mut cursor = Cursor::new(id, found.get(&id).unwrap_or(&none));
            let mut next = live.first_seq;
            // The start record of an older segment says nothing that a newer one does not.
            let found_start = self.batch(&mut cursor).await?.is_some();
            while next < end {
                let batch = if found_start { self.batch(&mut cursor).await? } else { None };
                let Some((header, of_batch)) = batch else {
                    return Err(lost(format!(
                        "records {} to {} of segment {} are damaged or missing on every medium that is there",
                        next.0,
                        end.0 - 1,
                        live.number
                    )));
                };
                next = header.end_seq();
                let wanted = |(seq, record): &(Seq, Record)| {
                    (start.covered..end).contains(seq)
                        && matches!(record, Record::Write { .. } | Record::Hole { .. })
                };
                records.extend(of_batch.into_iter().filter(wanted));
            }
        }
        Ok(records)
    }

    /// Everything behind the start record of the newest segment, and the seq behind it.
    async fn rest(&self, cursor: &mut Cursor, first: Seq) -> Result<(Vec<(Seq, Record)>, Seq), RecoverError> {
        let mut records = Vec::new();
        let mut next = first;
        while let Some((header, of_batch)) = self.batch(cursor).await? {
            if header.first_seq != next {
                return Err(lost(format!(
                    "segment {} jumps from seq {} to {}",
                    cursor.id.number, next.0, header.first_seq.0
                )));
            }
            next = header.end_seq();
            records.extend(of_batch);
        }
        Ok((records, next))
    }

    /// The next batch from the first member that holds it whole; `None` at the end of the segment.
    ///
    /// Only one batch is on its way at a time, so a valid batch behind a bad one proves the bad one was acknowledged.
    async fn batch(&self, cursor: &mut Cursor) -> Result<Option<Batch>, RecoverError> {
        for i in 0..cursor.members.len() {
            if let Some((header, records)) = self.batch_of(cursor, i).await {
                cursor.offset += header.batch_bytes() as u32;
                cursor.index += 1;
                cursor.previous = Some(header.mac);
                return Ok(Some((header, records)));
            }
        }
        if let Some(header) = self.batch_behind(cursor).await {
            return Err(lost(format!(
                "batch {} of segment {} is damaged on every medium that is there, and batch {} behind it is sound",
                cursor.index, cursor.id.number, header.index
            )));
        }
        Ok(None)
    }

    async fn batch_of(&self, cursor: &mut Cursor, member: usize) -> Option<Batch> {
        let (offset, end) = (cursor.offset, cursor.slot_bytes);
        let header = {
            let bytes = self.bytes(cursor, member, offset, BATCH_HEADER_BYTES as u32).await?;
            BatchHeader::peek(bytes).ok()?
        };
        let length = u32::try_from(header.batch_bytes()).ok()?;
        if header.segment != cursor.id || header.index != cursor.index || length > end.saturating_sub(offset)
        {
            return None;
        }
        if cursor.previous.is_some_and(|previous| previous != header.previous) {
            return None;
        }
        let bytes = self.bytes(cursor, member, offset, length).await?;
        let payload = header.verify(bytes, self.key).ok()?;
        let records = decode_records(header.first_seq, header.records, payload).ok()?;
        Some((header, records))
    }

    /// A valid batch of the segment further on, on any member.
    async fn batch_behind(&self, cursor: &mut Cursor) -> Option<BatchHeader> {
        for member in 0..cursor.members.len() {
            let mut offset = cursor.offset + PAGE as u32;
            while offset < cursor.slot_bytes {
                let bytes = self.bytes(cursor, member, offset, BATCH_HEADER_BYTES as u32).await;
                let header = bytes.and_then(|bytes| BatchHeader::peek(bytes).ok());
                if let Some(header) = header
                    && header.segment == cursor.id
                    && header.index > cursor.index
                    && header.batch_bytes() <= (cursor.slot_bytes - offset) as usize
                    && let Some(bytes) = self.bytes(cursor, member, offset, header.batch_bytes() as u32).await
                    && header.verify(bytes, self.key).is_ok()
                {
                    return Some(header);
                }
                if cursor.members[member].gone {
                    break;
                }
                offset += PAGE as u32;
            }
        }
        None
    }

    /// Bytes of the segment on one member, through a window that is read ahead.
    async fn bytes<'c>(
        &self,
        cursor: &'c mut Cursor,
        member: usize,
        offset: u32,
        length: u32,
    ) -> Option<&'c [u8]> {
        let (id, slot_bytes) = (cursor.id, cursor.slot_bytes);
        let member = &mut cursor.members[member];
        if member.gone {
            return None;
        }
        let inside = |(start, bytes): &(u32, ReadBytes)| {
            offset >= *start && (offset - start) as usize + length as usize <= bytes.as_ref().len()
        };
        if !member.window.as_ref().is_some_and(inside) {
            let want = length
                .max(READ_AHEAD as u32)
                .next_multiple_of(PAGE as u32)
                .min(slot_bytes.checked_sub(offset)?);
            let request = Request::SegmentRead { id, offset, length: want };
            match ask(self.transport, member.medium, request).await {
                Some(Response::Bytes(bytes)) => member.window = Some((offset, bytes)),
                _ => {
                    // A read error in the middle of a segment says nothing of the rest; smaller pieces may read.
                    let request =
                        Request::SegmentRead { id, offset, length: length.next_multiple_of(PAGE as u32) };
                    match ask(self.transport, member.medium, request).await {
                        Some(Response::Bytes(bytes)) => member.window = Some((offset, bytes)),
                        _ => {
                            member.window = None;
                            return None;
                        }
                    }
                }
            }
        }
        let (start, bytes) = member.window.as_ref()?;
        let from = (offset - start) as usize;
        bytes.as_ref().get(from..from + length as usize)
    }
}

fn lost(reason: String) -> RecoverError {
    RecoverError { kind: RecoverErrorKind::Lost, reason }
}
