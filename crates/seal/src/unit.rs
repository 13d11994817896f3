//! Sealing and opening one unit.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use units::{BLOCK, Fingerprint};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::keys::KeyRing;

/// Bytes of a unit's header.
pub const HEADER_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Bytes a unit adds to a plaintext that does not compress.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// Largest plaintext of one unit: bounds what a hostile header can make a reader allocate.
pub const PLAIN_BYTES_MAX: usize = 1 << 20;

const FORMAT: u8 = 1;
const CODEC_RAW: u8 = 0;
const CODEC_LZ4: u8 = 1;

/// What a unit holds. Each kind has its own fingerprint key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A block of guest data.
    Data,
    /// Fingerprint part of a map page; the number is the level, 0 for leaves.
    Page(u8),
    /// Address part of a map page.
    PageAddresses,
    /// A container's map log.
    MapLog,
    /// Metadata: journal records and checkpoint objects of the metadata store.
    Meta,
}

impl Kind {
    fn codes(self) -> (u8, u8) {
        match self {
            Self::Data => (1, 0),
            Self::Page(level) => (2, level),
            Self::PageAddresses => (3, 0),
            Self::MapLog => (4, 0),
            Self::Meta => (5, 0),
        }
    }
}

/// What is wrong with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealErrorKind {
    /// The bytes are damaged or not what was asked for: another copy may be sound.
    Corrupt,
    /// The key epoch is not in the key ring.
    UnknownKey,
}

/// A unit could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("sealed unit {fingerprint:?}: {reason}")]
pub struct SealError {
    /// What to do about it.
    pub kind: SealErrorKind,
    /// The unit that was asked for.
    pub fingerprint: Fingerprint,
    /// What was found.
    pub reason: &'static str,
}

/// The header of a sealed unit.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    format: u8,
    codec: u8,
    kind: u8,
    level: u8,
    epoch: U16,
    domain: U16,
    plain_bytes: U32,
    body_bytes: U32,
}

impl Header {
    /// Reads a header from the start of `unit`; `None` when it is too short or makes no sense.
    pub fn decode(unit: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(unit).ok()?;
        let plain = header.plain_bytes.get() as usize;
        let body = header.body_bytes.get() as usize;
        let sane = header.format == FORMAT
            && header.codec <= CODEC_LZ4
            && plain <= PLAIN_BYTES_MAX
            && (TAG_BYTES..=plain + TAG_BYTES).contains(&body)
            && (header.codec == CODEC_LZ4 || body == plain + TAG_BYTES);
        sane.then_some(header)
    }

    /// Bytes of the whole unit, header included.
    pub fn unit_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes.get() as usize
    }

    /// The key epoch it is sealed under.
    pub fn key_epoch(&self) -> u16 {
        self.epoch.get()
    }

    /// Bytes of the plaintext.
    pub fn plain_bytes(&self) -> usize {
        self.plain_bytes.get() as usize
    }
}

/// Whether a plaintext is all zero: such a block is a hole and never stored.
pub fn is_zero(plain: &[u8]) -> bool {
    let (words, rest) = plain.as_chunks::<64>();
    words.iter().all(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Fingerprints, seals and opens with the keys of one key ring.
pub struct Sealer {
    root: [u8; 32],
    data: [u8; 32],
    addresses: [u8; 32],
    map_log: [u8; 32],
    meta: [u8; 32],
    journal: [u8; 32],
    pages: Vec<[u8; 32]>,
    keys: [OnceLock<(u16, LessSafeKey)>; KEYS_MAX],
    current: AtomicU16,
    /// Units of epochs before it are not opened.
    oldest: AtomicU16,
}

/// Most key epochs a program meets in one run.
const KEYS_MAX: usize = 16;

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(key epoch {})", self.key_epoch())
    }
}

/// Levels of a map that have a prepared fingerprint key; a tree of 64-way pages over 2^52 blocks has 9.
const PAGE_LEVELS: u8 = 12;

