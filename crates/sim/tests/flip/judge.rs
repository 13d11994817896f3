//! What a store with damage must do.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::{Engine, EngineError, EngineErrorKind, OnLoss, ScrubTotals};
use seam::Runtime;
use sim::{Life, Limits, Simulation, Site, SiteImage};
use units::{BLOCK, BLOCK_U64, DiskId};

use super::make::{Contents, STEPS, Store, VALUES, block};
use super::survey::{What, fixed_places_are_sound};

/// Long enough for repairs in the background.
const REST: Duration = Duration::from_millis(300);
/// What became of the damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Nobody met it in a fragment: it lay in the journal, the tables or nowhere, or it cost nothing.
    Harmless,
    /// Reads met it and had the fragment written again.
    MendedByReads,
    /// Only the scrub met it.
    MendedByScrub,
    /// The newest batch of the journal was dropped.
    Dropped,
    /// Some reads failed, and said what is lost.
    LostBlocks,
    /// The site did not open, said what is lost, and went on without it when that was accepted.
    WentOn,
    /// The site did not open, and said that nothing of it is left.
    LostSite,
}

/// A verdict: what became of the damage, or what is wrong.
pub(super) type Verdict = Result<Fate, String>;

/// Runs work as a task of the process.
async fn in_life<T: Send + 'static>(life: &Life, work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let task = async move { drop(sender.send(work.await)) };
    life.runtime().spawn("last look", Box::pin(task));
    answer.await.expect("nobody kills it")
}

async fn scrub(life: &Life, engine: &Engine) -> Result<ScrubTotals, String> {
    let engine = engine.clone();
    in_life(
        life,
        async move { engine.scrub(&engine::ScrubCursor::default(), &engine::Progress::default()).await },
    )
    .await
    .map_err(|error| format!("no scrub: {error}"))
}

/// Whole disks, as they must be.
async fn read_right(engine: &Engine, contents: &Contents) -> Result<(), String> {
    for (disk, bytes) in contents {
        let open = engine.open_disk(*disk).await;
        let _open = open.map_err(|error| format!("disk {} does not open: {error}", disk.0))?;
        match engine.read(*disk, 0, bytes.len()).await {
            Ok(read) if read == *bytes => {}
            Ok(_) => return Err(format!("disk {} reads wrong", disk.0)),
            Err(error) => return Err(format!("disk {} does not read: {error}", disk.0)),
        }
    }
    Ok(())
}

fn simulate(work: impl AsyncFnOnce(&sim::Control) -> Verdict) -> Verdict {
    let sim = Simulation::new(2, Limits { steps: STEPS, ..Limits::default() });
    let control = (*sim).clone();
    sim.run_until(work(&control)).unwrap_or_else(|stuck| Err(stuck.to_string()))
}

/// Damage within what the redundancy makes good: right bytes, all of it mended, and found sound after a restart. What
/// cannot have touched a fragment is not scrubbed unless `thorough`, and what nothing needs is not started again.
pub(super) fn within(
    store: &Store,
    image: SiteImage,
    what: What,
    power_cut: bool,
    thorough: bool,
) -> Verdict {
    let journal = matches!(what, What::Segment(_) | What::Batch(..) | What::LastBatch(_));
    let scrubs = thorough || what != What::Dead && !journal;
    let restarts = thorough || what != What::Dead;
    simulate(async |control| {
        let site = Site::of(control, store.spec.clone(), image);
        let mut life = site.boot();
        let engine = life.opened().await.expect("nobody kills it");
        let engine = engine.map_err(|error| format!("it does not open: {error}"))?;
        all_up(&engine)?;
        read_right(&engine, &store.now).await?;
        life.runtime().sleep(REST).await;
        let repaired = || engine.pool().stats().repaired.load(Ordering::Relaxed);
        let by_reads = repaired();
        if scrubs {
            scrub_mends(&life, &engine).await?;
        }
        let by_scrub = repaired() - by_reads;
        let lost_changes = what == What::TableLog;
        let expected = u64::from(matches!(what, What::Fragment(..)));
        if by_reads + by_scrub != expected && !lost_changes {
            return Err(format!("reads repaired {by_reads} fragments, the scrub {by_scrub}"));
        }
        site.end(life, power_cut);
        if !fixed_places_are_sound(store, &site.image()) {
            return Err("a superblock or table is still damaged".to_owned());
        }
        if restarts {
            let mut life = site.boot();
            let engine = life.opened().await.expect("nobody kills it");
            let engine = engine.map_err(|error| format!("it does not open again: {error}"))?;
            all_up(&engine)?;
            read_right(&engine, &store.now).await.map_err(|wrong| format!("after a restart {wrong}"))?;
        }
        Ok(match (by_reads, by_scrub) {
            (0, 0) => Fate::Harmless,
            (_, 0) => Fate::MendedByReads,
            _ => Fate::MendedByScrub,
        })
    })
}

