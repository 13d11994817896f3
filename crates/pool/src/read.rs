//! Reads: straight from a data fragment; when that fails, from any set of fragments that gives what was written.

use std::sync::atomic::Ordering;

use proto::{CallError, CallErrorKind, ReadBytes, Request, Response};
use units::{Address, ContainerId, MediumId, PAGE};

use crate::geometry::Class;
use crate::stripe::Pool;

/// Why the pool could not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolErrorKind {
    /// Fewer than k sound fragments are within reach: the bytes are lost unless media come back.
    Lost,
    /// No room.
    NoSpace,
    /// Too few media are up.
    TooFewMedia,
}

/// The pool could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct PoolError {
    /// What to do about it.
    pub kind: PoolErrorKind,
    /// What happened to which container and media.
    pub reason: String,
}

impl PoolError {
    pub(crate) fn new(kind: PoolErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// A container and the media of its fragments.
#[derive(Debug, Clone)]
pub struct Stripe {
    /// The container.
    pub container: ContainerId,
    /// Its class.
    pub class: Class,
    /// Media by fragment index.
    pub members: Vec<MediumId>,
    /// While the row moves: the media its fragments move to, by fragment index.
    pub target: Vec<MediumId>,
    /// Payload of each fragment, in pages.
    pub fragment_pages: u16,
}

impl Stripe {
    pub(crate) fn fragment_bytes(&self) -> usize {
        usize::from(self.fragment_pages) * PAGE
    }

    /// Where a fragment moves to, when it moves.
    pub(crate) fn second(&self, index: usize) -> Option<MediumId> {
        self.target.get(index).copied().filter(|medium| *medium != self.members[index])
    }

    /// All media that may have a fragment.
    pub(crate) fn media(&self) -> Vec<MediumId> {
        let moving = (0..self.members.len()).filter_map(|index| self.second(index));
        self.members.iter().copied().chain(moving).collect()
    }
}

/// A stretch of one data fragment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) index: usize,
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

/// What a read met on its way.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// A fragment was damaged or missing, as opposed to out of reach.
    pub(crate) damage: bool,
    /// Fragments that are wrong under sound CRCs.
    pub(crate) wrong: FragmentSet,
    /// Bytes were decoded.
    pub(crate) decoded: bool,
}

/// Fragments of a stripe, a bit each.
pub(crate) type FragmentSet = u32;

/// Whether an error says that the fragment is damaged or missing, not that its medium is away.
pub(crate) fn is_damage(error: &CallError) -> bool {
    !matches!(error.kind, CallErrorKind::Failed | CallErrorKind::Unreachable)
}

impl Pool {
    /// Reads `length` bytes at `offset` of a container, and tries further until `check` accepts them: first the
    /// bytes as they lie; then with every page verified and what is bad decoded from the others; then what any k
    /// fragments within reach give, since a fragment can be wrong under a sound CRC. `check` may be called once for
    /// each set of k. What was found missing, damaged or wrong is repaired in the background.
    ///
    /// # Errors
    /// [`PoolErrorKind::Lost`] when no set of fragments within reach gives bytes that `check` accepts.
    pub async fn read(
        &self,
        container: ContainerId,
        fragment_pages: u16,
        offset: usize,
        length: usize,
        check: &mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> Result<(), PoolError> {
        let Some(stripe) = self.stripe(container, fragment_pages) else {
            let reason = format!("container {container} is of a row the layout does not know");
            return Err(PoolError::new(PoolErrorKind::Lost, reason));
        };
        let pieces = pieces(&stripe, offset, length)?;
        seam::maybe_yield(&*self.shared.rt).await;
        if let Some(bytes) = self.read_plain(&stripe, &pieces).await
            && check(bytes.as_ref())
        {
            return Ok(());
        }
        let (mut met, looks) = (Met::default(), self.looks());
        let result = self.read_hard(&stripe, &pieces, check, &mut met).await;
        if met.decoded {
            self.shared.stats.decoded.fetch_add(1, Ordering::Relaxed);
        }
        // Only now: what the check told is part of it.
        if met.damage || met.wrong != 0 {
            self.repair_later(stripe, met.wrong);
        }
        if !matches!(result, Ok(true)) {
            self.hurt_since(looks, container, fragment_pages, result.is_ok());
        }
        match result? {
            true => Ok(()),
            false => Err(PoolError::new(
                PoolErrorKind::Lost,
                format!(
                    "container {container}: {length} bytes at {offset} are sound on the media but not what was \
                     written there"
                ),
            )),
        }
    }

    /// The ways of a read that has met trouble; `false` when no bytes pleased `check`.
    async fn read_hard(
        &self,
        stripe: &Stripe,
        pieces: &[Piece],
        check: &mut (dyn FnMut(&[u8]) -> bool + Send),
        met: &mut Met,
    ) -> Result<bool, PoolError> {
        let verified = self.read_verified(stripe, pieces, met).await?;
        if check(&verified.bytes) {
            met.wrong = self.expose(stripe, verified.decoded.iter().map(|(gathered, set)| (gathered, *set)));
            return Ok(true);
        }
        Ok(self.read_any(stripe, pieces, check, met).await)
    }

    /// [`Pool::read`] of one sealed unit.
    ///
    /// # Errors
    /// As [`Pool::read`].
    pub async fn read_unit(
        &self,
        address: &Address,
        check: &mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> Result<(), PoolError> {
        let (offset, length) = (address.offset as usize, address.length as usize);
        self.read(address.container, address.fragment_pages, offset, length, check).await
    }

    /// Whether the media that are up give a unit, if nothing is damaged: enough of them to decode it, or those it lies on.
    pub fn is_within_reach(&self, at: &Address) -> bool {
        let Some(stripe) = self.stripe(at.container, at.fragment_pages) else { return false };
        let health = self.lock_health();
        let there = stripe.members.iter().filter(|medium| health.is_up(**medium)).count();
        let is_up = |piece: &Piece| health.is_up(stripe.members[piece.index]);
        there >= stripe.class.k
            || pieces(&stripe, at.offset as usize, at.length as usize)
                .is_ok_and(|pieces| pieces.iter().all(is_up))
    }

    async fn read_plain(&self, stripe: &Stripe, pieces: &[Piece]) -> Option<Plain> {
        if let [piece] = pieces {
            return self.read_piece(stripe, piece, false).await.ok().map(Plain::One);
        }
        let reads = pieces.iter().map(|piece| self.read_piece(stripe, piece, false));
        let mut bytes = Vec::new();
        for piece in seam::join_all(reads).await {
            bytes.extend_from_slice(piece.ok()?.as_ref());
        }
        Some(Plain::Many(bytes))
    }

    /// Reads a piece where its fragment is, or where it moves to.
    pub(crate) async fn read_piece(
        &self,
        stripe: &Stripe,
        piece: &Piece,
        verify: bool,
    ) -> Result<ReadBytes, CallError> {
        let first = self.read_at(stripe.members[piece.index], stripe, piece, verify).await;
        let (Err(error), Some(second)) = (&first, stripe.second(piece.index)) else { return first };
        match self.read_at(second, stripe, piece, verify).await {
            Ok(bytes) => Ok(bytes),
            // What is damaged there is known; what is not there yet is no damage.
            Err(other) if !is_damage(error) && is_damage(&other) && other.kind != CallErrorKind::NotFound => {
                Err(other)
            }
            Err(_) => first,
        }
    }

    pub(crate) async fn read_at(
        &self,
        medium: MediumId,
        stripe: &Stripe,
        piece: &Piece,
        verify: bool,
    ) -> Result<ReadBytes, CallError> {
        let request = Request::FragmentRead {
            container: stripe.container,
            index: piece.index as u8,
            offset: piece.offset as u32,
            length: piece.length as u32,
            verify,
        };
        let expected = medium == stripe.members[piece.index];
        match self.ask_for(medium, request, expected).await? {
            Response::Bytes(bytes) if bytes.as_ref().len() == piece.length => Ok(bytes),
            _ => Err(CallError {
                kind: CallErrorKind::Corrupt,
                medium,
                reason: format!("fragment {} of {} is short", piece.index, stripe.container),
            }),
        }
    }
}

enum Plain {
    One(ReadBytes),
    Many(Vec<u8>),
}

impl AsRef<[u8]> for Plain {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes.as_ref(),
            Self::Many(bytes) => bytes,
        }
    }
}

/// Cuts a stretch of the container at fragment borders.
fn pieces(stripe: &Stripe, offset: usize, length: usize) -> Result<Vec<Piece>, PoolError> {
    let fragment = stripe.fragment_bytes();
    let end = offset.saturating_add(length);
    if length == 0 || fragment == 0 || end > fragment * stripe.class.k {
        let reason = format!("container {}: {length} bytes at {offset} are outside of it", stripe.container);
        return Err(PoolError::new(PoolErrorKind::Lost, reason));
    }
    let mut pieces = Vec::new();
    let mut at = offset;
    while at < end {
        let index = at / fragment;
        let stop = end.min((index + 1) * fragment);
        pieces.push(Piece { index, offset: at - index * fragment, length: stop - at });
        at = stop;
    }
    Ok(pieces)
}
