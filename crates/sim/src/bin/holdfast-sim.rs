//! `holdfast-sim`: runs schedules of the simulator and says which seeds fail.
//!
//! The last line is `N passed, N failed`. A failed seed is printed with the command that replays it. The hash of all
//! digests is the same for the same seeds and the same code: two runs that differ have found a leak in a seam.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, ValueEnum};
use sim::schedule::{Family, Outcome, run};

/// Seeds that found something once.
const CORPUS: &str = include_str!("../../corpus.txt");
/// Failures printed in full; more are counted.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Promise {
    /// Faults within what the geometry tolerates.
    Within,
    /// Faults beyond it.
    Beyond,
    /// Compute nodes that take over from each other.
    Takeover,
    /// Shapes of data at the sizes of a real site.
    Bulk,
}

#[derive(Debug, Parser)]
#[command(about = "Runs whole-engine schedules of the simulator, one for each seed.")]
struct Arguments {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The seeds that found something once, before those of `--from` and `--seeds`.
    #[arg(long)]
    corpus: bool,
    /// This seed alone.
    #[arg(long, conflicts_with_all = ["from", "seeds"])]
    seed: Option<u64>,
    /// Which promise is tested; without it the seed chooses.
    #[arg(long)]
    family: Option<Promise>,
    /// Threads, each with schedules of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tells what happens, on standard error.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let family = arguments.family.map(Promise::family);
    if arguments.trace {
        let format = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
        format.with_writer(std::io::stderr).without_time().with_ansi(false).init();
    }
    let (from, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let corpus = if arguments.corpus { corpus() } else { Vec::new() };
    let count = corpus.len() as u64 + count;
    let case = |number: u64| match corpus.get(number as usize) {
        Some((seed, its_own)) => Some((*seed, family.or(*its_own))),
        None => from.checked_add(number - corpus.len() as u64).map(|seed| (seed, family)),
    };
    let next = AtomicU64::new(0);
    let outcomes: Mutex<Vec<Outcome>> = Mutex::default();
    let keep = |outcome: Outcome| {
        let mut outcomes = outcomes.lock().expect("nothing panics under it");
        outcomes.push(outcome);
        let done = outcomes.len() as u64;
        if done.is_multiple_of((count / 10).max(100)) {
            println!("{done} of {count} seeds");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some((seed, family)) = case(number).filter(|_| number < count) else { return };
                    keep(one(seed, family, arguments.trace));
                }
            });
        }
    });
    report(outcomes.into_inner().expect("nothing panics under it"))
}

impl Promise {
    fn family(self) -> Family {
        match self {
            Self::Within => Family::Within,
            Self::Beyond => Family::Beyond,
            Self::Takeover => Family::Takeover,
            Self::Bulk => Family::Bulk,
        }
    }
}

/// The corpus: seeds, each with its family where it is not the seed that chooses.
///
/// # Panics
/// When a line of it makes no sense.
fn corpus() -> Vec<(u64, Option<Family>)> {
    let lines = CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &str| {
        let (seed, rest) = line.split_once(' ')?;
        let family = match rest.split_whitespace().next()? {
            "any" => None,
            name => Some(Promise::from_str(name, false).ok()?.family()),
        };
        Some((seed.parse().ok()?, family))
    };
    lines.map(|line| case(line).unwrap_or_else(|| panic!("corpus.txt: {line:?}"))).collect()
}

/// One seed; a panic is a failure like any other.
fn one(seed: u64, family: Option<Family>, trace: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, family, trace))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let wrong = Some(format!("panic: {}", text.unwrap_or_default()));
        Outcome { seed, family: family.unwrap_or(Family::of(seed)), digest: 0, wrong, answered: 0, steps: 0 }
    })
}

fn report(mut outcomes: Vec<Outcome>) -> ExitCode {
    outcomes.sort_by_key(|outcome| outcome.seed);
    let mut hasher = blake3::Hasher::new();
    for outcome in &outcomes {
        hasher.update(&outcome.seed.to_le_bytes()).update(&outcome.digest.to_le_bytes());
    }
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.wrong.is_some()).collect();
    for outcome in failed.iter().take(SHOWN_MAX) {
        println!(
            "seed {} ({}): {}",
            outcome.seed,
            outcome.family.name(),
            outcome.wrong.as_deref().unwrap_or("")
        );
        println!("  replay: cargo x sim --seed {} --family {} --trace", outcome.seed, outcome.family.name());
    }
    if let [only] = &outcomes[..] {
        println!("seed {}: digest {:032x}", only.seed, only.digest);
    }
    let answered: u64 = outcomes.iter().map(|outcome| outcome.answered).sum();
    println!(
        "{} seeds, {answered} requests, digest of all digests {}",
        outcomes.len(),
        hasher.finalize().to_hex()
    );
    println!("{} passed, {} failed", outcomes.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
