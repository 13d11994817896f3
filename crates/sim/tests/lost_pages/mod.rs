//! Goal: a map page that is lost for good blocks what it must and no more. What it may have named stays; what is newer is
//! freed, keys are rotated, and the status names whose map it is. Once the disk is deleted all of it is freed.

use api::types::TaskState;
use container::{FragmentHeader, Head, PRELUDE_BYTES, UnitKind};
use data::Layout;
use engine::{Engine, EngineErrorKind, Fork, Progress};
use meta::Txn;
use sim::{Life, Limits, Simulation, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId};

use crate::room;

/// Blocks of the disks: several leaves each.
const BLOCKS: u64 = 400;

fn block(seed: u64, lba: u64) -> Vec<u8> {
    let mut word = (seed << 32 | lba).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = vec![0; BLOCK];
    for byte in &mut out {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        *byte = word as u8;
    }
    out
}

async fn open(site: &Site) -> (Life, Engine) {
    let mut life = site.boot();
    let engine = life.opened().await.expect("it lives").expect("a sound site opens");
    (life, engine)
}

async fn disk(engine: &Engine, seed: u64) -> DiskId {
    let disk = empty_disk(engine).await;
    write(engine, disk, seed, BLOCKS).await;
    engine.checkpoint().await.expect("a checkpoint");
    disk
}

async fn empty_disk(engine: &Engine) -> DiskId {
    let disk = engine.new_disk_id().await.expect("an id");
    assert!(engine.apply(Txn::new(), &[(disk, BLOCKS * BLOCK_U64)], &[]).await.expect("a disk"));
    disk
}

/// Writes the first blocks of a disk, to containers of their own.
async fn write(engine: &Engine, disk: DiskId, seed: u64, blocks: u64) {
    for lba in 0..blocks {
        engine.write(disk, lba * BLOCK_U64, &block(seed, lba)).await.expect("it writes");
    }
    engine.drain().await.expect("it drains");
}

/// How many blocks of a disk are lost; all others read as they were.
async fn lost(engine: &Engine, disk: DiskId, seed: u64) -> u64 {
    let _open = engine.open_disk(disk).await.expect("it is there");
    let mut lost = 0;
    for lba in 0..BLOCKS {
        match engine.read(disk, lba * BLOCK_U64, BLOCK).await {
            Ok(read) => assert!(read == block(seed, lba), "block {lba}"),
            Err(error) => {
                assert_eq!(error.kind, EngineErrorKind::Lost, "block {lba}: {error}");
                lost += 1;
            }
        }
    }
    lost
}

/// Spoils the first leaf that is found in the newest container with leaves, on every medium.
fn spoil_a_leaf(site: &Site) {
    let layout = Layout::new(site.spec().params, site.spec().medium_bytes).expect("it was formatted so");
    let image = site.image();
    let read = |medium: usize, start: u64, bytes: usize| {
        let mut out = vec![0; bytes];
        image.media[medium].read(start, &mut out);
        out
    };
    let mut fragments = Vec::new();
    for (medium, one) in image.media.iter().enumerate() {
        for (place, page) in one.nonzero_pages().filter(|(place, _)| *place >= layout.data) {
            let Some(bytes) = FragmentHeader::peek(page) else { continue };
            if let Ok(header) = FragmentHeader::decode(&read(medium, place, bytes)) {
                fragments.push((medium, place, header));
            }
        }
    }
    let leaf_in = |medium: usize, place: u64, header: &FragmentHeader| {
        let start = place + container::header_bytes(header.payload_bytes()) as u64;
        let bytes = read(medium, start, header.payload_bytes());
        let directory = Head::peek(&bytes).ok()?.directory();
        let head = Head::decode(&bytes[..PRELUDE_BYTES], bytes.get(directory)?).ok()?;
        let leaf = head.entries.iter().position(|entry| entry.kind == UnitKind::Page(0))?;
        Some(head.address(leaf as u16, 1)?.offset)
    };
    let leaves = fragments.iter().filter(|(.., header)| header.index == 0);
    let leaves =
        leaves.filter_map(|(m, place, header)| Some((header.container, leaf_in(*m, *place, header)?)));
    let (spoilt, offset) = leaves.max_by_key(|(container, _)| container.number).expect("a leaf");
    for (medium, place, header) in fragments.iter().filter(|(.., header)| header.container == spoilt) {
        let start = place + container::header_bytes(header.payload_bytes()) as u64;
        site.stores()[*medium].flip_bit((start + u64::from(offset) + 40) * 8);
    }
}

