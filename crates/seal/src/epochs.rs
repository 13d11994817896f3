//! Key epochs: the data keys that came after the first, as they are stored.
//!
//! ```text
//!  0          4     5       6            8                                            440
//!  | "HFKE" v1| count | oldest u16 | 6 x (epoch u16, zero 6, key wrapped, 64 bytes) | CRC-32C u32
//! ```
//! The key of epoch 1 derives from the master secret; each later one is random and wrapped by a key that derives from
//! the master secret and the number of the epoch: nonce (12), zeros (4), ciphertext (32), tag (16). Units of an epoch
//! before `oldest` are not opened any more.

use units::crc32c;

use crate::keys::{KEY_BYTES, Kek, KeyError, KeyRing, WRAP_BYTES, unwrap_secret, wrap_secret};

/// Bytes of the stored form.
pub const EPOCHS_BYTES: usize = 444;
/// Most epochs behind the first that are in use at once.
pub const EPOCHS_MAX: usize = 6;

const MAGIC: &[u8; 4] = b"HFKE";
const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 8 + WRAP_BYTES;
const ENTRIES: usize = 8;

const _: () = assert!(ENTRIES + EPOCHS_MAX * ENTRY_BYTES + 4 == EPOCHS_BYTES);

/// The data keys of later epochs, wrapped.
#[derive(Clone, PartialEq, Eq)]
pub struct EpochKeys {
    oldest: u16,
    /// By epoch, in order.
    later: Vec<(u16, [u8; WRAP_BYTES])>,
}

impl Default for EpochKeys {
    fn default() -> Self {
        Self { oldest: 1, later: Vec::new() }
    }
}

impl std::fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EpochKeys({} to {})", self.oldest, self.newest())
    }
}

fn wrapping_key(ring: &KeyRing, epoch: u16) -> Kek {
    let context = format!("holdfast 2026 epoch wrap {epoch}");
    Kek::from_bytes(blake3::derive_key(&context, ring.master()))
}

impl EpochKeys {
    /// The oldest epoch whose units are opened.
    pub fn oldest(&self) -> u16 {
        self.oldest
    }

    /// The epoch of what is sealed now.
    pub fn newest(&self) -> u16 {
        self.later.last().map_or(1, |(epoch, _)| *epoch)
    }

    /// One epoch more, with the key `secret`, 32 random bytes; `random` is 12. `None` while too many are in use.
    pub fn next(&self, ring: &KeyRing, secret: &[u8; KEY_BYTES], random: &[u8; 12]) -> Option<Self> {
        let epoch = self.newest().checked_add(1).filter(|_| self.later.len() < EPOCHS_MAX)?;
        let mut next = self.clone();
        next.later.push((epoch, wrap_secret(secret, &wrapping_key(ring, epoch), random)));
        Some(next)
    }

    /// The newest epoch alone: nothing is sealed under the others any more.
    #[must_use]
    pub fn newest_alone(&self) -> Self {
        let later = self.later.last().cloned().into_iter().collect();
        Self { oldest: self.newest(), later }
    }

    /// The ring with these epochs.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] when they were wrapped for another ring.
    pub fn open(&self, ring: &KeyRing) -> Result<KeyRing, KeyError> {
        let mut epochs: Vec<(u16, [u8; KEY_BYTES])> = ring.first_epoch().into_iter().collect();
        for (epoch, wrapped) in &self.later {
            epochs.push((*epoch, unwrap_secret(wrapped, &wrapping_key(ring, *epoch))?));
        }
        epochs.retain(|(epoch, _)| *epoch >= self.oldest);
        Ok(ring.with_epochs(epochs))
    }

    /// The stored form.
    pub fn encode(&self) -> [u8; EPOCHS_BYTES] {
        let mut out = [0; EPOCHS_BYTES];
        out[..4].copy_from_slice(MAGIC);
        out[4] = VERSION;
        out[5] = self.later.len() as u8;
        out[6..8].copy_from_slice(&self.oldest.to_le_bytes());
        for (entry, (epoch, wrapped)) in out[ENTRIES..].chunks_exact_mut(ENTRY_BYTES).zip(&self.later) {
            entry[..2].copy_from_slice(&epoch.to_le_bytes());
            entry[8..].copy_from_slice(wrapped);
        }
        let crc = crc32c(&out[..EPOCHS_BYTES - 4]);
        out[EPOCHS_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the stored form; `None` when it is damaged or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..EPOCHS_BYTES)?;
        let (body, crc) = bytes.split_at(EPOCHS_BYTES - 4);
        let count = usize::from(bytes[5]);
        let is_sound = crc == crc32c(body).to_le_bytes();
        if !is_sound || &bytes[..4] != MAGIC || bytes[4] != VERSION || count > EPOCHS_MAX {
            return None;
        }
        let number = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        let entries = body[ENTRIES..].chunks_exact(ENTRY_BYTES).take(count);
        let later: Vec<(u16, [u8; WRAP_BYTES])> =
            entries.map(|entry| Some((number(entry), entry[8..].try_into().ok()?))).collect::<Option<_>>()?;
        let keys = Self { oldest: number(&bytes[6..8]), later };
        let in_order = keys.later.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let behind_first = keys.later.first().is_none_or(|(epoch, _)| *epoch > 1);
        (in_order && behind_first && (1..=keys.newest()).contains(&keys.oldest)).then_some(keys)
    }
}
