//! The metadata store's records in the journal, and the disks it knows of.

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use journal::{Entry, JournalErrorKind};
use meta::{Compare, Op, Persist, PersistError, Txn};
use seal::Kind;
use seam::BoxFuture;
use units::{BLOCK_U64, DiskId, Lba};

use crate::disk::Disk;
use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::record::{Base, DiskRecord, disk_key, find, next_disk_key};

/// Pause before a record that found too few media is written again.
const RETRY: Duration = Duration::from_millis(500);
/// Metadata that no checkpoint holds yet, in limits (`meta_bytes_max`, a sixteenth of a segment), beyond which records
/// wait for one.
const RECORDS_LIMITS: usize = 3;
/// The same for records that only delete: a full site takes deletions.
const DELETIONS_LIMITS: usize = 4;
/// Disk numbers taken from the store at a time.
const IDS_RESERVED: u64 = 256;
/// Attempts at a transaction that others keep changing under our feet.
pub(crate) const RACES_MAX: usize = 64;
/// More than the record of a disk's new size takes.
const SIZE_RECORD_BYTES: usize = 256;
/// Largest disk: 2^52 blocks would overflow the map; 1 PiB is far beyond use.
const DISK_BYTES_MAX: u64 = 1 << 50;

/// Makes the store's records durable in the journal, sealed.
pub(crate) struct JournalPersist {
    pub(crate) shared: Weak<Shared>,
}

impl Persist for JournalPersist {
    fn persist(&self, record: Vec<u8>) -> BoxFuture<'_, Result<(), PersistError>> {
        Box::pin(async move {
            let gone = || PersistError { reason: "the engine is gone".to_owned() };
            let shared = self.shared.upgrade().ok_or_else(gone)?;
            let _sealing = shared.begin_sealing();
            shared.maybe_yield().await;
            let fingerprint = shared.sealer.fingerprint(Kind::Meta, &record);
            let mut unit = Vec::new();
            shared.sealer.seal(Kind::Meta, fingerprint, &record, &mut unit);
            let entry = Entry::Meta { fingerprint, unit: Bytes::from(unit) };
            loop {
                let append = shared.journal().map_err(|_| gone())?.append_meta(vec![entry.clone()]);
                match append.await.map_err(|_| gone())? {
                    Ok(_) => break,
                    // The record may be found after a crash or not. Written again it is found once or twice, which is the
                    // same; giving up would leave the store not knowing.
                    Err(error)
                        if error.kind != JournalErrorKind::Closed
                            && error.kind != JournalErrorKind::Fenced =>
                    {
                        tracing::warn!(%error, "a metadata record waits for media or room");
                        shared.rt.sleep(RETRY).await;
                    }
                    Err(error) => return Err(PersistError { reason: error.to_string() }),
                }
            }
            shared.flush_wake.notify_one();
            Ok(())
        })
    }

    /// The journal's segments stay for what no checkpoint holds yet: where checkpoints find no room, there must not be so much
    /// of it that the journal could not go on.
    fn admit(&self, bytes: usize, frees: bool) -> BoxFuture<'_, Result<(), PersistError>> {
        Box::pin(room_for_meta(&self.shared, bytes, frees))
    }
}

/// Waits until a record of metadata may be made. Holds the engine only while it looks.
async fn room_for_meta(shared: &Weak<Shared>, bytes: usize, frees: bool) -> Result<(), PersistError> {
    loop {
        let gone = || PersistError { reason: "the engine is gone".to_owned() };
        let shared = shared.upgrade().ok_or_else(gone)?;
        if shared.has_room_for_meta(bytes, frees)? {
            return Ok(());
        }
        let rt = shared.rt.clone();
        drop(shared);
        rt.sleep(RETRY / 10).await;
    }
}

