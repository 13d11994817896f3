//! Pace: background work yields to what guests wait for.
//!
//! Guests' requests are timed, a sample of them, apart for those that met background work and those that did not. Where
//! the former take clearly longer, each step of the work is followed by a longer rest, else by a shorter one. Without
//! guests there is none, nor while room for their writes is short: then the work is what they wait for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::{Engine, Shared};

/// One request of so many is timed.
const SAMPLE: u64 = 8;
/// Weight of the newest request in a mean: one in so many.
const MEAN_OF: u64 = 16;
/// Guests that asked for nothing for so long are not there.
const ASLEEP: Duration = Duration::from_millis(250);
/// Rests are counted in this part of the step before.
const PARTS: u32 = 8;
/// Shortest and longest rest beside guests, in these parts: the work gets at most 80 % and at least 3 % of the time.
const REST_MIN: u32 = 2;
const REST_MAX: u32 = 256;
/// Longest rest at once: the work looks again then.
const REST_AT_ONCE: Duration = Duration::from_secs(1);
/// A step shorter than this is followed by no rest of its own: it is added to the next.
const STEP_MIN: Duration = Duration::from_millis(2);
/// Less room than this, and the work does not rest.
const SHORT_OF_ROOM_PERCENT: u64 = 5;

/// How fast background work may go.
#[derive(Debug)]
pub(crate) struct Pace {
    requests: AtomicU64,
    /// When a guest's request was last timed, nanoseconds of the runtime's clock.
    last: AtomicU64,
    /// Mean time of requests without and with background work beside them, nanoseconds.
    alone: AtomicU64,
    beside: AtomicU64,
    /// Steps under way.
    working: AtomicU32,
    /// Rest for a step, in eighths of it.
    rest: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            requests: AtomicU64::default(),
            last: AtomicU64::default(),
            alone: AtomicU64::default(),
            beside: AtomicU64::default(),
            working: AtomicU32::default(),
            rest: AtomicU32::new(PARTS),
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn mean_in(mean: &AtomicU64, newest: u64) {
    // One that is lost to another thread does not matter.
    let old = mean.load(Ordering::Relaxed);
    let new = if old == 0 { newest } else { old - old / MEAN_OF + newest / MEAN_OF };
    mean.store(new.max(1), Ordering::Relaxed);
}

/// A guest's request that is timed.
pub(crate) struct Timed<'a> {
    shared: &'a Shared,
    begun: Duration,
    was_alone: bool,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let pace = &self.shared.pace;
        let now = self.shared.rt.now();
        pace.last.store(nanos(now), Ordering::Relaxed);
        let took = nanos(now.saturating_sub(self.begun));
        let is_alone = pace.working.load(Ordering::Relaxed) == 0;
        if self.was_alone && is_alone {
            mean_in(&pace.alone, took);
        } else if !self.was_alone && !is_alone {
            mean_in(&pace.beside, took);
        }
    }
}

/// A step of background work.
pub(crate) struct Step<'a> {
    engine: &'a Engine,
    begun: Duration,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.engine.shared.pace.working.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Times a guest's request, or does not.
    pub(crate) fn time_request(&self) -> Option<Timed<'_>> {
        let number = self.pace.requests.fetch_add(1, Ordering::Relaxed);
        let was_alone = self.pace.working.load(Ordering::Relaxed) == 0;
        number.is_multiple_of(SAMPLE).then(|| Timed { shared: self, begun: self.rt.now(), was_alone })
    }
}

impl Engine {
    /// Begins a step of background work.
    pub(crate) fn step(&self) -> Step<'_> {
        self.shared.pace.working.fetch_add(1, Ordering::Relaxed);
        Step { engine: self, begun: self.shared.rt.now() }
    }

    /// Ends a step that is long enough, rests as guests need it, and begins the next.
    pub(crate) async fn next_step<'a>(&self, step: Step<'a>) -> Step<'a> {
        let took = self.shared.rt.now().saturating_sub(step.begun);
        if took < STEP_MIN {
            return step;
        }
        let engine = step.engine;
        drop(step);
        let mut rest = self.rest_behind(took);
        while !rest.is_zero() && !self.shared.lock().closed {
            let some = rest.min(REST_AT_ONCE);
            self.shared.rt.sleep(some).await;
            rest -= some;
            if !self.has_room_left(SHORT_OF_ROOM_PERCENT) {
                break;
            }
        }
        engine.step()
    }

    fn rest_behind(&self, took: Duration) -> Duration {
        let pace = &self.shared.pace;
        let since = nanos(self.shared.rt.now()).saturating_sub(pace.last.load(Ordering::Relaxed));
        let is_asleep = pace.requests.load(Ordering::Relaxed) == 0 || since > nanos(ASLEEP);
        if is_asleep || !self.has_room_left(SHORT_OF_ROOM_PERCENT) {
            return Duration::ZERO;
        }
        let (alone, beside) = (pace.alone.load(Ordering::Relaxed), pace.beside.load(Ordering::Relaxed));
        let old = pace.rest.load(Ordering::Relaxed);
        let new = match (alone, beside) {
            (0, _) | (_, 0) => old,
            _ if beside > alone.saturating_mul(2) => (old * 2).min(REST_MAX),
            _ if beside < alone + alone / 2 => (old / 2).max(REST_MIN),
            _ => old,
        };
        pace.rest.store(new, Ordering::Relaxed);
        took * new / PARTS
    }
}
