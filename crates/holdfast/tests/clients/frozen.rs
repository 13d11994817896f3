//! Snapshots of a file system under load: each mounts, holds what was synced before it, and passes fsck.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Bench, MEDIA, soak, tool, wanted};

use super::Device;

/// Snapshots taken, in CI and in a soak.
const SNAPSHOTS: usize = 20;
const SNAPSHOTS_SOAK: usize = 1000;

/// fio, ended with the test.
struct Load(Child);

impl Load {
    fn on(folder: &Path, log: &Path) -> Self {
        let mut fio = Command::new("setpriv");
        fio.args(["--pdeathsig", "KILL", "--", "fio", "--name=load", "--rw=randrw", "--rwmixread=30"]);
        fio.args(["--bsrange=4k-64k", "--size=48m", "--nrfiles=8", "--fsync=16", "--ioengine=psync"]);
        fio.args(["--numjobs=2", "--time_based", "--runtime=86400", "--randseed=3"]);
        fio.arg(format!("--directory={}", folder.display())).arg(format!("--output={}", log.display()));
        fio.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(fio.spawn().unwrap_or_else(|error| panic!("{}: {error}", wanted("fio"))))
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let jobs = crate::harness::descendants(self.0.id());
        // It ends its jobs and waits for them; whatever does not end by then goes by force.
        let _ = Command::new("kill").args(["-s", "INT", &self.0.id().to_string()]).status();
        let begun = Instant::now();
        while self.runs() && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        for job in jobs {
            let _ = Command::new("kill").args(["-9", &job.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Appends a number to a file, durably.
fn note(log: &Path, number: usize) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    writeln!(file, "{number}").unwrap();
    file.sync_all().unwrap();
}

/// What a guest that lost its power would find: the journal is replayed by the mount, then all is checked.
fn check(bench: &Bench, clone: &str, mount: &Path, expected: &str) {
    let mount_text = mount.to_str().unwrap();
    let mut device = Device::attach_at(bench, &format!("{clone}/disk0"), &bench.path("fuse-clone"));
    tool("mount", ["-t", "ext4", &device.path, mount_text]);
    device.undo.push(&["umount", mount_text]);
    let found = std::fs::read_to_string(mount.join("log")).unwrap();
    assert_eq!(found, expected, "{clone}: what was synced before the snapshot");
    tool("umount", [mount_text]);
    tool("e2fsck", ["-fn", &device.path]);
    device.detach();
}

#[test]
fn a_file_system_under_load_is_whole_in_every_snapshot() {
    let bench = Bench::new();
    let _server = bench.start(MEDIA);
    bench.create("web01", "256M");
    let (folder, cloned) = (bench.path("mounted"), bench.path("mounted-clone"));
    [&folder, &cloned].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let mut device = Device::attach(&bench, "web01/disk0");
    tool("mkfs.ext4", ["-q", "-E", "lazy_itable_init=0,discard", &device.path]);
    tool("mount", ["-t", "ext4", &device.path, folder.to_str().unwrap()]);
    device.undo.push(&["umount", folder.to_str().unwrap()]);
    let mut load = Load::on(&folder, &bench.path("fio.log"));
    let mut expected = String::new();
    for number in 0..if soak() { SNAPSHOTS_SOAK } else { SNAPSHOTS } {
        note(&folder.join("log"), number);
        expected.push_str(&format!("{number}\n"));
        let snapshot = format!("s{number}");
        bench.json(&["vm", "snapshot", "web01", "--name", &snapshot]).json();
        bench.json(&["vm", "clone", &format!("web01@{snapshot}"), "check"]).json();
        check(&bench, "check", &cloned, &expected);
        bench.delete("check");
        // Every second one goes, so that the cleaner has something to do and others lie around it.
        if number % 2 == 1 {
            bench.json(&["snapshot", "delete", &format!("web01@{snapshot}"), "--yes"]).json();
        }
    }
    assert!(load.runs(), "the load ended early: {:?}", std::fs::read_to_string(bench.path("fio.log")));
    drop(load);
    tool("umount", [&folder]);
    device.detach();
    bench.json(&["verify"]).json();
}
