//! No room below: a full pool, never a failed medium.

use super::calls::{inject, points};
use super::layer::count;
use super::points::{Tally, sample};
use super::rig::{ENOSPC, ETIMEDOUT, How, Rig, endure, media_in};
use super::script;

/// Cases of each test that are no soak.
const CASES: usize = 18;

/// Each plan on a site of its own: writes may be refused for want of room and for nothing else, all reads, no medium
/// is down, and with room all is as before.
fn bear(rig: &Rig, cases: Vec<(How, String)>) {
    println!("{} points", cases.len());
    let mut tally = Tally::default();
    for (number, (how, case)) in sample(cases, CASES).into_iter().enumerate() {
        let (bench, mut world) = rig.copy();
        let endured = endure(&bench, &mut world, &how, &case, number % 2 == 0);
        let log = || std::fs::read_to_string(bench.path("log")).unwrap();
        let others = endured.played.refused.iter().filter(|(_, error)| ![ENOSPC, ETIMEDOUT].contains(error));
        assert_eq!(others.count(), 0, "{case}: {:?}\n{}", endured.played, log());
        assert!(media_in(&endured.status, "down").is_empty(), "{case}: {}\n{}", endured.status, log());
        tally.note(endured.fired || how.fired(&bench), case.clone());
        world.survives(&bench, how.io, &case);
    }
    tally.check(9);
}

#[test]
fn no_room_for_writes_under_the_ring() {
    let rig = Rig::new("6x16M");
    let mut cases = Vec::new();
    let counts = count(&rig, "ring", &script::workload());
    for ((_, medium), count) in counts.into_iter().filter(|((access, _), _)| access == "Write") {
        for nth in 1..=count {
            for plan in ["{}:enospc@M", "{}+:enospc@M", "{}+:enospc"] {
                let plan = format!("write:{}", plan.replace("{}", &nth.to_string()).replace('M', &medium));
                let how = How { io: "ring", fault: Some(plan.clone()), ..How::default() };
                cases.push((how, format!("ring: {plan}")));
            }
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
        for still in ["", "+"] {
            let what = format!("error=ENOSPC:when={nth}{still}");
            cases.push((inject("sync", &call, &what), format!("{call:?} {what}")));
        }
    }
    bear(&rig, cases);
}
