//! Changes of VMs: each has its turn, and is made again from what there is then where something else was faster.

use api::types::{ChangeAttributes, Snapshot, TrashItem, Vm};
use api::{FileName, Result, Version, VmName};
use seam::BoxFuture;

use crate::catalog::Catalog;
use crate::trash::Deletion;

impl Catalog {
    /// Makes a change of VMs behind those that came before it.
    pub(crate) async fn turn<'a, T>(
        &'a self,
        vms: &[&VmName],
        change: impl Fn() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        self.turns.change(&*self.rt, vms, change).await
    }

    /// Deletes a VM with its disks: into the trash, which is what is given, or for good.
    ///
    /// # Errors
    /// `vm_not_found`; `vm_has_snapshots`; `snapshot_held`; `vm_in_use` while a client has a disk open; `vm_importing`. Changes of one VM
    /// come one after the other; `vm_changed` when tasks keep changing it, `busy` when those before do not end.
    pub async fn delete_vm(&self, name: &VmName, how: Deletion) -> Result<Option<TrashItem>> {
        self.turn(&[name], || Box::pin(self.try_delete_vm(name, how))).await
    }

    /// Gives a VM another name.
    ///
    /// # Errors
    /// `vm_in_use`: a client that lost its connection would not find its disk again. `vm_exists`.
    pub async fn rename_vm(&self, name: &VmName, new: &VmName) -> Result<Vm> {
        self.turn(&[name], || Box::pin(self.try_rename_vm(name, new))).await
    }

    /// Changes the folder, tags and labels of a VM, whoever has its disks open.
    ///
    /// # Errors
    /// `vm_not_found`, `vm_importing`; `invalid_name`; `too_many_attributes`; `invalid_request` for a list that is too long.
    pub async fn change_attributes(&self, name: &VmName, change: &ChangeAttributes) -> Result<Vm> {
        self.turn(&[name], || Box::pin(self.try_change_attributes(name, change))).await
    }

    /// Adds an empty disk of `bytes`.
    ///
    /// # Errors
    /// `invalid_size`, `disk_count`.
    pub async fn add_disk(&self, name: &VmName, bytes: u64) -> Result<Vm> {
        self.turn(&[name], || Box::pin(self.try_add_disk(name, bytes))).await
    }

    /// Removes a disk with its data.
    ///
    /// # Errors
    /// `disk_not_found`; `vm_in_use` while a client has this disk open; `disk_count` for the last one.
    pub async fn remove_disk(&self, name: &VmName, disk: &str) -> Result<()> {
        self.turn(&[name], || Box::pin(self.try_remove_disk(name, disk))).await
    }

    /// Changes the size of a disk. Clients that have it open see a larger one when they open it again. After a kill in
    /// the middle of a shrink the size may still be the old one, and the end of the disk zeros.
    ///
    /// # Errors
    /// `would_shrink` without `shrink`; `vm_in_use` when it would shrink beneath a client; `disk_not_found`;
    /// `invalid_size`.
    pub async fn resize_disk(&self, name: &VmName, disk: &str, bytes: u64, shrink: bool) -> Result<Vm> {
        self.turn(&[name], || Box::pin(self.try_resize_disk(name, disk, bytes, shrink))).await
    }

    /// Stores a text with a VM; an empty one removes it.
    ///
    /// # Errors
    /// `definition_too_large`.
    pub async fn set_definition(&self, name: &VmName, text: &str) -> Result<()> {
        self.turn(&[name], || Box::pin(self.try_set_definition(name, text))).await
    }

    /// Makes a snapshot of a VM: all its disks at one instant, and its definition. Without a name it gets the next of `s1`,
    /// `s2`, ...
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_exists`, `vm_importing`, and what the engine says.
    pub async fn snapshot(&self, vm: &VmName, name: Option<&VmName>) -> Result<Snapshot> {
        self.turn(&[vm], || Box::pin(self.try_snapshot(vm, name))).await
    }

    /// Deletes a snapshot: into the trash, which is what is given, or `now` for good. Others are not touched, nor VMs and
    /// disks that began as it.
    ///
    /// # Errors
    /// `snapshot_not_found`; `snapshot_held`; `vm_in_use` while a client reads it.
    pub async fn delete_snapshot(&self, vm: &VmName, name: &VmName, now: bool) -> Result<Option<TrashItem>> {
        self.turn(&[vm], || Box::pin(self.try_delete_snapshot(vm, name, now))).await
    }

    /// Holds a snapshot until a time, RFC 3339 or a span from now on such as `30d`: no command deletes it before.
    ///
    /// # Errors
    /// `snapshot_not_found`, `invalid_time`; `hold_shorter` than the hold it has.
    pub async fn hold_snapshot(&self, vm: &VmName, name: &VmName, until: &str) -> Result<Snapshot> {
        self.turn(&[vm], || Box::pin(self.try_hold_snapshot(vm, name, until))).await
    }

    /// Gives a snapshot another name.
    ///
    /// # Errors
    /// `snapshot_not_found`, `snapshot_exists`; `vm_in_use` while a client reads it.
    pub async fn rename_snapshot(&self, vm: &VmName, name: &VmName, new: &VmName) -> Result<Snapshot> {
        self.turn(&[vm], || Box::pin(self.try_rename_snapshot(vm, name, new))).await
    }

    /// Makes a VM that begins as another is at this instant, or was at a snapshot. It copies no data.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`, `vm_exists`, `too_many_vms`.
    pub async fn clone_vm(&self, from: &Version, new: &VmName) -> Result<Vm> {
        self.turn(&[&from.vm], || Box::pin(self.try_clone_vm(from, new))).await
    }

    /// Adds a disk to a VM that begins as a disk of a VM or snapshot is.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`, `disk_not_found`, `disk_count`.
    pub async fn clone_disk(&self, from: &Version, disk: &str, vm: &VmName) -> Result<Vm> {
        self.turn(&[&from.vm, vm], || Box::pin(self.try_clone_disk(from, disk, vm))).await
    }

    /// Puts a VM back to a snapshot: disks, their names and sizes, and definition. Gives the VM, and the snapshot that was
    /// made of it before.
    ///
    /// # Errors
    /// `vm_in_use` while a client has a disk open; `vm_not_found`, `snapshot_not_found`.
    pub async fn revert(&self, vm: &VmName, name: &VmName) -> Result<(Vm, Snapshot)> {
        self.turn(&[vm], || Box::pin(self.try_revert(vm, name))).await
    }

    /// Makes a file that is being stored as long as `bytes`.
    ///
    /// # Errors
    /// `file_not_found`; `file_taken` when it is whole; `would_shrink`; `invalid_size`.
    pub async fn grow_file(&self, vm: &VmName, file: &FileName, bytes: u64) -> Result<Vm> {
        self.turn(&[vm], || Box::pin(self.try_grow_file(vm, file, bytes))).await
    }

    /// Deletes a file for good; snapshots and clones that have it keep it.
    ///
    /// # Errors
    /// `file_not_found`; `vm_in_use` while a client has it open.
    pub async fn remove_file(&self, vm: &VmName, file: &FileName) -> Result<()> {
        self.turn(&[vm], || Box::pin(self.try_remove_file(vm, file))).await
    }
}
