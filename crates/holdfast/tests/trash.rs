//! Goal: what was deleted by mistake comes back whole, and the trash never keeps a full site full.
//!
//! Model: VMs written through NBD, deleted and restored by the command line, over a kill; a pool filled to its last block.

use serde_json::{Value, json};

use crate::harness::{Bench, Ran, Random, TINY};
use crate::nbd_client::NbdError;

const ENOSPC: u32 = 28;

fn code(ran: &Ran) -> (i32, String) {
    (ran.code, ran.error()["code"].as_str().unwrap().to_owned())
}

fn items(bench: &Bench) -> Vec<Value> {
    bench.json(&["trash", "list"]).json()["items"].as_array().unwrap().clone()
}

/// A command that is refused as long as the server has not heard of a client's end.
fn until_done(bench: &Bench, arguments: &[&str]) -> Value {
    for _ in 0..200 {
        let ran = bench.json(arguments);
        if ran.code != 6 {
            return ran.json();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{arguments:?}: its client does not end");
}

#[test]
fn what_was_deleted_comes_back_over_a_kill() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    bench.create("web01", "1M");
    let bytes = Random(4).bytes(200_000);
    bench.connect("web01/disk0").write(4096, &bytes).unwrap();
    bench.json(&["vm", "snapshot", "web01"]).json();
    bench.json(&["vm", "snapshot", "web01"]).json();
    bench.connect("web01/disk0").write(4096, &[1; 4096]).unwrap();
    until_done(&bench, &["snapshot", "delete", "web01@s2", "--yes"]);
    assert_eq!(code(&bench.json(&["vm", "delete", "web01", "--yes"])), (6, "vm_has_snapshots".to_owned()));
    // What a dry run says is for exactly what would go.
    let frees = |arguments: &[&str]| {
        let task = bench.json(&[arguments, &["--dry-run"]].concat()).json();
        task["counts"]["unique_bytes"].as_u64().unwrap_or_else(|| panic!("{task}"))
    };
    let alone = frees(&["vm", "delete", "web01"]);
    let all = frees(&["vm", "delete", "web01", "--with-snapshots"]);
    assert!(alone < 50_000 && all > 200_000, "{alone}, {all}");
    let deleted = until_done(&bench, &["vm", "delete", "web01", "--with-snapshots", "--yes"]);
    assert_eq!((&deleted["deleted"], &deleted["trash"]["kind"]), (&json!("web01"), &json!("vm")));
    server.kill();
    let server = bench.start(&[]);
    let names: Vec<Value> = items(&bench).into_iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["web01@s2", "web01"]);
    let in_trash = frees(&["trash", "empty"]);
    assert_eq!(in_trash, all);
    assert!(frees(&["trash", "empty", "web01@s2"]) < 50_000);
    assert_eq!(items(&bench).len(), 2);
    let status = bench.json(&["status"]).json();
    assert_eq!((&status["vms"], &status["trash"]["items"]), (&json!(0), &json!(2)));
    assert_eq!(code(&bench.json(&["trash", "restore", "web01@s2"])), (6, "vm_in_trash".to_owned()));
    // Two of one name are told apart by their numbers.
    bench.create("web01", "1M");
    bench.json(&["vm", "delete", "web01", "--yes"]).json();
    let several = bench.json(&["trash", "restore", "web01"]);
    assert_eq!(code(&several), (2, "usage".to_owned()));
    let number = deleted["trash"]["id"].to_string();
    assert!(several.error()["hint"].as_str().unwrap().contains(&number), "{several:?}");
    bench.create("web01", "1M");
    assert_eq!(code(&bench.json(&["trash", "restore", &number])), (6, "vm_exists".to_owned()));
    let restored = bench.json(&["trash", "restore", &number, "--as", "back"]).json();
    assert_eq!(restored, json!({"restored": "back"}));
    assert_eq!(bench.json(&["trash", "restore", "web01@s2"]).json(), json!({"restored": "back@s2"}));
    server.kill();
    let _server = bench.start(&[]);
    for snapshot in ["s1", "s2"] {
        let mut client = bench.connect(&format!("back@{snapshot}/disk0"));
        assert!(client.read(4096, bytes.len() as u32).unwrap() == bytes, "{snapshot}");
    }
    assert_eq!(bench.connect("back/disk0").read(4096, 4097).unwrap()[4095..], [1, bytes[4096]]);
    assert_eq!(code(&bench.json(&["trash", "empty"])), (2, "usage".to_owned()));
    assert_eq!(code(&bench.json(&["trash", "empty", "none", "--yes"])), (4, "trash_not_found".to_owned()));
    let emptied = bench.json(&["trash", "empty", "web01", "--yes"]).json();
    assert_eq!(emptied, json!({"items": [{"deleted": "web01"}]}));
    assert!(items(&bench).is_empty());
    // A hold keeps the VM too.
    bench.json(&["snapshot", "hold", "back@s1", "--until", "1h"]).json();
    assert_eq!(
        code(&bench.json(&["snapshot", "hold", "back@s1", "--until", "1m"])),
        (2, "hold_shorter".to_owned())
    );
    let all = ["vm", "delete", "back", "--with-snapshots", "--now", "--yes"];
    assert_eq!(code(&bench.json(&all)), (6, "snapshot_held".to_owned()));
}

