//! What a new user tries first, and what is said where it does not work.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Bench, MEDIA, Ran, TINY, mixed_file, program, tool};

const MIB: u64 = 1 << 20;

/// A command through a shell, with its words as they are typed; `$H` is the program on the site.
fn shell(bench: &Bench, line: &str) -> Ran {
    let site = format!("{} --site {}", program(), bench.dir().display());
    let mut command = Command::new("bash");
    command.current_dir(bench.path("")).env("H", site).env_remove("HOLDFAST_SITE").args(["-c", line]);
    Ran::new(command.stdin(Stdio::null()).output().unwrap())
}

/// A line that must fail with this code, and say this.
fn says(bench: &Bench, line: &str, exit: i32, code: &str, words: &[&str]) {
    let ran = shell(bench, &format!("$H -o json {line}"));
    let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{line}: {error}: {ran:?}"));
    assert_eq!((ran.code, error["code"].as_str()), (exit, Some(code)), "{line}: {ran:?}");
    let said = format!("{} {}", error["message"].as_str().unwrap(), error["hint"].as_str().unwrap());
    for word in words {
        assert!(said.contains(word), "{line}: {word:?} is not said in: {said}");
    }
}

fn works(bench: &Bench, line: &str) -> String {
    let ran = shell(bench, line);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran.stdout
}

#[test]
fn images_are_what_their_names_say_and_disks_as_large_as_told() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    mixed_file(&bench.path("image.raw"), 8 * MIB, 1);
    works(&bench, "qemu-img convert -f raw -O qcow2 image.raw image.qcow2");
    // Larger than the image, and never smaller.
    works(&bench, "$H vm import web01 image.qcow2 --size 12M");
    works(&bench, "$H vm import web02 image.raw --size 8M");
    says(&bench, "vm import web03 image.qcow2 --size 4M", 2, "would_shrink", &["8.0 MiB", "4.0 MiB"]);
    let bytes = |vm: &str| bench.json(&["vm", "show", vm]).json()["disks"][0]["bytes"].clone();
    assert_eq!((bytes("web01"), bytes("web02")), (Value::from(12 * MIB), Value::from(8 * MIB)));
    assert_eq!(bench.json(&["vm", "show", "web03"]).code, 4);
    works(&bench, "$H vm export web01 x.qcow2 && $H vm export web01 x.raw && $H vm export web01 -f qcow2 x");
    let format = |file: &str| works(&bench, &format!("qemu-img info --output=json {file}"));
    assert!(
        format("x.qcow2").contains("\"format\": \"qcow2\"") && format("x").contains("\"format\": \"qcow2\"")
    );
    works(&bench, "cmp -n 8388608 image.raw x.raw && qemu-img compare -f raw -F qcow2 x.raw x.qcow2");
    works(&bench, "$H vm export web01 - | cmp - x.raw");
    for (line, words) in [
        ("vm export web01 y.qcow2 -f raw", &["qcow2", "-f"][..]),
        ("vm export web01 y.raw -f qcow2", &["raw", "-f"]),
        ("vm export web01 y.vmdk", &["vmdk", "qemu-img convert"]),
        ("vm export web01 y.raw.zst", &["zstd", "vm export VM - |"]),
    ] {
        says(&bench, line, 2, "usage", words);
    }
    assert!(!["y.qcow2", "y.raw", "y.vmdk", "y.raw.zst"].iter().any(|file| bench.path(file).exists()));
    // Places that are no file.
    for line in ["vm export web01 /dev/null", "file get web01/notes /dev/null"] {
        says(&bench, line, 6, "file_exists", &["- > /dev/null"]);
    }
    says(&bench, "vm export web01 .", 6, "file_exists", &["name a file in it"]);
    says(&bench, "vm export web01 x.raw", 6, "file_exists", &["another file"]);
}

#[test]
fn streams_come_in_and_what_is_missing_is_said() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    mixed_file(&bench.path("image"), MIB, 1);
    says(&bench, "vm import web01 nothing.raw", 2, "image_unreadable", &["its name is right"]);
    says(&bench, "vm import web01 <(cat image)", 2, "image_unreadable", &["| holdfast vm import VM -"]);
    for line in ["vm import web01 -", "vm import web01 - -f raw", "vm import web01 - --size 1M"] {
        says(&bench, &format!("{line} < /dev/null"), 2, "image_unreadable", &["empty"]);
    }
    works(&bench, ": > empty");
    says(&bench, "vm import web01 empty -f raw", 2, "image_unreadable", &["empty"]);
    assert_eq!(bench.json(&["vm", "list"]).json()["items"].as_array().unwrap().len(), 0);
    works(&bench, "cat image | $H vm import web01 -");
    works(&bench, "cp image 'Win11 (1).iso'");
    says(&bench, "file put web01 'Win11 (1).iso'", 2, "invalid_name", &["--as Win11--1-.iso"]);
    says(&bench, "file put web01 <(cat image)", 2, "usage", &["--as"]);
    says(&bench, "file put web01 .", 1, "file_error", &["directory"]);
    works(
        &bench,
        "$H file put web01 <(cat image) --as notes && $H file put web01 'Win11 (1).iso' --as a.iso",
    );
    works(&bench, "$H file get web01/notes - | cmp - image");
}

