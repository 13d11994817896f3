//! What can go wrong, said so that the reader knows what to do next.

use std::path::Path;

use engine::{EngineError, EngineErrorKind};

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
    /// What to do next; may be empty.
    pub hint: String,
}

/// Result of a request to the site.
pub type Result<T> = std::result::Result<T, SiteError>;

impl SiteError {
    pub(crate) fn new(kind: ErrorKind, code: &'static str, reason: impl Into<String>) -> Self {
        Self { kind, code, reason: reason.into(), hint: String::new() }
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn invalid(code: &'static str, reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, reason)
    }

    /// A file of the site could not be read or written.
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        let (kind, code) = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                (ErrorKind::NoSpace, "no_space")
            }
            std::io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "permission_denied"),
            _ => (ErrorKind::Failed, "file_error"),
        };
        Self::new(kind, code, format!("{}: {error}", path.display()))
    }
}

impl From<EngineError> for SiteError {
    fn from(error: EngineError) -> Self {
        let (kind, code, hint) = match error.kind {
            EngineErrorKind::NotFound => (ErrorKind::NotFound, "disk_not_found", ""),
            EngineErrorKind::Exists => (ErrorKind::Conflict, "disk_exists", ""),
            EngineErrorKind::NoSpace => {
                (ErrorKind::NoSpace, "no_space", "delete what is not needed, or give the site more room")
            }
            EngineErrorKind::TooFewMedia => {
                (ErrorKind::Unavailable, "too_few_media", "`status` lists the media; bring missing ones back")
            }
            EngineErrorKind::Lost => {
                (ErrorKind::Failed, "data_lost", "bring missing media back; restore from a copy otherwise")
            }
            EngineErrorKind::Invalid => (ErrorKind::Invalid, "invalid_request", ""),
            EngineErrorKind::Busy => (ErrorKind::Busy, "busy", "try again"),
            EngineErrorKind::Closed => {
                (ErrorKind::Unavailable, "closing", "the server is stopping, or must be started again")
            }
        };
        Self::new(kind, code, error.reason).hint(hint)
    }
}

impl From<meta::Error> for SiteError {
    fn from(error: meta::Error) -> Self {
        Self::from(EngineError::from(error))
    }
}
