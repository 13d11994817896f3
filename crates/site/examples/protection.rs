//! Figures of protection groups on a real site, without a client in between.
//!
//! `cargo run --release -p site --example protection -- DIR WHAT [NUMBER]` makes a site of three file media in the new
//! directory DIR and prints what it measured. WHAT is one of:
//!
//! | what | NUMBER | measured |
//! |---|---|---|
//! | `hold` | VMs | 50 points over so many VMs of one disk while a guest writes: how long each takes, the writes beside them |
//! | `often` | seconds between points | writes with and without points, in turns of 10 s: 9 pairs |
//! | `many` | points | 1,000 VMs and so many points of one VM each: start, first round, status, lists, restore; RAM |

#![allow(clippy::disallowed_methods)] // it measures real time

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::VmName;
use api::types::{GroupSpec, HowToSet, Keep, ListPoints, ListVms, NewRestore, Rules, Schedule};
use catalog::NewPoint;
use engine::Engine;
use machine::{FileMedia, Options};
use site::Site;
use units::DiskId;

type Failed = Box<dyn std::error::Error>;

const BLOCK: usize = 4096;
const GIB: u64 = 1 << 30;

fn name(text: &str) -> Result<VmName, Failed> {
    Ok(VmName::parse(text)?)
}

fn group(group: &str, pattern: &str, every: &str, last: u32) -> GroupSpec {
    GroupSpec {
        name: group.to_owned(),
        zone: "UTC".to_owned(),
        include: Rules { match_names: vec![pattern.to_owned()], ..Rules::default() },
        schedules: vec![Schedule {
            name: "main".to_owned(),
            every: Some(every.to_owned()),
            keep: Keep { last, ..Keep::default() },
            ..Schedule::default()
        }],
        ..GroupSpec::default()
    }
}

async fn start(rt: &seam::Rt, dir: &str) -> Result<Site, Failed> {
    let file_media = Some(FileMedia { count: 3, bytes: 8 * GIB });
    let options = Options { file_media, default_points: false, ..Options::new(dir) };
    Ok(Site::start(rt.clone(), options).await?.site)
}

/// Writes of 4 KiB at random places of a disk of 1 GiB, one after the other, until `done` says so.
async fn writes(
    engine: &Engine,
    disk: DiskId,
    seed: &mut u64,
    mut done: impl FnMut() -> bool,
) -> Result<Vec<Duration>, Failed> {
    let mut block = vec![0; BLOCK];
    let mut latencies = Vec::new();
    while !done() {
        for word in block.chunks_exact_mut(8) {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&seed.to_le_bytes());
        }
        let at = (*seed >> 20) % (GIB / BLOCK as u64) * BLOCK as u64;
        let begun = Instant::now();
        engine.write(disk, at, &block).await?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

fn ms(span: &Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn show(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).map_or(0.0, ms);
    println!(
        "{what:<32} {:>7} times, p50 {:.3} p99 {:.3} p99.9 {:.3} max {:.3} ms",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        latencies.last().map_or(0.0, ms)
    );
}

async fn first_disk(site: &Site, vm: &str) -> Result<DiskId, Failed> {
    Ok(site.catalog().disks_of(&[vm.to_owned()]).await?[0])
}

async fn hold(rt: seam::Rt, dir: &str, vms: u64) -> Result<(), Failed> {
    let site = start(&rt, dir).await?;
    for number in 0..vms {
        site.catalog().create_vm(&name(&format!("vm{number:05}"))?, &[GIB]).await?;
    }
    site.create_group(&group("all", "*", "100d", 10)).await?;
    let (engine, disk, mut seed) = (site.engine(), first_disk(&site, "vm00000").await?, 7);
    let begun = Instant::now();
    show(
        "writes alone",
        writes(engine, disk, &mut seed, || begun.elapsed() > Duration::from_secs(10)).await?,
    );
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let runs = tokio::spawn({
        let site = site.clone();
        async move {
            let mut took = Vec::new();
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let begun = Instant::now();
                site.run_group("all", None).await.expect("a point is made");
                took.push(begun.elapsed());
            }
            stop.send_replace(true);
            took
        }
    });
    show("writes beside points", writes(engine, disk, &mut seed, || *stopped.borrow()).await?);
    show("a point", runs.await?);
    site.stop().await?;
    Ok(())
}

