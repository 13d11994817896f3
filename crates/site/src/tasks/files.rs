//! Files being stored: imports into a VM that is there.

use api::types::{Disk, Task, TaskKind};
use api::{FileName, Result, VmName, code};
use meta::{Op, Txn};
use units::DiskId;

use super::{REAP_PAUSE, REAP_TRIES, Record, Tasks, key, plain};
use crate::record::Storing;
use crate::uses::Closed;
use crate::vms::vm_changed;

/// VM and file that a task of this target stores; `None` when it is about a VM.
pub(super) fn of(target: &str) -> Option<(&str, &str)> {
    target.split_once('/')
}

impl Tasks {
    /// Makes an empty file of a VM that is being stored, and its task: one transaction.
    pub(crate) async fn begin_file(
        &self,
        vm: &VmName,
        file: &FileName,
        source: &str,
        replace: bool,
    ) -> Result<(Task, Disk)> {
        let _turn = self.turn.lock().await;
        let (id, txn) = self.make_room().await?;
        let target = format!("{vm}/{file}");
        let record = Record::new(TaskKind::Import, &target, self.rt.wall_ms(), 0, plain(source));
        let txn = txn.then(Op::put(key(id)?, record.encode()?));
        let disk = self.vms.begin_file(vm, file, Storing { task: id, replace }, &txn).await?;
        self.running.insert(id, record, self.rt.now());
        tracing::info!(task = id, target, "storing of a file begun");
        Ok((self.task(id).await?, disk))
    }

    /// Ends the storing of a file well; `txn` puts the record of its task.
    pub(super) async fn finish_file(&self, id: u64, target: &str, txn: Txn) -> Result<()> {
        let vm = VmName::parse(of(target).map_or("", |(vm, _)| vm))?;
        let disk = self.vms.stored_by(&vm, id).await?.ok_or_else(|| vm_changed(&vm))?;
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
            Some(_closed) => self.vms.keep_file(&vm, id, &txn).await,
            None => Err(self.vms.in_use(&vm)),
        }
    }

    fn revoke(&self, disk: DiskId) -> Option<Closed> {
        self.vms.uses.revoke(&[disk])
    }

    /// Deletes what a task that ended badly left of a file; false when its client is not off it yet.
    pub(super) async fn reap_file_patiently(&self, id: u64, vm: &VmName) -> Result<bool> {
        for _ in 0..REAP_TRIES {
            if self.reap_file(id, vm).await? {
                return Ok(true);
            }
            self.rt.sleep(REAP_PAUSE).await;
        }
        self.wake.notify_one();
        Ok(false)
    }

    pub(super) async fn reap_file(&self, id: u64, vm: &VmName) -> Result<bool> {
        let Some(disk) = self.vms.stored_by(vm, id).await? else { return Ok(true) };
        let Some(_closed) = self.revoke(disk) else { return Ok(false) };
        match self.vms.drop_file(vm, id).await {
            Ok(()) => Ok(true),
            Err(error) if error.code == code::VM_CHANGED => Ok(false),
            Err(error) => Err(error),
        }
    }
}
