//! Snapshots, clones and reverts.

use api::types::{
    AddDisk, Change, DiskClone, HowToDelete, ListSnapshots, NewClone, NewSnapshot, Snapshot, SnapshotDisk,
    WhichChanges,
};
use client::ClientErrorKind;

use super::raw::{exchange, request};
use super::typed::{SOON, new_vm};
use super::{Bench, Fake, at_once, problem};
use crate::Answer;

impl Fake {
    /// Keeps a VM that is there as a snapshot.
    pub(super) fn keep(&self, vm: &str, name: &str) -> Answer<'_, Snapshot> {
        let vms = self.vms.lock().unwrap();
        let Some(disks) = vms.get(vm).map(|vm| &vm.disks) else {
            return at_once(Err(problem("vm_not_found")));
        };
        let disk = |disk: &api::types::Disk| SnapshotDisk {
            name: disk.name.clone(),
            export: format!("{vm}@{name}/{}", disk.name),
            bytes: disk.bytes,
        };
        let snapshot = Snapshot {
            vm: vm.to_owned(),
            name: name.to_owned(),
            created_ms: 1,
            has_definition: false,
            held_until_ms: 0,
            enforced_until_ms: 0,
            disks: disks.iter().map(disk).collect(),
            files: Vec::new(),
        };
        let mut snapshots = self.snapshots.lock().unwrap();
        if snapshots.contains_key(&format!("{vm}@{name}")) {
            return at_once(Err(problem("snapshot_exists")));
        }
        snapshots.insert(format!("{vm}@{name}"), snapshot.clone());
        at_once(Ok(snapshot))
    }
}

pub(super) fn named(name: &str) -> NewSnapshot {
    NewSnapshot { name: Some(name.to_owned()) }
}

#[test]
fn every_call_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("a")).await.unwrap();
        let made = client.snapshot("a", &NewSnapshot { name: None }).await.unwrap();
        assert_eq!((made.name.as_str(), made.disks[0].export.as_str()), ("s1", "a@s1/disk0"));
        let again = client.snapshot("a", &named("s1")).await.unwrap_err();
        let ClientErrorKind::Refused(problem) = again.kind else { panic!("{again:?}") };
        assert_eq!((problem.status, problem.code.as_str()), (409, "snapshot_exists"));
        assert_eq!(client.show_snapshot("a", "s1").await.unwrap(), made);
        assert_eq!(client.rename_snapshot("a", "s1", "good").await.unwrap().name, "good");
        let reverted = client.revert("a", "good").await.unwrap();
        assert_eq!((reverted.vm.name.as_str(), reverted.kept_as.name.as_str()), ("a", "s2"));
        let clone = NewClone { from: "a@good".to_owned(), name: "b".to_owned() };
        assert_eq!(client.clone_vm(&clone).await.unwrap().name, "b");
        let disk = AddDisk::Clone(DiskClone { from: "a/disk0".to_owned() });
        assert_eq!(client.add_disk("a", &disk).await.unwrap().disks[1].bytes, 1 << 50);
        client.delete_snapshot("a", "good", HowToDelete::default()).await.unwrap();
        for name in ["good", "a/b", "\u{e4}?#", "%2F"] {
            let gone = client.show_snapshot("a", name).await.unwrap_err();
            assert!(
                matches!(gone.kind, ClientErrorKind::Refused(problem) if problem.code == "snapshot_not_found")
            );
        }
        let mut which = WhichChanges { disk: "disk0".to_owned(), against: None, offset: 4096, limit: 7 };
        let changed = |length, mapped| Change { offset: 4096, length, mapped };
        let found = client.changes("a", None, &which).await.unwrap();
        assert_eq!((found.items, found.next), (vec![changed(1, true)], Some(7)));
        which.against = Some("old".to_owned());
        which.disk = "&disk=disk0".to_owned();
        assert_eq!(client.changes("a", Some("new01"), &which).await.unwrap().items, [changed(9, false)]);
    });
}

#[test]
fn a_list_of_snapshots_goes_on_behind_its_cursor() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        for vm in ["a", "b"] {
            client.create_vm(&new_vm(vm)).await.unwrap();
            for number in 1..=5 {
                client.snapshot(vm, &named(&format!("s{number}"))).await.unwrap();
            }
        }
        let mut which = ListSnapshots { vm: None, after: None, limit: 4 };
        let mut seen = Vec::new();
        loop {
            let page = client.snapshots(&which).await.unwrap();
            seen.extend(page.items.iter().map(|found| format!("{}@{}", found.vm, found.name)));
            which.after = page.next;
            if which.after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 10);
        assert!(seen.is_sorted() && seen.contains(&"b@s5".to_owned()), "{seen:?}");
        which.vm = Some("b".to_owned());
        assert!(client.snapshots(&which).await.unwrap().items.iter().all(|found| found.vm == "b"));
    });
}

#[test]
fn what_is_made_says_where_it_is_and_what_is_left_out_has_its_default() {
    let bench = Bench::new();
    let json = "application/json";
    let send = |method, path, body: &str| exchange(&bench, &request(method, path, json, body));
    send("POST", "/api/v1/vms", r#"{"name":"a","disks":[{"bytes":4096}]}"#);
    let (status, head, _) = send("POST", "/api/v1/vms/a/snapshots", "{}");
    assert!(status == 201 && head.contains("location: /api/v1/vms/a/snapshots/s1"), "{head}");
    let (status, head, _) = send("POST", "/api/v1/clones", r#"{"from":"a@s1","name":"b"}"#);
    assert!(status == 201 && head.contains("location: /api/v1/vms/b"), "{head}");
    let (status, _, body) = send("GET", "/api/v1/vms/a/changes?disk=disk0", "");
    assert_eq!(
        (status, body.as_str()),
        (200, r#"{"items":[{"offset":0,"length":1,"mapped":true}],"next":1000}"#)
    );
    let (status, _, body) = send("GET", "/api/v1/snapshots", "");
    assert!(status == 200 && body.contains("a@s1/disk0") && !body.contains("next"), "{body}");
    let (_, _, body) = send("POST", "/api/v1/vms/a/disks", r#"{"bytes":4096,"from":"a/disk0"}"#);
    assert!(body.contains("`from`") && body.contains("not both"), "{body}");
}