/// A scrub mends all there is to mend: what it repaired, the next one finds sound.
async fn scrub_mends(life: &Life, engine: &Engine) -> Result<(), String> {
    let first = scrub(life, engine).await?;
    is_clean(&first, first.repaired)?;
    if first.repaired > 0 {
        let second = scrub(life, engine).await?;
        is_clean(&second, 0)?;
        if first.containers != second.containers || first.sound + first.repaired != second.sound {
            return Err(format!("the scrubs differ: {first:?}, then {second:?}"));
        }
    }
    Ok(())
}

/// One flipped bit costs no medium, and the journal is taken over.
fn all_up(engine: &Engine) -> Result<(), String> {
    let down = engine.pool().health().iter().filter(|health| !health.up).count();
    match (down, engine.is_writable()) {
        (0, true) => Ok(()),
        (down, writable) => Err(format!("{down} media are down, writable: {writable}")),
    }
}

fn is_clean(found: &ScrubTotals, repaired: u64) -> Result<(), String> {
    let ScrubTotals { containers, sound, .. } = *found;
    if *found == (ScrubTotals { containers, sound, repaired, ..ScrubTotals::default() }) && containers > 0 {
        Ok(())
    } else {
        Err(format!("the scrub found {found:?}"))
    }
}

/// Damage beyond the redundancy, `what` in all copies: right bytes, or an error that names what is lost. Only the newest
/// batch of the journal goes silently, whole, and it always goes; `without_last` is what the disks hold then.
pub(super) fn beyond(store: &Store, image: SiteImage, what: What, without_last: &Contents) -> Verdict {
    simulate(async |control| {
        let site = Site::of(control, store.spec.clone(), image);
        let dropped = matches!(what, What::LastBatch(_));
        let contents = if dropped { without_last } else { &store.now };
        let mut fate = if dropped { Fate::Dropped } else { Fate::Harmless };
        for start in 0..2 {
            let mut life = site.boot();
            let engine = match life.opened().await.expect("nobody kills it") {
                Ok(engine) => engine,
                Err(error) => {
                    excused(&error, what).map_err(|wrong| format!("start {start}: {wrong}"))?;
                    fate = Fate::LostSite;
                    site.end(life, false);
                    continue;
                }
            };
            if fate == Fate::LostSite {
                return Err("what was lost is back after a restart".to_owned());
            }
            all_up(&engine)?;
            let lost = read_or_lost(&engine, contents, what)
                .await
                .map_err(|wrong| format!("start {start}: {wrong}"))?;
            if !lost.is_empty() {
                fate = Fate::LostBlocks;
            }
            scrub_tells(&scrub(&life, &engine).await?, what, &lost)?;
            site.end(life, false);
        }
        if fate == Fate::LostSite && goes_on(&site, contents).await? {
            fate = Fate::WentOn;
        }
        Ok(fate)
    })
}

