//! A null NBD server: reads give one byte over and over, writes vanish. It measures the ceiling of the front end.
//!
//! `null SOCKET [GIB [BYTE]]`: size in GiB (default 1), the byte reads give (default 0, which structured replies send
//! as holes; any other makes data cross the socket). Runs until killed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nbd::{Device, DeviceError, ExportInfo, Exports, Extent, Limits, OpenError, Server};
use seam::{BoxFuture, Rt, TokioRuntime};

/// The largest read a server passes on.
const LARGEST: usize = 32 << 20;

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
        Box::pin(std::future::ready(vec![ExportInfo { name: String::new(), description: String::new() }]))
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
        _punch: bool,
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().ok_or("usage: null SOCKET [GIB [BYTE]]")?;
    let gib: u64 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let byte: u8 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let null = Null { size: gib << 30, data: vec![byte; LARGEST].into() };
    let rt: Rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
    let server = Server::start(rt, Arc::new(null), Path::new(&socket), Limits::default()).await?;
    tokio::signal::ctrl_c().await?;
    server.stop(std::time::Duration::from_secs(1)).await;
    Ok(())
}
