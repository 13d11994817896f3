//! The witness: the one fact kept outside the journal.

use proto::SegmentId;
use seam::BoxFuture;
use units::{Epoch, Incarnation, crc32c};

const MAGIC: &[u8; 4] = b"HFWT";
/// Bytes of the stored form.
const BYTES: usize = 40;

/// The last incarnation and the last segment it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WitnessState {
    /// Epoch of the last incarnation that began.
    pub epoch: Epoch,
    /// The last segment that took records; none before the first.
    pub last: Option<SegmentId>,
}

impl WitnessState {
    /// The stored form: "HFWT", 1 when there is a segment else 0 (u32), epoch, segment epoch, stream, number (u32),
    /// CRC-32C (u32); little-endian.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        let last = self.last.unwrap_or(SegmentId { epoch: Epoch(0), stream: Incarnation(0), number: 0 });
        out[..4].copy_from_slice(MAGIC);
        out[4..8].copy_from_slice(&u32::from(self.last.is_some()).to_le_bytes());
        out[8..16].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[16..24].copy_from_slice(&last.epoch.0.to_le_bytes());
        out[24..32].copy_from_slice(&last.stream.0.to_le_bytes());
        out[32..36].copy_from_slice(&last.number.to_le_bytes());
        let crc = crc32c(&out[..36]);
        out[36..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the stored form; `None` when it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.get(..BYTES)?.try_into().ok()?;
        let word =
            |at: usize| bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let half =
            |at: usize| bytes[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        if &bytes[..4] != MAGIC || half(4) > 1 || half(36) != crc32c(&bytes[..36]) {
            return None;
        }
        let last = SegmentId { epoch: Epoch(word(16)), stream: Incarnation(word(24)), number: half(32) };
        Some(Self { epoch: Epoch(word(8)), last: (half(4) == 1).then_some(last) })
    }
}

/// Keeps a [`WitnessState`] outside the media, so that the loss of the newest segment, or of the media that had gone on
/// alone, cannot pass unseen.
pub trait Witness: Send + Sync {
    /// The stored state; the default when nothing was ever stored.
    fn load(&self) -> BoxFuture<'_, Result<WitnessState, String>>;
    /// Stores `state`; durable when it returns.
    fn store(&self, state: WitnessState) -> BoxFuture<'_, Result<(), String>>;
}
