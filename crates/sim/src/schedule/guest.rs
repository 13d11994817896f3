//! A guest: reads, writes, trims and flushes one disk, and has the model judge what it sees.

use std::sync::Arc;
use std::time::Duration;

use seam::Runtime;
use units::{BLOCK, BLOCK_U64, DiskId, Lba};

use crate::model::{Contents, OpId};
use crate::rng::Rng;

use super::borders;
use super::world::{Serving, Unanswered, World, blocks_of};

/// Places tried for a write before the guest does something else.
const PLACES: usize = 4;

pub(super) struct Guest {
    world: Arc<World>,
    disk: DiskId,
    rng: Rng,
    number: u64,
}

/// A stretch of the disk, in bytes.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: u64,
    end: u64,
}

impl Stretch {
    fn length(self) -> u64 {
        self.end - self.start
    }

    /// The blocks that lie in it whole, as block numbers.
    fn whole(self) -> (u64, u64) {
        let first = self.start.div_ceil(BLOCK_U64);
        (first, (self.end / BLOCK_U64).max(first))
    }
}

impl Guest {
    pub(super) fn new(world: &Arc<World>, disk: DiskId, number: u64) -> Self {
        let rng = world.control.rng("guest");
        Self { world: world.clone(), disk, rng, number }
    }

    /// Works until told to stop or the disk goes.
    pub(super) async fn run(mut self) {
        loop {
            self.pause().await;
            let Some(serving) = self.world.serving().await else { return };
            let bytes = match self.world.lock().disks.get(&self.disk) {
                Some(disk) if !disk.leaving => disk.shrinking_to.map_or(disk.bytes, |to| to.min(disk.bytes)),
                _ => return,
            };
            match self.rng.below(20) {
                0..=5 => self.read(&serving, bytes).await,
                6..=11 => self.write_blocks(&serving, bytes).await,
                12..=14 => self.write_bytes(&serving, bytes).await,
                15 => self.write_halves(&serving, bytes).await,
                16 => self.punch(&serving, bytes, false).await,
                17 => self.punch(&serving, bytes, true).await,
                18 => self.flush(&serving).await,
                _ => self.extents(&serving, bytes).await,
            }
        }
    }

    async fn pause(&mut self) {
        let most = self.world.plan.pause.as_nanos() as u64;
        let pause = if self.rng.chance(300_000) { 0 } else { self.rng.below(most) };
        self.world.rt.sleep(Duration::from_nanos(pause)).await;
    }

    fn patience(&mut self) -> Option<Duration> {
        let gives_up = self.world.plan.menu.impatient && self.rng.chance(150_000);
        gives_up.then(|| Duration::from_micros(self.rng.below(2000)))
    }

    /// A stretch of whole blocks; the last one may be cut at the disk's end.
    fn blocks(&mut self, bytes: u64) -> Stretch {
        let blocks = bytes.div_ceil(BLOCK_U64);
        let count = 1 + self.rng.below(self.rng_length());
        // Some places are hot, so that writes meet.
        let first = match self.rng.below(4) {
            0 | 1 => self.rng.below(blocks.min(8)),
            2 => self.rng.below(blocks),
            _ => borders::place(&mut self.rng, blocks),
        };
        Stretch { start: first * BLOCK_U64, end: ((first + count) * BLOCK_U64).min(bytes) }
    }

    /// A stretch of any length between places where pages of the map meet.
    fn wide(&mut self, bytes: u64) -> Stretch {
        let blocks = bytes.div_ceil(BLOCK_U64);
        let [one, other] = [0, 1].map(|_| borders::place(&mut self.rng, blocks));
        Stretch { start: one.min(other) * BLOCK_U64, end: ((one.max(other) + 1) * BLOCK_U64).min(bytes) }
    }

    fn rng_length(&self) -> u64 {
        self.world.plan.request_blocks
    }

    /// A stretch that begins and ends anywhere.
    fn bytes(&mut self, bytes: u64) -> Stretch {
        let Stretch { start, end } = self.blocks(bytes);
        let cut = |rng: &mut Rng, length: u64| match rng.below(4) {
            0 => 0,
            1 => 512 * rng.below(length / 512 + 1),
            _ => rng.below(length + 1),
        };
        let first = cut(&mut self.rng, (end - start).min(BLOCK_U64) - 1);
        let last = cut(&mut self.rng, (end - start - first).min(BLOCK_U64) - 1);
        Stretch { start: start + first, end: end - last }
    }

