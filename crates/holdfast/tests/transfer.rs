//! Images in and out, through qemu-img and as raw streams; ends that are not the good one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bench, MEDIA, Ran, Random, TINY, mixed_file, program, tool};

const MIB: u64 = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn qemu_img(arguments: &[&str]) -> String {
    tool("qemu-img", arguments)
}

/// Names of VMs.
fn vms(bench: &Bench) -> Vec<String> {
    let list = bench.json(&["vm", "list"]).json();
    list["items"].as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
}

/// The newest task.
fn newest(bench: &Bench) -> Value {
    bench.json(&["task", "list"]).json()["items"][0].clone()
}

/// Code of a command's error: the last line, behind events.
fn code(ran: &Ran) -> String {
    assert!(ran.code != 0 && ran.stdout.is_empty(), "{ran:?}");
    let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    error["code"].as_str().unwrap().to_owned()
}

/// A command with a pipe as standard input.
fn piped(bench: &Bench, arguments: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.env_remove("HOLDFAST_SITE").arg("--site").arg(bench.dir()).args(arguments).args(["-o", "json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A command with a file as standard input.
fn fed(bench: &Bench, arguments: &[&str], input: &Path) -> Ran {
    let mut command = Command::new(program());
    command.env_remove("HOLDFAST_SITE").arg("--site").arg(bench.dir()).args(arguments).args(["-o", "json"]);
    Ran::new(command.stdin(std::fs::File::open(input).unwrap()).output().unwrap())
}

fn ended(child: Child) -> Ran {
    Ran::new(child.wait_with_output().unwrap())
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn images_of_every_format_come_in_and_go_out_as_they_were() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    let raw = bench.path("image, with a comma.raw");
    mixed_file(&raw, 24 * MIB, 5);
    for format in ["raw", "qcow2", "vmdk"] {
        let image = bench.path(&format!("image,{format}"));
        qemu_img(&["convert", "-f", "raw", "-O", format, text(&raw), text(&image)]);
        let vm = bench.json(&["vm", "import", format, text(&image)]).json();
        assert_eq!((&vm["name"], &vm["state"]), (&format.into(), &"ready".into()));
        assert_eq!(vm["disks"][0]["bytes"], 24 * MIB);
        let used = vm["disks"][0]["used_bytes"].as_u64().unwrap();
        assert!(used > 0 && used < 20 * MIB, "{used}: holes stay holes");
        let task = newest(&bench);
        assert_eq!(
            (&task["kind"], &task["state"], &task["target"]),
            (&"import".into(), &"done".into(), &format.into())
        );
        assert_eq!(task["done_bytes"], 24 * MIB);
        let (out, stream) = (bench.path(&format!("{format}.out")), bench.path(&format!("{format}.stream")));
        bench.json(&["vm", "export", format, text(&out)]).json();
        tool("cmp", [&raw, &out]);
        let file = std::fs::File::create(&stream).unwrap();
        let mut command = Command::new(program());
        command.arg("--site").arg(bench.dir()).args(["vm", "export", &format!("{format}/disk0"), "-"]);
        assert!(command.stdout(file).status().unwrap().success());
        tool("cmp", [&raw, &stream]);
    }
    let out = bench.path("out.qcow2");
    let task = bench.json(&["vm", "export", "raw", text(&out), "-f", "qcow2"]).json();
    assert_eq!((&task["kind"], &task["state"]), (&"export".into(), &"done".into()));
    qemu_img(&["compare", "-f", "raw", "-F", "qcow2", text(&raw), text(&out)]);
    let again = bench.json(&["vm", "export", "raw", text(&out), "-f", "qcow2"]);
    assert_eq!((again.code, code(&again).as_str()), (6, "file_exists"));
    bench.json(&["disk", "add", "raw", "1M"]).json();
    let which = bench.json(&["vm", "export", "raw", text(&bench.path("x"))]);
    assert_eq!((which.code, code(&which).as_str()), (2, "usage"));
    assert!(which.stderr.contains("raw/disk0, raw/disk1;"), "{which:?}");
    assert_eq!(newest(&bench)["state"], "failed");
    assert!(!bench.path("x").exists() && parts(&bench).is_empty());
}

/// Temporaries beside the files of the test.
fn parts(bench: &Bench) -> Vec<String> {
    let all = std::fs::read_dir(bench.path("")).unwrap();
    let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".part")).collect()
}

/// What lies beside the target, whatever its name, is somebody's; of two commands for one target one is told so.
#[test]
fn files_of_others_are_left_alone() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    let raw = bench.path("raw.img");
    mixed_file(&raw, 8 * MIB, 2);
    bench.json(&["vm", "import", "a", text(&raw)]).json();
    bench.json(&["file", "put", "a", text(&raw), "--as", "notes"]).json();
    let secret = bench.path("secret");
    std::fs::write(&secret, "secret").unwrap();
    let takes: [&[&str]; 2] = [&["vm", "export", "a"], &["file", "get", "a/notes"]];
    for (at, take) in takes.into_iter().enumerate() {
        let (target, part) = (bench.path(&format!("{at}.img")), bench.path(&format!("{at}.img.part")));
        std::os::unix::fs::symlink(&secret, &part).unwrap();
        let both: Vec<Child> = (0..2).map(|_| piped(&bench, &[take, &[text(&target)]].concat())).collect();
        let ended: Vec<Ran> = both.into_iter().map(ended).collect();
        let failed: Vec<&Ran> = ended.iter().filter(|ran| ran.code != 0).collect();
        assert_eq!(failed.len(), 1, "{ended:?}");
        assert_eq!((failed[0].code, code(failed[0]).as_str()), (6, "file_exists"));
        tool("cmp", [&raw, &target]);
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(parts(&bench), [format!("{at}.img.part")]);
        std::fs::remove_file(&part).unwrap();
    }
}