impl Shared {
    /// Whether a record of metadata may be made now; an error once there has been no room for long.
    fn has_room_for_meta(&self, bytes: usize, frees: bool) -> Result<bool, PersistError> {
        let gone = || PersistError { reason: "the journal is gone".to_owned() };
        let segments = self.journal().map_err(|_| gone())?.segments_for_meta();
        let most = self.config.meta_bytes_max;
        let (limits, spare) = if frees { (DELETIONS_LIMITS, 1) } else { (RECORDS_LIMITS, 2) };
        let mut state = self.lock();
        let carried = state.meta_bytes();
        // A record that finds little before it goes, however long.
        let fits = carried <= most || carried + bytes <= limits * most;
        if segments >= spare && fits {
            state.meta_waits_since = None;
            return Ok(true);
        }
        let now = self.rt.now();
        let since = *state.meta_waits_since.get_or_insert(now);
        drop(state);
        if now >= since + self.config.write_patience {
            return Err(PersistError { reason: "no flush or checkpoint makes room for metadata".to_owned() });
        }
        self.flush_wake.notify_one();
        Ok(false)
    }
}

impl Engine {
    /// A disk number that was never used. Numbers are taken from the store many at a time; those left over at the end
    /// of an incarnation are never used.
    ///
    /// # Errors
    /// When the metadata store does not take the transaction.
    pub async fn new_disk_id(&self) -> Result<DiskId, EngineError> {
        self.check_writable()?;
        let mut reserved = self.shared.reserved_ids.lock().await;
        if reserved.is_empty() {
            *reserved = self.reserve_ids().await?;
        }
        let id = reserved.start;
        reserved.start += 1;
        Ok(DiskId(id))
    }

    async fn reserve_ids(&self) -> Result<Range<u64>, EngineError> {
        let meta = self.meta();
        let key = next_disk_key()?;
        for _ in 0..RACES_MAX {
            let found = meta.get(&key).await?.kv;
            let next = match &found {
                Some(kv) => (*kv.value).try_into().map_or(1, u64::from_le_bytes),
                None => 1,
            };
            let compare = match &found {
                Some(kv) => Compare::unchanged(key.clone(), kv.mod_revision),
                None => Compare::absent(key.clone()),
            };
            let behind = next + IDS_RESERVED;
            let txn = Txn::new().when(compare).then(Op::put(key.clone(), behind.to_le_bytes()));
            if self.shared.decided(txn).await?.succeeded {
                return Ok(next..behind);
            }
        }
        Err(EngineError::new(EngineErrorKind::Busy, "others keep taking disk numbers: try again"))
    }

    /// Runs a metadata transaction that creates and removes disks together with other keys; false when one of its
    /// compares failed and nothing was done.
    ///
    /// # Errors
    /// When a size is out of range or the metadata store does not take the transaction.
    pub async fn apply(
        &self,
        txn: Txn,
        create: &[(DiskId, u64)],
        remove: &[DiskId],
    ) -> Result<bool, EngineError> {
        let (engine, create, remove) = (self.clone(), create.to_vec(), remove.to_vec());
        let work = async move { engine.apply_to_the_end(txn, &create, &remove).await };
        self.to_the_end("change of disks", work).await
    }

    async fn apply_to_the_end(
        &self,
        txn: Txn,
        create: &[(DiskId, u64)],
        remove: &[DiskId],
    ) -> Result<bool, EngineError> {
        self.check_writable()?;
        let _stay = self.shared.departures.enter(Vec::new(), remove.to_vec()).await;
        let _gate = self.shared.fork_gate.read().await;
        let mut txn = txn;
        for (disk, bytes) in create {
            check_bytes(*bytes)?;
            let (key, record) = (disk_key(*disk)?, DiskRecord::new(*bytes, false, Base::Empty));
            txn = txn.when(Compare::absent(key.clone())).then(Op::put(key, record.encode()));
        }
        for _ in 0..RACES_MAX {
            let (all, removal) = self.with_removal(txn.clone(), remove).await?;
            if self.shared.decided(all).await?.succeeded {
                let mut state = self.shared.lock();
                for (disk, bytes) in create {
                    state.disks.insert(*disk, Disk { bytes: *bytes, ..Disk::default() });
                }
                removal.done(&mut state);
                drop(state);
                self.clean_when_low();
                return Ok(true);
            }
            if self.still_holds(&removal).await? {
                return Ok(false);
            }
        }
        Err(EngineError::new(EngineErrorKind::Busy, "others keep changing these disks: try again"))
    }

