//! Goal: a snapshot is what its VM was at one instant, whatever happens to the VM afterwards, and over a kill.
//!
//! Model: patterns written through NBD by qemu-io and by the bench's client; the command line makes, lists, compares,
//! clones, reverts and exports; qemu-io, nbdinfo and cmp look at the outcome.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::types::{ListSnapshots, NewSnapshot};
use client::Client;
use seam::TokioRuntime;
use serde_json::{Value, json};

use crate::harness::{Bench, MEDIA, Ran, Random, TINY, tool, try_tool};
use crate::nbd_client::{NbdClient, NbdError};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;
const EPERM: u32 = 1;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn code(ran: &Ran) -> (i32, String) {
    (ran.code, ran.error()["code"].as_str().unwrap().to_owned())
}

fn refused<T>(result: Result<T, NbdError>) -> u32 {
    match result {
        Err(NbdError::Refused(number)) => number,
        Err(NbdError::Gone(error)) => panic!("the connection broke: {error}"),
        Ok(_) => panic!("it was not refused"),
    }
}

/// Runs qemu-io's commands on an export; false when one failed or read something else.
fn qemu_io(bench: &Bench, options: &[&str], export: &str, commands: &[&str]) -> bool {
    let uri = bench.uri(export);
    let mut arguments = [&["-f", "raw"], options].concat();
    arguments.extend(commands.iter().flat_map(|command| ["-c", *command]));
    arguments.push(&uri);
    let ran = try_tool("qemu-io", arguments);
    ran.code == 0 && !ran.stdout.contains("verification failed")
}

