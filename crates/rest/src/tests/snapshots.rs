//! Snapshots, clones and reverts.

use api::types::{
    AddDisk, Change, DiskClone, HowToDelete, ListSnapshots, NewClone, NewSnapshot, WhichChanges,
};
use units::DiskId;

use super::raw::{exchange, request};
use super::typed::{SOON, new_vm};
use super::{Bench, code, refused};

/// The first disk of a site.
const FIRST: DiskId = DiskId(1);

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
        assert_eq!(code(client.snapshot("a", &named("s1")).await), "snapshot_exists");
        assert_eq!(client.show_snapshot("a", "s1").await.unwrap(), made);
        assert_eq!(client.rename_snapshot("a", "s1", "good").await.unwrap().name, "good");
        let reverted = client.revert("a", "good").await.unwrap();
        assert_eq!((reverted.vm.name.as_str(), reverted.kept_as.vm.as_str()), ("a", "a"));
        assert_eq!(client.show_snapshot("a", &reverted.kept_as.name).await.unwrap(), reverted.kept_as);
        let clone = NewClone { from: "a@good".to_owned(), name: "b".to_owned() };
        assert_eq!(client.clone_vm(&clone).await.unwrap().name, "b");
        let disk = AddDisk::Clone(DiskClone { from: "a/disk0".to_owned() });
        assert_eq!(client.add_disk("a", &disk).await.unwrap().disks[1].bytes, 1 << 30);
        client.delete_snapshot("a", "good", HowToDelete::default()).await.unwrap();
        assert_eq!(code(client.show_snapshot("a", "good").await), "snapshot_not_found");
        for name in ["a/b", "\u{e4}?#", "%2F"] {
            let (code, detail) = refused(client.show_snapshot("a", name).await);
            assert!(code == "invalid_name" && detail.contains(name), "{detail}");
        }
    });
}

#[test]
fn changes_are_of_the_versions_and_the_stretch_that_were_asked_for() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    let write =
        async |at: u64| bench.site.engine().write(FIRST, at << 12, &[at as u8 + 1; 4096]).await.unwrap();
    let of = |against: Option<&str>, offset: u64, limit: u64| WhichChanges {
        disk: "disk0".to_owned(),
        against: against.map(str::to_owned),
        offset: offset << 12,
        limit,
    };
    let change = |at: u64| Change { offset: at << 12, length: 4096, mapped: true };
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("a")).await.unwrap();
        for at in [0, 2, 4] {
            write(at).await;
        }
        client.snapshot("a", &named("s1")).await.unwrap();
        write(6).await;
        client.snapshot("a", &named("s2")).await.unwrap();
        write(8).await;
        let all = client.changes("a", Some("s1"), &of(None, 0, 9)).await.unwrap();
        assert_eq!((all.items, all.next), (vec![change(0), change(2), change(4)], None));
        let part = client.changes("a", Some("s1"), &of(None, 1, 1)).await.unwrap();
        assert_eq!((part.items, part.next), (vec![change(2)], Some(3 << 12)));
        assert_eq!(client.changes("a", Some("s2"), &of(Some("s1"), 0, 9)).await.unwrap().items, [change(6)]);
        let now = client.changes("a", None, &of(Some("s1"), 0, 9)).await.unwrap();
        assert_eq!(now.items, [change(6), change(8)]);
        let other = WhichChanges { disk: "&disk=disk0".to_owned(), ..of(None, 0, 9) };
        let (code, detail) = refused(client.changes("a", None, &other).await);
        assert!(code == "disk_not_found" && detail.contains("&disk=disk0"), "{detail}");
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
    assert_eq!((status, body.as_str()), (200, r#"{"items":[]}"#));
    let (status, _, body) = send("GET", "/api/v1/snapshots", "");
    assert!(status == 200 && body.contains("a@s1/disk0") && !body.contains("next"), "{body}");
    let (_, _, body) = send("POST", "/api/v1/vms/a/disks", r#"{"bytes":4096,"from":"a/disk0"}"#);
    assert!(body.contains("`from`") && body.contains("not both"), "{body}");
}
