//! Results for people. Not to be read by programs.

mod groups;
mod snapshots;
mod trash;
mod upkeep;

use std::path::Path;

use api::types::{
    AttachInfo, Attributes, Clients, Explanation, Health, Medium, MediumState, Node, SnapshotDisk, Status,
    Task, TaskKind, TaskState, TrashTotals, Vm, VmState, VmSummary,
};
use api::{format_size, format_time};

pub(super) use groups::{group, group_changes, groups, members, outlook, point, points, restored};
pub(super) use snapshots::{diff, reverted, snapshot, snapshots};
pub(super) use trash::trash;
pub(super) use upkeep::{clock, dry_run, keys, scrubbing, space};

const DAY_MS: u64 = 86_400_000;

pub(super) fn status(status: &Status) -> String {
    let health = match status.health {
        Health::Ok => "ok",
        Health::Degraded => "degraded",
        Health::Failed => "failed",
    };
    let mut lines = vec![
        format!("protected     {}", groups::totals(&status.protection)),
        format!("health        {health}"),
    ];
    lines.extend(status.reasons.iter().map(|reason| format!("  because     {reason}")));
    lines.extend(status.next.iter().map(|next| format!("  next        {next}")));
    lines.extend(status.notices.iter().map(|notice| format!("  note        {notice}")));
    let geometry = status.geometry.map_or("none".to_owned(), |g| format!("{}+{}", g.data, g.parity));
    lines.push(format!(
        "can lose now  {} media without losing data (new data {geometry})",
        status.can_lose_now
    ));
    lines.push(String::new());
    lines.extend(capacity(status));
    lines.push(String::new());
    lines.push(format!("journal       {} % used", status.journal_used_percent));
    lines.push(format!("repairs       {} of {} faults since the start", status.repaired, status.faults));
    lines.push(format!("VMs           {}", status.vms));
    let TrashTotals { items, used_bytes, .. } = status.trash;
    lines.push(format!("trash         {items}, with {} of data as guests saw it", format_size(used_bytes)));
    lines.extend(clients(&status.clients));
    lines.push(format!("tasks         {} running", status.tasks.len()));
    lines.extend(status.tasks.iter().map(|task| format!("  {}", progress(task))));
    format!("{}\n\n{}", lines.join("\n"), media(&status.media))
}

/// Who is connected, and what they hold.
fn clients(clients: &Clients) -> [String; 2] {
    let Clients { connections, connections_max, refused, cut_off, memory_used_bytes, memory_bytes } =
        *clients;
    let (used, total) = (format_size(memory_used_bytes as u64), format_size(memory_bytes as u64));
    [
        format!(
            "clients       {connections} of {connections_max} connections; since the start refused: {refused}, cut off: {cut_off}"
        ),
        format!("client memory {used} of {total} used"),
    ]
}

/// From what guests could fill to what the media hold, each step with what it saved.
fn capacity(status: &Status) -> Vec<String> {
    let zero = status.provisioned_bytes.saturating_sub(status.logical_bytes);
    let parity = status.raw_bytes.saturating_sub(status.stored_bytes);
    let row = |name: &str, bytes: u64, says: String| format!("{name:<13} {:>11}  {says}", format_size(bytes));
    vec![
        row("provisioned", status.provisioned_bytes, "size of all disks".to_owned()),
        row("logical", status.logical_bytes, format!("data as guests see it; holes and zeros: {}", format_size(zero))),
        row("unique", status.unique_bytes, format!("dedup: {}", dedup(status))),
        row("stored", status.stored_bytes, format!("compression: {}", saved(status.unique_bytes, status.stored_bytes))),
        row(
            "raw",
            status.raw_bytes,
            format!("of {} on media; of it parity: {}", format_size(status.raw_capacity_bytes), format_size(parity)),
        ),
        row("usable", status.usable_bytes, "can be written now for sure, no reduction counted on".to_owned()),
        row("likely", status.likely_bytes, "most likely fits, written in stretches".to_owned()),
        "              what was overwritten or deleted stays in unique, stored and raw until the cleaner frees it".to_owned(),
    ]
}

/// What deduplication saved at least: of what is unique, garbage and what snapshots alone hold are no data of a disk.
fn dedup(status: &Status) -> String {
    match (saved(status.logical_bytes, status.unique_bytes), status.logical_bytes > status.unique_bytes) {
        (ratio, true) if status.unique_bytes > 0 => format!("at least {ratio}"),
        (none, _) => none,
    }
}

