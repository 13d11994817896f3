//! Goal: a site with room for what its disks hold takes any number of overwrites: the cleaner makes room before writers
//! give up. One that was filled to the last in pieces gets all of it back when guests trim, without a restart.

use std::rc::Rc;
use std::time::Duration;

use api::types::{Task, TaskState};
use data::{Layout, Params};
use engine::{Engine, EngineErrorKind, Progress};
use meta::Txn;
use seam::Runtime;
use sim::{Control, Latency, Life, Limits, Rng, Simulation, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId, PAGE};

/// Room for data on each of three media, which all hold all of it.
const ROOM: u64 = 16 << 20;
/// The share of it that the disk fills, percent.
const FULL: u64 = 70;
/// How often the disk is written again, in order and in no order.
const TIMES: u64 = 2;
const WRITERS: u64 = 8;
/// Sites that are filled in pieces.
const FILLS: u64 = 4;

/// Rotates the data key, and waits for the end of that.
pub(super) async fn rotate(life: &Life) -> Task {
    let site = life.site().expect("an open site");
    let task = site.rotate_key().await.expect("it begins");
    loop {
        let task = site.tasks().task(task.id).await.expect("it is known");
        if task.state != TaskState::Running {
            return task;
        }
        life.runtime().sleep(Duration::from_millis(50)).await;
    }
}

pub(super) fn spec(room: u64) -> SiteSpec {
    let params = Params {
        container_bytes: 64 << 10,
        segment_bytes: 64 << 10,
        segments_max: 10,
        log_pages: 32,
        fragments_max: 2048,
    };
    let least = Layout::new(params, 1 << 30).map_or(0, |layout| layout.data + layout.largest_extent());
    SiteSpec {
        nodes: 0,
        spares: 0,
        rebuild_after: Duration::from_secs(600),
        rebuild_bytes_per_second: 100 << 20,
        media: 3,
        medium_bytes: (least + room).next_multiple_of(PAGE as u64),
        params,
        block_cache_bytes: 1 << 20,
        page_cache_bytes: 1 << 20,
        overlay_entries_max: 8192,
        commits_max: 64,
        start_backlog_bytes: 16 << 10,
        meta_keys_per_chunk: 4,
        lost_answers: false,
        index_tag_bits: 32,
    }
}

/// A block unlike any other that does not compress.
fn block(rng: &mut sim::Rng) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    rng.fill(&mut block);
    block
}

/// Writes every block of the disk, in order or in none.
async fn write_all(engine: &Engine, disk: DiskId, blocks: u64, rng: &mut sim::Rng, in_order: bool) {
    let mut places: Vec<u64> = (0..blocks).collect();
    if !in_order {
        rng.shuffle(&mut places);
    }
    for places in places.chunks(WRITERS as usize) {
        let writes = places.iter().map(|place| {
            let data = Rc::new(block(rng));
            async move { engine.write(disk, place * BLOCK_U64, &data).await }
        });
        for (place, result) in places.iter().zip(seam::join_all(writes).await) {
            assert!(result.is_ok(), "block {place} of {blocks}: {result:?}");
        }
    }
}

/// The disk is filled, which leaves no garbage for the cleaner to find, and then written again and again.
#[test]
fn a_site_that_is_full_enough_takes_every_overwrite() {
    for in_order in [true, false] {
        let sim = Simulation::new(u64::from(in_order), Limits { steps: 50_000_000, ..Limits::default() });
        let control = (*sim).clone();
        let mut rng = sim.rng("test");
        let work = async {
            let site = Site::format(&control, spec(ROOM)).await;
            let mut life = site.boot();
            let engine = life.opened().await.expect("it lives").expect("a sound site opens");
            let disk = engine.new_disk_id().await.expect("an id");
            let blocks = ROOM * FULL / 100 / BLOCK_U64;
            assert!(engine.apply(Txn::new(), &[(disk, blocks * BLOCK_U64)], &[]).await.expect("a disk"));
            for _ in 0..=TIMES {
                write_all(&engine, disk, blocks, &mut rng, in_order).await;
                life.runtime().sleep(Duration::from_secs(3)).await;
            }
            site.end(life, false);
        };
        sim.run_until(work).expect("it ends");
    }
}

