//! Each message as a frame.

use container::FragmentHeader;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use units::{Epoch, MediumId, PAGE, PageBuf, PageSlice};

use super::{BULK_BYTES_MAX, Bulk, Frame, FrameKind, FrameStart, HEAD_BYTES_MAX, WireError, bad, frame};
use crate::{CallError, CallErrorKind, MediumInfo, NodeMedium, ReadBytes, Request, Response, SegmentId};

/// Most bytes of a reason in an answer; the rest is cut off.
const REASON_BYTES_MAX: usize = 4096;
/// Bytes of the medium's id, which the head of a request begins with.
const MEDIUM_BYTES: usize = 16;
/// Bytes of the incarnation's epoch, which comes next.
const EPOCH_BYTES: usize = 8;

/// Numbers of the requests on the wire.
mod ask {
    pub(super) const SEGMENT_OPEN: u8 = 1;
    pub(super) const SEGMENT_APPEND: u8 = 2;
    pub(super) const SEGMENT_LIST: u8 = 3;
    pub(super) const SEGMENT_READ: u8 = 4;
    pub(super) const SEGMENT_FREE: u8 = 5;
    pub(super) const FRAGMENT_WRITE: u8 = 6;
    pub(super) const FRAGMENT_READ: u8 = 7;
    pub(super) const FRAGMENT_HEADER: u8 = 8;
    pub(super) const FRAGMENT_FREE: u8 = 9;
    pub(super) const FRAGMENT_LOCK: u8 = 10;
    pub(super) const LOCK_LIST: u8 = 11;
    pub(super) const FRAGMENT_FREE_AT: u8 = 12;
    pub(super) const FRAGMENT_LIST: u8 = 13;
    pub(super) const INFO: u8 = 14;
    pub(super) const MEDIUM_LIST: u8 = 15;
    pub(super) const FORMAT: u8 = 16;
    pub(super) const SUPERBLOCK_WRITE: u8 = 17;
    pub(super) const SEAL: u8 = 18;
    pub(super) const LEASE: u8 = 19;
    pub(super) const RELEASE: u8 = 20;
}

/// Numbers of the answers on the wire.
mod tell {
    pub(super) const ERROR: u8 = 0;
    pub(super) const DONE: u8 = 1;
    pub(super) const SEGMENTS: u8 = 2;
    pub(super) const BYTES: u8 = 3;
    pub(super) const HEADER: u8 = 4;
    pub(super) const FRAGMENTS: u8 = 5;
    pub(super) const LOCKS: u8 = 6;
    pub(super) const INFO: u8 = 7;
    pub(super) const MEDIA: u8 = 8;
}

type Id = SegmentHead;

#[derive(Serialize, Deserialize)]
struct SegmentHead {
    epoch: units::Epoch,
    stream: units::Incarnation,
    number: u32,
}

impl From<SegmentId> for SegmentHead {
    fn from(id: SegmentId) -> Self {
        Self { epoch: id.epoch, stream: id.stream, number: id.number }
    }
}

impl From<SegmentHead> for SegmentId {
    fn from(id: SegmentHead) -> Self {
        Self { epoch: id.epoch, stream: id.stream, number: id.number }
    }
}

#[derive(Serialize, Deserialize)]
struct InfoHead {
    capacity: u64,
    free: u64,
    free_extents: u64,
    room_below: u64,
    slots: u32,
    slots_free: u32,
    sealed: Epoch,
}

/// A medium of a node: id, bytes, name, whether its superblock is among the pages, what troubles it.
type MediumHead = (MediumId, u64, String, bool, Option<String>);

fn kind_number(kind: CallErrorKind) -> u8 {
    match kind {
        CallErrorKind::Unreachable => 1,
        CallErrorKind::Failed => 2,
        CallErrorKind::NoSpace => 3,
        CallErrorKind::NotFound => 4,
        CallErrorKind::Locked => 5,
        CallErrorKind::Corrupt => 6,
        CallErrorKind::Fenced => 7,
        CallErrorKind::Invalid => 8,
    }
}

fn kind_of(number: u8) -> Option<CallErrorKind> {
    Some(match number {
        1 => CallErrorKind::Unreachable,
        2 => CallErrorKind::Failed,
        3 => CallErrorKind::NoSpace,
        4 => CallErrorKind::NotFound,
        5 => CallErrorKind::Locked,
        6 => CallErrorKind::Corrupt,
        7 => CallErrorKind::Fenced,
        8 => CallErrorKind::Invalid,
        _ => return None,
    })
}

