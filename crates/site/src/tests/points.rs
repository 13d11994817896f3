//! Goal: a point is whole or absent, a locked one outlives everything, restores give what was, and each VM's number is
//! what its points say.

use api::types::{GroupSpec, HowToSet, Keep, NewRestore, ProtectionState, Rules, Schedule};
use api::{Version, code};
use catalog::{Deletion, PointState};
use nbd::Exports;

use super::Bench;
use super::protection::{HOUR_MS, group, like, name, points, to_the_middle_of_an_hour};
use super::trash::Clocks;
use crate::Site;

const MIB: u64 = 1 << 20;

fn last(count: u32) -> Keep {
    Keep { last: count, ..Keep::default() }
}

fn refused<T: std::fmt::Debug>(result: api::Result<T>, code: &'static api::Code) {
    let error = result.unwrap_err();
    assert!(error.code == code && !error.reason.is_empty() && !error.hint.is_empty(), "{error:?}");
}

async fn write(site: &Site, vm: &str, byte: u8) {
    let disk = site.exports().open(&format!("{vm}/disk0")).await.unwrap();
    disk.write(0, vec![byte; 4096].into()).await.unwrap();
}

async fn read(site: &Site, export: &str) -> u8 {
    site.exports().open(export).await.unwrap().read(0, 4096).await.unwrap()[0]
}

#[test]
fn a_point_of_many_vms_is_whole_or_absent() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        // More than one transaction takes.
        let vms: Vec<String> = (0..90).map(|number| format!("web{number:03}")).collect();
        for vm in &vms {
            site.catalog().create_vm(&name(vm), &[MIB]).await.unwrap();
        }
        write(&site, "web000", 1).await;
        write(&site, "web089", 1).await;
        site.create_group(&group("web", like("web*"), "100d", last(9), None)).await.unwrap();
        let point = site.run_group("web", None).await.unwrap();
        assert!(point.is_good && point.members.len() == vms.len());
        write(&site, "web000", 2).await;
        for vm in ["web000", "web089"] {
            assert_eq!(read(&site, &format!("{vm}@{}/disk0", point.name)).await, 1);
        }
        // The last part finds a snapshot of the point's name: nothing is left of those before it.
        let taken = crate::protection::name_of("web", 86_400_000 * 100_000);
        site.catalog().snapshot(&name("web089"), Some(&name(&taken))).await.unwrap();
        let stored = site.catalog().group("web").await.unwrap();
        let new = catalog::NewPoint {
            group: stored.number,
            schedule: "main",
            name: &taken,
            members: &vms,
            consistency: policy::Consistency::Crash,
            notes: std::collections::BTreeMap::new(),
            due_ms: 0,
            lock_ms: 0,
            run: None,
        };
        let made = site.catalog().make_point(&new).await.unwrap().unwrap();
        assert_eq!(made.record.name, format!("{taken}-2"));
        let of_name = |wanted: String| {
            let site = site.clone();
            async move {
                let mut after = None;
                let mut found = Vec::new();
                loop {
                    let page = site.catalog().snapshots(None, after.as_ref(), 1000).await.unwrap();
                    let last = page.last().map(|last| format!("{}@{}", last.vm, last.name));
                    found.extend(page.into_iter().filter(|one| one.name == wanted).map(|one| one.vm));
                    match last {
                        Some(last) => after = Some(Version::parse(&last).unwrap()),
                        None => return found,
                    }
                }
            }
        };
        assert_eq!(of_name(taken.clone()).await, ["web089"]);
        assert_eq!(of_name(made.record.name.clone()).await.len(), vms.len());
        // It goes in parts too.
        assert!(site.catalog().delete_point(made.id).await.unwrap());
        assert!(!site.catalog().delete_point(made.id).await.unwrap());
        assert_eq!(of_name(made.record.name).await, Vec::<String>::new());
    });
    bench.stop(&site);
}

#[test]
fn what_a_crash_left_of_a_point_goes_with_the_next_start() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let id = bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        site.create_group(&group("all", like("*"), "100d", last(9), None)).await.unwrap();
        let point = site.run_group("all", None).await.unwrap();
        // As the first part of a point in parts leaves it.
        let store = site.engine().meta();
        let key = meta::Table::<meta::Shard>::new("point").key().number(point.id).end().unwrap();
        let kv = store.get(&key).await.unwrap().kv.unwrap();
        let text = String::from_utf8(kv.value.to_vec()).unwrap().replace("\"whole\"", "\"making\"");
        let put = meta::Txn::new().then(meta::Op::put(key, text.into_bytes()));
        assert!(site.engine().apply(put, &[], &[]).await.unwrap());
        assert_eq!(site.catalog().point(point.id).await.unwrap().record.state, PointState::Making);
        refused(site.point(point.id).await, code::POINT_NOT_FOUND);
        point.id
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        site.protect().await;
        refused(site.catalog().point(id).await.map(|_| ()), code::POINT_NOT_FOUND);
        assert!(site.catalog().snapshots(None, None, 10).await.unwrap().is_empty());
    });
    bench.stop(&site);
}