/// How many times as long discards take as writes on media that are slow at them.
const SLOW_DISCARDS: [u32; 2] = [50, 500];
/// Of what is said to be writable, at least so much is, percent.
const TRUE_PERCENT: u64 = 95;

/// Overwrites every block of the disk in no order, and notes what it holds then.
async fn overwrite(engine: &Engine, disk: DiskId, contents: &mut Contents, rng: &mut Rng) {
    let mut places: Vec<usize> = (0..contents.len()).collect();
    rng.shuffle(&mut places);
    for places in places.chunks(WRITERS as usize) {
        let writes = places.iter().map(|place| {
            let data = Rc::new(block(rng));
            contents[*place] = Some(tag(&data));
            async move { engine.write(disk, *place as u64 * BLOCK_U64, &data).await }
        });
        let writes: Vec<_> = writes.collect();
        for (place, result) in places.iter().zip(seam::join_all(writes).await) {
            assert!(result.is_ok(), "block {place}: {result:?}");
        }
    }
}

/// On media that are nearly full and give room back slowly, overwriting goes on, nothing is lost, and what is
/// said to be writable can be written.
#[test]
fn media_that_discard_slowly_take_every_overwrite() {
    for discards in SLOW_DISCARDS {
        let sim = Simulation::new(u64::from(discards), Limits { steps: 80_000_000, ..Limits::default() });
        let control = (*sim).clone();
        let mut rng = sim.rng("test");
        let work = async {
            let site = Site::format(&control, spec(ROOM)).await;
            let latency = Latency { discards, ..Latency::default() };
            site.stores().iter().for_each(|store| store.set_latency(latency));
            let (mut life, mut engine) = open(&site).await;
            let disk = engine.new_disk_id().await.expect("an id");
            let blocks = ROOM * FULL / 100 / BLOCK_U64;
            assert!(engine.apply(Txn::new(), &[(disk, blocks * BLOCK_U64)], &[]).await.expect("a disk"));
            let mut contents = vec![Some([0; 8]); blocks as usize];
            for round in 0..=TIMES {
                overwrite(&engine, disk, &mut contents, &mut rng).await;
                look(&engine, disk, &contents, "overwritten").await;
                if round == 1 {
                    // What was being given back is found again.
                    drop(engine);
                    site.end(life, true);
                    (life, engine) = open(&site).await;
                    look(&engine, disk, &contents, "behind a power cut").await;
                }
            }
            let (other, mut more) = wide_disk(&engine).await;
            let said = engine.status().await.usable_bytes;
            let written = fill(&engine, other, &mut more, &mut rng, (&[16], true)).await * BLOCK_U64;
            assert!(written * 100 >= said * TRUE_PERCENT, "{written} bytes of {said} could be written");
            look(&engine, disk, &contents, "beside another").await;
            look(&engine, other, &more, "filled").await;
            site.end(life, false);
        };
        sim.run_until(work).expect("it ends");
    }
}

/// Blocks of a write that fills the site in pieces: as guests do, of all sizes.
const SIZES: [u64; 4] = [1, 4, 16, 64];
/// Blocks of the disk that fills the site, more than it has room for.
const WIDE: u64 = 4 * ROOM / BLOCK_U64;
/// What comes back at least when all is trimmed, percent of what could be written at first.
const BACK: u64 = 85;

async fn open(site: &Site) -> (Life, Engine) {
    let mut life = site.boot();
    let engine = life.opened().await.expect("it lives").expect("a sound site opens");
    (life, engine)
}

/// The first bytes of each block, which no other block has; none where a write was refused.
type Contents = Vec<Option<[u8; 8]>>;

/// A site of three or six media.
async fn wide_site(control: &Control, seed: u64) -> (Site, Life, Engine) {
    let site = Site::format(control, SiteSpec { media: [3, 6][seed as usize % 2], ..spec(ROOM) }).await;
    let (life, engine) = open(&site).await;
    (site, life, engine)
}

/// A disk that the site has no room for.
async fn wide_disk(engine: &Engine) -> (DiskId, Contents) {
    let disk = engine.new_disk_id().await.expect("an id");
    assert!(engine.apply(Txn::new(), &[(disk, WIDE * BLOCK_U64)], &[]).await.expect("a disk"));
    (disk, vec![Some([0; 8]); WIDE as usize])
}

