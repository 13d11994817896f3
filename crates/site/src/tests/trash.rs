//! The trash and holds: what comes back, when things go, and what nobody can make go.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use api::types::{ListVms, TrashItem, TrashKind};
use api::{Version, VmName};
use nbd::Exports;
use seam::{BoxFuture, Rt, Runtime};

use super::{Bench, NOW};
use crate::{Site, Started};
use catalog::Deletion;

const MIB: u64 = 1 << 20;
const DAY_MS: u64 = 86_400_000;
const KEPT: Deletion = Deletion { now: false, with_snapshots: false };
const ALL: Deletion = Deletion { now: false, with_snapshots: true };

/// The real runtime, whose clocks jump when told: both, as if time went by, or the wall clock alone.
struct Jumping {
    rt: Rt,
    passed_ms: Arc<AtomicU64>,
    wall_ms: Arc<AtomicI64>,
}

impl Runtime for Jumping {
    fn now(&self) -> Duration {
        self.rt.now() + Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        let passed = self.rt.wall_ms() + self.passed_ms.load(Ordering::SeqCst);
        passed.saturating_add_signed(self.wall_ms.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.rt.sleep(duration)
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.rt.spawn(name, task);
    }

    fn spawn_blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        self.rt.spawn_blocking(name, work);
    }

    fn fill_random(&self, out: &mut [u8]) {
        self.rt.fill_random(out);
    }
}

#[derive(Default)]
pub(super) struct Clocks {
    passed_ms: Arc<AtomicU64>,
    wall_ms: Arc<AtomicI64>,
}

impl Clocks {
    pub(super) fn pass(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub(super) fn start(&self, bench: &Bench, is_new: bool) -> Site {
        let options = if is_new { bench.options("d", 3) } else { bench.later("d") };
        bench.wait_for_media(&options);
        let (passed_ms, wall_ms) = (self.passed_ms.clone(), self.wall_ms.clone());
        let rt: Rt = Arc::new(Jumping { rt: bench.rt(), passed_ms, wall_ms });
        let Started { site, .. } = bench.runtime.block_on(Site::start(rt, options)).unwrap();
        site
    }
}

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

fn code<T: std::fmt::Debug>(result: api::Result<T>) -> &'static str {
    let error = result.unwrap_err();
    assert!(!error.reason.is_empty() && !error.hint.is_empty(), "{error:?}");
    error.code.name
}

/// Every record: those of deleted disks go with the checkpoint behind.
async fn count(site: &Site, table: &'static str) -> usize {
    site.engine().checkpoint().await.unwrap();
    meta::list(&*site.engine().meta(), meta::Table::<meta::Shard>::new(table).all(), 1000)
        .await
        .unwrap()
        .0
        .len()
}

async fn write(site: &Site, export: &str, byte: u8) {
    site.exports().open(export).await.unwrap().write(4096, vec![byte; 8192].into()).await.unwrap();
}

