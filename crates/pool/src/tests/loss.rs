//! Goal: for every class, any m fragments may be bad in any way and reads are right; what is within reach is whole
//! again afterwards; with one more bad, the error names the container.

use super::site::{Bad, Kept, Site, assert_lost, site, subsets};
use crate::CLASSES;

const WAYS: [Bad; 5] = [Bad::Missing, Bad::Flipped, Bad::Header, Bad::Unreadable, Bad::Down];

/// Media that give the class.
const MEDIA: [usize; 7] = [1, 2, 3, 4, 5, 6, 10];

fn check(site: &Site, kept: &Kept, bad: &[(usize, Bad)]) {
    let what = format!("{} {bad:?}", kept.id());
    bad.iter().for_each(|(index, way)| site.spoil(kept, *index, *way));
    site.run(site.read_all(kept)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let fragment = kept.stripe.fragment_bytes();
    for (index, _) in bad.iter().filter(|(index, _)| *index < kept.stripe.class.k) {
        site.run(site.read(kept, index * fragment + 10, fragment - 10)).unwrap();
    }
    // Parity is met by scrub only.
    site.settle();
    site.run(site.pool.scrub(&kept.stripe)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let downs = bad.iter().filter(|(_, way)| *way == Bad::Down).count();
    let width = kept.stripe.class.width();
    assert_eq!(site.run(site.whole(kept)), width - downs, "{what}");
    let repaired = site.repaired();
    site.run(site.read_all(kept)).unwrap();
    let members =
        bad.iter().filter(|(_, way)| *way == Bad::Down).map(|(index, _)| kept.stripe.members[*index]);
    members.for_each(|medium| site.give_back(medium));
    let report = site.run(site.pool.scrub(&kept.stripe)).unwrap();
    assert_eq!((report.sound, report.repaired, report.away), (width, 0, 0), "{what}");
    assert!(report.matching, "{what}");
    assert_eq!(site.repaired(), repaired, "{what}: nothing is left to repair");
}

#[test]
fn any_m_bad_fragments_are_survived_and_mended() {
    for (class, media) in CLASSES.iter().zip(MEDIA) {
        let site = site(media);
        let kept = site.put();
        assert_eq!(kept.stripe.class, *class);
        for (turn, bad) in subsets(class.width(), class.m).into_iter().enumerate() {
            let ways: Vec<Vec<Bad>> = match bad.len() {
                1 => WAYS.map(|way| vec![way]).to_vec(),
                // All pairs of ways for small stripes, one in turn for large ones.
                _ if class.width() <= 5 => {
                    WAYS.iter().flat_map(|a| WAYS.iter().map(move |b| vec![*a, *b])).collect()
                }
                _ => vec![vec![WAYS[turn % 5], WAYS[turn / 5 % 5]]],
            };
            for ways in ways {
                let bad: Vec<(usize, Bad)> = bad.iter().copied().zip(ways).collect();
                check(&site, &kept, &bad);
            }
        }
    }
}

#[test]
fn reads_repair_damaged_data_by_themselves() {
    for media in [2, 3, 4, 6, 10] {
        let site = site(media);
        for way in [Bad::Missing, Bad::Flipped, Bad::Header, Bad::Unreadable] {
            let kept = site.put();
            let index = kept.stripe.class.k - 1;
            site.spoil(&kept, index, way);
            site.run(site.read_all(&kept)).unwrap();
            site.settle();
            let found =
                if way == Bad::Header { kept.stripe.class.width() - 1 } else { kept.stripe.class.width() };
            // A damaged header harms no plain read: only a scrub or a verified read meets it.
            assert_eq!(site.run(site.whole(&kept)), found, "{media} media, {way:?}");
            assert!(site.pool.is_repaired());
        }
    }
}

#[test]
fn one_bad_fragment_too_many_is_lost_by_name() {
    for (class, media) in CLASSES.iter().zip(MEDIA) {
        for way in WAYS {
            let site = site(media);
            let kept = site.put();
            for index in 0..=class.m {
                site.spoil(&kept, index, way);
            }
            if way == Bad::Header {
                // The payloads still stand: a plain read gives them, and the check accepts them.
                site.run(site.read_all(&kept)).unwrap();
                continue;
            }
            assert_lost(site.run(site.read_all(&kept)), &kept);
            assert_lost(site.run(site.pool.mend(&kept.stripe)).map(drop), &kept);
            // What is sound is still given.
            let offset = (class.m + 1) * kept.stripe.fragment_bytes();
            if offset < kept.bytes.len() {
                site.run(site.read(&kept, offset, 100)).unwrap();
            }
            site.settle();
            assert_eq!(site.repaired(), 0, "nothing is written without k sound fragments");
        }
    }
}

#[test]
fn damage_in_different_pages_of_all_fragments_is_mended() {
    for way in [Bad::Flipped, Bad::Unreadable] {
        let site = site(4);
        let kept = site.put();
        assert!(kept.stripe.fragment_pages >= 8);
        for index in 0..4 {
            site.spoil_page(&kept, index, way, index as u64 / 2);
        }
        site.run(site.read_all(&kept)).unwrap();
        site.settle();
        assert_eq!(site.run(site.whole(&kept)), 4);
    }
}

#[test]
fn an_unreadable_page_of_zeros_is_not_taken_for_sound() {
    let site = site(6);
    // One byte: the second fragment is all zeros, as a page that could not be read might be taken for.
    let kept = site.put_bytes(1);
    site.spoil(&kept, 1, Bad::Unreadable);
    assert_eq!(site.run(site.pool.mend(&kept.stripe)).unwrap(), 1);
    assert_eq!(site.run(site.whole(&kept)), 6);
}
