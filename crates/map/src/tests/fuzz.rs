//! Goal: the decoder of pages answers any input with a value or an error: sound pages, mutated by seed.

use seam::testing::replay;

use super::{address, container, name};
use crate::fuzz::fuzz_body;
use crate::{Entry, Page, Place, decode_page, encode_page};

const MUTATIONS: u64 = 20_000;

/// A page behind the length of its first part, as the fuzz body takes it.
fn page(level: u8, present: u64) -> Vec<u8> {
    let entry = |at: u64| Entry {
        fingerprint: name(&at.to_le_bytes()),
        place: match at % 3 {
            0 => Place::Pending { container: 1, slot: 3, offset: 64, length: 90 },
            other => Place::Stored(address(other as u32 + 4, at as u16)),
        },
        blocks: if level > 0 { 64 } else { 1 },
    };
    let entries = (0..64).filter(|at| present >> at & 1 == 1).map(entry).collect();
    let parts = encode_page(&Page { level, present, entries }, &|_| None);
    assert!(decode_page(&parts.fingerprints, &parts.addresses, container(1), 1).is_ok());
    let cut = parts.fingerprints.len() as u16;
    [&cut.to_le_bytes()[..], &parts.fingerprints, &parts.addresses].concat()
}

#[test]
fn damaged_input() {
    let corpus = [page(0, 0b1101), page(0, u64::MAX), page(1, 1 << 63 | 7), page(8, 1), page(0, 0)];
    replay(&corpus, MUTATIONS, fuzz_body);
}
