//! VMs: a name with disks, one record each.

use std::sync::Arc;

use api::types::{Attributes, Disk, ListVms, Vm, VmState, VmSummary};
use api::{DISKS_MAX, Error, Result, VMS_MAX, VmName, check_disk_bytes, code};
use engine::Engine;
use meta::{Compare, Key, KeyValue, Op, Stored, Txn};
use seam::Rt;
use task::Running;
use units::DiskId;

use crate::attributes::Pick;
use crate::record::{DiskRecord, Record};
use crate::schema::VMS;
use crate::turns::Turns;
use crate::uses::{Closed, Uses};
use crate::{definition, trash};

/// A VM as rules of groups see it.
#[derive(Debug, Clone)]
pub struct VmFacts {
    /// Its name.
    pub name: String,
    /// By which its snapshots know it; none before its first.
    pub number: Option<u64>,
    /// When it was made.
    pub created_ms: u64,
    /// Whether it is whole: not being imported.
    pub is_ready: bool,
    /// Its folder, tags and labels.
    pub attributes: Attributes,
}

/// The VMs of a site, with all that belongs to them. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    pub(crate) rt: Rt,
    pub(crate) engine: Engine,
    pub(crate) uses: Arc<Uses>,
    /// Tasks that run: a VM being imported is there for its client as long as its task runs.
    pub(crate) running: Arc<Running>,
    /// Held while a definition is stored, and while what may have one is deleted or restored.
    pub(crate) definitions: Arc<tokio::sync::Mutex<()>>,
    /// Longest definition, bytes.
    pub(crate) definition_bytes_max: usize,
    /// What is known of the trash.
    pub(crate) trash: Arc<trash::Known>,
    /// Changes of a VM wait for each other.
    pub(crate) turns: Arc<Turns>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Catalog")
    }
}

impl Catalog {
    /// The catalogue in the store of `engine`, whose journal has segments of `segment_bytes`; `running` is which tasks run.
    pub fn new(rt: Rt, engine: Engine, running: Arc<Running>, segment_bytes: u32) -> Self {
        Self {
            rt,
            engine,
            uses: Arc::default(),
            running,
            definitions: Arc::default(),
            definition_bytes_max: definition::bytes_max(segment_bytes),
            trash: Arc::default(),
            turns: Arc::default(),
        }
    }

    /// Makes a VM with disks `disk0`, `disk1`, ... of these sizes in bytes.
    ///
    /// # Errors
    /// `vm_exists`, `invalid_size`, `disk_count`, `too_many_vms`, and what the engine says.
    pub async fn create_vm(&self, name: &VmName, disks: &[u64]) -> Result<Vm> {
        let create = self.new_disks(disks).await?;
        let record = Record::new(name, self.rt.wall_ms(), create.iter().map(|(id, _)| *id));
        self.put_new(name, &record, Txn::new(), &create).await?;
        tracing::info!(vm = %name, disks = create.len(), "VM made");
        self.describe(name.as_str(), &record).await
    }

    /// Numbers for the disks of a new VM, with their sizes checked.
    pub(crate) async fn new_disks(&self, sizes: &[u64]) -> Result<Vec<(DiskId, u64)>> {
        if sizes.is_empty() || sizes.len() > DISKS_MAX {
            return Err(disk_count(sizes.len()));
        }
        let sizes: Vec<u64> =
            sizes.iter().map(|bytes| check_disk_bytes(*bytes)).collect::<api::Result<_>>()?;
        self.check_room().await?;
        let mut disks = Vec::new();
        for bytes in sizes {
            disks.push((self.engine.new_disk_id().await?, bytes));
        }
        Ok(disks)
    }

    /// Checks that there may be another VM.
    pub(crate) async fn check_room(&self) -> Result<()> {
        if self.records().await?.len() >= VMS_MAX {
            let reason = format!("the site has {VMS_MAX} VMs, the most there can be");
            return Err(Error::new(code::TOO_MANY_VMS, reason).hint("delete one first"));
        }
        Ok(())
    }

    /// Puts the record of a new VM, together with what `txn` does.
    pub(crate) async fn put_new(
        &self,
        name: &VmName,
        record: &Record,
        txn: Txn,
        disks: &[(DiskId, u64)],
    ) -> Result<()> {
        let key = key(name)?;
        let txn = txn.when(Compare::absent(key.clone())).then(Op::put(key, record.encode()?));
        if self.engine.apply(txn, disks, &[]).await? { Ok(()) } else { Err(vm_exists(name)) }
    }

    /// A VM by name.
    ///
    /// # Errors
    /// `vm_not_found`.
    pub async fn vm(&self, name: &VmName) -> Result<Vm> {
        let (_, record) = self.find(name).await?;
        self.describe(name.as_str(), &record).await
    }

