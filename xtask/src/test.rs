//! `cargo x test`: builds once, then runs the suites against their budgets.
//!
//! The last line is `N passed, N failed` over all suites. A suite that ran no test has failed: a filter or a
//! program went missing.

use std::time::{Duration, Instant};

use crate::process::{Show, run, seconds};
use crate::suites::{PATIENCE, SUITES, Suite, find};
use crate::tally::{Tally, count};
use crate::{Failure, Result, failed, setup, tree};

/// Far above a build from nothing on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// What became of one suite.
struct Verdict {
    name: &'static str,
    tally: Tally,
    took: Duration,
    budget: Duration,
}

/// `cargo x test`.
pub(crate) fn command(arguments: &[String]) -> Result {
    let suites = chosen(arguments)?;
    setup::packages()?;
    if suites.iter().any(|suite| suite.name == "clients") {
        setup::schemathesis()?;
    }
    let pick = tree::pick()?;
    println!("== build");
    let built = build()?;
    let mut verdicts = Vec::new();
    if built.tally.failed == 0 {
        for suite in suites {
            verdicts.push(run_suite(suite, pick)?);
        }
    }
    let mut sum = built.tally;
    println!("\npick {pick} (HOLDFAST_PICK={pick} repeats this run's seeds and samples)");
    for verdict in std::iter::once(&built).chain(&verdicts) {
        println!("{}", row(verdict));
    }
    for verdict in &verdicts {
        sum += verdict.tally;
    }
    println!("{sum}");
    if sum.failed > 0 { Err(failed("there are failures above")) } else { Ok(()) }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Suite>> {
    if names.is_empty() {
        return Ok(SUITES.iter().collect());
    }
    let known = || SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            find(name).ok_or_else(|| Failure::Usage(format!("no suite {name:?} (there are {})", known())))
        })
        .collect()
}

/// Builds everything the suites run, so that their times are their own.
fn build() -> Result<Verdict> {
    let start = Instant::now();
    let outcome = build_tree()?;
    let tally = Tally { passed: 0, failed: u64::from(!outcome) };
    Ok(Verdict { name: "build", tally, took: start.elapsed(), budget: BUILD_LIMIT })
}

/// Builds everything that the suites run: not the examples. False when something does not compile.
pub(crate) fn build_tree() -> Result<bool> {
    let mut command = tree::linted_cargo();
    command.args(["build", "--workspace", "--lib", "--bins", "--tests", "--locked", "--quiet"]);
    Ok(run(&mut command, Show::Live, BUILD_LIMIT)?.success)
}

fn run_suite(suite: &'static Suite, pick: u64) -> Result<Verdict> {
    println!("\n== {}: {}", suite.name, suite.about);
    let start = Instant::now();
    let mut tally = Tally::default();
    for mut command in suite.commands(pick) {
        let outcome = run(&mut command, Show::Live, suite.budget * PATIENCE)?;
        let mut counted = count(&outcome.output);
        if !outcome.success && counted.failed == 0 {
            counted.failed = 1;
            println!(
                "{}: {}",
                suite.name,
                if outcome.timed_out { "stopped, it hangs" } else { "ended with an error" }
            );
        }
        tally += counted;
    }
    if tally == Tally::default() {
        println!("{}: no test ran", suite.name);
        tally.failed = 1;
    }
    Ok(Verdict { name: suite.name, tally, took: start.elapsed(), budget: suite.budget })
}

fn row(verdict: &Verdict) -> String {
    let late = if verdict.took > verdict.budget { "   OVER BUDGET" } else { "" };
    let result = if verdict.tally.failed > 0 { "FAILED" } else { "ok" };
    let took = format!("{} of {:.0} s", seconds(verdict.took), verdict.budget.as_secs_f64());
    format!("  {:<8} {result:<7} {took:>18}   {}{late}", verdict.name, verdict.tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_chosen_by_name() {
        assert_eq!(chosen(&[]).expect("all of them").len(), SUITES.len());
        assert_eq!(chosen(&["kill".to_owned()]).expect("kill is a suite")[0].name, "kill");
        assert!(matches!(chosen(&["nothing".to_owned()]), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_late_suite_is_said_aloud() {
        let tally = Tally { passed: 3, failed: 0 };
        let took = Duration::from_secs(11);
        let late = Verdict { name: "kill", tally, took, budget: Duration::from_secs(10) };
        assert!(row(&late).contains("OVER BUDGET") && row(&late).contains("ok"));
        let timely = Verdict { budget: Duration::from_secs(12), ..late };
        assert!(!row(&timely).contains("OVER BUDGET"));
    }
}
