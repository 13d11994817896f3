//! Snapshots: named, immutable copies of a VM's disks at one instant, with its files and its definition (section 5 of docs/design.md).
//!
//! In the metadata store under `snapshot/VM/NAME`, in lower case, where `VM` is the VM's number: a rename of the VM does not
//! touch it.
//! A definition that a snapshot has is never changed: `definition-use/DEFINITION/SNAPSHOT` says who has it.

mod record;

use api::types::{Attributes, Change, Snapshot, Vm, VmState};
use api::{DISKS_MAX, Error, Result, SNAPSHOTS_AT_ONCE, Version, VmName, code, fold};
use engine::Fork;
use meta::{Compare, Key, KeyRange, KeyValue, Op, Stored, Txn};
use units::DiskId;

use crate::catalog::{Catalog, disk_count, vm_changed};
use crate::definition;
use crate::record::{DiskRecord, Record};
use crate::schema::{SNAPSHOTS, USES};
pub(crate) use record::SnapshotRecord;
use record::{Kept, VERSION};

/// Attempts at a change of a VM that others change too.
const TRIES: usize = 16;

pub(crate) fn key(vm: u64, name: &str) -> Result<Key> {
    Ok(SNAPSHOTS.key().number(vm).text(&fold(name)).end()?)
}

/// The snapshots of a VM.
pub(crate) fn all_of(vm: u64) -> Result<KeyRange> {
    Ok(SNAPSHOTS.key().number(vm).beneath()?)
}

pub(crate) fn use_key(definition: u64, snapshot: u64) -> Result<Key> {
    Ok(USES.key().number(definition).number(snapshot).end()?)
}

/// What a snapshot is found by.
pub(crate) fn name_of(kv: &KeyValue) -> Option<String> {
    let mut segments = SNAPSHOTS.segments(&kv.key)?;
    segments.number()?;
    segments.text().map(str::to_owned)
}

impl Catalog {
    /// Makes a snapshot of all disks at one instant; without a name it gets the next of `s1`, `s2`, ...
    pub(crate) async fn try_snapshot(&self, vm: &VmName, name: Option<&VmName>) -> Result<Snapshot> {
        let is_given = name.is_some();
        for _ in 0..TRIES {
            let (kv, mut record) = self.find_ready(vm).await?;
            let number = self.number(&mut record).await?;
            let name = match name {
                Some(name) => name.clone(),
                None => self.next_name(number, &mut record).await?,
            };
            let (snapshot, forks) = self.snapshot_of(&record, &name).await?;
            let definition = snapshot.definition;
            let key = key(number, name.as_str())?;
            let mut txn = Txn::new()
                .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                .when(Compare::absent(key.clone()))
                .then(Op::put(kv.key.clone(), record.encode()?))
                .then(Op::put(key.clone(), snapshot.encode()?));
            if let Some(definition) = definition {
                txn = txn.then(Op::put(use_key(definition, snapshot.number)?, Vec::new()));
            }
            if self.engine.fork(txn, &forks, &[]).await? {
                tracing::info!(%vm, snapshot = %name, "snapshot made");
                return Ok(snapshot.show(&record.called(vm.as_str()), name.as_str()));
            }
            if is_given && self.engine.meta().get(&key).await?.kv.is_some() {
                return Err(exists(vm, name.as_str()));
            }
        }
        Err(vm_changed(vm))
    }

    /// A snapshot of what a VM is now, and what its disks are to begin as.
    pub(crate) async fn snapshot_of(
        &self,
        record: &Record,
        name: &VmName,
    ) -> Result<(SnapshotRecord, Vec<Fork>)> {
        let (mut forks, mut disks) = (Vec::new(), Vec::new());
        for disk in record.whole() {
            let (source, target) = (disk.id(), self.engine.new_disk_id().await?);
            forks.push(Fork { source, target, read_only: true });
            let bytes = disk.file_bytes.or_else(|| self.engine.disk_bytes(source)).unwrap_or(0);
            disks.push(Kept { name: disk.name.clone(), id: target.0, bytes, is_file: !disk.is_disk() });
        }
        let number = self.engine.new_disk_id().await?.0;
        let snapshot = SnapshotRecord {
            version: VERSION,
            number,
            created_ms: self.rt.wall_ms(),
            disks,
            name: name.spelled(),
            definition: record.definition,
            held_until_ms: 0,
            group: None,
            point: None,
            origin: None,
        };
        Ok((snapshot, forks))
    }

