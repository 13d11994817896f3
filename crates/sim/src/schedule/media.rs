//! Somebody who adds media, has others drained, thinks better of it, and replaces one that never comes back; and what
//! must be true once all has moved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use seam::Runtime;
use units::MediumId;

use crate::rng::Rng;
use crate::site::Member;

use super::plan::Family;
use super::world::World;

/// Time in which everything must have moved once the faults have stopped: several attempts of each kind.
const MOVED_MAX: Duration = Duration::from_secs(3000);
/// Pause between looks at it.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Media {
    world: Arc<World>,
    rng: Rng,
}

impl Media {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: world.clone(), rng: world.control.rng("media") }
    }

    pub(super) async fn run(mut self) {
        while !self.world.is_over() {
            let pause = self.rng.below(16 * self.world.plan.pause.as_nanos() as u64);
            self.world.rt.sleep(Duration::from_nanos(pause).max(Duration::from_millis(1))).await;
            match self.rng.below(6) {
                0 | 1 => {
                    self.add();
                }
                2 | 3 => self.drain().await,
                4 => self.keep(),
                _ => self.lose(),
            }
        }
    }

    fn spare(&self) -> Option<usize> {
        let members = self.world.site.members();
        let all = self.world.plan.spec.media..self.world.site.stores().len();
        // What has left does not come again.
        let last = members.iter().map(|member| member.number).max().unwrap_or(0);
        all.into_iter().find(|number| *number > last)
    }

    fn add(&mut self) -> bool {
        let Some(number) = self.spare() else { return false };
        self.world.note(format_args!("medium {number} joins"));
        self.world.site.add(number);
        true
    }

    /// As many stay as there were at first, and two at least.
    fn can_go(&self) -> bool {
        let staying = self.world.site.members().into_iter().filter(|member| !member.leaving).count();
        staying > self.world.plan.spec.media.max(2)
    }

    /// Whether another medium of its data node stays, where there are such: the site keeps its failure domains.
    fn is_spared(&self, number: usize) -> bool {
        let spec = &self.world.plan.spec;
        let stays = |member: &Member| {
            !member.leaving && member.number != number && spec.node_of(member.number) == spec.node_of(number)
        };
        spec.nodes < 2 || self.world.site.members().iter().any(stays)
    }

    async fn drain(&mut self) {
        if !self.can_go() && !self.add() {
            return;
        }
        let members = self.world.site.members();
        let Member { number, leaving } = members[self.rng.index(members.len())];
        if leaving || !self.is_spared(number) {
            return;
        }
        let Some(serving) = self.world.serving().await else { return };
        let id = self.world.site.ids()[number];
        let may = self.world.ask(&serving, None, move |engine| {
            Box::pin(async move { engine.check_leave(&[id], None).await })
        });
        match may.await {
            Ok(()) if self.can_go() && self.is_spared(number) => {
                self.world.note(format_args!("medium {number} is to leave"));
                self.world.site.set_leaving(number, true);
            }
            refused => self.world.note(format_args!("medium {number} does not leave: {refused:?}")),
        }
    }

    /// A drain is cancelled.
    fn keep(&mut self) {
        let banned = self.world.lock_banned();
        let mut leaving = self.world.site.members();
        leaving.retain(|member| member.leaving && Some(member.number) != banned);
        if let Some(member) = leaving.get(self.rng.index(leaving.len().max(1))) {
            self.world.note(format_args!("medium {} stays after all", member.number));
            self.world.site.set_leaving(member.number, false);
        }
    }

    /// A victim goes for good, and another takes its place.
    fn lose(&mut self) {
        let victims = &self.world.plan.victims;
        let Some(victim) = victims.get(self.rng.index(victims.len().max(1))).copied() else { return };
        let is_member = self.world.site.members().iter().any(|member| member.number == victim);
        let spec = &self.world.plan.spec;
        let Some(spare) = self.spare() else { return };
        let is_alike = spec.nodes < 2 || spec.node_of(spare) == spec.node_of(victim);
        if !is_member || !is_alike || !self.world.ban(victim) {
            return;
        }
        self.world.note(format_args!("medium {victim} goes for good"));
        self.add();
        self.world.site.set_leaving(victim, true);
    }
}

impl World {
    /// All that is to move has moved: every row is on media of the site, each once, and none is to leave.
    pub(super) async fn moved(&self, engine: &Engine) {
        if self.plan.family == Family::Beyond {
            return;
        }
        // One that never comes back is not kept after all.
        if let Some(banned) = self.lock_banned() {
            self.site.set_leaving(banned, true);
        }
        self.rt.sleep(self.plan.spec.rebuild_after + Duration::from_secs(5)).await;
        let until = self.now() + MOVED_MAX;
        while !engine.is_rebuilt() || self.site.members().iter().any(|member| member.leaving) {
            if self.plan.small {
                return;
            }
            if self.now() > until {
                let (moving, rows) = (engine.moving(), engine.pool().rows());
                let members = self.site.members();
                return self.wrong(format_args!("not all has moved: {members:?}, {moving:?}, {rows:?}"));
            }
            self.rt.sleep(PAUSE).await;
        }
        let members = self.site.members();
        let ids: BTreeSet<MediumId> = members.iter().map(|member| self.site.ids()[member.number]).collect();
        for row in engine.pool().rows() {
            let media: BTreeSet<MediumId> = row.members.iter().copied().collect();
            let numbers =
                row.members.iter().filter_map(|id| self.site.ids().iter().position(|other| other == id));
            let nodes: BTreeSet<usize> = numbers.map(|number| self.plan.spec.node_of(number)).collect();
            if nodes.len() != row.members.len() {
                self.wrong(format_args!("members of a row fail together: {row:?}"));
            }
            if media.len() != row.members.len() || !media.is_subset(&ids) || row.is_moving() {
                self.wrong(format_args!("a row is not where it should be: {row:?}, the site has {ids:?}"));
            }
        }
    }

    fn lock_banned(&self) -> Option<usize> {
        self.lock().banned
    }
}
