//! A runtime with a virtual clock and seeded randomness, over tokio's paused time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use seam::{BoxFuture, Rt, Runtime};
use tokio::time::Instant;

struct VirtualRuntime {
    start: Instant,
    random: Mutex<u64>,
}

#[allow(clippy::disallowed_methods)] // this is a seam
impl Runtime for VirtualRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
    fn wall_ms(&self) -> u64 {
        0
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
    fn spawn_blocking(&self, _name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        work();
    }
    fn fill_random(&self, out: &mut [u8]) {
        let mut state = self.random.lock().unwrap();
        for byte in out {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *byte = (*state >> 32) as u8;
        }
    }
}

/// Runs `test` in virtual time: it passes only while every task waits.
pub(crate) fn virtually<F: Future>(test: impl FnOnce(Rt) -> F) -> F::Output {
    let tokio =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio.block_on(async {
        #[allow(clippy::disallowed_methods)] // this is a seam
        let start = Instant::now();
        test(Arc::new(VirtualRuntime { start, random: Mutex::new(0x9e37_79b9) })).await
    })
}
