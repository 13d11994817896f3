//! Imports and exports as tasks: a VM is there with the end of its import, or not at all.

use std::time::Duration;

use api::types::{ListVms, TaskKind, TaskState, VmState};
use api::{Error, HISTORY_MAX, RUNNING_MAX, Version, VmName};
use meta::Stored;
use nbd::Exports;

use super::{Bench, NOW};
use crate::Site;
use machine::Options;
use task::Record;

const MIB: u64 = 1 << 20;
const IMPORT: TaskKind = TaskKind::Import;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    let error = result.unwrap_err();
    assert!(!error.reason.is_empty() && !error.hint.is_empty(), "{error:?}");
    error.code.name
}

async fn begin(site: &Site, vm: &str) -> u64 {
    site.transfers().begin_import(&name(vm), &[MIB], "an image").await.unwrap().0.id
}

async fn is_gone(site: &Site, vm: &str) -> bool {
    site.catalog().vm(&name(vm)).await.is_err_and(|error| error.code == "vm_not_found")
}

#[test]
fn a_vm_is_there_when_its_import_is_done() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        let (task, vm) = site
            .transfers()
            .begin_import(&name("a"), &[MIB, 2 * MIB], "from\n\u{1b}[2J there")
            .await
            .unwrap();
        assert_eq!((task.kind, task.state, task.total_bytes), (IMPORT, TaskState::Running, 3 * MIB));
        assert_eq!(task.message, "from  [2J there", "nothing that a terminal obeys");
        assert_eq!((vm.state, vm.disks[1].export.as_str()), (VmState::Importing, "a/disk1"));
        assert!(
            site.catalog().vms(&ListVms::default()).await.unwrap().is_empty()
                && site.exports().list().await.is_empty()
        );
        assert_eq!(site.status().await.unwrap().vms, 0);
        assert_eq!(code(site.catalog().create_vm(&name("a"), &[MIB]).await), "vm_exists");
        assert_eq!(code(site.transfers().begin_import(&name("a"), &[MIB], "").await), "vm_exists");
        assert_eq!(code(site.catalog().delete_vm(&name("a"), NOW).await), "vm_importing");
        assert_eq!(code(site.catalog().rename_vm(&name("a"), &name("b")).await), "vm_importing");
        assert_eq!(
            code(site.transfers().begin_export(&Version::parse("a").unwrap(), None, "").await),
            "vm_importing"
        );
        let open = site.exports().open("a/disk0").await.unwrap();
        open.write(0, b"data".to_vec().into()).await.unwrap();
        assert_eq!(code(site.tasks().progress(task.id, TaskKind::Export, 0, 0).await), "task_not_found");
        let half = site.tasks().progress(task.id, IMPORT, MIB, 2 * MIB).await.unwrap();
        assert_eq!((half.done_bytes, half.total_bytes), (MIB, 2 * MIB));
        let done = site.transfers().finish(task.id, IMPORT).await.unwrap();
        assert_eq!((done.state, done.done_bytes), (TaskState::Done, 2 * MIB));
        assert!(done.ended_ms.unwrap() >= done.started_ms);
        assert_eq!(open.read(0, 4).await.unwrap(), b"data"[..], "its client stays");
        assert_eq!(site.catalog().vms(&ListVms::default()).await.unwrap()[0].name, "a");
        for ended in [site.transfers().finish(task.id, IMPORT).await, site.transfers().cancel(task.id).await]
        {
            assert_eq!(code(ended), "task_ended");
        }
        assert_eq!(site.tasks().progress(task.id, IMPORT, 1, 1).await.unwrap().state, TaskState::Done);
        assert_eq!(code(site.tasks().task(99).await), "task_not_found");
    });
    bench.stop(&site);
}

#[test]
fn an_import_that_does_not_end_well_leaves_no_vm() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        let first = begin(&site, "a").await;
        let open = site.exports().open("a/disk0").await.unwrap();
        open.write(0, vec![5; 65_536].into()).await.unwrap();
        let cancelled = site.transfers().cancel(first).await.unwrap();
        assert_eq!((cancelled.state, cancelled.error), (TaskState::Cancelled, None));
        assert!(is_gone(&site, "a").await, "though its client still has it open");
        assert!(open.write(0, b"x".to_vec().into()).await.is_err() && open.read(0, 1).await.is_err());
        assert_eq!(site.tasks().progress(first, IMPORT, 1, 2).await.unwrap().state, TaskState::Cancelled);
        // The name is free again, and the old handle does not reach the new disk.
        let second = begin(&site, "a").await;
        assert!(open.write(0, b"x".to_vec().into()).await.is_err());
        let failed = site.transfers().fail(second, IMPORT, "the image cannot be read").await.unwrap();
        assert_eq!(failed.error.as_deref(), Some("the image cannot be read"));
        assert!(is_gone(&site, "a").await);
        assert_eq!(site.status().await.unwrap().logical_bytes, 0);
        let states: Vec<_> =
            site.tasks().tasks().await.unwrap().into_iter().map(|t| (t.id, t.state)).collect();
        assert_eq!(states, [(second, TaskState::Failed), (first, TaskState::Cancelled)]);
    });
    bench.stop(&site);
}

