//! Results on standard output: JSON, YAML, or tables for people.

mod meter;
mod text;

use std::io::{IsTerminal, Write};
use std::path::Path;

use api::code;
use api::types::{
    AttachInfo, Clock, Diff, Explanation, Group, GroupChange, Keys, List, Medium, Membership, Node, Outlook,
    Point, Points, RestoredVms, Reverted, Scrubbing, Snapshot, SnapshotDisk, Snapshots, Space, Status, Task,
    Trash, Vm, VmSummary,
};
use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;
pub(crate) use meter::Meter;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs
    Yaml,
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
        self.print(status, || text::status(status))
    }

    pub(crate) fn media(self, media: &List<Medium>) -> Result<(), Failure> {
        self.print(media, || text::media(&media.items))
    }

    pub(crate) fn nodes(self, nodes: &List<Node>) -> Result<(), Failure> {
        self.print(nodes, || text::nodes(&nodes.items))
    }

    pub(crate) fn vms(self, vms: &List<VmSummary>) -> Result<(), Failure> {
        self.print(vms, || text::vms(&vms.items))
    }

    pub(crate) fn vm(self, vm: &Vm, nbd_socket: &Path) -> Result<(), Failure> {
        self.print(vm, || text::vm(vm, nbd_socket))
    }

    pub(crate) fn snapshots(self, snapshots: &Snapshots) -> Result<(), Failure> {
        self.print(snapshots, || text::snapshots(&snapshots.items))
    }

    pub(crate) fn snapshot(self, snapshot: &Snapshot, nbd_socket: &Path) -> Result<(), Failure> {
        self.print(snapshot, || text::snapshot(snapshot, nbd_socket))
    }

    pub(crate) fn files(self, files: &List<SnapshotDisk>) -> Result<(), Failure> {
        self.print(files, || text::files(&files.items))
    }

    pub(crate) fn diff(self, diff: &Diff) -> Result<(), Failure> {
        self.print(diff, || text::diff(diff))
    }

    pub(crate) fn reverted(self, reverted: &Reverted, nbd_socket: &Path) -> Result<(), Failure> {
        self.print(reverted, || text::reverted(reverted, nbd_socket))
    }

    pub(crate) fn groups(self, groups: &List<Group>) -> Result<(), Failure> {
        self.print(groups, || text::groups(&groups.items))
    }

    pub(crate) fn group(self, group: &Group) -> Result<(), Failure> {
        self.print(group, || text::group(group))
    }

    pub(crate) fn group_changes(self, changes: &List<GroupChange>) -> Result<(), Failure> {
        self.print(changes, || text::group_changes(&changes.items))
    }

    pub(crate) fn members(self, members: &List<Membership>) -> Result<(), Failure> {
        self.print(members, || text::members(&members.items))
    }

    pub(crate) fn outlook(self, outlook: &List<Outlook>) -> Result<(), Failure> {
        self.print(outlook, || text::outlook(&outlook.items))
    }

    pub(crate) fn points(self, points: &Points) -> Result<(), Failure> {
        self.print(points, || text::points(&points.items))
    }

    pub(crate) fn point(self, point: &Point) -> Result<(), Failure> {
        self.print(point, || text::point(point))
    }

    pub(crate) fn restored(self, restored: &RestoredVms) -> Result<(), Failure> {
        self.print(restored, || text::restored(restored))
    }

    pub(crate) fn trash(self, trash: &Trash) -> Result<(), Failure> {
        self.print(trash, || text::trash(trash))
    }

    pub(crate) fn attach_info(self, info: &AttachInfo) -> Result<(), Failure> {
        self.print(info, || text::attach_info(info))
    }

    pub(crate) fn tasks(self, tasks: &List<Task>) -> Result<(), Failure> {
        self.print(tasks, || text::tasks(&tasks.items))
    }

    pub(crate) fn task(self, task: &Task) -> Result<(), Failure> {
        self.print(task, || text::task(task))
    }

    pub(crate) fn space(self, space: &Space) -> Result<(), Failure> {
        self.print(space, || text::space(space))
    }

    /// What a task that deleted nothing says of a deletion.
    pub(crate) fn dry_run(self, task: &Task) -> Result<(), Failure> {
        self.print(task, || text::dry_run(task))
    }

    pub(crate) fn scrubbing(self, scrubbing: &Scrubbing) -> Result<(), Failure> {
        self.print(scrubbing, || text::scrubbing(scrubbing))
    }

    pub(crate) fn clock(self, clock: &Clock) -> Result<(), Failure> {
        self.print(clock, || text::clock(clock))
    }

    pub(crate) fn keys(self, keys: &Keys) -> Result<(), Failure> {
        self.print(keys, || text::keys(keys))
    }

    pub(crate) fn explanations(self, codes: &List<Explanation>) -> Result<(), Failure> {
        self.print(codes, || text::explanations(&codes.items))
    }

    pub(crate) fn explanation(self, code: &Explanation) -> Result<(), Failure> {
        self.print(code, || text::explanation(code))
    }

    /// Something that has no more to say than that it is done.
    pub(crate) fn done(self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        self.print(value, || format!("{text}\n"))
    }

    /// A text that people take as it is.
    pub(crate) fn plain(self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        self.print(value, || text.to_owned())
    }

    /// Shows on standard error how far a task is.
    pub(crate) fn meter(self) -> Meter {
        Meter::new(self.format, std::io::stderr().is_terminal())
    }

    fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let failed = |reason: String| Failure::failed(code::OUTPUT, format!("standard output: {reason}"));
        let text = match self.format {
            Format::Table => text(),
            Format::Json => {
                let text = serde_json::to_string_pretty(value).map_err(|error| failed(error.to_string()))?;
                format!("{text}\n")
            }
            Format::Yaml => serde_norway::to_string(value).map_err(|error| failed(error.to_string()))?,
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| failed(error.to_string()))
    }
}
