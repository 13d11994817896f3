//! Goal: what the pool says will fit does fit; a full medium stops no more than it must.

use proptest::prelude::*;

use proto::CallErrorKind;
use units::MediumId;

use super::script::{Fate, Kind};
use super::site::{CONTAINER_BYTES, Site, medium_id, site, site_of};
use crate::PoolErrorKind;
use crate::geometry::{class_for, turn_over};
use crate::space::{of_domain, stripes};

/// Bytes of a builder that fills a container.
const FULL: usize = CONTAINER_BYTES as usize - 64 - 22 * 32;

fn fill(site: &Site) -> u64 {
    let mut count = 0;
    loop {
        match site.run(site.write(FULL)) {
            Ok(_) => count += 1,
            Err(error) => {
                assert_eq!(error.kind, PoolErrorKind::NoSpace, "{error}");
                return count;
            }
        }
    }
}

#[test]
fn what_is_promised_fits() {
    let small = 400 * 1024;
    for media in 1..=12 {
        let site = site_of(&vec![small; media]);
        let space = site.run(site.pool.refresh_space());
        assert!(space.containers > 0, "{media} media");
        assert_eq!(space.raw_capacity, small * media as u64);
        assert_eq!((space.raw_used, space.usable()), (0, space.containers * u64::from(CONTAINER_BYTES)));
        let count = fill(&site);
        assert!(count >= space.containers, "{media} media: {count} of {space:?}");
        assert!(count <= space.containers + 5, "{media} media: {count} of {space:?}");
        let full = site.run(site.pool.refresh_space());
        assert!(full.containers <= 1 && full.raw_used > 0, "{full:?}");
        let fragments = site.run(site.all_fragments()).len() as u64;
        let width = class_for(media).unwrap().width() as u64;
        assert_eq!(fragments, count * width, "given-up stripes are gone, or the room would be");
    }
}

/// What ends the room while much is left elsewhere is named, empty and full; where all fill alike nothing is.
#[test]
fn the_medium_that_is_full_first_is_named() {
    let (small, large) = (400 << 10, 1000 << 10);
    for (sizes, named) in [
        (vec![large; 6], None),
        (vec![large, large, small, large, large, large], Some(2)),
        // The others go on without it.
        (vec![large, small, large, large, large, large, large], None),
        (vec![small, large, large, small, large, large, large], Some(0)),
        (vec![large], None),
        (vec![large, small], Some(1)),
    ] {
        let site = site_of(&sizes);
        for is_full in [false, true] {
            if is_full {
                fill(&site);
            }
            let limit = site.run(site.pool.refresh_space()).limit;
            let is_small = |medium: MediumId| sizes[usize::from(medium.0[0]) - 1] == small;
            assert_eq!(limit.is_some(), named.is_some(), "{sizes:?} {is_full}: {limit:?}");
            if let Some(limit) = limit {
                assert!(is_small(limit.medium), "{sizes:?}: {limit:?}");
                assert!(limit.stranded_bytes >= (large - small) / 2, "{sizes:?}: {limit:?}");
            }
        }
    }
}

/// Holes that each take half a container, and none that takes a whole one: they count as room, and are filled.
#[test]
fn room_in_pieces_takes_smaller_containers() {
    const HALF: u64 = CONTAINER_BYTES as u64 / 2;
    let half = HALF as usize - 64 - 22 * 32;
    let site = site_of(&[1 << 20; 3]);
    let mut written = Vec::new();
    while let Ok(one) = site.run(site.write(half)) {
        written.push(one.built.head.container);
    }
    let whole = site.run(site.pool.refresh_space());
    assert_eq!((whole.containers, whole.place_bytes), (0, 0), "{} fill it", written.len());
    let freed: Vec<_> = written.iter().step_by(2).copied().collect();
    freed.iter().for_each(|container| site.run(site.pool.delete(*container)));
    let space = site.run(site.pool.refresh_space());
    assert_eq!(space.place_bytes, HALF, "{space:?}");
    assert!(space.containers >= freed.len() as u64 / 2 - 1, "{space:?} where {} are free", freed.len());
    assert_eq!(site.run(site.write(FULL)).unwrap_err().kind, PoolErrorKind::NoSpace);
    site.run(site.pool.refresh_space());
    let again = std::iter::from_fn(|| site.run(site.write(half)).ok()).count();
    assert_eq!(again, freed.len());
}

#[test]
fn a_small_medium_is_left_out_when_it_is_full() {
    // Seven media, six to a stripe.
    let site = site_of(&[200 << 10, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20]);
    let promised = site.run(site.pool.refresh_space()).containers;
    let count = fill(&site);
    assert!(count >= promised && count > 35, "{count} of {promised}: the six others were filled");
    let health = site.pool.health();
    assert!(health[0].full && health[0].up);
    // With six media all are needed.
    let site = site_of(&[200 << 10, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20]);
    let promised = site.run(site.pool.refresh_space()).containers;
    let count = fill(&site);
    assert!((promised..promised + 2).contains(&count), "{count} of {promised}");
}