    /// Bytes of keys and values that a transaction may bring together without coming near what a record holds.
    pub fn transaction_bytes(&self) -> usize {
        self.shared.config.meta_record_bytes() / 2
    }

    /// Changes the size of a disk. What lies beyond a smaller size is gone for good.
    ///
    /// # Errors
    /// When the disk does not exist, the size is out of range or the change cannot be made durable.
    pub async fn resize(&self, disk: DiskId, bytes: u64) -> Result<(), EngineError> {
        let engine = self.clone();
        self.to_the_end("resize", async move { engine.resize_to_the_end(disk, bytes).await }).await
    }

    async fn resize_to_the_end(&self, disk: DiskId, bytes: u64) -> Result<(), EngineError> {
        check_bytes(bytes)?;
        self.check_writable()?;
        self.shared.lock().check_change(disk, 0, 0)?;
        // Before anything is cut off: a size that cannot be recorded must leave the disk as it is.
        let room = room_for_meta(&Arc::downgrade(&self.shared), SIZE_RECORD_BYTES, false).await;
        room.map_err(|error| EngineError::new(EngineErrorKind::NoSpace, error.to_string()))?;
        let from = bytes.div_ceil(BLOCK_U64);
        // Held alone: no write may land beyond the new end after the hole that clears it.
        let (old, _range) = loop {
            let old = self.disk_bytes(disk).ok_or_else(|| no_disk(disk))?;
            // The block that is cut in two as well.
            let first = (bytes / BLOCK_U64).min(old.div_ceil(BLOCK_U64));
            self.shared.maybe_yield().await;
            let range = self.shared.ranges.hold(disk, first, u64::MAX, true).await;
            // Another that changed the size had the range before.
            if self.disk_bytes(disk) == Some(old) {
                break (old, range);
            }
        };
        let to = old.div_ceil(BLOCK_U64);
        if bytes < old {
            let cut = bytes / BLOCK_U64 * BLOCK_U64;
            if cut < bytes {
                // The rest of the last block must read as zero should the disk grow again.
                let mut block = self.read_block(disk, Lba(cut / BLOCK_U64)).await?;
                block[(bytes - cut) as usize..].fill(0);
                self.write_held(disk, Lba(cut / BLOCK_U64), &block).await?;
            }
            if from < to {
                let entry = Entry::Hole { disk, lba: Lba(from), count: to - from };
                let done = self.shared.journal()?.append(vec![entry]).await;
                done.map_err(|_| EngineError::new(EngineErrorKind::Closed, "the journal is gone"))??;
            }
        }
        self.record_size(disk, bytes).await?;
        if let Some(disk) = self.shared.lock().disks.get_mut(&disk) {
            disk.bytes = bytes;
        }
        Ok(())
    }

    async fn record_size(&self, disk: DiskId, bytes: u64) -> Result<(), EngineError> {
        let meta = self.meta();
        for _ in 0..RACES_MAX {
            let Some((kv, record)) = find(&*meta, disk).await? else { return Err(no_disk(disk)) };
            let put = Op::put(kv.key.clone(), DiskRecord { bytes, ..record }.encode());
            let txn = Txn::new().when(Compare::unchanged(kv.key, kv.mod_revision)).then(put);
            if self.shared.decided(txn).await?.succeeded {
                return Ok(());
            }
        }
        Err(EngineError::new(
            EngineErrorKind::Busy,
            format!("others keep changing disk {}: try again", disk.0),
        ))
    }
}

pub(crate) fn no_disk(disk: DiskId) -> EngineError {
    EngineError::new(EngineErrorKind::NotFound, format!("there is no disk {}", disk.0))
}

fn check_bytes(bytes: u64) -> Result<(), EngineError> {
    if (1..=DISK_BYTES_MAX).contains(&bytes) {
        return Ok(());
    }
    let reason = format!("a disk has 1 byte to {} TiB, not {bytes} bytes", DISK_BYTES_MAX >> 40);
    Err(EngineError::new(EngineErrorKind::Invalid, reason))
}
