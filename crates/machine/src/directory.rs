//! The directory of a site: where its files are, and what holds them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Error, Result, code};

use crate::files::{Files, LocalFiles, named};

/// Longest path of a unix socket, from the kernel's `sockaddr_un`, its final zero not counted.
const SOCKET_PATH_MAX: usize = 107;
/// A file of the site larger than this is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The directory of a site.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
    files: Arc<dyn Files>,
}

impl Directory {
    /// The directory at `root` of this machine, which need not exist.
    ///
    /// # Errors
    /// When the path is too long for sockets, or there is no current directory to start from.
    pub fn new(root: &Path) -> Result<Self> {
        Self::within(Arc::new(LocalFiles), root)
    }

    /// The directory at `root` among `files`.
    ///
    /// # Errors
    /// As [`Directory::new`].
    pub(crate) fn within(files: Arc<dyn Files>, root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|error| Error::file(root, &error))?;
        let directory = Self { root, files };
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
        self.make_folder(&self.root)
    }

    /// What holds the files.
    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// [`Files::make_folder`].
    pub(crate) fn make_folder(&self, path: &Path) -> Result<()> {
        self.files.make_folder(path).map_err(named(path))
    }

    /// Reads a small file; `None` when it is not there.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        read_from(&*self.files, path)
    }

    /// [`Files::replace`].
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.files.replace(path, bytes).map_err(named(path))
    }

    /// [`Files::remove`].
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        self.files.remove(path).map_err(named(path))
    }

    /// Removes what a crash left beside the site's own files. Whoever holds the site's lock alone writes them.
    pub(crate) fn remove_leftovers(&self) -> Result<()> {
        for file in [self.manifest(), self.first_start(), self.key(), self.witness()] {
            self.files.remove_leftovers(&file).map_err(named(&file))?;
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
        Ok(crate::manifest::Manifest::load(self, &self.manifest())?.is_some())
    }

    /// Its file `site.json`.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("site.json")
    }

    pub(crate) fn first_start(&self) -> PathBuf {
        self.root.join("first-start.json")
    }

    /// Its file `key`.
    pub fn key(&self) -> PathBuf {
        self.root.join("key")
    }

    /// Its file `witness`.
    pub fn witness(&self) -> PathBuf {
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

/// Makes a directory of this machine for its owner only, durably, when it is not there; parents too.
///
/// # Errors
/// When the system refuses.
pub fn make_directory(path: &Path) -> Result<()> {
    LocalFiles.make_folder(path).map_err(named(path))
}

/// Puts a file of this machine in place whole and durably, readable by its owner only; what was there goes.
///
/// # Errors
/// When the system refuses.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    LocalFiles.replace(path, bytes).map_err(named(path))
}

/// Reads a small file of this machine; `None` when it is not there.
///
/// # Errors
/// `file_too_large`, and when the system refuses.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    read_from(&LocalFiles, path)
}

pub(crate) fn read_from(files: &dyn Files, path: &Path) -> Result<Option<Vec<u8>>> {
    let bytes = files.read(path, FILE_BYTES_MAX).map_err(named(path))?;
    if bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 > FILE_BYTES_MAX) {
        let reason = format!("{}: larger than {FILE_BYTES_MAX} bytes", path.display());
        return Err(Error::new(code::FILE_TOO_LARGE, reason));
    }
    Ok(bytes)
}
