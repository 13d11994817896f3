//! Sweep: what is live in condemned containers is copied, stubs are made durable, the containers deleted.

use std::collections::VecDeque;

use container::{Builder, UnitKind};
use index::Holder;
use journal::{Deleted, Entry};
use map::encode_page;
use pool::PoolError;
use seal::{Header, Kind};
use units::{Address, Fingerprint, PAGE, Seq};

use crate::clean::{CleanReport, Condemned};
use crate::dedup::read_head;
use crate::engine::{Engine, ToCommit};
use crate::error::{EngineError, EngineErrorKind};
use crate::outcome::TURNSTILE_BYTES;
use crate::pace::Step;
use crate::pages::{open_page, seal_page};
use crate::progress::Progress;
use crate::stubs;

/// Further attempts at a container that found no room.
const COMMIT_TRIES: usize = 3;
/// Delete records appended together.
pub(crate) const DELETES_AT_ONCE: usize = 64;
/// Most that is read and opened at once, and what may lie between two units of it.
const RUN_BYTES: usize = 64 << 10;
const GAP_BYTES: usize = 16 << 10;

impl Engine {
    /// Empties and deletes what is condemned.
    pub(crate) async fn sweep(
        &self,
        condemned: &[Condemned],
        report: &mut CleanReport,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let bytes = |some: &[&Condemned]| some.iter().map(|one| u64::from(one.size.total)).sum();
        let (dead, alive): (Vec<&Condemned>, Vec<&Condemned>) =
            condemned.iter().partition(|condemned| condemned.live.is_none());
        progress.expect_more(bytes(&dead) + bytes(&alive));
        for some in dead.chunks(DELETES_AT_ONCE) {
            progress.check()?;
            self.delete_containers(some, report).await?;
            progress.add(bytes(some));
        }
        let mut step = self.step();
        let (mut moving, mut nothing_left) = (Moving::default(), Vec::new());
        for condemned in alive {
            progress.check()?;
            step = self.next_step(step).await;
            if condemned.whole {
                self.write_moved(&mut moving).await?;
            }
            let (first, bytes) = (moving.written.len(), report.moved_bytes);
            let looks = self.shared.pool.looks();
            step = match self.move_live(condemned, &mut moving, report, step).await {
                Ok(step) => step,
                // It stays: what a lost page named in it cannot be told.
                Err(error) if condemned.whole => {
                    self.shared.pass_loss(error, looks)?;
                    step = self.step();
                    continue;
                }
                Err(error) => return Err(error),
            };
            if condemned.whole {
                // It goes where nothing else does: a page in it that nothing reaches may have the name of one that is reached
                // elsewhere, and addresses that lead nowhere any more.
                self.write_moved(&mut moving).await?;
            }
            if report.moved_bytes == bytes {
                nothing_left.push(condemned);
            } else {
                let last = moving.written.len() - usize::from(condemned.whole);
                moving.whole.push_back(Whole { condemned, first, last });
            }
            // Room for what comes next is made as soon as it can be.
            self.publish(&mut moving, report).await?;
            progress.add(u64::from(condemned.size.total));
        }
        self.write_moved(&mut moving).await?;
        self.publish(&mut moving, report).await?;
        for some in nothing_left.chunks(DELETES_AT_ONCE) {
            self.delete_containers(some, report).await?;
        }
        Ok(())
    }

