//! VMs: a name with disks, one record each in the metadata store under `vm/NAME`.
//!
//! ```text
//!  {"version": 1, "created_ms": <Unix ms>, "disks": [{"name": "disk0", "id": <number>}, ...]}
//! ```
//! The record does not say how large a disk is: the engine does.

use engine::Engine;
use meta::{Compare, KeyValue, Op, Table, Txn};
use seam::Runtime;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use units::DiskId;

use crate::error::{ErrorKind, Result, SiteError};
use crate::names::{VmName, check_disk_bytes};
use crate::uses::Uses;

const VERSION: u32 = 1;
const VMS: Table = Table::new("vm");
/// Most disks of a VM: what a SCSI bus or a few dozen PCI slots take.
pub const DISKS_MAX: usize = 32;
/// Most VMs of a site: all fit one answer and one NBD listing.
pub const VMS_MAX: usize = 10_000;

/// The record of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    created_ms: u64,
    pub(crate) disks: Vec<DiskRecord>,
}

/// A disk in the record of its VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskRecord {
    pub(crate) name: String,
    id: u64,
}

impl DiskRecord {
    pub(crate) fn id(&self) -> DiskId {
        DiskId(self.id)
    }
}

impl Record {
    fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| SiteError::new(ErrorKind::Failed, "record_damaged", error.to_string()))
    }

    /// Reads a record; the error says what is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.version != VERSION {
            return Err(format!("version {}, and this program knows {VERSION}", record.version));
        }
        Ok(record)
    }
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Name within the VM.
    pub name: String,
    /// What an NBD client opens: `VM/DISK`.
    pub export: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes that hold data as the guest sees it, duplicates counted each time.
    pub used_bytes: u64,
    /// Handles NBD clients have on it.
    pub clients: usize,
}

/// A VM with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Its disks, in order.
    pub disks: Vec<Disk>,
}

/// A VM in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSummary {
    /// Its name.
    pub name: String,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How many disks it has.
    pub disks: usize,
    /// Bytes of all its disks together.
    pub bytes: u64,
}

/// The VMs of a site.
#[derive(Clone)]
pub(crate) struct Vms {
    pub(crate) engine: Engine,
    pub(crate) uses: Arc<Uses>,
}

impl Vms {
    /// Makes a VM with disks `disk0`, `disk1`, ... of these sizes.
    pub(crate) async fn create(&self, rt: &dyn Runtime, name: &VmName, disks: &[u64]) -> Result<Vm> {
        if disks.is_empty() || disks.len() > DISKS_MAX {
            let reason = format!("a VM has 1 to {DISKS_MAX} disks, not {}", disks.len());
            return Err(SiteError::invalid("disk_count", reason));
        }
        let sizes: Vec<u64> = disks.iter().map(|bytes| check_disk_bytes(*bytes)).collect::<Result<_>>()?;
        if self.records().await?.len() >= VMS_MAX {
            let reason = format!("the site has {VMS_MAX} VMs, the most there can be");
            return Err(SiteError::new(ErrorKind::Conflict, "too_many_vms", reason).hint("delete one first"));
        }
        let mut create = Vec::new();
        for bytes in sizes {
            create.push((self.engine.new_disk_id().await?, bytes));
        }
        let disks = create.iter().enumerate();
        let disks = disks.map(|(number, (id, _))| DiskRecord { name: format!("disk{number}"), id: id.0 });
        let record = Record { version: VERSION, created_ms: rt.wall_ms(), disks: disks.collect() };
        let key = VMS.key().text(name.as_str()).end()?;
        let txn = Txn::new().when(Compare::absent(key.clone())).then(Op::put(key, record.encode()?));
        if !self.engine.apply(txn, &create, &[]).await? {
            return Err(SiteError::new(
                ErrorKind::Conflict,
                "vm_exists",
                format!("there is a VM {name} already"),
            )
            .hint("choose another name"));
        }
        tracing::info!(vm = %name, disks = create.len(), "VM made");
        self.describe(name.as_str(), &record).await
    }

