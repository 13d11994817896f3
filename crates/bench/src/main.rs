//! The benchmark: load over NBD on Holdfast and, in the same run, on what people would use instead.
//!
//! Vocabulary: a *target* is a server that exports a disk (`targets.rs` has them); a *case* is a kind of load
//! (`load.rs`); a *round* runs every case on every target once; a *ratio* is a target's rate over that of the raw file
//! served by qemu-storage-daemon, in the same case of the same round. The *ceiling* is Holdfast's own front end over a
//! device that answers at once.
//!
//! Road of a run: targets start, each disk is written once in full, then each case runs on one target after another,
//! so that what else the machine does falls on all of them alike; at the end every byte of every disk is read and
//! compared with what was written there. Results are JSON in a file and Markdown on standard output; all else goes to
//! standard error.
//!
//! Invariants:
//! - Blocks written differ from each other unless duplicates are asked for, and every content follows from the seed.
//! - A target that cannot start, refuses a request or gives a wrong byte is told with the reason, and takes no further
//!   part; the others' results stand.
//! - What a run starts is ended by its process number, and its files are removed, also after Ctrl-C. What a killed run
//!   left is removed by the next.
//!
//! Crash rules: none; it keeps nothing but its results.
//!
//! What it does not do: it judges nothing; it has no part in the product and none of its rules on clocks and threads.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a tool outside the product: nothing of it runs in the simulator"
)]

mod client;
mod data;
mod images;
mod import;
mod latency;
mod load;
mod machine;
mod process;
mod report;
mod run;
mod serve;
mod stop;
mod targets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why a run, or a target's part in it, ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// By a signal.
    #[error("stopped")]
    Stopped,
    /// Something did not work.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }

    fn at(path: &Path, error: &std::io::Error) -> Self {
        Self::Failed(format!("{}: {error}", path.display()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Load over NBD on Holdfast and on what people would use instead.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the benchmark
    Run(run::Settings),
    /// Serve a disk that costs nothing, until a signal
    Serve {
        /// What stands behind the front end
        behind: serve::Behind,
        /// Where to listen
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
        /// Size of the disk
        #[arg(long, default_value = "2G", value_parser = run::size)]
        size: u64,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(settings) => stop::listen().and_then(|()| run::run(&settings)),
        Command::Serve { behind, socket, size } => serve::serve(behind, &socket, size),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Stopped) => ExitCode::from(stop::EXIT),
        Err(failure) => {
            eprintln!("holdfast-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
