//! The contents of a medium: sparse pages, shared between clones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use units::PAGE;

/// Bytes a disk writes as a whole: what a power cut tears between.
pub const SECTOR: usize = 512;
/// Bits of a sector mask: all sectors of a page.
pub(super) const ALL_SECTORS: u8 = u8::MAX;
const PAGE_U64: u64 = PAGE as u64;
const PAGE_BITS: u64 = PAGE_U64 * 8;

pub(super) type Page = [u8; PAGE];

static ZERO: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE]));

/// Contents of a medium. A clone costs nothing until one of the two changes. Places never written read as zeros.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    len: u64,
    pages: Arc<BTreeMap<u64, Arc<Page>>>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} bytes, {} pages)", self.len, self.pages.len())
    }
}

/// A page number and what a write does to it: new bytes (`None`: given back), in the sectors of the mask.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) page: u64,
    pub(super) bytes: Option<Arc<Page>>,
    pub(super) sectors: u8,
}

impl Image {
    /// An empty medium of `len` bytes.
    ///
    /// # Panics
    /// When `len` is not a multiple of [`PAGE`].
    pub fn new(len: u64) -> Self {
        assert!(len.is_multiple_of(PAGE_U64), "a medium has whole pages");
        Self { len, pages: Arc::default() }
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the medium has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies the bytes at `offset` into `out`; zeros beyond the end.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let start = (at % PAGE_U64) as usize;
            let count = (PAGE - start).min(out.len() - done);
            match self.pages.get(&(at / PAGE_U64)) {
                Some(page) => out[done..done + count].copy_from_slice(&page[start..start + count]),
                None => out[done..done + count].fill(0),
            }
            done += count;
        }
    }

    /// Writes `bytes` at `offset`: what a test does to a medium by hand.
    ///
    /// # Panics
    /// When the bytes do not fit.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= self.len, "a write beyond the end of the image");
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let start = (at % PAGE_U64) as usize;
            let count = (PAGE - start).min(bytes.len() - done);
            self.page_mut(at / PAGE_U64)[start..start + count].copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
    }

    /// Flips bit `bit` of the medium (bit 0 of byte 0 is bit 0).
    ///
    /// # Panics
    /// When it lies beyond the end.
    pub fn flip_bit(&mut self, bit: u64) {
        assert!(bit < self.len * 8, "a bit beyond the end of the image");
        flip(self.page_mut(bit / PAGE_BITS), bit);
    }

    /// Offset and bytes of every page that is not all zeros, in order.
    pub fn nonzero_pages(&self) -> impl Iterator<Item = (u64, &[u8; PAGE])> {
        self.pages
            .iter()
            .filter(|(_, page)| page[..] != ZERO[..])
            .map(|(number, page)| (number * PAGE_U64, &**page))
    }

    /// How many bytes are not zero.
    pub fn nonzero_bytes(&self) -> u64 {
        self.pages.values().map(|page| page.iter().filter(|&&byte| byte != 0).count() as u64).sum()
    }

    /// Hash of size and contents. Zeros written and never written are the same.
    pub fn digest(&self) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.len.to_le_bytes());
        for (offset, page) in self.nonzero_pages() {
            hasher.update(&offset.to_le_bytes()).update(page);
        }
        let mut out = [0; 16];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_le_bytes(out)
    }

    /// Pages ever written and not given back.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64
    }

    pub(super) fn is_allocated(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Numbers of the allocated pages in `range`.
    pub(super) fn allocated_in(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        self.pages.range(range).map(|(&number, _)| number)
    }

    /// Applies what a write does to one page.
    pub(super) fn apply(&mut self, piece: &Piece) {
        match &piece.bytes {
            _ if piece.sectors == 0 => {}
            None => {
                Arc::make_mut(&mut self.pages).remove(&piece.page);
            }
            Some(bytes) if piece.sectors == ALL_SECTORS => {
                Arc::make_mut(&mut self.pages).insert(piece.page, bytes.clone());
            }
            Some(bytes) => merge(self.page_mut(piece.page), bytes, piece.sectors),
        }
    }

    fn page_mut(&mut self, number: u64) -> &mut Page {
        let page = Arc::make_mut(&mut self.pages).entry(number).or_insert_with(|| ZERO.clone());
        Arc::make_mut(page)
    }
}

/// The pieces of a write of whole pages.
pub(super) fn pieces_of(offset: u64, bytes: &[u8]) -> Vec<Piece> {
    (offset / PAGE_U64..)
        .zip(bytes.chunks_exact(PAGE))
        .map(|(page, chunk)| {
            let mut copy = [0; PAGE];
            copy.copy_from_slice(chunk);
            Piece { page, bytes: Some(Arc::new(copy)), sectors: ALL_SECTORS }
        })
        .collect()
}

/// Copies the sectors of the mask.
pub(super) fn merge(into: &mut [u8], from: &Page, sectors: u8) {
    for sector in (0..PAGE / SECTOR).filter(|sector| sectors >> sector & 1 == 1) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        into[range.clone()].copy_from_slice(&from[range]);
    }
}

/// Flips bit `bit` of the medium within its page.
pub(super) fn flip(page: &mut Page, bit: u64) {
    page[(bit % PAGE_BITS / 8) as usize] ^= 1 << (bit % 8);
}
