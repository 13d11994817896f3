//! Goal: what the status calls readable is read, what it calls lost is lost, and media that may be lost may be: whatever the
//! number of media, and however many are away, at the start or from one moment to the next.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::{Engine, EngineErrorKind, Exposure, Fork, OnLoss, Progress, ScrubCursor};
use meta::Txn;
use seam::Runtime;
use sim::{Control, Life, Limits, Rng, Simulation, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId};

/// Sites, of 1 to 20 media each.
const SITES: u64 = 60;
const MEDIA_MAX: u64 = 20;
/// Lives of a site.
const LIVES: usize = 5;
/// Most blocks of a disk.
const BLOCKS_MAX: u64 = 48;
/// Room for data on each medium.
const ROOM: u64 = 4 << 20;
/// Longest wait for something in the background, simulated.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// A disk and what it holds.
struct Guest {
    disk: DiskId,
    contents: Vec<u8>,
}

/// A site, its disks, and which of its media are there.
struct Bench {
    control: Control,
    site: Site,
    guests: Vec<Guest>,
    away: BTreeSet<usize>,
    rng: Rng,
    seed: u64,
    /// What was met: answers with nothing lost, with something lost, and media that were taken away as allowed.
    met: [u64; 3],
}

impl Bench {
    fn media(&self) -> usize {
        self.site.spec().media
    }

    /// Takes `count` more media away.
    fn take_away(&mut self, count: usize) {
        let mut up: Vec<usize> = (0..self.media()).filter(|number| !self.away.contains(number)).collect();
        self.rng.shuffle(&mut up);
        self.away.extend(&up[..count.min(up.len())]);
        self.away.iter().for_each(|number| self.site.stores()[*number].set_gone(true));
    }

    fn give_back(&mut self) {
        self.away.clear();
        self.site.stores().iter().for_each(|store| store.set_gone(false));
    }

    fn boot(&self) -> Life {
        self.site.boot_for(&vec![true; self.media()], OnLoss::Serve)
    }

    /// A disk with something on it, in containers as far as they can be written.
    async fn write(&mut self, engine: &Engine, blocks_max: u64) {
        let blocks = self.rng.range(1..blocks_max + 1);
        let disk = engine.new_disk_id().await.expect("an id");
        assert!(engine.apply(Txn::new(), &[(disk, blocks * BLOCK_U64)], &[]).await.expect("a disk"));
        let mut contents = vec![0; blocks as usize * BLOCK];
        self.rng.fill(&mut contents);
        engine.write(disk, 0, &contents).await.expect("a write");
        self.guests.push(Guest { disk, contents });
        engine.drain().await.expect("containers");
        if self.rng.coin() {
            engine.checkpoint().await.expect("a checkpoint");
        }
    }

    /// The status, once it knows which disks are affected.
    async fn exposure(&self, life: &Life, engine: &Engine) -> (Exposure, bool) {
        let begun = life.runtime().now();
        loop {
            // As the server does every few seconds.
            engine.pool().probe().await;
            let status = engine.status().await;
            if !status.recovering_index && status.exposure.affected.is_some() {
                return (status.exposure, status.buffered_bytes > 0);
            }
            assert!(life.runtime().now() < begun + PATIENCE, "seed {}: {status:?}", self.seed);
            life.runtime().sleep(POLL).await;
        }
    }

    /// Disks of which a block cannot be read; what can is what was written.
    async fn unreadable(&self, engine: &Engine) -> BTreeSet<DiskId> {
        engine.drop_caches();
        let mut unreadable = BTreeSet::new();
        for guest in &self.guests {
            for (at, block) in guest.contents.chunks(BLOCK).enumerate() {
                match engine.read(guest.disk, at as u64 * BLOCK_U64, BLOCK).await {
                    Ok(read) => assert!(read == block, "seed {}: wrong bytes", self.seed),
                    Err(error) => {
                        let is_right = matches!(error.kind, EngineErrorKind::Lost);
                        assert!(is_right, "seed {}: {error}", self.seed);
                        unreadable.insert(guest.disk);
                    }
                }
            }
        }
        unreadable
    }

