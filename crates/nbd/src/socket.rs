//! The socket file: claimed by one server at a time, never stolen from a live one.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use seam::Runtime;
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::server::{ServerError, ServerErrorKind};

/// Connections waiting to be accepted.
const BACKLOG: u32 = 128;
/// How long a server found at the path may take to accept before it is taken for live and busy.
const PROBE: Duration = Duration::from_secs(1);
/// Attempts to lock the directory, and the pause between them: two seconds for another server to start.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The file of a listening socket.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: the file may be removed only while it is this one. `None` once removed, for the next file at
    /// the path may get the same inode.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless another has taken its place.
    pub(crate) fn remove(&mut self) {
        let Some(expected) = self.identity.take() else { return };
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == expected);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "NBD socket not removed");
        }
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Listens on `path`. The directory is locked meanwhile, so that of two servers that start at once one wins.
pub(crate) async fn claim(rt: &dyn Runtime, path: &Path) -> Result<(UnixListener, SocketFile), ServerError> {
    let error = |kind, reason| ServerError { kind, path: path.to_owned(), reason };
    let io = |error: std::io::Error| ServerError {
        kind: ServerErrorKind::Io,
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let _lock = lock(rt, directory).await.map_err(io)?;
    match fs::symlink_metadata(path) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => {}
        Err(other) => return Err(io(other)),
        Ok(found) if !found.file_type().is_socket() => {
            let reason = "the file is no socket; move it away or choose another path".to_owned();
            return Err(error(ServerErrorKind::NotASocket, reason));
        }
        Ok(_) if is_live(rt, path).await => {
            let reason = "another server listens on it; stop that one or choose another path".to_owned();
            return Err(error(ServerErrorKind::Busy, reason));
        }
        Ok(_) => fs::remove_file(path).map_err(io)?,
    }
    let socket = UnixSocket::new_stream().map_err(io)?;
    socket.bind(path).map_err(io)?;
    // Nobody can connect before `listen`, so the mode is in force for the first client.
    let listening = fs::set_permissions(path, Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(path))
        .and_then(|metadata| Ok((socket.listen(BACKLOG)?, identity(&metadata))));
    match listening {
        Ok((listener, identity)) => {
            Ok((listener, SocketFile { path: path.to_owned(), identity: Some(identity) }))
        }
        Err(failed) => {
            // Ours, and of no use: the lock keeps others from having replaced it.
            let _ = fs::remove_file(path);
            Err(io(failed))
        }
    }
}

/// Locks a directory against other servers. Released when the file is dropped.
async fn lock(rt: &dyn Runtime, directory: &Path) -> std::io::Result<File> {
    let file = File::open(directory)?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => rt.sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(std::io::Error::new(ErrorKind::TimedOut, "its directory stays locked by another process"))
}

/// Whether a server listens: anything but a refused connection is taken for one.
async fn is_live(rt: &dyn Runtime, path: &Path) -> bool {
    match seam::timeout(rt, PROBE, UnixStream::connect(path)).await {
        Ok(Err(error)) => !matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound),
        Ok(Ok(_)) | Err(seam::Elapsed) => true,
    }
}
