//! RAM of what the engine keeps for 1 TiB of unique data, with synthetic maps.
//!
//! `cargo run --release -p engine --example scale` fills each structure to the limits of a real site and prints how
//! much resident memory the process grew by: the index with the fingerprints of 2^28 blocks in 2^17 containers, overlays
//! at the point where a checkpoint is due and as many changes being merged, the caches full.

use std::sync::Arc;

use engine::Config;
use index::{Holder, Index};
use map::{Entry, Overlay, Page, Place};
use units::{Address, ContainerId, Fingerprint, Incarnation, Lba};

const CONTAINERS: u32 = 1 << 17;
const BLOCKS_EACH: u64 = 1 << 11;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn fingerprint(i: u64) -> Fingerprint {
    let mut out = [0; 16];
    let mixed = (i ^ (i >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    out[..8].copy_from_slice(&(mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes());
    out[8..].copy_from_slice(&i.to_le_bytes());
    Fingerprint(out)
}

fn address(i: u64) -> Address {
    let container =
        ContainerId { incarnation: Incarnation(1), number: (i / BLOCKS_EACH) as u32, class: 5, row: 0 };
    Address { container, slot: (i % BLOCKS_EACH) as u16, fragment_pages: 512, offset: 64, length: 2100 }
}

fn main() {
    let config = Config::for_params(8 << 20, 8 << 20, 28);
    let start = resident_kib();
    let mut last = start;
    let mut report = |what: &str| {
        let now = resident_kib();
        println!("{what:<44} {:>7.1} MiB", now.saturating_sub(last) as f64 / 1024.0);
        last = now;
    };
    let mut index = Index::new(config.index_bytes);
    for number in 0..CONTAINERS {
        let container = ContainerId { incarnation: Incarnation(1), number, class: 5, row: 0 };
        let first = u64::from(number) * BLOCKS_EACH;
        index
            .insert(Holder { container, fragment_pages: 512 }, (first..first + BLOCKS_EACH).map(fingerprint));
    }
    report("index, 2^28 blocks in 2^17 containers");
    println!("  every {}th fingerprint is a hook", 1u64 << index.level());
    let overlays: Vec<Overlay> = (0..2)
        .map(|_| {
            let mut overlay = Overlay::default();
            for i in 0..config.overlay_entries_max as u64 {
                let lba = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 36;
                overlay.put(Lba(lba), (fingerprint(i), address(i)));
            }
            overlay
        })
        .collect();
    report("map changes, as many again being merged");
    let blocks = cache::block_cache(config.block_cache_bytes);
    for i in 0..2 * config.block_cache_bytes / 4096 {
        blocks.insert(fingerprint(i), Arc::from(vec![i as u8; 4096]));
    }
    report("block cache, full");
    let pages = cache::Cache::new(config.page_cache_bytes, 3072, |page: &Arc<Page>| page.ram_bytes());
    for i in 0..2 * config.page_cache_bytes / 3072 {
        let mut page = Page::empty(0);
        for place in 0..64 {
            let n = i * 64 + place;
            page.set(
                place,
                Some(Entry { fingerprint: fingerprint(n), place: Place::Stored(address(n)), blocks: 1 }),
            );
        }
        pages.insert((address(i).container, i as u16), Arc::new(page));
    }
    report("page cache, full");
    println!("write buffer, limit {:>32.1} MiB", config.write_buffer_bytes as f64 / 1048576.0);
    println!("in all {:>45.1} MiB", (resident_kib() - start) as f64 / 1024.0);
    assert!(!overlays.is_empty() && !index.is_empty() && blocks.bytes() > 0 && pages.bytes() > 0);
}
