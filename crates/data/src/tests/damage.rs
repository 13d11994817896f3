//! Goal: damage of metadata costs at most one fragment, never gives wrong bytes, and is mended.

use std::sync::Arc;

use media::Medium;
use proto::CallErrorKind;
use units::{PAGE, SiteId};

use super::common::*;
use super::medium::{Image, Log, TestMedium};
use crate::{MediumNode, OpenErrorKind, open, read_superblock};

const FRAGMENTS: u32 = 9;

/// A medium with fragments in both tables and in the log.
async fn scene() -> (Image, crate::Layout) {
    let (medium, node) = node(&Log::default()).await;
    for n in 0..FRAGMENTS {
        put(&node, n).await.unwrap();
        put(&node, 50 + n % 3).await.unwrap();
        free(&node, 50 + n % 3).await.unwrap();
        if n % 4 == 0 {
            replace(&node, n).await.unwrap();
        }
    }
    (medium.image(), *node.layout())
}

/// All fragments but `missing` read; those that were freed may be back. Gives how many are there.
async fn judge(node: &MediumNode, missing: usize, what: &str) {
    let mut lost = Vec::new();
    for n in 0..FRAGMENTS {
        if get(node, n).await.is_err() {
            lost.push(n);
        }
    }
    assert!(lost.len() <= missing, "{what}: {lost:?} are missing");
    // What is free is free.
    let mut n = 5000;
    while put(node, n).await.is_ok() {
        n += 1;
    }
    for n in (0..FRAGMENTS).filter(|n| !lost.contains(n)).chain(5000..n) {
        assert_eq!(get(node, n).await, Ok(()), "{what}: fragment {n} after filling up");
    }
}

fn medium_of(image: &Image) -> Arc<TestMedium> {
    TestMedium::new(0, MEDIUM_BYTES, image.clone(), &Log::default())
}

#[test]
fn every_page_of_the_metadata_damaged_or_unreadable() {
    run(1, async |_| {
        let (image, layout) = scene().await;
        for page in (0..layout.slots).step_by(PAGE) {
            for way in 0..3 {
                let medium = medium_of(&image);
                match way {
                    0 => medium.flip(page * 8 + 77),
                    1 => medium.flip((page + 300) * 8 + 5),
                    _ => medium.spoil(page),
                }
                let what = format!("page at {page}, way {way}");
                let in_log = (layout.log..layout.tables[0]).contains(&page);
                let node = open(medium.clone(), SITE).await.unwrap_or_else(|e| panic!("{what}: {e}"));
                judge(&node, usize::from(in_log), &what).await;
            }
        }
    });
}

#[test]
fn a_damaged_table_is_mended_without_touching_the_sound_one() {
    for which in 0..2 {
        let log = Log::default();
        let (begin, layout) = run(1, async |_| {
            let (image, layout) = scene().await;
            let medium = TestMedium::new(0, MEDIUM_BYTES, image, &log);
            let page = units::PageBuf::copy_of(&[9; PAGE]).share();
            medium.write_durable(layout.tables[which], page).await.unwrap();
            let begin = log.len();
            reopen(&medium).await;
            (begin, layout)
        });
        assert!(log.len() > begin, "it is written anew");
        for end in begin..=log.len() {
            for mode in 0..12 {
                run(1, async |_| {
                    // The data area without headers: nothing can be rebuilt, a table must be there.
                    let mut image = log.cut(0, end, mode);
                    image.retain(|page, _| page * (PAGE as u64) < layout.data);
                    let (_, node) = open_image(image).await;
                    assert_eq!(list(&node).await.len() as u32, FRAGMENTS, "cut at {end}, mode {mode}");
                });
            }
        }
        // Mended: now the other one may go.
        run(1, async |_| {
            let mut image = log.cut(0, log.len(), 0);
            image.retain(|page, _| page * (PAGE as u64) < layout.data);
            let medium = medium_of(&image);
            medium.flip((layout.tables[1 - which] + 8) * 8);
            assert_eq!(list(&*reopen(&medium).await).await.len() as u32, FRAGMENTS);
        });
    }
}

#[test]
fn both_tables_damaged_the_scan_finds_the_same() {
    run(1, async |_| {
        let (image, layout) = scene().await;
        let expected = list(&*reopen(&medium_of(&image)).await).await;
        let medium = medium_of(&image);
        for table in layout.tables {
            medium.flip(table * 8 + 3);
        }
        let node = reopen(&medium).await;
        assert_eq!(list(&node).await, expected);
        judge(&node, 0, "rebuilt").await;
        let again = reopen(&medium).await;
        assert_eq!(list(&again).await, list(&node).await, "what was rebuilt is stored");
    });
}

/// The last resort must not be stopped by one bad place.
#[test]
fn both_tables_damaged_and_places_that_cannot_be_read() {
    run(1, async |_| {
        let (image, layout) = scene().await;
        for page in (layout.data..layout.end).step_by(PAGE) {
            let medium = medium_of(&image);
            for table in layout.tables {
                medium.spoil(table);
            }
            medium.spoil(page);
            // A table on an unreadable page is written anew, which a disk answers by using another place.
            let node = open(medium.clone(), SITE).await.unwrap_or_else(|e| panic!("page at {page}: {e}"));
            let lost = seam::join_all((0..FRAGMENTS).map(|n| get(&node, n))).await;
            assert!(lost.iter().filter(|got| got.is_err()).count() <= 1, "page at {page}");
        }
    });
}

