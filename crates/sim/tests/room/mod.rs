//! Goal: a site with room for what its disks hold takes any number of overwrites: the cleaner makes room before writers
//! give up.

use std::rc::Rc;
use std::time::Duration;

use data::{Layout, Params};
use engine::Engine;
use meta::Txn;
use seam::Runtime;
use sim::{Limits, Simulation, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId, PAGE};

/// Room for data on each of three media, which all hold all of it.
const ROOM: u64 = 16 << 20;
/// The share of it that the disk fills, percent.
const FULL: u64 = 70;
/// How often the disk is written again, in order and in no order.
const TIMES: u64 = 2;
const WRITERS: u64 = 8;

fn spec() -> SiteSpec {
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
        medium_bytes: (least + ROOM).next_multiple_of(PAGE as u64),
        params,
        block_cache_bytes: 1 << 20,
        page_cache_bytes: 1 << 20,
        overlay_entries_max: 8192,
        commits_max: 64,
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
            let site = Site::format(&control, spec()).await;
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
