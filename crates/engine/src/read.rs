//! The read path.

use std::sync::Arc;

use bytes::Bytes;
use container::UnitKind;
use map::{Root, lookup};
use seal::Kind;
use units::{Address, BLOCK, BLOCK_U64, DiskId, Fingerprint, Lba};

use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::pages::PageStore;

/// Units this close in a container are fetched together: a gap costs less than another request.
const FETCH_GAP_BYTES: u32 = 16 * 1024;
/// Most bytes fetched at a time.
const FETCH_BYTES_MAX: u32 = 1 << 20;

/// Attempts at something while the cleaner deletes containers.
const MOVED_MAX: usize = 8;

/// Attempts at something that follows addresses: again when the cleaner deleted containers meanwhile and one is lost.
/// What was in it has moved, or nothing reaches it any more.
pub(crate) struct Attempts {
    left: usize,
    deletions: u64,
}

impl Attempts {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { left: MOVED_MAX, deletions: shared.lock().deletions }
    }

    pub(crate) fn once_more<T>(&mut self, shared: &Shared, done: &Result<T, EngineError>) -> bool {
        if done.as_ref().err().is_none_or(|error| error.kind != EngineErrorKind::Lost) {
            return false;
        }
        let deletions = shared.lock().deletions;
        let changed = std::mem::replace(&mut self.deletions, deletions) != deletions;
        self.left = self.left.saturating_sub(1);
        changed && self.left > 0
    }
}

/// Where a block's contents are.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Hole,
    Buffered(Fingerprint, Bytes),
    Stored(Fingerprint, Address),
    /// Ask the tree under this root.
    Tree(Root),
}

/// A stored block still to be fetched: its place in the request, name and address.
type Wanted = (usize, Fingerprint, Address);

impl Engine {
    /// Reads `length` bytes at byte `offset`.
    ///
    /// # Errors
    /// When the range is outside the disk, or a block is lost beyond repair: the error names the container.
    pub async fn read(&self, disk: DiskId, offset: u64, length: usize) -> Result<Vec<u8>, EngineError> {
        self.shared.lock().check(disk, offset, length as u64)?;
        if length == 0 {
            return Ok(Vec::new());
        }
        let first = offset / BLOCK_U64;
        let end = (offset + length as u64).div_ceil(BLOCK_U64);
        let _timed = self.shared.time_request();
        let mut out = vec![0; ((end - first) * BLOCK_U64) as usize];
        self.read_blocks(disk, Lba(first), &mut out).await?;
        self.shared.check_owner().await?;
        let skip = (offset - first * BLOCK_U64) as usize;
        if skip > 0 {
            out.drain(..skip);
        }
        out.truncate(length);
        Ok(out)
    }

    pub(crate) async fn read_block(&self, disk: DiskId, lba: Lba) -> Result<Vec<u8>, EngineError> {
        let mut out = vec![0; BLOCK];
        self.read_blocks(disk, lba, &mut out).await?;
        Ok(out)
    }

    /// Reads whole blocks into `out`, which is zeroed.
    async fn read_blocks(&self, disk: DiskId, first: Lba, out: &mut [u8]) -> Result<(), EngineError> {
        let mut attempts = Attempts::new(&self.shared);
        loop {
            let read = self.try_read(disk, first, out).await;
            if !attempts.once_more(&self.shared, &read) {
                return read;
            }
            out.fill(0);
        }
    }

