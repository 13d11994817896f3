//! What compute asks of data: the messages, and the trait that carries them (section 7.3 of docs/design.md).
//!
//! Journal appends and fragment reads and writes cross [`Transport`] even inside one process, so that a network
//! can be put there without a change above or below, and so that the simulator can delay, drop, repeat and reorder
//! every message. All requests are idempotent: a caller that got no answer may ask again.
//!
//! Vocabulary: a request goes to one **medium**; the data node that holds it is the transport's business.
//!
//! What it does not do: no connection, no retry, no choice of a target.

pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use container::FragmentHeader;
use seam::BoxFuture;
use units::{ContainerId, Epoch, Incarnation, MediumId, PageBuf, PageSlice};

/// Names a segment of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// Order of the incarnation that writes the stream.
    pub epoch: Epoch,
    /// The stream: the incarnation that writes it.
    pub stream: Incarnation,
    /// Count within the stream, from 0.
    pub number: u32,
}

/// A request to one medium.
#[derive(Debug, Clone)]
pub enum Request {
    /// Takes a journal slot and makes the segment's header page durable in it.
    SegmentOpen {
        /// The segment.
        id: SegmentId,
        /// Its header: one page.
        header: PageSlice,
    },
    /// Makes a batch durable at a byte offset of the segment. Answered only when every byte before `offset` is
    /// durable here too.
    SegmentAppend {
        /// The segment.
        id: SegmentId,
        /// Byte offset within the segment, header page included; whole pages.
        offset: u32,
        /// The batch: whole pages.
        bytes: PageSlice,
    },
    /// Lists the segments whose headers stand on the medium.
    SegmentList,
    /// Reads whole pages of a segment.
    SegmentRead {
        /// The segment.
        id: SegmentId,
        /// Byte offset within the segment.
        offset: u32,
        /// Bytes; cut at the end of the slot.
        length: u32,
    },
    /// Gives the slots of these segments back. Unknown ones are passed over.
    SegmentFree(Vec<SegmentId>),
    /// Makes a fragment durable. With `replace` an older copy of the same fragment is superseded, else a copy that
    /// is there already answers the request.
    FragmentWrite {
        /// Header; the data node sets its allocation number.
        header: Box<FragmentHeader>,
        /// F bytes.
        payload: PageSlice,
        /// Supersede what is there.
        replace: bool,
    },
    /// Reads bytes of a fragment's payload.
    FragmentRead {
        /// The container.
        container: ContainerId,
        /// Which fragment.
        index: u8,
        /// Byte offset within the payload.
        offset: u32,
        /// Bytes.
        length: u32,
        /// Check the pages against the CRCs of the header first.
        verify: bool,
    },
    /// Reads a fragment's header.
    FragmentHeader {
        /// The container.
        container: ContainerId,
        /// Which fragment.
        index: u8,
    },
    /// Frees all fragments of these containers on the medium. Unknown ones are passed over. Those that are locked stay, which
    /// is an error: all others are freed.
    FragmentFree(Vec<ContainerId>),
    /// Frees none of the fragments of these containers on the medium before a time. Only ever makes it later. Unknown ones
    /// are passed over.
    FragmentLock {
        /// The containers.
        containers: Vec<ContainerId>,
        /// The time, ms since the epoch by the data node's clock.
        until_ms: u64,
    },
    /// Lists containers whose fragments the medium would not free now, in order, from behind `after`.
    LockList {
        /// Where to go on; `None` for the start.
        after: Option<ContainerId>,
        /// Most entries of the answer.
        limit: u32,
    },
    /// Frees single fragments. Unknown ones are passed over.
    FragmentFreeAt(Vec<(ContainerId, u8)>),
    /// Lists fragments in order of container, from behind `after`.
    FragmentList {
        /// Where to go on; `None` for the start.
        after: Option<ContainerId>,
        /// Most entries of the answer.
        limit: u32,
    },
    /// The medium takes nothing more from incarnations before the one that asks, durably. Answered when all that they had
    /// under way there has ended, and no lease of theirs holds any more.
    Seal,
    /// A lease for the incarnation that asks: the medium answers no [`Request::Seal`] before a time from now that both
    /// know. An answer to [`Request::SegmentOpen`] and [`Request::SegmentAppend`] grants one too.
    Lease,
    /// The incarnation that asks has ended: none of its leases holds any more. Only what was granted to it ends.
    Release,
    /// Asks for the medium's room.
    Info {
        /// Bytes of the extents that `free_extents` of the answer counts in. 0: none are counted, and the medium is read from,
        /// to see whether it is there.
        extent: u64,
    },
    /// Lists the media of the node. Asked of [`NODE`], not of a medium.
    MediumList,
    /// Makes a blank medium one of the site with this superblock, of one page. One that has it already is left as it is.
    Format(PageSlice),
    /// Replaces the superblock of a medium by one that is no older.
    SuperblockWrite(PageSlice),
}

impl Request {
    /// Whether it changes something, which goes on to its end once it was begun, and which only the newest incarnation may
    /// ask for.
    pub fn is_change(&self) -> bool {
        match self {
            Self::SegmentOpen { .. }
            | Self::SegmentAppend { .. }
            | Self::SegmentFree(_)
            | Self::FragmentWrite { .. }
            | Self::FragmentFree(_)
            | Self::FragmentLock { .. }
            | Self::FragmentFreeAt(_)
            | Self::Seal
            | Self::Lease
            | Self::Release
            | Self::Format(_)
            | Self::SuperblockWrite(_) => true,
            Self::SegmentList
            | Self::SegmentRead { .. }
            | Self::FragmentRead { .. }
            | Self::FragmentHeader { .. }
            | Self::LockList { .. }
            | Self::FragmentList { .. }
            | Self::Info { .. }
            | Self::MediumList => false,
        }
    }
}

