//! What lies where in a store, read with the decoders of the formats.

use std::collections::{BTreeMap, BTreeSet};

use container::{Change, FragmentHeader, Head, MapLog, PRELUDE_BYTES, UnitKind};
use data::{Layout, Superblock};
use journal::{BacklogAt, BatchHeader, LedgerRun, Record, SegmentHeader, Start, decode_records};
use proto::SegmentId;
use seal::{KeyRing, Kind, Sealer};
use sim::SiteImage;
use units::{ContainerId, PAGE, PageSlice, Seq};

use super::make::{Contents, Store};

/// What a stretch of a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A copy of the superblock.
    Superblock(usize),
    /// One of the allocation tables.
    Table(usize),
    /// The ring of changes to the table.
    TableLog,
    /// The header of a segment that recovery needs.
    Segment(SegmentId),
    /// A batch of such a segment.
    Batch(SegmentId, u32),
    /// The newest batch of the journal.
    LastBatch(SegmentId),
    /// A page of a fragment of a committed container, by count; the header comes first.
    Fragment(ContainerId, usize),
    /// What nothing needs any more.
    Dead,
}

/// A stretch of a medium.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) medium: usize,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) what: What,
}

/// A store taken apart.
pub(super) struct Survey {
    places: BTreeMap<(usize, u64), Place>,
    /// Kinds of records and units, by name.
    pub(super) kinds: BTreeSet<&'static str>,
    /// Contents when the newest batch is dropped.
    pub(super) without_last: Contents,
}

/// All kinds there are. The formats of segment, batch and fragment headers are met on the way to these.
pub(super) const KINDS: [&str; 25] = [
    "checkpoint",
    "commit",
    "cut",
    "delete",
    "freed segment",
    "head",
    "hole",
    "live segment of before",
    "map log",
    "map log: hit",
    "map log: hole",
    "map log: put",
    "meta",
    "row",
    "start",
    "start with checkpoint, commits, metadata and rows",
    "superblock",
    "table",
    "table log",
    "tail",
    "unit: block",
    "unit: map page, inner",
    "unit: map page, leaf",
    "unit: metadata",
    "write",
];

struct Surveyor<'a> {
    image: &'a SiteImage,
    ledger: &'a [LedgerRun],
    layout: Layout,
    sealer: Sealer,
    places: BTreeMap<(usize, u64), Place>,
    kinds: BTreeSet<&'static str>,
}

/// Batches of a segment: where each lies within the slot, its header and its records.
type Batches = Vec<(u64, BatchHeader, Vec<(Seq, Record)>)>;

/// Takes a store apart.
pub(super) fn survey(store: &Store) -> Survey {
    let layout = Layout::new(store.spec.params, store.spec.medium_bytes).expect("it was formatted so");
    let sealer = Sealer::new(&KeyRing::for_tests(1));
    let (places, kinds) = (BTreeMap::new(), BTreeSet::new());
    let mut surveyor = Surveyor { image: &store.image, ledger: &store.ledger, layout, sealer, places, kinds };
    surveyor.fixed();
    let (last, committed) = surveyor.journal();
    surveyor.fragments(&committed);
    let mut without_last = store.now.clone();
    for (_, record) in &last {
        let (disk, lba, count) = match record {
            Record::Write { disk, lba, .. } => (*disk, lba.0, 1),
            Record::Hole { disk, lba, count } => (*disk, lba.0, *count),
            other => panic!("the store ends with {other:?}"),
        };
        let range = lba as usize * units::BLOCK..(lba + count) as usize * units::BLOCK;
        let older = store.older.iter().find(|(id, _)| *id == disk).expect("a disk of the store");
        let (_, bytes) = without_last.iter_mut().find(|(id, _)| *id == disk).expect("a disk of the store");
        assert!(bytes[range.clone()] != older.1[range.clone()], "the last requests change something");
        bytes[range.clone()].copy_from_slice(&older.1[range]);
    }
    assert!(last.len() > 1, "the last batch holds several records");
    Survey { places: surveyor.places, kinds: surveyor.kinds, without_last }
}

