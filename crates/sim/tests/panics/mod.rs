//! Goal: a task of the engine that meets a bug and panics is named by the status and begins anew, and nothing that was
//! acknowledged suffers. The bug: a request that the task sends to a medium panics, once.

use std::time::Duration;

use engine::Engine;
use meta::Txn;
use proto::Request;
use seam::Runtime;
use sim::{Life, Limits, Rng, Simulation, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId};

/// Room for data on each medium.
const ROOM: u64 = 4 << 20;
/// Longest wait for a task that has begun anew, simulated.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

fn spec(media: usize) -> SiteSpec {
    SiteSpec { media, rebuild_after: Duration::from_secs(5), ..super::room::spec(ROOM) }
}

/// A disk and what it holds.
struct Guest {
    engine: Engine,
    disk: DiskId,
    contents: Vec<u8>,
    rng: Rng,
}

impl Guest {
    async fn new(engine: Engine, blocks: u64, rng: Rng) -> Self {
        let disk = engine.new_disk_id().await.expect("an id");
        assert!(engine.apply(Txn::new(), &[(disk, blocks * BLOCK_U64)], &[]).await.expect("a disk"));
        Self { engine, disk, contents: vec![0; blocks as usize * BLOCK], rng }
    }

    /// Overwrites all of the disk.
    async fn write(&mut self) {
        self.rng.fill(&mut self.contents);
        for (at, data) in self.contents.chunks(16 * BLOCK).enumerate() {
            let offset = at as u64 * 16 * BLOCK_U64;
            self.engine.write(self.disk, offset, data).await.expect("a write");
        }
    }

    async fn look(&self) {
        let read = self.engine.read(self.disk, 0, self.contents.len()).await.expect("a read");
        assert!(read == self.contents, "what was acknowledged");
    }

    async fn panics(&self) -> Vec<(&'static str, u64)> {
        self.engine.status().await.panics.iter().map(|note| (note.task, note.count)).collect()
    }
}

async fn until(life: &Life, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = life.runtime().now();
    while !holds().await {
        assert!(life.runtime().now() < begun + PATIENCE, "{what}");
        life.runtime().sleep(POLL).await;
    }
}

fn simulate(work: impl AsyncFnOnce(&sim::Control, Rng)) {
    let sim = Simulation::new(1, Limits { steps: 50_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let rng = sim.rng("test");
    sim.run_until(work(&control, rng)).expect("it ends");
}

#[test]
fn the_flusher_begins_anew() {
    simulate(async |control, rng| {
        let site = Site::format(control, spec(3)).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let mut guest = Guest::new(engine, 64, rng).await;
        life.set_trap(|request| matches!(request, Request::FragmentWrite { .. }));
        guest.write().await;
        until(&life, "the buffer is flushed", async || {
            guest.engine.drain().await.is_ok() && guest.engine.status().await.buffered_bytes == 0
        })
        .await;
        assert_eq!(guest.panics().await, [("flusher", 1)]);
        guest.look().await;
        site.end(life, false);
    });
}

#[test]
fn the_cleaner_begins_anew() {
    simulate(async |control, rng| {
        let site = Site::format(control, spec(3)).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let mut guest = Guest::new(engine, ROOM / BLOCK_U64 / 2, rng).await;
        life.set_trap(|request| matches!(request, Request::FragmentFree(_)));
        // Far more than the site holds: only the cleaner makes the room.
        for _ in 0..6 {
            guest.write().await;
        }
        assert_eq!(guest.panics().await, [("cleaner", 1)]);
        guest.look().await;
        site.end(life, false);
    });
}

#[test]
fn the_rebuilder_begins_anew() {
    simulate(async |control, rng| {
        let site = Site::format(control, spec(7)).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let mut guest = Guest::new(engine, 256, rng).await;
        guest.write().await;
        guest.engine.close().await.expect("closes");
        site.end(life, false);

        let there: Vec<bool> = (0..7).map(|medium| medium != 0).collect();
        let mut life = site.boot_on(&there);
        guest.engine = life.opened().await.expect("it lives").expect("a site without one medium opens");
        life.set_trap(|request| matches!(request, Request::FragmentWrite { .. }));
        life.runtime().sleep(2 * spec(7).rebuild_after).await;
        until(&life, "what the medium held is on others", async || guest.engine.is_rebuilt()).await;
        assert_eq!(guest.panics().await, [("rebuilder", 1)]);
        guest.look().await;
        site.end(life, false);
    });
}