/// What a request costs beside its pages, its lists and its answer, bytes.
const FIXED_COST: usize = PAGE;
/// Most that a request may cost.
pub const COST_MAX: usize = FIXED_COST + BULK_BYTES_MAX;
/// Bytes of an entry of a list, at most.
const ENTRY_BYTES: usize = 32;
/// Media of a node, at most.
const NODE_MEDIA_MAX: usize = 256;
/// Pages of an answer that lists segments, at most.
const SEGMENTS_MAX: usize = 2048;

/// What a request and its answer may take in memory, bytes: both ends count it alike.
pub fn cost(request: &Request) -> usize {
    let of_list = |count: usize| (count * ENTRY_BYTES).min(HEAD_BYTES_MAX);
    let of_read = |length: &u32| (*length as usize).min(BULK_BYTES_MAX);
    let variable = match request {
        Request::SegmentOpen { header: pages, .. }
        | Request::SegmentAppend { bytes: pages, .. }
        | Request::FragmentWrite { payload: pages, .. } => pages.len(),
        Request::SegmentRead { length, .. } | Request::FragmentRead { length, .. } => of_read(length),
        Request::SegmentList => SEGMENTS_MAX * PAGE,
        Request::SegmentFree(ids) => of_list(ids.len()),
        Request::FragmentFree(containers) | Request::FragmentLock { containers, .. } => {
            of_list(containers.len())
        }
        Request::FragmentFreeAt(fragments) => of_list(fragments.len()),
        Request::LockList { limit, .. } | Request::FragmentList { limit, .. } => of_list(*limit as usize),
        Request::FragmentHeader { .. } => HEAD_BYTES_MAX,
        Request::Format(page) | Request::SuperblockWrite(page) => page.len(),
        Request::MediumList => NODE_MEDIA_MAX * (PAGE + ENTRY_BYTES),
        Request::Info { .. } | Request::Seal | Request::Lease | Request::Release => 0,
    };
    FIXED_COST + variable
}

fn put(head: &mut Vec<u8>, value: &impl Serialize) -> Result<(), WireError> {
    let whole = postcard::to_extend(value, std::mem::take(head));
    *head = whole.map_err(|error| bad(format!("a message cannot be encoded: {error}")))?;
    Ok(())
}

fn take<T: DeserializeOwned>(head: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(head) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(bad("a message is longer than what it says")),
        Err(error) => Err(bad(format!("a message makes no sense: {error}"))),
    }
}

/// A request of the incarnation `by` to a medium as a frame. `timeout_ms` is how long whoever asks waits.
///
/// # Errors
/// When it is longer than the limits.
pub fn request(
    number: u64,
    by: Epoch,
    medium: MediumId,
    timeout_ms: u32,
    request: &Request,
) -> Result<Frame, WireError> {
    let mut head = Vec::with_capacity(64);
    head.extend_from_slice(&medium.0);
    head.extend_from_slice(&by.0.to_le_bytes());
    let code = put_request(&mut head, request)?;
    frame(FrameKind::Request, code, number, timeout_ms, &head, bulk_of(request))
}

/// The pages that go with a request.
fn bulk_of(request: &Request) -> Bulk {
    match request {
        Request::SegmentOpen { header: pages, .. }
        | Request::SegmentAppend { bytes: pages, .. }
        | Request::FragmentWrite { payload: pages, .. }
        | Request::Format(pages)
        | Request::SuperblockWrite(pages) => Bulk::Pages(pages.clone()),
        _ => Bulk::None,
    }
}

