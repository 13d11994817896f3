//! Scrub and verify find what is wrong, mend it or name whose data it is; space is told; cleaning frees.

use std::path::Path;
use std::time::Duration;

use api::types::{Health, Keys, Task, TaskKind, TaskState};
use api::{Version, VmName};
use engine::Progress;
use nbd::Exports;

use super::{Bench, edit};
use crate::Site;
use catalog::Deletion;

const MIB: u64 = 1 << 20;
/// Blocks written: more than the write buffer of the smallest sizes holds.
const BLOCKS: u64 = 400;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

/// Writes blocks that differ from each other and cannot be compressed.
pub(super) async fn fill(site: &Site, disk: usize, vm: &str, seed: u64) {
    let found = site.shared.catalog.versions().await.unwrap();
    let (_, disks) = found.into_iter().find(|(found, _)| found == vm).unwrap();
    for block in 0..BLOCKS {
        let mut state = (seed << 32) + 2 * block + 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let data: Vec<u8> = (0..4096).map(|_| next()).collect();
        site.engine().write(disks[disk].1, block * 4096, &data).await.unwrap();
    }
}

/// Looks at work once, before anything of it can be done; then lets it end.
async fn known_at_first<T>(work: impl Future<Output = T>, progress: &Progress) -> u64 {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let _ = work.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
    let (_, total) = progress.now();
    work.await;
    total
}

/// What there is to do is said from the first moment on, however long the first step takes.
#[test]
fn what_there_is_to_do_is_known_from_the_start() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4 * MIB]).await.unwrap();
        fill(&site, 0, "a", 1).await;
        site.engine().drain().await.unwrap();
        let (engine, cursor) = (site.engine(), engine::ScrubCursor::default());
        let (verify, clean, scrub) = (Progress::default(), Progress::default(), Progress::default());
        let totals = [
            known_at_first(engine.verify(&verify), &verify).await,
            known_at_first(engine.clean(20, &clean), &clean).await,
            known_at_first(engine.scrub(&cursor, &scrub), &scrub).await,
        ];
        assert!(totals.iter().all(|total| *total >= BLOCKS * 4096), "{totals:?}");
    });
    bench.stop(&site);
}

/// Waits until a task has ended.
pub(super) async fn ended(site: &Site, task: Task) -> Task {
    for _ in 0..6000 {
        let task = site.tasks().task(task.id).await.unwrap();
        if task.state != TaskState::Running {
            return task;
        }
        site.runtime().sleep(Duration::from_millis(10)).await;
    }
    panic!("task {} does not end", task.id);
}

pub(super) async fn done(site: &Site, task: Task) -> Task {
    let task = ended(site, task).await;
    assert_eq!((task.state, &task.error), (TaskState::Done, &None), "{task:?}");
    assert_eq!(task.done_bytes, task.total_bytes);
    task
}

/// Flips a bit in the fourth page of every fragment of a medium: behind header and directory, where blocks are.
fn rot(medium: &Path) -> usize {
    let mut found = 0;
    edit(medium, |bytes| {
        for at in (0..bytes.len() - 5 * 4096).step_by(4096) {
            if &bytes[at..at + 4] == b"HFFR" {
                bytes[at + 4 * 4096 + 17] ^= 1;
                found += 1;
            }
        }
    });
    found
}

