//! The directory of a site: where its files are, and how they are written so that a crash leaves a whole one.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use api::{Error, Result, code};

use crate::aside::{self, Aside, sync_parent};

/// Longest path of a unix socket, from the kernel's `sockaddr_un`, its final zero not counted.
const SOCKET_PATH_MAX: usize = 107;
/// A file of the site larger than this is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The directory of a site.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The directory at `root`, which need not exist.
    ///
    /// # Errors
    /// When the path is too long for sockets, or there is no current directory to start from.
    pub fn new(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|error| Error::file(root, &error))?;
        let directory = Self { root };
        let socket = directory.nbd_socket();
        if socket.as_os_str().as_bytes().len() > SOCKET_PATH_MAX {
            let reason =
                format!("{}: longer than a socket's path may be ({SOCKET_PATH_MAX} bytes)", socket.display());
            return Err(
                Error::new(code::PATH_TOO_LONG, reason).hint("choose a directory with a shorter path")
            );
        }
        Ok(directory)
    }

    /// Makes the directory, for its owner only, when it is not there.
    pub(crate) fn make(&self) -> Result<()> {
        make_directory(&self.root)
    }

    /// Removes what a crash left beside the site's own files. Whoever holds the site's lock alone writes them.
    pub(crate) fn remove_leftovers(&self) -> Result<()> {
        for file in [self.manifest(), self.first_start(), self.key(), self.witness()] {
            aside::remove_leftovers(&file).map_err(|error| Error::file(&file, &error))?;
        }
        Ok(())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The NBD socket.
    pub fn nbd_socket(&self) -> PathBuf {
        self.root.join("nbd.sock")
    }

    /// The API's socket: there exactly while exports are served, or after a kill.
    pub fn api_socket(&self) -> PathBuf {
        self.root.join("api.sock")
    }

    /// Whether there is a site.
    ///
    /// # Errors
    /// When what there is cannot be read.
    pub fn has_site(&self) -> Result<bool> {
        Ok(crate::manifest::Manifest::load(&self.manifest())?.is_some())
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join("site.json")
    }

    pub(crate) fn first_start(&self) -> PathBuf {
        self.root.join("first-start.json")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.root.join("key")
    }

    pub(crate) fn witness(&self) -> PathBuf {
        self.root.join("witness")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn media(&self) -> PathBuf {
        self.root.join("media")
    }

    /// Where an entry's path leads: relative ones start in the directory, so that it can be moved as a whole.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

/// Makes a directory for its owner only, durably, when it is not there; parents too.
///
/// # Errors
/// When the system refuses.
pub fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        sync_parent(path)
    };
    make().map_err(|error| Error::file(path, &error))
}

/// Puts a file in place whole and durably, readable by its owner only; what was there goes.
///
/// # Errors
/// When the system refuses.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let aside = Aside::new(path, 0o600)?;
        aside.file().write_all(bytes)?;
        aside.replace()
    };
    write().map_err(|error| Error::file(path, &error))
}

/// Makes a file that was not there, readable by its owner only, whole and durably. `false` when something is there already.
pub(crate) fn make_new(path: &Path, bytes: &[u8]) -> Result<bool> {
    let write = || {
        let aside = Aside::new(path, 0o600)?;
        aside.file().write_all(bytes)?;
        aside.keep()
    };
    match write() {
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => Ok(false),
        done => done.map(|()| true).map_err(|error| Error::file(path, &error)),
    }
}

/// Removes a file when it is there, durably.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path).and_then(|()| sync_parent(path)) {
        Err(error) if error.kind() != IoErrorKind::NotFound => Err(Error::file(path, &error)),
        _ => Ok(()),
    }
}

/// Reads a small file; `None` when it is not there.
///
/// # Errors
/// `file_too_large`, and when the system refuses.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => Err(Error::new(
            code::FILE_TOO_LARGE,
            format!("{}: larger than {FILE_BYTES_MAX} bytes", path.display()),
        )),
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path, &error)),
    }
}