#[test]
fn emptying_is_all_or_nothing_over_a_kill() {
    const VMS: usize = 8;
    let bench = Bench::new();
    let mut server = bench.start(TINY);
    let mut random = Random(11);
    for round in 0..6 {
        for vm in 0..VMS {
            let name = format!("r{round}-{vm}");
            bench.create(&name, "1M");
            bench.json(&["vm", "snapshot", &name]).json();
            bench.json(&["vm", "delete", &name, "--with-snapshots", "--yes"]).json();
        }
        std::thread::scope(|scope| {
            let emptying = scope.spawn(|| bench.json(&["trash", "empty", "--yes"]));
            // Wherever it is then.
            std::thread::sleep(std::time::Duration::from_millis(random.below(120)));
            server.kill();
            emptying.join().unwrap();
        });
        server = bench.start(&["--io", "sync"]);
        let all_stay =
            |items: &[Value]| items.len() == VMS && items.iter().all(|item| item["expires_ms"] != 0);
        let begun = std::time::Instant::now();
        loop {
            let left = items(&bench);
            if left.is_empty() || all_stay(&left) {
                break;
            }
            assert!(begun.elapsed().as_secs() < 60, "what was decided does not go on: {left:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        bench.json(&["trash", "empty", "--yes"]).json();
        assert!(items(&bench).is_empty());
    }
    server.kill();
}

#[test]
fn emptying_the_trash_makes_room_on_a_full_pool() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    for vm in ["kept", "old"] {
        bench.create(vm, "64M");
    }
    let kept = Random(1).bytes(100_000);
    bench.connect("kept/disk0").write(0, &kept).unwrap();
    let mut random = Random(2);
    let mut fill = |vm: &str, from: u64, most: u64| {
        let mut client = bench.connect(&format!("{vm}/disk0"));
        let mut at = from;
        while at < most {
            match client.write(at, &random.bytes(16 << 10)) {
                Ok(()) => at += 16 << 10,
                Err(NbdError::Refused(ENOSPC)) => break,
                Err(_) => panic!("another error than a full pool"),
            }
        }
        at
    };
    let half = fill("old", 0, 4 << 20);
    assert_eq!(half, 4 << 20);
    bench.json(&["vm", "snapshot", "old"]).json();
    until_done(&bench, &["vm", "delete", "old", "--with-snapshots", "--yes"]);
    let full = fill("kept", 1 << 20, 64 << 20);
    assert!(full < 64 << 20, "it never gets full");
    let status = bench.json(&["status"]).json();
    let next = status["next"].as_array().unwrap();
    assert!(status["health"] == "degraded", "{status}");
    assert!(next[0].as_str().unwrap().contains("trash empty"), "{status}");
    // Over a restart too: nothing but deletions goes.
    server.kill();
    let _server = bench.start(&[]);
    bench.json(&["trash", "empty", "--yes"]).json();
    let again = fill("kept", full, full + (2 << 20));
    assert_eq!(again, full + (2 << 20), "the cleaner made room of what was in the trash");
    assert!(bench.connect("kept/disk0").read(0, 100_000).unwrap() == kept);
}
