//! Site time: what holds, the trash and schedules go by (decision 0014).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Rt;

/// A host's clock that is further ahead than this of the time that was kept is not believed at a start: nothing tells a long
/// rest from a clock that is wrong. A shorter one ends nothing that was to stay for longer than a day.
pub const BELIEVED: Duration = Duration::from_secs(86_400);

/// Milliseconds since the Unix epoch that never go back.
///
/// It begins at the host's clock, or at the time that was kept where that is later, or where the host's clock is ahead of it by
/// more than [`BELIEVED`]; it goes on with the monotonic clock: while a process runs, whoever sets the host's clock moves
/// nothing. What passes while the machine sleeps counts from the next start on.
pub struct SiteClock {
    rt: Rt,
    begun: Duration,
    /// The time at `begun`.
    base_ms: AtomicU64,
}

impl std::fmt::Debug for SiteClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SiteClock({})", self.now_ms())
    }
}

impl SiteClock {
    /// A clock that begins at the host's.
    pub fn new(rt: Rt) -> Self {
        let (begun, base_ms) = (rt.now(), AtomicU64::new(rt.wall_ms()));
        Self { rt, begun, base_ms }
    }

    /// A clock that stands at the epoch until it hears what time it is.
    pub fn unset(rt: Rt) -> Self {
        Self { begun: rt.now(), rt, base_ms: AtomicU64::new(0) }
    }

    fn elapsed_ms(&self) -> u64 {
        let elapsed = self.rt.now().saturating_sub(self.begun).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    /// The time now.
    pub fn now_ms(&self) -> u64 {
        self.base_ms.load(Ordering::Relaxed).saturating_add(self.elapsed_ms())
    }

    /// It was `ms` already: the clock is never behind that again.
    pub fn raise(&self, ms: u64) {
        self.base_ms.fetch_max(ms.saturating_sub(self.elapsed_ms()), Ordering::Relaxed);
    }

    /// Goes on from the time that was kept, or 0, and from the host's clock as far as that is believed.
    pub fn go_on_from(&self, kept_ms: u64) {
        self.raise(first_time(kept_ms, self.rt.wall_ms()));
    }

    /// The host's clock.
    pub fn host_ms(&self) -> u64 {
        self.rt.wall_ms()
    }
}

/// The site time that a start begins with.
pub(crate) fn first_time(kept_ms: u64, host_ms: u64) -> u64 {
    let believed_ms = BELIEVED.as_millis() as u64;
    // Nothing was kept: it is the first start.
    let is_believed = kept_ms == 0 || host_ms <= kept_ms.saturating_add(believed_ms);
    if is_believed { kept_ms.max(host_ms) } else { kept_ms }
}
