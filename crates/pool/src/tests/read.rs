//! Goal: reads give what was written or say what is lost; they cost no more than they must.

use std::sync::atomic::Ordering;

use super::script::{Fate, Kind, Rule};
use super::site::{Bad, assert_lost, medium_id, site};
use crate::PoolErrorKind;

#[test]
fn a_sound_read_asks_one_medium_once() {
    let site = site(6);
    let kept = site.put();
    site.script.take_log();
    site.run(site.read(&kept, 100, 3000)).unwrap();
    assert_eq!(site.script.take_log(), [(kept.stripe.members[0], Kind::Read)]);
}

#[test]
fn a_bit_that_flips_on_the_way_is_read_again() {
    let site = site(6);
    let kept = site.put();
    for fate in [Fate::Flipped, Fate::Short, Fate::Nonsense, Fate::Dropped, Fate::AnswerLost, Fate::Twice] {
        site.script.strike(Kind::Read, 0, 1, fate);
        site.run(site.read(&kept, 100, 3000)).unwrap();
        site.script.clear();
    }
    site.settle();
    assert_eq!((site.decoded(), site.repaired()), (0, 0), "the second look found nothing wrong");
    assert_eq!(site.up(), 6);
}

#[test]
fn bits_that_flip_on_every_way_to_one_medium_are_decoded_around() {
    let site = site(4);
    let kept = site.put();
    // Plain and verified answers of one medium are both spoiled behind its own check.
    site.script.strike_all(Kind::Read, kept.stripe.members[1], Fate::Flipped);
    site.run(site.read_all(&kept)).unwrap();
    site.run(site.read(&kept, kept.stripe.fragment_bytes() + 5, 100)).unwrap();
}

#[test]
fn reads_with_a_medium_away_decode_and_repair_nothing() {
    let site = site(6);
    let kept = site.put();
    site.take(kept.stripe.members[1]);
    site.run(site.read_all(&kept)).unwrap();
    site.script.take_log();
    let offset = kept.stripe.fragment_bytes() + 10;
    site.run(site.read(&kept, offset, 1000)).unwrap();
    site.settle();
    let log = site.script.take_log();
    assert_eq!(log.len(), 5, "the five others, once, and no repair: {log:?}");
    assert!(log.iter().all(|(medium, kind)| *kind == Kind::Read && *medium != kept.stripe.members[1]));
    assert_eq!(site.repaired(), 0);
}

#[test]
fn damage_beside_a_medium_away_is_still_repaired() {
    let site = site(6);
    let kept = site.put();
    site.take(kept.stripe.members[1]);
    site.run(site.read_all(&kept)).unwrap();
    site.spoil(&kept, 3, Bad::Flipped);
    site.run(site.read(&kept, kept.stripe.fragment_bytes() + 10, 1000)).unwrap();
    site.settle();
    assert!(site.run(site.is_sound(&kept, 3)), "it was met while decoding");
    assert_eq!(site.repaired(), 1);
}

#[test]
fn every_fragment_wrong_under_a_sound_crc_is_found_and_repaired() {
    for media in [3, 4, 6, 10] {
        let site = site(media);
        for index in 0..site.pool.current_class().unwrap().width() {
            let kept = site.put();
            site.spoil(&kept, index, Bad::Wrong);
            assert!(
                !site.run(site.pool.scrub(&kept.stripe)).unwrap().matching,
                "scrub sees the contradiction"
            );
            if index >= kept.stripe.class.k {
                // Only decoding meets a parity fragment.
                site.spoil(&kept, 0, Bad::Missing);
            }
            site.run(site.read_all(&kept)).unwrap();
            site.settle();
            let width = kept.stripe.class.width();
            assert_eq!(site.run(site.whole(&kept)), width, "{media} media, fragment {index}");
            assert!(site.run(site.pool.scrub(&kept.stripe)).unwrap().matching);
        }
    }
}

