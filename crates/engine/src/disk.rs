//! A disk's contents in layers, from the top: the write buffer, the overlay, sealed layers, the tree.
//!
//! ```text
//!  buffered   generations, newest first         blocks that only the journal holds
//!  overlay    changes since the last cut         of containers that are committed
//!  layers     changes between two cuts           never changed again; disks that begin as others are share them
//!  root       the tree of the last checkpoint
//! ```
//! A disk that begins at a cut while blocks from before the cut are still buffered sees its source **below** until these
//! are in containers; from then on it shares the source's layers and tree and knows nothing of it any more.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use map::{Found, Overlay, Root};
use units::{BLOCK_U64, DiskId, Lba, Seq};

use crate::generation::Buffered;
use crate::read::Source;
use crate::state::State;

/// Changes that no later write joins.
#[derive(Debug)]
pub(crate) struct Layer {
    changes: Overlay,
    /// Entries of all layers there are.
    sum: Arc<AtomicUsize>,
}

impl Layer {
    fn new(changes: Overlay, sum: &Arc<AtomicUsize>) -> Arc<Self> {
        sum.fetch_add(changes.len(), Ordering::Relaxed);
        Arc::new(Self { changes, sum: sum.clone() })
    }
}

impl Deref for Layer {
    type Target = Overlay;

    fn deref(&self) -> &Overlay {
        &self.changes
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.changes.len(), Ordering::Relaxed);
    }
}

/// What a disk begins as, while that is not all in containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Below {
    pub(crate) source: DiskId,
    /// The cut: records of the source before it count.
    pub(crate) cut: Seq,
}

/// One disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) bytes: u64,
    pub(crate) root: Option<Root>,
    /// Above the root, oldest first.
    pub(crate) layers: Vec<Arc<Layer>>,
    pub(crate) overlay: Overlay,
    /// As long as this is there the disk has neither root nor layers nor overlay of its own.
    pub(crate) below: Option<Below>,
    /// Nobody writes to it.
    pub(crate) read_only: bool,
    /// It is deleted, and others began as it was.
    pub(crate) gone: bool,
    /// The last checkpoint has its root.
    pub(crate) listed: bool,
    /// Handles on a read-only disk.
    pub(crate) users: usize,
}

impl Disk {
    pub(crate) fn blocks(&self) -> u64 {
        self.bytes.div_ceil(BLOCK_U64)
    }

    /// Whether the tree alone says all there is in containers.
    pub(crate) fn is_flat(&self) -> bool {
        self.below.is_none() && self.layers.is_empty() && self.overlay.is_empty()
    }
}

/// Whether `layers` begins with `first`: the very same layers.
pub(crate) fn begins_with(layers: &[Arc<Layer>], first: &[Arc<Layer>]) -> bool {
    layers.len() >= first.len() && layers.iter().zip(first).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// The layers of a disk, newest first.
#[derive(Debug, Default)]
pub(crate) struct View<'a> {
    pub(crate) buffered: Vec<&'a Overlay<Buffered>>,
    pub(crate) mapped: Vec<&'a Overlay>,
    pub(crate) root: Option<Root>,
}

impl View<'_> {
    /// What the layers above the tree say of a block.
    pub(crate) fn source(&self, lba: Lba) -> Source {
        for overlay in &self.buffered {
            match overlay.get(lba) {
                Found::Here(block) => return Source::Buffered(block.fingerprint, block.unit.clone()),
                Found::Hole => return Source::Hole,
                Found::Below => {}
            }
        }
        for overlay in &self.mapped {
            match overlay.get(lba) {
                Found::Here((fingerprint, address)) => return Source::Stored(*fingerprint, *address),
                Found::Hole => return Source::Hole,
                Found::Below => {}
            }
        }
        self.root.map_or(Source::Hole, Source::Tree)
    }

    /// The next block behind `lba` of which a layer above the tree says something else than of `lba`.
    pub(crate) fn next_change(&self, lba: u64, end: u64) -> u64 {
        let border = self.buffered.iter().fold(end, |border, overlay| border_in(overlay, lba, border));
        self.mapped.iter().fold(border, |border, overlay| border_in(overlay, lba, border))
    }
}

fn border_in<T>(overlay: &Overlay<T>, lba: u64, end: u64) -> u64 {
    let point = overlay.points(lba + 1, end).next().map_or(end, |(lba, _)| lba.0);
    let inside = matches!(overlay.get(Lba(lba)), Found::Hole);
    let hole = overlay.holes().iter().find(|(start, stop)| if inside { *stop > lba } else { *start > lba });
    let hole = hole.map_or(end, |(start, stop)| if inside { stop } else { start });
    end.min(point).min(hole)
}

