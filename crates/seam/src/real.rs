//! The real clock, operating-system randomness and tokio.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{BoxFuture, PanicNote, Panicked, Runtime, catch_panic};

/// Names of tasks that are noted; there are fewer.
const PANICS_MAX: usize = 64;

/// The production runtime: tokio tasks and timers, the system's clocks and random numbers.
#[derive(Debug)]
pub struct TokioRuntime {
    handle: tokio::runtime::Handle,
    start: Instant,
    panics: Panics,
}

/// Tasks that panicked, one note for each name.
#[derive(Debug, Clone, Default)]
struct Panics(Arc<Mutex<Vec<PanicNote>>>);

impl Panics {
    fn note(&self, task: &'static str, panicked: Panicked) {
        let Panicked(said) = panicked;
        // Plain data.
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(note) = notes.iter_mut().find(|note| note.task == task) {
            (note.said, note.count) = (said, note.count + 1);
        } else if notes.len() < PANICS_MAX {
            notes.push(PanicNote { task, said, count: 1 });
        }
    }
}

impl TokioRuntime {
    /// Wraps the tokio runtime behind `handle`.
    #[allow(clippy::disallowed_methods)] // this is the seam itself
    pub fn new(handle: tokio::runtime::Handle) -> Self {
        Self { handle, start: Instant::now(), panics: Panics::default() }
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

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let panics = self.panics.clone();
        self.handle.spawn(async move {
            if let Err(panicked) = catch_panic(task).await {
                panics.note(name, panicked);
            }
        });
    }

    fn spawn_blocking(&self, _name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        self.handle.spawn_blocking(work);
    }

    fn fill_random(&self, out: &mut [u8]) {
        // The system source fails only where no key could be made at all; going on would be worse than stopping.
        getrandom::fill(out).expect("the operating system's random source works");
    }

    fn note_panic(&self, task: &'static str, panicked: Panicked) {
        self.panics.note(task, panicked);
    }

    fn panics(&self) -> Vec<PanicNote> {
        self.panics.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
