//! Keys: what wraps what, and how a key ring is stored.
//!
//! ```text
//!  0          4    5      8           12        16           24        40            104            168
//!  | "HFWK" v1| kdf| zero | memory KiB| passes  | zero       | salt 16 | ring by KEK | ring by rec. | CRC-32C
//! ```
//! The ring is wrapped as its 32-byte master secret, from which the fingerprint root and the data key of epoch 1
//! derive: nonce (12), zeros (4), ciphertext (32), tag (16). Later key epochs are wrapped by the ring itself
//! (`epochs.rs`).

use aws_lc_rs::aead::{Aad, Nonce};
use units::crc32c;

use crate::unit::aead_key;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of the stored form of the wrapped keys.
pub const WRAPPED_BYTES: usize = 172;

const MAGIC: &[u8; 4] = b"HFWK";
const VERSION: u8 = 1;
pub(crate) const WRAP_BYTES: usize = 64;
/// Argon2id: 64 MiB and 3 passes take about 0.1 s, and a guess costs an attacker the same memory.
const ARGON_MEMORY_KIB: u32 = 64 * 1024;
const ARGON_PASSES: u32 = 3;
/// A stored cost beyond these is damage or an attack, not a setting.
const ARGON_MEMORY_KIB_MAX: u32 = 1024 * 1024;
const ARGON_PASSES_MAX: u32 = 16;

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The passphrase or key does not open the keys of this site.
    #[error("the key or passphrase does not open the keys of this site")]
    Wrong,
    /// The text is not a recovery key.
    #[error("this is not a recovery key: 16 groups of 4 characters, with a check sum")]
    Malformed,
    /// The stored costs of the passphrase are out of range.
    #[error("the stored passphrase parameters make no sense")]
    Parameters,
}

/// The key that wraps the key ring: from a key file or a passphrase.
#[derive(Clone)]
pub struct Kek([u8; KEY_BYTES]);

impl std::fmt::Debug for Kek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kek(..)")
    }
}

impl Kek {
    /// The contents of a key file.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    fn from_passphrase(
        phrase: &[u8],
        salt: &[u8; 16],
        memory_kib: u32,
        passes: u32,
    ) -> Result<Self, KeyError> {
        if memory_kib > ARGON_MEMORY_KIB_MAX || passes > ARGON_PASSES_MAX {
            return Err(KeyError::Parameters);
        }
        let params =
            argon2::Params::new(memory_kib, passes, 1, Some(KEY_BYTES)).map_err(|_| KeyError::Parameters)?;
        let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut out = [0; KEY_BYTES];
        argon.hash_password_into(phrase, salt, &mut out).map_err(|_| KeyError::Parameters)?;
        Ok(Self(out))
    }
}

/// A key on paper that opens the site when all else is lost.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryKey([u8; KEY_BYTES]);

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

impl RecoveryKey {
    /// A key from 32 random bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Hex in groups of four with a check group at the end, for paper.
    pub fn to_text(&self) -> String {
        let mut hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.push_str(&format!("{:04x}", crc32c(&self.0) & 0xffff));
        let groups: Vec<&str> =
            hex.as_bytes().chunks(4).filter_map(|c| std::str::from_utf8(c).ok()).collect();
        groups.join("-")
    }

    /// Reads what [`RecoveryKey::to_text`] wrote; spaces, dashes and case do not matter.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when it has not 68 hex digits or the check group is wrong.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| c.to_digit(16).map(|digit| digit as u8))
            .collect();
        let digits = digits.ok_or(KeyError::Malformed)?;
        if digits.len() != 2 * KEY_BYTES + 4 {
            return Err(KeyError::Malformed);
        }
        let mut bytes = [0; KEY_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        let check = digits[2 * KEY_BYTES..].iter().fold(0, |sum, digit| sum << 4 | u32::from(*digit));
        if check != crc32c(&bytes) & 0xffff {
            return Err(KeyError::Malformed);
        }
        Ok(Self(bytes))
    }

    fn kek(&self) -> Kek {
        Kek(blake3::derive_key("holdfast 2026 recovery wrap", &self.0))
    }
}

/// The secrets of a site: one master secret, from which the fingerprint root and the first data key derive.
///
/// Later key epochs get secrets of their own; the epoch number stands in every unit's header.
#[derive(Clone)]
pub struct KeyRing {
    master: [u8; KEY_BYTES],
    root: [u8; KEY_BYTES],
    epochs: Vec<(u16, [u8; KEY_BYTES])>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({} key epochs)", self.epochs.len())
    }
}

