//! Segment header and batch header.
//!
//! ```text
//! segment header (one page)
//!  "HFSG" | version u16 | members u16 | epoch u64 | stream u64 | number u32 | slot bytes u32
//!  | members 4 x 16 | next ensembles 2 x 4 x 16 (reserved, zero) | MAC 16 | CRC-32C u32 | zeros
//! batch header (96 bytes, before the records)
//!  "HFJB" | version u16 | zero u16 | epoch u64 | stream u64 | segment u32 | index u32 | first seq u64
//!  | records u32 | payload bytes u32 | MAC of the batch before 16 | MAC 16 | zero 16
//! ```
//! The MAC is keyed BLAKE3 over header (its own field zero) and payload, cut to 128 bits; data nodes, which hold no
//! keys, check the CRC of the segment header alone. The hash chain runs through the MACs; the first batch of a
//! segment carries the MAC of the last acknowledged batch of the segment before.

use std::ops::RangeInclusive;

use proto::SegmentId;
use units::{Epoch, Incarnation, MediumId, PAGE, Seq, crc32c, round_up_page};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const SEGMENT_MAGIC: [u8; 4] = *b"HFSG";
const BATCH_MAGIC: [u8; 4] = *b"HFJB";
const VERSION: u16 = 2;
/// Most members of an ensemble: m+1 with the largest m.
pub(crate) const MEMBERS_MAX: usize = 4;
/// Bytes of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 96;
pub(crate) const SEGMENT_FIXED: usize = 244;

/// The bytes are not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct JournalFormatError {
    /// The part of the format.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawSegment {
    magic: [u8; 4],
    version: U16,
    member_count: U16,
    epoch: U64,
    stream: U64,
    number: U32,
    slot_bytes: U32,
    members: [[u8; 16]; MEMBERS_MAX],
    next: [[u8; 16]; 2 * MEMBERS_MAX],
    mac: [u8; 16],
    crc: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawBatch {
    magic: [u8; 4],
    version: U16,
    zero: U16,
    epoch: U64,
    stream: U64,
    segment: U32,
    index: U32,
    first_seq: U64,
    records: U32,
    payload_bytes: U32,
    previous: [u8; 16],
    mac: [u8; 16],
    spare: [u8; 16],
}

const _: () =
    assert!(size_of::<RawSegment>() == SEGMENT_FIXED && size_of::<RawBatch>() == BATCH_HEADER_BYTES);

/// What a data node can read of a segment header without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentPlace {
    /// The segment.
    pub id: SegmentId,
    /// Bytes of its slot.
    pub slot_bytes: u32,
}

impl SegmentPlace {
    /// Reads a header page, of an earlier version too, and checks its CRC.
    ///
    /// # Errors
    /// When the page is damaged or no segment header.
    pub fn decode(page: &[u8]) -> Result<Self, JournalFormatError> {
        raw_segment(page, 1..=VERSION).map(|raw| Self { id: id_of(&raw), slot_bytes: raw.slot_bytes.get() })
    }
}

/// The first page of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The segment.
    pub id: SegmentId,
    /// Bytes of its slot, header page included.
    pub slot_bytes: u32,
    /// Its ensemble.
    pub members: Vec<MediumId>,
}

impl SegmentHeader {
    /// The stored form: one page.
    pub fn encode(&self, key: &[u8; 32]) -> Vec<u8> {
        let mut members = [[0; 16]; MEMBERS_MAX];
        for (raw, member) in members.iter_mut().zip(&self.members) {
            *raw = member.0;
        }
        let mut raw = RawSegment {
            magic: SEGMENT_MAGIC,
            version: U16::new(VERSION),
            member_count: U16::new(self.members.len() as u16),
            epoch: U64::new(self.id.epoch.0),
            stream: U64::new(self.id.stream.0),
            number: U32::new(self.id.number),
            slot_bytes: U32::new(self.slot_bytes),
            members,
            next: [[0; 16]; 2 * MEMBERS_MAX],
            mac: [0; 16],
            crc: U32::new(0),
        };
        raw.mac = mac(key, &[raw.as_bytes()]);
        raw.crc = U32::new(crc32c(raw.as_bytes()));
        let mut page = vec![0; PAGE];
        page[..SEGMENT_FIXED].copy_from_slice(raw.as_bytes());
        page
    }

    /// Reads a header page and checks its MAC.
    ///
    /// # Errors
    /// When the page is damaged, forged or no segment header.
    pub fn decode(page: &[u8], key: &[u8; 32]) -> Result<Self, JournalFormatError> {
        let raw = raw_segment(page, VERSION..=VERSION)?;
        let blank = RawSegment { mac: [0; 16], crc: U32::new(0), ..raw };
        if mac(key, &[blank.as_bytes()]) != raw.mac {
            return Err(bad("segment header", "the authentication code does not match"));
        }
        let members =
            raw.members[..usize::from(raw.member_count.get())].iter().map(|id| MediumId(*id)).collect();
        Ok(Self { id: id_of(&raw), slot_bytes: raw.slot_bytes.get(), members })
    }
}

/// The version of a segment header that is sound and of an earlier format.
pub(crate) fn earlier_version(page: &[u8]) -> Option<u16> {
    raw_segment(page, 1..=VERSION - 1).ok().map(|raw| raw.version.get())
}

/// The version of segments and batches.
pub(crate) const fn version() -> u16 {
    VERSION
}

