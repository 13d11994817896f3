//! Commands about files of a VM.

use api::types::{AddDisk, Deleted, DiskClone, List, SnapshotDisk};
use site::{FileName, Version, VmName};

use super::{Asking, really};
use crate::arguments::FileCommand;
use crate::failure::Failure;

impl Asking {
    pub(super) async fn file(&self, command: FileCommand) -> Result<(), Failure> {
        let (client, printer) = (&self.client, self.printer);
        let failed = |error| self.failed(error);
        match command {
            FileCommand::Put { vm, file, name, replace } => {
                let vm = VmName::parse(&vm)?;
                let name = match &name {
                    Some(name) => FileName::parse(name)?,
                    None => named_as(&file)?,
                };
                self.transfer().put(&vm, &name, file, replace).await
            }
            FileCommand::Get { from, file } => {
                let (version, name) = file_of(&from)?;
                self.transfer().get(&version, &name, file).await
            }
            FileCommand::List { from } => {
                printer.files(&List { items: self.files_of(&Version::parse(&from)?).await? })
            }
            FileCommand::Clone { from, vm } => {
                let vm = VmName::parse(&vm)?;
                file_of(&from)?;
                let new = AddDisk::Clone(DiskClone { from });
                printer.vm(&client.add_disk(vm.as_str(), &new).await.map_err(failed)?, &self.socket)
            }
            FileCommand::Delete { vm, file, dry_run: true, .. } => {
                self.dry_run(&format!("{}/{}", VmName::parse(&vm)?, FileName::parse(&file)?)).await
            }
            FileCommand::Delete { vm, file, yes, dry_run: false } => {
                let (vm, file) = (VmName::parse(&vm)?, FileName::parse(&file)?);
                really(yes, || format!("file {vm}/{file} would be deleted"))?;
                client.delete_file(vm.as_str(), file.as_str()).await.map_err(failed)?;
                let deleted = format!("{vm}/{file}");
                let text = format!("file {deleted} deleted");
                printer.done(&Deleted { deleted, trash: None }, &text)
            }
            FileCommand::AttachInfo { vm, file } => {
                let (vm, file) = (VmName::parse(&vm)?, FileName::parse(&file)?);
                let info = client.attach_info(vm.as_str(), file.as_str()).await.map_err(failed)?;
                printer.attach_info(&info.at(&self.socket.display().to_string()))
            }
        }
    }

    /// The files of a VM or snapshot.
    async fn files_of(&self, version: &Version) -> Result<Vec<SnapshotDisk>, Failure> {
        let failed = |error| self.failed(error);
        match &version.snapshot {
            Some(name) => {
                let found = self.client.show_snapshot(version.vm.as_str(), name.as_str()).await;
                Ok(found.map_err(failed)?.files)
            }
            None => {
                let found = self.client.vm(version.vm.as_str()).await.map_err(failed)?;
                let shown = |file: api::types::Disk| SnapshotDisk {
                    name: file.name,
                    export: file.export,
                    bytes: file.bytes,
                };
                Ok(found.files.into_iter().map(shown).collect())
            }
        }
    }
}

fn file_of(from: &str) -> Result<(Version, FileName), Failure> {
    match Version::parse_with_disk(from)? {
        (version, Some(file)) => Ok((version, FileName::parse(file)?)),
        (_, None) => {
            Err(Failure::usage(format!("{from} names no file"), "write VM/FILE or VM@SNAPSHOT/FILE"))
        }
    }
}

/// The name that a file has already.
fn named_as(file: &std::path::Path) -> Result<FileName, Failure> {
    if file.as_os_str() == "-" {
        return Err(Failure::usage("standard input has no name", "give one: --as NAME"));
    }
    Ok(FileName::parse(&file.file_name().unwrap_or_default().to_string_lossy())?)
}
