use units::{ContainerId, Fingerprint, Incarnation};

use super::*;

fn holder(number: u32) -> Holder {
    let container = ContainerId { incarnation: Incarnation(1), number, class: 5, row: 0 };
    Holder { container, fragment_pages: 512 }
}

fn fp(i: u64) -> Fingerprint {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    out[8..].copy_from_slice(&i.to_le_bytes());
    Fingerprint(out)
}

#[test]
fn finds_all_while_there_is_memory() {
    let mut index = Index::new(64 << 20);
    for c in 0..100 {
        index.insert(holder(c), (0..1000).map(|i| fp(u64::from(c) * 1000 + i)));
    }
    let found =
        (0..100_000).filter(|i| index.lookup(&fp(*i)).any(|h| h == holder((i / 1000) as u32))).count();
    assert!(found > 99_900, "{found} of 100000: only overflowing buckets lose entries");
    assert_eq!(index.level(), 0);
    assert!((0..1000).filter(|i| index.lookup(&fp(1 << 40 | i)).next().is_some()).count() < 5);
}

#[test]
fn samples_when_memory_is_out_and_keeps_hooks() {
    let mut index = Index::new(256 << 10);
    for c in 0..200 {
        index.insert(holder(c), (0..1000).map(|i| fp(u64::from(c) * 1000 + i)));
    }
    assert!(index.level() > 0);
    assert!(index.bytes() <= 256 << 10);
    let with_hook = (0..200u64)
        .filter(|c| (0..1000).any(|i| index.lookup(&fp(c * 1000 + i)).any(|h| h == holder(*c as u32))))
        .count();
    assert_eq!(with_hook, 200, "every container keeps a hook that leads to its directory");
}

#[test]
fn removed_containers_answer_nothing() {
    let mut index = Index::new(1 << 20);
    index.insert(holder(1), [fp(1)]);
    index.insert(holder(2), [fp(1)]);
    index.remove(holder(1).container);
    assert_eq!(index.lookup(&fp(1)).collect::<Vec<_>>(), [holder(2)]);
    assert!(!index.knows(holder(1).container));
}

/// Fifty tebibytes are written over a live set that fits a twentieth of the index, as far as its size goes here: each container
/// is forgotten soon after. What is live is found as at first, and nothing grows.
#[test]
fn what_was_written_and_forgotten_leaves_the_sampling_as_it_was() {
    const LIVE: u64 = 16;
    const EACH: u64 = 100;
    // 45 GiB of blocks to an index of 128 MiB are 90 MiB to this one.
    const CONTAINERS: u64 = (50 << 40) / (45 << 30) * (256 << 10) / 8 * 70 / 100 / EACH;
    let mut index = Index::new(256 << 10);
    for c in 0..CONTAINERS {
        index.insert(holder(c as u32), (0..EACH).map(|i| fp(c * EACH + i)));
        if c >= LIVE {
            index.remove(holder((c - LIVE) as u32).container);
        }
    }
    assert_eq!(index.level(), 0, "every fingerprint is a hook");
    assert_eq!(index.len() as u64, LIVE * EACH, "it counts what is live");
    assert!(index.numbers() < 4096, "{} numbers", index.numbers());
    let live = (CONTAINERS - LIVE) * EACH..CONTAINERS * EACH;
    let found = live.filter(|i| index.lookup(&fp(*i)).any(|h| h == holder((i / EACH) as u32))).count();
    assert_eq!(found as u64, LIVE * EACH);
}

/// A full index samples; once what filled it is forgotten it takes every fingerprint again.
#[test]
fn the_sampling_gets_finer_when_little_is_left() {
    let mut index = Index::new(256 << 10);
    for c in 0..400 {
        index.insert(holder(c), (0..1000).map(|i| fp(u64::from(c) * 1000 + i)));
    }
    assert!(index.level() > 2, "level {}", index.level());
    (0..400).for_each(|c| index.remove(holder(c).container));
    for c in 400..20_000 {
        index.insert(holder(c), (0..100).map(|i| fp(u64::from(c) * 1000 + i)));
        index.remove(holder(c - 5).container);
    }
    assert_eq!(index.level(), 0);
    assert_eq!(index.len(), 500);
}