#[test]
fn a_restart_ends_what_ran() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let (first, second) = bench.runtime.block_on(async {
        site.catalog().create_vm(&name("b"), &[MIB]).await.unwrap();
        let first = begin(&site, "a").await;
        let open = site.exports().open("a/disk0").await.unwrap();
        open.write(0, vec![5; 65_536].into()).await.unwrap();
        (
            first,
            site.transfers()
                .begin_export(&Version::parse("b").unwrap(), Some("disk0"), "to a file")
                .await
                .unwrap()
                .0,
        )
    });
    assert_eq!(second.target, "b/disk0");
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        // Before anything was cleared away, and behind it.
        for _ in 0..2 {
            assert!(site.exports().open("a/disk0").await.is_err());
            for id in [first, second.id] {
                let task = site.tasks().task(id).await.unwrap();
                assert_eq!(task.state, TaskState::Failed);
                assert!(task.error.unwrap().contains("stopped or killed"));
            }
            assert!(site.clear_tasks().await, "nothing is left");
        }
        assert!(is_gone(&site, "a").await);
        assert_eq!(site.status().await.unwrap().logical_bytes, 0);
        assert_eq!(site.catalog().vms(&ListVms::default()).await.unwrap().len(), 1);
        assert_eq!(begin(&site, "a").await, second.id + 1, "numbers go on");
    });
    bench.stop(&site);
}

#[test]
fn a_client_that_is_silent_is_gone() {
    let bench = Bench::new();
    let patience = Some(Duration::from_millis(1500));
    let site = bench.start(Options { task_patience: patience, ..bench.options("d", 3) }).unwrap().site;
    bench.runtime.block_on(async {
        let silent = begin(&site, "a").await;
        let heard = begin(&site, "b").await;
        let open = site.exports().open("a/disk0").await.unwrap();
        open.write(0, vec![5; 65_536].into()).await.unwrap();
        assert_ne!(site.status().await.unwrap().logical_bytes, 0);
        for step in 0..40 {
            bench.rt().sleep(Duration::from_millis(100)).await;
            site.tasks().progress(heard, IMPORT, step * 1000, MIB).await.unwrap();
            if site.tasks().task(silent).await.unwrap().state != TaskState::Running {
                break;
            }
        }
        let task = site.tasks().task(silent).await.unwrap();
        assert_eq!(task.state, TaskState::Failed);
        assert!(task.error.unwrap().contains("no sign of life"));
        assert!(is_gone(&site, "a").await);
        assert_eq!(site.status().await.unwrap().logical_bytes, 0, "its disk goes too, open or not");
        assert!(open.read(0, 1).await.is_err());
        let running = site.tasks().task(heard).await.unwrap();
        assert!(running.state == TaskState::Running && running.rate > 1000, "{running:?}");
        assert!(running.seconds_left.unwrap() > 10, "{running:?}");
        site.tasks().progress(heard, IMPORT, 40_000, MIB * MIB).await.unwrap();
        let running = site.tasks().task(heard).await.unwrap();
        assert!(running.rate > 0 && running.seconds_left.is_none(), "a guess: {running:?}");
        site.transfers().finish(heard, IMPORT).await.unwrap();
    });
    bench.stop(&site);
}

#[test]
fn tasks_are_bounded() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        let kept =
            site.transfers().begin_export(&Version::parse("a").unwrap(), None, "kept").await.unwrap().0.id;
        for _ in 0..HISTORY_MAX + 5 {
            let id =
                site.transfers().begin_export(&Version::parse("a").unwrap(), None, "").await.unwrap().0.id;
            site.transfers().finish(id, TaskKind::Export).await.unwrap();
        }
        let tasks = site.tasks().tasks().await.unwrap();
        assert_eq!(tasks.len(), HISTORY_MAX);
        assert!(tasks.windows(2).all(|pair| pair[0].id > pair[1].id));
        assert_eq!(tasks.last().unwrap().id, kept, "a running task is not forgotten");
        for _ in 1..RUNNING_MAX {
            site.transfers().begin_export(&Version::parse("a").unwrap(), None, "").await.unwrap();
        }
        assert_eq!(
            code(site.transfers().begin_export(&Version::parse("a").unwrap(), None, "").await),
            "too_many_tasks"
        );
    });
    bench.stop(&site);
}

#[test]
fn what_a_record_says_of_rate_and_time() {
    let mut record = Record::new(IMPORT, "a", 1000, 10_000, String::new());
    record.done_bytes = 4000;
    let running = record.task(1, 2000);
    assert_eq!((running.rate, running.seconds_left), (2000, Some(3)));
    assert_eq!(record.task(1, 0).seconds_left, None);
    record.end(TaskState::Done, 6000, None);
    let done = Record::decode(&record.encode().unwrap()).unwrap().ended_task(1, "");
    assert_eq!((done.rate, done.seconds_left, done.ended_ms), (2000, None, Some(6000)));
    assert!(Record::decode(br#"{"version":2}"#).is_err());
}
