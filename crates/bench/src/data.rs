//! What is written: blocks that differ, compress and repeat as asked, made from a number and not kept.
//!
//! A block's content follows from the seed, its place and its generation (how often the place was written), so a
//! reader can tell every byte that should be there. Layout of a block:
//!
//! ```text
//! 0    8 bytes  place on the disk in blocks; DUPLICATE in a block of the repeated set
//! 8    8 bytes  generation; the content's number in a block of the repeated set
//! 16            noise from the pool, changed by a word of this block's own: does not compress
//! ...           zeros, as many as the share asked for
//! ```

#[cfg(test)]
mod tests;

/// Bytes in a block.
pub(crate) const BLOCK: usize = 4096;
/// The first eight bytes of a block that is one of the repeated set: no place on a disk.
const DUPLICATE: u64 = u64::MAX;
/// Different contents among the repeated blocks.
pub(crate) const DUPLICATE_CONTENTS: u64 = 1024;
/// Bytes before the noise.
const HEAD: usize = 16;
/// Words of noise: small enough to stay in a core's cache, a power of two, more than a block.
const POOL_WORDS: usize = 32 << 10;

/// Makes blocks. Shares are of 1.
#[derive(Debug)]
pub(crate) struct Generator {
    seed: u64,
    pool: Vec<u64>,
    /// Words of noise in a block.
    noise: usize,
    /// A block is of the repeated set when its number, as a part of 2^32, is below this.
    duplicates: u64,
}

impl Generator {
    /// Blocks of which `compressible` is zeros, and of which the share `duplicates` repeats others.
    pub(crate) fn new(seed: u64, compressible: f64, duplicates: f64) -> Self {
        let mut random = Random::new(seed);
        let pool = (0..POOL_WORDS).map(|_| random.next()).collect();
        let noise = (BLOCK as f64 * (1.0 - compressible.clamp(0.0, 1.0))) as usize;
        Self {
            seed,
            pool,
            noise: noise.saturating_sub(HEAD).min(BLOCK - HEAD) / 8,
            duplicates: (duplicates.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u64,
        }
    }

    /// Writes the content of block `place` in its generation `generation` to `out`, whole blocks. The first
    /// generation is 1; 0 is a block never written, all zeros.
    pub(crate) fn fill(&self, place: u64, generation: u32, out: &mut [u8]) {
        assert_eq!(out.len(), BLOCK, "one block at a time");
        if generation == 0 {
            out.fill(0);
            return;
        }
        let (first, second) = self.head(place, generation);
        out[..8].copy_from_slice(&first.to_le_bytes());
        out[8..HEAD].copy_from_slice(&second.to_le_bytes());
        let word = mix(self.seed ^ mix(first ^ mix(second)));
        let from = word as usize % (POOL_WORDS - BLOCK / 8);
        let (noise, zeros) = out[HEAD..].split_at_mut(self.noise * 8);
        for (to, pooled) in noise.chunks_exact_mut(8).zip(&self.pool[from..]) {
            to.copy_from_slice(&(pooled ^ word).to_le_bytes());
        }
        zeros.fill(0);
    }

    fn head(&self, place: u64, generation: u32) -> (u64, u64) {
        let number = mix(self.seed ^ mix(place.rotate_left(32) ^ u64::from(generation)));
        if number >> 32 < self.duplicates {
            (DUPLICATE, number % DUPLICATE_CONTENTS)
        } else {
            (place, u64::from(generation))
        }
    }

    /// Compares a block read with what was written there; `room` is a block to work in.
    pub(crate) fn check(
        &self,
        place: u64,
        generation: u32,
        read: &[u8],
        room: &mut [u8],
    ) -> Result<(), String> {
        self.fill(place, generation, room);
        if read == room {
            return Ok(());
        }
        let word = |at: usize| {
            u64::from_le_bytes(read[at..at + 8].try_into().expect("a block is longer than its head"))
        };
        let at = read.iter().zip(room.iter()).position(|(one, other)| one != other).unwrap_or(0);
        Err(format!(
            "block {place} should be of generation {generation} and differs from byte {at} on; its head says \
             place {}, generation {}",
            word(0),
            word(8)
        ))
    }
}

/// A bijection of 64 bits that scatters (the finaliser of SplitMix64, Steele et al. 2014).
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// SplitMix64: enough for places and noise, and the same on every run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
