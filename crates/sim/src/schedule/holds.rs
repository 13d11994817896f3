//! The administrator's holds, clocks that jump, and deletions of what is held.

use std::collections::BTreeMap;

use engine::{Engine, EngineError, EngineErrorKind};
use meta::Txn;
use seam::Runtime;
use units::{ContainerId, DiskId};

use crate::ground::Life;

use super::admin::Admin;
use super::judge::in_life;
use super::plan::Family;
use super::world::{Serving, Unanswered, World};

/// How long disks are held, ms: some end within a schedule, some with it.
const SPANS_MS: [u64; 5] = [1, 100, 10_000, 3_600_000, 30 * DAY_MS];
/// How far a wall clock jumps, ms.
const JUMPS_MS: [i64; 4] = [50, 60_000, 86_400_000, 40 * 86_400_000];
const DAY_MS: u64 = 86_400_000;

/// What is known of holds.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Until when disks are held for certain, site time in ms.
    certain: BTreeMap<DiskId, u64>,
    /// Until when they may be: of some nobody heard the answer.
    at_most: BTreeMap<DiskId, u64>,
    /// The latest of them all.
    latest_ms: u64,
    /// The highest site time that was kept.
    kept_ms: u64,
}

impl World {
    /// A deletion of a disk was done: it must not have been held.
    pub(super) fn check_unheld(&self, disk: DiskId, engine: &Engine) {
        if self.is_over() {
            // Nobody will know whether it is gone.
            return;
        }
        let now_ms = engine.site_time_ms();
        let until = self.lock().kept.certain.remove(&disk);
        self.lock().kept.at_most.remove(&disk);
        // Beyond tolerance the newest batch of the journal may be lost, and a hold with it.
        if let Some(until) = until.filter(|until| now_ms < *until && self.plan.family == Family::Within) {
            self.wrong(format_args!("disk {} is gone at {now_ms} and was held until {until}", disk.0));
        }
    }

    /// A deletion that was asked for at `asked_ms` was refused since the disk is held: it must be.
    pub(super) fn check_held(&self, disk: DiskId, asked_ms: u64) {
        let until = self.lock().kept.at_most.get(&disk).copied();
        if until.is_none_or(|until| until <= asked_ms) {
            self.wrong(format_args!("disk {} is said to be held at {asked_ms}, and {until:?}", disk.0));
        }
    }

    /// Site time goes on from what was kept.
    pub(super) fn check_time(&self, engine: &Engine) {
        let (now_ms, kept_ms) = (engine.site_time_ms(), self.lock().kept.kept_ms);
        if now_ms < kept_ms && self.plan.family == Family::Within {
            self.wrong(format_args!("site time {now_ms} is behind {kept_ms}, which was kept"));
        }
    }

    /// Some snapshots are held, more than were; nobody deletes them then. Every medium hears of every hold; then whoever asks
    /// the media themselves frees nothing of what is held.
    pub(super) async fn attack(&self, life: &Life, engine: &Engine) {
        let snapshots: Vec<DiskId> = {
            let shared = self.lock();
            let there = shared.disks.iter().filter(|(id, disk)| disk.read_only && id.0 % 2 == 0);
            there.map(|(id, _)| *id).collect()
        };
        for disk in snapshots {
            let (work, until) = (engine.clone(), engine.site_time_ms() + SPANS_MS[4]);
            let held = async move {
                let held = work.hold(Txn::new(), &[disk], until).await?;
                let refused = work.apply(Txn::new(), &[], &[disk]).await;
                Ok::<_, EngineError>(held && refused.is_err_and(|error| error.kind == EngineErrorKind::Held))
            };
            match in_life(life, held).await {
                Some(Ok(true)) => {
                    let mut shared = self.lock();
                    shared.kept.latest_ms = shared.kept.latest_ms.max(until);
                }
                Some(Err(_)) if self.plan.small => return,
                found => return self.wrong(format_args!("disk {} was not held: {found:?}", disk.0)),
            }
        }
        let work = engine.clone();
        let enforced = in_life(life, async move { work.enforce_holds().await }).await;
        match enforced {
            Some(Ok(0)) => {}
            Some(Ok(_) | Err(_)) if self.plan.small => return,
            Some(found) => return self.wrong(format_args!("sound media do not hear of holds: {found:?}")),
            None => return,
        }
        let work = engine.clone();
        let attacked = async move {
            if !matches!(lacking(&work).await.as_deref(), Ok([])) {
                return None;
            }
            let locks = work.pool().locks().await;
            for container in locks.keys() {
                work.pool().delete(*container).await;
            }
            Some(locks.len())
        };
        match in_life(life, attacked).await {
            Some(Some(count)) => self.note(format_args!("{count} locked containers were asked for in vain")),
            Some(None) => self.wrong("sound media keep less than is held"),
            None => {}
        }
    }

