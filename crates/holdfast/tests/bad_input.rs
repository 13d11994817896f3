//! Goal: bad input gives a clear error or defined behaviour, leaves nothing half-done, and harms no neighbour.
//!
//! Model: the real program, with a neighbour beside what is done to it: a VM whose client goes on writing and reading
//! what it wrote. docs/testing.md says which test has which kind of bad input; some are in other files.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bench, MEDIA, Ran, Random, TINY, pick};
use crate::nbd_client::{NbdClient, NbdError};

const MIB: u64 = 1 << 20;
/// Longest request that is served.
const REQUEST_BYTES_MAX: usize = 32 << 20;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
/// NBD's answer to an option: no such export.
const UNKNOWN: u32 = (1 << 31) + 6;
/// NBD's answer to an option that is longer than it can be.
const TOO_BIG: u32 = (1 << 31) + 9;
/// A neighbour that waits longer than this is harmed.
const NOTICED: Duration = Duration::from_secs(10);
/// Connections of a flood.
const FLOOD: usize = 400;

fn refused<T>(result: Result<T, NbdError>) -> u32 {
    match result {
        Err(NbdError::Refused(number)) => number,
        Err(NbdError::Gone(error)) => panic!("the connection broke: {error}"),
        Ok(_) => panic!("it was not refused"),
    }
}

/// Code of the error of a start that was refused: its last line, behind what was logged.
fn code(ran: &Ran) -> (i32, String) {
    let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert!(!error["hint"].as_str().unwrap().is_empty(), "{error}");
    (ran.code, error["code"].as_str().unwrap().to_owned())
}

fn names(bench: &Bench) -> Vec<String> {
    let list = bench.json(&["vm", "list"]).json();
    list["items"].as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
}

/// Writes and reads back until `work` is done; every answer is right and in time.
fn beside<T>(mut neighbour: NbdClient, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ready, started) = std::sync::mpsc::channel();
        let living = scope.spawn(|| {
            let mut random = Random(17);
            let ready = ready;
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) || rounds < 10 {
                let length = 1 + random.below(20_000) as usize;
                let (at, bytes) = (random.below(900_000), random.bytes(length));
                let begun = Instant::now();
                neighbour.write(at, &bytes).unwrap();
                assert!(
                    neighbour.read(at, length as u32).unwrap() == bytes,
                    "the neighbour read other bytes"
                );
                assert!(begun.elapsed() < NOTICED, "the neighbour waited {:?}", begun.elapsed());
                rounds += 1;
                let _ = ready.send(());
            }
        });
        started.recv().unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        living.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn exports_that_are_not_there_are_refused() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.create("web01", "1M");
    let open = |export: &str| NbdClient::connect(&bench.dir().join("nbd.sock"), export).map(|_| ());
    for export in ["", "web01", "web01/", "web01/disk1", "web02/disk0", "/web01/disk0", "web01/disk0\0"] {
        assert_eq!(refused(open(export)), UNKNOWN, "{export:?}");
    }
    assert_eq!(refused(open(&"x".repeat(4000))), TOO_BIG);
    assert_eq!(bench.connect("web01/disk0").size(), MIB);
    assert_eq!(bench.json(&["vm", "show", "web01"]).json()["disks"][0]["used_bytes"], 0);
}

