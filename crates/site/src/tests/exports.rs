//! Exports: what they read is of one instant, and nothing of it is left.

use std::time::Duration;

use api::types::{TaskKind, TaskState, Vm};
use api::{Version, VmName};
use nbd::Exports;

use super::{Bench, NOW};
use crate::Site;
use machine::Options;

const MIB: u64 = 1 << 20;
const EXPORT: TaskKind = TaskKind::Export;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

async fn write(site: &Site, export: &str, byte: u8) {
    site.exports().open(export).await.unwrap().write(0, vec![byte; 8192].into()).await.unwrap();
}

async fn first(site: &Site, export: &str) -> u8 {
    site.exports().open(export).await.unwrap().read(0, 1).await.unwrap()[0]
}

/// Records of disks that the engine has.
async fn records(site: &Site) -> usize {
    meta::list(&*site.engine().meta(), meta::Table::<meta::Shard>::new("disk").all(), 1000)
        .await
        .unwrap()
        .0
        .len()
}

/// Whether the engine has records of so many disks beside the bystander's, once checkpoints have settled what began as others
/// and what was deleted. Without a change there is no checkpoint.
async fn has_disks(site: &Site, count: usize) -> bool {
    for round in 0..300 {
        write(site, "bystander/disk0", round as u8).await;
        site.engine().checkpoint().await.unwrap();
        if records(site).await == count + 1 {
            return true;
        }
        site.runtime().sleep(Duration::from_millis(10)).await;
    }
    false
}

/// Begins an export of both disks of a VM that has ones in them; another VM stands by.
async fn begin(site: &Site) -> (u64, Vm) {
    if site.catalog().vm(&name("a")).await.is_err() {
        site.catalog().create_vm(&name("bystander"), &[MIB]).await.unwrap();
        site.catalog().create_vm(&name("a"), &[MIB, 2 * MIB]).await.unwrap();
    }
    write(site, "a/disk0", 1).await;
    write(site, "a/disk1", 1).await;
    let (task, vm) = site.transfers().begin_export(&version("a"), None, "somewhere").await.unwrap();
    assert_eq!((task.state, task.total_bytes, task.target.as_str()), (TaskState::Running, 3 * MIB, "a"));
    (task.id, vm)
}

#[test]
fn what_is_exported_stays_as_it_was() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        let (task, vm) = begin(&site).await;
        let shown: Vec<_> = vm.disks.iter().map(|disk| (disk.export.as_str(), disk.bytes)).collect();
        let (zero, one) = (format!("a/disk0:{task}"), format!("a/disk1:{task}"));
        assert_eq!(shown, [(zero.as_str(), MIB), (one.as_str(), 2 * MIB)]);
        assert_eq!((records(&site).await, site.exports().list().await.len()), (5, 3), "no list has them");
        write(&site, "a/disk0", 2).await;
        write(&site, "a/disk1", 2).await;
        let open = site.exports().open(&zero).await.unwrap();
        assert!(open.read_only() && open.size() == MIB);
        assert!(open.write(0, b"x".to_vec().into()).await.is_err());
        // Whatever becomes of the VM, and over checkpoints.
        site.catalog().resize_disk(&name("a"), "disk1", 4096, true).await.unwrap();
        site.catalog().rename_vm(&name("a"), &name("b")).await.unwrap();
        site.catalog().delete_vm(&name("b"), NOW).await.unwrap();
        assert_eq!((first(&site, &zero).await, first(&site, &one).await), (1, 1));
        for other in [format!("b/disk0:{task}"), format!("a/disk0:{}", task + 1), format!("a/disk2:{task}")] {
            assert!(site.exports().open(&other).await.is_err(), "{other}");
        }
        let done = site.transfers().finish(task, EXPORT).await.unwrap();
        assert_eq!((done.state, done.done_bytes), (TaskState::Done, 3 * MIB));
        assert!(open.read(0, 1).await.is_err() && site.exports().open(&zero).await.is_err());
        assert!(has_disks(&site, 0).await, "nothing is left");
        assert_eq!(site.tasks().task(task).await.unwrap().state, TaskState::Done);
    });
    bench.stop(&site);
}

#[test]
fn an_export_that_does_not_end_well_leaves_nothing() {
    let bench = Bench::new();
    let patience = Some(Duration::from_millis(300));
    let site = bench.start(Options { task_patience: patience, ..bench.options("d", 3) }).unwrap().site;
    bench.runtime.block_on(async {
        let (task, vm) = begin(&site).await;
        let open = site.exports().open(&vm.disks[1].export).await.unwrap();
        site.transfers().cancel(task).await.unwrap();
        assert!(open.read(0, 1).await.is_err());
        assert!(has_disks(&site, 2).await);
        let (task, _) = begin(&site).await;
        site.transfers().fail(task, EXPORT, "no room there").await.unwrap();
        assert!(has_disks(&site, 2).await);
        let (task, _) = begin(&site).await;
        for _ in 0..300 {
            if site.tasks().task(task).await.unwrap().state != TaskState::Running {
                break;
            }
            bench.rt().sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(site.tasks().task(task).await.unwrap().state, TaskState::Failed, "its client is silent");
        assert!(has_disks(&site, 2).await);
        assert_eq!((first(&site, "a/disk0").await, first(&site, "a/disk1").await), (1, 1));
    });
    bench.stop(&site);
}

#[test]
fn a_restart_leaves_nothing_of_an_export() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let (task, export) = bench.runtime.block_on(async {
        let (task, vm) = begin(&site).await;
        site.catalog().delete_vm(&name("a"), NOW).await.unwrap();
        assert!(has_disks(&site, 2).await);
        (task, vm.disks[0].export.clone())
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        assert!(site.exports().open(&export).await.is_err());
        assert!(site.clear_tasks().await, "nothing is in use");
        assert!(has_disks(&site, 0).await);
        assert_eq!(site.tasks().task(task).await.unwrap().state, TaskState::Failed);
    });
    bench.stop(&site);
}

#[test]
fn what_never_changes_is_exported_as_it_is() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        write(&site, "a/disk0", 1).await;
        site.catalog().snapshot(&name("a"), None).await.unwrap();
        let before = records(&site).await;
        let (task, vm) = site.transfers().begin_export(&version("a@s1"), None, "").await.unwrap();
        assert_eq!((vm.disks[0].export.as_str(), records(&site).await), ("a@s1/disk0", before));
        site.transfers().finish(task.id, EXPORT).await.unwrap();
        assert_eq!((first(&site, "a@s1/disk0").await, records(&site).await), (1, before));
    });
    bench.stop(&site);
}