impl Sealer {
    /// Prepares the keys of `ring`.
    pub fn new(ring: &KeyRing) -> Self {
        let derive = |context: &str| blake3::derive_key(context, ring.fingerprint_root());
        let sealer = Self {
            root: *ring.fingerprint_root(),
            data: derive("holdfast 2026 fingerprint data"),
            addresses: derive("holdfast 2026 fingerprint page addresses"),
            map_log: derive("holdfast 2026 fingerprint map log"),
            meta: derive("holdfast 2026 fingerprint meta"),
            journal: derive("holdfast 2026 journal mac"),
            pages: (0..PAGE_LEVELS)
                .map(|level| derive(&format!("holdfast 2026 fingerprint page level {level}")))
                .collect(),
            keys: Default::default(),
            current: AtomicU16::new(0),
            oldest: AtomicU16::new(0),
        };
        assert!(sealer.adopt(ring), "a ring has fewer epochs than fit");
        sealer
    }

    /// Takes over the epochs of `ring`, of the same site: from here on units are sealed under its newest, and those of
    /// epochs that it has no key for are not opened. False, and nothing changed, when this would be too many in one run.
    #[must_use]
    pub fn adopt(&self, ring: &KeyRing) -> bool {
        let missing: Vec<(u16, &[u8; 32])> =
            ring.epochs().filter(|(epoch, _)| self.slot(*epoch).is_none()).collect();
        let free: Vec<&OnceLock<_>> = self.keys.iter().filter(|slot| slot.get().is_none()).collect();
        if missing.len() > free.len() {
            return false;
        }
        for (slot, (epoch, key)) in free.into_iter().zip(missing) {
            // Only one adopts at a time; a slot that another took would be that epoch's own.
            let _ = slot.set((epoch, aead_key(key)));
        }
        self.current.store(ring.current_epoch(), Ordering::Release);
        self.oldest.store(ring.oldest_epoch(), Ordering::Release);
        true
    }

    /// Names `plain` under the key of `kind`.
    pub fn fingerprint(&self, kind: Kind, plain: &[u8]) -> Fingerprint {
        let derived;
        let key = match kind {
            Kind::Data => &self.data,
            Kind::PageAddresses => &self.addresses,
            Kind::MapLog => &self.map_log,
            Kind::Meta => &self.meta,
            Kind::Page(level) => match self.pages.get(usize::from(level)) {
                Some(key) => key,
                None => {
                    derived = blake3::derive_key(
                        &format!("holdfast 2026 fingerprint page level {level}"),
                        &self.root,
                    );
                    &derived
                }
            },
        };
        let hash = blake3::keyed_hash(key, plain);
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Fingerprint(short)
    }

    /// The key epoch of what is sealed now.
    pub fn key_epoch(&self) -> u16 {
        self.current.load(Ordering::Acquire)
    }

    /// The key of the journal's message authentication code.
    pub fn journal_key(&self) -> &[u8; 32] {
        &self.journal
    }

    /// Compresses and encrypts `plain`, whose fingerprint is `fp`, and appends the unit to `out`.
    /// Gives the unit's length in bytes.
    ///
    /// # Panics
    /// When `plain` is larger than a unit may be (1 MiB): a bug of the caller.
    pub fn seal(&self, kind: Kind, fp: Fingerprint, plain: &[u8], out: &mut Vec<u8>) -> usize {
        assert!(plain.len() <= PLAIN_BYTES_MAX, "plaintext larger than a unit");
        let start = out.len();
        out.resize(start + HEADER_BYTES + lz4_flex::block::get_maximum_output_size(plain.len()), 0);
        let body = start + HEADER_BYTES;
        let packed = lz4_flex::block::compress_into(plain, &mut out[body..]).unwrap_or(usize::MAX);
        let (codec, stored) = if packed < plain.len() {
            (CODEC_LZ4, packed)
        } else {
            out[body..body + plain.len()].copy_from_slice(plain);
            (CODEC_RAW, plain.len())
        };
        out.truncate(body + stored);
        let (kind, level) = kind.codes();
        let epoch = self.key_epoch();
        let header = Header {
            format: FORMAT,
            codec,
            kind,
            level,
            epoch: U16::new(epoch),
            domain: U16::new(0),
            plain_bytes: U32::new(plain.len() as u32),
            body_bytes: U32::new((stored + TAG_BYTES) as u32),
        };
        out[start..body].copy_from_slice(header.as_bytes());
        let key = self.key(epoch).expect("a key ring holds its current epoch");
        let tag = key
            .seal_in_place_separate_tag(nonce(fp), Aad::from(associated(&header, fp)), &mut out[body..])
            .expect("a unit is far below the cipher's length limit");
        out.extend_from_slice(tag.as_ref());
        out.len() - start
    }

