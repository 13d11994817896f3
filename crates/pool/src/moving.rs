//! Moving fragments to other media: what a rebuild and a drain are made of.
//!
//! ```text
//!  row R, version 4   A B C D E F
//!  version 5          A B C D E F  ─► A B Y D E F     journalled before the first fragment is written to Y
//!                     each committed container: fragment 2 to Y, from C while C reads, else decoded
//!  version 6          A B Y D E F                     journalled behind the last; then C's fragments are freed
//! ```
//! While a row moves, reads look at both places, deletions go to both, and nothing new is written to it. The caller
//! journals the versions, one change at a time, each under [`Pool::turn`]; the pool follows when they are durable.

use std::time::Duration;

use container::FragmentHeader;
use journal::Row;
use proto::{CallErrorKind, Request, Response};
use units::{ContainerId, MediumId, NodeId, PageBuf};

use crate::layout::key_of;
use crate::mend::{Found, PIECE_BYTES, header, lost, payload};
use crate::read::{PoolError, PoolErrorKind, Stripe};
use crate::stripe::{Pool, lock};

/// Fragments freed by one request.
const FREED_AT_ONCE: usize = 256;

/// The right to change rows: nothing is mended, deleted or moved meanwhile.
#[derive(Debug)]
pub struct Turn<'a>(#[expect(dead_code, reason = "held, not read")] tokio::sync::MutexGuard<'a, ()>);

