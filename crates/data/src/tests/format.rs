//! Goal: the stored bytes are what version 1 says, and every flipped bit is found.

use units::PAGE;

use super::common::{container, superblock};
use crate::table::{Change, Extent, Table, TablePlace, decode_log, encode_log};
use crate::{Layout, Params, Superblock};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn extent(page: u64, pages: u32, allocation: u64) -> Extent {
    Extent { offset: page * PAGE as u64, payload: pages * PAGE as u32, allocation }
}

fn changes() -> [Change; 2] {
    [Change::Add((container(1), 2), extent(7, 3, 300)), Change::Free((container(2), 0), extent(20, 1, 4))]
}

#[test]
fn superblock_bytes() {
    let page = superblock(0).encode();
    assert_eq!(page.len(), PAGE);
    assert_eq!(
        hex(&page.as_ref()[..80]),
        "48465342010000000100000000000000515151515151515151515151515151510101010101010101010101010101010100e0150000000000000001000000010004000000100000002800000003000000"
    );
    assert_eq!(page.as_ref()[80..252], superblock(0).keys.encode());
    assert_eq!(hex(&page.as_ref()[252..260]), "823d537400000000");
    assert_eq!(Superblock::decode(page.as_ref()), Some(superblock(0)));
    assert_eq!(Superblock::decode(&page.as_ref()[..255]), None);
    for bit in 0..256 * 8 {
        let mut page = page.clone();
        page.as_mut()[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Superblock::decode(page.as_ref()), None, "bit {bit}");
    }
}

#[test]
fn a_recovered_superblock_says_since_when() {
    let recovered = Superblock { recovered_ms: 0x0123_4567_89ab_cdef, ..superblock(0) };
    let page = recovered.encode();
    assert_eq!(page.as_ref()[..1024], superblock(0).encode().as_ref()[..1024]);
    assert_eq!(hex(&page.as_ref()[1024..1048]), "4846535200000000efcdab8967452301f966293400000000");
    assert_eq!(Superblock::decode(page.as_ref()), Some(recovered));
    for bit in 1024 * 8..1044 * 8 {
        let mut page = page.clone();
        page.as_mut()[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Superblock::decode(page.as_ref()), None, "bit {bit}");
    }
}

#[test]
fn log_page_bytes() {
    let page = encode_log(77, &changes(), 0);
    assert_eq!(page.len(), PAGE);
    assert_eq!(hex(&page.as_ref()[..24]), "4846414c010002004d00000000000000a6830cf200000000");
    assert_eq!(
        hex(&page.as_ref()[24..72]),
        "0900000000000000010000000000010000700000000000002c0100000000000000300000020100000000000000000000"
    );
    assert_eq!(
        hex(&page.as_ref()[72..120]),
        "090000000000000002000000000001000040010000000000040000000000000000100000000200000000000000000000"
    );
    assert!(page.as_ref()[120..].iter().all(|byte| *byte == 0));
    assert_eq!(decode_log(page.as_ref()), Some((77, changes().to_vec())));
    for bit in 0..PAGE * 8 {
        let mut page = page.clone();
        page.as_mut()[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_log(page.as_ref()), None, "bit {bit}");
    }
}

