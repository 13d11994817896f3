//! The holdfast program: a site's server, and the command line that speaks to it.
//!
//! Vocabulary: `standalone` is all roles in one process; every other command is a client of the interface at
//! `D/api.sock`.
//!
//! Invariants: results go to standard output, everything else to standard error. With `-o json` both are JSON: a result
//! is one value, an error is `{"code", "message", "hint"}` on standard error with nothing on standard output. Exit
//! codes: 0 done, 1 failed, 2 usage, 4 not found, 5 denied, 6 conflict or busy, 7 time-out. No command asks questions.
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
mod output;
mod serve;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::arguments::{Arguments, Command};
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
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Failure::failed("runtime", error.to_string()))?;
            let rt = Arc::new(seam::TokioRuntime::new(runtime.handle().clone()));
            runtime.block_on(serve::standalone(rt, options, printer))
        }
        Command::Client(command) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Failure::failed("runtime", error.to_string()))?;
            let rt = Arc::new(seam::TokioRuntime::new(runtime.handle().clone()));
            let site = arguments.site.ok_or_else(commands::no_site)?;
            runtime.block_on(commands::run(rt, &site, arguments.timeout, command, printer))
        }
    }
}
