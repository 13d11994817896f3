//! Full-stripe writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use container::{Builder, Built, FragmentHeader};
use journal::Row;
use proto::{CallErrorKind, Request};
use seal::Sealer;
use units::{ContainerId, Incarnation, MediumId, PAGE, PageBuf, PageSlice};

use crate::geometry::{Class, turn_over};
use crate::layout::{RowKey, key_of};
use crate::read::{PoolError, PoolErrorKind};
use crate::stripe::{Pool, Shared, class_of, lock};

/// Ids tried for one container before the write is given up.
const WRITE_ATTEMPTS: usize = 16;

/// A row that must be journalled before, or in the same batch as, the first commit that names it. Every write to it
/// reports it until [`Pool::row_journalled`]: the write before may have failed, or its commit may come later.
pub type NewRow = Option<Row>;

/// A container that is durable on all its media, and waits for its commit record.
#[derive(Debug)]
pub struct Written {
    /// The container.
    pub built: Built,
    /// Its class.
    pub class: Class,
    /// Its row, when that is not in the journal yet.
    pub new_row: NewRow,
    /// Keeps the row from being moved; to be dropped when the commit record is durable or will never be.
    pub using: RowUse,
}

/// A row that is being written to.
pub struct RowUse {
    shared: Arc<Shared>,
    row: RowKey,
}

impl std::fmt::Debug for RowUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowUse({:?})", self.row)
    }
}

impl Drop for RowUse {
    fn drop(&mut self) {
        lock(&self.shared.layout).leave(self.row);
    }
}

impl Pool {
    /// Writes the container in `builder` in full stripes to media that are all up. `mint` gives the next container
    /// number; a number whose write failed half-way goes to `abandon` and is never used again.
    ///
    /// A medium that fails is left out of the next attempt, which gets a new id and the class of those that are up.
    /// Full media are left out while enough others are up for the class. A future that is dropped before its end
    /// leaves fragments behind until [`Pool::reconcile`].
    ///
    /// # Errors
    /// [`PoolErrorKind::NoSpace`] when too few media have room, [`PoolErrorKind::TooFewMedia`] when too few are up.
    pub async fn write(
        &self,
        builder: &Builder,
        sealer: &Sealer,
        incarnation: Incarnation,
        mint: &(dyn Fn() -> u32 + Sync),
        abandon: &(dyn Fn(u32) + Sync),
    ) -> Result<Written, PoolError> {
        let mut last = too_few();
        for _ in 0..WRITE_ATTEMPTS {
            if self.current_class().is_none() {
                return Err(last);
            }
            let number = mint();
            let (class, row, new, using) = match self.place(incarnation, number) {
                Ok(place) => place,
                Err(error) => {
                    abandon(number);
                    return Err(error);
                }
            };
            let id = ContainerId { incarnation, number, class: class.number, row: row.row };
            let built = builder.build(id, class.k, sealer);
            seam::maybe_yield(&*self.shared.rt).await;
            let Err(error) = self.write_stripe(&built, class, &row.members).await else {
                return Ok(Written { built, class, new_row: new.then_some(row), using });
            };
            abandon(number);
            self.shared.stats.abandoned.fetch_add(1, Ordering::Relaxed);
            self.free(id, &row.members).await;
            if error.kind == PoolErrorKind::NoSpace && !self.has_room() {
                return Err(error);
            }
            last = error;
        }
        Err(last)
    }

