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
