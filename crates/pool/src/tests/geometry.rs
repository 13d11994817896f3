//! Goal: stripes use distinct media, load and parity spread evenly at every moment.

use std::collections::BTreeSet;

use super::site::medium_id;
use crate::geometry::{CLASSES, class_for, turn_over};
use crate::health::Health;

#[test]
fn classes_follow_the_media_that_are_up() {
    let of = |up| class_for(up).map(|class| (class.k, class.m));
    assert_eq!(of(0), None);
    let expected = [(1, 0), (1, 1), (1, 2), (2, 2), (3, 2), (4, 2), (4, 2), (4, 2), (4, 2), (8, 2), (8, 2)];
    for (at, class) in expected.into_iter().enumerate() {
        assert_eq!(of(at + 1), Some(class), "{} media", at + 1);
    }
    for (number, class) in CLASSES.iter().enumerate() {
        assert_eq!(usize::from(class.number), number, "numbers stand in container ids");
    }
}

#[test]
fn stripes_turn_over_all_media() {
    for count in 1..=13 {
        let media: Vec<_> = (0..count).map(medium_id).collect();
        let width = class_for(count).unwrap().width();
        for start in [0, 1, 5, 1000, u64::MAX - 400] {
            let mut held = vec![0_u64; count];
            let mut indices = vec![BTreeSet::new(); count];
            let mut rows = BTreeSet::new();
            for turn in start..start + 400 {
                let members = turn_over(&media, width, turn);
                assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), width, "media are distinct");
                for (index, member) in members.iter().enumerate() {
                    let medium = media.iter().position(|id| id == member).unwrap();
                    held[medium] += 1;
                    indices[medium].insert(index);
                }
                rows.insert(members);
                let spread = held.iter().max().unwrap() - held.iter().min().unwrap();
                assert!(spread <= 2, "{count} media from {start}: {held:?}");
            }
            assert_eq!(rows.len(), count, "one row for each start");
            assert!(indices.iter().all(|all| all.len() == width), "each medium holds each index in turn");
        }
    }
}

#[test]
fn too_few_media_give_no_row() {
    assert!(turn_over(&[], 1, 0).is_empty());
    assert!(turn_over(&[medium_id(0)], 2, 7).is_empty());
}

#[test]
fn ensembles_have_distinct_media_that_are_up() {
    for count in 1..=9 {
        let media: Vec<_> = (0..count).map(medium_id).collect();
        for down in 0..count {
            let health = Health::new(&media, &media[down..], std::time::Duration::ZERO);
            let up = count - down;
            let wanted = if up < count.min(2) { 0 } else { up.min(3) };
            let mut used = BTreeSet::new();
            for turn in 0..20 {
                let ensemble = health.ensemble(turn);
                assert_eq!(ensemble.len(), wanted, "{up} of {count} up");
                assert_eq!(ensemble.iter().collect::<BTreeSet<_>>().len(), wanted);
                assert!(ensemble.iter().all(|medium| health.is_up(*medium)));
                used.extend(ensemble);
            }
            assert_eq!(used.len(), if wanted == 0 { 0 } else { up }, "segments spread over all media");
        }
    }
}
