//! Goal: stripes use distinct media, load and parity spread evenly at every moment.

use std::collections::BTreeSet;

use super::site::{alone, medium_id};
use crate::geometry::{CLASSES, class_for, turn_over};
use crate::health::Health;
use journal::Fitness;
use units::{MediumId, NodeId};

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
                let members = turn_over(&alone(&media), width, turn);
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
fn stripes_turn_over_nodes_and_the_media_of_each() {
    for (nodes, media) in [(2, 3), (3, 1), (3, 2), (3, 4), (4, 5), (6, 2), (7, 3), (10, 4), (12, 2)] {
        let domains: Vec<Vec<_>> =
            (0..nodes).map(|node| (0..media).map(|i| medium_id(node * media + i)).collect()).collect();
        let width = class_for(nodes).unwrap().width();
        let mut held = vec![0_u64; nodes * media];
        let mut indices = vec![BTreeSet::new(); nodes * media];
        let all = nodes * nodes * media;
        for turn in 0..2 * all as u64 {
            let members = turn_over(&domains, width, turn);
            let of: BTreeSet<usize> = members
                .iter()
                .map(|member| domains.iter().position(|media| media.contains(member)).unwrap())
                .collect();
            assert_eq!(of.len(), width, "nodes are distinct");
            for (index, member) in members.iter().enumerate() {
                let medium = (0..nodes * media).find(|i| medium_id(*i) == *member).unwrap();
                held[medium] += 1;
                indices[medium].insert(index);
            }
            let spread = held.iter().max().unwrap() - held.iter().min().unwrap();
            assert!(spread <= 2, "{nodes} nodes with {media} media, turn {turn}: {held:?}");
        }
        let least = indices.iter().map(BTreeSet::len).min().unwrap();
        assert!(least > 1 || width == 1, "{nodes} nodes with {media} media: one medium holds one index only");
    }
}

#[test]
fn nodes_fail_whole() {
    let media: Vec<_> = (0..6).map(medium_id).collect();
    let on = |nodes: &[u8]| {
        let mut health = Health::new(&media, &media, std::time::Duration::ZERO);
        nodes.iter().zip(&media).for_each(|(node, medium)| health.set_node(*medium, NodeId([*node; 16])));
        health
    };
    let six = on(&[]);
    assert_eq!((six.domains(&media).len(), six.survives(&media, 4), six.survives(&media[..3], 1)), (6, 2, 2));
    let one = on(&[1, 1, 1, 1, 1, 1]);
    assert_eq!(
        (one.domains(&media).len(), one.ensemble(3).len()),
        (6, 3),
        "one node: media fail by themselves"
    );
    let mut three = on(&[1, 2, 3, 1, 2, 3]);
    assert_eq!(three.domains(&media), [[0, 3], [1, 4], [2, 5]].map(|pair| pair.map(medium_id).to_vec()));
    assert!(
        three.fail_together(medium_id(0), medium_id(3)) && !three.fail_together(medium_id(0), medium_id(1))
    );
    assert_eq!(three.survives(&media[..3], 1), 2, "a fragment on each of three nodes");
    assert_eq!(three.survives(&media, 4), 1, "two fragments on each of three nodes: one node may go");
    assert_eq!(three.survives(&media, 5), 0);
    let mut used = BTreeSet::new();
    for turn in 0..12 {
        let ensemble = three.ensemble(turn);
        assert_eq!(three.domains(&ensemble).len(), 3, "{ensemble:?}");
        used.extend(ensemble);
    }
    assert_eq!(used.len(), 6, "segments spread over all media");
    three.failed(medium_id(1), "test", std::time::Duration::ZERO);
    assert_eq!(three.domains(&three.fit()).len(), 3, "the other medium of its node goes on");
    three.failed(medium_id(4), "test", std::time::Duration::ZERO);
    assert_eq!((three.domains(&three.fit()).len(), three.ensemble(0).len()), (2, 2));
    assert_eq!(three.survives(&media[..3], 1), 1);
    for medium in [0, 3] {
        assert!(three.failed(medium_id(medium), "test", std::time::Duration::ZERO));
    }
    assert!(three.ensemble(0).is_empty(), "one node of three is no redundancy");
}

#[test]
fn too_few_media_give_no_row() {
    assert!(turn_over(&[], 1, 0).is_empty());
    assert!(turn_over(&alone(&[medium_id(0)]), 2, 7).is_empty());
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

#[test]
fn spares_go_on_without_what_failed_and_are_as_wide() {
    for nodes in 1..=6_usize {
        for media_of_each in 1..=3 {
            let media: Vec<_> = (0..nodes * media_of_each).map(medium_id).collect();
            let mut health = Health::new(&media, &media, std::time::Duration::ZERO);
            for (at, medium) in media.iter().enumerate() {
                health.set_node(*medium, NodeId([(at % nodes) as u8; 16]));
            }
            let domains = health.domains(&media).len();
            for turn in 0..9 {
                let ensemble = health.ensemble(turn);
                assert_eq!(health.fitness(&ensemble), Fitness::Fit);
                for lost in &ensemble {
                    let spare = health.spare(turn, *lost);
                    let why = format!("{nodes} nodes with {media_of_each} media: {spare:?} for {lost}");
                    if domains > ensemble.len() {
                        let fails = |medium: &MediumId| health.fail_together(*medium, *lost);
                        assert!(!spare.is_empty() && !spare.iter().any(fails), "{why}");
                    } else {
                        assert_eq!(spare.is_empty(), media.len() == domains, "{why}");
                        assert!(!spare.contains(lost), "{why}");
                    }
                    let fitness = if spare.is_empty() { Fitness::Unfit } else { Fitness::Fit };
                    assert_eq!(health.fitness(&spare), fitness, "{why}");
                }
            }
        }
    }
}

#[test]
fn an_ensemble_is_fit_as_long_as_no_better_one_is_chosen() {
    let now = std::time::Duration::ZERO;
    let media: Vec<_> = (0..4).map(medium_id).collect();
    let mut health = Health::new(&media, &media, now);
    let pair = &media[..2];
    assert_eq!(health.fitness(&media[..3]), Fitness::Fit);
    assert_eq!(health.fitness(pair), Fitness::Stopgap, "three could hold it");
    assert_eq!(health.fitness(&media[..1]), Fitness::Unfit);
    assert_eq!(health.fitness(&[]), Fitness::Unfit);
    health.set_leaving(medium_id(0), true, now);
    assert_eq!(health.fitness(&media[..3]), Fitness::Stopgap, "one is leaving");
    health.failed(medium_id(2), "test", now);
    assert_eq!(health.fitness(&media[..3]), Fitness::Unfit, "one is down");
    assert_eq!(health.fitness(&[medium_id(1), medium_id(3)]), Fitness::Fit, "no more are there");
    health.forget(medium_id(3), now);
    assert_eq!(health.fitness(&[medium_id(1), medium_id(3)]), Fitness::Unfit, "one is none of the site's");
    (0..3).for_each(|at| health.set_node(medium_id(at), NodeId([at as u8 / 2; 16])));
    health.restored(medium_id(2), now);
    assert_eq!(health.fitness(pair), Fitness::Unfit, "two of one node");
}
