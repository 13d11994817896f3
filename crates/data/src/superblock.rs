//! The superblock: which site a medium belongs to, and the site's wrapped keys.
//!
//! ```text
//!  "HFSB" | version u16 | zero u16 | generation u64 | site 16 | medium 16 | medium bytes u64
//!  | container bytes u32 | segment bytes u32 | segments max u32 | log pages u32 | fragments max u32 | media u16
//!  | released u16
//!  | wrapped keys 172 | CRC-32C u32 | version 2: key epochs 444 | zeros to 1024
//!  | "HFSR" | zero u32 | recovered u64 | CRC-32C u32 of these | zeros to a page
//! ```
//! Version 2 is a site whose data key was rotated; version 1 has the first key alone. `recovered` says when the site's
//! directory was last made anew, ms since the Unix epoch; where that never was, zeros stand there.
//! Two copies, the first at 0, the second at 64 KiB; they are written one after the other with a sync between, so a
//! crash leaves at least one whole. The higher generation wins. `released` is 1 on a medium that was told to leave its
//! site: it holds nothing any more and is none of the site's.

use media::{MediaError, Medium};
use seal::{EpochKeys, WRAPPED_BYTES, WrappedKeys};
use units::{MediumId, PAGE, PageBuf, SiteId, crc32c};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::layout::{Params, SUPERBLOCK_COPY};

const MAGIC: [u8; 4] = *b"HFSB";
const VERSION: u16 = 1;
/// With key epochs behind it.
const VERSION_EPOCHS: u16 = 2;
const RAW_BYTES: usize = 256;
/// Where it stands when the site was recovered: behind the longest epochs.
const RECOVERED_AT: usize = 1024;
const RECOVERED_MAGIC: &[u8; 4] = b"HFSR";
const RECOVERED_BYTES: usize = 20;
/// Where the copies lie.
pub(crate) const PLACES: [u64; 2] = [0, SUPERBLOCK_COPY];

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    version: U16,
    zero: U16,
    generation: U64,
    site: [u8; 16],
    medium: [u8; 16],
    medium_bytes: U64,
    container_bytes: U32,
    segment_bytes: U32,
    segments_max: U32,
    log_pages: U32,
    fragments_max: U32,
    media: U16,
    released: U16,
    keys: [u8; WRAPPED_BYTES],
    crc: U32,
}

const _: () = assert!(size_of::<Raw>() == RAW_BYTES && RAW_BYTES + seal::EPOCHS_BYTES <= RECOVERED_AT);

/// What a medium says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Count of rewrites.
    pub generation: u64,
    /// The site.
    pub site: SiteId,
    /// The medium.
    pub medium: MediumId,
    /// Bytes of the medium when it was formatted.
    pub medium_bytes: u64,
    /// Sizes of the site.
    pub params: Params,
    /// How many media the site has.
    pub media: u16,
    /// It has left the site, and holds nothing.
    pub released: bool,
    /// The site's keys.
    pub keys: WrappedKeys,
    /// The data keys that came after the first.
    pub epochs: EpochKeys,
    /// When the site's directory was last made anew from its media, ms since the Unix epoch; 0 where it never was. A directory
    /// from before has the site no more.
    pub recovered_ms: u64,
}

