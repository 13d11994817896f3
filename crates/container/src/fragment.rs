//! The fragment header: what a data node knows of a fragment without any key.
//!
//! ```text
//!  "HFFR" | version u16 | index u8 | k u8 | m u8 | zero 3 | container id 16 | container bytes u32 | payload bytes u32
//!  | allocation u64 | locked until u64 | members 16 x 16 | CRC-32C of the header u32 | zero .. 320
//!  | CRC-32C of each payload page, u32 each | zeros to a whole page
//! ```
//! `allocation` orders the fragments of one medium, so that a rebuilt allocation table can tell a stale header from
//! a live one. `locked until` (ms since the epoch) is zero, or what a mended fragment was locked until when it was
//! written; later locks stand in the medium's allocation table (decision 0010). The members tell a lone
//! medium where the other fragments are.

use units::{ContainerId, MediumId, PAGE, PageSlice, crc32c, round_up_page};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;

const MAGIC: [u8; 4] = *b"HFFR";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 320;
/// Most members of a stripe.
pub const FRAGMENT_MEMBERS_MAX: usize = 16;
/// Largest payload: a 64 MiB container on one medium.
const PAYLOAD_BYTES_MAX: u32 = 64 << 20;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    version: U16,
    index: u8,
    k: u8,
    m: u8,
    zero: [u8; 3],
    container: [u8; 16],
    container_bytes: U32,
    payload_bytes: U32,
    allocation: U64,
    locked_until: U64,
    members: [[u8; 16]; FRAGMENT_MEMBERS_MAX],
    crc: U32,
    spare: [u8; 8],
}

const _: () = assert!(size_of::<Raw>() == FIXED_BYTES);

/// Payload bytes of each of `k` data fragments of a container of `total` bytes.
pub fn fragment_bytes(total: usize, k: usize) -> usize {
    round_up_page(total.div_ceil(k).max(1))
}

/// Bytes of the header of a fragment with `payload` bytes: whole pages.
pub fn header_bytes(payload: usize) -> usize {
    round_up_page(FIXED_BYTES + payload / PAGE * 4)
}

/// The decoded header of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentHeader {
    /// The container.
    pub container: ContainerId,
    /// Which of the k+m fragments: below k data, from k on parity.
    pub index: u8,
    /// Data fragments of the stripe.
    pub k: u8,
    /// Parity fragments of the stripe.
    pub m: u8,
    /// Bytes of the container.
    pub container_bytes: u32,
    /// Order of allocation on the medium; set by the data node.
    pub allocation: u64,
    /// No earlier deletion, ms since the epoch; 0 for none.
    pub locked_until: u64,
    /// The media of the stripe, by index.
    pub members: Vec<MediumId>,
    /// CRC-32C of each payload page.
    pub page_crcs: Vec<u32>,
}

impl FragmentHeader {
    /// CRC-32C of each page of `payload`.
    pub fn crcs_of(payload: &PageSlice) -> Vec<u32> {
        payload.as_ref().chunks(PAGE).map(crc32c).collect()
    }

    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> usize {
        self.page_crcs.len() * PAGE
    }

    /// The stored form: whole pages.
    pub fn encode(&self) -> Vec<u8> {
        let mut members = [[0; 16]; FRAGMENT_MEMBERS_MAX];
        for (raw, member) in members.iter_mut().zip(&self.members) {
            *raw = member.0;
        }
        let raw = Raw {
            magic: MAGIC,
            version: U16::new(VERSION),
            index: self.index,
            k: self.k,
            m: self.m,
            zero: [0; 3],
            container: self.container.to_bytes(),
            container_bytes: U32::new(self.container_bytes),
            payload_bytes: U32::new(self.payload_bytes() as u32),
            allocation: U64::new(self.allocation),
            locked_until: U64::new(self.locked_until),
            members,
            crc: U32::new(0),
            spare: [0; 8],
        };
        let mut out = vec![0; header_bytes(self.payload_bytes())];
        out[..FIXED_BYTES].copy_from_slice(raw.as_bytes());
        for (slot, crc) in out[FIXED_BYTES..].chunks_mut(4).zip(&self.page_crcs) {
            slot.copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c(&out);
        let sealed = Raw { crc: U32::new(crc), ..raw };
        out[..FIXED_BYTES].copy_from_slice(sealed.as_bytes());
        out
    }

    /// How many bytes the header has, from its first page. Not yet checked by the CRC; `None` when it is no header.
    pub fn peek(page: &[u8]) -> Option<usize> {
        raw_of(page).ok().map(|raw| header_bytes(raw.payload_bytes.get() as usize))
    }

    /// Reads a header; `bytes` may be longer.
    ///
    /// # Errors
    /// When the bytes are damaged, cut short or make no sense.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let raw = raw_of(bytes)?;
        let payload = raw.payload_bytes.get() as usize;
        let stored = bytes.get(..header_bytes(payload)).ok_or_else(|| bad("the header is cut short"))?;
        let mut checked = stored.to_vec();
        checked[..FIXED_BYTES].copy_from_slice(Raw { crc: U32::new(0), ..raw }.as_bytes());
        if crc32c(&checked) != raw.crc.get() {
            return Err(bad("the check sum does not match"));
        }
        let pages = payload / PAGE;
        let page_crcs = stored[FIXED_BYTES..FIXED_BYTES + pages * 4]
            .as_chunks::<4>()
            .0
            .iter()
            .map(|crc| u32::from_le_bytes(*crc))
            .collect();
        let width = usize::from(raw.k) + usize::from(raw.m);
        Ok(Self {
            container: ContainerId::from_bytes(raw.container)
                .ok_or_else(|| bad("the container id makes no sense"))?,
            index: raw.index,
            k: raw.k,
            m: raw.m,
            container_bytes: raw.container_bytes.get(),
            allocation: raw.allocation.get(),
            locked_until: raw.locked_until.get(),
            members: raw.members[..width].iter().map(|id| MediumId(*id)).collect(),
            page_crcs,
        })
    }
}

fn raw_of(bytes: &[u8]) -> Result<Raw, FormatError> {
    let (raw, _) = Raw::read_from_prefix(bytes).map_err(|_| bad("it is cut short"))?;
    let payload = raw.payload_bytes.get();
    let width = usize::from(raw.k) + usize::from(raw.m);
    let sane = raw.magic == MAGIC
        && raw.version.get() == VERSION
        && raw.k > 0
        && width <= FRAGMENT_MEMBERS_MAX
        && usize::from(raw.index) < width
        && payload > 0
        && payload <= PAYLOAD_BYTES_MAX
        && (payload as usize).is_multiple_of(PAGE)
        && fragment_bytes(raw.container_bytes.get() as usize, usize::from(raw.k)) == payload as usize;
    if sane { Ok(raw) } else { Err(bad("this is no fragment header of version 1")) }
}

fn bad(reason: &'static str) -> FormatError {
    FormatError { what: "fragment header", reason }
}
