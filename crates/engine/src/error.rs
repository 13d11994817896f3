//! What can go wrong.

use journal::{JournalError, JournalErrorKind, RecoverError, RecoverErrorKind};
use pool::{PoolError, PoolErrorKind};

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineErrorKind {
    /// No such disk.
    NotFound,
    /// It exists already.
    Exists,
    /// The pool is full.
    NoSpace,
    /// Too few media are up to do it safely.
    TooFewMedia,
    /// Data or journal beyond repair with the media that are there.
    Lost,
    /// The request makes no sense.
    Invalid,
    /// What is on the media is of an earlier format; nothing was changed.
    Format,
    /// Something else is in the way; try again.
    Busy,
    /// It is held: nobody may remove it yet.
    Held,
    /// The engine was closed or has been superseded.
    Closed,
    /// It was long work that is not wanted any more.
    Cancelled,
    /// A bug: a part of the engine panicked. What was acknowledged is safe; the work is tried again.
    Bug,
}

/// The engine could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct EngineError {
    /// What to do about it.
    pub kind: EngineErrorKind,
    /// What happened, to what.
    pub reason: String,
}

impl EngineError {
    pub(crate) fn new(kind: EngineErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// Of work that panicked.
    pub fn panicked(task: &str, panicked: &seam::Panicked) -> Self {
        Self::new(EngineErrorKind::Bug, format!("a bug: the task {task:?} panicked: {}", panicked.0))
    }
}

impl From<PoolError> for EngineError {
    fn from(error: PoolError) -> Self {
        let kind = match error.kind {
            PoolErrorKind::Lost => EngineErrorKind::Lost,
            PoolErrorKind::NoSpace => EngineErrorKind::NoSpace,
            PoolErrorKind::TooFewMedia => EngineErrorKind::TooFewMedia,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<JournalError> for EngineError {
    fn from(error: JournalError) -> Self {
        let kind = match error.kind {
            JournalErrorKind::TooFewMedia => EngineErrorKind::TooFewMedia,
            JournalErrorKind::NoSpace => EngineErrorKind::NoSpace,
            JournalErrorKind::Closed | JournalErrorKind::Fenced => EngineErrorKind::Closed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<RecoverError> for EngineError {
    fn from(error: RecoverError) -> Self {
        let kind = match error.kind {
            RecoverErrorKind::Lost => EngineErrorKind::Lost,
            RecoverErrorKind::TooFewMedia => EngineErrorKind::TooFewMedia,
            RecoverErrorKind::Format => EngineErrorKind::Format,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<meta::Error> for EngineError {
    fn from(error: meta::Error) -> Self {
        let kind = match error.kind {
            meta::ErrorKind::Invalid => EngineErrorKind::Invalid,
            meta::ErrorKind::Full => EngineErrorKind::NoSpace,
            meta::ErrorKind::Corrupt => EngineErrorKind::Lost,
            meta::ErrorKind::Compacted | meta::ErrorKind::LeaseNotFound | meta::ErrorKind::Unavailable => {
                EngineErrorKind::Busy
            }
            meta::ErrorKind::Unknown | meta::ErrorKind::Stopped => EngineErrorKind::Closed,
        };
        Self::new(kind, error.to_string())
    }
}