    /// The VMs that are ready and that `which` asks for, by name.
    ///
    /// # Errors
    /// `invalid_request` and `invalid_name` for a question that nothing could answer.
    pub async fn vms(&self, which: &ListVms) -> Result<Vec<VmSummary>> {
        let pick = Pick::new(which)?;
        let summary = |(name, record): (String, Record)| {
            let sizes = record.only_disks().map(|disk| self.engine.disk_bytes(disk.id()).unwrap_or(0));
            let (disks, bytes) = (record.only_disks().count(), sizes.sum());
            VmSummary {
                name,
                created_ms: record.created_ms,
                disks,
                bytes,
                attributes: record.attributes,
                protection: None,
            }
        };
        let is_picked = |(name, record): &(String, Record)| {
            record.import.is_none() && pick.takes(name, &record.attributes)
        };
        let ready = self.records().await?.into_iter().filter(is_picked);
        Ok(ready.map(summary).collect())
    }

    /// Deletes the very VM that was read, together with what `txn` does. Its disks are closed.
    pub(crate) async fn remove(&self, name: &VmName, kv: &KeyValue, record: &Record, txn: Txn) -> Result<()> {
        let mut txn = txn.when(Compare::unchanged(kv.key.clone(), kv.mod_revision)).then(Op::delete(&kv.key));
        if let Some(definition) = record.definition {
            txn = txn.then(Op::delete(&crate::definition::key(definition)?));
        }
        if self.engine.apply(txn, &[], &record.ids()).await? { Ok(()) } else { Err(vm_changed(name)) }
    }

    /// Gives a VM another name, once.
    pub(crate) async fn try_rename_vm(&self, name: &VmName, new: &VmName) -> Result<Vm> {
        let (kv, mut record) = self.find_settled(name).await?;
        record.name = new.spelled();
        if name == new {
            // It is found as before.
            self.replace(name, &kv, &record, Txn::new(), &[], &[]).await?;
            return self.describe(new.as_str(), &record).await;
        }
        // A client that lost its connection would not find its disk again under the old name.
        let _closed = self.close(name, &record.ids())?;
        let new_key = key(new)?;
        let txn = Txn::new()
            .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
            .when(Compare::absent(new_key.clone()))
            .then(Op::delete(&kv.key))
            .then(Op::put(new_key.clone(), record.encode()?));
        if !self.engine.apply(txn, &[], &[]).await? {
            let taken = self.engine.meta().get(&new_key).await?.kv.is_some();
            return Err(if taken { vm_exists(new) } else { vm_changed(name) });
        }
        tracing::info!(vm = %name, %new, "VM renamed");
        self.describe(new.as_str(), &record).await
    }

    /// Puts a changed record in the place of the one that was read, together with what `txn` does.
    pub(crate) async fn replace(
        &self,
        name: &VmName,
        kv: &KeyValue,
        record: &Record,
        txn: Txn,
        create: &[(DiskId, u64)],
        remove: &[DiskId],
    ) -> Result<()> {
        let txn = txn
            .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
            .then(Op::put(kv.key.clone(), record.encode()?));
        if self.engine.apply(txn, create, remove).await? { Ok(()) } else { Err(vm_changed(name)) }
    }

    /// Keeps clients from disks of a VM.
    pub(crate) fn close(&self, name: &VmName, disks: &[DiskId]) -> Result<Closed> {
        self.uses.close(disks).ok_or_else(|| self.in_use(name))
    }

    pub(crate) fn in_use(&self, name: &VmName) -> Error {
        Error::new(code::VM_IN_USE, format!("a client has a disk of VM {name} open"))
            .hint("stop the guest, or end the NBD client, first")
    }

    /// The record of a VM.
    pub(crate) async fn find(&self, name: &VmName) -> Result<(KeyValue, Record)> {
        let kv = self.engine.meta().get(&key(name)?).await?.kv.ok_or_else(|| {
            Error::new(code::VM_NOT_FOUND, format!("there is no VM {name}"))
                .hint("`vm list` shows those there are")
        })?;
        let record = decode(name.as_str(), &kv)?;
        Ok((kv, record))
    }

    /// The record of a VM that may be changed.
    pub(crate) async fn find_ready(&self, name: &VmName) -> Result<(KeyValue, Record)> {
        let (kv, record) = self.find(name).await?;
        match record.import {
            None => Ok((kv, record)),
            Some(task) => {
                let reason = format!("VM {name} is being imported by task {task}");
                Err(Error::new(code::VM_IMPORTING, reason)
                    .hint(format!("wait for the import, or end it: `task cancel {task}`")))
            }
        }
    }

    /// The record of a VM that may be changed, and whose name nothing under way goes by.
    pub(crate) async fn find_settled(&self, name: &VmName) -> Result<(KeyValue, Record)> {
        let (kv, record) = self.find_ready(name).await?;
        match record.storing() {
            None => Ok((kv, record)),
            Some(task) => {
                let reason = format!("a file of VM {name} is being stored by task {task}");
                Err(Error::new(code::FILE_STORING, reason)
                    .hint(format!("wait for it, or end it: `task cancel {task}`")))
            }
        }
    }