    /// The number of a VM, given to it with its first snapshot.
    pub(crate) async fn number(&self, record: &mut Record) -> Result<u64> {
        let number = match record.number {
            Some(number) => number,
            None => self.engine.new_disk_id().await?.0,
        };
        record.number = Some(number);
        Ok(number)
    }

    async fn next_name(&self, vm: u64, record: &mut Record) -> Result<VmName> {
        loop {
            record.snapshots += 1;
            let name = VmName::parse_for("a snapshot", &format!("s{}", record.snapshots))?;
            if self.engine.meta().get(&key(vm, name.as_str())?).await?.kv.is_none() {
                return Ok(name);
            }
        }
    }

    /// Snapshots, by VM and name, of one VM or all; at most `limit`, those behind `after`.
    ///
    /// # Errors
    /// `vm_not_found`.
    pub async fn snapshots(
        &self,
        vm: Option<&VmName>,
        after: Option<&Version>,
        limit: usize,
    ) -> Result<Vec<Snapshot>> {
        let records = match vm {
            Some(vm) => {
                let (_, record) = self.find(vm).await?;
                vec![(record.called(vm.as_str()), record)]
            }
            None => self.records().await?,
        };
        let limit = limit.clamp(1, SNAPSHOTS_AT_ONCE);
        let mut out = Vec::new();
        for (vm, record) in records {
            let Some(number) = record.number else { continue };
            let mut range = all_of(number)?;
            if let Some(after) = after {
                match after.vm.folded().cmp(&fold(&vm)) {
                    std::cmp::Ordering::Greater => continue,
                    std::cmp::Ordering::Equal => {
                        let last = after.snapshot.as_ref().map_or("", VmName::as_str);
                        range = if last.is_empty() { range } else { range.behind(&key(number, last)?) };
                    }
                    std::cmp::Ordering::Less => {}
                }
            }
            let page = self.engine.meta().range(range, limit - out.len(), None).await?;
            for kv in &page.kvs {
                let name = name_of(kv).ok_or_else(|| damaged(&vm, "a snapshot without a name"))?;
                let record = SnapshotRecord::decode(&kv.value).map_err(|reason| damaged(&vm, &reason))?;
                out.push(self.show_held(&record, &vm, &name).await?);
            }
            if out.len() == limit {
                break;
            }
        }
        Ok(out)
    }

    /// The numbers of all disks of a version.
    pub(crate) async fn all_disks_of(&self, version: &Version) -> Result<Vec<DiskId>> {
        Ok(self.version(version).await?.disks.iter().map(|disk| DiskId(disk.id)).collect())
    }

    /// The record of a snapshot, with its VM's.
    pub(crate) async fn find_snapshot(
        &self,
        vm: &VmName,
        name: &VmName,
    ) -> Result<(Record, KeyValue, SnapshotRecord)> {
        let (_, record) = self.find(vm).await?;
        let missing = || {
            let reason = format!("VM {vm} has no snapshot {name}");
            Error::new(code::SNAPSHOT_NOT_FOUND, reason)
                .hint(format!("`snapshot list --vm {vm}` shows those there are"))
        };
        let number = record.number.ok_or_else(missing)?;
        let kv = self.engine.meta().get(&key(number, name.as_str())?).await?.kv.ok_or_else(missing)?;
        let snapshot = SnapshotRecord::decode(&kv.value).map_err(|reason| damaged(vm.as_str(), &reason))?;
        Ok((record, kv, snapshot))
    }

    /// A snapshot by name.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`.
    pub async fn show_snapshot(&self, vm: &VmName, name: &VmName) -> Result<Snapshot> {
        let (record, _, snapshot) = self.find_snapshot(vm, name).await?;
        self.show_held(&snapshot, &record.called(vm.as_str()), name.as_str()).await
    }

    /// A snapshot with what the data nodes know of its hold.
    async fn show_held(&self, snapshot: &SnapshotRecord, vm: &str, name: &str) -> Result<Snapshot> {
        let mut shown = snapshot.show(vm, name);
        if snapshot.held_until_ms > self.engine.site_time_ms() {
            shown.enforced_until_ms = u64::MAX;
            for disk in snapshot.ids() {
                let enforced = self.engine.hold_of(disk).await?.map_or(0, |hold| hold.enforced_ms);
                shown.enforced_until_ms = shown.enforced_until_ms.min(enforced);
            }
        }
        Ok(shown)
    }

