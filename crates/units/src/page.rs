//! Buffers aligned to 4 KiB, as direct I/O wants them, in safe code.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in a page: the alignment and granularity of all media I/O.
pub const PAGE: usize = 4096;

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Pages needed to hold `bytes`.
pub const fn pages_for(bytes: usize) -> usize {
    bytes.div_ceil(PAGE)
}

/// `bytes` rounded up to whole pages.
pub const fn round_up_page(bytes: usize) -> usize {
    pages_for(bytes) * PAGE
}

/// An owned, page-aligned, zero-initialised buffer of whole pages.
#[derive(Clone)]
pub struct PageBuf {
    pages: Vec<Page>,
}

impl std::fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageBuf({} bytes)", self.len())
    }
}

impl PageBuf {
    /// A zeroed buffer of at least `bytes` bytes, rounded up to whole pages.
    pub fn zeroed(bytes: usize) -> Self {
        Self { pages: vec![Page([0; PAGE]); pages_for(bytes)] }
    }

    /// A copy of `bytes`, padded with zeros to whole pages.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf.as_mut()[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    /// Length in bytes: a multiple of [`PAGE`].
    pub fn len(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// Whether the buffer has no page.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Shares the whole buffer.
    pub fn share(self) -> PageSlice {
        let range = 0..self.len();
        PageSlice { buf: Arc::new(self), range }
    }
}

impl AsRef<[u8]> for PageBuf {
    fn as_ref(&self) -> &[u8] {
        self.pages.as_bytes()
    }
}

impl AsMut<[u8]> for PageBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut_bytes()
    }
}

/// A shared, read-only, page-aligned stretch of a [`PageBuf`]: one copy serves all members of a stripe.
#[derive(Clone, Debug)]
pub struct PageSlice {
    buf: Arc<PageBuf>,
    range: Range<usize>,
}

impl PageSlice {
    /// A part of this slice.
    ///
    /// # Panics
    /// When `range` is out of bounds or its ends are not page-aligned: a bug of the caller.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "page range out of bounds");
        assert!(range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE), "page range not aligned");
        Self { buf: self.buf.clone(), range: self.range.start + range.start..self.range.start + range.end }
    }

    /// Length in bytes: a multiple of [`PAGE`].
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether the slice has no page.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

impl AsRef<[u8]> for PageSlice {
    fn as_ref(&self) -> &[u8] {
        &self.buf.as_ref().as_ref()[self.range.clone()]
    }
}

impl From<PageBuf> for PageSlice {
    fn from(buf: PageBuf) -> Self {
        buf.share()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_padded() {
        let buf = PageBuf::copy_of(&[7; 5000]);
        assert_eq!(buf.len(), 8192);
        assert_eq!(buf.as_ref().as_ptr() as usize % PAGE, 0);
        assert_eq!(buf.as_ref()[4999], 7);
        assert_eq!(buf.as_ref()[5000], 0);
        let tail = buf.share().slice(4096..8192);
        assert_eq!(tail.as_ref()[0], 7);
        assert_eq!(tail.len(), 4096);
    }
}
