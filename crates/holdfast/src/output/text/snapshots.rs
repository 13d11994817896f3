//! Snapshots for people.

use std::path::Path;

use api::format_size;
use api::types::{Change, Diff, Reverted, Snapshot};

use super::{address, table, time, vm};

pub(in crate::output) fn snapshots(snapshots: &[Snapshot]) -> String {
    let row = |snapshot: &Snapshot| {
        let bytes = snapshot.disks.iter().map(|disk| disk.bytes).sum();
        vec![
            format!("{}@{}", snapshot.vm, snapshot.name),
            time(snapshot.created_ms),
            snapshot.disks.len().to_string(),
            format_size(bytes),
        ]
    };
    table(&["SNAPSHOT", "MADE", "DISKS", "SIZE"], snapshots.iter().map(row).collect())
}

pub(in crate::output) fn snapshot(snapshot: &Snapshot, nbd_socket: &Path) -> String {
    let rows = snapshot
        .disks
        .iter()
        .map(|disk| vec![disk.name.clone(), format_size(disk.bytes), address(&disk.export, nbd_socket)]);
    let definition = if snapshot.has_definition { ", with a definition" } else { "" };
    let disks = table(&["DISK", "SIZE", "ADDRESS"], rows.collect());
    let Snapshot { vm, name, created_ms, .. } = snapshot;
    let held = match snapshot.held_until_ms {
        0 => String::new(),
        until if snapshot.enforced_until_ms >= until => {
            format!(", held until {}, by the media too", time(until))
        }
        until => format!(", held until {}, not yet by all media", time(until)),
    };
    let files = snapshot.files.iter().map(|file| (file.name.as_str(), file.bytes, file.export.as_str()));
    let files = super::files_table(files, nbd_socket);
    format!("{vm}@{name}, made {}{definition}{held}\n\n{disks}{files}", time(*created_ms))
}

pub(in crate::output) fn diff(diff: &Diff) -> String {
    let rows = diff.disks.iter().flat_map(|disk| {
        let row = |change: &Change| {
            let now = if change.mapped { "data" } else { "hole" };
            vec![disk.disk.clone(), change.offset.to_string(), change.length.to_string(), now.to_owned()]
        };
        disk.items.iter().map(row)
    });
    let text = table(&["DISK", "OFFSET", "BYTES", "NOW"], rows.collect());
    let Diff { from, to, bytes, .. } = diff;
    format!("{text}\nfrom {from} to {to}: {bytes} bytes ({})\n", format_size(*bytes))
}

pub(in crate::output) fn reverted(reverted: &Reverted, nbd_socket: &Path) -> String {
    let kept = &reverted.kept_as;
    format!("{}\nwhat it was is kept as {}@{}\n", vm(&reverted.vm, nbd_socket), kept.vm, kept.name)
}