    /// Deletes a snapshot for good, whose record stands at `kv`; `owner` is the definition that its VM has. Others, and disks
    /// that began as it, are not touched. To be called in the turn of definitions.
    pub(crate) async fn remove_snapshot(
        &self,
        kv: &KeyValue,
        snapshot: &SnapshotRecord,
        owner: Option<u64>,
        txn: Txn,
    ) -> Result<()> {
        let mut txn = txn.when(Compare::unchanged(kv.key.clone(), kv.mod_revision)).then(Op::delete(&kv.key));
        if let Some(definition) = snapshot.definition {
            let used = use_key(definition, snapshot.number)?;
            if owner != Some(definition) && self.users_of(definition).await? == 1 {
                txn = txn.then(Op::delete(&definition::key(definition)?));
            }
            txn = txn.then(Op::delete(&used));
        }
        if self.engine.apply(txn, &[], &snapshot.ids()).await? {
            return Ok(());
        }
        let reason = "the snapshot was changed meanwhile";
        Err(Error::new(code::VM_CHANGED, reason))
    }

    /// Gives a snapshot another name.
    pub(crate) async fn try_rename_snapshot(
        &self,
        vm: &VmName,
        name: &VmName,
        new: &VmName,
    ) -> Result<Snapshot> {
        let (record, kv, mut snapshot) = self.find_snapshot(vm, name).await?;
        check_alone(vm, name, &snapshot)?;
        snapshot.name = new.spelled();
        let new_key = key(record.number.unwrap_or_default(), new.as_str())?;
        let mut txn = Txn::new().when(Compare::unchanged(kv.key.clone(), kv.mod_revision));
        let mut closed = None;
        if name != new {
            // A client that lost its connection would not find it again under the old name.
            closed = Some(self.close(vm, &snapshot.ids())?);
            txn = txn.when(Compare::absent(new_key.clone())).then(Op::delete(&kv.key));
        }
        let txn = txn.then(Op::put(new_key.clone(), snapshot.encode()?));
        let done = self.engine.apply(txn, &[], &[]).await?;
        drop(closed);
        if done {
            tracing::info!(%vm, snapshot = %name, %new, "snapshot renamed");
            return Ok(snapshot.show(&record.called(vm.as_str()), new.as_str()));
        }
        let taken = name != new && self.engine.meta().get(&new_key).await?.kv.is_some();
        Err(if taken { exists(vm, new.as_str()) } else { changed(vm, name) })
    }

    /// Makes a VM that begins as another is now, or was at a snapshot.
    pub(crate) async fn try_clone_vm(&self, from: &Version, new: &VmName) -> Result<Vm> {
        for _ in 0..TRIES {
            let source = self.version(from).await?;
            self.check_room().await?;
            let mut ids = Vec::new();
            for _ in &source.disks {
                ids.push(self.engine.new_disk_id().await?);
            }
            let forks = fork_all(&source.disks, &ids);
            let mut record = Record::new(new, self.rt.wall_ms(), []);
            record.disks = source.disks.iter().zip(&ids).map(|(disk, id)| disk.record(*id)).collect();
            let mut txn = Txn::new().when(source.unchanged);
            let mut is_large = false;
            if let Some(definition) = source.definition {
                let number = self.engine.new_disk_id().await?.0;
                let text = self.engine.meta().get(&definition::key(definition)?).await?.kv;
                if let Some(text) = text {
                    record.definition = Some(number);
                    is_large = definition::clone_is_large(text.value.len(), self.definition_bytes_max);
                    txn = txn.then(Op::put(definition::key(number)?, text.value.to_vec()));
                }
            }
            let new_key = crate::catalog::key(new)?;
            let txn =
                txn.when(Compare::absent(new_key.clone())).then(Op::put(new_key.clone(), record.encode()?));
            if self.engine.fork(txn, &forks, &[]).await? {
                tracing::info!(%from, vm = %new, "VM cloned");
                if is_large {
                    self.checkpoint_definition().await;
                }
                return Ok(self.describe_uncounted(new.as_str(), &record));
            }
            if self.engine.meta().get(&new_key).await?.kv.is_some() {
                return Err(crate::catalog::vm_exists(new));
            }
        }
        Err(vm_changed(&from.vm))
    }