#[test]
fn damage_is_repaired_or_named() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 6)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4 * MIB, 4 * MIB]).await.unwrap();
        site.catalog().create_vm(&name("b"), &[4 * MIB]).await.unwrap();
        fill(&site, 0, "a", 1).await;
        site.catalog().snapshot(&name("a"), None).await.unwrap();
        let task = done(&site, site.begin_verify().await.unwrap()).await;
        assert!(task.counts["units"] >= BLOCKS && task.counts["lost_units"] == 0, "{task:?}");
        assert!(task.findings.is_empty());
    });
    bench.stop(&site);
    drop(site);
    let medium = |number: usize| bench.path("d").join("media").join(format!("{number:02}.img"));
    assert!(rot(&medium(0)) > 0);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        let task = done(&site, site.begin_scrub().await.unwrap()).await;
        assert!(task.counts["repaired"] > 0 && task.counts["damaged"] == 0, "{task:?}");
        let again = done(&site, site.begin_scrub().await.unwrap()).await;
        assert_eq!(again.counts["repaired"], 0, "{again:?}");
        let state = site.scrubbing().await.unwrap();
        assert_eq!((state.damaged, state.task), (0, Some(again.id)));
        assert!(state.done_ms >= state.begun_ms && state.next_ms > state.done_ms);
        assert_eq!(site.status().await.unwrap().health, Health::Ok);
    });
    bench.stop(&site);
    drop(site);
    // One more than parity allows.
    (1..4).for_each(|number| assert!(rot(&medium(number)) > 0));
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        let scrubbed = done(&site, site.begin_scrub().await.unwrap()).await;
        assert!(scrubbed.counts["damaged"] > 0 && scrubbed.counts["affected"] == 2, "{scrubbed:?}");
        let verified = done(&site, site.begin_verify().await.unwrap()).await;
        // Not whole containers: what is lost is told block by block.
        let lost = verified.counts["lost_units"];
        assert!(lost > 0 && lost < BLOCKS / 2, "{verified:?}");
        for task in [scrubbed, verified] {
            let names =
                |what: &str| task.findings.iter().any(|found| found == &format!("{what} has lost data"));
            assert!(names("a/disk0") && names("a@s1/disk0"), "{:?}", task.findings);
            assert!(!names("a/disk1") && !names("b/disk0"), "{:?}", task.findings);
        }
        let status = site.status().await.unwrap();
        assert_eq!((status.health, status.can_lose_now), (Health::Degraded, 0), "{status:?}");
    });
    let affected = |site: &Site| {
        let mut status = bench.runtime.block_on(site.status()).unwrap();
        for _ in 0..1000 {
            let found = status.unreadable.as_ref();
            if found.is_some_and(|found| found.affected_count.is_some() && found.damaged_containers > 0) {
                break;
            }
            bench.runtime.block_on(bench.rt().sleep(std::time::Duration::from_millis(10)));
            status = bench.runtime.block_on(site.status()).unwrap();
        }
        status.unreadable.unwrap().affected
    };
    assert_eq!(affected(&site), ["a/disk0", "a@s1/disk0"]);
    // Noted by the upkeep, which comes round by itself.
    bench.runtime.block_on(async {
        for _ in 0..1000 {
            if !site.shared.scrub_state().await.unwrap().known.is_empty() {
                return;
            }
            bench.rt().sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the damage is not kept");
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    assert_eq!(affected(&site), ["a/disk0", "a@s1/disk0"]);
    bench.stop(&site);
}

/// Every checkpoint makes small containers, and a snapshot of each keeps what is in them.
#[test]
fn small_containers_become_few() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4 * MIB]).await.unwrap();
        let disk = site.shared.catalog.versions().await.unwrap()[0].1[0].1;
        for round in 0..40_u64 {
            // More than the write buffer holds, so that the maps change with each.
            for block in 0..64 {
                let data: Vec<u8> =
                    (0..4096_u64).map(|at| (((round * 64 + block + 1) * (at + 7)) >> 3) as u8).collect();
                site.engine().write(disk, block * 4096, &data).await.unwrap();
            }
            site.engine().write(disk, (64 + round) * 4096, &[round as u8 + 1; 4096]).await.unwrap();
            site.catalog().snapshot(&name("a"), None).await.unwrap();
            site.engine().checkpoint().await.unwrap();
        }
        let clean = async || site.engine().clean(100, &Progress::default()).await.unwrap();
        let first = clean().await;
        assert!(first.containers > 40 && first.moved > 15, "{first:?}");
        let mut last = first;
        for _ in 0..4 {
            last = clean().await;
        }
        // What is left are full ones, and few.
        assert!(last.containers < first.containers / 2, "{last:?} of {first:?}");
        assert!(last.moved <= 1, "it comes to an end: {last:?}");
        done(&site, site.begin_verify().await.unwrap()).await;
        for round in 0..40 {
            let snapshot = site.exports().open(&format!("a@s{}/disk0", round + 1)).await.unwrap();
            let read = snapshot.read((64 + round) * 4096, 8192).await.unwrap();
            assert!(read[..4096] == [round as u8 + 1; 4096] && read[4096..] == [0; 4096], "{round}");
        }
    });
    bench.stop(&site);
}

