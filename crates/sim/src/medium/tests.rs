//! Goal: the disk keeps exactly the promises of the `Medium` trait, breaks all others, and every fault fires.

use std::collections::BTreeSet;

use seam::Runtime;
use units::PAGE;

use super::*;
use crate::{Control, Limits, Simulation};

const LEN: u64 = 64 * PAGE as u64;

fn page(fill: u8) -> PageSlice {
    PageBuf::copy_of(&[fill; PAGE]).share()
}

fn at(number: u64) -> u64 {
    number * PAGE as u64
}

fn byte(image: &Image, offset: u64) -> u8 {
    let mut out = [0];
    image.read(offset, &mut out);
    out[0]
}

/// A simulation with one disk, open for a process of its own.
struct Bench {
    sim: Simulation,
    store: SimStore,
    process: std::sync::Arc<crate::SimRuntime>,
}

fn bench(seed: u64) -> Bench {
    let sim = Simulation::new(seed, Limits::default());
    let store = SimStore::new(&sim, "disk", LEN);
    let process = sim.process("node");
    Bench { sim, store, process }
}

impl Bench {
    fn open(&self) -> SimMedium {
        self.store.open(self.process.clone()).unwrap()
    }
}

#[test]
fn reads_see_writes_and_bounds_hold() {
    let b = bench(1);
    let medium = b.open();
    b.sim
        .run_until(async {
            medium.write(at(3), page(7)).await.unwrap();
            let seen = medium.read(at(2), 3 * PAGE).await.unwrap();
            assert_eq!((seen.as_ref()[0], seen.as_ref()[PAGE], seen.as_ref()[2 * PAGE]), (0, 7, 0));
            for (offset, length) in [(1, PAGE), (0, 100), (LEN, PAGE), (u64::MAX - 4095, PAGE)] {
                let error = medium.read(offset, length).await.unwrap_err();
                assert_eq!(error.kind, MediaErrorKind::Invalid);
            }
        })
        .unwrap();
    assert!(b.sim.now() > std::time::Duration::ZERO, "operations take time");
    assert_eq!(b.store.open(b.process.clone()).unwrap_err().kind, MediaErrorKind::Busy);
    drop(medium);
    b.open();
}

/// Writes A, syncs, writes B and C to two pages, starts D, cuts the power. Returns what the four pages hold.
fn cut(seed: u64, torn_ppm: u32) -> [u8; 4] {
    let b = bench(seed);
    b.store.set_torn_ppm(torn_ppm);
    let medium = b.open();
    b.sim
        .run_until(async {
            medium.write(at(0), page(b'A')).await.unwrap();
            medium.sync().await.unwrap();
            medium.write(at(1), page(b'B')).await.unwrap();
            medium.write(at(2), page(b'C')).await.unwrap();
            let in_flight = medium.write(at(3), page(b'D'));
            let limit = std::time::Duration::from_micros(5);
            assert!(seam::timeout(&*b.process, limit, in_flight).await.is_err());
        })
        .unwrap();
    b.store.power_cut();
    let image = b.store.image();
    [0, 1, 2, 3].map(|number| byte(&image, at(number)))
}

