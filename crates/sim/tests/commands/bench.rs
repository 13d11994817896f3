//! A site with a little of everything, and all of its metadata that does not differ from run to run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use api::types::{ListVms, Task, TaskKind, Vm};
use api::{FileName, Version, VmName};
use catalog::{Catalog, Transfers};
use engine::Engine;
use meta::{KeyRange, Store};
use seam::Rt;
use sim::{Control, Life, SimRuntime, Site, SiteSpec};
use task::Tasks;

use super::Stage;
use super::table::Need;
use crate::room;

const ROOM: u64 = 8 << 20;
const KEYS_MAX: usize = 1 << 16;
/// Of the engine alone, and of no number that two orders share.
const NOT_COMPARED: [&str; 3] = ["turnstile", "site-clock", "next-disk"];

pub(super) fn vm(text: &str) -> VmName {
    VmName::parse(text).expect("a name")
}

pub(super) fn file(text: &str) -> FileName {
    FileName::parse(text).expect("a name")
}

pub(super) fn version(text: &str) -> Version {
    Version::parse(text).expect("a version")
}

/// A site that runs: VM v with two disks, a file f, two snapshots and two definitions, its snapshot t in the
/// trash, and VM w; and what the commands need beside.
pub(super) struct Bench {
    rt: Arc<SimRuntime>,
    engine: Engine,
    pub(super) catalog: Catalog,
    tasks: Arc<Tasks>,
    pub(super) transfers: Transfers,
    /// Number of t in the trash.
    pub(super) thrown: u64,
    /// Tasks that run, for what was needed.
    needed: BTreeMap<Need, u64>,
    _life: Life,
    _site: Site,
}

impl Stage for Bench {
    type Need = Need;

    async fn set(control: &Control, needs: impl Iterator<Item = &'static Need>) -> Self {
        let site = Site::format(control, SiteSpec { media: 1, ..room::spec(ROOM) }).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let rt = life.runtime();
        let tasks = Arc::new(Tasks::new(rt.clone(), engine.clone(), None));
        let segment_bytes = site.spec().params.segment_bytes;
        let catalog = Catalog::new(rt.clone(), engine.clone(), tasks.running().clone(), segment_bytes);
        let transfers = Transfers::new(catalog.clone(), tasks.clone());
        let (thrown, needed) = (0, BTreeMap::new());
        let mut bench =
            Self { rt, engine, catalog, tasks, transfers, thrown, needed, _life: life, _site: site };
        bench.furnish(needs).await.expect("nobody is in the way");
        bench
    }

    fn rt(&self) -> Rt {
        self.rt.clone()
    }

    async fn state(self) -> String {
        self.engine.checkpoint().await.expect("there is room");
        self.told().await + &self.counts().await
    }
}

impl Bench {
    async fn furnish(&mut self, needs: impl Iterator<Item = &'static Need>) -> api::Result<()> {
        let v = vm("v");
        self.catalog.create_vm(&v, &[8192, 8192]).await?;
        self.catalog.create_vm(&vm("w"), &[4096]).await?;
        self.catalog.set_definition(&v, "one").await?;
        let (task, _) = self.transfers.begin_file(&v, &file("f"), "", false).await?;
        self.catalog.grow_file(&v, &file("f"), 5000).await?;
        self.transfers.finish(task.id, TaskKind::Import).await?;
        for name in ["s1", "s2", "t"] {
            self.catalog.snapshot(&v, Some(&vm(name))).await?;
        }
        self.catalog.set_definition(&v, "two").await?;
        let thrown = self.catalog.delete_snapshot(&v, &vm("t"), false).await?;
        self.thrown = thrown.expect("it goes to the trash").id;
        for need in needs {
            if !self.needed.contains_key(need) {
                let task = self.begin(*need).await?;
                self.needed.insert(*need, task.id);
            }
        }
        Ok(())
    }

    async fn begin(&self, need: Need) -> api::Result<Task> {
        Ok(match need {
            Need::Storing => self.transfers.begin_file(&vm("v"), &file("g"), "", false).await?.0,
            Need::Export => self.transfers.begin_export(&version("v"), None, "").await?.0,
            Need::Import => self.transfers.begin_import(&vm("i"), &[4096], "").await?.0,
        })
    }

    /// The task that runs for that.
    pub(super) fn task(&self, need: Need) -> u64 {
        self.needed[&need]
    }

    async fn told(&self) -> String {
        let mut told = String::new();
        for name in ["c", "i", "r", "v", "w"].map(vm) {
            let Ok(found) = self.catalog.vm(&name).await else { continue };
            told += &shown(found);
            let text =
                self.catalog.definition(&name).await.unwrap_or_else(|error| error.code.name.to_owned());
            let _ = writeln!(told, "definition of {name}: {text}");
        }
        let listed = self.catalog.vms(&ListVms::default()).await.expect("it lists");
        let names: Vec<String> = listed.into_iter().map(|listed| listed.name).collect();
        let _ = writeln!(told, "listed {names:?}");
        for mut snapshot in self.catalog.snapshots(None, None, usize::MAX).await.expect("it lists") {
            snapshot.created_ms = 0;
            let _ = writeln!(told, "{snapshot:?}");
        }
        for mut item in self.catalog.trash(0, usize::MAX).await.expect("it lists") {
            (item.id, item.deleted_ms, item.used_bytes) = (0, 0, 0);
            item.expires_ms = item.expires_ms.min(1);
            let _ = writeln!(told, "{item:?}");
        }
        for (_, record) in self.tasks.stored().await.expect("it lists") {
            let (forks, error) = (record.forks.len(), record.error.is_some());
            let (kind, state) = (record.kind.word(), record.state);
            let _ = writeln!(told, "{kind} of {}: {state:?}, {forks} forks, error {error}", record.target);
        }
        let mut holds: Vec<u64> =
            self.engine.holds().await.expect("it lists").iter().map(|hold| hold.until_ms).collect();
        holds.sort_unstable();
        let _ =
            writeln!(told, "held until {holds:?}, tasks run: {}", self.tasks.running().with_forks().len());
        let _ = writeln!(told, "kept {:?}", self.catalog.trash_keep().await.expect("it is read"));
        told
    }

    /// How many records there are in each table.
    async fn counts(&self) -> String {
        let store = self.engine.meta();
        let (kvs, _) = meta::list(&*store as &dyn Store, KeyRange::all(), KEYS_MAX).await.expect("it lists");
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for kv in kvs {
            let key = kv.key.to_string();
            let table = key.split(['/', '\\']).next().unwrap_or_default().to_owned();
            *counts.entry(table).or_default() += 1;
        }
        counts.retain(|table, _| !NOT_COMPARED.contains(&table.as_str()));
        format!("records {counts:?}\n")
    }
}

/// A VM without what differs from run to run.
fn shown(mut found: Vm) -> String {
    found.created_ms = 0;
    found.disks.iter_mut().chain(&mut found.files).for_each(|disk| disk.used_bytes = None);
    format!("{found:?}\n")
}
