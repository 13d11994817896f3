//! Files of a VM: ISO images, templates, whatever is kept beside its disks (R28, R63).
//!
//! A file is a disk with a length and a name of its own choice: stored, snapshotted, cloned, held and counted as any disk.
//! It is written once, by a task, and not changed from then on; clients of NBD read it as `VM/FILE`, filled up with zeros
//! to whole sectors. While it is being stored, nothing but its task knows it: snapshots, clones and lists leave it out, its
//! export is `VM/FILE:TASK`, and its VM is neither renamed nor deleted. A task that does not end well leaves nothing.

use api::types::{Disk, Vm};
use api::{DISK_BYTES_MAX, Error, ErrorKind, FILES_MAX, FileName, Result, VmName, code, disk_bytes_for};
use engine::Engine;
use meta::Txn;
use units::DiskId;

use crate::catalog::{Catalog, vm_changed};
use crate::record::{DiskRecord, Record, Storing};

/// Attempts at a change of a VM that others change too.
const TRIES: usize = 16;

impl Catalog {
    /// Puts an empty file into a VM's record, to be filled by a task; `txn` puts the task's.
    pub(crate) async fn put_file(
        &self,
        vm: &VmName,
        file: &FileName,
        storing: Storing,
        txn: &Txn,
    ) -> Result<Disk> {
        for _ in 0..TRIES {
            let (kv, mut record) = self.find_ready(vm).await?;
            check_new(vm, &record, file.as_str(), storing.replace)?;
            let id = self.engine.new_disk_id().await?;
            let mut disk = DiskRecord::of(file.to_string(), id, Some(0));
            disk.storing = Some(storing);
            record.disks.push(disk.clone());
            let created = [(id, disk_bytes_for(0))];
            match self.replace(vm, &kv, &record, txn.clone(), &created, &[]).await {
                Ok(()) => return self.describe_disk(vm, &record, &disk).await,
                Err(error) if error.code == code::VM_CHANGED => {}
                Err(error) => return Err(error),
            }
        }
        Err(vm_changed(vm))
    }

    /// Makes a file that is being stored longer.
    pub(crate) async fn try_grow_file(&self, vm: &VmName, file: &FileName, bytes: u64) -> Result<Vm> {
        if bytes > DISK_BYTES_MAX {
            let reason = format!("a file of {bytes} bytes; {DISK_BYTES_MAX} are the most");
            return Err(Error::new(code::INVALID_SIZE, reason));
        }
        for _ in 0..TRIES {
            let (kv, mut record) = self.find_ready(vm).await?;
            let is_stored = |disk: &&mut DiskRecord| disk.name == file.as_str() && disk.storing.is_some();
            let Some(disk) = record.disks.iter_mut().find(is_stored) else {
                return Err(match position(vm, &record, file.as_str()) {
                    Ok(_) => whole(vm, file),
                    Err(error) => error,
                });
            };
            let old = disk.file_bytes.unwrap_or(0);
            if bytes < old {
                let reason = format!("file {vm}/{file} has {old} bytes, and {bytes} would cut off its end");
                return Err(Error::new(code::WOULD_SHRINK, reason));
            }
            disk.file_bytes = Some(bytes);
            grow(&self.engine, disk.id(), disk_bytes_for(bytes)).await?;
            match self.replace(vm, &kv, &record, Txn::new(), &[], &[]).await {
                Ok(()) => return self.describe(vm.as_str(), &record).await,
                Err(error) if error.code == code::VM_CHANGED => {}
                Err(error) => return Err(error),
            }
        }
        Err(vm_changed(vm))
    }

    /// What a task stored is a file from now on, together with what `txn` does.
    pub(crate) async fn keep_file(&self, vm: &VmName, task: u64, txn: &Txn) -> Result<()> {
        for _ in 0..TRIES {
            let (kv, mut record) = self.find_ready(vm).await?;
            let stored = record.disks.iter().position(|disk| is_of(disk, task));
            let stored = stored.ok_or_else(|| vm_changed(vm))?;
            let name = record.disks[stored].name.clone();
            record.disks[stored].storing = None;
            let old = record.disks.iter().position(|disk| disk.name == name).filter(|at| *at != stored);
            let mut removed = Vec::new();
            if let Some(old) = old {
                removed.push(record.disks[old].id());
                record.disks.swap(old, stored);
                record.disks.remove(stored);
            }
            let _closed = self.close(vm, &removed)?;
            match self.replace(vm, &kv, &record, txn.clone(), &[], &removed).await {
                Ok(()) => {
                    tracing::info!(%vm, file = name, replaced = !removed.is_empty(), "file stored");
                    return Ok(());
                }
                Err(error) if error.code == code::VM_CHANGED => {}
                Err(error) => return Err(error),
            }
        }
        Err(vm_changed(vm))
    }