    /// Adds a disk or file to a VM that begins as one of another, or of a snapshot, is. A file keeps its name.
    pub(crate) async fn try_clone_disk(&self, from: &Version, disk: &str, vm: &VmName) -> Result<Vm> {
        for _ in 0..TRIES {
            let source = self.version(from).await?;
            let source_disk = source.disks.iter().find(|found| found.name == disk);
            let source_disk =
                source_disk.ok_or_else(|| crate::disks::disk_not_found(&from.to_string(), disk))?;
            let (kv, mut record) = self.find_ready(vm).await?;
            let target = self.engine.new_disk_id().await?;
            if source_disk.is_file {
                crate::files::check_new(vm, &record, &source_disk.name, false)?;
                record.disks.push(source_disk.record(target));
            } else {
                let disks = record.only_disks().count();
                if disks >= DISKS_MAX {
                    return Err(disk_count(disks + 1));
                }
                record.disks.push(DiskRecord::new(record.next_disk(), target));
            }
            let mut txn = Txn::new()
                .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                .then(Op::put(kv.key.clone(), record.encode()?));
            if source.unchanged.key != kv.key {
                txn = txn.when(source.unchanged);
            }
            let fork = Fork { source: DiskId(source_disk.id), target, read_only: false };
            if self.engine.fork(txn, &[fork], &[]).await? {
                tracing::info!(%from, disk, %vm, "disk cloned");
                return Ok(self.describe_uncounted(vm.as_str(), &record));
            }
        }
        Err(vm_changed(vm))
    }

    /// Puts a VM back to a snapshot; what it is now is kept in another, which is given too.
    pub(crate) async fn try_revert(&self, vm: &VmName, name: &VmName) -> Result<(Vm, Snapshot)> {
        let _turn = self.definitions.lock().await;
        let (_, before) = self.find_ready(vm).await?;
        let closed = before.ids();
        let _closed = self.close(vm, &closed)?;
        // Looked for before anything is made.
        self.find_snapshot(vm, name).await?;
        let safety = self.try_snapshot(vm, None).await?;
        for _ in 0..TRIES {
            let (kv, mut record) = self.find_ready(vm).await?;
            let (_, found, snapshot) = self.find_snapshot(vm, name).await?;
            // A file that was being stored may have gone.
            if record.ids().iter().any(|disk| !closed.contains(disk)) {
                break;
            }
            let mut ids = Vec::new();
            for _ in &snapshot.disks {
                ids.push(self.engine.new_disk_id().await?);
            }
            let forks = fork_all(&snapshot.disks, &ids);
            let removed: Vec<DiskId> = record.whole().map(DiskRecord::id).collect();
            // A file that is being stored is no part of what the VM is yet.
            record.disks.retain(|disk| disk.storing.is_some());
            record.disks.splice(0..0, snapshot.disks.iter().zip(&ids).map(|(disk, id)| disk.record(*id)));
            record.definition = snapshot.definition;
            let txn = Txn::new()
                .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                .when(Compare::unchanged(found.key, found.mod_revision))
                .then(Op::put(kv.key.clone(), record.encode()?));
            if self.engine.fork(txn, &forks, &removed).await? {
                tracing::info!(%vm, snapshot = %name, kept_as = safety.name, "VM reverted");
                return Ok((self.describe_uncounted(vm.as_str(), &record), safety));
            }
        }
        Err(vm_changed(vm))
    }

