//! The least medium: the same for every number of media, and enough for a site to go on.

use std::path::PathBuf;

use api::VmName;
use data::{Layout, Params};
use nbd::Exports;

use super::{Bench, MEDIUM_BYTES};
use machine::{FileMedia, Options};

/// Blocks of the disk, and how often all of them are written anew: several times what a site of one medium holds.
const BLOCKS: u64 = 500;
const ROUNDS: u64 = 10;

#[test]
fn the_least_medium_of_a_real_site_leaves_room_beside_the_journal() {
    let params = Params::for_medium(1 << 30);
    assert_eq!(params.least_medium_bytes(), 1 << 30, "what help and docs say");
    let layout = Layout::new(params, 1 << 30).unwrap();
    assert!((layout.end - layout.data) / layout.largest_extent() > 80);
}

/// Bytes that only this round of this block has.
fn contents(block: u64, round: u64) -> Vec<u8> {
    let mut word = (block << 8 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    };
    (0..512).flat_map(|_| next()).collect()
}

#[test]
fn sites_of_the_least_media_take_writes_overwrites_and_clean() {
    for count in [1, 2, 3, 4, 6] {
        let bench = Bench::new();
        let site = bench.start(bench.options("d", count)).unwrap().site;
        bench.runtime.block_on(async {
            site.catalog().create_vm(&VmName::parse("a").unwrap(), &[BLOCKS * 4096]).await.unwrap();
            let disk = site.exports().open("a/disk0").await.unwrap();
            for round in 0..ROUNDS {
                for block in 0..BLOCKS {
                    let written = disk.write(block * 4096, contents(block, round).into()).await;
                    assert!(written.is_ok(), "{count} media, round {round}, block {block}: {written:?}");
                }
            }
            let task = site.begin_clean(1).await.unwrap();
            super::upkeep::done(&site, task).await;
            for block in 0..BLOCKS {
                assert_eq!(disk.read(block * 4096, 4096).await.unwrap(), contents(block, ROUNDS - 1));
            }
            let status = site.status().await.unwrap();
            assert!(status.writable && status.usable_bytes > 0, "{count} media: {status:?}");
            assert!(status.likely_bytes > status.usable_bytes, "{status:?}");
        });
        bench.stop(&site);
    }
}

#[test]
fn smaller_media_are_refused_for_every_number_of_them_before_anything_is_made() {
    let bench = Bench::new();
    let smaller = MEDIUM_BYTES - 4096;
    for count in [1, 2, 3, 4, 6] {
        let files = FileMedia { count, bytes: smaller };
        assert_eq!(
            bench.refused(Options { file_media: Some(files), ..bench.later("d") }),
            "medium_too_small",
            "{count} media"
        );
        assert!(!bench.path("d/media").exists() && !bench.path("d/first-start.json").exists());
    }
    let given = bench.path("given");
    std::fs::File::create(&given).unwrap().set_len(smaller).unwrap();
    let options = Options { media: vec![given.clone()], ..bench.later("d") };
    assert_eq!(bench.refused(options), "medium_too_small");
    let site = bench.start(bench.options("d", 2)).unwrap().site;
    bench.runtime.block_on(async {
        let code = async |path: &PathBuf, bytes| site.add_medium(path, bytes).await.unwrap_err().code;
        assert_eq!(code(&given, None).await, "medium_too_small");
        assert_eq!(code(&bench.path("new"), Some(smaller)).await, "medium_too_small");
        assert!(!bench.path("new").exists());
        site.add_medium(&bench.path("new"), Some(MEDIUM_BYTES)).await.unwrap();
    });
    bench.stop(&site);
}
