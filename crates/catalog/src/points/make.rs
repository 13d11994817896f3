//! Making a point.

use std::collections::BTreeMap;

use api::{Error, Result, VmName, code};
use engine::{Fork, Part};
use meta::{Compare, KeyValue, Op, Stored, Txn};
use policy::Consistency;

use super::record::{LeftOut, Member, PointRecord, PointState};
use super::{PART_OPS_MAX, POINT_DISKS_MAX, StoredPoint, TRIES, key};
use crate::catalog::Catalog;
use crate::groups::{Run, StoredRun, put_run};
use crate::record::Record;
use crate::snapshots::{self, SnapshotRecord};

/// A point to be made.
#[derive(Debug, Clone)]
pub struct NewPoint<'a> {
    /// The number of the group.
    pub group: u64,
    /// The schedule.
    pub schedule: &'a str,
    /// What it is to be called; a number is put behind it where a snapshot of a member is called so.
    pub name: &'a str,
    /// The VMs that are to be in it.
    pub members: &'a [String],
    /// What it was to be like.
    pub consistency: Consistency,
    /// What is less than was wanted, by VM.
    pub notes: BTreeMap<String, String>,
    /// The slot of its run; 0 when it was asked for.
    pub due_ms: u64,
    /// For how long nobody can delete it, ms.
    pub lock_ms: u64,
    /// How far the schedule's runs are and will be with it.
    pub run: Option<(StoredRun, Run)>,
}

/// A member, ready to be published.
struct Ready {
    name: VmName,
    vm: KeyValue,
    record: Record,
    is_changed: bool,
    snapshot: SnapshotRecord,
    forks: Vec<Fork>,
}

impl Ready {
    /// Compares or operations that it takes, whichever are more.
    fn ops(&self) -> usize {
        2 + 2 * self.forks.len() + 2
    }
}

impl Catalog {
    /// Makes a point: all members that are there at one instant, or nothing. `None` when there is none to make it of: then
    /// what is said of the schedule's runs is noted alone.
    ///
    /// # Errors
    /// `too_many_disks`; `group_changed` when the schedule's runs are further than was known; `busy` when members keep
    /// changing; what the engine says.
    pub async fn make_point(&self, new: &NewPoint<'_>) -> Result<Option<StoredPoint>> {
        let mut broken: Vec<LeftOut> = Vec::new();
        let mut suffix = 1;
        for _ in 0..TRIES {
            let name = if suffix == 1 { new.name.to_owned() } else { format!("{}-{suffix}", new.name) };
            let now_ms = self.engine.site_time_ms();
            let id = self.engine.new_disk_id().await?.0;
            let mut record = PointRecord::new(
                new.group,
                name,
                new.schedule.to_owned(),
                now_ms,
                new.due_ms,
                new.consistency,
            );
            record.left_out = broken.clone();
            if new.lock_ms > 0 {
                record.locked_until_ms = now_ms.saturating_add(new.lock_ms);
            }
            let ready = self.ready(new, id, &mut record).await?;
            if ready.is_empty() {
                if let Some((read, run)) = &new.run {
                    self.note_run(new.group, new.schedule, read, run).await?;
                }
                return Ok(None);
            }
            let parts = self.parts(new, id, &mut record, &ready)?;
            let count = parts.len();
            match self.engine.fork_in_parts(parts).await {
                Ok(done) if done == count => {
                    record.state = PointState::Whole;
                    tracing::info!(point = record.name, members = record.members.len(), "point made");
                    let point = StoredPoint { id, record };
                    return Ok(Some(self.lock_disks(point).await));
                }
                Ok(done) => {
                    if done > 0 {
                        self.delete_point(id).await?;
                    }
                    self.check_run(new).await?;
                    if self.is_taken(&ready, &record.name).await? {
                        suffix += 1;
                    }
                }
                Err(error) => {
                    // Parts may be there; else the next round finds them.
                    let undone = self.delete_point(id).await;
                    let lost = self.lost_members(&ready);
                    if lost.is_empty() {
                        tracing::debug!(?undone, %error, "a point was not made");
                        return Err(error.into());
                    }
                    broken.extend(lost);
                }
            }
        }
        Err(Error::new(code::BUSY, "the members of the point keep changing").hint("try again"))
    }

    /// Members whose disks the engine does not have.
    fn lost_members(&self, ready: &[Ready]) -> Vec<LeftOut> {
        let is_lost = |fork: &Fork| self.engine.disk_bytes(fork.source).is_none();
        let lost = ready.iter().filter(|member| member.forks.iter().any(is_lost));
        let told = |member: &Ready| LeftOut {
            name: member.name.to_string(),
            why: "a disk of it is not there".to_owned(),
        };
        lost.map(told).collect()
    }