/// What a step saved; never less than nothing, as garbage would have it.
fn saved(from: u64, to: u64) -> String {
    match to {
        0 => "nothing yet".to_owned(),
        _ if from <= to => "none to be seen".to_owned(),
        _ => format!("{:.2} to 1", from as f64 / to as f64),
    }
}

pub(super) fn media(media: &[Medium]) -> String {
    let row = |medium: &Medium| {
        let state = match medium.state {
            MediumState::Up => "up".to_owned(),
            MediumState::Full => "full".to_owned(),
            MediumState::Down => "down".to_owned(),
        };
        let moved = medium.moving.map_or_else(String::new, |moving| {
            let total = u128::from(moving.done_bytes) + u128::from(moving.left_bytes);
            let percent = (u128::from(moving.done_bytes) * 100).checked_div(total).unwrap_or(100);
            format!(", {} {percent} %", if medium.leaving { "draining" } else { "rebuilding" })
        });
        let state = if medium.leaving && medium.moving.is_none() {
            format!("{state}, leaving")
        } else {
            state + &moved
        };
        let reason = medium.reason.clone().unwrap_or_default();
        vec![state, format_size(medium.bytes), medium.path.clone(), reason]
    };
    table(&["MEDIUM", "SIZE", "PATH", "REASON"], media.iter().map(row).collect())
}

pub(super) fn nodes(nodes: &[Node]) -> String {
    let row = |node: &Node| {
        vec![
            node.name.clone(),
            node.role.clone(),
            node.state.clone(),
            node.media.map_or_else(|| "-".to_owned(), |media| media.to_string()),
            node.address.clone().unwrap_or_default(),
            format_time(node.certificate_ends_ms),
        ]
    };
    table(
        &["NAME", "ROLE", "STATE", "MEDIA", "ADDRESS", "CERTIFICATE UNTIL"],
        nodes.iter().map(row).collect(),
    )
}

pub(super) fn vms(vms: &[VmSummary]) -> String {
    let row = |vm: &VmSummary| {
        let Attributes { folder, tags, .. } = &vm.attributes;
        let tags = if tags.is_empty() { "-".to_owned() } else { tags.join(",") };
        let protection = groups::protection_cell(vm.protection.as_ref());
        vec![vm.name.clone(), vm.disks.to_string(), format_size(vm.bytes), protection, folder.clone(), tags]
    };
    table(&["NAME", "DISKS", "SIZE", "PROTECTION", "FOLDER", "TAGS"], vms.iter().map(row).collect())
}

pub(super) fn vm(vm: &Vm, nbd_socket: &Path) -> String {
    let rows = vm.disks.iter().map(|disk| {
        let address = address(&disk.export, nbd_socket);
        let used = disk.used_bytes.map_or_else(|| "-".to_owned(), format_size);
        vec![disk.name.clone(), format_size(disk.bytes), used, disk.clients.to_string(), address]
    });
    let state = if vm.state == VmState::Importing { ", being imported" } else { "" };
    let definition = if vm.has_definition { ", with a definition" } else { "" };
    let disks = table(&["DISK", "SIZE", "USED", "CLIENTS", "ADDRESS"], rows.collect());
    let files = vm.files.iter().map(|file| (file.name.as_str(), file.bytes, file.export.as_str()));
    let files = files_table(files, nbd_socket);
    let protection = groups::protection_lines(vm.protection.as_ref());
    format!("{}{state}{definition}\n{}{protection}\n{disks}{files}", vm.name, ordered_by(&vm.attributes))
}

/// Lines that say what a VM is ordered by, where it is.
fn ordered_by(attributes: &Attributes) -> String {
    let Attributes { folder, tags, labels } = attributes;
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let lines = [
        ("folder", Some(folder.clone()).filter(|folder| folder != "/")),
        ("tags", Some(tags.join(", ")).filter(|tags| !tags.is_empty())),
        ("labels", Some(labels.join(", ")).filter(|labels| !labels.is_empty())),
    ];
    lines.into_iter().filter_map(|(what, value)| Some(format!("{what}: {}\n", value?))).collect()
}

/// The files of a VM or snapshot, by name, length and export, where there are some.
fn files_table<'a>(files: impl Iterator<Item = (&'a str, u64, &'a str)>, nbd_socket: &Path) -> String {
    let row = |(name, bytes, export): (&str, u64, &str)| {
        vec![name.to_owned(), format_size(bytes), address(export, nbd_socket)]
    };
    match files.map(row).collect::<Vec<_>>() {
        rows if rows.is_empty() => String::new(),
        rows => format!("\n{}", table(&["FILE", "SIZE", "ADDRESS"], rows)),
    }
}

