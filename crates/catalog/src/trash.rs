//! The trash: VMs and snapshots that were deleted stay restorable for a time (UX: undo).
//!
//! Something in the trash is its record under `trash/NUMBER`, in the place of the one that had its name. Disks, definition
//! and the snapshots of a VM, which stand under its number, stay where they are: so deleting and restoring is one
//! transaction whatever is in them, and the name is free at once. **Emptying** a VM deletes its snapshots first, one by one;
//! before the first goes its record says that it cannot be restored any more (`empty`). Emptying only deletes metadata, which
//! needs no grant: it works where the pool is full.

mod empty;
mod record;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::types::{TrashItem, TrashKind, TrashTotals};
use api::{Error, Result, TRASH_AT_ONCE, TRASH_KEEP, TRASH_KEEP_MAX, VMS_MAX, VmName, code, held};
use meta::{Compare, Key, KeyValue, Op, Stored, Txn};
use units::DiskId;

use crate::catalog::{self, Catalog, vm_changed, vm_exists};
use crate::schema::{SETTINGS, TRASH};
use crate::snapshots::{self, SnapshotRecord};
pub(crate) use record::Record;
pub(crate) use record::What;

/// How something is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deletion {
    /// For good, past the trash.
    pub now: bool,
    /// A VM with all its snapshots; else one that has some is not deleted.
    pub with_snapshots: bool,
}

/// What is known of the trash without looking, and whose turn it is to empty it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    seen: Mutex<Seen>,
    /// Held while one thing goes.
    emptying: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Seen {
    totals: Option<(TrashTotals, u64)>,
    /// Counts changes: what was summed up before one says nothing.
    changes: u64,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Whole after every statement.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        let mut seen = self.lock();
        seen.totals = None;
        seen.changes += 1;
    }
}

/// Forgets what was known once a change is done or given up.
struct Changing(Arc<Known>);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.forget();
    }
}

fn key(id: u64) -> Result<Key> {
    Ok(TRASH.key().number(id).end()?)
}

fn keep_key() -> Result<Key> {
    Ok(SETTINGS.key().text("trash-keep-seconds").end()?)
}

fn decode(kv: &KeyValue) -> Result<(u64, Record)> {
    let id = TRASH.segments(&kv.key).and_then(|mut segments| segments.number());
    let id = id.ok_or_else(|| damaged("no number"))?;
    Ok((id, Record::decode(&kv.value).map_err(|reason| damaged(&reason))?))
}

fn item(id: u64, record: &Record) -> TrashItem {
    let kind = if matches!(record.what, What::Vm(_)) { TrashKind::Vm } else { TrashKind::Snapshot };
    TrashItem {
        id,
        kind,
        name: record.name.clone(),
        deleted_ms: record.deleted_ms,
        expires_ms: record.expires_ms,
        bytes: record.bytes,
        used_bytes: record.used_bytes,
        snapshots: record.snapshots,
    }
}

