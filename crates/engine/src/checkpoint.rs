//! Checkpoints: overlays merged into trees, metadata written to the log, one record in the journal.

use std::sync::Arc;

use container::{Builder, UnitKind};
use journal::{CheckpointPointer, Entry, MetaPiece};
use map::{MergeError, Overlay, Page, PageSink, Place, Root, encode_page, merge};
use seal::Kind;
use seam::BoxFuture;
use serde::{Deserialize, Serialize};
use units::{Address, ContainerId, DiskId, Fingerprint, PAGE, Seq};

use crate::engine::{Engine, Shared, ToCommit};
use crate::error::{EngineError, EngineErrorKind};
use crate::pages::{PageStore, seal_page};
use crate::state::{Cut, Totals};

const VERSION: u8 = 1;
/// Bytes of a piece of the checkpoint object.
const PIECE_BYTES: usize = 64 * 1024;
/// Room a container keeps for its directory entry and the seal of one more unit.
const SLACK_BYTES: usize = 4096;

/// The checkpoint object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Body {
    version: u8,
    /// The disks' roots.
    pub(crate) roots: Vec<(DiskId, Root)>,
    /// The metadata store's checkpoint.
    pub(crate) meta: Vec<u8>,
    /// Totals over the commits that are in it.
    pub(crate) totals: Totals,
}

impl Body {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((body, [])) if body.version == VERSION => Some(body),
            _ => None,
        }
    }
}

impl Engine {
    /// Whether what a checkpoint would take over has reached `times` its limit.
    pub(crate) fn wants_checkpoint(&self, times: usize) -> bool {
        let config = &self.shared.config;
        let state = self.shared.lock();
        state.overlay_entries() >= times * config.overlay_entries_max
            || state.commits.len() >= times * config.commits_max
            || state.meta_bytes() >= times * config.meta_bytes_max
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
        let _turn = self.shared.checkpointing.lock().await;
        let cut = self.cut();
        let merged = self.merge_all().await?;
        let meta_before = self.shared.lock().meta.last().map(|(seq, ..)| *seq);
        let meta = self.shared.embedded().map(|meta| meta.checkpoint().bytes).unwrap_or_default();
        let meta_before = meta_before.unwrap_or(Seq(0));
        let mut roots: Vec<(DiskId, Root)> = Vec::new();
        for (disk, root, _) in &merged {
            roots.extend(root.map(|root| (*disk, root)));
        }
        let body = Body { version: VERSION, roots, meta, totals: cut.totals };
        let pieces = self.write_body(&body).await?;
        let number = self.shared.lock().checkpoint.as_ref().map_or(1, |pointer| pointer.number + 1);
        let pointer = CheckpointPointer { number, pieces, commits_before: cut.commits_before, meta_before };
        let append = self.shared.journal()?.append_control(vec![Entry::Checkpoint(pointer)]);
        match append.await {
            Ok(result) => result?,
            Err(_) => return Err(EngineError::new(EngineErrorKind::Closed, "the journal is gone")),
        };
        let mut state = self.shared.lock();
        for (disk, root, overlay) in merged {
            if let Some(disk) = state.disks.get_mut(&disk)
                && same(&disk.merging, &overlay)
            {
                disk.root = root;
                disk.merging = None;
            }
        }
        state.cut = None;
        tracing::debug!(number, "checkpoint done");
        Ok(())
    }

    /// The boundary: commits before it are in the checkpoint. One that failed is taken up again, since its overlays
    /// are set aside already.
    fn cut(&self) -> Cut {
        let mut state = self.shared.lock();
        if let Some(cut) = state.cut {
            return cut;
        }
        let cut = Cut { commits_before: state.next_ordinal, totals: state.totals };
        for disk in state.disks.values_mut() {
            if !disk.overlay.is_empty() {
                disk.merging = Some(Arc::new(std::mem::take(&mut disk.overlay)));
            }
        }
        state.cut = Some(cut);
        cut
    }