pub(super) fn files(files: &[SnapshotDisk]) -> String {
    let row = |file: &SnapshotDisk| vec![file.name.clone(), format_size(file.bytes), file.export.clone()];
    table(&["FILE", "SIZE", "EXPORT"], files.iter().map(row).collect())
}

/// What an NBD client opens.
fn address(export: &str, nbd_socket: &Path) -> String {
    site::nbd_uri(export, nbd_socket)
}

pub(super) fn attach_info(info: &AttachInfo) -> String {
    let qemu = info.qemu.join(" \\\n");
    format!("# QEMU\n{qemu}\n\n# libvirt\n{}\n\n# any NBD client\n{}\n", info.libvirt, info.uri)
}

fn kind(task: &Task) -> &'static str {
    match task.kind {
        TaskKind::Import => "import",
        TaskKind::Export => "export",
        TaskKind::Clean => "clean",
        TaskKind::Scrub => "scrub",
        TaskKind::Verify => "verify",
        TaskKind::Space => "space",
        TaskKind::Rekey => "rekey",
        TaskKind::Drain => "drain",
        TaskKind::Rebuild => "rebuild",
    }
}

fn percent(task: &Task) -> String {
    match task.total_bytes {
        0 if task.state == TaskState::Done => "100.0 %".to_owned(),
        0 => "-".to_owned(),
        total => format!("{:.1} %", task.done_bytes as f64 * 100.0 / total as f64),
    }
}

/// A task that runs, in a line.
pub(super) fn progress(task: &Task) -> String {
    let left = task.seconds_left.map_or(String::new(), |seconds| format!(", {} left", duration(seconds)));
    let (done, total, rate) =
        (format_size(task.done_bytes), format_size(task.total_bytes), format_size(task.rate));
    format!(
        "{} {} (task {}): {}, {done} of {total}, {rate}/s{left}",
        kind(task),
        task.target,
        task.id,
        percent(task)
    )
}

fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A point in time, UTC: days since 1970 to a date as Howard Hinnant's `civil_from_days` has it.
fn time(ms: u64) -> String {
    let days = ms / DAY_MS + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let second = ms % DAY_MS / 1000;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

pub(super) fn tasks(tasks: &[Task]) -> String {
    let row = |task: &Task| {
        vec![
            task.id.to_string(),
            kind(task).to_owned(),
            task.target.clone(),
            task.state.word().to_owned(),
            percent(task),
            format!("{}/s", format_size(task.rate)),
            time(task.started_ms),
            task.error.clone().unwrap_or_else(|| task.message.clone()),
        ]
    };
    let heads = ["TASK", "KIND", "TARGET", "STATE", "DONE", "RATE", "BEGAN", "MESSAGE"];
    table(&heads, tasks.iter().map(row).collect())
}

pub(super) fn task(task: &Task) -> String {
    let mut lines = vec![
        format!("task    {}", task.id),
        format!("kind    {}", kind(task)),
        format!("target  {}", task.target),
        format!("state   {}", task.state.word()),
        format!("began   {}", time(task.started_ms)),
    ];
    lines.extend(task.ended_ms.map(|ended| format!("ended   {}", time(ended))));
    let (done, total) = (format_size(task.done_bytes), format_size(task.total_bytes));
    lines.push(format!("done    {}: {done} of {total}", percent(task)));
    lines.push(format!("rate    {}/s", format_size(task.rate)));
    lines.extend(task.seconds_left.map(|seconds| format!("left    {}", duration(seconds))));
    lines.push(format!("with    {}", task.message));
    lines.extend(task.error.as_ref().map(|error| format!("error   {error}")));
    lines.extend(upkeep::counts(task));
    lines.extend(task.findings.iter().map(|found| format!("found   {found}")));
    format!("{}\n", lines.join("\n"))
}

pub(super) fn explanations(codes: &[Explanation]) -> String {
    let row = |code: &Explanation| vec![code.code.clone(), code.exit.to_string(), code.title.clone()];
    table(&["CODE", "EXIT", "TITLE"], codes.iter().map(row).collect())
}

pub(super) fn explanation(code: &Explanation) -> String {
    let status = code.status.map_or("none".to_owned(), |status| status.to_string());
    let Explanation { code, title, cause, next, exit, .. } = code;
    format!("{code}: {title}\n\ncause  {cause}\nnext   {next}\nexit code {exit}, HTTP status {status}\n")
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

#[cfg(test)]
mod tests;
