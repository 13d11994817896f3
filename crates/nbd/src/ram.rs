//! An export in memory: for tests, fuzzing and measurement. Holds nothing over a restart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use seam::BoxFuture;

use crate::device::{
    Device, DeviceError, DeviceErrorKind, ExportInfo, Exports, Extent, OpenError, OpenErrorKind,
};

/// Bytes in a block: what is stored or a hole as a whole.
const BLOCK: usize = 4096;

/// A set of one export in memory. The empty name opens it too.
#[derive(Debug, Clone)]
pub struct RamExports {
    name: String,
    disk: Arc<RamDevice>,
}

impl RamExports {
    /// Serves `disk` under `name`.
    pub fn new(name: &str, disk: Arc<RamDevice>) -> Self {
        Self { name: name.to_owned(), disk }
    }
}

impl Exports for RamExports {
    fn list(&self) -> BoxFuture<'_, Vec<ExportInfo>> {
        let export = ExportInfo { name: self.name.clone(), description: self.disk.description() };
        Box::pin(std::future::ready(vec![export]))
    }

    fn open(&self, name: &str) -> BoxFuture<'_, Result<Arc<dyn Device>, OpenError>> {
        let opened: Result<Arc<dyn Device>, _> = if name.is_empty() || name == self.name {
            Ok(self.disk.clone())
        } else {
            Err(OpenError { kind: OpenErrorKind::Unknown, reason: format!("no export is named {name:?}") })
        };
        Box::pin(std::future::ready(opened))
    }
}

/// A disk in memory. Blocks never written or given back are holes.
#[derive(Debug)]
pub struct RamDevice {
    size: u64,
    blocks: Mutex<Vec<Option<Box<[u8; BLOCK]>>>>,
}

impl RamDevice {
    /// An empty disk of `size` bytes.
    pub fn new(size: usize) -> Self {
        let blocks = (0..size.div_ceil(BLOCK)).map(|_| None).collect();
        Self { size: size as u64, blocks: Mutex::new(blocks) }
    }

    fn blocks(&self) -> MutexGuard<'_, Vec<Option<Box<[u8; BLOCK]>>>> {
        // Blocks are changed whole or byte by byte; there is nothing a panic could leave half-done.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn range(&self, offset: u64, length: u64) -> Result<std::ops::Range<usize>, DeviceError> {
        let invalid =
            || DeviceError { kind: DeviceErrorKind::Invalid, reason: "past the end of the disk".to_owned() };
        let end = offset.checked_add(length).filter(|end| *end <= self.size).ok_or_else(invalid)?;
        // Within the size, which is a `usize`.
        Ok(offset as usize..end as usize)
    }

    fn zero(&self, offset: u64, length: u64, punch: bool) -> Result<(), DeviceError> {
        let range = self.range(offset, length)?;
        let mut blocks = self.blocks();
        for (number, within) in stretches(range) {
            let block = &mut blocks[number];
            if punch && within.len() == BLOCK {
                *block = None;
            } else if punch && block.is_none() {
                // Zeros already.
            } else {
                block.get_or_insert_with(|| Box::new([0; BLOCK]))[within].fill(0);
            }
        }
        Ok(())
    }
}

/// Cuts a range of bytes at block borders: block number and range within it.
fn stretches(range: std::ops::Range<usize>) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
    blocks.map(move |number| {
        let first = number * BLOCK;
        (number, range.start.max(first) - first..range.end.min(first + BLOCK) - first)
    })
}

fn ready<T: Send + 'static>(result: Result<T, DeviceError>) -> BoxFuture<'static, Result<T, DeviceError>> {
    Box::pin(std::future::ready(result))
}

impl Device for RamDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn zeroes_are_fast(&self) -> bool {
        true
    }

    fn description(&self) -> String {
        "a disk in memory".to_owned()
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes, DeviceError>> {
        ready(self.range(offset, length as u64).map(|range| {
            let blocks = self.blocks();
            let mut data = Vec::with_capacity(length);
            for (number, within) in stretches(range) {
                match &blocks[number] {
                    Some(block) => data.extend_from_slice(&block[within]),
                    None => data.resize(data.len() + within.len(), 0),
                }
            }
            data.into()
        }))
    }

    fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DeviceError>> {
        ready(self.range(offset, data.len() as u64).map(|range| {
            let mut blocks = self.blocks();
            let mut rest = &data[..];
            for (number, within) in stretches(range) {
                let (part, later) = rest.split_at(within.len());
                blocks[number].get_or_insert_with(|| Box::new([0; BLOCK]))[within].copy_from_slice(part);
                rest = later;
            }
        }))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        ready(Ok(()))
    }

    fn trim(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        ready(self.zero(offset, length, true))
    }

    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        may_punch: bool,
    ) -> BoxFuture<'_, Result<(), DeviceError>> {
        ready(self.zero(offset, length, may_punch))
    }

    fn extents(
        &self,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Extent>, DeviceError>> {
        ready(self.range(offset, length).map(|range| {
            let blocks = self.blocks();
            let mut found: Vec<Extent> = Vec::new();
            for (number, within) in stretches(range) {
                let hole = blocks[number].is_none();
                let full = found.len() == limit;
                match found.last_mut() {
                    Some(last) if last.hole == hole => last.length += within.len() as u64,
                    _ if full => break,
                    _ => found.push(Extent { length: within.len() as u64, hole, zero: hole }),
                }
            }
            found
        }))
    }
}