/// One block over and over, then units of some bytes, both twice: what lists the changes of so many blocks keeps its bounds,
/// and the site starts again behind a kill.
#[test]
fn images_of_a_hundred_thousand_tiny_blocks_come_in() {
    const BLOCKS: usize = 102_400;
    let bench = Bench::new();
    let (fill, tiny) = (bench.path("fill"), bench.path("tiny"));
    std::fs::write(&fill, vec![0xff; BLOCKS * 4096]).unwrap();
    let mut contents = vec![0; BLOCKS / 2 * 4096];
    let mut random = Random(8);
    for block in contents.chunks_exact_mut(4096) {
        block[..100].copy_from_slice(&random.bytes(100));
    }
    std::fs::write(&tiny, contents).unwrap();
    let server = bench.start(MEDIA);
    for (vm, image) in [("fill", &fill), ("again", &fill), ("tiny", &tiny), ("twice", &tiny)] {
        bench.json(&["vm", "import", vm, text(image)]).json();
    }
    let status = bench.json(&["status"]).json();
    assert_eq!(status["health"], "ok", "{status}");
    server.kill();
    let _server = bench.start(&[]);
    for (vm, image) in [("again", &fill), ("twice", &tiny)] {
        let out = bench.path(vm);
        bench.json(&["vm", "export", vm, text(&out)]).json();
        tool("cmp", [image, &out]);
    }
}

