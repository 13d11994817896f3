//! The simulated timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::state::{Shared, TimerKey};

/// Completes at a virtual time; never when its process is dead.
pub(super) struct SimSleep {
    shared: Weak<Shared>,
    process: u32,
    at: Duration,
    key: Option<TimerKey>,
}

impl SimSleep {
    pub(super) fn new(shared: &Arc<Shared>, process: u32, duration: Duration) -> Self {
        let at = shared.lock().now.saturating_add(duration);
        Self { shared: Arc::downgrade(shared), process, at, key: None }
    }
}

impl Future for SimSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(shared) = this.shared.upgrade() else { return Poll::Pending };
        let replaced = {
            let mut state = shared.lock();
            if !state.alive(this.process) {
                return Poll::Pending;
            }
            if state.now >= this.at {
                None
            } else {
                let (key, old) = state.set_timer(this.key, this.at, this.process, cx.waker().clone());
                this.key = Some(key);
                Some(old)
            }
        };
        // The replaced waker is dropped only now, outside the lock.
        if replaced.is_none() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for SimSleep {
    fn drop(&mut self) {
        if let (Some(key), Some(shared)) = (self.key, self.shared.upgrade()) {
            let waker = shared.lock().clear_timer(key);
            drop(waker);
        }
    }
}
