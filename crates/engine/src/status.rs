//! What the engine tells of itself.

use std::sync::atomic::Ordering;

use map::{Found, lookup};
use pool::{Class, MediumHealth};
use units::{BLOCK_U64, DiskId, Lba};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::pages::PageStore;
use crate::read::Source;

/// A stretch of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub length: u64,
    /// False for a hole, which reads as zero.
    pub mapped: bool,
}

/// The engine at a glance.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// Bytes of disks that are not holes.
    pub logical_bytes: u64,
    /// Bytes of blocks left after deduplication.
    pub unique_bytes: u64,
    /// Bytes of containers: reduced, before parity; what is still buffered is counted as sealed.
    pub stored_bytes: u64,
    /// Bytes of fragments on the media: with parity.
    pub raw_bytes: u64,
    /// Bytes of whole blocks that guests can write now: their worst case fits what is neither granted nor reserved. It
    /// grows again when a flush or a checkpoint needs less than the worst case. 0: writes are refused.
    pub usable_bytes: u64,
    /// Bytes of the data areas of the media that are up.
    pub raw_capacity: u64,
    /// Bytes of RAM held by writes that only the journal holds.
    pub buffered_bytes: u64,
    /// Use of the journal.
    pub journal_used_percent: usize,
    /// Class of new containers; `None` when too few media are up.
    pub class: Option<Class>,
    /// All media, in order.
    pub media: Vec<MediumHealth>,
    /// Whether the index is still being filled after the start.
    pub recovering_index: bool,
    /// Fragments found missing or damaged since the start.
    pub faults: u64,
    /// Fragments repaired since the start.
    pub repaired: u64,
    /// Why the write buffer cannot be flushed now.
    pub stuck: Option<EngineError>,
}

impl Engine {
    /// The engine at a glance. Reads map pages to count what changed since the last checkpoint.
    pub async fn status(&self) -> EngineStatus {
        let disks: Vec<DiskId> = self.shared.lock().disks.keys().copied().collect();
        let mut logical_bytes = 0;
        for disk in disks {
            logical_bytes += self.disk_usage(disk).await.unwrap_or(0);
        }
        let pool = &self.shared.pool;
        let space = pool.refresh_space().await;
        let journal_used_percent = self.shared.journal().map_or(0, journal::Journal::used_percent);
        let stats = pool.stats();
        let state = self.shared.lock();
        let buffered_blocks: u64 = state.frozen.iter().map(|g| g.blocks).sum::<u64>() + state.active.blocks;
        let buffered: usize =
            state.frozen.iter().map(|g| g.container_bytes).sum::<usize>() + state.active.container_bytes;
        EngineStatus {
            logical_bytes,
            unique_bytes: (state.totals.blocks + buffered_blocks) * BLOCK_U64,
            stored_bytes: state.totals.container_bytes + buffered as u64,
            raw_bytes: state.totals.raw_bytes,
            usable_bytes: self.shared.writable_blocks(&state) * BLOCK_U64,
            raw_capacity: space.raw_capacity,
            buffered_bytes: state.buffered_bytes,
            journal_used_percent,
            class: pool.current_class(),
            media: pool.health(),
            recovering_index: self.is_indexing(),
            faults: stats.faults.load(Ordering::Relaxed),
            repaired: stats.repaired.load(Ordering::Relaxed),
            stuck: self.shared.stuck_error(),
        }
    }

