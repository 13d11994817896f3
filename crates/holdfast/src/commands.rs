//! Commands that ask a running site.

use std::path::Path;
use std::time::Duration;

use api::Client;
use api::types::{CreateVm, NewDisk};
use seam::Rt;
use serde_json::json;
use site::{Directory, VmName};

use crate::arguments::{ClientCommand, VmCommand};
use crate::failure::Failure;
use crate::output::Printer;

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
    let client = Client::new(rt, &directory.api_socket(), limit);
    let start = format!("holdfast standalone --dir {}", directory.root().display());
    let failed = |error| Failure::of_call(error, &start);
    match command {
        ClientCommand::Status => printer.status(&client.status().await.map_err(failed)?),
        ClientCommand::Vm(VmCommand::List) => printer.vms(&client.vms().await.map_err(failed)?),
        ClientCommand::Vm(VmCommand::Show { name }) => {
            let name = VmName::parse(&name)?;
            printer.vm(&client.vm(name.as_str()).await.map_err(failed)?, &directory)
        }
        ClientCommand::Vm(VmCommand::Create { name, disk }) => {
            let name = VmName::parse(&name)?;
            let disks = disk.into_iter().map(|bytes| NewDisk { bytes }).collect();
            let new = CreateVm { name: name.as_str().to_owned(), disks };
            printer.vm(&client.create_vm(&new).await.map_err(failed)?, &directory)
        }
        ClientCommand::Vm(VmCommand::Delete { name, yes }) => {
            let name = VmName::parse(&name)?;
            if !yes {
                let message = format!("VM {name} with all data of its disks would be deleted");
                return Err(Failure::usage(message, "say so with --yes"));
            }
            client.delete_vm(name.as_str()).await.map_err(failed)?;
            printer.done(&json!({"deleted": name.as_str()}), &format!("VM {name} deleted"))
        }
    }
}
