//! Goal: records keep to their formats, decoders take any input, and nobody takes a disk or a turn from another.

mod format;

use std::sync::Arc;

use api::VmName;
use meta::Stored;
use seam::testing::replay;
use seam::{Rt, TokioRuntime};
use units::DiskId;

use crate::definition::bytes_max;
use crate::fuzz::fuzz_body;
use crate::record::Record;
use crate::snapshots::SnapshotRecord;
use crate::turns::Turns;
use crate::uses::Uses;

const MUTATIONS: u64 = 20_000;

#[test]
fn records_of_other_versions_are_refused() {
    let record = br#"{"version":2,"created_ms":5,"disks":[{"name":"disk0","id":3}]}"#;
    assert_eq!(Record::decode(record).unwrap().disks[0].id(), DiskId(3));
    for other in [1, 3] {
        let record = format!(r#"{{"version":{other},"created_ms":5,"disks":[]}}"#);
        assert!(Record::decode(record.as_bytes()).unwrap_err().contains(&format!("version {other}")));
    }
    let snapshot =
        br#"{"version":2,"number":9,"created_ms":5,"disks":[{"name":"disk0","id":3,"bytes":4096}],"definition":8}"#;
    let read = SnapshotRecord::decode(snapshot).unwrap();
    assert_eq!((read.disk("disk0"), read.disk("disk1")), (Some((DiskId(3), 4096)), None));
    assert_eq!(read.encode().unwrap(), snapshot);
    for other in [1, 3] {
        let record = format!(r#"{{"version":{other},"number":9,"created_ms":5,"disks":[]}}"#);
        assert!(SnapshotRecord::decode(record.as_bytes()).unwrap_err().contains(&format!("version {other}")));
    }
}

#[test]
fn a_disk_in_use_is_not_deleted_and_one_being_deleted_not_opened() {
    let uses = Arc::new(Uses::default());
    let (one, two) = (DiskId(1), DiskId(2));
    let first = uses.open(one).unwrap();
    let second = uses.open(one).unwrap();
    assert_eq!(uses.count(one), 2);
    assert!(uses.close(&[two, one]).is_none());
    drop(first);
    assert!(uses.close(&[two, one]).is_none());
    drop(second);
    let deleting = uses.close(&[two, one]).unwrap();
    assert!(uses.open(one).is_none() && uses.open(two).is_none());
    assert!(uses.close(&[two]).is_none());
    drop(deleting);
    assert_eq!((uses.count(one), uses.count(two)), (0, 0));
    assert!(uses.open(one).is_some());
}

#[test]
fn a_definition_fits_a_share_of_a_segment() {
    assert_eq!(bytes_max(128 << 10), 8 << 10);
    assert_eq!(bytes_max(8 << 20), api::DEFINITION_BYTES_MAX);
}

#[test]
fn turns_are_one_after_the_other_and_nobody_keeps_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rt: Rt = Arc::new(TokioRuntime::new(runtime.handle().clone()));
    let (turns, inside) = (Turns::default(), std::sync::atomic::AtomicUsize::new(0));
    let (one, two) = (VmName::parse("one").unwrap(), VmName::parse("Two").unwrap());
    let change = || -> seam::BoxFuture<'_, api::Result<()>> {
        Box::pin(async {
            use std::sync::atomic::Ordering::SeqCst;
            assert_eq!(inside.fetch_add(1, SeqCst), 0, "another is at it");
            tokio::task::yield_now().await;
            inside.fetch_sub(1, SeqCst);
            Ok(())
        })
    };
    let orders: [&[&VmName]; 3] = [&[&one, &two], &[&two, &one], &[&one, &one]];
    runtime.block_on(async {
        let all = (0..30).map(|number| turns.change(&*rt, orders[number % 3], change));
        seam::join_all(all).await.into_iter().for_each(|done| done.unwrap());
    });
    assert!(turns.is_empty());
}

#[test]
fn damaged_input() {
    let record = br#"{"version":2,"created_ms":5,"disks":[{"name":"disk0","id":3},{"name":"disk1","id":4}],
        "attributes":{"folder":"/a","tags":["b"],"labels":{"c":"d"}}}"#;
    let snapshot =
        br#"{"version":2,"number":9,"created_ms":5,"disks":[{"name":"disk0","id":3,"bytes":4096}],"group":1,"point":2,
        "origin":{"site":"07070707070707070707070707070707","vm":3,"number":4}}"#;
    assert!(Record::decode(record).is_ok() && SnapshotRecord::decode(snapshot).is_ok());
    assert!(crate::exports::parts("web01/disk0").is_some());
    let corpus = [
        record.to_vec(),
        snapshot.to_vec(),
        b"web01@s1/disk0".to_vec(),
        b"web01/disk0".to_vec(),
        b"web01".to_vec(),
    ];
    replay(&corpus, MUTATIONS, fuzz_body);
}
