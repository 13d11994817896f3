//! Points: snapshots of several VMs of one instant, as a run of a group's schedule makes them.
//!
//! In the metadata store under `point/NUMBER`. Each member is a snapshot of its VM, called as the
//! point is, and says which point it is of. A point that fits one transaction comes and goes with it. One that does not
//! is published **in parts**: its record says `making` until the last part makes it `whole`, and `going` from the
//! first part that deletes it on. What a crash leaves of either is deleted: a point is whole or absent.
//!
//! A lock is told in the records of point, snapshots and VMs as the point is made; the engine hears of it behind
//! that, and until then the point's record says so.

mod delete;
mod lock;
mod make;
mod record;

use api::{Error, Result, code};
use meta::{Key, KeyValue, Stored};

use crate::catalog::Catalog;
use crate::schema::POINTS;
use crate::snapshots::{self, SnapshotRecord};
pub use make::NewPoint;
pub use record::{LeftOut, Member, PointRecord, PointState};

/// Most disks and files of the VMs of a point: the engine keeps each in RAM until a checkpoint has it.
pub const POINT_DISKS_MAX: usize = 2048;
/// Most compares, and most operations, of one part: those of the record, of a run and of the store itself stay beside.
const PART_OPS_MAX: usize = 440;
/// Attempts at what others change too.
const TRIES: usize = 16;
/// Points read at a time.
const POINTS_READ: usize = 1024;

/// A point as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPoint {
    /// Its number.
    pub id: u64,
    /// Its record.
    pub record: PointRecord,
}

pub(crate) fn key(id: u64) -> Result<Key> {
    Ok(POINTS.key().number(id).end()?)
}

fn decode(kv: &KeyValue) -> Result<StoredPoint> {
    let damaged = |reason: &str| {
        Error::new(code::RECORD_DAMAGED, format!("the record of a point, {}: {reason}", kv.key))
    };
    let id = POINTS.segments(&kv.key).and_then(|mut segments| segments.number());
    let id = id.ok_or_else(|| damaged("no number"))?;
    let record = PointRecord::decode(&kv.value).map_err(|reason| damaged(&reason))?;
    Ok(StoredPoint { id, record })
}

pub(crate) fn not_found(id: u64) -> Error {
    Error::new(code::POINT_NOT_FOUND, format!("there is no point {id}"))
        .hint("`point list` shows those there are")
}

fn changed(id: u64) -> Error {
    Error::new(code::POINT_CHANGED, format!("point {id} was changed meanwhile"))
        .hint("look at it and try again")
}

impl Catalog {
    /// Every point, in the order of their numbers; those being made or deleted too.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn for_each_point(&self, mut see: impl FnMut(StoredPoint)) -> Result<()> {
        let mut range = POINTS.all();
        loop {
            let page = self.engine.meta().range(range, POINTS_READ, None).await?;
            for kv in &page.kvs {
                see(decode(kv)?);
            }
            match page.kvs.last() {
                Some(last) if page.more => range = POINTS.all().behind(&last.key),
                _ => return Ok(()),
            }
        }
    }

    /// A point by its number.
    ///
    /// # Errors
    /// `point_not_found`.
    pub async fn point(&self, id: u64) -> Result<StoredPoint> {
        Ok(self.find_point(id).await?.1)
    }

    async fn find_point(&self, id: u64) -> Result<(KeyValue, StoredPoint)> {
        let kv = self.engine.meta().get(&key(id)?).await?.kv.ok_or_else(|| not_found(id))?;
        let point = decode(&kv)?;
        Ok((kv, point))
    }

    /// The snapshots of a point that are there, with the numbers of their VMs.
    async fn snapshots_of_point(&self, point: &StoredPoint) -> Result<Vec<(u64, KeyValue, SnapshotRecord)>> {
        let mut found = Vec::new();
        for member in &point.record.members {
            let key = snapshots::key(member.vm, &point.record.name)?;
            let Some(kv) = self.engine.meta().get(&key).await?.kv else { continue };
            let record = SnapshotRecord::decode(&kv.value)
                .map_err(|reason| snapshots::damaged(&member.name, &reason))?;
            if record.point == Some(point.id) {
                found.push((member.vm, kv, record));
            }
        }
        Ok(found)
    }

    /// The numbers of all points that a VM is in, by its number, oldest first.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn points_of_vm(&self, vm: u64) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        let mut range = snapshots::all_of(vm)?;
        loop {
            let page = self.engine.meta().range(range, POINTS_READ, None).await?;
            for kv in &page.kvs {
                let record = SnapshotRecord::decode(&kv.value)
                    .map_err(|reason| snapshots::damaged(&format!("#{vm}"), &reason))?;
                found.extend(record.point.map(|point| (record.created_ms, point)));
            }
            match page.kvs.last() {
                Some(last) if page.more => range = snapshots::all_of(vm)?.behind(&last.key),
                _ => break,
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, point)| point).collect())
    }

    /// The number of a VM; `None` before its first snapshot.
    ///
    /// # Errors
    /// `vm_not_found`.
    pub async fn number_of(&self, vm: &api::VmName) -> Result<Option<u64>> {
        Ok(self.find(vm).await?.1.number)
    }

    /// The numbers and names of all VMs that have a number.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn vm_numbers(&self) -> Result<std::collections::BTreeMap<u64, String>> {
        let records = self.records().await?;
        Ok(records.into_iter().filter_map(|(name, record)| Some((record.number?, name))).collect())
    }
}
