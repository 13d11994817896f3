//! Goal: snapshots are taken at one instant, deleting them in any order frees exactly what nobody shares, and a snapshot
//! costs nothing that grows with what it holds.
//!
//! Knobs: `HOLDFAST_PICK` chooses the orders; a soak takes [`ORDERS_SOAK`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data::{Layout, Params};
use engine::{Engine, Fork};
use meta::{Key, KeyRange, Op, Txn};
use seam::Runtime;
use sim::{Life, Limits, Rng, Simulation, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId, PAGE};

const MEDIA: usize = 3;
const BLOCKS: u64 = 40;
/// Orders of deletion tried.
const ORDERS: u64 = 60;
const ORDERS_SOAK: u64 = 10_000;
/// Cuts while a guest writes to two disks in turn.
const CUTS: usize = 60;

fn spec(segment_bytes: u32) -> SiteSpec {
    let params = Params {
        container_bytes: 64 << 10,
        segment_bytes,
        segments_max: 10,
        log_pages: 32,
        fragments_max: 1024,
    };
    let least = Layout::new(params, 1 << 30).map_or(0, |layout| layout.data + layout.largest_extent());
    SiteSpec {
        nodes: 0,
        spares: 0,
        rebuild_after: std::time::Duration::from_secs(600),
        rebuild_bytes_per_second: 100 << 20,
        media: MEDIA,
        medium_bytes: (least + (16 << 20)).next_multiple_of(PAGE as u64),
        params,
        block_cache_bytes: 1 << 20,
        page_cache_bytes: 1 << 20,
        overlay_entries_max: 1000,
        commits_max: 64,
        start_backlog_bytes: 16 << 10,
        meta_keys_per_chunk: 4,
        lost_answers: false,
        index_tag_bits: 32,
    }
}