fn tag(block: &[u8]) -> [u8; 8] {
    block[..8].try_into().expect("a block is longer")
}

/// Writes random data of `sizes`, in order or at random places, until there is no room; gives the blocks written.
async fn fill(
    engine: &Engine,
    disk: DiskId,
    contents: &mut Contents,
    rng: &mut Rng,
    (sizes, in_order): (&[u64], bool),
) -> u64 {
    let (mut next, mut written) = (0, 0);
    loop {
        let blocks = sizes[rng.index(sizes.len())];
        let place = if in_order { next } else { rng.below(WIDE - blocks) };
        if next + blocks > WIDE {
            return written;
        }
        next += blocks;
        let data: Vec<u8> = (0..blocks).flat_map(|_| block(rng)).collect();
        let done = engine.write(disk, place * BLOCK_U64, &data).await;
        for (at, block) in (place..).zip(data.chunks_exact(BLOCK)) {
            contents[at as usize] = done.is_ok().then(|| tag(block));
        }
        match done {
            Ok(()) => written += blocks,
            Err(error) if error.kind == EngineErrorKind::NoSpace => return written,
            Err(error) => panic!("a write: {error:?}"),
        }
    }
}

async fn trim(engine: &Engine, disk: DiskId, contents: &mut Contents, blocks: std::ops::Range<u64>) {
    let (offset, length) = (blocks.start * BLOCK_U64, (blocks.end - blocks.start) * BLOCK_U64);
    engine.punch(disk, offset, length, false).await.expect("a trim");
    blocks.for_each(|lba| contents[lba as usize] = Some([0; 8]));
}

async fn look(engine: &Engine, disk: DiskId, contents: &Contents, when: &str) {
    for (at, part) in contents.chunks(64).enumerate() {
        let read = engine.read(disk, at as u64 * 64 * BLOCK_U64, part.len() * BLOCK).await.expect("reads");
        for (block, wanted) in read.chunks_exact(BLOCK).zip(part) {
            assert!(wanted.is_none_or(|wanted| wanted == tag(block)), "{when}: blocks behind {}", at * 64);
        }
    }
}

/// Filled to the last, killed, overwritten in pieces of all sizes until nothing goes any more: cleaning ends well, what
/// is trimmed comes back, and the rest reads right.
#[test]
fn a_site_filled_in_pieces_gets_its_room_back() {
    for seed in 0..FILLS {
        let sim = Simulation::new(seed, Limits { steps: 80_000_000, ..Limits::default() });
        let control = (*sim).clone();
        let mut rng = sim.rng("test");
        let work = async {
            let (site, mut life, mut engine) = wide_site(&control, seed).await;
            let (disk, mut contents) = wide_disk(&engine).await;
            let first = engine.status().await.usable_bytes;
            let filled = fill(&engine, disk, &mut contents, &mut rng, (&[64], true)).await;
            assert!(filled * BLOCK_U64 > ROOM / 2, "seed {seed}: only {filled} blocks");
            for round in 0..3 {
                drop(engine);
                site.end(life, round == 1);
                (life, engine) = open(&site).await;
                fill(&engine, disk, &mut contents, &mut rng, (&SIZES, false)).await;
                look(&engine, disk, &contents, "overwritten").await;
            }
            let cleaned = engine.clean(0, &Progress::default()).await;
            assert!(cleaned.is_ok(), "seed {seed}: {cleaned:?}");
            // A part first: as when one VM of many makes room.
            let quarter = WIDE / 4;
            trim(&engine, disk, &mut contents, 0..quarter).await;
            engine.clean(0, &Progress::default()).await.expect("cleans");
            let some = engine.status().await.usable_bytes;
            assert!(some > 0, "seed {seed}: nothing of a quarter came back");
            look(&engine, disk, &contents, "a quarter trimmed").await;
            trim(&engine, disk, &mut contents, quarter..WIDE).await;
            engine.clean(0, &Progress::default()).await.expect("cleans");
            let back = engine.status().await.usable_bytes;
            assert!(back * 100 >= first * BACK, "seed {seed}: {back} of {first} bytes came back");
            let again = fill(&engine, disk, &mut contents, &mut rng, (&[64], true)).await;
            assert!(again * 100 >= filled * BACK, "seed {seed}: {again} blocks where {filled} were");
            look(&engine, disk, &contents, "filled again").await;
            site.end(life, false);
        };
        sim.run_until(work).expect("it ends");
    }
}

