//! Messages as bytes: the data protocol (section 7.3 of docs/design.md).
//!
//! ```text
//! connection  hello ──►  ◄── hello or refusal, then frames both ways, many requests under way
//! hello       "HFDP" | least version u16 | most u16 | bytes of requests it lets be under way u32 | zero u32 | name 16
//! refusal     "HFNO" | least version u16 | most u16 | reason u32 | zero u32 | name 16
//! frame       "HFfr" | kind u8 | code u8 | zero u16 | number u64 | head bytes u32 | bulk bytes u32 | timeout ms u32
//!             | CRC-32C of the start, with this zero, and the head u32 | head | bulk
//! ```
//! Little-endian. The number names a request on its connection; the answer has the same, and so has a cancellation. The
//! head is postcard, but for a fragment's header, which keeps its stored form. The bulk is pages as they lie on media; whoever
//! uses them checks them, and the TLS beneath keeps them whole on the way.
//!
//! Invariants: no length is trusted before it is checked against the limits below; nothing decoded is larger than what
//! arrived. `wire/golden.txt` holds every message as it is sent.
//!
//! What it does not do: no connection, no deadline, no count of what is under way.

mod messages;
#[cfg(test)]
mod tests;

use units::{NodeId, PageSlice, crc32c};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use self::messages::{COST_MAX, answer, cancellation, cost, decode_answer, decode_request, request};
use crate::ReadBytes;

/// The version of the protocol that is spoken here, and the oldest that is.
pub const VERSION: u16 = 1;
/// The oldest version that is understood.
pub const VERSION_LEAST: u16 = 1;
/// Bytes of a hello or refusal.
pub const HELLO_BYTES: usize = 32;
/// Bytes of a frame before its head.
pub const FRAME_BYTES: usize = 32;
/// Longest head: a list of some ten thousand containers.
pub const HEAD_BYTES_MAX: usize = 1 << 20;
/// Longest bulk: a container or segment of the largest size.
pub const BULK_BYTES_MAX: usize = 64 << 20;

const HELLO: [u8; 4] = *b"HFDP";
const REFUSAL: [u8; 4] = *b"HFNO";
const FRAME: [u8; 4] = *b"HFfr";
/// Where a frame has its check sum.
const CRC_AT: usize = FRAME_BYTES - 4;

/// What arrived is not of the protocol. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("data protocol: {0}")]
pub struct WireError(String);

fn bad(reason: impl Into<String>) -> WireError {
    WireError(reason.into())
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHello {
    magic: [u8; 4],
    least: U16,
    most: U16,
    value: U32,
    zero: [u8; 4],
    name: [u8; 16],
}

const _: () = assert!(size_of::<RawHello>() == HELLO_BYTES);

/// What either end says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version it speaks.
    pub least: u16,
    /// The newest; in the answer of a server both are the one that is spoken from here on.
    pub most: u16,
    /// Bytes of requests that it lets be under way towards it, heads and bulk.
    pub in_flight_bytes: u32,
    /// The node that speaks.
    pub node: NodeId,
}

/// Why a server does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It speaks other versions only.
    Version {
        /// The oldest it speaks.
        least: u16,
        /// The newest.
        most: u16,
    },
    /// It has as many connections as it takes.
    Busy,
    /// The peer may not speak to it.
    NotAllowed,
}

impl Hello {
    /// The hello of a node that speaks all versions there are here.
    pub fn new(in_flight_bytes: u32, node: NodeId) -> Self {
        Self { least: VERSION_LEAST, most: VERSION, in_flight_bytes, node }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let raw = RawHello {
            magic: HELLO,
            least: U16::new(self.least),
            most: U16::new(self.most),
            value: U32::new(self.in_flight_bytes),
            zero: [0; 4],
            name: self.node.0,
        };
        zerocopy::transmute!(raw)
    }

