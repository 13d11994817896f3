//! Merging an overlay into the tree: new pages where something changed, shared pages elsewhere.

use std::sync::Arc;

use seam::BoxFuture;
use units::{Address, Fingerprint};

use crate::overlay::Overlay;
use crate::page::{Entry, FANOUT, Page, Place, Root, height_for, span};
use crate::read::Pages;

/// Stores pages. Places it gives may be pending until the sink has written their container.
pub trait PageSink: Send + Sync {
    /// Why a page cannot be stored.
    type Error: Send;
    /// Stores a page whose entries may name places this sink gave before; gives its name and place.
    fn store<'a>(&'a mut self, page: &'a Page) -> BoxFuture<'a, Result<(Fingerprint, Place), Self::Error>>;

    /// Where a page lies that this sink gave a pending place: a merge may go on from another merge's tree.
    fn find(&self, pending: Place) -> Kept;
}

/// A page with a place that was pending when it was stored.
#[derive(Debug, Clone)]
pub enum Kept {
    /// Its container is still being filled.
    Page(Arc<Page>),
    /// Its container is written.
    At(Address),
}

/// A merge failed; the old root stays valid.
#[derive(Debug)]
pub enum MergeError<L, S> {
    /// A page could not be loaded.
    Load(L),
    /// A page could not be stored.
    Store(S),
}

/// The top of a tree: its level and the entry that stands for the top page. `None` is a disk without blocks.
pub type Top = Option<(u8, Entry)>;

impl Root {
    /// The top of a tree that is stored.
    pub fn top(&self) -> (u8, Entry) {
        let place = Place::Stored(self.address);
        (self.level, Entry { fingerprint: self.fingerprint, place, blocks: self.blocks })
    }
}

/// Merges `overlay` into the tree under `top` of a disk of `blocks` blocks. Gives the new top. Changes beyond the end
/// of the disk are dropped. `top` may be what another merge with the same sink gave.
///
/// # Errors
/// When a page cannot be loaded or stored.
pub async fn merge<P: Pages, S: PageSink>(
    pages: &P,
    sink: &mut S,
    top: Top,
    overlay: &Overlay,
    blocks: u64,
) -> Result<Top, MergeError<P::Error, S::Error>> {
    let level = height_for(blocks);
    let mut top = top;
    let mut merger = Merger { pages, sink, overlay, blocks };
    // A disk that shrank descends to its new top; one that grew gets pages above its old top on the way down.
    while let Some((have, entry)) = top
        && have > level
    {
        let page = merger.load(have, &entry).await?;
        top = page.get(0).map(|entry| (have - 1, *entry));
    }
    let merged = merger.page(top, level, 0).await?;
    Ok(merged.map(|entry| (level, entry)))
}

struct Merger<'a, P, S> {
    pages: &'a P,
    sink: &'a mut S,
    overlay: &'a Overlay,
    blocks: u64,
}

type Outcome<T, P, S> = Result<T, MergeError<<P as Pages>::Error, <S as PageSink>::Error>>;

impl<P: Pages, S: PageSink> Merger<'_, P, S> {
    async fn load(&self, level: u8, entry: &Entry) -> Outcome<Arc<Page>, P, S> {
        let address = match entry.place {
            Place::Stored(address) => address,
            pending => match self.sink.find(pending) {
                Kept::Page(page) => return Ok(page),
                Kept::At(address) => address,
            },
        };
        self.pages.load(level, entry.fingerprint, &address).await.map_err(MergeError::Load)
    }

    /// Merges the page of `level` whose first block is `base`. `old` is what stood there: a page of this level, or the
    /// top of the old tree when that was lower.
    fn page(
        &mut self,
        old: Option<(u8, Entry)>,
        level: u8,
        base: u64,
    ) -> BoxFuture<'_, Outcome<Option<Entry>, P, S>> {
        Box::pin(async move {
            let end = base.saturating_add(span(level).saturating_mul(FANOUT));
            let same_level = old.filter(|(have, _)| *have == level).map(|(_, entry)| entry);
            let lower = old.filter(|(have, _)| *have < level);
            let cut_off = end > self.blocks && old.is_some();
            if !self.overlay.touches(base, end) && !cut_off && lower.is_none() {
                return Ok(same_level);
            }
            let emptied = base >= self.blocks || self.overlay.holes().covers(base, end.min(self.blocks));
            // A hole costs what it empties, not what it spans.
            if (old.is_none() || emptied) && self.overlay.points(base, end.min(self.blocks)).next().is_none()
            {
                return Ok(None);
            }
            let before = match same_level {
                Some(entry) if !emptied => (*self.load(level, &entry).await?).clone(),
                _ => Page::empty(level),
            };
            let mut page = before.clone();
            if level == 0 {
                self.leaf(&mut page, base);
            } else {
                for index in 0..FANOUT {
                    let child = page.get(index).map(|entry| (level - 1, *entry));
                    let child = if index == 0 { child.or(lower) } else { child };
                    let below = base.saturating_add(index.saturating_mul(span(level)));
                    page.set(index, self.page(child, level - 1, below).await?);
                }
            }
            if page.is_empty() {
                return Ok(None);
            }
            if page == before {
                return Ok(same_level);
            }
            let (fingerprint, place) = self.sink.store(&page).await.map_err(MergeError::Store)?;
            Ok(Some(Entry { fingerprint, place, blocks: page.blocks() }))
        })
    }

    fn leaf(&self, page: &mut Page, base: u64) {
        for index in 0..FANOUT {
            let lba = base + index;
            if self.overlay.holes().contains(lba) || lba >= self.blocks {
                page.set(index, None);
            }
        }
        for (lba, (fingerprint, address)) in self.overlay.points(base, (base + FANOUT).min(self.blocks)) {
            let place = Place::Stored(*address);
            page.set(lba.0 - base, Some(Entry { fingerprint: *fingerprint, place, blocks: 1 }));
        }
    }
}
