//! The RAM cache: verified plaintext blocks and decoded map pages, bounded in bytes.
//!
//! Blocks are keyed by fingerprint: one copy serves every disk that holds the block. Pages are keyed by address.
//! Only what was opened and verified gets in, so a hit needs no check (R113).
//!
//! What it does not do: it never holds the only copy of anything, and knows no durability.

use std::hash::Hash;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache as Inner;
use units::{Fingerprint, UnitHasher};

type Hasher = std::hash::BuildHasherDefault<UnitHasher>;

/// A bounded map from key to shared value.
pub struct Cache<K, V> {
    inner: Inner<K, V, ByWeight<V>, Hasher>,
}

impl<K, V> std::fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

#[derive(Clone)]
struct ByWeight<V>(fn(&V) -> u64);

impl<K, V> Weighter<K, V> for ByWeight<V> {
    fn weight(&self, _key: &K, value: &V) -> u64 {
        (self.0)(value)
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// A cache of at most `bytes_max` bytes as `weight` counts them; `value_bytes` is the usual weight of a value.
    pub fn new(bytes_max: u64, value_bytes: u64, weight: fn(&V) -> u64) -> Self {
        let items = (bytes_max / value_bytes.max(1)).max(16) as usize;
        Self {
            inner: Inner::with(
                items,
                bytes_max,
                ByWeight(weight),
                Hasher::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
        }
    }

    /// The value, when it is there.
    pub fn get(&self, key: &K) -> Option<V> {
        self.inner.get(key)
    }

    /// Puts a value in; others may go.
    pub fn insert(&self, key: K, value: V) {
        self.inner.insert(key, value);
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.inner.weight()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.inner.clear();
    }
}

/// Plaintext blocks by fingerprint.
pub type BlockCache = Cache<Fingerprint, Arc<[u8]>>;

/// Bytes a block costs beyond its contents: key, reference count, table entry.
const BLOCK_OVERHEAD_BYTES: u64 = 64;

/// A cache of blocks of at most `bytes_max` bytes.
pub fn block_cache(bytes_max: u64) -> BlockCache {
    Cache::new(bytes_max, units::BLOCK_U64 + BLOCK_OVERHEAD_BYTES, |block| {
        block.len() as u64 + BLOCK_OVERHEAD_BYTES
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bytes_and_gives_what_was_put() {
        let cache = block_cache(1 << 20);
        for i in 0..10_000u32 {
            let mut fp = [0; 16];
            fp[..4].copy_from_slice(&i.to_le_bytes());
            cache.insert(Fingerprint(fp), vec![i as u8; 4096].into());
            assert!(cache.bytes() <= 1 << 20);
            if let Some(block) = cache.get(&Fingerprint(fp)) {
                assert_eq!(block[0], i as u8);
            }
        }
        assert!(cache.bytes() > 1 << 19, "it is used");
    }
}
