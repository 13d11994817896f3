//! What can go wrong, said so that the reader knows what to do next.

use std::path::Path;

use engine::{EngineError, EngineErrorKind};

use crate::codes::Code;

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request makes no sense.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// Wrong key or passphrase, or not allowed.
    Denied,
    /// It exists already, or is not what was expected.
    Conflict,
    /// In use; try again later.
    Busy,
    /// The pool is full.
    NoSpace,
    /// Too few media, or the site is closing.
    Unavailable,
    /// Something below failed.
    Failed,
}

impl ErrorKind {
    /// Status of an HTTP answer about such an error.
    fn status(self) -> u16 {
        match self {
            Self::Invalid => 422,
            Self::NotFound => 404,
            Self::Denied => 403,
            Self::Conflict | Self::Busy => 409,
            Self::NoSpace => 507,
            Self::Unavailable => 503,
            Self::Failed => 500,
        }
    }
}

/// A request to the site failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct SiteError {
    /// What to do about it, for programs.
    pub kind: ErrorKind,
    /// What it is, for programs: stable, lower case with underscores.
    pub code: &'static str,
    /// What happened, to what.
    pub reason: String,
    /// What to do next.
    pub hint: String,
}

/// Result of a request to the site.
pub type Result<T> = std::result::Result<T, SiteError>;

impl SiteError {
    /// An error with what to do next as the table of codes has it.
    pub fn new(kind: ErrorKind, code: &'static str, reason: impl Into<String>) -> Self {
        let known = Code::find(code);
        debug_assert!(known.is_some_and(|known| known.status == kind.status()), "{code} is not {kind:?}");
        let hint = known.map_or("see the server's log and the system's", |known| known.next);
        Self { kind, code, reason: reason.into(), hint: hint.to_owned() }
    }

    /// Says better what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn invalid(code: &'static str, reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, reason)
    }

    /// A file could not be read or written.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::of_io("file_error", path.display(), error)
    }

    /// The system refused something of `what`, and nobody here says better than `code` why.
    pub fn of_io(code: &'static str, what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let (kind, code) = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                (ErrorKind::NoSpace, "no_space")
            }
            std::io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "permission_denied"),
            _ => (ErrorKind::Failed, code),
        };
        Self::new(kind, code, format!("{what}: {error}"))
    }
}

impl From<EngineError> for SiteError {
    fn from(error: EngineError) -> Self {
        let (kind, code, hint) = match error.kind {
            EngineErrorKind::NotFound => (ErrorKind::NotFound, "disk_not_found", None),
            EngineErrorKind::Exists => (ErrorKind::Conflict, "disk_exists", None),
            EngineErrorKind::NoSpace if error.reason == engine::FULL_BELOW => {
                let hint = "make room on the file systems that hold the media: writes go on by themselves";
                (ErrorKind::NoSpace, "no_space", Some(hint))
            }
            EngineErrorKind::NoSpace => {
                let hint = "empty the trash (`trash empty`), delete what is not needed, then free what it took (`clean`); or add media (`media add`); `status` says what is short and what makes how much room";
                (ErrorKind::NoSpace, "no_space", Some(hint))
            }
            EngineErrorKind::TooFewMedia => {
                let hint = "`status` lists the media; bring missing ones back";
                (ErrorKind::Unavailable, "too_few_media", Some(hint))
            }
            EngineErrorKind::Lost => {
                let hint = "bring missing media back; else restore from a copy";
                (ErrorKind::Failed, "data_lost", Some(hint))
            }
            EngineErrorKind::Held => {
                let hint = "`snapshot show` says until when; nothing ends a hold before";
                (ErrorKind::Conflict, "snapshot_held", Some(hint))
            }
            EngineErrorKind::Invalid => (ErrorKind::Invalid, "invalid_request", None),
            EngineErrorKind::Busy => (ErrorKind::Busy, "busy", None),
            EngineErrorKind::Bug => {
                let hint = "nothing acknowledged is lost; please report it with the server's log";
                (ErrorKind::Failed, "internal", Some(hint))
            }
            EngineErrorKind::Cancelled => (ErrorKind::Conflict, "task_ended", None),
            EngineErrorKind::Closed => {
                let hint = "the server is stopping, or must be started again";
                (ErrorKind::Unavailable, "closing", Some(hint))
            }
        };
        let error = Self::new(kind, code, error.reason);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<meta::Error> for SiteError {
    fn from(error: meta::Error) -> Self {
        Self::from(EngineError::from(error))
    }
}
