//! Goal: the parts work together. A toy disk server (blocks on one medium, guests behind a slow link) runs through
//! power cuts and restarts; the model judges it. An honest one passes every seed and replays; one with a planted
//! bug is found. Knobs: [`Bug`], [`SEEDS`].

mod backlog;
mod commands;
mod exposure;
mod flip;
mod lost_pages;
mod moments;
mod outcomes;
mod panics;
mod points;
mod room;
mod snapshots;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use media::Medium;
use seam::Runtime;
use sim::{
    Fate, FaultKind, Fill, Latency, Limits, Link, LinkPolicy, Model, Rng, SimRuntime, SimStore, Simulation,
};
use tokio::sync::{RwLock, mpsc, oneshot};
use units::{BLOCK, DiskId, Lba, PageBuf};

const SEEDS: u64 = 1000;
const BLOCKS: u64 = 4;
/// Why locks are never poisoned here.
const UNPOISONED: &str = "nothing panics under it";
const DISK: DiskId = DiskId(1);

/// What the toy does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Acknowledges before the sync.
    EarlyAck,
    /// Lets reads see a write before it is durable.
    EarlySight,
    /// Acknowledges a write that failed.
    DeafToErrors,
}

enum Request {
    Write(Lba, PageBuf, oneshot::Sender<()>),
    Read(Lba, oneshot::Sender<PageBuf>),
}

/// Bytes of a slot: the block, and a page with version and checksum. Each block has two slots, written in turn, so
/// that a torn one leaves the older.
const SLOT: usize = 2 * BLOCK;

/// The newest sound slot of a block: its version, which of the two, and the contents.
fn newest(slots: &[u8]) -> (u64, usize, &[u8]) {
    const ZERO: [u8; BLOCK] = [0; BLOCK];
    let mut best = (0, 1, &ZERO[..]);
    for (number, slot) in slots.chunks(SLOT).enumerate() {
        let mut word = [0; 8];
        word.copy_from_slice(&slot[BLOCK..BLOCK + 8]);
        let version = u64::from_le_bytes(word);
        let sum = units::crc32c(&slot[..BLOCK + 8]).to_le_bytes();
        if version > best.0 && sum == slot[BLOCK + 8..BLOCK + 12] {
            best = (version, number, &slot[..BLOCK]);
        }
    }
    best
}

/// One run of the toy server.
struct Server {
    bug: Bug,
    medium: Box<dyn Medium>,
    locks: Vec<RwLock<()>>,
    /// A medium failed: nothing is served until a restart.
    halted: AtomicBool,
}

impl Server {
    fn start(bug: Bug, rt: &Arc<SimRuntime>, store: &SimStore) -> mpsc::Sender<Request> {
        let (tx, mut rx) = mpsc::channel(4);
        let medium = Box::new(store.open(rt.clone()).expect("the run before is dead"));
        let locks = (0..BLOCKS).map(|_| RwLock::new(())).collect();
        let server = Arc::new(Self { bug, medium, locks, halted: AtomicBool::new(false) });
        let spawner = rt.clone();
        let listen = async move {
            // What the run before left unsynced must be durable before anybody sees it.
            let recovered = server.medium.sync().await;
            server.note(&recovered);
            while let Some(request) = rx.recv().await {
                let server = server.clone();
                spawner.spawn("request", Box::pin(async move { server.serve(request).await }));
            }
        };
        rt.spawn("listen", Box::pin(listen));
        tx
    }

    fn note<T>(&self, outcome: &media::Result<T>) -> bool {
        if outcome.is_err() && self.bug != Bug::DeafToErrors {
            self.halted.store(true, Ordering::Relaxed);
        }
        !self.halted.load(Ordering::Relaxed)
    }

    async fn slots(&self, lba: Lba) -> Option<PageBuf> {
        let slots = self.medium.read(lba.0 * 2 * SLOT as u64, 2 * SLOT).await;
        if self.note(&slots) { slots.ok() } else { None }
    }

    async fn serve(&self, request: Request) {
        match request {
            Request::Read(lba, reply) => {
                let _lock = self.locks[lba.0 as usize].read().await;
                if let Some(slots) = self.slots(lba).await {
                    let _ = reply.send(PageBuf::copy_of(newest(slots.as_ref()).2));
                }
            }
            Request::Write(lba, bytes, reply) => self.write(lba, &bytes, reply).await,
        }
    }

    async fn write(&self, lba: Lba, bytes: &PageBuf, reply: oneshot::Sender<()>) {
        let lock = self.locks[lba.0 as usize].write().await;
        let Some(slots) = self.slots(lba).await else { return };
        let (version, current, _) = newest(slots.as_ref());
        let mut slot = PageBuf::zeroed(SLOT);
        slot.as_mut()[..BLOCK].copy_from_slice(bytes.as_ref());
        slot.as_mut()[BLOCK..BLOCK + 8].copy_from_slice(&(version + 1).to_le_bytes());
        let sum = units::crc32c(&slot.as_ref()[..BLOCK + 8]).to_le_bytes();
        slot.as_mut()[BLOCK + 8..BLOCK + 12].copy_from_slice(&sum);
        let offset = (lba.0 as usize * 2 + (1 - current)) * SLOT;
        if !self.note(&self.medium.write(offset as u64, slot.share()).await) {
            return;
        }
        let held = (self.bug != Bug::EarlySight).then_some(lock);
        if self.bug == Bug::EarlyAck || self.note(&self.medium.sync().await) {
            let _ = reply.send(());
        }
        drop(held);
    }
}

