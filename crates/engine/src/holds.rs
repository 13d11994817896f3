//! Holds: disks that never change and that nobody may delete before a time (section 6.3 of docs/design.md, decision 0010).
//!
//! ```text
//!  hold/DISK        version 1 (u8) | until ms | enforced ms     postcard; times are site time
//!  site-clock/0     the highest site time that was kept, ms, 8 bytes little-endian
//! ```
//! A hold is only ever made longer. Whatever removes a disk looks here, in the same transaction: no way leads around it.
//! **Until** is what the metadata says; **enforced** is what the data nodes were told of all that the disk reaches.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use meta::{Compare, Key, KeyValue, Op, Shard, Store, Table, Txn};
use serde::{Deserialize, Serialize};
use units::{ContainerId, DiskId};

use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};
use crate::metadata::{RACES_MAX, no_disk};
use crate::record::{Base, DiskRecord, find};

const HOLDS: Table<Shard> = Table::new("hold");
const CLOCK: Table<Shard> = Table::new("site-clock");
const VERSION: u8 = 1;
/// Most holds that are read at once.
const HOLDS_MAX: usize = 1 << 24;

/// A disk that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The disk.
    pub disk: DiskId,
    /// No command removes it before, site time in ms.
    pub until_ms: u64,
    /// No data node frees what it reaches before; 0 while they were not all told.
    pub enforced_ms: u64,
}

/// A hold as it is stored.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct HoldRecord {
    pub(crate) version: u8,
    pub(crate) until_ms: u64,
    pub(crate) enforced_ms: u64,
}

impl HoldRecord {
    pub(crate) fn encode(self) -> Vec<u8> {
        postcard::to_stdvec(&self).expect("plain values always encode")
    }
}

fn key(disk: DiskId) -> Result<Key, EngineError> {
    Ok(HOLDS.key().number(disk.0).end()?)
}

fn decode(kv: &KeyValue) -> Result<HoldRecord, EngineError> {
    match postcard::take_from_bytes::<HoldRecord>(&kv.value) {
        Ok((record, [])) if record.version == VERSION => Ok(record),
        _ => Err(EngineError::new(EngineErrorKind::Lost, format!("metadata of {:?} makes no sense", kv.key))),
    }
}

/// Decodes `input` as the record of a hold.
pub(crate) fn fuzz_body(input: &[u8]) {
    let _ = postcard::take_from_bytes::<HoldRecord>(input);
}

fn clock_key() -> Result<Key, EngineError> {
    Ok(CLOCK.key().number(0).end()?)
}

/// The highest site time that was kept.
pub(crate) async fn kept_time(store: &dyn Store) -> Result<u64, EngineError> {
    let kept = store.get(&clock_key()?).await?.kv;
    Ok(kept.and_then(|kv| (*kv.value).try_into().ok()).map_or(0, u64::from_le_bytes))
}

fn clock_op(now_ms: u64) -> Result<Op, EngineError> {
    Ok(Op::put(clock_key()?, now_ms.to_le_bytes().to_vec()))
}

impl Engine {
    /// Site time in ms since the epoch: it never goes back, over restarts as far as it was kept.
    pub fn site_time_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// The host's clock, ms since the epoch: what site time would be if it was believed.
    pub fn host_time_ms(&self) -> u64 {
        self.shared.clock.host_ms()
    }

    /// Has site time go on from the host's clock where that is ahead, however far.
    ///
    /// # Errors
    /// When the metadata store does not take it.
    pub async fn believe_host(&self) -> Result<(), EngineError> {
        self.check_writable()?;
        let now_ms = self.host_time_ms().max(self.site_time_ms());
        self.shared.decided(Txn::new().then(clock_op(now_ms)?)).await?;
        self.shared.clock.raise(now_ms);
        self.shared.transport.tell_time(now_ms);
        Ok(())
    }

    /// Makes the site time durable: no later start begins before it.
    ///
    /// # Errors
    /// When the metadata store does not take it.
    pub async fn keep_time(&self) -> Result<(), EngineError> {
        self.check_writable()?;
        self.shared.decided(Txn::new().then(clock_op(self.site_time_ms())?)).await?;
        Ok(())
    }

