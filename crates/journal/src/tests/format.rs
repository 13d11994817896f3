//! Goal: the stored bytes are what version 2 says, every flipped bit is found, and what is written reads back.

use proptest::prelude::*;
use proto::SegmentId;
use units::{Address, ContainerId, DiskId, Epoch, Fingerprint, Incarnation, Lba, PAGE, Seq};

use super::fake::{KEY, commit, hole, medium, meta, record, write};
use crate::records::Tail;
use crate::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id() -> SegmentId {
    SegmentId { epoch: Epoch(3), stream: Incarnation(0x1122_3344_5566_7788), number: 9 }
}

fn segment_header() -> SegmentHeader {
    SegmentHeader { id: id(), slot_bytes: 1 << 20, members: vec![medium(1), medium(2), medium(3)] }
}

fn batch() -> (BatchHeader, Vec<u8>) {
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    [write(1, 5), hole(2)].iter().for_each(|entry| entry.encode(&mut bytes));
    let header = BatchHeader {
        segment: id(),
        index: 4,
        first_seq: Seq(77),
        records: 2,
        payload_bytes: (bytes.len() - BATCH_HEADER_BYTES) as u32,
        previous: [0xaa; 16],
        mac: [0; 16],
    };
    let header = header.seal(&mut bytes, &KEY);
    (header, bytes)
}

fn start() -> Start {
    Start {
        covered: Seq(5),
        live: vec![LiveSegment { epoch: Epoch(2), stream: Incarnation(8), number: 3, first_seq: Seq(4) }],
        checkpoint: Some(pointer()),
        told: Seq(6),
        backlog: BacklogAt::Here(Backlog {
            commits: Vec::new(),
            meta: vec![(Seq(3), Fingerprint([1; 16]), vec![1, 2, 3])],
            deleted: vec![deleted()],
        }),
        rows: vec![row()],
    }
}

fn row() -> Row {
    Row { version: 3, target: vec![medium(4), medium(6)], ..Row::new(2, 7, vec![medium(4), medium(5)]) }
}

fn deleted() -> Deleted {
    let container = ContainerId { incarnation: Incarnation(8), number: 300, row: 3, class: 2 };
    Deleted { container, total: 2048, blocks: 9 }
}

fn root() -> Root {
    let container = ContainerId { incarnation: Incarnation(5), number: 6, row: 7, class: 2 };
    let address = Address { container, slot: 1, fragment_pages: 2, offset: 64, length: 99 };
    let piece = MetaPiece { fingerprint: Fingerprint([2; 16]), address };
    Root { piece, levels: 1 }
}

fn pointer() -> CheckpointPointer {
    CheckpointPointer { number: 2, root: root(), commits_before: 11, meta_before: Seq(10), told: Seq(9) }
}

fn backlog() -> BacklogPointer {
    BacklogPointer { root: root(), behind: 2, told: Seq(300) }
}

#[test]
fn segment_header_bytes() {
    let page = segment_header().encode(&KEY);
    assert_eq!(page.len(), PAGE);
    assert_eq!(
        hex(&page[..80]),
        "4846534702000300030000000000000088776655443322110900000000001000010101010101010101010101010101010202020202020202020202020202020203030303030303030303030303030303"
    );
    assert_eq!(hex(&page[224..248]), "a6e6f552086fce98a29fb6f044ed518263714b7900000000");
    assert!(page[96..224].iter().all(|byte| *byte == 0) && page[248..].iter().all(|byte| *byte == 0));
    assert_eq!(SegmentHeader::decode(&page, &KEY).unwrap(), segment_header());
    let place = SegmentPlace::decode(&page).unwrap();
    assert_eq!((place.id, place.slot_bytes), (id(), 1 << 20));
}

#[test]
fn batch_bytes() {
    let (header, bytes) = batch();
    assert_eq!(
        hex(&bytes),
        "48464a42020000000300000000000000887766554433221109000000040000004d00000000000000020000004d000000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa75418d04acbe73a6d60abbddd49e578100000000000000000000000000000000010000002500000001000000000000000100000000000000010101010101010101010101010101011f262d343b0200000018000000020000000000000002000000000000000300000000000000"
    );
    assert_eq!(BatchHeader::peek(&bytes).unwrap(), header);
    assert_eq!((header.batch_bytes(), header.end_seq()), (PAGE, Seq(79)));
}

#[test]
fn record_bytes() {
    let golden = [
        (
            write(1, 3),
            "010000002300000001000000000000000100000000000000010101010101010101010101010101011f262d",
        ),
        (hole(2), "0200000018000000020000000000000002000000000000000300000000000000"),
        (meta(3, 2), "0300000012000000030303030303030303030303030303030303"),
        (
            commit(300, Seq(4)),
            "040000001f00000001ac0201008020016409090909090909090909090909090909ac0204018020",
        ),
        (
            Entry::Checkpoint(pointer()),
            "050000001d00000002020202020202020202020202020202020506020701024063010b0a09",
        ),
        (
            Entry::Row(row()),
            "0600000045000000020703020404040404040404040404040404040405050505050505050505050505050505020404040404040404040404040404040406060606060606060606060606060606",
        ),
        (
            Entry::Cut(vec![
                Fork { source: DiskId(5), target: DiskId(300) },
                Fork { source: DiskId(6), target: DiskId(301) },
            ]),
            "07000000070000000205ac0206ad02",
        ),
        (
            Entry::Backlog(backlog()),
            "0c0000001c0000000202020202020202020202020202020205060207010240630102ac02",
        ),
        (Entry::Delete(vec![deleted()]), "0b000000090000000108ac020203801009"),
    ];
    for (entry, expected) in golden {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(hex(&bytes), expected, "{entry:?}");
        assert_eq!(bytes.len(), entry.encoded_bytes());
    }
    let mut bytes = Vec::new();
    start().encode(&mut bytes);
    assert_eq!(
        hex(&bytes),
        "09000000820000000501020803040102020202020202020202020202020202020506020701024063010b0a09060100010301010101010101010101010101010101030102030108ac020203801009030404040404040404040404040404040405050505050505050505050505050505060606060606060606060606060606060102070302000101010102"
    );
    bytes.clear();
    Tail { first: Seq(6), count: 1, payload: vec![1, 2] }.encode(&mut bytes);
    assert_eq!(hex(&bytes), "0a00000012000000060000000000000001000000000000000102");
}

