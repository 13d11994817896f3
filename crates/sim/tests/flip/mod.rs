//! Goal: a flipped bit anywhere in a complete store is repaired, or told by name, and never served.
//!
//! A small store holds every kind of record, which a survey with the formats' own decoders asserts. Then one bit at a
//! time of its non-zero bytes is flipped in a copy. With several media the site must open, read right, be found sound by
//! a second scrub, and read right after a restart; a damaged fragment is written again exactly once, by whoever meets it.
//! Beyond the redundancy (a single medium; the same place on both of two media) every read gives right bytes or an error
//! that names the container or segment. The newest batch of the journal is dropped there, and nothing else is.
//!
//! Knobs: `HOLDFAST_PICK` chooses which of the sampled bits, `HOLDFAST_SOAK=1` takes all of them.

mod judge;
mod make;
mod survey;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use judge::{Fate, Verdict, beyond, within};
use make::{Store, make};
use survey::{KINDS, Survey, What, survey};

/// Every so many bits in CI.
const CI_STRIDE: u64 = 24;
/// Every so many bits of places that stand twice in CI.
const CI_PAIR_STRIDE: u64 = 64;
/// In CI one in so many bits outside fragments, tables and superblocks sees all checks.
const CI_THOROUGH: u64 = 7;
/// Bytes that are not zero: a store beyond it is no small one.
const NONZERO_BYTES_MAX: u64 = 128 << 10;

/// Medium and bit.
type Flip = (usize, u64);

/// Bits flipped together, and what they belong to.
struct Case {
    flips: Vec<Flip>,
    what: What,
}

/// Makes the store and asserts that it is a small and complete one.
fn make_whole(media: usize) -> (Store, Survey) {
    let store = make(media);
    let survey = survey(&store);
    let missing: Vec<&str> = KINDS.iter().filter(|kind| !survey.kinds.contains(**kind)).copied().collect();
    assert!(missing.is_empty(), "{media} media: the store lacks {missing:?}");
    let bytes: u64 = store.image.media.iter().map(sim::Image::nonzero_bytes).sum();
    assert!(bytes <= NONZERO_BYTES_MAX, "{media} media: the store has {bytes} bytes");
    println!("{media} media: {bytes} non-zero bytes, {} kinds of records", KINDS.len());
    (store, survey)
}

fn is_soak() -> bool {
    std::env::var("HOLDFAST_SOAK").is_ok_and(|value| value == "1")
}

/// Those of the bits that this run takes. They come byte by byte; which bit of a byte is first changes from byte to byte,
/// so that a stride meets all of them.
fn chosen(bytes: impl Iterator<Item = (usize, u64)>, ci_stride: u64) -> Vec<Flip> {
    let pick: u64 = std::env::var("HOLDFAST_PICK").ok().and_then(|pick| pick.parse().ok()).unwrap_or(0);
    let stride = if is_soak() { 1 } else { ci_stride };
    let per_round = ci_stride.div_ceil(8);
    let bits = (0..).zip(bytes).flat_map(|(i, (medium, byte))| {
        (0..8).map(move |bit| (medium, byte * 8 + (bit + i / per_round) % 8))
    });
    let chosen: Vec<Flip> = bits.skip((pick % stride) as usize).step_by(stride as usize).collect();
    assert!(!chosen.is_empty(), "no byte of the store to flip");
    chosen
}

/// Judges all cases on two threads; gives how many ended how.
fn judge_all(
    store: &Store,
    cases: &[Case],
    judge: impl Fn(&Case, sim::SiteImage) -> Verdict + Sync,
) -> BTreeMap<Fate, u64> {
    let next = AtomicU64::new(0);
    let fates: Mutex<BTreeMap<Fate, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut flipped = store.image.clone();
                    case.flips.iter().for_each(|(medium, bit)| flipped.media[*medium].flip_bit(*bit));
                    let verdict = catch_unwind(AssertUnwindSafe(|| judge(case, flipped)));
                    let fate =
                        verdict.unwrap_or_else(|_| Err("a panic".to_owned())).unwrap_or_else(|wrong| {
                            let places: Vec<String> = case
                                .flips
                                .iter()
                                .map(|(medium, bit)| {
                                    format!("medium {medium} byte {} bit {}", bit / 8, bit % 8)
                                })
                                .collect();
                            let media = store.spec.media;
                            panic!("{media} media, {}, {:?}: {wrong}", places.join(" and "), case.what)
                        });
                    let mut fates = fates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    *fates.entry(fate).or_default() += 1;
                }
            });
        }
    });
    fates.into_inner().expect("no thread panicked")
}

