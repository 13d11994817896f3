//! Changes of disks in the engine: disk d, of four blocks, snapshot s of it, which rests, and a disk whose last block is
//! not whole.

use std::fmt::Write;
use std::sync::Arc;

use engine::{Engine, Fork, Progress};
use meta::Txn;
use seam::Rt;
use sim::{Control, Life, SimRuntime, Site, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId};

use super::{Command, Stage};
use crate::room;

const ROOM: u64 = 8 << 20;
const BLOCKS: u64 = 4;
/// All disks that are there at the end are made so large before they are read.
const LARGEST: u64 = 8;
/// Bytes of a disk whose last block is not whole.
const ODD: u64 = 3 * BLOCK_U64 + 512;
const HELD_MS: u64 = 1 << 50;

pub(super) struct Disks {
    site: Site,
    life: Life,
    rt: Arc<SimRuntime>,
    engine: Engine,
    d: DiskId,
    s: DiskId,
    odd: DiskId,
    /// Numbers that commands give to what they make.
    new: [DiskId; 4],
}

type Done = Result<(), String>;

impl Stage for Disks {
    type Need = ();

    async fn set(control: &Control, _needs: impl Iterator<Item = &'static ()>) -> Self {
        let site = Site::format(control, SiteSpec { media: 1, ..room::spec(ROOM) }).await;
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let mut ids = Vec::new();
        for _ in 0..7 {
            ids.push(engine.new_disk_id().await.expect("an id"));
        }
        let (d, s, odd, new) = (ids[0], ids[1], ids[6], [ids[2], ids[3], ids[4], ids[5]]);
        let made = engine.apply(Txn::new(), &[(d, BLOCKS * BLOCK_U64), (odd, ODD)], &[]).await;
        assert!(made.expect("there is room"));
        for block in 0..BLOCKS {
            engine.write(d, block * BLOCK_U64, &[block as u8 + 1; BLOCK]).await.expect("there is room");
        }
        engine.write(odd, 0, &[5; ODD as usize]).await.expect("there is room");
        let forks = [Fork { source: d, target: s, read_only: true }];
        assert!(engine.fork(Txn::new(), &forks, &[]).await.expect("there is room"));
        engine.drain().await.expect("there is room");
        engine.checkpoint().await.expect("there is room");
        Self { rt: life.runtime(), site, life, engine, d, s, odd, new }
    }

    /// The number of what is to be made is given away once, and changes of one VM take turns.
    fn come_together(names: [&str; 2]) -> bool {
        let is_fork = |name: &str| name.starts_with("snapshot") || name.starts_with("clone");
        let [first, second] = names;
        let is_cut =
            |shrink: &str, fork: &str| shrink.starts_with("shrink") && is_fork(fork) && fork.ends_with('d');
        !(first == second && is_fork(first) || is_cut(first, second) || is_cut(second, first))
    }

    fn rt(&self) -> Rt {
        self.rt.clone()
    }

    /// Sizes and contents, all disks made as large as they were not, and the same behind a restart.
    async fn state(self) -> String {
        let Self { site, life, engine, d, s, odd, new, .. } = self;
        let disks: Vec<DiskId> = [d, s].into_iter().chain(new).chain([odd]).collect();
        let mut told = String::new();
        for (at, disk) in disks.iter().enumerate() {
            if let Some(bytes) = engine.disk_bytes(*disk) {
                let _ = writeln!(told, "disk {at} has {bytes} bytes");
                // Snapshots keep their size.
                let _ = engine.resize(*disk, LARGEST * BLOCK_U64).await;
            }
        }
        let before = contents(&engine, &disks).await;
        let _ = writeln!(told, "holds {}\n{before}", engine.holds().await.expect("they are read").len());
        site.end(life, false);
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let behind = contents(&engine, &disks).await;
        assert_eq!(behind, before, "what a restart finds");
        told
    }
}

