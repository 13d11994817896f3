//! Where something can be injected, and which of these places a run takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{pick, soak};

/// One case in this many may miss its point.
const MISSES: usize = 5;
/// Attempts at a case: the share of its count at which each injects. Threads share the work differently in each run, so a
/// count that one run reached may be beyond what another comes to; an earlier one is there in both.
const ATTEMPTS: [(usize, usize); 4] = [(1, 1), (3, 4), (1, 2), (1, 4)];
/// Cases run at a time in a soak: each waits for its server now and then.
const SOAK_THREADS: usize = 4;

/// A system call, counted for each thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// The file of the site it works on, as a path in the site's directory, where it works on one.
    pub(crate) file: Option<String>,
}

/// How often the busiest thread makes each call, in the trace of a run (`strace -f -y`).
pub(crate) fn calls(trace: &str) -> BTreeMap<Call, usize> {
    let mut by_thread: BTreeMap<(&str, Call), usize> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let path = arguments.split_once('<').and_then(|(fd, rest)| {
            fd.bytes().all(|byte| byte.is_ascii_digit()).then(|| rest.split('>').next().unwrap_or(""))
        });
        let file = path.and_then(|path| path.split_once("/d/")).map(|(_, file)| file.to_owned());
        *by_thread.entry((thread, Call { name: name.to_owned(), file })).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in by_thread {
        let entry = most.entry(call).or_insert(0);
        *entry = count.max(*entry);
    }
    most
}

/// How often each medium saw each access, as the fault layer has said in the log: `("Write", "02.img")`.
pub(crate) fn accesses(log: &str) -> BTreeMap<(String, String), usize> {
    let field = |line: &str, name: &str| -> Option<String> {
        let (_, rest) = line.split_once(&format!(" {name}="))?;
        Some(rest.split(' ').next()?.trim_matches('"').to_owned())
    };
    let mut most = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("injected fault")) {
        let (Some(access), Some(medium), Some(count)) =
            (field(line, "access"), field(line, "medium"), field(line, "count"))
        else {
            continue;
        };
        let medium = medium.rsplit('/').next().unwrap_or_default().to_owned();
        let entry = most.entry((access, medium)).or_insert(0);
        *entry = (*entry).max(count.parse().unwrap());
    }
    assert!(!most.is_empty(), "the program under test has no fault layer:\n{log}");
    most
}

/// About `count` of the points, spread evenly, as `HOLDFAST_PICK` chooses. All of them in a soak.
pub(crate) fn sample<T>(points: Vec<T>, count: usize) -> Vec<T> {
    assert!(!points.is_empty(), "nothing to inject into");
    let step = if soak() { 1 } else { points.len().div_ceil(count).max(1) };
    points.into_iter().skip(pick() % step).step_by(step).collect()
}

/// Runs each case, several at a time in a soak; gives which came to their point. A case that panics is the last of its
/// thread, and fails the test when all are done.
pub(crate) fn each<T: Sync>(cases: &[T], run: impl Fn(usize, &T, &mut Tally) + Sync) -> Tally {
    let threads = if soak() { SOAK_THREADS } else { 1 };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(number) else { return tally };
            run(number, case, &mut tally);
        }
    };
    let mut sum = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let tally = thread.join().expect("a case failed: it is told above");
            sum.fired += tally.fired;
            sum.missed.extend(tally.missed);
        }
    });
    sum
}

/// Runs a case with an injection at the `nth` point, on a fresh copy each time, and at earlier points while `run` says that
/// the injection was not made.
pub(crate) fn persist(nth: usize, mut run: impl FnMut(usize) -> bool) -> bool {
    ATTEMPTS.iter().any(|(part, of)| {
        let at = (nth * part).div_ceil(*of);
        if at < nth {
            println!("point {nth} was not reached: trying {at}");
        }
        run(at)
    })
}

/// Which cases came to their point.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    fired: usize,
    missed: Vec<String>,
}

impl Tally {
    pub(crate) fn note(&mut self, fired: bool, case: String) {
        if fired {
            self.fired += 1;
        } else {
            self.missed.push(case);
        }
    }

    /// At least `least` injections were made, and few were missed.
    pub(crate) fn check(self, least: usize) {
        println!("{} injections, {} not reached", self.fired, self.missed.len());
        assert!(self.fired >= least && self.missed.len() * MISSES <= self.fired, "{self:?}");
    }
}
