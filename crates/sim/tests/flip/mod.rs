//! Goal: a flipped bit anywhere in a complete store is repaired, or told by name, and never served.
//!
//! A small store holds every kind of record: disks made and removed, blocks, holes, duplicates, commits, a checkpoint with
//! pages, commits behind it, an uncovered tail, and segments of an older stream. Then one bit at a time of its non-zero
//! bytes is flipped in a copy, the site opened and every block read twice. Knobs: `HOLDFAST_PICK` chooses which of the
//! sampled bits, `HOLDFAST_SOAK=1` takes all of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use data::{Layout, Params};
use engine::EngineErrorKind;
use meta::Txn;
use seam::Runtime;
use sim::{Limits, Simulation, Site, SiteImage, SiteSpec};
use units::{BLOCK, DiskId, PAGE};

/// Every so many bits in CI, with several media.
const CI_STRIDE: u64 = 16;
/// Bytes of a disk.
const DISK_BYTES: u64 = 24 * BLOCK as u64;
/// A case that takes so many steps hangs.
const STEPS: u64 = 2_000_000;

fn spec(media: usize) -> SiteSpec {
    let params = Params {
        container_bytes: 64 * 1024,
        segment_bytes: 64 * 1024,
        segments_max: 4,
        log_pages: 16,
        fragments_max: 64,
    };
    let least = Layout::new(params, 1 << 30).map_or(0, |layout| layout.data + 24 * layout.largest_extent());
    SiteSpec {
        media,
        medium_bytes: least.next_multiple_of(PAGE as u64),
        params,
        block_cache_bytes: 1 << 20,
        page_cache_bytes: 1 << 20,
        overlay_entries_max: 1000,
        commits_max: 64,
    }
}

fn block(value: u64) -> Vec<u8> {
    // Half noise, half zeros: such a block compresses to about a half.
    let mut word = value.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = vec![0; BLOCK];
    for byte in &mut out[..200] {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        *byte = word as u8;
    }
    out
}

/// What a disk must hold.
type Expected = Vec<(DiskId, Vec<u8>)>;

/// Makes the store; gives what it holds and what it must read as.
fn make(media: usize) -> (SiteImage, Expected) {
    let sim = Simulation::new(1, Limits { steps: STEPS, ..Limits::default() });
    let control = (*sim).clone();
    let work = async {
        let site = Site::format(&control, spec(media)).await;
        let mut expected: Expected = Vec::new();
        // Two lives: the second takes segments over from the first.
        for life_number in 0..2u64 {
            let mut life = site.boot();
            let engine = life.opened().await.expect("it lives").expect("a sound site opens");
            if life_number == 0 {
                for _ in 0..3 {
                    let disk = engine.new_disk_id().await.expect("an id");
                    assert!(engine.apply(Txn::new(), &[(disk, DISK_BYTES)], &[]).await.expect("a disk"));
                    expected.push((disk, vec![0; DISK_BYTES as usize]));
                }
                let (gone, _) = expected.pop().expect("three disks");
                assert!(engine.apply(Txn::new(), &[], &[gone]).await.expect("removes"));
            }
            for step in 0..3u64 {
                for (disk, contents) in &mut expected {
                    for i in 0..4 {
                        let at = ((life_number * 12 + step * 4 + i) % 24) as usize * BLOCK;
                        let data = block(at as u64 / 8 + life_number);
                        engine.write(*disk, at as u64, &data).await.expect("writes");
                        contents[at..at + BLOCK].copy_from_slice(&data);
                    }
                    let hole = (step as usize * 5 + 1) * BLOCK;
                    engine.punch(*disk, hole as u64, BLOCK as u64, true).await.expect("punches");
                    contents[hole..hole + BLOCK].fill(0);
                }
                match (life_number, step) {
                    (0, 0) => engine.checkpoint().await.expect("a checkpoint"),
                    (_, 1) => engine.drain().await.expect("drains"),
                    _ => {}
                }
                if (life_number, step) == (0, 1) {
                    engine.checkpoint().await.expect("a checkpoint");
                }
            }
            site.end(life, false);
        }
        (site.image(), expected)
    };
    sim.run_until(work).expect("the store is made")
}

/// Opens the store and reads it; gives what is wrong.
fn judge(media: usize, image: SiteImage, expected: &Expected, may_fail: bool) -> Option<String> {
    let sim = Simulation::new(2, Limits { steps: STEPS, ..Limits::default() });
    let control = (*sim).clone();
    let work = async {
        let site = Site::of(&control, spec(media), image);
        let mut life = site.boot();
        let engine = match life.opened().await.expect("nobody kills it") {
            Ok(engine) => engine,
            Err(error) if may_fail && error.kind == EngineErrorKind::Lost => return None,
            Err(error) => return Some(format!("it does not open: {error}")),
        };
        for _ in 0..2 {
            for (disk, contents) in expected {
                match engine.read(*disk, 0, contents.len()).await {
                    Ok(read) if read == *contents => {}
                    Ok(_) => return Some(format!("disk {} reads wrong", disk.0)),
                    Err(error) if may_fail && error.kind == EngineErrorKind::Lost => {}
                    Err(error) => return Some(format!("disk {} does not read: {error}", disk.0)),
                }
            }
            life.runtime().sleep(Duration::from_secs(2)).await;
        }
        None
    };
    match sim.run_until(work) {
        Ok(wrong) => wrong,
        Err(stuck) => Some(format!("{stuck:?}")),
    }
}

/// The bits of all non-zero bytes: medium and bit.
fn bits(image: &SiteImage) -> Vec<(usize, u64)> {
    let mut bits = Vec::new();
    for (medium, contents) in image.media.iter().enumerate() {
        for (page, bytes) in contents.nonzero_pages() {
            let nonzero = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
            bits.extend(
                nonzero.flat_map(|(i, _)| (0..8).map(move |bit| (medium, (page + i as u64) * 8 + bit))),
            );
        }
    }
    bits
}

fn flip_all(media: usize, ci_stride: u64, may_fail: bool) {
    let (image, expected) = make(media);
    assert_eq!(judge(media, image.clone(), &expected, false), None, "the store itself is sound");
    let bits = bits(&image);
    let soak = std::env::var("HOLDFAST_SOAK").is_ok_and(|value| value == "1");
    let pick: u64 = std::env::var("HOLDFAST_PICK").ok().and_then(|pick| pick.parse().ok()).unwrap_or(0);
    let stride = if soak { 1 } else { ci_stride };
    let chosen: Vec<(usize, u64)> =
        bits.iter().copied().skip((pick % stride) as usize).step_by(stride as usize).collect();
    println!("{media} media: {} non-zero bytes, {} of {} bits", bits.len() / 8, chosen.len(), bits.len());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((medium, bit)) = chosen.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut flipped = image.clone();
                    flipped.media[*medium].flip_bit(*bit);
                    let wrong = judge(media, flipped, &expected, may_fail);
                    assert_eq!(
                        wrong,
                        None,
                        "{media} media, medium {medium}, byte {}, bit {}",
                        bit / 8,
                        bit % 8
                    );
                }
            });
        }
    });
}

#[test]
fn of_six_media() {
    flip_all(6, CI_STRIDE, false);
}

#[test]
fn of_three_media() {
    flip_all(3, CI_STRIDE, false);
}

#[test]
fn of_two_media() {
    flip_all(2, CI_STRIDE, false);
}
