//! After recovery: fragments of containers that were never committed go.

use std::collections::BTreeSet;

use proto::{Request, Response, SegmentId};
use units::{ContainerId, MediumId};

use crate::stripe::Pool;

/// Entries asked for at a time.
const LIST_LIMIT: u32 = 1024;

/// What reconciling found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReconcileReport {
    /// Fragments that belong to committed containers.
    pub kept: u64,
    /// Containers whose fragments were freed, and fragments whose row has moved away.
    pub freed: u64,
    /// Containers whose fragments should have been freed and may not have been: found again next time.
    pub left: u64,
    /// Containers that the medium did not free, as when it has them locked.
    pub refused: Vec<ContainerId>,
    /// The medium gave its whole list. When not, nothing is known of the rest.
    pub complete: bool,
}

impl Pool {
    /// Frees journal segments that recovery has no more use for. A medium that does not hear it tells of them at the next
    /// start again.
    pub async fn free_segments(&self, segments: impl IntoIterator<Item = (MediumId, SegmentId)>) {
        let calls = segments.into_iter().map(|(medium, id)| self.ask(medium, Request::SegmentFree(vec![id])));
        seam::join_all(calls).await;
    }

    /// Whether a row has, or moves, fragment `index` of its containers to `medium`. Of rows that are not known nothing
    /// is said.
    fn belongs(&self, medium: MediumId, container: ContainerId, index: u8) -> bool {
        let row = self.row(container.class, container.row);
        row.is_none_or(|row| row.places(usize::from(index)).any(|place| place == medium))
    }

    /// Frees every fragment on `medium` whose container `committed` does not know, or whose row has moved away, and
    /// calls `keep` for the others.
    /// Run at the start, and for a medium that was down after [`Pool::restore`].
    ///
    /// While containers are written, `committed` must say yes to them too, from before their numbers are minted until
    /// their commit records are durable: what it denies is freed, on its way or not. A caller that says yes to its
    /// whole present incarnation but for the numbers it abandoned is safe.
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
            let Some((last, _)) = list.last() else {
                report.complete = true;
                return report;
            };
            if after.is_some_and(|after| *last <= after) {
                tracing::error!(%medium, "the medium lists fragments out of order: reconciling it ends here");
                return report;
            }
            after = Some(*last);
            let mut doomed = BTreeSet::new();
            let mut moved = Vec::new();
            for (container, index) in &list {
                if !committed(*container) {
                    doomed.insert(*container);
                } else if self.belongs(medium, *container, *index) {
                    report.kept += 1;
                    keep(*container);
                } else {
                    moved.push((*container, *index));
                }
            }
            if !moved.is_empty() {
                // Rows may have changed since: what one moves to this medium now is not freed.
                let _turn = self.turn().await;
                moved.retain(|(container, index)| !self.belongs(medium, *container, *index));
                let count = moved.len() as u64;
                match self.ask(medium, Request::FragmentFreeAt(moved)).await {
                    Ok(Response::Done) => report.freed += count,
                    _ => report.left += count,
                }
            }
            if doomed.is_empty() {
                continue;
            }
            let doomed: Vec<ContainerId> = doomed.into_iter().collect();
            let count = doomed.len() as u64;
            match self.ask(medium, Request::FragmentFree(doomed.clone())).await {
                Ok(Response::Done) => report.freed += count,
                _ => {
                    report.left += count;
                    report.refused.extend(doomed);
                }
            }
        }
    }
}
