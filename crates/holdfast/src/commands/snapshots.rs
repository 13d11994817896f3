//! Commands about snapshots, clones and reverts.

use api::types::{
    AddDisk, Diff, DiskClone, DiskDiff, ListSnapshots, NewClone, NewSnapshot, Snapshots, WhichChanges,
};
use api::{CHANGES_AT_ONCE, SNAPSHOTS_AT_ONCE, Version, VmName, code};

use super::{Asking, really};
use crate::arguments::SnapshotCommand;
use crate::failure::Failure;

/// Snapshots asked for at once.
const PAGE: u64 = SNAPSHOTS_AT_ONCE as u64;
/// Stretches asked for at once.
const STRETCHES_PAGE: u64 = CHANGES_AT_ONCE as u64;
/// Most stretches of a disk that are listed: 4 GiB of blocks that stand alone each, some 300 MB of memory as a table.
const STRETCHES_MAX: usize = 1 << 20;

impl Asking {
    pub(super) async fn snapshot(&self, command: SnapshotCommand) -> Result<(), Failure> {
        let (client, printer) = (&self.client, self.printer);
        let failed = |error| self.failed(error);
        match command {
            SnapshotCommand::List { vm } => self.list(vm).await,
            SnapshotCommand::Show { snapshot } => {
                let (vm, name) = snapshot_of(&snapshot)?;
                let found = client.show_snapshot(vm.as_str(), name.as_str()).await.map_err(failed)?;
                printer.snapshot(&found, &self.socket)
            }
            SnapshotCommand::Rename { snapshot, new } => {
                let ((vm, name), new) = (snapshot_of(&snapshot)?, snapshot_name(&new)?);
                let renamed = client.rename_snapshot(vm.as_str(), name.as_str(), new.as_str());
                printer.snapshot(&renamed.await.map_err(failed)?, &self.socket)
            }
            SnapshotCommand::Hold { snapshot, until } => self.hold(&snapshot, &until).await,
            SnapshotCommand::Delete { snapshot, dry_run: true, .. } => {
                snapshot_of(&snapshot)?;
                self.dry_run(&snapshot).await
            }
            SnapshotCommand::Delete { snapshot, now, yes, dry_run: false } => {
                self.delete_snapshot(&snapshot, now, yes).await
            }
            SnapshotCommand::Diff { from, to, disk } => self.diff(&from, &to, disk).await,
        }
    }

    /// Every page of the list.
    async fn list(&self, vm: Option<String>) -> Result<(), Failure> {
        let vm = vm.map(|vm| VmName::parse(&vm)).transpose()?.map(|vm| vm.to_string());
        let mut which = ListSnapshots { vm, after: None, limit: PAGE };
        let mut all = Snapshots { items: Vec::new(), next: None };
        loop {
            let page = self.client.snapshots(&which).await.map_err(|error| self.failed(error))?;
            all.items.extend(page.items);
            which.after = page.next;
            if which.after.is_none() {
                return self.printer.snapshots(&all);
            }
        }
    }

    async fn diff(&self, from: &str, to: &str, disk: Option<String>) -> Result<(), Failure> {
        let ((vm, from), to) = (snapshot_of(from)?, Version::parse(to)?);
        if to.vm != vm {
            let message = format!("{vm}@{from} and {to} are not of one VM");
            return Err(Failure::usage(message, format!("compare it with {vm} or one of its snapshots")));
        }
        let older = self.disks(&Version { vm: vm.clone(), snapshot: Some(from.clone()) }).await?;
        let disks = match disk {
            Some(disk) => vec![disk],
            None => self.disks(&to).await?,
        };
        let mut diff = Diff { from: format!("{vm}@{from}"), to: to.to_string(), bytes: 0, disks: Vec::new() };
        for disk in disks {
            let against = older.contains(&disk).then_some(&from);
            let changed = self.diff_of_disk(&to, &disk, against).await?;
            diff.bytes += changed.bytes;
            diff.disks.push(changed);
        }
        self.printer.diff(&diff)
    }

