//! What the server serves: exports and devices, implemented by others.

use std::sync::Arc;

use bytes::Bytes;
use seam::BoxFuture;

/// An export as `NBD_OPT_LIST` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// The name a client opens it by; at most 255 bytes.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
}

/// The exports of a server.
pub trait Exports: Send + Sync {
    /// All exports a client may see. An export may be opened without being listed.
    fn list(&self) -> BoxFuture<'_, Vec<ExportInfo>>;
    /// Opens the export `name`; the empty name asks for the default one. Also called to answer questions about an
    /// export, so opening must not change it.
    fn open(&self, name: &str) -> BoxFuture<'_, Result<Arc<dyn Device>, OpenError>>;
    /// Metadata contexts of the export `export` besides `base:allocation`: those whose names begin with `prefix`, at most
    /// `limit`. Others may be opened too.
    fn contexts(&self, export: &str, prefix: &str, limit: usize) -> BoxFuture<'_, Vec<String>> {
        let _ = (export, prefix, limit);
        Box::pin(async { Vec::new() })
    }
    /// Opens a metadata context of the export `export`; `None` when it has none of this name.
    fn open_context(
        &self,
        export: &str,
        name: &str,
    ) -> BoxFuture<'_, Result<Option<Arc<dyn Context>>, OpenError>> {
        let _ = (export, name);
        Box::pin(async { Ok(None) })
    }
}

/// What a refused client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// No export has this name.
    Unknown,
    /// The export exists and may not be opened now or by this client.
    Refused,
    /// The server is going down.
    ShuttingDown,
    /// The export exists and opening it failed.
    Failed,
}

/// An export could not be opened. `reason` is shown to the client.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct OpenError {
    /// What the client is told.
    pub kind: OpenErrorKind,
    /// What happened, to what, what to do next.
    pub reason: String,
}

/// What became of a request that failed: each kind is one NBD error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceErrorKind {
    /// The data cannot be read or written now (`EIO`).
    Io,
    /// No room (`ENOSPC`).
    NoSpace,
    /// The request makes no sense to the device (`EINVAL`).
    Invalid,
    /// The device may not be written (`EPERM`).
    NotPermitted,
    /// The device is closing (`ESHUTDOWN`).
    ShuttingDown,
    /// The device is served elsewhere by now. The client gets no answer but an end of its connection: it connects again, to
    /// whoever serves, and asks again.
    Moved,
    /// No memory for the request now (`ENOMEM`).
    NoMemory,
}

/// A request on a device failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct DeviceError {
    /// Which error number the client gets.
    pub kind: DeviceErrorKind,
    /// For the log, and for clients that can show it.
    pub reason: String,
}

/// A stretch of a device that is all of one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes; not 0.
    pub length: u64,
    /// Nothing is stored for it.
    pub hole: bool,
    /// It reads as zeros.
    pub zero: bool,
}

/// A metadata context of an opened export: it says something of every byte. Dropping the last handle closes it.
pub trait Context: Send + Sync {
    /// Lengths and states from `offset` on, in order, without gaps, at least one and at most `limit`, lengths not 0. They
    /// may cover less than `length`, and the last may reach beyond it. What a state means is the context's.
    fn status(
        &self,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, u32)>, DeviceError>>;
}

/// An opened block device. Dropping the last handle closes it.
///
/// Offsets and lengths are bytes, of any alignment, not 0, and lie within [`Device::size`] as it was when the request
/// was checked. All operations may run at once. A write that completed is durable and seen by every later read, on
/// every handle. A future may be polled first in one task and then in another.
pub trait Device: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Whether writes are refused. Clients are told when they open it.
    fn read_only(&self) -> bool {
        false
    }
    /// Whether [`Device::write_zeroes`] never takes longer than a trim, with or without `may_punch`.
    fn zeroes_are_fast(&self) -> bool {
        false
    }
    /// One line for people; may be empty.
    fn description(&self) -> String {
        String::new()
    }
    /// Whether a task of an administrator reads or writes it, such as an import: seats are kept for those.
    fn of_task(&self) -> bool {
        false
    }
    /// Reads `length` bytes (at most 32 MiB). The result has exactly that length.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes, DeviceError>>;
    /// Writes `data` (at most 32 MiB). It owns its memory: keeping a part of it keeps no more than the whole of it.
    fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DeviceError>>;
    /// Makes every completed write durable.
    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>>;
    /// The stretch is no longer needed; a hint.
    fn trim(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<(), DeviceError>>;
    /// Makes the stretch read as zeros. Without `may_punch` its room should stay reserved.
    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        may_punch: bool,
    ) -> BoxFuture<'_, Result<(), DeviceError>>;
    /// The extents from `offset` on, in order, without gaps, at least one and at most `limit`. They may cover less
    /// than `length`, and the last may reach beyond it.
    fn extents(
        &self,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Extent>, DeviceError>>;
}