/// Nothing that is stored belongs to nobody: what all of them together would free is all that is reached.
#[test]
fn accounts_are_of_everything() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        for vm in ["a", "b", "c"] {
            site.catalog().create_vm(&name(vm), &[4 * MIB]).await.unwrap();
            fill(&site, 0, vm, u64::from(vm.as_bytes()[0])).await;
            site.catalog().snapshot(&name(vm), None).await.unwrap();
            fill(&site, 0, vm, u64::from(vm.as_bytes()[0]) + 10).await;
        }
        let with_snapshots = Deletion { now: false, with_snapshots: true };
        let b = site.catalog().delete_vm(&name("b"), with_snapshots).await.unwrap().unwrap().id;
        let c = site.catalog().delete_snapshot(&name("c"), &name("s1"), false).await.unwrap().unwrap().id;
        done(&site, site.begin_space(&[]).await.unwrap()).await;
        let table = site.space(None, None, 10).unwrap();
        let names: Vec<String> = table.items.iter().map(|row| row.name.clone()).collect();
        assert_eq!(names, [format!("#{b}"), format!("#{b}@s1"), format!("#{c}"), "a".into(), "a@s1".into(), "c".into()]);
        let frees = async |of: &[String]| {
            done(&site, site.begin_space(of).await.unwrap()).await.counts["unique_bytes"]
        };
        let all = frees(&[format!("#{b}"), format!("#{c}"), "a@*".into(), "c@*".into()]).await;
        assert_eq!(all, table.live_bytes);
        // The parts are of nothing that others have, so that their sum is the whole.
        let (trash, a, c_now) =
            (frees(&[format!("#{b}"), format!("#{c}")]).await, frees(&["a@*".into()]).await, frees(&["c".into()]).await);
        assert_eq!(trash + a + c_now, all);
        assert!(a > frees(&["a".into()]).await);
        assert_eq!(site.begin_space(&["#99".to_owned()]).await.unwrap_err().code, "trash_not_found");
        assert_eq!(site.begin_space(&["x@*".to_owned()]).await.unwrap_err().code, "vm_not_found");
        assert_eq!(site.begin_space(&["#x".to_owned()]).await.unwrap_err().code, "invalid_name");
    });
    bench.stop(&site);
}

#[test]
fn space_is_told_before_and_freed_after() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4 * MIB]).await.unwrap();
        fill(&site, 0, "a", 1).await;
        site.catalog().snapshot(&name("a"), None).await.unwrap();
        fill(&site, 0, "a", 2).await;
        site.catalog().clone_vm(&Version::parse("a").unwrap(), &name("b")).await.unwrap();
        let error = site.space(None, None, 10).unwrap_err();
        assert_eq!(error.code, "no_space_report");
        done(&site, site.begin_space(&[]).await.unwrap()).await;
        let table = site.space(None, None, 10).unwrap();
        let names: Vec<&str> = table.items.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["a", "a@s1", "b"]);
        let data = BLOCKS * 4096;
        assert!(table.items.iter().all(|row| row.logical_bytes == data), "{table:?}");
        // The VM and its clone share all; the snapshot alone has what was overwritten.
        assert!(table.items[1].unique_bytes >= data && table.items[1].shared_bytes == 0, "{table:?}");
        assert!(table.items[0].unique_bytes == 0 && table.items[0].shared_bytes >= data, "{table:?}");
        assert_eq!(site.space(Some(&name("b")), None, 10).unwrap().items.len(), 1);
        let behind = site.space(None, Some("a@s1"), 10).unwrap();
        assert_eq!(behind.items[0].name, "b");
        let both = site.begin_space(&["a".to_owned(), "b".to_owned()]).await.unwrap();
        let both = done(&site, both).await;
        assert_eq!(both.counts["unique_bytes"] + table.items[1].unique_bytes, table.live_bytes);
        let before = site.status().await.unwrap().stored_bytes;
        site.catalog().delete_snapshot(&name("a"), &name("s1"), true).await.unwrap();
        let cleaned = done(&site, site.begin_clean(0).await.unwrap()).await;
        assert_eq!(cleaned.kind, TaskKind::Clean);
        let freed = before - site.status().await.unwrap().stored_bytes;
        assert!(freed >= data && cleaned.counts["freed_bytes"] >= data, "{freed}, {cleaned:?}");
        let gone = site.begin_space(&["a@s1".to_owned()]).await.unwrap_err();
        assert_eq!(gone.code, "snapshot_not_found");
    });
    bench.stop(&site);
}

/// What a cleaning leaves as garbage is known until something is deleted.
#[test]
fn what_the_cleaner_leaves_is_told() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        let garbage = async || site.engine().status().await.garbage_bytes;
        site.catalog().create_vm(&name("a"), &[4 * MIB]).await.unwrap();
        site.catalog().create_vm(&name("b"), &[4 * MIB]).await.unwrap();
        fill(&site, 0, "a", 1).await;
        assert_eq!(garbage().await, None, "nobody has looked");
        let disk = site.exports().open("a/disk0").await.unwrap();
        for block in (0..BLOCKS).step_by(2) {
            let zeros_but_one = [vec![1], vec![block as u8; 4095]].concat();
            disk.write(block * 4096, zeros_but_one.into()).await.unwrap();
        }
        drop(disk);
        done(&site, site.begin_clean(90).await.unwrap()).await;
        let half = BLOCKS / 2 * 4096;
        let left = garbage().await.unwrap();
        // What recovery may need is not looked at.
        assert!(left > half / 4 && left < half * 3 / 2, "{left} of {half}");
        done(&site, site.begin_clean(10).await.unwrap()).await;
        let after = garbage().await.unwrap();
        assert!(after < left / 2, "{after} of {left}");
        site.catalog().delete_vm(&name("b"), super::NOW).await.unwrap();
        assert_eq!(garbage().await, None, "what was of the VM is garbage now");
    });
    bench.stop(&site);
}

