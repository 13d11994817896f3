//! Shapes of data at the sizes of a real site: one block over and over, units of some bytes, copies of what is there, holes,
//! many disks at once. What grows with such data, and is put into one unit or record, meets its bound here.
//!
//! A schedule has a few acts, each of which gives a stretch of a disk one shape, and between them flushes, checkpoints,
//! cleaning and restarts. No faults but kills and power cuts: every request succeeds, and all reads right.

use std::time::Duration;

use data::{Layout, Params};
use engine::{Engine, Progress};
use map::FANOUT;
use meta::Txn;
use seam::Runtime;
use units::{BLOCK, BLOCK_U64, DiskId, PAGE};

use super::{Family, Outcome};
use crate::executor::{Control, Limits, Simulation};
use crate::ground::{Life, Site, SiteSpec};
use crate::rng::Rng;

/// Blocks of a disk, up to one more or less: changes for more than one container, however small their units
/// are. Ten pages of leaves, so that it ends where one does.
const BLOCKS: u64 = 10 * FANOUT * FANOUT;
/// Blocks of an act with contents that do not compress: some containers.
const RANDOM_BLOCKS: u64 = FANOUT * FANOUT + 1;
/// Bytes at the start of a block of a tiny unit that are not zero.
const TINY_BYTES: usize = 100;
const DISKS: usize = 2;
/// Disks that an act makes at once.
const SMALL_DISKS: usize = 400;
/// Blocks of such a disk; one in so many is about as large as a leaf of its map.
const SMALL_BLOCKS: u64 = 2;
const LEAVES_IN: u64 = 16;
/// Blocks of a request, and requests at once.
const REQUEST_BLOCKS: u64 = 256;
const REQUESTS: usize = 4;
const MEDIA: [usize; 4] = [1, 2, 3, 6];
const ACTS_MAX: u64 = 5;

/// Contents of a block: a kind and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Zero,
    /// One byte all over.
    Fill(u8),
    Tiny(u64),
    Random(u64),
}

impl Value {
    fn block(self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        let mut draw = |bytes: usize, number: u64| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&number.to_le_bytes()).finalize_xof().fill(&mut block[..bytes]);
        };
        match self {
            Self::Zero => {}
            Self::Fill(byte) => block.fill(byte),
            Self::Tiny(number) => draw(TINY_BYTES, number),
            Self::Random(number) => draw(BLOCK, number),
        }
        block
    }
}

struct Disk {
    id: DiskId,
    blocks: Vec<Value>,
}

struct Stage {
    disks: Vec<Disk>,
    rng: Rng,
    next: u64,
    answered: u64,
    tracing: bool,
}

type Verdict<T = ()> = Result<T, String>;

/// Runs the schedule of `seed`.
pub(super) fn run(seed: u64, tracing: bool) -> Outcome {
    let sim = Simulation::new(seed, Limits { steps: 50_000_000, ..Limits::default() });
    let mut rng = sim.rng("schedule");
    let control = sim.world().control();
    let spec = spec(&mut rng);
    let main = async {
        let mut stage = Stage { disks: Vec::new(), rng, next: 1, answered: 0, tracing };
        let wrong = stage.play(&control, spec).await.err();
        (wrong, stage.answered)
    };
    let (wrong, answered) = match sim.run_until(main) {
        Ok(outcome) => outcome,
        Err(stuck) => (Some(stuck.to_string()), 0),
    };
    Outcome { seed, family: Family::Bulk, digest: sim.digest(), wrong, answered, steps: sim.steps() }
}

