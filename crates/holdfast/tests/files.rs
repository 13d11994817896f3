//! Files of a VM through the command line: in, out, from snapshots, and ends that are not the good one.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bench, MEDIA, Ran, Random, program};

/// Longer than a chunk of a transfer, and no whole sectors.
const BYTES: usize = (40 << 20) + 4097;

/// Names and lengths of the files of a VM or snapshot.
fn files(bench: &Bench, of: &str) -> Vec<(String, u64)> {
    let list = bench.json(&["file", "list", of]).json();
    let file = |file: &Value| (file["name"].as_str().unwrap().to_owned(), file["bytes"].as_u64().unwrap());
    list["items"].as_array().unwrap().iter().map(file).collect()
}

/// What standard output has; this command prints no JSON.
fn out(bench: &Bench, from: &str) -> Vec<u8> {
    let mut command = Command::new(program());
    command.arg("--site").arg(bench.dir()).args(["file", "get", from, "-"]);
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout
}

fn code(ran: &Ran) -> String {
    ran.error()["code"].as_str().unwrap().to_owned()
}

#[test]
fn files_come_in_and_go_out_as_they_were() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    bench.create("web01", "1M");
    let content = Random(7).bytes(BYTES);
    let iso = bench.path("Debian 13.iso");
    std::fs::write(&iso, &content).unwrap();
    let iso = iso.to_str().unwrap();
    // The name that it has is none here.
    assert_eq!(code(&bench.json(&["file", "put", "web01", iso])), "invalid_name");
    let vm = bench.json(&["file", "put", "web01", iso, "--as", "debian.iso"]).json();
    assert_eq!((&vm["files"][0]["name"], &vm["files"][0]["bytes"]), (&"debian.iso".into(), &BYTES.into()));
    assert!(out(&bench, "web01/debian.iso") == content);
    assert_eq!(code(&bench.json(&["file", "put", "web01", iso, "--as", "debian.iso"])), "file_taken");

    // From a pipe, in the place of what was there; a snapshot has what was.
    bench.json(&["vm", "snapshot", "web01"]).json();
    let mut command = Command::new(program());
    command.arg("--site").arg(bench.dir()).args([
        "file",
        "put",
        "web01",
        "-",
        "--as",
        "debian.iso",
        "--replace",
    ]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&content[..5000]).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(files(&bench, "web01"), [("debian.iso".to_owned(), 5000)]);
    assert!(out(&bench, "web01/debian.iso") == content[..5000]);
    let whole = bench.path("whole");
    bench.json(&["file", "get", "web01@s1/debian.iso", whole.to_str().unwrap()]).json();
    assert!(std::fs::read(&whole).unwrap() == content);
    assert_eq!(
        code(&bench.json(&["file", "get", "web01@s1/debian.iso", whole.to_str().unwrap()])),
        "file_exists"
    );

    // What a deletion would free is the short one: the snapshot has the other.
    let space = bench.json(&["file", "delete", "web01", "debian.iso", "--dry-run"]).json();
    let frees = space["counts"]["unique_bytes"].as_u64().unwrap();
    assert!(frees > 0 && frees < 5000, "{space}");
    bench.json(&["file", "delete", "web01", "debian.iso", "--yes"]).json();
    bench.json(&["file", "clone", "web01@s1/debian.iso", "web01"]).json();
    assert!(out(&bench, "web01/debian.iso") == content);

    // Clients of NBD read it.
    let mut client = bench.connect("web01/debian.iso");
    assert!(client.read(32 << 20, 8 << 20).unwrap() == content[32 << 20..40 << 20]);
    assert!(client.read(40 << 20, 5120 - 512).unwrap()[..4097] == content[40 << 20..]);
    client.write(0, &[1; 512]).unwrap_err();
}

#[test]
fn a_kill_in_the_middle_leaves_no_file() {
    let bench = Bench::new();
    let server = bench.start(MEDIA);
    bench.create("web01", "1M");
    for kill_server in [false, true] {
        let mut command = Command::new(program());
        command.arg("--site").arg(bench.dir()).args(["file", "put", "web01", "-", "--as", "half"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Kept open: the file has no end yet.
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&vec![7; 33 << 20]).unwrap();
        let start = Instant::now();
        let task = loop {
            let newest = bench.json(&["task", "list"]).json()["items"][0].clone();
            if newest["state"] == "running" && newest["done_bytes"].as_u64() >= Some(32 << 20) {
                break newest;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{newest}");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(task["target"], "web01/half");
        assert_eq!(code(&bench.json(&["vm", "rename", "web01", "www1"])), "file_storing");
        if kill_server {
            child.kill().unwrap();
            child.wait().unwrap();
            break;
        }
        // Ended by a signal, it says so and leaves nothing.
        crate::harness::tool("kill", ["-s", "INT", &child.id().to_string()]);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(files(&bench, "web01").is_empty());
    }
    server.kill();
    let _server = bench.start(&[]);
    let start = Instant::now();
    while bench.json(&["vm", "rename", "web01", "www1"]).code != 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "what the kill left is not cleared away");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(files(&bench, "www1").is_empty());
    assert_eq!(bench.json(&["status"]).json()["provisioned_bytes"], 1 << 20);
}