#[test]
fn requests_of_every_size_and_place_are_served_or_refused_whole() {
    let bench = Bench::new();
    let server = bench.start(MEDIA);
    bench.create("web01", "40M");
    bench.create("web02", "1M");
    let size = 40 * MIB;
    let mut client = bench.connect("web01/disk0");
    let mut bytes = Random(2).bytes(REQUEST_BYTES_MAX + 1);
    beside(bench.connect("web02/disk0"), || {
        // Past the end: nothing of it is done, not even what lies before the end.
        for (offset, length) in
            [(size, 1), (size - 1, 2), (size - 4096, 8192), (u64::MAX, 1), (u64::MAX - 5, 4096)]
        {
            assert_eq!(refused(client.write(offset, &bytes[..length])), ENOSPC, "{offset} {length}");
            assert_eq!(refused(client.read(offset, length as u32)), EINVAL, "{offset} {length}");
            assert_eq!(refused(client.trim(offset, length as u32)), EINVAL, "{offset} {length}");
            assert_eq!(refused(client.write_zeroes(offset, length as u32)), ENOSPC, "{offset} {length}");
        }
        assert!(client.read(size - 8192, 8192).unwrap().iter().all(|byte| *byte == 0));
        // Of no length.
        assert_eq!(refused(client.write(0, &[])), EINVAL);
        assert_eq!(refused(client.read(0, 0)), EINVAL);
        assert_eq!(refused(client.trim(0, 0)), EINVAL);
        // The longest, and one byte more: that is refused whole.
        let last = bytes.pop().unwrap();
        client.write(4097, &bytes).unwrap();
        bytes.push(!last);
        assert_eq!(refused(client.write(4097, &bytes)), EINVAL);
        assert_eq!(refused(client.read(0, bytes.len() as u32)), EINVAL);
        bytes.pop();
        assert!(client.read(4097, bytes.len() as u32).unwrap() == bytes);
        // Anywhere, of any length.
        let mut random = Random(pick() as u64);
        for _ in 0..200 {
            let at = random.below(bytes.len() as u64 - 9000) as usize;
            let length = 1 + random.below(9000) as usize;
            let new = random.bytes(length);
            client.write(4097 + at as u64, &new).unwrap();
            bytes[at..at + length].copy_from_slice(&new);
        }
        assert!(client.read(4097, bytes.len() as u32).unwrap() == bytes);
    });
    server.kill();
    let _server = bench.start(&[]);
    assert!(bench.connect("web01/disk0").read(4097, bytes.len() as u32).unwrap() == bytes);
}

/// Connects, and says this instead of what a client says.
fn shout(socket: &Path, bytes: &[u8]) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    // The server may be gone before it took all.
    let _ = stream.write_all(bytes);
    Some(stream)
}

/// The bytes that open an export, and then `request`.
fn opening(export: &str, request: &[u8]) -> Vec<u8> {
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    bytes.extend(b"IHAVEOPT");
    bytes.extend(7_u32.to_be_bytes());
    bytes.extend((export.len() as u32 + 6).to_be_bytes());
    bytes.extend((export.len() as u32).to_be_bytes());
    bytes.extend(export.as_bytes());
    bytes.extend([0, 0]);
    bytes.extend(request);
    bytes
}

