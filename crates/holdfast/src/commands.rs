//! Commands that ask a running site.

mod attributes;
mod files;
mod groups;
mod media;
mod snapshots;
mod trash;
mod upkeep;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::types::{AddDisk, ChangeDisk, CreateVm, Definition, Deleted, HowToDelete, NewDisk};
use api::{DEFINITION_BYTES_MAX, Version, VmName, code};
use client::{Client, ClientError};
use machine::Directory;
use seam::Rt;

use crate::arguments::{ClientCommand, DiskCommand, TaskCommand, VmCommand};
use crate::failure::Failure;
use crate::output::Printer;
use crate::transfer::{Source, Transfer};

/// No site was named.
pub(crate) fn no_site() -> Failure {
    Failure::usage("no site is named", "give --site DIR or set HOLDFAST_SITE")
}

/// Runs a command against the site in `dir`.
pub(crate) async fn run(
    rt: Rt,
    dir: &Path,
    limit: Duration,
    command: ClientCommand,
    printer: Printer,
) -> Result<(), Failure> {
    let directory = Directory::new(dir)?;
    let client = Client::new(rt.clone(), &directory.api_socket(), limit);
    let start = format!("holdfast standalone --dir {}", directory.root().display());
    let asking = Asking { rt, client, socket: directory.nbd_socket(), start, printer };
    match command {
        ClientCommand::Status => printer.status(&asking.client.status().await.map_err(|e| asking.failed(e))?),
        ClientCommand::Media(command) => asking.media(command).await,
        ClientCommand::Vm(command) => asking.vm(command).await,
        ClientCommand::Disk(command) => asking.disk(command).await,
        ClientCommand::File(command) => asking.file(command).await,
        ClientCommand::Snapshot(command) => asking.snapshot(command).await,
        ClientCommand::Group(command) => asking.group(*command).await,
        ClientCommand::Point(command) => asking.point(command).await,
        ClientCommand::Restore(arguments) => asking.restore(*arguments).await,
        ClientCommand::Space(arguments) => asking.space(arguments).await,
        ClientCommand::Clean(arguments) => asking.clean(arguments).await,
        ClientCommand::Scrub(command) => asking.scrub(command).await,
        ClientCommand::Key(command) => asking.key(command).await,
        ClientCommand::Clock(command) => asking.clock(command).await,
        ClientCommand::Passphrase(command) => asking.passphrase(command).await,
        ClientCommand::Verify(waiting) => asking.verify(waiting).await,
        ClientCommand::Trash(command) => asking.trash(command).await,
        ClientCommand::Task(command) => asking.task(command).await,
    }
}

/// What every command needs.
struct Asking {
    rt: Rt,
    client: Client,
    /// The NBD socket.
    socket: PathBuf,
    /// How the site's server is started.
    start: String,
    printer: Printer,
}

impl Asking {
    fn failed(&self, error: ClientError) -> Failure {
        Failure::of_call(error, &self.start)
    }

    async fn vm(&self, command: VmCommand) -> Result<(), Failure> {
        let (client, printer) = (&self.client, self.printer);
        let failed = |error| self.failed(error);
        match command {
            VmCommand::List(which) => self.list_vms(which).await,
            VmCommand::Folder { name, folder } => self.set_folder(&name, folder).await,
            VmCommand::Tag { name, act, tags } => self.change_tags(&name, act, tags).await,
            VmCommand::Label { name, act, labels } => self.change_labels(&name, act, labels).await,
            VmCommand::Show { name } => {
                let name = VmName::parse(&name)?;
                printer.vm(&client.vm(name.as_str()).await.map_err(failed)?, &self.socket)
            }
            VmCommand::Create { name, disk } => {
                let name = VmName::parse(&name)?;
                let disks = disk.into_iter().map(|bytes| NewDisk { bytes }).collect();
                let new = CreateVm { name: name.to_string(), disks };
                printer.vm(&client.create_vm(&new).await.map_err(failed)?, &self.socket)
            }
            VmCommand::Rename { old, new } => {
                let (old, new) = (VmName::parse(&old)?, VmName::parse(&new)?);
                let vm = client.rename_vm(old.as_str(), new.as_str()).await.map_err(failed)?;
                printer.vm(&vm, &self.socket)
            }
            VmCommand::Delete { name, with_snapshots, dry_run: true, .. } => {
                let name = VmName::parse(&name)?;
                let all = if with_snapshots { "@*" } else { "" };
                self.dry_run_of(&[format!("{name}{all}")]).await
            }
            VmCommand::Delete { name, with_snapshots, now, yes, dry_run: false } => {
                self.delete_vm(&name, HowToDelete { now, with_snapshots }, yes).await
            }
            VmCommand::Snapshot { vm, name } => self.make_snapshot(&vm, name.as_deref()).await,
            VmCommand::Clone { from, new } => self.clone_vm(&from, &new).await,
            VmCommand::Revert { snapshot, yes } => self.revert(&snapshot, yes).await,
            VmCommand::Definition { name } => {
                let name = VmName::parse(&name)?;
                let definition = client.definition(name.as_str()).await.map_err(failed)?;
                printer.plain(&definition, &definition.text)
            }
            VmCommand::SetDefinition { name, file } => {
                let name = VmName::parse(&name)?;
                let definition = Definition { text: read_text(&file)? };
                client.set_definition(name.as_str(), &definition).await.map_err(failed)?;
                printer.vm(&client.vm(name.as_str()).await.map_err(failed)?, &self.socket)
            }
            VmCommand::Import { name, image, format, size } => {
                let name = VmName::parse(&name)?;
                self.transfer().import(&name, Source { image, format, bytes: size }).await
            }
            VmCommand::Export { disk, file, format } => {
                let (from, disk) = Version::parse_with_disk(&disk)?;
                self.transfer().export(&from, disk.map(str::to_owned), file, format).await
            }
        }
    }

