//! What a command that failed says, and its exit code.

use std::process::ExitCode;

use api::{Code, Error, Problem, code, types};
use client::{ClientError, ClientErrorKind};

use crate::output::Format;

/// Exit code of an error that is in no table: of a newer server's, by its HTTP status.
fn exit_of_status(status: u16) -> u8 {
    match status {
        400 | 405 | 413 | 415 | 422 => 2,
        401 | 403 => 5,
        404 => 4,
        409 => 6,
        408 | 504 => 7,
        _ => 1,
    }
}

/// A command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    shown: types::Failure,
    exit: u8,
}

impl Failure {
    /// A failure with this code; exit code and next step are those of the table of codes.
    pub(crate) fn of_code(code: &Code, message: impl Into<String>) -> Self {
        let shown = types::Failure {
            code: code.name.to_owned(),
            message: message.into(),
            hint: code.next.to_owned(),
        };
        Self { shown, exit: code.exit }
    }

    pub(crate) fn failed(code: &Code, message: impl Into<String>) -> Self {
        Self::of_code(code, message)
    }

    /// The system refused something of `what`: with this code, or where this user may not do it with the code for that.
    pub(crate) fn of_io(code: &Code, what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let code =
            if error.kind() == std::io::ErrorKind::PermissionDenied { code::PERMISSION_DENIED } else { code };
        Self::of_code(code, format!("{what}: {error}"))
    }

    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::of_code(code::USAGE, message).hint(hint)
    }

    /// Says better what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.shown.hint = hint.into();
        self
    }

    /// Says the message anew, where the code stays.
    #[must_use]
    pub(crate) fn map_message(mut self, say: impl FnOnce(String) -> Self) -> Self {
        self.shown.message = say(self.shown.message).shown.message;
        self
    }

    pub(crate) fn is(&self, code: &Code) -> bool {
        self.shown.code == code.name
    }

    pub(crate) fn message(&self) -> &str {
        &self.shown.message
    }

    /// A call of the interface failed; `start` says how the site's server is started.
    pub(crate) fn of_call(error: ClientError, start: &str) -> Self {
        match error.kind {
            ClientErrorKind::Refused(problem) => Self::from(*problem),
            ClientErrorKind::NotRunning => {
                Self::of_code(code::NOT_RUNNING, format!("the site is not running: {}", error.reason))
                    .hint(format!("start the site: {start}"))
            }
            ClientErrorKind::Denied => Self::of_code(code::DENIED, error.reason),
            ClientErrorKind::TimedOut => Self::of_code(code::TIMEOUT, error.reason),
            ClientErrorKind::Protocol => Self::of_code(code::PROTOCOL, error.reason),
        }
    }

    /// Prints it to standard error; gives the exit code.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        let types::Failure { message, hint, .. } = &self.shown;
        match format {
            Format::Json => {
                let text = serde_json::to_string(&self.shown);
                eprintln!("{}", text.unwrap_or_else(|_| "{\"code\":\"internal\"}".to_owned()));
            }
            Format::Yaml => {
                let text = serde_norway::to_string(&self.shown);
                eprint!("{}", text.unwrap_or_else(|_| "code: internal\n".to_owned()));
            }
            Format::Table if hint.is_empty() => eprintln!("error: {message}"),
            Format::Table => eprintln!("error: {message}\nhint: {hint}"),
        }
        ExitCode::from(self.exit)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = Code::find(&problem.code).map_or(exit_of_status(problem.status), |known| known.exit);
        Self {
            shown: types::Failure { code: problem.code, message: problem.detail, hint: problem.hint },
            exit,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of_code(error.code, error.reason).hint(error.hint)
    }
}