#[test]
fn table_bytes() {
    let mut table = Table::new(0, 1 << 20, 8);
    table.apply(Change::Add((container(1), 2), extent(7, 3, 300)));
    table.apply(Change::Add((container(2), 0), extent(20, 1, 4)));
    let stored = table.encode(78);
    assert_eq!(stored.len(), PAGE);
    assert_eq!(
        hex(&stored.as_ref()[..32]),
        "48464154010000004e000000000000002d0100000000000002000000b61126e6"
    );
    assert_eq!(
        hex(&stored.as_ref()[32..80]),
        "0900000000000000010000000000010000700000000000002c0100000000000000300000020100000000000000000000"
    );
    assert_eq!(
        hex(&stored.as_ref()[80..128]),
        "090000000000000002000000000001000040010000000000040000000000000000100000000100000000000000000000"
    );
    let load = |bytes: &[u8]| {
        let place = TablePlace::peek(bytes, 8)?;
        let mut table = Table::new(0, 1 << 20, 8);
        table.load(bytes, place).map(|()| table.list(None, 9))
    };
    assert_eq!(load(stored.as_ref()).map(|keys| keys.len()), Some(2));
    for bit in 0..128 * 8 {
        let mut stored = stored.clone();
        stored.as_mut()[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(load(stored.as_ref()), None, "bit {bit}");
    }
    assert_eq!(TablePlace::peek(stored.as_ref(), 1), None, "more entries than the medium may have");
}

/// A lock in the log, and in the table: there it stands with the fragment.
#[test]
fn lock_bytes() {
    let until_ms = 0x0123_4567_89ab_cdef;
    let (key, extent) = ((container(3), 1), extent(12, 1, 5));
    let page = encode_log(79, &[Change::Lock(key, extent, until_ms)], 1_700_000_000);
    assert_eq!(hex(&page.as_ref()[..24]), "4846414c010001004f000000000000006b56949e00f15365");
    assert_eq!(
        hex(&page.as_ref()[24..72]),
        "0900000000000000030000000000010000c00000000000000500000000000000001000000103efcdab89674523010000"
    );
    assert_eq!(decode_log(page.as_ref()), Some((79, vec![Change::Lock(key, extent, until_ms)])));
    assert_eq!(crate::table::seconds_of(page.as_ref()), 1_700_000_000);
    let mut table = Table::new(0, 1 << 20, 8);
    table.apply(Change::Add(key, extent));
    table.apply(Change::Lock(key, extent, until_ms));
    assert_eq!(
        hex(&table.encode(80).as_ref()[32..80]),
        "0900000000000000030000000000010000c00000000000000500000000000000001000000101efcdab89674523010000"
    );
}

#[test]
fn seal_bytes() {
    let page = crate::gate::encode(units::Epoch(300));
    assert_eq!(page.len(), PAGE);
    assert_eq!(hex(&page.as_ref()[..24]), "4846464e010000002c010000000000007a67b9d200000000");
    assert!(page.as_ref()[20..].iter().all(|byte| *byte == 0));
    assert_eq!(crate::gate::decode(page.as_ref()), Some(units::Epoch(300)));
    assert_eq!(crate::gate::decode(&[0; PAGE]), Some(units::Epoch(0)));
    for bit in 0..PAGE * 8 {
        let mut page = page.clone();
        page.as_mut()[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(crate::gate::decode(page.as_ref()), None, "bit {bit}");
    }
}

/// The key epochs, whose own bytes are in the golden file of the crate `seal`, stand behind the rest.
#[test]
fn a_superblock_with_key_epochs_is_of_version_2() {
    let ring = seal::KeyRing::for_tests(1);
    let epochs = seal::EpochKeys::default().next(&ring, &[9; 32], &[3; 12]).unwrap();
    let rotated = Superblock { epochs: epochs.clone(), ..superblock(0) };
    let (page, first) = (rotated.encode(), superblock(0).encode());
    assert_eq!(hex(&page.as_ref()[..8]), "4846534202000000");
    assert_eq!(page.as_ref()[8..252], first.as_ref()[8..252]);
    assert_eq!(page.as_ref()[256..256 + seal::EPOCHS_BYTES], epochs.encode());
    assert!(page.as_ref()[256 + seal::EPOCHS_BYTES..].iter().all(|byte| *byte == 0));
    assert_eq!(Superblock::decode(page.as_ref()), Some(rotated));
}

#[test]
fn regions_do_not_overlap_and_fit() {
    for bytes in [128 << 20, 1 << 30, 1 << 40, 16 << 40] {
        let params = Params::for_medium(bytes);
        let Some(layout) = Layout::new(params, bytes) else {
            assert!(bytes < 1 << 29, "{bytes} bytes are enough");
            continue;
        };
        let log_end = layout.log + u64::from(params.log_pages) * PAGE as u64;
        assert!(layout.log >= 64 * 1024 + PAGE as u64 && log_end <= layout.tables[0]);
        assert!(layout.tables[0] + layout.table_bytes <= layout.tables[1]);
        assert!(layout.tables[1] + layout.table_bytes <= layout.slots);
        let slots = u64::from(layout.slot_count) * u64::from(params.segment_bytes);
        assert!(layout.slots + slots <= layout.data && layout.data < layout.end && layout.end <= bytes);
    }
    let small = Params { fragments_max: 0, ..Params::for_medium(1 << 30) };
    assert_eq!(Layout::new(small, 1 << 30), None);
}