    fn transfer(&self) -> Transfer<'_> {
        Transfer {
            rt: self.rt.clone(),
            client: &self.client,
            socket: self.socket.clone(),
            printer: self.printer,
            start: &self.start,
        }
    }

    async fn disk(&self, command: DiskCommand) -> Result<(), Failure> {
        let (client, printer) = (&self.client, self.printer);
        let failed = |error| self.failed(error);
        match command {
            DiskCommand::Add { vm, size } => {
                let vm = VmName::parse(&vm)?;
                let new = AddDisk::Empty(NewDisk { bytes: size });
                let added = client.add_disk(vm.as_str(), &new).await.map_err(failed)?;
                printer.vm(&added, &self.socket)
            }
            DiskCommand::Clone { from, vm } => self.clone_disk(&from, &vm).await,
            DiskCommand::Remove { disk, apart, dry_run: true, .. } => {
                let (vm, disk) = place(&disk, apart.as_deref(), "disk")?;
                self.dry_run(&format!("{vm}/{disk}")).await
            }
            DiskCommand::Remove { disk, apart, yes, dry_run: false } => {
                let (vm, disk) = place(&disk, apart.as_deref(), "disk")?;
                really(yes, || format!("disk {vm}/{disk} with all its data would be deleted"))?;
                client.remove_disk(vm.as_str(), disk).await.map_err(failed)?;
                let deleted = format!("{vm}/{disk}");
                printer.done(
                    &Deleted { deleted: deleted.clone(), trash: None },
                    &format!("disk {deleted} deleted"),
                )
            }
            DiskCommand::Resize { disk, size, apart, shrink } => {
                let (name, size) = match &apart {
                    None => (None, &size),
                    Some(last) => (Some(size.as_str()), last),
                };
                let (vm, disk) = place(&disk, name, "disk")?;
                let change = ChangeDisk { bytes: api::parse_size(size)?, shrink };
                let changed = client.change_disk(vm.as_str(), disk, &change).await.map_err(failed)?;
                printer.vm(&changed, &self.socket)
            }
            DiskCommand::AttachInfo { disk, apart } => {
                let (vm, disk) = place(&disk, apart.as_deref(), "disk")?;
                self.attach_info(&vm, disk).await
            }
        }
    }

    async fn attach_info(&self, vm: &VmName, disk: &str) -> Result<(), Failure> {
        let info = self.client.attach_info(vm.as_str(), disk).await.map_err(|error| self.failed(error))?;
        let socket = self.socket.to_str().ok_or_else(|| {
            Failure::of_code(code::INVALID_PATH, format!("{}: it is no text", self.socket.display()))
                .hint("QEMU and libvirt take no such path: move the site's directory, or link to it")
        })?;
        self.printer.attach_info(&info.at(socket))
    }

    async fn task(&self, command: TaskCommand) -> Result<(), Failure> {
        let (client, printer) = (&self.client, self.printer);
        let failed = |error| self.failed(error);
        match command {
            TaskCommand::List => printer.tasks(&client.tasks().await.map_err(failed)?),
            TaskCommand::Show { id } => printer.task(&client.task(id).await.map_err(failed)?),
            TaskCommand::Cancel { id } => printer.task(&client.cancel_task(id).await.map_err(failed)?),
        }
    }
}

/// The VM and the name of its disk or file in `VM/DISK`; or in two words.
fn place<'a>(first: &'a str, second: Option<&'a str>, what: &str) -> Result<(VmName, &'a str), Failure> {
    let (vm, name) = match (first.split_once('/'), second) {
        (Some(both), None) => both,
        (None, Some(second)) => (first, second),
        (None, None) | (Some(_), Some(_)) => {
            let all = second.map_or(first.to_owned(), |second| format!("{first} {second}"));
            let hint = format!("write VM/{}", what.to_uppercase());
            return Err(Failure::usage(format!("{all:?} names no {what}"), hint));
        }
    };
    Ok((VmName::parse(vm)?, name))
}

/// What is lost for good must be meant.
pub(crate) fn really(yes: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if yes { Ok(()) } else { Err(Failure::usage(what(), "say so with --yes")) }
}

/// A text from a file or standard input; the site says whether it is too long, and one byte more shows it.
fn read_text(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::of_io(code::FILE_ERROR, file.display(), &error);
    let limit = DEFINITION_BYTES_MAX as u64 + 1;
    let mut text = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(file).map_err(failed)?.take(limit).read_to_end(&mut text).map_err(failed)?;
    }
    String::from_utf8(text)
        .map_err(|_| Failure::usage(format!("{}: it is no text", file.display()), "store UTF-8"))
}
