//! Other people's NBD clients and file systems.
//!
//! These need what `cargo x setup` installs; the one with a file system needs root too, for a loop device.

mod frozen;
mod readme;
mod schemathesis;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bench, MEDIA, Random, mixed_file, tool, try_tool, wanted};

const MIB: u64 = 1 << 20;

#[test]
fn nbdinfo_lists_describes_and_maps() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    for name in ["web01", "web02"] {
        bench.create(name, "1G");
    }
    let uri = bench.uri("");
    let listed: Value = serde_json::from_str(&tool("nbdinfo", ["--list", "--json", &uri])).unwrap();
    let exports = listed["exports"].as_array().unwrap();
    let names: Vec<&str> = exports.iter().map(|export| export["export-name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web01/disk0", "web02/disk0"]);

    let uri = bench.uri("web01/disk0");
    let info: Value = serde_json::from_str(&tool("nbdinfo", ["--json", &uri])).unwrap();
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 1 << 30);
    for flag in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn"] {
        assert_eq!(export[flag], true, "{flag}");
    }
    assert_eq!(export["block_size_minimum"], 1);
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["block_size_maximum"], 32 * MIB);
    assert_eq!(export["contexts"][0], "base:allocation");

    let mut client = bench.connect("web01/disk0");
    client.write(MIB, &Random(1).bytes(8192)).unwrap();
    client.write(3 * MIB, &[0; 8192]).unwrap();
    let map: Value = serde_json::from_str(&tool("nbdinfo", ["--map", "--json", &uri])).unwrap();
    let extents: Vec<(u64, u64, u64)> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["offset"].as_u64().unwrap(), e["length"].as_u64().unwrap(), e["type"].as_u64().unwrap()))
        .collect();
    // 0: data; 3: a hole that reads as zeros, and zeros written are one.
    let behind = MIB + 8192;
    assert_eq!(extents, [(0, MIB, 3), (MIB, 8192, 0), (behind, (1 << 30) - behind, 3)]);
    assert_ne!(try_tool("nbdinfo", [&bench.uri("web03/disk0")]).code, 0);
}

#[test]
fn nbdcopy_brings_in_and_out_what_went_in() {
    let bench = Bench::new();
    let server = bench.start(MEDIA);
    let (image, copied) = (bench.path("image"), bench.path("copied"));
    // Not a multiple of anything.
    let length = 96 * MIB + 1536;
    mixed_file(&image, length, 7);
    bench.create("web01", &length.to_string());
    let uri = bench.uri("web01/disk0");
    let copy = |from: &str, to: &str| tool("nbdcopy", ["--flush", from, to]);
    copy(image.to_str().unwrap(), &uri);
    copy(&uri, copied.to_str().unwrap());
    same(&image, &copied);
    // Holes went in as holes.
    let used = bench.json(&["vm", "show", "web01"]).json()["disks"][0]["used_bytes"].as_u64().unwrap();
    assert!(used > 0 && used < length * 3 / 4, "{used} of {length}");
    // From disk to disk, both ours; then over a kill.
    bench.create("web02", &length.to_string());
    copy(&uri, &bench.uri("web02/disk0"));
    server.kill();
    let _server = bench.start(&[]);
    copy(&bench.uri("web02/disk0"), copied.to_str().unwrap());
    same(&image, &copied);
}

fn same(left: &Path, right: &Path) {
    tool("cmp", [left, right]);
}

#[test]
fn qemu_io_finds_no_difference_to_a_file() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    let size = 64 * MIB;
    bench.create("web01", &size.to_string());
    let raw = bench.path("raw");
    std::fs::File::create(&raw).unwrap().set_len(size).unwrap();
    // `blkverify:` spelled out, so that no format is guessed.
    let image = format!(
        "driver=blkverify,raw.driver=file,raw.filename={},test.driver=raw,test.file.driver=nbd,\
         test.file.server.type=unix,test.file.server.path={},test.file.export=web01/disk0",
        raw.display(),
        bench.dir().join("nbd.sock").display()
    );
    let mut random = Random(11);
    let mut commands: Vec<String> = Vec::new();
    for number in 0..400_u64 {
        // Sectors: what QEMU's block layer gives to both sides.
        let length = 512 * (1 + random.below(if number % 10 == 0 { 2048 } else { 64 }));
        let offset = random.below((size - length) / 512) * 512;
        commands.push(match random.below(10) {
            0..4 => format!("write -P {} {offset} {length}", 1 + number % 255),
            4 => format!("aio_write -P {} {offset} {length}", 1 + number % 255),
            5 => format!("write -P 0 {offset} {length}"),
            6 => format!("write -f -P {} {offset} {length}", 1 + number % 255),
            7 => "flush".to_owned(),
            _ => format!("read {offset} {length}"),
        });
        if number % 20 == 19 {
            commands.push("aio_flush".to_owned());
        }
    }
    commands.push(format!("read 0 {size}"));
    let run = |commands: &[String]| {
        let arguments = commands.iter().flat_map(|command| ["-c", command.as_str()]);
        try_tool("qemu-io", arguments.chain(["--image-opts", image.as_str()]))
    };
    let ran = run(&commands);
    assert!(ran.code == 0 && !ran.stderr.contains("mismatch"), "{ran:?}");
    // What would tell of a difference does.
    let mut bytes = std::fs::read(&raw).unwrap();
    bytes[12_345] ^= 1;
    std::fs::write(&raw, bytes).unwrap();
    let ran = run(&commands[commands.len() - 1..]);
    assert!(ran.code != 0 && format!("{ran:?}").contains("mismatch"), "{ran:?}");
}

