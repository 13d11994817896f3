//! Checkpoints: overlays merged into trees, metadata written to the log, one record in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use container::{Builder, UnitKind};
use journal::{CheckpointPointer, Entry};
use map::{Kept, MergeError, Overlay, Page, PageSink, Place, Root, Top, encode_page, merge};
use seam::BoxFuture;
use units::{Address, ContainerId, DiskId, Fingerprint, PAGE, Seq};

use crate::body::{Known, Written};
use crate::disk::{Layer, begins_with};
use crate::engine::{Engine, Shared, ToCommit};
use crate::error::{EngineError, EngineErrorKind};
use crate::pages::{PageStore, seal_page};
use crate::state::{Boundary, Part, State, Totals};

/// Layers of a disk, one for each cut since a checkpoint, that bring the next: a read looks into each.
const LAYERS_MAX: usize = 32;
/// Disks that began as others, before a checkpoint makes them stand on their own.
pub(crate) const UNSETTLED_MAX: usize = 2048;

/// Room a container keeps for its directory entry and the seal of one more unit.
const SLACK_BYTES: usize = 4096;

impl Engine {
    /// Whether what a checkpoint would take over has reached `times` its limit, or the last one failed and there is room for one.
    pub(crate) fn wants_checkpoint(&self, times: usize) -> bool {
        let config = &self.shared.config;
        let state = self.shared.lock();
        state.new_map_changes() >= times * config.overlay_entries_max
            || state.commits.len() >= times * config.commits_max
            || state.meta_bytes() >= times * config.meta_bytes_max
            || state.disks.values().any(|disk| disk.layers.len() >= times * LAYERS_MAX)
            || state.unsettled.len() >= times * UNSETTLED_MAX
            || self.shared.changes_take_room(&state, times)
            || times == 1 && state.checkpoint_trouble.is_some() && self.shared.has_spare_room(&state)
    }

    /// Merges what changed into the trees and writes roots and metadata to the log. Does nothing when nothing changed,
    /// nor while the pool has room only for what is granted: one that the limits demand comes all the same.
    ///
    /// # Errors
    /// When something cannot be read or written; the maps stay as they are and the next checkpoint goes on from
    /// the same boundary.
    pub async fn checkpoint(&self) -> Result<(), EngineError> {
        let worth = {
            let state = self.shared.lock();
            state.changed_since_checkpoint() && self.shared.has_spare_room(&state)
        };
        if worth { self.take_checkpoint().await } else { Ok(()) }
    }

    pub(crate) async fn take_checkpoint(&self) -> Result<(), EngineError> {
        self.checkpoint_once().await?;
        self.settle().await;
        Ok(())
    }

    /// A checkpoint, without settling the disks that could stand on their own behind it.
    pub(crate) async fn checkpoint_once(&self) -> Result<(), EngineError> {
        let mut known = self.shared.checkpointing.lock().await;
        let taken = self.shared.guarded("checkpoint", self.checkpoint_in_turn(&mut known)).await;
        let trouble = taken.as_ref().err().filter(|error| error.kind != EngineErrorKind::Closed);
        self.shared.lock().checkpoint_trouble = trouble.cloned();
        taken
    }

    async fn checkpoint_in_turn(&self, known: &mut Known) -> Result<(), EngineError> {
        let boundary = self.draw_boundary();
        self.shared.maybe_yield().await;
        let roots = self.merge_all(&boundary.parts).await?;
        let meta_before = self.meta_taken();
        self.shared.maybe_yield().await;
        let listed: Vec<_> = boundary.parts.iter().map(|part| part.disk).zip(roots.iter().copied()).collect();
        let Written { root, pieces, chunks } =
            self.write_body(known, &listed, self.totals_at(&boundary)).await?;
        let (commits_before, told) = (boundary.commits_before, boundary.seq.min(meta_before));
        let pointer = {
            let mut state = self.shared.lock();
            let number = state.checkpoint_number() + 1;
            let pointer = CheckpointPointer { number, root, commits_before, meta_before, told };
            state.coming.push((pointer.clone(), pieces));
            pointer
        };
        let number = pointer.number;
        let append = self.shared.journal()?.append_control(vec![Entry::Checkpoint(pointer)]);
        match append.await {
            Ok(result) => result?,
            Err(_) => return Err(EngineError::new(EngineErrorKind::Closed, "the journal is gone")),
        };
        *known = Known { number, chunks };
        self.shared.maybe_yield().await;
        self.shared.lock().plant(&boundary.parts, &roots);
        tracing::debug!(number, "checkpoint done");
        Ok(())
    }