    /// Compares what the status says with a full read.
    async fn judge(&mut self, life: &Life, engine: &Engine) -> Exposure {
        let (said, buffered) = self.exposure(life, engine).await;
        let unreadable = self.unreadable(engine).await;
        let affected: BTreeSet<DiskId> = said.affected.iter().flatten().copied().collect();
        let seed = self.seed;
        assert!(said.damaged.is_empty(), "seed {seed}: what is only away is called damaged: {said:?}");
        // A block in the write buffer hides one that is lost.
        if buffered {
            assert!(unreadable.is_subset(&affected), "seed {seed}: {unreadable:?}, {said:?}");
        } else {
            assert_eq!(unreadable, affected, "seed {seed}: {said:?}");
        }
        if !unreadable.is_empty() {
            assert!(said.can_lose == 0 && said.short_rows > 0, "seed {seed}: {said:?}");
        }
        self.met[usize::from(!unreadable.is_empty())] += 1;
        said
    }

    /// One life: media are away from its start on, then as many more as the status allows, then more than that.
    async fn live(&mut self) {
        let seed = self.seed;
        let at_once = self.rng.index(5);
        let at_once = if self.rng.coin() { 0 } else { at_once };
        self.take_away(at_once);
        let mut life = self.boot();
        let Some(Ok(engine)) = life.opened().await else { return self.end(life) };
        if engine.is_writable() && self.rng.chance(700_000) {
            self.write(&engine, BLOCKS_MAX).await;
        }
        if !engine.losses().is_empty() {
            return self.end(life);
        }
        let said = self.judge(&life, &engine).await;
        if said.can_lose > 0 {
            self.take_away(said.can_lose);
            let (now, _) = self.exposure(&life, &engine).await;
            assert_eq!(now.affected, Some(Vec::new()), "seed {seed}: {said:?}, then {now:?}");
            assert_eq!(
                self.unreadable(&engine).await,
                BTreeSet::new(),
                "seed {seed}: {said:?}, then {now:?}"
            );
            // Nor does a restart without them miss anything.
            self.site.end(life, false);
            life = self.boot();
            let engine = life.opened().await.expect("it lives");
            let engine = engine.unwrap_or_else(|error| panic!("seed {seed}: {said:?}: {error}"));
            assert!(engine.losses().is_empty(), "seed {seed}: {said:?}: {:?}", engine.losses());
            assert_eq!(
                self.unreadable(&engine).await,
                BTreeSet::new(),
                "seed {seed}: {said:?}, after a restart"
            );
            self.met[2] += 1;
            self.judge(&life, &engine).await;
        }
        let Some(engine) = life.engine() else { return self.end(life) };
        let more = self.rng.index(4);
        self.take_away(more);
        self.judge(&life, &engine).await;
        self.give_back();
        let begun = life.runtime().now();
        let is_whole = || {
            engine.is_writable()
                && engine.is_settled()
                && engine.pool().health().iter().all(|health| health.up)
        };
        while !is_whole() {
            assert!(life.runtime().now() < begun + PATIENCE, "seed {seed}: media come back");
            life.runtime().sleep(POLL).await;
        }
        let said = self.judge(&life, &engine).await;
        assert!(said.short_containers == 0 && said.damaged.is_empty(), "seed {seed}: {said:?}");
        self.end(life);
    }

    fn end(&mut self, life: Life) {
        let power_cut = self.rng.coin();
        self.site.end(life, power_cut);
        self.give_back();
    }
}

fn spec(media: usize) -> SiteSpec {
    SiteSpec { media, rebuild_after: Duration::from_secs(100_000), ..super::room::spec(ROOM) }
}

