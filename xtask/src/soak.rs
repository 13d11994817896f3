//! `cargo x sim` and `cargo x soak`: the long runs.
//!
//! A soak run covers everything where `cargo x test` takes a sample: the suites see `HOLDFAST_SOAK=1`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::{Show, run, seconds};
use crate::suites::{find, simulator};
use crate::tally::{Tally, count};
use crate::{Failure, Result, failed, planted, setup, test, tree};

/// Seeds of `soak sim`.
const SOAK_SEEDS: u64 = 100_000;
/// A soak run may take a day.
const SOAK_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// A file system in RAM.
const MEMORY: &str = "/dev/shm";

const SOAKS: &[&str] = &["sim", "kill", "flip", "fuzz", "planted"];

/// `cargo x sim`: passes its arguments on to the simulator.
pub(crate) fn sim(arguments: &[String]) -> Result {
    let mut command = tree::cargo();
    command.args(["run", "--quiet", "--package", "sim", "--bin", "holdfast-sim", "--"]).args(arguments);
    let outcome = run(&mut command, Show::Live, SOAK_LIMIT)?;
    if outcome.success { Ok(()) } else { Err(failed("the simulator found something: its seed is above")) }
}

/// `cargo x soak`.
pub(crate) fn command(arguments: &[String]) -> Result {
    if let Some(name) = arguments.iter().find(|name| !SOAKS.contains(&name.as_str())) {
        return Err(Failure::Usage(format!("no soak {name:?} (there are {})", SOAKS.join(", "))));
    }
    setup::packages()?;
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let by_suite: Vec<&str> =
        SOAKS.iter().copied().filter(|name| *name != "planted" && wanted(name)).collect();
    if !by_suite.is_empty() && !test::build_tree()? {
        return Err(failed("the tree does not build"));
    }
    let mut sum = Tally::default();
    for name in by_suite {
        sum += soak_suite(name)?;
    }
    if wanted("planted") {
        sum += planted::run_all()?;
    }
    println!("{sum}");
    if sum.failed > 0 { Err(failed("there are failures above")) } else { Ok(()) }
}

fn soak_suite(name: &str) -> Result<Tally> {
    println!("== soak {name}, commit {}", tree::commit().as_deref().unwrap_or("unknown"));
    let start = Instant::now();
    let commands = match name {
        "sim" => vec![simulator(&["--from", "0", "--seeds", &SOAK_SEEDS.to_string()])],
        _ => find(name).ok_or_else(|| failed(format!("no suite {name}")))?.commands(tree::pick()?),
    };
    let mut tally = Tally::default();
    for mut command in commands {
        command.env("HOLDFAST_SOAK", "1").env("NEXTEST_PROFILE", "soak");
        if std::env::var_os("TMPDIR").is_none() && Path::new(MEMORY).is_dir() {
            // What is killed here is a process, never the machine: the file system in RAM is as good, and quicker.
            command.env("TMPDIR", MEMORY);
        }
        let outcome = run(&mut command, Show::Live, SOAK_LIMIT)?;
        tally += count(&outcome.output);
        if !outcome.success && tally.failed == 0 {
            tally.failed = 1;
        }
    }
    if tally == Tally::default() {
        println!("soak {name}: no test ran");
        tally.failed = 1;
    }
    println!("== soak {name}: {tally} in {}", seconds(start.elapsed()));
    Ok(tally)
}
