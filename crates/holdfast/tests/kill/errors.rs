//! EIO, and whatever a sync says: a medium that fails is a lost medium, and clients do not notice.

use std::time::{Duration, Instant};

use crate::harness::Bench;

use super::calls::{inject, points};
use super::layer::count;
use super::model::Change;
use super::points::{Tally, each, persist, sample};
use super::rig::{Endured, How, Rig, World, endure, media_in};
use super::script::{self, Step};

/// Cases of each test that are no soak.
const CASES: usize = 20;
/// By then the site has looked after a medium that failed.
const LOOKED_AFTER: Duration = Duration::from_secs(20);

/// One error on one medium.
struct Fault {
    /// How a server is started that meets it at the `nth` point.
    how: Box<dyn Fn(usize) -> How + Sync>,
    nth: usize,
    /// The end of the medium's path.
    victim: String,
    kind: Kind,
    case: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Damage at one place, which is repaired.
    Read,
    /// The medium is down; it may come back.
    Write,
    /// The medium is down until the next start.
    Sync,
}

/// Each fault on a site of its own: no client is told, every byte is right, the victim alone is down.
fn bear(rig: &Rig, faults: Vec<Fault>) {
    println!("{} points", faults.len());
    let tally = each(&sample(faults, CASES), |number, fault, tally| {
        let fired = persist(fault.nth, |nth| {
            let how = (fault.how)(nth);
            let (bench, mut world) = rig.copy();
            let endured = endure(&bench, &mut world, &how, &fault.case, number % 2 == 0);
            check(&bench, fault, &endured);
            let fired = endured.fired || how.fired(&bench);
            world.survives(&bench, how.io, &fault.case);
            fired
        });
        tally.note(fired, fault.case.clone());
    });
    tally.check(12);
}

fn check(bench: &Bench, fault: &Fault, endured: &Endured) {
    let log = || std::fs::read_to_string(bench.path("log")).unwrap();
    let case = &fault.case;
    assert!(endured.played.refused.is_empty(), "{case}: {:?}\n{}", endured.played, log());
    let down = media_in(&endured.status, "down");
    assert!(down.iter().all(|medium| *medium == fault.victim), "{case}: {}\n{}", endured.status, log());
    assert!(media_in(&endured.status, "full").is_empty(), "{case}: {}\n{}", endured.status, log());
    let came_back = || fault.kind == Kind::Write && log().contains("the medium is back");
    if endured.fired && fault.kind != Kind::Read {
        assert!(!down.is_empty() || came_back(), "{case}: none is down: {}\n{}", endured.status, log());
    }
}

