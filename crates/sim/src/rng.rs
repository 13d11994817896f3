//! Seeded randomness: the output stream of BLAKE3 over seed and label, so that each user has a stream of its own.

use std::ops::Range;

/// The denominator of every probability in this crate: parts per million.
pub const MILLION: u32 = 1_000_000;

/// Bytes drawn from the hash at once: large enough to make one draw a copy, small enough for hundreds of streams.
const BUFFER_BYTES: usize = 1024;

/// A stream of random numbers fixed by seed and label.
#[derive(Clone)]
pub struct Rng {
    source: blake3::OutputReader,
    buffer: Box<[u8; BUFFER_BYTES]>,
    used: usize,
}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rng(at {})", self.source.position())
    }
}

impl Rng {
    /// The stream named `label` of `seed`. Different labels give independent streams.
    pub fn new(seed: u64, label: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(label.as_bytes());
        Self { source: hasher.finalize_xof(), buffer: Box::new([0; BUFFER_BYTES]), used: BUFFER_BYTES }
    }

    /// Fills `out`.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.used == BUFFER_BYTES {
                self.source.fill(&mut self.buffer[..]);
                self.used = 0;
            }
            let count = out.len().min(BUFFER_BYTES - self.used);
            let (head, tail) = out.split_at_mut(count);
            head.copy_from_slice(&self.buffer[self.used..self.used + count]);
            self.used += count;
            out = tail;
        }
    }

    /// A uniform 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number in `0..count`; 0 when `count` is 0.
    pub fn below(&mut self, count: u64) -> u64 {
        // The high half of the product: uniform but for a bias of count / 2^64.
        ((u128::from(self.next_u64()) * u128::from(count)) >> 64) as u64
    }

    /// An index into a list of `len` items; 0 when it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number in `range`; its start when the range is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// True in `ppm` of a million cases.
    pub fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(u64::from(MILLION)) < u64::from(ppm)
    }

    /// True in half the cases.
    pub fn coin(&mut self) -> bool {
        self.next_u64() & 1 == 1
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