#[test]
fn fio_verifies_what_it_wrote() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    bench.create("web01", "256M");
    for (name, more) in [
        ("random", &["--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=24m"][..]),
        ("mixed", &["--rw=randwrite", "--bsrange=512-256k", "--bs_unaligned", "--iodepth=8", "--size=48m"]),
        ("synced", &["--rw=write", "--bs=64k", "--fsync=4", "--iodepth=4", "--offset=128m", "--size=32m"]),
    ] {
        // The engine before its own option.
        let uri = bench.uri("web01/disk0");
        let common = [
            &format!("--name={name}"),
            "--ioengine=nbd",
            &format!("--uri={uri}"),
            &format!("--aux-path={}", bench.path("").display()),
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--randseed=5",
        ];
        let said = tool("fio", [&common[..], more].concat());
        assert!(said.contains("err= 0"), "{said}");
    }
}

/// Undoes, in reverse order, what must not be left behind.
#[derive(Default)]
struct Undo(Vec<Vec<String>>);

impl Undo {
    fn push(&mut self, command: &[&str]) {
        self.0.push(command.iter().map(|word| (*word).to_owned()).collect());
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some(command) = self.0.pop() {
            // It may be undone already.
            let _ = Command::new(&command[0]).args(&command[1..]).stderr(Stdio::null()).status();
        }
    }
}

/// An export as a block device: nbdfuse, and a loop device on its file.
struct Device {
    fuse: Child,
    path: String,
    undo: Undo,
}

impl Device {
    fn attach(bench: &Bench, export: &str) -> Self {
        Self::attach_at(bench, export, &bench.path("fuse"))
    }

    fn attach_at(bench: &Bench, export: &str, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let file = folder.join("disk");
        let mut fuse = Command::new("setpriv");
        fuse.args(["--pdeathsig", "TERM", "--", "nbdfuse"]).arg(&file).arg(bench.uri(export));
        let fuse = fuse.spawn().unwrap_or_else(|error| panic!("{}: {error}", wanted("nbdfuse")));
        let mut undo = Undo::default();
        undo.push(&["umount", "--lazy", folder.to_str().unwrap()]);
        wait_for(&file);
        let path = tool("losetup", ["--find", "--show", file.to_str().unwrap()]).trim().to_owned();
        undo.push(&["losetup", "--detach", &path]);
        Self { fuse, path, undo }
    }

    fn detach(mut self) {
        drop(std::mem::take(&mut self.undo));
        assert!(self.fuse.wait().unwrap().success(), "nbdfuse failed");
    }
}

fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "nbdfuse does not serve; {}", wanted("nbdfuse"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes files into a folder; gives them with their checksums.
fn write_files(folder: &Path, seed: u64) -> Vec<(PathBuf, Vec<u8>)> {
    let mut random = Random(seed);
    let write = |number: u64| {
        let path = folder.join(format!("file-{seed}-{number}"));
        let length = random.below(400_000) as usize;
        let bytes = random.bytes(length);
        std::fs::write(&path, &bytes).unwrap();
        (path, bytes)
    };
    (0..60).map(write).collect()
}

#[test]
fn ext4_lives_on_it_over_fuse_and_loop() {
    let bench = Bench::new();
    let server = bench.start(MEDIA);
    bench.create("web01", "512M");
    let folder = bench.path("mounted");
    std::fs::create_dir(&folder).unwrap();
    let mount = folder.to_str().unwrap();

    let mut device = Device::attach(&bench, "web01/disk0");
    tool("mkfs.ext4", ["-q", "-E", "lazy_itable_init=0,discard", &device.path]);
    tool("mount", ["-t", "ext4", &device.path, mount]);
    device.undo.push(&["umount", mount]);
    let mut files = write_files(&folder, 1);
    tool("sync", ["-f", mount]);
    for (path, _) in files.drain(..30) {
        std::fs::remove_file(path).unwrap();
    }
    tool("fstrim", [mount]);
    files.extend(write_files(&folder, 2));
    tool("umount", [mount]);
    tool("e2fsck", ["-fn", &device.path]);
    device.detach();

    server.kill();
    let server = bench.start(&[]);
    let mut device = Device::attach(&bench, "web01/disk0");
    tool("e2fsck", ["-fn", &device.path]);
    tool("mount", ["-t", "ext4", "-o", "ro", &device.path, mount]);
    device.undo.push(&["umount", mount]);
    for (path, bytes) in &files {
        assert!(std::fs::read(path).unwrap() == *bytes, "{} differs", path.display());
    }
    tool("umount", [mount]);
    device.detach();
    assert_eq!(server.stop("TERM").code(), Some(0));
}