/// The first byte of each block of each disk, all of which must be alike.
async fn contents(engine: &Engine, disks: &[DiskId]) -> String {
    let mut told = String::new();
    for (at, disk) in disks.iter().enumerate() {
        let Ok(_open) = engine.open_disk(*disk).await else { continue };
        let bytes = engine.disk_bytes(*disk).expect("it is open");
        let read = engine.read(*disk, 0, bytes as usize).await.expect("it reads");
        let ends: Vec<_> = read.chunks(BLOCK).map(|block| (block[0], block[block.len() - 1])).collect();
        let _ = writeln!(told, "disk {at} reads {ends:?}");
    }
    told
}

impl Disks {
    async fn fork(&self, source: DiskId, number: usize, read_only: bool) -> Done {
        let forks = [Fork { source, target: self.new[number], read_only }];
        done(self.engine.fork(Txn::new(), &forks, &[]).await)
    }

    async fn remove(&self, disk: DiskId) -> Done {
        done(self.engine.apply(Txn::new(), &[], &[disk]).await)
    }

    async fn write(&self, offset: u64, bytes: usize) -> Done {
        code(self.engine.write(self.d, offset, &vec![9; bytes]).await)
    }

    async fn grow_and_write(&self) -> Done {
        code(self.engine.resize(self.odd, BLOCKS * BLOCK_U64).await)?;
        code(self.engine.write(self.odd, ODD, &[9; BLOCK - 512]).await)
    }

    async fn read(&self, disk: DiskId) -> Done {
        let open = self.engine.open_disk(disk).await.map_err(|error| format!("{:?}", error.kind))?;
        code(self.engine.read(open.id(), 0, BLOCK).await.map(drop))
    }
}

fn code(done: Result<(), engine::EngineError>) -> Done {
    done.map_err(|error| format!("{:?}", error.kind))
}

/// False where the number of what was to be made is taken.
fn done(done: Result<bool, engine::EngineError>) -> Done {
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err("Taken".to_owned()),
        Err(error) => code(Err(error)),
    }
}

/// A command with its name.
macro_rules! command {
    ($name:literal, |$disks:ident| $body:expr) => {
        Command { name: $name, needs: &[], run: |$disks| Box::pin(async move { $body }) }
    };
}

pub(super) const COMMANDS: &[Command<Disks>] = &[
    command!("write block 3", |it| it.write(3 * BLOCK_U64, BLOCK).await),
    command!("write into block 3", |it| it.write(3 * BLOCK_U64, 100).await),
    command!("trim block 3", |it| code(it.engine.punch(it.d, 3 * BLOCK_U64, BLOCK_U64, false).await)),
    command!("shrink to one block", |it| code(it.engine.resize(it.d, BLOCK_U64).await)),
    command!("shrink to three blocks", |it| code(it.engine.resize(it.d, 3 * BLOCK_U64).await)),
    command!("shrink into block 3", |it| code(it.engine.resize(it.d, 3 * BLOCK_U64 + 512).await)),
    command!("grow", |it| code(it.engine.resize(it.d, 6 * BLOCK_U64).await)),
    command!("trim to the end", |it| code(it.engine.punch(it.odd, BLOCK_U64, ODD - BLOCK_U64, false).await)),
    command!("grow and write", |it| it.grow_and_write().await),
    command!("snapshot d", |it| it.fork(it.d, 0, true).await),
    command!("clone d", |it| it.fork(it.d, 1, false).await),
    command!("clone s", |it| it.fork(it.s, 2, false).await),
    command!("snapshot s", |it| it.fork(it.s, 3, true).await),
    command!("remove d", |it| it.remove(it.d).await),
    command!("remove s", |it| it.remove(it.s).await),
    command!("hold s", |it| done(it.engine.hold(Txn::new(), &[it.s], HELD_MS).await)),
    command!("read s", |it| it.read(it.s).await),
    command!("read d", |it| it.read(it.d).await),
    command!("checkpoint", |it| code(it.engine.checkpoint().await)),
    command!("clean", |it| code(it.engine.clean(1, &Progress::default()).await.map(drop))),
];
