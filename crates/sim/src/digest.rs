//! The running digest of a simulation: what happened, in order, in 128 bits.

/// Bytes gathered before they are hashed: long inputs hash many times faster than short ones.
const BUFFER_BYTES: usize = 16 << 10;

/// What kind of event is folded: the first byte of each, so that no two kinds can be confused.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Event {
    Poll = 1,
    Time = 2,
    Kill = 3,
    Random = 4,
    Medium = 5,
    Link = 6,
    Trace = 7,
}

/// Hash over all events so far.
#[derive(Debug)]
pub(crate) struct Digest {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl Digest {
    pub(crate) fn new(seed: u64) -> Self {
        let mut digest = Self { hasher: blake3::Hasher::new(), buffer: Vec::with_capacity(BUFFER_BYTES) };
        digest.buffer.extend_from_slice(&seed.to_le_bytes());
        digest
    }

    /// Folds an event whose length follows from its kind.
    pub(crate) fn fold(&mut self, event: Event, words: &[u64]) {
        self.buffer.push(event as u8);
        for word in words {
            self.buffer.extend_from_slice(&word.to_le_bytes());
        }
        self.drain_when_full();
    }

    /// Folds an event of any length: the length goes in first.
    pub(crate) fn fold_bytes(&mut self, event: Event, bytes: &[u8]) {
        self.fold(event, &[bytes.len() as u64]);
        self.buffer.extend_from_slice(bytes);
        self.drain_when_full();
    }

    /// The hash of all that was folded.
    pub(crate) fn value(&self) -> u128 {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.buffer);
        let mut out = [0; 16];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_le_bytes(out)
    }

    fn drain_when_full(&mut self) {
        if self.buffer.len() >= BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }
}
