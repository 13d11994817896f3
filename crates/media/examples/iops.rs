//! Prints 4 KiB random IOPS and latency of both back ends: `iops FILE [SECONDS]`.
//!
//! FILE is created when it is missing (512 MiB, prepared). Compare with
//! `fio --direct=1 --bs=4k --ioengine=io_uring --rw=randread --iodepth=1` and `--rw=randwrite --sync=dsync`.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // a measurement: it needs the real clock

use std::sync::Arc;
use std::time::{Duration, Instant};

use media::{Backend, Medium, OpenOptions};
use units::{PAGE, PageBuf};

const BYTES: u64 = 512 << 20;

#[derive(Clone, Copy, Debug)]
enum Load {
    Read,
    WriteSync,
    WriteDurable,
    ThreeWriteDurable,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("usage: iops FILE [SECONDS]");
    let seconds = arguments.next().map_or(2.0, |text| text.parse().expect("seconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        if !std::path::Path::new(&path).exists() {
            let options = OpenOptions { create_size: Some(BYTES), ..OpenOptions::default() };
            media::open(&path, options).unwrap().prepare(0, BYTES).await.unwrap();
        }
        println!(
            "{:<18} {:<8} {:>3} {:>9} {:>9} {:>9} {:>9}",
            "load", "back end", "qd", "IOPS", "mean us", "p50 us", "p99 us"
        );
        for load in [Load::Read, Load::WriteSync, Load::WriteDurable, Load::ThreeWriteDurable] {
            for backend in [Backend::Ring, Backend::Sync] {
                let medium = media::open(&path, OpenOptions { backend, ..OpenOptions::default() }).unwrap();
                for depth in [1, 8, 32] {
                    measure(&medium, load, backend, depth, Duration::from_secs_f64(seconds)).await;
                }
            }
        }
    });
}

async fn measure(medium: &Arc<dyn Medium>, load: Load, backend: Backend, depth: u64, time: Duration) {
    let start = Instant::now();
    let workers: Vec<_> =
        (0..depth).map(|worker| tokio::spawn(work(medium.clone(), load, worker + 1, start + time))).collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await.unwrap());
    }
    let elapsed = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let count = latencies.len();
    let us = |latency: Duration| latency.as_secs_f64() * 1e6;
    println!(
        "{:<18} {:<8} {depth:>3} {:>9.0} {:>9.1} {:>9.1} {:>9.1}",
        format!("{load:?}"),
        format!("{backend:?}"),
        count as f64 / elapsed,
        us(latencies.iter().sum::<Duration>() / count as u32),
        us(latencies[count / 2]),
        us(latencies[count * 99 / 100]),
    );
}

async fn work(medium: Arc<dyn Medium>, load: Load, seed: u64, until: Instant) -> Vec<Duration> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let page = PageBuf::copy_of(&[7; PAGE]).share();
    let mut latencies = Vec::new();
    loop {
        let start = Instant::now();
        if start >= until {
            return latencies;
        }
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % (BYTES / PAGE as u64) * PAGE as u64
        };
        match load {
            Load::Read => drop(medium.read(next(), PAGE).await.unwrap()),
            Load::WriteSync => {
                medium.write(next(), page.clone()).await.unwrap();
                medium.sync().await.unwrap();
            }
            Load::WriteDurable => medium.write_durable(next(), page.clone()).await.unwrap(),
            Load::ThreeWriteDurable => {
                let writes = [(); 3].map(|()| medium.write_durable(next(), page.clone()));
                seam::join_all(writes).await.into_iter().for_each(|written| written.unwrap());
            }
        }
        latencies.push(start.elapsed());
    }
}
