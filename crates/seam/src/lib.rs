//! Clock, randomness and spawn: the seams through which every nondeterministic act passes.
//!
//! Production code holds an [`Rt`] and calls nothing else for time, randomness or new tasks; `clippy.toml`
//! bans the rest. [`TokioRuntime`] is the real one. The simulator has its own, driven by one seed, so the same
//! code replays exactly (R128). Media and the network are seams too; their traits live in `media` and `data`.
//!
//! What it does not do: it knows no disk, no socket, no product concept.

mod clock;
mod real;
#[cfg(any(test, feature = "test-tools"))]
pub mod testing;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use clock::SiteClock;
pub use real::TokioRuntime;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A shared handle on the runtime.
pub type Rt = Arc<dyn Runtime>;

/// Clock, randomness and spawn.
pub trait Runtime: Send + Sync + 'static {
    /// Monotonic time since an arbitrary start. Never goes back.
    fn now(&self) -> Duration;
    /// Wall-clock time in milliseconds since the Unix epoch. For people only: nothing is ordered by it.
    fn wall_ms(&self) -> u64;
    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// Runs `task` in the background. `name` is for diagnosis. The task must end by itself: when a channel it
    /// listens on closes, or when it is told to.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
    /// Runs a computation that may block or take milliseconds, off the threads that serve I/O.
    /// The simulator runs it in place.
    fn spawn_blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send + 'static>);
    /// Fills `out` with random bytes fit for keys.
    fn fill_random(&self, out: &mut [u8]);
}

/// A random 64-bit number.
pub fn random_u64(rt: &dyn Runtime) -> u64 {
    let mut bytes = [0; 8];
    rt.fill_random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The deadline passed before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// Runs `work`, but no longer than `limit`.
///
/// # Errors
/// [`Elapsed`] when the limit passes first; `work` is then dropped where it stands.
pub async fn timeout<F: Future>(rt: &dyn Runtime, limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    let mut sleep = rt.sleep(limit);
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Elapsed)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Lets other tasks run once.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs all `futures` at once and gives their outputs in the same order.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in running.iter_mut().zip(outputs.iter_mut()) {
            if output.is_some() {
                continue;
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => *output = Some(value),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