impl KeyRing {
    /// The ring of a new site, from 32 random bytes.
    pub fn from_master(master: [u8; KEY_BYTES]) -> Self {
        let root = blake3::derive_key("holdfast 2026 fingerprint root", &master);
        let data = blake3::derive_key("holdfast 2026 data key epoch 1", &master);
        Self { master, root, epochs: vec![(1, data)] }
    }

    /// A fixed ring, for tests and simulations.
    pub fn for_tests(seed: u8) -> Self {
        Self::from_master([seed; KEY_BYTES])
    }

    pub(crate) fn master(&self) -> &[u8; KEY_BYTES] {
        &self.master
    }

    pub(crate) fn first_epoch(&self) -> Option<(u16, [u8; KEY_BYTES])> {
        Self::from_master(self.master).epochs.pop()
    }

    /// The same ring with other epochs.
    pub(crate) fn with_epochs(&self, epochs: Vec<(u16, [u8; KEY_BYTES])>) -> Self {
        Self { epochs, ..self.clone() }
    }

    pub(crate) fn fingerprint_root(&self) -> &[u8; KEY_BYTES] {
        &self.root
    }

    pub(crate) fn epochs(&self) -> impl Iterator<Item = (u16, &[u8; KEY_BYTES])> {
        self.epochs.iter().map(|(epoch, key)| (*epoch, key))
    }

    pub(crate) fn oldest_epoch(&self) -> u16 {
        self.epochs.first().map_or(1, |(epoch, _)| *epoch)
    }

    pub(crate) fn current_epoch(&self) -> u16 {
        self.epochs.last().map_or(1, |(epoch, _)| *epoch)
    }
}

/// How the KEK of a site comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kdf {
    KeyFile,
    Argon2id,
}

/// A key ring wrapped by the KEK and by the recovery key, as it stands in every superblock.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKeys {
    kdf_passphrase: bool,
    memory_kib: u32,
    passes: u32,
    salt: [u8; 16],
    by_kek: [u8; WRAP_BYTES],
    by_recovery: [u8; WRAP_BYTES],
}

impl std::fmt::Debug for WrappedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WrappedKeys(passphrase: {})", self.kdf_passphrase)
    }
}

impl WrappedKeys {
    /// Wraps `ring` by the key of a key file. `random` is 40 random bytes.
    pub fn by_key_file(ring: &KeyRing, kek: &Kek, recovery: &RecoveryKey, random: &[u8; 40]) -> Self {
        Self::wrap(ring, Kdf::KeyFile, kek, recovery, random, 0, 0)
    }

    /// Wraps `ring` by a passphrase. `random` is 40 random bytes.
    ///
    /// # Errors
    /// [`KeyError::Parameters`] when the key derivation refuses the passphrase (it never does for 1 to 2^32 bytes).
    pub fn by_passphrase(
        ring: &KeyRing,
        phrase: &[u8],
        recovery: &RecoveryKey,
        random: &[u8; 40],
    ) -> Result<Self, KeyError> {
        let mut salt = [0; 16];
        salt.copy_from_slice(&random[24..]);
        let kek = Kek::from_passphrase(phrase, &salt, ARGON_MEMORY_KIB, ARGON_PASSES)?;
        Ok(Self::wrap(ring, Kdf::Argon2id, &kek, recovery, random, ARGON_MEMORY_KIB, ARGON_PASSES))
    }

    fn wrap(
        ring: &KeyRing,
        kdf: Kdf,
        kek: &Kek,
        recovery: &RecoveryKey,
        random: &[u8; 40],
        memory_kib: u32,
        passes: u32,
    ) -> Self {
        let mut salt = [0; 16];
        salt.copy_from_slice(&random[24..]);
        Self {
            kdf_passphrase: kdf == Kdf::Argon2id,
            memory_kib,
            passes,
            salt,
            by_kek: wrap_secret(&ring.master, kek, &random[..12]),
            by_recovery: wrap_secret(&ring.master, &recovery.kek(), &random[12..24]),
        }
    }

    /// The same ring under a new recovery key. `random` is 12 random bytes.
    #[must_use]
    pub fn with_recovery(&self, ring: &KeyRing, recovery: &RecoveryKey, random: &[u8; 12]) -> Self {
        Self { by_recovery: wrap_secret(&ring.master, &recovery.kek(), random), ..self.clone() }
    }

