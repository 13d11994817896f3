//! A disk in memory that can be told to wait, to fail and to lie.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nbd::ram::RamDevice;
use nbd::{Device, DeviceError, DeviceErrorKind, ExportInfo, Exports, Extent, OpenError, OpenErrorKind};
use seam::BoxFuture;
use tokio::sync::watch;

/// Reads at this offset and beyond wait for the gate.
pub(super) const GATED: u64 = 1 << 20;

pub(super) struct TestDevice {
    pub(super) ram: RamDevice,
    pub(super) read_only: bool,
    pub(super) slow_zeroes: bool,
    /// Every operation gives way to other tasks first, so that it runs in a task of its own.
    pub(super) lazy: bool,
    /// A task reads and writes it.
    pub(super) of_task: bool,
    pub(super) gate: watch::Sender<bool>,
    pub(super) waiting: AtomicUsize,
    /// Bytes read so far.
    pub(super) read_bytes: AtomicUsize,
    pub(super) fail: Mutex<Option<DeviceErrorKind>>,
    pub(super) lie: AtomicBool,
    pub(super) panic: AtomicBool,
    /// What was called, in order, reads and extents left out.
    pub(super) calls: Mutex<Vec<String>>,
}

impl TestDevice {
    pub(super) fn new(size: u64) -> Self {
        Self {
            ram: RamDevice::new(size as usize),
            read_only: false,
            slow_zeroes: false,
            lazy: false,
            of_task: false,
            gate: watch::Sender::new(true),
            waiting: AtomicUsize::new(0),
            read_bytes: AtomicUsize::new(0),
            fail: Mutex::new(None),
            lie: AtomicBool::new(false),
            panic: AtomicBool::new(false),
            calls: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn called(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn call(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    async fn enter(&self) -> Result<(), DeviceError> {
        if self.lazy {
            seam::yield_now().await;
        }
        match *self.fail.lock().unwrap() {
            Some(kind) => Err(DeviceError { kind, reason: "told to fail".to_owned() }),
            None => Ok(()),
        }
    }
}

impl Device for TestDevice {
    fn size(&self) -> u64 {
        self.ram.size()
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn zeroes_are_fast(&self) -> bool {
        !self.slow_zeroes
    }

    fn description(&self) -> String {
        "a test disk".to_owned()
    }

    fn of_task(&self) -> bool {
        self.of_task
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes, DeviceError>> {
        Box::pin(async move {
            self.enter().await?;
            assert!(!self.panic.load(SeqCst) || offset < GATED, "told to panic");
            if offset >= GATED && !*self.gate.borrow() {
                self.waiting.fetch_add(1, SeqCst);
                self.gate.subscribe().wait_for(|open| *open).await.unwrap();
                self.waiting.fetch_sub(1, SeqCst);
                if self.panic.load(SeqCst) {
                    panic!("told to panic");
                }
            }
            let data = self.ram.read(offset, length).await?;
            self.read_bytes.fetch_add(length, SeqCst);
            Ok(if self.lie.load(SeqCst) { data.slice(1..) } else { data })
        })
    }

    fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            self.enter().await?;
            self.call(format!("write {offset} {}", data.len()));
            self.ram.write(offset, data).await
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            self.enter().await?;
            self.call("flush".to_owned());
            self.ram.flush().await
        })
    }

    fn trim(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            self.enter().await?;
            self.call(format!("trim {offset} {length}"));
            self.ram.trim(offset, length).await
        })
    }

    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        may_punch: bool,
    ) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            self.enter().await?;
            self.call(format!("zero {offset} {length} {may_punch}"));
            self.ram.write_zeroes(offset, length, may_punch).await
        })
    }

    fn extents(
        &self,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Extent>, DeviceError>> {
        Box::pin(async move {
            self.enter().await?;
            if self.lie.load(SeqCst) {
                return Ok(Vec::new());
            }
            self.ram.extents(offset, length, limit).await
        })
    }
}

/// The disk as `disk`, and names that are refused, each in its way.
pub(super) struct TestExports {
    pub(super) device: Arc<TestDevice>,
    /// The disk of a task.
    pub(super) task: Arc<TestDevice>,
    pub(super) more: Vec<ExportInfo>,
}

impl TestExports {
    pub(super) fn new(device: Arc<TestDevice>, more: Vec<ExportInfo>) -> Self {
        let task = Arc::new(TestDevice { of_task: true, ..TestDevice::new(1 << 20) });
        Self { device, task, more }
    }
}

impl Exports for TestExports {
    fn list(&self) -> BoxFuture<'_, Vec<ExportInfo>> {
        Box::pin(async move {
            let disk = ExportInfo { name: "disk".to_owned(), description: "a test disk".to_owned() };
            std::iter::once(disk).chain(self.more.iter().cloned()).collect()
        })
    }

    fn open(&self, name: &str) -> BoxFuture<'_, Result<Arc<dyn Device>, OpenError>> {
        let kind = match name {
            "disk" | "" | "task" => None,
            "refused" => Some(OpenErrorKind::Refused),
            "leaving" => Some(OpenErrorKind::ShuttingDown),
            "failed" => Some(OpenErrorKind::Failed),
            _ => Some(OpenErrorKind::Unknown),
        };
        let device = if name == "task" { self.task.clone() } else { self.device.clone() };
        Box::pin(async move {
            match kind {
                None => Ok(device as Arc<dyn Device>),
                Some(kind) => Err(OpenError { kind, reason: "told to refuse".to_owned() }),
            }
        })
    }
}
