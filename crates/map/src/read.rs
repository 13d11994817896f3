//! Reading the tree.

use std::sync::Arc;

use seam::BoxFuture;
use units::{Address, Fingerprint, Lba};

use crate::page::{FANOUT, Page, Place, Root, place_of, span};

/// Loads pages.
pub trait Pages: Send + Sync {
    /// Why a page cannot be had.
    type Error: Send;
    /// The page of `level` named `fingerprint` at `address`, verified.
    fn load<'a>(
        &'a self,
        level: u8,
        fingerprint: Fingerprint,
        address: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<Page>, Self::Error>>;

    /// These pages of `level` are loaded next: whoever can reads them together. What cannot be had shows when it is loaded.
    fn fetch<'a>(&'a self, _level: u8, _pages: &'a [(Fingerprint, Address)]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// Where a block of the tree lies; `None` for a hole.
///
/// # Errors
/// When a page cannot be loaded.
pub async fn lookup<P: Pages>(
    pages: &P,
    root: Option<&Root>,
    lba: Lba,
) -> Result<Option<(Fingerprint, Address)>, P::Error> {
    let Some(root) = root else { return Ok(None) };
    if lba.0 / span(root.level) >= FANOUT {
        return Ok(None);
    }
    let (mut level, mut fp, mut address) = (root.level, root.fingerprint, root.address);
    loop {
        let page = pages.load(level, fp, &address).await?;
        let Some(entry) = page.get(place_of(lba, level)) else { return Ok(None) };
        let Place::Stored(at) = entry.place else { return Ok(None) };
        if level == 0 {
            return Ok(Some((entry.fingerprint, at)));
        }
        (level, fp, address) = (level - 1, entry.fingerprint, at);
    }
}

/// A stretch of blocks that are all there or all holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First block.
    pub start: u64,
    /// Behind the last block.
    pub end: u64,
    /// Whether the blocks are there.
    pub mapped: bool,
}

/// The stretches of `start .. end` in the tree, in order, without gaps; at most `limit` of them, then it stops.
///
/// # Errors
/// When a page cannot be loaded.
pub async fn extents<P: Pages>(
    pages: &P,
    root: Option<&Root>,
    start: u64,
    end: u64,
    limit: usize,
) -> Result<Vec<Extent>, P::Error> {
    let mut out: Vec<Extent> = Vec::new();
    let mut at = start;
    while at < end && out.len() <= limit {
        let (stop, mapped) = match root {
            Some(root) => step(pages, root, at).await?,
            None => (end, false),
        };
        let stop = stop.min(end);
        match out.last_mut() {
            Some(last) if last.mapped == mapped => last.end = stop,
            _ => out.push(Extent { start: at, end: stop, mapped }),
        }
        at = stop;
    }
    out.truncate(limit);
    Ok(out)
}

/// How far the state of the block at `at` is known to go on, and the state.
async fn step<P: Pages>(pages: &P, root: &Root, at: u64) -> Result<(u64, bool), P::Error> {
    if at / span(root.level) >= FANOUT {
        return Ok((u64::MAX, false));
    }
    let (mut level, mut fp, mut address) = (root.level, root.fingerprint, root.address);
    loop {
        let page = pages.load(level, fp, &address).await?;
        let index = place_of(Lba(at), level);
        let behind = |index: u64| (at / span(level) - place_of(Lba(at), level) + index) * span(level);
        match page.get(index) {
            None => {
                let next = (index + 1..FANOUT).find(|i| page.get(*i).is_some()).unwrap_or(FANOUT);
                return Ok((behind(next), false));
            }
            Some(_) if level == 0 => {
                let next = (index + 1..FANOUT).find(|i| page.get(*i).is_none()).unwrap_or(FANOUT);
                return Ok((behind(next), true));
            }
            Some(entry) => {
                let Place::Stored(below) = entry.place else { return Ok((at + 1, false)) };
                (level, fp, address) = (level - 1, entry.fingerprint, below);
            }
        }
    }
}