fn raw_segment(page: &[u8], versions: RangeInclusive<u16>) -> Result<RawSegment, JournalFormatError> {
    let (raw, _) =
        RawSegment::read_from_prefix(page).map_err(|_| bad("segment header", "it is cut short"))?;
    if raw.magic != SEGMENT_MAGIC || !versions.contains(&raw.version.get()) {
        return Err(bad("segment header", "this is no segment header of version 2"));
    }
    let blank = RawSegment { crc: U32::new(0), ..raw };
    if crc32c(blank.as_bytes()) != raw.crc.get() {
        return Err(bad("segment header", "the check sum does not match"));
    }
    let count = usize::from(raw.member_count.get());
    if count == 0 || count > MEMBERS_MAX || !(raw.slot_bytes.get() as usize).is_multiple_of(PAGE) {
        return Err(bad("segment header", "its fields make no sense"));
    }
    Ok(raw)
}

fn id_of(raw: &RawSegment) -> SegmentId {
    SegmentId {
        epoch: Epoch(raw.epoch.get()),
        stream: Incarnation(raw.stream.get()),
        number: raw.number.get(),
    }
}

/// The start of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Its segment.
    pub segment: SegmentId,
    /// Count within the segment, from 0.
    pub index: u32,
    /// Seq of its first record.
    pub first_seq: Seq,
    /// Records that take a seq.
    pub records: u32,
    /// Bytes of the records.
    pub payload_bytes: u32,
    /// MAC of the batch before.
    pub previous: [u8; 16],
    /// MAC of this batch.
    pub mac: [u8; 16],
}

impl BatchHeader {
    /// Bytes of the whole batch: whole pages.
    pub fn batch_bytes(&self) -> usize {
        round_up_page(BATCH_HEADER_BYTES + self.payload_bytes as usize)
    }

    /// Seq behind the last record.
    pub fn end_seq(&self) -> Seq {
        self.first_seq.plus(u64::from(self.records))
    }

    fn raw(&self, mac: [u8; 16]) -> RawBatch {
        RawBatch {
            magic: BATCH_MAGIC,
            version: U16::new(VERSION),
            zero: U16::new(0),
            epoch: U64::new(self.segment.epoch.0),
            stream: U64::new(self.segment.stream.0),
            segment: U32::new(self.segment.number),
            index: U32::new(self.index),
            first_seq: U64::new(self.first_seq.0),
            records: U32::new(self.records),
            payload_bytes: U32::new(self.payload_bytes),
            previous: self.previous,
            mac,
            spare: [0; 16],
        }
    }

    /// Completes a batch: `bytes` holds the payload behind [`BATCH_HEADER_BYTES`] free bytes. Gives the header with
    /// its MAC.
    pub fn seal(mut self, bytes: &mut [u8], key: &[u8; 32]) -> Self {
        let end = BATCH_HEADER_BYTES + self.payload_bytes as usize;
        let blank = self.raw([0; 16]);
        self.mac = mac(key, &[blank.as_bytes(), &bytes[BATCH_HEADER_BYTES..end]]);
        bytes[..BATCH_HEADER_BYTES].copy_from_slice(self.raw(self.mac).as_bytes());
        self
    }

    /// Reads a header; nothing is verified yet but the magic number and the version.
    ///
    /// # Errors
    /// When the bytes are no batch header.
    pub fn peek(bytes: &[u8]) -> Result<Self, JournalFormatError> {
        let (raw, _) =
            RawBatch::read_from_prefix(bytes).map_err(|_| bad("batch", "its header is cut short"))?;
        if raw.magic != BATCH_MAGIC
            || raw.version.get() != VERSION
            || raw.zero.get() != 0
            || raw.spare != [0; 16]
        {
            return Err(bad("batch", "this is no batch of version 2"));
        }
        if raw.payload_bytes.get() as usize > MAX_PAYLOAD
            || raw.first_seq.get().checked_add(u64::from(raw.records.get())).is_none()
        {
            return Err(bad("batch", "its lengths make no sense"));
        }
        Ok(Self {
            segment: SegmentId {
                epoch: Epoch(raw.epoch.get()),
                stream: Incarnation(raw.stream.get()),
                number: raw.segment.get(),
            },
            index: raw.index.get(),
            first_seq: Seq(raw.first_seq.get()),
            records: raw.records.get(),
            payload_bytes: raw.payload_bytes.get(),
            previous: raw.previous,
            mac: raw.mac,
        })
    }

    /// Checks the MAC over header and payload and gives the payload; `bytes` starts with the header.
    ///
    /// # Errors
    /// When the batch is cut short, damaged or forged.
    pub fn verify<'a>(&self, bytes: &'a [u8], key: &[u8; 32]) -> Result<&'a [u8], JournalFormatError> {
        let payload = bytes
            .get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + self.payload_bytes as usize)
            .ok_or_else(|| bad("batch", "it is cut short"))?;
        let blank = self.raw([0; 16]);
        if mac(key, &[blank.as_bytes(), payload]) == self.mac {
            Ok(payload)
        } else {
            Err(bad("batch", "the authentication code does not match"))
        }
    }
}

/// Largest payload: a segment's worth. Bounds what a hostile header can ask for.
const MAX_PAYLOAD: usize = 64 << 20;

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

fn bad(what: &'static str, reason: &'static str) -> JournalFormatError {
    JournalFormatError { what, reason }
}
