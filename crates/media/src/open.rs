//! Opening and creating media: lock, size, alignment, choice of the back end.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, OFlags, StatxFlags};
use rustix::io::Errno;
use units::PAGE;

use crate::opened::Opened;
use crate::operation::{Target, no_space};
use crate::ring::Ring;
use crate::{MediaError, MediaErrorKind, Medium, Result, sys};

/// Tries to lock, and the pause between them. A lock can be about to go: the last operation of an earlier opening
/// holds it until it ends, and `udev` takes a shared one for some milliseconds whenever a device was closed.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Which back end serves a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// The ring where the system has it, else plain system calls; the log says so once.
    #[default]
    Auto,
    /// `io_uring`, or [`MediaErrorKind::Invalid`] where the system lacks or forbids it.
    Ring,
    /// Threads that make plain system calls.
    Sync,
}

/// How to open a medium.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Creates a sparse file of so many bytes, a multiple of [`units::PAGE`], durably and readable by its owner
    /// only. An empty file (left by a crash in between) is taken over; anything else that exists is refused. A failure leaves
    /// what was there before.
    pub create_size: Option<u64>,
    /// Which back end to use.
    pub backend: Backend,
}

/// Opens a regular file or block device by direct I/O and locks it against everyone else.
///
/// Where the file system refuses direct I/O, buffered I/O is used and the log says so. Blocks: for
/// milliseconds, or half a second when it is busy.
///
/// # Errors
/// [`MediaErrorKind::Busy`] when another process (or this one) holds it, or a device is mounted;
/// [`MediaErrorKind::Gone`] when there is nothing at `path`; [`MediaErrorKind::NoSpace`] on creation;
/// [`MediaErrorKind::Invalid`] when it cannot serve as a medium; [`MediaErrorKind::Denied`] when this user may not open it;
/// else [`MediaErrorKind::Io`].
pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Arc<dyn Medium>> {
    let path = path.as_ref();
    let opening = Opening { name: path.display().to_string(), path };
    let ring = opening.back_end(options.backend)?;
    let block_device = opening.is_block_device(options.create_size.is_some())?;
    let made = if options.create_size.is_some() { opening.make()? } else { None };
    let file = opening.open_file(block_device)?;
    opening.lock(&file)?;
    if let Some(size) = options.create_size {
        opening.create(&file, size)?;
    }
    opening.check_alignment(&file, block_device)?;
    // The last part of a page cannot be used.
    let len = opening.size(&file, block_device)? / PAGE as u64 * PAGE as u64;
    if len == 0 {
        return Err(opening.invalid("it has no room for a single page of 4096 bytes"));
    }
    if let Some(made) = made {
        made.keep();
    }
    Ok(Arc::new(Opened::new(opening.name, len, Target::new(file, block_device), ring)))
}

/// A file that goes again unless it is kept.
struct Made<'a>(Option<&'a Path>);

impl Made<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            // Whoever wanted it hears why it could not be made.
            let _ = std::fs::remove_file(path);
        }
    }
}

struct Opening<'a> {
    path: &'a Path,
    name: String,
}

impl<'a> Opening<'a> {
    fn error(&self, kind: MediaErrorKind, reason: impl ToString) -> MediaError {
        MediaError::new(kind, &self.name, "open", reason)
    }

    fn invalid(&self, reason: impl ToString) -> MediaError {
        self.error(MediaErrorKind::Invalid, reason)
    }

