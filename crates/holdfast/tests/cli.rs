//! The command line: exit codes, JSON on success and error, starts and stops.

use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Bench, MEDIA, Random, Server, TINY, program, tool};
use crate::nbd_client::NbdError;

/// Code of the error in JSON, with the shape every error has.
fn code(error: &Value) -> &str {
    let fields: Vec<&String> = error.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["code", "hint", "message"]);
    assert!(!error["message"].as_str().unwrap().is_empty() && !error["hint"].as_str().unwrap().is_empty());
    error["code"].as_str().unwrap()
}

#[test]
fn every_command_answers_in_json() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    let created = bench.json(&["vm", "create", "web01", "--disk", "1M", "--disk", "8K"]).json();
    assert_eq!(created["name"], "web01");
    let disk = json!({
        "name": "disk1", "export": "web01/disk1", "bytes": 8192, "used_bytes": 0, "clients": 0
    });
    assert_eq!(created["disks"][1], disk);
    let mut shown = bench.json(&["vm", "show", "web01"]).json();
    let protection = shown.as_object_mut().unwrap().remove("protection").unwrap();
    assert_eq!((&protection["state"], &protection["group"]), (&json!("excluded"), &json!("default")));
    assert_eq!(shown, created);
    let list = bench.json(&["vm", "list"]).json();
    assert_eq!(list["items"][0]["name"], "web01");
    assert_eq!(list["items"][0]["bytes"], (1 << 20) + 8192);
    bench.connect("web01/disk0").write(4096, &Random(1).bytes(8192)).unwrap();
    let status = bench.json(&["status"]).json();
    assert_eq!(status["health"], "ok");
    assert_eq!(status["logical_bytes"], 8192);
    assert_eq!(status["can_lose_now"], 2);
    assert_eq!(status["media"].as_array().unwrap().len(), 3);
    for field in ["unique_bytes", "stored_bytes", "raw_bytes"] {
        assert!(status[field].is_u64(), "{field}");
    }
    for field in ["reasons", "notices"] {
        assert!(status[field].is_array(), "{field}");
    }
    assert_eq!(bench.json(&["vm", "delete", "web01", "--now", "--yes"]).json(), json!({"deleted": "web01"}));
    assert_eq!(bench.json(&["vm", "list"]).json(), json!({"items": []}));
}

#[test]
fn tables_are_for_people() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    let created = bench.cli(&["vm", "create", "web01", "--disk", "1M"]);
    assert!(created.stdout.contains(&bench.uri("web01/disk0")), "{created:?}");
    let status = bench.cli(&["status"]);
    assert!(
        status.code == 0
            && status
                .stdout
                .starts_with("protected     0 of 0 VMs within their target; 1 excluded\nhealth        ok\n"),
        "{status:?}"
    );
    let list = bench.cli(&["vm", "list"]);
    assert_eq!(
        list.stdout,
        "NAME   DISKS  SIZE     PROTECTION  FOLDER  TAGS\nweb01  1      1.0 MiB  excluded    /       -\n"
    );
    let from_environment =
        Command::new(program()).env("HOLDFAST_SITE", bench.dir()).args(["vm", "list"]).output().unwrap();
    assert_eq!(from_environment.stdout, list.stdout.as_bytes());
    let missing = bench.cli(&["vm", "show", "nope"]);
    assert_eq!(missing.stderr.lines().count(), 2, "{missing:?}");
    assert!(missing.stderr.starts_with("error: ") && missing.stderr.contains("\nhint: "), "{missing:?}");
}