#[test]
fn a_medium_with_room_again_takes_part_again() {
    let site = site(7);
    let medium = medium_id(0);
    site.script.strike_all(Kind::Write, medium, Fate::Refused(CallErrorKind::NoSpace));
    (0..7).for_each(|_| drop(site.put()));
    assert!(site.pool.health()[0].full);
    site.script.clear();
    assert!((0..7).all(|_| !site.put().stripe.members.contains(&medium)), "it is known to be full");
    site.run(site.pool.refresh_space());
    assert!(!site.pool.health()[0].full);
    assert!((0..7).any(|_| site.put().stripe.members.contains(&medium)));
}

#[test]
fn a_stale_report_of_a_full_medium_ends_with_a_write() {
    let site = site(3);
    site.script.strike(Kind::Write, 1, 1, Fate::Refused(CallErrorKind::NoSpace));
    let error = site.run(site.write(FULL)).unwrap_err();
    assert_eq!(error.kind, PoolErrorKind::NoSpace);
    assert_eq!(site.pool.health().iter().filter(|health| health.full).count(), 1);
    site.put();
    assert!(site.pool.health().iter().all(|health| !health.full));
}

#[test]
fn media_on_one_file_system_share_its_room() {
    let site = site(3);
    let space = site.run(site.pool.refresh_space());
    let alone = space.containers;
    assert_eq!(space.containers_on_media, alone);
    // The file systems below have room for three fragments with their headers each, or for one in all.
    site.disks.iter().for_each(|disk| disk.set_room(3 * (CONTAINER_BYTES as u64 + 4096)));
    let shared = site.run(site.pool.refresh_space());
    assert_eq!((shared.containers, alone > 50), (1, true), "each medium counts on a third");
    assert_eq!(shared.containers_on_media, alone, "what the media alone would take is known");
}

#[test]
fn space_counts_the_media_that_are_up() {
    let site = site(6);
    let all = site.run(site.pool.refresh_space());
    site.take(medium_id(2));
    let five = site.run(site.pool.refresh_space());
    assert_eq!(five.raw_capacity, all.raw_capacity / 6 * 5);
    assert!(five.containers > 0 && five.containers < all.containers);
    assert_eq!(site.pool.space(), five);
    [0, 1, 3, 4].into_iter().for_each(|number| site.take(medium_id(number)));
    let none = site.run(site.pool.refresh_space());
    assert_eq!((none.containers, none.container_bytes), (0, CONTAINER_BYTES.into()));
}

/// Stripes that really fit when writes go on from turn `turn` as `Pool::write` places them.
fn fitting(fits: &[Vec<u64>], width: usize, turn: u64) -> u64 {
    let mut left: Vec<u64> = fits.concat();
    let mut full = vec![false; left.len()];
    let mut count = 0;
    for turn in turn.. {
        let mut numbers = 0..left.len();
        let mut domains: Vec<Vec<MediumId>> = Vec::new();
        for domain in fits {
            let media = numbers.by_ref().take(domain.len()).filter(|i| !full[*i]).map(medium_id);
            domains.push(media.collect());
        }
        domains.retain(|media| !media.is_empty());
        if domains.len() < width {
            break;
        }
        let members: Vec<usize> =
            turn_over(&domains, width, turn).iter().map(|member| usize::from(member.0[0]) - 1).collect();
        let without: Vec<usize> = members.iter().copied().filter(|member| left[*member] == 0).collect();
        if without.is_empty() {
            members.iter().for_each(|member| left[*member] -= 1);
            count += 1;
        }
        without.into_iter().for_each(|member| full[member] = true);
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn promised_stripes_fit_from_any_turn(fits in prop::collection::vec(0_u64..60, 1..13), turn in 0_u64..1000) {
        let width = class_for(fits.len()).unwrap().width();
        let alone: Vec<Vec<u64>> = fits.iter().map(|fit| vec![*fit]).collect();
        let (promised, real) = (stripes(&fits, width), fitting(&alone, width, turn));
        prop_assert!(promised <= real, "{} promised, {} fit", promised, real);
        if fits.len() == width {
            prop_assert_eq!(promised, real);
        }
    }

    #[test]
    fn promised_stripes_fit_on_nodes(
        fits in prop::collection::vec(prop::collection::vec(0_u64..40, 1..5), 1..13),
        turn in 0_u64..1000,
    ) {
        let width = class_for(fits.len()).unwrap().width();
        let of: Vec<u64> = fits.iter().map(|media| of_domain(media)).collect();
        let (promised, real) = (stripes(&of, width), fitting(&fits, width, turn));
        prop_assert!(promised <= real, "{} promised, {} fit", promised, real);
    }
}

#[test]
fn no_stripe_fits_on_too_few_media() {
    assert_eq!(stripes(&[], 1), 0);
    assert_eq!(stripes(&[5], 2), 0);
    assert_eq!(stripes(&[5, 0], 2), 0);
    assert_eq!(stripes(&[5], 0), 0);
    assert_eq!(stripes(&[u64::MAX / 4; 10], 10), u64::MAX / 4);
}
