//! What changed since the tree was written.

use std::collections::BTreeMap;

use units::{Address, Fingerprint, Lba};

/// Ranges of blocks that became holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoleSet {
    /// Start to end (exclusive); neither overlapping nor touching.
    ranges: BTreeMap<u64, u64>,
}

impl HoleSet {
    /// Adds the blocks `start .. end`.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back()
            && e >= start
        {
            self.ranges.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
    }

    /// Whether the block is a hole.
    pub fn contains(&self, lba: u64) -> bool {
        self.ranges.range(..=lba).next_back().is_some_and(|(_, end)| *end > lba)
    }

    /// Whether all blocks of `start .. end` are holes.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        self.ranges.range(..=start).next_back().is_some_and(|(_, e)| *e >= end)
    }

    /// Whether any block of `start .. end` is a hole.
    pub fn intersects(&self, start: u64, end: u64) -> bool {
        self.ranges.range(..end).next_back().is_some_and(|(_, e)| *e > start)
    }

    /// Ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(start, end)| (*start, *end))
    }
}

/// What a layer says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<T> {
    /// It is here.
    Here(T),
    /// It is a hole.
    Hole,
    /// This layer says nothing; ask the one below.
    Below,
}

/// Changes of one disk, a value for each changed block; a point overrules a hole, since a hole removes the points
/// in its range when it comes.
#[derive(Debug, Clone)]
pub struct Overlay<T = (Fingerprint, Address)> {
    points: BTreeMap<u64, T>,
    holes: HoleSet,
}

impl<T> Default for Overlay<T> {
    fn default() -> Self {
        Self { points: BTreeMap::new(), holes: HoleSet::default() }
    }
}

impl<T> Overlay<T> {
    /// The block now has this value.
    pub fn put(&mut self, lba: Lba, value: T) -> Option<T> {
        self.points.insert(lba.0, value)
    }

    /// The blocks `lba .. lba + count` are holes now. Gives how many points went.
    pub fn punch(&mut self, lba: Lba, count: u64) -> u64 {
        let end = lba.0.saturating_add(count);
        let gone: Vec<u64> = self.points.range(lba.0..end).map(|(lba, _)| *lba).collect();
        for lba in &gone {
            self.points.remove(lba);
        }
        self.holes.insert(lba.0, end);
        gone.len() as u64
    }

    /// Lays a newer layer over this one.
    pub fn cover(&mut self, newer: &Self)
    where
        T: Clone,
    {
        for (start, end) in newer.holes.iter() {
            self.punch(Lba(start), end - start);
        }
        for (lba, value) in newer.points(0, u64::MAX) {
            self.put(lba, value.clone());
        }
    }

    /// What this layer says of a block.
    pub fn get(&self, lba: Lba) -> Found<&T> {
        match self.points.get(&lba.0) {
            Some(value) => Found::Here(value),
            None if self.holes.contains(lba.0) => Found::Hole,
            None => Found::Below,
        }
    }

    /// Points in `start .. end`, in order.
    pub fn points(&self, start: u64, end: u64) -> impl Iterator<Item = (Lba, &T)> + '_ {
        self.points.range(start..end.max(start)).map(|(lba, value)| (Lba(*lba), value))
    }

    /// The holes.
    pub fn holes(&self) -> &HoleSet {
        &self.holes
    }

    /// Whether anything in `start .. end` changed.
    pub fn touches(&self, start: u64, end: u64) -> bool {
        self.points.range(start..end.max(start)).next().is_some() || self.holes.intersects(start, end)
    }

    /// Points and hole ranges held.
    pub fn len(&self) -> usize {
        self.points.len() + self.holes.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.holes.is_empty()
    }
}
