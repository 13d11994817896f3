//! Goal: no start record grows with what a site holds. A backlog that is too long for one is found behind any restart, and a
//! ledger with a million gaps neither ends the journal, nor a checkpoint, nor a rotation of keys.

use std::time::Duration;

use api::types::TaskState;
use data::{Layout, Params};
use engine::Fork;
use journal::LedgerRun;
use meta::Txn;
use seam::Runtime;
use sim::{Limits, Simulation, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, Incarnation, PAGE};

use crate::room;

/// Blocks of the disk.
const BLOCKS: u64 = 256;
/// Times that all of it is written: several times what the journal holds.
const ROUNDS: u64 = 12;
/// Gaps of the large ledger.
const RUNS: u32 = 1_000_000;

/// The contents of a block in a round; blocks share none.
fn block(round: u64, lba: u64) -> Vec<u8> {
    let mut word = (round << 32 | lba).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = vec![0; BLOCK];
    for byte in &mut out {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        *byte = word as u8;
    }
    out
}

/// Without checkpoints, and with nothing of the backlog in start records, guests write on: the backlog goes to the log. It is
/// there behind a power cut, with the snapshots that were made meanwhile.
#[test]
fn a_backlog_in_the_log_is_found_behind_a_restart() {
    let sim = Simulation::new(7, Limits { steps: 50_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let work = async {
        let spec = SiteSpec {
            start_backlog_bytes: 0,
            commits_max: 1 << 20,
            overlay_entries_max: 1 << 30,
            ..room::spec(64 << 20)
        };
        let journal_blocks = u64::from(spec.params.segments_max * spec.params.segment_bytes) / BLOCK_U64;
        assert!(ROUNDS * BLOCKS > 5 * journal_blocks, "the journal cannot hold it");
        let site = Site::format(&control, spec).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let disk = engine.new_disk_id().await.expect("an id");
        assert!(engine.apply(Txn::new(), &[(disk, BLOCKS * BLOCK_U64)], &[]).await.expect("a disk"));
        let mut snapshots = Vec::new();
        for round in 0..ROUNDS {
            for lba in 0..BLOCKS {
                engine.write(disk, lba * BLOCK_U64, &block(round, lba)).await.expect("it writes");
            }
            let target = engine.new_disk_id().await.expect("an id");
            let fork = Fork { source: disk, target, read_only: true };
            assert!(engine.fork(Txn::new(), &[fork], &[]).await.expect("a snapshot"));
            snapshots.push((round, target));
        }
        engine.drain().await.expect("it drains");
        site.end(life, true);
        for _ in 0..2 {
            let mut life = site.boot();
            let engine = life.opened().await.expect("it lives").expect("a sound site opens");
            assert!(engine.is_writable(), "{:?}", engine.losses());
            for (round, version) in snapshots.iter().copied().chain([(ROUNDS - 1, disk)]) {
                let _open = engine.open_disk(version).await.expect("it is there");
                for lba in 0..BLOCKS {
                    let read = engine.read(version, lba * BLOCK_U64, BLOCK).await.expect("it reads");
                    assert!(read == block(round, lba), "block {lba} of round {round}");
                }
            }
            life.runtime().sleep(Duration::from_secs(5)).await;
            site.end(life, true);
        }
    };
    sim.run_until(work).expect("it ends");
}

/// Segments begin, a checkpoint is taken and read, and a rotation of the key draws its line.
#[test]
fn a_ledger_of_a_million_runs_rolls_and_restarts() {
    let sim = Simulation::new(8, Limits { steps: 50_000_000, ..Limits::default() });
    let control = (*sim).clone();
    let work = async {
        let params = Params {
            container_bytes: 1 << 20,
            segment_bytes: 256 << 10,
            segments_max: 10,
            log_pages: 64,
            fragments_max: 4096,
        };
        let least = Layout::new(params, 1 << 31).map_or(0, |layout| layout.data + layout.largest_extent());
        let medium_bytes = (least + (256 << 20)).next_multiple_of(PAGE as u64);
        let site = Site::format(&control, SiteSpec { params, medium_bytes, ..room::spec(0) }).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let ledger = LedgerRun {
            incarnation: Incarnation(5),
            committed: (0..RUNS).map(|run| (2 * run, 2 * run + 1)).collect(),
        };
        engine.pretend_committed(&ledger);
        let disk = engine.new_disk_id().await.expect("an id");
        assert!(engine.apply(Txn::new(), &[(disk, BLOCKS * BLOCK_U64)], &[]).await.expect("a disk"));
        let segment = site.image().witness().last;
        for lba in 0..BLOCKS {
            engine.write(disk, lba * BLOCK_U64, &block(1, lba)).await.expect("it writes");
        }
        assert_ne!(site.image().witness().last, segment, "segments begin");
        engine.drain().await.expect("it drains");
        engine.checkpoint().await.expect("a checkpoint");
        site.end(life, true);

        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        assert!(engine.is_writable(), "{:?}", engine.losses());
        assert!(engine.ledger().contains(&ledger), "the ledger is whole");
        for lba in 0..BLOCKS {
            assert!(engine.read(disk, lba * BLOCK_U64, BLOCK).await.expect("it reads") == block(1, lba));
        }
        // No medium has these containers.
        let task = room::rotate(&life).await;
        assert_eq!(task.state, TaskState::Failed, "{task:?}");
        site.end(life, false);
    };
    sim.run_until(work).expect("it ends");
}