    /// Reads what the other end said first.
    ///
    /// # Errors
    /// When it is neither hello nor refusal: the other end speaks something else.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Result<Self, Refusal>, WireError> {
        let raw: RawHello = zerocopy::transmute!(*bytes);
        let (least, most) = (raw.least.get(), raw.most.get());
        if raw.zero != [0; 4] || least > most || least == 0 {
            return Err(bad("the hello makes no sense"));
        }
        match (raw.magic, raw.value.get()) {
            (HELLO, in_flight_bytes) => Ok(Ok(Self { least, most, in_flight_bytes, node: NodeId(raw.name) })),
            (REFUSAL, 1) => Ok(Err(Refusal::Version { least, most })),
            (REFUSAL, 2) => Ok(Err(Refusal::Busy)),
            (REFUSAL, 3) => Ok(Err(Refusal::NotAllowed)),
            _ => Err(bad("this is no hello of the data protocol")),
        }
    }

    /// The version that this end and `other` speak: the newest that both do.
    ///
    /// # Errors
    /// What a server answers when there is none.
    pub fn common(&self, other: &Self) -> Result<u16, Refusal> {
        let most = self.most.min(other.most);
        let refusal = Refusal::Version { least: self.least, most: self.most };
        if most >= self.least.max(other.least) { Ok(most) } else { Err(refusal) }
    }
}

impl Refusal {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let (value, least, most) = match *self {
            Self::Version { least, most } => (1, least, most),
            Self::Busy => (2, VERSION_LEAST, VERSION),
            Self::NotAllowed => (3, VERSION_LEAST, VERSION),
        };
        let raw = RawHello {
            magic: REFUSAL,
            least: U16::new(least),
            most: U16::new(most),
            value: U32::new(value),
            zero: [0; 4],
            name: [0; 16],
        };
        zerocopy::transmute!(raw)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version { least, most } if least == most => write!(f, "it speaks version {most} only"),
            Self::Version { least, most } => write!(f, "it speaks versions {least} to {most} only"),
            Self::Busy => f.write_str("it has as many connections as it takes"),
            Self::NotAllowed => f.write_str("it does not take this node's requests"),
        }
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A request.
    Request,
    /// Nobody waits for a request any more. Has no answer.
    Cancel,
    /// An answer.
    Answer,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawFrame {
    magic: [u8; 4],
    kind: u8,
    code: u8,
    zero: [u8; 2],
    number: U64,
    head_bytes: U32,
    bulk_bytes: U32,
    timeout_ms: U32,
    crc: U32,
}

const _: () = assert!(size_of::<RawFrame>() == FRAME_BYTES);

/// The start of a frame: what follows it, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameStart {
    /// What it is.
    pub kind: FrameKind,
    /// Names the request on its connection.
    pub number: u64,
    /// Bytes of the head.
    pub head_bytes: usize,
    /// Bytes of the bulk.
    pub bulk_bytes: usize,
    /// How long whoever asks waits, ms; 0 in other frames.
    pub timeout_ms: u32,
    code: u8,
    crc: u32,
}

/// A frame to be sent: the parts in order.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Start and head.
    pub front: Vec<u8>,
    /// Pages behind it.
    pub bulk: Bulk,
}

/// The pages of a frame.
#[derive(Debug, Clone)]
pub enum Bulk {
    /// None.
    None,
    /// A stretch of pages.
    Pages(PageSlice),
    /// Several.
    Many(Vec<PageSlice>),
    /// What was read.
    Read(ReadBytes),
}