/// How long a lease holds that a medium of a site of many nodes grants: as long as a takeover from an owner that is silent
/// waits at most, and long enough for several attempts to renew it.
pub const LEASE: Duration = Duration::from_secs(3);

/// What stands in the place of a medium in requests to the node itself.
pub const NODE: MediumId = MediumId([0; 16]);

/// An answer.
#[derive(Debug, Clone)]
pub enum Response {
    /// Done, and durable where the request says so.
    Done,
    /// Segment headers, one page each.
    Segments(Vec<PageSlice>),
    /// Bytes read.
    Bytes(ReadBytes),
    /// A fragment's header.
    Header(Box<FragmentHeader>),
    /// Fragments: container and index.
    Fragments(Vec<(ContainerId, u8)>),
    /// Containers that are locked, and until when.
    Locks(Vec<(ContainerId, u64)>),
    /// Room and health.
    Info(MediumInfo),
    /// The media of the node.
    Media(Vec<NodeMedium>),
}

/// What a node says of one of its media.
#[derive(Debug, Clone)]
pub struct NodeMedium {
    /// The medium; of a blank one the id that it is to have.
    pub medium: MediumId,
    /// Bytes.
    pub bytes: u64,
    /// Its place on the node, for people.
    pub name: String,
    /// Its superblock, one page; none where it is blank or cannot be read.
    pub superblock: Option<PageSlice>,
    /// Why it is not served; none where it is, or is blank.
    pub trouble: Option<String>,
}

/// Bytes read from a medium: the wanted stretch of whole pages.
#[derive(Debug, Clone)]
pub struct ReadBytes {
    pages: PageSlice,
    start: usize,
    length: usize,
}

impl ReadBytes {
    /// The bytes `start .. start + length` of `pages`, cut at their end.
    pub fn new(pages: PageBuf, start: usize, length: usize) -> Self {
        let start = start.min(pages.len());
        let length = length.min(pages.len() - start);
        Self { pages: pages.share(), start, length }
    }
}

impl AsRef<[u8]> for ReadBytes {
    fn as_ref(&self) -> &[u8] {
        &self.pages.as_ref()[self.start..self.start + self.length]
    }
}

/// Room of a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MediumInfo {
    /// Bytes of the data area.
    pub capacity: u64,
    /// Bytes of the data area that no fragment holds.
    pub free: u64,
    /// Extents of the size asked for that would fit.
    pub free_extents: u64,
    /// What the file system below still has; `u64::MAX` when the question has no meaning.
    pub room_below: u64,
    /// Journal slots in all.
    pub slots: u32,
    /// Journal slots without a segment.
    pub slots_free: u32,
    /// The incarnation for which it was sealed last: it takes nothing from any before.
    pub sealed: Epoch,
}

/// Why a request failed: decides what the caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// No answer in time, or nobody there: may or may not have happened.
    Unreachable,
    /// The medium failed.
    Failed,
    /// The medium or the file system below is full.
    NoSpace,
    /// The thing asked for is not there.
    NotFound,
    /// It may not be freed before a time.
    Locked,
    /// What is there is damaged.
    Corrupt,
    /// A newer incarnation has taken over.
    Fenced,
    /// The request makes no sense.
    Invalid,
}

/// A request failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("medium {medium}: {reason}")]
pub struct CallError {
    /// What to do about it.
    pub kind: CallErrorKind,
    /// The medium that was asked.
    pub medium: MediumId,
    /// What was wrong.
    pub reason: String,
}

/// Carries requests to media.
pub trait Transport: Send + Sync {
    /// Asks `medium` on behalf of the incarnation `by` and waits for the answer, no longer than the transport's deadline. A
    /// medium that was sealed for a later incarnation refuses changes as `Fenced`.
    fn call_by(
        &self,
        by: Epoch,
        medium: MediumId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, CallError>>;

    /// As [`Transport::call_by`], for whoever has no incarnation: before the first one, and to read.
    fn call(&self, medium: MediumId, request: Request) -> BoxFuture<'_, Result<Response, CallError>> {
        self.call_by(Epoch(0), medium, request)
    }

    /// It is `ms` of site time: what a transport says whose media have no clock of their own. Others take no notice.
    fn tell_time(&self, _ms: u64) {}
}

/// The requests of one incarnation.
#[derive(Clone)]
pub struct By {
    epoch: Epoch,
    inner: Arc<dyn Transport>,
}

impl std::fmt::Debug for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "By({})", self.epoch.0)
    }
}

impl By {
    /// Sends everything on behalf of the incarnation of `epoch`.
    pub fn new(epoch: Epoch, inner: Arc<dyn Transport>) -> Self {
        Self { epoch, inner }
    }
}

impl Transport for By {
    fn call_by(
        &self,
        by: Epoch,
        medium: MediumId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, CallError>> {
        self.inner.call_by(by.max(self.epoch), medium, request)
    }

    fn tell_time(&self, ms: u64) {
        self.inner.tell_time(ms);
    }
}