#[test]
fn an_image_that_is_not_whole_is_refused_before_anything_is_made() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    let secret = bench.path("secret");
    std::fs::write(&secret, vec![b's'; 1 << 20]).unwrap();
    let path = |name: &str| bench.path(name).display().to_string();
    let (backed, with_data) = (path("backed"), path("with_data"));
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(&secret), &backed]);
    let data = format!("data_file={},data_file_raw=on", path("data"));
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &data, &with_data, "1M"]);
    let (locked, flat) = (path("locked"), path("flat.vmdk"));
    // Not LUKS: making its key measures the processor's speed, and fails on a busy machine.
    let key = ["--object", "secret,id=key,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=key"];
    qemu_img(&[&["create", "-q", "-f", "qcow2"], &key[..], &[&locked, "1M"]].concat());
    qemu_img(&["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", &flat, "1M"]);
    let noise = path("noise");
    std::fs::write(&noise, Random(1).bytes(1 << 20)).unwrap();
    let mut damaged = std::fs::read(&backed).unwrap();
    damaged[8..16].fill(0);
    damaged[20..24].fill(0xff);
    let broken = path("broken");
    std::fs::write(&broken, damaged).unwrap();
    for (image, extra, wanted) in [
        (&backed, &[][..], "image_not_whole"),
        (&backed, &["-f", "qcow2"], "image_not_whole"),
        (&with_data, &[], "image_not_whole"),
        (&flat, &[], "image_not_whole"),
        (&locked, &[], "image_encrypted"),
        (&broken, &[], "image_unreadable"),
        (&noise, &["-f", "qcow2"], "image_unreadable"),
        (&noise, &["-f", "vmdk"], "image_unreadable"),
        (&path("nothing"), &[], "image_unreadable"),
        (&path("."), &[], "image_unreadable"),
        (&"-".to_owned(), &["-f", "qcow2"], "usage"),
    ] {
        let ran = bench.json(&[&["vm", "import", "web01", image][..], extra].concat());
        assert_eq!((ran.code, code(&ran).as_str()), (2, wanted), "{image} {extra:?}");
    }
    assert!(vms(&bench).is_empty());
    assert!(
        bench.json(&["task", "list"]).json()["items"].as_array().unwrap().is_empty(),
        "no task was begun"
    );
    // As raw bytes it is what it is: nothing of another file.
    bench.json(&["vm", "import", "web01", &backed, "-f", "raw"]).json();
    bench.json(&["vm", "export", "web01", &path("out")]).json();
    let (went_in, came_out) = (std::fs::read(&backed).unwrap(), std::fs::read(path("out")).unwrap());
    assert!(came_out[..went_in.len()] == went_in && !came_out.windows(64).any(|piece| piece == [b's'; 64]));
}

/// Formats that qemu-img makes, as it calls them and as `-f` does, with the variants that lie otherwise.
const FORMATS: [(&str, &str, &str, &[&str]); 12] = [
    ("qcow2", "qcow2", "a.qcow2", &[]),
    ("qcow2", "qcow2", "old.qcow2", &["-o", "compat=0.10"]),
    ("qcow2", "qcow2", "packed.qcow2", &["-c"]),
    ("qcow2", "qcow2", "small.qcow2", &["-o", "cluster_size=4k,extended_l2=off"]),
    ("vmdk", "vmdk", "a.vmdk", &[]),
    ("vmdk", "vmdk", "stream.vmdk", &["-o", "subformat=streamOptimized"]),
    ("vhdx", "vhdx", "a.vhdx", &[]),
    ("vpc", "vhd", "a.vhd", &[]),
    ("vpc", "vhd", "fixed.vhd", &["-o", "subformat=fixed,force_size=on"]),
    ("vdi", "vdi", "a.vdi", &[]),
    ("parallels", "parallels", "a.hdd", &[]),
    ("qed", "qed", "a.qed", &[]),
];