    /// Names of the disks of a version.
    async fn disks(&self, version: &Version) -> Result<Vec<String>, Failure> {
        let vm = version.vm.as_str();
        let failed = |error| self.failed(error);
        Ok(match &version.snapshot {
            Some(snapshot) => {
                let found = self.client.show_snapshot(vm, snapshot.as_str()).await.map_err(failed)?;
                found.disks.into_iter().map(|disk| disk.name).collect()
            }
            None => {
                let found = self.client.vm(vm).await.map_err(failed)?;
                found.disks.into_iter().map(|disk| disk.name).collect()
            }
        })
    }

    async fn diff_of_disk(
        &self,
        to: &Version,
        disk: &str,
        against: Option<&VmName>,
    ) -> Result<DiskDiff, Failure> {
        let against = against.map(VmName::to_string);
        let mut which = WhichChanges { disk: disk.to_owned(), against, offset: 0, limit: STRETCHES_PAGE };
        let mut diff = DiskDiff { disk: disk.to_owned(), bytes: 0, stretches: 0, items: Vec::new() };
        let (vm, snapshot) = (to.vm.as_str(), to.snapshot.as_ref().map(VmName::as_str));
        loop {
            let page = self.client.changes(vm, snapshot, &which).await.map_err(|error| self.failed(error))?;
            diff.bytes += page.items.iter().map(|change| change.length).sum::<u64>();
            diff.stretches += page.items.len() as u64;
            diff.items.extend(page.items);
            if diff.items.len() > STRETCHES_MAX {
                let what = format!("more than {STRETCHES_MAX} stretches of {disk} differ: none is listed");
                return Err(Failure::of_code(code::TOO_MANY_CHANGES, what));
            }
            match page.next {
                Some(next) => which.offset = next,
                None => return Ok(diff),
            }
        }
    }

    pub(super) async fn make_snapshot(&self, vm: &str, name: Option<&str>) -> Result<(), Failure> {
        let vm = VmName::parse(vm)?;
        let name = name.map(snapshot_name).transpose()?.map(|name| name.to_string());
        let made = self.client.snapshot(vm.as_str(), &NewSnapshot { name }).await;
        self.printer.snapshot(&made.map_err(|error| self.failed(error))?, &self.socket)
    }

    pub(super) async fn clone_vm(&self, from: &str, new: &str) -> Result<(), Failure> {
        let (from, new) = (Version::parse(from)?, VmName::parse(new)?);
        let new = NewClone { from: from.to_string(), name: new.to_string() };
        let vm = self.client.clone_vm(&new).await.map_err(|error| self.failed(error))?;
        self.printer.vm(&vm, &self.socket)
    }

    pub(super) async fn clone_disk(&self, from: &str, vm: &str) -> Result<(), Failure> {
        let ((version, disk), vm) = (Version::parse_with_disk(from)?, VmName::parse(vm)?);
        let Some(disk) = disk else {
            let hint = format!("name one of its disks, as {version}/disk0");
            return Err(Failure::usage(format!("{version} is no disk"), hint));
        };
        let new = AddDisk::Clone(DiskClone { from: format!("{version}/{disk}") });
        let vm = self.client.add_disk(vm.as_str(), &new).await.map_err(|error| self.failed(error))?;
        self.printer.vm(&vm, &self.socket)
    }

    pub(super) async fn revert(&self, snapshot: &str, yes: bool) -> Result<(), Failure> {
        let (vm, name) = snapshot_of(snapshot)?;
        really(yes, || {
            format!("VM {vm} would be put back to {name}, and what it is now kept in a snapshot")
        })?;
        let reverted = self.client.revert(vm.as_str(), name.as_str()).await;
        self.printer.reverted(&reverted.map_err(|error| self.failed(error))?, &self.socket)
    }
}

fn snapshot_name(text: &str) -> Result<VmName, Failure> {
    Ok(VmName::parse_for("a snapshot", text)?)
}

/// The VM and the name of `VM@SNAPSHOT`.
pub(super) fn snapshot_of(text: &str) -> Result<(VmName, VmName), Failure> {
    match Version::parse(text)? {
        Version { vm, snapshot: Some(snapshot) } => Ok((vm, snapshot)),
        Version { vm, snapshot: None } => {
            let hint = format!("name one of its snapshots, as {vm}@s1");
            Err(Failure::usage(format!("{vm} is no snapshot"), hint))
        }
    }
}