async fn read(site: &Site, export: &str) -> u8 {
    let bytes = site.exports().open(export).await.unwrap().read(4096, 8192).await.unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

async fn trash(site: &Site) -> Vec<TrashItem> {
    site.catalog().trash(0, 1000).await.unwrap()
}

#[test]
fn a_vm_comes_back_with_all_it_had() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let vm = name("a");
    bench.runtime.block_on(async {
        site.catalog().create_vm(&vm, &[MIB, MIB]).await.unwrap();
        site.catalog().set_definition(&vm, "one").await.unwrap();
        write(&site, "a/disk0", 7).await;
        site.catalog().snapshot(&vm, None).await.unwrap();
        write(&site, "a/disk0", 8).await;
        write(&site, "a/disk1", 9).await;
        site.catalog().set_definition(&vm, "two").await.unwrap();
        let refused = site.catalog().delete_vm(&vm, KEPT).await.unwrap_err();
        assert_eq!(refused.code, "vm_has_snapshots");
        assert!(refused.hint.contains("--with-snapshots"), "{refused:?}");
        let open = site.exports().open("a@s1/disk1").await.unwrap();
        assert_eq!(code(site.catalog().delete_vm(&vm, ALL).await), "vm_in_use");
        drop(open);
        let item = site.catalog().delete_vm(&vm, ALL).await.unwrap().unwrap();
        assert_eq!((item.kind, item.name.as_str(), item.snapshots), (TrashKind::Vm, "a", 1));
        assert_eq!((item.bytes, item.used_bytes), (2 * MIB, 16384));
        assert_eq!(item.expires_ms - item.deleted_ms, DAY_MS);
        assert_eq!(trash(&site).await.first(), Some(&item));
        let status = site.status().await.unwrap();
        assert_eq!((status.vms, status.provisioned_bytes, status.trash.items), (0, 0, 1));
        for export in ["a/disk0", "a@s1/disk0"] {
            assert!(site.exports().open(export).await.is_err(), "{export}");
        }
        assert!(
            site.catalog().vms(&ListVms::default()).await.unwrap().is_empty()
                && site.exports().list().await.is_empty()
        );
        assert!(site.catalog().snapshots(None, None, 10).await.unwrap().is_empty());
        // Its name is free; then it is taken.
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        let taken = site.catalog().restore(item.id, None).await.unwrap_err();
        assert_eq!(taken.code, "vm_exists");
        assert!(taken.hint.contains("--as"), "{taken:?}");
        assert_eq!(site.catalog().restore(item.id, Some(&name("b"))).await.unwrap(), "b");
        assert_eq!(code(site.catalog().restore(item.id, None).await), "trash_not_found");
        assert!(trash(&site).await.is_empty());
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        assert_eq!(site.catalog().definition(&name("b")).await.unwrap(), "two");
        for (export, byte) in
            [("b/disk0", 8), ("b/disk1", 9), ("b@s1/disk0", 7), ("b@s1/disk1", 0), ("a/disk0", 0)]
        {
            assert_eq!(read(&site, export).await, byte, "{export}");
        }
        site.catalog().revert(&name("b"), &name("s1")).await.unwrap();
        assert_eq!(site.catalog().definition(&name("b")).await.unwrap(), "one");
        // For good: nothing is left of it.
        let gone = Deletion { now: true, with_snapshots: true };
        assert_eq!(site.catalog().delete_vm(&name("b"), gone).await.unwrap(), None);
        assert_eq!(site.catalog().delete_vm(&vm, NOW).await.unwrap(), None);
        for table in ["vm", "snapshot", "disk", "definition", "definition-use", "trash", "hold"] {
            assert_eq!(count(&site, table).await, 0, "{table}");
        }
    });
    bench.stop(&site);
}

#[test]
fn snapshots_come_back_to_their_vm() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let (vm, s1) = (name("a"), name("s1"));
    bench.runtime.block_on(async {
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        site.catalog().set_definition(&vm, "one").await.unwrap();
        write(&site, "a/disk0", 7).await;
        site.catalog().snapshot(&vm, None).await.unwrap();
        site.catalog().set_definition(&vm, "two").await.unwrap();
        let first = site.catalog().delete_snapshot(&vm, &s1, false).await.unwrap().unwrap();
        assert_eq!((first.kind, first.name.as_str(), first.bytes), (TrashKind::Snapshot, "a@s1", MIB));
        assert_eq!(code(site.catalog().show_snapshot(&vm, &s1).await), "snapshot_not_found");
        site.catalog().rename_vm(&vm, &name("b")).await.unwrap();
        site.catalog().snapshot(&name("b"), Some(&s1)).await.unwrap();
        assert_eq!(code(site.catalog().restore(first.id, None).await), "snapshot_exists");
        assert_eq!(site.catalog().restore(first.id, Some(&name("old"))).await.unwrap(), "b@old");
        assert_eq!(read(&site, "b@old/disk0").await, 7);
        assert_eq!(
            site.catalog().clone_vm(&Version::parse("b@old").unwrap(), &name("c")).await.unwrap().name,
            "c"
        );
        assert_eq!(site.catalog().definition(&name("c")).await.unwrap(), "one");
        // Its VM goes too: first that comes back, then the snapshot.
        let snapshot =
            site.catalog().delete_snapshot(&name("b"), &name("old"), false).await.unwrap().unwrap();
        let vm = site.catalog().delete_vm(&name("b"), ALL).await.unwrap().unwrap();
        assert_eq!(code(site.catalog().restore(snapshot.id, None).await), "vm_in_trash");
        site.catalog().restore(vm.id, None).await.unwrap();
        assert_eq!(site.catalog().restore(snapshot.id, None).await.unwrap(), "b@old");
        assert_eq!(read(&site, "b@old/disk0").await, 7);
        // Once the VM is gone for good nobody could restore it.
        site.catalog().delete_snapshot(&name("b"), &name("old"), false).await.unwrap();
        let vm = site.catalog().delete_vm(&name("b"), ALL).await.unwrap().unwrap();
        site.catalog().empty_trash(vm.id).await.unwrap();
        assert!(trash(&site).await.is_empty());
        assert_eq!(code(site.catalog().empty_trash(vm.id).await), "trash_not_found");
        assert_eq!(read(&site, "c/disk0").await, 7);
        site.catalog().delete_vm(&name("c"), NOW).await.unwrap();
        for table in ["vm", "snapshot", "disk", "definition", "definition-use", "trash"] {
            assert_eq!(count(&site, table).await, 0, "{table}");
        }
    });
    bench.stop(&site);
}

