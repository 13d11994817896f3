//! One server per directory.

use std::fs::{OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use api::{Error, Result, code};

/// The site's lock; given back when dropped or when the process dies.
pub struct Lock {
    /// What ends it by being dropped.
    _held: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

impl Lock {
    /// One that ends when `held` is dropped.
    pub fn new(held: Box<dyn Send + Sync>) -> Self {
        Self { _held: held }
    }

    /// Takes the lock that is the file at `path`, made when it is not there.
    ///
    /// # Errors
    /// `site_busy` when another process has it.
    pub fn take(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| Error::file(path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self::new(Box::new(file))),
            Err(TryLockError::WouldBlock) => Err(Self::is_taken(path)),
            Err(TryLockError::Error(error)) => Err(Error::file(path, &error)),
        }
    }

    /// What is said of a lock that another process has.
    pub fn is_taken(path: &Path) -> Error {
        let reason = format!("{}: another server holds it", path.display());
        Error::new(code::SITE_BUSY, reason).hint("stop that one first, or choose another directory")
    }
}
