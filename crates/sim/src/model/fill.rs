//! Contents that say what they are: a block is made from a value id, and gives the id back.

use std::sync::Arc;

use units::BLOCK;

use crate::medium::SECTOR;

/// Bytes at the start of each sector that hold the id.
const ID_BYTES: usize = 8;
/// Set in the ids of shared contents: no value id that is handed out has it.
const SHARED: u64 = 1 << 63;

/// Contents of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// All zeros: never written, trimmed, or zeros written.
    Zero,
    /// What [`Fill`] makes of this value id.
    Value(u64),
    /// Anything else, such as the result of a partial write.
    Bytes(Arc<[u8; BLOCK]>),
}

/// How contents are made: a function of these settings and the value id.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    /// Two seeds share no contents.
    pub seed: u64,
    /// Share of each block that repeats itself and compresses away.
    pub compressible_percent: u8,
    /// Share of value ids whose contents are drawn from a small common set.
    pub duplicate_percent: u8,
    /// Size of that set.
    pub duplicates: u64,
}

impl Default for Fill {
    /// Half compressible, one in five a duplicate of 64.
    fn default() -> Self {
        Self { seed: 0, compressible_percent: 50, duplicate_percent: 20, duplicates: 64 }
    }
}

impl Fill {
    /// The block of value `id`. Each sector begins with the id of its contents, so mixtures show.
    pub fn block(&self, id: u64) -> [u8; BLOCK] {
        self.shaped(self.contents_id(id))
    }

    /// The contents id of `block` (equal for duplicates), or `None` when this fill did not make it.
    pub fn identify(&self, block: &[u8]) -> Option<u64> {
        let id = sector_id(block.get(..SECTOR)?);
        (self.shaped(id)[..] == *block).then_some(id)
    }

    /// What `block` is, in words: for people who look for the bug.
    pub fn describe(&self, block: &[u8]) -> String {
        if block.iter().all(|byte| *byte == 0) {
            return "zeros".to_owned();
        }
        if let Some(id) = self.identify(block) {
            return name(id);
        }
        let sectors = block.chunks(SECTOR).enumerate().map(|(number, sector)| {
            let id = sector_id(sector);
            let whole = self.shaped(id);
            let range = number * SECTOR..number * SECTOR + sector.len();
            match whole.get(range) {
                _ if sector.iter().all(|byte| *byte == 0) => "zeros".to_owned(),
                Some(expected) if expected == sector => name(id),
                _ => "unknown".to_owned(),
            }
        });
        format!("a mixture, by sector: {}", sectors.collect::<Vec<_>>().join(", "))
    }

    /// Value ids with the same contents id have the same contents.
    fn contents_id(&self, id: u64) -> u64 {
        let draw = self.mix(id, u64::MAX);
        if draw % 100 < u64::from(self.duplicate_percent) && self.duplicates > 0 {
            SHARED | ((draw >> 8) % self.duplicates)
        } else {
            id
        }
    }

    fn shaped(&self, id: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&id.to_le_bytes());
        hasher.finalize_xof().fill(&mut block);
        let repeated = SECTOR * usize::from(self.compressible_percent.min(100)) / 100;
        let pattern = self.mix(id, 0).to_le_bytes();
        for sector in block.chunks_exact_mut(SECTOR) {
            for chunk in sector[SECTOR - repeated..].chunks_mut(pattern.len()) {
                chunk.copy_from_slice(&pattern[..chunk.len()]);
            }
            sector[..ID_BYTES].copy_from_slice(&id.to_le_bytes());
        }
        block
    }

    fn mix(&self, id: u64, salt: u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&id.to_le_bytes()).update(&salt.to_le_bytes());
        let mut word = [0; 8];
        word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(word)
    }
}

fn sector_id(sector: &[u8]) -> u64 {
    let mut word = [0; ID_BYTES];
    word.copy_from_slice(&sector[..ID_BYTES]);
    u64::from_le_bytes(word)
}

fn name(id: u64) -> String {
    if id & SHARED == 0 { format!("value {id}") } else { format!("shared value {}", id & !SHARED) }
}
