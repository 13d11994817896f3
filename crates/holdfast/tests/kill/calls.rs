//! kill -9 at system calls.

use super::points::{Call, calls, each, persist, sample};
use super::rig::{How, Rig, run, was_killed};
use super::script::{self, Step};

/// System calls that change what a crash leaves, and those by which the ring gets work.
const CHANGING: &str = "io_uring_enter,pwrite64,pwritev,pwritev2,fdatasync,fsync,sync_file_range,fallocate,ftruncate,\
                        rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,linkat";
/// Cases of each test that are no soak.
const CASES: usize = 20;

/// Every call of the workload, counted, on this back end.
pub(crate) fn points(rig: &Rig, io: &'static str, traced: &str) -> Vec<(Call, usize)> {
    let least = [("the journal goes on in a segment", 6), ("container committed", 6), ("checkpoint done", 2)];
    points_of(rig, io, traced, &script::workload(), &least)
}

/// Every call of these steps; the log must have each of these lines so often.
fn points_of(
    rig: &Rig,
    io: &'static str,
    traced: &str,
    steps: &[Step],
    least: &[(&str, usize)],
) -> Vec<(Call, usize)> {
    let (bench, mut world) = rig.copy();
    let rebuilds = steps.iter().any(|step| matches!(step, Step::Rebuilt));
    let options = ["-y", "-s", "0", "-e", &format!("trace={traced}")].map(str::to_owned).to_vec();
    let how = How { io, strace: Some(options), log: Some("debug"), rebuilds, ..How::default() };
    let (played, status) = run(&bench, &mut world, &how, steps);
    assert!(!played.gone && played.refused.is_empty() && status.success(), "{played:?} {status}");
    let log = std::fs::read_to_string(bench.path("log")).unwrap();
    for (what, least) in least {
        let count = log.lines().filter(|line| line.contains(what)).count();
        assert!(count >= *least, "{what}: only {count} times");
    }
    let counts = calls(&std::fs::read_to_string(bench.path("trace")).unwrap());
    counts.into_iter().flat_map(|(call, count)| (1..=count).map(move |nth| (call.clone(), nth))).collect()
}

/// An injection at a call: `what` as `strace` has it.
pub(crate) fn inject(io: &'static str, call: &Call, what: &str) -> How {
    let mut options = vec!["-e".to_owned(), format!("trace={}", call.name)];
    if let Some(file) = &call.file {
        options.extend(["-P".to_owned(), format!("{{DIR}}/{file}")]);
    }
    options.extend(["-e".to_owned(), format!("inject={}:{what}", call.name)]);
    How { io, strace: Some(options), ..How::default() }
}

fn kill_at(io: &'static str, wanted: impl Fn(&Call) -> bool, least: usize) {
    let rig = Rig::new("6x16M");
    let points: Vec<_> = points(&rig, io, CHANGING).into_iter().filter(|(call, _)| wanted(call)).collect();
    kill_in(&rig, io, &script::workload(), points, CASES, least);
}

fn kill_in(
    rig: &Rig,
    io: &'static str,
    steps: &[Step],
    points: Vec<(Call, usize)>,
    cases: usize,
    least: usize,
) {
    println!("{} points", points.len());
    let has = |wanted: fn(&Step) -> bool| steps.iter().any(wanted);
    let rebuilds = has(|step| matches!(step, Step::Rebuilt));
    let tally = each(&sample(points, cases), |_, (call, nth), tally| {
        let fired = persist(*nth, |nth| {
            let case = format!("{io}: {call:?} {nth}");
            let how = How { rebuilds, ..inject(io, call, &format!("signal=KILL:when={nth}")) };
            let (bench, mut world) = rig.copy();
            let (played, status) = run(&bench, &mut world, &how, steps);
            assert!(played.refused.is_empty(), "{case}: {played:?}");
            assert!(was_killed(status) || status.success(), "{case}: {status}");
            world.survives(&bench, io, &case);
            // What was interrupted is gone on with, and all is whole.
            let rest = match steps {
                _ if has(|step| matches!(step, Step::Clean)) => &[Step::Clean, Step::Verify][..],
                _ if has(|step| matches!(step, Step::Replace)) => &[Step::Replaced, Step::Verify],
                _ if rebuilds => &[Step::Rebuilt, Step::Verify],
                _ => &[],
            };
            if !rest.is_empty() {
                let plain = How { rebuilds, ..How::plain(io) };
                let (played, _) = run(&bench, &mut world, &plain, rest);
                assert!(!played.gone && played.refused.is_empty(), "{case}: {played:?}");
            }
            was_killed(status)
        });
        tally.note(fired, format!("{io}: {call:?} {nth}"));
    });
    tally.check(least);
}

#[test]
fn kill_where_the_ring_gets_work() {
    kill_at("ring", |call| call.name == "io_uring_enter", 20);
}

#[test]
fn kill_at_the_other_calls_of_the_ring() {
    kill_at("ring", |call| call.name != "io_uring_enter", 20);
}

/// Snapshots, deletions and the cleaner: what they change must be there or not, and the data whole, after any kill.
#[test]
fn kill_while_the_cleaner_is_at_work() {
    let rig = Rig::new("6x16M");
    let least = [("container deleted", 5), ("container committed", 6), ("checkpoint done", 3)];
    for (io, cases) in [("ring", CASES / 2), ("sync", CASES / 2)] {
        let steps = script::upkeep();
        let points = points_of(&rig, io, CHANGING, &steps, &least);
        kill_in(&rig, io, &steps, points, cases, 10);
    }
}

/// A medium is replaced: at each step it is one of the site's or not, what it holds is safe, and the drain goes on.
#[test]
fn kill_while_a_medium_is_replaced() {
    let rig = Rig::new("6x16M");
    let steps = script::replacement();
    let points =
        points_of(&rig, "ring", CHANGING, &steps, &[("a row has moved", 1), ("a medium has left", 1)]);
    kill_in(&rig, "ring", &steps, points, CASES / 2, 10);
}

/// A medium is lost, and what it held is made again on the others: at each step all is there, and it goes on.
#[test]
fn kill_while_a_lost_medium_is_rebuilt() {
    let rig = Rig::new("7x16M").without(script::OLD_MEDIUM);
    let steps = script::rebuild();
    let points = points_of(&rig, "ring", CHANGING, &steps, &[("a row has moved", 1)]);
    kill_in(&rig, "ring", &steps, points, CASES / 2, 10);
}

#[test]
fn kill_at_the_calls_of_the_sync_back_end() {
    kill_at("sync", |_| true, 20);
}
