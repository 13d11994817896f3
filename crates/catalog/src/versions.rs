//! All versions of all VMs: as they are now, at their snapshots, and in the trash. Who owns what, for accounts and findings.
//!
//! | name | what |
//! |---|---|
//! | `VM`, `VM@SNAPSHOT` | a VM as it is now, a snapshot; with `/DISK` one disk or file of it |
//! | `VM@*` | a VM with all its snapshots, those in the trash too |
//! | `VM:TASK` | in reports alone: what a running export of a VM reads |
//! | `#NUMBER` | something in the trash; a VM with all its snapshots. In reports these stand apart, as `#NUMBER@SNAPSHOT` |

use api::{Result, SNAPSHOTS_AT_ONCE, Version, VmName};
use meta::Stored;
use units::DiskId;

use crate::catalog::Catalog;
use crate::record::Record;
use crate::snapshots::{SnapshotRecord, all_of, damaged, name_of};
use crate::trash::What;

/// Names of disks with their numbers.
pub type Named = Vec<(String, DiskId)>;

impl Catalog {
    /// Every VM and snapshot, those in the trash too, with the names and numbers of its disks and files.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn versions(&self) -> Result<Vec<(String, Named)>> {
        let mut all = Vec::new();
        for (name, record) in self.records().await? {
            all.push((name.clone(), named(&record)));
            self.add_snapshots(&name, &record, &mut all).await?;
        }
        for (task, record) in self.running.with_forks() {
            let disks = record.forks.iter().map(|fork| (fork.disk.clone(), fork.id()));
            all.push((format!("{}:{task}", record.version()), disks.collect()));
        }
        for (id, record) in self.trash_records().await? {
            let name = format!("#{id}");
            match record.what {
                What::Vm(vm) => {
                    all.push((name.clone(), named(&vm)));
                    self.add_snapshots(&name, &vm, &mut all).await?;
                }
                What::Snapshot { record: snapshot, .. } => all.push((name, snapshot.named())),
            }
        }
        Ok(all)
    }

    /// Adds every snapshot of a VM, with the names and numbers of its disks.
    async fn add_snapshots(&self, vm: &str, record: &Record, all: &mut Vec<(String, Named)>) -> Result<()> {
        let Some(number) = record.number else { return Ok(()) };
        let mut range = all_of(number)?;
        loop {
            let page = self.engine.meta().range(range.clone(), SNAPSHOTS_AT_ONCE, None).await?;
            for kv in &page.kvs {
                let name = name_of(kv).ok_or_else(|| damaged(vm, "a snapshot without a name"))?;
                let record = SnapshotRecord::decode(&kv.value).map_err(|reason| damaged(vm, &reason))?;
                all.push((format!("{vm}@{}", record.called(&name)), record.named()));
            }
            let Some(last) = page.kvs.last().filter(|_| page.kvs.len() == SNAPSHOTS_AT_ONCE) else {
                return Ok(());
            };
            range = all_of(number)?.behind(&last.key);
        }
    }

    /// The disks of VMs, snapshots, what is in the trash, or single disks, by name.
    ///
    /// # Errors
    /// `vm_not_found`, `snapshot_not_found`, `disk_not_found`, `trash_not_found`.
    pub async fn disks_of(&self, names: &[String]) -> Result<Vec<DiskId>> {
        let mut ids = Vec::new();
        for name in names {
            if let Some(vm) = name.strip_suffix("@*") {
                let (_, record) = self.find_ready(&VmName::parse(vm)?).await?;
                self.add_all(vm, &record, &mut ids).await?;
            } else if let Some(id) = name.strip_prefix('#').and_then(|id| id.parse().ok()) {
                match self.find_trashed(id).await?.1.what {
                    What::Vm(vm) => self.add_all(name, &vm, &mut ids).await?,
                    What::Snapshot { record: snapshot, .. } => ids.extend(snapshot.ids()),
                }
            } else {
                match Version::parse_with_disk(name)? {
                    (version, Some(disk)) => ids.push(self.disk_of(&version, disk).await?),
                    (version, None) => ids.extend(self.all_disks_of(&version).await?),
                }
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Adds the disks of a VM and of all its snapshots.
    async fn add_all(&self, name: &str, record: &Record, ids: &mut Vec<DiskId>) -> Result<()> {
        let mut all = vec![(name.to_owned(), named(record))];
        self.add_snapshots(name, record, &mut all).await?;
        ids.extend(all.iter().flat_map(|(_, disks)| disks).map(|(_, id)| *id));
        // Its snapshots in the trash go with it.
        for (_, trashed) in self.trash_records().await? {
            if let What::Snapshot { vm, record: snapshot } = &trashed.what
                && record.number == Some(*vm)
            {
                ids.extend(snapshot.ids());
            }
        }
        Ok(())
    }
}

fn named(record: &Record) -> Named {
    record.disks.iter().map(|disk| (disk.export(), disk.id())).collect()
}
