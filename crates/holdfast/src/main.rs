//! The holdfast program: a site's server, and the command line that speaks to it.
//!
//! Vocabulary: `standalone` is all roles in one process; every other command is a client of the interface at
//! `D/api.sock`, or needs no site. A **transfer** is an import or export: a task of the site whose bytes this program
//! moves.
//!
//! Invariants: results go to standard output, everything else to standard error. With `-o json` both are JSON, with
//! `-o yaml` YAML: a result is one value, an error is `{"code", "message", "hint"}` on standard error with nothing on
//! standard output. Every code is in the table of `site`, and with it its exit code: 0 done, 1 failed, 2 usage, 4 not
//! found, 5 denied, 6 conflict or busy, 7 time-out, 130 interrupted. No command asks questions. An import that does not
//! end well leaves no VM; an image never makes another file be read.
//! Keys never reach a core dump or a log; the recovery key goes to a terminal or to the file named for it.
//!
//! Crash rules: `D/api.sock` appears only when exports are served. SIGTERM and SIGINT are a clean stop.
//!
//! What it does not do: no work of its own; `site`, `api` and what is below them do it.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod failure;
mod harden;
mod host;
mod offline;
mod output;
mod roles;
mod serve;
mod transfer;

use std::process::ExitCode;
use std::sync::Arc;

use api::code;
use clap::Parser;
use seam::Rt;

use crate::arguments::{Arguments, Command, SiteCommand};
use crate::failure::Failure;
use crate::output::Printer;

fn main() -> ExitCode {
    let given: Vec<_> = std::env::args_os().collect();
    let arguments = match Arguments::try_parse_from(&given) {
        Ok(arguments) => arguments,
        Err(error) => return arguments::refuse(&error, &given),
    };
    let format = arguments.output;
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(format),
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let printer = Printer::new(arguments.output);
    match arguments.command {
        Command::Standalone(options) => {
            harden::no_core_dumps()?;
            let (runtime, rt) = threads()?;
            runtime.block_on(serve::standalone(rt, options, printer))
        }
        Command::Site(SiteCommand::Recover(options)) => {
            harden::no_core_dumps()?;
            let (runtime, rt) = threads()?;
            runtime.block_on(serve::recover(rt, options, printer))
        }
        Command::Site(SiteCommand::Restore { dir, missing }) => {
            harden::no_core_dumps()?;
            let (runtime, rt) = threads()?;
            runtime.block_on(roles::restore(rt, &dir, missing.unwrap_or(0), printer))
        }
        Command::Site(SiteCommand::Found(options)) => {
            harden::no_core_dumps()?;
            let (_runtime, rt) = threads()?;
            roles::found(&rt, options, printer)
        }
        Command::Manager(options) => {
            harden::no_core_dumps()?;
            let (runtime, rt) = threads()?;
            runtime.block_on(roles::manager(rt, options, printer))
        }
        Command::Data(options) => {
            harden::no_core_dumps()?;
            let (runtime, rt) = threads()?;
            runtime.block_on(roles::data(rt, options, printer))
        }
        Command::Compute(options) => {
            harden::no_core_dumps()?;
            let (runtime, rt) = threads()?;
            runtime.block_on(roles::compute(rt, options, printer))
        }
        Command::Join(options) => {
            harden::no_core_dumps()?;
            let (runtime, rt) = threads()?;
            runtime.block_on(roles::join(rt, options, printer))
        }
        Command::Node(command) => {
            harden::no_core_dumps()?;
            let (runtime, rt) = threads()?;
            runtime.block_on(roles::node(rt, command, printer))
        }
        Command::Client(command) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Failure::failed(code::RUNTIME, error.to_string()))?;
            let rt = Arc::new(seam::TokioRuntime::new(runtime.handle().clone()));
            let site = arguments.site.ok_or_else(commands::no_site)?;
            let done = runtime.block_on(commands::run(rt, &site, arguments.timeout, command, printer));
            // A thread may still wait for standard input, and nobody for it.
            runtime.shutdown_background();
            done
        }
        Command::Explain { code } => offline::explain(code.as_deref(), printer),
        Command::Completion { shell } => offline::completion(shell, printer),
        Command::Man { dir } => offline::man(&dir, printer),
    }
}

/// A runtime of as many threads as there are processors.
fn threads() -> Result<(tokio::runtime::Runtime, Rt), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(code::RUNTIME, error.to_string()))?;
    host::raise_open_files();
    let rt = Arc::new(seam::TokioRuntime::new(runtime.handle().clone()));
    Ok((runtime, rt))
}