/// Every format comes in by its first bytes alone; one whose end is missing is refused, not read as zeros.
#[test]
fn images_of_every_kind_are_known_and_must_be_whole() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    let raw = bench.path("raw.img");
    mixed_file(&raw, 12 * MIB, 3);
    let refused = |image: &str, extra: &[&str], why: &str| {
        let ran = bench.json(&[&["vm", "import", "bad", image][..], extra].concat());
        assert_eq!((ran.code, code(&ran).as_str()), (2, "image_unreadable"), "{image}: {ran:?}");
        assert!(ran.stderr.contains(why), "{image}: {}", ran.stderr);
    };
    for (at, (made, named, file, extra)) in FORMATS.into_iter().enumerate() {
        let image = bench.path(file);
        qemu_img(&[&["convert", "-q", "-f", "raw", "-O", made], extra, &[text(&raw), text(&image)]].concat());
        let (vm, out) = (format!("vm{at}"), bench.path("out"));
        bench.json(&["vm", "import", &vm, text(&image)]).json();
        bench.json(&["vm", "export", &vm, text(&out)]).json();
        let (went_in, came_out) = (std::fs::read(&raw).unwrap(), std::fs::read(&out).unwrap());
        assert!(came_out.starts_with(&went_in) && came_out[went_in.len()..].iter().all(|byte| *byte == 0));
        std::fs::remove_file(&out).unwrap();
        bench.delete(&vm);
        let bytes = std::fs::read(&image).unwrap();
        // A fixed VHD is known by its last bytes.
        if file != "fixed.vhd" {
            std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
            refused(text(&image), &[], "");
            refused(text(&image), &["-f", named], "");
        }
        std::fs::write(&image, []).unwrap();
        refused(text(&image), &[], "by its name");
        std::fs::remove_file(&image).unwrap();
    }
    // Not closed, and with clusters that nothing uses: whole all the same.
    let open = bench.path("open.qcow2");
    qemu_img(&["convert", "-q", "-f", "raw", "-O", "qcow2", text(&raw), text(&open)]);
    let mut bytes = std::fs::read(&open).unwrap();
    bytes[79] |= 1;
    std::fs::write(&open, &bytes).unwrap();
    bench.json(&["vm", "import", "open", text(&open)]).json();
    for (first, at, why) in [
        (&b"\x1f\x8b\x08"[..], 0, "gzip -dc"),
        (b"\xfd7zXZ\0", 0, "xz -dc"),
        (b"BZh91AY&SY", 0, "bzip2 -dc"),
        (b"\x28\xb5\x2f\xfd", 0, "zstd -dc"),
        (b"PK\x03\x04", 0, "unzip"),
        (b"ustar", 257, "tar -xf"),
        (b"COWD", 0, "vmkfstools"),
    ] {
        let mut bytes = vec![0; 8192];
        bytes[at..at + first.len()].copy_from_slice(first);
        let wrapped = bench.path("wrapped");
        std::fs::write(&wrapped, bytes).unwrap();
        refused(text(&wrapped), &[], why);
        let stdin = fed(&bench, &["vm", "import", "bad", "-"], &wrapped);
        assert_eq!((stdin.code, code(&stdin).as_str()), (2, "image_unreadable"), "{stdin:?}");
        assert!(stdin.stderr.contains(why), "{}", stdin.stderr);
    }
    for nothing in ["open.qcow2", "empty"] {
        let path = bench.path(nothing);
        if nothing == "empty" {
            std::fs::write(&path, []).unwrap();
        }
        let stdin = fed(&bench, &["vm", "import", "bad", "-"], &path);
        assert_eq!((stdin.code, code(&stdin).as_str()), (2, "image_unreadable"), "{stdin:?}");
    }
    let pipe = bench.path("pipe");
    tool("mkfifo", [&pipe]);
    refused(text(&pipe), &[], "| holdfast vm import VM -");
    refused("/dev/null", &[], "| holdfast vm import VM -");
    // As it is asked for, whatever it looks like.
    bench.json(&["vm", "import", "packed", text(&bench.path("wrapped")), "-f", "raw"]).json();
    bench.json(&["vm", "import", "piped", text(&open), "-f", "raw"]).json();
    assert_eq!(vms(&bench), ["open", "packed", "piped"]);
}

