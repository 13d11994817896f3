//! Site time: what holds and the trash expire by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Rt;

/// Milliseconds since the Unix epoch that never go back.
///
/// It begins at the wall clock, or at the highest time that is known where that is later, and goes on with the monotonic
/// clock: while a process runs, whoever sets the wall clock moves nothing. What passes while the machine sleeps counts from
/// the next start on. A wall clock that is set forward is believed at the next start, since nobody knows how long nothing ran.
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
    /// A clock that begins at the wall clock.
    pub fn new(rt: Rt) -> Self {
        let (begun, base_ms) = (rt.now(), AtomicU64::new(rt.wall_ms()));
        Self { rt, begun, base_ms }
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
}
