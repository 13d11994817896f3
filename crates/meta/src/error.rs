//! The one error type.

use api::code;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller's mistake: malformed, or beyond a limit. Nothing was done.
    Invalid,
    /// The revision asked for is no longer kept: list again and watch from there.
    Compacted,
    /// The lease has ended or never was. Nothing was done.
    LeaseNotFound,
    /// No room for more keys or leases. Nothing was done; deleting is still possible.
    Full,
    /// The transaction may have happened or not. In the embedded store a later rebuild decides; in etcd it may still
    /// happen. Read before trying again, and compare with what was read.
    Unknown,
    /// No server of the store answers, or they have no majority. Nothing was done; try again.
    Unavailable,
    /// The store is gone, or refuses writes until it is rebuilt. Nothing was done.
    Stopped,
    /// A record or checkpoint is damaged, out of order, or of an unknown version.
    Corrupt,
}

/// An operation on the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata store: {context}")]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What happened, to what.
    pub context: String,
    /// What the journal said, when it was the cause.
    #[source]
    pub source: Option<PersistError>,
}

impl Error {
    /// An error without a source.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The caller's mistake.
    pub fn invalid(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, context)
    }

    pub(crate) fn corrupt(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, context)
    }
}

/// A record could not be made durable, or nobody knows whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record not persisted: {reason}")]
pub struct PersistError {
    /// What the journal said.
    pub reason: String,
}

/// Result of an operation on the store.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for api::Error {
    fn from(error: Error) -> Self {
        let code = match error.kind {
            ErrorKind::Invalid => code::INVALID_REQUEST,
            ErrorKind::Full => code::NO_SPACE,
            ErrorKind::Corrupt => code::RECORD_DAMAGED,
            ErrorKind::Compacted | ErrorKind::LeaseNotFound | ErrorKind::Unavailable => code::BUSY,
            ErrorKind::Unknown | ErrorKind::Stopped => code::CLOSING,
        };
        Self::new(code, error.to_string()).caused_by(error)
    }
}
