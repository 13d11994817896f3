//! `cargo x`: the one command behind every check, test and demonstration of this repository.
//!
//! CI, a developer's shell and the README call the same commands. The crate uses the standard library only, so that
//! it builds in a second; it depends on no room of the product and none depends on it.
//!
//! Vocabulary: a *suite* is a set of tests with a time budget (`suites.rs` holds the table); a *pick* is the number by
//! which suites choose seeds and samples; a *planted bug* is a
//! patch that a named test must notice; *tidy* is the set of house rules a machine can check.
//!
//! What it does not do: it never changes a tracked file, and it installs Debian packages only when run as root.

#![allow(
    clippy::disallowed_methods,
    reason = "a tool outside the product: nothing of it runs in the simulator"
)]

mod bench;
mod check;
mod demo;
mod guest;
mod hunt;
mod lab;
mod planted;
mod process;
mod setup;
mod soak;
mod suites;
mod tally;
mod test;
mod tidy;
mod tree;

use std::process::ExitCode;

/// Why a command ended badly.
#[derive(Debug)]
enum Failure {
    /// The command line was wrong: exit code 2.
    Usage(String),
    /// The work was tried and failed, or a check found something: exit code 1.
    Failed(String),
}

/// Result of a command or one of its steps.
type Result<T = ()> = std::result::Result<T, Failure>;

/// Shorthand for [`Failure::Failed`].
fn failed(message: impl Into<String>) -> Failure {
    Failure::Failed(message.into())
}

/// One command of `cargo x`.
struct Command {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result,
}

/// Every command there is. A command is listed when it works, and not before.
const COMMANDS: &[Command] = &[
    Command {
        name: "setup",
        arguments: "",
        about: "install what building and testing need (as root), or name it",
        run: setup::command,
    },
    Command {
        name: "demo",
        arguments: "[--cluster] [--keep] [--binary PATH]",
        about: "Debian VMs on Holdfast: what dedup saves, kill -9, a lost and a rotten medium, every byte still there; \
                --cluster: on many nodes, each of which fails while the VM runs",
        run: demo::command,
    },
    Command {
        name: "guest",
        arguments: "[--keep] [--binary PATH]",
        about: "libvirt runs a guest with xfs and ext4 on Holdfast: kill -9 of the server under load, power loss",
        run: guest::command,
    },
    Command {
        name: "test",
        arguments: "[SUITE]...",
        about: "the test suites, all or the named ones, each against its time budget",
        run: test::command,
    },
    Command {
        name: "check",
        arguments: "",
        about: "format, clippy, tidy (house rules), licences and sources of dependencies",
        run: check::command,
    },
    Command {
        name: "sim",
        arguments: "[--seeds N] [--from S]",
        about: "the simulator on N seeds from S on; its other options pass through",
        run: soak::sim,
    },
    Command {
        name: "hunt",
        arguments: "[--minutes N] [SUITE]...",
        about: "fresh seeds and samples, round after round; each failure with the line that repeats it",
        run: hunt::command,
    },
    Command {
        name: "soak",
        arguments: "[sim|kill|flip|fuzz|planted]...",
        about: "the long runs: everything where `test` takes a sample",
        run: soak::command,
    },
    Command {
        name: "bench",
        arguments: "[--quick] [--targets A,B] [--cases A,B]",
        about: "Holdfast and what else one would run, under the same load; --help has all options",
        run: bench::command,
    },
];

fn usage() -> String {
    let mut text = String::from("usage: cargo x COMMAND\n\n");
    for command in COMMANDS {
        let call = format!("{} {}", command.name, command.arguments);
        text.push_str(&format!("  {call:<38} {}\n", command.about));
    }
    text.push_str("\nsuites of `cargo x test`:\n\n");
    for suite in suites::SUITES {
        text.push_str(&format!("  {:<8} {:>4} s   {}\n", suite.name, suite.budget.as_secs(), suite.about));
    }
    text
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", usage());
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprint!("cargo x has no command {name:?}\n\n{}", usage());
        return ExitCode::from(2);
    };
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("{message}\nusage: cargo x {} {}", command.name, command.arguments);
            ExitCode::from(2)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("cargo x {}: {message}", command.name);
            ExitCode::FAILURE
        }
    }
}

/// Refuses arguments for commands that take none.
fn no_arguments(arguments: &[String]) -> Result {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => Err(Failure::Usage(format!("unexpected argument {argument:?}"))),
    }
}