/// Puts a request without its pages behind `head`; gives its number.
fn put_request(head: &mut Vec<u8>, request: &Request) -> Result<u8, WireError> {
    Ok(match request {
        Request::SegmentOpen { id, .. } => {
            put(head, &Id::from(*id))?;
            ask::SEGMENT_OPEN
        }
        Request::SegmentAppend { id, offset, .. } => {
            put(head, &(Id::from(*id), offset))?;
            ask::SEGMENT_APPEND
        }
        Request::SegmentList => ask::SEGMENT_LIST,
        Request::SegmentRead { id, offset, length } => {
            put(head, &(Id::from(*id), offset, length))?;
            ask::SEGMENT_READ
        }
        Request::SegmentFree(ids) => {
            put(head, &ids.iter().map(|id| Id::from(*id)).collect::<Vec<_>>())?;
            ask::SEGMENT_FREE
        }
        Request::FragmentWrite { header, replace, .. } => {
            head.push(u8::from(*replace));
            head.extend_from_slice(&header.encode());
            ask::FRAGMENT_WRITE
        }
        Request::FragmentRead { container, index, offset, length, verify } => {
            put(head, &(container, index, offset, length, verify))?;
            ask::FRAGMENT_READ
        }
        Request::FragmentHeader { container, index } => {
            put(head, &(container, index))?;
            ask::FRAGMENT_HEADER
        }
        Request::FragmentFree(containers) => {
            put(head, containers)?;
            ask::FRAGMENT_FREE
        }
        Request::FragmentLock { containers, until_ms } => {
            put(head, &(until_ms, containers))?;
            ask::FRAGMENT_LOCK
        }
        Request::LockList { after, limit } => {
            put(head, &(after, limit))?;
            ask::LOCK_LIST
        }
        Request::FragmentFreeAt(fragments) => {
            put(head, fragments)?;
            ask::FRAGMENT_FREE_AT
        }
        Request::FragmentList { after, limit } => {
            put(head, &(after, limit))?;
            ask::FRAGMENT_LIST
        }
        Request::Info { extent } => {
            put(head, extent)?;
            ask::INFO
        }
        Request::Seal => ask::SEAL,
        Request::Lease => ask::LEASE,
        Request::Release => ask::RELEASE,
        Request::MediumList => ask::MEDIUM_LIST,
        Request::Format(_) => ask::FORMAT,
        Request::SuperblockWrite(_) => ask::SUPERBLOCK_WRITE,
    })
}

/// A frame that takes a request back.
pub fn cancellation(number: u64) -> Frame {
    let frame = frame(FrameKind::Cancel, 0, number, 0, &[], Bulk::None);
    frame.unwrap_or_else(|_| Frame { front: Vec::new(), bulk: Bulk::None })
}

/// Pages that stand for themselves: whole, and some.
fn pages(start: &FrameStart, bulk: PageBuf) -> Result<PageSlice, WireError> {
    if start.bulk_bytes == 0 || !start.bulk_bytes.is_multiple_of(PAGE) || bulk.len() != start.bulk_bytes {
        return Err(bad("a message without whole pages where it must have some"));
    }
    Ok(bulk.share())
}

fn one_page(start: &FrameStart, bulk: PageBuf) -> Result<PageSlice, WireError> {
    let page = pages(start, bulk)?;
    if page.len() == PAGE { Ok(page) } else { Err(bad("a message of several pages where it must have one")) }
}

fn none(start: &FrameStart) -> Result<(), WireError> {
    if start.bulk_bytes == 0 { Ok(()) } else { Err(bad("a message with pages where it must have none")) }
}

fn flag(byte: u8) -> Result<bool, WireError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(bad("a flag that is neither set nor clear")),
    }
}

fn fragment_header(head: &[u8]) -> Result<Box<FragmentHeader>, WireError> {
    let header = FragmentHeader::decode(head).map_err(|error| bad(error.to_string()))?;
    // One encoding each: nothing behind it, nothing in what it leaves out.
    if header.encode() == head {
        Ok(Box::new(header))
    } else {
        Err(bad("a fragment's header has more than it says"))
    }
}

/// Reads a request. `front` is the frame's start and head, `bulk` the pages behind it.
///
/// # Errors
/// When it is damaged, unknown or makes no sense.
pub fn decode_request(
    start: &FrameStart,
    front: &mut [u8],
    bulk: PageBuf,
) -> Result<(Epoch, MediumId, Request), WireError> {
    let head = start.check(front)?;
    let (medium, head) =
        head.split_first_chunk::<MEDIUM_BYTES>().ok_or_else(|| bad("a request names no medium"))?;
    let (by, head) =
        head.split_first_chunk::<EPOCH_BYTES>().ok_or_else(|| bad("a request is by no incarnation"))?;
    if start.kind != FrameKind::Request {
        return Err(bad("this is no request"));
    }
    let request = match start.code {
        ask::SEGMENT_OPEN
        | ask::SEGMENT_APPEND
        | ask::FRAGMENT_WRITE
        | ask::FORMAT
        | ask::SUPERBLOCK_WRITE => with_pages(start, head, bulk)?,
        _ => without_pages(start, head)?,
    };
    Ok((Epoch(u64::from_le_bytes(*by)), MediumId(*medium), request))
}

