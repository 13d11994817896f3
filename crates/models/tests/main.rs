//! Goal: the cleaner's rules hold in every state of some scenes, and each rule is needed.
//!
//! Model: `models::Cleaning`. Knobs: the scenes below; each is searched to its end, in seconds.

use models::{ALWAYS, Action, Cleaning, Flaw, Left, RECOVERS, RESOLVES, Scene};
use stateright::{Checker, HasDiscoveries, Model};

/// A container with two slots, of which a disk holds one.
const ONE_DISK: Scene = Scene {
    containers: &[&[1, 2]],
    holders: [Some([(0, 1), (0, 0)]), None, None, None],
    left: Left { writes: 0, forks: 0, deletes: 0, checkpoints: 0, crashes: 0, cycles: 1 },
    mends: false,
    resumes: false,
    marks_at_once: false,
    moves_all: false,
    slow_checkpoints: false,
};

/// Writes, hits, checkpoints and a crash around one cycle.
fn hits() -> Scene {
    let left = Left { writes: 2, checkpoints: 1, crashes: 1, ..ONE_DISK.left };
    Scene { left, slow_checkpoints: true, ..ONE_DISK }
}

/// Containers move three times, garbage or not.
fn moves() -> Scene {
    let left = Left { writes: 1, checkpoints: 2, crashes: 1, cycles: 3, ..ONE_DISK.left };
    Scene { left, moves_all: true, mends: true, ..ONE_DISK }
}

/// A disk without blocks: nothing is live but what is written.
fn empty_disk() -> Scene {
    let left = Left { writes: 1, crashes: 1, cycles: 2, ..ONE_DISK.left };
    Scene { holders: [Some([(0, 0); 2]), None, None, None], left, ..ONE_DISK }
}

/// A snapshot at rest holds what the disk does not.
fn snapshot() -> Scene {
    let left = Left { forks: 3, deletes: 3, checkpoints: 1, ..ONE_DISK.left };
    let holders = [None, None, Some([(0, 1), (0, 0)]), None];
    Scene { holders, left, slow_checkpoints: true, ..ONE_DISK }
}

/// A little of everything.
fn everything() -> Scene {
    let left = Left { writes: 1, forks: 1, deletes: 1, checkpoints: 1, crashes: 1, cycles: 1 };
    let holders = [Some([(0, 1), (0, 0)]), None, Some([(0, 1), (0, 2)]), None];
    Scene { holders, left, slow_checkpoints: true, ..ONE_DISK }
}

/// Searches a scene to its end: nothing bad, and each of `examples` is reached.
fn holds(name: &str, scene: Scene, flaw: Option<Flaw>, examples: &[&str]) {
    let checker =
        Cleaning { scene, flaw }.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, up to {depth} deep, {} kinds of example", found.len());
    for bad in ALWAYS {
        if let Some(path) = found.get(bad) {
            panic!("{name}: {bad} is broken by {:?}", path.clone().into_actions());
        }
    }
    for example in examples {
        assert!(found.keys().any(|found| found == example), "{name}: never reached: {example}");
    }
}

/// A block is lost when the rule is left out.
fn breaks(flaw: Flaw, scene: Scene) -> Vec<Action> {
    let lost = HasDiscoveries::AnyOf([RESOLVES, RECOVERS].into());
    let checker = Cleaning { scene, flaw: Some(flaw) }.checker().finish_when(lost).spawn_bfs().join();
    let mut found = checker.discoveries();
    let path = found.remove(RESOLVES).or_else(|| found.remove(RECOVERS));
    let actions = path.unwrap_or_else(|| panic!("{flaw:?} does no harm")).into_actions();
    println!("{flaw:?}: {} steps, {} states: {actions:?}", actions.len(), checker.unique_state_count());
    actions
}

const CRASHES: &[&str] = &[
    "crash: no cycle",
    "crash: hits recorded",
    "crash: marking",
    "crash: marked",
    "crash: condemned",
    "crash: copied",
    "crash: stub written",
    "crash: Delete record written",
    "crash: batch chosen",
    "crash: batch stored",
];

#[test]
fn hits_are_safe() {
    let examples = [CRASHES, &["a hit spares a candidate", "crash: checkpoint under way"]].concat();
    holds("hits", hits(), None, &examples);
}

#[test]
fn moves_are_safe() {
    let more = [
        "an address leads through a stub",
        "an address leads through two stubs",
        "a stub goes",
        "a container is committed and has a stub, behind a crash",
    ];
    holds("moves", moves(), None, &[CRASHES, &more].concat());
    holds("moves, resumed", Scene { resumes: true, ..moves() }, None, &more[..3]);
    holds("moves, never mended", Scene { mends: false, ..moves() }, None, &more);
    holds("two cycles on an empty disk", empty_disk(), None, &["an address leads through a stub"]);
}

#[test]
fn snapshots_are_safe() {
    let examples = ["a container moves under a snapshot"];
    holds("snapshots", snapshot(), None, &examples);
    holds("snapshots, marked at once", Scene { marks_at_once: true, ..snapshot() }, None, &examples);
}

#[test]
fn everything_together_is_safe() {
    let more =
        ["a hit spares a candidate", "a container moves under a snapshot", "crash: checkpoint under way"];
    holds("everything", everything(), None, &[CRASHES, &more].concat());
}

#[test]
fn each_rule_on_hits_is_needed() {
    breaks(Flaw::HitsRecordedLate, hits());
    breaks(Flaw::HitsNotSpared, hits());
    breaks(Flaw::CondemnedGiveHits, hits());
    breaks(Flaw::GateNotHeld, hits());
}

#[test]
fn each_rule_on_deletion_is_needed() {
    let actions = breaks(Flaw::UncoveredAreCandidates, hits());
    assert!(!actions.contains(&Action::Draw), "a checkpoint would have covered the container");
    breaks(Flaw::DeletedBeforeStub, hits());
}

#[test]
fn each_rule_on_stubs_is_needed() {
    breaks(Flaw::StubGoesThoughMet, moves());
    breaks(Flaw::WayNotMet, moves());
    breaks(Flaw::EndNotLive, moves());
    breaks(Flaw::MendedInRam, empty_disk());
}

#[test]
fn each_rule_on_forks_is_needed() {
    breaks(Flaw::ForksNotNoted, snapshot());
    breaks(Flaw::ForksNotNotedRamTwice, snapshot());
    breaks(Flaw::RestReadFirst, snapshot());
    breaks(Flaw::ForkGateNotTaken, snapshot());
    breaks(Flaw::CheckpointUnderWay, snapshot());
}

/// Not even RAM read at one instant before and behind the metadata replaces the notes: from rest into RAM and back.
#[test]
fn reading_more_does_not_replace_noting_forks() {
    let actions = breaks(Flaw::ForksNotNotedRamTwiceAtOnce, snapshot());
    assert!(actions.iter().any(|action| matches!(action, Action::Settle(_))), "{actions:?}");
}

/// A container gets a stub only because this cycle's mark met an address in it, so this mark cannot remove it.
#[test]
fn a_mark_cannot_remove_a_stub_of_its_own_cycle() {
    holds("stubs of this cycle", moves(), Some(Flaw::StubGoesByEarlierMark), &["a stub goes"]);
}
