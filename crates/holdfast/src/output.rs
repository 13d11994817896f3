//! Results on standard output: JSON, or tables for people.

use std::io::Write;

use api::types::{Health, List, MediumState, Status, Vm, VmSummary};
use clap::ValueEnum;
use serde::Serialize;
use site::{Directory, format_size};

use crate::failure::Failure;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Prints results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn status(self, status: &Status) -> Result<(), Failure> {
        self.print(status, || status_text(status))
    }

    pub(crate) fn vms(self, vms: &List<VmSummary>) -> Result<(), Failure> {
        self.print(vms, || {
            let rows =
                vms.items.iter().map(|vm| vec![vm.name.clone(), vm.disks.to_string(), format_size(vm.bytes)]);
            table(&["NAME", "DISKS", "SIZE"], rows.collect())
        })
    }

    pub(crate) fn vm(self, vm: &Vm, directory: &Directory) -> Result<(), Failure> {
        self.print(vm, || vm_text(vm, directory))
    }

    /// Something that has no more to say than that it is done.
    pub(crate) fn done(self, json: &impl Serialize, text: &str) -> Result<(), Failure> {
        self.print(json, || format!("{text}\n"))
    }

    fn print(self, json: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let failed = |reason: String| Failure::failed("output", format!("standard output: {reason}"));
        let text = match self.format {
            Format::Table => text(),
            Format::Json => {
                let text = serde_json::to_string_pretty(json).map_err(|error| failed(error.to_string()))?;
                format!("{text}\n")
            }
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| failed(error.to_string()))
    }
}

fn status_text(status: &Status) -> String {
    let health = match status.health {
        Health::Ok => "ok",
        Health::Degraded => "degraded",
        Health::Failed => "failed",
    };
    let mut lines = vec![format!("health        {health}")];
    lines.extend(status.reasons.iter().map(|reason| format!("  because     {reason}")));
    lines.extend(status.notices.iter().map(|notice| format!("  note        {notice}")));
    let geometry = status.geometry.map_or("none".to_owned(), |g| format!("{}+{}", g.data, g.parity));
    lines.push(format!("can lose now  {} media (new data {geometry})", status.can_lose_now));
    let sizes = [
        ("logical", status.logical_bytes),
        ("unique", status.unique_bytes),
        ("stored", status.stored_bytes),
        ("raw", status.raw_bytes),
        ("usable", status.usable_bytes),
    ];
    lines.extend(sizes.iter().map(|(name, bytes)| format!("{name:<13} {}", format_size(*bytes))));
    lines.push(format!("journal       {} % used", status.journal_used_percent));
    lines.push(format!("VMs           {}", status.vms));
    let rows = status.media.iter().map(|medium| {
        let state = match medium.state {
            MediumState::Up => "up",
            MediumState::Full => "full",
            MediumState::Down => "down",
        };
        vec![state.to_owned(), format_size(medium.bytes), medium.path.clone()]
    });
    format!("{}\n\n{}", lines.join("\n"), table(&["MEDIUM", "SIZE", "PATH"], rows.collect()))
}

fn vm_text(vm: &Vm, directory: &Directory) -> String {
    let rows = vm.disks.iter().map(|disk| {
        let address = format!("nbd+unix:///{}?socket={}", disk.export, directory.nbd_socket().display());
        let used = format_size(disk.used_bytes);
        vec![disk.name.clone(), format_size(disk.bytes), used, disk.clients.to_string(), address]
    });
    format!("{}\n\n{}", vm.name, table(&["DISK", "SIZE", "USED", "CLIENTS", "ADDRESS"], rows.collect()))
}

/// Columns as wide as their widest cell.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..all[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all.iter().map(line).collect()
}
