//! Goal: what changes while somebody waits is seen. One request is held up before it is sent, something else
//! is done to its end at that moment, and then the request goes on: holds beside the cleaner, reads and
//! scrubs beside the cleaner, holds beside holds.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::{CleanReport, Engine, EngineError, Fork, Progress, ScrubCursor};
use meta::Txn;
use proto::Request;
use seam::Runtime;
use sim::{Life, Limits, Pause, Rng, Simulation, Site, SiteSpec};
use tokio::sync::oneshot;
use units::{BLOCK, BLOCK_U64, DiskId};

/// Blocks of the disk: a dozen containers and more.
const BLOCKS: u64 = 256;
const DAY_MS: u64 = 86_400_000;
/// Long against all that is done while a request is held up, and short against its deadline.
const MOMENT: Duration = Duration::from_secs(2);

/// A site with one disk, half of whose blocks were written again: each container of its first blocks is half
/// garbage.
struct Stage {
    site: Site,
    life: Life,
    engine: Engine,
    disk: DiskId,
    contents: Vec<u8>,
}

/// A step of the engine's work that runs beside the test.
type Running<T> = oneshot::Receiver<Result<T, EngineError>>;

impl Stage {
    async fn new(control: &sim::Control, rng: &mut Rng) -> Self {
        // Next to no blocks in RAM: they are read from the media.
        let spec = SiteSpec { block_cache_bytes: 1, ..super::room::spec(16 << 20) };
        let site = Site::format(control, spec).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let disk = new_disk(&engine).await;
        assert!(engine.apply(Txn::new(), &[(disk, BLOCKS * BLOCK_U64)], &[]).await.expect("a disk"));
        let mut contents = vec![0; BLOCKS as usize * BLOCK];
        rng.fill(&mut contents);
        engine.write(disk, 0, &contents).await.expect("writes");
        engine.drain().await.expect("drains");
        for (lba, block) in contents.chunks_exact_mut(BLOCK).enumerate().step_by(2) {
            rng.fill(block);
            engine.write(disk, lba as u64 * BLOCK_U64, block).await.expect("writes");
        }
        engine.drain().await.expect("drains");
        engine.checkpoint().await.expect("a checkpoint");
        Self { site, life, engine, disk, contents }
    }

    async fn snapshot(&self) -> DiskId {
        let target = new_disk(&self.engine).await;
        let fork = Fork { source: self.disk, target, read_only: true };
        assert!(self.engine.fork(Txn::new(), &[fork], &[]).await.expect("forks"));
        target
    }

    /// Has something done beside the test.
    fn beside<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Running<T> {
        let (sender, running) = oneshot::channel();
        let task = async move { drop(sender.send(work.await)) };
        self.life.runtime().spawn("beside", Box::pin(task));
        running
    }

    /// A cycle of the cleaner, beside the test.
    fn clean(&self) -> Running<CleanReport> {
        let engine = self.engine.clone();
        self.beside(async move { engine.clean(0, &Progress::default()).await })
    }

    /// Lets things be for a while: what can go on does.
    async fn moment(&self) {
        self.life.runtime().sleep(MOMENT).await;
    }

    async fn look(&self, disk: DiskId, wanted: &[u8], when: &str) {
        let _open = self.engine.open_disk(disk).await.expect("opens");
        let read = self.engine.read(disk, 0, wanted.len()).await.expect("reads");
        assert!(read == wanted, "{when}: disk {}", disk.0);
    }

    /// The media keep all that a held disk reaches, whoever asks them to free it.
    async fn assert_kept(&self, disk: DiskId, when: &str) {
        for _ in 0..3 {
            if self.engine.enforce_holds().await.expect("media hear of holds") == 0 {
                break;
            }
        }
        let hold = self.engine.hold_of(disk).await.expect("a sound record").expect("it is held");
        assert_eq!(hold.enforced_ms, hold.until_ms, "{when}: all media were told");
        let lacking = self.engine.lacking_locks(disk).await.expect("looks");
        assert!(lacking.is_empty(), "{when}: no medium keeps {lacking:?}");
        let locks = self.engine.pool().locks().await;
        for container in locks.keys() {
            self.engine.pool().delete(*container).await;
        }
        assert_eq!(self.engine.pool().locks().await, locks, "{when}: what is locked is not freed");
    }
}

