//! Buckets of eight entries, a cache line each; the bucket follows from the tag, so growing needs no fingerprints.

use units::{ContainerId, Fingerprint, Map};

use crate::Holder;

const BUCKET: usize = 8;
/// 4096 buckets: 256 KiB for an empty index.
const BUCKET_BITS_MIN: u32 = 12;
/// Grow or sample when this share of the entries is taken, in percent: beyond it buckets overflow often.
const LOAD_PERCENT_MAX: usize = 70;
const LEVEL_MAX: u32 = 20;

/// Fingerprint to container, in bounded memory.
#[derive(Debug)]
pub struct Index {
    buckets: Vec<[u64; BUCKET]>,
    bits: u32,
    bits_max: u32,
    level: u32,
    len: usize,
    holders: Vec<Option<Holder>>,
    numbers: Map<ContainerId, u32>,
    tag_mask: u32,
}

impl Index {
    /// An index of at most `bytes_max` bytes, not counting 40 bytes for each container it names.
    pub fn new(bytes_max: usize) -> Self {
        let buckets = (bytes_max / (BUCKET * 8)).max(1 << BUCKET_BITS_MIN);
        let bits = BUCKET_BITS_MIN;
        Self {
            buckets: vec![[0; BUCKET]; 1 << bits],
            bits,
            bits_max: buckets.ilog2().clamp(BUCKET_BITS_MIN, 31),
            level: 0,
            len: 0,
            holders: Vec::new(),
            numbers: Map::default(),
            tag_mask: u32::MAX,
        }
    }

    /// The same with tags of `tag_bits` bits, at most 32: the fewer, the more guesses are wrong. For tests of callers.
    #[must_use]
    pub fn with_tag_bits(mut self, tag_bits: u32) -> Self {
        self.tag_mask = u32::MAX.checked_shr(32 - tag_bits.min(32)).unwrap_or(0);
        self
    }

    /// Fingerprints it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of its table.
    pub fn bytes(&self) -> usize {
        self.buckets.len() * BUCKET * 8
    }

    /// How many times the sampling was halved.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Whether the container's directory was entered.
    pub fn knows(&self, container: ContainerId) -> bool {
        self.numbers.contains_key(&container)
    }

    /// Enters the fingerprints of a container's directory.
    pub fn insert(&mut self, holder: Holder, fingerprints: impl IntoIterator<Item = Fingerprint>) {
        let number = *self.numbers.entry(holder.container).or_insert_with(|| {
            self.holders.push(Some(holder));
            // 2^32 containers of 8 MiB are more than a site holds.
            (self.holders.len() - 1) as u32
        });
        for fp in fingerprints {
            let tag = tag(&fp) & self.tag_mask;
            if is_hook(tag, self.level) {
                self.make_room();
                self.put(tag, number);
            }
        }
    }

    /// Forgets a container: its entries answer nothing from now on.
    pub fn remove(&mut self, container: ContainerId) {
        if let Some(number) = self.numbers.remove(&container) {
            self.holders[number as usize] = None;
        }
    }

    /// Containers that may hold the block, newest guess first; at most eight.
    pub fn lookup(&self, fp: &Fingerprint) -> impl Iterator<Item = Holder> + '_ {
        let tag = tag(fp) & self.tag_mask;
        let bucket = if is_hook(tag, self.level) { Some(&self.buckets[self.place(tag)]) } else { None };
        let entries = bucket.into_iter().flatten().copied();
        entries
            .filter(move |entry| *entry != 0 && (entry >> 32) as u32 == tag)
            .filter_map(|entry| self.holders.get((entry as u32 - 1) as usize).copied().flatten())
    }

    fn place(&self, tag: u32) -> usize {
        (tag.wrapping_mul(0x9e37_79b9) >> (32 - self.bits)) as usize
    }

    fn put(&mut self, tag: u32, number: u32) {
        let entry = u64::from(tag) << 32 | u64::from(number + 1);
        let place = self.place(tag);
        let bucket = &mut self.buckets[place];
        if bucket.contains(&entry) {
            return;
        }
        // Newest first; the oldest of a full bucket goes.
        if bucket[BUCKET - 1] == 0 {
            self.len += 1;
        }
        bucket.copy_within(..BUCKET - 1, 1);
        bucket[0] = entry;
    }

    fn make_room(&mut self) {
        if self.len * 100 < self.buckets.len() * BUCKET * LOAD_PERCENT_MAX {
            return;
        }
        if self.bits < self.bits_max {
            self.bits += 1;
        } else if self.level < LEVEL_MAX {
            self.level += 1;
        } else {
            return;
        }
        let old = std::mem::replace(&mut self.buckets, vec![[0; BUCKET]; 1 << self.bits]);
        self.len = 0;
        for entry in old.iter().flat_map(|bucket| bucket.iter().rev()).filter(|entry| **entry != 0) {
            let (tag, number) = ((entry >> 32) as u32, *entry as u32 - 1);
            if is_hook(tag, self.level) && self.holders[number as usize].is_some() {
                self.put(tag, number);
            }
        }
    }
}

/// The upper half of the fingerprint's head: independent of nothing else the system derives from it.
fn tag(fp: &Fingerprint) -> u32 {
    (fp.head() >> 32) as u32
}

fn is_hook(tag: u32, level: u32) -> bool {
    tag & ((1 << level) - 1) == 0
}