#[test]
fn errors_have_their_exit_codes() {
    let bench = Bench::new();
    let long = "x".repeat(64);
    let not_running = bench.json(&["status"]);
    assert_eq!((not_running.code, code(&not_running.error())), (1, "not_running"));
    let socket = bench.dir().join("api.sock").display().to_string();
    assert!(not_running.error()["message"].as_str().unwrap().contains(&socket));
    assert!(not_running.error()["hint"].as_str().unwrap().contains("holdfast standalone --dir"));

    let _server = bench.start(TINY);
    bench.create("web01", "1M");
    for (arguments, exit, wanted) in [
        (&["vm", "create", "web01", "--disk", "1M"][..], 6, "vm_exists"),
        (&["vm", "create", "w b", "--disk", "1M"], 2, "invalid_name"),
        (&["vm", "create", &long, "--disk", "1M"], 2, "invalid_name"),
        (&["vm", "create", "web02", "--disk", "0"], 2, "invalid_size"),
        (&["vm", "create", "web02", "--disk", "5000"], 2, "invalid_size"),
        (&["vm", "create", "web02", "--disk", "1P"], 2, "invalid_size"),
        (&["vm", "create", "web02", "--disk", "1GB"], 2, "usage"),
        (&["vm", "create", "web02"], 2, "usage"),
        (&["vm", "create"], 2, "usage"),
        (&["vm", "show", "nope"], 4, "vm_not_found"),
        (&["vm", "show", "no/pe"], 2, "invalid_name"),
        (&["vm", "delete", "nope", "--yes"], 4, "vm_not_found"),
        (&["vm", "delete", "web01"], 2, "usage"),
        (&["nonsense"], 2, "usage"),
        (&["status", "--timeout", "0"], 2, "usage"),
    ] {
        let ran = bench.json(arguments);
        let error = ran.error();
        assert_eq!((ran.code, code(&error)), (exit, wanted), "{arguments:?}: {error}");
    }
    let no_site = Command::new(program()).env_remove("HOLDFAST_SITE").arg("status").output().unwrap();
    assert_eq!(no_site.status.code(), Some(2));
    assert_eq!(bench.json(&["vm", "list"]).json()["items"].as_array().unwrap().len(), 1, "nothing half-done");
    for help in [&["--help"][..], &["--version"], &["vm", "create", "--help"]] {
        assert_eq!(bench.cli(help).code, 0, "{help:?}");
    }
}

#[test]
fn a_disk_in_use_is_not_deleted() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.create("web01", "1M");
    let mut client = bench.connect("web01/disk0");
    let busy = bench.json(&["vm", "delete", "web01", "--yes"]);
    assert_eq!((busy.code, code(&busy.error())), (6, "vm_in_use"));
    assert_eq!(client.size(), 1 << 20);
    client.write(5, b"still here").unwrap();
    assert_eq!(client.read(5, 10).unwrap(), b"still here");
    assert!(matches!(client.read((1 << 20) - 5, 10), Err(NbdError::Refused(22))), "past the end is EINVAL");
    assert!(
        matches!(client.write((1 << 20) - 5, &[1; 10]), Err(NbdError::Refused(28))),
        "and ENOSPC for writes"
    );
    drop(client);
    // The server hears of the end a little later.
    let deleted = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        bench.cli(&["vm", "delete", "web01", "--yes"]).code == 0
    });
    assert!(deleted);
}

#[test]
fn a_server_that_hangs_is_a_time_out() {
    let bench = Bench::new();
    std::fs::create_dir(bench.dir()).unwrap();
    let _listener = UnixListener::bind(bench.dir().join("api.sock")).unwrap();
    let late = bench.json(&["--timeout", "1", "status"]);
    assert_eq!((late.code, code(&late.error())), (7, "timeout"));
}

#[test]
fn signals_stop_cleanly_and_a_kill_leaves_what_the_next_start_replaces() {
    let bench = Bench::new();
    for signal in ["TERM", "INT"] {
        let server = bench.start(TINY);
        assert!(bench.dir().join("nbd.sock").exists());
        assert_eq!(server.stop(signal).code(), Some(0), "{signal}");
        assert!(!bench.dir().join("api.sock").exists() && !bench.dir().join("nbd.sock").exists());
    }
    bench.start(&[]).kill();
    assert!(bench.dir().join("api.sock").exists() && bench.dir().join("nbd.sock").exists());
    let gone = bench.json(&["status"]);
    assert_eq!((gone.code, code(&gone.error())), (1, "not_running"));
    let server = bench.start(&[]);
    bench.json(&["status"]).json();
    let second = bench.refused(&["-o", "json"]);
    assert_eq!((second.code, code(&log_tail(&second.stderr))), (6, "site_busy"));
    bench.json(&["status"]).json();
    assert_eq!(server.stop("TERM").code(), Some(0));
}

