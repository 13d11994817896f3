//! What the engine tells of itself.

use std::sync::atomic::Ordering;

use map::lookup;
use pool::{Class, MediumHealth};
use units::{BLOCK_U64, DiskId, Lba};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::exposure::Exposure;
use crate::kept::Blocked;
use crate::members::Moving;
use crate::pages::PageStore;
use crate::read::{Attempts, Source};

/// Blocks looked at under one lock.
const LOOKED_AT: usize = 256;

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
    /// Bytes that are likely to find room: more than what is sure, as map changes of neighbours share pages.
    pub likely_bytes: u64,
    /// Bytes of containers for which media have room and the file systems below them have none.
    pub below_short_bytes: u64,
    /// Bytes of containers, before parity, that nothing reached when the cleaner last looked, and that are still there; `None`
    /// until it has looked since the start and since disks were deleted.
    pub garbage_bytes: Option<u64>,
    /// Bytes of the data areas of the media that are up.
    pub raw_capacity: u64,
    /// The medium that ends it while others have much room left.
    pub limit: Option<pool::Limit>,
    /// Bytes of RAM held by writes that only the journal holds.
    pub buffered_bytes: u64,
    /// Use of the journal.
    pub journal_used_percent: usize,
    /// Class of new containers; `None` when too few media are up.
    pub class: Option<Class>,
    /// All media, in order.
    pub media: Vec<MediumHealth>,
    /// What could be lost, and what cannot be read.
    pub exposure: Exposure,
    /// Media that lack fragments that they should have, and how many.
    pub lacking: std::collections::BTreeMap<units::MediumId, u64>,
    /// Media whose contents move to others, and how far that is.
    pub moving: Vec<Moving>,
    /// Whether media are still being looked through, after the start or since they came back: the index is being filled.
    pub recovering_index: bool,
    /// Fragments found missing or damaged since the start.
    pub faults: u64,
    /// Fragments repaired since the start.
    pub repaired: u64,
    /// Why the write buffer cannot be flushed now.
    pub stuck: Option<EngineError>,
    /// What the opening found lost, one sentence each.
    pub losses: Vec<String>,
    /// What kept the cleaner from containers when it last looked.
    pub cleaning_blocked: Option<Blocked>,
    /// Why the last checkpoint failed.
    pub checkpoint_trouble: Option<EngineError>,
    /// Tasks that panicked since the start.
    pub panics: Vec<seam::PanicNote>,
}

