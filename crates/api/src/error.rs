//! What can go wrong, said so that the reader knows what to do next.

use std::error::Error as Cause;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::codes::{Code, code};

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request makes no sense.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// Wrong key or passphrase, or not allowed.
    Denied,
    /// It exists already, is in use, or is not what was expected.
    Conflict,
    /// The pool is full.
    NoSpace,
    /// Too few media, or the site is closing.
    Unavailable,
    /// Something below failed.
    Failed,
}

/// An error with a code.
#[derive(Debug, Clone)]
pub struct Error {
    /// What it is, for programs.
    pub code: &'static Code,
    /// What happened, to what.
    pub reason: String,
    /// What to do next.
    pub hint: String,
    source: Option<Arc<dyn Cause + Send + Sync>>,
}

/// Result of what ends with such an error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with what to do next as the table of codes has it.
    pub fn new(code: &'static Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), hint: code.next.to_owned(), source: None }
    }

    /// Says better what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Keeps what it comes from.
    #[must_use]
    pub fn caused_by(mut self, source: impl Cause + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// A file could not be read or written.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::of_io(code::FILE_ERROR, path.display(), error)
    }

    /// The system refused something of `what`; `code` is for what no other code says better.
    pub fn of_io(code: &'static Code, what: impl fmt::Display, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => code::NO_SPACE,
            std::io::ErrorKind::PermissionDenied => code::PERMISSION_DENIED,
            _ => code,
        };
        Self::new(code, format!("{what}: {error}"))
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.code.kind()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Cause for Error {
    fn source(&self) -> Option<&(dyn Cause + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Cause + 'static))
    }
}