    /// What changed on a disk between two versions of a VM; `None` for all that the newer one has.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`, `disk_not_found`.
    pub async fn diff(
        &self,
        old: Option<&Version>,
        new: &Version,
        disk: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<Change>> {
        let newer = self.disk_of(new, disk).await?;
        let older = match old {
            Some(old) => Some(self.disk_of(old, disk).await?),
            None => None,
        };
        let found = self.engine.diff(older, newer, offset, u64::MAX - offset, limit).await?;
        let told = |found: engine::Changed| {
            let engine::Changed { offset, length, mapped } = found;
            Change { offset, length, mapped }
        };
        Ok(found.into_iter().map(told).collect())
    }

    pub(crate) async fn disk_of(&self, version: &Version, disk: &str) -> Result<DiskId> {
        let found = self.version(version).await?;
        let found = found.disks.iter().find(|found| found.name == disk);
        let found = found.ok_or_else(|| crate::disks::disk_not_found(&version.to_string(), disk))?;
        Ok(DiskId(found.id))
    }

    /// A VM as it is now or was at a snapshot, as tasks show it.
    pub(crate) async fn describe_version(&self, version: &Version) -> Result<Vm> {
        let Some(name) = &version.snapshot else {
            let (_, record) = self.find_ready(&version.vm).await?;
            return self.describe(version.vm.as_str(), &record).await;
        };
        let (_, _, snapshot) = self.find_snapshot(&version.vm, name).await?;
        let (mut disks, mut files) = (Vec::new(), Vec::new());
        for disk in &snapshot.disks {
            let open = self.engine.open_disk(DiskId(disk.id)).await?;
            let shown = api::types::Disk {
                name: disk.name.clone(),
                export: format!("{version}/{}", disk.name),
                bytes: disk.bytes,
                used_bytes: Some(self.engine.disk_usage(open.id()).await?),
                clients: self.uses.count(open.id()),
            };
            if disk.is_file { files.push(shown) } else { disks.push(shown) }
        }
        Ok(Vm {
            name: version.to_string(),
            state: VmState::Ready,
            created_ms: snapshot.created_ms,
            has_definition: snapshot.definition.is_some(),
            attributes: Attributes::default(),
            protection: None,
            disks,
            files,
        })
    }

    async fn version(&self, version: &Version) -> Result<Found> {
        match &version.snapshot {
            None => {
                let (kv, record) = self.find_ready(&version.vm).await?;
                let bytes = |id: DiskId| self.engine.disk_bytes(id).unwrap_or(0);
                let kept = |disk: &DiskRecord| Kept {
                    name: disk.name.clone(),
                    id: disk.id().0,
                    bytes: disk.file_bytes.unwrap_or_else(|| bytes(disk.id())),
                    is_file: !disk.is_disk(),
                };
                let disks = record.whole().map(kept).collect();
                Ok(Found {
                    unchanged: Compare::unchanged(kv.key, kv.mod_revision),
                    disks,
                    definition: record.definition,
                })
            }
            Some(name) => {
                let (_, kv, snapshot) = self.find_snapshot(&version.vm, name).await?;
                Ok(Found {
                    unchanged: Compare::unchanged(kv.key, kv.mod_revision),
                    disks: snapshot.disks,
                    definition: snapshot.definition,
                })
            }
        }
    }

    /// Snapshots that have a definition, two at most.
    pub(crate) async fn users_of(&self, definition: u64) -> Result<usize> {
        let range = USES.key().number(definition).beneath()?;
        Ok(self.engine.meta().range(range, 2, None).await?.kvs.len())
    }
}

/// Where a fork begins.
struct Found {
    unchanged: Compare,
    disks: Vec<Kept>,
    definition: Option<u64>,
}

fn fork_all(disks: &[Kept], targets: &[DiskId]) -> Vec<Fork> {
    let fork = |(disk, target): (&Kept, &DiskId)| Fork {
        source: DiskId(disk.id),
        target: *target,
        read_only: false,
    };
    disks.iter().zip(targets).map(fork).collect()
}

pub(crate) fn exists(vm: &VmName, name: &str) -> Error {
    Error::new(code::SNAPSHOT_EXISTS, format!("VM {vm} has a snapshot {name} already"))
        .hint("choose another name")
}

/// Refuses a change of one snapshot of a point: it is whole or absent.
pub(crate) fn check_alone(vm: &VmName, name: &VmName, snapshot: &SnapshotRecord) -> Result<()> {
    let Some(point) = snapshot.point else { return Ok(()) };
    let reason = format!("snapshot {vm}@{name} is a part of point {point}");
    Err(Error::new(code::SNAPSHOT_OF_POINT, reason)
        .hint(format!("`point show {point}` has what it is; change the point: `point delete`, `point hold`")))
}

pub(crate) fn changed(vm: &VmName, name: &VmName) -> Error {
    Error::new(code::VM_CHANGED, format!("snapshot {vm}@{name} was changed meanwhile"))
        .hint("look at it and try again")
}

pub(crate) fn damaged(vm: &str, reason: &str) -> Error {
    let reason = format!("the record of a snapshot of VM {vm}: {reason}");
    Error::new(code::RECORD_DAMAGED, reason)
}
