//! The real clock, operating-system randomness and tokio.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{BoxFuture, Runtime};

/// The production runtime: tokio tasks and timers, the system's clocks and random numbers.
#[derive(Debug)]
pub struct TokioRuntime {
    handle: tokio::runtime::Handle,
    start: Instant,
}

impl TokioRuntime {
    /// Wraps the tokio runtime behind `handle`.
    #[allow(clippy::disallowed_methods)] // this is the seam itself
    pub fn new(handle: tokio::runtime::Handle) -> Self {
        Self { handle, start: Instant::now() }
    }
}

#[allow(clippy::disallowed_methods)] // this is the seam itself
impl Runtime for TokioRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let guard = self.handle.enter();
        let sleep = tokio::time::sleep(duration);
        drop(guard);
        Box::pin(sleep)
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }

    fn spawn_blocking(&self, _name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        self.handle.spawn_blocking(work);
    }

    fn fill_random(&self, out: &mut [u8]) {
        // The system source fails only where no key could be made at all; going on would be worse than stopping.
        getrandom::fill(out).expect("the operating system's random source works");
    }
}
