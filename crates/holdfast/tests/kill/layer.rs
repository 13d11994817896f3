//! kill -9 at accesses to media: before one, behind it, and in the middle of a write; in the workload and in the
//! recovery from such a kill.

use std::collections::BTreeMap;

use super::points::{accesses, each, persist, sample};
use super::rig::{How, Rig, run, was_killed};
use super::script::{self, Step};

/// Cases of each test that are no soak.
const CASES: usize = 20;
/// Steps of the workload before the kill whose recovery is killed.
const STEPS_BEFORE: usize = 31;

/// Every access to every medium, counted.
pub(crate) fn count(rig: &Rig, io: &'static str, steps: &[Step]) -> BTreeMap<(String, String), usize> {
    let (bench, mut world) = rig.copy();
    let plan = "read:1+:delay=0;write:1+:delay=0;sync:1+:delay=0".to_owned();
    let how = How { io, fault: Some(plan), ..How::default() };
    let (played, status) = run(&bench, &mut world, &how, steps);
    assert!(!played.gone && played.refused.is_empty() && status.success(), "{played:?} {status}");
    accesses(&std::fs::read_to_string(bench.path("log")).unwrap())
}

/// A kill at an access to a medium.
struct Kill {
    access: String,
    medium: String,
    nth: usize,
    effect: String,
}

impl Kill {
    /// The plan of the fault layer that kills at the `nth` access.
    fn plan(&self, nth: usize) -> String {
        format!("{}:{nth}:{}@{}", self.access.to_lowercase(), self.effect, self.medium)
    }
}

/// One kill for each access: the ways to do it in turns.
fn kills(counts: BTreeMap<(String, String), usize>) -> Vec<Kill> {
    let mut kills = Vec::new();
    for (turn, ((access, medium), count)) in counts.into_iter().enumerate() {
        for nth in 1..=count {
            let effect = match (access.as_str(), (nth + turn) % 3) {
                // Nothing has changed since the write or sync before.
                ("Read", _) => continue,
                (_, 0) => "kill".to_owned(),
                ("Write", 1) => format!("kill-torn={}", 1 + nth % 7),
                _ => "kill-after".to_owned(),
            };
            kills.push(Kill { access: access.clone(), medium: medium.clone(), nth, effect });
        }
    }
    kills
}

fn kill_at(rig: &Rig, io: &'static str, steps: &[Step]) {
    let kills = kills(count(rig, io, steps));
    println!("{} points", kills.len());
    let tally = each(&sample(kills, CASES), |_, kill, tally| {
        let fired = persist(kill.nth, |nth| {
            let plan = kill.plan(nth);
            let case = format!("{io}: {plan}");
            let how = How { io, fault: Some(plan), ..How::default() };
            let (bench, mut world) = rig.copy();
            let (played, status) = run(&bench, &mut world, &how, steps);
            assert!(played.refused.is_empty(), "{case}: {played:?}");
            assert!(was_killed(status) || status.success(), "{case}: {status}");
            let fired = std::fs::read_to_string(bench.path("log")).unwrap().contains("injected fault");
            assert_eq!(fired, was_killed(status), "{case}");
            world.survives(&bench, io, &case);
            fired
        });
        tally.note(fired, format!("{io}: {}", kill.plan(kill.nth)));
    });
    tally.check(20);
}

#[test]
fn kill_at_the_accesses_of_the_workload() {
    kill_at(&Rig::new("6x16M"), "ring", &script::workload());
}

#[test]
fn kill_at_the_accesses_of_the_workload_on_three_media() {
    kill_at(&Rig::new("3x24M"), "sync", &script::workload());
}

#[test]
fn kill_at_the_accesses_of_a_recovery() {
    kill_at(&Rig::new("6x16M").advanced(STEPS_BEFORE), "ring", &[]);
}
