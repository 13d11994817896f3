//! Full-stripe writes.

use std::sync::atomic::Ordering;

use container::{Builder, Built, FragmentHeader};
use journal::Row;
use proto::{CallErrorKind, Request};
use seal::Sealer;
use units::{ContainerId, Incarnation, MediumId, PAGE, PageBuf, PageSlice};

use crate::geometry::Class;
use crate::read::{PoolError, PoolErrorKind};
use crate::stripe::{Pool, lock};

/// Ids tried for one container before the write is given up.
const WRITE_ATTEMPTS: usize = 16;

/// A row that must be journalled before a commit may name it.
pub type NewRow = Option<Row>;

/// A container that is durable on all its media, and waits for its commit record.
#[derive(Debug)]
pub struct Written {
    /// The container.
    pub built: Built,
    /// Its class.
    pub class: Class,
    /// A row it is the first to use.
    pub new_row: NewRow,
}

impl Pool {
    /// Writes the container in `builder` in full stripes to media that are all up. `mint` gives the next container
    /// number; a number whose write failed half-way goes to `abandon` and is never used again.
    ///
    /// # Errors
    /// [`PoolErrorKind::NoSpace`] when a medium has no room, [`PoolErrorKind::TooFewMedia`] when too few are up.
    pub async fn write(
        &self,
        builder: &Builder,
        sealer: &Sealer,
        incarnation: Incarnation,
        mint: &(dyn Fn() -> u32 + Sync),
        abandon: &(dyn Fn(u32) + Sync),
    ) -> Result<Written, PoolError> {
        let mut last = PoolError::new(PoolErrorKind::TooFewMedia, "too few media are up to write a stripe");
        for _ in 0..WRITE_ATTEMPTS {
            let Some(class) = self.current_class() else { return Err(last) };
            let number = mint();
            let (row, new) = self.choose_row(class, number);
            let id = ContainerId { incarnation, number, class: class.number, row: row.row };
            let built = builder.build(id, class.k, sealer);
            match self.write_stripe(&built, class, &row.members).await {
                Ok(()) => return Ok(Written { built, class, new_row: new.then_some(row) }),
                Err(error) => {
                    abandon(number);
                    self.shared.stats.abandoned.fetch_add(1, Ordering::Relaxed);
                    self.free_later(id, row.members);
                    if error.kind == PoolErrorKind::NoSpace {
                        return Err(error);
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Rows turn over the media that are up, so that parity and load spread.
    fn choose_row(&self, class: Class, number: u32) -> (Row, bool) {
        let up = self.lock_health().up();
        let turn = number as usize % up.len().max(1);
        let members: Vec<MediumId> = (0..class.width()).map(|i| up[(turn + i) % up.len()]).collect();
        lock(&self.shared.layout).row_of(class, &members)
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
            let request = Request::FragmentWrite { header: Box::new(header), payload, replace: false };
            self.ask(members[index], request)
        });
        let mut failure = None;
        for error in seam::join_all(writes).await.into_iter().filter_map(Result::err) {
            let kind = match error.kind {
                CallErrorKind::NoSpace => PoolErrorKind::NoSpace,
                _ => PoolErrorKind::TooFewMedia,
            };
            // A failed medium is left out of the next attempt; only full ones end the write.
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

    /// Frees the fragments of a container that was given up. Those it cannot reach go at the next start.
    fn free_later(&self, id: ContainerId, members: Vec<MediumId>) {
        let pool = self.clone();
        let task = async move {
            let calls = members.iter().map(|medium| pool.ask(*medium, Request::FragmentFree(vec![id])));
            seam::join_all(calls).await;
        };
        self.shared.rt.spawn("free abandoned container", Box::pin(task));
    }
}
