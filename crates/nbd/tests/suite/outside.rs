//! Other people's clients: libnbd (nbdinfo, nbdcopy, its Python binding) and QEMU (qemu-img, qemu-io).

use std::path::Path;
use std::process::Command;

use nbd::Limits;

use super::device::TestDevice;
use super::{Fixture, patterned};

/// Bytes of the disk: QEMU wants whole sectors.
const DISK: u64 = 24 << 20;
/// No tool needs longer than this, in seconds.
const PATIENCE: &str = "30";

fn fixture(lazy: bool) -> Fixture {
    Fixture::with(TestDevice { lazy, ..TestDevice::new(DISK) }, Limits::default())
}

/// Runs a tool that must succeed, and gives what it prints.
fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new("timeout").arg(PATIENCE).arg(tool).args(arguments).output().unwrap();
    let code = output.status.code();
    assert!(!matches!(code, Some(126 | 127)), "{tool} is not installed: run cargo x setup");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?} failed ({code:?}):\n{printed}\n{errors}");
    printed
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Data with holes: a pattern at the start, in the middle and at the very end.
fn image() -> Vec<u8> {
    let mut image = vec![0; DISK as usize];
    for (from, length) in [(0, 100_000), (5 << 20, 3 << 20), (DISK as usize - 4096, 4096)] {
        image[from..from + length].copy_from_slice(&patterned(from, length));
    }
    image
}

#[test]
fn nbdinfo_understands_the_server() {
    let fixture = fixture(false);
    assert_eq!(fixture.simple().write(0, 1 << 20, &[1; 65_536]), 0);
    let uri = fixture.uri("disk");
    assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), DISK.to_string());
    let info = json(&run("nbdinfo", &["--json", &uri]));
    assert_eq!((&info["protocol"], &info["structured"]), (&"newstyle-fixed".into(), &true.into()));
    let export = &info["exports"][0];
    assert_eq!(export["export-name"], "disk");
    assert_eq!(export["description"], "a test disk");
    assert_eq!(export["contexts"][0], "base:allocation");
    assert_eq!(export["block_size_minimum"], 1);
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["block_size_maximum"], 32 << 20);
    for yes in [
        "can_cache",
        "can_df",
        "can_fast_zero",
        "can_flush",
        "can_fua",
        "can_multi_conn",
        "can_trim",
        "can_zero",
    ] {
        assert_eq!(export[yes], true, "{yes}");
    }
    assert_eq!(export["is_read_only"], false);
    let list = json(&run("nbdinfo", &["--list", "--json", &fixture.uri("")]));
    assert_eq!(list["exports"][0]["export-name"], "disk");
    assert_eq!(list["exports"][0]["export-size"], DISK);
    let map = json(&run("nbdinfo", &["--map", "--json", &uri]));
    let extents: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["length"].as_u64().unwrap(), one["type"].as_u64().unwrap()))
        .collect();
    assert_eq!(extents, [(1 << 20, 3), (65_536, 0), (DISK - (1 << 20) - 65_536, 3)]);
    for check in ["--can=multi-conn", "--can=fast-zero", "--can=fua"] {
        run("nbdinfo", &[check, &uri]);
    }
}

#[test]
fn nbdcopy_there_and_back() {
    for lazy in [false, true] {
        let fixture = fixture(lazy);
        let (source, copy) = (fixture.directory.path().join("source"), fixture.directory.path().join("copy"));
        let image = image();
        std::fs::write(&source, &image).unwrap();
        run("nbdcopy", &["--flush", "--connections=4", text(&source), &fixture.uri("disk")]);
        assert!(fixture.simple().read(0, DISK as u32) == image);
        std::fs::File::create(&copy).unwrap().set_len(DISK).unwrap();
        run("nbdcopy", &["--connections=4", &fixture.uri("disk"), text(&copy)]);
        assert!(std::fs::read(&copy).unwrap() == image);
        std::fs::remove_file(&copy).unwrap();
        std::fs::File::create(&copy).unwrap().set_len(DISK).unwrap();
        run("nbdcopy", &["--synchronous", "--request-size=8388608", &fixture.uri("disk"), text(&copy)]);
        assert!(std::fs::read(&copy).unwrap() == image);
    }
}

#[test]
fn qemu_img_there_and_back() {
    let fixture = fixture(true);
    let (source, copy) =
        (fixture.directory.path().join("source"), fixture.directory.path().join("copy.qcow2"));
    let uri = fixture.uri("disk");
    std::fs::write(&source, image()).unwrap();
    let size = json(&run("qemu-img", &["info", "--output=json", &uri]))["virtual-size"].clone();
    assert_eq!(size, DISK);
    run("qemu-img", &["convert", "-n", "-W", "-f", "raw", "-O", "raw", text(&source), &uri]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&source), &uri]);
    assert!(fixture.simple().read(0, DISK as u32) == image());
    let map = json(&run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]));
    let zeros: u64 = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|extent| extent["zero"] == true && extent["data"] == false)
        .map(|extent| extent["length"].as_u64().unwrap())
        .sum();
    assert!(zeros > 20 << 20, "{map}");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, text(&copy)]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&source), text(&copy)]);
}

#[test]
fn qemu_io_writes_zeroes_and_discards() {
    let fixture = fixture(false);
    let script = [
        "write -P 0xa5 0 1M",
        "read -P 0xa5 0 1M",
        "write -P 0x5a 1001 3003",
        "read -P 0x5a 1001 3003",
        "read -P 0xa5 0 1001",
        "read -P 0xa5 4004 4",
        "write -f -P 0x11 2M 64k",
        "write -z 512k 64k",
        "read -P 0 512k 64k",
        "write -z -u -n 600k 4k",
        "write -z 700001 99",
        "read -P 0 700001 99",
        "read -P 0xa5 700100 100",
        "discard 2M 64k",
        "flush",
        "aio_write -P 0x77 4M 1M",
        "aio_write -P 0x78 5M 1M",
        "aio_flush",
        "read -P 0x77 4M 1M",
        "read -P 0x78 5M 1M",
    ];
    let uri = fixture.uri("disk");
    let mut arguments = vec!["-f", "raw", "-t", "none"];
    for command in script {
        arguments.extend(["-c", command]);
    }
    arguments.push(&uri);
    let printed = run("qemu-io", &arguments);
    assert!(!printed.contains("failed"), "{printed}");
    let called = fixture.device.called();
    assert!(called.iter().any(|call| call == "zero 524288 65536 false"), "{called:?}");
    assert!(called.iter().any(|call| call == "zero 614400 4096 true"), "{called:?}");
    assert!(called.iter().any(|call| call == "trim 2097152 65536"), "{called:?}");
    let mut client = fixture.simple();
    assert_eq!(client.read(1000, 3), [0xa5, 0x5a, 0x5a]);
    assert_eq!(client.read(700_000, 2), [0xa5, 0]);
}

/// Parallel requests of every kind from libnbd's Python binding, checked against a model.
#[test]
fn libnbd_python_agrees_with_a_model() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/stress.py");
    run("/usr/bin/python3", &["-c", "import nbd"]);
    for lazy in [false, true] {
        let fixture = fixture(lazy);
        for structured in ["structured", "simple"] {
            let printed = run("/usr/bin/python3", &[script, text(&fixture.path()), structured, "7"]);
            assert!(printed.starts_with("ok "), "{printed}");
        }
    }
}