    /// A VM by name.
    pub(crate) async fn show(&self, name: &VmName) -> Result<Vm> {
        let (_, record) = self.find(name).await?;
        self.describe(name.as_str(), &record).await
    }

    /// Every VM, by name.
    pub(crate) async fn summaries(&self) -> Result<Vec<VmSummary>> {
        let summary = |(name, record): (String, Record)| {
            let sizes = record.disks.iter().map(|disk| self.engine.disk_bytes(disk.id()).unwrap_or(0));
            VmSummary { name, created_ms: record.created_ms, disks: record.disks.len(), bytes: sizes.sum() }
        };
        Ok(self.records().await?.into_iter().map(summary).collect())
    }

    /// Deletes a VM with its disks.
    pub(crate) async fn delete(&self, name: &VmName) -> Result<()> {
        let (kv, record) = self.find(name).await?;
        let disks: Vec<DiskId> = record.disks.iter().map(DiskRecord::id).collect();
        let _deleting = self.uses.delete(&disks).ok_or_else(|| {
            SiteError::new(ErrorKind::Busy, "vm_in_use", format!("a client has a disk of VM {name} open"))
                .hint("stop the guest, or end the NBD client, first")
        })?;
        // The very record that was read: a VM made anew under the name, or changed meanwhile, is not meant.
        let unchanged = Compare::unchanged(kv.key.clone(), kv.mod_revision);
        let txn = Txn::new().when(unchanged).then(Op::delete(&kv.key));
        if !self.engine.apply(txn, &[], &disks).await? {
            let reason = format!("VM {name} was changed meanwhile");
            return Err(
                SiteError::new(ErrorKind::Conflict, "vm_changed", reason).hint("look at it and try again")
            );
        }
        tracing::info!(vm = %name, "VM deleted");
        Ok(())
    }

    /// The record of a VM.
    pub(crate) async fn find(&self, name: &VmName) -> Result<(KeyValue, Record)> {
        let key = VMS.key().text(name.as_str()).end()?;
        let kv = self.engine.meta().get(&key).await?.kv.ok_or_else(|| {
            SiteError::new(ErrorKind::NotFound, "vm_not_found", format!("there is no VM {name}"))
                .hint("`vm list` shows those there are")
        })?;
        let record = decode(name.as_str(), &kv)?;
        Ok((kv, record))
    }

    /// Every record, by name.
    pub(crate) async fn records(&self) -> Result<Vec<(String, Record)>> {
        let store = self.engine.meta();
        let (kvs, _) = meta::list(&*store, VMS.all(), 2 * VMS_MAX).await?;
        let named = |kv: &KeyValue| {
            let name = VMS.segments(&kv.key).and_then(|mut segments| segments.text().map(str::to_owned));
            let name = name.ok_or_else(|| damaged(&kv.key.to_string(), "no name of a VM"))?;
            let record = decode(&name, kv)?;
            Ok((name, record))
        };
        kvs.iter().map(named).collect()
    }

    async fn describe(&self, name: &str, record: &Record) -> Result<Vm> {
        let mut disks = Vec::new();
        for disk in &record.disks {
            disks.push(Disk {
                name: disk.name.clone(),
                export: format!("{name}/{}", disk.name),
                bytes: self.engine.disk_bytes(disk.id()).unwrap_or(0),
                used_bytes: self.engine.disk_usage(disk.id()).await?,
                clients: self.uses.count(disk.id()),
            });
        }
        Ok(Vm { name: name.to_owned(), created_ms: record.created_ms, disks })
    }
}

fn decode(name: &str, kv: &KeyValue) -> Result<Record> {
    Record::decode(&kv.value).map_err(|reason| damaged(name, &reason))
}

fn damaged(name: &str, reason: &str) -> SiteError {
    SiteError::new(ErrorKind::Failed, "record_damaged", format!("the record of VM {name}: {reason}"))
}