/// The stored form of when a site was recovered.
fn encode_recovered(recovered_ms: u64) -> [u8; RECOVERED_BYTES] {
    let mut bytes = [0; RECOVERED_BYTES];
    if recovered_ms > 0 {
        bytes[..4].copy_from_slice(RECOVERED_MAGIC);
        bytes[8..16].copy_from_slice(&recovered_ms.to_le_bytes());
        let crc = crc32c(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// Reads it from a page; `None` when it is damaged.
fn decode_recovered(page: &[u8]) -> Option<u64> {
    let Some(bytes) = page.get(RECOVERED_AT..RECOVERED_AT + RECOVERED_BYTES) else { return Some(0) };
    let recovered_ms = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    (bytes == encode_recovered(recovered_ms)).then_some(recovered_ms)
}

impl Superblock {
    /// The stored form: one page.
    pub fn encode(&self) -> PageBuf {
        let has_epochs = self.epochs != EpochKeys::default();
        let mut raw = Raw {
            magic: MAGIC,
            version: U16::new(if has_epochs { VERSION_EPOCHS } else { VERSION }),
            zero: U16::new(0),
            generation: U64::new(self.generation),
            site: self.site.0,
            medium: self.medium.0,
            medium_bytes: U64::new(self.medium_bytes),
            container_bytes: U32::new(self.params.container_bytes),
            segment_bytes: U32::new(self.params.segment_bytes),
            segments_max: U32::new(self.params.segments_max),
            log_pages: U32::new(self.params.log_pages),
            fragments_max: U32::new(self.params.fragments_max),
            media: U16::new(self.media),
            released: U16::new(u16::from(self.released)),
            keys: self.keys.encode(),
            crc: U32::new(0),
        };
        raw.crc = U32::new(crc32c(raw.as_bytes()));
        let mut bytes = raw.as_bytes().to_vec();
        if has_epochs {
            bytes.extend(self.epochs.encode());
        }
        if self.recovered_ms > 0 {
            bytes.resize(RECOVERED_AT, 0);
            bytes.extend(encode_recovered(self.recovered_ms));
        }
        PageBuf::copy_of(&bytes)
    }

    /// Reads one copy; `None` when it is damaged or no superblock of a known version.
    pub fn decode(page: &[u8]) -> Option<Self> {
        let (raw, behind) = Raw::read_from_prefix(page).ok()?;
        let blank = Raw { crc: U32::new(0), ..raw };
        let epochs = match raw.version.get() {
            VERSION => EpochKeys::default(),
            VERSION_EPOCHS => EpochKeys::decode(behind)?,
            _ => return None,
        };
        if raw.magic != MAGIC || crc32c(blank.as_bytes()) != raw.crc.get() {
            return None;
        }
        let params = Params {
            container_bytes: raw.container_bytes.get(),
            segment_bytes: raw.segment_bytes.get(),
            segments_max: raw.segments_max.get(),
            log_pages: raw.log_pages.get(),
            fragments_max: raw.fragments_max.get(),
        };
        let keys = WrappedKeys::decode(&raw.keys)?;
        let sane = params.are_sane() && raw.released.get() <= 1;
        sane.then_some(Self {
            generation: raw.generation.get(),
            site: SiteId(raw.site),
            medium: MediumId(raw.medium),
            medium_bytes: raw.medium_bytes.get(),
            params,
            media: raw.media.get(),
            released: raw.released.get() == 1,
            keys,
            epochs,
            recovered_ms: decode_recovered(page)?,
        })
    }
}

/// Reads the superblock of a medium and writes nothing: the medium may be another site's. `None` when neither copy is
/// one.
///
/// # Errors
/// When neither copy could be read at all.
pub async fn read_superblock(medium: &dyn Medium) -> Result<Option<Superblock>, MediaError> {
    let copies = read_copies(medium).await?;
    Ok(copies.into_iter().flatten().max_by_key(|copy| copy.generation))
}

async fn read_copies(medium: &dyn Medium) -> Result<[Option<Superblock>; 2], MediaError> {
    if medium.len() < SUPERBLOCK_COPY + PAGE as u64 {
        return Ok([None, None]);
    }
    match [medium.read(PLACES[0], PAGE).await, medium.read(PLACES[1], PAGE).await] {
        [Err(error), Err(_)] => Err(error),
        pages => Ok(pages.map(|page| page.ok().and_then(|page| Superblock::decode(page.as_ref())))),
    }
}

/// Writes the copies that are not `superblock` anew, and never one that is: a crash must not find both half-written. Says
/// whether there was one.
///
/// # Errors
/// When a copy cannot be read or written.
pub async fn mend_superblock(medium: &dyn Medium, superblock: &Superblock) -> Result<bool, MediaError> {
    let copies = read_copies(medium).await?;
    let mut mended = false;
    for (offset, copy) in PLACES.into_iter().zip(&copies) {
        if copy.as_ref() != Some(superblock) {
            tracing::warn!(
                medium = medium.name(),
                offset,
                "a superblock copy is damaged or old: rewriting it"
            );
            medium.write_durable(offset, superblock.encode().share()).await?;
            mended = true;
        }
    }
    Ok(mended)
}

/// Writes both copies, one after the other; a damaged one first, so that a sound one stands until then.
///
/// # Errors
/// When a write or sync fails; at least one old or new copy then stands, if one did before.
pub async fn write_superblock(medium: &dyn Medium, superblock: &Superblock) -> Result<(), MediaError> {
    let page = superblock.encode().share();
    let mut order = PLACES;
    if matches!(read_copies(medium).await, Ok([Some(_), None])) {
        order.reverse();
    }
    for offset in order {
        medium.write(offset, page.clone()).await?;
        medium.sync().await?;
    }
    Ok(())
}
