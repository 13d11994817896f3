//! Reads: straight from a data fragment, and decoded from the others when that fails.

use std::sync::atomic::Ordering;

use proto::{CallError, ReadBytes, Request, Response};
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
    /// Payload of each fragment, in pages.
    pub fragment_pages: u16,
}

impl Stripe {
    pub(crate) fn fragment_bytes(&self) -> usize {
        usize::from(self.fragment_pages) * PAGE
    }
}

/// A stretch of one data fragment.
#[derive(Debug, Clone, Copy)]
struct Piece {
    index: usize,
    offset: usize,
    length: usize,
}

impl Pool {
    /// Reads `length` bytes at `offset` of a container, and tries further until `check` accepts them: first the
    /// bytes as they lie, then the bytes with every fragment verified and the bad ones decoded from the others.
    /// What is found wrong is repaired in the background.
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
        if let Some(bytes) = self.read_plain(&stripe, &pieces).await
            && check(bytes.as_ref())
        {
            return Ok(());
        }
        self.shared.stats.decoded.fetch_add(1, Ordering::Relaxed);
        let bytes = self.read_verified(&stripe, &pieces).await?;
        if check(&bytes) {
            return Ok(());
        }
        Err(PoolError::new(
            PoolErrorKind::Lost,
            format!(
                "container {container}: {length} bytes at {offset} are sound on the media but not what was written there"
            ),
        ))
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

    async fn read_verified(&self, stripe: &Stripe, pieces: &[Piece]) -> Result<Vec<u8>, PoolError> {
        let mut bytes = Vec::new();
        let mut wrong = false;
        for piece in pieces {
            match self.read_piece(stripe, piece, true).await {
                Ok(read) => bytes.extend_from_slice(read.as_ref()),
                Err(_) => {
                    wrong = true;
                    bytes.extend_from_slice(&self.decode(stripe, piece).await?);
                }
            }
        }
        if wrong {
            self.repair_later(stripe.clone());
        }
        Ok(bytes)
    }

    async fn read_piece(&self, stripe: &Stripe, piece: &Piece, verify: bool) -> Result<ReadBytes, CallError> {
        let medium = stripe.members[piece.index];
        let request = Request::FragmentRead {
            container: stripe.container,
            index: piece.index as u8,
            offset: piece.offset as u32,
            length: piece.length as u32,
            verify,
        };
        match self.ask(medium, request).await? {
            Response::Bytes(bytes) if bytes.as_ref().len() == piece.length => Ok(bytes),
            _ => Err(CallError {
                kind: proto::CallErrorKind::Corrupt,
                medium,
                reason: format!("fragment {} of {} is short", piece.index, stripe.container),
            }),
        }
    }

    /// The stretch of a fragment, from any k others.
    async fn decode(&self, stripe: &Stripe, piece: &Piece) -> Result<Vec<u8>, PoolError> {
        let others = (0..stripe.class.width()).filter(|index| *index != piece.index);
        let reads = others.map(|index| {
            let other = Piece { index, ..*piece };
            async move { (index, self.read_piece(stripe, &other, true).await) }
        });
        let mut present = Vec::new();
        let mut missing = Vec::new();
        for (index, read) in seam::join_all(reads).await {
            match read {
                Ok(bytes) => present.push((index, bytes)),
                Err(error) => missing.push(error.to_string()),
            }
        }
        let k = stripe.class.k;
        if present.len() < k {
            return Err(PoolError::new(
                PoolErrorKind::Lost,
                format!(
                    "container {}: {} of {} fragments are sound, {k} are needed ({})",
                    stripe.container,
                    present.len(),
                    stripe.class.width(),
                    missing.join("; ")
                ),
            ));
        }
        let mut out = vec![0; piece.length];
        let have: Vec<(usize, &[u8])> =
            present.iter().map(|(index, bytes)| (*index, bytes.as_ref())).collect();
        self.code(&stripe.class)
            .reconstruct(&have, &[piece.index], &mut [&mut out])
            .map_err(|error| PoolError::new(PoolErrorKind::Lost, error.to_string()))?;
        Ok(out)
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
