//! Goal: pages are stored as version 1 says, a leaf and a page above it.

use super::{address, container, name};
use crate::{Entry, Page, Place, decode_page, encode_page};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Blocks in two containers, and one in the page's own.
fn page(level: u8) -> Page {
    let mut page = Page::empty(level);
    let mut set = |index: u64, place| {
        let fingerprint = name(&index.to_le_bytes());
        let blocks = if level == 0 { 1 } else { 300 + index };
        page.set(index, Some(Entry { fingerprint, place, blocks }));
    };
    set(0, Place::Stored(address(300, 4)));
    set(9, Place::Pending { container: 1, slot: 3, offset: 6400, length: 90 });
    set(62, Place::Stored(address(5, 700)));
    set(63, Place::Stored(address(300, 5)));
    page
}

const GOLDEN: [(u8, &str, &str); 2] = [
    (
        0,
        "010001020000000000c0000000000000003e56c5bcdd2324c70000000000000000609fc4979c20377800000000000000001c8285b0396418c50000000000000000a428c06d09b069f400",
        "0102000009000000000000002c0100000000010007000900000000000000050000000000010007000004009001000064000000ff0300001900005a00000001bc027011010064000000000500f401000064000000",
    ),
    (
        2,
        "010201020000000000c0000000000000003e56c5bcdd2324c70000000000000000609fc4979c20377800000000000000001c8285b0396418c50000000000000000a428c06d09b069f4002c0100000000000035010000000000006a010000000000006b01000000000000",
        "0102000009000000000000002c0100000000010007000900000000000000050000000000010007000004009001000064000000ff0300001900005a00000001bc027011010064000000000500f401000064000000",
    ),
];

#[test]
fn page_bytes() {
    for (level, fingerprints, addresses) in GOLDEN {
        let parts = encode_page(&page(level), &|_| None);
        assert_eq!(
            (&*hex(&parts.fingerprints), &*hex(&parts.addresses)),
            (fingerprints, addresses),
            "{level}"
        );
        let read = decode_page(&parts.fingerprints, &parts.addresses, container(77), 9).expect("decodes");
        // A place in its own container has become one where it lies.
        let mut stored = page(level);
        let own =
            units::Address { container: container(77), fragment_pages: 9, slot: 3, offset: 6400, length: 90 };
        let entry = *stored.get(9).expect("it is there");
        stored.set(9, Some(Entry { place: Place::Stored(own), ..entry }));
        assert_eq!(read, stored);
    }
}
