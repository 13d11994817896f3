//! Reconciling media with the ledger: what has no commit record is freed, what has one gets into the index.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use units::{ContainerId, MediumId};

use crate::clean::size_of;
use crate::dedup::read_head;
use crate::engine::{Engine, Shared};

impl Engine {
    /// Frees fragments without a commit record on `media` and enters the committed containers into the index.
    pub(crate) async fn reconcile(&self, media: &[MediumId]) {
        let shared = &self.shared;
        let _looking = Looking::begin(shared);
        let found: Mutex<Vec<ContainerId>> = Mutex::default();
        let (listed, mut whole) = (self.begin_listing(), Vec::new());
        for medium in media {
            let committed = |id: ContainerId| {
                let state = shared.lock();
                let here = id.incarnation == shared.incarnation && state.undecided.contains(&id.number);
                here || state.is_committed(id)
            };
            let keep = |id: ContainerId| {
                listed.count(*medium, id);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if found.last() != Some(&id) && !shared.dedup.knows(id) {
                    found.push(id);
                }
            };
            let report = shared.pool.reconcile(*medium, &committed, &keep).await;
            whole.extend(report.complete.then_some(*medium));
            // Locked, it may be: the cleaner comes back to it once it is not.
            shared.lock().locked_garbage.extend(report.refused);
            if report.freed > 0 {
                tracing::info!(%medium, freed = report.freed, "freed fragments that were never committed");
            }
        }
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_unstable();
        found.dedup();
        for container in found {
            if shared.lock().closed {
                return;
            }
            if shared.dedup.knows(container) || !shared.lock().is_committed(container) {
                continue;
            }
            let head = match shared.pool.fragment_pages_of(container).await {
                Some(pages) => read_head(&shared.pool, container, pages).await.map(|head| (head, pages)),
                None => None,
            };
            let Some((head, pages)) = head else {
                shared.lock().learn_unread(container);
                continue;
            };
            shared.lock().learn_size(container, size_of(&head));
            shared.dedup.learn(&head, pages, false);
        }
        self.end_listing(&listed, &whole);
        shared.pool.refresh_space().await;
    }
}

/// Media are being looked through, as long as it lives.
pub(crate) struct Looking(Arc<Shared>);

impl Looking {
    pub(crate) fn begin(shared: &Arc<Shared>) -> Self {
        shared.reconciling.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.reconciling.fetch_sub(1, Ordering::Relaxed);
    }
}
