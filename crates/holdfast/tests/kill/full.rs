//! No room below: a full pool, never a failed medium.

use std::path::{Path, PathBuf};

use crate::harness::{Bench, tool, try_tool, wanted};

use super::calls::{inject, points};
use super::layer::count;
use super::model::Change;
use super::points::{each, persist, sample};
use super::rig::{ENOSPC, ETIMEDOUT, How, Rig, World, endure, media_in};
use super::script::{self, Step};

/// Cases of each test that are no soak.
const CASES: usize = 15;

/// A medium without room, from the `nth` point on or at it alone.
struct Case {
    /// How a server is started that meets it at the point of that number.
    how: Box<dyn Fn(usize) -> How + Sync>,
    nth: usize,
    case: String,
}

/// Each plan on a site of its own: writes may be refused for want of room and for nothing else, all reads, no medium
/// is down, and with room all is as before.
fn bear(rig: &Rig, cases: Vec<Case>) {
    println!("{} points", cases.len());
    let tally = each(&sample(cases, CASES), |number, Case { how, nth, case }, tally| {
        let fired = persist(*nth, |nth| {
            let how = how(nth);
            let (bench, mut world) = rig.copy();
            let endured = endure(&bench, &mut world, &how, case, number % 2 == 0);
            let log = || std::fs::read_to_string(bench.path("log")).unwrap();
            let refused = &endured.played.refused;
            let others = refused.iter().filter(|(_, error)| ![ENOSPC, ETIMEDOUT].contains(error));
            assert_eq!(others.count(), 0, "{case}: {:?}\n{}", endured.played, log());
            assert!(media_in(&endured.status, "down").is_empty(), "{case}: {}\n{}", endured.status, log());
            let fired = endured.fired || how.fired(&bench);
            world.survives(&bench, how.io, case);
            fired
        });
        tally.note(fired, case.clone());
    });
    tally.check(9);
}

#[test]
fn no_room_for_writes_under_the_ring() {
    let rig = Rig::new("6x16M");
    let mut cases = Vec::new();
    let counts = count(&rig, "ring", &script::workload());
    for ((_, medium), count) in counts.into_iter().filter(|((access, _), _)| access == "Write") {
        for nth in 1..=count {
            // Once, from then on, and from then on for all media: in turns.
            let (turn, medium) = (nth % 3, medium.clone());
            let plan = move |nth| match turn {
                0 => format!("write:{nth}:enospc@{medium}"),
                1 => format!("write:{nth}+:enospc@{medium}"),
                _ => format!("write:{nth}+:enospc"),
            };
            let case = format!("ring: {}", plan(nth));
            let how = Box::new(move |nth| How { io: "ring", fault: Some(plan(nth)), ..How::default() });
            cases.push(Case { how, nth, case });
        }
    }
    bear(&rig, cases);
}

#[test]
fn no_room_for_a_system_call() {
    let rig = Rig::new("6x16M");
    let mut cases = Vec::new();
    for (call, nth) in points(&rig, "sync", "pwrite64") {
        if call.file.as_ref().is_none_or(|file| !file.starts_with("media/")) {
            continue;
        }
        let still = ["", "+"][nth % 2];
        let what = move |nth| format!("error=ENOSPC:when={nth}{still}");
        let case = format!("{call:?} {}", what(nth));
        cases.push(Case { how: Box::new(move |nth| inject("sync", &call, &what(nth))), nth, case });
    }
    bear(&rig, cases);
}

/// A small file system of its own, for as long as it lives.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let ran = try_tool("mount", ["-t", "tmpfs", "-o", &options, "tmpfs", path.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}; mounting needs root: {ran:?}", wanted("mount"));
        Self(path)
    }

    fn resize(&self, size: &str) {
        tool("mount", ["-o", &format!("remount,size={size}"), self.0.to_str().unwrap()]);
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        try_tool("umount", ["--lazy", self.0.to_str().unwrap()]);
    }
}

/// Media that are sparse files on a host file system with less room than they promise.
#[test]
fn a_full_host_file_system_is_a_full_pool() {
    let bench = Bench::new();
    let small = Small::mount(bench.path("small"), "20M");
    let mut arguments = vec!["--layout".to_owned(), "tiny".to_owned(), "--io".to_owned(), "sync".to_owned()];
    for number in 0..6 {
        let path = small.path().join(format!("{number}.img"));
        std::fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
        arguments.extend(["--media".to_owned(), path.display().to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = bench.start(&arguments);
    let mut world = World::default();
    let refused = world.play(&bench, &script::before()).refused;
    assert!(!refused.is_empty(), "13 containers fit into 20 MiB");
    assert!(refused.iter().all(|(_, error)| *error == ENOSPC), "{refused:?}\n{}", server.log());
    still_serves(&mut world, &bench);
    server.kill();

    // Full as it is, it starts, reads, trims and deletes.
    let server = bench.start(&["--io", "sync"]);
    still_serves(&mut world, &bench);
    let played = world.play(&bench, &[Step::Delete(script::OLD)]);
    assert!(played.refused.is_empty(), "{played:?}\n{}", server.log());
    world.judge(&bench, false).unwrap();

    // With room again it takes all, without a restart.
    small.resize("200M");
    let mut workload = script::workload();
    workload.retain(|step| !matches!(step, Step::Delete(_)));
    let much = Change::Write { offset: 2 << 20, data: script::value(77, 2 << 20) };
    let much = [Step::Change(script::MAIN, much)];
    let start = std::time::Instant::now();
    while !world.play(&bench, &much).refused.is_empty() {
        assert!(start.elapsed().as_secs() < 20, "room is not found:\n{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let played = world.play(&bench, &workload);
    assert!(played.refused.is_empty(), "{played:?}\n{}", server.log());
    server.kill();
    world.survives(&bench, "sync", "a host file system that was full");
}

/// Everything reads; a trim is taken; no medium is down.
fn still_serves(world: &mut World, bench: &Bench) {
    world.judge(bench, false).unwrap();
    let trim = Change::Trim { offset: 1 << 20, length: 64 << 10 };
    let played = world.play(bench, &[Step::Change(script::MAIN, trim)]);
    let log = || std::fs::read_to_string(bench.path("log")).unwrap();
    assert!(played.refused.is_empty(), "{played:?}\n{}", log());
    world.judge(bench, false).unwrap();
    let status = bench.json(&["status"]).json();
    assert!(media_in(&status, "down").is_empty(), "{status}\n{}", log());
}
