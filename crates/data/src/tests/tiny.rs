//! A runtime for tests: one thread, virtual time, the next task drawn by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use seam::{BoxFuture, Rt, Runtime};

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
pub(super) struct Tiny {
    state: Mutex<State>,
    /// Tasks to be polled; 0 is the test itself.
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

struct Task(u64, Arc<Mutex<BTreeSet<u64>>>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().insert(self.0);
    }
}

impl Tiny {
    fn roll(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.dice ^= state.dice << 13;
        state.dice ^= state.dice >> 7;
        state.dice ^= state.dice << 17;
        state.dice
    }

    /// The next task to poll; moves time when there is none.
    fn pick(&self) -> Option<u64> {
        loop {
            {
                let count = self.ready.lock().unwrap().len() as u64;
                if count > 0 {
                    let at = (self.roll() % count) as usize;
                    let mut ready = self.ready.lock().unwrap();
                    let id = ready.iter().nth(at).copied()?;
                    ready.remove(&id);
                    return Some(id);
                }
            }
            let mut state = self.state.lock().unwrap();
            let ((due, _), waker) = state.timers.pop_first()?;
            state.now = due;
            drop(state);
            waker.wake();
        }
    }
}

/// Runs `work` to its end.
pub(super) fn run<T>(seed: u64, work: impl AsyncFnOnce(Rt) -> T) -> T {
    let tiny = Arc::new(Tiny::default());
    tiny.state.lock().unwrap().dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut main = std::pin::pin!(work(tiny.clone()));
    tiny.ready.lock().unwrap().insert(0);
    for _ in 0..POLLS_MAX {
        let id = tiny.pick().unwrap_or_else(|| panic!("seed {seed}: nothing can go on"));
        let waker = Waker::from(Arc::new(Task(id, tiny.ready.clone())));
        let mut context = Context::from_waker(&waker);
        if id == 0 {
            if let Poll::Ready(output) = main.as_mut().poll(&mut context) {
                let tasks = std::mem::take(&mut tiny.state.lock().unwrap().tasks);
                drop(tasks);
                return output;
            }
            continue;
        }
        let task = tiny.state.lock().unwrap().tasks.remove(&id);
        let Some(mut task) = task else { continue };
        if task.as_mut().poll(&mut context).is_pending() {
            tiny.state.lock().unwrap().tasks.insert(id, task);
        }
    }
    panic!("seed {seed}: the run spins");
}

impl Runtime for Tiny {
    fn now(&self) -> Duration {
        self.state.lock().unwrap().now
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
                let mut timer = self.0.lock().unwrap();
                timer.0 = true;
                timer.1.take().into_iter().for_each(Waker::wake);
            }
        }
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let key = (state.now + duration, state.next);
        state.timers.insert(key, Waker::from(Arc::new(Timer(fired.clone()))));
        Box::pin(std::future::poll_fn(move |cx| {
            let mut timer = fired.lock().unwrap();
            if timer.0 {
                return Poll::Ready(());
            }
            timer.1 = Some(cx.waker().clone());
            Poll::Pending
        }))
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let id = state.next;
        state.tasks.insert(id, task);
        self.ready.lock().unwrap().insert(id);
    }

    fn spawn_blocking(&self, _name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        work();
    }

    fn fill_random(&self, out: &mut [u8]) {
        out.iter_mut().for_each(|byte| *byte = (self.roll() >> 24) as u8);
    }
}
