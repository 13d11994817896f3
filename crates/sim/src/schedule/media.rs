//! Somebody who adds media, has others drained, thinks better of it, and replaces one that never comes back; and what
//! must be true once all has moved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::types::{MediumState, Task, TaskKind, TaskState};
use engine::Engine;
use seam::Runtime;
use units::MediumId;

use crate::ground::{Life, Member};
use crate::rng::Rng;

use super::judge::in_life;
use super::plan::Family;
use super::world::{Serving, World};

/// Time in which everything must have moved once the faults have stopped: several attempts of each kind.
const MOVED_MAX: Duration = Duration::from_secs(3000);
/// Time in which a site with enough media takes writes.
const WRITABLE_MAX: Duration = Duration::from_secs(120);
/// Time in which a site says how it is.
const STATUS_MAX: Duration = Duration::from_secs(60);
/// What the status says of a medium that takes no part until the next start.
const BARRED: &str = "it may come back at the next start";
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
            let Some(serving) = self.world.serving().await else { return };
            match self.rng.below(6) {
                0 | 1 => drop(self.add(&serving).await),
                2 | 3 => self.drain(&serving).await,
                4 => self.keep(&serving).await,
                _ => self.lose(&serving).await,
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

    async fn add(&mut self, serving: &Serving) -> bool {
        let Some(number) = self.spare() else { return false };
        let path = self.world.site.path(number);
        let added = self
            .world
            .ask_site(serving, move |site| Box::pin(async move { site.add_medium(&path, None).await }));
        let added = added.await;
        self.world.note(format_args!("medium {number} joins: {added:?}"));
        added.is_ok()
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

    async fn drain(&mut self, serving: &Serving) {
        if !self.can_go() && !self.add(serving).await {
            return;
        }
        let members = self.world.site.members();
        let Member { number, leaving, .. } = members[self.rng.index(members.len())];
        if !leaving && self.can_go() && self.is_spared(number) {
            self.world.drain(serving, number).await;
        }
    }

    /// A drain is cancelled.
    async fn keep(&mut self, serving: &Serving) {
        let banned = self.world.lock_banned();
        let is_kept = self.world.site.members().iter().any(|m| m.leaving && Some(m.number) != banned);
        if !is_kept {
            return;
        }
        let kept = self.world.ask_site(serving, |site| {
            Box::pin(async move {
                let tasks = site.tasks().tasks().await?;
                let drains = |task: &&Task| task.kind == TaskKind::Drain && task.state == TaskState::Running;
                if let Some(task) = tasks.iter().find(drains) {
                    site.tasks().cancel_work(task.id).await?;
                }
                Ok(())
            })
        });
        let kept = kept.await;
        self.world.note(format_args!("what drains is to stay after all: {kept:?}"));
    }

    /// A victim goes for good, and another takes its place.
    async fn lose(&mut self, serving: &Serving) {
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
        self.add(serving).await;
        self.world.drain(serving, victim).await;
    }
}

impl World {
    /// A medium is to leave.
    async fn drain(&self, serving: &Serving, number: usize) {
        let Some(member) = self.site.members().into_iter().find(|member| member.number == number) else {
            return;
        };
        let asked =
            self.ask_site(serving, move |site| Box::pin(async move { site.drain_medium(member.id).await }));
        let asked = asked.await.map(|task| task.id);
        self.note(format_args!("medium {number} is to leave: {asked:?}"));
    }

    /// All that is to move has moved: every row is on media of the site, each once, and none is to leave.
    pub(super) async fn moved(&self, life: &Life, engine: &Engine) {
        if self.plan.family == Family::Beyond {
            return;
        }
        self.rt.sleep(self.plan.spec.rebuild_after + Duration::from_secs(5)).await;
        let until = self.now() + MOVED_MAX;
        let banned = self.lock_banned();
        while !engine.is_rebuilt()
            || self.site.members().iter().any(|m| m.leaving || Some(m.number) == banned)
        {
            if self.plan.small {
                return;
            }
            if self.now() > until {
                let (moving, rows) = (engine.moving(), engine.pool().rows());
                let members = self.site.members();
                return self.wrong(format_args!("not all has moved: {members:?}, {moving:?}, {rows:?}"));
            }
            self.leave_behind(life).await;
            self.rt.sleep(PAUSE).await;
        }
        let members = self.site.members();
        let ids: BTreeSet<MediumId> = members.iter().map(|member| member.id).collect();
        for row in engine.pool().rows() {
            let media: BTreeSet<MediumId> = row.members.iter().copied().collect();
            let numbers = row
                .members
                .iter()
                .filter_map(|id| members.iter().find(|member| member.id == *id).map(|member| member.number));
            let nodes: BTreeSet<usize> = numbers.map(|number| self.plan.spec.node_of(number)).collect();
            if nodes.len() != row.members.len() {
                self.wrong(format_args!("members of a row fail together: {row:?}"));
            }
            if media.len() != row.members.len() || !media.is_subset(&ids) || row.is_moving() {
                self.wrong(format_args!("a row is not where it should be: {row:?}, the site has {ids:?}"));
            }
        }
    }

    /// Whether a medium is down that is to come back.
    pub(super) fn is_one_away(&self, engine: &Engine) -> bool {
        let banned = self.lock_banned();
        let members = self.site.members();
        let is_banned = |id| members.iter().any(|member| member.id == id && Some(member.number) == banned);
        engine.pool().health().iter().any(|health| !health.up && !is_banned(health.medium))
    }

    /// Whether too few media are up to acknowledge a write, and the others come back at the next start alone.
    pub(super) async fn waits_for_a_start(&self, life: &Life, engine: &Engine) -> bool {
        let (mut all, mut up) = (Vec::new(), Vec::new());
        for health in engine.pool().health() {
            all.push(health.medium);
            up.extend(health.up.then_some(health.medium));
        }
        let pool = engine.pool();
        let Some(site) = life.site().filter(|_| pool.domains(&up).len() < pool.domains(&all).len().min(2))
        else {
            return false;
        };
        let status = in_life(life, async move { site.status().await });
        let Ok(Some(Ok(status))) = seam::timeout(&*self.rt, STATUS_MAX, status).await else { return false };
        let mut down = status.media.iter().filter(|medium| medium.state == MediumState::Down);
        down.all(|medium| medium.reason.as_deref().is_some_and(|reason| reason.ends_with(BARRED)))
    }

    /// Another medium takes the place of one that never comes back, where none has yet and too few are left without it.
    pub(super) async fn replace_banned(&self, life: &Life) {
        let (Some(site), Some(banned)) = (life.site(), self.lock_banned()) else { return };
        let (members, engine) = (self.site.members(), site.engine().clone());
        let spec = &self.plan.spec;
        let is_alike = |number: &usize| spec.nodes < 2 || spec.node_of(*number) == spec.node_of(banned);
        let spares = (spec.media..self.site.stores().len())
            .filter(is_alike)
            .filter(|number| !members.iter().any(|member| member.number == *number));
        // One whose formatting was cut off holds something, and is left untouched: another takes its turn.
        for spare in spares {
            if engine.is_writable() {
                break;
            }
            let (site, path) = (site.clone(), self.site.path(spare));
            let added = in_life(life, async move { site.add_medium(&path, None).await }).await;
            self.note(format_args!("medium {spare} joins: {added:?}"));
            if !matches!(added, Some(Err(_))) {
                break;
            }
        }
        let until = self.now() + WRITABLE_MAX;
        while !engine.is_writable() && self.now() < until {
            self.rt.sleep(PAUSE).await;
        }
    }

    /// One that never comes back is not kept after all.
    async fn leave_behind(&self, life: &Life) {
        let Some(banned) = self.lock_banned() else { return };
        let stays = self.site.members().iter().any(|member| member.number == banned && !member.leaving);
        if let Some(site) = life.site().filter(|_| stays) {
            let serving = Serving { engine: site.engine().clone(), site, rt: life.runtime() };
            self.drain(&serving, banned).await;
        }
    }

    fn lock_banned(&self) -> Option<usize> {
        self.lock().banned
    }
}
