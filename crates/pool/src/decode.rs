//! Decoding: a stretch of one fragment from the same stretch of the others.

use std::sync::atomic::Ordering;

use proto::{CallError, ReadBytes};
use units::PAGE;

use crate::read::{FragmentSet, Met, Piece, PoolError, PoolErrorKind, Stripe, is_damage};
use crate::stripe::Pool;

/// The same stretch of every fragment of a stripe, verified, by fragment index.
pub(crate) struct Gathered {
    piece: Piece,
    found: Vec<Result<ReadBytes, CallError>>,
}

/// Bytes whose pages all match their CRCs or were decoded from such.
pub(crate) struct Verified {
    pub(crate) bytes: Vec<u8>,
    /// What was decoded, and from which fragments.
    pub(crate) decoded: Vec<(Gathered, FragmentSet)>,
}

impl Pool {
    /// Reads the stretch of `piece` from every fragment. `known` is the answer of the piece's own fragment, when it
    /// was asked already and failed.
    async fn gather(&self, stripe: &Stripe, piece: &Piece, known: Option<CallError>) -> Gathered {
        let asked = known.is_some().then_some(piece.index);
        let reads = (0..stripe.class.width()).filter(|index| Some(*index) != asked).map(|index| {
            let other = Piece { index, ..*piece };
            async move { self.read_piece(stripe, &other, true).await }
        });
        let mut found = seam::join_all(reads).await;
        if let Some(error) = known {
            found.insert(piece.index, Err(error));
        }
        Gathered { piece: *piece, found }
    }

    /// The bytes with every page verified, decoded where that fails. Where too few fragments are sound over the whole
    /// of a piece, its halves are tried: each page may have enough.
    pub(crate) async fn read_verified(
        &self,
        stripe: &Stripe,
        pieces: &[Piece],
        met: &mut Met,
    ) -> Result<Verified, PoolError> {
        let mut verified = Verified { bytes: Vec::new(), decoded: Vec::new() };
        let mut ahead: Vec<Piece> = pieces.iter().rev().copied().collect();
        while let Some(piece) = ahead.pop() {
            let error = match self.read_piece(stripe, &piece, true).await {
                Ok(read) => {
                    verified.bytes.extend_from_slice(read.as_ref());
                    continue;
                }
                Err(error) => error,
            };
            let gathered = self.gather(stripe, &piece, Some(error)).await;
            met.damage |= gathered.has_damage();
            match (gathered.decode(self, stripe), halves(piece)) {
                (Ok((bytes, set)), _) => {
                    met.decoded = true;
                    verified.bytes.extend_from_slice(&bytes);
                    verified.decoded.push((gathered, set));
                }
                (Err(_), Some((first, second))) if gathered.has_damage() => ahead.extend([second, first]),
                (Err(error), _) => return Err(error),
            }
        }
        Ok(verified)
    }

    /// Which fragments are wrong under sound CRCs, after a check accepted what `sets` gave for the pieces.
    ///
    /// A check of decoded bytes proves every fragment they were decoded from, since each has a part in each byte (any
    /// k fragments are independent). A check of bytes as they lie proves the fragment they lie in and no other.
    pub(crate) fn expose<'a>(
        &self,
        stripe: &Stripe,
        sets: impl IntoIterator<Item = (&'a Gathered, FragmentSet)>,
    ) -> FragmentSet {
        let proved = |(one, set): &(&Gathered, FragmentSet)| {
            let own = 1 << one.piece.index;
            set & own == 0 || *set == own
        };
        let sets = sets.into_iter().filter(proved);
        let wrong = sets.fold(0, |wrong, (one, set)| wrong | one.contradicts(self, stripe, set));
        if wrong != 0 {
            self.shared.stats.faults.fetch_add(u64::from(wrong.count_ones()), Ordering::Relaxed);
            let fragments = format!("{wrong:#b}");
            tracing::error!(container = %stripe.container, fragments, "wrong under sound CRCs");
        }
        wrong
    }