/// A request's head: its payload is up to the caller.
fn head(command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(command.to_be_bytes());
    bytes.extend(7_u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

#[test]
fn hostile_nbd_clients_harm_no_neighbour() {
    let bench = Bench::new();
    let server = bench.start(MEDIA);
    for name in ["kept", "web01"] {
        bench.create(name, "1M");
    }
    let kept = Random(9).bytes(100_000);
    bench.connect("web01/disk0").write(0, &kept).unwrap();
    let socket = bench.dir().join("nbd.sock");
    let mut random = Random(pick() as u64 + 1);
    beside(bench.connect("kept/disk0"), || {
        // Malformed: noise at once, noise behind a good opening, options of no sense.
        for _ in 0..50 {
            let noise = random.bytes(2000);
            for bytes in
                [noise.clone(), opening("web01/disk0", &noise), opening("web01/disk0", &head(999, 0, 1))]
            {
                drop(shout(&socket, &bytes));
            }
            let mut option = opening("web01/disk0", &[]);
            let at = 4 + random.below(option.len() as u64 - 4) as usize;
            option[at] ^= 1 << random.below(8);
            drop(shout(&socket, &option));
        }
        // A length that no server should hold memory for.
        let huge = opening("web01/disk0", &head(1, 0, u32::MAX));
        let mut told = shout(&socket, &huge).unwrap();
        told.set_read_timeout(Some(NOTICED)).unwrap();
        assert!(told.read_to_end(&mut Vec::new()).is_ok(), "the connection is closed");
        // Slow: half a hand-shake, half a head, half a payload; they stay for the whole test.
        let half_head = &head(1, 0, 4096)[..13];
        let half_write = [head(1, 0, 4096), vec![0xee; 4000]].concat();
        let slow: Vec<_> = [opening("web01/disk0", &[])[..9].to_vec(), opening("web01/disk0", half_head)]
            .into_iter()
            .chain([opening("web01/disk0", &half_write)])
            .cycle()
            .take(30)
            .map(|bytes| shout(&socket, &bytes))
            .collect();
        // Flood: many requests whose answers nobody takes; then connections that say nothing.
        let asks: Vec<u8> = (0..20_000).flat_map(|_| head(0, 0, 65_536)).collect();
        let deaf: Vec<_> = (0..4).map(|_| shout(&socket, &opening("web01/disk0", &asks))).collect();
        assert_eq!(bench.json(&["status"]).json()["health"], "ok");
        drop((slow, deaf));
        let crowd: Vec<_> = (0..FLOOD).map(|_| UnixStream::connect(&socket)).collect();
        assert_eq!(bench.json(&["status"]).json()["health"], "ok");
        drop(crowd);
    });
    assert!(bench.connect("web01/disk0").read(0, 100_000).unwrap() == kept, "half a write did something");
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    // Whoever left holds nothing.
    let start = Instant::now();
    while bench.json(&["vm", "delete", "web01", "--yes"]).code != 0 {
        assert!(start.elapsed() < NOTICED, "clients that left still hold the disk");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.stop("TERM").code(), Some(0));
}

/// What is in a site's directory and its media, but for sockets and the lock.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
        } else if path.is_file() && !path.ends_with("lock") {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_second_standalone_is_refused_and_the_first_goes_on() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    bench.create("web01", "1M");
    beside(bench.connect("web01/disk0"), || {
        for arguments in [&["-o", "json"][..], &["--file-media", "3x16M", "-o", "json"]] {
            assert_eq!(code(&bench.refused(arguments)), (6, "site_busy".to_owned()));
        }
    });
    assert_eq!(bench.json(&["status"]).json()["health"], "ok");
    assert_eq!(bench.media().len(), 3);
    assert_eq!(server.stop("TERM").code(), Some(0));
}

#[test]
fn a_medium_that_was_cut_short_or_is_of_another_site_is_left_out_and_untouched() {
    let (bench, other) = (Bench::new(), Bench::new());
    let server = bench.start(TINY);
    bench.create("web01", "1M");
    let bytes = Random(6).bytes(200_000);
    bench.connect("web01/disk0").write(0, &bytes).unwrap();
    assert_eq!(server.stop("TERM").code(), Some(0));
    assert_eq!(other.start(TINY).stop("TERM").code(), Some(0));
    let medium = bench.media()[1].clone();
    let sound = std::fs::read(&medium).unwrap();
    let foreign = std::fs::read(&other.media()[1]).unwrap();
    for (damaged, word) in [(&sound[..1 << 20], "cut short"), (&foreign, "belongs to site")] {
        std::fs::write(&medium, damaged).unwrap();
        let server = bench.start(&[]);
        let status = bench.json(&["status"]).json();
        assert_eq!((&status["health"], &status["can_lose_now"]), (&"degraded".into(), &1.into()), "{status}");
        assert!(status["media"][1]["reason"].as_str().unwrap().contains(word), "{status}");
        assert!(bench.connect("web01/disk0").read(0, 200_000).unwrap() == bytes);
        assert_eq!(server.stop("TERM").code(), Some(0));
        assert!(std::fs::read(&medium).unwrap() == damaged, "{word}: it was written to");
    }
    std::fs::write(&medium, &sound).unwrap();
    let server = bench.start(&[]);
    assert!(bench.connect("web01/disk0").read(0, 200_000).unwrap() == bytes);
    assert_eq!(server.stop("TERM").code(), Some(0));

    // All of them cut short, and a new site on another's medium: refused, nothing changed.
    for medium in bench.media() {
        std::fs::File::options().write(true).open(medium).unwrap().set_len(MIB).unwrap();
    }
    let before = snapshot(&bench.dir());
    assert_eq!(code(&bench.refused(&["-o", "json"])), (1, "too_few_media".to_owned()));
    assert!(snapshot(&bench.dir()) == before);
    let new = Bench::new();
    let theirs = other.media()[0].display().to_string();
    let before = snapshot(&other.dir());
    let ran = new.refused(&["--media", &theirs, "--layout", "tiny", "--io", "sync", "-o", "json"]);
    assert_eq!(code(&ran), (6, "foreign_medium".to_owned()));
    assert!(snapshot(&other.dir()) == before && snapshot(&new.dir()).is_empty());
}

#[test]
fn a_wrong_passphrase_opens_nothing_and_changes_nothing() {
    let bench = Bench::new();
    let file = |name: &str, text: &str| {
        std::fs::write(bench.path(name), text).unwrap();
        bench.path(name).display().to_string()
    };
    let (right, wrong, none) = (file("right", "correct horse\n"), file("wrong", "wrong\n"), file("none", ""));
    let server = bench.start(&[TINY, &["--passphrase-file", &right]].concat());
    bench.create("web01", "1M");
    bench.connect("web01/disk0").write(0, b"secret").unwrap();
    assert_eq!(server.stop("TERM").code(), Some(0));
    let before = snapshot(&bench.dir());
    for (arguments, exit, wanted) in [
        (&["--passphrase-file", &wrong][..], 5, "key_wrong"),
        (&["--passphrase-file", &none], 2, "passphrase_missing"),
        (&["--passphrase-file", "/nonexistent"], 2, "passphrase_missing"),
        (&[], 5, "passphrase_wanted"),
    ] {
        let ran = bench.refused(&[arguments, &["-o", "json"]].concat());
        assert_eq!(code(&ran), (exit, wanted.to_owned()), "{arguments:?}");
        assert!(snapshot(&bench.dir()) == before, "{arguments:?}");
    }
    let server = bench.start(&["--passphrase-file", &right]);
    assert_eq!(bench.connect("web01/disk0").read(0, 6).unwrap(), b"secret");
    let change = |current: &str, new: &str| {
        bench.json(&["passphrase", "change", "--current-file", current, "--new-file", new])
    };
    let next = file("next", "battery staple\n");
    assert_eq!(code(&change(&wrong, &next)), (5, "key_wrong".to_owned()));
    assert_eq!(code(&change(&right, &none)), (2, "passphrase_missing".to_owned()));
    assert_eq!(change(&right, &next).code, 0);
    assert_eq!(bench.connect("web01/disk0").read(0, 6).unwrap(), b"secret");
    server.kill();
    let ran = bench.refused(&["--passphrase-file", &right, "-o", "json"]);
    assert_eq!(code(&ran), (5, "key_wrong".to_owned()));
    let _server = bench.start(&["--passphrase-file", &next]);
    assert_eq!(bench.connect("web01/disk0").read(0, 6).unwrap(), b"secret");
}

#[test]
fn a_full_pool_refuses_writes_and_keeps_what_it_has() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    bench.create("kept", "1M");
    bench.create("web01", "64M");
    let kept = Random(1).bytes(100_000);
    bench.connect("kept/disk0").write(0, &kept).unwrap();
    let before = bench.json(&["status"]).json();
    let mut client = bench.connect("web01/disk0");
    let mut random = Random(2);
    let mut written = Vec::new();
    let full = loop {
        let piece = random.bytes(16 << 10);
        match client.write(written.len() as u64, &piece) {
            Ok(()) => written.extend(piece),
            Err(error) => break refused::<()>(Err(error)),
        }
        assert!(written.len() < 64 << 20, "it never gets full");
    };
    assert_eq!(full, ENOSPC);
    let said = |field: &str| before[field].as_u64().unwrap();
    let fit = written.len() as u64;
    assert!(said("usable_bytes") <= fit, "{fit} fit: {before}");
    let likely = said("likely_bytes");
    assert!((fit * 3 / 4..=fit * 5 / 4).contains(&likely), "{fit} fit: {before}");
    let status = bench.json(&["status"]).json();
    // The cleaner may have found a little in the containers of checkpoints.
    let usable = status["usable_bytes"].as_u64().unwrap();
    assert!(status["health"] == "degraded" && usable < MIB / 4, "{status}");
    let image = bench.path("image");
    std::fs::write(&image, Random(3).bytes(2 << 20)).unwrap();
    let ran = bench.json(&["vm", "import", "web02", image.to_str().unwrap()]);
    let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((ran.code, error["code"].as_str()), (1, Some("copy_failed")), "{ran:?}");
    assert!(error["message"].as_str().unwrap().contains("No space left"), "{ran:?}");
    let hint = error["hint"].as_str().unwrap();
    // The host has room, and the trash is empty: neither is advised.
    assert!(hint.contains("`clean`") && hint.contains("`media add`"), "{ran:?}");
    assert!(!hint.contains("file system") && !hint.contains("trash"), "{ran:?}");
    assert_eq!(names(&bench), ["kept", "web01"]);
    assert_eq!(bench.json(&["vm", "show", "web02"]).code, 4);
    server.kill();
    // What was acknowledged is there, of all.
    let _server = bench.start(&[]);
    assert!(bench.connect("kept/disk0").read(0, 100_000).unwrap() == kept);
    let mut client = bench.connect("web01/disk0");
    for (number, piece) in written.chunks(1 << 20).enumerate() {
        assert!(client.read(number as u64 * MIB, piece.len() as u32).unwrap() == piece, "MiB {number}");
    }
    assert_eq!(names(&bench), ["kept", "web01"]);
}

