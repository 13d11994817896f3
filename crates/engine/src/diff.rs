//! What differs between two disks: only map pages that differ are read (R126).

use journal::Fork;
use map::Root;
use units::{BLOCK_U64, DiskId};

use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::forks::OpenDisk;
use crate::metadata::no_disk;
use crate::pages::PageStore;

/// Attempts at giving a disk a tree of its own while checkpoints fail or others are faster.
const TRIES: usize = 4;

/// A stretch that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether the newer disk has data there; false for a hole.
    pub mapped: bool,
}

/// A disk that no record names, made to be looked at: it goes with this.
struct Passing<'a>(&'a Shared, DiskId);

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.lock().delete(self.1);
    }
}

impl Engine {
    /// The stretches of `length` bytes at `offset` that differ between two disks, in order, whole blocks; at most
    /// `limit`, then it stops: go on behind the last. `None` stands for an empty disk. One that is being written is
    /// taken as it is at this instant.
    ///
    /// # Errors
    /// `NotFound`; when a map page is lost or no checkpoint can be taken.
    pub async fn diff(
        &self,
        old: Option<DiskId>,
        new: DiskId,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> Result<Vec<Changed>, EngineError> {
        let new = self.tree_of(new).await?;
        let old = match old {
            Some(old) => self.tree_of(old).await?,
            None => None,
        };
        let (first, end) = (offset / BLOCK_U64, offset.saturating_add(length).div_ceil(BLOCK_U64));
        let pages = PageStore(&self.shared);
        let found = map::diff(&pages, old.as_ref(), new.as_ref(), first, end, limit).await?;
        let changed = |extent: map::Extent| Changed {
            offset: extent.start * BLOCK_U64,
            length: (extent.end - extent.start) * BLOCK_U64,
            mapped: extent.mapped,
        };
        self.shared.check_owner().await?;
        Ok(found.into_iter().map(changed).collect())
    }

    /// The tree that says all of a disk.
    async fn tree_of(&self, disk: DiskId) -> Result<Option<Root>, EngineError> {
        let open = self.open_disk(disk).await?;
        if let Some(root) = self.shared.lock().whole_tree(disk) {
            return Ok(root);
        }
        self.check_writable()?;
        let still = self.standing_still(&open).await?;
        let looked_at = still.as_ref().map_or(disk, |passing| passing.1);
        for _ in 0..TRIES {
            self.drain().await?;
            self.take_checkpoint().await?;
            if let Some(root) = self.shared.lock().whole_tree(looked_at) {
                return Ok(root);
            }
        }
        Err(EngineError::new(
            EngineErrorKind::Busy,
            format!("disk {} is not in a checkpoint yet: try again", disk.0),
        ))
    }

    /// A copy of a disk that may change meanwhile.
    async fn standing_still(&self, open: &OpenDisk) -> Result<Option<Passing<'_>>, EngineError> {
        let source = open.id();
        if self.shared.lock().disks.get(&source).is_none_or(|disk| disk.read_only) {
            return Ok(None);
        }
        let target = self.new_disk_id().await?;
        let passing = Passing(&self.shared, target);
        self.cut(vec![Fork { source, target }]).await?;
        if self.disk_bytes(target).is_none() {
            return Err(no_disk(source));
        }
        Ok(Some(passing))
    }
}

impl crate::state::State {
    /// The tree of a disk that has nothing above it.
    fn whole_tree(&self, disk: DiskId) -> Option<Option<Root>> {
        let found = self.disks.get(&disk).filter(|found| found.is_flat())?;
        self.view(disk).buffered.is_empty().then_some(found.root)
    }
}