/// The error is the last line, behind what was logged.
fn log_tail(stderr: &str) -> Value {
    serde_json::from_str(stderr.lines().last().unwrap()).unwrap()
}

#[test]
fn what_was_made_is_there_after_a_stop_and_after_a_kill() {
    let bench = Bench::new();
    let mut random = Random(3);
    let (first, second) = (random.bytes(300_000), random.bytes(10_001));
    let server = bench.start(TINY);
    bench.create("web01", "4M");
    bench.connect("web01/disk0").write(1000, &first).unwrap();
    assert_eq!(server.stop("TERM").code(), Some(0));
    let server = bench.start(&[]);
    let mut client = bench.connect("web01/disk0");
    assert!(client.read(1000, 300_000).unwrap() == first);
    client.write(2_000_001, &second).unwrap();
    client.write_zeroes(1000, 100_000).unwrap();
    client.trim(3 << 20, 4096).unwrap();
    client.flush().unwrap();
    bench.create("web02", "1M");
    server.kill();
    let _server = bench.start(&[]);
    let mut client = bench.connect("web01/disk0");
    assert!(client.read(1000, 100_000).unwrap().iter().all(|byte| *byte == 0));
    assert!(client.read(101_000, 200_000).unwrap() == first[100_000..]);
    assert!(client.read(2_000_001, 10_001).unwrap() == second);
    let list = bench.json(&["vm", "list"]).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[test]
fn keys_go_where_they_belong_and_nowhere_else() {
    let bench = Bench::new();
    let file = bench.path("recovery");
    let path = file.to_str().unwrap();
    let mut server = bench.start(&[TINY, &["--recovery-key-file", path, "--log", "trace"]].concat());
    let key = std::fs::read_to_string(&file).unwrap();
    let hex: String =
        std::fs::read(bench.dir().join("key")).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    let plain = key.trim().replace('-', "");
    let mut said = server.log();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    bench.json(&["status"]).json();
    let again = bench.refused(&["--recovery-key-file", path, "-o", "json"]);
    assert_eq!(again.code, 6, "the site is busy");
    assert!(server.wait_serving().is_ok());
    assert_eq!(server.stop("TERM").code(), Some(0));
    let again = bench.refused(&["--recovery-key-file", path, "-o", "json"]);
    assert_eq!((again.code, code(&log_tail(&again.stderr))), (6, "recovery_key_file_exists"));
    said += &again.stderr;
    assert!(!said.contains(&plain[..16]) && !said.contains(key.trim()) && !said.contains(&hex[..16]));

    std::fs::write(bench.dir().join("key"), [1; 32]).unwrap();
    let denied = bench.refused(&["-o", "json"]);
    assert_eq!((denied.code, code(&log_tail(&denied.stderr))), (5, "key_wrong"));
}

/// Paths as people type them: relative ones.
#[test]
fn relative_paths_do() {
    let bench = Bench::new();
    for name in ["medium0", "medium1"] {
        std::fs::File::create(bench.path(name)).unwrap().set_len(16 << 20).unwrap();
    }
    let start = |extra: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program(), "standalone", "--dir", "d"]);
        command.args(extra).current_dir(bench.path("."));
        Server::spawn(&bench, command).serving()
    };
    let first = "--media medium0 --media ./medium1 --layout tiny --recovery-key-file key";
    start(&first.split(' ').collect::<Vec<_>>()).kill();
    assert!(bench.path("key").exists());
    start(&[]).kill();
}

#[test]
fn the_recovery_key_is_shown_on_a_terminal_only() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    assert!(!server.log().contains("shown once"), "its output is a file");
    assert!(server.log().contains("--recovery-key-file"), "but it says how to get one");
    assert_eq!(server.stop("TERM").code(), Some(0));

    let terminal = Bench::new();
    let command = format!(
        "timeout --preserve-status --signal=TERM 5 {} standalone --dir {} {}",
        program(),
        terminal.dir().display(),
        TINY.join(" ")
    );
    let shown = tool("script", ["--quiet", "--return", "--command", &command, "/dev/null"]);
    let key = shown.lines().map(str::trim).find(|line| line.len() == 84 && line.matches('-').count() == 16);
    assert!(key.is_some(), "{shown:?}");
}