    fn log(&self, what: &str, stretch: Stretch) {
        let (disk, number) = (self.disk.0, self.number);
        self.world.note(format_args!(
            "guest {number} disk {disk}: {what} {}+{}",
            stretch.start,
            stretch.length()
        ));
    }

    async fn read(&mut self, serving: &Serving, bytes: u64) {
        let stretch = if self.rng.chance(700_000) { self.blocks(bytes) } else { self.bytes(bytes) };
        let patience = self.patience();
        self.log("read", stretch);
        let settled = serving.engine.is_writable();
        let (read, disk) = (self.world.lock().model.begin_read(self.world.now()), self.disk);
        let steady = self.steady(bytes);
        let answer = self.world.ask(serving, patience, |engine| {
            Box::pin(async move { engine.read(disk, stretch.start, stretch.length() as usize).await })
        });
        let answer = answer.await;
        let now = self.world.now();
        match answer {
            Ok(found) => {
                let mut shared = self.world.lock();
                if !shared.disks.contains_key(&disk) {
                    return shared.model.abandon_read(read);
                }
                // What lay behind the end before a resize is not known to be zeros.
                let still = steady.is_some() && shared.disks[&disk].steady(bytes) == steady;
                let to_the_end = stretch.end == bytes && still;
                let (first, whole) = whole_blocks(stretch, &found, to_the_end);
                // A site that serves reads only may show the last writes before a crash later.
                let settled = settled && serving.engine.is_writable();
                let verdict = if settled {
                    shared.model.check_read(read, disk, Lba(first), &whole, now)
                } else {
                    shared.model.check_unsettled(read, disk, Lba(first), &whole, now)
                };
                drop(shared);
                if let Err(violation) = verdict {
                    self.world.wrong(violation);
                }
            }
            Err(unanswered) => {
                self.world.lock().model.abandon_read(read);
                self.judge_refusal("read", &unanswered, stretch, false);
            }
        }
    }

    fn judge_refusal(&self, what: &str, unanswered: &Unanswered, stretch: Stretch, writes: bool) {
        let Unanswered::Refused(error) = unanswered else { return };
        let disk = self.disk.0;
        self.world.note(format_args!("disk {disk}: {what} refused: {:?}: {error}", error.kind));
        if !self.world.may_refuse(error, self.disk, stretch.end, writes) {
            self.world.wrong(format_args!(
                "disk {disk}: {what} of {} bytes at {} was refused: {:?}: {error}",
                stretch.length(),
                stretch.start,
                error.kind
            ));
        }
    }

    /// Tells the model how a write ended.
    fn settle(&self, op: OpId, answer: &Result<(), Unanswered>) {
        let now = self.world.now();
        let mut shared = self.world.lock();
        if !shared.disks.contains_key(&self.disk) {
            return; // the model forgot the disk, and the write with it
        }
        match answer {
            Ok(()) => shared.model.end_write(op, now),
            Err(Unanswered::Died) => {}
            Err(_) => shared.model.fail_write(op, now),
        }
    }

    async fn write_blocks(&mut self, serving: &Serving, bytes: u64) {
        let world = self.world.clone();
        let bytes = bytes / BLOCK_U64 * BLOCK_U64;
        if bytes == 0 {
            return;
        }
        for _ in 0..PLACES {
            let stretch = self.blocks(bytes);
            let (first, end) = blocks_of(stretch.start, stretch.end);
            let Some(_hold) = world.hold(self.disk, first, end, false) else { continue };
            let contents: Vec<Contents> = (first..end).map(|_| self.contents()).collect();
            let data = self.bytes_of(&contents);
            self.log("write", stretch);
            let op = self.world.lock().model.begin_write(self.disk, Lba(first), &contents, self.world.now());
            return self.write(serving, op, stretch, data).await;
        }
    }

    /// New contents, or zeros.
    fn contents(&mut self) -> Contents {
        if self.rng.chance(50_000) { Contents::Zero } else { self.world.lock().model.next_value() }
    }

    fn bytes_of(&self, contents: &[Contents]) -> Vec<u8> {
        let shared = self.world.lock();
        contents.iter().flat_map(|contents| shared.model.bytes(contents)).collect()
    }