impl Bulk {
    /// The parts in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (one, many): (Option<&[u8]>, &[PageSlice]) = match self {
            Self::None => (None, &[]),
            Self::Pages(pages) => (Some(pages.as_ref()), &[]),
            Self::Many(many) => (None, many),
            Self::Read(read) => (Some(read.as_ref()), &[]),
        };
        one.into_iter().chain(many.iter().map(AsRef::as_ref))
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FrameStart {
    /// Reads the start of a frame.
    ///
    /// # Errors
    /// When it is none, or promises more than the limits.
    pub fn decode(bytes: &[u8; FRAME_BYTES]) -> Result<Self, WireError> {
        let raw: RawFrame = zerocopy::transmute!(*bytes);
        let kind = match raw.kind {
            1 => FrameKind::Request,
            2 => FrameKind::Cancel,
            3 => FrameKind::Answer,
            _ => return Err(bad("a frame of an unknown kind")),
        };
        if raw.magic != FRAME || raw.zero != [0; 2] {
            return Err(bad("this is no frame"));
        }
        let (head_bytes, bulk_bytes) = (raw.head_bytes.get() as usize, raw.bulk_bytes.get() as usize);
        if head_bytes > HEAD_BYTES_MAX || bulk_bytes > BULK_BYTES_MAX {
            return Err(bad(format!("a frame of {head_bytes} and {bulk_bytes} bytes is too long")));
        }
        Ok(Self {
            kind,
            number: raw.number.get(),
            head_bytes,
            bulk_bytes,
            timeout_ms: raw.timeout_ms.get(),
            code: raw.code,
            crc: raw.crc.get(),
        })
    }

    /// Bytes behind it.
    pub fn rest_bytes(&self) -> usize {
        self.head_bytes + self.bulk_bytes
    }

    fn raw(&self) -> RawFrame {
        RawFrame {
            magic: FRAME,
            kind: match self.kind {
                FrameKind::Request => 1,
                FrameKind::Cancel => 2,
                FrameKind::Answer => 3,
            },
            code: self.code,
            zero: [0; 2],
            number: U64::new(self.number),
            head_bytes: U32::new(self.head_bytes as u32),
            bulk_bytes: U32::new(self.bulk_bytes as u32),
            timeout_ms: U32::new(self.timeout_ms),
            crc: U32::new(self.crc),
        }
    }

    /// Checks that a frame's start and head arrived as they were sent. `front` is both, and the check sum's place in it is
    /// cleared. Gives the head.
    fn check<'a>(&self, front: &'a mut [u8]) -> Result<&'a [u8], WireError> {
        if front.len() != FRAME_BYTES + self.head_bytes {
            return Err(bad("the head is not as long as the frame says"));
        }
        front[CRC_AT..FRAME_BYTES].fill(0);
        if crc32c(front) != self.crc {
            return Err(bad("a frame's check sum does not match"));
        }
        Ok(&front[FRAME_BYTES..])
    }
}

fn frame(
    kind: FrameKind,
    code: u8,
    number: u64,
    timeout_ms: u32,
    head: &[u8],
    bulk: Bulk,
) -> Result<Frame, WireError> {
    let (head_bytes, bulk_bytes) = (head.len(), bulk.len());
    if head_bytes > HEAD_BYTES_MAX || bulk_bytes > BULK_BYTES_MAX {
        return Err(bad(format!("a message of {head_bytes} and {bulk_bytes} bytes is too long to be sent")));
    }
    let start = FrameStart { kind, number, head_bytes, bulk_bytes, timeout_ms, code, crc: 0 };
    let mut front = Vec::with_capacity(FRAME_BYTES + head_bytes);
    front.extend_from_slice(start.raw().as_bytes());
    front.extend_from_slice(head);
    let crc = crc32c(&front);
    front[CRC_AT..FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(Frame { front, bulk })
}

/// Decodes any bytes as what an end of a connection receives, and encodes again what made sense.
#[doc(hidden)]
pub fn fuzz_body(input: &[u8]) {
    if let Some(hello) = input.first_chunk() {
        drop(Hello::decode(hello).map(|hello| {
            hello.map(|hello| assert_eq!(hello.encode(), *input.first_chunk().unwrap_or(&[0; HELLO_BYTES])))
        }));
    }
    let Some(start) = input.first_chunk().and_then(|start| FrameStart::decode(start).ok()) else { return };
    let Some(front) = input.get(..FRAME_BYTES + start.head_bytes) else { return };
    let Some(bulk) = input[front.len()..].get(..start.bulk_bytes) else { return };
    let (mut front, bulk) = (front.to_vec(), units::PageBuf::copy_of(bulk));
    let medium = units::MediumId([1; 16]);
    if let Ok((by, medium, message)) = decode_request(&start, &mut front.clone(), bulk.clone()) {
        assert!(request(start.number, by, medium, start.timeout_ms, &message).is_ok());
    }
    if let Ok(message) = decode_answer(&start, medium, &mut front, bulk) {
        assert!(answer(start.number, &message).is_ok());
    }
}
