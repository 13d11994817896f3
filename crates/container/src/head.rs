//! Prelude and directory: the head of a container, though the directory lies behind the units.
//!
//! ```text
//! prelude   "HFCO" | version u16 | zero u16 | container id 16 | total u32 | entries u32 | map log bytes u32
//!           | CRC-32C u32 of prelude (with both CRCs zero) and directory | map log fingerprint 16
//!           | CRC-32C u32 of the prelude (with this field zero) | zero 4
//! entry     fingerprint 16 | offset u32 | length u32 | CRC-32C u32 | kind u8 | level u8 | origin slot u16
//! ```
//! The origin slot names the slot a moved unit had before; it equals the entry's own slot in a first writing.

use std::ops::Range;

use units::{Address, ContainerId, Fingerprint, crc32c};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::SLOTS_MAX;

/// Bytes of the prelude.
pub const PRELUDE_BYTES: usize = 64;
/// Bytes of a directory entry.
pub const ENTRY_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"HFCO";
const VERSION: u16 = 1;
/// Largest container any site may use: bounds what a hostile prelude can ask for.
const TOTAL_BYTES_MAX: u32 = 64 << 20;

/// The bytes are not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct FormatError {
    /// The part of the format.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnitKind {
    /// A block of guest data.
    Data,
    /// A map page of a level: its fingerprint part, the name of its address part, its address part.
    Page(u8),
    /// A piece of a metadata checkpoint.
    Meta,
}

impl UnitKind {
    fn codes(self) -> (u8, u8) {
        match self {
            Self::Data => (1, 0),
            Self::Page(level) => (2, level),
            Self::Meta => (5, 0),
        }
    }

    fn from_codes(kind: u8, level: u8) -> Option<Self> {
        match (kind, level) {
            (1, 0) => Some(Self::Data),
            (2, level) => Some(Self::Page(level)),
            (5, 0) => Some(Self::Meta),
            _ => None,
        }
    }
}

/// One slot of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Name of the unit.
    pub fingerprint: Fingerprint,
    /// Byte offset within the container.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// CRC-32C of the sealed bytes.
    pub crc: u32,
    /// What it holds.
    pub kind: UnitKind,
    /// Slot it had before it was moved; its own slot otherwise.
    pub origin: u16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawPrelude {
    magic: [u8; 4],
    version: U16,
    zero: U16,
    container: [u8; 16],
    total: U32,
    entries: U32,
    map_log_bytes: U32,
    crc: U32,
    map_log: [u8; 16],
    own_crc: U32,
    spare: [u8; 4],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawEntry {
    fingerprint: [u8; 16],
    offset: U32,
    length: U32,
    crc: U32,
    kind: u8,
    level: u8,
    origin: U16,
}

const _: () = assert!(size_of::<RawPrelude>() == PRELUDE_BYTES && size_of::<RawEntry>() == ENTRY_BYTES);

/// Where the parts of a container lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadPlace {
    /// Bytes of the container.
    pub total: u32,
    /// Entries of the directory.
    pub entries: u32,
    /// Bytes of the sealed map log; 0 when there is none.
    pub map_log_bytes: u32,
}

impl HeadPlace {
    /// Byte range of the directory.
    pub fn directory(&self) -> Range<usize> {
        let end = (self.total - self.map_log_bytes) as usize;
        end - self.entries as usize * ENTRY_BYTES..end
    }

    /// Byte range of the map log.
    pub fn map_log(&self) -> Range<usize> {
        (self.total - self.map_log_bytes) as usize..self.total as usize
    }

    /// Byte range of directory and map log: what recovery reads.
    pub fn tail(&self) -> Range<usize> {
        self.directory().start..self.total as usize
    }

    fn of(prelude: &RawPrelude) -> Self {
        Self {
            total: prelude.total.get(),
            entries: prelude.entries.get(),
            map_log_bytes: prelude.map_log_bytes.get(),
        }
    }
}

/// The decoded head of a container, without its map log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The container.
    pub container: ContainerId,
    /// Bytes of the container.
    pub total: u32,
    /// The directory, by slot.
    pub entries: Vec<Entry>,
    /// Bytes of the sealed map log, behind the directory; 0 when there is none.
    pub map_log_bytes: u32,
    /// Name of the map log.
    pub map_log: Fingerprint,
}

impl Head {
    /// Where the parts lie.
    pub fn place(&self) -> HeadPlace {
        HeadPlace { total: self.total, entries: self.entries.len() as u32, map_log_bytes: self.map_log_bytes }
    }

    /// The address of a slot in a container cut into fragments of `fragment_pages` pages.
    pub fn address(&self, slot: u16, fragment_pages: u16) -> Option<Address> {
        let entry = self.entries.get(usize::from(slot))?;
        let (offset, length) = (entry.offset, entry.length);
        Some(Address { container: self.container, slot, fragment_pages, offset, length })
    }

