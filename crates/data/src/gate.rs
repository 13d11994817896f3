//! Who may change a medium: incarnations from the one on that it was sealed for (section 7.2 of docs/design.md, [I3]).
//!
//! ```text
//!  "HFFN" | version u16 | zero u16 | epoch u64 | CRC-32C u32 | zeros to a page
//! ```
//! Two copies, each in the page behind a superblock; pages of zeros stand for epoch 0. They are written one after
//! the other with a sync between, so a crash leaves at least one whole. The higher epoch wins.
//!
//! A seal waits until all that earlier incarnations have under way has ended, and until their leases have run out: whoever
//! sealed a member of each segment that they could append to knows all that they acknowledged, and that they answer no
//! more reads.
//!
//! An incarnation that ends in good order gives its leases back: a seal waits for them no longer.
//!
//! Where leases are not used, one process has the medium and asks it: a seal that finds no room holds in memory then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use media::{MediaError, MediaErrorKind, Medium};
use proto::{CallError, CallErrorKind, Request, Response};
use seam::Runtime;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use units::{Epoch, PAGE, PageBuf, crc32c};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(crate) use crate::layout::SEALS as PLACES;
use crate::node::MediumNode;

const MAGIC: [u8; 4] = *b"HFFN";
const VERSION: u16 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    version: U16,
    zero: U16,
    epoch: U64,
    crc: U32,
}

/// The page that says for whom a medium is sealed.
pub(crate) fn encode(epoch: Epoch) -> PageBuf {
    let zero = U16::new(0);
    let mut raw =
        Raw { magic: MAGIC, version: U16::new(VERSION), zero, epoch: U64::new(epoch.0), crc: U32::new(0) };
    raw.crc = U32::new(crc32c(raw.as_bytes()));
    PageBuf::copy_of(raw.as_bytes())
}

/// `None` when it is damaged.
pub(crate) fn decode(page: &[u8]) -> Option<Epoch> {
    if seal::is_zero(page) {
        return Some(Epoch(0));
    }
    let (raw, _) = Raw::read_from_prefix(page).ok()?;
    let epoch = Epoch(raw.epoch.get());
    (encode(epoch).as_ref() == page).then_some(epoch)
}

async fn copies(medium: &dyn Medium) -> Result<[Option<Epoch>; 2], MediaError> {
    let mut copies = [None; 2];
    for (copy, place) in copies.iter_mut().zip(PLACES) {
        match medium.read(place, PAGE).await {
            Ok(page) => *copy = decode(page.as_ref()),
            Err(error) if error.kind == MediaErrorKind::Io => {}
            Err(error) => return Err(error),
        }
    }
    Ok(copies)
}

/// Writes both copies, one after the other; a damaged one first, so that a sound one stands until then.
async fn write(medium: &dyn Medium, epoch: Epoch) -> Result<(), MediaError> {
    let page = encode(epoch).share();
    let mut order = PLACES;
    if matches!(copies(medium).await?, [Some(_), None]) {
        order.reverse();
    }
    for place in order {
        medium.write_durable(place, page.clone()).await?;
    }
    Ok(())
}

/// Reads for whom a medium was sealed last, and writes a copy anew that says something else. `None` when neither copy can
/// be read.
pub(crate) async fn read(medium: &dyn Medium) -> Result<Option<Epoch>, MediaError> {
    let copies = copies(medium).await?;
    let Some(newest) = copies.into_iter().flatten().max() else { return Ok(None) };
    for (copy, place) in copies.into_iter().zip(PLACES) {
        if copy != Some(newest) {
            tracing::warn!(
                medium = medium.name(),
                "a copy of what seals a medium is damaged or old: rewriting it"
            );
            // The medium may be failing; it has one good copy, and the next seal will tell.
            let _ = medium.write_durable(place, encode(newest).share()).await;
        }
    }
    Ok(Some(newest))
}

/// Keeps who may change a medium.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The highest epoch that a seal was asked for: what is before it is refused while the seal still waits.
    asked: AtomicU64,
    /// For whom it is sealed, durably. Held shared by each change while it is under way.
    sealed: RwLock<Epoch>,
    lease: Mutex<Lease>,
    /// Told when leases were given back.
    released: Notify,
}

#[derive(Debug, Default)]
struct Lease {
    /// How long one holds; leases are not used when zero.
    term: Duration,
    /// When the last one has run out, by the runtime's clock.
    until: Duration,
    /// To whom the last ones were granted.
    holder: Epoch,
    /// When the last one of anybody else has run out.
    others_until: Duration,
}

impl Lease {
    fn grant(&mut self, by: Epoch, now: Duration) {
        if by != self.holder {
            (self.holder, self.others_until) = (by, self.until);
        }
        self.until = self.until.max(now + self.term);
    }