impl Pool {
    /// Waits until nothing is mended, deleted or moved.
    pub async fn turn(&self) -> Turn<'_> {
        Turn(self.shared.mending.lock().await)
    }

    /// A row of the layout.
    pub fn row(&self, class: u8, row: u16) -> Option<Row> {
        lock(&self.shared.layout).row((class, row)).cloned()
    }

    /// Whether a container of the row is being written and not yet committed or given up.
    pub fn is_written_to(&self, row: &Row) -> bool {
        lock(&self.shared.layout).is_used(key_of(row))
    }

    /// Takes no new containers to the row from here on, so that it can be retired; false when one is being written to
    /// it.
    pub fn close_row(&self, row: &Row) -> bool {
        lock(&self.shared.layout).close(key_of(row))
    }

    /// The row is not retired after all.
    pub fn reopen_row(&self, row: &Row) {
        lock(&self.shared.layout).reopen(key_of(row));
    }

    /// Takes a medium into the site, behind `behind` or last. It is up, and on `node` where the site has such.
    pub fn join(&self, medium: MediumId, behind: Option<MediumId>, node: Option<NodeId>) {
        let mut health = self.lock_health();
        health.join(medium, behind, self.shared.rt.now());
        node.into_iter().for_each(|node| health.set_node(medium, node));
        drop(health);
        lock(&self.shared.repairs).forget_failures();
    }

    /// Nothing new goes to `medium` from here on, or again.
    pub fn set_leaving(&self, medium: MediumId, leaving: bool) {
        self.lock_health().set_leaving(medium, leaving, self.shared.rt.now());
    }

    /// `medium` is none of the site's any more.
    pub fn forget(&self, medium: MediumId) {
        self.lock_health().forget(medium, self.shared.rt.now());
    }

    /// Whether fragments are to move away from `medium`: it leaves, is none of the site's, or is down for `patience`.
    pub fn is_to_leave(&self, medium: MediumId, patience: Duration) -> bool {
        self.lock_health().is_to_leave(medium, patience, self.shared.rt.now())
    }

    /// When a medium last came, went, failed or returned.
    pub fn changed_at(&self) -> Duration {
        self.lock_health().changed_at()
    }

    /// How long no medium came, went, failed or returned; `None` while one is down or leaving.
    pub fn quiet_for(&self) -> Option<Duration> {
        let since = self.lock_health().quiet_since()?;
        Some(self.shared.rt.now().saturating_sub(since))
    }

    /// Media that can take fragments that move: those that take what is new, the ones with room first.
    pub fn takers(&self) -> Vec<MediumId> {
        let health = self.lock_health();
        let mut takers = health.with_room();
        takers.extend(health.fit().into_iter().filter(|medium| !health.with_room().contains(medium)));
        takers.retain(|medium| !health.is_to_leave(*medium, Duration::MAX, self.shared.rt.now()));
        takers
    }

    /// Sees that fragment `index` of a committed container is durable where its row moves it. Gives the bytes that were
    /// written: none when it stands there, or when the container is not committed any more.
    ///
    /// # Errors
    /// [`PoolErrorKind::Lost`] when it is gone from where it was and cannot be decoded; else as a write.
    pub async fn fill(
        &self,
        container: ContainerId,
        index: usize,
        is_committed: &(dyn Fn(ContainerId) -> bool + Sync),
    ) -> Result<u64, PoolError> {
        // A deletion waits, and frees what is written here.
        let _turn = self.shared.mending.lock().await;
        if !is_committed(container) {
            return Ok(0);
        }
        let gone = || {
            let reason = format!("container {container}: no fragment with a sound header is within reach");
            PoolError::new(PoolErrorKind::Lost, reason)
        };
        let pages = self.fragment_pages_of(container).await.ok_or_else(gone)?;
        let stripe = self.stripe(container, pages).ok_or_else(gone)?;
        let Some(to) = stripe.second(index) else { return Ok(0) };
        if self.find_at(to, &stripe, index, PIECE_BYTES).await.is_whole() {
            return Ok(0);
        }
        let (header, bytes) = self.fragment_to_move(&stripe, index).await?;
        let bytes_written = bytes.len() as u64;
        let bytes = bytes.share();
        let mut members = stripe.members.clone();
        members[index] = to;
        let header = FragmentHeader {
            index: index as u8,
            allocation: 0,
            members,
            page_crcs: FragmentHeader::crcs_of(&bytes),
            ..header
        };
        self.put_fragment(to, header, bytes, true).await.map_err(|error| {
            let kind = match error.kind {
                CallErrorKind::NoSpace => PoolErrorKind::NoSpace,
                _ => PoolErrorKind::TooFewMedia,
            };
            PoolError::new(kind, format!("container {container}: fragment {index} was not moved: {error}"))
        })?;
        Ok(bytes_written)
    }

    /// The payload of a fragment: as it stands where it was, else decoded; with the header of a sound fragment.
    async fn fragment_to_move(
        &self,
        stripe: &Stripe,
        index: usize,
    ) -> Result<(FragmentHeader, PageBuf), PoolError> {
        let own = self.find_at(stripe.members[index], stripe, index, PIECE_BYTES).await;
        if own.is_whole()
            && let Some(header) = header(&own)
        {
            return Ok((header.clone(), PageBuf::copy_of(payload(&own))));
        }
        let mut found = self.find_all(stripe, 0, PIECE_BYTES).await;
        found[index] = match std::mem::replace(&mut found[index], Found::Wrong("it moves".to_owned())) {
            read @ Found::Read { .. } => read,
            _ => Found::Wrong("it moves".to_owned()),
        };
        let (whole, matching) = self.rebuild(stripe, &found, &[index])?;
        if !matching {
            return Err(lost(stripe, &found, "the sound fragments contradict each other: none is moved"));
        }
        let none = || lost(stripe, &found, "no fragment has a sound header");
        let header = found.iter().find_map(header).ok_or_else(none)?.clone();
        let locked_until =
            found.iter().filter_map(crate::mend::header).map(|header| header.locked_until).max().unwrap_or(0);
        let whole = whole.into_iter().next().ok_or_else(none)?;
        Ok((FragmentHeader { locked_until, ..header }, whole))
    }

    /// Frees single fragments on a medium; what it does not hear, or has locked, is freed when it is reconciled.
    pub async fn free_fragments(&self, medium: MediumId, fragments: &[(ContainerId, u8)]) {
        for some in fragments.chunks(FREED_AT_ONCE) {
            match self.ask(medium, Request::FragmentFreeAt(some.to_vec())).await {
                Ok(_) => {}
                Err(error) if error.kind == CallErrorKind::Locked => {}
                Err(_) => return,
            }
        }
    }

    /// Bytes of `medium` that no fragment holds, and how many it has in all; `None` when it does not answer.
    pub async fn room_of(&self, medium: MediumId) -> Option<(u64, u64)> {
        match self.ask(medium, Request::Info { extent: u64::from(self.shared.container_bytes) }).await {
            Ok(Response::Info(info)) => Some((info.free.min(info.room_below), info.capacity)),
            _ => None,
        }
    }
}
