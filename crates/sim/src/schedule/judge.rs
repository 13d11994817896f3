//! The last look: when the faults have stopped, everything must heal, converge, and be what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::{Engine, EngineError, EngineErrorKind, ScrubTotals};
use seam::Runtime;
use units::{BLOCK_U64, DiskId, Lba};

use crate::ground::{Life, Site, SiteImage};
use crate::rng::Rng;

use super::plan::{Family, tolerance};
use super::world::{World, names_something};

/// Bytes of one read.
const READ_BYTES: u64 = 256 << 10;
/// Rest after which nothing may be under way any more.
const SETTLE: Duration = Duration::from_secs(200);

/// What a full read found.
type Contents = BTreeMap<DiskId, Result<Vec<u8>, String>>;

/// Reads every disk whole.
async fn read_all(world: &World, life: &Life, engine: &Engine) -> Contents {
    let disks: Vec<DiskId> = world.lock().disks.keys().copied().collect();
    let mut found = Contents::new();
    for disk in disks {
        let engine = engine.clone();
        let (sender, read) = tokio::sync::oneshot::channel();
        life.runtime()
            .spawn("full read", Box::pin(async move { drop(sender.send(read_disk(&engine, disk).await)) }));
        let read = read.await.unwrap_or_else(|_| Err("the process died".to_owned()));
        found.insert(disk, read);
    }
    found
}

/// Runs work as a task of the process; `None` when the process died.
pub(super) async fn in_life<T: Send + 'static>(
    life: &Life,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let task = async move { drop(sender.send(work.await)) };
    life.runtime().spawn("last look", Box::pin(task));
    answer.await.ok()
}

pub(super) async fn read_disk(engine: &Engine, disk: DiskId) -> Result<Vec<u8>, String> {
    let describe = |error: EngineError| format!("{:?}: {error}", error.kind);
    let _open = engine.open_disk(disk).await.map_err(describe)?;
    let bytes = engine.disk_bytes(disk).ok_or("it is gone")?;
    let mut all = Vec::with_capacity(bytes as usize);
    while (all.len() as u64) < bytes {
        let at = all.len() as u64;
        let length = READ_BYTES.min(bytes - at) as usize;
        all.extend(engine.read(disk, at, length).await.map_err(describe)?);
    }
    Ok(all)
}

/// Bytes on the media beyond those of the committed containers: locked fragments whose rows were emptied. `None` when there
/// are fewer, or more and nothing is locked.
async fn kept(engine: &Engine) -> Option<u64> {
    let used = engine.pool().refresh_space().await.raw_used;
    let more = used.checked_sub(engine.committed_raw_bytes())?;
    (more == 0 || !engine.pool().locks().await.is_empty()).then_some(more)
}

