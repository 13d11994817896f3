//! Goal: records, keys and objects of the engine are stored as the golden file has them, and what the file
//! has is read.

use journal::{Backlog, Deleted, LedgerRun};
use map::Root;
use meta::Op;
use units::Address;

use super::*;
use crate::body::Body;
use crate::holds::HoldRecord;
use crate::record::{Base, DiskRecord, disk_key, next_disk_key};
use crate::reseal::Retiring;
use crate::state::Totals;

const GOLDEN: &str = include_str!("golden.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn root() -> Root {
    let address = Address { container: container(300), slot: 4, fragment_pages: 5, offset: 600, length: 700 };
    Root { level: 2, fingerprint: Fingerprint([3; 16]), address, blocks: 800 }
}

fn disks() -> [(&'static str, DiskRecord); 5] {
    let cut = Base::Cut { source: DiskId(300), cut: Seq(400) };
    [
        ("empty", DiskRecord::new(1 << 20, false, Base::Empty)),
        ("tree of holes", DiskRecord::new(1 << 20, true, Base::Root(None))),
        ("tree", DiskRecord::new(1 << 20, true, Base::Root(Some(root())))),
        ("cut", DiskRecord::new(1 << 20, false, cut)),
        ("gone", DiskRecord { gone: true, ..DiskRecord::new(512, false, Base::Empty) }),
    ]
}

fn backlog() -> Backlog {
    let commit = journal::Commit {
        container: container(300),
        total: 4000,
        entries: 5,
        map_log_bytes: 600,
        map_log: Fingerprint([9; 16]),
        ordinal: 7,
        covered: Seq(800),
        blocks: 4,
        block_bytes: 3000,
    };
    let deleted = Deleted { container: container(2), total: 2048, blocks: 9 };
    Backlog {
        commits: vec![commit],
        meta: vec![(Seq(801), Fingerprint([8; 16]), vec![1, 2, 3])],
        deleted: vec![deleted],
    }
}

type Parts = (Vec<(DiskId, Option<Root>)>, Vec<u8>, Vec<LedgerRun>, Totals);

fn parts() -> Parts {
    let roots = vec![(DiskId(1), None), (DiskId(300), Some(root()))];
    let ledger = vec![LedgerRun { incarnation: Incarnation(7), committed: vec![(0, 3), (300, 400)] }];
    (roots, vec![1, 2, 3], ledger, Totals { blocks: 300, container_bytes: 4000, raw_bytes: 6000 })
}

fn encoded(plain: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_stdvec(plain).expect("plain values always encode")
}

/// A put: its key, and its value.
fn put(op: Op) -> String {
    let Op::Put { key, value, .. } = op else { panic!("a put") };
    format!("{} = {}", hex(key.as_bytes()), hex(&value))
}

#[test]
fn records_are_stored_as_the_golden_file_has_them() {
    let mut now = String::new();
    for (name, disk) in disks() {
        let bytes = disk.encode();
        assert_eq!(DiskRecord::decode(&bytes), Some(disk), "{name}");
        now += &format!("disk, {name}: {}\n", hex(&bytes));
    }
    now += &format!("key of a disk: {}\n", hex(disk_key(DiskId(300)).expect("a key").as_bytes()));
    now += &format!("key of the next disk: {}\n", hex(next_disk_key().expect("a key").as_bytes()));
    let hold = HoldRecord { version: 1, until_ms: 300, enforced_ms: 200 };
    now += &format!("hold: {}\n", hex(&hold.encode()));
    let holders = [1, 300].map(|number| Holder { container: container(number), fragment_pages: 200 });
    now += &format!("stub: {}\n", put(crate::stubs::put(container(258), &holders).expect("a stub")));

    let ends = vec![(Incarnation(7), 300_u32)];
    let retiring = encoded(&(2_u8, 300_u16, &ends));
    assert_eq!(Retiring::decode(&retiring).map(|read| encoded(&read)), Some(retiring.clone()));
    now += &format!("retiring: {}\n", hex(&retiring));
    let stored = encoded(&(1_u8, backlog()));
    assert_eq!(crate::backlog::decode_backlog(&stored), Some(backlog()));
    now += &format!("backlog: {}\n", hex(&stored));
    let (roots, meta, ledger, totals) = parts();
    let body = encoded(&(3_u8, &roots, &meta, &ledger, totals));
    let read = Body::decode(&body).expect("a checkpoint object");
    assert_eq!(encoded(&read), body);
    assert_eq!((read.roots, read.meta, read.ledger, read.totals), (roots, meta, ledger, totals));
    now += &format!("checkpoint object: {}\n", hex(&body));
    if std::env::var_os("HOLDFAST_REGENERATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/golden.txt");
        std::fs::write(path, &now).expect("writes");
        return;
    }
    assert_eq!(now, GOLDEN, "made anew with HOLDFAST_REGENERATE=1");
}
