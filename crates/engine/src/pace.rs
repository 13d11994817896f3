//! Pace: background work yields to what guests wait for.
//!
//! Guests' requests are timed, a sample of them: those that met no background work, and all while some is under way, its
//! rests included. Where the latter take longer on average, or clearly more of them are slow, each step of the work is
//! followed by a longer rest, else by a shorter one. Slow is what takes clearly longer than the 99th percentile of those
//! that met no work: a few do without any. Steps are short, so that a request waits for little of one. Without guests
//! there is no rest, nor while room for their writes is short: then the work is what they wait for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::{Engine, Shared};

/// One request of so many is timed where nothing works; beside work all are.
const SAMPLE: u64 = 8;
/// Weight of the newest request in a mean: one in so many.
const MEAN_OF: u64 = 256;
/// The estimated 99th percentile of what meets no work goes up by this part of itself with a request above it, and down
/// by a 99th of that with one below.
const TAIL_UP: u64 = 32;
const TAIL_DOWN: u64 = 99 * TAIL_UP;
/// A request is slow that takes so much longer than that percentile, in percent of it.
const SLOW_PERCENT: u64 = 170;
/// Requests between two changes of the rest, and how many more slow ones in a million than without work make it longer,
/// or, at most, shorter.
const LEARN: u64 = 1600;
const SLOW_MANY: u64 = 6_000;
const SLOW_FEW: u64 = 3_000;
/// So many slow ones make it longer at once where they are more than so many in a million.
const SLOW_START: u64 = 12;
const SLOW_STOP: u64 = 40_000;
/// Requests may take so much longer beside work on average, in percent of those that meet none: below the first the rest
/// gets shorter, above the second longer.
const FASTER_PERCENT: u64 = 125;
const SLOWER_PERCENT: u64 = 150;
const MILLION: u64 = 1_000_000;
/// Weight of the newest request in the share of slow ones: one in so many.
const SHARE_OF: u64 = 2048;
/// Guests that asked for nothing for so long are not there.
const ASLEEP: Duration = Duration::from_millis(250);
/// Rests are counted in this part of the step before.
const PARTS: u32 = 8;
/// Shortest and longest rest beside guests, in these parts: the work gets at most 80 % and at least 3 % of the time.
const REST_MIN: u32 = 2;
const REST_MAX: u32 = 256;
/// The first rest: as long as nothing is known, the work gets a fifth of the time.
const REST_FIRST: u32 = 4 * PARTS;
/// A rest shorter than this is not worth a timer: it is added to the next.
const REST_LEAST: Duration = Duration::from_millis(1);
/// Longest rest at once: the work looks again then.
const REST_AT_ONCE: Duration = Duration::from_secs(1);
/// A step shorter than this is followed by no rest of its own: it is added to the next.
const STEP_MIN: Duration = Duration::from_micros(250);
/// Less room than this, and the work does not rest.
const SHORT_OF_ROOM_PERCENT: u64 = 5;

/// How fast background work may go.
#[derive(Debug)]
pub(crate) struct Pace {
    requests: AtomicU64,
    /// When a guest's request was last timed, nanoseconds of the runtime's clock.
    last: AtomicU64,
    /// Mean time of requests that met no background work, nanoseconds.
    alone: AtomicU64,
    /// Their 99th percentile, nanoseconds.
    tail: AtomicU64,
    /// Slow ones among them, in a million.
    alone_slow: AtomicU64,
    /// Requests while some work was under way, their time, and slow ones among them, since the rest was last changed.
    timed: AtomicU64,
    all: AtomicU64,
    slow: AtomicU64,
    /// Steps begun.
    begun: AtomicU64,
    /// Steps under way, and tasks that rest between two.
    working: AtomicU32,
    resting: AtomicU32,
    /// Rest for a step, in eighths of it.
    rest: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            requests: AtomicU64::default(),
            last: AtomicU64::default(),
            alone: AtomicU64::default(),
            all: AtomicU64::default(),
            timed: AtomicU64::default(),
            slow: AtomicU64::default(),
            alone_slow: AtomicU64::default(),
            tail: AtomicU64::default(),
            begun: AtomicU64::default(),
            working: AtomicU32::default(),
            resting: AtomicU32::default(),
            rest: AtomicU32::new(REST_FIRST),
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
    /// Steps begun before it, when none of them was under way.
    alone_behind: Option<u64>,
}

impl Pace {
    fn alone(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::Relaxed);
        (self.working.load(Ordering::Relaxed) == 0).then_some(begun)
    }

    /// What a request that met no work says of the slowest of them. One that is lost to another thread does not matter.
    fn learn_tail(&self, took: u64, is_slow: bool) {
        let tail = self.tail.load(Ordering::Relaxed);
        let new = match tail {
            0 => 2 * took,
            _ if took > tail => tail + tail / TAIL_UP,
            _ => tail - tail / TAIL_DOWN,
        };
        self.tail.store(new.max(1), Ordering::Relaxed);
        let share = self.alone_slow.load(Ordering::Relaxed);
        let newest = if is_slow { MILLION / SHARE_OF } else { 0 };
        self.alone_slow.store(share - share / SHARE_OF + newest, Ordering::Relaxed);
    }

    /// Whether some work is under way, its rests included.
    fn is_busy(&self) -> bool {
        self.working.load(Ordering::Relaxed) + self.resting.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let pace = &self.shared.pace;
        let now = self.shared.rt.now();
        pace.last.store(nanos(now), Ordering::Relaxed);
        let took = nanos(now.saturating_sub(self.begun));
        let is_slow = took.saturating_mul(100) / SLOW_PERCENT > pace.tail.load(Ordering::Relaxed);
        if self.alone_behind.is_some() && self.alone_behind == pace.alone() {
            mean_in(&pace.alone, took);
            pace.learn_tail(took, is_slow);
        }
        if pace.is_busy() {
            pace.timed.fetch_add(1, Ordering::Relaxed);
            pace.all.fetch_add(took, Ordering::Relaxed);
            pace.slow.fetch_add(u64::from(is_slow), Ordering::Relaxed);
        }
    }
}