    /// Tries every set of k fragments until `check` accepts what they give; the fragments that say otherwise are
    /// then known to be wrong. A stripe has at most 45 such sets.
    pub(crate) async fn read_any(
        &self,
        stripe: &Stripe,
        pieces: &[Piece],
        check: &mut (dyn FnMut(&[u8]) -> bool + Send),
        met: &mut Met,
    ) -> bool {
        let mut gathered = Vec::new();
        for piece in pieces {
            gathered.push(self.gather(stripe, piece, None).await);
        }
        met.damage |= gathered.iter().any(Gathered::has_damage);
        let sets = 0..1 << stripe.class.width();
        for set in sets.filter(|set: &FragmentSet| set.count_ones() as usize == stripe.class.k) {
            let bytes: Option<Vec<Vec<u8>>> =
                gathered.iter().map(|one| one.fragment(self, stripe, set, one.piece.index)).collect();
            let Some(bytes) = bytes else { continue };
            if !check(&bytes.concat()) {
                continue;
            }
            met.decoded = true;
            met.wrong = self.expose(stripe, gathered.iter().map(|one| (one, set)));
            return true;
        }
        false
    }
}

/// A piece cut in two at a page border; `None` when it lies in one page.
fn halves(piece: Piece) -> Option<(Piece, Piece)> {
    let (first, last) = (piece.offset / PAGE, (piece.offset + piece.length - 1) / PAGE);
    let border = (first + last).div_ceil(2) * PAGE;
    (last > first).then(|| {
        let before = Piece { length: border - piece.offset, ..piece };
        let behind = Piece { offset: border, length: piece.length - before.length, ..piece };
        (before, behind)
    })
}

impl Gathered {
    /// Whether a fragment was found damaged or missing, as opposed to out of reach.
    fn has_damage(&self) -> bool {
        self.found.iter().filter_map(|found| found.as_ref().err()).any(is_damage)
    }

    /// The stretch of the piece's own fragment, and the fragments it was decoded from: the first k sound ones.
    fn decode(&self, pool: &Pool, stripe: &Stripe) -> Result<(Vec<u8>, FragmentSet), PoolError> {
        let sound = self.sound();
        let k = stripe.class.k;
        let mut set: FragmentSet = 0;
        sound.iter().take(k).for_each(|index| set |= 1 << index);
        if sound.len() >= k
            && let Some(bytes) = self.fragment(pool, stripe, set, self.piece.index)
        {
            return Ok((bytes, set));
        }
        let failures: Vec<String> =
            self.found.iter().filter_map(|found| found.as_ref().err()).map(ToString::to_string).collect();
        Err(PoolError::new(
            PoolErrorKind::Lost,
            format!(
                "container {}: {} of {} fragments are sound and within reach, {k} are needed ({})",
                stripe.container,
                sound.len(),
                stripe.class.width(),
                failures.join("; ")
            ),
        ))
    }

    fn sound(&self) -> Vec<usize> {
        self.found.iter().enumerate().filter(|(_, found)| found.is_ok()).map(|(index, _)| index).collect()
    }

    /// The stretch of fragment `wanted`, from the k fragments in `set`; `None` when one of them is not sound.
    fn fragment(&self, pool: &Pool, stripe: &Stripe, set: FragmentSet, wanted: usize) -> Option<Vec<u8>> {
        let members = (0..self.found.len()).filter(|index| set & 1 << index != 0);
        let have: Option<Vec<(usize, &[u8])>> =
            members.map(|index| Some((index, self.found[index].as_ref().ok()?.as_ref()))).collect();
        let mut out = vec![0; self.piece.length];
        pool.code(&stripe.class).reconstruct(&have?, &[wanted], &mut [&mut out]).ok()?;
        Some(out)
    }

    /// The sound fragments that are not what those in `set` make them.
    fn contradicts(&self, pool: &Pool, stripe: &Stripe, set: FragmentSet) -> FragmentSet {
        let mut wrong = 0;
        for index in self.sound() {
            let should = self.fragment(pool, stripe, set, index);
            let is = self.found[index].as_ref().ok().map(AsRef::as_ref);
            if should.as_deref() != is {
                wrong |= 1 << index;
            }
        }
        wrong
    }
}
