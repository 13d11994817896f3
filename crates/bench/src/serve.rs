//! Servers of our own to measure against: the front end over a device that costs nothing, and over memory.

use std::path::Path;
use std::sync::Arc;

use budget::Budget;
use bytes::Bytes;
use nbd::ram::{RamDevice, RamExports};
use nbd::{Device, DeviceError, ExportInfo, Exports, Extent, Limits, OpenError, Server};
use seam::{BoxFuture, Rt, TokioRuntime};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

/// The export's name.
pub(crate) const EXPORT: &str = "disk";
/// The largest read that the front end passes on.
const READ_MAX: usize = 32 << 20;
/// What every byte read from the null device is: not zero, so that it is no hole.
const NULL_BYTE: u8 = 0x5a;
/// Memory for clients, bytes: more than those of a measurement have under way.
const CLIENT_BYTES: usize = 1 << 30;
const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// What stands behind the front end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Behind {
    /// Answers at once and keeps nothing.
    Null,
    /// Memory.
    Ram,
}

/// Serves a disk of `size` bytes until a signal.
pub(crate) fn serve(behind: Behind, socket: &Path, size: u64) -> Result<(), Failure> {
    let exports: Arc<dyn Exports> = match behind {
        Behind::Null => Arc::new(Null { size, data: vec![NULL_BYTE; READ_MAX].into() }),
        Behind::Ram => {
            let size = usize::try_from(size).map_err(|_| Failure::failed("more than memory has"))?;
            Arc::new(RamExports::new(EXPORT, Arc::new(RamDevice::new(size))))
        }
    };
    // As `holdfast` does it, so that the ceiling is that of its front end.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rt: Rt = Arc::new(TokioRuntime::new(runtime.handle().clone()));
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let server = Server::start(rt, exports, socket, Limits::default(), Budget::new(CLIENT_BYTES))
            .await
            .map_err(|error| Failure::failed(error.to_string()))?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        server.stop(STOP_WITHIN).await;
        Ok(())
    })
}

#[derive(Clone)]
struct Null {
    size: u64,
    data: Bytes,
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, DeviceError>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Exports for Null {
    fn list(&self) -> BoxFuture<'_, Vec<ExportInfo>> {
        let export = ExportInfo { name: EXPORT.to_owned(), description: "a null device".to_owned() };
        Box::pin(std::future::ready(vec![export]))
    }

    fn open(&self, _name: &str) -> BoxFuture<'_, Result<Arc<dyn Device>, OpenError>> {
        let device: Arc<dyn Device> = Arc::new(self.clone());
        Box::pin(std::future::ready(Ok(device)))
    }
}

impl Device for Null {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, _offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes, DeviceError>> {
        done(self.data.slice(..length))
    }

    fn write(&self, _offset: u64, _data: Bytes) -> BoxFuture<'_, Result<(), DeviceError>> {
        done(())
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        done(())
    }

    fn trim(&self, _offset: u64, _length: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        done(())
    }

    fn write_zeroes(
        &self,
        _offset: u64,
        _length: u64,
        _may_punch: bool,
    ) -> BoxFuture<'_, Result<(), DeviceError>> {
        done(())
    }

    fn extents(
        &self,
        _offset: u64,
        length: u64,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Extent>, DeviceError>> {
        done(vec![Extent { length, hole: false, zero: false }])
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! The server over memory, within the test's own process.

    use std::path::PathBuf;

    use super::*;

    /// Serves until dropped.
    pub(crate) struct RamServer {
        socket: PathBuf,
        _server: Server,
        _runtime: tokio::runtime::Runtime,
        _home: tempfile::TempDir,
    }

    impl RamServer {
        pub(crate) fn socket(&self) -> &Path {
            &self.socket
        }
    }

    /// A disk of `size` bytes, exported as [`EXPORT`].
    pub(crate) fn serve_ram(size: u64) -> RamServer {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("nbd.sock");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let rt: Rt = Arc::new(TokioRuntime::new(runtime.handle().clone()));
        let exports = Arc::new(RamExports::new(EXPORT, Arc::new(RamDevice::new(size as usize))));
        let server = runtime
            .block_on(Server::start(rt, exports, &socket, Limits::default(), Budget::new(CLIENT_BYTES)))
            .unwrap();
        RamServer { socket, _server: server, _runtime: runtime, _home: home }
    }
}
