//! Goal: what happens to media under a running site, or while it is stopped, is seen and told before anything is lost.

use std::path::Path;
use std::time::Duration;

use api::VmName;
use api::types::{Health, Medium, MediumState, Status, TaskKind};

use super::Bench;
use super::media_changes::{contents, filled, ids};
use super::upkeep::{done, ended, fill};
use crate::Site;
use machine::{FileMedia, Options};

const MIB: u64 = 1 << 20;
/// Where the two copies of a superblock stand.
const SUPERBLOCKS: [usize; 2] = [0, 64 << 10];

async fn medium(site: &Site, at: usize) -> Medium {
    site.status().await.unwrap().media[at].clone()
}

fn set_len(path: &Path, bytes: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// Looks at the media as the probe does every few seconds.
async fn look(site: &Site) {
    crate::probe::round(&site.shared).await;
    crate::probe::look_at_superblocks(&site.shared).await;
}

fn says(status: &Status, what: &str) -> bool {
    status.reasons.iter().any(|reason| reason.contains(what))
}

#[test]
fn a_replacement_that_is_too_small_is_refused_and_nothing_changes() {
    let bench = Bench::new();
    let file_media = Some(FileMedia { count: 2, bytes: 32 * MIB });
    let site = bench.start(Options { file_media, ..bench.later("s") }).unwrap().site;
    let manifest = || std::fs::read(bench.path("s/site.json")).unwrap();
    let before = manifest();
    let new = bench.path("new.img");
    bench.runtime.block_on(async {
        for seed in 0..8 {
            let vm = format!("vm{seed}");
            site.catalog().create_vm(&VmName::parse(&vm).unwrap(), &[2 * MIB]).await.unwrap();
            fill(&site, 0, &vm, seed).await;
        }
        site.engine().drain().await.unwrap();
        let old = ids(&site)[0];
        let mut seen = Vec::new();
        for mib in 14..32 {
            match site.replace_medium(old, &new, Some(mib * MIB)).await {
                Err(error) => {
                    seen.push(error.code.name);
                    assert!(!new.exists() && manifest() == before, "{mib}: {error:?}");
                    let status = site.status().await.unwrap();
                    assert!(status.media.iter().all(|medium| !medium.leaving), "{status:?}");
                }
                // What it takes over fits: the drain comes to its end.
                Ok(task) => {
                    done(&site, task).await;
                    assert_eq!(ids(&site).len(), 2);
                    break;
                }
            }
        }
        assert!(seen.contains(&"medium_too_small") && seen.last() == Some(&"medium_needed"), "{seen:?}");
    });
    bench.stop(&site);
}

#[test]
fn a_medium_that_is_cut_short_is_down_until_it_is_replaced() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 6)).unwrap().site;
    let path = bench.path("s/media/02.img");
    bench.runtime.block_on(async {
        let data = filled(&site).await;
        set_len(&path, 15 * MIB);
        for _ in 0..2 {
            // The first look finds it, the second would take it up again.
            look(&site).await;
            let cut = medium(&site, 2).await;
            assert_eq!(cut.state, MediumState::Down);
            assert!(cut.reason.unwrap().contains("cut short"));
        }
        assert_eq!(site.status().await.unwrap().can_lose_now, 1);
        assert_eq!(contents(&site).await, data);
        // Whole again, but for what it lost with its end: that counts until a scrub has written it anew.
        set_len(&path, 16 * MIB);
        look(&site).await;
        assert_eq!(medium(&site, 2).await.state, MediumState::Up);
        assert_eq!(contents(&site).await, data);
        site.shared.scrub_upkeep().await.unwrap();
        let is_scrub = |task: &api::types::Task| task.kind == TaskKind::Scrub;
        let task = site.tasks().tasks().await.unwrap().into_iter().find(is_scrub);
        ended(&site, task.expect("a scrub has begun by itself")).await;
        let status = site.status().await.unwrap();
        assert_eq!((status.health, status.can_lose_now), (Health::Ok, 2), "{status:?}");
    });
    bench.stop(&site);
}

#[test]
fn damaged_superblocks_are_written_anew_while_the_site_runs() {
    for by_scrub in [false, true] {
        let bench = Bench::new();
        let site = bench.start(bench.options("s", 6)).unwrap().site;
        bench.runtime.block_on(async {
            filled(&site).await;
            site.shared.add_key().await.unwrap();
            for (image, places) in [("01.img", &SUPERBLOCKS[..]), ("03.img", &SUPERBLOCKS[..1])] {
                let file = std::fs::File::options().write(true).open(bench.path(&format!("s/media/{image}")));
                for place in places {
                    std::os::unix::fs::FileExt::write_all_at(
                        file.as_ref().unwrap(),
                        &[7; 4096],
                        *place as u64,
                    )
                    .unwrap();
                }
            }
            if by_scrub {
                let task = site.begin_scrub().await.unwrap();
                done(&site, task).await;
            } else {
                look(&site).await;
            }
        });
        bench.stop(&site);
        drop(site);
        let site = bench.start(bench.later("s")).unwrap().site;
        let status = bench.runtime.block_on(site.status()).unwrap();
        assert!(status.media.iter().all(|medium| medium.state == MediumState::Up), "{status:?}");
        bench.runtime.block_on(contents(&site));
        bench.stop(&site);
    }
}

