//! Goal: what RAM says of disks is what their records say, whatever becomes of the answers of the metadata store
//! and of those who asked: answers are lost, callers go away at any moment. Knobs: [`SEEDS`], [`STEPS`].

use std::collections::BTreeMap;
use std::time::Duration;

use engine::{Engine, EngineErrorKind, Fork};
use meta::{Shard, Store, Table, Txn};
use seam::Runtime;
use sim::{Control, Limits, Rng, SimRuntime, Simulation, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId};

use crate::room;

const DISKS: Table<Shard> = Table::new("disk");
const SEEDS: u64 = 12;
const STEPS: u64 = 40;
/// Disks that are there at most.
const MOST: usize = 12;
/// What was given up has ended by then.
const SETTLED: Duration = Duration::from_secs(5);

/// The disks that have a record, but for those that are gone and whose record others still need.
async fn recorded(engine: &Engine) -> Vec<DiskId> {
    let (kvs, _) = meta::list(&*engine.meta() as &dyn Store, DISKS.all(), 1 << 16).await.expect("it lists");
    let id = |kv: &meta::KeyValue| DISKS.segments(&kv.key)?.number().map(DiskId);
    // Version, size as a varint, read-only, gone.
    let is_there = |kv: &&meta::KeyValue| {
        let size = kv.value[1..].iter().position(|byte| *byte < 0x80).expect("a size");
        kv.value[1 + size + 2] == 0
    };
    kvs.iter().filter(is_there).map(|kv| id(kv).expect("a disk")).collect()
}

/// The disks among these that the engine serves.
async fn served(engine: &Engine, disks: &[DiskId]) -> Vec<DiskId> {
    let mut served = Vec::new();
    for disk in disks {
        match engine.open_disk(*disk).await {
            Ok(_) => served.push(*disk),
            Err(error) => assert_eq!(error.kind, EngineErrorKind::NotFound, "{error}"),
        }
    }
    served
}

async fn first_block(engine: &Engine, disk: DiskId) -> Vec<u8> {
    let _open = engine.open_disk(disk).await.expect("it is there");
    engine.read(disk, 0, BLOCK).await.expect("it reads")
}

/// Runs something for as long as its caller waits; `None` when that one has gone away.
async fn ask<T>(rt: &SimRuntime, rng: &mut Rng, drops: bool, work: impl Future<Output = T>) -> Option<T> {
    let patience = match drops && rng.coin() {
        true => Duration::from_micros(rng.below(20_000)),
        false => Duration::from_secs(3600),
    };
    seam::timeout(rt, patience, work).await.ok()
}

/// Disks are made, forked and removed; `lost` has answers be lost, `drops` has callers go away.
async fn play(control: &Control, mut rng: Rng, lost: bool, drops: bool) {
    let site = Site::format(control, SiteSpec { lost_answers: lost, ..room::spec(32 << 20) }).await;
    let mut life = site.boot();
    let mut engine = life.opened().await.expect("it lives").expect("a sound site opens");
    // Every number that was ever given, and what the disk began with.
    let mut all: BTreeMap<DiskId, Vec<u8>> = BTreeMap::new();
    for step in 0..STEPS {
        let there = served(&engine, &all.keys().copied().collect::<Vec<_>>()).await;
        let some = there.get(rng.index(there.len().max(1))).copied();
        let rt = life.runtime();
        match (rng.below(4), some) {
            (0, Some(disk)) => {
                let remove = [disk];
                let work = engine.apply(Txn::new(), &[], &remove);
                let done = ask(&rt, &mut rng, drops, work).await;
                assert!(matches!(done, None | Some(Ok(true))), "step {step}: {done:?}");
            }
            (1 | 2, Some(source)) if there.len() < MOST => {
                let target = engine.new_disk_id().await.expect("an id");
                all.insert(target, first_block(&engine, source).await);
                let fork = [Fork { source, target, read_only: false }];
                let work = engine.fork(Txn::new(), &fork, &[]);
                let done = ask(&rt, &mut rng, drops, work).await;
                assert!(matches!(done, None | Some(Ok(true))), "step {step}: {done:?}");
            }
            _ => {
                let disk = engine.new_disk_id().await.expect("an id");
                all.insert(disk, vec![0; BLOCK]);
                let create = [(disk, 4 * BLOCK_U64)];
                let work = engine.apply(Txn::new(), &create, &[]);
                let done = ask(&rt, &mut rng, drops, work).await;
                assert!(matches!(done, None | Some(Ok(true))), "step {step}: {done:?}");
            }
        }
        rt.sleep(SETTLED).await;
        let known: Vec<DiskId> = all.keys().copied().collect();
        let there = served(&engine, &known).await;
        assert_eq!(recorded(&engine).await, there, "step {step}: RAM and records");
        if rng.below(4) == 0 {
            engine.checkpoint().await.expect("a checkpoint");
            rt.sleep(SETTLED).await;
            assert_eq!(recorded(&engine).await, there, "step {step}: RAM and records");
        }
        if let Some(disk) = there.last() {
            let data = vec![step as u8 + 1; BLOCK];
            engine.write(*disk, 0, &data).await.expect("it writes");
            all.insert(*disk, data);
        }
        for disk in &there {
            assert!(first_block(&engine, *disk).await == all[disk], "step {step}: disk {disk:?}");
        }
        if rng.below(6) == 0 {
            site.end(life, rng.coin());
            life = site.boot();
            engine = life.opened().await.expect("it lives").expect("a sound site opens");
            assert_eq!(served(&engine, &known).await, there, "step {step}: what a restart finds");
        }
    }
    site.end(life, false);
}

fn run(lost: bool, drops: bool) {
    for seed in 0..SEEDS {
        let sim = Simulation::new(seed, Limits { steps: 20_000_000, ..Limits::default() });
        let control = (*sim).clone();
        let rng = sim.rng("test");
        sim.run_until(play(&control, rng, lost, drops)).expect("it ends");
    }
}

#[test]
fn a_lost_answer_leaves_ram_and_records_of_one_mind() {
    run(true, false);
}

#[test]
fn a_caller_that_goes_away_leaves_ram_and_records_of_one_mind() {
    run(false, true);
}

#[test]
fn lost_answers_and_callers_that_go_away_at_once() {
    run(true, true);
}
