//! The allocation table: which fragment lies where, and which extents are free.
//!
//! ```text
//!  log page   "HFAL" | version u16 | changes u16 | number u64 | CRC-32C u32 | time u32 | changes 48 each | zeros
//!  table      "HFAT" | version u16 | zero u16 | number u64 | allocation u64 | entries u32 | CRC-32C u32 | entries 48 each
//!  entry      container 16 | offset u64 | allocation u64 | payload bytes u32 | index u8 | op u8 | locked until u64 | zero 2
//! ```
//! `locked until`, ms since the epoch, is in the entries of a table and of op lock. `time` is the medium's clock when the
//! page was written, seconds since the epoch: the highest of all pages is the time it is never behind (decision 0010).
//! Log pages are numbered; page n stands at place n mod ring. A table holds every change up to its number. The ring
//! keeps all changes since the older of the two tables, so that one damaged table costs nothing.

use std::collections::BTreeMap;

use container::header_bytes;
use units::{ContainerId, PAGE, PageBuf, crc32c, round_up_page};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const LOG_MAGIC: [u8; 4] = *b"HFAL";
const TABLE_MAGIC: [u8; 4] = *b"HFAT";
const VERSION: u16 = 1;
const LOG_HEADER: usize = 24;
const TABLE_HEADER: usize = 32;
const ENTRY: usize = 48;
/// Where less than one part in this many is free, holes are chosen with care.
const TIGHT_SHARE: u64 = 4;
/// Changes in one log page.
pub(crate) const CHANGES_PER_PAGE: usize = (PAGE - LOG_HEADER) / ENTRY;
const ADD: u8 = 1;
const FREE: u8 = 2;
const LOCK: u8 = 3;