fn simulate<T>(seed: u64, media: Option<usize>, work: impl AsyncFnOnce(Bench) -> T) -> T {
    let sim = Simulation::new(seed, Limits { steps: 50_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let mut rng = sim.rng("test");
    let drawn = rng.range(1..MEDIA_MAX + 1) as usize;
    let media = media.unwrap_or(drawn);
    let whole = async {
        let site = Site::format(&control, spec(media)).await;
        let (guests, away) = (Vec::new(), BTreeSet::new());
        work(Bench { control: control.clone(), site, guests, away, rng, seed, met: [0; 3] }).await
    };
    sim.run_until(whole).expect("it ends")
}

#[test]
fn the_status_agrees_with_a_full_read() {
    let mut met = [0; 3];
    for seed in 0..SITES {
        let seen = simulate(seed, None, async |mut bench| {
            for _ in 0..LIVES {
                bench.live().await;
            }
            bench.met
        });
        met.iter_mut().zip(seen).for_each(|(all, one)| *all += one);
    }
    assert!(met.iter().all(|met| *met > SITES / 2), "all, something lost, as allowed: {met:?}");
    println!("all is read {}, something is lost {}, media taken away as allowed {}", met[0], met[1], met[2]);
}

/// All that a start needs is there, and what was written first is not: no record of it is read, and it counts all the same.
/// A disk that is made from one that cannot be read is named too.
#[test]
fn what_no_start_needs_is_missed_too() {
    let mut met = 0;
    for seed in 0..SITES / 4 {
        met += simulate(seed, Some(6), async |mut bench| {
            // Of six media, then of four, then of three.
            for away in [0, 2] {
                bench.take_away(away);
                let mut life = bench.boot();
                let engine = life.opened().await.expect("it lives").expect("two may be away");
                // Few containers, so that no record of any of them may be within reach.
                bench.write(&engine, 6).await;
                engine.checkpoint().await.expect("a checkpoint");
                bench.site.end(life, false);
            }
            bench.take_away(1);
            let mut life = bench.boot();
            let engine = match life.opened().await.expect("it lives") {
                Ok(engine) if engine.losses().is_empty() => engine,
                _ => return 0,
            };
            // Until the journal is taken over every row counts.
            let begun = life.runtime().now();
            while !engine.is_writable() {
                assert!(life.runtime().now() < begun + PATIENCE, "seed {seed}: three media take writes");
                life.runtime().sleep(POLL).await;
            }
            let said = bench.judge(&life, &engine).await;
            let Some(lost) = said.affected.iter().flatten().next().copied() else { return 0 };
            let copy = engine.new_disk_id().await.expect("an id");
            let fork = Fork { source: lost, target: copy, read_only: true };
            engine.fork(Txn::new(), &[fork], &[]).await.expect("a copy");
            let begun = life.runtime().now();
            while !engine.exposure().affected.is_some_and(|disks| disks.contains(&copy)) {
                assert!(life.runtime().now() < begun + PATIENCE, "seed {seed}: the copy is not named");
                life.runtime().sleep(POLL).await;
            }
            bench.site.end(life, false);
            1
        });
    }
    assert!(met > SITES / 20, "something was lost: {met}");
}

/// What is spoilt on more media than parity allows is named from the first read or scrub that meets it, over restarts of the
/// search for it, until the disks it is of are gone.
#[test]
fn damage_is_told_until_it_is_gone() {
    let mut met = 0;
    for seed in 0..SITES / 4 {
        met += simulate(seed, None, async |mut bench| {
            let mut life = bench.boot();
            let engine = life.opened().await.expect("it lives").expect("a sound site opens");
            if !engine.is_writable() {
                bench.end(life);
                return 0;
            }
            for _ in 0..4 {
                bench.write(&engine, BLOCKS_MAX).await;
            }
            engine.checkpoint().await.expect("a checkpoint");
            let (before, _) = bench.exposure(&life, &engine).await;
            let layout = data::Layout::new(bench.site.spec().params, bench.site.spec().medium_bytes)
                .expect("a layout");
            let area = layout.data..layout.end;
            for store in bench.site.stores() {
                for _ in 0..bench.rng.index(60) {
                    store.rot_random(area.clone());
                }
            }
            if bench.rng.coin() {
                engine.scrub(&ScrubCursor::default(), &Progress::default()).await.expect("a scrub");
            } else {
                engine.verify(&Progress::default()).await.expect("a verification");
            }
            let unreadable = bench.unreadable(&engine).await;
            let (said, _) = bench.exposure(&life, &engine).await;
            let affected: BTreeSet<DiskId> = said.affected.iter().flatten().copied().collect();
            assert_eq!(unreadable, affected, "seed {seed}: {said:?}");
            if before.can_lose > 0 {
                assert_eq!(said.damaged.is_empty(), said.can_lose > 0, "seed {seed}: {said:?}");
            }
            let deleted: Vec<DiskId> = affected.iter().copied().collect();
            engine.apply(Txn::new(), &[], &deleted).await.expect("a deletion");
            bench.guests.retain(|guest| !affected.contains(&guest.disk));
            for _ in 0..4 {
                engine.clean(0, &Progress::default()).await.ok();
            }
            engine.scrub(&ScrubCursor::default(), &Progress::default()).await.expect("a scrub");
            let (after, _) = bench.exposure(&life, &engine).await;
            assert_eq!(after.affected, Some(Vec::new()), "seed {seed}: {after:?}");
            assert_eq!(bench.unreadable(&engine).await, BTreeSet::new(), "seed {seed}");
            bench.end(life);
            u64::from(!unreadable.is_empty())
        });
    }
    assert!(met > 2, "something was lost: {met}");
}

/// Media that were put back to older copies, or that lost something that they list, count as lost from the moment that is seen
/// until a scrub has ended that had them within reach; then as many may be lost as before.
#[test]
fn older_copies_count_as_lost_until_a_scrub_has_ended() {
    for seed in 0..SITES / 4 {
        simulate(seed, Some(6), async |mut bench| {
            let mut images = Vec::new();
            for _ in 0..2 {
                let mut life = bench.boot();
                let engine = life.opened().await.expect("it lives").expect("all media are there");
                bench.write(&engine, BLOCKS_MAX).await;
                engine.checkpoint().await.expect("a checkpoint");
                bench.site.end(life, false);
                images.push(bench.site.image());
            }
            let (older, mut newest) = (images.remove(0), images.remove(0));
            let mut media: Vec<usize> = (0..6).collect();
            bench.rng.shuffle(&mut media);
            let (back, others) = media.split_at(1 + seed as usize % 2);
            back.iter().for_each(|number| newest.media[*number] = older.media[*number].clone());
            let spec = bench.site.spec().clone();
            bench.site = Site::of(&bench.control, spec, newest);
            let mut life = bench.boot();
            let engine = life.opened().await.expect("it lives").expect("two may be lost");
            let begun = life.runtime().now();
            while !engine.is_writable() || engine.is_indexing() {
                assert!(life.runtime().now() < begun + PATIENCE, "seed {seed}: it takes writes");
                life.runtime().sleep(POLL).await;
            }
            let mut lacking: Vec<_> = back.iter().map(|number| bench.site.id(*number)).collect();
            lacking.sort_unstable();
            assert_eq!(engine.lacking().into_keys().collect::<Vec<_>>(), lacking, "seed {seed}");
            let (said, _) = bench.exposure(&life, &engine).await;
            assert_eq!(said.can_lose, 2 - back.len(), "seed {seed}: {said:?}");
            // While one of them is away a scrub does not make up for what it lacks.
            let away = back[0];
            bench.site.stores()[away].set_gone(true);
            engine.pool().probe().await;
            engine.scrub(&ScrubCursor::default(), &Progress::default()).await.expect("a scrub");
            assert!(engine.lacking().contains_key(&bench.site.id(away)), "seed {seed}");
            bench.site.stores()[away].set_gone(false);
            while !engine.pool().health().iter().all(|health| health.up)
                || engine.status().await.recovering_index
            {
                assert!(life.runtime().now() < begun + PATIENCE, "seed {seed}: it comes back");
                life.runtime().sleep(POLL).await;
            }
            engine.scrub(&ScrubCursor::default(), &Progress::default()).await.expect("a scrub");
            assert_eq!(engine.lacking().len(), 0, "seed {seed}");
            assert_eq!(bench.exposure(&life, &engine).await.0.can_lose, 2, "seed {seed}");
            // One that is known to have lost something counts the same, whatever it lists.
            engine.suspect(bench.site.id(others[0]));
            assert_eq!(bench.exposure(&life, &engine).await.0.can_lose, 1, "seed {seed}");
            engine.scrub(&ScrubCursor::default(), &Progress::default()).await.expect("a scrub");
            assert_eq!(bench.exposure(&life, &engine).await.0.can_lose, 2, "seed {seed}");
            bench.away.extend(&others[..2]);
            bench.away.iter().for_each(|number| bench.site.stores()[*number].set_gone(true));
            assert_eq!(bench.unreadable(&engine).await, BTreeSet::new(), "seed {seed}");
            bench.end(life);
        });
    }
}