fn unknown(start: &FrameStart) -> WireError {
    bad(format!("there is no request {}", start.code))
}

fn with_pages(start: &FrameStart, head: &[u8], bulk: PageBuf) -> Result<Request, WireError> {
    Ok(match start.code {
        ask::SEGMENT_OPEN => {
            let id: Id = take(head)?;
            Request::SegmentOpen { id: id.into(), header: pages(start, bulk)? }
        }
        ask::SEGMENT_APPEND => {
            let (id, offset): (Id, u32) = take(head)?;
            Request::SegmentAppend { id: id.into(), offset, bytes: pages(start, bulk)? }
        }
        ask::FRAGMENT_WRITE => {
            let (replace, header) = head.split_first().ok_or_else(|| bad("a fragment without a header"))?;
            let (replace, header) = (flag(*replace)?, fragment_header(header)?);
            if header.payload_bytes() != start.bulk_bytes {
                return Err(bad("a fragment is not as long as its header says"));
            }
            Request::FragmentWrite { header, payload: pages(start, bulk)?, replace }
        }
        ask::FORMAT if head.is_empty() => Request::Format(one_page(start, bulk)?),
        ask::SUPERBLOCK_WRITE if head.is_empty() => Request::SuperblockWrite(one_page(start, bulk)?),
        _ => return Err(unknown(start)),
    })
}

fn without_pages(start: &FrameStart, head: &[u8]) -> Result<Request, WireError> {
    none(start)?;
    Ok(match start.code {
        ask::SEGMENT_LIST if head.is_empty() => Request::SegmentList,
        ask::SEGMENT_READ => {
            let (id, offset, length): (Id, u32, u32) = take(head)?;
            Request::SegmentRead { id: id.into(), offset, length }
        }
        ask::SEGMENT_FREE => {
            Request::SegmentFree(take::<Vec<Id>>(head)?.into_iter().map(SegmentId::from).collect())
        }
        ask::FRAGMENT_READ => {
            let (container, index, offset, length, verify) = take(head)?;
            Request::FragmentRead { container, index, offset, length, verify }
        }
        ask::FRAGMENT_HEADER => {
            let (container, index) = take(head)?;
            Request::FragmentHeader { container, index }
        }
        ask::FRAGMENT_FREE => Request::FragmentFree(take(head)?),
        ask::FRAGMENT_LOCK => {
            let (until_ms, containers) = take(head)?;
            Request::FragmentLock { containers, until_ms }
        }
        ask::LOCK_LIST => {
            let (after, limit) = take(head)?;
            Request::LockList { after, limit }
        }
        ask::FRAGMENT_FREE_AT => Request::FragmentFreeAt(take(head)?),
        ask::FRAGMENT_LIST => {
            let (after, limit) = take(head)?;
            Request::FragmentList { after, limit }
        }
        ask::INFO => Request::Info { extent: take(head)? },
        ask::SEAL if head.is_empty() => Request::Seal,
        ask::LEASE if head.is_empty() => Request::Lease,
        ask::RELEASE if head.is_empty() => Request::Release,
        ask::MEDIUM_LIST if head.is_empty() => Request::MediumList,
        _ => return Err(unknown(start)),
    })
}