impl World {
    /// Compares a full read with the model.
    fn judge_contents(&self, when: &str, found: &Contents, settled: bool) {
        for (disk, read) in found {
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.wrong(format_args!("{when}: disk {} cannot be read: {error}", disk.0));
                    continue;
                }
            };
            let now = self.now();
            let mut shared = self.lock();
            let Some(known) = shared.disks.get(disk) else { continue };
            if known.is_settled() && known.bytes != bytes.len() as u64 {
                let known = known.bytes;
                drop(shared);
                self.wrong(format_args!("{when}: disk {} has {} bytes, not {known}", disk.0, bytes.len()));
                continue;
            }
            let mut whole = bytes.clone();
            // What was cut off by a resize is zeros to the model.
            let end = known.bytes_max.max(bytes.len() as u64).next_multiple_of(BLOCK_U64);
            whole.resize(end as usize, 0);
            let verdict = if settled {
                shared
                    .model
                    .final_check(*disk, &whole, now)
                    .map_err(|mut violations| violations.swap_remove(0))
            } else {
                let read = shared.model.begin_read(now);
                shared.model.check_unsettled(read, *disk, Lba(0), &whole, now)
            };
            drop(shared);
            if let Err(violation) = verdict {
                self.wrong(format_args!("{when}: {violation}"));
            }
        }
    }

    /// Opens the site. `None` when it does not open, which the schedule may excuse.
    pub(super) async fn open(&self, when: &str) -> Option<(Life, Engine)> {
        let mut life = self.site.boot();
        match life.opened().await {
            Some(Ok(engine)) => {
                if !engine.is_writable() && self.plan.family == Family::Within && !self.can_starve() {
                    self.wrong(format_args!(
                        "{when}: enough media are there, and the site serves reads only"
                    ));
                }
                Some((life, engine))
            }
            Some(Err(error)) => {
                self.note(format_args!("{when}: the site does not open: {:?}: {error}", error.kind));
                let excused = match error.kind {
                    EngineErrorKind::TooFewMedia => self.can_starve(),
                    _ => false,
                };
                let beyond = self.plan.family == Family::Beyond && names_something(&error);
                if !excused && !beyond {
                    self.wrong(format_args!("{when}: the site does not open: {:?}: {error}", error.kind));
                }
                self.end_life(life, false);
                None
            }
            None => None,
        }
    }

    /// The last look of a schedule.
    pub(super) async fn last_look(&self, rng: &mut Rng, open: Option<(Life, Engine)>) {
        let (life, engine) = match open {
            Some(open) => open,
            None => match self.open("at the end").await {
                Some(open) => open,
                None => return,
            },
        };
        // Long enough for retries, repairs put off, and late messages.
        self.rt.sleep(SETTLE).await;
        self.replace_banned(&life).await;
        let (life, engine) = if engine.is_writable() && !self.is_one_away(&engine) {
            (life, engine)
        } else {
            self.note(format_args!("reads only, or media stay away: the site is started again"));
            self.end_life(life, false);
            let Some((life, engine)) = self.open("with all media there").await else { return };
            self.replace_banned(&life).await;
            (life, engine)
        };
        if !engine.is_writable() && self.plan.family == Family::Within {
            self.wrong("all media are there, and the site serves reads only");
        }
        self.moved(&life, &engine).await;
        // What the cache holds would hide damage from this read and not from the next.
        engine.drop_caches();
        let first = read_all(self, &life, &engine).await;
        if self.plan.family == Family::Beyond {
            self.judge_beyond(&first);
            return self.site.end(life, false);
        }
        self.judge_contents("first full read", &first, true);
        self.rt.sleep(SETTLE).await;
        let repaired = engine.pool().stats().repaired.load(Ordering::Relaxed);
        if !engine.pool().is_repaired() {
            self.wrong("repairs do not come to an end");
        }
        engine.drop_caches();
        let second = read_all(self, &life, &engine).await;
        self.judge_contents("second full read", &second, true);
        self.rt.sleep(SETTLE).await;
        let again = engine.pool().stats().repaired.load(Ordering::Relaxed) - repaired;
        if again != 0 {
            self.wrong(format_args!("the second full read repaired {again} fragments"));
        }
        if self.verdict().is_some() {
            return self.site.end(life, false);
        }
        let Some((life, engine)) = self.scrubbed(life, engine).await else { return };
        let third = read_all(self, &life, &engine).await;
        self.judge_contents("full read after a scrub", &third, true);
        self.look_at_vms(&life).await;
        self.cleaned(rng, life, engine).await;
    }

    /// What the cleaner leaves reads the same, recovers from parts of the media, and can be emptied.
    async fn cleaned(&self, rng: &mut Rng, life: Life, engine: Engine) {
        self.attack(&life, &engine).await;
        let before = kept(&engine).await;
        self.clean(&life, &engine).await;
        self.rt.sleep(SETTLE).await;
        let after = kept(&engine).await;
        // What the media would not free must not be given up.
        if engine.is_settled() && after.is_none_or(|after| before.is_some_and(|before| after > before)) {
            self.wrong(format_args!(
                "cleaned: {before:?} more bytes than committed are in use, then {after:?}"
            ));
        }
        engine.drop_caches();
        let fourth = read_all(self, &life, &engine).await;
        self.judge_contents("full read after a clean", &fourth, true);
        let power_cut = rng.coin();
        self.end_life(life, power_cut);
        let image = self.site.image();
        for _ in 0..self.plan.subsets {
            self.compare_subset(rng, &image).await;
        }
        if self.verdict().is_none() {
            self.end_holds();
            self.emptied().await;
        }
    }

    /// Restarts the site and scrubs it: what no read touches is mended too, every committed container is there, and the
    /// media hold the fragments of these and nothing else, to the byte.
    async fn scrubbed(&self, life: Life, engine: Engine) -> Option<(Life, Engine)> {
        let closing = engine.clone();
        let closed = in_life(&life, async move { closing.close().await }).await?;
        if let Err(error) = closed
            && !self.plan.small
        {
            self.wrong(format_args!("a sound site does not close: {error}"));
        }
        self.end_life(life, false);
        let (life, engine) = self.open("for the scrub").await?;
        self.rt.sleep(SETTLE).await;
        let work = engine.clone();
        let mended = in_life(&life, async move {
            work.scrub(&engine::ScrubCursor::default(), &engine::Progress::default()).await
        })
        .await?;
        let work = engine.clone();
        let sound = in_life(&life, async move {
            work.scrub(&engine::ScrubCursor::default(), &engine::Progress::default()).await
        })
        .await?;
        match (mended, sound) {
            (Ok(mended), Ok(sound)) => {
                let clean = ScrubTotals { repaired: 0, sound: sound.sound, ..ScrubTotals::default() };
                let clean = ScrubTotals { containers: sound.containers, ..clean };
                if sound != clean || mended.containers != sound.containers {
                    self.wrong(format_args!("scrub: {mended:?}, then {sound:?}"));
                }
            }
            found => self.wrong(format_args!("the site cannot be scrubbed: {found:?}")),
        }
        let work = engine.clone();
        match in_life(&life, async move { work.verify(&engine::Progress::default()).await }).await? {
            Ok(report) if report.lost_units == 0 && report.affected.is_empty() => {}
            found => self.wrong(format_args!("a sound site does not verify: {found:?}")),
        }
        if engine.is_settled() && kept(&engine).await.is_none() {
            let used = engine.pool().refresh_space().await.raw_used;
            let committed = engine.committed_raw_bytes();
            self.wrong(format_args!(
                "{used} bytes are in use, and the committed containers have {committed}"
            ));
        }
        Some((life, engine))
    }

    /// Recovery from a part of the media must give the same contents [I4].
    async fn compare_subset(&self, rng: &mut Rng, image: &SiteImage) {
        let members: Vec<usize> = image.members().iter().map(|member| member.number).collect();
        let node_of = |medium: &usize| self.plan.spec.node_of(*medium);
        let domains = |media: &mut dyn Iterator<Item = usize>| -> BTreeSet<usize> {
            media.map(|m| node_of(&m)).collect()
        };
        let all: Vec<usize> = domains(&mut members.iter().copied()).into_iter().collect();
        let mut there: Vec<bool> = (0..image.media.len()).map(|number| members.contains(&number)).collect();
        if self.plan.victims.is_empty() {
            for _ in 0..rng.index(tolerance(all.len()) + 1) {
                let lost = all[rng.index(all.len())];
                members
                    .iter()
                    .filter(|medium| node_of(medium) == lost)
                    .for_each(|medium| there[*medium] = false);
            }
        }
        // What struck the victims may still lie hidden on them: others cannot be missed too.
        for victim in &self.plan.victims {
            there[*victim] &= rng.coin();
        }
        let left = domains(&mut members.iter().copied().filter(|medium| there[*medium]));
        if left.len() < all.len().min(2) {
            return; // too few to take over
        }
        self.note(format_args!("recovery on {there:?}"));
        let site = Site::of(&self.control, self.plan.spec.clone(), image.clone());
        let mut life = site.boot_on(&there);
        match life.opened().await {
            Some(Ok(engine)) => {
                let found = read_all(self, &life, &engine).await;
                // What failed and was never superseded may be found by some and not by others; all else is the same.
                self.judge_contents(&format!("recovered from {there:?}"), &found, false);
            }
            Some(Err(error)) => self.wrong(format_args!("the site does not open on {there:?}: {error}")),
            None => {}
        }
        site.end(life, false);
    }

    /// Right bytes, or an error that names what is lost.
    fn judge_beyond(&self, found: &Contents) {
        let sound = found.iter().filter(|(_, read)| read.is_ok());
        let sound: Contents = sound.map(|(disk, read)| (*disk, read.clone())).collect();
        self.judge_contents("beyond tolerance", &sound, false);
        for (disk, read) in found {
            if let Err(error) = read {
                self.note(format_args!("disk {}: {error}", disk.0));
            }
        }
    }
}
