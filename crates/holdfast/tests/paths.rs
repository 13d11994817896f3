//! Paths are bytes: what is no text is a path like any other.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Bench, Ran, TINY, mixed_file, program, tool};

/// A name that is no text, with what qemu-img's options are made of.
fn odd(bench: &Bench, ending: &str) -> PathBuf {
    let mut name = OsString::from(OsStr::from_bytes(b"\xe9, a=\xff%"));
    name.push(ending);
    bench.path("").join(name)
}

/// A command on a site in any directory.
fn ran(site: &Path, arguments: &[&OsStr]) -> Ran {
    let mut command = Command::new(program());
    command.env_remove("HOLDFAST_SITE").arg("--site").arg(site).args(arguments).args(["-o", "json"]);
    Ran::new(command.stdin(Stdio::null()).output().unwrap())
}

fn json(site: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Value {
    let arguments: Vec<&OsStr> = arguments.iter().map(|argument| (*argument).as_ref()).collect();
    let ran = ran(site, &arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

/// Names in the folder of the test.
fn names(bench: &Bench) -> Vec<OsString> {
    let mut names: Vec<OsString> =
        std::fs::read_dir(bench.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn paths_that_are_no_text_work_everywhere() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    // The server is started by another name of its directory, which is what commands go by.
    let site = odd(&bench, ".site");
    std::os::unix::fs::symlink(bench.dir(), &site).unwrap();
    let raw = odd(&bench, ".raw");
    mixed_file(&raw, 1 << 20, 3);
    for (number, format) in ["qcow2", "vmdk"].into_iter().enumerate() {
        let image = odd(&bench, &format!(".{format}"));
        let convert: [&OsStr; 7] = [
            "convert".as_ref(),
            "-f".as_ref(),
            "raw".as_ref(),
            "-O".as_ref(),
            format.as_ref(),
            raw.as_ref(),
            image.as_ref(),
        ];
        tool("qemu-img", convert);
        json(&site, &[&"vm", &"import", &format!("vm{number}"), &image]);
        std::fs::remove_file(image).unwrap();
    }
    json(&site, &[&"vm", &"import", &"raw", &raw]);
    json(&site, &[&"file", &"put", &"raw", &raw, &"--as", &"notes"]);
    let text = odd(&bench, ".xml");
    std::fs::write(&text, "<domain/>").unwrap();
    json(&site, &[&"vm", &"set-definition", &"raw", &text]);
    let before = names(&bench);
    for (vm, ending) in [("vm0", ".0.raw"), ("vm1", ".1.raw"), ("raw", ".2.qcow2"), ("raw/disk0", ".3.img")] {
        let out = odd(&bench, ending);
        json(&site, &[&"vm", &"export", &vm, &out]);
        let flat = bench.path("flat");
        let format = if ending.ends_with("qcow2") { "qcow2" } else { "raw" };
        let convert: [&OsStr; 7] = [
            "convert".as_ref(),
            "-f".as_ref(),
            format.as_ref(),
            "-O".as_ref(),
            "raw".as_ref(),
            out.as_ref(),
            flat.as_ref(),
        ];
        tool("qemu-img", convert);
        tool("cmp", [&raw, &flat]);
        std::fs::remove_file(out).unwrap();
        std::fs::remove_file(flat).unwrap();
    }
    let got = odd(&bench, ".got");
    json(&site, &[&"file", &"get", &"raw/notes", &got]);
    tool("cmp", [&raw, &got]);
    std::fs::remove_file(got).unwrap();
    assert_eq!(names(&bench), before, "nothing is left under another name");
    // What has no place for it says so.
    let attach = ran(&site, &["disk".as_ref(), "attach-info".as_ref(), "raw/disk0".as_ref()]);
    assert_eq!(attach.error()["code"], "invalid_path");
    let medium = ran(&site, &["media".as_ref(), "add".as_ref(), raw.as_ref()]);
    assert_eq!(medium.error()["code"], "usage");
    let named = ran(&site, &["file".as_ref(), "put".as_ref(), "raw".as_ref(), raw.as_ref()]);
    assert!(named.error()["hint"].as_str().unwrap().contains("--as"), "{named:?}");
}

#[test]
fn a_site_in_a_directory_that_is_no_text_is_served() {
    let bench = Bench::new();
    let site = odd(&bench, "");
    let key = odd(&bench, ".phrase");
    std::fs::write(&key, "a phrase\n").unwrap();
    let start = || {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program()).arg("standalone").arg("--dir").arg(&site);
        command.args(TINY).arg("--passphrase-file").arg(&key).env_remove("HOLDFAST_SITE");
        crate::harness::Server::spawn_at(&bench, command, &site).serving()
    };
    for name in ["a", "b"] {
        let server = start();
        json(&site, &[&"vm", &"create", &name, &"--disk", &"1M"]);
        server.kill();
    }
    let _server = start();
    assert_eq!(json(&site, &[&"vm", &"list"])["items"].as_array().unwrap().len(), 2);
}