    /// How many VMs are ready, and how many bytes the disks of all have, those being imported too.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn totals(&self) -> Result<(usize, u64)> {
        let records = self.records().await?;
        let ready = records.iter().filter(|(_, record)| record.import.is_none()).count();
        let disks = records.iter().flat_map(|(_, record)| record.ids());
        Ok((ready, disks.map(|disk| self.engine.disk_bytes(disk).unwrap_or(0)).sum()))
    }

    /// Every VM as rules of groups see it, by name, those being imported too.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn facts(&self) -> Result<Vec<VmFacts>> {
        let facts = |(name, record): (String, Record)| VmFacts {
            name,
            number: record.number,
            created_ms: record.created_ms,
            is_ready: record.import.is_none(),
            attributes: record.attributes,
        };
        Ok(self.records().await?.into_iter().map(facts).collect())
    }

    /// Every record, by name, those of VMs being imported too.
    pub(crate) async fn records(&self) -> Result<Vec<(String, Record)>> {
        let store = self.engine.meta();
        let (kvs, _) = meta::list(&*store, VMS.all(), 2 * VMS_MAX).await?;
        let named = |kv: &KeyValue| {
            let name = VMS.segments(&kv.key).and_then(|mut segments| segments.text().map(str::to_owned));
            let name = name.ok_or_else(|| damaged(&kv.key.to_string(), "no name of a VM"))?;
            let record = decode(&name, kv)?;
            Ok((record.called(&name), record))
        };
        kvs.iter().map(named).collect()
    }

    pub(crate) async fn describe(&self, name: &str, record: &Record) -> Result<Vm> {
        let mut vm = self.describe_uncounted(name, record);
        for disk in vm.disks.iter_mut().chain(&mut vm.files) {
            let Some(id) = record.whole().find(|found| found.name == disk.name).map(DiskRecord::id) else {
                continue;
            };
            disk.used_bytes = Some(self.engine.disk_usage(id).await?);
        }
        Ok(vm)
    }

    /// The VM, without what its disks use: that is counted in their maps, and takes the longer the more changed lately.
    pub(crate) fn describe_uncounted(&self, name: &str, record: &Record) -> Vm {
        let name = &record.called(name);
        let (disks, files): (Vec<_>, Vec<_>) = record.whole().partition(|disk| disk.is_disk());
        let show =
            |disks: Vec<&DiskRecord>| disks.into_iter().map(|disk| self.uncounted(name, disk)).collect();
        Vm {
            name: name.clone(),
            state: if record.import.is_some() { VmState::Importing } else { VmState::Ready },
            created_ms: record.created_ms,
            has_definition: record.definition.is_some(),
            attributes: record.attributes.clone(),
            protection: None,
            disks: show(disks),
            files: show(files),
        }
    }

    /// A disk or file of a VM.
    pub(crate) async fn describe_disk(
        &self,
        vm: &VmName,
        record: &Record,
        disk: &DiskRecord,
    ) -> Result<Disk> {
        let used = self.engine.disk_usage(disk.id()).await?;
        Ok(Disk { used_bytes: Some(used), ..self.uncounted(&record.called(vm.as_str()), disk) })
    }

    fn uncounted(&self, vm: &str, disk: &DiskRecord) -> Disk {
        Disk {
            name: disk.name.clone(),
            export: format!("{vm}/{}", disk.export()),
            bytes: disk.file_bytes.or_else(|| self.engine.disk_bytes(disk.id())).unwrap_or(0),
            used_bytes: None,
            clients: self.uses.count(disk.id()),
        }
    }
}

pub(crate) fn key(name: &VmName) -> Result<Key> {
    Ok(VMS.key().text(&name.folded()).end()?)
}

fn decode(name: &str, kv: &KeyValue) -> Result<Record> {
    Record::decode(&kv.value).map_err(|reason| damaged(name, &reason))
}

fn damaged(name: &str, reason: &str) -> Error {
    Error::new(code::RECORD_DAMAGED, format!("the record of VM {name}: {reason}"))
}

pub(crate) fn vm_exists(name: &VmName) -> Error {
    Error::new(code::VM_EXISTS, format!("there is a VM {name} already")).hint("choose another name")
}

pub(crate) fn vm_changed(name: &VmName) -> Error {
    Error::new(code::VM_CHANGED, format!("VM {name} was changed meanwhile")).hint("look at it and try again")
}

pub(crate) fn disk_count(count: usize) -> Error {
    Error::new(code::DISK_COUNT, format!("a VM has 1 to {DISKS_MAX} disks, not {count}"))
}
