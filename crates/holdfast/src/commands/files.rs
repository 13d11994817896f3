//! Commands about files of a VM.

use api::types::{AddDisk, Deleted, DiskClone, List, SnapshotDisk};
use api::{FileName, Version, VmName, code};

use super::{Asking, place, really};
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
            FileCommand::Delete { file, apart, dry_run: true, .. } => {
                let (vm, file) = place(&file, apart.as_deref(), "file")?;
                self.dry_run(&format!("{vm}/{}", FileName::parse(file)?)).await
            }
            FileCommand::Delete { file, apart, yes, dry_run: false } => {
                let (vm, file) = place(&file, apart.as_deref(), "file")?;
                let file = FileName::parse(file)?;
                really(yes, || format!("file {vm}/{file} would be deleted"))?;
                client.delete_file(vm.as_str(), file.as_str()).await.map_err(failed)?;
                let deleted = format!("{vm}/{file}");
                let text = format!("file {deleted} deleted");
                printer.done(&Deleted { deleted, trash: None }, &text)
            }
            FileCommand::AttachInfo { file, apart } => {
                let (vm, file) = place(&file, apart.as_deref(), "file")?;
                self.attach_info(&vm, FileName::parse(file)?.as_str()).await
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
    let of_what = |what: &str| format!("{}: it is {what}", file.display());
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(Failure::of_code(code::FILE_ERROR, of_what("a directory")));
        }
        // What a shell makes for `<(...)` is called by a number.
        Ok(metadata) if !metadata.is_file() => {
            return Err(Failure::usage(of_what("no file with a name"), "give one: --as NAME"));
        }
        _ => {}
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let fit: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '-' }).collect();
    FileName::parse(&name).map_err(|error| {
        let hint = match FileName::parse(fit.trim_matches('-')) {
            Ok(fit) => format!("give it a name that the site takes, as in --as {fit}"),
            Err(_) => error.hint.clone(),
        };
        Failure::from(error).hint(hint)
    })
}
