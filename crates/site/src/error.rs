//! What can go wrong, said so that the reader knows what to do next.

use std::error::Error as Cause;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use api::{Code, Problem, code};
use engine::{EngineError, EngineErrorKind};

/// A request to the site failed.
#[derive(Debug, Clone)]
pub struct SiteError(api::Error);

/// Result of a request to the site.
pub type Result<T> = std::result::Result<T, SiteError>;

impl SiteError {
    /// An error with what to do next as the table of codes has it.
    pub fn new(code: &'static Code, reason: impl Into<String>) -> Self {
        Self(api::Error::new(code, reason))
    }

    /// Says better what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self(self.0.hint(hint))
    }

    /// Keeps what it comes from.
    #[must_use]
    pub fn caused_by(self, source: impl Cause + Send + Sync + 'static) -> Self {
        Self(self.0.caused_by(source))
    }

    /// A file could not be read or written.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::of_io(code::FILE_ERROR, path.display(), error)
    }

    /// The system refused something of `what`, and nobody here says better than `code` why.
    pub fn of_io(code: &'static Code, what: impl fmt::Display, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => code::NO_SPACE,
            std::io::ErrorKind::PermissionDenied => code::PERMISSION_DENIED,
            _ => code,
        };
        Self::new(code, format!("{what}: {error}"))
    }
}

impl Deref for SiteError {
    type Target = api::Error;

    fn deref(&self) -> &api::Error {
        &self.0
    }
}

impl DerefMut for SiteError {
    fn deref_mut(&mut self) -> &mut api::Error {
        &mut self.0
    }
}

impl fmt::Display for SiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Cause for SiteError {
    fn source(&self) -> Option<&(dyn Cause + 'static)> {
        self.0.source()
    }
}

impl From<api::Error> for SiteError {
    fn from(error: api::Error) -> Self {
        Self(error)
    }
}

impl From<SiteError> for Problem {
    fn from(error: SiteError) -> Self {
        error.0.into()
    }
}

impl From<EngineError> for SiteError {
    fn from(error: EngineError) -> Self {
        let (code, hint) = match error.kind {
            EngineErrorKind::NotFound => (code::DISK_NOT_FOUND, None),
            EngineErrorKind::Exists => (code::DISK_EXISTS, None),
            EngineErrorKind::NoSpace if error.reason == engine::FULL_BELOW => {
                let hint = "make room on the file systems that hold the media: writes go on by themselves";
                (code::NO_SPACE, Some(hint))
            }
            EngineErrorKind::NoSpace => {
                let hint = "empty the trash (`trash empty`), delete what is not needed, then free what it took (`clean`); or add media (`media add`); `status` says what is short and what makes how much room";
                (code::NO_SPACE, Some(hint))
            }
            EngineErrorKind::TooFewMedia => {
                let hint = "`status` lists the media; bring missing ones back";
                (code::TOO_FEW_MEDIA, Some(hint))
            }
            EngineErrorKind::Lost => {
                let hint = "bring missing media back; else restore from a copy";
                (code::DATA_LOST, Some(hint))
            }
            EngineErrorKind::Held => {
                let hint = "`snapshot show` says until when; nothing ends a hold before";
                (code::SNAPSHOT_HELD, Some(hint))
            }
            EngineErrorKind::Invalid => (code::INVALID_REQUEST, None),
            EngineErrorKind::Format => {
                let hint = "nothing was changed: start the site with the version of holdfast that wrote it";
                (code::INVALID_REQUEST, Some(hint))
            }
            EngineErrorKind::Busy => (code::BUSY, None),
            EngineErrorKind::Bug => {
                let hint = "nothing acknowledged is lost; please report it with the server's log";
                (code::INTERNAL, Some(hint))
            }
            EngineErrorKind::Cancelled => (code::TASK_ENDED, None),
            EngineErrorKind::Closed => {
                let hint = "the server is stopping, or must be started again";
                (code::CLOSING, Some(hint))
            }
        };
        let said = Self::new(code, error.reason.clone()).caused_by(error);
        match hint {
            Some(hint) => said.hint(hint),
            None => said,
        }
    }
}

impl From<meta::Error> for SiteError {
    fn from(error: meta::Error) -> Self {
        Self::from(EngineError::from(error))
    }
}
