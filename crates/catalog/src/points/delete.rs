//! Deleting a point, whole: its snapshots go with it, for good.

use std::collections::BTreeSet;

use api::{Error, Result, code};
use meta::{Compare, KeyValue, Op, Stored, Txn};
use units::DiskId;

use super::{PART_OPS_MAX, PointRecord, PointState, StoredPoint, TRIES, changed};
use crate::catalog::Catalog;
use crate::snapshots::{self, SnapshotRecord};
use crate::trash::What;
use crate::{definition, record::Record};

/// What the deletion of one snapshot costs beside its disks: of each a compare, an operation and what looks for its hold.
const SNAPSHOT_OPS: usize = 4;
const DISK_OPS: usize = 2;
/// Bytes of the record of one deletion, at most: two ends of a range of a key of a table, a number and a name.
const DELETE_BYTES: usize = 256;

/// What one transaction of a deletion removes.
#[derive(Default)]
struct Going {
    txn: Txn,
    disks: Vec<DiskId>,
    ops: usize,
    bytes: usize,
}

impl Catalog {
    /// Deletes a point with its snapshots; false when it was not there. Disks that began as one of them stay.
    ///
    /// # Errors
    /// `snapshot_held` while it is locked; `vm_in_use` while a client reads one of its snapshots. It is whole then.
    pub async fn delete_point(&self, id: u64) -> Result<bool> {
        for _ in 0..TRIES {
            let _turn = self.definitions.lock().await;
            let found = self.find_point(id).await;
            let (kv, point) = match found {
                Err(error) if error.code == code::POINT_NOT_FOUND => return Ok(false),
                found => found?,
            };
            self.check_unlocked(&point)?;
            if self.try_delete_point(kv, point).await? {
                return Ok(true);
            }
        }
        Err(changed(id))
    }

    async fn try_delete_point(&self, mut kv: KeyValue, point: StoredPoint) -> Result<bool> {
        let found = self.snapshots_of_point(&point).await?;
        let disks: Vec<DiskId> = found.iter().flat_map(|(_, _, snapshot)| snapshot.ids()).collect();
        let _closed = self.uses.close(&disks).ok_or_else(|| {
            let reason = format!("a client reads a snapshot of point {}", point.record.name);
            Error::new(code::VM_IN_USE, reason).hint("end the client first")
        })?;
        let mut parts = self.going(&found).await?;
        if parts.len() > 1 && point.record.state == PointState::Whole {
            let going = PointRecord { state: PointState::Going, ..point.record.clone() }.encode()?;
            let txn = Txn::new()
                .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                .then(Op::put(kv.key.clone(), going));
            if !self.engine.apply(txn, &[], &[]).await? {
                return Ok(false);
            }
            kv = self.find_point(point.id).await?.0;
        }
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            if !self.engine.apply(part.txn, &[], &part.disks).await? {
                return Ok(false);
            }
        }
        let txn =
            last.txn.when(Compare::unchanged(kv.key.clone(), kv.mod_revision)).then(Op::delete(&kv.key));
        let done = self.engine.apply(txn, &[], &last.disks).await?;
        if done {
            tracing::info!(point = point.record.name, "point deleted");
        }
        Ok(done)
    }

    /// The transactions that delete snapshots.
    async fn going(&self, found: &[(u64, KeyValue, SnapshotRecord)]) -> Result<Vec<Going>> {
        let mut owned: Option<BTreeSet<u64>> = None;
        // Definitions whose last user goes with this point.
        let mut parts: Vec<Going> = Vec::new();
        for (_, kv, snapshot) in found {
            let cost = SNAPSHOT_OPS + DISK_OPS * snapshot.ids().len();
            let bytes = cost * DELETE_BYTES;
            let fits = |last: &Going| {
                last.ops + cost <= PART_OPS_MAX && last.bytes + bytes <= self.engine.transaction_bytes()
            };
            if !parts.last().is_some_and(fits) {
                parts.push(Going::default());
            }
            let part = parts.last_mut().expect("one was just pushed");
            let mut txn = std::mem::take(&mut part.txn)
                .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                .then(Op::delete(&kv.key));
            if let Some(used) = snapshot.definition {
                if self.users_of(used).await? == 1 {
                    let owned = match &mut owned {
                        Some(owned) => owned,
                        None => owned.insert(self.owned_definitions().await?),
                    };
                    if !owned.contains(&used) {
                        txn = txn.then(Op::delete(&definition::key(used)?));
                    }
                }
                txn = txn.then(Op::delete(&snapshots::use_key(used, snapshot.number)?));
            }
            part.txn = txn;
            part.disks.extend(snapshot.ids());
            part.ops += cost;
            part.bytes += bytes;
        }
        Ok(parts)
    }

    /// Definitions that VMs have, those in the trash too.
    async fn owned_definitions(&self) -> Result<BTreeSet<u64>> {
        let of = |record: Record| record.definition;
        let mut owned: BTreeSet<u64> =
            self.records().await?.into_iter().filter_map(|(_, record)| of(record)).collect();
        for (_, trashed) in self.trash_records().await? {
            if let What::Vm(vm) = trashed.what {
                owned.extend(of(vm));
            }
        }
        Ok(owned)
    }
}
