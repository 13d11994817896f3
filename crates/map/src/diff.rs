//! What differs between two trees: only pages with different names are read.

use seam::BoxFuture;

use crate::page::{Entry, FANOUT, Place, Root, span};
use crate::read::{Extent, Pages};

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
    walk.page(old, new, level, 0).await?;
    Ok(walk.out)
}

/// A subtree: its level and its entry.
type Side = Option<(u8, Entry)>;

struct Walk<'a, P> {
    pages: &'a P,
    start: u64,
    end: u64,
    limit: usize,
    out: Vec<Extent>,
}

impl<P: Pages> Walk<'_, P> {
    /// Compares what stands at `level` from block `base` on. A side may be lower: the top of a smaller disk's tree.
    /// False when the limit is reached.
    fn page(&mut self, old: Side, new: Side, level: u8, base: u64) -> BoxFuture<'_, Result<bool, P::Error>> {
        Box::pin(async move {
            let behind = base.saturating_add(span(level).saturating_mul(FANOUT));
            let name = |side: &Side| side.map(|(level, entry)| (level, entry.fingerprint));
            if name(&old) == name(&new) || behind <= self.start || base >= self.end {
                return Ok(true);
            }
            let (old, new) = (self.entries(old, level).await?, self.entries(new, level).await?);
            for index in 0..FANOUT {
                let (old, new) = (old[index as usize], new[index as usize]);
                let below = base.saturating_add(index.saturating_mul(span(level)));
                let goes_on = match (level, name(&old) == name(&new)) {
                    (_, true) => true,
                    (0, false) => self.differs(below, new.is_some()),
                    _ => self.page(old, new, level - 1, below).await?,
                };
                if !goes_on {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// What stands at the 64 places of a page of `level`; the top of a lower tree stands at the first.
    async fn entries(&self, side: Side, level: u8) -> Result<Vec<Side>, P::Error> {
        let mut out = vec![None; FANOUT as usize];
        match side {
            Some((have, _)) if have < level => out[0] = side,
            Some((_, Entry { fingerprint, place: Place::Stored(address), .. })) => {
                let page = self.pages.load(level, fingerprint, &address).await?;
                for (index, place) in (0..FANOUT).zip(&mut out) {
                    *place = page.get(index).map(|entry| (level.saturating_sub(1), *entry));
                }
            }
            _ => {}
        }
        Ok(out)
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