#[test]
fn every_flipped_bit_of_a_segment_header_is_found() {
    let page = segment_header().encode(&KEY);
    for bit in 0..244 * 8 {
        let mut page = page.clone();
        page[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&page, &KEY).is_err(), "bit {bit}");
        assert!(SegmentPlace::decode(&page).is_err(), "bit {bit}");
    }
    assert!(SegmentHeader::decode(&page, &[0; 32]).is_err(), "the key matters");
}

#[test]
fn every_flipped_bit_of_a_batch_is_found() {
    let (_, bytes) = batch();
    let sound = |bytes: &[u8]| BatchHeader::peek(bytes).is_ok_and(|h| h.verify(bytes, &KEY).is_ok());
    assert!(sound(&bytes));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!sound(&bytes), "bit {bit}");
    }
    assert!(!sound(&bytes[..bytes.len() - 1]));
}

#[test]
fn a_start_stands_first_and_alone_but_for_a_tail() {
    let mut of_start = Vec::new();
    start().encode(&mut of_start);
    let mut of_tail = Vec::new();
    hole(1).encode(&mut of_tail);
    let tail = Tail { first: Seq(9), count: 1, payload: of_tail.clone() };
    let mut both = of_start.clone();
    tail.encode(&mut both);

    let records = decode_records(Seq(10), 0, &both).unwrap();
    assert_eq!(records[0], (Seq(10), Record::Start(Box::new(start()))));
    assert_eq!(records[1..], [(Seq(9), record(&hole(1)))]);
    assert_eq!(Tail::of_start(&both), Some(tail));
    assert_eq!(Tail::of_start(&of_start), None);
    assert!(decode_records(Seq(11), 0, &both).is_err(), "the tail ends where the segment begins");

    let wrong = [
        (0, [of_tail.clone(), of_start.clone()].concat()),
        (1, [of_tail.clone(), of_start.clone()].concat()),
        (1, [of_start.clone(), of_tail.clone()].concat()),
        (0, [of_start.clone(), of_start].concat()),
        (0, [both.clone(), of_tail].concat()),
        (0, both[both.len() - 60..].to_vec()),
    ];
    for (count, payload) in wrong {
        assert!(decode_records(Seq(10), count, &payload).is_err());
    }
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let unit = || proptest::collection::vec(any::<u8>(), 0..300);
    let entry = prop_oneof![
        (any::<u64>(), any::<u64>(), any::<[u8; 16]>(), unit()).prop_map(|(disk, lba, fp, unit)| {
            Entry::Write {
                disk: DiskId(disk),
                lba: Lba(lba),
                fingerprint: Fingerprint(fp),
                unit: unit.into(),
            }
        }),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(disk, lba, count)| Entry::Hole {
            disk: DiskId(disk),
            lba: Lba(lba),
            count
        }),
        (any::<[u8; 16]>(), unit())
            .prop_map(|(fp, unit)| Entry::Meta { fingerprint: Fingerprint(fp), unit: unit.into() }),
        (any::<u64>(), any::<u64>()).prop_map(|(ordinal, seq)| commit(ordinal, Seq(seq))),
        Just(Entry::Checkpoint(pointer())),
        (any::<u8>(), any::<u16>(), 0..9u8).prop_map(|(class, row, width)| {
            Entry::Row(Row::new(class, row, (0..width).map(medium).collect()))
        }),
        Just(Entry::Delete(vec![deleted()])),
        proptest::collection::vec((any::<u64>(), any::<u64>()), 0..9).prop_map(|forks| {
            let fork = |(source, target)| Fork { source: DiskId(source), target: DiskId(target) };
            Entry::Cut(forks.into_iter().map(fork).collect())
        }),
    ];
    proptest::collection::vec(entry, 0..20)
}

proptest! {
    #[test]
    fn records_read_back(entries in entries(), first in 0..u64::MAX / 2) {
        let mut bytes = Vec::new();
        for entry in &entries {
            entry.encode(&mut bytes);
        }
        prop_assert_eq!(bytes.len(), entries.iter().map(Entry::encoded_bytes).sum::<usize>());
        let count = entries.len() as u32;
        let records = decode_records(Seq(first), count, &bytes).unwrap();
        for (i, ((seq, found), entry)) in records.iter().zip(&entries).enumerate() {
            prop_assert_eq!(*seq, Seq(first + i as u64));
            let mut alone = Vec::new();
            entry.encode(&mut alone);
            prop_assert_eq!(found, &decode_records(Seq(1), 1, &alone).unwrap()[0].1);
        }
        prop_assert_eq!(records.len(), entries.len());
        prop_assert!(decode_records(Seq(first), count + 1, &bytes).is_err());
        prop_assert!(bytes.is_empty() || decode_records(Seq(first), count, &bytes[..bytes.len() - 1]).is_err());
    }
}