impl Engine {
    /// The engine at a glance. Reads map pages to count what changed since the last checkpoint.
    pub async fn status(&self) -> EngineStatus {
        let disks: Vec<DiskId> = {
            let state = self.shared.lock();
            let heads = state.disks.iter().filter(|(_, disk)| !disk.gone && !disk.read_only);
            heads.map(|(id, _)| *id).collect()
        };
        let mut logical_bytes = 0;
        for disk in disks {
            logical_bytes += self.disk_usage(disk).await.unwrap_or(0);
        }
        let pool = &self.shared.pool;
        let space = pool.refresh_space().await;
        let journal_used_percent = self.shared.journal().map_or(0, journal::Journal::used_percent);
        let stats = pool.stats();
        let (moving, exposure) = (self.moving(), self.exposure());
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
            likely_bytes: self.shared.likely_blocks(&state) * BLOCK_U64,
            below_short_bytes: (space.containers_on_media - space.containers) * space.container_bytes,
            garbage_bytes: state.garbage_left,
            raw_capacity: space.raw_capacity,
            limit: space.limit,
            buffered_bytes: state.buffered_bytes,
            journal_used_percent,
            class: pool.current_class(),
            media: pool.health(),
            exposure,
            lacking: self.lacking(),
            moving,
            recovering_index: self.is_indexing() || self.is_reconciling(),
            faults: stats.faults.load(Ordering::Relaxed),
            repaired: stats.repaired.load(Ordering::Relaxed),
            stuck: self.shared.stuck_error(),
            losses: state.doubt.lost().to_vec(),
            cleaning_blocked: state.cleaning_blocked.clone(),
            checkpoint_trouble: state.checkpoint_trouble.clone(),
            panics: self.shared.rt.panics(),
        }
    }

    /// Bytes of a disk that are not holes.
    ///
    /// # Errors
    /// When the disk does not exist or a map page is lost.
    pub async fn disk_usage(&self, disk: DiskId) -> Result<u64, EngineError> {
        self.shared.lock().check(disk, 0, 0)?;
        let mut attempts = Attempts::new(&self.shared);
        loop {
            let usage = self.count_usage(disk).await;
            if !attempts.once_more(&self.shared, &usage) {
                self.shared.check_owner().await?;
                return usage;
            }
        }
    }

    async fn count_usage(&self, disk: DiskId) -> Result<u64, EngineError> {
        let (root, changed, holes) = {
            let state = self.shared.lock();
            let view = state.view(disk);
            let mut changed: Vec<u64> = Vec::new();
            let mut holes: Vec<(u64, u64)> = Vec::new();
            for overlay in &view.buffered {
                changed.extend(overlay.points(0, u64::MAX).map(|(lba, _)| lba.0));
                holes.extend(overlay.holes().iter());
            }
            for overlay in &view.mapped {
                changed.extend(overlay.points(0, u64::MAX).map(|(lba, _)| lba.0));
                holes.extend(overlay.holes().iter());
            }
            (view.root, changed, holes)
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
        for some in changed.chunks(LOOKED_AT) {
            let now: Vec<Source> = {
                let state = self.shared.lock();
                let view = state.view(disk);
                some.iter().map(|lba| view.source(Lba(*lba))).collect()
            };
            for (lba, now) in some.iter().zip(now) {
                let counted =
                    !holed.contains(*lba) && lookup(&pages, root.as_ref(), Lba(*lba)).await?.is_some();
                let is_there = match now {
                    Source::Buffered(..) | Source::Stored(..) => true,
                    Source::Hole => false,
                    // A checkpoint went by meanwhile.
                    Source::Tree(root) => lookup(&pages, Some(&root), Lba(*lba)).await?.is_some(),
                };
                match (counted, is_there) {
                    (false, true) => blocks += 1,
                    (true, false) => blocks -= 1,
                    _ => {}
                }
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
        let mut attempts = Attempts::new(&self.shared);
        let mut at = offset;
        while at < end {
            let found = self.stretch(disk, at / BLOCK_U64, end.div_ceil(BLOCK_U64)).await;
            if attempts.once_more(&self.shared, &found) {
                continue;
            }
            let (stop, mapped) = found?;
            let stop = (stop * BLOCK_U64).min(end);
            let full = out.len() == limit;
            match out.last_mut() {
                Some(last) if last.mapped == mapped => last.length += stop - at,
                _ if full => break,
                _ => out.push(Extent { length: stop - at, mapped }),
            }
            at = stop;
        }
        self.shared.check_owner().await?;
        Ok(out)
    }

    /// How far the state of block `lba` goes on, at most to `end`, and the state.
    async fn stretch(&self, disk: DiskId, lba: u64, end: u64) -> Result<(u64, bool), EngineError> {
        let (source, border) = {
            let state = self.shared.lock();
            let view = state.view(disk);
            (view.source(Lba(lba)), view.next_change(lba, end))
        };
        match source {
            Source::Buffered(..) | Source::Stored(..) => Ok((lba + 1, true)),
            Source::Hole => Ok((border.max(lba + 1), false)),
            Source::Tree(root) => {
                let pages = PageStore(&self.shared);
                let found = map::extents(&pages, Some(&root), lba, border.max(lba + 1), 1).await?;
                Ok(found.first().map_or((lba + 1, false), |extent| (extent.end, extent.mapped)))
            }
        }
    }
}