#[test]
fn a_power_cut_keeps_synced_writes_and_any_subset_of_the_others() {
    let seen: BTreeSet<_> = (0..600).map(|seed| cut(seed, 0)).collect();
    let mut expected = BTreeSet::new();
    for set in 0..8 {
        let kept = |bit: u8, value: u8| if set >> bit & 1 == 1 { value } else { 0 };
        expected.insert([b'A', kept(0, b'B'), kept(1, b'C'), kept(2, b'D')]);
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_power_cut_tears_at_sectors_and_nowhere_else() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..2000 {
        let b = bench(seed);
        let medium = b.open();
        b.sim
            .run_until(async {
                medium.write(at(5), page(b'A')).await.unwrap();
                medium.sync().await.unwrap();
                medium.write(at(5), page(b'B')).await.unwrap();
                medium.write(at(5), page(b'C')).await.unwrap();
            })
            .unwrap();
        b.store.power_cut();
        let image = b.store.image();
        let mut bytes = [0; PAGE];
        image.read(at(5), &mut bytes);
        let sectors: Vec<u8> = bytes.chunks(SECTOR).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        assert!(sectors.iter().all(|sector| b"ABC".contains(sector)));
        outcomes.insert(sectors);
    }
    for whole in *b"ABC" {
        assert!(outcomes.contains(&vec![whole; 8]), "{} alone is possible", whole as char);
    }
    assert!(outcomes.contains(b"BBBAAAAA".as_slice()), "a prefix");
    assert!(outcomes.iter().any(|s| s.contains(&b'A') && s.contains(&b'B') && s.contains(&b'C')));
    assert!(outcomes.len() > 100);
}

#[test]
fn a_sync_covers_what_completed_before_it_began() {
    let mut survived = BTreeSet::new();
    for seed in 0..200 {
        let b = bench(seed);
        b.store.set_torn_ppm(0);
        let fixed = |micros| {
            let always = std::time::Duration::from_micros(micros);
            b.store.set_latency(Latency {
                min: always,
                max: always,
                rare_ppm: 0,
                rare_max: always,
                discards: 1,
            });
        };
        fixed(1000);
        let medium = b.open();
        b.sim
            .run_until(async {
                medium.write(at(0), page(1)).await.unwrap();
                let late = async {
                    b.process.sleep(std::time::Duration::from_micros(1)).await;
                    fixed(50); // completes long before the sync does
                    medium.write(at(1), page(2)).await
                };
                let slow: BoxFuture<'_, _> = Box::pin(async { medium.sync().await });
                seam::join_all([slow, Box::pin(late)]).await.into_iter().for_each(Result::unwrap);
            })
            .unwrap();
        b.store.power_cut();
        let image = b.store.image();
        assert_eq!(byte(&image, at(0)), 1);
        survived.insert(byte(&image, at(1)));
    }
    assert_eq!(survived, BTreeSet::from([0, 2]), "begun after the sync: no promise");
}

#[test]
fn a_durable_write_survives_and_covers_older_ones() {
    for seed in 0..200 {
        let b = bench(seed);
        let medium = b.open();
        b.sim
            .run_until(async {
                medium.write(at(1), page(1)).await.unwrap();
                medium.write_durable(at(1), page(2)).await.unwrap();
            })
            .unwrap();
        b.store.power_cut();
        assert_eq!(byte(&b.store.image(), at(1)), 2, "seed {seed}: the older write must not come back");
    }
}

#[test]
fn a_kill_keeps_completed_writes_and_decides_those_in_flight() {
    let mut in_flight = BTreeSet::new();
    for seed in 0..100 {
        let b = bench(seed);
        let (medium, rt) = (b.open(), b.process.clone());
        b.process.spawn(
            "writer",
            Box::pin(async move {
                medium.write(at(0), page(1)).await.unwrap();
                let started = seam::timeout(&*rt, std::time::Duration::from_micros(5), async {
                    medium.write(at(1), page(2)).await.unwrap();
                });
                assert!(started.await.is_err());
                std::future::pending::<()>().await;
            }),
        );
        // Long enough for the first write, unless it takes one of the rare long latencies.
        b.store.set_latency(Latency { rare_ppm: 0, ..Latency::default() });
        let stuck = b.sim.run_until(std::future::pending::<()>()).unwrap_err();
        assert_eq!(stuck.reason, crate::StuckReason::Deadlock);
        b.sim.kill(b.process.id());
        let image = b.store.image();
        assert_eq!(byte(&image, at(0)), 1);
        in_flight.insert(byte(&image, at(1)));
        let again = b.sim.process("node again");
        b.store.open(again).expect("the dead process let go of it");
        let later = b.sim.run_until(b.sim.world().sleep(std::time::Duration::from_secs(1)));
        later.unwrap();
        assert_eq!(b.store.image().digest(), image.digest(), "nothing of the dead process lands later");
    }
    assert_eq!(in_flight, BTreeSet::from([0, 2]));
}

#[test]
fn a_write_nobody_waits_for_lands_all_the_same() {
    let b = bench(4);
    let medium = b.open();
    b.sim
        .run_until(async {
            let limit = std::time::Duration::from_micros(5);
            assert!(seam::timeout(&*b.process, limit, medium.write(at(9), page(3))).await.is_err());
            b.process.sleep(std::time::Duration::from_secs(1)).await;
            assert_eq!(medium.read(at(9), PAGE).await.unwrap().as_ref()[0], 3);
        })
        .unwrap();
}

#[test]
fn a_failed_sync_loses_writes_and_is_not_forgotten() {
    let mut after = BTreeSet::new();
    for seed in 0..100 {
        let b = bench(seed);
        b.store.set_torn_ppm(0);
        let medium = b.open();
        b.store.inject(Injection { fault: FaultKind::SyncError, skip: 1, within: 0..0 });
        b.sim
            .run_until(async {
                medium.write(at(0), page(1)).await.unwrap();
                medium.sync().await.unwrap();
                medium.write(at(1), page(2)).await.unwrap();
                assert_eq!(medium.sync().await.unwrap_err().kind, MediaErrorKind::Io);
                assert!(medium.write(at(1), page(2)).await.is_err());
                assert!(medium.sync().await.is_err());
                let seen = medium.read(at(0), 2 * PAGE).await.unwrap();
                assert_eq!(seen.as_ref()[0], 1);
                after.insert(seen.as_ref()[PAGE]);
            })
            .unwrap();
        drop(medium);
        let medium = b.open();
        b.sim.run_until(async { medium.sync().await }).unwrap().expect("reopened");
        assert_eq!(b.store.fired(FaultKind::SyncError), 1);
    }
    assert_eq!(after, BTreeSet::from([0, 2]));
}

async fn write_and_sync(medium: &SimMedium, number: u64, fill: u8) -> Result<()> {
    medium.write(at(number), page(fill)).await?;
    medium.sync().await
}

#[test]
fn lying_writes_lie() {
    let b = bench(8);
    let medium = b.open();
    let inject =
        |fault, number| b.store.inject(Injection { fault, skip: 1, within: at(number)..at(number + 1) });
    inject(FaultKind::LostWrite, 0);
    inject(FaultKind::MisdirectedWrite, 1);
    b.sim
        .run_until(async {
            for fill in [1, 2] {
                write_and_sync(&medium, 0, fill).await.unwrap();
                write_and_sync(&medium, 1, fill + 10).await.unwrap();
            }
        })
        .unwrap();
    let image = b.store.image();
    assert_ne!(byte(&image, at(0)), 2, "lost");
    let holders: Vec<_> = image.nonzero_pages().filter(|(_, page)| page[0] == 12).collect();
    assert_eq!(holders.len(), 1, "the misdirected write is somewhere");
    for fault in [FaultKind::LostWrite, FaultKind::MisdirectedWrite] {
        assert_eq!(b.store.fired(fault), 1, "{fault:?}");
    }
}

#[test]
fn errors_are_what_they_say() {
    let b = bench(9);
    let medium = b.open();
    let anywhere = |fault| Injection { fault, skip: 0, within: 0..LEN };
    b.sim
        .run_until(async {
            write_and_sync(&medium, 4, 9).await.unwrap();
            b.store.inject(anywhere(FaultKind::ReadError));
            assert_eq!(medium.read(at(4), PAGE).await.unwrap_err().kind, MediaErrorKind::Io);
            b.store.inject(anywhere(FaultKind::WrongRead));
            let wrong = medium.read(at(4), PAGE).await.unwrap();
            let bits: u32 = wrong.as_ref().iter().map(|byte| (byte ^ 9).count_ones()).sum();
            assert_eq!(bits, 1);
            assert_eq!(medium.read(at(4), PAGE).await.unwrap().as_ref(), [9; PAGE]);
            b.store.inject(anywhere(FaultKind::WriteError));
            assert_eq!(medium.write(at(4), page(8)).await.unwrap_err().kind, MediaErrorKind::Io);
            b.store.inject(anywhere(FaultKind::NoSpace));
            assert_eq!(medium.write(at(7), page(8)).await.unwrap_err().kind, MediaErrorKind::NoSpace);
            b.store.spoil(at(4)..at(5));
            assert!(medium.read(at(4), PAGE).await.is_err());
            medium.write(at(4), page(1)).await.unwrap();
            medium.read(at(4), PAGE).await.expect("written again");
            b.store.set_gone(true);
            assert_eq!(medium.read(0, PAGE).await.unwrap_err().kind, MediaErrorKind::Gone);
            b.store.set_gone(false);
            medium.read(0, PAGE).await.expect("back");
            b.store.power_cut();
            let again = b.open();
            assert_eq!(medium.sync().await.unwrap_err().kind, MediaErrorKind::Gone);
            drop(medium);
            again.sync().await.expect("the stale handle closed nothing");
        })
        .unwrap();
    use FaultKind::{Gone, NoSpace, ReadError, WriteError, WrongRead};
    assert_eq!([ReadError, WrongRead, WriteError, NoSpace, Gone].map(|f| b.store.fired(f)), [2, 1, 1, 1, 2]);
}

#[test]
fn a_full_disk_takes_rewrites_only() {
    let b = bench(2);
    let medium = b.open();
    b.store.set_capacity(Some(3 * PAGE as u64));
    b.sim
        .run_until(async {
            medium.write(at(0), PageBuf::copy_of(&[1; 2 * PAGE]).share()).await.unwrap();
            assert_eq!(medium.room(), PAGE as u64);
            let four = medium.write(at(1), PageBuf::copy_of(&[2; 4 * PAGE]).share()).await;
            assert_eq!(four.unwrap_err().kind, MediaErrorKind::NoSpace);
            medium.write(at(1), page(3)).await.expect("a rewrite needs no room");
            let mut given_back = 0;
            while given_back == 0 {
                medium.discard(0, at(3)).await.unwrap();
                given_back = medium.room();
            }
            medium.write(at(40), page(3)).await.expect("a discard gives room back");
            let room = medium.room() / PAGE as u64;
            assert_eq!(medium.reserve(at(50), at(room + 1)).await.unwrap_err().kind, MediaErrorKind::NoSpace);
            b.store.set_capacity(Some(10 * PAGE as u64));
            medium.reserve(at(50), at(2)).await.unwrap();
            b.store.set_capacity(Some(0));
            medium.write(at(51), page(3)).await.expect("its room is taken");
            assert!(medium.write(at(52), page(3)).await.is_err());
        })
        .unwrap();
}

#[test]
fn images_are_cheap_snapshots_and_bits_flip() {
    let b = bench(2);
    let medium = b.open();
    b.sim.run_until(write_and_sync(&medium, 6, 1)).unwrap().unwrap();
    let before = b.store.image();
    assert_eq!((before.nonzero_bytes(), before.nonzero_pages().count()), (4096, 1));
    b.store.flip_bit(at(6) * 8 + 13);
    let after = b.store.image();
    assert_eq!((byte(&before, at(6) + 1), byte(&after, at(6) + 1)), (1, 1 ^ 0x20));
    assert_ne!(before.digest(), after.digest());
    b.store.flip_bit(at(6) * 8 + 13);
    assert_eq!(before.digest(), b.store.image().digest());
    let bit = b.store.rot_random(0..LEN).expect("one page is in use");
    assert_eq!(bit / (PAGE as u64 * 8), 6);
    b.store.power_cut();
    let mut mended = b.store.image();
    mended.flip_bit(bit);
    assert_eq!(mended.digest(), before.digest(), "rot is durable");
    let copy = SimStore::from_image(&b.sim, "copy", before.clone());
    assert_eq!(copy.image(), before);
}

/// Two processes hammer one disk each, with every fault at some rate; one is killed, power is cut.
fn storm(seed: u64) -> (u128, Control, Vec<SimStore>) {
    use FaultKind::{LostWrite, MisdirectedWrite, NoSpace, ReadError, SyncError, WriteError, WrongRead};
    let sim = Simulation::new(seed, Limits::default());
    let stores: Vec<_> = ["a", "b"].map(|name| SimStore::new(&sim, name, LEN)).to_vec();
    let process = sim.process("node");
    for store in &stores {
        for fault in [LostWrite, MisdirectedWrite, NoSpace, ReadError, WriteError, WrongRead] {
            store.set_rate(fault, 20_000);
        }
        store.set_rate(SyncError, 5000);
        let medium = std::sync::Arc::new(store.open(process.clone()).unwrap());
        for task in 0..3 {
            let medium = medium.clone();
            process.spawn(
                "writer",
                Box::pin(async move {
                    for round in 0..50u64 {
                        let number = (task * 17 + round * 5) % 64;
                        let _ = medium.write(at(number), page(round as u8)).await;
                        let _ = medium.read(at(number / 2), 2 * PAGE).await;
                        let _ = medium.sync().await;
                    }
                }),
            );
        }
    }
    sim.run_until(sim.world().sleep(std::time::Duration::from_millis(15))).unwrap();
    sim.kill(process.id());
    stores.iter().for_each(SimStore::power_cut);
    let contents = stores.iter().map(|store| store.image().digest());
    contents.for_each(|digest| sim.trace(&digest.to_le_bytes()));
    (sim.digest(), sim.world().control(), stores)
}

#[test]
fn a_storm_replays_and_every_fault_fires() {
    use FaultKind::*;
    let mut fired = std::collections::BTreeMap::new();
    let mut digests = BTreeSet::new();
    for seed in 0..300 {
        let (digest, _, stores) = storm(seed);
        if seed < 100 {
            assert_eq!(digest, storm(seed).0, "seed {seed}");
        }
        digests.insert(digest);
        for kind in [ReadError, WrongRead, WriteError, LostWrite, MisdirectedWrite, NoSpace, SyncError]
            .into_iter()
            .chain([SlowOp, KillLost, CutLost, CutTorn, CutKept])
        {
            *fired.entry(kind).or_insert(0) += stores.iter().map(|store| store.fired(kind)).sum::<u64>();
        }
    }
    assert_eq!(digests.len(), 300);
    assert!(fired.values().all(|count| *count > 0), "{fired:?}");
}