    /// Bytes of a disk that are not holes.
    ///
    /// # Errors
    /// When the disk does not exist or a map page is lost.
    pub async fn disk_usage(&self, disk: DiskId) -> Result<u64, EngineError> {
        self.shared.lock().check(disk, 0, 0)?;
        let (root, changed, holes) = {
            let state = self.shared.lock();
            let found = state.disks.get(&disk);
            let mut changed: Vec<u64> = Vec::new();
            let mut holes: Vec<(u64, u64)> = Vec::new();
            let generations = state.frozen.iter().map(AsRef::as_ref).chain([&state.active]);
            for overlay in generations.filter_map(|g| g.disks.get(&disk)) {
                changed.extend(overlay.points(0, u64::MAX).map(|(lba, _)| lba.0));
                holes.extend(overlay.holes().iter());
            }
            for overlay in found.into_iter().flat_map(|d| [Some(&d.overlay), d.merging.as_deref()]).flatten()
            {
                changed.extend(overlay.points(0, u64::MAX).map(|(lba, _)| lba.0));
                holes.extend(overlay.holes().iter());
            }
            (found.and_then(|d| d.root), changed, holes)
        };
        let mut blocks = root.map_or(0, |root| root.blocks);
        let pages = PageStore(&self.shared);
        let mut holed = map::HoleSet::default();
        for (start, end) in holes {
            holed.insert(start, end);
        }
        // What the tree has under a hole goes; what is above it now comes.
        for (start, end) in holed.iter() {
            for extent in map::extents(&pages, root.as_ref(), start, end, usize::MAX).await? {
                blocks -= if extent.mapped { extent.end - extent.start } else { 0 };
            }
        }
        let mut changed = changed;
        changed.sort_unstable();
        changed.dedup();
        for lba in changed {
            let now = self.shared.lock().source(disk, Lba(lba));
            let is_there = matches!(now, Source::Buffered(..) | Source::Stored(..));
            let counted = !holed.contains(lba) && lookup(&pages, root.as_ref(), Lba(lba)).await?.is_some();
            match (counted, is_there) {
                (false, true) => blocks += 1,
                (true, false) => blocks -= 1,
                _ => {}
            }
        }
        Ok(blocks * BLOCK_U64)
    }

    /// The stretches of `length` bytes at `offset`, in order; at most `limit`, then it stops early. Edges that lie inside
    /// a block count as the block does.
    ///
    /// # Errors
    /// When the range is outside the disk or a map page is lost.
    pub async fn extents(
        &self,
        disk: DiskId,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> Result<Vec<Extent>, EngineError> {
        self.shared.lock().check(disk, offset, length)?;
        let end = offset + length;
        let mut out: Vec<Extent> = Vec::new();
        let mut at = offset;
        while at < end {
            let (stop, mapped) = self.stretch(disk, at / BLOCK_U64, end.div_ceil(BLOCK_U64)).await?;
            let stop = (stop * BLOCK_U64).min(end);
            let full = out.len() == limit;
            match out.last_mut() {
                Some(last) if last.mapped == mapped => last.length += stop - at,
                _ if full => break,
                _ => out.push(Extent { length: stop - at, mapped }),
            }
            at = stop;
        }
        Ok(out)
    }

    /// How far the state of block `lba` goes on, at most to `end`, and the state.
    async fn stretch(&self, disk: DiskId, lba: u64, end: u64) -> Result<(u64, bool), EngineError> {
        let (source, root, border) = {
            let state = self.shared.lock();
            let border = state.next_change(disk, lba, end);
            (state.source(disk, Lba(lba)), state.disks.get(&disk).and_then(|d| d.root), border)
        };
        match source {
            Source::Buffered(..) | Source::Stored(..) => Ok((lba + 1, true)),
            Source::Hole => Ok((border.max(lba + 1), false)),
            Source::Tree => {
                let pages = PageStore(&self.shared);
                let found = map::extents(&pages, root.as_ref(), lba, border.max(lba + 1), 1).await?;
                Ok(found.first().map_or((lba + 1, false), |extent| (extent.end, extent.mapped)))
            }
        }
    }
}

impl crate::state::State {
    /// The next block behind `lba` of which a layer above the tree says something else than of `lba`.
    fn next_change(&self, disk: DiskId, lba: u64, end: u64) -> u64 {
        let mut border = end;
        let layers = self.frozen.iter().map(AsRef::as_ref).chain([&self.active]);
        for overlay in layers.filter_map(|g| g.disks.get(&disk)) {
            border = border.min(border_in(overlay, lba, border));
        }
        if let Some(found) = self.disks.get(&disk) {
            border = border.min(border_in(&found.overlay, lba, border));
            if let Some(merging) = &found.merging {
                border = border.min(border_in(merging, lba, border));
            }
        }
        border
    }
}

fn border_in<T>(overlay: &map::Overlay<T>, lba: u64, end: u64) -> u64 {
    let point = overlay.points(lba + 1, end).next().map_or(end, |(lba, _)| lba.0);
    let inside = matches!(overlay.get(Lba(lba)), Found::Hole);
    let hole = overlay.holes().iter().find(|(start, stop)| if inside { *stop > lba } else { *start > lba });
    let hole = hole.map_or(end, |(start, stop)| if inside { stop } else { start });
    point.min(hole)
}
