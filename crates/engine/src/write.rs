//! The write path.

use bytes::Bytes;
use journal::{Append, Entry};
use seal::Kind;
use units::{BLOCK, BLOCK_U64, DiskId, Lba};

use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};

/// Blocks sealed and queued at a time: bounds what one request holds, and lets others run.
const CHUNK_BLOCKS: usize = 64;

impl Engine {
    /// Writes `data` at byte `offset`; durable when it returns. Each block changes at once or not at all.
    ///
    /// # Errors
    /// When the range is outside the disk, the pool is full or too few media are up. The write may then have
    /// happened, in part or whole.
    pub async fn write(&self, disk: DiskId, offset: u64, data: &[u8]) -> Result<(), EngineError> {
        self.shared.lock().check_change(disk, offset, data.len() as u64)?;
        self.check_writable()?;
        let _timed = self.shared.time_request();
        self.shared.maybe_yield().await;
        let head = (offset.next_multiple_of(BLOCK_U64) - offset).min(data.len() as u64) as usize;
        let (first, rest) = data.split_at(head);
        let (whole, last) = rest.split_at(rest.len() / BLOCK * BLOCK);
        if !first.is_empty() {
            self.write_part(disk, offset, first).await?;
        }
        if !whole.is_empty() {
            self.write_whole(disk, Lba((offset + head as u64) / BLOCK_U64), whole).await?;
        }
        if !last.is_empty() {
            self.write_part(disk, offset + (head + whole.len()) as u64, last).await?;
        }
        Ok(())
    }

    async fn write_whole(&self, disk: DiskId, first: Lba, data: &[u8]) -> Result<(), EngineError> {
        let blocks = (data.len() / BLOCK) as u64;
        let _range = self.shared.ranges.hold(disk, first.0, first.0 + blocks, false).await;
        self.check_still(disk, first.0 * BLOCK_U64, data.len() as u64)?;
        self.write_held(disk, first, data).await
    }

    /// Writes whole blocks whose range the caller holds.
    pub(crate) async fn write_held(&self, disk: DiskId, first: Lba, data: &[u8]) -> Result<(), EngineError> {
        let _sealing = self.shared.begin_sealing();
        self.shared.maybe_yield().await;
        let mut appends: Vec<Append> = Vec::new();
        let mut guards = Vec::new();
        for (i, chunk) in data.chunks(CHUNK_BLOCKS * BLOCK).enumerate() {
            let lba = Lba(first.0 + (i * CHUNK_BLOCKS) as u64);
            let count = (chunk.len() / BLOCK) as u64;
            if i > 0 {
                // One request must not keep a thread for its whole length.
                seam::yield_now().await;
            }
            let guard = match self.try_admit(count) {
                Some(guard) => guard,
                None => {
                    // Waiting for room while holding some of it could be for ever.
                    settle(std::mem::take(&mut appends)).await?;
                    guards.clear();
                    self.admit(count).await?
                }
            };
            guards.push(guard);
            let entries = self.seal_blocks(disk, lba, chunk);
            appends.push(self.shared.journal()?.append(entries));
        }
        settle(appends).await
    }

    /// A write to a part of one block: read, merge, write, with the block held alone.
    async fn write_part(&self, disk: DiskId, offset: u64, data: &[u8]) -> Result<(), EngineError> {
        let lba = Lba(offset / BLOCK_U64);
        let _range = self.shared.ranges.hold(disk, lba.0, lba.0 + 1, true).await;
        self.check_still(disk, offset, data.len() as u64)?;
        let mut block = self.read_block(disk, lba).await?;
        let start = (offset % BLOCK_U64) as usize;
        block[start..start + data.len()].copy_from_slice(data);
        self.write_held(disk, lba, &block).await
    }

    /// Whether a change still lies in its disk, with its range held: one that made the disk smaller had it before.
    fn check_still(&self, disk: DiskId, offset: u64, length: u64) -> Result<(), EngineError> {
        self.shared.lock().check_change(disk, offset, length)
    }

    fn seal_blocks(&self, disk: DiskId, first: Lba, data: &[u8]) -> Vec<Entry> {
        let sealer = &self.shared.sealer;
        let mut entries: Vec<Entry> = Vec::with_capacity(data.len() / BLOCK);
        for (i, block) in data.chunks_exact(BLOCK).enumerate() {
            let lba = Lba(first.0 + i as u64);
            if seal::is_zero(block) {
                match entries.last_mut() {
                    Some(Entry::Hole { lba: start, count, .. }) if start.0 + *count == lba.0 => *count += 1,
                    _ => entries.push(Entry::Hole { disk, lba, count: 1 }),
                }
                continue;
            }
            let fingerprint = sealer.fingerprint(Kind::Data, block);
            let mut unit = Vec::with_capacity(BLOCK + seal::OVERHEAD_BYTES);
            sealer.seal(Kind::Data, fingerprint, block, &mut unit);
            unit.shrink_to_fit();
            entries.push(Entry::Write { disk, lba, fingerprint, unit: Bytes::from(unit) });
        }
        entries
    }

    /// Makes `length` bytes at `offset` read as zero. With `exact` the edges that cover blocks in part are zeroed too
    /// (write-zeroes); without, they stay as they are (trim).
    ///
    /// # Errors
    /// As [`Engine::write`]; whole blocks need no room.
    pub async fn punch(
        &self,
        disk: DiskId,
        offset: u64,
        length: u64,
        exact: bool,
    ) -> Result<(), EngineError> {
        self.shared.lock().check_change(disk, offset, length)?;
        self.check_writable()?;
        let end = offset + length;
        let first = offset.div_ceil(BLOCK_U64);
        let (last, _range) = loop {
            let disk_end = self.disk_bytes(disk).unwrap_or(end);
            self.shared.maybe_yield().await;
            // The last block of a disk whose size is no multiple of 4096 is whole when it is covered to the disk's end.
            let last = if end == disk_end { end.div_ceil(BLOCK_U64) } else { end / BLOCK_U64 };
            if exact {
                let head_end = end.min(first * BLOCK_U64);
                if offset < head_end {
                    let zeros = vec![0; (head_end - offset) as usize];
                    self.write_part(disk, offset, &zeros).await?;
                }
                let tail_start = last.max(first) * BLOCK_U64;
                if tail_start < end {
                    let zeros = vec![0; (end - tail_start) as usize];
                    self.write_part(disk, tail_start, &zeros).await?;
                }
            }
            if first >= last {
                return Ok(());
            }
            let range = self.shared.ranges.hold(disk, first, last, false).await;
            // Where the disk has grown meanwhile, what is behind its old end may have been written since.
            if end != disk_end || self.disk_bytes(disk).is_none_or(|bytes| bytes == disk_end) {
                break (last, range);
            }
        };
        let _under_way = self.admit(0).await?;
        let entry = Entry::Hole { disk, lba: Lba(first), count: last - first };
        settle(vec![self.shared.journal()?.append(vec![entry])]).await
    }
}

async fn settle(appends: Vec<Append>) -> Result<(), EngineError> {
    let mut result = Ok(());
    for append in appends {
        let one = match append.await {
            Ok(done) => done.map(|_| ()).map_err(EngineError::from),
            Err(_) => Err(EngineError::new(EngineErrorKind::Closed, "the journal is gone")),
        };
        result = result.and(one);
    }
    result
}
