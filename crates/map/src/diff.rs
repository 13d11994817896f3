//! What differs between two trees: only pages with different names are read.
//!
//! Pages are compared level by level, many neighbours at a time, so that whoever loads them can read them together.

use seam::BoxFuture;

use crate::page::{Entry, FANOUT, Place, Root, span};
use crate::read::{Extent, Pages};

/// Pages of a level that are compared together: as many as a page stands above, twice.
const AT_ONCE: usize = 128;

/// The stretches of `start .. end` that differ between two trees, in order; `mapped` says how they are in `new`. At most
/// `limit` stretches, then it stops: go on from the end of the last. Pages that both trees share are not read.
///
/// # Errors
/// When a page cannot be loaded.
pub async fn diff<P: Pages>(
    pages: &P,
    old: Option<&Root>,
    new: Option<&Root>,
    start: u64,
    end: u64,
    limit: usize,
) -> Result<Vec<Extent>, P::Error> {
    let (old, new) = (old.map(Root::top), new.map(Root::top));
    let level = old.iter().chain(&new).map(|(level, _)| *level).max().unwrap_or(0);
    let mut walk = Walk { pages, start, end, limit, out: Vec::new() };
    let top = Pair { old, new, base: 0 };
    if walk.is_wanted(&top, level) {
        walk.level(vec![top], level).await?;
    }
    Ok(walk.out)
}

/// A subtree: its level and its entry.
type Side = Option<(u8, Entry)>;

/// What stands at one place in both trees, from block `base` on. A side may be lower: the top of a smaller disk's tree.
#[derive(Clone, Copy)]
struct Pair {
    old: Side,
    new: Side,
    base: u64,
}

impl Pair {
    fn differs(&self) -> bool {
        let name = |side: &Side| side.map(|(level, entry)| (level, entry.fingerprint));
        name(&self.old) != name(&self.new)
    }
}

struct Walk<'a, P> {
    pages: &'a P,
    start: u64,
    end: u64,
    limit: usize,
    out: Vec<Extent>,
}

impl<P: Pages> Walk<'_, P> {
    /// Whether pages of `level` differ somewhere that is asked for.
    fn is_wanted(&self, pair: &Pair, level: u8) -> bool {
        let behind = pair.base.saturating_add(span(level).saturating_mul(FANOUT));
        pair.differs() && behind > self.start && pair.base < self.end
    }

    /// Compares neighbours of `level`, all of which differ. False when the limit is reached.
    fn level(&mut self, pairs: Vec<Pair>, level: u8) -> BoxFuture<'_, Result<bool, P::Error>> {
        Box::pin(async move {
            for some in pairs.chunks(AT_ONCE) {
                let below = self.below(some, level).await?;
                let goes_on = match level {
                    0 => below.iter().all(|pair| self.differs(pair.base, pair.new.is_some())),
                    _ => self.level(below, level - 1).await?,
                };
                if !goes_on {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// What differs one level below these.
    async fn below(&self, pairs: &[Pair], level: u8) -> Result<Vec<Pair>, P::Error> {
        let sides = pairs.iter().flat_map(|pair| [pair.old, pair.new]).flatten();
        let stored = sides.filter_map(|(have, entry)| match entry.place {
            Place::Stored(address) if have >= level => Some((entry.fingerprint, address)),
            _ => None,
        });
        self.pages.fetch(level, &stored.collect::<Vec<_>>()).await;
        let mut below = Vec::new();
        for pair in pairs {
            let (old, new) = (self.entries(pair.old, level).await?, self.entries(pair.new, level).await?);
            let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
            loop {
                let at = [old.peek(), new.peek()].into_iter().flatten().map(|(index, _)| *index).min();
                let Some(index) = at else { break };
                let is_next = |next: &(u64, (u8, Entry))| next.0 == index;
                let old = old.next_if(is_next).map(|(_, side)| side);
                let new = new.next_if(is_next).map(|(_, side)| side);
                let base = pair.base.saturating_add(index.saturating_mul(span(level)));
                let next = Pair { old, new, base };
                let is_wanted = if level == 0 { next.differs() } else { self.is_wanted(&next, level - 1) };
                if is_wanted {
                    below.push(next);
                }
            }
        }
        Ok(below)
    }

    /// What stands at the places of a page of `level`, in order; the top of a lower tree stands at the first.
    async fn entries(&self, side: Side, level: u8) -> Result<Vec<(u64, (u8, Entry))>, P::Error> {
        Ok(match side {
            Some((have, _)) if have < level => side.into_iter().map(|side| (0, side)).collect(),
            Some((_, Entry { fingerprint, place: Place::Stored(address), .. })) => {
                let page = self.pages.load(level, fingerprint, &address).await?;
                let lower = level.saturating_sub(1);
                page.places().map(|(index, entry)| (index, (lower, *entry))).collect()
            }
            _ => Vec::new(),
        })
    }

    fn differs(&mut self, lba: u64, mapped: bool) -> bool {
        if lba < self.start || lba >= self.end {
            return true;
        }
        let full = self.out.len() == self.limit;
        match self.out.last_mut() {
            Some(last) if last.end == lba && last.mapped == mapped => last.end = lba + 1,
            _ if full => return false,
            _ => self.out.push(Extent { start: lba, end: lba + 1, mapped }),
        }
        true
    }
}