#[test]
fn a_locked_point_outlives_everything() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    let (id, snapshot) = bench.runtime.block_on(async {
        to_the_middle_of_an_hour(&site, &clocks);
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        write(&site, "a", 7).await;
        site.create_group(&group("all", like("a"), "1h", last(1), Some("10h"))).await.unwrap();
        let point = site.run_group("all", None).await.unwrap();
        let later_ms = site.engine().site_time_ms() + 9 * HOUR_MS;
        assert!(point.locked_until_ms > later_ms);
        (point.id, point.name)
    });
    bench.stop(&site);
    drop(site);
    let site = clocks.start(&bench, false);
    bench.runtime.block_on(async {
        let (a, of_point) = (name("a"), name(&snapshot));
        let all = Deletion { now: true, with_snapshots: true };
        refused(site.delete_point(id).await, code::SNAPSHOT_HELD);
        refused(site.catalog().delete_point(id).await, code::SNAPSHOT_HELD);
        refused(site.catalog().delete_snapshot(&a, &of_point, true).await, code::SNAPSHOT_OF_POINT);
        refused(site.catalog().rename_snapshot(&a, &of_point, &name("b")).await, code::SNAPSHOT_OF_POINT);
        refused(site.catalog().hold_snapshot(&a, &of_point, "20h").await, code::SNAPSHOT_OF_POINT);
        refused(site.catalog().delete_vm(&a, all).await, code::SNAPSHOT_HELD);
        refused(site.hold_point(id, "1h").await, code::HOLD_SHORTER);
        // The engine itself refuses, whoever asks.
        let disk = site.catalog().disks_of(&[format!("a@{snapshot}")]).await.unwrap();
        assert!(site.engine().apply(meta::Txn::new(), &[], &disk).await.is_err());
        assert_eq!(site.delete_group("all").await.unwrap(), "all");
        site.create_group(&group("all", like("a"), "1h", last(1), None)).await.unwrap();
        for _ in 0..3 {
            clocks.pass(2 * HOUR_MS);
            site.protect().await;
            assert_eq!(read(&site, &format!("a@{snapshot}/disk0")).await, 7);
        }
        // When the lock is over it goes as all do.
        clocks.pass(6 * HOUR_MS);
        assert_eq!(site.delete_point(id).await.unwrap(), snapshot);
    });
    bench.stop(&site);
}

#[test]
fn what_retention_lets_go_of_is_said_before() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    bench.runtime.block_on(async {
        to_the_middle_of_an_hour(&site, &clocks);
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        let spec = group("all", like("a"), "1h", last(4), None);
        site.create_group(&spec).await.unwrap();
        site.protect().await;
        for _ in 0..6 {
            clocks.pass(HOUR_MS);
            site.protect().await;
        }
        assert_eq!(points(&site).await.len(), 4);
        let less = group("all", like("a"), "1h", last(1), None);
        let dry = HowToSet { dry_run: true, revision: None };
        let would = site.set_group("all", &less, dry).await.unwrap();
        assert_eq!((would.points_to_go, would.dry_run), (3, true));
        assert_eq!(would.differences.len(), 2, "{would:?}");
        site.protect().await;
        assert_eq!(points(&site).await.len(), 4);
        let old = HowToSet { dry_run: false, revision: Some(would.group.revision + 1) };
        refused(site.set_group("all", &less, old).await, code::GROUP_CHANGED);
        let done = HowToSet { dry_run: false, revision: Some(would.group.revision) };
        assert_eq!(site.set_group("all", &less, done).await.unwrap().points_to_go, 3);
        site.protect().await;
        assert_eq!(points(&site).await.len(), 1);
        // A schedule that is gone keeps what it made.
        let none = GroupSpec { schedules: Vec::new(), ..less };
        site.set_group("all", &none, HowToSet::default()).await.unwrap();
        clocks.pass(100 * HOUR_MS);
        site.protect().await;
        assert_eq!(points(&site).await.len(), 1);
        assert_eq!(site.group("all").await.unwrap().points_without_schedule, 1);
    });
    bench.stop(&site);
}

