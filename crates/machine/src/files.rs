//! The small files of a site, and what holds them: the file system of this machine, or a simulated one.
//!
//! Every change is durable when it returns, and a crash on the way leaves what was or what was to be.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::aside::{self, Aside, sync_parent};
use crate::lock::Lock;

/// Where a site's small files are. Paths are absolute. Calls block for milliseconds.
pub trait Files: std::fmt::Debug + Send + Sync {
    /// Reads a file; of one that is longer than `most` bytes one byte more. `None` when it is not there.
    ///
    /// # Errors
    /// When the system refuses.
    fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>>;

    /// Puts a file in place whole, readable by its owner only; what was there goes.
    ///
    /// # Errors
    /// When the system refuses.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()>;

    /// Makes a file that was not there, whole and readable by its owner only. `false` when something is there already.
    ///
    /// # Errors
    /// When the system refuses.
    fn make_new(&self, path: &Path, bytes: &[u8]) -> Result<bool>;

    /// Writes over part of a file that is there; a crash may leave any mixture of old and new bytes within that part.
    ///
    /// # Errors
    /// When the system refuses; nobody knows then what that part holds.
    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Removes a file when it is there.
    ///
    /// # Errors
    /// When the system refuses.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Makes a folder for its owner only when it is not there, and those above it.
    ///
    /// # Errors
    /// When the system refuses.
    fn make_folder(&self, path: &Path) -> Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    /// When it is not empty, or the system refuses.
    fn remove_folder(&self, path: &Path) -> Result<()>;

    /// What is in a folder, by path, sorted; nothing when it is not there.
    ///
    /// # Errors
    /// When the system refuses.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>>;

    /// Whether something is there, whatever it is.
    fn is_there(&self, path: &Path) -> bool;

    /// Whether others than its owner may read or write a file.
    fn is_open_to_others(&self, path: &Path) -> bool;

    /// Removes what was begun for a file by those who are no more. *Requires* that nobody writes it now.
    ///
    /// # Errors
    /// When the system refuses.
    fn remove_leftovers(&self, path: &Path) -> Result<()>;

    /// Takes the lock that is a file, made when it is not there.
    ///
    /// # Errors
    /// `site_busy` when another process has it.
    fn lock(&self, path: &Path) -> api::Result<Lock>;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFiles;

impl Files for LocalFiles {
    fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let aside = Aside::new(path, 0o600)?;
        aside.file().write_all(bytes)?;
        aside.replace()
    }

    fn make_new(&self, path: &Path, bytes: &[u8]) -> Result<bool> {
        let aside = Aside::new(path, 0o600)?;
        aside.file().write_all(bytes)?;
        match aside.keep() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            done => done.map(|()| true),
        }
    }

    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(bytes, offset)?;
        file.sync_data()
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(path).and_then(|()| sync_parent(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        sync_parent(path)
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        std::fs::remove_dir(path)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn is_there(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn is_open_to_others(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    }

    fn remove_leftovers(&self, path: &Path) -> Result<()> {
        aside::remove_leftovers(path)
    }

    fn lock(&self, path: &Path) -> api::Result<Lock> {
        Lock::take(path)
    }
}

/// An error of `Files` that says which file.
pub(crate) fn named(path: &Path) -> impl Fn(Error) -> api::Error + '_ {
    move |error| api::Error::file(path, &error)
}