    /// Holds disks that never change until a site time, together with what `txn` does; false when one of its own compares
    /// failed. One that is held longer already stays so.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a disk that is written to; when the metadata store does not take it.
    pub async fn hold(&self, txn: Txn, disks: &[DiskId], until_ms: u64) -> Result<bool, EngineError> {
        self.check_writable()?;
        let _gate = self.shared.fork_gate.read().await;
        for _ in 0..RACES_MAX {
            let (mut all, mut seen) = (txn.clone().then(clock_op(self.site_time_ms())?), Vec::new());
            for disk in disks {
                let (kv, record) = find(&*self.meta(), *disk).await?.ok_or_else(|| no_disk(*disk))?;
                if !record.read_only {
                    let reason = format!("disk {} is written to: only what never changes is held", disk.0);
                    return Err(EngineError::new(EngineErrorKind::Invalid, reason));
                }
                let known = self.meta().get(&key(*disk)?).await?.kv;
                let old = known.as_ref().map(decode).transpose()?;
                seen.push((kv.mod_revision, known.as_ref().map(|kv| kv.mod_revision)));
                all = all.when(Compare::unchanged(kv.key, kv.mod_revision)).when(unchanged(*disk, known)?);
                let (was, enforced_ms) = old.map_or((0, 0), |old| (old.until_ms, old.enforced_ms));
                let record = HoldRecord { version: VERSION, until_ms: until_ms.max(was), enforced_ms };
                all = all.then(Op::put(key(*disk)?, record.encode()));
            }
            // Said before: a caller that goes away meanwhile leaves a hold that media are to hear of.
            self.shared.holds_pending.store(true, Ordering::Release);
            if self.shared.decided(all).await?.succeeded {
                self.shared.holds_pending.store(true, Ordering::Release);
                return Ok(true);
            }
            let mut now = Vec::new();
            for disk in disks {
                let found = find(&*self.meta(), *disk).await?.ok_or_else(|| no_disk(*disk))?;
                let hold = self.meta().get(&key(*disk)?).await?.kv;
                now.push((found.0.mod_revision, hold.map(|kv| kv.mod_revision)));
            }
            if now == seen {
                return Ok(false);
            }
        }
        Err(EngineError::new(EngineErrorKind::Busy, "others keep changing these disks: try again"))
    }

    /// Has the data nodes keep what held disks reach, until their holds end; gives how many are not told of yet. A disk that
    /// no checkpoint has is brought into one. The cleaner rests meanwhile, so that nothing moves.
    ///
    /// # Errors
    /// When the metadata cannot be read or written, or a map page is lost.
    pub async fn enforce_holds(&self) -> Result<usize, EngineError> {
        self.check_writable()?;
        if !self.shared.holds_pending.swap(false, Ordering::AcqRel) {
            return Ok(0);
        }
        let left = self.enforce_some().await;
        if !matches!(left, Ok(0)) {
            self.shared.holds_pending.store(true, Ordering::Release);
        }
        left
    }

    async fn enforce_some(&self) -> Result<usize, EngineError> {
        let mut due = self.holds().await?;
        due.retain(|hold| hold.enforced_ms < hold.until_ms);
        if due.is_empty() {
            return Ok(0);
        }
        let _turn = self.shared.cleaning.lock().await;
        let mut left = 0;
        for hold in due {
            let Some(root) = self.settled_root(hold.disk).await? else {
                left += 1;
                continue;
            };
            let containers = match root {
                Some(root) => self.containers_under(&root).await?,
                None => BTreeSet::new(),
            };
            let told = self.shared.pool.lock_containers(&containers, hold.until_ms).await;
            if !(told && self.note_enforced(hold).await?) {
                left += 1;
            }
        }
        Ok(left)
    }

    /// Containers that a held disk reaches and that no medium within reach keeps until the end of its hold; none of a disk
    /// that is not held, or whose hold the media have not heard of.
    ///
    /// # Errors
    /// As [`Engine::enforce_holds`].
    pub async fn lacking_locks(&self, disk: DiskId) -> Result<Vec<ContainerId>, EngineError> {
        let _turn = self.shared.cleaning.lock().await;
        let Some(hold) = self.hold_of(disk).await? else { return Ok(Vec::new()) };
        let root = match find(&*self.meta(), disk).await? {
            Some((_, DiskRecord { base: Base::Root(Some(root)), .. })) if hold.enforced_ms > 0 => root,
            _ => return Ok(Vec::new()),
        };
        let locks = self.shared.pool.locks().await;
        let mut lacking: Vec<ContainerId> = self.containers_under(&root).await?.into_iter().collect();
        lacking.retain(|id| locks.get(id).is_none_or(|until| *until < hold.enforced_ms));
        Ok(lacking)
    }