    async fn write(&mut self, serving: &Serving, op: OpId, stretch: Stretch, data: Vec<u8>) {
        let (disk, patience) = (self.disk, self.patience());
        let request = self.world.ask(serving, patience, |engine| {
            Box::pin(async move { engine.write(disk, stretch.start, &data).await })
        });
        let answer = request.await;
        self.settle(op, &answer);
        if let Err(unanswered) = answer {
            self.judge_refusal("write", &unanswered, stretch, true);
        }
    }

    /// A write that begins and ends anywhere: nobody else writes to its blocks meanwhile, so their contents are known.
    async fn write_bytes(&mut self, serving: &Serving, bytes: u64) {
        let world = self.world.clone();
        for _ in 0..PLACES {
            let stretch = self.bytes(bytes);
            let (first, end) = blocks_of(stretch.start, stretch.end);
            let Some(_hold) = world.hold(self.disk, first, end, true) else { continue };
            let contents: Vec<Contents> = (first..end).map(|_| self.contents()).collect();
            let mut data = self.bytes_of(&contents);
            data.truncate(stretch.length() as usize);
            let Some(op) = self.begin_partial(stretch, &data) else { continue };
            self.log("write bytes", stretch);
            return self.write(serving, op, stretch, data).await;
        }
    }

    fn begin_partial(&self, stretch: Stretch, data: &[u8]) -> Option<OpId> {
        let mut shared = self.world.lock();
        let (first, contents) = shared.model.partial(self.disk, stretch.start, data)?;
        Some(shared.model.begin_write(self.disk, first, &contents, self.world.now()))
    }

    /// Two writes at once to two parts of one block: both must be in it afterwards.
    async fn write_halves(&mut self, serving: &Serving, bytes: u64) {
        let world = self.world.clone();
        let (disk, lba) = (self.disk, self.rng.below(bytes.div_ceil(BLOCK_U64)));
        let start = lba * BLOCK_U64;
        let length = BLOCK_U64.min(bytes - start);
        if length < 2 {
            return;
        }
        let Some(_hold) = world.hold(disk, lba, lba + 1, true) else { return };
        let middle = 1 + self.rng.below(length - 1);
        let halves =
            [Stretch { start, end: start + middle }, Stretch { start: start + middle, end: start + length }];
        let contents = [self.contents()];
        let data = self.bytes_of(&contents);
        let part = |half: Stretch| data[(half.start - start) as usize..(half.end - start) as usize].to_vec();
        // Each alone may be seen on the way; both together are what the block holds in the end.
        let mut both = Vec::new();
        let ops: Option<Vec<OpId>> = {
            let whole = Stretch { start, end: start + length };
            let steps = [halves[0], halves[1], whole];
            let mut shared = self.world.lock();
            let partials: Option<Vec<_>> =
                steps.iter().map(|step| shared.model.partial(disk, step.start, &part(*step))).collect();
            partials.map(|partials| {
                let now = self.world.now();
                both.clone_from(&partials[2].1);
                partials
                    .into_iter()
                    .map(|(lba, blocks)| shared.model.begin_write(disk, lba, &blocks, now))
                    .collect()
            })
        };
        let Some(ops) = ops else { return };
        self.log("write halves", halves[0]);
        let requests = halves.map(|half| {
            let data = part(half);
            self.world.ask(serving, None, move |engine| {
                Box::pin(async move { engine.write(disk, half.start, &data).await })
            })
        });
        let answers = seam::join_all(requests).await;
        // Alone each has no answer of its own: it is superseded by both together, or ends with the process.
        let died = answers.iter().any(|answer| matches!(answer, Err(Unanswered::Died)));
        for op in &ops[..2] {
            self.settle(*op, &Err(if died { Unanswered::Died } else { Unanswered::GaveUp }));
        }
        let failed = answers.into_iter().find_map(Result::err);
        let answer = if died { Err(Unanswered::Died) } else { failed.map_or(Ok(()), Err) };
        if answer.is_ok() {
            // To the model a write that is begun when all others have ended: none of them comes over it any more.
            self.settle(ops[2], &Err(Unanswered::GaveUp));
            let now = self.world.now();
            let mut shared = self.world.lock();
            if shared.disks.contains_key(&disk) {
                let op = shared.model.begin_write(disk, Lba(lba), &both, now);
                shared.model.end_write(op, now);
            }
        } else {
            self.settle(ops[2], &answer);
        }
        if let Err(unanswered) = answer {
            self.judge_refusal("write of halves", &unanswered, halves[1], true);
        }
    }

