//! Goal: media join and leave a running site, a restart in the middle goes on, and what is refused changes nothing.

use std::time::Duration;

use api::VmName;
use api::types::{Health, MediumState, TaskKind, TaskState};
use units::{DiskId, MediumId};

use super::Bench;
use super::upkeep::{done, ended, fill};
use crate::Site;

const MIB: u64 = 1 << 20;

/// A VM with data, and what its disk reads as.
pub(super) async fn filled(site: &Site) -> Vec<u8> {
    site.catalog().create_vm(&VmName::parse("web01").unwrap(), &[2 * MIB]).await.unwrap();
    fill(site, 0, "web01", 7).await;
    site.engine().drain().await.unwrap();
    contents(site).await
}

pub(super) async fn contents(site: &Site) -> Vec<u8> {
    let found = site.shared.catalog.versions().await.unwrap();
    let disk: DiskId = found[0].1[0].1;
    site.engine().drop_caches();
    site.engine().read(disk, 0, 2 * MIB as usize).await.unwrap()
}

pub(super) fn ids(site: &Site) -> Vec<MediumId> {
    site.shared.parts.home.manifest().ids()
}

/// Waits until the site has no medium that is to leave.
async fn settled(site: &Site) {
    for _ in 0..600 {
        let status = site.status().await.unwrap();
        if status.media.iter().all(|medium| !medium.leaving && medium.moving.is_none()) {
            return;
        }
        site.runtime().sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", site.status().await.unwrap());
}

#[test]
fn a_medium_joins_another_leaves_and_all_is_there() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 4)).unwrap().site;
    let extra = bench.blank("extra.img");
    bench.runtime.block_on(async {
        let data = filled(&site).await;
        let before = ids(&site);
        let new = site.add_medium(&extra, None).await.unwrap();
        assert_eq!(ids(&site), [&before[..], &[new]].concat());
        assert_eq!(site.add_medium(&extra, None).await.unwrap_err().code, "medium_in_use");
        let task = site.drain_medium(before[1]).await.unwrap();
        let task = done(&site, task).await;
        assert_eq!(task.kind, TaskKind::Drain);
        assert!(task.counts["moved_bytes"] > 0, "{task:?}");
        let after = ids(&site);
        assert!(!after.contains(&before[1]) && after.len() == 4);
        let status = site.status().await.unwrap();
        assert_eq!((status.health, status.can_lose_now), (Health::Ok, 2), "{status:?}");
        assert_eq!(contents(&site).await, data);
        assert!(!bench.path("s/media/01.img").exists(), "a file that the site made goes with its medium");
        // Five are left with this one; it leaves again, and may come again.
        site.add_medium(&bench.path("more.img"), Some(16 * MIB)).await.unwrap();
        let task = site.drain_medium(new).await.unwrap();
        done(&site, task).await;
        let again = site.add_medium(&extra, None).await.unwrap();
        assert_ne!(again, new);
        assert_eq!(contents(&site).await, data);
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("s")).unwrap().site;
    bench.runtime.block_on(async {
        let status = site.status().await.unwrap();
        assert_eq!((status.media.len(), status.health), (5, Health::Ok), "{status:?}");
        assert!(contents(&site).await.iter().any(|byte| *byte != 0));
    });
    bench.stop(&site);
}

/// The five media that are there have rows of five; four others must take it over, and what is held with its locks.
#[test]
fn a_medium_with_held_data_leaves_and_the_copies_are_held() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 5)).unwrap().site;
    bench.runtime.block_on(async {
        let data = filled(&site).await;
        let (vm, s1) = (VmName::parse("web01").unwrap(), VmName::parse("s1").unwrap());
        site.catalog().snapshot(&vm, Some(&s1)).await.unwrap();
        site.catalog().hold_snapshot(&vm, &s1, "30d").await.unwrap();
        let engine = site.engine();
        while engine.enforce_holds().await.unwrap() > 0 {}
        let hold = engine.holds().await.unwrap()[0];
        assert!(hold.enforced_ms == hold.until_ms);
        let before = engine.pool().locks().await;
        assert!(!before.is_empty() && engine.lacking_locks(hold.disk).await.unwrap().is_empty());
        let first = ids(&site)[0];
        let task = site.drain_medium(first).await.unwrap();
        done(&site, task).await;
        assert!(!ids(&site).contains(&first), "it has left");
        assert_eq!(engine.lacking_locks(hold.disk).await.unwrap(), []);
        let after = engine.pool().locks().await;
        assert!(after.keys().any(|container| !before.contains_key(container)), "nothing moved");
        assert!(
            before.keys().all(|container| after.contains_key(container)),
            "a medium gave up what it had locked"
        );
        engine.drop_caches();
        let _open = engine.open_disk(hold.disk).await.unwrap();
        assert_eq!(engine.read(hold.disk, 0, 2 * MIB as usize).await.unwrap(), data);
        assert_eq!(site.status().await.unwrap().can_lose_now, 2);
    });
    bench.stop(&site);
}