    #[allow(clippy::type_complexity)] // used in one place
    async fn merge_all(&self) -> Result<Vec<(DiskId, Option<Root>, Option<Arc<Overlay>>)>, EngineError> {
        let disks: Vec<(DiskId, Option<Root>, Option<Arc<Overlay>>, u64)> = {
            let state = self.shared.lock();
            state.disks.iter().map(|(id, d)| (*id, d.root, d.merging.clone(), d.blocks())).collect()
        };
        let mut writer = PageWriter::new(&self.shared);
        let mut tops = Vec::new();
        for (id, root, overlay, blocks) in disks {
            let Some(overlay) = overlay else {
                tops.push((id, Top::Same(root), None));
                continue;
            };
            let pages = PageStore(&self.shared);
            let merged = merge(&pages, &mut writer, root.as_ref(), &overlay, blocks).await;
            let top = merged.map_err(|error| match error {
                MergeError::Load(error) | MergeError::Store(error) => error,
            })?;
            tops.push((id, Top::New(top), Some(overlay)));
        }
        writer.finish().await?;
        let root = |top| match top {
            Top::Same(root) => root,
            Top::New(None) => None,
            Top::New(Some((level, entry))) => {
                let address = writer.address(entry.place);
                Some(Root { level, fingerprint: entry.fingerprint, address, blocks: entry.blocks })
            }
        };
        Ok(tops.into_iter().map(|(id, top, overlay)| (id, root(top), overlay)).collect())
    }

    async fn write_body(&self, body: &Body) -> Result<Vec<MetaPiece>, EngineError> {
        let bytes = postcard::to_stdvec(body).expect("plain values always encode");
        let limit = self.shared.config.container_bytes as usize;
        let piece_bytes = PIECE_BYTES.min(limit / 4);
        let mut pieces = Vec::new();
        let mut chunks = bytes.chunks(piece_bytes).peekable();
        while chunks.peek().is_some() {
            let mut builder = Builder::new();
            let mut slots = Vec::new();
            while let Some(chunk) = chunks.next_if(|_| builder.has_room(1, piece_bytes + SLACK_BYTES, limit))
            {
                let name = self.shared.sealer.fingerprint(Kind::Meta, chunk);
                let mut unit = Vec::new();
                self.shared.sealer.seal(Kind::Meta, name, chunk, &mut unit);
                slots.push((name, builder.add(UnitKind::Meta, name, &unit).0));
            }
            let what = ToCommit { builder: &builder, covered: Seq(0), blocks: 0, block_bytes: 0 };
            let built = self.shared.commit_container(what, false, |_| Vec::new()).await?;
            pieces.extend(
                slots
                    .into_iter()
                    .map(|(fingerprint, slot)| MetaPiece { fingerprint, address: built.address(slot) }),
            );
        }
        Ok(pieces)
    }
}

enum Top {
    Same(Option<Root>),
    New(Option<(u8, map::Entry)>),
}

fn same(a: &Option<Arc<Overlay>>, b: &Option<Arc<Overlay>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Puts pages into containers, one after the other.
struct PageWriter<'a> {
    shared: &'a Shared,
    builder: Builder,
    /// The containers filled so far, with the payload pages of their fragments.
    done: Vec<(ContainerId, u16)>,
}

impl<'a> PageWriter<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, builder: Builder::new(), done: Vec::new() }
    }

    /// Writes the container being filled.
    async fn finish(&mut self) -> Result<(), EngineError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let builder = std::mem::take(&mut self.builder);
        let what = ToCommit { builder: &builder, covered: Seq(0), blocks: 0, block_bytes: 0 };
        let built = self.shared.commit_container(what, false, |_| Vec::new()).await?;
        self.done.push((built.head.container, (built.fragment_bytes / PAGE) as u16));
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
            if !self.builder.has_room(1, 2 * SLACK_BYTES, self.shared.config.container_bytes as usize) {
                self.finish().await?;
            }
            let done = &self.done;
            let parts = encode_page(page, &|container| done.get(container as usize).copied());
            let (name, unit) = seal_page(&self.shared.sealer, page.level, &parts);
            let (slot, offset) = self.builder.add(UnitKind::Page(page.level), name, &unit);
            let container = self.done.len() as u32;
            Ok((name, Place::Pending { container, slot, offset, length: unit.len() as u32 }))
        })
    }
}
