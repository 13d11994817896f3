//! Goal: what an export writes is what the VM's disks were at one instant.
//! Model: a guest that writes a number to one place, and once that is answered to another. At any instant the second is
//! the first, or one behind it.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::bad_input::ask;
use crate::harness::{Bench, MEDIA, Ran, Random, TINY, program, tool};
use crate::nbd_client::{NbdClient, NbdError};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
/// Size of the disk, in MiB.
const DISK_MIB: usize = 96;
/// Where the second number stands: read long behind the first.
const FAR: usize = (DISK_MIB - 2) * MIB;

fn block(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK / 8)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

/// A VM whose disk has noise in the middle, so that it takes a while to read.
fn vm_with_noise(bench: &Bench) -> NbdClient {
    bench.create("web01", &format!("{DISK_MIB}M"));
    let mut client = bench.connect("web01/disk0");
    let mut random = Random(7);
    for at in (MIB..FAR).step_by(MIB) {
        client.write(at as u64, &random.bytes(MIB)).unwrap();
    }
    client
}

/// Counts on, from `first`, in two places until it is told to stop; gives how far it came.
fn count(near: &mut NbdClient, far: &mut NbdClient, at: u64, first: u64, stop: &AtomicBool) -> u64 {
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        near.write(0, &block(next)).unwrap();
        far.write(at, &block(next)).unwrap();
        next += 1;
    }
    next
}

/// Tells whoever counts to stop, however a test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn assert_one_instant(first: u64, second: u64, what: &str) {
    assert!(second == first || second + 1 == first, "{what}: {first}, then {second}, was never so");
}

#[test]
fn an_export_is_of_one_instant_whatever_it_goes_to() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    let mut client = vm_with_noise(&bench);
    let mut other = bench.connect("web01/disk0");
    client.write(0, &block(1)).unwrap();
    client.write(FAR as u64, &block(1)).unwrap();
    // To standard output, with the guest's writes between what was read and what is to be read.
    let mut command = Command::new(program());
    command.env_remove("HOLDFAST_SITE").arg("--site").arg(bench.dir()).args(["vm", "export", "web01", "-"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut bytes = vec![0; BLOCK];
    out.read_exact(&mut bytes).unwrap();
    for next in 2..9 {
        client.write(0, &block(next)).unwrap();
        client.write(FAR as u64, &block(next)).unwrap();
    }
    out.read_to_end(&mut bytes).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!((number(&bytes), number(&bytes[FAR..])), (1, 1), "as it was when the export began");
    // To files, with the guest at it.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| count(&mut client, &mut other, FAR as u64, 9, &stop));
        let stopping = Stop(&stop);
        for (format, file) in [("raw", "out.raw"), ("qcow2", "out.qcow2")] {
            let file = bench.path(file);
            bench.json(&["vm", "export", "web01", file.to_str().unwrap(), "-f", format]).json();
            let raw = bench.path("raw");
            tool(
                "qemu-img",
                ["convert", "-f", format, "-O", "raw", file.to_str().unwrap(), raw.to_str().unwrap()],
            );
            let bytes = std::fs::read(&raw).unwrap();
            assert_one_instant(number(&bytes), number(&bytes[FAR..]), format);
        }
        drop(stopping);
        assert!(writer.join().unwrap() > 9, "it went on");
    });
}

/// The answer to a request of HTTP that makes something.
fn post(bench: &Bench, path: &str, body: &str) -> Value {
    let (status, answer) = ask(bench, "POST", path, "application/json", body.as_bytes());
    assert!((200..300).contains(&status), "{path}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn all_disks_of_an_export_are_of_one_instant() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.json(&["vm", "create", "web01", "--disk", "1M", "--disk", "2M"]).json();
    let (mut near, mut far) = (bench.connect("web01/disk0"), bench.connect("web01/disk1"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| count(&mut near, &mut far, 0, 1, &stop));
        let stopping = Stop(&stop);
        for _ in 0..20 {
            let begun = post(&bench, "/api/v1/exports", r#"{"vm":"web01","destination":"here"}"#);
            let read = |disk: usize| {
                let export = begun["disks"][disk]["export"].as_str().unwrap();
                number(&bench.connect(export).read(0, BLOCK as u32).unwrap())
            };
            // The later one first: so the guest is ahead with the other.
            let (second, first) = (read(1), read(0));
            assert_one_instant(first, second, "two disks");
            post(&bench, &format!("/api/v1/exports/{}/finish", begun["task"]["id"]), "{}");
        }
        drop(stopping);
        writer.join().unwrap();
    });
    let rows = space(&bench);
    assert_eq!(rows, ["web01"], "nothing is left");
}

/// Names in the report of what takes space.
fn space(bench: &Bench) -> Vec<String> {
    let report = bench.json(&["space"]).json();
    report["items"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_kill_in_the_middle_of_an_export_leaves_nothing() {
    let bench = Bench::new();
    let server = bench.start(MEDIA);
    drop(vm_with_noise(&bench));
    let mut command = Command::new(program());
    command.env_remove("HOLDFAST_SITE").arg("--site").arg(bench.dir());
    command.args(["vm", "export", "web01", "-", "-o", "json"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It writes, and nobody reads on: it is in the middle.
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let task = bench.json(&["task", "list"]).json()["items"][0]["id"].clone();
    assert_eq!(space(&bench), ["web01".to_owned(), format!("web01:{task}")]);
    bench.json(&["vm", "delete", "web01", "--now", "--yes"]).json();
    server.kill();
    let ran = Ran::new(
        child
            .wait_with_output()
            .map(|mut output| {
                output.stdout.clear();
                output
            })
            .unwrap(),
    );
    assert_ne!(ran.code, 0, "{ran:?}");
    let server = bench.start(&[]);
    let mut rounds = 0;
    while !server.log().contains("what an export made for itself deleted") {
        rounds += 1;
        assert!(rounds < 3000, "it is cleared away at the start");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(bench.json(&["task", "show", &task.to_string()]).json()["state"], "failed");
    bench.json(&["clean", "--garbage", "0"]).json();
    bench.json(&["space"]).json();
    let status = bench.json(&["status"]).json();
    assert_eq!((&status["logical_bytes"], &status["unique_bytes"]), (&0.into(), &0.into()), "{status}");
}

/// The way out of a full pool.
#[test]
fn a_full_pool_is_exported() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.create("web01", "64M");
    let mut client = bench.connect("web01/disk0");
    let mut random = Random(2);
    let mut written = Vec::new();
    loop {
        let piece = random.bytes(16 << 10);
        match client.write(written.len() as u64, &piece) {
            Ok(()) => written.extend(piece),
            Err(NbdError::Refused(_)) => break,
            Err(error) => panic!("{error:?}"),
        }
        assert!(written.len() < 64 * MIB, "it never gets full");
    }
    let out = bench.path("out");
    bench.json(&["vm", "export", "web01", out.to_str().unwrap()]).json();
    assert!(std::fs::read(&out).unwrap().starts_with(&written));
    assert_eq!(bench.json(&["task", "list"]).json()["items"][0]["state"], "done");
}