    fn system(&self, error: impl Into<std::io::Error>) -> MediaError {
        let error = error.into();
        let kind = match Errno::from_io_error(&error) {
            Some(errno) if no_space(errno) => MediaErrorKind::NoSpace,
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM) => MediaErrorKind::Gone,
            Some(Errno::ACCESS | Errno::PERM) => MediaErrorKind::Denied,
            Some(Errno::ROFS | Errno::ISDIR | Errno::FBIG | Errno::NOTDIR) => MediaErrorKind::Invalid,
            Some(Errno::BUSY) => {
                let reason = "it is in use: mounted, or part of another device";
                return self.error(MediaErrorKind::Busy, reason);
            }
            _ => MediaErrorKind::Io,
        };
        self.error(kind, error)
    }

    fn back_end(&self, backend: Backend) -> Result<Option<Arc<Ring>>> {
        static SAID: Once = Once::new();
        if backend == Backend::Sync {
            return Ok(None);
        }
        match Ring::shared() {
            Ok(ring) => Ok(Some(ring)),
            Err(error) if backend == Backend::Ring => {
                Err(self.invalid(format!("io_uring is not available: {error}")))
            }
            Err(error) => {
                SAID.call_once(|| {
                    tracing::warn!(%error, "io_uring is not available: using plain system calls");
                });
                Ok(None)
            }
        }
    }

    fn is_block_device(&self, create: bool) -> Result<bool> {
        let metadata = match std::fs::metadata(self.path) {
            Err(error) if create && error.kind() == ErrorKind::NotFound => return Ok(false),
            other => other.map_err(|error| self.system(error))?,
        };
        let block_device = metadata.file_type().is_block_device();
        if create && (block_device || metadata.len() > 0) {
            return Err(self.invalid("it exists already: not created anew"));
        }
        if !block_device && !metadata.is_file() {
            return Err(self.invalid("it is neither a regular file nor a block device"));
        }
        Ok(block_device)
    }

    /// Makes the empty file; `None` where one is there already.
    fn make(&self) -> Result<Option<Made<'a>>> {
        match FileOptions::new().write(true).create_new(true).mode(0o600).open(self.path) {
            Ok(_) => Ok(Some(Made(Some(self.path)))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(self.system(error)),
        }
    }

    /// Opens the file, by direct I/O where it can.
    fn open_file(&self, block_device: bool) -> Result<File> {
        let with = |flags: OFlags| {
            let mut options = FileOptions::new();
            options.read(true).write(true).custom_flags(flags.bits() as i32);
            options.open(self.path)
        };
        // On a device this claims it: one that is mounted, or claimed so, is refused.
        let claim = if block_device { OFlags::EXCL } else { OFlags::empty() };
        match with(claim | OFlags::DIRECT) {
            Ok(file) => Ok(file),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                let file = with(claim).map_err(|error| self.system(error))?;
                self.say_buffered("the file system refuses O_DIRECT");
                Ok(file)
            }
            Err(error) => Err(self.system(error)),
        }
    }

    fn say_buffered(&self, reason: &str) {
        tracing::warn!(medium = %self.name, reason, "buffered I/O is used for this medium");
    }

    fn lock(&self, file: &File) -> Result<()> {
        let mut tries = LOCK_TRIES;
        loop {
            tries -= 1;
            match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK) if tries > 0 => self.pause(),
                Err(Errno::WOULDBLOCK) => {
                    let reason = "another process holds its lock (or this process has it open already)";
                    return Err(self.error(MediaErrorKind::Busy, reason));
                }
                Err(errno) => return Err(self.system(errno)),
            }
        }
    }

    #[allow(clippy::disallowed_methods)] // opening a real medium blocks
    fn pause(&self) {
        std::thread::sleep(LOCK_PAUSE);
    }

    /// Gives the empty file its size, durably, its name too.
    fn create(&self, file: &File, size: u64) -> Result<()> {
        if size == 0 || !size.is_multiple_of(PAGE as u64) {
            return Err(self.invalid(format!("its size must be a multiple of 4096 bytes, not {size}")));
        }
        // Someone may have filled it between the look and the lock.
        if file.metadata().map_err(|error| self.system(error))?.len() > 0 {
            return Err(self.invalid("it exists already: not created anew"));
        }
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let made =
            file.set_len(size).and_then(|()| file.sync_all()).and_then(|()| File::open(parent)?.sync_all());
        made.map_err(|error| {
            // An empty one that was there is empty again.
            let _ = file.set_len(0);
            match error.kind() {
                ErrorKind::FileTooLarge | ErrorKind::InvalidInput => {
                    self.invalid(format!("{size} bytes are more than the file system takes in a file"))
                }
                _ => self.system(error),
            }
        })
    }

    /// Refuses a medium that needs more than page alignment.
    fn check_alignment(&self, file: &File, block_device: bool) -> Result<()> {
        let statx = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
        let known = statx.ok().filter(|statx| statx.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
        let needed = match known {
            Some(statx) if statx.stx_dio_offset_align == 0 => {
                self.say_buffered("the file system has no direct I/O for this file");
                return Ok(());
            }
            Some(statx) => statx.stx_dio_offset_align.max(statx.stx_dio_mem_align),
            None if block_device => rustix::fs::ioctl_blksszget(file).map_err(|errno| self.system(errno))?,
            // Kernels before 6.1 do not say; no file system of theirs needs more than a page.
            None => 0,
        };
        if needed as usize > PAGE {
            return Err(
                self.invalid(format!("direct I/O on it needs blocks of {needed} bytes, more than 4096"))
            );
        }
        Ok(())
    }

    fn size(&self, file: &File, block_device: bool) -> Result<u64> {
        if block_device {
            return sys::device_bytes(file).map_err(|errno| self.system(errno));
        }
        file.metadata().map(|metadata| metadata.len()).map_err(|error| self.system(error))
    }
}