    async fn try_read(&self, disk: DiskId, first: Lba, out: &mut [u8]) -> Result<(), EngineError> {
        let count = out.len() / BLOCK;
        let (sources, has_stubs): (Vec<Source>, bool) = {
            let state = self.shared.lock();
            let view = state.view(disk);
            let sources = (0..count).map(|i| view.source(Lba(first.0 + i as u64))).collect();
            (sources, !state.stubs.is_empty())
        };
        self.shared.maybe_yield().await;
        let mut wanted: Vec<Wanted> = Vec::new();
        for (i, source) in sources.into_iter().enumerate() {
            let place = i * BLOCK..(i + 1) * BLOCK;
            match source {
                Source::Hole => {}
                Source::Buffered(fingerprint, unit) => {
                    let mut plain = Vec::with_capacity(BLOCK);
                    let opened = self.shared.sealer.open(Kind::Data, fingerprint, &unit, &mut plain);
                    opened.map_err(|error| EngineError::new(EngineErrorKind::Lost, error.to_string()))?;
                    out[place].copy_from_slice(&plain);
                }
                Source::Stored(fingerprint, address) => {
                    self.take_cached(out, &mut wanted, (i, fingerprint, address))
                }
                Source::Tree(root) => {
                    let lba = Lba(first.0 + i as u64);
                    let found = lookup(&PageStore(&self.shared), Some(&root), lba).await?;
                    if let Some((fingerprint, address)) = found {
                        self.take_cached(out, &mut wanted, (i, fingerprint, address));
                    }
                }
            }
        }
        for want in wanted.iter_mut().filter(|_| has_stubs) {
            want.2 = self.shared.resolve(UnitKind::Data, &want.1, want.2).await?;
        }
        self.fetch(wanted, out).await
    }

    fn take_cached(&self, out: &mut [u8], wanted: &mut Vec<Wanted>, want: Wanted) {
        match self.shared.blocks.get(&want.1) {
            Some(block) if block.len() == BLOCK => {
                out[want.0 * BLOCK..(want.0 + 1) * BLOCK].copy_from_slice(&block)
            }
            _ => wanted.push(want),
        }
    }

    /// Fetches stored blocks: neighbours in a container together, containers at once.
    async fn fetch(&self, mut wanted: Vec<Wanted>, out: &mut [u8]) -> Result<(), EngineError> {
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_by_key(|(_, _, address)| (address.container, address.offset));
        let mut groups: Vec<Vec<Wanted>> = Vec::new();
        for want in wanted {
            match groups.last_mut() {
                Some(group) if joins(group, &want.2) => group.push(want),
                _ => groups.push(vec![want]),
            }
        }
        let fetched = seam::join_all(groups.iter().map(|group| self.fetch_group(group))).await;
        for (group, blocks) in groups.iter().zip(fetched) {
            for ((i, fingerprint, _), block) in group.iter().zip(blocks?) {
                out[i * BLOCK..(i + 1) * BLOCK].copy_from_slice(&block);
                self.shared.blocks.insert(*fingerprint, block);
            }
        }
        Ok(())
    }

    async fn fetch_group(&self, group: &[Wanted]) -> Result<Vec<Arc<[u8]>>, EngineError> {
        let address = group[0].2;
        let start = address.offset as usize;
        let end = group.iter().map(|(_, _, a)| a.offset as usize + a.length as usize).max().unwrap_or(start);
        let mut blocks: Vec<Arc<[u8]>> = Vec::new();
        let sealer = self.shared.sealer.clone();
        let mut check = |bytes: &[u8]| {
            blocks.clear();
            let mut plain = Vec::with_capacity(BLOCK);
            group.iter().all(|(_, fingerprint, a)| {
                let unit = &bytes[a.offset as usize - start..][..a.length as usize];
                let sound =
                    sealer.open(Kind::Data, *fingerprint, unit, &mut plain).is_ok() && plain.len() == BLOCK;
                blocks.push(Arc::from(plain.as_slice()));
                sound
            })
        };
        let pool = &self.shared.pool;
        let read = pool.read(address.container, address.fragment_pages, start, end - start, &mut check).await;
        if let Err(error) = read {
            // What cannot be read must not attract duplicates: a new write of it heals it.
            self.shared.dedup.forget(address.container);
            return Err(error.into());
        }
        Ok(blocks)
    }
}

fn joins(group: &[Wanted], next: &Address) -> bool {
    let (first, last) = (group[0].2, group[group.len() - 1].2);
    last.container == next.container
        && next.offset <= last.offset + last.length + FETCH_GAP_BYTES
        && next.offset + next.length - first.offset <= FETCH_BYTES_MAX
}