    /// The same ring under a new passphrase, which alone opens it from then on; the recovery key stays as it is. `random` is
    /// 28 random bytes.
    ///
    /// # Errors
    /// [`KeyError::Parameters`] when the key derivation refuses the passphrase (it never does for 1 to 2^32 bytes).
    pub fn with_passphrase(
        &self,
        ring: &KeyRing,
        phrase: &[u8],
        random: &[u8; 28],
    ) -> Result<Self, KeyError> {
        let mut salt = [0; 16];
        salt.copy_from_slice(&random[12..]);
        let kek = Kek::from_passphrase(phrase, &salt, ARGON_MEMORY_KIB, ARGON_PASSES)?;
        Ok(Self {
            kdf_passphrase: true,
            memory_kib: ARGON_MEMORY_KIB,
            passes: ARGON_PASSES,
            salt,
            by_kek: wrap_secret(&ring.master, &kek, &random[..12]),
            by_recovery: self.by_recovery,
        })
    }

    /// Whether a passphrase opens this site; otherwise a key file does.
    pub fn wants_passphrase(&self) -> bool {
        self.kdf_passphrase
    }

    /// Opens the ring with the key of a key file.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] when it is not the key of this site.
    pub fn unwrap_with(&self, kek: &Kek) -> Result<KeyRing, KeyError> {
        unwrap_secret(&self.by_kek, kek).map(KeyRing::from_master)
    }

    /// Opens the ring with a passphrase; takes about 0.1 s.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] when it is not the passphrase of this site.
    pub fn unwrap_with_passphrase(&self, phrase: &[u8]) -> Result<KeyRing, KeyError> {
        self.unwrap_with(&Kek::from_passphrase(phrase, &self.salt, self.memory_kib, self.passes)?)
    }

    /// Opens the ring with the recovery key.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] when it is not the recovery key of this site.
    pub fn unwrap_with_recovery(&self, recovery: &RecoveryKey) -> Result<KeyRing, KeyError> {
        unwrap_secret(&self.by_recovery, &recovery.kek()).map(KeyRing::from_master)
    }

    /// The stored form.
    pub fn encode(&self) -> [u8; WRAPPED_BYTES] {
        let mut out = [0; WRAPPED_BYTES];
        out[..4].copy_from_slice(MAGIC);
        out[4] = VERSION;
        out[5] = u8::from(self.kdf_passphrase);
        out[8..12].copy_from_slice(&self.memory_kib.to_le_bytes());
        out[12..16].copy_from_slice(&self.passes.to_le_bytes());
        out[24..40].copy_from_slice(&self.salt);
        out[40..104].copy_from_slice(&self.by_kek);
        out[104..168].copy_from_slice(&self.by_recovery);
        let crc = crc32c(&out[..168]);
        out[168..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the stored form; `None` when it is damaged or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; WRAPPED_BYTES] = bytes.get(..WRAPPED_BYTES)?.try_into().ok()?;
        let crc = u32::from_le_bytes(bytes[168..].try_into().ok()?);
        if &bytes[..4] != MAGIC || bytes[4] != VERSION || bytes[5] > 1 || crc != crc32c(&bytes[..168]) {
            return None;
        }
        Some(Self {
            kdf_passphrase: bytes[5] == 1,
            memory_kib: u32::from_le_bytes(bytes[8..12].try_into().ok()?),
            passes: u32::from_le_bytes(bytes[12..16].try_into().ok()?),
            salt: bytes[24..40].try_into().ok()?,
            by_kek: bytes[40..104].try_into().ok()?,
            by_recovery: bytes[104..168].try_into().ok()?,
        })
    }
}

/// Nonce (12), zeros (4), ciphertext (32), tag (16).
pub(crate) fn wrap_secret(secret: &[u8; KEY_BYTES], kek: &Kek, nonce: &[u8]) -> [u8; WRAP_BYTES] {
    let mut out = [0; WRAP_BYTES];
    let mut nonce_bytes = [0; 12];
    nonce_bytes.copy_from_slice(nonce);
    out[..12].copy_from_slice(&nonce_bytes);
    out[16..48].copy_from_slice(secret);
    let tag = aead_key(&kek.0)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce_bytes),
            Aad::from(b"holdfast key ring 1"),
            &mut out[16..48],
        )
        .expect("32 bytes are below the cipher's length limit");
    out[48..].copy_from_slice(tag.as_ref());
    out
}

pub(crate) fn unwrap_secret(wrapped: &[u8; WRAP_BYTES], kek: &Kek) -> Result<[u8; KEY_BYTES], KeyError> {
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&wrapped[..12]);
    let mut body = wrapped[16..].to_vec();
    let opened = aead_key(&kek.0)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(b"holdfast key ring 1"), &mut body)
        .map_err(|_| KeyError::Wrong)?;
    opened.as_ref().try_into().map_err(|_| KeyError::Wrong)
}
