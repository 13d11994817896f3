//! A runtime on one thread, with virtual time, the next task drawn by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::{roll, scatter};
use crate::{BoxFuture, Rt, Runtime};

/// Polls after which a run is taken to spin.
const POLLS_MAX: u64 = 20_000_000;

#[derive(Default)]
struct State {
    now: Duration,
    dice: u64,
    tasks: BTreeMap<u64, BoxFuture<'static, ()>>,
    next: u64,
    timers: BTreeMap<(Duration, u64), Waker>,
}

#[derive(Default)]
struct Seeded {
    state: Mutex<State>,
    /// Tasks to be polled; 0 is the test itself.
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

struct Task(u64, Arc<Mutex<BTreeSet<u64>>>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        lock(&self.1).insert(self.0);
    }
}

impl Seeded {
    fn roll(&self) -> u64 {
        roll(&mut lock(&self.state).dice)
    }

    /// The next task to poll; moves time when there is none.
    fn pick(&self) -> Option<u64> {
        loop {
            {
                let count = lock(&self.ready).len() as u64;
                if count > 0 {
                    let at = (self.roll() % count) as usize;
                    let mut ready = lock(&self.ready);
                    let id = ready.iter().nth(at).copied()?;
                    ready.remove(&id);
                    return Some(id);
                }
            }
            let mut state = lock(&self.state);
            let ((due, _), waker) = state.timers.pop_first()?;
            state.now = due;
            drop(state);
            waker.wake();
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("all run on one thread, and a panic ends the test")
}

/// Runs `work` to its end; the same seed gives the same run.
///
/// # Panics
/// When nothing can go on, or the run spins.
pub fn run<T>(seed: u64, work: impl AsyncFnOnce(Rt) -> T) -> T {
    let seeded = Arc::new(Seeded::default());
    lock(&seeded.state).dice = scatter(seed);
    let mut main = std::pin::pin!(work(seeded.clone()));
    lock(&seeded.ready).insert(0);
    for _ in 0..POLLS_MAX {
        let id = seeded.pick().unwrap_or_else(|| panic!("seed {seed}: nothing can go on"));
        let waker = Waker::from(Arc::new(Task(id, seeded.ready.clone())));
        let mut context = Context::from_waker(&waker);
        if id == 0 {
            if let Poll::Ready(output) = main.as_mut().poll(&mut context) {
                let tasks = std::mem::take(&mut lock(&seeded.state).tasks);
                drop(tasks);
                return output;
            }
            continue;
        }
        let task = lock(&seeded.state).tasks.remove(&id);
        let Some(mut task) = task else { continue };
        if task.as_mut().poll(&mut context).is_pending() {
            lock(&seeded.state).tasks.insert(id, task);
        }
    }
    panic!("seed {seed}: the run spins");
}

impl Runtime for Seeded {
    fn now(&self) -> Duration {
        lock(&self.state).now
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // The timer is set at once and fires once; whoever waits with others is polled again by it.
        let fired = Arc::new(Mutex::new((false, None::<Waker>)));
        struct Timer(Arc<Mutex<(bool, Option<Waker>)>>);
        impl Wake for Timer {
            fn wake(self: Arc<Self>) {
                let mut timer = lock(&self.0);
                timer.0 = true;
                timer.1.take().into_iter().for_each(Waker::wake);
            }
        }
        let mut state = lock(&self.state);
        state.next += 1;
        let key = (state.now + duration, state.next);
        state.timers.insert(key, Waker::from(Arc::new(Timer(fired.clone()))));
        Box::pin(std::future::poll_fn(move |cx| {
            let mut timer = lock(&fired);
            if timer.0 {
                return Poll::Ready(());
            }
            timer.1 = Some(cx.waker().clone());
            Poll::Pending
        }))
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        let mut state = lock(&self.state);
        state.next += 1;
        let id = state.next;
        state.tasks.insert(id, task);
        lock(&self.ready).insert(id);
    }

    fn spawn_blocking(&self, _name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        work();
    }

    fn fill_random(&self, out: &mut [u8]) {
        out.iter_mut().for_each(|byte| *byte = (self.roll() >> 24) as u8);
    }
}
