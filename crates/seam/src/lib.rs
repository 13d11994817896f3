//! Clock, randomness and spawn: the seams through which every nondeterministic act passes.
//!
//! Production code holds an [`Rt`] and calls nothing else for time, randomness or new tasks; `clippy.toml`
//! bans the rest. [`TokioRuntime`] is the real one. The simulator has its own, driven by one seed, so the same
//! code replays exactly (R128). Media and the network are seams too; their traits live in `media` and `proto`.
//!
//! What it does not do: it knows no disk, no socket, no product concept.

mod clock;
mod real;
#[cfg(any(test, feature = "test-tools"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use clock::{BELIEVED, SiteClock};
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
    /// The simulator runs it a little later, between tasks.
    fn spawn_blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send + 'static>);
    /// Fills `out` with random bytes fit for keys.
    fn fill_random(&self, out: &mut [u8]);
    /// What [`maybe_yield`] waits for; `None`, as of every real runtime, for nothing.
    fn between(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }
    /// Notes that a task, or a piece of its work, panicked and goes on or ends without harm to others. A runtime of tests
    /// panics in turn: none of them survives a bug.
    fn note_panic(&self, task: &'static str, panicked: Panicked) {
        panic!("{task}: {}", panicked.0)
    }
    /// The tasks that panicked since the start.
    fn panics(&self) -> Vec<PanicNote> {
        Vec::new()
    }
}

/// A task that panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanicNote {
    /// The task's name.
    pub task: &'static str,
    /// What it said last.
    pub said: String,
    /// How often, since the start.
    pub count: u64,
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

/// What a panic said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked(pub String);

impl Panicked {
    /// What a panic's payload says.
    pub fn of(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Self(text.unwrap_or("a panic without words").to_owned())
    }
}

/// Runs `work` to its end, or until it panics. Requires that what `work` shares with others is valid wherever it may end,
/// as it must be where a future is dropped half-way.
///
/// # Errors
/// [`Panicked`]; the panic hook has told where.
pub async fn catch_panic<F: Future>(work: F) -> Result<F::Output, Panicked> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(payload) => Poll::Ready(Err(Panicked::of(&*payload))),
    })
    .await
}

/// Runs a piece of a task's work. A panic in it is noted and ends the piece alone: whoever calls tries it again, or says
/// that it failed. Requires what [`catch_panic`] does.
///
/// # Errors
/// [`Panicked`].
pub async fn guard<F: Future>(rt: &dyn Runtime, task: &'static str, work: F) -> Result<F::Output, Panicked> {
    let outcome = catch_panic(work).await;
    if let Err(panicked) = &outcome {
        rt.note_panic(task, panicked.clone());
    }
    outcome
}

/// Pause before a task that panicked begins anew, so that one that panics at once does no harm by it.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Runs a task to its end; one that panics is noted and begun anew.
pub async fn restart<F: Future<Output = ()>>(
    rt: &dyn Runtime,
    task: &'static str,
    mut begin: impl FnMut() -> F,
) {
    while guard(rt, task, begin()).await.is_err() {
        rt.sleep(RESTART_PAUSE).await;
    }
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

/// A place between two looks at one state, or between a look and what is done about it, where others may come in. With
/// many threads or servers they do at times; here nothing else would let them. A real runtime goes on at once, the
/// simulator waits at some of these places, by its seed. Requires that the caller relies on nothing but what it holds.
pub async fn maybe_yield(rt: &dyn Runtime) {
    if let Some(others) = rt.between() {
        others.await;
    }
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