#[test]
fn a_medium_that_comes_back_in_the_place_of_another_is_found() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 6)).unwrap().site;
    let data = bench.runtime.block_on(filled(&site));
    bench.stop(&site);
    drop(site);
    bench.wait_for_media(&bench.later("s"));
    let (first, second, away) = (bench.path("s/media/01.img"), bench.path("s/media/02.img"), bench.path("x"));
    std::fs::rename(&first, &away).unwrap();
    std::fs::remove_file(&second).unwrap();
    let site = bench.start(bench.later("s")).unwrap().site;
    bench.runtime.block_on(async {
        assert_eq!(medium(&site, 1).await.state, MediumState::Down);
        std::fs::rename(&away, &second).unwrap();
        look(&site).await;
        let states = [medium(&site, 1).await.state, medium(&site, 2).await.state];
        assert_eq!(states, [MediumState::Up, MediumState::Down]);
        assert_eq!(contents(&site).await, data);
    });
    bench.stop(&site);
}

/// What is told meanwhile the simulator judges: here the site may mend it at any moment.
#[test]
fn media_put_back_to_older_copies_are_mended_without_a_word() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 6)).unwrap().site;
    bench.runtime.block_on(filled(&site));
    bench.stop(&site);
    drop(site);
    bench.wait_for_media(&bench.later("s"));
    let media = ["00.img", "03.img"].map(|image| bench.path(&format!("s/media/{image}")));
    let older = media.clone().map(|path| std::fs::read(path).unwrap());
    let site = bench.start(bench.later("s")).unwrap().site;
    let data = bench.runtime.block_on(async {
        fill(&site, 0, "web01", 8).await;
        site.engine().drain().await.unwrap();
        contents(&site).await
    });
    bench.stop(&site);
    drop(site);
    bench.wait_for_media(&bench.later("s"));
    media.iter().zip(&older).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    let site = bench.start(bench.later("s")).unwrap().site;
    bench.runtime.block_on(async {
        while site.engine().is_indexing() {
            site.runtime().sleep(Duration::from_millis(10)).await;
        }
        site.shared.scrub_upkeep().await.unwrap();
        let task = site.tasks().tasks().await.unwrap().into_iter().find(|task| task.kind == TaskKind::Scrub);
        let task = ended(&site, task.expect("a scrub has begun by itself")).await;
        // What was read meanwhile was mended then.
        assert!(task.counts["repaired"] > 0, "{task:?}");
        let status = site.status().await.unwrap();
        assert_eq!((status.health, status.can_lose_now), (Health::Ok, 2), "{status:?}");
        assert_eq!(contents(&site).await, data);
        let tasks = site.tasks().tasks().await.unwrap().len();
        site.shared.scrub_upkeep().await.unwrap();
        assert_eq!(site.tasks().tasks().await.unwrap().len(), tasks, "one scrub is enough");
    });
    bench.stop(&site);
}

#[test]
fn a_file_that_was_removed_under_the_site_is_named() {
    let bench = Bench::new();
    let site = bench.start(bench.options("s", 6)).unwrap().site;
    let path = bench.path("s/media/04.img");
    bench.runtime.block_on(async {
        let data = filled(&site).await;
        std::fs::remove_file(&path).unwrap();
        look(&site).await;
        let status = site.status().await.unwrap();
        assert_eq!((status.health, status.media[4].state), (Health::Degraded, MediumState::Up), "{status:?}");
        assert!(says(&status, "04.img was removed"), "{status:?}");
        let fifth = ids(&site)[4];
        let task = site.replace_medium(fifth, &path, Some(16 * MIB)).await;
        // Its own place is free again only when it has left.
        assert_eq!(task.unwrap_err().code, "medium_in_use");
        let task = site.replace_medium(fifth, &bench.path("new.img"), Some(16 * MIB)).await.unwrap();
        done(&site, task).await;
        let status = site.status().await.unwrap();
        assert_eq!((status.health, status.can_lose_now), (Health::Ok, 2), "{status:?}");
        assert_eq!(contents(&site).await, data);
    });
    bench.stop(&site);
}

#[test]
fn the_medium_that_limits_the_pool_is_named() {
    let bench = Bench::new();
    let large = |at: usize| {
        let path = bench.blank(&format!("{at}.img"));
        set_len(&path, 64 * MIB);
        path
    };
    let mut media: Vec<_> = (0..5).map(large).collect();
    media.insert(2, bench.blank("small.img"));
    let site = bench.start(Options { media, ..bench.later("s") }).unwrap().site;
    let status = bench.runtime.block_on(site.status()).unwrap();
    let named = |notice: &&String| notice.contains("small.img") && notice.contains("media replace");
    assert_eq!(status.notices.iter().filter(named).count(), 1, "{status:?}");
    bench.stop(&site);
}