    /// Metadata records before this seq are in the store now. The last one may be on its way there.
    fn meta_taken(&self) -> Seq {
        let (last, next_seq) = {
            let state = self.shared.lock();
            (state.meta.last().map(|(seq, ..)| *seq), state.next_seq)
        };
        let is_settled = self.shared.embedded().is_some_and(|meta| meta.is_settled());
        last.filter(|_| !is_settled).unwrap_or(next_seq)
    }

    /// Totals over the commits before a boundary that are still there: it may have waited for another attempt.
    fn totals_at(&self, boundary: &Boundary) -> Totals {
        let state = self.shared.lock();
        let mut before = State { totals: boundary.totals, ..State::default() };
        state.deleted[boundary.deleted.min(state.deleted.len())..].iter().for_each(|d| before.uncount(d));
        before.totals
    }

    /// The boundary: commits before it are in the checkpoint. One that failed is taken up again. Disks whose source is
    /// still below them begin later.
    fn draw_boundary(&self) -> Arc<Boundary> {
        let mut state = self.shared.lock();
        if let Some(boundary) = &state.boundary {
            return boundary.clone();
        }
        let disks: Vec<DiskId> =
            state.disks.iter().filter(|(_, disk)| disk.below.is_none()).map(|(id, _)| *id).collect();
        disks.iter().for_each(|disk| state.seal_overlay(*disk));
        let sources: BTreeSet<DiskId> =
            state.disks.values().filter_map(|d| d.below.map(|b| b.source)).collect();
        let part = |id: &DiskId| {
            let disk = state.disks.get(id)?;
            let blocks = if sources.contains(id) { state.blocks_seen(*id) } else { disk.blocks() };
            let (root, layers) = (disk.root, disk.layers.clone());
            Some(Part { disk: *id, root, layers, blocks })
        };
        let mut parts: Vec<Part> = disks.iter().filter_map(part).collect();
        parts.sort_by_key(|part| part.layers.len());
        let boundary = Arc::new(Boundary {
            commits_before: state.next_ordinal,
            seq: state.next_seq,
            totals: state.totals,
            parts,
            entries: state.map_changes(),
            deleted: state.deleted.len(),
        });
        state.boundary = Some(boundary.clone());
        boundary
    }

    /// The root of each part with its layers merged in.
    async fn merge_all(&self, parts: &[Part]) -> Result<Vec<Option<Root>>, EngineError> {
        let mut writer = PageWriter::new(&self.shared);
        let mut merged = Merged::default();
        let mut tops: Vec<Top> = Vec::with_capacity(parts.len());
        for part in parts {
            let (mut top, done) = merged.longest(part);
            if let Some((first, rest)) = part.layers[done..].split_first() {
                let pages = PageStore(&self.shared);
                let merging = if rest.is_empty() {
                    merge(&pages, &mut writer, top, first, part.blocks).await
                } else {
                    let mut all = Overlay::clone(first);
                    rest.iter().for_each(|layer| all.cover(layer));
                    merge(&pages, &mut writer, top, &all, part.blocks).await
                };
                top = merging.map_err(|error| match error {
                    MergeError::Load(error) | MergeError::Store(error) => error,
                })?;
                merged.add(part, top);
            }
            tops.push(top);
        }
        writer.finish().await?;
        let root = |(level, entry): (u8, map::Entry)| {
            let address = writer.address(entry.place);
            Root { level, fingerprint: entry.fingerprint, address, blocks: entry.blocks }
        };
        Ok(tops.into_iter().map(|top| top.map(root)).collect())
    }
}

/// What is merged so far: where several disks share layers, the next goes on from there.
#[derive(Default)]
struct Merged<'a> {
    /// By the last layer that is merged in.
    by_layer: BTreeMap<usize, Vec<(&'a Part, Top)>>,
}

/// Tells a layer from all others, as long as somebody keeps it.
fn name_of(layer: &Arc<Layer>) -> usize {
    Arc::as_ptr(layer) as usize
}