/// Bytes of a table of `fragments` entries.
pub(crate) const fn table_bytes(fragments: u32) -> u64 {
    round_up_page(TABLE_HEADER + fragments as usize * ENTRY) as u64
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawEntry {
    container: [u8; 16],
    offset: U64,
    allocation: U64,
    payload: U32,
    index: u8,
    op: u8,
    locked_until: U64,
    spare: [u8; 2],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawLog {
    magic: [u8; 4],
    version: U16,
    changes: U16,
    number: U64,
    crc: U32,
    seconds: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawTable {
    magic: [u8; 4],
    version: U16,
    zero: U16,
    number: U64,
    allocation: U64,
    entries: U32,
    crc: U32,
}

const _: () = assert!(size_of::<RawEntry>() == ENTRY);
const _: () = assert!(size_of::<RawLog>() == LOG_HEADER && size_of::<RawTable>() == TABLE_HEADER);

/// A fragment of a container.
pub(crate) type FragmentKey = (ContainerId, u8);

/// Where a fragment lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Byte offset on the medium.
    pub(crate) offset: u64,
    /// Payload bytes; the header comes before the payload.
    pub(crate) payload: u32,
    /// Order of allocation.
    pub(crate) allocation: u64,
}

impl Extent {
    pub(crate) fn bytes(&self) -> u64 {
        (header_bytes(self.payload as usize) + self.payload as usize) as u64
    }

    fn end(&self) -> u64 {
        self.offset + self.bytes()
    }
}

/// One change of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The fragment now lies here; an older copy is superseded.
    Add(FragmentKey, Extent),
    /// The fragment of this allocation is gone.
    Free(FragmentKey, Extent),
    /// The fragment, in whatever place, is not freed before this time, ms since the epoch.
    Lock(FragmentKey, Extent, u64),
}

/// The table in RAM, with the free extents that follow from it.
#[derive(Debug)]
pub(crate) struct Table {
    start: u64,
    end: u64,
    entries_max: usize,
    fragments: BTreeMap<FragmentKey, Extent>,
    by_offset: BTreeMap<u64, (FragmentKey, Extent)>,
    /// Fragments that are not freed before a time.
    locks: BTreeMap<FragmentKey, u64>,
    free: BTreeMap<u64, u64>,
    free_bytes: u64,
    next: u64,
    cursor: u64,
}

impl Table {
    /// A table without fragments over the bytes `start .. end`.
    pub(crate) fn new(start: u64, end: u64, entries_max: u32) -> Self {
        let free = if end > start { BTreeMap::from([(start, end - start)]) } else { BTreeMap::new() };
        Self {
            start,
            end,
            entries_max: entries_max as usize,
            fragments: BTreeMap::new(),
            by_offset: BTreeMap::new(),
            locks: BTreeMap::new(),
            free,
            free_bytes: end.saturating_sub(start),
            next: 1,
            cursor: start,
        }
    }

    pub(crate) fn get(&self, key: &FragmentKey) -> Option<Extent> {
        self.fragments.get(key).copied()
    }

    /// Fragments of one container.
    pub(crate) fn of_container(&self, container: ContainerId) -> Vec<(FragmentKey, Extent)> {
        self.fragments.range((container, 0)..=(container, u8::MAX)).map(|(k, e)| (*k, *e)).collect()
    }

    /// Fragments behind `after`, in order: `limit` of them, and those of the last one's container, since the next
    /// call goes on behind that.
    pub(crate) fn list(&self, after: Option<ContainerId>, limit: usize) -> Vec<FragmentKey> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |container| Excluded((container, u8::MAX)));
        let mut keys: Vec<FragmentKey> = Vec::new();
        for (key, _) in self.fragments.range((from, Unbounded)) {
            if keys.len() >= limit && keys.last().is_none_or(|last| last.0 != key.0) {
                break;
            }
            keys.push(*key);
        }
        keys
    }

    /// Number of the next allocation.
    pub(crate) fn next_allocation(&self) -> u64 {
        self.next
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.end - self.start
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// How many extents of `bytes` bytes would fit.
    pub(crate) fn fitting(&self, bytes: u64) -> u64 {
        let entries_left = self.entries_max.saturating_sub(self.by_offset.len()) as u64;
        self.free.values().map(|length| length / bytes.max(1)).sum::<u64>().min(entries_left)
    }

    /// Takes an extent for a fragment of `payload` bytes: the next fit behind the last one, so that writes run on; where
    /// little is free the best fit, so that large extents stay for large fragments.
    pub(crate) fn allocate(&mut self, payload: u32) -> Option<Extent> {
        if self.by_offset.len() >= self.entries_max {
            return None;
        }
        let mut extent = Extent { offset: 0, payload, allocation: self.next };
        let bytes = extent.bytes();
        let fits = |(offset, length): (&u64, &u64)| (*length >= bytes).then_some(*offset);
        extent.offset = if self.free_bytes < self.capacity() / TIGHT_SHARE {
            let holes = self.free.iter().filter(|(_, length)| **length >= bytes);
            *holes.min_by_key(|(_, length)| **length)?.0
        } else {
            let behind = self.free.range(self.cursor..).find_map(fits);
            behind.or_else(|| self.free.range(..self.cursor).find_map(fits))?
        };
        self.take(extent.offset, bytes);
        self.next += 1;
        self.cursor = extent.offset + bytes;
        Some(extent)
    }

    /// Enters a fragment whose extent was allocated; gives the older copy, whose extent stays taken until released.
    pub(crate) fn insert(&mut self, key: FragmentKey, extent: Extent) -> Option<Extent> {
        let older = self.fragments.insert(key, extent);
        self.by_offset.insert(extent.offset, (key, extent));
        older
    }

    /// Until when a fragment is not freed; 0 for at any time.
    pub(crate) fn locked_until(&self, key: &FragmentKey) -> u64 {
        self.locks.get(key).copied().unwrap_or(0)
    }

    /// Has a fragment that is there not be freed before `until_ms`; never earlier than it was. Says whether that is later.
    pub(crate) fn lock(&mut self, key: FragmentKey, until_ms: u64) -> bool {
        let later = self.fragments.contains_key(&key) && until_ms > self.locked_until(&key);
        if later {
            self.locks.insert(key, until_ms);
        }
        later
    }

    /// Containers behind `after` that are locked at `now_ms`, in order, `limit` at most, and until when.
    pub(crate) fn locked(
        &self,
        after: Option<ContainerId>,
        limit: usize,
        now_ms: u64,
    ) -> Vec<(ContainerId, u64)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |container| Excluded((container, u8::MAX)));
        let mut found: Vec<(ContainerId, u64)> = Vec::new();
        for ((container, _), until_ms) in self.locks.range((from, Unbounded)) {
            if *until_ms <= now_ms {
                continue;
            }
            let full = found.len() == limit;
            match found.last_mut() {
                Some((last, latest)) if last == container => *latest = (*latest).max(*until_ms),
                _ if full => break,
                _ => found.push((*container, *until_ms)),
            }
        }
        found
    }

    /// Takes a fragment out; its extent stays taken until released.
    pub(crate) fn remove(&mut self, key: &FragmentKey) -> Option<Extent> {
        self.locks.remove(key);
        self.fragments.remove(key)
    }

    /// Gives an extent back.
    pub(crate) fn release(&mut self, extent: Extent) {
        self.by_offset.remove(&extent.offset);
        let (mut offset, mut length) = (extent.offset, extent.bytes());
        self.free_bytes += length;
        if let Some((before, bytes)) = self.free.range(..offset).next_back().map(|(o, l)| (*o, *l))
            && before + bytes == offset
        {
            self.free.remove(&before);
            offset = before;
            length += bytes;
        }
        if let Some(bytes) = self.free.remove(&(offset + length)) {
            length += bytes;
        }
        self.free.insert(offset, length);
    }

    fn take(&mut self, offset: u64, bytes: u64) {
        let Some((&start, &length)) = self.free.range(..=offset).next_back() else { return };
        self.free.remove(&start);
        if offset > start {
            self.free.insert(start, offset - start);
        }
        if start + length > offset + bytes {
            self.free.insert(offset + bytes, start + length - offset - bytes);
        }
        self.free_bytes -= bytes;
    }

    /// Applies a change read from the log or a header: the newer allocation wins where two overlap.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Add(key, extent) => {
                let outside = extent.offset < self.start || extent.end() > self.end;
                if outside {
                    return;
                }
                if self.fragments.get(&key).is_some_and(|have| have.allocation >= extent.allocation) {
                    return;
                }
                let overlapping = self.overlapping(extent);
                if overlapping.iter().any(|(_, other)| other.allocation > extent.allocation) {
                    return;
                }
                let superseded = !overlapping.is_empty() || self.fragments.contains_key(&key);
                if self.fragments.len() >= self.entries_max && !superseded {
                    return;
                }
                for (other, old) in overlapping {
                    self.fragments.remove(&other);
                    if other != key {
                        self.locks.remove(&other);
                    }
                    self.release(old);
                }
                if let Some(old) = self.fragments.remove(&key) {
                    self.release(old);
                }
                self.take(extent.offset, extent.bytes());
                self.insert(key, extent);
                self.next = self.next.max(extent.allocation + 1);
            }
            Change::Free(key, extent) => {
                self.next = self.next.max(extent.allocation + 1);
                if self.fragments.get(&key).is_some_and(|have| have.allocation == extent.allocation) {
                    self.remove(&key);
                    self.release(extent);
                }
            }
            Change::Lock(key, _, until_ms) => {
                self.lock(key, until_ms);
            }
        }
    }

    fn overlapping(&self, extent: Extent) -> Vec<(FragmentKey, Extent)> {
        let before =
            self.by_offset.range(..extent.offset).next_back().filter(|(_, (_, e))| e.end() > extent.offset);
        before.into_iter().chain(self.by_offset.range(extent.offset..extent.end())).map(|(_, v)| *v).collect()
    }

    /// The whole table as of log page `number`.
    pub(crate) fn encode(&self, number: u64) -> PageBuf {
        let mut buf = PageBuf::zeroed(TABLE_HEADER + self.fragments.len() * ENTRY);
        let out = buf.as_mut();
        for (raw, (key, extent)) in out[TABLE_HEADER..].chunks_mut(ENTRY).zip(&self.fragments) {
            raw.copy_from_slice(raw_entry(ADD, key, extent, self.locked_until(key)).as_bytes());
        }
        let mut header = RawTable {
            magic: TABLE_MAGIC,
            version: U16::new(VERSION),
            zero: U16::new(0),
            number: U64::new(number),
            allocation: U64::new(self.next),
            entries: U32::new(self.fragments.len() as u32),
            crc: U32::new(0),
        };
        let end = TABLE_HEADER + self.fragments.len() * ENTRY;
        out[..TABLE_HEADER].copy_from_slice(header.as_bytes());
        header.crc = U32::new(crc32c(&out[..end]));
        out[..TABLE_HEADER].copy_from_slice(header.as_bytes());
        buf
    }

    /// Fills an empty table from its stored form.
    pub(crate) fn load(&mut self, bytes: &[u8], place: TablePlace) -> Option<()> {
        let end = TABLE_HEADER + place.entries as usize * ENTRY;
        let stored = bytes.get(..end)?;
        let mut header = RawTable::read_from_prefix(stored).ok()?.0;
        let crc = header.crc.get();
        header.crc = U32::new(0);
        let mut digest = stored.to_vec();
        digest[..TABLE_HEADER].copy_from_slice(header.as_bytes());
        if crc32c(&digest) != crc {
            return None;
        }
        for raw in stored[TABLE_HEADER..].chunks_exact(ENTRY) {
            let added = entry(raw)?;
            self.apply(added);
            if let Change::Add(key, _) = added {
                self.lock(key, RawEntry::read_from_bytes(raw).ok()?.locked_until.get());
            }
        }
        self.next = self.next.max(header.allocation.get());
        Some(())
    }
}