/// A site that is not whole any more opens all the same: what it serves by itself is right, what it serves as far as it
/// knows was there once, and once the loss is accepted it is a site as any other, whatever comes. False when there is
/// nothing to go on from.
async fn goes_on(site: &Site, contents: &Contents) -> Result<bool, String> {
    let there = vec![true; site.stores().len()];
    let was_written: BTreeSet<Vec<u8>> = VALUES.map(block).chain([vec![0; BLOCK]]).collect();
    for on_loss in [OnLoss::Serve, OnLoss::ServeAll] {
        let mut life = site.boot_for(&there, on_loss);
        let engine = life.opened().await.expect("nobody kills it");
        let engine = engine.map_err(|error| format!("it does not open to read: {error}"))?;
        if engine.is_writable() || engine.losses().is_empty() {
            return Err("it opens as if nothing were lost".to_owned());
        }
        for (disk, bytes) in contents {
            let Ok(_open) = engine.open_disk(*disk).await else { continue };
            for (at, right) in bytes.chunks(BLOCK).enumerate() {
                match engine.read(*disk, at as u64 * BLOCK_U64, BLOCK).await {
                    Ok(read) if read == right => {}
                    Ok(read) if on_loss == OnLoss::ServeAll && was_written.contains(&read) => {}
                    Ok(_) => return Err(format!("{on_loss:?}: disk {} reads wrong at block {at}", disk.0)),
                    Err(error) if error.kind == EngineErrorKind::Lost => {}
                    Err(error) => return Err(format!("{on_loss:?}: {:?}: {error}", error.kind)),
                }
            }
        }
        if engine.write(contents[0].0, 0, &block(1)).await.is_ok() {
            return Err("it takes a write".to_owned());
        }
        site.end(life, false);
    }
    let mut life = site.boot_for(&there, OnLoss::Accept);
    match life.opened().await.expect("nobody kills it") {
        Ok(engine) if !engine.is_writable() => {
            return Err("the loss is accepted and it does not go on".to_owned());
        }
        Ok(_) => {}
        Err(error) if error.reason.contains("nothing") => return Ok(false),
        Err(error) => return Err(format!("the loss is not accepted: {error}")),
    }
    site.end(life, false);
    let mut disk = None;
    for start in 0..2 {
        let mut life = site.boot();
        let engine = life.opened().await.expect("nobody kills it");
        let engine = engine.map_err(|error| format!("start {start} behind the loss: {error}"))?;
        all_up(&engine)?;
        match disk {
            None => {
                let new = engine.new_disk_id().await.map_err(|error| error.to_string())?;
                let made = engine.apply(meta::Txn::new(), &[(new, BLOCK_U64)], &[]).await;
                if !made.map_err(|error| error.to_string())? {
                    return Err("a disk number is used twice".to_owned());
                }
                engine.write(new, 0, &block(1)).await.map_err(|error| error.to_string())?;
                engine.checkpoint().await.map_err(|error| format!("no checkpoint: {error}"))?;
                disk = Some(new);
            }
            Some(disk) => match engine.read(disk, 0, BLOCK).await {
                Ok(read) if read == block(1) => {}
                other => return Err(format!("what was written behind the loss: {other:?}")),
            },
        }
        site.end(life, false);
    }
    Ok(true)
}

/// Every block and every disk, right or lost; gives the disks that are not all right.
async fn read_or_lost(engine: &Engine, contents: &Contents, what: What) -> Result<Vec<DiskId>, String> {
    let mut lost = BTreeSet::new();
    for (disk, bytes) in contents {
        let _open = match engine.open_disk(*disk).await {
            Ok(open) => open,
            Err(error) => {
                excused(&error, what)?;
                lost.insert(*disk);
                continue;
            }
        };
        let single = (0..bytes.len() as u64).step_by(BLOCK).map(|start| (start, BLOCK));
        for (start, length) in single.chain([(0, bytes.len())]) {
            match engine.read(*disk, start, length).await {
                Ok(read) if read == bytes[start as usize..][..length] => {}
                Ok(_) => return Err(format!("disk {} reads wrong at block {}", disk.0, start / BLOCK_U64)),
                Err(error) => {
                    excused(&error, what)?;
                    lost.insert(*disk);
                }
            }
        }
    }
    Ok(lost.into_iter().collect())
}

/// An error is excused where something needed is damaged, when it names that.
fn excused(error: &EngineError, what: What) -> Result<(), String> {
    let named = match what {
        What::Segment(id) | What::Batch(id, _) => error.reason.contains(&format!("segment {}", id.number)),
        What::Fragment(container, _) => error.reason.contains(&format!("container {container}")),
        What::TableLog => error.reason.contains("container "),
        What::Superblock(_) | What::Table(_) | What::LastBatch(_) | What::Dead => false,
    };
    if named && error.kind == EngineErrorKind::Lost {
        Ok(())
    } else {
        Err(format!("{:?}: {error}", error.kind))
    }
}

/// A scrub tells of the container that is damaged and of no other, and names the disks that cannot be read whole. It may
/// name others that reach the container: what is damaged of a header no read needs.
fn scrub_tells(found: &ScrubTotals, what: What, lost: &[DiskId]) -> Result<(), String> {
    let unaffected = ScrubTotals { affected: Vec::new(), ..found.clone() };
    match (what, &found.failed[..]) {
        (What::Fragment(container, _), [(failed, reason)]) if *failed == container && !reason.is_empty() => {
            is_clean(&ScrubTotals { failed: Vec::new(), ..unaffected }, 0)?;
            if lost.iter().all(|disk| found.affected.contains(disk)) {
                Ok(())
            } else {
                Err(format!("the scrub names {:?}, and what cannot be read is {lost:?}", found.affected))
            }
        }
        // Its changes are lost: a container may be missing.
        (What::TableLog, []) => is_clean(&ScrubTotals { missing: Vec::new(), ..unaffected }, 0),
        (What::Fragment(..), _) => Err(format!("the scrub does not tell: {found:?}")),
        _ => is_clean(found, 0),
    }
}