    fn release(&mut self, by: Epoch) {
        if by == self.holder {
            self.until = self.others_until;
        }
    }
}

impl Gate {
    pub(crate) fn new(sealed: Epoch) -> Self {
        Self {
            asked: AtomicU64::new(sealed.0),
            sealed: RwLock::new(sealed),
            lease: Mutex::default(),
            released: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lease> {
        // Plain data, valid after every statement.
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whom it is sealed, or is being sealed.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.asked.load(Ordering::Acquire))
    }

    async fn admit(&self, by: Epoch) -> Option<RwLockReadGuard<'_, Epoch>> {
        if by < self.epoch() {
            return None;
        }
        let admitted = self.sealed.read().await;
        (by >= self.epoch()).then_some(admitted)
    }
}

impl MediumNode {
    /// Has leases hold for `term` from here on. One may have been granted until `now` that is not remembered.
    pub fn use_leases(&self, term: Duration, now: Duration) {
        let until = now + term;
        *self.gate.lock() = Lease { term, until, holder: Epoch(0), others_until: until };
    }

    /// The medium was formatted just now: nobody can have a lease of before.
    pub fn begin_leases(&self, now: Duration) {
        let mut lease = self.gate.lock();
        (lease.until, lease.others_until) = (now, now);
    }

    /// Serves one request of the incarnation `by`. Its waits are bounded by those of the medium, and that for a lease.
    ///
    /// # Errors
    /// `Fenced` when it is a change and the medium is sealed for a later incarnation; see [`CallErrorKind`].
    pub async fn serve(&self, rt: &dyn Runtime, by: Epoch, request: Request) -> Result<Response, CallError> {
        if matches!(request, Request::Seal) {
            return self.seal(rt, by).await;
        }
        if matches!(request, Request::Release) {
            self.gate.lock().release(by);
            self.gate.released.notify_waiters();
            return Ok(Response::Done);
        }
        if !request.is_change() {
            return self.handle(request).await;
        }
        let grants =
            matches!(request, Request::SegmentOpen { .. } | Request::SegmentAppend { .. } | Request::Lease);
        let Some(admitted) = self.gate.admit(by).await else { return Err(self.fenced()) };
        let answer = self.handle(request).await;
        if grants && answer.is_ok() {
            self.gate.lock().grant(by, rt.now());
        }
        drop(admitted);
        answer
    }

    /// Does `work` as a change that the incarnation `by` asks for.
    ///
    /// # Errors
    /// `Fenced` when the medium is sealed for a later one; what the work says.
    pub async fn change<T>(
        &self,
        by: Epoch,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let Some(_admitted) = self.gate.admit(by).await else { return Err(self.fenced()) };
        work.await
    }

    /// For whom it is sealed: it takes no change from an incarnation before.
    pub fn epoch(&self) -> Epoch {
        self.gate.epoch()
    }

    fn fenced(&self) -> CallError {
        let reason = format!("incarnation {} has taken over", self.gate.epoch().0);
        self.error(CallErrorKind::Fenced, reason)
    }

    async fn seal(&self, rt: &dyn Runtime, by: Epoch) -> Result<Response, CallError> {
        // Those before it hear at once that they are out, and get no lease any more.
        self.gate.asked.fetch_max(by.0, Ordering::AcqRel);
        // Asked again: what goes on meanwhile need not wait for it.
        if *self.gate.sealed.read().await == by && self.gate.epoch() == by {
            return Ok(Response::Done);
        }
        // What they have under way ends first.
        let mut sealed = self.gate.sealed.write().await;
        if *sealed > by {
            return Err(self.fenced());
        }
        if *sealed == by {
            return Ok(Response::Done);
        }
        loop {
            let released = self.gate.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let (until, now) = (self.gate.lock().until, rt.now());
            if until <= now {
                break;
            }
            let _ = seam::timeout(rt, until - now, released).await;
        }
        match write(&*self.medium, by).await {
            Ok(()) => {}
            // Without leases all who ask are of this process: none before it is left, and what stands in memory will do.
            Err(error) if error.kind == MediaErrorKind::NoSpace && self.gate.lock().term.is_zero() => {
                tracing::warn!(%error, "a seal is kept in memory only");
            }
            Err(error) => return Err(self.media_error(&error)),
        }
        *sealed = by;
        Ok(Response::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_of_a_copy_is_noticed() {
        for epoch in [1, 77, u64::MAX] {
            let page = encode(Epoch(epoch));
            assert_eq!(decode(page.as_ref()), Some(Epoch(epoch)));
            for bit in 0..PAGE * 8 {
                let mut flipped = page.as_ref().to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&flipped), None, "bit {bit}");
            }
        }
        assert_eq!(decode(&[0; PAGE]), Some(Epoch(0)));
        assert_eq!(decode(&[1; PAGE]), None);
    }
}