    /// All holds are over from the next start on.
    pub(super) fn end_holds(&self) {
        let latest_ms = self.lock().kept.latest_ms;
        let ahead = latest_ms.saturating_sub(self.rt.wall_ms()) + DAY_MS;
        self.control.jump_wall(ahead as i64);
    }
}

/// What held disks reach and no medium keeps, though all had heard of the holds.
async fn lacking(engine: &Engine) -> Result<Vec<(DiskId, ContainerId)>, EngineError> {
    let mut found = Vec::new();
    for hold in engine.holds().await? {
        let lacking = engine.lacking_locks(hold.disk).await?;
        found.extend(lacking.into_iter().map(|container| (hold.disk, container)));
    }
    Ok(found)
}

impl Admin {
    pub(super) async fn hold_something(&mut self, serving: &Serving, snapshot: DiskId) {
        match self.rng.below(4) {
            0 | 1 => self.hold(serving, snapshot).await,
            2 => {
                let answer = self
                    .world
                    .ask(serving, None, |engine| Box::pin(async move { engine.enforce_holds().await }));
                let answer = answer.await;
                self.world.note(format_args!("enforce: {answer:?}"));
                if let Err(unanswered) = answer {
                    self.judge(serving, "enforce", &unanswered, snapshot);
                }
                let kept = self
                    .world
                    .ask(serving, None, move |engine| Box::pin(async move { lacking(&engine).await }));
                match kept.await {
                    Ok(lacking) if lacking.is_empty() || self.world.plan.family != Family::Within => {}
                    Ok(lacking) => {
                        self.world.wrong(format_args!("no medium keeps what is held: {lacking:?}"))
                    }
                    Err(unanswered) => self.judge(serving, "look for locks", &unanswered, snapshot),
                }
            }
            _ => self.jump(serving).await,
        }
    }

    async fn hold(&mut self, serving: &Serving, disk: DiskId) {
        let until = serving.engine.site_time_ms() + SPANS_MS[self.rng.index(SPANS_MS.len())];
        self.world.note(format_args!("hold disk {} until {until}", disk.0));
        {
            let mut shared = self.world.lock();
            let at_most = shared.kept.at_most.entry(disk).or_default();
            *at_most = (*at_most).max(until);
            shared.kept.latest_ms = shared.kept.latest_ms.max(until);
        }
        let answer = self.world.ask(serving, None, move |engine| {
            Box::pin(async move { engine.hold(Txn::new(), &[disk], until).await })
        });
        match answer.await {
            Ok(true) => {
                let mut shared = self.world.lock();
                if shared.disks.contains_key(&disk) {
                    let certain = shared.kept.certain.entry(disk).or_default();
                    *certain = (*certain).max(until);
                }
            }
            Ok(false) => {
                self.world.wrong(format_args!("disk {} is not held, and nothing was in the way", disk.0))
            }
            Err(unanswered) => self.judge(serving, "hold", &unanswered, disk),
        }
    }

    /// The wall clock jumps; the site's goes on as if nothing had been.
    async fn jump(&mut self, serving: &Serving) {
        let before = serving.engine.site_time_ms();
        let jump = JUMPS_MS[self.rng.index(JUMPS_MS.len())];
        // Backwards as often as forwards, and never before the epoch.
        let jump = if self.rng.coin() { jump } else { -jump / 2 };
        self.world.note(format_args!("the wall clock jumps by {jump} ms"));
        self.world.control.jump_wall(jump);
        if serving.engine.site_time_ms() != before {
            self.world.wrong("the site's clock follows the wall clock");
        }
        let answer = self.world.ask(serving, None, |engine| {
            Box::pin(async move {
                let now_ms = engine.site_time_ms();
                engine.keep_time().await.map(|()| now_ms)
            })
        });
        match answer.await {
            Ok(now_ms) => {
                let mut shared = self.world.lock();
                shared.kept.kept_ms = shared.kept.kept_ms.max(now_ms);
            }
            Err(Unanswered::Refused(error)) if error.kind == EngineErrorKind::Closed => {}
            Err(unanswered) => self.judge(serving, "keep time", &unanswered, DiskId(0)),
        }
    }
}
