//! `cargo x check`: every static check, each with its time; goes on to the end and lists what failed.

use std::time::{Duration, Instant};

use crate::process::{Show, on_path, run, seconds};
use crate::{Result, failed, no_arguments, setup, tidy, tree};

/// Far above any sound run, clippy from nothing included.
const STEP_LIMIT: Duration = Duration::from_secs(1800);

/// One check: its name and what it does.
type Step = (&'static str, fn() -> Result);

const STEPS: &[Step] = &[("fmt", fmt), ("tidy", tidy), ("deny", deny), ("clippy", clippy)];

/// `cargo x check`.
pub(crate) fn command(arguments: &[String]) -> Result {
    no_arguments(arguments)?;
    let mut bad = Vec::new();
    for (name, step) in STEPS {
        println!("== {name}");
        let start = Instant::now();
        let verdict = match step() {
            Ok(()) => "ok",
            Err(crate::Failure::Failed(message) | crate::Failure::Usage(message)) => {
                println!("{message}");
                bad.push(*name);
                "FAILED"
            }
        };
        println!("== {name}: {verdict} ({})", seconds(start.elapsed()));
    }
    if bad.is_empty() {
        println!("check: all {} steps passed", STEPS.len());
        return Ok(());
    }
    Err(failed(format!("{} of {} steps failed: {}", bad.len(), STEPS.len(), bad.join(", "))))
}

fn fmt() -> Result {
    step(tree::cargo().args(["fmt", "--all", "--check"]), "`cargo fmt` puts it right")
}

/// Builds all there is, which the tests then find built.
fn clippy() -> Result {
    if !on_path(tree::CLIPPY_DRIVER) {
        return Err(failed("clippy is not here: `rustup component add clippy`"));
    }
    let mut command = tree::linted_cargo();
    command.args(["build", "--workspace", "--all-targets", "--locked", "--quiet"]);
    let outcome = run(&mut command, Show::Live, STEP_LIMIT)?;
    let warns = |line: &str| line.starts_with("warning");
    if outcome.success && !outcome.output.lines().any(warns) {
        return Ok(());
    }
    Err(failed("clippy has something to say"))
}

/// Bans, licences and sources. Not advisories: their database is no part of a package registry.
fn deny() -> Result {
    let binary = setup::cargo_deny()?;
    let mut command = std::process::Command::new(binary);
    command.current_dir(tree::root()).args([
        "--log-level",
        "error",
        "--locked",
        "check",
        "--hide-inclusion-graph",
    ]);
    step(command.args(["bans", "licenses", "sources"]), "deny.toml has the rules")
}

fn tidy() -> Result {
    let found = tidy::violations(&tidy::read_tree()?);
    if found.is_empty() { Ok(()) } else { Err(failed(found.join("\n"))) }
}

fn step(command: &mut std::process::Command, hint: &str) -> Result {
    let outcome = run(command, Show::Live, STEP_LIMIT)?;
    if outcome.success { Ok(()) } else { Err(failed(hint)) }
}
