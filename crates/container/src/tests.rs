mod fuzz;

use seal::{KeyRing, Kind, Sealer};
use units::{Address, ContainerId, DiskId, Fingerprint, Incarnation, Lba, MediumId, PAGE, PageBuf, Seq};

use super::*;

fn id() -> ContainerId {
    ContainerId { incarnation: Incarnation(0x1122_3344_5566_7788), number: 9, class: 2, row: 5 }
}

fn built(k: usize) -> Built {
    let sealer = Sealer::new(&KeyRing::for_tests(1));
    let mut builder = Builder::new();
    for i in 0..5u8 {
        let plain = vec![i + 1; 4096];
        let fp = sealer.fingerprint(Kind::Data, &plain);
        let mut unit = Vec::new();
        sealer.seal(Kind::Data, fp, &plain, &mut unit);
        let (slot, _) = builder.add(UnitKind::Data, fp, &unit);
        builder.change(Change::Put { disk: DiskId(1), lba: Lba(u64::from(i)), seq: Seq(7), slot });
    }
    let address = Address { container: id(), slot: 1, fragment_pages: 3, offset: 99, length: 50 };
    builder.change(Change::Hit {
        disk: DiskId(2),
        lba: Lba(3),
        seq: Seq(8),
        fingerprint: Fingerprint([1; 16]),
        address,
    });
    builder.change(Change::Hole { disk: DiskId(1), lba: Lba(100), count: 50, seq: Seq(9) });
    builder.build(id(), k, &sealer)
}

#[test]
fn a_head_reads_back_and_units_open() {
    for k in [1, 2, 4] {
        let built = built(k);
        let bytes = built.bytes.as_ref();
        assert_eq!(bytes.len(), built.fragment_bytes * k);
        let place = Head::peek(&bytes[..PRELUDE_BYTES]).expect("peeks");
        assert_eq!(place, built.head.place());
        let head = Head::decode(bytes, &bytes[place.directory()]).expect("decodes");
        assert_eq!(head, built.head);
        let sealer = Sealer::new(&KeyRing::for_tests(1));
        let mut plain = Vec::new();
        for (slot, entry) in head.entries.iter().enumerate() {
            let address = head.address(slot as u16, 9).expect("has the slot");
            let unit = &bytes[address.offset as usize..][..address.length as usize];
            assert_eq!(units::crc32c(unit), entry.crc);
            sealer.open(Kind::Data, entry.fingerprint, unit, &mut plain).expect("opens");
            assert_eq!(plain, vec![slot as u8 + 1; 4096]);
        }
        sealer.open(Kind::MapLog, head.map_log, &bytes[place.map_log()], &mut plain).expect("map log opens");
        assert_eq!(MapLog::decode(&plain).expect("decodes").changes.len(), 7);
    }
}

#[test]
fn every_flip_in_the_directory_is_found() {
    let built = built(1);
    let bytes = built.bytes.as_ref();
    let mut head = bytes[..PRELUDE_BYTES].to_vec();
    head.extend_from_slice(&bytes[built.head.place().directory()]);
    for bit in 0..head.len() * 8 {
        let mut bad = head.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (first, directory) = bad.split_at(PRELUDE_BYTES);
        assert!(Head::decode(first, directory).is_err(), "bit {bit}");
    }
}

fn fragment_header() -> FragmentHeader {
    let payload = PageBuf::copy_of(&[3; 2 * PAGE]).share();
    FragmentHeader {
        container: id(),
        index: 1,
        k: 2,
        m: 2,
        container_bytes: 3 * PAGE as u32,
        allocation: 77,
        locked_until: 0,
        members: (0..4).map(|i| MediumId([i; 16])).collect(),
        page_crcs: FragmentHeader::crcs_of(&payload),
    }
}

#[test]
fn fragment_headers_read_back_and_every_flip_is_found() {
    let header = fragment_header();
    let bytes = header.encode();
    assert_eq!(FragmentHeader::decode(&bytes), Ok(header));
    assert_eq!(FragmentHeader::peek(&bytes), Some(PAGE));
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(FragmentHeader::decode(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn sizes_follow_the_design() {
    assert_eq!(fragment_bytes(8 << 20, 4), 2 << 20);
    assert_eq!(fragment_bytes(1, 4), PAGE);
    assert_eq!(fragment_bytes((8 << 20) - 1, 3), 2_797_568);
    assert_eq!(header_bytes(2 << 20), PAGE);
    assert_eq!(header_bytes(8 << 20), 3 * PAGE);
}

#[test]
fn golden_bytes() {
    // The formats are promises: a change here needs a new version and a reader for the old one.
    let digest = |bytes: &[u8]| format!("{:08x}", units::crc32c(bytes));
    assert_eq!(digest(built(2).bytes.as_ref()), "cf1b3396");
    assert_eq!(digest(&fragment_header().encode()), "58b487f8");
}

/// The longest change there is: every number takes all its bytes.
fn longest() -> Change {
    let container =
        ContainerId { incarnation: Incarnation(u64::MAX), number: u32::MAX, class: u8::MAX, row: u16::MAX };
    let address =
        Address { container, slot: u16::MAX, fragment_pages: u16::MAX, offset: u32::MAX, length: u32::MAX };
    let fingerprint = Fingerprint([u8::MAX; 16]);
    Change::Hit { disk: DiskId(u64::MAX), lba: Lba(u64::MAX), seq: Seq(u64::MAX), fingerprint, address }
}

fn full() -> Builder {
    let mut builder = Builder::new();
    (0..CHANGES_MAX).for_each(|_| builder.change(longest()));
    builder
}

#[test]
fn a_map_log_of_the_most_and_longest_changes_fits_its_unit() {
    let sealer = Sealer::new(&KeyRing::for_tests(1));
    let built = full().build(id(), 4, &sealer);
    let (mut plain, bytes) = (Vec::new(), built.bytes.as_ref());
    sealer
        .open(Kind::MapLog, built.head.map_log, &bytes[built.head.place().map_log()], &mut plain)
        .expect("opens");
    let log = MapLog::decode(&plain).expect("decodes");
    assert_eq!((log.changes.len(), log.changes[CHANGES_MAX - 1]), (CHANGES_MAX, longest()));
    // The bound is no wider than it must be.
    assert!(plain.len() + 100 > seal::PLAIN_BYTES_MAX, "{} bytes", plain.len());
}

#[test]
#[should_panic(expected = "a map log has at most")]
fn a_map_log_takes_no_change_more() {
    full().change(longest());
}
