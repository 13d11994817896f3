//! The table of test suites: what each runs and how long it may take.
//!
//! A test belongs to a suite by the first module of its path: `kill::...` runs in `kill` and nowhere else, a test in
//! any module named `fuzz` runs in `fuzz`, and everything else runs in `unit`. Budgets are for two cores and a built
//! tree; a suite over its budget is reported, one over [`PATIENCE`] times its budget is stopped and has failed.
//! Each run tries the same: what roams is `hunt`.

use std::process::Command;
use std::time::Duration;

use crate::process::on_path;
use crate::tree::{self, FIXED_PICK};

/// A suite is stopped after so many budgets: then it hangs.
pub(crate) const PATIENCE: u32 = 4;

/// Seeds tried beside those that found something once: the same each time. Two cores try some 15 a second.
const SEEDS: u64 = 1500;
/// Seeds of different picks do not overlap: each owns this many.
const SEEDS_PER_PICK: u64 = 1 << 20;

/// A set of tests with a time budget.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) budget: Duration,
    pub(crate) runs: Runs,
}

/// What a suite runs.
#[derive(Debug)]
pub(crate) enum Runs {
    /// Every test that no other suite claims.
    Rest,
    /// The tests whose path starts with the suite's name.
    Module,
    /// The tests with the suite's name anywhere in their module path.
    AnyModule,
    /// The simulator, on the corpus and on fresh seeds.
    Simulator,
}

/// All suites, in the order they run.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "unit",
        about: "unit and integration tests of every crate, and tidy",
        budget: Duration::from_secs(240),
        runs: Runs::Rest,
    },
    Suite {
        name: "fuzz",
        about: "every decoder's fuzz body on its corpus and on mutations of it",
        budget: Duration::from_secs(30),
        runs: Runs::AnyModule,
    },
    Suite {
        name: "sim",
        about: "whole-engine fault schedules: seeds that found something once, and a fixed range",
        budget: Duration::from_secs(150),
        runs: Runs::Simulator,
    },
    Suite {
        name: "flip",
        about: "bit flips in a complete small store, a sample",
        budget: Duration::from_secs(120),
        runs: Runs::Module,
    },
    Suite {
        name: "kill",
        about: "kill -9, EIO and ENOSPC at system calls of the real binary, a sample",
        budget: Duration::from_secs(170),
        runs: Runs::Module,
    },
    Suite {
        name: "clients",
        about: "outside NBD clients and file systems on the real binary",
        budget: Duration::from_secs(120),
        runs: Runs::Module,
    },
    Suite {
        name: "etcd",
        about: "the metadata store on real etcd servers that are killed, hang, are full or too few",
        budget: Duration::from_secs(90),
        runs: Runs::Module,
    },
    Suite {
        name: "cluster",
        about: "sites of many nodes as real processes that are killed, stopped and cut off",
        budget: Duration::from_secs(60),
        runs: Runs::Module,
    },
];

/// The suite of that name.
pub(crate) fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}

impl Suite {
    /// The programs to run, in order, on a built tree.
    pub(crate) fn commands(&self, pick: u64) -> Vec<Command> {
        let mut commands = match self.runs {
            Runs::Simulator => {
                let from = if pick == FIXED_PICK { 0 } else { fresh_from(pick) };
                vec![simulator(&["--corpus", "--from", &from.to_string(), "--seeds", &SEEDS.to_string()])]
            }
            _ if on_path("cargo-nextest") => vec![self.nextest()],
            _ => vec![self.cargo_test()],
        };
        for command in &mut commands {
            command.env("HOLDFAST_PICK", pick.to_string()).env("PROPTEST_RNG_SEED", pick.to_string());
        }
        commands
    }

    fn nextest(&self) -> Command {
        let mut command = tree::linted_cargo();
        command.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast", "--cargo-quiet"]);
        command.args(["--status-level", "slow", "--final-status-level", "fail", "--no-tests", "pass"]);
        command.args(["--config-file", "xtask/nextest.toml", "-E", &self.filter()]);
        command
    }

    /// The suite as an expression of nextest.
    fn filter(&self) -> String {
        match self.runs {
            Runs::Rest => {
                let others: Vec<String> =
                    SUITES.iter().filter(|suite| suite.is_by_module()).map(Suite::filter).collect();
                format!("not ({})", others.join(" or "))
            }
            Runs::AnyModule => format!("test(/(^|::){}::/)", self.name),
            Runs::Module | Runs::Simulator => format!("test(/^{}::/)", self.name),
        }
    }

    /// The same by cargo's own runner, whose filters match anywhere in a path.
    fn cargo_test(&self) -> Command {
        let mut command = tree::linted_cargo();
        command.args(["test", "--workspace", "--tests", "--locked", "--quiet", "--no-fail-fast", "--"]);
        match self.runs {
            Runs::Rest => {
                for suite in SUITES.iter().filter(|suite| suite.is_by_module()) {
                    command.arg("--skip").arg(format!("{}::", suite.name));
                }
            }
            _ => {
                command.arg(format!("{}::", self.name));
            }
        }
        command
    }

    fn is_by_module(&self) -> bool {
        matches!(self.runs, Runs::Module | Runs::AnyModule)
    }
}

/// First fresh seed of a pick.
pub(crate) fn fresh_from(pick: u64) -> u64 {
    // Above the fixed range for every pick.
    (pick % (u64::MAX / SEEDS_PER_PICK - 1) + 1) * SEEDS_PER_PICK
}

/// The simulator, as built with the tree.
pub(crate) fn simulator(arguments: &[&str]) -> Command {
    let mut command = Command::new(tree::target().join("debug/holdfast-sim"));
    command.current_dir(tree::root()).args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_leaves_out_what_other_suites_run() {
        let unit = find("unit").expect("there is a unit suite").filter();
        for name in ["flip", "kill", "clients", "etcd", "cluster"] {
            assert!(unit.starts_with("not (") && unit.contains(&format!("test(/^{name}::/)")), "{unit}");
        }
        assert!(unit.contains("test(/(^|::)fuzz::/)"), "{unit}");
        assert!(!unit.contains("sim::"), "tests inside the simulator crate are unit tests: {unit}");
    }

    #[test]
    fn fresh_seeds_never_overlap() {
        assert!(fresh_from(0) >= SEEDS);
        const { assert!(SEEDS <= SEEDS_PER_PICK) };
        assert_eq!(fresh_from(8) - fresh_from(7), SEEDS_PER_PICK);
        assert!(fresh_from(u64::MAX).checked_add(SEEDS).is_some());
    }

    #[test]
    fn budgets_leave_room_for_the_build() {
        let sum: u64 = SUITES.iter().map(|suite| suite.budget.as_secs()).sum();
        assert!(sum <= 18 * 60, "{sum} s of suites: with build and check CI would pass 25 minutes");
    }
}
