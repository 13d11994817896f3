//! One server per directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use api::{Error, Result, code};

/// The site's lock; given back when dropped or when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
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
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                let reason = format!("{}: another server holds it", path.display());
                Err(Error::new(code::SITE_BUSY, reason)
                    .hint("stop that one first, or choose another directory"))
            }
            Err(TryLockError::Error(error)) => Err(Error::file(path, &error)),
        }
    }
}
