//! Mending one container: every fragment is read and checked, and what is wrong is written again from the others.
//!
//! Pages are judged one by one: a stripe is whole as long as each page has k sound fragments, wherever the damage
//! lies in them.

use std::ops::Range;
use std::sync::atomic::Ordering;

use container::FragmentHeader;
use proto::{CallError, CallErrorKind, Request, Response};
use units::{MediumId, PAGE, PageBuf, crc32c};

use crate::read::{FragmentSet, Piece, PoolError, PoolErrorKind, Stripe, is_damage};
use crate::stripe::{Pool, lock};

/// Bytes read at a time of a fragment with an unreadable place: what is around it within these is decoded too. An
/// unreadable place can cost a medium seconds, so single pages are asked for only when that leaves too few sound.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// What scrubbing a container found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubReport {
    /// Fragments that were sound.
    pub sound: usize,
    /// Fragments that were missing or damaged and have been written again.
    pub repaired: usize,
    /// Fragments on media out of reach: neither checked nor repaired.
    pub away: usize,
    /// The sound fragments make one code word. When not, one is wrong under a sound CRC; only a read with a check
    /// can tell which, and has it repaired.
    pub matching: bool,
}

/// What was found of a fragment.
pub(crate) enum Found {
    /// Its bytes, and which pages of them are sound.
    Read { header: Box<FragmentHeader>, bytes: Vec<u8>, sound: Vec<bool> },
    /// Damaged or missing as a whole: why.
    Wrong(String),
    /// Out of reach: why.
    Away(String),
}

impl Found {
    fn is_sound(&self, page: usize) -> bool {
        matches!(self, Self::Read { sound, .. } if sound[page])
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Read { sound, .. } if sound.iter().all(|sound| *sound))
    }

    fn needs_repair(&self) -> bool {
        match self {
            Self::Read { sound, .. } => sound.contains(&false),
            Self::Wrong(_) => true,
            Self::Away(_) => false,
        }
    }
}

impl Pool {
    /// Reads every fragment of a committed container within reach, checks it, and writes missing and damaged ones
    /// again. Gives how many were written. One container is mended at a time.
    ///
    /// # Errors
    /// As [`Pool::scrub`].
    pub async fn mend(&self, stripe: &Stripe) -> Result<u64, PoolError> {
        self.mend_all(stripe, 0).await.map(|report| report.repaired as u64)
    }

    /// [`Pool::mend`] that says more: also whether the sound fragments agree with each other.
    ///
    /// # Errors
    /// [`PoolErrorKind::Lost`] when a page has fewer than k sound fragments within reach, or when something is
    /// damaged and the sound fragments contradict each other: nothing is written then. [`PoolErrorKind::NoSpace`] and
    /// [`PoolErrorKind::TooFewMedia`] when a fragment could not be written; all the others were.
    pub async fn scrub(&self, stripe: &Stripe) -> Result<ScrubReport, PoolError> {
        self.mend_all(stripe, 0).await
    }

    /// Mends a container; the fragments in `wrong` are not trusted whatever their CRCs say.
    pub(crate) async fn mend_all(
        &self,
        stripe: &Stripe,
        wrong: FragmentSet,
    ) -> Result<ScrubReport, PoolError> {
        // Two for one container would write the same fragment, and each holds a whole stripe in RAM.
        let _turn = self.shared.mending.lock().await;
        let mended = self.mend_one(stripe, wrong).await;
        match &mended {
            Ok(report) if report.matching => lock(&self.shared.hurt).mended(stripe.container),
            Err(error) if error.kind != PoolErrorKind::Lost => {}
            _ => self.note_hurt(stripe.container, stripe.fragment_pages),
        }
        mended
    }