async fn often(rt: seam::Rt, dir: &str, seconds: u64) -> Result<(), Failed> {
    let site = start(&rt, dir).await?;
    site.catalog().create_vm(&name("vm")?, &[GIB]).await?;
    let (engine, disk, mut seed) = (site.engine(), first_disk(&site, "vm").await?, 7);
    let spec = group("all", "*", &format!("{seconds}s"), 1000);
    site.create_group(&GroupSpec { paused: true, ..spec.clone() }).await?;
    let mut ratios = Vec::new();
    for pair in 0..9 {
        let mut count = [0; 2];
        // The order turns, so that what comes later is no advantage.
        for turn in [pair % 2, 1 - pair % 2] {
            let paused = turn == 0;
            site.set_group("all", &GroupSpec { paused, ..spec.clone() }, HowToSet::default()).await?;
            let begun = Instant::now();
            let done = writes(engine, disk, &mut seed, || begun.elapsed() > Duration::from_secs(10)).await?;
            count[turn] = done.len();
            show(if paused { "without points" } else { "with points" }, done);
        }
        ratios.push(count[1] as f64 / count[0] as f64);
    }
    ratios.sort_by(f64::total_cmp);
    println!("with over without, median {:.3}, all {ratios:.3?}", ratios[ratios.len() / 2]);
    println!("points: {}", site.points(&ListPoints::default()).await?.items.len());
    site.stop().await?;
    Ok(())
}

async fn timed<T, E: Into<Failed>>(
    what: &str,
    times: u32,
    mut work: impl AsyncFnMut() -> Result<T, E>,
) -> Result<(), Failed> {
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        work().await.map_err(Into::into)?;
        took.push(begun.elapsed());
    }
    show(what, took);
    Ok(())
}

fn resident_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    (pages * BLOCK as u64) >> 20
}

async fn many(rt: seam::Rt, dir: &str, points: u64) -> Result<(), Failed> {
    let site = start(&rt, dir).await?;
    let vms: Vec<String> = (0..1000).map(|number| format!("vm{number:05}")).collect();
    for vm in &vms {
        site.catalog().create_vm(&name(vm)?, &[GIB]).await?;
    }
    for number in 0..20 {
        let last = 100_000;
        site.create_group(&group(&format!("g{number:02}"), &format!("vm*{number:02}"), "100d", last)).await?;
    }
    let numbers: Vec<u64> = {
        let mut numbers = Vec::new();
        for group in site.catalog().groups().await? {
            numbers.push(group.number);
        }
        numbers
    };
    let begun = Instant::now();
    for made in 0..points {
        let at = made as usize;
        let members = [vms[at % vms.len()].clone()];
        let new = NewPoint {
            group: numbers[at % numbers.len()],
            schedule: "main",
            name: &format!("p{made:07}"),
            members: &members,
            consistency: policy::Consistency::Crash,
            notes: BTreeMap::new(),
            due_ms: made + 1,
            lock_ms: 0,
            run: None,
        };
        site.catalog().make_point(&new).await?;
    }
    println!("{points} points in {:.1} s, {} MiB resident", begun.elapsed().as_secs_f64(), resident_mib());
    site.stop().await?;
    drop(site);
    let begun = Instant::now();
    let site = Site::start(rt.clone(), Options { default_points: false, ..Options::new(dir) }).await?.site;
    println!("start {:.3} s, {} MiB resident", begun.elapsed().as_secs_f64(), resident_mib());
    let begun = Instant::now();
    site.status().await?;
    println!("first status {:.3} s, {} MiB resident", begun.elapsed().as_secs_f64(), resident_mib());
    timed("status", 50, async || site.status().await).await?;
    timed("vm list", 50, async || site.vms(&ListVms::default()).await).await?;
    timed("group list", 50, async || site.groups().await).await?;
    let first = ListPoints { limit: Some(100), ..ListPoints::default() };
    timed("point list, 100", 50, async || site.points(&first).await).await?;
    let of_vm = ListPoints { vm: Some(vms[7].clone()), ..first.clone() };
    timed("point list of a VM, 100", 50, async || site.points(&of_vm).await).await?;
    let mut number = 0;
    timed("restore beside", 50, async || {
        number += 1;
        let asked = NewRestore {
            vm: Some(vms[number].clone()),
            new_name: Some(format!("r{number}")),
            ..NewRestore::default()
        };
        site.restore_points(&asked).await
    })
    .await?;
    site.stop().await?;
    Ok(())
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: protection DIR hold|often|many NUMBER";
    let [dir, what, number] = arguments.as_slice() else { return Err(usage.into()) };
    let number: u64 = number.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rt: seam::Rt = Arc::new(seam::TokioRuntime::new(runtime.handle().clone()));
    match what.as_str() {
        "hold" => runtime.block_on(hold(rt, dir, number)),
        "often" => runtime.block_on(often(rt, dir, number)),
        "many" => runtime.block_on(many(rt, dir, number)),
        _ => Err(usage.into()),
    }
}
