//! Goal: a link does what its policy says, in about the share it says, and the same for the same seed.

use super::*;
use crate::{Limits, MILLION, Simulation};

fn fates(seed: u64, policy: LinkPolicy) -> (Vec<Fate>, LinkCounts, u128) {
    let sim = Simulation::new(seed, Limits::default());
    let mut link = Link::new(&sim, "a-b", policy);
    let fates = (0..10_000).map(|number| link.decide(Duration::from_micros(number * 10))).collect();
    (fates, link.counts(), sim.digest())
}

#[test]
fn a_sound_link_keeps_order() {
    let (fates, counts, _) = fates(1, LinkPolicy::default());
    let mut last = Duration::ZERO;
    for (number, fate) in (0..).zip(fates) {
        let Fate::Deliver(after) = fate else { panic!("{fate:?}") };
        assert!(after >= Duration::from_micros(50));
        let arrival = Duration::from_micros(number * 10) + after;
        assert!(arrival >= last);
        last = arrival;
    }
    assert_eq!(counts, LinkCounts { delivered: 10_000, ..LinkCounts::default() });
}

#[test]
fn rates_are_kept_and_replay() {
    let policy =
        LinkPolicy { drop_ppm: 100_000, twice_ppm: 50_000, reorder_ppm: MILLION, ..LinkPolicy::default() };
    let (first, counts, digest) = fates(2, policy);
    assert!((800..1200).contains(&counts.dropped), "{counts:?}");
    assert!((350..550).contains(&counts.doubled) && counts.overtook > 1000, "{counts:?}");
    assert_eq!(first.iter().filter(|fate| **fate == Fate::Drop).count() as u64, counts.dropped);
    assert_eq!(fates(2, policy), (first, counts, digest));
    assert_ne!(digest, fates(3, policy).2);
}

#[test]
fn a_cut_link_loses_everything() {
    let sim = Simulation::new(1, Limits::default());
    let mut link = Link::new(&sim, "a-b", LinkPolicy::default());
    link.set_cut(true);
    assert_eq!(link.decide(Duration::ZERO), Fate::Drop);
    link.set_cut(false);
    assert!(matches!(link.decide(Duration::ZERO), Fate::Deliver(_)));
    assert_eq!((link.counts().cut, link.counts().delivered), (1, 1));
}