impl State {
    /// The layers of a disk; none when there is no such disk.
    pub(crate) fn view(&self, disk: DiskId) -> View<'_> {
        let mut view = View::default();
        let (mut disk, mut cut) = (disk, None);
        while let Some(found) = self.disks.get(&disk) {
            if cut.is_none() {
                view.buffered.extend(self.active.disks.get(&disk));
            }
            let before = self.frozen.iter().rev().filter(|g| cut.is_none_or(|cut| g.end <= cut));
            view.buffered.extend(before.filter_map(|generation| generation.disks.get(&disk)));
            match found.below {
                Some(below) => (disk, cut) = (below.source, Some(below.cut)),
                None => {
                    view.mapped.push(&found.overlay);
                    view.mapped.extend(found.layers.iter().rev().map(|layer| &layer.changes));
                    view.root = found.root;
                    break;
                }
            }
        }
        view
    }

    /// No later change joins those a disk has now.
    pub(crate) fn seal_overlay(&mut self, disk: DiskId) {
        let Some(disk) = self.disks.get_mut(&disk).filter(|disk| !disk.overlay.is_empty()) else { return };
        self.overlaid -= disk.overlay.len();
        disk.layers.push(Layer::new(std::mem::take(&mut disk.overlay), &self.layered));
    }

    /// `target` begins as `source` is behind all records before `cut`; false when there is no such source.
    pub(crate) fn fork(&mut self, source: DiskId, target: DiskId, cut: Seq) -> bool {
        let Some(found) = self.disks.get(&source) else { return false };
        let (bytes, below) = (found.bytes, found.below);
        if self.active.disks.contains_key(&source) {
            self.freeze_at(cut);
        }
        let buffered = self.frozen.iter().any(|generation| generation.disks.contains_key(&source));
        let below = if buffered { Some(Below { source, cut }) } else { below };
        self.disks.insert(target, Disk { bytes, below, ..Disk::default() });
        if below.is_none() {
            self.inherit(source, target);
        }
        true
    }

    /// Blocks of a disk that it or a disk above it still shows: one that shrank meanwhile may be seen as it was.
    pub(crate) fn blocks_seen(&self, disk: DiskId) -> u64 {
        let own = self.disks.get(&disk).map_or(0, Disk::blocks);
        let above =
            self.disks.iter().filter(|(_, other)| other.below.is_some_and(|below| below.source == disk));
        above.map(|(id, _)| self.blocks_seen(*id)).fold(own, u64::max)
    }

    fn inherit(&mut self, source: DiskId, target: DiskId) {
        self.seal_overlay(source);
        let Some(found) = self.disks.get(&source) else { return };
        let (layers, root) = (found.layers.clone(), found.root);
        if let Some(target) = self.disks.get_mut(&target) {
            (target.layers, target.root, target.below) = (layers, root, None);
        }
    }

    /// Disks whose cut has nothing buffered before it any more share what their source has now. To be called behind each
    /// generation that is committed, before the next: what the source has then is what it had at the cut.
    pub(crate) fn resolve_forks(&mut self) {
        let first = self.frozen.front().map(|generation| generation.end);
        let is_ready = |below: &Below| first.is_none_or(|first| first > below.cut);
        let ready = |(id, disk): (&DiskId, &Disk)| {
            disk.below.filter(is_ready).map(|below| (below.cut, *id, below.source))
        };
        let mut ready: Vec<(Seq, DiskId, DiskId)> = self.disks.iter().filter_map(ready).collect();
        if ready.is_empty() {
            return;
        }
        // A source that is ready too comes first: its cut is older.
        ready.sort_unstable();
        for (_, target, source) in ready {
            self.inherit(source, target);
        }
        self.drop_gone();
    }

    /// Forgets deleted disks that nobody sees below any more.
    pub(crate) fn drop_gone(&mut self) {
        let needed: Vec<DiskId> = self.disks.values().filter_map(|d| d.below.map(|b| b.source)).collect();
        let gone: Vec<DiskId> = self
            .disks
            .iter()
            .filter(|(id, disk)| disk.gone && !needed.contains(id))
            .map(|(id, _)| *id)
            .collect();
        gone.iter().for_each(|disk| self.forget(*disk));
    }

    /// A disk is deleted; others may still see it below.
    pub(crate) fn delete(&mut self, disk: DiskId) {
        match self.disks.get_mut(&disk) {
            Some(found) => found.gone = true,
            None => return,
        }
        self.may_have_garbage = true;
        self.drop_gone();
    }

    /// Takes a disk out of RAM.
    pub(crate) fn forget(&mut self, disk: DiskId) {
        if let Some(disk) = self.disks.remove(&disk) {
            self.overlaid -= disk.overlay.len();
        }
    }
}