/// An answer as a frame.
///
/// # Errors
/// When it is longer than the limits: the request asked for too much.
pub fn answer(number: u64, answer: &Result<Response, CallError>) -> Result<Frame, WireError> {
    let (mut head, mut bulk) = (Vec::new(), Bulk::None);
    let code = match answer {
        Err(error) => {
            let reason = &error.reason[..error.reason.floor_char_boundary(REASON_BYTES_MAX)];
            put(&mut head, &(kind_number(error.kind), reason))?;
            tell::ERROR
        }
        Ok(Response::Done) => tell::DONE,
        Ok(Response::Segments(headers)) => {
            bulk = Bulk::Many(headers.clone());
            tell::SEGMENTS
        }
        Ok(Response::Bytes(read)) => {
            bulk = Bulk::Read(read.clone());
            tell::BYTES
        }
        Ok(Response::Header(header)) => {
            head = header.encode();
            tell::HEADER
        }
        Ok(Response::Fragments(fragments)) => {
            put(&mut head, fragments)?;
            tell::FRAGMENTS
        }
        Ok(Response::Locks(locks)) => {
            put(&mut head, locks)?;
            tell::LOCKS
        }
        Ok(Response::Info(info)) => {
            let MediumInfo { capacity, free, free_extents, room_below, slots, slots_free, sealed } = *info;
            put(
                &mut head,
                &InfoHead { capacity, free, free_extents, room_below, slots, slots_free, sealed },
            )?;
            tell::INFO
        }
        Ok(Response::Media(media)) => {
            let medium = |medium: &NodeMedium| -> MediumHead {
                let NodeMedium { medium, bytes, name, superblock, trouble } = medium.clone();
                (medium, bytes, name, superblock.is_some(), trouble)
            };
            put(&mut head, &media.iter().map(medium).collect::<Vec<_>>())?;
            bulk = Bulk::Many(media.iter().filter_map(|medium| medium.superblock.clone()).collect());
            tell::MEDIA
        }
    };
    frame(FrameKind::Answer, code, number, 0, &head, bulk)
}

/// Media of a node, each that has a superblock with its own.
fn media(start: &FrameStart, heads: Vec<MediumHead>, bulk: PageBuf) -> Result<Vec<NodeMedium>, WireError> {
    let count = heads.iter().filter(|(.., has, _)| *has).count();
    if start.bulk_bytes != count * PAGE || bulk.len() != start.bulk_bytes {
        return Err(bad("a node's media come with another number of pages"));
    }
    let all = (count > 0).then(|| bulk.share());
    let mut at = (0..count).map(|page| page * PAGE);
    let medium = |(medium, bytes, name, has, trouble): MediumHead| NodeMedium {
        medium,
        bytes,
        name,
        superblock: has.then(|| Some(all.as_ref()?.slice(at.next().map(|at| at..at + PAGE)?))).flatten(),
        trouble,
    };
    Ok(heads.into_iter().map(medium).collect())
}

/// Reads an answer of `medium`. `front` is the frame's start and head, `bulk` the pages behind it.
///
/// # Errors
/// When it is damaged, unknown or makes no sense.
pub fn decode_answer(
    start: &FrameStart,
    medium: MediumId,
    front: &mut [u8],
    bulk: PageBuf,
) -> Result<Result<Response, CallError>, WireError> {
    let head = start.check(front)?;
    if start.kind != FrameKind::Answer {
        return Err(bad("this is no answer"));
    }
    if !matches!(start.code, tell::SEGMENTS | tell::BYTES | tell::MEDIA) {
        none(start)?;
    } else if start.code != tell::MEDIA && !head.is_empty() {
        return Err(bad("an answer of pages with a head"));
    }
    let response = match start.code {
        tell::ERROR => {
            let (kind, reason): (u8, String) = take(head)?;
            let kind = kind_of(kind).ok_or_else(|| bad(format!("there is no error {kind}")))?;
            return Ok(Err(CallError { kind, medium, reason }));
        }
        tell::DONE if head.is_empty() => Response::Done,
        tell::SEGMENTS if start.bulk_bytes == 0 => Response::Segments(Vec::new()),
        tell::SEGMENTS => {
            let all = pages(start, bulk)?;
            Response::Segments((0..all.len()).step_by(PAGE).map(|at| all.slice(at..at + PAGE)).collect())
        }
        tell::BYTES => {
            if bulk.len() < start.bulk_bytes {
                return Err(bad("an answer without its pages"));
            }
            Response::Bytes(ReadBytes::new(bulk, 0, start.bulk_bytes))
        }
        tell::HEADER => Response::Header(fragment_header(head)?),
        tell::FRAGMENTS => Response::Fragments(take(head)?),
        tell::LOCKS => Response::Locks(take(head)?),
        tell::INFO => {
            let InfoHead { capacity, free, free_extents, room_below, slots, slots_free, sealed } =
                take(head)?;
            Response::Info(MediumInfo { capacity, free, free_extents, room_below, slots, slots_free, sealed })
        }
        tell::MEDIA => Response::Media(media(start, take(head)?, bulk)?),
        _ => return Err(bad(format!("there is no answer {}", start.code))),
    };
    Ok(Ok(response))
}
