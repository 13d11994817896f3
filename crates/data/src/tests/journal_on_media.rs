//! Goal: journal and data node together: a power cut of all media at any point, one medium lost besides, and every
//! acknowledged record is recovered; so it is after the next stream took over and lost power too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use journal::{
    Backlog, Ensembles, Entry, Fitness, Journal, JournalConfig, Known, Record, Recovered, Registered, Sink,
    WitnessError, recover,
};
use seam::{BoxFuture, Rt};
use units::{DiskId, Epoch, Fingerprint, Incarnation, Lba, MediumId, Seq};

use super::common::*;
use super::medium::{Image, Log, TestMedium};
use crate::{LocalTransport, open};

const MEDIA: usize = 4;
const KEY: [u8; 32] = [7; 32];

struct Pool;

impl Ensembles for Pool {
    fn ensemble(&self, turn: u32) -> Vec<MediumId> {
        (0..3).map(|i| medium_id((turn as usize + i) % MEDIA)).collect()
    }

    fn spare(&self, _turn: u32, _lost: MediumId) -> Vec<MediumId> {
        Vec::new()
    }

    fn fitness(&self, _members: &[MediumId]) -> Fitness {
        Fitness::Fit
    }

    fn fail_together(&self, a: MediumId, b: MediumId) -> bool {
        a == b
    }

    fn failed(&self, medium: MediumId, _restores: u64, _full: bool, reason: &str) {
        panic!("{medium}: {reason}");
    }
}

#[derive(Default)]
struct Witness(Mutex<Registered>);

impl Sink for Witness {
    fn durable(&self, _first: Seq, _entries: Vec<Entry>) {}

    fn start(&self) -> Known {
        Known { backlog: Some(Backlog::default()), ..Known::default() }
    }

    fn begun(&self) {}

    fn register(&self, registered: Registered) -> BoxFuture<'_, Result<(), WitnessError>> {
        *self.0.lock().unwrap() = registered;
        Box::pin(async { Ok(()) })
    }
}

fn entry(n: u64) -> Entry {
    let unit = vec![n as u8; 900 + n as usize * 400].into();
    Entry::Write { disk: DiskId(1), lba: Lba(n), fingerprint: Fingerprint([n as u8; 16]), unit }
}

async fn attach(rt: &Rt, images: Vec<Image>, log: &Log) -> Arc<LocalTransport> {
    let transport = Arc::new(LocalTransport::new(rt.clone()));
    for (n, image) in images.into_iter().enumerate() {
        let medium = TestMedium::new(n, MEDIUM_BYTES, image, log);
        transport.attach(Arc::new(open(medium, SITE).await.unwrap()));
    }
    transport
}

fn ids() -> Vec<MediumId> {
    (0..MEDIA).map(medium_id).collect()
}

async fn open_stream(
    rt: &Rt,
    transport: &Arc<LocalTransport>,
    epoch: u64,
    recovered: Option<&Recovered>,
    witness: &Arc<Witness>,
) -> Journal {
    let on = |id| {
        let all = recovered.iter().flat_map(|r| &r.segments);
        all.filter(move |(_, have)| *have == id).map(|(medium, _)| *medium).collect::<Vec<_>>()
    };
    let config = JournalConfig {
        lease: std::time::Duration::ZERO,
        registered: Registered::default(),
        first_number: 0,
        epoch: Epoch(epoch),
        incarnation: Incarnation(epoch),
        key: KEY,
        segment_bytes: SEGMENT,
        batch_bytes: 8192,
        segments_max: 12,
        first_seq: recovered.map_or(Seq(1), |r| r.next_seq),
        inherited: recovered.iter().flat_map(|r| &r.live).map(|l| (*l, on(l.id()))).collect(),
        tail: recovered.and_then(|r| r.tail.clone()),
        told: recovered.map(|r| r.told.clone()).unwrap_or_default(),
    };
    let opened = Journal::open(rt.clone(), transport.clone(), Arc::new(Pool), witness.clone(), config).await;
    opened.unwrap()
}

fn found(recovered: &Recovered) -> Vec<u64> {
    let lba = |(_, record): &(Seq, Record)| match record {
        Record::Write { lba, .. } => Some(lba.0),
        _ => None,
    };
    recovered.records.iter().filter_map(lba).collect()
}

#[test]
fn a_power_cut_at_every_write_of_the_journal() {
    let log = Log::default();
    let acked = RefCell::new(BTreeMap::new());
    let witness = Arc::new(Witness::default());
    let seen = RefCell::new(Vec::new());
    let begin = run(1, async |rt| {
        let mut images = Vec::new();
        for n in 0..MEDIA {
            images.push(fresh(n, &Log::default()).await.image());
        }
        let transport = attach(&rt, images, &log).await;
        let begin = log.len();
        let journal = open_stream(&rt, &transport, 1, None, &witness).await;
        for n in 0..14 {
            journal.append(vec![entry(n)]).await.unwrap().unwrap();
            acked.borrow_mut().insert(n, log.len());
            if n % 5 == 4 {
                journal.rotate().await.unwrap().unwrap();
            }
            seen.borrow_mut().push((log.len(), witness.0.lock().unwrap().clone()));
        }
        begin
    });
    for end in begin..=log.len() {
        let told = acked.borrow().values().filter(|at| **at <= end).count() as u64;
        let last = seen
            .borrow()
            .iter()
            .rfind(|(at, _)| *at <= end)
            .map(|(_, known)| known.clone())
            .unwrap_or_default();
        for mode in 0..3 {
            run(end as u64, async |rt| {
                let what = format!("cut at {end}, mode {mode}");
                let images = (0..MEDIA).map(|n| log.cut(n, end, mode)).collect();
                let second = Log::default();
                let transport = attach(&rt, images, &second).await;
                let recovered = recover(&*transport, &ids(), &KEY, &last).await.expect(&what);
                let numbers = recovered.as_ref().map(found).unwrap_or_default();
                assert!((told..=told + 1).contains(&(numbers.len() as u64)), "{what}: {numbers:?} of {told}");
                assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
                let witness = Arc::new(Witness::default());
                open_stream(&rt, &transport, 2, recovered.as_ref(), &witness).await;
                // Power goes again, and one medium stays away.
                let last = witness.0.lock().unwrap().clone();
                let images: Vec<Image> = (0..MEDIA).map(|n| second.cut(n, second.len(), 0)).collect();
                let transport = attach(&rt, images, &Log::default()).await;
                for away in 0..MEDIA {
                    let here: Vec<MediumId> = ids().into_iter().filter(|id| *id != medium_id(away)).collect();
                    let again = recover(&*transport, &here, &KEY, &last).await.expect(&what).unwrap();
                    assert_eq!(found(&again), numbers, "{what}, without medium {away}");
                }
            });
        }
    }
}