#[test]
fn the_trash_expires_by_itself_and_keeps_as_long_as_it_is_told() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    bench.runtime.block_on(async {
        for vm in ["a", "b", "c", "d"] {
            site.catalog().create_vm(&name(vm), &[MIB]).await.unwrap();
            site.catalog().snapshot(&name(vm), None).await.unwrap();
        }
        site.catalog().delete_vm(&name("a"), ALL).await.unwrap();
        assert_eq!(
            code(site.catalog().set_trash_keep(Duration::from_secs(367 * 86_400)).await),
            "invalid_time"
        );
        site.catalog().set_trash_keep(Duration::from_secs(3600)).await.unwrap();
        site.catalog().delete_vm(&name("b"), ALL).await.unwrap();
        clocks.pass(3_599_000);
        assert_eq!(site.catalog().expire_trash().await.unwrap(), 0);
        clocks.pass(1_000);
        // The keeper may have been faster.
        site.catalog().expire_trash().await.unwrap();
        assert_eq!(trash(&site).await.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["a"]);
        clocks.pass(DAY_MS);
        site.catalog().expire_trash().await.unwrap();
        assert!(trash(&site).await.is_empty());
        assert_eq!((count(&site, "disk").await, count(&site, "snapshot").await), (4, 2));
        site.catalog().set_trash_keep(Duration::ZERO).await.unwrap();
        assert_eq!(site.catalog().delete_snapshot(&name("c"), &name("s1"), false).await.unwrap(), None);
        assert_eq!(site.catalog().delete_vm(&name("c"), KEPT).await.unwrap(), None);
        assert_eq!(site.catalog().delete_vm(&name("d"), ALL).await.unwrap(), None);
        assert_eq!((count(&site, "disk").await, count(&site, "trash").await), (0, 0));
    });
    bench.stop(&site);
}

#[test]
fn emptying_goes_on_where_a_restart_cut_it_off() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let (items, kept) = bench.runtime.block_on(async {
        let mut items = Vec::new();
        for vm in ["a", "b", "c", "d", "kept"] {
            site.catalog().create_vm(&name(vm), &[MIB]).await.unwrap();
            site.catalog().snapshot(&name(vm), None).await.unwrap();
            items.push(site.catalog().delete_vm(&name(vm), ALL).await.unwrap().unwrap().id);
        }
        let kept = items.pop().unwrap();
        // The keeper has looked at the trash and takes its pause: what goes now goes by the requests alone.
        site.catalog().condemn_trash(&[&items[..], &[1 << 40]].concat()).await.unwrap();
        for id in &items {
            let refused = site.catalog().restore(*id, None).await;
            assert!(
                ["trash_emptying", "trash_not_found"].contains(&code(refused)),
                "what is decided stays decided"
            );
        }
        let _ = site.catalog().empty_trash(items[0]).await;
        (items, kept)
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        for id in &items {
            let refused = site.catalog().restore(*id, None).await;
            assert!(["trash_emptying", "trash_not_found"].contains(&code(refused)));
        }
        site.catalog().expire_trash().await.unwrap();
        assert_eq!(trash(&site).await.iter().map(|item| item.id).collect::<Vec<_>>(), [kept]);
        assert_eq!((count(&site, "disk").await, count(&site, "snapshot").await), (2, 1));
        assert_eq!(site.catalog().restore(kept, None).await.unwrap(), "kept");
    });
    bench.stop(&site);
}