/// Names of the snapshots of a VM.
fn names(bench: &Bench, vm: &str) -> Vec<String> {
    let list = bench.json(&["snapshot", "list", "--vm", vm]).json();
    assert!(list.get("next").is_none(), "all of them: {list}");
    list["items"].as_array().unwrap().iter().map(|found| found["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_snapshot_is_read_cloned_reverted_to_and_exported_as_it_was() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    bench.create("web01", "16M");
    let definition = bench.path("definition");
    std::fs::write(&definition, "first").unwrap();
    bench.json(&["vm", "set-definition", "web01", text(&definition)]).json();
    assert!(qemu_io(&bench, &[], "web01/disk0", &["write -P 7 1M 3M", "write -P 9 4100K 8K", "flush"]));
    let before = bench.path("before");
    bench.json(&["vm", "export", "web01", text(&before)]).json();

    let made = bench.json(&["vm", "snapshot", "web01"]).json();
    assert_eq!(
        (&made["vm"], &made["name"], &made["has_definition"]),
        (&json!("web01"), &json!("s1"), &json!(true))
    );
    assert_eq!(made["disks"], json!([{"name": "disk0", "export": "web01@s1/disk0", "bytes": 16 * MIB}]));
    assert_eq!(bench.json(&["snapshot", "show", "web01@s1"]).json(), made);
    assert!(qemu_io(&bench, &[], "web01/disk0", &["write -P 8 2M 6M", "discard 1M 64K", "flush"]));
    std::fs::write(&definition, "second").unwrap();
    bench.json(&["vm", "set-definition", "web01", text(&definition)]).json();

    // Read by others' clients; not to be written.
    let info: Value =
        serde_json::from_str(&tool("nbdinfo", ["--json", &bench.uri("web01@s1/disk0")])).unwrap();
    assert_eq!(info["exports"][0]["is_read_only"], true, "{info}");
    let was = ["read -P 7 1M 3M", "read -P 9 4100K 8K", "read -P 0 0 1M", "read -P 0 4108K 4M"];
    assert!(qemu_io(&bench, &["-r"], "web01@s1/disk0", &was));
    assert!(!qemu_io(&bench, &["-r"], "web01/disk0", &was), "it would tell of a difference");
    assert!(!qemu_io(&bench, &[], "web01@s1/disk0", &["write -P 1 0 4K"]));
    let mut client = bench.connect("web01@s1/disk0");
    assert_eq!(refused(client.write(0, b"no")), EPERM);
    assert_eq!(refused(client.write_zeroes(MIB, 4096)), EPERM);
    assert_eq!(refused(client.trim(MIB, 4096)), EPERM);
    assert!(client.read(MIB, 4096).unwrap().iter().all(|byte| *byte == 7));
    // What is being read stays, under its name.
    for arguments in
        [&["snapshot", "delete", "web01@s1", "--yes"][..], &["snapshot", "rename", "web01@s1", "x"]]
    {
        assert_eq!(code(&bench.json(arguments)), (6, "vm_in_use".to_owned()), "{arguments:?}");
    }
    drop(client);

    // A clone goes its own way.
    let cloned = bench.json(&["vm", "clone", "web01@s1", "web02"]).json();
    assert!(cloned["disks"][0]["used_bytes"].is_null(), "nothing is counted while one waits for a clone");
    assert_eq!(bench.json(&["vm", "show", "web02"]).json()["disks"][0]["used_bytes"], 3 * MIB + 8192);
    assert!(qemu_io(&bench, &[], "web02/disk0", &[&was[..], &["write -P 5 0 16M", "flush"]].concat()));
    assert_eq!(bench.cli(&["vm", "definition", "web02"]).stdout, "first");
    assert!(qemu_io(&bench, &["-r"], "web01@s1/disk0", &was));
    assert!(qemu_io(&bench, &["-r"], "web01/disk0", &["read -P 8 2M 6M", "read -P 0 1M 64K"]));
    let cloned = bench.json(&["disk", "clone", "web01@s1/disk0", "web02"]).json();
    assert_eq!(cloned["disks"][1]["name"], "disk1");
    assert!(qemu_io(&bench, &["-r"], "web02/disk1", &was));

    let (raw, packed) = (bench.path("s1.raw"), bench.path("s1.qcow2"));
    let task = bench.json(&["vm", "export", "web01@s1/disk0", text(&raw)]).json();
    assert_eq!((&task["state"], &task["target"]), (&json!("done"), &json!("web01@s1/disk0")));
    tool("cmp", [&before, &raw]);
    bench.json(&["vm", "export", "web01@s1", text(&packed), "-f", "qcow2"]).json();
    tool("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", text(&before), text(&packed)]);

    // Reverts are refused to open VMs, and can be taken back.
    let open = bench.connect("web01/disk0");
    assert_eq!(code(&bench.json(&["vm", "revert", "web01@s1", "--yes"])), (6, "vm_in_use".to_owned()));
    assert_eq!(names(&bench, "web01"), ["s1"]);
    drop(open);
    let reverted = until_done(&bench, &["vm", "revert", "web01@s1", "--yes"]);
    assert_eq!((&reverted["vm"]["name"], &reverted["kept_as"]["name"]), (&json!("web01"), &json!("s2")));
    assert!(qemu_io(&bench, &["-r"], "web01/disk0", &was));
    assert_eq!(bench.cli(&["vm", "definition", "web01"]).stdout, "first");
    until_done(&bench, &["vm", "revert", "web01@s2", "--yes"]);
    assert!(qemu_io(&bench, &["-r"], "web01/disk0", &["read -P 8 2M 6M", "read -P 0 1M 64K"]));
    assert_eq!(bench.cli(&["vm", "definition", "web01"]).stdout, "second");
}

/// A command that is refused as long as the server has not heard of a client's end.
fn until_done(bench: &Bench, arguments: &[&str]) -> Value {
    for _ in 0..200 {
        let ran = bench.json(arguments);
        if ran.code != 6 {
            return ran.json();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{arguments:?}: its client does not end");
}

#[test]
fn a_snapshot_is_there_after_a_kill_right_behind_it() {
    let bench = Bench::new();
    let mut server = bench.start(MEDIA);
    bench.json(&["vm", "create", "web01", "--disk", "4M", "--disk", "4M"]).json();
    let mut random = Random(21);
    let mut states: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut now = vec![vec![0; 4 * MIB as usize]; 2];
    for round in 1..=4 {
        for (number, disk) in now.iter_mut().enumerate() {
            let mut client = bench.connect(&format!("web01/disk{number}"));
            for _ in 0..12 {
                let length = 1 + random.below(90_000) as usize;
                let (at, bytes) = (random.below(4 * MIB - length as u64), random.bytes(length));
                client.write(at, &bytes).unwrap();
                disk[at as usize..at as usize + length].copy_from_slice(&bytes);
            }
        }
        assert_eq!(bench.json(&["vm", "snapshot", "web01"]).json()["name"], format!("s{round}"));
        server.kill();
        states.push(now.clone());
        server = bench.start(&[]);
        for (state, round) in states.iter().zip(1..) {
            for (number, disk) in state.iter().enumerate() {
                let mut client = bench.connect(&format!("web01@s{round}/disk{number}"));
                assert!(
                    client.read(0, 4 << 20).unwrap() == *disk,
                    "s{round}/disk{number} of {}",
                    states.len()
                );
            }
        }
    }
    assert_eq!(names(&bench, "web01"), ["s1", "s2", "s3", "s4"]);
    // Clones and reverts are as safe.
    bench.json(&["vm", "clone", "web01@s1", "web02"]).json();
    until_done(&bench, &["vm", "revert", "web01@s2", "--yes"]);
    bench.json(&["snapshot", "delete", "web01@s1", "--yes"]).json();
    server.kill();
    let _server = bench.start(&[]);
    assert!(bench.connect("web02/disk1").read(0, 4 << 20).unwrap() == states[0][1]);
    assert!(bench.connect("web01/disk0").read(0, 4 << 20).unwrap() == states[1][0]);
    assert_eq!(names(&bench, "web01"), ["s2", "s3", "s4", "s5"]);
    assert!(bench.connect("web01@s5/disk0").read(0, 4 << 20).unwrap() == states[3][0]);
}

/// Offset, length and whether it is data, of one disk.
fn stretches(diff: &Value) -> Vec<(u64, u64, bool)> {
    let stretch = |found: &Value| {
        (
            found["offset"].as_u64().unwrap(),
            found["length"].as_u64().unwrap(),
            found["mapped"].as_bool().unwrap(),
        )
    };
    diff["disks"][0]["items"].as_array().unwrap().iter().map(stretch).collect()
}

#[test]
fn a_diff_lists_what_changed_and_nothing_else() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    bench.create("web01", "64M");
    let mut client = bench.connect("web01/disk0");
    let bytes = Random(4).bytes(64 << 10);
    client.write(MIB, &bytes).unwrap();
    bench.json(&["vm", "snapshot", "web01", "--name", "old"]).json();
    bench.json(&["vm", "snapshot", "web01", "--name", "same"]).json();
    let same = bench.json(&["snapshot", "diff", "web01@old", "web01@same"]).json();
    assert_eq!((&same["bytes"], stretches(&same)), (&json!(0), vec![]));
    client.write(MIB + 5, b"x").unwrap();
    client.trim(MIB + 8 * BLOCK, 2 * BLOCK as u32).unwrap();
    client.write(40 * MIB, &bytes[..BLOCK as usize]).unwrap();
    let changed = vec![(MIB, BLOCK, true), (MIB + 8 * BLOCK, 2 * BLOCK, false), (40 * MIB, BLOCK, true)];
    let now = bench.json(&["snapshot", "diff", "web01@old", "web01"]).json();
    assert_eq!((&now["bytes"], stretches(&now)), (&json!(4 * BLOCK), changed.clone()));
    bench.json(&["vm", "snapshot", "web01", "--name", "new"]).json();
    // What comes behind is in neither; a disk that is new has all it holds.
    for block in 0..1100 {
        client.write(8 * MIB + 2 * block * BLOCK, &Random(block).bytes(BLOCK as usize)).unwrap();
    }
    bench.json(&["disk", "add", "web01", "1M"]).json();
    bench.connect("web01/disk1").write(0, &bytes[..8192]).unwrap();
    let between = bench.json(&["snapshot", "diff", "web01@old", "web01@new"]).json();
    assert_eq!(stretches(&between), changed);
    // More than an answer holds.
    let now = bench.json(&["snapshot", "diff", "web01@new", "web01"]).json();
    let all: Vec<_> = (0..1100).map(|block| (8 * MIB + 2 * block * BLOCK, BLOCK, true)).collect();
    assert_eq!((stretches(&now), &now["disks"][0]["stretches"]), (all, &json!(1100)));
    assert_eq!((&now["disks"][1]["bytes"], &now["bytes"]), (&json!(8192), &json!(1102 * BLOCK)));
    let one = bench.cli(&["snapshot", "diff", "web01@new", "web01", "--disk", "disk1"]);
    assert!(one.stdout.contains("disk1  0       8192   data\n"), "{one:?}");
    assert!(one.stdout.ends_with("from web01@new to web01: 8192 bytes (8.0 KiB)\n"), "{one:?}");
}

#[test]
fn a_diff_of_very_many_stretches_lists_them_all() {
    const ROUNDS: u64 = 26;
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    bench.create("web01", "1T");
    bench.json(&["vm", "snapshot", "web01", "--name", "old"]).json();
    let mut client = bench.connect("web01/disk0");
    // Every second block holds the same data, the others none.
    let block = [vec![7; BLOCK as usize], vec![0; BLOCK as usize]].concat();
    let some = block.repeat(4096);
    for round in 0..ROUNDS {
        client.write(round * some.len() as u64, &some).unwrap();
    }
    let diff = bench.json(&["snapshot", "diff", "web01@old", "web01"]).json();
    let all: Vec<_> = (0..4096 * ROUNDS).map(|at| (2 * at * BLOCK, BLOCK, true)).collect();
    assert!(all.len() > 100_000 && stretches(&diff) == all, "{} of {}", stretches(&diff).len(), all.len());
    assert_eq!(diff["disks"][0]["stretches"], json!(all.len()));
}

/// What an NBD client is told of an export in a metadata context: offset, length and whether it changed.
fn mapped(bench: &Bench, export: &str, context: &str) -> Vec<(u64, u64, bool)> {
    let map = tool("nbdinfo", [&format!("--map={context}"), "--json", &bench.uri(export)]);
    let map: Vec<Value> = serde_json::from_str(&map).unwrap();
    let number = |extent: &Value, key: &str| extent[key].as_u64().unwrap();
    let shown = |extent| (number(extent, "offset"), number(extent, "length"), number(extent, "type") == 1);
    map.iter().map(shown).collect()
}

/// A backup tool that knows no more than NBD: it copies what a metadata context calls changed, and has all.
#[test]
fn a_client_of_nbd_is_told_what_changed() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    bench.create("web01", "16M");
    let mut client = bench.connect("web01/disk0");
    let mut random = Random(5);
    client.write(MIB, &random.bytes(5 << 20)).unwrap();
    bench.json(&["vm", "snapshot", "web01", "--name", "old"]).json();
    let mut backup = bench.connect("web01@old/disk0").read(0, 16 << 20).unwrap();
    client.write(2 * MIB + 5, &random.bytes(10_000)).unwrap();
    client.trim(4 * MIB, 1 << 20).unwrap();
    bench.json(&["vm", "snapshot", "web01", "--name", "new"]).json();
    // More stretches than an answer has: the client asks again.
    for block in 0..1500 {
        client.write(2 * block * BLOCK, &random.bytes(BLOCK as usize)).unwrap();
    }
    let since = "holdfast:changed-since:old";
    let map = mapped(&bench, "web01@new/disk0", since);
    let expected = [
        (0, 2 * MIB, false),
        (2 * MIB, 3 * BLOCK, true),
        (2 * MIB + 3 * BLOCK, 2 * MIB - 3 * BLOCK, false),
        (4 * MIB, MIB, true),
        (5 * MIB, 11 * MIB, false),
    ];
    assert_eq!(map, expected);
    assert_eq!(mapped(&bench, "web01@new/disk0", "holdfast:changed-since:web01@old/disk0"), map);
    for (export, since) in [("web01@new/disk0", since), ("web01/disk0", "holdfast:changed-since:new")] {
        let mut source = bench.connect(export);
        let map = mapped(&bench, export, since);
        assert_eq!(map.iter().map(|(_, length, _)| length).sum::<u64>(), 16 * MIB);
        for (offset, length, _) in map.into_iter().filter(|(_, _, changed)| *changed) {
            let place = offset as usize..(offset + length) as usize;
            backup[place].copy_from_slice(&source.read(offset, length as u32).unwrap());
        }
        assert!(source.read(0, 16 << 20).unwrap() == backup, "{export}");
    }

    let listed: Value =
        serde_json::from_str(&tool("nbdinfo", ["--json", &bench.uri("web01@new/disk0")])).unwrap();
    let contexts = listed["exports"][0]["contexts"].as_array().unwrap();
    let names: Vec<&str> = contexts.iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names, ["base:allocation", "holdfast:changed-since:new", since]);
    for unknown in ["holdfast:changed-since:s9", "holdfast:changed-since:web01/disk0", "holdfast:else"] {
        let map = format!("--map={unknown}");
        assert_ne!(try_tool("nbdinfo", [&map, &bench.uri("web01@new/disk0")]).code, 0, "{unknown}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.create("web01", "1M");
    bench.create("web02", "1M");
    bench.json(&["vm", "snapshot", "web01", "--name", "good"]).json();
    bench.json(&["vm", "snapshot", "web01"]).json();
    let long = "x".repeat(64);
    for (arguments, exit, wanted) in [
        (&["vm", "snapshot", "web01", "--name", "good"][..], 6, "snapshot_exists"),
        (&["vm", "snapshot", "web01", "--name", "go od"], 2, "invalid_name"),
        (&["vm", "snapshot", "web01", "--name", &long], 2, "invalid_name"),
        (&["vm", "snapshot", "web01@good"], 2, "invalid_name"),
        (&["vm", "snapshot", "web03"], 4, "vm_not_found"),
        (&["vm", "delete", "web01", "--yes"], 6, "vm_has_snapshots"),
        (&["snapshot", "list", "--vm", "web03"], 4, "vm_not_found"),
        (&["snapshot", "show", "web01"], 2, "usage"),
        (&["snapshot", "show", "web01@s9"], 4, "snapshot_not_found"),
        (&["snapshot", "show", "web02@good"], 4, "snapshot_not_found"),
        (&["snapshot", "show", "web01@a@b"], 2, "invalid_name"),
        (&["snapshot", "delete", "web01@good"], 2, "usage"),
        (&["snapshot", "delete", "web01@s9", "--yes"], 4, "snapshot_not_found"),
        (&["snapshot", "rename", "web01@good", "s1"], 6, "snapshot_exists"),
        (&["snapshot", "rename", "web01@good", "web01@other"], 2, "invalid_name"),
        (&["snapshot", "rename", "web01@s9", "other"], 4, "snapshot_not_found"),
        (&["snapshot", "diff", "web01", "web01@good"], 2, "usage"),
        (&["snapshot", "diff", "web01@good", "web02"], 2, "usage"),
        (&["snapshot", "diff", "web01@good", "web01@s9"], 4, "snapshot_not_found"),
        (&["snapshot", "diff", "web01@good", "web01", "--disk", "disk9"], 4, "disk_not_found"),
        (&["vm", "clone", "web01@good", "web02"], 6, "vm_exists"),
        (&["vm", "clone", "web01@s9", "web03"], 4, "snapshot_not_found"),
        (&["vm", "clone", "web01", "web01@x"], 2, "invalid_name"),
        (&["vm", "revert", "web01@good"], 2, "usage"),
        (&["vm", "revert", "web01", "--yes"], 2, "usage"),
        (&["vm", "revert", "web01@s9", "--yes"], 4, "snapshot_not_found"),
        (&["disk", "clone", "web01@good", "web02"], 2, "usage"),
        (&["disk", "clone", "web01@good/disk9", "web02"], 4, "disk_not_found"),
        (&["disk", "clone", "web01@good/disk0", "web03"], 4, "vm_not_found"),
        (&["vm", "export", "web01@s9", text(&bench.path("out"))], 4, "snapshot_not_found"),
    ] {
        assert_eq!(code(&bench.json(arguments)), (exit, wanted.to_owned()), "{arguments:?}");
    }
    assert!(!bench.path("out").exists());
    let open = |export: &str| NbdClient::connect(&bench.dir().join("nbd.sock"), export).map(|_| ());
    for export in ["web01@/disk0", "web01@s9/disk0", "web01@good/disk1", "web01@good", "@good/disk0"] {
        assert_eq!(refused(open(export)), (1 << 31) + 6, "{export}");
    }
    assert_eq!(names(&bench, "web01"), ["good", "s1"]);
    assert_eq!(bench.json(&["vm", "list"]).json()["items"].as_array().unwrap().len(), 2);
    // A VM that is renamed keeps its snapshots, and goes when it has none.
    bench.json(&["vm", "rename", "web01", "www1"]).json();
    assert_eq!(bench.cli(&["snapshot", "rename", "www1@good", "better"]).code, 0);
    let table = bench.cli(&["snapshot", "list"]).stdout;
    let rows: Vec<&str> = table.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(rows, ["SNAPSHOT", "www1@better", "www1@s1"]);
    for name in ["www1@better", "www1@s1"] {
        assert_eq!(
            bench.json(&["snapshot", "delete", name, "--now", "--yes"]).json(),
            json!({"deleted": name})
        );
    }
    bench.json(&["vm", "delete", "www1", "--yes"]).json();
}

#[test]
fn a_long_list_is_whole() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rt = Arc::new(TokioRuntime::new(runtime.handle().clone()));
    let client = Client::new(rt, &bench.dir().join("api.sock"), Duration::from_secs(60));
    let mut wanted = Vec::new();
    for (vm, count) in [("a", 700), ("a-b", 2), ("b", 0), ("c", 400)] {
        bench.create(vm, "1M");
        wanted.extend((0..count).map(|number| format!("{vm}@{number:03}")));
    }
    runtime.block_on(async {
        for name in &wanted {
            let (vm, name) = name.split_once('@').unwrap();
            client.snapshot(vm, &NewSnapshot { name: Some(name.to_owned()) }).await.unwrap();
        }
        let mut which = ListSnapshots { vm: None, after: None, limit: 9 };
        let mut found = Vec::new();
        loop {
            let page = client.snapshots(&which).await.unwrap();
            found.extend(page.items.into_iter().map(|found| format!("{}@{}", found.vm, found.name)));
            which.after = page.next;
            if which.after.is_none() {
                break;
            }
        }
        assert!(found == wanted, "{found:?}");
    });
    let list = bench.json(&["snapshot", "list"]).json();
    assert_eq!(list["items"].as_array().unwrap().len(), wanted.len());
    assert_eq!(names(&bench, "c").len(), 400);
}