/// A step of background work.
pub(crate) struct Step<'a> {
    engine: &'a Engine,
    begun: Duration,
    /// Rest that steps before it are still owed; what they had too much.
    owed: Duration,
    ahead: Duration,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.engine.shared.pace.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A task that rests between two steps.
struct Resting<'a>(&'a Pace);

impl<'a> Resting<'a> {
    fn of(pace: &'a Pace) -> Self {
        pace.resting.fetch_add(1, Ordering::Relaxed);
        Self(pace)
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.resting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Times a guest's request, or does not.
    pub(crate) fn time_request(&self) -> Option<Timed<'_>> {
        let number = self.pace.requests.fetch_add(1, Ordering::Relaxed);
        (number.is_multiple_of(SAMPLE) || self.pace.is_busy()).then(|| Timed {
            shared: self,
            begun: self.rt.now(),
            alone_behind: self.pace.alone(),
        })
    }
}

impl Engine {
    /// Begins a step of background work.
    pub(crate) fn step(&self) -> Step<'_> {
        self.shared.pace.working.fetch_add(1, Ordering::Relaxed);
        self.shared.pace.begun.fetch_add(1, Ordering::Relaxed);
        Step { engine: self, begun: self.shared.rt.now(), owed: Duration::ZERO, ahead: Duration::ZERO }
    }

    /// Ends a step that is long enough, rests as guests need it, and begins the next.
    pub(crate) async fn next_step<'a>(&self, mut step: Step<'a>) -> Step<'a> {
        let now = self.shared.rt.now();
        let took = now.saturating_sub(step.begun);
        if took < STEP_MIN {
            return step;
        }
        let owed = step.owed + self.rest_behind(took);
        let rest = owed.saturating_sub(step.ahead);
        if rest < REST_LEAST {
            step.begun = now;
            step.owed = rest;
            step.ahead = step.ahead.saturating_sub(owed);
            return step;
        }
        let engine = step.engine;
        let resting = Resting::of(&engine.shared.pace);
        drop(step);
        let until = now + rest;
        while self.shared.rt.now() < until && !self.shared.lock().closed {
            self.shared.rt.sleep(until.saturating_sub(self.shared.rt.now()).min(REST_AT_ONCE)).await;
            if !self.has_room_left(SHORT_OF_ROOM_PERCENT) {
                break;
            }
        }
        let mut step = engine.step();
        step.ahead = step.begun.saturating_sub(until).min(REST_AT_ONCE);
        drop(resting);
        step
    }

    fn rest_behind(&self, took: Duration) -> Duration {
        let pace = &self.shared.pace;
        let since = nanos(self.shared.rt.now()).saturating_sub(pace.last.load(Ordering::Relaxed));
        let is_asleep = pace.requests.load(Ordering::Relaxed) == 0 || since > nanos(ASLEEP);
        if is_asleep || !self.has_room_left(SHORT_OF_ROOM_PERCENT) {
            return Duration::ZERO;
        }
        took * self.learn() / PARTS
    }

    /// The rest as it is to be by what requests took since it was last changed.
    fn learn(&self) -> u32 {
        let pace = &self.shared.pace;
        let (alone, all) = (pace.alone.load(Ordering::Relaxed), pace.all.load(Ordering::Relaxed));
        let (timed, slow) = (pace.timed.load(Ordering::Relaxed), pace.slow.load(Ordering::Relaxed));
        let old = pace.rest.load(Ordering::Relaxed);
        let share = slow * MILLION / timed.max(1);
        let is_hurting = slow >= SLOW_START && share > SLOW_STOP;
        if alone == 0 || timed < LEARN && !is_hurting {
            return old;
        }
        pace.timed.store(0, Ordering::Relaxed);
        pace.all.store(0, Ordering::Relaxed);
        pace.slow.store(0, Ordering::Relaxed);
        let percent = all.saturating_mul(100) / alone / timed.max(1);
        let more = share.saturating_sub(pace.alone_slow.load(Ordering::Relaxed));
        let new = if is_hurting || percent > SLOWER_PERCENT {
            (old * 2).min(REST_MAX)
        } else if more > SLOW_MANY {
            (old + old / 2).min(REST_MAX)
        } else if more <= SLOW_FEW && percent < FASTER_PERCENT {
            (old - old / 4).max(REST_MIN)
        } else {
            old
        };
        pace.rest.store(new, Ordering::Relaxed);
        tracing::trace!(tail = pace.tail.load(Ordering::Relaxed), percent, slow, timed, rest = new, "pace");
        new
    }
}
