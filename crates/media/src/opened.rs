//! An open medium: checks, bounds and errors in front of a back end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use seam::BoxFuture;
use tokio::sync::{Semaphore, oneshot};
use units::{PAGE, PageBuf, PageSlice};

use crate::operation::{Failure, Operation, Reply, Target, Work, lock, no_space};
use crate::pool::Pool;
use crate::ring::Ring;
use crate::{MediaError, MediaErrorKind, Medium, Result, State};

/// Shares of the operations in flight on one medium; beyond them callers wait, first come, first served. An
/// operation takes one, and one more for each full 128 KiB. Enough to fill any SSD's queue; 16 MiB of large
/// operations.
pub const IN_FLIGHT_MAX: usize = 128;
const SHARE_BYTES: usize = 128 << 10;

/// Threads of the pool of a medium: enough to keep an SSD's queue busy, few enough that many media stay cheap.
const THREADS_MAX: usize = 8;
/// Threads for discards, which are in no hurry.
const DISCARD_THREADS_MAX: usize = 1;

/// How long an answer about free room is used again: asking costs a system call, and room changes slowly.
const ROOM_AGE_MAX: Duration = Duration::from_millis(100);

/// A regular file or block device, open and locked.
#[derive(Debug)]
pub(crate) struct Opened {
    name: String,
    len: u64,
    target: Arc<Target>,
    in_flight: Arc<Semaphore>,
    ring: Option<Arc<Ring>>,
    pool: Pool,
    /// Apart, so that discards that take long keep no write waiting.
    discards: Pool,
    room: Mutex<Option<(Instant, u64)>>,
}

/// What an operation is, for errors.
#[derive(Clone, Copy)]
struct What {
    verb: &'static str,
    offset: u64,
    length: u64,
}

impl Opened {
    pub(crate) fn new(name: String, len: u64, target: Target, ring: Option<Arc<Ring>>) -> Self {
        Self {
            name,
            len,
            target: Arc::new(target),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            ring,
            pool: Pool::new(THREADS_MAX),
            discards: Pool::new(DISCARD_THREADS_MAX),
            room: Mutex::new(None),
        }
    }

    fn check(&self, what: What) -> Result<()> {
        let page = PAGE as u64;
        let refuse = |reason: &str| {
            let operation = what.to_string();
            Err(MediaError::new(MediaErrorKind::Invalid, &self.name, operation, reason))
        };
        if !what.offset.is_multiple_of(page) || !what.length.is_multiple_of(page) {
            return refuse("offset or length is not a multiple of 4096");
        }
        match what.offset.checked_add(what.length) {
            Some(end) if end <= self.len => Ok(()),
            _ => refuse(&format!("beyond the end at {}", self.len)),
        }
    }

    /// Takes a share of the bound, lets `start` give an operation to a back end, and waits for its end.
    async fn run<T, F>(&self, what: What, start: F) -> Result<T>
    where
        F: FnOnce(Reply<T>) -> std::result::Result<(), Failure>,
    {
        let shares = 1 + (what.length / SHARE_BYTES as u64).min(IN_FLIGHT_MAX as u64 - 1) as u32;
        self.run_with(what, shares, start).await
    }

    async fn run_with<T, F>(&self, what: What, shares: u32, start: F) -> Result<T>
    where
        F: FnOnce(Reply<T>) -> std::result::Result<(), Failure>,
    {
        let gone = |reason| MediaError::new(MediaErrorKind::Gone, &self.name, what.to_string(), reason);
        let permit = self.in_flight.clone().acquire_many_owned(shares).await;
        let permit = permit.map_err(|_| gone("the medium was closed"))?;
        let (sender, answer) = oneshot::channel();
        start(Reply::new(sender, permit)).map_err(|failure| self.error(what, failure))?;
        let outcome = answer.await.map_err(|_| gone("its back end has died"))?;
        outcome.map_err(|failure| self.error(what, failure))
    }

    /// Gives work to the back end that suits it. What makes the kernel wait is quickest and steadiest on a thread of
    /// our own: on the ring a sync, or a write with `RWF_DSYNC`, is handed to threads of the kernel, which costs more
    /// switches, and a scheduler's slice when the processors are busy.
    fn submit(&self, work: Work) {
        self.start(Operation::new(self.target.clone(), work));
    }

    fn start(&self, operation: Operation) {
        match (&self.ring, &operation.work) {
            (_, Work::Discard { .. }) => self.discards.submit(operation),
            (Some(ring), Work::Read { .. } | Work::Write { durable: false, .. }) => ring.submit(operation),
            _ => self.pool.submit(operation),
        }
    }