    /// Write-zeroes when `exact`, else trim.
    async fn punch(&mut self, serving: &Serving, bytes: u64, exact: bool) {
        let world = self.world.clone();
        for _ in 0..PLACES {
            let stretch = match self.rng.below(4) {
                0 | 1 => self.bytes(bytes),
                2 if !exact => self.wide(bytes),
                _ => self.blocks(bytes),
            };
            let (first, end) = blocks_of(stretch.start, stretch.end);
            let Some(_hold) = world.hold(self.disk, first, end, exact) else { continue };
            let op = if exact {
                let Some(op) = self.begin_partial(stretch, &vec![0; stretch.length() as usize]) else {
                    continue;
                };
                op
            } else {
                let (first, mut end) = stretch.whole();
                if stretch.end == bytes {
                    if self.steady(bytes).is_none() {
                        continue;
                    }
                    end = bytes.div_ceil(BLOCK_U64);
                }
                let zeros = vec![Contents::Zero; end.saturating_sub(first) as usize];
                self.world.lock().model.begin_write(self.disk, Lba(first), &zeros, self.world.now())
            };
            self.log(if exact { "write zeroes" } else { "trim" }, stretch);
            let (disk, patience) = (self.disk, self.patience());
            let request = self.world.ask(serving, patience, |engine| {
                Box::pin(async move { engine.punch(disk, stretch.start, stretch.length(), exact).await })
            });
            let answer = request.await;
            self.settle(op, &answer);
            if let Err(unanswered) = answer {
                // Parts of blocks are written, which takes room; whole blocks only give it.
                self.judge_refusal("punch", &unanswered, stretch, exact);
            }
            return;
        }
    }

    fn steady(&self, bytes: u64) -> Option<u64> {
        self.world.lock().disks.get(&self.disk).and_then(|disk| disk.steady(bytes))
    }

    async fn flush(&mut self, serving: &Serving) {
        let disk = self.disk;
        let request =
            self.world.ask(serving, None, |engine| Box::pin(async move { engine.flush(disk).await }));
        if let Err(unanswered) = request.await {
            self.judge_refusal("flush", &unanswered, Stretch { start: 0, end: 0 }, false);
        }
    }

    /// What is called a hole must read as zero, and the stretches must add up.
    async fn extents(&mut self, serving: &Serving, bytes: u64) {
        let world = self.world.clone();
        let stretch = self.bytes(bytes);
        let (first, end) = blocks_of(stretch.start, stretch.end);
        let Some(_hold) = world.hold(self.disk, first, end, true) else { return };
        self.log("extents", stretch);
        let disk = self.disk;
        let request = self.world.ask(serving, None, |engine| {
            Box::pin(async move { engine.extents(disk, stretch.start, stretch.length(), usize::MAX).await })
        });
        let extents = match request.await {
            Ok(extents) => extents,
            Err(unanswered) => return self.judge_refusal("extents", &unanswered, stretch, false),
        };
        let mut at = stretch.start;
        for extent in &extents {
            let (first, end) = blocks_of(at, at + extent.length);
            at += extent.length;
            let shared = self.world.lock();
            let data = (first..end).find(|lba| {
                let exact = shared.model.current_exact(disk, Lba(*lba));
                !extent.mapped && exact.is_some_and(|block| block.iter().any(|byte| *byte != 0))
            });
            drop(shared);
            if let Some(lba) = data {
                self.world
                    .wrong(format_args!("disk {}: block {lba} holds data and is called a hole", disk.0));
            }
        }
        if at != stretch.end {
            self.world.wrong(format_args!("disk {}: {stretch:?} has extents {extents:?}", disk.0));
        }
    }
}

/// The whole blocks of what a read found, and the number of the first; the last block of a disk is filled up.
fn whole_blocks(stretch: Stretch, found: &[u8], to_the_end: bool) -> (u64, Vec<u8>) {
    let (first, end) = stretch.whole();
    let skip = (first * BLOCK_U64 - stretch.start) as usize;
    let mut blocks = found.get(skip..).unwrap_or_default().to_vec();
    if to_the_end {
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    } else {
        blocks.truncate(((end - first) * BLOCK_U64) as usize);
    }
    (first, blocks)
}