/// Runs `work` on a new site.
fn on_a_site<T: 'static>(seed: u64, work: impl AsyncFnOnce(&Site, &Life, &Engine, &mut Rng) -> T) -> T {
    let sim = Simulation::new(seed, Limits { steps: 50_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let mut rng = sim.rng("test");
    let work = async {
        let site = Site::format(&control, spec(64 << 10)).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let done = work(&site, &life, &engine, &mut rng).await;
        site.end(life, false);
        done
    };
    sim.run_until(work).expect("it ends")
}

async fn disk(engine: &Engine, blocks: u64) -> DiskId {
    let disk = engine.new_disk_id().await.expect("an id");
    assert!(engine.apply(Txn::new(), &[(disk, blocks * BLOCK_U64)], &[]).await.expect("a disk"));
    disk
}

async fn fork(engine: &Engine, sources: &[DiskId], read_only: bool) -> Vec<DiskId> {
    let mut forks = Vec::new();
    for source in sources {
        let target = engine.new_disk_id().await.expect("an id");
        forks.push(Fork { source: *source, target, read_only });
    }
    assert!(engine.fork(Txn::new(), &forks, &[]).await.expect("forks"));
    forks.into_iter().map(|fork| fork.target).collect()
}

fn block(value: u64) -> Vec<u8> {
    let mut block = vec![0x5a; BLOCK];
    block[..8].copy_from_slice(&value.to_le_bytes());
    block
}

async fn value(engine: &Engine, disk: DiskId, lba: u64) -> u64 {
    let _open = engine.open_disk(disk).await.expect("opens");
    let read = engine.read(disk, lba * BLOCK_U64, 8).await.expect("reads");
    u64::from_le_bytes(read.try_into().expect("8 bytes"))
}

/// A guest writes n to one disk, waits for the answer, and writes n to the other: a cut may hold the first of these
/// without the second, never the second without the first [I9].
#[test]
fn a_cut_of_two_disks_is_one_instant() {
    for seed in 0..4 {
        on_a_site(seed, async |_, life, engine, rng| {
            let (first, second) = (disk(engine, 8).await, disk(engine, 8).await);
            let over = Arc::new(AtomicBool::new(false));
            let (guest, ended) = (engine.clone(), over.clone());
            let task = async move {
                for n in 1.. {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    guest.write(first, 0, &block(n)).await.expect("writes");
                    guest.write(second, 4096, &block(n)).await.expect("writes");
                }
            };
            life.runtime().spawn("guest", Box::pin(task));
            let mut taken = Vec::new();
            for _ in 0..CUTS {
                life.runtime().sleep(Duration::from_micros(rng.below(3000))).await;
                taken.push(fork(engine, &[first, second], true).await);
            }
            over.store(true, Ordering::Relaxed);
            let mut last = 0;
            for pair in &taken {
                let (a, b) = (value(engine, pair[0], 0).await, value(engine, pair[1], 1).await);
                assert!(a == b || a == b + 1, "seed {seed}: {a} and {b}");
                assert!(b >= last, "seed {seed}: cuts in order");
                last = b;
            }
            assert!(last > CUTS as u64 / 4, "the guest wrote too little: {last}");
        });
    }
}

/// Versions of a disk: what each lba holds, 0 for a hole.
type Version = Vec<u64>;

fn distinct(versions: &[(DiskId, Version)]) -> u64 {
    let all: BTreeSet<u64> =
        versions.iter().flat_map(|(_, version)| version).copied().filter(|v| *v > 0).collect();
    all.len() as u64 * BLOCK_U64
}

async fn space(engine: &Engine, groups: &[Vec<DiskId>]) -> engine::SpaceReport {
    engine.space(groups, &engine::Progress::default()).await.expect("computes")
}

async fn settle(engine: &Engine) -> u64 {
    engine.drain().await.expect("drains");
    engine.checkpoint().await.expect("a checkpoint");
    engine.clean(0, &engine::Progress::default()).await.expect("cleans");
    engine.status().await.unique_bytes
}

/// Snapshots and clones of a disk that goes on, deleted in any order: after each deletion what is stored is exactly what
/// those that are left hold, and they read as they did.
#[test]
fn any_order_of_deletion_frees_exactly_the_unshared() {
    let soak = std::env::var("HOLDFAST_SOAK").is_ok_and(|soak| soak == "1");
    let pick: u64 = std::env::var("HOLDFAST_PICK").ok().and_then(|pick| pick.parse().ok()).unwrap_or(0);
    let seeds = if soak { 0..ORDERS_SOAK } else { pick..pick + ORDERS };
    for seed in seeds {
        on_a_site(seed, async |_, _, engine, rng| {
            let head = disk(engine, BLOCKS).await;
            let mut versions: Vec<(DiskId, Version)> = vec![(head, vec![0; BLOCKS as usize])];
            for step in 0..7 {
                for _ in 0..rng.below(12) {
                    let at = rng.index(versions.len().min(2));
                    let lba = rng.below(BLOCKS);
                    // Some contents are those of other blocks.
                    let new =
                        if rng.chance(300_000) { rng.below(20) } else { 1000 * (step + 1) + rng.below(500) };
                    let (id, version) = &mut versions[at];
                    version[lba as usize] = new;
                    let (id, data) = (*id, if new == 0 { vec![0; BLOCK] } else { block(new) });
                    engine.write(id, lba * BLOCK_U64, &data).await.expect("writes");
                }
                let read_only = step != 0;
                let from = if step == 0 { 0 } else { rng.index(versions.len()) };
                let (source, version) = versions[from].clone();
                let target = fork(engine, &[source], read_only).await[0];
                versions.push((target, version));
                if rng.chance(200_000) {
                    settle(engine).await;
                }
            }
            assert_eq!(settle(engine).await, distinct(&versions), "seed {seed}: before any deletion");
            rng.shuffle(&mut versions);
            while let Some((doomed, _)) = versions.pop() {
                let said = space(engine, &[vec![doomed]]).await;
                let each: Vec<Vec<DiskId>> =
                    versions.iter().map(|(id, _)| *id).chain([doomed]).map(|id| vec![id]).collect();
                let all = space(engine, &each).await;
                assert_eq!(all.live_bytes, said.live_bytes, "seed {seed}: the same scan");
                assert_eq!(
                    all.groups.last(),
                    said.groups.first(),
                    "seed {seed}: said before, alone and beside others"
                );
                let one = rng.index(each.len());
                let alone = space(engine, &each[one..=one]).await;
                assert_eq!(
                    all.groups[one], alone.groups[0],
                    "seed {seed}: said before, alone and among others"
                );
                assert!(engine.apply(Txn::new(), &[], &[doomed]).await.expect("deletes"));
                let left = space(engine, &[]).await.live_bytes;
                let freed = said.live_bytes - said.groups[0].unique_bytes;
                assert_eq!(left, freed, "seed {seed}: what a deletion frees, said before");
                assert_eq!(settle(engine).await, distinct(&versions), "seed {seed}: {} left", versions.len());
                for (id, version) in &versions {
                    let lba = rng.below(BLOCKS);
                    let expected = version[lba as usize];
                    assert_eq!(
                        value(engine, *id, lba).await,
                        expected,
                        "seed {seed}: disk {} lba {lba}",
                        id.0
                    );
                }
            }
        });
    }
}

/// Metadata whose checkpoint has so many pieces that their list has several too: what no checkpoint writes anew stays,
/// however often the cleaner comes by, and a start finds all of it.
#[test]
fn the_list_of_a_large_checkpoint_survives_cleaning() {
    const KEYS: u64 = 8000;
    const PER_TXN: u64 = 4;
    let key = |n: u64| Key::new([b"k".as_slice(), &n.to_be_bytes()].concat()).expect("a key");
    let sim = Simulation::new(1, Limits { steps: 50_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let mut rng = sim.rng("test");
    let work = async {
        let mut value = || -> Vec<u8> { (0..50).flat_map(|_| rng.next_u64().to_le_bytes()).collect() };
        let site = Site::format(&control, spec(1 << 20)).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let head = disk(&engine, 8).await;
        for first in (0..KEYS).step_by(PER_TXN as usize) {
            let puts = (first..first + PER_TXN).map(|n| Op::put(key(n), value()));
            assert!(engine.apply(puts.fold(Txn::new(), Txn::then), &[], &[]).await.expect("a transaction"));
        }
        for n in 1..8 {
            engine.write(head, 0, &block(n)).await.expect("writes");
            let last = Txn::new().then(Op::put(key(KEYS - 1), value()));
            assert!(engine.apply(last, &[], &[]).await.expect("a transaction"));
            settle(&engine).await;
        }
        site.end(life, false);
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("every piece is there");
        let kept = meta::list(&*engine.meta(), KeyRange::prefix(b"k"), 100_000).await.expect("reads").0;
        assert_eq!(kept.len() as u64, KEYS);
        assert_eq!(self::value(&engine, head, 0).await, 7);
        site.end(life, false);
    };
    sim.run_until(work).expect("it ends");
}
