//! Somebody who has the cleaner run, beside all else that goes on; and what must be true once it has.

use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, EngineError, EngineErrorKind};
use meta::{Shard, Table, Txn};
use seam::Runtime;
use units::DiskId;

use crate::ground::Life;
use crate::rng::Rng;

use super::judge::in_life;
use super::plan::Family;
use super::world::{Serving, Unanswered, World};

/// The engine's records of disks.
const DISKS: Table<Shard> = Table::new("disk");
/// More than any schedule makes.
const DISKS_MAX: usize = 1000;
/// Cycles after which an emptied site has nothing left to free: a deletion makes garbage of metadata itself.
const CYCLES: usize = 4;

pub(super) struct Cleaner {
    world: Arc<World>,
    rng: Rng,
}

impl Cleaner {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: world.clone(), rng: world.control.rng("cleaner") }
    }

    pub(super) async fn run(mut self) {
        while !self.world.is_over() {
            let pause = self.rng.below(100 * self.world.plan.pause.as_nanos() as u64);
            self.world.rt.sleep(Duration::from_nanos(pause).max(Duration::from_micros(100))).await;
            let Some(serving) = self.world.serving().await else { return };
            if self.rng.chance(150_000) {
                self.rotate(&serving).await;
                continue;
            }
            let percent = [0, 0, 1, 30, 100][self.rng.index(5)];
            let answer = self.world.ask(&serving, None, move |engine| {
                Box::pin(async move { engine.clean(percent, &engine::Progress::default()).await })
            });
            match answer.await {
                Ok(report) => self.world.note(format_args!("clean {percent}: {report:?}")),
                Err(Unanswered::Refused(error)) => self.refused("clean", &error),
                Err(_) => {}
            }
        }
    }

    fn refused(&self, what: &str, error: &EngineError) {
        self.world.note(format_args!("{what} refused: {:?}: {error}", error.kind));
        let closed = error.kind == EngineErrorKind::Closed;
        // With too few failure domains up there is no room either.
        let starved = error.kind == EngineErrorKind::NoSpace && self.world.can_starve();
        if !closed && !starved && !self.world.may_refuse(error, DiskId(0), 0, true) {
            self.world.wrong(format_args!("{what} failed: {:?}: {error}", error.kind));
        }
    }

    /// Rotates the data key. Media that are away, or a rotation that goes on, are in its way.
    async fn rotate(&mut self, serving: &Serving) {
        let asked = self.world.ask_site(serving, |site| Box::pin(async move { site.rotate_key().await }));
        let asked = asked.await.map(|task| task.id);
        self.world.note(format_args!("the data key is to be rotated: {asked:?}"));
    }
}

impl World {
    /// Cleans a sound site of all that nothing reaches.
    pub(super) async fn clean(&self, life: &Life, engine: &Engine) {
        let work = engine.clone();
        match in_life(life, async move { work.clean(0, &engine::Progress::default()).await }).await {
            Some(Ok(report)) => self.note(format_args!("cleaned: {report:?}")),
            Some(Err(error)) if !self.plan.small => {
                self.wrong(format_args!("a sound site cannot be cleaned: {:?}: {error}", error.kind));
            }
            _ => {}
        }
    }

    /// With every disk gone and the site cleaned no block of guest data is left, and the media hold what the ledger says.
    pub(super) async fn emptied(&self) {
        let Some((life, engine)) = self.open("to be emptied").await else { return };
        let work = engine.clone();
        let emptied = async move {
            // The holds are over by the host's clock.
            work.believe_host().await?;
            // Those too of whose making nobody heard.
            let (records, _) = meta::list(&*work.meta(), DISKS.all(), DISKS_MAX).await?;
            for record in &records {
                let disk = DISKS.segments(&record.key).and_then(|mut key| key.number());
                work.apply(Txn::new(), &[], &[DiskId(disk.unwrap_or(0))]).await?;
            }
            for _ in 0..CYCLES {
                work.drain().await?;
                work.checkpoint().await?;
                work.clean(0, &engine::Progress::default()).await?;
            }
            let space = work.space(&[], &engine::Progress::default()).await?;
            Ok::<_, engine::EngineError>((work.status().await, space))
        };
        match in_life(&life, emptied).await {
            Some(Ok((status, space))) => {
                let before = engine.committed_raw_bytes();
                let used = engine.pool().refresh_space().await.raw_used;
                let committed = engine.committed_raw_bytes();
                if status.unique_bytes != 0 {
                    self.wrong(format_args!("{} bytes of data are left without a disk", status.unique_bytes));
                }
                if space.live_bytes != 0 {
                    self.wrong(format_args!("{} bytes are reached without a disk", space.live_bytes));
                }
                // A backlog may go to the log meanwhile.
                if engine.is_settled() && before == committed && used != committed {
                    self.wrong(format_args!("emptied: {used} bytes are in use, the ledger has {committed}"));
                }
            }
            Some(Err(error)) if self.plan.family == Family::Within && !self.plan.small => {
                self.wrong(format_args!("a sound site cannot be emptied: {:?}: {error}", error.kind));
            }
            _ => {}
        }
        self.end_life(life, false);
    }
}