fn spec(rng: &mut Rng) -> SiteSpec {
    let media = MEDIA[rng.index(MEDIA.len())];
    let params = Params::for_medium(1 << 30);
    let least = Layout::new(params, 1 << 33).map_or(0, |layout| layout.data + layout.largest_extent());
    let config =
        engine::Config::for_params(params.container_bytes, params.segment_bytes, params.segments_max);
    SiteSpec {
        media,
        nodes: 0,
        spares: 0,
        medium_bytes: (least + (1 << 30)).next_multiple_of(PAGE as u64),
        params,
        block_cache_bytes: config.block_cache_bytes,
        page_cache_bytes: config.page_cache_bytes,
        overlay_entries_max: config.overlay_entries_max,
        commits_max: config.commits_max,
        start_backlog_bytes: config.start_backlog_bytes,
        meta_keys_per_chunk: config.meta_keys_per_chunk,
        lost_answers: false,
        index_tag_bits: config.index_tag_bits,
        rebuild_after: config.rebuild_after,
        rebuild_bytes_per_second: config.rebuild_bytes_per_second,
    }
}

impl Stage {
    fn note(&self, what: std::fmt::Arguments<'_>) {
        if self.tracing {
            eprintln!("{what}");
        }
    }

    async fn play(&mut self, control: &Control, spec: SiteSpec) -> Verdict {
        self.note(format_args!("{} media", spec.media));
        let site = Site::format(control, spec).await;
        let (mut life, mut engine) = open(&site).await?;
        for _ in 0..DISKS {
            let blocks = BLOCKS - 1 + self.rng.below(3);
            let disk = self.disk(&engine, blocks).await?;
            self.disks.push(disk);
        }
        for _ in 0..1 + self.rng.below(ACTS_MAX) {
            self.act(&engine).await?;
            match self.rng.below(6) {
                0 => {}
                1 => told("drain", engine.drain().await)?,
                2 => told("checkpoint", engine.checkpoint().await)?,
                3 => told("clean", engine.clean(0, &Progress::default()).await.map(drop))?,
                end => {
                    self.note(format_args!("ends: {end}"));
                    if end == 4 {
                        told("close", engine.close().await)?;
                    }
                    drop(engine);
                    site.end(life, self.rng.coin());
                    (life, engine) = open(&site).await?;
                }
            }
        }
        self.look(&engine).await?;
        drop(engine);
        site.end(life, false);
        let (life, engine) = open(&site).await?;
        self.look(&engine).await?;
        told("drain", engine.drain().await)?;
        told("clean", engine.clean(0, &Progress::default()).await.map(drop))?;
        self.look(&engine).await?;
        site.end(life, false);
        Ok(())
    }

