//! One server per directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;

use crate::directory::Directory;
use crate::error::{ErrorKind, Result, SiteError};

/// The site's lock; given back when dropped or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a directory.
    pub(crate) fn take(directory: &Directory) -> Result<Self> {
        let path = directory.lock();
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| SiteError::file(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                let reason = format!("{}: another server has this site open", directory.root().display());
                Err(SiteError::new(ErrorKind::Busy, "site_busy", reason)
                    .hint("stop that one first, or choose another directory"))
            }
            Err(TryLockError::Error(error)) => Err(SiteError::file(&path, &error)),
        }
    }
}