    /// Whether a member has a snapshot of this name.
    async fn is_taken(&self, ready: &[Ready], name: &str) -> Result<bool> {
        for member in ready {
            let key = snapshots::key(member.record.number.unwrap_or_default(), name)?;
            if self.engine.meta().get(&key).await?.kv.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses to go on when somebody else has made the point of this slot.
    async fn check_run(&self, new: &NewPoint<'_>) -> Result<()> {
        let Some((read, _)) = &new.run else { return Ok(()) };
        let now = self.run_of(new.group, new.schedule, read.run.since_ms).await?;
        if now.revision == read.revision {
            return Ok(());
        }
        let reason = format!("schedule {} has run meanwhile", new.schedule);
        Err(Error::new(code::GROUP_CHANGED, reason).hint("look at it and try again"))
    }

    /// What is to be published of each member, and in `record` who is in and who is not.
    async fn ready(&self, new: &NewPoint<'_>, id: u64, record: &mut PointRecord) -> Result<Vec<Ready>> {
        let mut ready = Vec::new();
        let mut disks = 0;
        for name in new.members {
            if record.left_out.iter().any(|left| left.name == *name) {
                continue;
            }
            let name = VmName::parse(name)?;
            let (vm, mut of_vm) = match self.find_ready(&name).await {
                Ok(found) => found,
                // Gone since the members were counted.
                Err(error) if error.code == code::VM_NOT_FOUND => continue,
                Err(error) if error.code == code::VM_IMPORTING => {
                    record
                        .left_out
                        .push(LeftOut { name: name.to_string(), why: "it is being imported".to_owned() });
                    continue;
                }
                Err(error) => return Err(error),
            };
            let before = of_vm.clone();
            let number = self.number(&mut of_vm).await?;
            of_vm.held_until_ms = of_vm.held_until_ms.max(record.locked_until_ms);
            let called = of_vm.called(name.as_str());
            let (snapshot, forks) =
                self.snapshot_of(&of_vm, &VmName::parse_for("a point", &record.name)?).await?;
            let snapshot = SnapshotRecord {
                created_ms: record.at_ms,
                held_until_ms: record.locked_until_ms,
                group: Some(new.group),
                point: Some(id),
                ..snapshot
            };
            disks += forks.len();
            let note = new.notes.get(&called).cloned();
            record.members.push(Member { vm: number, name: called, note });
            let is_changed = of_vm != before;
            ready.push(Ready { name, vm, record: of_vm, is_changed, snapshot, forks });
        }
        if disks > POINT_DISKS_MAX {
            let reason = format!("its VMs have {disks} disks and files, and a point takes {POINT_DISKS_MAX}");
            return Err(Error::new(code::TOO_MANY_DISKS, reason).hint("make several groups of its VMs"));
        }
        Ok(ready)
    }

    /// The transactions that publish a point.
    fn parts(
        &self,
        new: &NewPoint<'_>,
        id: u64,
        record: &mut PointRecord,
        ready: &[Ready],
    ) -> Result<Vec<Part>> {
        let mut parts: Vec<(Part, usize, usize)> = Vec::new();
        // The first and the last have the point's own record too.
        let own_bytes = record.encode()?.len();
        let bytes_max = self.engine.transaction_bytes();
        if own_bytes > bytes_max / 2 {
            let reason = format!("a record of its {} VMs does not fit the journal of this site", ready.len());
            return Err(Error::new(code::TOO_MANY_DISKS, reason).hint("make several groups of its VMs"));
        }
        for member in ready {
            let snapshot_key = snapshots::key(member.record.number.unwrap_or_default(), &record.name)?;
            let mut txn = Txn::new()
                .when(Compare::unchanged(member.vm.key.clone(), member.vm.mod_revision))
                .when(Compare::absent(snapshot_key.clone()))
                .then(Op::put(snapshot_key, member.snapshot.encode()?));
            if member.is_changed {
                txn = txn.then(Op::put(member.vm.key.clone(), member.record.encode()?));
            }
            if let Some(definition) = member.snapshot.definition {
                txn = txn.then(Op::put(snapshots::use_key(definition, member.snapshot.number)?, Vec::new()));
            }
            let ops = member.ops();
            let bytes = txn.then.iter().map(Op::record_bytes).sum::<usize>() + 256 * member.forks.len();
            let fits = |(_, of_ops, of_bytes): &&mut (Part, usize, usize)| {
                *of_ops + ops <= PART_OPS_MAX && *of_bytes + bytes <= bytes_max
            };
            if parts.last_mut().filter(fits).is_none() {
                parts.push((Part::default(), 0, own_bytes));
            }
            let (part, of_ops, of_bytes) = parts.last_mut().expect("one was just pushed");
            part.txn.compares.extend(txn.compares);
            part.txn.then.extend(txn.then);
            part.forks.extend(&member.forks);
            *of_ops += ops;
            *of_bytes += bytes;
        }
        let mut parts: Vec<Part> = parts.into_iter().map(|(part, ..)| part).collect();
        let key = key(id)?;
        let count = parts.len();
        if let (Some(first), true) = (parts.first_mut(), count > 1) {
            let making = record.encode()?;
            first.txn = std::mem::take(&mut first.txn)
                .when(Compare::absent(key.clone()))
                .then(Op::put(key.clone(), making));
        }
        if let Some(last) = parts.last_mut() {
            let mut txn = std::mem::take(&mut last.txn);
            txn = match count {
                1 => txn.when(Compare::absent(key.clone())),
                _ => txn.when(Compare::value(key.clone(), record.encode()?)),
            };
            let whole = PointRecord { state: PointState::Whole, ..record.clone() };
            txn = txn.then(Op::put(key, whole.encode()?));
            if let Some((read, run)) = &new.run {
                txn = put_run(txn, new.group, new.schedule, read, run)?;
            }
            last.txn = txn;
        }
        Ok(parts)
    }

    /// Has the engine hold the disks of a locked point; what fails is made up for by [`Catalog::keep_locks`].
    async fn lock_disks(&self, point: StoredPoint) -> StoredPoint {
        if point.record.locked_until_ms == 0 {
            return point;
        }
        match self.hold_disks(point.id).await {
            Ok(locked) => locked,
            Err(error) => {
                tracing::warn!(%error, point = point.record.name, "the disks of a locked point are held later");
                point
            }
        }
    }
}
