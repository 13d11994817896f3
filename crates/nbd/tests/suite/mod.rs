mod bounds;
mod client;
mod device;
mod fuzz;
mod handshake;
mod hostile;
mod outside;
mod server;
mod transmission;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use budget::Budget;
use nbd::{Limits, Server};
use seam::{Rt, TokioRuntime};

use client::Client;
use device::{TestDevice, TestExports};

/// Bytes of the disk most tests use: not a multiple of a block.
const DISK: u64 = (4 << 20) + 777;
/// How long a test waits for what must happen.
const SOON: Duration = Duration::from_secs(10);

/// A server with one disk on a temporary socket.
struct Fixture {
    runtime: tokio::runtime::Runtime,
    rt: Rt,
    directory: tempfile::TempDir,
    device: Arc<TestDevice>,
    exports: Arc<TestExports>,
    budget: Budget,
    server: Option<Server>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(TestDevice::new(DISK), Limits::default())
    }

    fn with(device: TestDevice, limits: Limits) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let rt: Rt = Arc::new(TokioRuntime::new(runtime.handle().clone()));
        let directory = tempfile::tempdir().unwrap();
        let device = Arc::new(device);
        let exports = Arc::new(TestExports::new(device.clone(), Vec::new()));
        let mut fixture = Self {
            runtime,
            rt,
            directory,
            device,
            exports,
            budget: Budget::new(budget::BYTES_MIN),
            server: None,
        };
        fixture.server = Some(fixture.start(limits).unwrap());
        fixture
    }

    fn start(&self, limits: Limits) -> Result<Server, nbd::ServerError> {
        let path = self.path();
        let (rt, exports, budget) = (self.rt.clone(), self.exports.clone(), self.budget.clone());
        self.block_on(Server::start(rt, exports, &path, limits, budget))
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("nbd.sock")
    }

    fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.path().display())
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A connection past the greeting.
    fn connect(&self) -> Client {
        let mut client = Client::connect(&self.path());
        client.greet(3);
        client
    }

    /// A connection in transmission, with simple replies.
    fn simple(&self) -> Client {
        let mut client = self.connect();
        client.go("disk");
        client
    }

    /// A connection in transmission, with structured replies and `base:allocation`.
    fn structured(&self) -> Client {
        let mut client = self.connect();
        client.structured();
        client.select_allocation("disk");
        client.go("disk");
        client
    }

    /// Waits for `condition`.
    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let end = self.rt.now() + SOON;
        while !condition() {
            assert!(self.rt.now() < end, "did not happen: {what}");
            self.pause(Duration::from_millis(2));
        }
    }

    fn pause(&self, duration: Duration) {
        self.block_on(self.rt.sleep(duration));
    }

    fn connections(&self) -> usize {
        self.server.as_ref().unwrap().connections()
    }
}

/// A byte that tells its place.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8 | 1
}

fn patterned(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(pattern).collect()
}