/// Longest wait until what guests gave back can be written again, simulated.
const SOON: Duration = Duration::from_secs(20);

/// A full site without garbage, whose cleaner has looked and rests, gets room as soon as a guest trims: nobody asks for it, and
/// no write waits for it.
#[test]
fn what_guests_trim_on_a_full_site_comes_back_soon() {
    for seed in 0..FILLS {
        let sim = Simulation::new(seed, Limits { steps: 80_000_000, ..Limits::default() });
        let control = (*sim).clone();
        let mut rng = sim.rng("test");
        let work = async {
            let (site, life, engine) = wide_site(&control, seed).await;
            let (disk, mut contents) = wide_disk(&engine).await;
            let filled = fill(&engine, disk, &mut contents, &mut rng, (&[64], true)).await;
            // Long enough for the cleaner to find nothing, and to lie down for its long rest.
            life.runtime().sleep(Duration::from_secs(seed * 37 + 5)).await;
            let before = engine.status().await.usable_bytes;
            let given_back = filled / 4;
            // As guests do: stretch by stretch, every other one of them first.
            for first in [0, 1] {
                for at in (first * 64..given_back).step_by(128) {
                    trim(&engine, disk, &mut contents, at..(at + 64).min(given_back)).await;
                }
            }
            let begun = life.runtime().now();
            let wanted = before + given_back * BLOCK_U64 / 2;
            loop {
                let usable = engine.status().await.usable_bytes;
                if usable >= wanted {
                    break;
                }
                let waited = life.runtime().now() - begun;
                assert!(waited < SOON, "seed {seed}: {usable} of {wanted} bytes after {waited:?}");
                life.runtime().sleep(Duration::from_millis(500)).await;
            }
            look(&engine, disk, &contents, "trimmed").await;
            site.end(life, false);
        };
        sim.run_until(work).expect("it ends");
    }
}

/// File systems that hold media get full and have room again: nobody writes or asks meanwhile but for the status, and soon
/// nothing is wrong any more.
#[test]
fn room_below_that_comes_back_is_noticed() {
    let mut failed = 0;
    for seed in 0..FILLS {
        let sim = Simulation::new(seed, Limits { steps: 80_000_000, ..Limits::default() });
        let control = (*sim).clone();
        let mut rng = sim.rng("test");
        let work = async {
            let (site, life, engine) = wide_site(&control, seed).await;
            let (disk, mut contents) = wide_disk(&engine).await;
            let first = engine.status().await.usable_bytes;
            site.stores().iter().for_each(|store| store.set_capacity(Some(0)));
            fill(&engine, disk, &mut contents, &mut rng, (&[64], true)).await;
            // Wants a checkpoint first.
            let cleaned = engine.clean(0, &Progress::default()).await;
            let status = engine.status().await;
            assert_eq!(status.usable_bytes, 0, "seed {seed}");
            assert!(
                status.below_short_bytes > first / 2,
                "seed {seed}: {} are short",
                status.below_short_bytes
            );
            failed += usize::from(status.checkpoint_trouble.is_some());
            site.stores().iter().for_each(|store| store.set_capacity(None));
            let begun = life.runtime().now();
            loop {
                let status = engine.status().await;
                let is_well = status.stuck.is_none() && status.checkpoint_trouble.is_none();
                if is_well
                    && status.usable_bytes > first / 2
                    && status.media.iter().all(|medium| !medium.full)
                {
                    break;
                }
                let waited = life.runtime().now() - begun;
                assert!(waited < SOON, "seed {seed}, {cleaned:?}: {status:?} after {waited:?}");
                life.runtime().sleep(Duration::from_millis(500)).await;
            }
            look(&engine, disk, &contents, "room below").await;
            site.end(life, false);
        };
        sim.run_until(work).expect("it ends");
    }
    assert!(failed > 0, "no checkpoint failed");
}