    /// The disk that a task fills, and its place; `None` when nothing is left of it.
    pub(crate) async fn stored_by(&self, vm: &VmName, task: u64) -> Result<Option<DiskId>> {
        let record = match self.find(vm).await {
            Ok((_, record)) => record,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(record.disks.iter().find(|disk| is_of(disk, task)).map(DiskRecord::id))
    }

    /// Removes what a task left of a file.
    pub(crate) async fn drop_file(&self, vm: &VmName, task: u64) -> Result<()> {
        let (kv, mut record) = self.find(vm).await?;
        let Some(at) = record.disks.iter().position(|disk| is_of(disk, task)) else { return Ok(()) };
        let id = record.disks.remove(at).id();
        self.replace(vm, &kv, &record, Txn::new(), &[], &[id]).await?;
        tracing::info!(%vm, task, "file that was not stored to its end deleted");
        Ok(())
    }

    /// Removes a file for good; its snapshots and clones stay.
    pub(crate) async fn try_remove_file(&self, vm: &VmName, file: &FileName) -> Result<()> {
        let (kv, mut record) = self.find_ready(vm).await?;
        let id = record.disks.remove(position(vm, &record, file.as_str())?).id();
        let _closed = self.close(vm, &[id])?;
        self.replace(vm, &kv, &record, Txn::new(), &[], &[id]).await?;
        tracing::info!(%vm, %file, "file removed");
        Ok(())
    }
}

/// Makes a disk as large as that, unless it is larger.
async fn grow(engine: &Engine, disk: DiskId, bytes: u64) -> Result<()> {
    if engine.disk_bytes(disk).is_some_and(|now| now < bytes) {
        engine.resize(disk, bytes).await?;
    }
    Ok(())
}

fn is_of(disk: &DiskRecord, task: u64) -> bool {
    disk.storing.is_some_and(|storing| storing.task == task)
}

/// Where a file that is whole stands in the record of its VM.
fn position(vm: &VmName, record: &Record, file: &str) -> Result<usize> {
    let is_it = |disk: &DiskRecord| !disk.is_disk() && disk.storing.is_none() && disk.name == file;
    record.disks.iter().position(is_it).ok_or_else(|| {
        let shown: String = file.chars().take(127).collect();
        Error::new(code::FILE_NOT_FOUND, format!("VM {vm} has no file {shown:?}"))
            .hint("`vm show` lists its files")
    })
}

/// Checks that a VM may get a file of this name, or another in its place.
pub(crate) fn check_new(vm: &VmName, record: &Record, file: &str, replace: bool) -> Result<()> {
    let mut same = record.disks.iter().filter(|disk| disk.name == file);
    match same.clone().find_map(|disk| disk.storing) {
        Some(Storing { task, .. }) => {
            let reason = format!("file {vm}/{file} is being stored by task {task}");
            return Err(Error::new(code::FILE_STORING, reason)
                .hint(format!("wait for it, or end it: `task cancel {task}`")));
        }
        None if same.next().is_some() && !replace => {
            let reason = format!("VM {vm} has a file {file} already");
            return Err(
                Error::new(code::FILE_TAKEN, reason).hint("choose another name with --as, or say --replace")
            );
        }
        None => {}
    }
    let files = record.disks.iter().filter(|disk| !disk.is_disk()).count();
    if files >= FILES_MAX {
        let reason = format!("VM {vm} has {files} files, the most there can be");
        return Err(Error::new(code::TOO_MANY_FILES, reason));
    }
    Ok(())
}

fn whole(vm: &VmName, file: &FileName) -> Error {
    Error::new(code::FILE_TAKEN, format!("file {vm}/{file} is whole: it does not change"))
        .hint("store another in its place: `file put --replace`")
}