#[test]
fn two_wrong_fragments_under_sound_crcs_are_found_by_the_check() {
    let site = site(6);
    for (a, b) in [(0, 1), (1, 4), (4, 5), (2, 5)] {
        let kept = site.put();
        site.spoil(&kept, a, Bad::Wrong);
        site.spoil(&kept, b, Bad::Wrong);
        site.run(site.read_all(&kept)).unwrap();
        site.settle();
        let left = site.run(site.whole(&kept));
        assert_eq!(left, if a >= 4 { 4 } else { 6 }, "wrong parity is met only by those who decode");
    }
    let kept = site.put();
    [0, 2, 5].into_iter().for_each(|index| site.spoil(&kept, index, Bad::Wrong));
    assert_lost(site.run(site.read_all(&kept)), &kept);
}

#[test]
fn a_check_of_one_fragment_proves_nothing_of_another() {
    let site = site(6);
    let kept = site.put();
    site.spoil(&kept, 2, Bad::Wrong);
    // Both looks at the first fragment are spoiled on the way; then all sets are tried, and the first one has the
    // right bytes of this fragment beside the wrong ones of another.
    let medium = Some(kept.stripe.members[0]);
    site.script.rule(Rule { kind: Kind::Read, medium, skip: 0, times: 2, fate: Fate::Flipped });
    site.run(site.read(&kept, 100, 3000)).unwrap();
    site.settle();
    assert_eq!(site.script.fired(), 2);
    assert_eq!(
        (site.repaired(), site.run(site.whole(&kept))),
        (0, 5),
        "no right fragment was taken for wrong"
    );
    site.run(site.read_all(&kept)).unwrap();
    site.settle();
    assert_eq!(site.run(site.whole(&kept)), 6);
}

#[test]
fn what_the_check_refuses_is_never_given() {
    let site = site(6);
    let kept = site.put();
    let pages = kept.stripe.fragment_pages;
    let mut calls = 0;
    let mut refuse = |_: &[u8]| {
        calls += 1;
        false
    };
    let error = site.run(site.pool.read(kept.id(), pages, 0, 5000, &mut refuse)).unwrap_err();
    assert_eq!(error.kind, PoolErrorKind::Lost);
    assert!(error.reason.contains(&kept.id().to_string()));
    assert!((2..=2 + 15).contains(&calls), "{calls} checks for 15 sets of four of six");
    site.settle();
    assert_eq!(site.repaired(), 0, "nothing was proved wrong");
}

#[test]
fn reads_outside_the_container_are_refused() {
    let site = site(4);
    let kept = site.put();
    let (pages, all) = (kept.stripe.fragment_pages, kept.bytes.len());
    for (pages, offset, length) in
        [(pages, 0, 0), (pages, all, 1), (pages, 1, all), (pages, usize::MAX, 2), (0, 0, 1)]
    {
        let mut check = |_: &[u8]| true;
        let read = site.pool.read(kept.id(), pages, offset, length, &mut check);
        assert_lost(site.run(read), &kept);
    }
    let unknown = units::ContainerId { class: 200, ..kept.id() };
    let mut check = |_: &[u8]| true;
    let read = site.pool.read(unknown, pages, 0, 1, &mut check);
    assert_eq!(site.run(read).unwrap_err().kind, PoolErrorKind::Lost);
}

#[test]
fn a_medium_the_site_does_not_know_counts_as_down() {
    let mut site = site(3);
    let kept = site.put();
    let rows = site.pool.rows();
    let gone = site.ids.pop().unwrap();
    site.restart(&rows);
    site.run(site.read_all(&kept)).unwrap();
    site.script.take_log();
    site.run(site.pool.scrub(&kept.stripe)).map(|report| assert_eq!(report.away, 1)).unwrap();
    assert!(site.script.take_log().iter().all(|(medium, _)| *medium != gone));
    assert_eq!(site.pool.stats().repaired.load(Ordering::Relaxed), 0);
    assert_eq!(gone, medium_id(2));
}

#[test]
fn any_sound_header_tells_how_the_container_is_cut() {
    let site = site(4);
    let kept = site.put();
    let pages = || site.run(site.pool.fragment_pages_of(kept.id()));
    site.spoil(&kept, 0, Bad::Header);
    site.spoil(&kept, 1, Bad::Missing);
    site.spoil(&kept, 2, Bad::Down);
    assert_eq!(pages(), Some(kept.stripe.fragment_pages));
    site.spoil(&kept, 3, Bad::Missing);
    assert_eq!(pages(), None);
}