#[test]
fn a_disk_is_called_the_same_everywhere() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    works(&bench, "$H vm create web01 --disk 1M --disk 1M && echo text | $H file put web01 - --as notes");
    let all = works(&bench, "$H disk attach-info web01/disk1 && $H file attach-info web01/notes");
    assert_eq!(works(&bench, "$H disk attach-info web01 disk1 && $H file attach-info web01 notes"), all);
    works(&bench, "$H disk resize web01/disk1 2M && $H disk resize web01 disk0 2M");
    works(&bench, "$H disk remove web01/disk1 --dry-run && $H disk remove web01/disk1 --yes");
    works(&bench, "$H disk add web01 1M && $H disk remove web01 disk1 --yes");
    works(&bench, "$H file delete web01/notes --dry-run && $H file delete web01/notes --yes");
    for line in ["disk remove web01 --yes", "disk resize web01 2M", "disk attach-info web01/disk0 disk0"] {
        says(&bench, line, 2, "usage", &["VM/DISK"]);
    }
    says(&bench, "disk resize web01/disk0 2Q", 2, "invalid_size", &["2Q"]);
    says(&bench, "file delete web01 --yes", 2, "usage", &["VM/FILE"]);
}

#[test]
fn names_have_capitals_and_are_one_whatever_their_case() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    works(&bench, "$H vm create Web01 --disk 1M && $H vm create old --disk 1M");
    says(&bench, "vm create web01 --disk 1M", 6, "vm_exists", &["web01"]);
    says(&bench, "vm import WEB01 - <<< 'some bytes'", 6, "vm_exists", &[]);
    says(&bench, "vm clone old wEB01", 6, "vm_exists", &[]);
    let names = |bench: &Bench| {
        let list = bench.json(&["vm", "list"]).json();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|vm| vm["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&bench), ["old", "Web01"]);
    bench.connect("Web01/disk0").write(0, b"data").unwrap();
    assert_eq!(bench.connect("wEB01/disk0").read(0, 4).unwrap(), b"data");
    assert_eq!(bench.json(&["vm", "show", "WEB01"]).json()["disks"][0]["export"], "Web01/disk0");
    works(&bench, "$H vm snapshot web01 --name Before");
    says(&bench, "vm snapshot Web01 --name before", 6, "snapshot_exists", &[]);
    assert_eq!(bench.json(&["snapshot", "show", "WEB01@BEFORE"]).json()["name"], "Before");
    assert_eq!(bench.connect("web01@before/disk0").read(0, 4).unwrap(), b"data");
    works(&bench, "$H snapshot rename web01@before BEFORE && $H vm export WEB01@before out.raw");
    server.kill();
    let _server = bench.start(&[]);
    let all = bench.json(&["snapshot", "list", "--vm", "web01"]).json();
    assert_eq!((&all["items"][0]["vm"], &all["items"][0]["name"]), (&"Web01".into(), &"BEFORE".into()));
    let list = tool("qemu-nbd", ["-L", "-k", bench.dir().join("nbd.sock").to_str().unwrap()]);
    assert!(list.contains("'Web01/disk0'"), "{list}");
    // A rename that changes the case alone, of one that is open too.
    let open = bench.connect("web01/disk0");
    assert_eq!(bench.json(&["vm", "rename", "web01", "WEB01"]).json()["name"], "WEB01");
    drop(open);
    works(&bench, "$H snapshot delete web01@before --yes && $H trash restore WEB01@Before");
    let deleted = "$H vm delete web01 --with-snapshots --yes && $H vm create Web01 --disk 1M";
    works(&bench, deleted);
    says(&bench, "trash restore web01", 6, "vm_exists", &["--as"]);
    works(&bench, "$H trash restore web01 --as Other && $H vm rename other OTHER");
    assert_eq!(names(&bench), ["old", "OTHER", "Web01"]);
    works(&bench, "$H space && $H space --vm other | grep OTHER@BEFORE && $H verify");
}

#[test]
fn a_full_pool_says_how_it_gets_room() {
    let ran = Ran::new(Command::new(program()).args(["explain", "no_space"]).output().unwrap());
    assert!(ran.stdout.contains("`trash empty`") && ran.stdout.contains("`clean`"), "{ran:?}");
}
