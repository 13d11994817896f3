//! Media: the files and block devices that hold everything, behind one trait.
//!
//! [`Medium`] is the seam: page-aligned reads and writes, and [`Medium::sync`], after which every write that
//! completed before it survives a power cut. A write that was not synced may survive whole, in part, or not at all.
//! Nothing here knows what the bytes mean; the layout on a medium belongs to `data`.
//!
//! Crash rules: a completed write followed by a completed sync is durable; nothing else is promised. After a
//! failed sync nothing unsynced may be taken for durable, and a later sync that succeeds proves nothing about it.

use seam::BoxFuture;
use units::{PageBuf, PageSlice};

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

/// Result of an operation on a medium.
pub type Result<T> = std::result::Result<T, MediaError>;

/// One disk, SSD, partition or file. Offsets and lengths are multiples of [`units::PAGE`].
///
/// All operations may run at once; two that overlap have no order unless the caller waits for the first.
pub trait Medium: Send + Sync + std::fmt::Debug {
    /// Path or name, for people.
    fn name(&self) -> &str;
    /// Size in bytes; fixed while open.
    fn len(&self) -> u64;
    /// Reads `length` bytes at `offset`.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<PageBuf>>;
    /// Writes `bytes` at `offset`. Not durable before a later [`Medium::sync`] completes.
    fn write(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>>;
    /// Makes every write that completed before this call durable.
    fn sync(&self) -> BoxFuture<'_, Result<()>>;
    /// Gives the room of a stretch back to the file system or device where it can; its contents are then undefined.
    /// A hint: failure to do so is no error.
    fn discard(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>>;
    /// Bytes that can still be written to places never written before: what the file system below has left,
    /// `u64::MAX` where the question has no meaning (a block device, a file written in full).
    fn room(&self) -> u64;
}