impl<'a> Merged<'a> {
    /// The top of the longest beginning of a part's layers that is merged, and how many layers that is.
    fn longest(&self, part: &Part) -> (Top, usize) {
        for count in (1..=part.layers.len()).rev() {
            let known = self.by_layer.get(&name_of(&part.layers[count - 1])).into_iter().flatten();
            let same = |(other, _): &&(&Part, Top)| {
                other.root == part.root
                    // Another size cuts off other blocks.
                    && other.blocks == part.blocks
                    && other.layers.len() == count
                    && begins_with(&part.layers, &other.layers)
            };
            if let Some((_, top)) = known.rev().find(same) {
                return (*top, count);
            }
        }
        (part.root.as_ref().map(Root::top), 0)
    }

    fn add(&mut self, part: &'a Part, top: Top) {
        if let Some(last) = part.layers.last() {
            self.by_layer.entry(name_of(last)).or_default().push((part, top));
        }
    }
}

impl State {
    /// A checkpoint is durable: its roots take the place of the layers that are in them, wherever these are shared.
    fn plant(&mut self, parts: &[Part], roots: &[Option<Root>]) {
        let mut by_layer: BTreeMap<usize, Vec<(&Part, Option<Root>)>> = BTreeMap::new();
        for (part, root) in parts.iter().zip(roots) {
            if let Some(last) = part.layers.last() {
                by_layer.entry(name_of(last)).or_default().push((part, *root));
            }
        }
        for (id, disk) in &mut self.disks {
            for count in (1..=disk.layers.len()).rev() {
                let known = by_layer.get(&name_of(&disk.layers[count - 1])).into_iter().flatten();
                let same = |(part, _): &&(&Part, Option<Root>)| {
                    (part.disk == *id || part.blocks == disk.blocks())
                        && part.root == disk.root
                        && part.layers.len() == count
                        && begins_with(&disk.layers, &part.layers)
                };
                if let Some((_, root)) = known.rev().find(same) {
                    disk.root = *root;
                    disk.layers.drain(..count);
                    break;
                }
            }
        }
        self.listed.clear();
        for (part, root) in parts.iter().zip(roots) {
            self.listed.extend(root.map(|root| (part.disk, root)));
            if let Some(disk) = self.disks.get_mut(&part.disk) {
                disk.listed = true;
            }
        }
        self.boundary = None;
    }
}

/// Puts pages into containers, one after the other.
struct PageWriter<'a> {
    shared: &'a Shared,
    builder: Builder,
    /// The containers filled so far, with the payload pages of their fragments.
    done: Vec<(ContainerId, u16)>,
    /// The pages in the container being filled, by slot: the next version of a disk may build on them.
    fresh: BTreeMap<u16, Arc<Page>>,
}

impl<'a> PageWriter<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, builder: Builder::new(), done: Vec::new(), fresh: BTreeMap::new() }
    }

    /// Writes the container being filled.
    async fn finish(&mut self) -> Result<(), EngineError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let builder = std::mem::take(&mut self.builder);
        let what = ToCommit { builder: &builder, covered: Seq(0), blocks: 0, block_bytes: 0 };
        let built = self.shared.commit_container(what, |_| Vec::new()).await?;
        self.done.push((built.head.container, (built.fragment_bytes / PAGE) as u16));
        self.fresh.clear();
        Ok(())
    }

    /// The address of a place in a container that is written.
    fn address(&self, place: Place) -> Address {
        match place {
            Place::Stored(address) => address,
            Place::Pending { container, slot, offset, length } => {
                let (container, fragment_pages) = self.done[container as usize];
                Address { container, fragment_pages, slot, offset, length }
            }
        }
    }
}

impl PageSink for PageWriter<'_> {
    type Error = EngineError;

    fn store<'a>(&'a mut self, page: &'a Page) -> BoxFuture<'a, Result<(Fingerprint, Place), EngineError>> {
        Box::pin(async move {
            if !self.builder.has_room(1, 2 * SLACK_BYTES, self.shared.container_limit()) {
                self.finish().await?;
            }
            let done = &self.done;
            let parts = encode_page(page, &|container| done.get(container as usize).copied());
            let (name, unit) = seal_page(&self.shared.sealer, page.level, &parts);
            let (slot, offset) = self.builder.add(UnitKind::Page(page.level), name, &unit);
            self.fresh.insert(slot, Arc::new(page.clone()));
            let container = self.done.len() as u32;
            Ok((name, Place::Pending { container, slot, offset, length: unit.len() as u32 }))
        })
    }

    fn find(&self, pending: Place) -> Kept {
        if let Place::Pending { container, slot, .. } = pending
            && container as usize == self.done.len()
            && let Some(page) = self.fresh.get(&slot)
        {
            return Kept::Page(page.clone());
        }
        Kept::At(self.address(pending))
    }
}