/// A medium that is gone for a moment is no damaged one: nothing of it is written anew.
#[test]
fn a_medium_that_is_gone_is_not_rebuilt() {
    run(1, async |_| {
        let (image, _) = scene().await;
        let medium = medium_of(&image);
        medium.set_gone(true);
        assert_eq!(open(medium.clone(), SITE).await.unwrap_err().kind, OpenErrorKind::Medium);
        medium.set_gone(false);
        judge(&*reopen(&medium).await, 0, "back again").await;
    });
}

/// Headers from before the medium was formatted belong to nobody.
#[test]
fn a_scan_passes_over_what_another_medium_left() {
    run(1, async |_| {
        let log = Log::default();
        let (medium, node) = node(&log).await;
        // So that the old allocation numbers are high and the old places odd.
        for n in 0..30 {
            put(&node, n).await.unwrap();
            if n % 3 > 0 {
                free(&node, n).await.unwrap();
            }
        }
        let old = list(&node).await;
        let mut next = superblock(7);
        next.generation = 3;
        crate::format(&*medium, &next).await.unwrap();
        let node = reopen(&medium).await;
        node.handle(write_request(7, 100, false)).await.unwrap();
        let layout = *node.layout();
        for table in layout.tables {
            medium.flip(table * 8);
        }
        // And the log, which would know.
        for page in (layout.log..layout.tables[0]).step_by(PAGE) {
            medium.flip(page * 8);
        }
        let node = reopen(&medium).await;
        assert_eq!(list(&node).await, [100], "{old:?} are of another medium");
        get(&node, 100).await.unwrap();
    });
}

#[test]
fn superblock_copies_stand_in_for_each_other_and_are_mended() {
    run(1, async |_| {
        let (image, _) = scene().await;
        for (bad, good) in [(0, 64 * 1024u64), (64 * 1024u64, 0)] {
            for bit in (0..256 * 8).step_by(7) {
                let medium = medium_of(&image);
                medium.flip(bad * 8 + bit);
                assert_eq!(read_superblock(&*medium).await.unwrap(), Some(superblock(0)));
                assert!(medium.image() != image, "reading mends nothing");
                reopen(&medium).await;
                medium.flip(good * 8 + bit);
                assert_eq!(read_superblock(&*medium).await.unwrap(), Some(superblock(0)), "bit {bit}");
            }
            let medium = medium_of(&image);
            medium.spoil(bad);
            reopen(&medium).await;
            medium.spoil(good);
            assert!(read_superblock(&*medium).await.is_err());
        }
        let medium = medium_of(&image);
        medium.flip(9);
        medium.flip(64 * 1024 * 8 + 9);
        assert_eq!(read_superblock(&*medium).await.unwrap(), None);
        assert_eq!(open(medium, SITE).await.unwrap_err().kind, OpenErrorKind::NotFormatted);
    });
}

#[test]
fn foreign_short_and_blank_media_are_refused_and_left_alone() {
    run(1, async |_| {
        let (image, _) = scene().await;
        let other = SiteId([1; 16]);
        let medium = medium_of(&image);
        medium.flip(64 * 1024 * 8);
        let before = medium.image();
        assert_eq!(open(medium.clone(), other).await.unwrap_err().kind, OpenErrorKind::ForeignSite);
        assert!(medium.image() == before, "a foreign medium is left untouched, damaged copy and all");

        let short = TestMedium::new(0, MEDIUM_BYTES - PAGE as u64, image.clone(), &Log::default());
        assert_eq!(open(short.clone(), SITE).await.unwrap_err().kind, OpenErrorKind::TooSmall);
        let longer = TestMedium::new(0, MEDIUM_BYTES + (1 << 20), image.clone(), &Log::default());
        assert_eq!(list(&*reopen(&longer).await).await.len() as u32, FRAGMENTS);

        for len in [0, PAGE as u64, 1 << 20] {
            let blank = TestMedium::new(0, len, Image::new(), &Log::default());
            assert_eq!(open(blank.clone(), SITE).await.unwrap_err().kind, OpenErrorKind::NotFormatted);
            let error = crate::format(&*blank, &superblock(0)).await.unwrap_err();
            assert_eq!(error.kind, OpenErrorKind::TooSmall);
        }
    });
}

/// Every page of a fragment's header and payload: damage is said, never passed on.
#[test]
fn a_damaged_fragment_is_said_to_be() {
    run(1, async |_| {
        let (image, layout) = scene().await;
        for page in (layout.data..layout.end).step_by(PAGE) {
            let medium = medium_of(&image);
            medium.flip(page * 8 + 1234);
            let node = reopen(&medium).await;
            let mut damaged = 0;
            for n in 0..FRAGMENTS {
                match get(&node, n).await {
                    Ok(()) => {}
                    Err(CallErrorKind::Corrupt) => damaged += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            assert!(damaged <= 1);
        }
    });
}
