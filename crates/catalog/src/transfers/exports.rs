//! Exports: disks of a VM read at one instant, while guests go on writing.
//!
//! An export of a VM begins with forks of the disks that it reads, all made by the transaction that makes its task: what it
//! reads is what these disks were at that instant, whatever happens to the VM. NBD serves them to read as `VM/DISK:TASK`
//! while the task runs. No list of disks has them; the record of the task has, until a transaction deletes them and says
//! so. Snapshots and files never change: an export reads them as they are.

use std::sync::atomic::Ordering;

use api::types::{Task, TaskKind, Vm};
use api::{Result, Version};
use engine::{EngineErrorKind, Fork};
use meta::{Compare, KeyValue, Txn};
use task::{Forked, Record};

use super::{REAP_PAUSE, REAP_TRIES, Transfers};
use crate::catalog::vm_changed;
use crate::record::Record as VmRecord;

impl Transfers {
    /// Makes a task for reading the disks of a VM, or one of them, as they are at this instant, whatever happens to the VM
    /// while the task runs; the VM is given with these only, and with exports that go with the task.
    ///
    /// # Errors
    /// `vm_not_found`, `disk_not_found`, `vm_importing`, `too_many_tasks`.
    pub async fn begin_export(&self, name: &Version, disk: Option<&str>, to: &str) -> Result<(Task, Vm)> {
        self.catalog.turn(&[&name.vm], || Box::pin(self.try_export(name, disk, to))).await
    }

    async fn try_export(&self, name: &Version, disk: Option<&str>, destination: &str) -> Result<(Task, Vm)> {
        let turn = self.tasks.turn().await;
        let live = match &name.snapshot {
            None => Some(self.catalog.find_ready(&name.vm).await?),
            Some(_) => None,
        };
        let mut vm = self.catalog.describe_version(name).await?;
        if let Some(disk) = disk {
            let files = std::mem::take(&mut vm.files);
            vm.disks.extend(files);
            vm.disks.retain(|found| found.name == disk);
            if vm.disks.is_empty() {
                return Err(crate::disks::disk_not_found(&vm.name, disk));
            }
        }
        let target = disk.map_or_else(|| vm.name.clone(), |disk| format!("{}/{disk}", vm.name));
        let total = vm.disks.iter().map(|disk| disk.bytes).sum();
        let (id, txn) = self.tasks.make_room(&turn).await?;
        let mut record = self.tasks.record_of(TaskKind::Export, &target, total, destination);
        let forks = match &live {
            Some((_, live)) => self.forks_for(id, live, &mut vm, &mut record).await?,
            None => Vec::new(),
        };
        let (kv, txn) = (live.as_ref().map(|(kv, _)| kv), txn.then(self.tasks.put(id, &record)?));
        self.put_export(name, kv, txn, &forks).await?;
        let task = self.tasks.begun(id, record, &turn).await?;
        tracing::info!(task = id, target, "export begun");
        Ok((task, vm))
    }

    /// A fork for each disk that is read: `record` has them from now on, and `vm` their exports.
    async fn forks_for(
        &self,
        task: u64,
        live: &VmRecord,
        vm: &mut Vm,
        record: &mut Record,
    ) -> Result<Vec<Fork>> {
        let mut forks = Vec::new();
        for shown in &mut vm.disks {
            let Some(found) = live.only_disks().find(|found| found.name == shown.name) else { continue };
            let target = self.engine.new_disk_id().await?;
            forks.push(Fork { source: found.id(), target, read_only: true });
            let fork = Forked::new(&shown.name, target, shown.bytes);
            shown.export = format!("{}/{}", vm.name, fork.export(task));
            record.forks.push(fork);
        }
        Ok(forks)
    }

    /// Puts the record of an export together with its forks, as long as the VM's record is the one at `kv`.
    async fn put_export(
        &self,
        name: &Version,
        kv: Option<&KeyValue>,
        txn: Txn,
        forks: &[Fork],
    ) -> Result<()> {
        let done = match kv {
            Some(kv) if !forks.is_empty() => {
                let txn = txn.when(Compare::unchanged(kv.key.clone(), kv.mod_revision));
                self.engine.fork(txn, forks, &[]).await?
            }
            _ => self.engine.apply(txn, &[], &[]).await?,
        };
        if done { Ok(()) } else { Err(vm_changed(&name.vm)) }
    }

    /// Deletes the forks of a task that has ended; what cannot be deleted yet is left behind.
    pub(super) async fn reap_forks_patiently(&self, id: u64, record: &Record) {
        for _ in 0..REAP_TRIES {
            match self.reap_forks(id, record).await {
                Ok(true) => return,
                Ok(false) => self.rt.sleep(REAP_PAUSE).await,
                Err(error) => {
                    tracing::warn!(%error, task = id, "what an export made for itself is deleted later");
                    break;
                }
            }
        }
        self.may_have_leftovers.store(true, Ordering::Relaxed);
        self.tasks.wake();
    }

    /// Deletes the forks of a task that has ended with this record; false when a client is not off them yet.
    pub(super) async fn reap_forks(&self, id: u64, record: &Record) -> Result<bool> {
        let forks = record.fork_ids();
        if forks.is_empty() {
            return Ok(true);
        }
        let Some(_closed) = self.catalog.uses.revoke(&forks) else { return Ok(false) };
        let mut ended = record.clone();
        ended.forks.clear();
        let put = Txn::new().then(self.tasks.put(id, &ended)?);
        match self.engine.apply(put, &[], &forks).await {
            // Where not even a record finds room, deletions do: the task is forgotten with what it had.
            Err(error) if error.kind == EngineErrorKind::NoSpace => {
                self.engine.apply(Txn::new().then(self.tasks.forget(id)?), &[], &forks).await?
            }
            done => done?,
        };
        tracing::info!(task = id, disks = forks.len(), "what an export made for itself deleted");
        Ok(true)
    }
}
