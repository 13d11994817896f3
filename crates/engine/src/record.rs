//! What the metadata store says of disks, under `disk/NUMBER`, and the number of the next disk.

use std::sync::Arc;

use map::Root;
use meta::{Key, KeyValue, Shard, Store, Table};
use serde::{Deserialize, Serialize};
use units::{DiskId, Seq};

use crate::error::{EngineError, EngineErrorKind};

/// Disks: key is the disk's number.
const DISKS: Table<Shard> = Table::new("disk");
/// The number of the next disk.
const NEXT_DISK: Table<Shard> = Table::new("next-disk");
const VERSION: u8 = 2;
/// Most disks of a site, those of snapshots included.
const DISKS_MAX: usize = 1 << 24;

/// What a disk began as. A checkpoint that lists the disk overrules it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Base {
    /// Holes.
    Empty,
    /// This tree; for a read-only disk it is all there is.
    Root(Option<Root>),
    /// What the source held behind all records before the cut.
    Cut {
        /// The source.
        source: DiskId,
        /// The cut.
        cut: Seq,
    },
}

/// What the metadata store says of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskRecord {
    pub(crate) version: u8,
    pub(crate) bytes: u64,
    pub(crate) read_only: bool,
    /// Deleted; the record stays while others began as it was.
    pub(crate) gone: bool,
    pub(crate) base: Base,
}

impl DiskRecord {
    pub(crate) fn new(bytes: u64, read_only: bool, base: Base) -> Self {
        Self { version: VERSION, bytes, read_only, gone: false, base }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain values always encode")
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes::<Self>(value) {
            Ok((record, [])) if record.version == VERSION => Some(record),
            _ => None,
        }
    }
}

/// The key of a disk.
pub(crate) fn disk_key(disk: DiskId) -> Result<Key, EngineError> {
    Ok(DISKS.key().number(disk.0).end()?)
}

/// The key of the number of the next disk; its value is that number, little-endian.
pub(crate) fn next_disk_key() -> Result<Key, EngineError> {
    Ok(NEXT_DISK.key().number(0).end()?)
}

/// The record of a disk, when it is there and not gone.
pub(crate) async fn find(
    store: &dyn Store,
    disk: DiskId,
) -> Result<Option<(KeyValue, DiskRecord)>, EngineError> {
    let Some(kv) = store.get(&disk_key(disk)?).await?.kv else { return Ok(None) };
    let record = DiskRecord::decode(&kv.value).ok_or_else(|| damaged(&kv))?;
    Ok((!record.gone).then_some((kv, record)))
}

/// All disks the metadata store knows.
pub(crate) async fn disks(meta: &Arc<meta::Embedded>) -> Result<Vec<(DiskId, DiskRecord)>, EngineError> {
    let (kvs, _) = meta::list(&**meta as &dyn Store, DISKS.all(), DISKS_MAX).await?;
    let disk = |kv: &KeyValue| {
        let number = DISKS.segments(&kv.key)?.number()?;
        Some((DiskId(number), DiskRecord::decode(&kv.value)?))
    };
    kvs.iter().map(|kv| disk(kv).ok_or_else(|| damaged(kv))).collect()
}

fn damaged(kv: &KeyValue) -> EngineError {
    EngineError::new(EngineErrorKind::Lost, format!("metadata of {:?} makes no sense", kv.key))
}