    async fn mend_one(&self, stripe: &Stripe, wrong: FragmentSet) -> Result<ScrubReport, PoolError> {
        // Its row may have moved since it was looked up.
        let stripe = &self.stripe(stripe.container, stripe.fragment_pages).unwrap_or_else(|| stripe.clone());
        let mut found = self.find_all(stripe, wrong, PIECE_BYTES).await;
        if runs(&found, usize::from(stripe.fragment_pages))
            .iter()
            .any(|(_, sound)| sound.len() < stripe.class.k)
        {
            // Unreadable places may hide sound pages beside them.
            found = self.find_all(stripe, wrong, PAGE).await;
        }
        let bad: Vec<usize> = (0..found.len()).filter(|index| found[*index].needs_repair()).collect();
        let away = found.iter().filter(|found| matches!(found, Found::Away(_))).count();
        let sound = found.len() - bad.len() - away;
        let (whole, matching) = self.rebuild(stripe, &found, &bad)?;
        if !bad.is_empty() && !matching {
            return Err(lost(stripe, &found, "the sound fragments contradict each other: left as they are"));
        }
        let mut failure = None;
        for (index, payload) in bad.iter().zip(whole) {
            if let Err(error) = self.rewrite(stripe, *index, &found, payload).await {
                failure = failure.or(Some(error));
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(ScrubReport { sound, repaired: bad.len(), away, matching }),
        }
    }

    /// The whole payloads of the fragments in `bad`, and whether the sound fragments match each other.
    pub(crate) fn rebuild(
        &self,
        stripe: &Stripe,
        found: &[Found],
        bad: &[usize],
    ) -> Result<(Vec<PageBuf>, bool), PoolError> {
        let mut whole: Vec<PageBuf> = bad.iter().map(|_| PageBuf::zeroed(stripe.fragment_bytes())).collect();
        let mut matching = true;
        for (pages, sound) in runs(found, usize::from(stripe.fragment_pages)) {
            if sound.len() < stripe.class.k {
                let what = format!("pages {pages:?} have {} sound fragments within reach", sound.len());
                return Err(lost(stripe, found, &what));
            }
            let bytes = pages.start * PAGE..pages.end * PAGE;
            let have: Vec<(usize, &[u8])> =
                sound.iter().map(|index| (*index, &payload(&found[*index])[bytes.clone()])).collect();
            let (base, spare) = have.split_at(stripe.class.k);
            // What the spare ones should be, and what the bad ones were.
            let wanted: Vec<usize> =
                spare.iter().map(|(index, _)| *index).chain(bad.iter().copied()).collect();
            let mut should: Vec<Vec<u8>> = spare.iter().map(|(_, is)| vec![0; is.len()]).collect();
            let bad_outs = whole.iter_mut().map(|buf| &mut buf.as_mut()[bytes.clone()]);
            let mut out: Vec<&mut [u8]> = should.iter_mut().map(Vec::as_mut_slice).chain(bad_outs).collect();
            self.code(&stripe.class)
                .reconstruct(base, &wanted, &mut out)
                .map_err(|error| lost(stripe, found, &error.to_string()))?;
            matching &= spare.iter().zip(&should).all(|((_, is), should)| *is == should.as_slice());
        }
        if !matching {
            tracing::error!(container = %stripe.container, "fragments contradict each other under sound CRCs");
        }
        Ok((whole, matching))
    }

    async fn rewrite(
        &self,
        stripe: &Stripe,
        index: usize,
        found: &[Found],
        payload: PageBuf,
    ) -> Result<(), PoolError> {
        let headers = || found.iter().filter_map(header);
        let model = headers().next().ok_or_else(|| lost(stripe, found, "no fragment has a sound header"))?;
        let payload = payload.share();
        // What moves is mended where it was as long as that medium is there: the move may end before its end.
        let second = stripe.second(index).filter(|_| !self.lock_health().is_up(stripe.members[index]));
        let medium = second.unwrap_or(stripe.members[index]);
        let mut members = stripe.members.clone();
        members[index] = medium;
        let header = FragmentHeader {
            members,
            index: index as u8,
            allocation: 0,
            locked_until: headers().map(|header| header.locked_until).max().unwrap_or(0),
            page_crcs: FragmentHeader::crcs_of(&payload),
            ..model.clone()
        };
        self.put_fragment(medium, header, payload, true).await.map_err(|error| {
            let kind = match error.kind {
                CallErrorKind::NoSpace => PoolErrorKind::NoSpace,
                _ => PoolErrorKind::TooFewMedia,
            };
            let reason =
                format!("container {}: fragment {index} was not repaired: {error}", stripe.container);
            PoolError::new(kind, reason)
        })?;
        self.shared.stats.repaired.fetch_add(1, Ordering::Relaxed);
        tracing::info!(container = %stripe.container, fragment = index, %medium, "fragment repaired");
        Ok(())
    }

    pub(crate) async fn find_all(
        &self,
        stripe: &Stripe,
        wrong: FragmentSet,
        piece_bytes: usize,
    ) -> Vec<Found> {
        let finds = (0..stripe.class.width()).map(|index| async move {
            if wrong & 1 << index == 0 {
                self.find(stripe, index, piece_bytes).await
            } else {
                Found::Wrong(format!("fragment {index} contradicts the others"))
            }
        });
        seam::join_all(finds).await
    }

    /// A fragment where it is, or where it moves to.
    async fn find(&self, stripe: &Stripe, index: usize, piece_bytes: usize) -> Found {
        let first = self.find_at(stripe.members[index], stripe, index, piece_bytes).await;
        let Some(second) = stripe.second(index).filter(|_| !first.is_whole()) else { return first };
        let other = self.find_at(second, stripe, index, piece_bytes).await;
        // What is away and not yet there will be moved; what is damaged where it moves to is mended.
        let better = other.is_whole() || matches!((&first, &other), (Found::Away(_), Found::Read { .. }));
        if better { other } else { first }
    }

    pub(crate) async fn find_at(
        &self,
        medium: MediumId,
        stripe: &Stripe,
        index: usize,
        piece_bytes: usize,
    ) -> Found {
        let container = stripe.container;
        let request = Request::FragmentHeader { container, index: index as u8 };
        let header = match self.ask_for(medium, request, medium == stripe.members[index]).await {
            Ok(Response::Header(header)) => header,
            Ok(_) => return Found::Wrong(format!("fragment {index} on {medium} gives no header")),
            Err(error) => return failed(error),
        };
        if !belongs(&header, stripe, index, medium) {
            return Found::Wrong(format!("fragment {index} on {medium} is of another stripe"));
        }
        let (bytes, read) = match self.whole(medium, stripe, index, piece_bytes).await {
            Ok(whole) => whole,
            Err(error) => return failed(error),
        };
        let matching = bytes.chunks(PAGE).zip(&header.page_crcs).map(|(page, crc)| crc32c(page) == *crc);
        let sound = matching.zip(read).map(|(matching, read)| matching && read).collect();
        Found::Read { header, bytes, sound }
    }

    /// The payload as it lies, and which of its pages could be read.
    async fn whole(
        &self,
        medium: MediumId,
        stripe: &Stripe,
        index: usize,
        piece_bytes: usize,
    ) -> Result<(Vec<u8>, Vec<bool>), CallError> {
        let length = stripe.fragment_bytes();
        let pages = usize::from(stripe.fragment_pages);
        match self.read_at(medium, stripe, &Piece { index, offset: 0, length }, false).await {
            Ok(bytes) => return Ok((bytes.as_ref().to_vec(), vec![true; pages])),
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error),
        }
        let mut whole = vec![0; length];
        let mut read = vec![false; pages];
        let pieces = whole.chunks_mut(piece_bytes).zip(read.chunks_mut(piece_bytes / PAGE));
        for (at, (piece, read)) in pieces.enumerate() {
            let place = Piece { index, offset: at * piece_bytes, length: piece.len() };
            match self.read_at(medium, stripe, &place, false).await {
                Ok(bytes) => {
                    piece.copy_from_slice(bytes.as_ref());
                    read.fill(true);
                }
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((whole, read))
    }
}

/// Stretches of pages that are sound in the same fragments, with these fragments.
fn runs(found: &[Found], pages: usize) -> Vec<(Range<usize>, Vec<usize>)> {
    let mut runs: Vec<(Range<usize>, Vec<usize>)> = Vec::new();
    for page in 0..pages {
        let sound: Vec<usize> = (0..found.len()).filter(|index| found[*index].is_sound(page)).collect();
        match runs.last_mut() {
            Some((run, same)) if *same == sound => run.end = page + 1,
            _ => runs.push((page..page + 1, sound)),
        }
    }
    runs
}

pub(crate) fn payload(found: &Found) -> &[u8] {
    match found {
        Found::Read { bytes, .. } => bytes,
        Found::Wrong(_) | Found::Away(_) => &[],
    }
}

pub(crate) fn header(found: &Found) -> Option<&FragmentHeader> {
    match found {
        Found::Read { header, .. } => Some(header),
        Found::Wrong(_) | Found::Away(_) => None,
    }
}

/// The other members may have moved since it was written.
fn belongs(header: &FragmentHeader, stripe: &Stripe, index: usize, medium: MediumId) -> bool {
    header.container == stripe.container
        && usize::from(header.index) == index
        && usize::from(header.k) == stripe.class.k
        && usize::from(header.m) == stripe.class.m
        && header.payload_bytes() == stripe.fragment_bytes()
        && header.members.len() == stripe.members.len()
        && header.members.get(index) == Some(&medium)
}

fn failed(error: CallError) -> Found {
    if is_damage(&error) { Found::Wrong(error.to_string()) } else { Found::Away(error.to_string()) }
}

pub(crate) fn lost(stripe: &Stripe, found: &[Found], what: &str) -> PoolError {
    let describe = |(index, found): (usize, &Found)| match found {
        Found::Read { sound, .. } => {
            let bad = sound.iter().filter(|sound| !**sound).count();
            (bad > 0).then(|| format!("fragment {index} on {}: {bad} pages damaged", stripe.members[index]))
        }
        Found::Wrong(reason) | Found::Away(reason) => Some(reason.clone()),
    };
    let details: Vec<String> = found.iter().enumerate().filter_map(describe).collect();
    let details = details.join("; ");
    let (container, k) = (stripe.container, stripe.class.k);
    PoolError::new(PoolErrorKind::Lost, format!("container {container}: {what}, {k} are needed ({details})"))
}
