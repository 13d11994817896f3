//! Goal: a power cut at any point of a workload, with any fate of what was not synced, loses nothing that was answered.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use units::PAGE;

use super::common::*;
use super::medium::Log;
use crate::MediumNode;

const P: u32 = PAGE as u32;
/// The first fragment that fills a crowded medium.
const CROWD: u32 = 9 + 16 * 500;
/// Fates of unsynced writes tried at every point: all lost, all kept, and one of drawn ones, with garbage or without.
fn modes(end: usize) -> [u64; 3] {
    [0, 1, 2 + end as u64 % 4]
}

/// What was asked and answered, with the length of the log at the time.
#[derive(Default)]
struct Diary {
    written: BTreeMap<u32, usize>,
    free_asked: BTreeMap<u32, usize>,
    freed: BTreeMap<u32, usize>,
    batches: Vec<(u32, u32, usize)>,
    segment_free_asked: BTreeMap<u32, usize>,
    segment_freed: BTreeMap<u32, usize>,
}

/// One of several that work at once, each on its own containers and segments.
async fn worker(node: &MediumNode, log: &Log, diary: &RefCell<Diary>, me: u32) {
    for round in 0..5 {
        let n = me * 100 + round;
        if put(node, n).await.is_ok() {
            diary.borrow_mut().written.insert(n, log.len());
        }
        if open_segment(node, n).await.is_ok() {
            for offset in [P, 2 * P] {
                append(node, n, offset).await.unwrap();
                diary.borrow_mut().batches.push((n, offset, log.len()));
            }
        }
        if diary.borrow().written.contains_key(&n) && round % 2 == 0 {
            let _ = replace(node, n).await;
        }
        if round > 0 {
            let old = n - 1;
            diary.borrow_mut().free_asked.insert(old, log.len());
            free(node, old).await.unwrap();
            diary.borrow_mut().freed.insert(old, log.len());
            diary.borrow_mut().segment_free_asked.insert(old, log.len());
            free_segments(node, &[old]).await.unwrap();
            diary.borrow_mut().segment_freed.insert(old, log.len());
        }
    }
}

/// One of several on a medium that is full: what one gives back another takes at once. All fragments have one size.
async fn crowder(node: &MediumNode, log: &Log, diary: &RefCell<Diary>, me: u32) {
    if me == 0 {
        // What it supersedes is somebody's room at once; the fragment itself is never given up.
        for _ in 0..40 {
            let _ = replace(node, CROWD).await;
            seam::yield_now().await;
        }
        return;
    }
    let name = |round: u32| 9 + 16 * (me * 20 + round);
    for round in 0..8 {
        let n = name(round);
        for _ in 0..200 {
            if put(node, n).await.is_ok() {
                diary.borrow_mut().written.insert(n, log.len());
                break;
            }
            seam::yield_now().await;
        }
        if diary.borrow().written.contains_key(&n) {
            diary.borrow_mut().free_asked.insert(n, log.len());
            free(node, n).await.unwrap();
            diary.borrow_mut().freed.insert(n, log.len());
        }
    }
}

/// Fills the medium but for two extents.
async fn crowd(node: &MediumNode, log: &Log, diary: &RefCell<Diary>) {
    let mut n = CROWD;
    while put(node, n).await.is_ok() {
        diary.borrow_mut().written.insert(n, log.len());
        n += 16;
    }
    for n in [n - 32, n - 48] {
        free(node, n).await.unwrap();
        diary.borrow_mut().written.remove(&n);
    }
}

fn before(at: Option<&usize>, end: usize) -> bool {
    at.is_some_and(|at| *at <= end)
}

async fn judge(node: &MediumNode, diary: &Diary, end: usize, what: &str) -> BTreeSet<u32> {
    let mut sound = BTreeSet::new();
    for (n, at) in &diary.written {
        if *at <= end && !before(diary.free_asked.get(n), end) {
            assert_eq!(get(node, *n).await, Ok(()), "{what}: fragment {n} was acknowledged");
            sound.insert(*n);
        }
        if before(diary.freed.get(n), end) {
            assert!(get(node, *n).await.is_err(), "{what}: fragment {n} was freed");
        }
    }
    // Whatever else is there is whole, or said to be damaged; `get` compares.
    for n in list(node).await {
        let _ = get(node, n).await;
    }
    let here = segments(node).await;
    for (n, offset, at) in &diary.batches {
        if *at <= end && !before(diary.segment_free_asked.get(n), end) {
            assert!(holds(node, *n, *offset).await, "{what}: batch {offset} of segment {n} was acknowledged");
        }
        if before(diary.segment_freed.get(n), end) {
            assert!(!here.contains(n), "{what}: segment {n} was freed");
        }
    }
    sound
}