/// Waits until the site is healthy.
fn comes_back(bench: &Bench) -> bool {
    (0..150).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        bench.json(&["status"]).json()["health"] == "ok"
    })
}

#[test]
fn missing_media_are_named_and_come_back() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    bench.create("web01", "1M");
    bench.connect("web01/disk0").write(0, b"before").unwrap();
    assert_eq!(server.stop("TERM").code(), Some(0));
    let media = bench.media();
    let away: Vec<_> = (0..3).map(|number| bench.path(&format!("away{number}"))).collect();
    let take = |number: usize| std::fs::rename(&media[number], &away[number]).unwrap();
    let give_back = |number: usize| std::fs::rename(&away[number], &media[number]).unwrap();

    take(1);
    let server = bench.start(&[]);
    let status = bench.json(&["status"]).json();
    assert_eq!((status["health"].as_str(), status["can_lose_now"].as_u64()), (Some("degraded"), Some(1)));
    assert_eq!(status["media"][1]["state"], "down");
    assert!(status["reasons"][0].as_str().unwrap().contains("01.img"));
    bench.connect("web01/disk0").write(4096, b"without one").unwrap();
    give_back(1);
    assert!(comes_back(&bench), "the medium does not come back by itself");
    assert_eq!(server.stop("TERM").code(), Some(0));

    // One of three: reads go on, writes are refused until another is back.
    take(1);
    take(2);
    let server = bench.start(&[]);
    let status = bench.json(&["status"]).json();
    assert_eq!((status["health"].as_str(), status["writable"].as_bool()), (Some("failed"), Some(false)));
    let mut client = bench.connect("web01/disk0");
    assert_eq!(client.read(0, 6).unwrap(), b"before");
    assert_eq!(client.read(4096, 11).unwrap(), b"without one");
    assert!(matches!(client.write(0, b"no"), Err(NbdError::Refused(5))), "EIO");
    let refused = bench.json(&["vm", "create", "web02", "--disk", "1M"]);
    assert_eq!((refused.code, code(&refused.error())), (1, "too_few_media"));
    give_back(1);
    give_back(2);
    assert!(comes_back(&bench), "the media do not come back by themselves");
    client.write(0, b"after!").unwrap();
    drop(client);
    assert_eq!(server.stop("TERM").code(), Some(0));

    for number in 0..3 {
        take(number);
    }
    let refused = bench.refused(&["-o", "json"]);
    assert_eq!((refused.code, code(&log_tail(&refused.stderr))), (1, "too_few_media"));
    for name in ["00.img", "01.img", "02.img"] {
        assert!(refused.stderr.contains(name), "{refused:?}");
    }
    for number in 0..3 {
        give_back(number);
    }
    let _server = bench.start(&[]);
    assert_eq!(bench.connect("web01/disk0").read(0, 6).unwrap(), b"after!");
}

#[test]
fn standalone_refuses_what_makes_no_sense() {
    let bench = Bench::new();
    for (arguments, exit) in [
        (&["--file-media", "0x1G"][..], 2),
        (&["--file-media", "65x1G"], 2),
        (&["--file-media", "6"], 2),
        (&["--file-media", "2x1M"], 2),
        (&["--file-media", "2x1000000001"], 2),
        (&["--media", "/dev/null"], 2),
        (&["--media", "/nonexistent"], 4),
        (&["--media", "/dev/null", "--file-media", "2x1G"], 2),
        (&["--passphrase-file", "/nonexistent"], 2),
        (&["--io", "never"], 2),
    ] {
        let ran = bench.refused(&[arguments, &["-o", "json"]].concat());
        assert_eq!(ran.code, exit, "{arguments:?}: {ran:?}");
        code(&log_tail(&ran.stderr));
        assert!(!bench.dir().join("site.json").exists() && !bench.dir().join("media").exists());
    }
    let deep = "x".repeat(120);
    let mut command = Command::new(program());
    let ran = command.args(["standalone", "--dir"]).arg(bench.path(&deep)).output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
    // Nothing of this was in the way of a real start.
    assert_eq!(bench.start(MEDIA).stop("TERM").code(), Some(0));
}