    async fn disk(&mut self, engine: &Engine, blocks: u64) -> Verdict<Disk> {
        let id = told("a disk's number", engine.new_disk_id().await)?;
        let made = engine.apply(Txn::new(), &[(id, blocks * BLOCK_U64)], &[]).await;
        if !told("a disk", made)? {
            return Err("a disk was not made".to_owned());
        }
        Ok(Disk { id, blocks: vec![Value::Zero; blocks as usize] })
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    async fn act(&mut self, engine: &Engine) -> Verdict {
        let at = self.rng.index(DISKS);
        let act = self.rng.below(7);
        self.note(format_args!("act {act} on disk {at}"));
        match act {
            0 | 1 => {
                let byte = 1 + self.rng.below(255) as u8;
                self.write_all(engine, at, |_| Value::Fill(byte)).await
            }
            2 => {
                let first = self.number();
                self.next += self.disks[at].blocks.len() as u64;
                self.write_all(engine, at, |lba| Value::Tiny(first + lba)).await
            }
            3 => {
                // All that the other has, one block further on.
                let other = self.disks[1 - at].blocks.clone();
                self.write_all(engine, at, |lba| other[(lba as usize + 1) % other.len()]).await
            }
            4 => {
                let before = self.disks[at].blocks.clone();
                let first = self.number();
                self.next += RANDOM_BLOCKS;
                let new =
                    |lba| if lba < RANDOM_BLOCKS { Value::Random(first + lba) } else { before[lba as usize] };
                self.write(engine, at, 0..RANDOM_BLOCKS, new).await
            }
            5 => self.trim_every_other(engine, at).await,
            _ => self.small_disks(engine).await,
        }
    }

    async fn write_all(&mut self, engine: &Engine, at: usize, new: impl Fn(u64) -> Value) -> Verdict {
        let blocks = self.disks[at].blocks.len() as u64;
        self.write(engine, at, 0..blocks, new).await
    }

    async fn write(
        &mut self,
        engine: &Engine,
        at: usize,
        range: std::ops::Range<u64>,
        new: impl Fn(u64) -> Value,
    ) -> Verdict {
        let disk = &mut self.disks[at];
        range.clone().for_each(|lba| disk.blocks[lba as usize] = new(lba));
        let (id, blocks) = (disk.id, &disk.blocks);
        let starts: Vec<u64> = range.clone().step_by(REQUEST_BLOCKS as usize).collect();
        for some in starts.chunks(REQUESTS) {
            let requests = some.iter().map(|start| {
                let end = (start + REQUEST_BLOCKS).min(range.end);
                let data: Vec<u8> = (*start..end).flat_map(|lba| blocks[lba as usize].block()).collect();
                async move { engine.write(id, start * BLOCK_U64, &data).await }
            });
            seam::join_all(requests).await.into_iter().try_for_each(|done| told("write", done))?;
            self.answered += some.len() as u64;
        }
        Ok(())
    }

    async fn trim_every_other(&mut self, engine: &Engine, at: usize) -> Verdict {
        let id = self.disks[at].id;
        let first = self.rng.below(2);
        let places: Vec<u64> = (first..self.disks[at].blocks.len() as u64).step_by(2).collect();
        for some in places.chunks(REQUEST_BLOCKS as usize) {
            let requests = some.iter().map(|lba| engine.punch(id, lba * BLOCK_U64, BLOCK_U64, false));
            seam::join_all(requests).await.into_iter().try_for_each(|done| told("trim", done))?;
            self.answered += some.len() as u64;
        }
        let disk = &mut self.disks[at];
        places.iter().for_each(|lba| disk.blocks[*lba as usize] = Value::Zero);
        Ok(())
    }

    async fn small_disks(&mut self, engine: &Engine) -> Verdict {
        for _ in 0..SMALL_DISKS {
            let is_leaf = self.rng.below(LEAVES_IN) == 0;
            let blocks = if is_leaf { FANOUT - 1 + self.rng.below(3) } else { SMALL_BLOCKS };
            let disk = self.disk(engine, blocks).await?;
            self.disks.push(disk);
            let number = self.number();
            self.next += blocks;
            self.write_all(engine, self.disks.len() - 1, |lba| Value::Tiny(number + lba)).await?;
        }
        Ok(())
    }

    /// Every block of every disk is what was written last.
    async fn look(&mut self, engine: &Engine) -> Verdict {
        for disk in &self.disks {
            for (part, values) in disk.blocks.chunks(REQUEST_BLOCKS as usize).enumerate() {
                let first = part as u64 * REQUEST_BLOCKS;
                let read = engine.read(disk.id, first * BLOCK_U64, values.len() * BLOCK).await;
                let read = told("read", read)?;
                for (i, (value, block)) in values.iter().zip(read.chunks_exact(BLOCK)).enumerate() {
                    if block != value.block() {
                        let lba = first + i as u64;
                        return Err(format!("disk {} block {lba} is not {value:?}", disk.id.0));
                    }
                }
                self.answered += 1;
            }
        }
        Ok(())
    }
}

fn told<T>(what: &str, done: Result<T, engine::EngineError>) -> Verdict<T> {
    done.map_err(|error| format!("{what}: {:?}: {error}", error.kind))
}

/// Opens the site, and waits until it takes writes.
async fn open(site: &Site) -> Verdict<(Life, Engine)> {
    let mut life = site.boot();
    let opened = life.opened().await.ok_or_else(|| "the start was cut short".to_owned())?;
    let engine = told("open", opened)?;
    while !engine.is_writable() {
        life.runtime().sleep(Duration::from_millis(100)).await;
    }
    Ok((life, engine))
}
