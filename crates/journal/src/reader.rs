//! Reading one segment from whatever members hold it.

use proto::{CallError, CallErrorKind, ReadBytes, Request, Response, SegmentId, Transport};
use units::{MediumId, PAGE, Seq};

use crate::recover::{RecoverError, lost};
use crate::{BATCH_HEADER_BYTES, BatchHeader, Record, decode_records};

/// How often a medium that gave no answer is asked again.
const CALL_ATTEMPTS: usize = 3;
/// Bytes read ahead when a batch is looked for.
const READ_AHEAD: usize = 1 << 20;

/// Asks until there is an answer.
pub(crate) async fn ask(
    transport: &dyn Transport,
    medium: MediumId,
    request: Request,
) -> Result<Response, CallError> {
    let mut answer = transport.call(medium, request.clone()).await;
    for _ in 1..CALL_ATTEMPTS {
        match &answer {
            Err(error) if error.kind == CallErrorKind::Unreachable => {
                answer = transport.call(medium, request.clone()).await;
            }
            _ => break,
        }
    }
    answer
}

/// A batch that was verified.
pub(crate) struct Batch {
    pub(crate) header: BatchHeader,
    pub(crate) records: Vec<(Seq, Record)>,
    /// The records, encoded.
    pub(crate) payload: Vec<u8>,
}

/// Where reading a segment stands.
pub(crate) struct Cursor {
    id: SegmentId,
    slot_bytes: u32,
    members: Vec<Member>,
    offset: u32,
    index: u32,
    previous: Option<[u8; 16]>,
    /// Offset and index of the sound batch behind the damaged one that was met.
    behind: Option<(u32, u32)>,
}

struct Member {
    medium: MediumId,
    window: Option<(u32, ReadBytes)>,
    /// It does not answer, or has not got the segment: not asked again.
    gone: bool,
}

impl Cursor {
    pub(crate) fn new(id: SegmentId, holders: &[MediumId], slot_bytes: u32) -> Self {
        let member = |medium: &MediumId| Member { medium: *medium, window: None, gone: false };
        let members = holders.iter().map(member).collect();
        Self { id, slot_bytes, members, offset: PAGE as u32, index: 0, previous: None, behind: None }
    }

    /// Goes on past the damaged batches that [`Reader::batch`] met; false when nothing is behind them.
    pub(crate) fn pass_damage(&mut self) -> bool {
        let Some((offset, index)) = self.behind.take() else { return false };
        (self.offset, self.index, self.previous) = (offset, index, None);
        true
    }
}

pub(crate) struct Reader<'a> {
    pub(crate) transport: &'a dyn Transport,
    pub(crate) key: &'a [u8; 32],
}

impl Reader<'_> {
    /// The next batch from the first member that holds it whole; `None` at the end of the segment.
    ///
    /// Only one batch is on its way at a time, so a valid batch behind a bad one proves the bad one was acknowledged.
    pub(crate) async fn batch(&self, cursor: &mut Cursor) -> Result<Option<Batch>, RecoverError> {
        for member in 0..cursor.members.len() {
            if let Some(batch) = self.batch_of(cursor, member).await {
                cursor.offset += batch.header.batch_bytes() as u32;
                cursor.index += 1;
                cursor.previous = Some(batch.header.mac);
                return Ok(Some(batch));
            }
        }
        if let Some((offset, header)) = self.batch_behind(cursor).await {
            cursor.behind = Some((offset, header.index));
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
        Some(Batch { header, records, payload: payload.to_vec() })
    }

    /// A valid batch of the segment further on, on any member.
    async fn batch_behind(&self, cursor: &mut Cursor) -> Option<(u32, BatchHeader)> {
        for member in 0..cursor.members.len() {
            let mut offset = cursor.offset + PAGE as u32;
            while offset < cursor.slot_bytes && !cursor.members[member].gone {
                let bytes = self.bytes(cursor, member, offset, BATCH_HEADER_BYTES as u32).await;
                let header = bytes.and_then(|bytes| BatchHeader::peek(bytes).ok());
                if let Some(header) = header
                    && header.segment == cursor.id
                    && header.index > cursor.index
                    && header.batch_bytes() <= (cursor.slot_bytes - offset) as usize
                    && let Some(bytes) = self.bytes(cursor, member, offset, header.batch_bytes() as u32).await
                    && header.verify(bytes, self.key).is_ok()
                {
                    return Some((offset, header));
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
        let inside = |(start, bytes): &(u32, ReadBytes)| {
            offset >= *start && (offset - start) as usize + length as usize <= bytes.as_ref().len()
        };
        if !member.window.as_ref().is_some_and(inside) {
            let most = slot_bytes.checked_sub(offset)?;
            // A read error in the middle of a segment says nothing of the rest: smaller pieces may read.
            for want in [length.max(READ_AHEAD as u32), length] {
                if member.gone {
                    return None;
                }
                let length = want.next_multiple_of(PAGE as u32).min(most);
                match ask(self.transport, member.medium, Request::SegmentRead { id, offset, length }).await {
                    Ok(Response::Bytes(bytes)) => {
                        member.window = Some((offset, bytes));
                        break;
                    }
                    Err(error) if matches!(error.kind, CallErrorKind::Failed | CallErrorKind::Corrupt) => {
                        member.window = None;
                    }
                    _ => member.gone = true,
                }
            }
        }
        let (start, bytes) = member.window.as_ref().filter(|window| inside(window))?;
        let from = (offset - start) as usize;
        bytes.as_ref().get(from..from + length as usize)
    }
}