/// What the header of a stored table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TablePlace {
    pub(crate) number: u64,
    pub(crate) entries: u32,
}

impl TablePlace {
    /// Reads a table's header; nothing is verified yet but that the table fits into `fragments_max`.
    pub(crate) fn peek(page: &[u8], fragments_max: u32) -> Option<Self> {
        let (raw, _) = RawTable::read_from_prefix(page).ok()?;
        let sane =
            raw.magic == TABLE_MAGIC && raw.version.get() == VERSION && raw.entries.get() <= fragments_max;
        sane.then_some(Self { number: raw.number.get(), entries: raw.entries.get() })
    }

    /// Bytes of the stored table.
    pub(crate) fn bytes(&self) -> usize {
        round_up_page(TABLE_HEADER + self.entries as usize * ENTRY)
    }
}

/// A page of the table log.
pub(crate) fn encode_log(number: u64, changes: &[Change], seconds: u32) -> PageBuf {
    assert!(changes.len() <= CHANGES_PER_PAGE, "a log page holds {CHANGES_PER_PAGE} changes");
    let mut buf = PageBuf::zeroed(PAGE);
    let out = buf.as_mut();
    for (raw, change) in out[LOG_HEADER..].chunks_mut(ENTRY).zip(changes) {
        let encoded = match change {
            Change::Add(key, extent) => raw_entry(ADD, key, extent, 0),
            Change::Free(key, extent) => raw_entry(FREE, key, extent, 0),
            Change::Lock(key, extent, until_ms) => raw_entry(LOCK, key, extent, *until_ms),
        };
        raw.copy_from_slice(encoded.as_bytes());
    }
    let mut header = RawLog {
        magic: LOG_MAGIC,
        version: U16::new(VERSION),
        changes: U16::new(changes.len() as u16),
        number: U64::new(number),
        crc: U32::new(0),
        seconds: U32::new(seconds),
    };
    out[..LOG_HEADER].copy_from_slice(header.as_bytes());
    header.crc = U32::new(crc32c(out));
    out[..LOG_HEADER].copy_from_slice(header.as_bytes());
    buf
}