impl Survey {
    /// What lies at a byte of a medium.
    pub(super) fn at(&self, medium: usize, byte: u64) -> What {
        let before = self.places.range(..=(medium, byte)).next_back();
        before
            .map(|(_, place)| place)
            .filter(|place| place.medium == medium && byte < place.end)
            .map_or(What::Dead, |place| place.what)
    }

    /// The stretches that stand twice: the same contents of two media, or two copies on one.
    pub(super) fn pairs(&self) -> Vec<(Place, Place)> {
        let mut by_what: BTreeMap<What, Vec<Place>> = BTreeMap::new();
        for place in self.places.values() {
            by_what.entry(place.what).or_default().push(*place);
        }
        let both = by_what.into_iter().filter(|(what, _)| {
            !matches!(what, What::Superblock(_) | What::Table(_) | What::TableLog | What::Dead)
        });
        both.map(|(what, places)| match places[..] {
            [first, second] if first.end - first.start == second.end - second.start => (first, second),
            _ => panic!("{what:?} does not stand twice: {places:?}"),
        })
        .collect()
    }
}

impl Surveyor<'_> {
    fn read(&self, medium: usize, start: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.image.media[medium].read(start, &mut out);
        out
    }

    fn place(&mut self, medium: usize, start: u64, bytes: u64, what: What) {
        let place = Place { medium, start, end: start + bytes, what };
        assert!(self.places.insert((medium, start), place).is_none(), "two things lie at {start}");
    }

    /// What lies at fixed places.
    fn fixed(&mut self) {
        for medium in 0..self.image.media.len() {
            for (copy, place) in [0, 64 << 10].into_iter().enumerate() {
                let found = Superblock::decode(&self.read(medium, place, PAGE));
                found.expect("a superblock");
                self.kinds.insert("superblock");
                self.place(medium, place, PAGE as u64, What::Superblock(copy));
            }
            let layout = self.layout;
            for (which, place) in layout.tables.into_iter().enumerate() {
                assert!(is_table(&self.read(medium, place, layout.table_bytes as usize)));
                self.kinds.insert("table");
                self.place(medium, place, layout.table_bytes, What::Table(which));
            }
            let log = self.read(medium, layout.log, layout.params.log_pages as usize * PAGE);
            if log.chunks(PAGE).any(|page| page.starts_with(b"HFAL")) {
                self.kinds.insert("table log");
            }
            self.place(medium, layout.log, log.len() as u64, What::TableLog);
        }
    }

    fn slots(&self, medium: usize) -> Vec<(u64, Vec<u8>)> {
        let bytes = u64::from(self.layout.params.segment_bytes);
        let start = |slot| self.layout.slots + u64::from(slot) * bytes;
        let slots = (0..self.layout.slot_count).map(start);
        slots.map(|start| (start, self.read(medium, start, bytes as usize))).collect()
    }

    fn batches(&self, slot: &[u8]) -> Batches {
        let mut batches = Batches::new();
        let mut offset = PAGE;
        while let Some(header) = slot.get(offset..).and_then(|bytes| BatchHeader::peek(bytes).ok()) {
            // Behind the newest batch stands what the slot held before.
            let next = batches.last().is_none_or(|(_, before, _): &(u64, BatchHeader, _)| {
                (before.segment, before.mac) == (header.segment, header.previous)
            });
            let Ok(payload) = header.verify(&slot[offset..], self.sealer.journal_key()) else { break };
            if !next {
                break;
            }
            let records = decode_records(header.first_seq, header.records, payload).expect("sound records");
            batches.push((offset as u64, header, records));
            offset += header.batch_bytes();
        }
        batches
    }

    /// The journal: the records of its last batch, and what is committed.
    fn journal(&mut self) -> (Vec<(Seq, Record)>, BTreeSet<ContainerId>) {
        let mut segments: BTreeMap<SegmentId, Vec<(usize, u64, Batches)>> = BTreeMap::new();
        for medium in 0..self.image.media.len() {
            for (start, slot) in self.slots(medium) {
                let batches = self.batches(&slot);
                // What a freed slot still holds is read by nobody, but it is there.
                batches.iter().for_each(|(_, header, records)| self.note_records(header, records));
                match SegmentHeader::decode(&slot[..PAGE], self.sealer.journal_key()) {
                    Ok(header) => segments.entry(header.id).or_default().push((medium, start, batches)),
                    Err(_) if slot.starts_with(b"HFSF") => drop(self.kinds.insert("freed segment")),
                    Err(_) => assert!(batches.is_empty(), "a segment without a header"),
                }
            }
        }
        let (newest, copies) = segments.last_key_value().expect("a segment");
        assert_eq!(Some(*newest), self.image.witness().last, "the witness knows the newest segment");
        let (newest, batches) = (*newest, copies[0].2.clone());
        let Some((_, Record::Start(start))) = batches[0].2.first() else { panic!("no start record") };
        let later = || batches.iter().skip(1).flat_map(|(_, _, records)| records);
        let commits: Vec<_> = later()
            .filter_map(|(_, record)| match record {
                Record::Commit(commit) => Some(commit),
                _ => None,
            })
            .collect();
        let covered = commits.iter().fold(start.covered, |covered, commit| covered.max(commit.covered));
        let mut live = BTreeSet::from([newest]);
        for (i, segment) in start.live.iter().enumerate() {
            let end = start.live.get(i + 1).map_or(batches[0].1.first_seq, |next| next.first_seq);
            if end > covered {
                live.insert(segment.id());
                self.kinds.insert("live segment of before");
            }
        }
        for (id, copies) in segments.iter().filter(|(id, _)| live.contains(*id)) {
            for (medium, start, batches) in copies {
                self.place(*medium, *start, PAGE as u64, What::Segment(*id));
                for (i, (offset, header, _)) in batches.iter().enumerate() {
                    let last = *id == newest && i + 1 == batches.len();
                    let what = if last { What::LastBatch(*id) } else { What::Batch(*id, header.index) };
                    self.place(*medium, start + offset, header.batch_bytes() as u64, what);
                }
            }
        }
        let mut committed: BTreeSet<ContainerId> = commits.iter().map(|commit| commit.container).collect();
        committed.extend(self.headers().into_iter().map(|(.., header)| header.container).filter(|id| {
            let mut runs = self.ledger.iter().filter(|run| run.incarnation == id.incarnation);
            runs.any(|run| run.committed.iter().any(|(start, end)| (*start..*end).contains(&id.number)))
        }));
        let (_, _, last) = batches.last().expect("a batch").clone();
        (last, committed)
    }

    fn note_records(&mut self, header: &BatchHeader, records: &[(Seq, Record)]) {
        for (_, record) in records {
            self.kinds.insert(match record {
                Record::Write { .. } => "write",
                Record::Hole { .. } => "hole",
                Record::Meta { .. } => "meta",
                Record::Commit(_) => "commit",
                Record::Checkpoint(_) => "checkpoint",
                Record::Backlog(_) => "backlog",
                Record::Row(_) => "row",
                Record::Cut(_) => "cut",
                Record::Delete(_) => "delete",
                Record::Start(start) if is_full(start) => "start with checkpoint, commits, metadata and rows",
                Record::Start(_) => "start",
            });
        }
        if header.index == 0 && records.len() > 1 {
            self.kinds.insert("tail");
        }
    }

    /// Every fragment header: medium, place, header.
    fn headers(&self) -> Vec<(usize, u64, FragmentHeader)> {
        let mut found = Vec::new();
        for (medium, image) in self.image.media.iter().enumerate() {
            for (place, page) in image.nonzero_pages().filter(|(place, _)| *place >= self.layout.data) {
                let Some(bytes) = FragmentHeader::peek(page) else { continue };
                if let Ok(header) = FragmentHeader::decode(&self.read(medium, place, bytes)) {
                    found.push((medium, place, header));
                }
            }
        }
        found
    }

    fn fragments(&mut self, committed: &BTreeSet<ContainerId>) {
        let mut parts: BTreeMap<ContainerId, BTreeMap<u8, Vec<u8>>> = BTreeMap::new();
        for (medium, start, header) in self.headers() {
            let container = header.container;
            if !committed.contains(&container) {
                continue;
            }
            let head = container::header_bytes(header.payload_bytes());
            let pages = (head + header.payload_bytes()) / PAGE;
            for page in 0..pages {
                let at = start + (page * PAGE) as u64;
                self.place(medium, at, PAGE as u64, What::Fragment(container, page));
            }
            let payload = self.read(medium, start + head as u64, header.payload_bytes());
            assert_eq!(
                FragmentHeader::crcs_of(&PageSlice::from(units::PageBuf::copy_of(&payload))),
                header.page_crcs
            );
            let parts = parts.entry(container).or_default();
            assert!(parts.insert(header.index, payload).is_none(), "a fragment stands twice");
            if parts.len() == usize::from(header.k + header.m) {
                let whole = parts.iter().filter(|(index, _)| **index < header.k);
                let whole: Vec<u8> = whole.flat_map(|(_, payload)| payload.clone()).collect();
                self.container(&whole);
            }
        }
        assert_eq!(parts.keys().copied().collect::<BTreeSet<_>>(), *committed, "every container is there");
    }

    fn container(&mut self, bytes: &[u8]) {
        let place = Head::peek(bytes).expect("a prelude");
        let head = Head::decode(&bytes[..PRELUDE_BYTES], &bytes[place.directory()]).expect("a directory");
        self.kinds.insert("head");
        self.kinds.extend(head.entries.iter().map(|entry| match entry.kind {
            UnitKind::Data => "unit: block",
            UnitKind::Page(0) => "unit: map page, leaf",
            UnitKind::Page(_) => "unit: map page, inner",
            UnitKind::Meta => "unit: metadata",
        }));
        if place.map_log_bytes == 0 {
            return;
        }
        let mut plain = Vec::new();
        let opened = self.sealer.open(Kind::MapLog, head.map_log, &bytes[place.map_log()], &mut plain);
        opened.expect("a map log");
        self.kinds.insert("map log");
        let log = MapLog::decode(&plain).expect("a map log");
        self.kinds.extend(log.changes.iter().map(|change| match change {
            Change::Put { .. } => "map log: put",
            Change::Hit { .. } => "map log: hit",
            Change::Hole { .. } => "map log: hole",
        }));
    }
}