    /// Class and row of the next stripe, and whether the row is new.
    fn place(&self, incarnation: Incarnation, number: u32) -> Result<(Class, Row, bool, RowUse), PoolError> {
        let (class, domains) = {
            let health = self.lock_health();
            let class = class_of(&health).ok_or_else(too_few)?;
            let with_room = health.domains(&health.with_room());
            // What is known of room may be out of date: with too few of them all are tried.
            let is_enough = with_room.len() >= class.width();
            (class, if is_enough { with_room } else { health.domains(&health.fit()) })
        };
        // Each incarnation counts from 0: its id spreads the first rows.
        let turn = incarnation.0.wrapping_add(u64::from(number));
        let members = turn_over(&domains, class.width(), turn);
        let chosen = {
            let mut layout = lock(&self.shared.layout);
            let chosen = layout.choose(class, members, &domains, turn);
            chosen.iter().for_each(|(row, _)| layout.enter(key_of(row)));
            chosen
        };
        let (row, new) = chosen.ok_or_else(|| {
            let reason = "the layout has no row for the media that are up and takes no more rows";
            PoolError::new(PoolErrorKind::TooFewMedia, reason)
        })?;
        let using = RowUse { shared: self.shared.clone(), row: key_of(&row) };
        Ok((class, row, new, using))
    }

    /// Whether enough media for a stripe are not known to be full.
    fn has_room(&self) -> bool {
        let health = self.lock_health();
        class_of(&health).is_some_and(|class| health.domains(&health.with_room()).len() >= class.width())
    }

    async fn write_stripe(&self, built: &Built, class: Class, members: &[MediumId]) -> Result<(), PoolError> {
        let writes = self.fragments(built, class).into_iter().enumerate().map(|(index, payload)| {
            let header = FragmentHeader {
                container: built.head.container,
                index: index as u8,
                k: class.k as u8,
                m: class.m as u8,
                container_bytes: built.head.total,
                allocation: 0,
                locked_until: 0,
                members: members.to_vec(),
                page_crcs: FragmentHeader::crcs_of(&payload),
            };
            self.put_fragment(members[index], header, payload, false)
        });
        let mut failure = None;
        for error in seam::join_all(writes).await.into_iter().filter_map(Result::err) {
            let kind = match error.kind {
                CallErrorKind::NoSpace => PoolErrorKind::NoSpace,
                _ => PoolErrorKind::TooFewMedia,
            };
            // A failed medium outweighs a full one: the next attempt leaves it out and may find room elsewhere.
            let worse = failure.as_ref().is_none_or(|f: &PoolError| f.kind == PoolErrorKind::NoSpace);
            if worse {
                failure = Some(PoolError::new(kind, error.to_string()));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The k data fragments, shared with the container, and the m parity fragments.
    fn fragments(&self, built: &Built, class: Class) -> Vec<PageSlice> {
        let length = built.fragment_bytes;
        debug_assert!(length.is_multiple_of(PAGE));
        let mut fragments: Vec<PageSlice> =
            (0..class.k).map(|i| built.bytes.slice(i * length..(i + 1) * length)).collect();
        let mut parity: Vec<PageBuf> = (0..class.m).map(|_| PageBuf::zeroed(length)).collect();
        {
            let data: Vec<&[u8]> = fragments.iter().map(AsRef::as_ref).collect();
            let mut out: Vec<&mut [u8]> = parity.iter_mut().map(AsMut::as_mut).collect();
            self.code(&class).encode(&data, &mut out);
        }
        fragments.extend(parity.into_iter().map(PageBuf::share));
        fragments
    }

    /// Frees the fragments of a container that was deleted, and mends it never again. Media that are away free theirs
    /// when they are reconciled.
    pub async fn delete(&self, container: ContainerId) {
        // What is being mended would be written anew.
        let _turn = self.shared.mending.lock().await;
        lock(&self.shared.repairs).forget(container);
        lock(&self.shared.hurt).forget(container);
        if let Some(stripe) = self.stripe(container, 1) {
            seam::maybe_yield(&*self.shared.rt).await;
            self.free(container, &stripe.media()).await;
        }
    }

    /// Frees the fragments of a container that was given up. Left on the media until [`Pool::reconcile`]: what cannot
    /// be reached, and what a fragment write still under way puts there afterwards.
    async fn free(&self, id: ContainerId, members: &[MediumId]) {
        let calls = members.iter().map(|medium| self.ask(*medium, Request::FragmentFree(vec![id])));
        seam::join_all(calls).await;
    }
}

fn too_few() -> PoolError {
    PoolError::new(PoolErrorKind::TooFewMedia, "too few media are up to write a stripe")
}