/// Reads a page of the table log: its number and changes; `None` when it is damaged or none.
pub(crate) fn decode_log(page: &[u8]) -> Option<(u64, Vec<Change>)> {
    let page = page.get(..PAGE)?;
    let mut header = RawLog::read_from_prefix(page).ok()?.0;
    let count = usize::from(header.changes.get());
    if header.magic != LOG_MAGIC || header.version.get() != VERSION || count > CHANGES_PER_PAGE {
        return None;
    }
    let crc = header.crc.get();
    header.crc = U32::new(0);
    let mut blank = page.to_vec();
    blank[..LOG_HEADER].copy_from_slice(header.as_bytes());
    if crc32c(&blank) != crc {
        return None;
    }
    let changes: Option<Vec<Change>> =
        page[LOG_HEADER..].chunks_exact(ENTRY).take(count).map(entry).collect();
    Some((header.number.get(), changes?))
}

/// The time that a sound page of the table log was written at, seconds since the epoch.
pub(crate) fn seconds_of(page: &[u8]) -> u32 {
    RawLog::read_from_prefix(page).map_or(0, |(header, _)| header.seconds.get())
}

fn raw_entry(op: u8, key: &FragmentKey, extent: &Extent, locked_until: u64) -> RawEntry {
    RawEntry {
        container: key.0.to_bytes(),
        offset: U64::new(extent.offset),
        allocation: U64::new(extent.allocation),
        payload: U32::new(extent.payload),
        index: key.1,
        op,
        locked_until: U64::new(locked_until),
        spare: [0; 2],
    }
}

fn entry(raw: &[u8]) -> Option<Change> {
    let raw = RawEntry::read_from_bytes(raw).ok()?;
    let key = (ContainerId::from_bytes(raw.container)?, raw.index);
    let extent =
        Extent { offset: raw.offset.get(), payload: raw.payload.get(), allocation: raw.allocation.get() };
    let page = PAGE as u64;
    let sane = extent.payload > 0
        && (extent.payload as usize).is_multiple_of(PAGE)
        && extent.payload <= 64 << 20
        && extent.offset.is_multiple_of(page)
        && extent.offset < 1 << 62
        && extent.allocation < u64::MAX;
    match raw.op {
        _ if !sane => None,
        ADD => Some(Change::Add(key, extent)),
        FREE => Some(Change::Free(key, extent)),
        LOCK => Some(Change::Lock(key, extent, raw.locked_until.get())),
        _ => None,
    }
}

pub(crate) fn fuzz_body(input: &[u8]) {
    let mut table = Table::new(0, 1 << 20, 64);
    if let Some((_, changes)) = decode_log(input) {
        changes.into_iter().for_each(|change| table.apply(change));
    }
    if let Some(place) = TablePlace::peek(input, 64) {
        let _ = table.load(input, place);
    }
}