    /// Copies what is live in a container, opened and checked, into the container being filled; gives the step in work.
    async fn move_live<'a, 's>(
        &'s self,
        condemned: &'a Condemned,
        moving: &mut Moving<'a>,
        report: &mut CleanReport,
        mut step: Step<'s>,
    ) -> Result<Step<'s>, EngineError> {
        let id = condemned.container;
        let lost = |what: &str| EngineError::new(EngineErrorKind::Lost, format!("container {id}: {what}"));
        let pool = &self.shared.pool;
        let pages = pool.fragment_pages_of(id).await.ok_or_else(|| lost("no fragment is within reach"))?;
        let head = read_head(pool, id, pages).await.ok_or_else(|| lost("its directory is lost"))?;
        let slots = condemned.live.as_ref();
        let mut live = Vec::new();
        for (slot, entry) in head.entries.iter().enumerate() {
            let slot = slot as u16;
            // Nothing but checkpoints names metadata, and what they name is no candidate.
            let is_named = !condemned.whole || entry.kind != UnitKind::Meta;
            if is_named && slots.is_some_and(|slots| slots.contains(slot)) {
                let address =
                    head.address(slot, pages).ok_or_else(|| lost("its directory makes no sense"))?;
                live.push(Live { kind: entry.kind, name: entry.fingerprint, address });
            }
        }
        for run in runs(&live) {
            step = self.next_step(step).await;
            if self.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            match self.read_run(run).await {
                Ok(read) => self.move_run(run, &read, moving, report).await?,
                // Some unit is lost, or its fragments differ from those of others.
                Err(_) => {
                    for one in run.chunks(1) {
                        let looks = pool.looks();
                        match self.read_run(one).await {
                            Ok(read) => self.move_run(one, &read, moving, report).await?,
                            Err(error) if condemned.whole => self.shared.pass_loss(error.into(), looks)?,
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
            }
        }
        Ok(step)
    }

    /// Reads units that lie close together, each opened and checked.
    async fn read_run(&self, run: &[Live]) -> Result<Read, PoolError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Read::default()) };
        let start = first.address.offset as usize;
        let length = last.end() - start;
        let mut read = Read::default();
        let mut plain = Vec::new();
        let mut check = |bytes: &[u8]| {
            read.anew.clear();
            for unit in run {
                let at = unit.address.offset as usize - start;
                let as_it_lies = bytes.get(at..at + unit.address.length as usize);
                match as_it_lies.and_then(|bytes| self.moved(unit, bytes, &mut plain)) {
                    Some(anew) => read.anew.push(anew),
                    None => return false,
                }
            }
            read.bytes.clear();
            read.bytes.extend_from_slice(bytes);
            true
        };
        let Address { container, fragment_pages, .. } = first.address;
        self.shared.pool.read(container, fragment_pages, start, length, &mut check).await?;
        Ok(read)
    }

    /// Adds units that were read to the container being filled.
    async fn move_run(
        &self,
        run: &[Live],
        read: &Read,
        moving: &mut Moving<'_>,
        report: &mut CleanReport,
    ) -> Result<(), EngineError> {
        let limit = self.shared.container_limit();
        let start = run.first().map_or(0, |first| first.address.offset as usize);
        for (live, anew) in run.iter().zip(&read.anew) {
            let at = live.address.offset as usize - start;
            let unit = anew.as_deref().unwrap_or(&read.bytes[at..at + live.address.length as usize]);
            if !moving.builder.has_room(1, unit.len(), limit) {
                self.write_moved(moving).await?;
            }
            moving.builder.add(live.kind, live.name, unit);
            if live.kind == UnitKind::Data {
                moving.blocks += 1;
                moving.block_bytes += unit.len() as u64;
            }
            report.moved_bytes += unit.len() as u64;
        }
        Ok(())
    }

    /// What of a unit goes to its new place, once it is what its name says: itself (`Some(None)`), or something else.
    fn moved(&self, live: &Live, unit: &[u8], plain: &mut Vec<u8>) -> Option<Option<Vec<u8>>> {
        let sealer = &self.shared.sealer;
        match live.kind {
            UnitKind::Data => {
                sealer.open(Kind::Data, live.name, unit, plain).ok()?;
                if Header::decode(unit)?.key_epoch() == sealer.key_epoch() {
                    return Some(None);
                }
                // Its key is retired.
                let mut anew = Vec::new();
                sealer.seal(Kind::Data, live.name, plain, &mut anew);
                Some(Some(anew))
            }
            UnitKind::Page(level) => {
                // Pages say where in their own container others lie: they are sealed anew.
                let page = open_page(sealer, level, live.name, &live.address, unit)?;
                Some(Some(seal_page(sealer, level, &encode_page(&page, &|_| None)).1))
            }
            UnitKind::Meta => None,
        }
    }

    async fn write_moved(&self, moving: &mut Moving<'_>) -> Result<(), EngineError> {
        if moving.builder.is_empty() {
            return Ok(());
        }
        self.shared.pool.refresh_space().await;
        if !self.shared.has_room_to_move(&self.shared.lock()) {
            let reason = "what is left is for checkpoints: the cleaner has no room to move anything to";
            return Err(EngineError::new(EngineErrorKind::NoSpace, reason));
        }
        let builder = std::mem::take(&mut moving.builder);
        let (blocks, block_bytes) =
            (std::mem::take(&mut moving.blocks), std::mem::take(&mut moving.block_bytes));
        let mut tries = 0;
        let built = loop {
            let what = ToCommit { builder: &builder, covered: Seq(0), blocks, block_bytes };
            match self.shared.commit_container(what, |_| Vec::new()).await {
                // A medium had no room, or said so: others may have some.
                Err(error) if error.kind == EngineErrorKind::NoSpace && tries < COMMIT_TRIES => {
                    tries += 1;
                    if self.shared.pool.refresh_space().await.containers == 0 {
                        return Err(error);
                    }
                }
                done => break done?,
            }
        };
        let fragment_pages = (built.fragment_bytes / PAGE) as u16;
        self.shared.dedup.learn(&built.head, fragment_pages, true);
        moving.written.push(Holder { container: built.head.container, fragment_pages });
        Ok(())
    }

    /// Containers whose live contents are all committed elsewhere get their stubs and go.
    async fn publish(&self, moving: &mut Moving<'_>, report: &mut CleanReport) -> Result<(), EngineError> {
        let mut stubbed: Vec<&Condemned> = Vec::new();
        while let Some(whole) = moving.whole.pop_front_if(|whole| whole.last < moving.written.len()) {
            let to = &moving.written[whole.first..=whole.last];
            let from = whole.condemned.container;
            self.lock_as(whole.condemned, to).await?;
            let mut changed = self.shared.lock().led_on(from, to);
            self.shared.maybe_yield().await;
            changed.push((from, to.to_vec()));
            let limit = self.shared.config.meta_record_bytes() - TURNSTILE_BYTES;
            for (stubs, txn) in stubs::in_txns(&changed, limit, |(from, to)| stubs::put(*from, to))? {
                self.shared.decided(txn).await?;
                let mut state = self.shared.lock();
                state.stubs.extend(stubs.iter().cloned());
                // A read on its way may look for what nothing reaches any more.
                state.deletions += 1;
            }
            stubbed.push(whole.condemned);
        }
        for some in stubbed.chunks(DELETES_AT_ONCE) {
            self.delete_containers(some, report).await?;
            report.moved += some.len() as u64;
        }
        Ok(())
    }

    /// What the media keep of a container they keep of its copies too, from before anything leads to them.
    async fn lock_as(&self, condemned: &Condemned, to: &[Holder]) -> Result<(), EngineError> {
        if condemned.locked_until_ms == 0 {
            return Ok(());
        }
        let copies = to.iter().map(|holder| holder.container).collect();
        if self.shared.pool.lock_containers(&copies, condemned.locked_until_ms).await {
            return Ok(());
        }
        let reason = format!("not every medium keeps the copies of container {} yet", condemned.container);
        Err(EngineError::new(EngineErrorKind::TooFewMedia, reason))
    }

    async fn delete_containers(
        &self,
        doomed: &[&Condemned],
        report: &mut CleanReport,
    ) -> Result<(), EngineError> {
        let deleted: Vec<Deleted> = doomed
            .iter()
            .map(|doomed| Deleted {
                container: doomed.container,
                total: doomed.size.total,
                blocks: doomed.size.blocks,
            })
            .collect();
        {
            // A checkpoint's totals have a deletion or not, as the order of their records says.
            let _turn = self.shared.checkpointing.lock().await;
            let append = self.shared.journal()?.append_control(vec![Entry::Delete(deleted.clone())]);
            match append.await {
                Ok(result) => result?,
                Err(_) => return Err(EngineError::new(EngineErrorKind::Closed, "the journal is gone")),
            };
        }
        for deleted in &deleted {
            self.shared.maybe_yield().await;
            self.shared.pool.delete(deleted.container).await;
            report.deleted += 1;
            report.freed_bytes += u64::from(deleted.total);
        }
        self.shared.pool.refresh_space().await;
        self.shared.lock().room_made = self.shared.rt.now();
        self.shared.room_wake.notify_waiters();
        Ok(())
    }
}

