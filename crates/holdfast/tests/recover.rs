//! `site recover` on the real binary: a site whose directory is lost, killed while it took writes.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::{Bench, Ran, Random, program};

const SIX: &[&str] = &["--file-media", "6x16M", "--layout", "tiny", "--io", "sync"];

/// A site that was killed with all it acknowledged in the journal, and whose directory is gone but for the media.
struct Lost {
    bench: Bench,
    written: Vec<u8>,
}

impl Lost {
    fn new() -> Self {
        let bench = Bench::new();
        let key = bench.path("recovery-key").display().to_string();
        let server = bench.start(&[SIX, &["--recovery-key-file", &key]].concat());
        bench.create("web01", "1M");
        let mut disk = bench.connect("web01/disk0");
        let written = Random(7).bytes(300_000);
        disk.write(4096, &written).unwrap();
        server.kill();
        for entry in std::fs::read_dir(bench.dir()).unwrap() {
            let path = entry.unwrap().path();
            if path != bench.dir().join("media") {
                std::fs::remove_file(path).unwrap();
            }
        }
        Self { bench, written }
    }

    fn recover(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(program());
        command.args(["site", "recover", "-o", "json", "--dir"]).arg(self.bench.dir());
        command.arg("--recovery-key-file").arg(self.bench.path("recovery-key")).args(arguments);
        Ran::new(command.env_remove("HOLDFAST_SITE").stdin(Stdio::null()).output().unwrap())
    }

    fn code(&self, arguments: &[&str]) -> String {
        let ran = self.recover(arguments);
        assert_ne!(ran.code, 0);
        assert!(ran.error()["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{ran:?}");
        ran.error()["code"].as_str().unwrap().to_owned()
    }

    fn check(&self) {
        let server = self.bench.start(&[]);
        let read = self.bench.connect("web01/disk0").read(4096, self.written.len() as u32).unwrap();
        assert!(read == self.written, "what was acknowledged is there");
        assert!(server.stop("TERM").success());
    }
}

/// What is in the directory, but for the lock, which is empty and stays.
fn folder(bench: &Bench) -> Vec<(PathBuf, u64)> {
    let mut found: Vec<_> = std::fs::read_dir(bench.dir())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "lock")
        .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
        .collect();
    found.sort();
    found
}

#[test]
fn a_lost_directory_comes_back_from_the_media_and_the_recovery_key() {
    let lost = Lost::new();
    let said = lost.recover(&["--from-media"]).json();
    assert_eq!((said["media"].as_u64(), said["missing"].as_u64()), (Some(6), Some(0)));
    lost.check();
    assert_eq!(lost.code(&["--from-media"]), "site_exists");
}

#[test]
fn media_that_are_lost_with_the_directory_must_be_said() {
    let lost = Lost::new();
    let media = lost.bench.media();
    std::fs::remove_file(&media[1]).unwrap();
    std::fs::remove_file(&media[4]).unwrap();
    let before = folder(&lost.bench);
    assert_eq!(lost.code(&["--from-media"]), "media_missing");
    assert_eq!(lost.code(&["--from-media", "--missing", "1"]), "media_missing");
    assert_eq!(folder(&lost.bench), before, "nothing half-done");
    lost.recover(&["--from-media", "--missing", "2"]).json();
    lost.check();
}

#[test]
fn a_recovery_that_makes_no_sense_changes_nothing() {
    let lost = Lost::new();
    let key = lost.bench.path("recovery-key");
    let right = std::fs::read(&key).unwrap();
    let before = folder(&lost.bench);
    std::fs::write(&key, "not a key").unwrap();
    assert_eq!(lost.code(&["--from-media"]), "recovery_key_wrong");
    std::fs::remove_file(&key).unwrap();
    assert_eq!(lost.code(&["--from-media"]), "recovery_key_wrong");
    std::fs::write(&key, &right).unwrap();
    let media = lost.bench.media();
    let first = media[0].display().to_string();
    assert_eq!(lost.code(&["--from-media", &first, &first]), "medium_busy");
    let blank = lost.bench.path("blank");
    std::fs::File::create(&blank).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(lost.code(&["--from-media", &first, &blank.display().to_string()]), "not_a_medium");
    assert_eq!(lost.code(&["--from-media", "/no/such/medium"]), "medium_missing");
    assert_eq!(lost.code(&[]), "usage");
    assert_eq!(folder(&lost.bench), before, "nothing half-done");
    lost.recover(&["--from-media"]).json();
    lost.check();
}