/// Every bit by itself.
fn single_flips(store: &Store, survey: &Survey) -> Vec<Case> {
    let media = store.image.media.iter().enumerate();
    let bytes = media.flat_map(|(medium, image)| {
        image.nonzero_pages().flat_map(move |(page, bytes)| {
            let nonzero = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
            nonzero.map(move |(i, _)| (medium, page + i as u64))
        })
    });
    let flips = chosen(bytes, CI_STRIDE).into_iter();
    flips.map(|(medium, bit)| Case { flips: vec![(medium, bit)], what: survey.at(medium, bit / 8) }).collect()
}

fn flip_with_redundancy(media: usize) {
    let (store, survey) = make_whole(media);
    assert_eq!(within(&store, store.image.clone(), What::Dead, false, true), Ok(Fate::Harmless));
    let cases = single_flips(&store, &survey);
    let judge = |case: &Case, image| {
        let bit = case.flips[0].1;
        let thorough = is_soak() || (bit / 24).is_multiple_of(CI_THOROUGH);
        within(&store, image, case.what, (bit / 8).is_multiple_of(2), thorough)
    };
    let fates = judge_all(&store, &cases, judge);
    let dead = cases.iter().filter(|case| case.what == What::Dead).count();
    println!("{media} media: {} bits, {dead} of them in what nothing needs: {fates:?}", cases.len());
    for fate in [Fate::MendedByReads, Fate::MendedByScrub] {
        assert!(fates.contains_key(&fate), "no case was {fate:?}");
    }
}

#[test]
fn of_six_media() {
    flip_with_redundancy(6);
}

#[test]
fn of_three_media() {
    flip_with_redundancy(3);
}

#[test]
fn of_two_media() {
    flip_with_redundancy(2);
}

#[test]
fn of_a_single_medium() {
    let (store, survey) = make_whole(1);
    let without_last = &survey.without_last;
    assert_eq!(beyond(&store, store.image.clone(), What::Dead, without_last), Ok(Fate::Harmless));
    let cases = single_flips(&store, &survey);
    let judge = |case: &Case, image| beyond(&store, image, case.what, without_last);
    let fates = judge_all(&store, &cases, judge);
    let dead = cases.iter().filter(|case| case.what == What::Dead).count();
    println!("1 medium: {} bits, {dead} of them in what nothing needs: {fates:?}", cases.len());
    assert_all_ends_met(&fates);
}

#[test]
fn of_both_copies_on_two_media() {
    let (store, survey) = make_whole(2);
    let mut cases = Vec::new();
    for (first, second) in survey.pairs() {
        let mut bytes = vec![0; (first.end - first.start) as usize];
        store.image.media[first.medium].read(first.start, &mut bytes);
        let nonzero = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
        let bytes = nonzero.map(|(i, _)| (first.medium, first.start + i as u64));
        cases.extend(chosen(bytes, CI_PAIR_STRIDE).into_iter().map(|(medium, bit)| Case {
            flips: vec![(medium, bit), (second.medium, bit - first.start * 8 + second.start * 8)],
            what: first.what,
        }));
    }
    let without_last = &survey.without_last;
    let fates = judge_all(&store, &cases, |case, image| beyond(&store, image, case.what, without_last));
    println!("2 media, both copies: {} pairs of bits: {fates:?}", cases.len());
    assert_all_ends_met(&fates);
}

fn assert_all_ends_met(fates: &BTreeMap<Fate, u64>) {
    for fate in [Fate::Harmless, Fate::Dropped, Fate::LostBlocks, Fate::WentOn, Fate::LostSite] {
        assert!(fates.contains_key(&fate), "no case was {fate:?}");
    }
}
