//! The commands: everything that changes a record of the catalogue or of tasks.

use std::time::Duration;

use api::types::{ChangeAttributes, TaskKind};
use catalog::Deletion;

use super::Command;
use super::bench::{Bench, file, version, vm};

/// What must be under way before a command makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// A file of v being stored.
    Storing,
    /// An export of v.
    Export,
    /// VM i being imported.
    Import,
}

/// A command with its name and what it needs; the body works on a [`Bench`].
macro_rules! command {
    ($name:literal, $needs:expr, |$bench:ident| $body:expr) => {
        Command {
            name: $name,
            needs: $needs,
            run: |$bench| {
                Box::pin(async move { $body.await.map(drop).map_err(|error| error.code.name.to_owned()) })
            },
        }
    };
    ($name:literal, |$bench:ident| $body:expr) => {
        command!($name, &[], |$bench| $body)
    };
}

const ALL: Deletion = Deletion { now: false, with_snapshots: true };
const HELD: &str = "2030-01-01T00:00:00Z";
const HELD_LONGER: &str = "2031-01-01T00:00:00Z";

fn tag(tag: &str) -> ChangeAttributes {
    ChangeAttributes { add_tags: vec![tag.to_owned()], ..ChangeAttributes::default() }
}

pub(super) const COMMANDS: &[Command<Bench>] = &[
    command!("create c", |b| b.catalog.create_vm(&vm("c"), &[4096])),
    command!("delete v", |b| b.catalog.delete_vm(&vm("v"), ALL)),
    command!("delete v now", |b| b.catalog.delete_vm(&vm("v"), Deletion { now: true, ..ALL })),
    command!("rename v to r", |b| b.catalog.rename_vm(&vm("v"), &vm("r"))),
    command!("rename v to c", |b| b.catalog.rename_vm(&vm("v"), &vm("c"))),
    command!("tag v", |b| b.catalog.change_attributes(&vm("v"), &tag("a"))),
    command!("tag v otherwise", |b| b.catalog.change_attributes(&vm("v"), &tag("b"))),
    command!("add a disk", |b| b.catalog.add_disk(&vm("v"), 4096)),
    command!("remove disk1", |b| b.catalog.remove_disk(&vm("v"), "disk1")),
    command!("grow disk1", |b| b.catalog.resize_disk(&vm("v"), "disk1", 16384, false)),
    command!("shrink disk1", |b| b.catalog.resize_disk(&vm("v"), "disk1", 4096, true)),
    command!("define", |b| b.catalog.set_definition(&vm("v"), "three")),
    command!("define nothing", |b| b.catalog.set_definition(&vm("v"), "")),
    command!("snapshot", |b| b.catalog.snapshot(&vm("v"), None)),
    command!("snapshot q", |b| b.catalog.snapshot(&vm("v"), Some(&vm("q")))),
    command!("delete s1", |b| b.catalog.delete_snapshot(&vm("v"), &vm("s1"), false)),
    command!("delete s1 now", |b| b.catalog.delete_snapshot(&vm("v"), &vm("s1"), true)),
    command!("hold s1", |b| b.catalog.hold_snapshot(&vm("v"), &vm("s1"), HELD)),
    command!("hold s1 longer", |b| b.catalog.hold_snapshot(&vm("v"), &vm("s1"), HELD_LONGER)),
    command!("rename s1 to q", |b| b.catalog.rename_snapshot(&vm("v"), &vm("s1"), &vm("q"))),
    command!("clone v to c", |b| b.catalog.clone_vm(&version("v"), &vm("c"))),
    command!("clone s1 to c", |b| b.catalog.clone_vm(&version("v@s1"), &vm("c"))),
    command!("clone a disk of s1", |b| b.catalog.clone_disk(&version("v@s1"), "disk0", &vm("w"))),
    command!("clone a disk of w", |b| b.catalog.clone_disk(&version("w"), "disk0", &vm("v"))),
    command!("revert to s1", |b| b.catalog.revert(&vm("v"), &vm("s1"))),
    command!("remove f", |b| b.catalog.remove_file(&vm("v"), &file("f"))),
    command!("begin file h", |b| b.transfers.begin_file(&vm("v"), &file("h"), "", false)),
    command!("grow g", &[Need::Storing], |b| b.catalog.grow_file(&vm("v"), &file("g"), 9000)),
    command!("finish g", &[Need::Storing], |b| b.transfers.finish(b.task(Need::Storing), TaskKind::Import)),
    command!("cancel g", &[Need::Storing], |b| b.transfers.cancel(b.task(Need::Storing))),
    command!("export v", |b| b.transfers.begin_export(&version("v"), None, "")),
    command!("export s1", |b| b.transfers.begin_export(&version("v@s1"), None, "")),
    command!("end the export", &[Need::Export], |b| {
        b.transfers.finish(b.task(Need::Export), TaskKind::Export)
    }),
    command!("begin import c", |b| b.transfers.begin_import(&vm("c"), &[4096], "")),
    command!("grow i", &[Need::Import], |b| b.catalog.resize_disk(&vm("i"), "disk0", 8192, false)),
    command!("finish i", &[Need::Import], |b| b.transfers.finish(b.task(Need::Import), TaskKind::Import)),
    command!("fail i", &[Need::Import], |b| b.transfers.fail(b.task(Need::Import), TaskKind::Import, "no")),
    command!("a round of transfers", |b| b.transfers.round()),
    command!("restore t", |b| b.catalog.restore(b.thrown, None)),
    command!("restore t as q", |b| b.catalog.restore(b.thrown, Some(&vm("q")))),
    command!("condemn t", |b| b.catalog.condemn_trash(std::slice::from_ref(&b.thrown))),
    command!("empty t", |b| b.catalog.empty_trash(b.thrown)),
    command!("a round of the trash", |b| b.catalog.expire_trash()),
    command!("keep no trash", |b| b.catalog.set_trash_keep(Duration::ZERO)),
];
