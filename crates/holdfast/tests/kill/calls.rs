//! kill -9 at system calls.

use super::points::{Call, calls, each, persist, sample};
use super::rig::{How, Rig, run, was_killed};
use super::script;

/// System calls that change what a crash leaves, and those by which the ring gets work.
const CHANGING: &str = "io_uring_enter,pwrite64,pwritev,pwritev2,fdatasync,fsync,sync_file_range,fallocate,ftruncate,\
                        rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,linkat";
/// Cases of each test that are no soak.
const CASES: usize = 24;

/// Every call of the workload, counted, on this back end.
pub(crate) fn points(rig: &Rig, io: &'static str, traced: &str) -> Vec<(Call, usize)> {
    let (bench, mut world) = rig.copy();
    let options = ["-y", "-s", "0", "-e", &format!("trace={traced}")].map(str::to_owned).to_vec();
    let how = How { io, strace: Some(options), log: Some("debug"), ..How::default() };
    let (played, status) = run(&bench, &mut world, &how, &script::workload());
    assert!(!played.gone && played.refused.is_empty() && status.success(), "{played:?} {status}");
    let log = std::fs::read_to_string(bench.path("log")).unwrap();
    for (what, least) in
        [("the journal goes on in a segment", 6), ("container committed", 6), ("checkpoint done", 2)]
    {
        let count = log.lines().filter(|line| line.contains(what)).count();
        assert!(count >= least, "{what}: only {count} times");
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
    println!("{} points", points.len());
    let tally = each(&sample(points, CASES), |_, (call, nth), tally| {
        let case = format!("{io}: {call:?} {nth}");
        let how = inject(io, call, &format!("signal=KILL:when={nth}"));
        let fired = persist(|| {
            let (bench, mut world) = rig.copy();
            let (played, status) = run(&bench, &mut world, &how, &script::workload());
            assert!(played.refused.is_empty(), "{case}: {played:?}");
            assert!(was_killed(status) || status.success(), "{case}: {status}");
            world.survives(&bench, io, &case);
            was_killed(status)
        });
        tally.note(fired, case);
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

#[test]
fn kill_at_the_calls_of_the_sync_back_end() {
    kill_at("sync", |_| true, 20);
}
