//! Goal: after any sequence of writes, losses, returns, damage and reads, a container reads right exactly when k
//! fragments of it are sound and within reach; and when all media are back, everything heals.

use std::collections::BTreeSet;

use proptest::prelude::*;
use units::{ContainerId, MediumId};

use super::site::{Bad, Kept, Site, assert_lost, medium_id, site};
use crate::PoolErrorKind;

#[derive(Debug, Clone)]
enum Op {
    Write { bytes: usize },
    Take { medium: usize },
    Return { medium: usize },
    Spoil { container: usize, index: usize, bad: Bad, page: u64 },
    Read { container: usize, offset: usize, length: usize },
    ReadAll { container: usize },
    Scrub { container: usize },
    Settle,
}

fn op() -> impl Strategy<Value = Op> {
    let bad = prop::sample::select(vec![Bad::Missing, Bad::Flipped, Bad::Header, Bad::Unreadable]);
    let any = 0_usize..1000;
    prop_oneof![
        3 => (1_usize..60_000).prop_map(|bytes| Op::Write { bytes }),
        2 => any.clone().prop_map(|medium| Op::Take { medium }),
        2 => any.clone().prop_map(|medium| Op::Return { medium }),
        3 => (any.clone(), any.clone(), bad, 0_u64..16)
            .prop_map(|(container, index, bad, page)| Op::Spoil { container, index, bad, page }),
        4 => (any.clone(), any.clone(), any.clone())
            .prop_map(|(container, offset, length)| Op::Read { container, offset, length }),
        2 => any.clone().prop_map(|container| Op::ReadAll { container }),
        1 => any.prop_map(|container| Op::Scrub { container }),
        2 => Just(Op::Settle),
    ]
}

struct World {
    site: Site,
    kept: Vec<Kept>,
    away: BTreeSet<MediumId>,
}

impl World {
    fn pick(&self, container: usize) -> Option<&Kept> {
        (!self.kept.is_empty()).then(|| &self.kept[container % self.kept.len()])
    }

    fn sound(&self, kept: &Kept) -> usize {
        (0..kept.stripe.class.width()).filter(|index| self.site.run(self.site.is_sound(kept, *index))).count()
    }

    /// Damage as long as the container stays readable when all media are back, and its fragment can be reached.
    fn spoil(&self, kept: &Kept, index: usize, bad: Bad, page: u64) {
        let width = kept.stripe.class.width();
        let index = index % width;
        let members = &kept.stripe.members;
        let hidden = members.iter().filter(|medium| self.away.contains(medium)).count();
        let reachable = !self.away.contains(&members[index]);
        let sound = self.sound(kept);
        let is_sound = reachable && self.site.run(self.site.is_sound(kept, index));
        // What is away may be damaged already: it counts as lost.
        if is_sound && sound > kept.stripe.class.k && hidden <= sound {
            self.site.spoil_page(kept, index, bad, page % u64::from(kept.stripe.fragment_pages));
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Write { bytes } => match self.site.run(self.site.write(bytes)) {
                Ok(written) => {
                    let kept = self.site.kept(&written);
                    assert!(kept.stripe.members.iter().all(|medium| !self.away.contains(medium)));
                    self.kept.push(kept);
                }
                Err(error) => {
                    assert_eq!(error.kind, PoolErrorKind::TooFewMedia, "{error}");
                    assert!(self.site.ids.len() - self.away.len() < 2, "{error}");
                }
            },
            Op::Take { medium } => {
                let medium = medium_id(medium % self.site.ids.len());
                self.site.take(medium);
                self.away.insert(medium);
            }
            Op::Return { medium } => {
                let medium = medium_id(medium % self.site.ids.len());
                self.site.give_back(medium);
                self.away.remove(&medium);
            }
            Op::Spoil { container, index, bad, page } => {
                if let Some(kept) = self.pick(container) {
                    self.spoil(kept, index, bad, page);
                }
            }
            Op::Read { container, offset, length } => {
                if let Some(kept) = self.pick(container) {
                    let offset = offset * 64 % kept.bytes.len();
                    self.read(kept, offset, (length * 16).clamp(1, kept.bytes.len() - offset));
                }
            }
            Op::ReadAll { container } => {
                if let Some(kept) = self.pick(container) {
                    self.read(kept, 0, kept.bytes.len());
                }
            }
            Op::Scrub { container } => {
                if let Some(kept) = self.pick(container) {
                    self.scrub(kept);
                }
            }
            Op::Settle => self.site.settle(),
        }
    }

    fn read(&self, kept: &Kept, offset: usize, length: usize) {
        let enough = self.sound(kept) >= kept.stripe.class.k;
        match self.site.run(self.site.read(kept, offset, length)) {
            Ok(()) => {}
            Err(error) => {
                assert!(!enough, "{error}");
                assert_lost(Err(error), kept);
            }
        }
    }

    fn scrub(&self, kept: &Kept) {
        let enough = self.sound(kept) >= kept.stripe.class.k;
        match self.site.run(self.site.pool.scrub(&kept.stripe)) {
            Ok(report) => {
                assert_eq!(report.sound + report.repaired + report.away, kept.stripe.class.width());
                assert!(report.matching);
                assert_eq!(self.sound(kept), report.sound + report.repaired);
            }
            Err(error) => {
                assert!(!enough, "{error}");
                assert_lost(Err(error), kept);
            }
        }
    }

    fn heal(&mut self) {
        for medium in self.site.ids.clone() {
            self.apply(&Op::Return { medium: self.site.number(medium) });
        }
        self.site.settle();
        let committed: BTreeSet<ContainerId> = self.kept.iter().map(Kept::id).collect();
        for medium in &self.site.ids {
            let report =
                self.site.run(self.site.pool.reconcile(*medium, &|id| committed.contains(&id), &|_| ()));
            assert!(report.complete && report.left == 0);
        }
        for kept in &self.kept {
            let report = self.site.run(self.site.pool.scrub(&kept.stripe)).unwrap();
            assert_eq!(
                self.site.run(self.site.whole(kept)),
                kept.stripe.class.width(),
                "{} after {report:?}",
                kept.id()
            );
            self.site.run(self.site.read_all(kept)).unwrap();
        }
        let mut expected: Vec<(ContainerId, u8)> = Vec::new();
        for kept in &self.kept {
            expected.extend((0..kept.stripe.class.width()).map(|index| (kept.id(), index as u8)));
        }
        expected.sort_unstable();
        assert_eq!(
            self.site.run(self.site.all_fragments()),
            expected,
            "the media hold the containers, no more"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn reads_are_right_or_lost_and_everything_heals(
        media in 2_usize..11,
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = World { site: site(media), kept: Vec::new(), away: BTreeSet::new() };
        ops.iter().for_each(|op| world.apply(op));
        world.heal();
    }
}