impl Catalog {
    /// How long what is deleted stays in the trash.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn trash_keep(&self) -> Result<Duration> {
        let kept = self.engine.meta().get(&keep_key()?).await?.kv;
        let seconds = kept.and_then(|kv| (*kv.value).try_into().ok()).map(u64::from_le_bytes);
        Ok(seconds.map_or(TRASH_KEEP, Duration::from_secs))
    }

    /// Sets how long what is deleted from now on stays; zero for no trash.
    ///
    /// # Errors
    /// `invalid_time` for more than 366 days.
    pub async fn set_trash_keep(&self, keep: Duration) -> Result<()> {
        if keep > TRASH_KEEP_MAX {
            let reason = format!("the trash keeps {} days at most", TRASH_KEEP_MAX.as_secs() / 86_400);
            return Err(Error::new(code::INVALID_TIME, reason));
        }
        let put = Op::put(keep_key()?, keep.as_secs().to_le_bytes().to_vec());
        self.engine.apply(Txn::new().then(put), &[], &[]).await?;
        tracing::info!(seconds = keep.as_secs(), "time in the trash set");
        Ok(())
    }

    /// Deletes a VM: into the trash, or for good where that is asked for or there is no trash.
    pub(crate) async fn try_delete_vm(&self, name: &VmName, how: Deletion) -> Result<Option<TrashItem>> {
        let turn = self.definitions.lock().await;
        let (kv, record) = self.find_settled(name).await?;
        let snapshots = self.snapshots_of(record.number).await?;
        // Those of points go when their points do, in the trash too.
        let own = snapshots.iter().filter(|(_, snapshot)| snapshot.point.is_none()).count();
        let for_good = how.now || self.trash_keep().await?.is_zero();
        let in_the_way = if for_good { snapshots.len() } else { own };
        if in_the_way > 0 && !how.with_snapshots {
            return Err(Error::new(code::VM_HAS_SNAPSHOTS, format!("VM {name} has {in_the_way} snapshots")));
        }
        let now_ms = self.engine.site_time_ms();
        if record.held_until_ms > now_ms {
            return Err(held(&format!("a snapshot of VM {name}"), record.held_until_ms));
        }
        let disks: Vec<DiskId> =
            record.ids().into_iter().chain(snapshots.iter().flat_map(|(_, found)| found.ids())).collect();
        let _closed = self.close(name, &disks)?;
        let keep = if how.now { Duration::ZERO } else { self.trash_keep().await? };
        if keep.is_zero() && snapshots.is_empty() {
            self.purge_trashed_snapshots(record.number).await?;
            self.remove(name, &kv, &record, Txn::new()).await?;
            tracing::info!(vm = %name, "VM deleted");
            return Ok(None);
        }
        let mut gone = Record::new(record.called(name.as_str()), now_ms, ms(keep), What::Vm(record.clone()));
        gone.snapshots = snapshots.len() as u64;
        for disk in record.ids() {
            gone.bytes += self.engine.disk_bytes(disk).unwrap_or(0);
            gone.used_bytes += self.engine.disk_usage(disk).await.unwrap_or(0);
        }
        let thrown = self.throw(&kv, gone, keep.is_zero()).await?.ok_or_else(|| vm_changed(name))?;
        tracing::info!(vm = %name, snapshots = snapshots.len(), "VM put into the trash");
        if !keep.is_zero() {
            return Ok(Some(thrown));
        }
        drop(turn);
        match self.empty_trash(thrown.id).await {
            // The next round of the trash was faster.
            Err(error) if error.code == code::TRASH_NOT_FOUND => Ok(None),
            done => done.map(|()| None),
        }
    }

    /// Deletes a snapshot in the same ways; others, and disks that began as it, are not touched.
    pub(crate) async fn try_delete_snapshot(
        &self,
        vm: &VmName,
        name: &VmName,
        now: bool,
    ) -> Result<Option<TrashItem>> {
        let _turn = self.definitions.lock().await;
        let (owner, kv, snapshot) = self.find_snapshot(vm, name).await?;
        snapshots::check_alone(vm, name, &snapshot)?;
        let now_ms = self.engine.site_time_ms();
        if snapshot.held_until_ms > now_ms {
            return Err(held(&format!("snapshot {vm}@{name}"), snapshot.held_until_ms));
        }
        let _closed = self.close(vm, &snapshot.ids())?;
        let keep = if now { Duration::ZERO } else { self.trash_keep().await? };
        if keep.is_zero() {
            self.remove_snapshot(&kv, &snapshot, owner.definition, Txn::new()).await?;
            tracing::info!(%vm, snapshot = %name, "snapshot deleted");
            return Ok(None);
        }
        let what = What::Snapshot { vm: owner.number.unwrap_or_default(), record: snapshot.clone() };
        let called = format!("{}@{}", owner.called(vm.as_str()), snapshot.called(name.as_str()));
        let mut gone = Record::new(called, now_ms, ms(keep), what);
        for disk in snapshot.ids() {
            gone.bytes += snapshot.disk_bytes(disk);
            if let Ok(open) = self.engine.open_disk(disk).await {
                gone.used_bytes += self.engine.disk_usage(open.id()).await.unwrap_or(0);
            }
        }
        let thrown = self.throw(&kv, gone, false).await?;
        let thrown = thrown.ok_or_else(|| snapshots::changed(vm, name))?;
        tracing::info!(%vm, snapshot = %name, "snapshot put into the trash");
        Ok(Some(thrown))
    }

    /// Puts a record into the trash in the place of the one that was read; `None` when that was changed.
    async fn throw(&self, kv: &KeyValue, mut gone: Record, at_once: bool) -> Result<Option<TrashItem>> {
        if at_once {
            gone = gone.going();
        }
        let id = self.engine.new_disk_id().await?.0;
        let txn = Txn::new()
            .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
            .then(Op::delete(&kv.key))
            .then(Op::put(key(id)?, gone.encode()?));
        let _changing = Changing(self.trash.clone());
        Ok(self.engine.apply(txn, &[], &[]).await?.then(|| item(id, &gone)))
    }

    /// Every snapshot of a VM by its number.
    async fn snapshots_of(&self, vm: Option<u64>) -> Result<Vec<(KeyValue, SnapshotRecord)>> {
        let Some(vm) = vm else { return Ok(Vec::new()) };
        let (kvs, _) = meta::list(&*self.engine.meta(), snapshots::all_of(vm)?, usize::MAX).await?;
        let record = |kv: KeyValue| {
            let record = SnapshotRecord::decode(&kv.value).map_err(|reason| damaged(&reason))?;
            Ok((kv, record))
        };
        kvs.into_iter().map(record).collect()
    }

    /// What is in the trash, by number; at most `limit`, those behind `after`.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn trash(&self, after: u64, limit: usize) -> Result<Vec<TrashItem>> {
        let range = TRASH.all().behind(&key(after)?);
        let page = self.engine.meta().range(range, limit.clamp(1, TRASH_AT_ONCE), None).await?;
        page.kvs.iter().map(|kv| decode(kv).map(|(id, record)| item(id, &record))).collect()
    }

    /// The trash in sum.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn trash_totals(&self) -> Result<TrashTotals> {
        Ok(self.trash_in_sum().await?.0)
    }

    /// The trash in sum, and when the first item's time is over, ms; looks only behind a change.
    pub(crate) async fn trash_in_sum(&self) -> Result<(TrashTotals, u64)> {
        let changes = {
            let seen = self.trash.lock();
            if let Some(known) = seen.totals {
                return Ok(known);
            }
            seen.changes
        };
        let (mut totals, mut next_ms) = (TrashTotals::default(), u64::MAX);
        for (_, record) in self.trash_records().await? {
            totals.items += 1;
            totals.bytes += record.bytes;
            totals.used_bytes += record.used_bytes;
            next_ms = next_ms.min(record.expires_ms);
        }
        let mut seen = self.trash.lock();
        if seen.changes == changes {
            seen.totals = Some((totals, next_ms));
        }
        Ok((totals, next_ms))
    }

    pub(crate) async fn trash_records(&self) -> Result<Vec<(u64, Record)>> {
        let (kvs, _) = meta::list(&*self.engine.meta(), TRASH.all(), usize::MAX).await?;
        kvs.iter().map(decode).collect()
    }

    pub(crate) async fn find_trashed(&self, id: u64) -> Result<(KeyValue, Record)> {
        let found = self.engine.meta().get(&key(id)?).await?.kv;
        let kv = found
            .ok_or_else(|| Error::new(code::TRASH_NOT_FOUND, format!("the trash has no number {id}")))?;
        let (_, record) = decode(&kv)?;
        Ok((kv, record))
    }

    /// Takes something out of the trash again, by another name where one is given; gives the name it has now.
    ///
    /// # Errors
    /// `trash_not_found`, `trash_emptying`; `vm_exists` or `snapshot_exists` when the name is taken; `vm_in_trash` for a
    /// snapshot whose VM is there too; `too_many_vms`.
    pub async fn restore(&self, id: u64, new: Option<&VmName>) -> Result<String> {
        let _turn = self.definitions.lock().await;
        let (kv, record) = self.find_trashed(id).await?;
        if record.is_being_emptied() {
            let reason = format!("{} is being emptied from the trash", record.name);
            return Err(Error::new(code::TRASH_EMPTYING, reason));
        }
        let (back, value, name) = match &record.what {
            What::Vm(vm) => {
                if self.records().await?.len() >= VMS_MAX {
                    let reason = format!("the site has {VMS_MAX} VMs, the most there can be");
                    return Err(Error::new(code::TOO_MANY_VMS, reason));
                }
                let name = new.cloned().map_or_else(|| VmName::parse(&record.name), Ok)?;
                let mut back = vm.clone();
                back.name = name.spelled();
                (catalog::key(&name)?, back.encode()?, name.to_string())
            }
            What::Snapshot { vm: number, record: snapshot } => {
                let vm = self.name_of_number(*number, &record.name).await?;
                let old = record.name.split_once('@').map_or("", |(_, name)| name);
                let name = new.cloned().map_or_else(|| VmName::parse_for("a snapshot", old), Ok)?;
                let mut back = snapshot.clone();
                back.name = name.spelled();
                (snapshots::key(*number, name.as_str())?, back.encode()?, format!("{vm}@{name}"))
            }
        };
        let txn = Txn::new()
            .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
            .when(Compare::absent(back.clone()))
            .then(Op::delete(&kv.key))
            .then(Op::put(back.clone(), value));
        let _changing = Changing(self.trash.clone());
        if self.engine.apply(txn, &[], &[]).await? {
            tracing::info!(was = record.name, now = name, "restored from the trash");
            return Ok(name);
        }
        let hint = "restore it by another name: --as NEW";
        Err(match (self.engine.meta().get(&back).await?.kv, name.split_once('@')) {
            (Some(_), None) => vm_exists(&VmName::parse(&name)?).hint(hint),
            (Some(_), Some((vm, snapshot))) => snapshots::exists(&VmName::parse(vm)?, snapshot).hint(hint),
            (None, _) => {
                let reason = format!("number {id} of the trash was changed meanwhile");
                Error::new(code::VM_CHANGED, reason)
            }
        })
    }

    /// The name of the VM of a snapshot that is to be restored.
    async fn name_of_number(&self, number: u64, snapshot: &str) -> Result<String> {
        let live = self.records().await?.into_iter().find(|(_, record)| record.number == Some(number));
        if let Some((name, _)) = live {
            return Ok(name);
        }
        let reason = format!("the VM of {snapshot} is in the trash itself");
        Err(Error::new(code::VM_IN_TRASH, reason))
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn damaged(reason: &str) -> Error {
    Error::new(code::RECORD_DAMAGED, format!("a record of the trash: {reason}"))
}
