//! Hash tables whose iteration order is the same in every run.

use std::hash::{BuildHasherDefault, Hasher};

/// A hash map with a fixed hasher. Keys are ids and fingerprints, never text chosen by a client.
#[allow(clippy::disallowed_types)] // the hasher is fixed here
pub type Map<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<UnitHasher>>;
/// A hash set with a fixed hasher.
#[allow(clippy::disallowed_types)] // the hasher is fixed here
pub type Set<K> = std::collections::HashSet<K, BuildHasherDefault<UnitHasher>>;

/// Multiply-and-rotate hashing for short keys of fixed size.
#[derive(Debug, Default, Clone)]
pub struct UnitHasher(u64);

impl UnitHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for UnitHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.add(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.add(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}