    /// The tree of a disk that never changes; `None` while it has none of its own.
    async fn settled_root(&self, disk: DiskId) -> Result<Option<Option<map::Root>>, EngineError> {
        for looked_before in [false, true] {
            let found = find(&*self.meta(), disk).await?;
            match found {
                Some((_, DiskRecord { base: Base::Root(root), .. })) => return Ok(Some(root)),
                Some(_) if !looked_before => {
                    self.drain().await?;
                    self.take_checkpoint().await?;
                }
                _ => break,
            }
        }
        Ok(None)
    }

    async fn note_enforced(&self, hold: Hold) -> Result<bool, EngineError> {
        let Some(kv) = self.meta().get(&key(hold.disk)?).await?.kv else { return Ok(true) };
        let record = decode(&kv)?;
        if record.until_ms != hold.until_ms {
            return Ok(false);
        }
        let put = Op::put(kv.key.clone(), HoldRecord { enforced_ms: hold.until_ms, ..record }.encode());
        let txn = Txn::new().when(Compare::unchanged(kv.key, kv.mod_revision)).then(put);
        Ok(self.shared.decided(txn).await?.succeeded)
    }

    /// The hold of a disk, when it has one that is not over.
    ///
    /// # Errors
    /// When its record makes no sense.
    pub async fn hold_of(&self, disk: DiskId) -> Result<Option<Hold>, EngineError> {
        let Some(kv) = self.meta().get(&key(disk)?).await?.kv else { return Ok(None) };
        let HoldRecord { until_ms, enforced_ms, .. } = decode(&kv)?;
        Ok((until_ms > self.site_time_ms()).then_some(Hold { disk, until_ms, enforced_ms }))
    }

    /// Every hold that is not over.
    ///
    /// # Errors
    /// When a record makes no sense.
    pub async fn holds(&self) -> Result<Vec<Hold>, EngineError> {
        let (kvs, _) = meta::list(&*self.meta(), HOLDS.all(), HOLDS_MAX).await?;
        let mut holds = Vec::new();
        for kv in &kvs {
            let number = HOLDS.segments(&kv.key).and_then(|mut segments| segments.number());
            let (HoldRecord { until_ms, enforced_ms, .. }, Some(number)) = (decode(kv)?, number) else {
                continue;
            };
            if until_ms > self.site_time_ms() {
                holds.push(Hold { disk: DiskId(number), until_ms, enforced_ms });
            }
        }
        Ok(holds)
    }

    /// Adds to a transaction that removes disks that none of them is held; what is left of holds that are over goes with
    /// them.
    pub(crate) async fn check_held(&self, mut txn: Txn, remove: &[DiskId]) -> Result<Txn, EngineError> {
        for disk in remove {
            // What is written to has no hold, and a transaction takes so many compares.
            if self.shared.lock().disks.get(disk).is_some_and(|disk| !disk.read_only) {
                continue;
            }
            self.shared.maybe_yield().await;
            let key = key(*disk)?;
            let known = self.meta().get(&key).await?.kv;
            if let Some(kv) = &known {
                let until_ms = decode(kv)?.until_ms;
                if until_ms > self.site_time_ms() {
                    let reason = format!("disk {} is held until {until_ms} ms of site time", disk.0);
                    return Err(EngineError::new(EngineErrorKind::Held, reason));
                }
                txn = txn.then(Op::delete(&key));
            }
            txn = txn.when(unchanged(*disk, known)?);
        }
        Ok(txn)
    }
}

fn unchanged(disk: DiskId, known: Option<KeyValue>) -> Result<Compare, EngineError> {
    Ok(match known {
        Some(kv) => Compare::unchanged(kv.key, kv.mod_revision),
        None => Compare::absent(key(disk)?),
    })
}