fn at_every_write(seed: u64, crowded: bool) {
    let log = Log::default();
    let (diary, begin) = run(seed, async |_| {
        let (_, node) = node(&log).await;
        let diary = RefCell::new(Diary::default());
        if crowded {
            crowd(&node, &log, &diary).await;
            let begin = log.len();
            seam::join_all((0..3).map(|me| crowder(&node, &log, &diary, me))).await;
            return (diary.into_inner(), begin);
        }
        let begin = log.len();
        seam::join_all((0..3).map(|me| worker(&node, &log, &diary, me))).await;
        (diary.into_inner(), begin)
    });
    assert!(diary.written.len() > 12 && diary.freed.len() > 9, "the workload works");
    for end in begin..=log.len() {
        for mode in modes(end) {
            let what = format!("seed {seed}, cut at {end}, mode {mode}");
            run(seed, async |_| {
                let (medium, node) = open_image(log.cut(0, end, mode)).await;
                let sound = judge(&node, &diary, end, &what).await;
                if mode % 2 == 0 {
                    return;
                }
                // What is free is free: filling it hurts nobody, and the next restart sees the same.
                let mut n = 5000;
                while put(&node, n).await.is_ok() {
                    n += 1;
                }
                for node in [&node, &reopen(&medium).await] {
                    for n in sound.iter().copied().chain(5000..n) {
                        assert_eq!(get(node, n).await, Ok(()), "{what}, fragment {n} after filling up");
                    }
                }
            });
        }
    }
}

#[test]
fn a_power_cut_at_every_write() {
    for seed in 1..3 {
        at_every_write(seed, false);
    }
}

#[test]
fn a_power_cut_at_every_write_to_a_full_medium() {
    for seed in 1..4 {
        at_every_write(seed, true);
    }
}

/// A cut while formatting leaves an empty medium or none; never one half of the old site.
#[test]
fn a_power_cut_while_formatting() {
    let log = Log::default();
    let begin = run(1, async |_| {
        let (medium, node) = node(&log).await;
        for n in 0..6 {
            put(&node, n).await.unwrap();
        }
        let begin = log.len();
        let mut again = superblock(0);
        again.generation = 7;
        crate::format(&*medium, &again).await.unwrap();
        begin
    });
    for end in begin..=log.len() {
        for mode in modes(end) {
            run(1, async |_| {
                let image = log.cut(0, end, mode);
                let medium = super::medium::TestMedium::new(0, MEDIUM_BYTES, image, &Log::default());
                match crate::open(medium, SITE).await {
                    Ok(node) if node_generation(&node).await == 7 => {
                        assert_eq!(list(&node).await, [0; 0]);
                    }
                    Ok(node) => {
                        // Nothing but its superblock was touched, and that not enough.
                        for n in 0..6 {
                            assert_eq!(get(&node, n).await, Ok(()), "cut at {end}, mode {mode}");
                        }
                    }
                    Err(error) => assert_eq!(error.kind, crate::OpenErrorKind::NotFormatted),
                }
            });
        }
    }
}

async fn node_generation(node: &MediumNode) -> u64 {
    crate::read_superblock(&**node.medium()).await.unwrap().unwrap().generation
}

/// A cut while a superblock is rewritten, or a damaged copy mended, leaves one.
#[test]
fn a_power_cut_while_a_superblock_is_written() {
    let cases = [None, Some(0), Some(64 * 1024)].into_iter().flat_map(|at| [(at, true), (at, false)]);
    for (damaged, mended) in cases {
        let log = Log::default();
        let begin = run(1, async |_| {
            let medium = fresh(0, &log).await;
            if let Some(at) = damaged {
                // As rot would: behind the back of everybody, so in the log too.
                let page = units::PageBuf::copy_of(&[5; PAGE]).share();
                media::Medium::write_durable(&*medium, at, page).await.unwrap();
            }
            let begin = log.len();
            if mended {
                reopen(&medium).await;
            }
            let mut next = superblock(0);
            next.generation = 2;
            crate::write_superblock(&*medium, &next).await.unwrap();
            begin
        });
        for end in begin..=log.len() {
            for mode in 0..60 {
                run(1, async |_| {
                    let (_, node) = open_image(log.cut(0, end, mode)).await;
                    let generation = node_generation(&node).await;
                    assert!((1..=2).contains(&generation));
                    assert!(end < log.len() || generation == 2);
                });
            }
        }
    }
}
