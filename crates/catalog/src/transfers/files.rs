//! Files being stored: imports into a VM that is there.

use api::types::{Disk, Task, TaskKind};
use api::{FileName, Result, VmName, code};
use meta::Txn;
use units::DiskId;

use super::{REAP_PAUSE, REAP_TRIES, Transfers};
use crate::catalog::vm_changed;
use crate::record::Storing;
use crate::uses::Closed;

/// VM and file that a task of this target stores; `None` when it is about a VM.
pub(super) fn of(target: &str) -> Option<(&str, &str)> {
    target.split_once('/')
}

impl Transfers {
    /// Makes an empty file of a VM that is being stored, with its task; the disk's export is where it is written.
    /// `replace` lets it take the place of one of this name when it is whole.
    ///
    /// # Errors
    /// `vm_not_found`, `file_taken`, `file_storing`, `too_many_files`, `too_many_tasks`.
    pub async fn begin_file(
        &self,
        vm: &VmName,
        file: &FileName,
        source: &str,
        replace: bool,
    ) -> Result<(Task, Disk)> {
        self.catalog.turn(&[vm], || Box::pin(self.try_file(vm, file, source, replace))).await
    }

    async fn try_file(
        &self,
        vm: &VmName,
        file: &FileName,
        source: &str,
        replace: bool,
    ) -> Result<(Task, Disk)> {
        let turn = self.tasks.turn().await;
        let (id, txn) = self.tasks.make_room(&turn).await?;
        let target = format!("{vm}/{file}");
        let record = self.tasks.record_of(TaskKind::Import, &target, 0, source);
        let txn = txn.then(self.tasks.put(id, &record)?);
        let disk = self.catalog.put_file(vm, file, Storing { task: id, replace }, &txn).await?;
        let task = self.tasks.begun(id, record, &turn).await?;
        tracing::info!(task = id, target, "storing of a file begun");
        Ok((task, disk))
    }

    /// Ends the storing of a file well; `txn` puts the record of its task.
    pub(super) async fn finish_file(&self, id: u64, target: &str, txn: Txn) -> Result<()> {
        let vm = VmName::parse(of(target).map_or("", |(vm, _)| vm))?;
        let disk = self.catalog.stored_by(&vm, id).await?.ok_or_else(|| vm_changed(&vm))?;
        // Whoever wrote it is done: nothing changes it from here on.
        let mut closed = self.revoke(disk);
        for _ in 0..REAP_TRIES {
            if closed.is_some() {
                break;
            }
            self.rt.sleep(REAP_PAUSE).await;
            closed = self.revoke(disk);
        }
        match closed {
            Some(_closed) => self.catalog.keep_file(&vm, id, &txn).await,
            None => Err(self.catalog.in_use(&vm)),
        }
    }

    fn revoke(&self, disk: DiskId) -> Option<Closed> {
        self.catalog.uses.revoke(&[disk])
    }

    /// Deletes what a task that ended badly left of a file; false when its client is not off it yet.
    pub(super) async fn reap_file_patiently(&self, id: u64, vm: &VmName) -> Result<bool> {
        for _ in 0..REAP_TRIES {
            if self.reap_file(id, vm).await? {
                return Ok(true);
            }
            self.rt.sleep(REAP_PAUSE).await;
        }
        self.tasks.wake();
        Ok(false)
    }

    pub(super) async fn reap_file(&self, id: u64, vm: &VmName) -> Result<bool> {
        let Some(disk) = self.catalog.stored_by(vm, id).await? else { return Ok(true) };
        let Some(_closed) = self.revoke(disk) else { return Ok(false) };
        match self.catalog.drop_file(vm, id).await {
            Ok(()) => Ok(true),
            Err(error) if error.code == code::VM_CHANGED => Ok(false),
            Err(error) => Err(error),
        }
    }
}
