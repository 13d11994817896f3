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
    let family = arguments.family.map(|family| match family {
        Promise::Within => Family::Within,
        Promise::Beyond => Family::Beyond,
        Promise::Takeover => Family::Takeover,
    });
    if arguments.trace {
        let format = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
        format.with_writer(std::io::stderr).without_time().with_ansi(false).init();
    }
    let (from, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
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
                while let Some(seed) = from.checked_add(next.fetch_add(1, Ordering::Relaxed))
                    && seed - from < count
                {
                    keep(one(seed, family, arguments.trace));
                }
            });
        }
    });
    report(outcomes.into_inner().expect("nothing panics under it"))
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