    /// Writes prelude and directory to their places in `out`, the whole container.
    pub(crate) fn encode_into(&self, out: &mut [u8]) {
        let directory = self.place().directory();
        for (raw, entry) in out[directory.clone()].chunks_mut(ENTRY_BYTES).zip(&self.entries) {
            let (kind, level) = entry.kind.codes();
            let encoded = RawEntry {
                fingerprint: entry.fingerprint.0,
                offset: U32::new(entry.offset),
                length: U32::new(entry.length),
                crc: U32::new(entry.crc),
                kind,
                level,
                origin: U16::new(entry.origin),
            };
            raw.copy_from_slice(encoded.as_bytes());
        }
        let mut prelude = RawPrelude {
            magic: MAGIC,
            version: U16::new(VERSION),
            zero: U16::new(0),
            container: self.container.to_bytes(),
            total: U32::new(self.total),
            entries: U32::new(self.entries.len() as u32),
            map_log_bytes: U32::new(self.map_log_bytes),
            crc: U32::new(0),
            map_log: self.map_log.0,
            own_crc: U32::new(0),
            spare: [0; 4],
        };
        prelude.crc = U32::new(checksum(&prelude, &out[directory]));
        prelude.own_crc = U32::new(crc32c(prelude.as_bytes()));
        out[..PRELUDE_BYTES].copy_from_slice(prelude.as_bytes());
    }

    /// Where the parts lie, from the first [`PRELUDE_BYTES`] bytes, checked by the prelude's own CRC: what is read next is
    /// found by it, so damage here must show here.
    ///
    /// # Errors
    /// When the bytes are no prelude.
    pub fn peek(bytes: &[u8]) -> Result<HeadPlace, FormatError> {
        prelude(bytes).map(|prelude| HeadPlace::of(&prelude))
    }

    /// Reads a head from its prelude and the bytes of its directory.
    ///
    /// # Errors
    /// When the bytes are damaged, cut short or make no sense.
    pub fn decode(first: &[u8], directory: &[u8]) -> Result<Self, FormatError> {
        let prelude = prelude(first)?;
        let place = HeadPlace::of(&prelude);
        let directory =
            directory.get(..place.directory().len()).ok_or_else(|| bad("the directory is cut short"))?;
        let blank = RawPrelude { crc: U32::new(0), own_crc: U32::new(0), ..prelude };
        if checksum(&blank, directory) != prelude.crc.get() {
            return Err(bad("the check sum does not match"));
        }
        let container = ContainerId::from_bytes(prelude.container)
            .ok_or_else(|| bad("the container id makes no sense"))?;
        let entries = directory
            .chunks_exact(ENTRY_BYTES)
            .map(|raw| decode_entry(raw, place.directory().start))
            .collect::<Result<Vec<_>, _>>()?;
        let map_log = Fingerprint(prelude.map_log);
        Ok(Self { container, total: place.total, entries, map_log_bytes: place.map_log_bytes, map_log })
    }
}

fn checksum(prelude: &RawPrelude, directory: &[u8]) -> u32 {
    let mut bytes = prelude.as_bytes().to_vec();
    bytes.extend_from_slice(directory);
    crc32c(&bytes)
}

fn decode_entry(raw: &[u8], units_end: usize) -> Result<Entry, FormatError> {
    let raw = RawEntry::read_from_bytes(raw).map_err(|_| bad("an entry is cut short"))?;
    let (offset, length) = (raw.offset.get(), raw.length.get());
    let end = offset.checked_add(length).ok_or_else(|| bad("an entry's length makes no sense"))?;
    if (offset as usize) < PRELUDE_BYTES || end as usize > units_end {
        return Err(bad("an entry points outside the units"));
    }
    Ok(Entry {
        fingerprint: Fingerprint(raw.fingerprint),
        offset,
        length,
        crc: raw.crc.get(),
        kind: UnitKind::from_codes(raw.kind, raw.level).ok_or_else(|| bad("an entry has an unknown kind"))?,
        origin: raw.origin.get(),
    })
}

fn prelude(bytes: &[u8]) -> Result<RawPrelude, FormatError> {
    let (prelude, _) = RawPrelude::read_from_prefix(bytes).map_err(|_| bad("it is cut short"))?;
    if prelude.magic != MAGIC || prelude.version.get() != VERSION {
        return Err(bad("this is no container head of version 1"));
    }
    let blank = RawPrelude { own_crc: U32::new(0), ..prelude };
    if crc32c(blank.as_bytes()) != prelude.own_crc.get() {
        return Err(bad("the check sum of its prelude does not match"));
    }
    let total = prelude.total.get();
    let entries = prelude.entries.get() as usize;
    if entries > SLOTS_MAX || total > TOTAL_BYTES_MAX {
        return Err(bad("its lengths make no sense"));
    }
    if PRELUDE_BYTES + entries * ENTRY_BYTES + prelude.map_log_bytes.get() as usize > total as usize {
        return Err(bad("its parts are longer than the container"));
    }
    Ok(prelude)
}

fn bad(reason: &'static str) -> FormatError {
    FormatError { what: "container head", reason }
}