/// A unit to be moved.
struct Live {
    kind: UnitKind,
    name: Fingerprint,
    address: Address,
}

impl Live {
    /// Where it ends in its container.
    fn end(&self) -> usize {
        self.address.offset as usize + self.address.length as usize
    }
}

/// Units in the order of their places, in stretches that are read at once.
fn runs(live: &[Live]) -> Vec<&[Live]> {
    let mut runs = Vec::new();
    let mut first = 0;
    for next in 1..=live.len() {
        let goes_on = live.get(next).is_some_and(|unit| {
            let (begins, before) = (unit.address.offset as usize, live[next - 1].end());
            let start = live[first].address.offset as usize;
            (before..=before + GAP_BYTES).contains(&begins) && unit.end() - start <= RUN_BYTES
        });
        if !goes_on {
            runs.push(&live[first..next]);
            first = next;
        }
    }
    runs
}

/// Units as they were read.
#[derive(Default)]
struct Read {
    /// From the first to the end of the last.
    bytes: Vec<u8>,
    /// For each, what goes to its new place when it does not go as it lies.
    anew: Vec<Option<Vec<u8>>>,
}

/// What is being moved.
#[derive(Default)]
struct Moving<'a> {
    builder: Builder,
    blocks: u32,
    block_bytes: u64,
    /// Containers written.
    written: Vec<Holder>,
    /// Containers all of whose live contents are in `written` and `builder`, the oldest first.
    whole: VecDeque<Whole<'a>>,
}

/// A container that was copied to those written from `first` to `last`.
struct Whole<'a> {
    condemned: &'a Condemned,
    first: usize,
    last: usize,
}