#[test]
fn restores_give_what_was() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    bench.runtime.block_on(async {
        to_the_middle_of_an_hour(&site, &clocks);
        for vm in ["a", "b"] {
            site.catalog().create_vm(&name(vm), &[MIB]).await.unwrap();
            write(&site, vm, 1).await;
        }
        site.create_group(&group("all", like("?"), "1h", last(9), None)).await.unwrap();
        site.protect().await;
        for byte in 2..5 {
            clocks.pass(HOUR_MS);
            site.protect().await;
            write(&site, "a", byte).await;
            write(&site, "b", byte).await;
        }
        let of_a = |new: &str| NewRestore {
            vm: Some("a".to_owned()),
            new_name: Some(new.to_owned()),
            ..NewRestore::default()
        };
        // The points hold 1, 2 and 3.
        let newest = site.restore_points(&of_a("r1")).await.unwrap();
        assert_eq!(newest.vms[0].restored_as.as_deref(), Some("r1"));
        assert_eq!(read(&site, "r1/disk0").await, 3);
        let at = NewRestore { at: Some("30 minutes ago".to_owned()), ..of_a("r2") };
        site.restore_points(&at).await.unwrap();
        assert_eq!(read(&site, "r2/disk0").await, 2);
        let oldest = points(&site).await.last().unwrap().id;
        site.restore_points(&NewRestore { point: Some(oldest), ..of_a("r3") }).await.unwrap();
        assert_eq!(read(&site, "r3/disk0").await, 1);
        refused(site.restore_points(&of_a("r3")).await, code::VM_EXISTS);
        let early = NewRestore { at: Some("9 days ago".to_owned()), ..of_a("r4") };
        refused(site.restore_points(&early).await, code::POINT_NOT_FOUND);
        let both = NewRestore { point: Some(oldest), at: Some("1h ago".to_owned()), ..of_a("r4") };
        refused(site.restore_points(&both).await, code::INVALID_REQUEST);
        refused(site.restore_points(&NewRestore::default()).await, code::INVALID_REQUEST);
        // A disk alone, beside those there are.
        let disk = NewRestore { new_name: None, disk: Some("disk0".to_owned()), ..of_a("") };
        let added = site.restore_points(&disk).await.unwrap();
        assert_eq!(added.vms[0].restored_as.as_deref(), Some("a/disk1"));
        assert_eq!((read(&site, "a/disk1").await, read(&site, "a/disk0").await), (3, 4));
        // In its place; what it was is kept.
        let back = NewRestore { new_name: None, in_place: true, point: Some(oldest), ..of_a("") };
        let back = site.restore_points(&back).await.unwrap();
        assert_eq!(read(&site, "a/disk0").await, 1);
        let kept = back.vms[0].kept_as.clone().unwrap();
        assert_eq!(read(&site, &format!("{kept}/disk0")).await, 4);
        // All of a group, and a list of what failed.
        site.catalog().create_vm(&name("b-r"), &[MIB]).await.unwrap();
        let whole = NewRestore {
            group: Some("all".to_owned()),
            suffix: Some("-r".to_owned()),
            ..NewRestore::default()
        };
        let whole = site.restore_points(&whole).await.unwrap();
        let of: Vec<_> = whole.vms.iter().map(|vm| (vm.vm.as_str(), vm.failed.is_some())).collect();
        assert_eq!(of, [("a", false), ("b", true)]);
        assert_eq!(read(&site, "a-r/disk0").await, 3);
    });
    bench.stop(&site);
}

#[test]
fn a_deleted_vm_is_kept_as_long_as_a_point_has_it() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    bench.runtime.block_on(async {
        to_the_middle_of_an_hour(&site, &clocks);
        for vm in ["a", "b"] {
            site.catalog().create_vm(&name(vm), &[MIB]).await.unwrap();
        }
        write(&site, "a", 9).await;
        let keep = Keep { young: Some("100h".to_owned()), ..Keep::default() };
        site.create_group(&group("all", like("?"), "1h", keep, None)).await.unwrap();
        site.protect().await;
        clocks.pass(HOUR_MS);
        site.protect().await;
        site.catalog().delete_vm(&name("a"), Deletion::default()).await.unwrap().unwrap();
        // Past its time in the trash.
        for _ in 0..3 {
            clocks.pass(20 * HOUR_MS);
            site.protect().await;
            assert_eq!(site.catalog().expire_trash().await.unwrap(), 0);
        }
        let item = site.catalog().trash(0, 10).await.unwrap().remove(0);
        site.catalog().restore(item.id, None).await.unwrap();
        assert_eq!(read(&site, "a/disk0").await, 9);
        site.catalog().delete_vm(&name("a"), Deletion::default()).await.unwrap().unwrap();
        // The points go, and it with them.
        for _ in 0..6 {
            clocks.pass(30 * HOUR_MS);
            site.protect().await;
        }
        assert_eq!(site.catalog().expire_trash().await.unwrap(), 1);
    });
    bench.stop(&site);
}

