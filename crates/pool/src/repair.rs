//! Repair in the background: containers that reads found damaged are mended, one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use units::ContainerId;

use crate::read::{FragmentSet, Stripe};
use crate::stripe::{Pool, lock};

/// Containers that may wait for repair; more are found again by the next read or scrub.
const REPAIRS_MAX: usize = 1024;
/// A container whose repair failed is left alone for so long: its medium may be full, or too few fragments sound, and
/// every read of it would have the whole stripe read again.
const REPAIR_PAUSE: Duration = Duration::from_secs(60);

/// What waits for repair.
#[derive(Default)]
pub(crate) struct Repairs {
    queue: VecDeque<Stripe>,
    /// Those that wait or are being mended, with the fragments known to be wrong under a sound CRC.
    queued: BTreeMap<ContainerId, FragmentSet>,
    /// Repairs that failed, and until when they are not tried again.
    failed: BTreeMap<ContainerId, Duration>,
    /// Deleted, the oldest first: a read that began before may still find them damaged.
    deleted: VecDeque<ContainerId>,
    running: bool,
}

impl Repairs {
    /// Enters a container; says whether the task that mends must be started.
    fn enter(&mut self, stripe: Stripe, wrong: FragmentSet, now: Duration) -> bool {
        if let Some(queued) = self.queued.get_mut(&stripe.container) {
            *queued |= wrong;
            return false;
        }
        let waits = self.failed.get(&stripe.container).is_some_and(|until| *until > now);
        // What a checked read proved wrong is news.
        if (waits && wrong == 0)
            || self.queue.len() >= REPAIRS_MAX
            || self.deleted.contains(&stripe.container)
        {
            return false;
        }
        self.failed.remove(&stripe.container);
        self.queued.insert(stripe.container, wrong);
        self.queue.push_back(stripe);
        !std::mem::replace(&mut self.running, true)
    }

    /// A container was deleted.
    pub(crate) fn forget(&mut self, container: ContainerId) {
        self.queue.retain(|stripe| stripe.container != container);
        self.queued.remove(&container);
        self.failed.remove(&container);
        if self.deleted.len() == REPAIRS_MAX {
            self.deleted.pop_front();
        }
        self.deleted.push_back(container);
    }

    fn next(&mut self) -> Option<(Stripe, FragmentSet)> {
        let Some(stripe) = self.queue.pop_front() else {
            self.running = false;
            return None;
        };
        let wrong = self.queued.get(&stripe.container).copied().unwrap_or(0);
        Some((stripe, wrong))
    }

    /// The mending of `stripe`, which did not trust the fragments in `wrong`, came to its end.
    fn done(&mut self, stripe: Stripe, wrong: FragmentSet, failed_at: Option<Duration>) {
        let container = stripe.container;
        if self.queued.get(&container).is_some_and(|queued| queued & !wrong != 0) {
            // More was proved wrong meanwhile.
            self.queue.push_back(stripe);
            return;
        }
        self.queued.remove(&container);
        if let Some(now) = failed_at {
            self.failed.retain(|_, until| *until > now);
            if self.failed.len() < REPAIRS_MAX {
                self.failed.insert(container, now + REPAIR_PAUSE);
            }
        }
    }

    /// Things changed: what failed is tried again when next met.
    pub(crate) fn forget_failures(&mut self) {
        self.failed.clear();
    }
}

impl Pool {
    /// Queues a container for repair. The fragments in `wrong` are not to be trusted, whatever their CRCs say.
    pub(crate) fn repair_later(&self, stripe: Stripe, wrong: FragmentSet) {
        let now = self.shared.rt.now();
        if !lock(&self.shared.repairs).enter(stripe, wrong, now) {
            return;
        }
        let pool = self.clone();
        self.spawn_repairs(pool);
    }

    /// Starts the task that mends when it does not run.
    pub(crate) fn start_repairs(&self) {
        if !std::mem::replace(&mut lock(&self.shared.repairs).running, true) {
            self.spawn_repairs(self.clone());
        }
    }

    fn spawn_repairs(&self, pool: Self) {
        let task = async move { while pool.repair_next().await {} };
        self.shared.rt.spawn("repair", Box::pin(task));
    }

    async fn repair_next(&self) -> bool {
        // Under one lock: whoever enters something must know whether the task ends.
        let next = {
            let mut repairs = lock(&self.shared.repairs);
            repairs.next().or_else(|| {
                let stripe = self.next_hurt()?;
                repairs.running = true;
                Some((stripe, 0))
            })
        };
        let Some((stripe, wrong)) = next else { return false };
        let mended = self.mend_all(&stripe, wrong).await;
        let failed_at = mended.is_err().then(|| self.shared.rt.now());
        if let Err(error) = mended {
            tracing::error!(container = %stripe.container, %error, "repair failed");
        }
        lock(&self.shared.repairs).done(stripe, wrong, failed_at);
        true
    }

    /// Whether nothing waits for repair.
    pub fn is_repaired(&self) -> bool {
        !lock(&self.shared.repairs).running
    }
}

#[cfg(test)]
mod tests;
