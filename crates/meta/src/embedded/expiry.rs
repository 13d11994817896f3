//! The background task that ends leases. It ends itself when the store is dropped or refuses writes.

use std::sync::{Arc, Weak};

use seam::Rt;
use tokio::sync::Notify;

use super::Core;

pub(super) async fn run(core: Weak<Core>, wake: Arc<Notify>, rt: Rt) {
    loop {
        let Some(core) = core.upgrade() else { return };
        let due = core.leases().due(rt.now());
        if let Some(lease) = due {
            // Without writes no key can go; after a rebuild the lease starts anew.
            if core.drain(lease).await.is_err() {
                return;
            }
            continue;
        }
        let next = core.leases().next_deadline();
        // The store must not be kept alive by waiting for it.
        drop(core);
        match next {
            None => wake.notified().await,
            Some(deadline) => {
                // Woken or late, the leases are looked at again.
                let wait = deadline.saturating_sub(rt.now());
                let _ = seam::timeout(&*rt, wait, wake.notified()).await;
            }
        }
    }
}