#[test]
fn without_qemu_img_its_package_is_named() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    let image = bench.path("image");
    std::fs::write(&image, [1; 8192]).unwrap();
    let mut command = Command::new(program());
    command.env("PATH", "").arg("--site").arg(bench.dir()).args([
        "vm",
        "import",
        "web01",
        text(&image),
        "-o",
        "json",
    ]);
    let ran = Ran::new(command.output().unwrap());
    assert_eq!((ran.code, code(&ran).as_str()), (1, "program_missing"));
    assert!(ran.stderr.contains("qemu-utils"), "{ran:?}");
    assert!(vms(&bench).is_empty());
    let taken = bench.json(&["vm", "import", "web01", text(&image)]);
    taken.json();
    assert_eq!(code(&bench.json(&["vm", "import", "web01", text(&image)])), "vm_exists");
    assert_eq!(vms(&bench), ["web01"]);
}

#[test]
fn standard_input_makes_a_disk_as_large_as_itself_or_as_told() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    let raw = bench.path("raw");
    // More than one chunk, and not a multiple of anything.
    mixed_file(&raw, 70 * MIB + 700, 9);
    let import = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.arg("--site").arg(bench.dir()).args(["vm", "import"]).args(arguments).args(["-o", "json"]);
        Ran::new(command.stdin(std::fs::File::open(&raw).unwrap()).output().unwrap())
    };
    let vm = import(&["grown", "-"]).json();
    assert_eq!(vm["disks"][0]["bytes"], (70 * MIB + 700).next_multiple_of(512));
    let used = vm["disks"][0]["used_bytes"].as_u64().unwrap();
    assert!(used < 60 * MIB, "{used}: zeros are left out");
    assert_eq!(import(&["told", "-", "--size", "80M"]).json()["disks"][0]["bytes"], 80 * MIB);
    for name in ["grown", "told"] {
        let out = bench.path(name);
        bench.json(&["vm", "export", name, text(&out)]).json();
        tool("cmp", ["-n", &(70 * MIB + 700).to_string(), text(&raw), text(&out)]);
    }
    let less = import(&["less", "-", "--size", "64M"]);
    assert_eq!((less.code, code(&less).as_str()), (1, "copy_failed"));
    assert_eq!(vms(&bench), ["grown", "told"]);
    let task = newest(&bench);
    assert_eq!(task["state"], "failed");
    assert!(task["error"].as_str().unwrap().contains("64.0 MiB"), "{task}");
}

/// An import from a pipe of which one chunk is in and the rest does not come.
fn stuck_import(bench: &Bench, name: &str) -> (Child, Value) {
    let mut child = piped(bench, &["vm", "import", name, "-", "--size", "48M"]);
    child.stdin.as_mut().unwrap().write_all(&Random(3).bytes(33 << 20)).unwrap();
    until("a chunk is in", || {
        let task = newest(bench);
        task["target"] == name && task["done_bytes"].as_u64().is_some_and(|done| done > 0)
    });
    (child, newest(bench))
}

#[test]
fn an_import_that_is_ended_leaves_no_vm() {
    let bench = Bench::new();
    let server = bench.start(&[MEDIA, &["--task-patience", "5"]].concat());
    for (signal, exit) in [("INT", 130), ("TERM", 130)] {
        let (child, task) = stuck_import(&bench, "web01");
        assert_eq!(task["state"], "running");
        assert!(vms(&bench).is_empty());
        assert_eq!(bench.json(&["vm", "show", "web01"]).json()["state"], "importing");
        assert_eq!(bench.json(&["status"]).json()["tasks"][0]["id"], task["id"]);
        tool("kill", ["-s", signal, &child.id().to_string()]);
        let ran = ended(child);
        assert_eq!((ran.code, code(&ran).as_str()), (exit, "interrupted"));
        let events: Vec<Value> = ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(events[0]["progress"]["done_bytes"].is_u64(), "{events:?}");
        assert_eq!(newest(&bench)["state"], "cancelled");
        assert_eq!(bench.json(&["vm", "show", "web01"]).code, 4);
    }
    let (child, task) = stuck_import(&bench, "web01");
    let cancelled = bench.json(&["task", "cancel", &task["id"].to_string()]).json();
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(bench.json(&["vm", "show", "web01"]).code, 4);
    let ran = ended(child);
    assert_eq!((ran.code, code(&ran).as_str()), (6, "import_ended"));
    assert_eq!(bench.json(&["task", "cancel", &task["id"].to_string()]).code, 6);

    // A client that was killed is missed.
    let (mut child, _) = stuck_import(&bench, "web01");
    child.kill().unwrap();
    child.wait().unwrap();
    until("the client is missed", || newest(&bench)["state"] == "failed");
    // It goes when no request of the client is under way any more.
    until("its VM is gone", || bench.json(&["vm", "show", "web01"]).code == 4);

    // So is a server.
    let (mut child, task) = stuck_import(&bench, "web01");
    server.kill();
    let _server = bench.start(&[]);
    until("the VM is gone", || bench.json(&["vm", "show", "web01"]).code == 4);
    let shown = bench.json(&["task", "show", &task["id"].to_string()]).json();
    assert_eq!(shown["state"], "failed");
    assert_eq!(bench.json(&["status"]).json()["logical_bytes"], 0);
    drop(child.stdin.take());
    let ran = ended(child);
    assert!(ran.code != 0, "{ran:?}");
    assert!(vms(&bench).is_empty());
    bench.create("web01", "1M");
}