fn is_full(start: &Start) -> bool {
    let BacklogAt::Here(backlog) = &start.backlog else { return false };
    start.checkpoint.is_some()
        && !backlog.commits.is_empty()
        && !backlog.meta.is_empty()
        && !start.rows.is_empty()
}

/// Whether these bytes are an allocation table with a sound CRC.
fn is_table(bytes: &[u8]) -> bool {
    let half = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let end = 32 + half(24) as usize * 48;
    let Some(mut stored) = bytes.get(..end).map(<[u8]>::to_vec) else { return false };
    stored[28..32].fill(0);
    bytes.starts_with(b"HFAT") && units::crc32c(&stored) == half(28)
}

/// What stands twice on a medium is sound, both times, on all media.
pub(super) fn fixed_places_are_sound(store: &Store, image: &SiteImage) -> bool {
    let layout = Layout::new(store.spec.params, store.spec.medium_bytes).expect("it was formatted so");
    let read = |image: &sim::Image, start: u64, bytes: usize| {
        let mut out = vec![0; bytes];
        image.read(start, &mut out);
        out
    };
    image.media.iter().zip(&store.image.media).all(|(now, before)| {
        let superblock = read(before, 0, PAGE);
        let tables = layout.tables.into_iter();
        [0, 64 << 10].into_iter().all(|place| read(now, place, PAGE) == superblock)
            && tables.map(|place| read(now, place, layout.table_bytes as usize)).all(|table| is_table(&table))
    })
}