    /// Opens a unit: `unit` begins with its header and may be longer than the unit. The plaintext replaces the
    /// contents of `plain`. Gives the unit's length in bytes.
    ///
    /// # Errors
    /// [`SealErrorKind::Corrupt`] when the bytes are damaged, of another kind, or not the plaintext named `fp`.
    pub fn open(
        &self,
        kind: Kind,
        fp: Fingerprint,
        unit: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<usize, SealError> {
        let fail = |reason| SealError { kind: SealErrorKind::Corrupt, fingerprint: fp, reason };
        let header = Header::decode(unit).ok_or_else(|| fail("the header makes no sense"))?;
        if (header.kind, header.level) != kind.codes() || header.domain.get() != 0 {
            return Err(fail("another kind of unit lies here"));
        }
        let total = header.unit_bytes();
        let body = unit.get(HEADER_BYTES..total).ok_or_else(|| fail("the unit is cut short"))?;
        let key = self.key(header.epoch.get()).ok_or(SealError {
            kind: SealErrorKind::UnknownKey,
            fingerprint: fp,
            reason: "its key epoch is not in the key ring",
        })?;
        let mut buffer = body.to_vec();
        let opened = key
            .open_in_place(nonce(fp), Aad::from(associated(&header, fp)), &mut buffer)
            .map_err(|_| fail("the authentication tag does not match"))?;
        plain.clear();
        if header.codec == CODEC_RAW {
            plain.extend_from_slice(opened);
        } else {
            plain.resize(header.plain_bytes(), 0);
            let length = lz4_flex::block::decompress_into(opened, plain)
                .map_err(|_| fail("the compressed bytes do not decode"))?;
            plain.truncate(length);
        }
        if plain.len() != header.plain_bytes() || self.fingerprint(kind, plain) != fp {
            return Err(fail("the plaintext is not the one asked for"));
        }
        Ok(total)
    }

    fn key(&self, epoch: u16) -> Option<&LessSafeKey> {
        self.slot(epoch).filter(|_| epoch >= self.oldest.load(Ordering::Acquire))
    }

    fn slot(&self, epoch: u16) -> Option<&LessSafeKey> {
        let known = self.keys.iter().filter_map(OnceLock::get);
        known.filter(|(have, _)| *have == epoch).map(|(_, key)| key).next()
    }
}

/// A data block is never larger than [`BLOCK`]; the unit limit leaves room for metadata.
const _: () = assert!(BLOCK <= PLAIN_BYTES_MAX);

pub(crate) fn aead_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("a key of 32 bytes fits AES-256"))
}

pub(crate) fn nonce(fp: Fingerprint) -> Nonce {
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&fp.0[..12]);
    Nonce::assume_unique_for_key(bytes)
}

pub(crate) fn associated(header: &Header, fp: Fingerprint) -> [u8; HEADER_BYTES + 16] {
    let mut out = [0; HEADER_BYTES + 16];
    out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    out[HEADER_BYTES..].copy_from_slice(&fp.0);
    out
}