#[test]
fn a_kind_of_work_runs_once_and_can_be_cancelled() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4 * MIB]).await.unwrap();
        fill(&site, 0, "a", 1).await;
        // The cleaner's own lock keeps the second from its end.
        let (first, _) = site.shared.tasks.begin_work(TaskKind::Clean, "site", "held").await.unwrap();
        let error = site.begin_clean(20).await.unwrap_err();
        assert_eq!(error.code, "task_running");
        assert_eq!(site.transfers().cancel(first.id).await.unwrap().state, TaskState::Cancelled);
        let next = done(&site, site.begin_clean(20).await.unwrap()).await;
        assert!(next.id > first.id);
        assert_eq!(site.set_scrub_every(60).await.unwrap_err().code, "invalid_request");
        assert_eq!(site.set_scrub_every(3600).await.unwrap().every_s, Some(3600));
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    assert_eq!(bench.runtime.block_on(site.scrubbing()).unwrap().every_s, Some(3600));
    bench.stop(&site);
}

#[test]
fn a_scrub_goes_on_where_a_restart_cut_it_off() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let all = bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4 * MIB]).await.unwrap();
        fill(&site, 0, "a", 1).await;
        let whole = done(&site, site.begin_scrub().await.unwrap()).await;
        site.shared.interrupt_scrub().await;
        whole.counts["containers"]
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        let scrubs = async || {
            let tasks = site.tasks().tasks().await.unwrap();
            tasks.into_iter().filter(|task| task.kind == TaskKind::Scrub).collect::<Vec<_>>()
        };
        while scrubs().await.len() < 2 {
            site.runtime().sleep(Duration::from_millis(10)).await;
        }
        let second = done(&site, scrubs().await.remove(0)).await;
        assert!(second.message.contains("from where it was interrupted"), "{second:?}");
        assert!((1..all).contains(&second.counts["containers"]), "{second:?}, not all {all}");
        assert!(site.scrubbing().await.unwrap().done_ms.is_some());
    });
    bench.stop(&site);
}

#[test]
fn a_rotated_key_seals_everything_anew_over_restarts() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let state = |site: &Site| bench.runtime.block_on(site.keys());
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4 * MIB]).await.unwrap();
        fill(&site, 0, "a", 1).await;
        site.catalog().snapshot(&name("a"), None).await.unwrap();
    });
    assert_eq!(state(&site), Keys { current_epoch: 1, oldest_epoch: 1, held_until_ms: None });
    let read = |site: &Site| {
        bench.runtime.block_on(async {
            let found = site.shared.catalog.versions().await.unwrap();
            let mut all = Vec::new();
            for (_, disks) in found {
                let open = site.engine().open_disk(disks[0].1).await.unwrap();
                all.push(site.engine().read(open.id(), 0, (BLOCKS * 4096) as usize).await.unwrap());
            }
            all
        })
    };
    let before = read(&site);
    let task = bench.runtime.block_on(async { done(&site, site.rotate_key().await.unwrap()).await });
    assert_eq!((task.kind, task.counts["keys_retired"]), (TaskKind::Rekey, 1));
    assert_eq!(state(&site), Keys { current_epoch: 2, oldest_epoch: 2, held_until_ms: None });
    assert!(read(&site) == before, "under the new key");
    // Interrupted as soon as the key is there.
    bench.runtime.block_on(site.shared.add_key()).unwrap();
    bench.runtime.block_on(fill(&site, 0, "a", 2));
    let before = read(&site);
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        for _ in 0..6000 {
            if site.keys().await.oldest_epoch == 3 {
                break;
            }
            site.runtime().sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(state(&site), Keys { current_epoch: 3, oldest_epoch: 3, held_until_ms: None });
    assert!(read(&site) == before, "gone on with");
    // Whatever is sealed under an earlier key cannot be opened any more.
    let verified = bench.runtime.block_on(async { done(&site, site.begin_verify().await.unwrap()).await });
    assert_eq!(verified.counts["lost_units"], 0, "{verified:?}");
    bench.stop(&site);
    drop(site);
    let away = bench.path("d").join("media").join("02.img");
    std::fs::rename(&away, bench.path("away")).unwrap();
    let site = bench.start(bench.later("d")).unwrap().site;
    let refused = bench.runtime.block_on(site.rotate_key()).unwrap_err();
    assert_eq!(refused.code, "media_down");
    assert!(read(&site) == before, "with a medium away");
    bench.stop(&site);
}