/// Sends a request of HTTP; gives status and body of the answer.
pub(crate) fn ask(bench: &Bench, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(bench.dir().join("api.sock")).unwrap();
    stream.set_read_timeout(Some(NOTICED)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    // It may answer and close before it has read all.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn bad_requests_to_the_interface_change_nothing() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.create("web01", "1M");
    let before = (bench.json(&["vm", "show", "web01"]).json(), bench.json(&["task", "list"]).json());
    let long = format!(r#"{{"name":"{}","disks":[{{"bytes":4096}}]}}"#, "x".repeat(60_000));
    let many = format!(r#"{{"name":"a","disks":[{}]}}"#, vec![r#"{"bytes":4096}"#; 33].join(","));
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(600 << 10));
    let (deep, huge) = ("[".repeat(50_000), vec![b'x'; 8 << 20]);
    let (json, web01, vms) = ("application/json", "/api/v1/vms/web01", "/api/v1/vms");
    let (disk, definition) = ("/api/v1/vms/web01/disks/disk0", "/api/v1/vms/web01/definition");
    beside(bench.connect("web01/disk0"), || {
        for (method, path, kind, body, status) in [
            ("POST", vms, json, &b"{"[..], 400),
            ("POST", vms, json, b"\xff\xfe", 400),
            ("POST", vms, json, b"", 400),
            ("POST", vms, json, deep.as_bytes(), 422),
            ("POST", vms, json, &huge, 413),
            ("POST", vms, json, long.as_bytes(), 422),
            ("POST", vms, json, many.as_bytes(), 422),
            ("POST", vms, "text/plain", br#"{"name":"a","disks":[{"bytes":4096}]}"#, 415),
            ("POST", vms, json, br#"{"name":7,"disks":[{"bytes":4096}]}"#, 422),
            ("POST", vms, json, br#"{"name":"a","disks":{}}"#, 422),
            ("POST", vms, json, br#"{"name":"a","disks":[{"bytes":"1M"}]}"#, 422),
            ("POST", vms, json, br#"{"name":"a","disks":[{"bytes":4096},{"bytes":4097}]}"#, 422),
            ("POST", vms, json, br#"{"name":"a","name":"b","disks":[{"bytes":4096}]}"#, 422),
            ("POST", vms, json, br#"{"name":"web01","disks":[{"bytes":4096}]}"#, 409),
            ("PATCH", web01, json, br#"{"name":"../b"}"#, 422),
            ("PATCH", web01, json, br#"{"name":null}"#, 422),
            ("PATCH", disk, json, br#"{"bytes":-1}"#, 422),
            ("PATCH", disk, json, br#"{"bytes":512,"shrink":true}"#, 422),
            ("PATCH", disk, json, br#"{"bytes":8192,"shrink":1}"#, 422),
            ("DELETE", "/api/v1/vms/web01/disks/..%2Fdisk0", json, b"", 404),
            ("PUT", definition, json, br#"{"text":[]}"#, 422),
            ("PUT", definition, json, large.as_bytes(), 422),
            ("PUT", definition, json, &huge, 413),
            ("POST", "/api/v1/space", json, b"[]", 422),
            ("POST", "/api/v1/trash/1/restore", json, b"[]", 422),
            ("PATCH", web01, json, br#"["b"]"#, 422),
            ("POST", "/api/v1/imports", json, br#"{"name":"a","disks":[],"source":""}"#, 422),
            ("POST", "/api/v1/exports", json, br#"{"vm":"web01","disk":"disk9","destination":""}"#, 404),
            ("PUT", "/api/v1/imports/1e9", json, b"{}", 400),
            ("DELETE", "/api/v1/tasks/18446744073709551616", json, b"", 400),
        ] {
            let what = format!("{method} {path} {:.60}", String::from_utf8_lossy(body));
            let (found, answer) = ask(&bench, method, path, kind, body);
            assert_eq!(found, status, "{what}: {answer}");
            let problem: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(problem["status"], status, "{what}");
            assert!(!problem["detail"].as_str().unwrap().is_empty() && problem["code"].is_string(), "{what}");
        }
    });
    assert_eq!(names(&bench), ["web01"]);
    let vm = bench.json(&["vm", "show", "web01"]).json();
    for field in ["name", "created_ms", "has_definition"] {
        assert_eq!(vm[field], before.0[field]);
    }
    assert_eq!((vm["disks"].as_array().unwrap().len(), &vm["disks"][0]["bytes"]), (1, &MIB.into()));
    assert_eq!(bench.json(&["task", "list"]).json(), before.1);
}
