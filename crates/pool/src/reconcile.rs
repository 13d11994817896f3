//! After recovery: fragments of containers that were never committed go.

use std::collections::BTreeMap;

use proto::{Request, Response};
use units::{ContainerId, MediumId};

use crate::stripe::Pool;

/// Entries asked for at a time.
const LIST_LIMIT: u32 = 1024;

/// What reconciling found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReconcileReport {
    /// Fragments that belong to committed containers.
    pub kept: u64,
    /// Containers whose fragments were freed.
    pub freed: u64,
}

impl Pool {
    /// Frees every fragment on `medium` whose container `committed` does not know, and calls `keep` for the others.
    pub async fn reconcile(
        &self,
        medium: MediumId,
        committed: &(dyn Fn(ContainerId) -> bool + Sync),
        keep: &(dyn Fn(ContainerId) + Sync),
    ) -> ReconcileReport {
        let mut report = ReconcileReport::default();
        let mut after = None;
        loop {
            let request = Request::FragmentList { after, limit: LIST_LIMIT };
            let Ok(Response::Fragments(list)) = self.ask(medium, request).await else { return report };
            let Some((last, _)) = list.last() else { return report };
            after = Some(*last);
            let mut doomed: BTreeMap<ContainerId, ()> = BTreeMap::new();
            for (container, _) in &list {
                if committed(*container) {
                    report.kept += 1;
                    keep(*container);
                } else {
                    doomed.insert(*container, ());
                }
            }
            if !doomed.is_empty() {
                report.freed += doomed.len() as u64;
                // What is not freed now is found again at the next start.
                let _ = self.ask(medium, Request::FragmentFree(doomed.into_keys().collect())).await;
            }
        }
    }
}