    fn error(&self, what: What, failure: Failure) -> MediaError {
        let (kind, reason) = match failure {
            Failure::System(errno) if no_space(errno) => (MediaErrorKind::NoSpace, errno.to_string()),
            Failure::System(errno @ (Errno::NODEV | Errno::NXIO | Errno::STALE)) => {
                (MediaErrorKind::Gone, errno.to_string())
            }
            Failure::System(errno) | Failure::Sync(errno) => (MediaErrorKind::Io, errno.to_string()),
            Failure::Short => (MediaErrorKind::Io, "it is shorter than when it was opened".to_owned()),
            Failure::Unsynced(errno) => {
                let reason = format!(
                    "an earlier sync failed ({errno}), so recent writes may be lost; the medium must be reopened"
                );
                (MediaErrorKind::Io, reason)
            }
        };
        MediaError::new(kind, &self.name, what.to_string(), reason)
    }

    async fn write_with(&self, offset: u64, bytes: PageSlice, durable: bool) -> Result<()> {
        let what = What { verb: "write", offset, length: bytes.len() as u64 };
        self.check(what)?;
        self.run(what, |reply| {
            self.target.check_synced()?;
            self.submit(Work::Write { offset, bytes, durable, reply });
            Ok(())
        })
        .await
    }

    fn free_bytes(&self) -> u64 {
        let file = &self.target.file;
        let allocated = rustix::fs::fstat(file).map_or(0, |stat| stat.st_blocks as u64 * 512);
        if allocated >= self.len {
            return u64::MAX;
        }
        // Where the file system does not answer, a write will.
        rustix::fs::fstatvfs(file).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl Medium for Opened {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<PageBuf>> {
        Box::pin(async move {
            let what = What { verb: "read", offset, length: length as u64 };
            self.check(what)?;
            if length == 0 {
                return Ok(PageBuf::zeroed(0));
            }
            self.run(what, |reply| {
                let buf = PageBuf::zeroed(length);
                self.submit(Work::Read { offset, buf, reply });
                Ok(())
            })
            .await
        })
    }

    fn write(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.write_with(offset, bytes, false))
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.run(What { verb: "sync", offset: 0, length: 0 }, |reply| {
            self.target.check_synced()?;
            if let Some(operation) = self.target.ask_sync(reply) {
                self.start(operation);
            }
            Ok(())
        }))
    }

    fn write_durable(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.write_with(offset, bytes, true))
    }

    fn reserve(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let what = What { verb: "reserve", offset, length };
            self.check(what)?;
            // A device has its room.
            if length == 0 || self.target.block_device {
                return Ok(());
            }
            // As a discard: one share.
            let possible = self.run_with(what, 1, |reply| {
                self.submit(Work::Reserve { offset, length, reply });
                Ok(())
            });
            if possible.await? { Ok(()) } else { self.prepare(offset, length).await }
        })
    }

    fn discard(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let what = What { verb: "discard", offset, length };
            self.check(what)?;
            if length == 0 {
                return Ok(());
            }
            // However long, it moves no bytes: one share.
            let hint = self.run_with(what, 1, |reply| {
                self.submit(Work::Discard { offset, length, reply });
                Ok(())
            });
            if let Err(error) = hint.await {
                tracing::debug!(%error, length, "discard was not possible");
            }
            Ok(())
        })
    }

    fn state(&self) -> State {
        // Of devices nothing is known but by reading.
        match rustix::fs::fstat(&self.target.file) {
            Ok(stat) if self.target.block_device || stat.st_size as u64 >= self.len => match stat.st_nlink {
                0 => State::Removed,
                _ => State::Whole,
            },
            Ok(stat) => State::CutShort(stat.st_size as u64),
            Err(_) => State::Whole,
        }
    }

    #[allow(clippy::disallowed_methods)] // a real medium: the simulator has its own
    fn room(&self) -> u64 {
        if self.target.block_device {
            return u64::MAX;
        }
        let mut cached = lock(&self.room);
        let now = Instant::now();
        match *cached {
            Some((asked, bytes)) if now - asked < ROOM_AGE_MAX => bytes,
            _ => cached.insert((now, self.free_bytes())).1,
        }
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verb, offset, length } = self;
        if *verb == "sync" { f.write_str(verb) } else { write!(f, "{verb} at {offset}, {length} bytes") }
    }
}

#[cfg(test)]
mod tests;
