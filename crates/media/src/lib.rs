//! Media: the files and block devices that hold everything, behind one trait.
//!
//! [`Medium`] is the seam: page-aligned reads and writes, and [`Medium::sync`], after which every write that
//! completed before it survives a power cut. A write that was not synced may survive whole, in part, or not at all.
//! Nothing here knows what the bytes mean; the layout on a medium belongs to `data`.
//!
//! [`open()`] gives a real medium, by direct I/O and under an exclusive lock. Two back ends do the work: the **ring**
//! (one `io_uring` thread for all media of the process, for reads and writes) and the **pool** (a few threads per
//! medium that make plain system calls: everything, or only what makes the kernel wait where there is a ring). An
//! **operation** owns its buffer until the kernel has answered, so a caller may drop its future at any time; that
//! does not cancel an operation that has started.
//!
//! Crash rules: a completed write followed by a completed sync is durable, and so is a completed
//! [`Medium::write_durable`]; nothing else is promised. After a failed sync nothing unsynced may be taken for
//! durable, and a later sync that succeeds proves nothing about it. Hence **a failed sync is never forgotten**:
//! from then on every write and sync on that open medium fails, until it is reopened; reads go on. That holds for a
//! sync that found no room too, and its error is [`MediaErrorKind::Io`]: buffered pages may have been dropped with it,
//! and another writer's next sync must not claim them. A *write* that finds no room (direct I/O allocates at the write) loses only itself.
//!
//! Invariants: one sync of a medium is in flight at a time, because the kernel reports a lost page to one of them
//! only; those who ask meanwhile share the next one. Operations in flight are bounded ([`IN_FLIGHT_MAX`]); beyond
//! that callers wait.
//!
//! What it does not do: no caching, no retry of a failed operation, no checksum, no order between operations that
//! overlap.

mod devices;
#[cfg(any(test, feature = "fault-injection"))]
mod fault;
mod open;
mod opened;
mod operation;
mod pool;
mod ring;
mod sys;

use seam::BoxFuture;
use units::{PAGE, PageBuf, PageSlice};

pub use devices::same_device;
#[cfg(any(test, feature = "fault-injection"))]
pub use fault::{Access, Counts, Effect, FaultMedium, FaultPlan, PlanError, Rule};
pub use open::{Backend, OpenOptions, open};
pub use opened::IN_FLIGHT_MAX;

/// Bytes of zeros written at once by [`Medium::prepare`]: large enough for full speed, small enough that other
/// operations get their turn in between.
pub const PREPARE_PIECE_BYTES: usize = 1 << 20;

/// Why an operation on a medium failed: decides what the caller does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaErrorKind {
    /// The medium returned an error: it is failing. Others must take over.
    Io,
    /// No room on the file system or device below: the pool is full, the medium is sound.
    NoSpace,
    /// The medium is gone or was closed.
    Gone,
    /// The caller's mistake: out of bounds or not aligned.
    Invalid,
    /// The medium is held by another process.
    Busy,
    /// This user may not open it.
    Denied,
}

/// An operation on a medium failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{medium}: {operation} failed: {reason}")]
pub struct MediaError {
    /// What to do about it.
    pub kind: MediaErrorKind,
    /// Path or name of the medium.
    pub medium: String,
    /// What was tried, with offset and length in bytes.
    pub operation: String,
    /// What the system said.
    pub reason: String,
}

impl MediaError {
    pub(crate) fn new(
        kind: MediaErrorKind,
        medium: &str,
        operation: impl Into<String>,
        reason: impl ToString,
    ) -> Self {
        Self { kind, medium: medium.to_owned(), operation: operation.into(), reason: reason.to_string() }
    }
}

/// Result of an operation on a medium.
pub type Result<T> = std::result::Result<T, MediaError>;

/// What became of a medium since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing that can be seen.
    Whole,
    /// It has fewer bytes: the bytes that it has.
    CutShort(u64),
    /// It is a file without a name: it goes when it is closed.
    Removed,
}

/// One disk, SSD, partition or file. Offsets and lengths are multiples of [`units::PAGE`].
///
/// All operations may run at once; two that overlap have no order unless the caller waits for the first.
pub trait Medium: Send + Sync + std::fmt::Debug {
    /// Path or name, for people.
    fn name(&self) -> &str;
    /// Size in bytes; fixed while open.
    fn len(&self) -> u64;
    /// Whether there is no page on it. An opened medium never is.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads `length` bytes at `offset`.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<PageBuf>>;
    /// Writes `bytes` at `offset`. Not durable before a later [`Medium::sync`] completes.
    fn write(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>>;
    /// Makes every write that completed before this call durable. After a failure every later write and sync
    /// fails with [`MediaErrorKind::Io`] until the medium is reopened.
    fn sync(&self) -> BoxFuture<'_, Result<()>>;
    /// Writes `bytes` at `offset` and makes these bytes durable, at less cost than a write and a sync where the back
    /// end can. Promises nothing about other writes. It can fail as a write or, with the same consequences, as a
    /// sync.
    fn write_durable(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.write(offset, bytes).await?;
            self.sync().await
        })
    }
    /// Writes zeros over a stretch and syncs, so that later writes there allocate nothing and touch no unwritten
    /// extents.
    fn prepare(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if !length.is_multiple_of(PAGE as u64) {
                let operation = format!("prepare at {offset}, {length} bytes");
                let reason = "length is not a multiple of 4096";
                return Err(MediaError::new(MediaErrorKind::Invalid, self.name(), operation, reason));
            }
            let piece_bytes = length.min(PREPARE_PIECE_BYTES as u64);
            let zeros = PageBuf::zeroed(piece_bytes as usize).share();
            let mut done = 0;
            while done < length {
                let left = piece_bytes.min(length - done);
                self.write(offset + done, zeros.slice(0..left as usize)).await?;
                done += left;
            }
            self.sync().await
        })
    }
    /// Takes the room of a stretch from the file system below, so that no later write there finds none; contents stay.
    /// Without system support it writes, as [`Medium::prepare`] does: then contents become zeros.
    fn reserve(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        self.prepare(offset, length)
    }
    /// Gives the room of a stretch back to the file system or device where it can; its contents are then undefined.
    /// A hint: failure to do so is no error, except for a stretch that is out of bounds or not aligned.
    fn discard(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>>;
    /// Whether it is still as it was opened.
    fn state(&self) -> State {
        State::Whole
    }
    /// Bytes that can still be written to places never written before: what the file system below has left,
    /// `u64::MAX` where the question has no meaning (a block device, a file written in full).
    fn room(&self) -> u64;
}