/// What happens at the `nth` point, and whether it goes on from there (`+`): each in turn.
fn turn(effects: &[&'static str], nth: usize) -> (&'static str, &'static str) {
    (effects[nth % effects.len()], ["", "+"][nth / effects.len() % 2])
}

/// The faults that the fault layer can make at each access: EIO, and a sync that finds no room, which is no better.
fn of_layer(rig: &Rig, io: &'static str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for ((access, medium), count) in count(rig, io, &script::workload()) {
        let (kind, effects): (_, &[&'static str]) = match access.as_str() {
            "Read" => (Kind::Read, &["eio"]),
            "Write" => (Kind::Write, &["eio", "torn=3"]),
            _ => (Kind::Sync, &["eio", "enospc"]),
        };
        for nth in 1..=count {
            let (effect, still) = turn(effects, nth);
            let (access, victim) = (access.to_lowercase(), medium.clone());
            let on = victim.clone();
            let plan = move |nth| format!("{access}:{nth}{still}:{effect}@{on}");
            let case = format!("{io}: {}", plan(nth));
            let how = Box::new(move |nth| How { io, fault: Some(plan(nth)), ..How::default() });
            faults.push(Fault { how, nth, victim, kind, case });
        }
    }
    faults
}

/// The faults that `strace` can make at each system call on a medium.
fn of_calls(rig: &Rig) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (call, nth) in points(rig, "sync", "pwrite64,fdatasync,pread64") {
        let Some(victim) = call.file.as_ref().and_then(|file| file.strip_prefix("media/")) else { continue };
        let (kind, errors): (_, &[&'static str]) = match call.name.as_str() {
            "pread64" => (Kind::Read, &["EIO"]),
            "pwrite64" => (Kind::Write, &["EIO"]),
            _ => (Kind::Sync, &["EIO", "ENOSPC"]),
        };
        let (error, still) = turn(errors, nth);
        let what = move |nth| format!("error={error}:when={nth}{still}");
        let (case, victim) = (format!("{call:?} {}", what(nth)), victim.to_owned());
        let how = Box::new(move |nth| inject("sync", &call, &what(nth)));
        faults.push(Fault { how, nth, victim, kind, case });
    }
    faults
}

#[test]
fn an_error_of_a_medium_under_the_ring_is_borne() {
    let rig = Rig::new("6x16M");
    bear(&rig, of_layer(&rig, "ring"));
}

#[test]
fn an_error_of_a_system_call_is_borne() {
    let rig = Rig::new("6x16M");
    bear(&rig, of_calls(&rig));
}

/// The file that remembers where the journal was is no medium: one that fails is made anew, and clients do not notice.
#[test]
fn an_error_of_the_witness_loses_nothing() {
    let rig = Rig::new("6x16M");
    let calls = points(&rig, "sync", "pwrite64,fdatasync").into_iter();
    let calls = calls.filter(|(call, _)| call.file.as_deref() == Some("witness"));
    let mut tally = Tally::default();
    for (call, nth) in sample(calls.collect(), 4) {
        for error in ["EIO", "ENOSPC"] {
            let case = format!("{call:?} {nth} {error}");
            let fired = persist(nth, |nth| {
                let how = inject("sync", &call, &format!("error={error}:when={nth}"));
                let (bench, mut world) = rig.copy();
                let mut server = how.spawn(&bench);
                if server.wait_serving().is_ok() {
                    let played = world.play(&bench, &script::workload());
                    assert!(!played.gone, "{case}: it died:\n{}", server.log());
                    assert!(played.refused.is_empty(), "{case}: {played:?}\n{}", server.log());
                    if let Err(wrong) = world.judge(&bench, false) {
                        panic!("{case}: {wrong}\n{}", server.log());
                    }
                }
                server.kill();
                let fired = how.fired(&bench);
                world.survives(&bench, "sync", &case);
                fired
            });
            tally.note(fired, case);
        }
    }
    tally.check(4);
}

#[test]
fn a_failed_sync_is_never_forgotten() {
    let (bench, mut world) = Rig::new("6x16M").copy();
    // One sync fails, all others would succeed; every write that reaches the medium is told.
    let fault = Some("sync:9:eio@02.img;write:1+:delay=0@02.img".to_owned());
    let how = How { io: "ring", fault, ..How::default() };
    let server = how.spawn(&bench).serving();
    let workload = script::workload();
    let (first, rest) = workload.split_at(workload.len() / 2);
    let write = |world: &mut World, steps: &[Step]| {
        let played = world.play(&bench, steps);
        assert!(!played.gone && played.refused.is_empty(), "{played:?}\n{}", server.log());
    };
    write(&mut world, first);
    let start = Instant::now();
    while !server.log().contains("barred=true") {
        assert!(start.elapsed() < LOOKED_AFTER, "the medium is not given up:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    write(&mut world, rest);
    world.judge(&bench, false).unwrap();
    let status = bench.json(&["status"]).json();
    assert_eq!(media_in(&status, "down"), ["02.img"], "{status}");
    assert_eq!(status["can_lose_now"], 1, "{status}");
    let log = server.log();
    let (_, after) = log.split_once("access=Sync").unwrap();
    // Those that had begun; a workload's half makes hundreds.
    let late = after.lines().filter(|line| line.contains("access=Write")).count();
    assert!(late <= 2, "{late} writes after the failed sync:\n{log}");
    server.kill();
    world.survives(&bench, "ring", "after a failed sync");
    let server = bench.start(&[]);
    let step = Change::Write { offset: 0, data: script::value(7, 300_000) };
    write_all(&mut world, &bench, &[Step::Change(script::MAIN, step)]);
    assert_eq!(media_in(&bench.json(&["status"]).json(), "up").len(), 6);
    server.kill();
}

fn write_all(world: &mut World, bench: &Bench, steps: &[Step]) {
    let played = world.play(bench, steps);
    assert!(!played.gone && played.refused.is_empty(), "{played:?}");
}