async fn new_disk(engine: &Engine) -> DiskId {
    engine.new_disk_id().await.expect("an id")
}

async fn done<T>(running: Running<T>, what: &str) -> T {
    let done = running.await.expect("it is not killed");
    done.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Waits until a request is held up.
async fn reached(pause: &mut Pause, what: &str) {
    assert!(pause.reached().await, "{what} sends no such request");
}

fn simulate(seed: u64, work: impl AsyncFnOnce(&mut Stage, &mut Rng)) {
    let sim = Simulation::new(seed, Limits { steps: 20_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let mut rng = sim.rng("test");
    let work = async {
        let mut stage = Stage::new(&control, &mut rng).await;
        work(&mut stage, &mut rng).await;
        stage.site.end(stage.life, false);
    };
    sim.run_until(work).expect("it ends");
}

/// What is held up, in a word, and which requests are that.
type Moment = (&'static str, fn(&Request) -> bool);

/// Where a cycle is held up: before a condemned container is looked at, before what is live in it is read and
/// written elsewhere, before it is deleted; and before the media say what they keep.
const MOMENTS: [Moment; 5] = [
    ("headers", |request| matches!(request, Request::FragmentHeader { .. })),
    ("reads", |request| matches!(request, Request::FragmentRead { .. })),
    ("writes", |request| matches!(request, Request::FragmentWrite { .. })),
    ("deletes", |request| matches!(request, Request::FragmentFree(_))),
    ("locks", |request| matches!(request, Request::LockList { .. })),
];

/// A hold, and the word of it to the media, come between any two steps of a cycle that empties what is held.
#[test]
fn what_is_held_is_kept_whenever_the_hold_comes() {
    for (moment, kind) in MOMENTS {
        simulate(1, async |stage, rng| {
            let snapshot = stage.snapshot().await;
            let wanted = stage.contents.clone();
            stage.engine.checkpoint().await.expect("a checkpoint");
            let mut pause = stage.life.pause(kind);
            let cleaning = stage.clean();
            reached(&mut pause, moment).await;
            let engine = stage.engine.clone();
            let holding = stage.beside(async move {
                let until_ms = engine.site_time_ms() + 30 * DAY_MS;
                let held = engine.hold(Txn::new(), &[snapshot], until_ms).await?;
                Ok((held, engine.enforce_holds().await?))
            });
            stage.moment().await;
            drop(pause);
            let cleaned = done(cleaning, moment).await;
            assert!(done(holding, moment).await.0, "{moment}: it is held");
            stage.assert_kept(snapshot, moment).await;
            assert!(cleaned.moved > 3, "{moment}: {cleaned:?}");
            // What the disk shows now is other than what is held, and the cleaner comes again.
            rng.fill(&mut stage.contents);
            stage.engine.write(stage.disk, 0, &stage.contents).await.expect("writes");
            stage.engine.drain().await.expect("drains");
            done(stage.clean(), moment).await;
            stage.assert_kept(snapshot, moment).await;
            stage.look(snapshot, &wanted, moment).await;
            stage.look(stage.disk, &stage.contents, moment).await;
            let refused = stage.engine.apply(Txn::new(), &[], &[snapshot]).await;
            assert!(refused.is_err(), "{moment}: nobody deletes what is held");
        });
    }
}

/// While the media are told of a hold it becomes longer, and another disk is held: they are told of both.
#[test]
fn a_hold_that_comes_while_media_are_told_is_told_too() {
    simulate(2, async |stage, _| {
        let (first, second) = (stage.snapshot().await, stage.snapshot().await);
        stage.engine.checkpoint().await.expect("a checkpoint");
        for (disk, days) in [(first, 10), (second, 20)] {
            let until_ms = stage.engine.site_time_ms() + days * DAY_MS;
            assert!(stage.engine.hold(Txn::new(), &[first], until_ms).await.expect("holds"));
            let mut pause = stage.life.pause(|request| matches!(request, Request::FragmentLock { .. }));
            let engine = stage.engine.clone();
            let telling = stage.beside(async move { engine.enforce_holds().await });
            reached(&mut pause, "the telling").await;
            let (engine, longer) = (stage.engine.clone(), until_ms + DAY_MS);
            let holding = stage.beside(async move { engine.hold(Txn::new(), &[disk], longer).await });
            assert!(done(holding, "a longer hold").await);
            drop(pause);
            let left = done(telling, "the telling").await;
            let told: BTreeMap<DiskId, u64> = stage
                .engine
                .holds()
                .await
                .expect("sound records")
                .into_iter()
                .map(|hold| (hold.disk, hold.enforced_ms))
                .collect();
            assert!(told[&disk] < longer, "nobody was told of it yet");
            assert_eq!(left, usize::from(disk == first), "what grew meanwhile is left");
            stage.assert_kept(disk, "told again").await;
            let locks = stage.engine.pool().locks().await;
            assert!(locks.values().all(|until| *until == longer), "{locks:?} until {longer}");
        }
    });
}

/// A read has found where a block lies, and until it asks for it the cleaner moves the block and deletes the
/// container.
#[test]
fn a_read_that_the_cleaner_overtakes_reads_right() {
    simulate(3, async |stage, _| {
        // Live, among garbage; the pages that lead to it are in RAM.
        let lba = 101;
        stage.look(stage.disk, &stage.contents, "before").await;
        let mut pause = stage.life.pause(|request| matches!(request, Request::FragmentRead { .. }));
        let (engine, disk) = (stage.engine.clone(), stage.disk);
        let reading = stage.beside(async move { engine.read(disk, lba * BLOCK_U64, BLOCK).await });
        reached(&mut pause, "the read").await;
        let cleaned = done(stage.clean(), "the cleaner").await;
        assert!(cleaned.moved > 3, "{cleaned:?}");
        drop(pause);
        let at = lba as usize * BLOCK;
        assert!(done(reading, "the read").await == stage.contents[at..at + BLOCK], "{cleaned:?}");
        stage.look(stage.disk, &stage.contents, "in the end").await;
    });
}

/// A scrub has the list of what there is, and until it looks the cleaner deletes some of it: nothing of it is
/// wrong.
#[test]
fn a_scrub_that_the_cleaner_overtakes_finds_nothing_wrong() {
    let moments: [Moment; 2] = [
        ("lists", |request| matches!(request, Request::FragmentList { .. })),
        ("headers", |request| matches!(request, Request::FragmentHeader { .. })),
    ];
    for (moment, kind) in moments {
        simulate(4, async |stage, _| {
            let mut pause = stage.life.pause(kind);
            let engine = stage.engine.clone();
            let scrubbing = stage
                .beside(async move { engine.scrub(&ScrubCursor::default(), &Progress::default()).await });
            reached(&mut pause, moment).await;
            let cleaned = done(stage.clean(), moment).await;
            assert!(cleaned.deleted > 3, "{moment}: {cleaned:?}");
            drop(pause);
            let totals = done(scrubbing, moment).await;
            assert!(totals.failed.is_empty() && totals.missing.is_empty(), "{moment}: {totals:?}");
            assert_eq!(totals.repaired, 0, "{moment}: {totals:?}");
            assert!(stage.engine.damaged().is_empty(), "{moment}");
            stage.look(stage.disk, &stage.contents, moment).await;
        });
    }
}
