//! Locks of points: no command deletes a locked point, its snapshots or its VMs before a time, whatever asks.

use api::{Error, Result, code, format_time, held, parse_until};
use meta::{Compare, KeyValue, Op, Stored, Txn};
use units::DiskId;

use super::{PART_OPS_MAX, PointRecord, PointState, StoredPoint, TRIES, changed};
use crate::catalog::Catalog;
use crate::snapshots::SnapshotRecord;

/// What a lock of one snapshot costs beside its disks: compares or operations, whichever are more.
const SNAPSHOT_OPS: usize = 2;
/// Bytes of a hold in the record of its transaction, at most.
const HOLD_BYTES: usize = 256;

/// What one transaction holds.
#[derive(Default)]
struct Holding {
    txn: Txn,
    disks: Vec<DiskId>,
    ops: usize,
    bytes: usize,
}

impl Catalog {
    /// Locks a point until a time: RFC 3339, or a span from now on. A lock is made longer, never shorter.
    ///
    /// # Errors
    /// `point_not_found`; `invalid_time`; `hold_shorter`.
    pub async fn hold_point(&self, id: u64, until: &str) -> Result<StoredPoint> {
        for _ in 0..TRIES {
            let until_ms = parse_until(until, self.engine.site_time_ms())?;
            let (kv, point) = self.find_point(id).await?;
            let known_ms = point.record.locked_until_ms;
            if point.record.state != PointState::Whole {
                return Err(super::not_found(id));
            }
            if until_ms < known_ms {
                let reason = format!(
                    "point {id} is locked until {}: a lock is never shortened",
                    format_time(known_ms)
                );
                return Err(Error::new(code::HOLD_SHORTER, reason));
            }
            let record = PointRecord { locked_until_ms: until_ms, ..point.record };
            let txn = Txn::new()
                .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                .then(Op::put(kv.key, record.encode()?));
            if self.engine.apply(txn, &[], &[]).await? {
                tracing::info!(point = record.name, until = format_time(until_ms), "point locked");
                return self.hold_disks(id).await;
            }
        }
        Err(changed(id))
    }

    /// Has snapshots, VMs and the engine know how long a point is locked, where its record says that they do not.
    pub(super) async fn hold_disks(&self, id: u64) -> Result<StoredPoint> {
        for _ in 0..TRIES {
            let (kv, point) = self.find_point(id).await?;
            let until_ms = point.record.locked_until_ms;
            if point.record.disks_held_until_ms >= until_ms {
                return Ok(point);
            }
            if self.hold_snapshots(&point, until_ms).await? {
                let record = PointRecord { disks_held_until_ms: until_ms, ..point.record };
                let txn = Txn::new()
                    .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                    .then(Op::put(kv.key, record.encode()?));
                self.engine.apply(txn, &[], &[]).await?;
            }
        }
        Err(changed(id))
    }

    /// False when something was changed meanwhile.
    async fn hold_snapshots(&self, point: &StoredPoint, until_ms: u64) -> Result<bool> {
        let names = self.vm_numbers().await?;
        let mut part = Holding::default();
        for (vm, kv, snapshot) in self.snapshots_of_point(point).await? {
            let mut txn = held_until(Txn::new(), &kv, &snapshot, until_ms)?;
            // A VM in the trash was refused its way there, or was there before.
            if let Some(name) = names.get(&vm) {
                let (kv, mut owner) = self.find(&api::VmName::parse(name)?).await?;
                if owner.held_until_ms < until_ms {
                    owner.held_until_ms = until_ms;
                    txn = txn
                        .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                        .then(Op::put(kv.key, owner.encode()?));
                }
            }
            let disks = snapshot.ids();
            let ops = SNAPSHOT_OPS + 2 * disks.len();
            let bytes = txn.then.iter().map(Op::record_bytes).sum::<usize>() + HOLD_BYTES * disks.len();
            let is_full =
                part.ops + ops > PART_OPS_MAX || part.bytes + bytes > self.engine.transaction_bytes();
            if is_full && part.ops > 0 && !self.hold_part(std::mem::take(&mut part), until_ms).await? {
                return Ok(false);
            }
            part.txn.compares.extend(txn.compares);
            part.txn.then.extend(txn.then);
            part.disks.extend(disks);
            (part.ops, part.bytes) = (part.ops + ops, part.bytes + bytes);
        }
        Ok(part.ops == 0 || self.hold_part(part, until_ms).await?)
    }

    async fn hold_part(&self, part: Holding, until_ms: u64) -> Result<bool> {
        Ok(self.engine.hold(part.txn, &part.disks, until_ms).await?)
    }

    /// Makes up for locks that a crash or an error kept from the engine.
    ///
    /// # Errors
    /// The first that failed.
    pub async fn keep_locks(&self, points: &[u64]) -> Result<()> {
        let mut first = Ok(());
        for id in points {
            match self.hold_disks(*id).await {
                Ok(_) => {}
                Err(error) if error.code == code::POINT_NOT_FOUND => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Refuses what would end a point that is locked now.
    pub(super) fn check_unlocked(&self, point: &StoredPoint) -> Result<()> {
        let until_ms = point.record.locked_until_ms;
        if point.record.state == PointState::Whole && until_ms > self.engine.site_time_ms() {
            return Err(held(&format!("point {}", point.record.name), until_ms));
        }
        Ok(())
    }
}

fn held_until(txn: Txn, kv: &KeyValue, snapshot: &SnapshotRecord, until_ms: u64) -> Result<Txn> {
    let mut snapshot = snapshot.clone();
    snapshot.held_until_ms = snapshot.held_until_ms.max(until_ms);
    Ok(txn
        .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
        .then(Op::put(kv.key.clone(), snapshot.encode()?)))
}
