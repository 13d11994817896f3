//! The tables of the catalogue.
//!
//! | table | key | value |
//! |---|---|---|
//! | `vm` | the VM's name, lower case | [`crate::record::Record`] |
//! | `snapshot` | number of the VM, name in lower case | [`crate::snapshots::SnapshotRecord`] |
//! | `definition` | its number | the text |
//! | `definition-use` | number of the definition, number of the user | empty: a snapshot, or something in the trash, has it |
//! | `trash` | its number | [`crate::trash::Record`] |
//! | `group` | the group's name, lower case | [`crate::groups::GroupRecord`] |
//! | `run` | number of the group, the schedule's name, lower case | [`crate::groups::Run`] |
//! | `point` | its number | [`crate::points::PointRecord`] |
//! | `setting` | `trash-keep-seconds` | eight bytes, little end first |
//!
//! Names are the site's; all else belongs to the shard of its disks.

use meta::{Shard, Site, Table};

pub(crate) const VMS: Table<Site> = Table::new("vm");
pub(crate) const SNAPSHOTS: Table<Shard> = Table::new("snapshot");
/// Who has a definition.
pub(crate) const USES: Table<Shard> = Table::new("definition-use");
/// The text, by the number in the VM's record: a rename does not touch it.
pub(crate) const DEFINITIONS: Table<Shard> = Table::new("definition");
pub(crate) const TRASH: Table<Shard> = Table::new("trash");
pub(crate) const GROUPS: Table<Site> = Table::new("group");
/// How far the runs of schedules are.
pub(crate) const RUNS: Table<Site> = Table::new("run");
pub(crate) const POINTS: Table<Shard> = Table::new("point");
pub(crate) const SETTINGS: Table<Site> = Table::new("setting");