#[test]
fn a_clock_that_was_wrong_once_ends_nothing_and_is_forgotten() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let ahead = 1_200 * DAY_MS;
    let (vm, s1) = (name("held"), name("s1"));
    let kept = async |site: &Site| {
        site.catalog().expire_trash().await.unwrap();
        assert_eq!(trash(site).await.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(code(site.catalog().delete_snapshot(&vm, &s1, true).await), "snapshot_held");
        let locks = site.engine().pool().locks().await;
        assert!(!locks.is_empty(), "the media keep it");
        // Until all is indexed no scrub is due, and what was noted by a clock that was ahead stays.
        while site.engine().is_indexing() {
            site.runtime().sleep(Duration::from_millis(5)).await;
        }
        site.shared.scrub_upkeep().await.unwrap();
        let next = site.scrubbing().await.unwrap().next_ms.unwrap();
        let now = site.engine().site_time_ms();
        assert!((now + 6 * DAY_MS..=now + 7 * DAY_MS).contains(&next), "{next} at {now}");
        now
    };
    let site = clocks.start(&bench, true);
    let first = bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        site.catalog().delete_vm(&name("a"), KEPT).await.unwrap();
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        write(&site, "held/disk0", 7).await;
        site.catalog().snapshot(&vm, None).await.unwrap();
        site.catalog().hold_snapshot(&vm, &s1, "2d").await.unwrap();
        while site.engine().enforce_holds().await.unwrap() > 0 {}
        kept(&site).await
    });
    bench.stop(&site);
    drop(site);
    // One start with a clock that is years ahead, and what runs by schedules.
    clocks.wall_ms.store(ahead as i64, Ordering::SeqCst);
    let site = clocks.start(&bench, false);
    let second = bench.runtime.block_on(async {
        let status = site.status().await.unwrap();
        assert_eq!(status.health, api::types::Health::Degraded);
        assert!(status.reasons.iter().any(|reason| reason.contains("the host's clock says")), "{status:?}");
        assert!(status.next.iter().any(|next| next.contains("clock accept")), "{status:?}");
        kept(&site).await
    });
    let hour = DAY_MS / 24;
    assert!((first - hour..first + hour).contains(&second), "{first}, then {second}");
    bench.stop(&site);
    drop(site);
    // Back in order: as if nothing had been.
    clocks.wall_ms.store(0, Ordering::SeqCst);
    let site = clocks.start(&bench, false);
    bench.runtime.block_on(async {
        let status = site.status().await.unwrap();
        assert!(status.reasons.is_empty(), "{status:?}");
        assert!(!status.notices.iter().any(|notice| notice.contains("clock")), "{status:?}");
        kept(&site).await;
    });
    bench.stop(&site);
    drop(site);
    // It rested for long, and somebody says so: then what is over by the host's clock is over.
    clocks.pass(3 * DAY_MS);
    let site = clocks.start(&bench, false);
    bench.runtime.block_on(async {
        kept(&site).await;
        let clock = site.believe_host_clock().await.unwrap();
        assert!(clock.site_ms >= clock.host_ms - 60_000, "{clock:?}");
        site.catalog().expire_trash().await.unwrap();
        assert!(trash(&site).await.is_empty());
        assert!(site.engine().pool().locks().await.is_empty(), "the media heard of it");
        site.catalog().delete_snapshot(&vm, &s1, true).await.unwrap();
        assert!(site.status().await.unwrap().reasons.is_empty());
    });
    bench.stop(&site);
}

#[test]
fn earlier_keys_stay_as_long_as_a_hold_and_go_with_it() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    let (vm, s1) = (name("a"), name("s1"));
    let rotated = async |site: &Site| {
        let task = site.rotate_key().await.unwrap();
        let task = super::upkeep::done(site, task).await;
        assert_eq!(task.counts["keys_retired"], 0, "{task:?}");
        assert!(task.counts["containers_held"] > 0 && task.message.contains("earlier keys stay"), "{task:?}");
    };
    let until = bench.runtime.block_on(async {
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        write(&site, "a/disk0", 7).await;
        site.catalog().snapshot(&vm, None).await.unwrap();
        let until = site.catalog().hold_snapshot(&vm, &s1, "2h").await.unwrap().held_until_ms;
        while site.engine().enforce_holds().await.unwrap() > 0 {}
        write(&site, "a/disk0", 8).await;
        rotated(&site).await;
        rotated(&site).await;
        let state = site.keys().await;
        assert_eq!((state.current_epoch, state.oldest_epoch, state.held_until_ms), (3, 1, Some(until)));
        let notices = site.status().await.unwrap().notices;
        assert!(notices.iter().any(|notice| notice.contains("earlier data keys")), "{notices:?}");
        until
    });
    bench.stop(&site);
    drop(site);
    let site = clocks.start(&bench, false);
    bench.runtime.block_on(async {
        while site.keys().await.held_until_ms != Some(until) {
            site.runtime().sleep(Duration::from_millis(10)).await;
        }
        let rekeys = site.tasks().tasks().await.unwrap();
        assert_eq!(
            rekeys.iter().filter(|task| task.kind == api::types::TaskKind::Rekey).count(),
            2,
            "it waits"
        );
        let hold = site.engine().holds().await.unwrap()[0];
        assert!(site.engine().lacking_locks(hold.disk).await.unwrap().is_empty(), "not one was freed");
        assert_eq!((read(&site, "a@s1/disk0").await, read(&site, "a/disk0").await), (7, 8));
        clocks.pass(2 * DAY_MS / 24);
        while site.keys().await.oldest_epoch != 3 {
            site.runtime().sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(site.keys().await.held_until_ms, None);
        site.engine().drop_caches();
        assert_eq!((read(&site, "a@s1/disk0").await, read(&site, "a/disk0").await), (7, 8));
        let verified = super::upkeep::done(&site, site.begin_verify().await.unwrap()).await;
        assert_eq!(verified.counts["lost_units"], 0, "{verified:?}");
    });
    bench.stop(&site);
}

