//! The administrator: creates, resizes and deletes disks.

use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, EngineError, EngineErrorKind};
use meta::Txn;
use seam::{BoxFuture, Runtime};
use units::{BLOCK_U64, DiskId, Epoch, Lba};

use crate::model::{Contents, OpId};
use crate::rng::Rng;

use super::GUEST;
use super::borders;
use super::guest::Guest;
use super::world::{Serving, Unanswered, World, look_again};

/// Most disks at a time.
const DISKS_MAX: usize = 5;
/// Room a disk's guests leave to the administrator: he waits so long for a stretch nobody writes to.
const PATIENCE: usize = 50;

pub(super) struct Admin {
    pub(super) world: Arc<World>,
    pub(super) rng: Rng,
    guests: u64,
    /// The incarnation whose metadata store could not make a record durable: it takes no more of them.
    stopped: Option<Epoch>,
}

impl Admin {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: world.clone(), rng: world.control.rng("admin"), guests: 0, stopped: None }
    }

    /// Creates the first disks, then changes things until told to stop.
    pub(super) async fn run(mut self) {
        for _ in 0..self.world.plan.disks {
            let Some(serving) = self.world.serving().await else { return };
            self.create(&serving).await;
        }
        while self.world.lock().disks.is_empty() {
            let Some(serving) = self.world.serving().await else { return };
            self.create(&serving).await;
            self.world.rt.sleep(Duration::from_millis(1)).await;
        }
        let menu = self.world.plan.menu;
        if !menu.disks && !menu.forks {
            return;
        }
        loop {
            let pause = self.rng.below(20 * self.world.plan.pause.as_nanos() as u64);
            self.world.rt.sleep(Duration::from_nanos(pause)).await;
            let Some(serving) = self.world.serving().await else { return };
            if menu.forks && (!menu.disks || self.rng.coin()) {
                self.fork_something(&serving).await;
                continue;
            }
            let disks = self.disks(false);
            let disk = disks.get(self.rng.index(disks.len())).copied();
            match (self.rng.below(4), disk) {
                (0, Some(disk)) if disks.len() > 1 => self.delete(&serving, disk).await,
                (1, _) if disks.len() < DISKS_MAX => self.create(&serving).await,
                (_, Some(disk)) => self.resize(&serving, disk).await,
                _ => {}
            }
        }
    }

    /// The snapshots, or the disks that guests write to.
    pub(super) fn disks(&self, read_only: bool) -> Vec<DiskId> {
        let shared = self.world.lock();
        shared.disks.iter().filter(|(_, disk)| disk.read_only == read_only).map(|(id, _)| *id).collect()
    }

    /// Bytes of a disk: whole blocks, sectors, or any number.
    fn size(&mut self) -> u64 {
        let most = 2 * self.world.plan.blocks;
        let whole = BLOCK_U64 * borders::size(&mut self.rng, most);
        whole
            - match self.rng.below(3) {
                0 => 512 * self.rng.below(BLOCK_U64 / 512),
                1 => self.rng.below(BLOCK_U64),
                _ => 0,
            }
    }

    /// A disk number that no disk has.
    pub(super) async fn new_id(&mut self, serving: &Serving) -> Option<DiskId> {
        let id = self.world.ask(serving, None, |engine| Box::pin(async move { engine.new_disk_id().await }));
        let disk = match id.await {
            Ok(disk) => disk,
            Err(unanswered) => {
                self.judge(serving, "new disk id", &unanswered, DiskId(0));
                return None;
            }
        };
        if self.world.lock().disks.contains_key(&disk) {
            self.world.wrong(format_args!("disk number {} was given away twice", disk.0));
            return None;
        }
        Some(disk)
    }

    async fn create(&mut self, serving: &Serving) {
        let bytes = self.size();
        let Some(disk) = self.new_id(serving).await else { return };
        self.world.note(format_args!("create disk {} of {bytes} bytes", disk.0));
        self.world.add_disk(disk, bytes, false);
        let answer = self.world.ask(serving, None, move |engine| {
            Box::pin(async move { engine.apply(Txn::new(), &[(disk, bytes)], &[]).await })
        });
        match answer.await {
            Ok(true) => {}
            Ok(false) => self.world.wrong(format_args!("disk {} is there already", disk.0)),
            Err(unanswered) => {
                self.judge(serving, "create", &unanswered, disk);
                // There or not: after the next start it is known.
                if !self.settle(disk, serving.engine.epoch()).await {
                    return self.world.remove_disk(disk);
                }
            }
        }
        self.world.created(disk);
        self.invite(disk);
    }

    /// Guests begin to use a disk.
    pub(super) fn invite(&mut self, disk: DiskId) {
        for _ in 0..self.world.plan.guests {
            self.guests += 1;
            let guest = Guest::new(&self.world, disk, self.guests);
            self.world.rt.spawn(GUEST, Box::pin(guest.run()));
        }
    }

    /// The size of a disk; `None` when it is not there, an error when the process died.
    pub(super) async fn size_now(&self, serving: &Serving, disk: DiskId) -> Result<Option<u64>, Unanswered> {
        let size = |engine: Engine| -> BoxFuture<'static, Result<Option<u64>, EngineError>> {
            Box::pin(async move {
                let Ok(_open) = engine.open_disk(disk).await else { return Ok(None) };
                Ok(engine.disk_bytes(disk))
            })
        };
        self.world.ask(serving, None, size).await
    }

    /// After a change without an answer: whether the disk is there, and its size, once the next process serves.
    async fn settle(&self, disk: DiskId, before: Epoch) -> bool {
        let begun = self.world.now();
        loop {
            let Some(serving) = self.world.serving().await else { return false };
            // What a site that serves reads only shows of the last changes is not settled yet.
            if serving.engine.epoch() != before && serving.engine.is_writable() {
                let Ok(bytes) = self.size_now(&serving, disk).await else { continue };
                self.world.note(format_args!("disk {} has {bytes:?} bytes", disk.0));
                let mut shared = self.world.lock();
                if let (Some(known), Some(bytes)) = (shared.disks.get_mut(&disk), bytes) {
                    known.bytes = bytes;
                    known.bytes_max = known.bytes_max.max(bytes);
                    known.shrinking_to = None;
                    known.leaving = false;
                }
                return bytes.is_some();
            }
            self.world.rt.sleep(look_again(self.world.now() - begun)).await;
        }
    }

    pub(super) fn judge(&mut self, serving: &Serving, what: &str, unanswered: &Unanswered, disk: DiskId) {
        let Unanswered::Refused(error) = unanswered else { return };
        self.world.note(format_args!("disk {}: {what} refused: {:?}: {error}", disk.0, error.kind));
        let epoch = Some(serving.engine.epoch());
        let stopped = self.stopped == epoch && error.kind == EngineErrorKind::Closed;
        self.stopped = epoch;
        if !stopped && !self.world.may_refuse(error, disk, 0, true) {
            self.world.wrong(format_args!("disk {}: {what} was refused: {:?}: {error}", disk.0, error.kind));
        }
    }

    pub(super) async fn delete(&mut self, serving: &Serving, disk: DiskId) {
        self.world.note(format_args!("delete disk {}", disk.0));
        if let Some(disk) = self.world.lock().disks.get_mut(&disk) {
            disk.leaving = true;
        }
        let asked_ms = serving.engine.site_time_ms();
        let answer = self.world.ask(serving, None, move |engine| {
            Box::pin(async move { engine.apply(Txn::new(), &[], &[disk]).await })
        });
        let gone = match answer.await {
            Ok(true) => true,
            Ok(false) => {
                self.world.wrong(format_args!("disk {} is not deleted, and nothing was in the way", disk.0));
                false
            }
            Err(Unanswered::Refused(error)) if error.kind == EngineErrorKind::Held => {
                self.world.check_held(disk, asked_ms);
                if let Some(disk) = self.world.lock().disks.get_mut(&disk) {
                    disk.leaving = false;
                }
                return;
            }
            Err(unanswered) => {
                self.judge(serving, "delete", &unanswered, disk);
                !self.settle(disk, serving.engine.epoch()).await
            }
        };
        if gone {
            let engine = self.world.lock().serving.as_ref().map(|serving| serving.engine.clone());
            self.world.check_unheld(disk, &engine.unwrap_or_else(|| serving.engine.clone()));
            self.world.remove_disk(disk);
        }
    }

    async fn resize(&mut self, serving: &Serving, disk: DiskId) {
        let world = self.world.clone();
        let bytes = self.size();
        let Some(old) = self.world.lock().disks.get(&disk).map(|disk| disk.bytes) else { return };
        // From here on nobody begins a write beyond the new end; those under way end first.
        if let Some(disk) = world.lock().disks.get_mut(&disk) {
            disk.shrinking_to = Some(bytes.min(old));
            disk.resizes += 1;
        }
        let least = bytes.min(old);
        let mut hold = None;
        for _ in 0..PATIENCE {
            hold = world.hold(disk, least / BLOCK_U64, u64::MAX, true);
            if hold.is_some() {
                break;
            }
            world.rt.sleep(Duration::from_millis(1)).await;
        }
        let ops = if bytes < old { self.begin_shrink(disk, bytes) } else { Some(Vec::new()) };
        let (Some(_hold), Some(ops)) = (hold, ops) else {
            if let Some(disk) = world.lock().disks.get_mut(&disk) {
                disk.shrinking_to = None;
            }
            return;
        };
        world.note(format_args!("resize disk {} from {old} to {bytes} bytes", disk.0));
        let answer = world
            .ask(serving, None, move |engine| Box::pin(async move { engine.resize(disk, bytes).await }))
            .await;
        world.note(format_args!("resize of disk {}: {answer:?}", disk.0));
        let now = world.now();
        for op in ops {
            let mut shared = world.lock();
            match &answer {
                Ok(()) => shared.model.end_write(op, now),
                Err(Unanswered::Died) => {}
                Err(_) => shared.model.fail_write(op, now),
            }
        }
        match answer {
            Ok(()) => {
                if let Some(disk) = world.lock().disks.get_mut(&disk) {
                    disk.bytes = bytes;
                    disk.bytes_max = disk.bytes_max.max(bytes);
                    disk.shrinking_to = None;
                }
            }
            Err(unanswered) => {
                self.judge(serving, "resize", &unanswered, disk);
                self.settle(disk, serving.engine.epoch()).await;
            }
        }
    }

    /// Tells the model that everything behind `bytes` becomes zeros; `None` when a block cut in two is not known.
    fn begin_shrink(&self, disk: DiskId, bytes: u64) -> Option<Vec<OpId>> {
        let mut shared = self.world.lock();
        let model = &mut shared.model;
        let mut steps: Vec<(Lba, Vec<Contents>)> = Vec::new();
        let whole = bytes.next_multiple_of(BLOCK_U64);
        if bytes < whole {
            steps.push(model.partial(disk, bytes, &vec![0; (whole - bytes) as usize])?);
        }
        let beyond = model.lbas(disk).filter(|lba| lba.0 >= whole / BLOCK_U64);
        steps.extend(beyond.map(|lba| (lba, vec![Contents::Zero])));
        let now = self.world.now();
        Some(steps.into_iter().map(|(lba, blocks)| model.begin_write(disk, lba, &blocks, now)).collect())
    }
}
