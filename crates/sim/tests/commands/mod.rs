//! Goal: any two commands at once end as one behind the other would, in one of both orders: what they
//! answer, and what is there afterwards. One command begins; at one of its looks at what there is the other
//! comes in, and the first goes on when that one is done, or waits for it. Model: both orders, one behind
//! the other. Tables: every pair of [`table::COMMANDS`], changes of VMs, snapshots, files, holds, the trash,
//! tasks and transfers; every pair of [`disks::COMMANDS`] of the engine.
//! Knobs: `HOLDFAST_PICK` chooses at which of its looks each first command meets the other,
//! `HOLDFAST_SOAK=1` takes all.

mod bench;
mod disks;
mod table;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seam::{BoxFuture, Rt};
use sim::{Control, Limits, Simulation};
use tokio::sync::Notify;

/// A command on a stage; a code where it fails.
struct Command<S: Stage> {
    name: &'static str,
    needs: &'static [S::Need],
    run: for<'a> fn(&'a S) -> BoxFuture<'a, Result<(), String>>,
}

/// Where commands play: a site that is the same each time.
trait Stage: Sized {
    /// What must be under way before some command makes sense.
    type Need: Sync + 'static;

    /// Whether two commands are ever given at once.
    fn come_together(_: [&str; 2]) -> bool {
        true
    }

    async fn set(control: &Control, needs: impl Iterator<Item = &'static Self::Need>) -> Self;

    fn rt(&self) -> Rt;

    /// What there is, as far as runs in one order have it in common.
    async fn state(self) -> String;
}

/// How long the first waits for the other: long enough for all that does not wait for the first itself.
const OTHER_FIRST: Duration = Duration::from_millis(300);
/// What commands leave to the background is done by then.
const SETTLED: Duration = Duration::from_millis(500);
/// Looks of each pair that CI takes.
const LOOKS: u64 = 1;
const THREADS: usize = 2;

/// Where a first command looks, and at which look the other comes in.
#[derive(Default)]
struct Looks {
    armed: AtomicBool,
    seen: AtomicU64,
    at: AtomicU64,
    come: Notify,
}

impl Looks {
    /// A place where others may come in between.
    fn between(&self) -> Option<Duration> {
        let armed = self.armed.load(Ordering::Relaxed);
        let is_it = armed && self.seen.fetch_add(1, Ordering::Relaxed) == self.at.load(Ordering::Relaxed);
        is_it.then(|| {
            self.come.notify_one();
            OTHER_FIRST
        })
    }
}

/// How two commands ended, and what is there afterwards.
#[derive(Clone)]
struct Outcome {
    /// The codes of their errors, in the order of the pair.
    codes: [String; 2],
    state: String,
}

/// Codes that say the same of something that goes, at another moment of its going: code, what it stands for,
/// why.
const ALIKE: &[(&str, &str, &str)] = &[
    (
        "vm_in_trash",
        "trash_not_found",
        "a VM deleted for good goes through the trash, its snapshots there behind it",
    ),
    ("disk_not_found", "vm_not_found", "the disks of a VM go with it"),
    ("disk_not_found", "file_not_found", "the disk of a file goes with it"),
];
/// The end of a file's storing closes the file for a moment: who would close it too is told that it is in
/// use, and has done nothing.
const CLOSING: [&str; 2] = ["finish g", "cancel g"];

impl Outcome {
    /// Whether this is what would be, but for a code that stands for another.
    fn is_like(&self, would: &Self) -> bool {
        let alike = |own: &str, other: &str| {
            own == other || ALIKE.iter().any(|(code, same, _)| (*code, *same) == (own, other))
        };
        self.state == would.state && self.codes.iter().zip(&would.codes).all(|(own, other)| alike(own, other))
    }

    /// Whether one of them met a file that the other had closed.
    fn is_refused<S: Stage>(&self, pair: [&Command<S>; 2]) -> bool {
        (0..2).any(|at| self.codes[at] == "vm_in_use" && CLOSING.contains(&pair[1 - at].name))
    }