/// What guests share.
struct World {
    model: Mutex<Model>,
    server: Mutex<mpsc::Sender<Request>>,
    wrong: Mutex<Option<String>>,
}

impl World {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect(UNPOISONED)
    }
}

async fn guest(world: Arc<World>, rt: Arc<SimRuntime>, mut link: Link, mut rng: Rng) {
    for _ in 0..30 {
        let Fate::Deliver(delay) = link.decide(rt.now()) else { continue };
        let lba = Lba(rng.below(BLOCKS));
        // A connection to the server of this moment: it breaks when that one dies.
        let server = world.server.lock().expect(UNPOISONED).clone();
        if rng.coin() {
            let (op, bytes) = {
                let mut model = world.model();
                let contents = model.next_value();
                let bytes = PageBuf::copy_of(&model.bytes(&contents));
                (model.begin_write(DISK, lba, &[contents], rt.now()), bytes)
            };
            rt.sleep(delay).await;
            let (tx, rx) = oneshot::channel();
            let _ = server.send(Request::Write(lba, bytes, tx)).await;
            if rx.await.is_ok() {
                world.model().end_write(op, rt.now());
            } // else the crash cuts it off
        } else {
            let read = world.model().begin_read(rt.now());
            rt.sleep(delay).await;
            let (tx, rx) = oneshot::channel();
            let _ = server.send(Request::Read(lba, tx)).await;
            let answer = rx.await;
            let mut model = world.model();
            match answer {
                Ok(bytes) => {
                    let verdict = model.check_read(read, DISK, lba, bytes.as_ref(), rt.now());
                    if let Err(violation) = verdict {
                        world.wrong.lock().expect(UNPOISONED).get_or_insert(violation.to_string());
                    }
                }
                Err(_) => model.abandon_read(read),
            }
        }
    }
}

/// One seed: guests at work, four crashes with or without the power, a final look. Returns the digest and what was wrong.
fn run(seed: u64, bug: Bug) -> (u128, Option<String>, u64) {
    let sim = Simulation::new(seed, Limits::default());
    let store = SimStore::new(&sim, "disk", BLOCKS * 2 * SLOT as u64);
    store.set_latency(Latency { rare_ppm: 20_000, ..Latency::default() });
    store.set_rate(FaultKind::WriteError, 5000);
    store.set_rate(FaultKind::SyncError, 2000);
    let mut rng = sim.rng("nemesis");
    let mut process = sim.process("server");
    let world = Arc::new(World {
        model: Mutex::new(Model::new(Fill::default())),
        server: Mutex::new(Server::start(bug, &process, &store)),
        wrong: Mutex::new(None),
    });
    for _ in 0..3 {
        let policy = LinkPolicy { drop_ppm: 10_000, ..LinkPolicy::default() };
        let link = Link::new(&sim, "guest-server", policy);
        let task = guest(world.clone(), sim.world(), link, sim.rng("guest"));
        sim.world().spawn("guest", Box::pin(task));
    }
    let nemesis = async {
        for life in 0..4 {
            sim.world().sleep(Duration::from_micros(rng.range(500..6000))).await;
            sim.kill(process.id());
            if rng.coin() {
                store.power_cut();
            }
            world.model().crash(sim.now());
            process = sim.process("server");
            if life == 3 {
                store.heal();
            }
            *world.server.lock().expect(UNPOISONED) = Server::start(bug, &process, &store);
        }
        // Long enough for every guest to finish.
        sim.world().sleep(Duration::from_secs(1)).await;
        assert_eq!(sim.world().tasks(), 0, "seed {seed}: guests still at work");
    };
    sim.run_until(nemesis).expect("the nemesis only sleeps");
    let mut raw = vec![0; BLOCKS as usize * 2 * SLOT];
    store.image().read(0, &mut raw);
    let disk: Vec<u8> = raw.chunks(2 * SLOT).flat_map(|slots| newest(slots).2.to_vec()).collect();
    let last = world.model().final_check(DISK, &disk, sim.now());
    let wrong = world.wrong.lock().expect(UNPOISONED).take().or(last.err().map(|wrong| wrong[0].to_string()));
    (sim.digest(), wrong, store.fired(FaultKind::CutTorn))
}

#[test]
fn an_honest_server_passes_and_replays() {
    let mut digests = std::collections::BTreeSet::new();
    let mut torn = 0;
    for seed in 0..SEEDS {
        let (digest, wrong, count) = run(seed, Bug::None);
        assert!(wrong.is_none(), "seed {seed}: {}", wrong.unwrap());
        assert_eq!(digest, run(seed, Bug::None).0, "seed {seed} does not replay");
        digests.insert(digest);
        torn += count;
    }
    assert_eq!(digests.len() as u64, SEEDS, "every seed has its own run");
    assert!(torn > 0, "power cuts tore nothing");
}

#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::EarlyAck, Bug::EarlySight, Bug::DeafToErrors] {
        let found = (0..SEEDS).filter_map(|seed| run(seed, bug).1).count();
        assert!(found > 0, "{bug:?} was not found in {SEEDS} seeds");
        println!("{bug:?}: {found} of {SEEDS} seeds");
    }
}

#[test]
fn whole_engine_schedules_replay() {
    for seed in 0..8 {
        let first = sim::schedule::run(seed, None, false);
        assert_eq!(first.wrong, None, "seed {seed}");
        assert_eq!(first.digest, sim::schedule::run(seed, None, false).digest, "seed {seed} does not replay");
    }
}