#[test]
fn nothing_ends_a_hold_before_its_time() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    let (vm, s1) = (name("a"), name("s1"));
    bench.runtime.block_on(async {
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        write(&site, "a/disk0", 7).await;
        site.catalog().snapshot(&vm, None).await.unwrap();
        site.catalog().snapshot(&vm, None).await.unwrap();
        let held = site.catalog().hold_snapshot(&vm, &s1, "30d").await.unwrap();
        let until = held.held_until_ms;
        assert_eq!(until / 1000, (site.engine().site_time_ms() + 30 * DAY_MS) / 1000);
        assert_eq!(code(site.catalog().hold_snapshot(&vm, &s1, "29d").await), "hold_shorter");
        assert_eq!(code(site.catalog().hold_snapshot(&vm, &s1, "yesterday").await), "invalid_time");
        assert_eq!(site.catalog().show_snapshot(&vm, &s1).await.unwrap().held_until_ms, until);
        let refused = site.catalog().delete_snapshot(&vm, &s1, true).await.unwrap_err();
        assert_eq!(refused.code, "snapshot_held");
        assert!(refused.reason.contains(&api::format_time(until)), "{refused:?}");
        for how in [ALL, Deletion { now: true, with_snapshots: true }] {
            assert_eq!(code(site.catalog().delete_vm(&vm, how).await), "snapshot_held");
        }
        assert_eq!(code(site.catalog().delete_snapshot(&vm, &s1, false).await), "snapshot_held");
        // The one beside it is free, and a revert takes nothing away.
        site.catalog().delete_snapshot(&vm, &name("s2"), true).await.unwrap();
        site.catalog().revert(&vm, &s1).await.unwrap();
        site.catalog().rename_vm(&vm, &name("b")).await.unwrap();
        site.catalog().rename_snapshot(&name("b"), &s1, &name("kept")).await.unwrap();
        assert_eq!(
            code(site.catalog().delete_snapshot(&name("b"), &name("kept"), true).await),
            "snapshot_held"
        );
        // The engine itself refuses, whoever asks.
        let (disks, _) = meta::list(&*site.engine().meta(), meta::Table::<meta::Shard>::new("hold").all(), 9)
            .await
            .unwrap();
        let disk = meta::Table::<meta::Shard>::new("hold").segments(&disks[0].key).unwrap().number().unwrap();
        let removed = site.engine().apply(meta::Txn::new(), &[], &[units::DiskId(disk)]).await;
        assert_eq!(removed.unwrap_err().kind, engine::EngineErrorKind::Held);
        // Whoever sets the wall clock while the site runs moves nothing.
        clocks.wall_ms.store(40 * DAY_MS as i64, Ordering::SeqCst);
        assert_eq!(
            code(site.catalog().delete_snapshot(&name("b"), &name("kept"), true).await),
            "snapshot_held"
        );
        clocks.wall_ms.store(0, Ordering::SeqCst);
        clocks.pass(29 * DAY_MS);
        site.engine().keep_time().await.unwrap();
    });
    bench.stop(&site);
    drop(site);
    // Nor does a clock that was set back make it longer than it was kept.
    clocks.wall_ms.store(-20 * (DAY_MS as i64), Ordering::SeqCst);
    let site = clocks.start(&bench, false);
    bench.runtime.block_on(async {
        let (vm, kept) = (name("b"), name("kept"));
        assert_eq!(read(&site, "b@kept/disk0").await, 7);
        assert_eq!(code(site.catalog().delete_snapshot(&vm, &kept, true).await), "snapshot_held");
        let longer = site.catalog().hold_snapshot(&vm, &kept, "2d").await.unwrap().held_until_ms;
        clocks.pass(DAY_MS + 60_000);
        assert_eq!(code(site.catalog().delete_snapshot(&vm, &kept, true).await), "snapshot_held");
        assert!(site.engine().site_time_ms() < longer);
        clocks.pass(DAY_MS);
        site.catalog().delete_snapshot(&vm, &kept, true).await.unwrap();
        assert_eq!(count(&site, "hold").await, 0);
        site.catalog().delete_vm(&vm, ALL).await.unwrap();
    });
    bench.stop(&site);
}