    fn turned(self) -> Self {
        let [first, second] = self.codes;
        Self { codes: [second, first], ..self }
    }
}

/// Runs a pair, the second at look `at` of the first, or behind it; gives at how many looks it could have
/// been too.
async fn play<S: Stage>(control: &Control, pair: [&Command<S>; 2], at: Option<u64>) -> (Outcome, u64) {
    let looks = Arc::new(Looks::default());
    let hook = looks.clone();
    control.say_between(move || hook.between());
    let stage = S::set(control, pair.iter().flat_map(|command| command.needs)).await;
    looks.at.store(at.unwrap_or(u64::MAX), Ordering::Relaxed);
    looks.armed.store(true, Ordering::Relaxed);
    let first = async {
        let code = code_of((pair[0].run)(&stage).await);
        looks.armed.store(false, Ordering::Relaxed);
        looks.come.notify_one();
        code
    };
    let second = async {
        looks.come.notified().await;
        code_of((pair[1].run)(&stage).await)
    };
    let both: [Pin<Box<dyn Future<Output = String> + '_>>; 2] = [Box::pin(first), Box::pin(second)];
    let codes = seam::join_all(both).await.try_into().expect("two were asked");
    stage.rt().sleep(SETTLED).await;
    (Outcome { codes, state: stage.state().await }, looks.seen.load(Ordering::Relaxed))
}

fn code_of(done: Result<(), String>) -> String {
    done.err().unwrap_or_else(|| "done".to_owned())
}

fn run<S: Stage>(pair: [&Command<S>; 2], at: Option<u64>) -> (Outcome, u64) {
    let sim = Simulation::new(1, Limits::default());
    let control = (*sim).clone();
    sim.run_until(play(&control, pair, at)).expect("they end")
}

/// Runs `work` for each number below `count`, on all threads.
fn each(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// Which of the looks of a first command, so many, this run takes.
fn chosen(pair: usize, looks: u64) -> Vec<u64> {
    if std::env::var("HOLDFAST_SOAK").is_ok_and(|value| value == "1") {
        return (0..looks).collect();
    }
    let pick: u64 = std::env::var("HOLDFAST_PICK").ok().and_then(|pick| pick.parse().ok()).unwrap_or(0);
    // Neighbours in the table meet at other looks.
    (0..LOOKS.min(looks)).map(|more| (pick + more + pair as u64 * 7) % looks.max(1)).collect()
}

#[test]
fn two_commands_at_once_end_as_one_behind_the_other() {
    every_pair(table::COMMANDS);
}

#[test]
fn two_changes_of_disks_at_once_end_as_one_behind_the_other() {
    every_pair(disks::COMMANDS);
}

fn every_pair<S: Stage>(commands: &[Command<S>]) {
    let count = commands.len();
    let pair = |number: usize| [&commands[number / count], &commands[number % count]];
    let is_left_out = |number: usize| !S::come_together(pair(number).map(|command| command.name));
    let behind: Mutex<BTreeMap<usize, (Outcome, u64)>> = Mutex::default();
    each(count * count, |number| {
        if is_left_out(number) {
            return;
        }
        let outcome = run(pair(number), None);
        behind.lock().expect("nothing panics under it").insert(number, outcome);
    });
    let behind = behind.into_inner().expect("nothing panics under it");
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let tried = AtomicUsize::new(0);
    each(count * count, |number| {
        if is_left_out(number) {
            return;
        }
        let turned = number % count * count + number / count;
        let serial = [behind[&number].0.clone(), behind[&turned].0.clone().turned()];
        for at in chosen(number, behind[&number].1) {
            tried.fetch_add(1, Ordering::Relaxed);
            let (outcome, _) = run(pair(number), Some(at));
            if !outcome.is_refused(pair(number)) && !serial.iter().any(|serial| outcome.is_like(serial)) {
                let told = told(pair(number), at, &outcome, &serial);
                wrong.lock().expect("nothing panics under it").push(told);
            }
        }
    });
    let wrong = wrong.into_inner().expect("nothing panics under it");
    println!("{} pairs at {} looks", count * count, tried.into_inner());
    assert!(wrong.is_empty(), "{} are of neither order:\n{}", wrong.len(), wrong.join("\n"));
}

fn told<S: Stage>(pair: [&Command<S>; 2], at: u64, found: &Outcome, serial: &[Outcome; 2]) -> String {
    let mut told = format!("{}, and at its look {at} {}: {:?}", pair[0].name, pair[1].name, found.codes);
    for (order, serial) in ["in this order", "in the other"].iter().zip(serial) {
        told += &format!("\n  {order}: {:?}", serial.codes);
        let (is, would): (Vec<&str>, Vec<&str>) =
            (found.state.lines().collect(), serial.state.lines().collect());
        for line in would.iter().filter(|line| !is.contains(line)) {
            told += &format!("\n    - {line}");
        }
        for line in is.iter().filter(|line| !would.contains(line)) {
            told += &format!("\n    + {line}");
        }
    }
    told
}