#[test]
fn a_lost_page_blocks_what_it_may_name_and_no_more() {
    let sim = Simulation::new(3, Limits { steps: 50_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let work = async {
        let site = Site::format(&control, SiteSpec { page_cache_bytes: 1, ..room::spec(64 << 20) }).await;
        let (life, engine) = open(&site).await;
        let old = disk(&engine, 1).await;
        let snapshot = engine.new_disk_id().await.expect("an id");
        let fork = Fork { source: old, target: snapshot, read_only: true };
        assert!(engine.fork(Txn::new(), &[fork], &[]).await.expect("a snapshot"));
        let damaged = disk(&engine, 2).await;
        site.end(life, false);
        spoil_a_leaf(&site);

        let (life, engine) = open(&site).await;
        let missing = lost(&engine, damaged, 2).await;
        assert!((1..BLOCKS).contains(&missing), "{missing} blocks are lost");
        let newer = disk(&engine, 3).await;
        for gone in [old, snapshot, newer] {
            assert!(engine.apply(Txn::new(), &[], &[gone]).await.expect("it goes"));
        }
        let before = engine.status().await.unique_bytes;
        let report = engine.clean(0, &Progress::default()).await.expect("the cleaner goes on");
        let status = engine.status().await;
        let blocked = status.cleaning_blocked.expect("something blocks it");
        assert_eq!(blocked.disks, [damaged], "{blocked:?}");
        assert!(blocked.containers > 0 && blocked.pages > 0, "{blocked:?}");
        let freed = before - status.unique_bytes;
        assert_eq!(
            freed,
            BLOCKS * BLOCK_U64,
            "what is newer goes, and nothing that may be named: {report:?}"
        );
        assert_eq!(lost(&engine, damaged, 2).await, missing);

        let task = room::rotate(&life).await;
        assert_eq!(task.state, TaskState::Done, "{task:?}");
        assert_eq!(lost(&engine, damaged, 2).await, missing, "all else moved");
        site.end(life, true);

        let (life, engine) = open(&site).await;
        assert_eq!(lost(&engine, damaged, 2).await, missing);
        assert!(engine.apply(Txn::new(), &[], &[damaged]).await.expect("it goes"));
        for _ in 0..4 {
            engine.checkpoint().await.expect("a checkpoint");
            engine.clean(0, &Progress::default()).await.expect("it cleans");
        }
        let status = engine.status().await;
        assert_eq!((status.cleaning_blocked, status.unique_bytes), (None, 0), "all of it is freed");
        site.end(life, false);
    };
    sim.run_until(work).expect("it ends");
}

/// Blocks of a disk that is one leaf.
const LEAF: u64 = 40;

async fn is_whole(engine: &Engine, disk: DiskId, seed: u64, blocks: u64) {
    let _open = engine.open_disk(disk).await.expect("it is there");
    for lba in 0..blocks {
        let read = engine.read(disk, lba * BLOCK_U64, BLOCK).await;
        assert!(read.expect("it reads") == block(seed, lba), "block {lba} of {disk:?}");
    }
}

#[test]
fn a_dead_page_is_not_found_in_the_place_of_a_live_one_of_its_name() {
    let sim = Simulation::new(4, Limits { steps: 50_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let work = async {
        let site = Site::format(&control, SiteSpec { page_cache_bytes: 1, ..room::spec(64 << 20) }).await;
        let (life, engine) = open(&site).await;
        // A leaf, in a container with some that stay.
        let (leaf, few) = (empty_disk(&engine).await, empty_disk(&engine).await);
        write(&engine, leaf, 1, LEAF).await;
        write(&engine, few, 2, 3 * LEAF).await;
        engine.checkpoint().await.expect("a checkpoint");
        // It is dead, and what it names is gone.
        write(&engine, leaf, 3, LEAF).await;
        engine.checkpoint().await.expect("a checkpoint");
        let report = engine.clean(90, &Progress::default()).await.expect("it cleans");
        assert!(report.deleted > 0, "{report:?}");
        // The same leaf again, in a container with some more, which comes next when all are moved.
        let more = empty_disk(&engine).await;
        write(&engine, leaf, 1, LEAF).await;
        write(&engine, more, 4, 5 * LEAF).await;
        engine.checkpoint().await.expect("a checkpoint");
        // Because of this one all containers before it are moved whole.
        let damaged = disk(&engine, 5).await;
        site.end(life, false);
        spoil_a_leaf(&site);

        let (life, engine) = open(&site).await;
        let missing = lost(&engine, damaged, 5).await;
        assert!((1..BLOCKS).contains(&missing), "{missing} blocks are lost");
        let task = room::rotate(&life).await;
        assert_eq!(task.state, TaskState::Done, "{task:?}");
        is_whole(&engine, leaf, 1, LEAF).await;
        site.end(life, true);

        let (life, engine) = open(&site).await;
        is_whole(&engine, leaf, 1, LEAF).await;
        is_whole(&engine, few, 2, 3 * LEAF).await;
        is_whole(&engine, more, 4, 5 * LEAF).await;
        assert_eq!(lost(&engine, damaged, 5).await, missing, "all else moved");
        site.end(life, false);
    };
    sim.run_until(work).expect("it ends");
}
