//! Figures of snapshots, clones and background work on a real site, without a client in between.
//!
//! `cargo run --release -p site --example upkeep -- DIR WHAT [NUMBER]` makes a site of six file media in the new directory
//! DIR and prints what it measured. WHAT is one of:
//!
//! | what | NUMBER | measured |
//! |---|---|---|
//! | `snapshots` | how many at most | time of a snapshot under writes; writes beside 0, then 10, ... NUMBER of them; RAM and bytes each |
//! | `four` | how many | the slowest write beside snapshots of VMs with four disks, a checkpoint and a start beside them |
//! | `clone` | - | time of a snapshot and a clone of a disk of 1 TiB |
//! | `metadata` | span in GiB | bytes stored beyond the data for a write of 4 KiB, with a snapshot after each 60,000 writes |
//! | `pair` | snapshots | writes in turns on two sites, one with so many snapshots, in short turns: 7 times 5 s each |
//! | `count` | writes | nothing: opens the site that `pair` left in DIR/a or DIR/b, writes, ends at once; for callgrind |
//! | `mark` | - | time and map pages of cycles of the cleaner beside snapshots that share all, and some, of their pages |
//! | `background` | MiB of data | writes beside nothing, a scrub, a clean, a drain, a rebuild; bytes a second of each |

#![allow(clippy::disallowed_methods)] // it measures real time

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Version, VmName};
use catalog::Deletion;
use engine::{Engine, Progress, ScrubCursor};
use machine::{FileMedia, Options};
use site::Site;
use units::DiskId;

type Failed = Box<dyn std::error::Error>;

const BLOCK: u64 = 4096;
const GIB: u64 = 1 << 30;

/// Numbers without a pattern, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A block unlike any other, that does not compress.
    fn block(&mut self, block: &mut [u8]) {
        block.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&self.next().to_le_bytes()));
    }
}

struct Bench {
    site: Site,
    disk: DiskId,
    span: u64,
    random: Random,
}

impl Bench {
    async fn new(rt: seam::Rt, dir: &str, media_gib: u64, span: u64) -> Result<Self, Failed> {
        let file_media = Some(FileMedia { count: 6, bytes: media_gib * GIB });
        let rebuild_after = Some(Duration::from_secs(1));
        let site = Site::start(rt, Options { file_media, rebuild_after, ..Options::new(dir) }).await?.site;
        site.catalog().create_vm(&name("vm")?, &[span]).await?;
        // The first disk of a site.
        let disk = DiskId(1);
        Ok(Self { site, disk, span, random: Random(7) })
    }

    fn engine(&self) -> &Engine {
        self.site.engine()
    }

    /// Writes of 4 KiB at random places, one after the other, until `done` says so; gives the latencies.
    async fn writes(&mut self, mut done: impl FnMut(usize) -> bool) -> Result<Vec<Duration>, Failed> {
        let mut block = vec![0; BLOCK as usize];
        let mut latencies = Vec::new();
        while !done(latencies.len()) {
            self.random.block(&mut block);
            let at = self.random.next() % (self.span / BLOCK) * BLOCK;
            let begun = Instant::now();
            self.engine().write(self.disk, at, &block).await?;
            latencies.push(begun.elapsed());
        }
        Ok(latencies)
    }

    async fn writes_for(&mut self, span: Duration) -> Result<Vec<Duration>, Failed> {
        let begun = Instant::now();
        self.writes(|_| begun.elapsed() >= span).await
    }

    async fn rest(&self) -> Result<(), Failed> {
        self.engine().drain().await?;
        self.engine().checkpoint().await?;
        Ok(())
    }
}

fn name(text: &str) -> Result<VmName, Failed> {
    Ok(VmName::parse(text)?)
}

fn show(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let all: Duration = latencies.iter().sum();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).map_or(0.0, ms);
    println!(
        "{what:<40} {:>7} in {:>6.2} s, p50 {:.3} p99 {:.3} p99.9 {:.3} max {:.3} ms",
        latencies.len(),
        all.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        latencies.last().map_or(0.0, ms)
    );
}

