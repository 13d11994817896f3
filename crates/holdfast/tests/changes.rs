//! VMs renamed, disks added, removed and resized, definitions, attachment lines: by the command line, over kills.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Bench, Ran, TINY, program, tool};

fn code(ran: &Ran) -> (i32, String) {
    (ran.code, ran.error()["code"].as_str().unwrap().to_owned())
}

fn refused(exit: i32, code: &str) -> (i32, String) {
    (exit, code.to_owned())
}

/// Names and sizes of a VM's disks.
fn disks(vm: &Value) -> Vec<(String, u64)> {
    let disk = |disk: &Value| (disk["name"].as_str().unwrap().to_owned(), disk["bytes"].as_u64().unwrap());
    vm["disks"].as_array().unwrap().iter().map(disk).collect()
}

#[test]
fn changes_are_there_after_a_kill() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    bench.create("web01", "1M");
    bench.connect("web01/disk0").write(0, b"kept").unwrap();
    bench.json(&["disk", "add", "web01", "2M"]).json();
    bench.json(&["disk", "add", "web01", "8K"]).json();
    bench.json(&["disk", "resize", "web01", "disk1", "3M"]).json();
    assert_eq!(bench.json(&["disk", "remove", "web01", "disk2", "--yes"]).json()["deleted"], "web01/disk2");
    bench.json(&["disk", "resize", "web01", "disk1", "1M", "--shrink"]).json();
    let file = bench.path("web01.xml");
    std::fs::write(&file, "<domain>\n  ä\n</domain>\n").unwrap();
    let set = bench.json(&["vm", "set-definition", "web01", file.to_str().unwrap()]).json();
    assert_eq!(set["has_definition"], true);
    let renamed = bench.json(&["vm", "rename", "web01", "www1"]).json();
    assert_eq!(renamed["name"], "www1");
    server.kill();
    let _server = bench.start(&[]);
    let vm = bench.json(&["vm", "show", "www1"]).json();
    assert_eq!(disks(&vm), [("disk0".to_owned(), 1 << 20), ("disk1".to_owned(), 1 << 20)]);
    assert_eq!(bench.connect("www1/disk0").read(0, 4).unwrap(), b"kept");
    assert_eq!(bench.cli(&["vm", "definition", "www1"]).stdout, "<domain>\n  ä\n</domain>\n");
    assert_eq!(code(&bench.json(&["vm", "show", "web01"])), refused(4, "vm_not_found"));
    let mut from_pipe = Command::new(program());
    from_pipe.arg("--site").arg(bench.dir()).args(["vm", "set-definition", "www1", "-"]);
    let mut child = from_pipe.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"anything").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.json(&["vm", "definition", "www1"]).json()["text"], "anything");
}

#[test]
fn changes_that_make_no_sense_change_nothing() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.json(&["vm", "create", "web01", "--disk", "1M", "--disk", "1M"]).json();
    bench.create("web02", "1M");
    let before = bench.json(&["vm", "show", "web01"]).json();
    let large = bench.path("large");
    std::fs::write(&large, "x".repeat(600 << 10)).unwrap();
    let binary = bench.path("binary");
    std::fs::write(&binary, [0xff; 10]).unwrap();
    for (arguments, exit, wanted) in [
        (&["vm", "rename", "web01", "web02"][..], 6, "vm_exists"),
        (&["vm", "rename", "web01", "w b"], 2, "invalid_name"),
        (&["vm", "rename", "web03", "web04"], 4, "vm_not_found"),
        (&["disk", "add", "web01", "5000"], 2, "invalid_size"),
        (&["disk", "add", "web03", "1M"], 4, "vm_not_found"),
        (&["disk", "remove", "web01", "disk1"], 2, "usage"),
        (&["disk", "remove", "web01", "disk9", "--yes"], 4, "disk_not_found"),
        (&["disk", "remove", "web02", "disk0", "--yes"], 2, "disk_count"),
        (&["disk", "resize", "web01", "disk0", "512K"], 2, "would_shrink"),
        (&["disk", "resize", "web01", "disk0", "100T", "--shrink"], 2, "invalid_size"),
        (&["disk", "resize", "web01", "a/../b", "1M"], 4, "disk_not_found"),
        (&["disk", "attach-info", "web01", "disk9"], 4, "disk_not_found"),
        (&["vm", "definition", "web01"], 4, "no_definition"),
        (&["vm", "set-definition", "web01", large.to_str().unwrap()], 2, "definition_too_large"),
        (&["vm", "set-definition", "web01", binary.to_str().unwrap()], 2, "usage"),
        (&["vm", "set-definition", "web01", "/nonexistent"], 1, "file_error"),
        (&["task", "show", "1"], 4, "task_not_found"),
        (&["task", "cancel", "1"], 4, "task_not_found"),
        (&["task", "show", "x"], 2, "usage"),
        (&["explain", "nonsense"], 4, "unknown_code"),
    ] {
        assert_eq!(code(&bench.json(arguments)), refused(exit, wanted), "{arguments:?}");
    }
    let open = bench.connect("web01/disk1");
    for arguments in [
        &["vm", "rename", "web01", "web03"][..],
        &["disk", "remove", "web01", "disk1", "--yes"],
        &["disk", "resize", "web01", "disk1", "512K", "--shrink"],
    ] {
        assert_eq!(code(&bench.json(arguments)), refused(6, "vm_in_use"), "{arguments:?}");
    }
    drop(open);
    let is_free = || bench.json(&["vm", "show", "web01"]).json() == before;
    assert!((0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        is_free()
    }));
}

/// QEMU takes the lines as they are printed, through a shell.
#[test]
fn qemu_takes_the_lines() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.create("web01", "1M");
    let info = bench.json(&["disk", "attach-info", "web01", "disk0"]).json();
    let blockdev = info["qemu"][0].as_str().unwrap();
    let script = format!(
        "exec timeout 20 qemu-storage-daemon {blockdev} --nbd-server addr.type=unix,addr.path={out} \
         --export type=nbd,id=e,node-name=disk0,name=out,writable=on --pidfile {out}.pid --daemonize",
        out = bench.path("out").display()
    );
    tool("sh", ["-c", &script.replace("-blockdev", "--blockdev")]);
    let out = format!("nbd+unix:///out?socket={}", bench.path("out").display());
    tool("qemu-io", ["-f", "raw", "-c", "write -P 7 4096 8192", "-c", "flush", &out]);
    let read = bench.connect("web01/disk0").read(4096, 8192).unwrap();
    let pid = std::fs::read_to_string(bench.path("out.pid")).unwrap();
    tool("kill", [pid.trim()]);
    assert!(read.iter().all(|byte| *byte == 7));
    assert_eq!(info["uri"], bench.uri("web01/disk0"));
}
