//! Disks of a VM that is there: more, fewer, larger, smaller.

use api::types::Vm;
use api::{DISKS_MAX, Error, Result, VmName, check_disk_bytes, code};
use meta::Txn;

use crate::catalog::{Catalog, disk_count};
use crate::record::{DiskRecord, Record};

impl Catalog {
    /// Adds an empty disk; its name is one number above the highest of the VM's disks.
    pub(crate) async fn try_add_disk(&self, name: &VmName, bytes: u64) -> Result<Vm> {
        check_disk_bytes(bytes)?;
        let (kv, mut record) = self.find_ready(name).await?;
        let disks = record.only_disks().count();
        if disks >= DISKS_MAX {
            return Err(disk_count(disks + 1));
        }
        let id = self.engine.new_disk_id().await?;
        let disk = DiskRecord::new(record.next_disk(), id);
        tracing::info!(vm = %name, disk = disk.name, bytes, "disk added");
        record.disks.push(disk);
        self.replace(name, &kv, &record, Txn::new(), &[(id, bytes)], &[]).await?;
        self.describe(name.as_str(), &record).await
    }

    /// Removes a disk with its data.
    pub(crate) async fn try_remove_disk(&self, name: &VmName, disk: &str) -> Result<()> {
        let (kv, mut record) = self.find_ready(name).await?;
        let at = position(name, &record, disk)?;
        if record.only_disks().count() == 1 {
            return Err(disk_count(0).hint("`vm delete` deletes the VM with its last disk"));
        }
        let id = record.disks.remove(at).id();
        let _closed = self.close(name, &[id])?;
        self.replace(name, &kv, &record, Txn::new(), &[], &[id]).await?;
        tracing::info!(vm = %name, disk, "disk removed");
        Ok(())
    }

    /// Changes the size of a disk; a smaller one cuts off what lies behind, and `shrink` says that this is meant.
    pub(crate) async fn try_resize_disk(
        &self,
        name: &VmName,
        disk: &str,
        bytes: u64,
        shrink: bool,
    ) -> Result<Vm> {
        check_disk_bytes(bytes)?;
        // A VM being imported grows with what comes in.
        let (_, record) = self.find(name).await?;
        let id = record.disks[position(name, &record, disk)?].id();
        let old = self.engine.disk_bytes(id).unwrap_or(0);
        if bytes < old && !shrink {
            let reason = format!("disk {name}/{disk} has {old} bytes: {bytes} would cut off its end");
            return Err(Error::new(code::WOULD_SHRINK, reason)
                .hint("make the file systems on it smaller first, then say --shrink"));
        }
        if bytes < old {
            self.find_ready(name).await?;
            let _closed = self.close(name, &[id])?;
            self.engine.resize(id, bytes).await?;
        } else if bytes > old {
            self.engine.resize(id, bytes).await?;
        }
        tracing::info!(vm = %name, disk, from = old, to = bytes, "disk resized");
        self.describe(name.as_str(), &record).await
    }

    /// What a VM is called, and where a disk stands among its disks, or a file among its files; true for a file.
    ///
    /// # Errors
    /// `vm_not_found`, `disk_not_found`, `vm_importing`.
    pub async fn disk_position(&self, name: &VmName, disk: &str) -> Result<(String, usize, bool)> {
        let (_, record) = self.find_ready(name).await?;
        let called = record.called(name.as_str());
        if let Some(at) = record.only_disks().position(|found| found.name == disk) {
            return Ok((called, at, false));
        }
        let mut files = record.whole().filter(|found| !found.is_disk());
        let at = files.position(|found| found.name == disk);
        Ok((called, at.ok_or_else(|| disk_not_found(name.as_str(), disk))?, true))
    }
}

fn position(name: &VmName, record: &Record, disk: &str) -> Result<usize> {
    let position = record.disks.iter().position(|found| found.is_disk() && found.name == disk);
    position.ok_or_else(|| disk_not_found(name.as_str(), disk))
}

pub(crate) fn disk_not_found(vm: &str, disk: &str) -> Error {
    let shown: String = disk.chars().take(64).collect();
    Error::new(code::DISK_NOT_FOUND, format!("VM {vm} has no disk {shown:?}"))
        .hint("`vm show` lists its disks")
}