/// The part of a copy by qemu-img: it ends with its command.
#[test]
fn a_copy_ends_with_its_task() {
    let bench = Bench::new();
    let server = bench.start(MEDIA);
    let image: PathBuf = bench.path("image");
    std::fs::write(&image, Random(4).bytes(200 << 20)).unwrap();
    let mut child = piped(&bench, &["vm", "import", "web01", text(&image)]);
    drop(child.stdin.take());
    until("it has begun", || newest(&bench)["state"] == "running");
    let task = newest(&bench)["id"].to_string();
    // It may be done already on a fast machine: then there is nothing to end.
    let cancelled = bench.json(&["task", "cancel", &task]);
    let ran = ended(child);
    if cancelled.code == 0 {
        assert_eq!((ran.code, code(&ran).as_str()), (6, "import_ended"));
        assert!(vms(&bench).is_empty());
    }
    assert_eq!(bench.json(&["status"]).json()["tasks"], Value::Array(Vec::new()));
    server.kill();
}

/// The task that has ended says what it moved, however short it was.
#[test]
fn short_transfers_say_what_they_moved() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(bench.path(name), bytes).unwrap();
        bench.path(name)
    };
    let moved = |what: &str, bytes: u64| {
        let task = newest(&bench);
        assert_eq!(task["state"], "done", "{what}");
        assert_eq!((&task["done_bytes"], &task["total_bytes"]), (&bytes.into(), &bytes.into()), "{what}");
        let shown = bench.cli(&["task", "show", &task["id"].to_string()]).stdout;
        assert!(shown.contains("done    100.0 %"), "{what}: {shown}");
    };
    let (five, none, zeros) = (file("five", b"five!"), file("none", b""), file("zeros", &vec![0; 1 << 20]));
    bench.json(&["vm", "import", "zeros", text(&zeros)]).json();
    moved("an image of zeros", MIB);
    bench.json(&["vm", "import", "five", text(&five)]).json();
    moved("a small image", 4096);
    fed(&bench, &["vm", "import", "stream", "-"], &five).json();
    moved("a small stream", 5);
    fed(&bench, &["vm", "import", "nothing", "-", "-f", "raw"], &zeros).json();
    moved("a stream of zeros", MIB);
    bench.json(&["vm", "export", "zeros", text(&bench.path("out"))]).json();
    moved("an export", MIB);
    bench.json(&["file", "put", "five", text(&five)]).json();
    moved("a file", 5);
    fed(&bench, &["file", "put", "five", "-", "--as", "piped"], &five).json();
    moved("a file of a stream", 5);
    bench.json(&["file", "put", "five", text(&none)]).json();
    moved("an empty file", 0);
    bench.json(&["file", "get", "five/five", text(&bench.path("back"))]).json();
    moved("a file out", 5);
}
