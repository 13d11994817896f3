//! What a command that failed says, and its exit code.

use std::process::ExitCode;

use api::{ClientError, ClientErrorKind, Problem};
use serde::Serialize;
use site::{ErrorKind, SiteError};

use crate::output::Format;

const FAILED: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
const NOT_FOUND: u8 = 4;
const DENIED: u8 = 5;
const CONFLICT: u8 = 6;
const TIMEOUT: u8 = 7;

/// A command failed.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    /// What it is, for programs.
    code: String,
    /// What happened, to what.
    message: String,
    /// What to do next.
    hint: String,
    #[serde(skip)]
    exit: u8,
}

impl Failure {
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: String::new(), exit: FAILED }
    }

    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: "usage".to_owned(), message: message.into(), hint: hint.into(), exit: USAGE }
    }

    /// A call of the interface failed; `start` says how the site's server is started.
    pub(crate) fn of_call(error: ClientError, start: &str) -> Self {
        let (code, hint, exit) = match error.kind {
            ClientErrorKind::Refused(problem) => return Self::from(*problem),
            ClientErrorKind::NotRunning => ("not_running", format!("start the site: {start}"), FAILED),
            ClientErrorKind::Denied => {
                ("denied", "run it as the user of the site's server".to_owned(), DENIED)
            }
            ClientErrorKind::TimedOut => {
                ("timeout", "look what became of it, or wait longer with --timeout".to_owned(), TIMEOUT)
            }
            ClientErrorKind::Protocol => {
                ("protocol", "are command and server of one version?".to_owned(), FAILED)
            }
        };
        let message = match code {
            "not_running" => format!("the site is not running: {}", error.reason),
            _ => error.reason,
        };
        Self { code: code.to_owned(), message, hint, exit }
    }

    /// Prints it to standard error; gives the exit code.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        match format {
            Format::Json => {
                let text =
                    serde_json::to_string(self).unwrap_or_else(|_| "{\"code\":\"internal\"}".to_owned());
                eprintln!("{text}");
            }
            Format::Table if self.hint.is_empty() => eprintln!("error: {}", self.message),
            Format::Table => eprintln!("error: {}\nhint: {}", self.message, self.hint),
        }
        ExitCode::from(self.exit)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.status {
            400 | 413 | 415 | 422 => USAGE,
            401 | 403 => DENIED,
            404 => NOT_FOUND,
            409 => CONFLICT,
            408 | 504 => TIMEOUT,
            _ => FAILED,
        };
        Self { code: problem.code, message: problem.detail, hint: problem.hint, exit }
    }
}

impl From<SiteError> for Failure {
    fn from(error: SiteError) -> Self {
        let exit = match error.kind {
            ErrorKind::Invalid => USAGE,
            ErrorKind::NotFound => NOT_FOUND,
            ErrorKind::Denied => DENIED,
            ErrorKind::Conflict | ErrorKind::Busy => CONFLICT,
            ErrorKind::NoSpace | ErrorKind::Unavailable | ErrorKind::Failed => FAILED,
        };
        Self { code: error.code.to_owned(), message: error.reason, hint: error.hint, exit }
    }
}