fn ms(span: &Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

async fn snapshots(rt: seam::Rt, dir: &str, most: u64) -> Result<(), Failed> {
    let mut bench = Bench::new(rt, dir, 8, GIB).await?;
    let vm = name("vm")?;
    bench.writes_for(Duration::from_secs(5)).await?;
    show("writes, no snapshot", bench.writes_for(Duration::from_secs(5)).await?);
    let (mut made, mut target) = (0_u64, 10);
    while target <= most {
        bench.rest().await?;
        let (ram, stored) = (resident_kib(), bench.engine().status().await.stored_bytes);
        let (before, mut took) = (made, Vec::new());
        let begun = Instant::now();
        while made < target {
            // So many that each snapshot has something of its own.
            bench.writes(|count| count == 1).await?;
            let begun = Instant::now();
            bench.site.catalog().snapshot(&vm, None).await?;
            took.push(begun.elapsed());
            made += 1;
        }
        let all = begun.elapsed();
        bench.rest().await?;
        let count = (made - before) as f64;
        let stored = bench.engine().status().await.stored_bytes.saturating_sub(stored);
        let ram = resident_kib().saturating_sub(ram);
        show(&format!("snapshots {before} to {made}, a write before each"), took);
        println!(
            "  {:.1} s in all; each {:.0} B of RAM and {:.0} B stored, its write and checkpoints included",
            all.as_secs_f64(),
            ram as f64 * 1024.0 / count,
            stored as f64 / count
        );
        show(&format!("writes, {made} snapshots"), bench.writes_for(Duration::from_secs(5)).await?);
        target *= 10;
    }
    let begun = Instant::now();
    bench.rest().await?;
    println!("a checkpoint beside {made} snapshots: {:.1} ms", ms(&begun.elapsed()));
    Ok(bench.site.stop().await?)
}

/// Snapshots of VMs with four disks, made by several tasks at once.
async fn make_four(site: Site, count: u64) -> Result<(), String> {
    let mut tasks = Vec::new();
    for task in 0..SNAPSHOT_TASKS {
        let (site, vm) = (site.clone(), name(&format!("four{task}")).map_err(|error| error.to_string())?);
        site.catalog().create_vm(&vm, &[64 << 20; 4]).await.map_err(|error| error.to_string())?;
        tasks.push(tokio::spawn(async move {
            for _ in (task..count).step_by(SNAPSHOT_TASKS as usize) {
                site.catalog().snapshot(&vm, None).await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        }));
    }
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn four(rt: seam::Rt, dir: &str, count: u64) -> Result<(), Failed> {
    let mut bench = Bench::new(rt.clone(), dir, 16, GIB).await?;
    let maker = tokio::spawn(make_four(bench.site.clone(), count));
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while !maker.is_finished() {
        let latencies = bench.writes_for(Duration::from_secs(1)).await?;
        slowest = latencies.into_iter().fold(slowest, Duration::max);
    }
    maker.await??;
    println!("{count} snapshots of four disks in {:.0} s", begun.elapsed().as_secs_f64());
    println!("  the slowest write beside them: {:.1} ms", ms(&slowest));
    let begun = Instant::now();
    bench.rest().await?;
    println!("  a checkpoint: {:.1} ms", ms(&begun.elapsed()));
    bench.site.stop().await?;
    drop(bench);
    let begun = Instant::now();
    let site = Site::start(rt, Options::new(dir)).await?.site;
    println!("  a start: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(site.stop().await?)
}

async fn clone(rt: seam::Rt, dir: &str) -> Result<(), Failed> {
    let mut bench = Bench::new(rt, dir, 8, 1024 * GIB).await?;
    bench.writes_for(Duration::from_secs(10)).await?;
    let vm = name("vm")?;
    let (mut cuts, mut clones) = (Vec::new(), Vec::new());
    for number in 0..50 {
        bench.writes(|count| count == 100).await?;
        let begun = Instant::now();
        let made = bench.site.catalog().snapshot(&vm, None).await?;
        cuts.push(begun.elapsed());
        let from = Version { vm: vm.clone(), snapshot: Some(name(&made.name)?) };
        let begun = Instant::now();
        bench.site.catalog().clone_vm(&from, &name(&format!("clone{number}"))?).await?;
        clones.push(begun.elapsed());
    }
    show("snapshots of 1 TiB", cuts);
    show("clones of them", clones);
    Ok(bench.site.stop().await?)
}

async fn metadata(rt: seam::Rt, dir: &str, gib: u64) -> Result<(), Failed> {
    let mut bench = Bench::new(rt, dir, 8, gib * GIB).await?;
    let vm = name("vm")?;
    println!("writes over {gib} GiB, a snapshot after each 60,000; stored beyond 4096 bytes for each write:");
    for round in 1..=10 {
        bench.rest().await?;
        let before = bench.engine().status().await.stored_bytes;
        let count = bench.writes(|count| count == 60_000).await?.len() as u64;
        bench.site.catalog().snapshot(&vm, None).await?;
        bench.rest().await?;
        let stored = bench.engine().status().await.stored_bytes - before;
        let beyond = stored as f64 / count as f64 - BLOCK as f64;
        println!("  minute {round}: {beyond:.0} bytes, {:.1} % of a block", beyond * 100.0 / BLOCK as f64);
    }
    Ok(bench.site.stop().await?)
}

/// Writes beside something, until it has ended; what it did in bytes is what `work` gives.
async fn beside(
    bench: &mut Bench,
    what: &str,
    work: impl Future<Output = Result<u64, Failed>> + Send + 'static,
) -> Result<(), Failed> {
    let begun = Instant::now();
    let task = tokio::spawn(async move { work.await.map_err(|error| error.to_string()) });
    let latencies = bench.writes(|_| task.is_finished()).await?;
    let bytes = task.await??;
    let took = begun.elapsed().as_secs_f64();
    show(&format!("writes beside a {what}"), latencies);
    println!(
        "  the {what}: {} MiB in {took:.1} s, {:.0} MiB/s",
        bytes >> 20,
        bytes as f64 / took / 1048576.0
    );
    Ok(())
}

async fn background(rt: seam::Rt, dir: &str, mib: u64) -> Result<(), Failed> {
    let mut bench = Bench::new(rt, dir, 8, GIB).await?;
    let mut chunk = vec![0; 1 << 20];
    // Every second block of it goes later.
    for vm in ["old", "kept"] {
        bench.site.catalog().create_vm(&name(vm)?, &[mib << 19]).await?;
    }
    for at in 0..mib / 2 {
        for disk in [DiskId(2), DiskId(3)] {
            bench.random.block(&mut chunk);
            bench.engine().write(disk, at << 20, &chunk).await?;
        }
    }
    bench.writes_for(Duration::from_secs(5)).await?;
    bench.rest().await?;
    show("writes beside nothing", bench.writes_for(Duration::from_secs(10)).await?);
    let engine = bench.engine().clone();
    beside(&mut bench, "scrub", async move {
        let bytes = engine.committed_raw_bytes();
        engine.scrub(&ScrubCursor::default(), &Progress::default()).await?;
        Ok(bytes)
    })
    .await?;
    bench.site.catalog().delete_vm(&name("old")?, Deletion { now: true, with_snapshots: true }).await?;
    let engine = bench.engine().clone();
    beside(&mut bench, "clean", async move {
        let report = engine.clean(10, &Progress::default()).await?;
        println!("  {report:?}");
        Ok(report.freed_bytes)
    })
    .await?;
    let status = bench.site.status().await?;
    let first = bench.site.medium_id(&status.media[0].id)?;
    bench.site.add_medium(std::path::Path::new(&format!("{dir}/more.img")), Some(8 * GIB)).await?;
    let site = bench.site.clone();
    beside(&mut bench, "drain of a medium", async move {
        let task = site.drain_medium(first).await?;
        loop {
            let now = site.tasks().task(task.id).await?;
            if now.state != api::types::TaskState::Running {
                return Ok(now.counts.get("moved_bytes").copied().unwrap_or(0));
            }
            site.runtime().sleep(Duration::from_millis(20)).await;
        }
    })
    .await?;
    bench.site.add_medium(std::path::Path::new(&format!("{dir}/spare.img")), Some(8 * GIB)).await?;
    let status = bench.site.status().await?;
    let lost = &status.media[0];
    std::fs::File::options().write(true).open(&lost.path)?.set_len(1 << 20)?;
    let (site, id) = (bench.site.clone(), bench.site.medium_id(&lost.id)?);
    beside(&mut bench, "rebuild of a medium", async move {
        let mut bytes = 0;
        loop {
            let of_it = site.engine().moving().into_iter().find(|moving| moving.medium == id);
            match of_it {
                Some(moving) => bytes = moving.done_bytes + moving.left_bytes,
                None if bytes > 0 => return Ok(bytes),
                None => {}
            }
            site.runtime().sleep(Duration::from_millis(20)).await;
        }
    })
    .await?;
    show("writes beside nothing", bench.writes_for(Duration::from_secs(10)).await?);
    Ok(bench.site.stop().await?)
}

/// Writers that snapshot VMs of their own, so that many share a journal batch.
const SNAPSHOT_TASKS: u64 = 16;
/// Comparisons of two sites, each of so many short turns: what else the machine does falls on both.
const TURNS: usize = 7;
const SLICES: usize = 40;
const SLICE: Duration = Duration::from_millis(250);

/// Makes snapshots, of several VMs at once, a write before each.
async fn make_snapshots(bench: &Bench, count: u64) -> Result<(), Failed> {
    let mut vms = vec![(name("vm")?, bench.disk)];
    for task in 1..SNAPSHOT_TASKS {
        let vm = name(&format!("vm{task}"))?;
        bench.site.catalog().create_vm(&vm, &[64 << 20]).await?;
        vms.push((vm, DiskId(1 + task)));
    }
    let mut tasks = Vec::new();
    for (task, (vm, disk)) in (0..).zip(vms) {
        let site = bench.site.clone();
        tasks.push(tokio::spawn(async move {
            let (mut random, mut block) = (Random(task), vec![0; BLOCK as usize]);
            for _ in (task..count).step_by(SNAPSHOT_TASKS as usize) {
                random.block(&mut block);
                let at = random.next() % ((64 << 20) / BLOCK) * BLOCK;
                site.engine().write(disk, at, &block).await.map_err(|error| error.to_string())?;
                site.catalog().snapshot(&vm, None).await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn pair(rt: seam::Rt, dir: &str, count: u64) -> Result<(), Failed> {
    std::fs::create_dir(dir)?;
    let mut a = Bench::new(rt.clone(), &format!("{dir}/a"), 16, GIB).await?;
    let mut b = Bench::new(rt, &format!("{dir}/b"), 16, GIB).await?;
    for bench in [&mut a, &mut b] {
        bench.writes(|count| count == 50_000).await?;
        bench.rest().await?;
    }
    let (ram, stored) = (resident_kib(), b.engine().status().await.stored_bytes);
    let begun = Instant::now();
    make_snapshots(&b, count).await?;
    let took = begun.elapsed().as_secs_f64();
    b.rest().await?;
    let each = |bytes: u64| bytes as f64 / count.max(1) as f64;
    println!(
        "{count} snapshots of {SNAPSHOT_TASKS} VMs in {took:.0} s, {:.0}/s; each {:.0} B of RAM and {:.0} B stored",
        count as f64 / took,
        each((resident_kib() - ram) << 10),
        each(b.engine().status().await.stored_bytes - stored)
    );
    b.engine().clean(100, &Progress::default()).await?;
    for bench in [&mut a, &mut b] {
        bench.writes_for(Duration::from_secs(5)).await?;
    }
    let (mut rates, mut tails) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let mut latencies = [Vec::new(), Vec::new()];
        for slice in 0..SLICES {
            let which = (turn + slice) % 2;
            let bench = if which == 0 { &mut a } else { &mut b };
            latencies[which].extend(bench.writes_for(SLICE).await?);
        }
        let [(rate_a, tail_a), (rate_b, tail_b)] = latencies.map(|mut latencies| {
            let all: Duration = latencies.iter().sum();
            latencies.sort_unstable();
            (latencies.len() as f64 / all.as_secs_f64(), ms(&latencies[latencies.len() * 99 / 100]))
        });
        println!("  without: {rate_a:.0}/s, p99 {tail_a:.3} ms; with: {rate_b:.0}/s, p99 {tail_b:.3} ms");
        rates.push(rate_b / rate_a);
        tails.push(tail_b / tail_a);
    }
    rates.sort_by(f64::total_cmp);
    tails.sort_by(f64::total_cmp);
    println!("with over without, median: rate {:.3}, p99 {:.3}", rates[TURNS / 2], tails[TURNS / 2]);
    a.site.stop().await?;
    Ok(b.site.stop().await?)
}

/// Counts instructions from here on, or no more, where this runs under `valgrind --tool=callgrind --instr-atstart=no`.
fn callgrind(state: &str) {
    let pid = std::process::id().to_string();
    let _ = std::process::Command::new("callgrind_control")
        .args(["-i", state, &pid])
        .stdout(std::process::Stdio::null())
        .status();
}

async fn count(rt: seam::Rt, dir: &str, count: u64) -> Result<(), Failed> {
    let site = Site::start(rt, Options { backend: media::Backend::Sync, ..Options::new(dir) }).await?.site;
    let mut bench = Bench { site, disk: DiskId(1), span: GIB, random: Random(11) };
    bench.writes(|done| done == 500).await?;
    // What a start leaves for later, as filling the index, is to be over.
    bench.site.runtime().sleep(Duration::from_secs(60)).await;
    callgrind("on");
    bench.writes(|done| done as u64 == count).await?;
    callgrind("off");
    std::process::exit(0);
}

async fn mark(rt: seam::Rt, dir: &str) -> Result<(), Failed> {
    let mut bench = Bench::new(rt, dir, 8, 64 * GIB).await?;
    bench.writes(|count| count == 100_000).await?;
    let vm = name("vm")?;
    let mut snapshots = 0;
    for (more, between) in [(0, 0), (1, 0), (1000, 0), (9000, 0), (100, 10), (900, 10)] {
        for _ in 0..more {
            if between > 0 {
                bench.writes(|count| count == between).await?;
            }
            bench.site.catalog().snapshot(&vm, None).await?;
        }
        snapshots += more;
        bench.rest().await?;
        let begun = Instant::now();
        let report = bench.engine().clean(100, &Progress::default()).await?;
        let took = ms(&begun.elapsed());
        println!(
            "{snapshots} snapshots, {between} writes before each of the last: {} pages marked, {took:.0} ms, {:.1} us each",
            report.pages,
            took * 1e3 / report.pages.max(1) as f64
        );
    }
    Ok(bench.site.stop().await?)
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: upkeep DIR snapshots COUNT | four COUNT | clone | metadata GIB | pair COUNT | count WRITES | mark | background MIB";
    let (dir, what) = arguments.first().zip(arguments.get(1)).ok_or(usage)?;
    let number = || arguments.get(2).and_then(|number| number.parse::<u64>().ok()).ok_or(usage);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rt: seam::Rt = Arc::new(seam::TokioRuntime::new(runtime.handle().clone()));
    match what.as_str() {
        "snapshots" => runtime.block_on(snapshots(rt, dir, number()?)),
        "four" => runtime.block_on(four(rt, dir, number()?)),
        "clone" => runtime.block_on(clone(rt, dir)),
        "metadata" => runtime.block_on(metadata(rt, dir, number()?)),
        "pair" => runtime.block_on(pair(rt, dir, number()?)),
        "count" => runtime.block_on(count(rt, dir, number()?)),
        "mark" => runtime.block_on(mark(rt, dir)),
        "background" => runtime.block_on(background(rt, dir, number()?)),
        _ => Err(usage.into()),
    }
}
