//! Locks: fragments that are not freed before a time, whoever asks (section 6.3 of docs/design.md, decision 0010).
//!
//! A lock is an entry of the allocation table, made durable by one page of its log. It is never lowered: not by a request,
//! not by a copy that supersedes the fragment, which takes it over.

use proto::{CallError, Response};
use units::ContainerId;

use crate::node::{MediumNode, State};
use crate::table::{CHANGES_PER_PAGE, Change, Extent, FragmentKey};

impl MediumNode {
    /// Whether a fragment of a container is locked.
    pub(crate) fn is_locked(&self, state: &State, container: ContainerId, now_ms: u64) -> bool {
        let fragments = state.table.of_container(container);
        fragments.iter().any(|(key, _)| state.table.locked_until(key) > now_ms)
    }

    pub(crate) async fn fragment_lock(
        &self,
        containers: &[ContainerId],
        until_ms: u64,
    ) -> Result<Response, CallError> {
        let fragments: Vec<(FragmentKey, Extent)> = {
            let state = self.lock();
            containers.iter().flat_map(|container| state.table.of_container(*container)).collect()
        };
        for some in fragments.chunks(CHANGES_PER_PAGE) {
            self.log_room().await?;
            let (place, page) = {
                let mut state = self.lock();
                let mut changes = Vec::new();
                for (key, extent) in some {
                    // One that was asked for before may not be durable: it is written again.
                    state.table.lock(*key, until_ms);
                    changes.push(Change::Lock(*key, *extent, state.table.locked_until(key)));
                }
                self.log_page(&mut state, &changes)
            };
            self.medium.write_durable(place, page).await.map_err(|error| self.media_error(&error))?;
        }
        Ok(Response::Done)
    }

    pub(crate) fn lock_list(&self, after: Option<ContainerId>, limit: u32) -> Response {
        Response::Locks(self.lock().table.locked(after, limit as usize, self.now_ms()))
    }
}
