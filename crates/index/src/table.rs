//! Buckets of eight entries, a cache line each; the bucket follows from the tag, so growing needs no fingerprints.
//!
//! Entries of a container that is forgotten stay, **dead**, until others take their places or a sweep clears the table: a
//! sweep comes before the sampling gets coarser, so that follows what is live, whatever was written over time.

use units::{ContainerId, Fingerprint, Map};

use crate::Holder;

const BUCKET: usize = 8;
/// 4096 buckets: 256 KiB for an empty index.
const BUCKET_BITS_MIN: u32 = 12;
/// Grow or sample when this share of the entries is taken, in percent: beyond it buckets overflow often.
const LOAD_PERCENT_MAX: usize = 70;
const LEVEL_MAX: u32 = 20;
/// A sweep is worth it when it clears at least one part in so many of the table.
const SWEEP_SHARE: usize = 4;
/// Forgotten containers whose numbers wait for a sweep, at least: it passes over the whole table.
const FORGOTTEN_MIN: usize = 1024;
/// The sampling gets finer when the table would still be no fuller than one part in so many of what it may be.
const FINER_SHARE: usize = 4;

/// Fingerprint to container, in bounded memory.
#[derive(Debug)]
pub struct Index {
    buckets: Vec<[u64; BUCKET]>,
    bits: u32,
    bits_max: u32,
    level: u32,
    /// Entries taken, dead ones included.
    taken: usize,
    dead: usize,
    holders: Vec<Held>,
    /// Numbers of forgotten containers that entries may still name.
    forgotten: Vec<u32>,
    /// Numbers that no entry names.
    free: Vec<u32>,
    numbers: Map<ContainerId, u32>,
    tag_mask: u32,
}

/// What a number stands for.
#[derive(Debug)]
struct Held {
    /// `None` when it is forgotten.
    holder: Option<Holder>,
    /// Entries that name it.
    entries: u32,
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
            taken: 0,
            dead: 0,
            holders: Vec::new(),
            forgotten: Vec::new(),
            free: Vec::new(),
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
        self.taken - self.dead
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Containers it has numbers for, forgotten ones among them.
    pub fn numbers(&self) -> usize {
        self.holders.len()
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
        let number = match self.numbers.get(&holder.container) {
            Some(number) => *number,
            None => self.number(holder),
        };
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
        let Some(number) = self.numbers.remove(&container) else { return };
        let held = &mut self.holders[number as usize];
        held.holder = None;
        self.dead += held.entries as usize;
        if held.entries == 0 {
            self.free.push(number);
            return;
        }
        self.forgotten.push(number);
        if self.forgotten.len() >= FORGOTTEN_MIN.max(self.numbers.len()) {
            self.sweep();
        }
    }

    fn number(&mut self, holder: Holder) -> u32 {
        let held = Held { holder: Some(holder), entries: 0 };
        let number = match self.free.pop() {
            Some(number) => {
                self.holders[number as usize] = held;
                number
            }
            None => {
                self.holders.push(held);
                // 2^32 containers of 8 MiB are more than a site holds.
                (self.holders.len() - 1) as u32
            }
        };
        self.numbers.insert(holder.container, number);
        number
    }

    /// Containers that may hold the block, newest guess first; at most eight.
    pub fn lookup(&self, fp: &Fingerprint) -> impl Iterator<Item = Holder> + '_ {
        let tag = tag(fp) & self.tag_mask;
        let bucket = if is_hook(tag, self.level) { Some(&self.buckets[self.place(tag)]) } else { None };
        let entries = bucket.into_iter().flatten().copied();
        entries
            .filter(move |entry| *entry != 0 && (entry >> 32) as u32 == tag)
            .filter_map(|entry| self.holders.get(number_of(entry) as usize).and_then(|held| held.holder))
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
        // Newest first; of a full bucket a dead one goes, or the oldest.
        let is_dead = |entry: &u64| *entry == 0 || self.holders[number_of(*entry) as usize].holder.is_none();
        let at = bucket.iter().rposition(is_dead).unwrap_or(BUCKET - 1);
        let gone = bucket[at];
        bucket.copy_within(..at, 1);
        bucket[0] = entry;
        self.taken += 1;
        if gone != 0 {
            self.drop_entry(gone);
        }
        self.holders[number as usize].entries += 1;
    }

    /// An entry has left the table.
    fn drop_entry(&mut self, entry: u64) {
        self.taken -= 1;
        let held = &mut self.holders[number_of(entry) as usize];
        held.entries -= 1;
        self.dead -= usize::from(held.holder.is_none());
    }

    /// Entries that may be taken.
    fn most(&self) -> usize {
        self.buckets.len() * BUCKET * LOAD_PERCENT_MAX / 100
    }

    fn make_room(&mut self) {
        if self.taken < self.most() {
            return;
        }
        if self.dead * SWEEP_SHARE >= self.taken {
            return self.sweep();
        }
        if self.bits < self.bits_max {
            self.bits += 1;
        } else if self.level < LEVEL_MAX {
            self.level += 1;
        } else {
            return;
        }
        let old = std::mem::replace(&mut self.buckets, vec![[0; BUCKET]; 1 << self.bits]);
        (self.taken, self.dead) = (0, 0);
        self.holders.iter_mut().for_each(|held| held.entries = 0);
        self.free_forgotten();
        for entry in old.iter().flat_map(|bucket| bucket.iter().rev()).filter(|entry| **entry != 0) {
            let (tag, number) = ((entry >> 32) as u32, number_of(*entry));
            if is_hook(tag, self.level) && self.holders[number as usize].holder.is_some() {
                self.put(tag, number);
            }
        }
    }

    /// Clears dead entries; the sampling gets finer where what is left is little.
    fn sweep(&mut self) {
        let holders = &self.holders;
        for bucket in &mut self.buckets {
            let mut kept = 0;
            for at in 0..BUCKET {
                let entry = bucket[at];
                if entry != 0 && holders[number_of(entry) as usize].holder.is_some() {
                    bucket[kept] = entry;
                    kept += 1;
                }
            }
            bucket[kept..].fill(0);
        }
        self.taken -= self.dead;
        self.dead = 0;
        self.free_forgotten();
        if self.level > 0 && self.taken * FINER_SHARE <= self.most() {
            // What comes is sampled finer; what is there stays as it was sampled.
            self.level -= 1;
        }
    }

    /// No entry names a forgotten container any more.
    fn free_forgotten(&mut self) {
        for number in self.forgotten.drain(..) {
            self.holders[number as usize].entries = 0;
            self.free.push(number);
        }
    }
}

fn number_of(entry: u64) -> u32 {
    entry as u32 - 1
}

/// The upper half of the fingerprint's head: independent of nothing else the system derives from it.
fn tag(fp: &Fingerprint) -> u32 {
    (fp.head() >> 32) as u32
}

fn is_hook(tag: u32, level: u32) -> bool {
    tag & ((1 << level) - 1) == 0
}