#[test]
fn a_drain_goes_on_behind_a_restart_and_a_cancelled_one_does_not() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 5)).unwrap().site;
    let (data, first) = bench.runtime.block_on(async {
        let data = filled(&site).await;
        let first = ids(&site)[0];
        let task = site.drain_medium(first).await.unwrap();
        site.transfers().cancel(task.id).await.unwrap();
        assert_eq!(ended(&site, task).await.state, TaskState::Cancelled);
        settled(&site).await;
        assert!(ids(&site).contains(&first), "it stays");
        site.drain_medium(first).await.unwrap();
        (data, first)
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("s")).unwrap().site;
    bench.runtime.block_on(async {
        settled(&site).await;
        assert!(!ids(&site).contains(&first), "it has left");
        assert_eq!(contents(&site).await, data);
    });
    bench.stop(&site);
}

#[test]
fn a_lost_medium_is_replaced() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 6)).unwrap().site;
    let data = bench.runtime.block_on(filled(&site));
    bench.stop(&site);
    drop(site);
    bench.wait_for_media(&bench.later("s"));
    std::fs::remove_file(bench.path("s/media/02.img")).unwrap();
    let site = bench.start(bench.later("s")).unwrap().site;
    bench.runtime.block_on(async {
        let status = site.status().await.unwrap();
        let lost = status.media[2].clone();
        assert_eq!((lost.state, status.can_lose_now), (MediumState::Down, 1), "{status:?}");
        let task = site
            .replace_medium(site.medium_id(&lost.id).unwrap(), &bench.path("new.img"), Some(16 * MIB))
            .await
            .unwrap();
        done(&site, task).await;
        let status = site.status().await.unwrap();
        assert_eq!(
            (status.health, status.can_lose_now, status.media.len()),
            (Health::Ok, 2, 6),
            "{status:?}"
        );
        assert_eq!(status.media[2].path, bench.path("new.img"), "it stands in the place of the old");
        assert_eq!(contents(&site).await, data);
    });
    bench.stop(&site);
    drop(site);
    // The old one turns up: it is none of the site's.
    let site = bench.start(bench.later("s")).unwrap().site;
    let status = bench.runtime.block_on(site.status()).unwrap();
    assert_eq!((status.media.len(), status.health), (6, Health::Ok));
    bench.stop(&site);
}

#[test]
fn a_site_that_serves_reads_only_takes_another_medium() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 2)).unwrap().site;
    let data = bench.runtime.block_on(filled(&site));
    bench.stop(&site);
    drop(site);
    bench.wait_for_media(&bench.later("s"));
    std::fs::remove_file(bench.path("s/media/01.img")).unwrap();
    let manifest = || std::fs::read(bench.path("s/site.json")).unwrap();
    let before = manifest();
    let site = bench.start(bench.later("s")).unwrap().site;
    bench.runtime.block_on(async {
        assert!(!site.engine().is_writable(), "one copy is too few");
        let lost = site.medium_id(&site.status().await.unwrap().media[1].id).unwrap();
        let new = bench.path("new.img");
        // The drain of the old one could not be recorded: nothing begins.
        let refused = site.replace_medium(lost, &new, Some(16 * MIB)).await.unwrap_err();
        assert_eq!(refused.code, "too_few_media", "{refused}");
        assert!(manifest() == before && !new.exists(), "nothing is half done");
        site.add_medium(&new, Some(16 * MIB)).await.unwrap();
        while !site.engine().is_writable() {
            site.runtime().sleep(std::time::Duration::from_millis(20)).await;
        }
        let task = site.drain_medium(lost).await.unwrap();
        done(&site, task).await;
        let status = site.status().await.unwrap();
        assert_eq!(
            (status.health, status.can_lose_now, status.media.len()),
            (Health::Ok, 1, 2),
            "{status:?}"
        );
        assert_eq!(contents(&site).await, data);
    });
    bench.stop(&site);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 2)).unwrap().site;
    let manifest = || std::fs::read(bench.path("s/site.json")).unwrap();
    let before = manifest();
    let used = bench.blank("used.img");
    super::edit(&used, |bytes| bytes[5000] = 1);
    let small = bench.path("small.img");
    std::fs::File::create(&small).unwrap().set_len(1 << 20).unwrap();
    bench.runtime.block_on(async {
        let code = async |path: &std::path::Path, bytes| site.add_medium(path, bytes).await.unwrap_err().code;
        assert_eq!(code(&used, None).await, "medium_not_empty");
        assert_eq!(code(&used, Some(16 * MIB)).await, "medium_invalid");
        assert_eq!(code(&small, None).await, "medium_too_small");
        assert_eq!(code(&bench.path("none.img"), None).await, "medium_missing");
        assert_eq!(code(&bench.path("odd.img"), Some(12345)).await, "invalid_size");
        assert_eq!(code(&bench.path("tiny.img"), Some(MIB)).await, "medium_too_small");
        assert!(!bench.path("tiny.img").exists(), "nothing half-done stays");
        assert_eq!(code(&bench.path("s/media/00.img"), None).await, "medium_in_use");
        assert_eq!(site.drain_medium(MediumId([9; 16])).await.unwrap_err().code, "medium_not_found");
        assert_eq!(site.medium_id("zz").unwrap_err().code, "medium_not_found");
        let first = ids(&site)[0];
        assert_eq!(site.drain_medium(first).await.unwrap_err().code, "medium_needed");
    });
    assert_eq!(manifest(), before);
    bench.stop(&site);
}