#[test]
fn each_vm_has_one_number() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    let state = |vm: &'static str| {
        let site = site.clone();
        async move { site.vm(&name(vm)).await.unwrap().protection.unwrap() }
    };
    bench.runtime.block_on(async {
        to_the_middle_of_an_hour(&site, &clocks);
        for vm in ["a", "b", "c"] {
            site.catalog().create_vm(&name(vm), &[MIB]).await.unwrap();
        }
        site.create_group(&group("a", like("a"), "1h", last(9), None)).await.unwrap();
        let excludes = GroupSpec { exclude: like("c"), ..group("rest", like("*"), "2h", last(9), None) };
        site.create_group(&excludes).await.unwrap();
        site.protect().await;
        assert_eq!(state("a").await.state, ProtectionState::Never);
        let totals = site.status().await.unwrap().protection;
        // Nothing is due yet, so nobody is behind.
        assert_eq!((totals.protected, totals.of, totals.excluded, totals.worst), (0, 2, 1, None));
        let c = state("c").await;
        assert_eq!(c.state, ProtectionState::Excluded);
        assert!(c.why.contains("excluded by group rest"), "{c:?}");
        clocks.pass(2 * HOUR_MS);
        site.protect().await;
        let (a, b) = (state("a").await, state("b").await);
        assert_eq!(
            (a.state, a.target_ms, a.group.as_deref()),
            (ProtectionState::Ok, Some(HOUR_MS), Some("a"))
        );
        assert_eq!(
            (b.state, b.target_ms, b.group.as_deref()),
            (ProtectionState::Ok, Some(2 * HOUR_MS), Some("rest"))
        );
        // Nobody makes points: both grow old, each by its target.
        let round = site.shared.protection.stop_rounds().await;
        for (hours, of_a, of_b) in [
            (2, ProtectionState::Late, ProtectionState::Ok),
            (1, ProtectionState::Severe, ProtectionState::Late),
            (3, ProtectionState::Critical, ProtectionState::Severe),
        ] {
            clocks.pass(hours * HOUR_MS);
            assert_eq!((state("a").await.state, state("b").await.state), (of_a, of_b), "{hours}");
        }
        let status = site.status().await.unwrap();
        assert_eq!(status.protection.worst.as_deref(), Some("a"));
        assert!(status.reasons.iter().any(|reason| reason.contains("the worst is a")), "{status:?}");
        drop(round);
        site.protect().await;
        assert_eq!(state("a").await.state, ProtectionState::Ok);
        let shown = site.group("a").await.unwrap();
        assert_eq!(shown.schedules[0].missed, 6);
        // Its newest point is deleted: the one before counts.
        clocks.pass(HOUR_MS);
        site.protect().await;
        let newest = points(&site).await.into_iter().find(|point| point.group == "a").unwrap();
        site.delete_point(newest.id).await.unwrap();
        let age_ms = state("a").await.age_ms.unwrap();
        assert!((HOUR_MS..HOUR_MS + 60_000).contains(&age_ms), "{age_ms}");
    });
    bench.stop(&site);
}

#[test]
fn the_built_in_group_takes_the_rest() {
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let site = clocks.start(&bench, true);
    bench.runtime.block_on(async {
        to_the_middle_of_an_hour(&site, &clocks);
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        site.protect().await;
        assert_eq!(site.groups().await.unwrap().len(), 1);
        assert!(site.vm(&name("a")).await.unwrap().protection.unwrap().why.contains("built-in"));
        refused(site.delete_group("default").await, code::GROUP_BUILT_IN);
        let spec = site.group("default").await.unwrap().spec;
        let other = GroupSpec { name: "other".to_owned(), ..spec.clone() };
        refused(site.set_group("default", &other, HowToSet::default()).await, code::GROUP_BUILT_IN);
        let rules = GroupSpec { include: like("a"), ..spec.clone() };
        refused(site.set_group("default", &rules, HowToSet::default()).await, code::INVALID_REQUEST);
        let hourly = Schedule {
            name: "hourly".to_owned(),
            every: Some("1h".to_owned()),
            keep: last(24),
            ..Schedule::default()
        };
        let with = GroupSpec { schedules: vec![hourly], ..spec };
        site.set_group("default", &with, HowToSet::default()).await.unwrap();
        site.protect().await;
        clocks.pass(HOUR_MS);
        site.protect().await;
        assert_eq!(points(&site).await.len(), 1);
        let out = GroupSpec { exclude: Rules { vms: vec!["a".to_owned()], ..Rules::default() }, ..with };
        site.set_group("default", &out, HowToSet::default()).await.unwrap();
        clocks.pass(HOUR_MS);
        site.protect().await;
        assert_eq!(points(&site).await.len(), 1, "no VM is in it, so there is no point");
        refused(site.run_group("default", None).await, code::INVALID_REQUEST);
        refused(site.run_group("default", Some("none")).await, code::SCHEDULE_NOT_FOUND);
        refused(site.group("none").await, code::GROUP_NOT_FOUND);
    });
    bench.stop(&site);
}
