//! The witness: what is kept outside the journal.
//!
//! ```text
//!  "HFWT" | version u16 | has last u8 | ensembles u8 | epoch u64 | segment epoch u64 | stream u64 | number u32
//!  | ensembles: members u8 | members x 16, each above the one before | CRC-32C u32
//! ```
//! Without a last segment its fields are zero. No bytes come behind.

use journal::{ENSEMBLES_MAX, Ensemble, Registered};
pub use journal::{WitnessError, WitnessErrorKind};
use proto::SegmentId;
use seam::BoxFuture;
use units::{Epoch, Incarnation, MediumId, crc32c};

const MAGIC: &[u8; 4] = b"HFWT";
const VERSION: u16 = 2;
/// Bytes before the ensembles.
const FIXED: usize = 36;

/// The last incarnation, and where its journal is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WitnessState {
    /// Epoch of the last incarnation that began.
    pub epoch: Epoch,
    /// A segment that took records, the newest or one before it; none before the first.
    pub last: Option<SegmentId>,
    /// The newest segment lies on one of these; none where `last` is the newest. At most [`ENSEMBLES_MAX`].
    pub ensembles: Vec<Ensemble>,
}

impl WitnessState {
    /// What whoever recovers the journal must know.
    pub fn registered(&self) -> Registered {
        Registered { last: self.last, ensembles: self.ensembles.clone() }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let last = self.last.unwrap_or(SegmentId { epoch: Epoch(0), stream: Incarnation(0), number: 0 });
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend([u8::from(self.last.is_some()), self.ensembles.len() as u8]);
        for word in [self.epoch.0, last.epoch.0, last.stream.0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(last.number.to_le_bytes());
        for ensemble in &self.ensembles {
            out.push(ensemble.members().len() as u8);
            ensemble.members().iter().for_each(|member| out.extend(member.0));
        }
        let crc = crc32c(&out);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Reads the stored form; `None` when it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let (fixed, mut rest) = checked.split_at_checked(FIXED)?;
        let word =
            |at: usize| fixed[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let half = |at: usize| word(at - 4) >> 32;
        let (has_last, count) = (fixed[6], usize::from(fixed[7]));
        if &fixed[..4] != MAGIC
            || fixed[4..6] != VERSION.to_le_bytes()
            || crc != crc32c(checked).to_le_bytes()
            || has_last > 1
            || has_last == 0 && fixed[16..] != [0; FIXED - 16]
            || count > ENSEMBLES_MAX
        {
            return None;
        }
        let last =
            SegmentId { epoch: Epoch(word(16)), stream: Incarnation(word(24)), number: half(32) as u32 };
        let mut ensembles = Vec::with_capacity(count);
        for _ in 0..count {
            let (members, behind) = rest.split_first()?;
            let (members, behind) = behind.split_at_checked(usize::from(*members) * 16)?;
            let (members, _) = members.as_chunks::<16>();
            let members: Vec<MediumId> = members.iter().map(|id| MediumId(*id)).collect();
            ensembles.push(Ensemble::new(&members).filter(|ensemble| ensemble.members() == members)?);
            rest = behind;
        }
        let state = Self { epoch: Epoch(word(8)), last: (has_last == 1).then_some(last), ensembles };
        rest.is_empty().then_some(state)
    }
}

/// Keeps a [`WitnessState`] outside the media, so that the loss of the newest segment, or of the media that had gone on
/// alone, cannot pass unseen.
///
/// Where several processes share it, a store is a compare and swap: it happens only in place of what this handle last read or
/// stored, or of a store of its own under the same epoch that was never answered. Behind a store that was answered none
/// from before it happens any more.
pub trait Witness: Send + Sync {
    /// The stored state; the default when nothing was ever stored.
    ///
    /// # Errors
    /// [`WitnessErrorKind::Unanswered`].
    fn load(&self) -> BoxFuture<'_, Result<WitnessState, WitnessError>>;
    /// Stores `state`; durable when it returns. It answers in seconds at most.
    ///
    /// # Errors
    /// [`WitnessErrorKind::Superseded`] when another incarnation has stored meanwhile; [`WitnessErrorKind::Unanswered`] when
    /// it may be stored or not, now or later.
    fn store(&self, state: WitnessState) -> BoxFuture<'_, Result<(), WitnessError>>;
}
