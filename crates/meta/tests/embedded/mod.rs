//! What only the embedded store promises: persisted before seen, unknown outcomes, leases over a restart, bounds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meta::{
    Compare, Embedded, ErrorKind, Key, KeyRange, KeyValue, Op, Options, Persist, PersistError, Revision,
    Store, Txn,
};
use seam::{BoxFuture, Rt};
use tokio::sync::Semaphore;

use crate::Journal;
use crate::clock::virtually;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(name: &str, value: &[u8]) -> Txn {
    Txn::new().then(Op::put(key(name), value))
}

async fn get(store: &Embedded, name: &str) -> Option<KeyValue> {
    store.get(&key(name)).await.unwrap().kv
}

fn restore(rt: &Rt, persist: Arc<dyn Persist>, records: &[Vec<u8>]) -> Embedded {
    Embedded::restore(rt.clone(), persist, Options::default(), None, records).unwrap()
}

/// What becomes of the next records.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Fate {
    Kept,
    /// Written, but the answer is lost.
    KeptUntold,
    Lost,
    Panics,
}

/// A journal that holds each record until it is let through.
struct Gate {
    through: Semaphore,
    fate: AtomicU8,
    records: Mutex<Vec<Vec<u8>>>,
}

impl Gate {
    fn new(open: usize) -> Arc<Self> {
        Arc::new(Self { through: Semaphore::new(open), fate: AtomicU8::new(0), records: Mutex::default() })
    }

    fn records(&self) -> Vec<Vec<u8>> {
        self.records.lock().unwrap().clone()
    }

    fn set(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::Relaxed);
    }
}

impl Persist for Gate {
    fn persist(&self, record: Vec<u8>) -> BoxFuture<'_, Result<(), PersistError>> {
        Box::pin(async move {
            self.through.acquire().await.unwrap().forget();
            let fate = self.fate.load(Ordering::Relaxed);
            assert!(fate != Fate::Panics as u8, "the journal panics");
            if fate != Fate::Lost as u8 {
                self.records.lock().unwrap().push(record);
            }
            if fate == Fate::Kept as u8 { Ok(()) } else { Err(PersistError { reason: "no answer".into() }) }
        })
    }
}

/// Runs other tasks until all of them wait.
async fn settle(rt: &Rt) {
    rt.sleep(Duration::from_millis(1)).await;
}

#[test]
fn a_change_is_seen_only_once_persisted() {
    virtually(async |rt| {
        let gate = Gate::new(1);
        let store = restore(&rt, gate.clone(), &[]);
        let first = store.txn(put("a", b"1")).await.unwrap().revision;
        let mut watch = store.watch(KeyRange::all(), first.next()).await.unwrap();
        let mut second = store.txn(put("a", b"2"));
        assert!(seam::timeout(&*rt, Duration::from_secs(1), &mut second).await.is_err());
        // On its way: reads answer at once with what was, and the watch is silent.
        assert_eq!(&*get(&store, "a").await.unwrap().value, b"1");
        assert_eq!(store.range(KeyRange::all(), 9, None).await.unwrap().revision, first);
        assert!(seam::timeout(&*rt, Duration::from_secs(1), watch.next()).await.is_err());
        assert_eq!(store.checkpoint().revision, first);
        // A compare waits for it rather than judge by the old value.
        let mut swap = store.txn(put("b", b"").when(Compare::unchanged(key("a"), first)));
        assert!(seam::timeout(&*rt, Duration::from_secs(1), &mut swap).await.is_err());
        gate.through.add_permits(9);
        assert_eq!(second.await.unwrap().revision, first.next());
        assert!(!swap.await.unwrap().succeeded);
        assert_eq!(watch.next().await.unwrap().events.len(), 1);
        assert_eq!(gate.records().len(), 2);
    });
}

#[test]
fn a_caller_that_gives_up_leaves_no_half_commit() {
    virtually(async |rt| {
        let gate = Gate::new(0);
        let store = restore(&rt, gate.clone(), &[]);
        let dropped = seam::timeout(&*rt, Duration::from_secs(1), store.txn(put("a", b"1"))).await;
        assert!(dropped.is_err());
        // One that still waited for its turn was never begun.
        let waiting = seam::timeout(&*rt, Duration::from_secs(1), store.txn(put("b", b"1"))).await;
        assert!(waiting.is_err());
        gate.through.add_permits(9);
        let next = store.txn(put("c", b"1")).await.unwrap().revision;
        assert_eq!(next, Revision(3), "the first commit kept its revision");
        assert!(get(&store, "a").await.is_some() && get(&store, "b").await.is_none());
        assert_eq!(restore(&rt, gate.clone(), &gate.records()).checkpoint(), store.checkpoint());
    });
}

#[test]
fn after_an_unknown_outcome_only_a_rebuild_writes_again() {
    for (fate, kept) in [(Fate::KeptUntold, true), (Fate::Lost, false), (Fate::Panics, false)] {
        virtually(async |rt| {
            let gate = Gate::new(99);
            let store = restore(&rt, gate.clone(), &[]);
            store.txn(put("a", b"1")).await.unwrap();
            let lease = store.grant(Duration::from_secs(10)).await.unwrap().id;
            gate.set(fate);
            let error = store.txn(put("a", b"2")).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unknown);
            gate.set(Fate::Kept);
            // Not applied, and nothing may take its revision.
            assert_eq!(&*get(&store, "a").await.unwrap().value, b"1");
            for txn in [put("b", b""), Txn::new()] {
                assert_eq!(store.txn(txn).await.unwrap_err().kind, ErrorKind::Stopped);
            }
            assert_eq!(store.revoke(lease).await.unwrap_err().kind, ErrorKind::Stopped);
            assert!(store.keep_alive(lease).await.is_ok(), "what was refused did not end the lease");
            drop(store);
            let rebuilt = restore(&rt, gate.clone(), &gate.records());
            let expected: &[u8] = if kept { b"2" } else { b"1" };
            assert_eq!(&*get(&rebuilt, "a").await.unwrap().value, expected);
            rebuilt.txn(put("b", b"")).await.unwrap();
            assert_eq!(restore(&rt, gate.clone(), &gate.records()).checkpoint(), rebuilt.checkpoint());
        });
    }
}

/// A watch holds no event of its own: what the history forgets under it is lost to it, and it is told.
#[test]
fn a_watch_that_fell_behind_is_told() {
    virtually(async |rt| {
        let options = Options { history_events: 10, ..Options::default() };
        let store = Embedded::in_memory(rt, options);
        let first = store.txn(put("a", b"1")).await.unwrap().revision;
        let mut watch = store.watch(KeyRange::all(), first).await.unwrap();
        assert_eq!(watch.next().await.unwrap().revision, first);
        for _ in 0..12 {
            store.txn(put("a", b"2")).await.unwrap();
        }
        assert_eq!(watch.next().await.unwrap_err().kind, ErrorKind::Compacted);
        assert_eq!(watch.next().await.unwrap_err().kind, ErrorKind::Compacted);
    });
}

#[test]
fn a_restart_gives_leases_their_time_again() {
    virtually(async |rt| {
        let second = Duration::from_secs(1);
        let journal = Journal::new(rt.clone());
        let store = restore(&rt, journal.clone(), &[]);
        let lease = store.grant(10 * second).await.unwrap();
        let idle = store.grant(10 * second).await.unwrap();
        store.txn(Txn::new().then(Op::put_leased(key("held"), *b"", lease.id))).await.unwrap();
        rt.sleep(9 * second).await;
        let taken = store.checkpoint();
        drop(store);
        let records = journal.records();
        let sources = [(None, &records[..]), (Some(&taken.bytes[..]), &[])];
        let mut stores: Vec<Embedded> = Vec::new();
        for (checkpoint, records) in sources {
            let options = Options::default();
            stores.push(
                Embedded::restore(rt.clone(), Journal::new(rt.clone()), options, checkpoint, records)
                    .unwrap(),
            );
        }
        rt.sleep(9 * second).await;
        for store in &stores {
            assert!(get(store, "held").await.is_some(), "a living holder keeps its key");
            assert_eq!(store.keep_alive(idle.id).await.unwrap_err().kind, ErrorKind::LeaseNotFound);
        }
        assert_eq!(stores[0].keep_alive(lease.id).await.unwrap(), 10 * second, "under the id it had");
        rt.sleep(2 * second).await;
        assert!(get(&stores[0], "held").await.is_some());
        assert!(get(&stores[1], "held").await.is_none(), "a dead holder does not keep it for ever");
    });
}

#[test]
fn expiry_is_persisted() {
    virtually(async |rt| {
        let journal = Journal::new(rt.clone());
        let store = restore(&rt, journal.clone(), &[]);
        let lease = store.grant(Duration::from_secs(5)).await.unwrap();
        for chunk in 0..2 {
            let ops =
                (0..300).map(|n| Op::put_leased(key(&format!("{chunk}/{n}")), *b"", lease.id)).collect();
            store.txn(Txn { then: ops, ..Txn::new() }).await.unwrap();
        }
        rt.sleep(Duration::from_secs(6)).await;
        assert_eq!(journal.records().len(), 4, "600 keys go in two records");
        let rebuilt = restore(&rt, journal.clone(), &journal.records());
        assert!(rebuilt.range(KeyRange::all(), 9, None).await.unwrap().kvs.is_empty());
        assert_eq!(rebuilt.checkpoint(), store.checkpoint());
    });
}

#[test]
fn what_does_not_fit_together_is_refused() {
    virtually(async |rt| {
        let journal = Journal::new(rt.clone());
        let store = restore(&rt, journal.clone(), &[]);
        for name in ["a", "b", "c", "d"] {
            store.txn(put(name, b"")).await.unwrap();
        }
        let records = journal.records();
        let rebuild = |records: Vec<&Vec<u8>>| {
            Embedded::restore(rt.clone(), journal.clone(), Options::default(), None, records)
                .map(|s| s.checkpoint())
        };
        let [a, b, c, d] = &records[..] else { panic!("four records") };
        let gap = rebuild(vec![a, b, d]).unwrap_err();
        assert_eq!(gap.kind, ErrorKind::Corrupt);
        assert!(gap.context.contains("revision 4 expected, 5 found"), "{gap}");
        assert!(rebuild(vec![b, c, d]).is_err(), "the first record is missing");
        assert!(rebuild(vec![a, c, b, d]).is_err(), "order is part of the promise");
        assert_eq!(rebuild(vec![a, a, b, b, a, c, d]).unwrap(), store.checkpoint(), "repeats are skipped");
        // A record of another history: it deletes what is not there.
        let gone = store.txn(Txn::new().then(Op::delete(&key("d")))).await.unwrap().revision;
        assert_eq!(gone, Revision(6));
        let other = Journal::new(rt.clone());
        let stranger = restore(&rt, other.clone(), &[]);
        for _ in 0..4 {
            stranger.txn(put("x", b"")).await.unwrap();
        }
        let delete = journal.records().pop().unwrap();
        let mixed: Vec<Vec<u8>> = other.records().into_iter().chain([delete]).collect();
        assert_eq!(rebuild(mixed.iter().collect()).unwrap_err().kind, ErrorKind::Corrupt);
    });
}

#[test]
fn the_state_is_bounded() {
    virtually(async |rt| {
        let options = Options { state_bytes: 10_000, ..Options::default() };
        let store = Embedded::in_memory(rt, options);
        store.txn(put("a", &[0; 4000])).await.unwrap();
        store.txn(put("b", &[0; 4000])).await.unwrap();
        assert_eq!(store.txn(put("c", &[0; 4000])).await.unwrap_err().kind, ErrorKind::Full);
        store.txn(put("b", &[0; 5000])).await.unwrap();
        store.txn(Txn::new().then(Op::delete(&key("a")))).await.unwrap();
        store.txn(put("c", &[0; 4000])).await.unwrap();
    });
}

#[test]
fn a_dropped_store_ends_its_watches_and_tasks() {
    virtually(async |rt| {
        let journal = Journal::new(rt.clone());
        let handles = Arc::strong_count(&rt);
        for leases in 0..2 {
            let store = restore(&rt, journal.clone(), &[]);
            for _ in 0..leases {
                store.grant(Duration::from_secs(100)).await.unwrap();
            }
            let first = store.txn(put("a", b"")).await.unwrap().revision;
            let mut watch = store.watch(KeyRange::all(), first).await.unwrap();
            settle(&rt).await;
            drop(store);
            assert_eq!(watch.next().await.unwrap().revision, first, "what happened is still told");
            assert_eq!(watch.next().await.unwrap_err().kind, ErrorKind::Stopped);
            settle(&rt).await;
            assert_eq!(Arc::strong_count(&journal), 1, "no task holds the store");
            assert_eq!(Arc::strong_count(&rt), handles, "no task is left, even one that only waits");
        }
    });
}

#[test]
fn no_record_is_longer_than_the_journal_takes() {
    virtually(async |rt| {
        let gate = Gate::new(999);
        let options = Options { record_bytes: 2000, ..Options::default() };
        let store = Embedded::restore(rt.clone(), gate.clone(), options, None, &[] as &[Vec<u8>]).unwrap();
        let error = store.txn(put("a", &[7; 1900])).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        store.txn(put("a", &[7; 1800])).await.unwrap();
        // A lease takes its keys along a few at a time.
        let lease = store.grant(Duration::from_secs(1)).await.unwrap();
        for n in 0..20 {
            let long = format!("{n}{}", "k".repeat(500));
            store.txn(Txn::new().then(Op::put_leased(key(&long), *b"", lease.id))).await.unwrap();
        }
        store.revoke(lease.id).await.unwrap();
        assert_eq!(store.range(KeyRange::all(), 99, None).await.unwrap().kvs.len(), 1);
        let longest = gate.records().iter().map(Vec::len).max().unwrap();
        assert!((1800..=2000).contains(&longest), "{longest}");
    });
}

/// Checkpoint bytes put together from pieces, of which only those are made anew that changed.
fn together(store: &Embedded, known: &mut BTreeMap<Box<[u8]>, (u64, Vec<u8>)>) -> (Vec<u8>, usize) {
    let is_known = |known: &BTreeMap<Box<[u8]>, (u64, Vec<u8>)>, bound: &[u8], stamp| {
        known.get(bound).is_some_and(|(found, _)| *found == stamp)
    };
    let pieces = store.pieces(|bound, stamp| is_known(known, bound, stamp));
    let (mut bytes, mut made) = (pieces.head.clone(), 0);
    let mut now = BTreeMap::new();
    for chunk in &pieces.chunks {
        let encoded = chunk.bytes().inspect(|_| made += 1);
        let encoded = encoded.unwrap_or_else(|| known[&chunk.bound].1.clone());
        bytes.extend_from_slice(&encoded);
        now.insert(chunk.bound.clone(), (chunk.stamp, encoded));
    }
    *known = now;
    (bytes, made)
}

/// The same bytes as a checkpoint in one piece, whatever was known of the last one and however the state came about.
#[test]
fn pieces_of_a_checkpoint_are_the_checkpoint() {
    virtually(async |rt| {
        let store = Embedded::in_memory(rt.clone(), Options::default());
        let lease = store.grant(Duration::from_secs(60)).await.unwrap();
        let mut known = BTreeMap::new();
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut reused = 0;
        for round in 0..60 {
            for _ in 0..next(if round % 8 == 0 { 2000 } else { 5 }) {
                let number = next(3000);
                let name = format!("key/{number:05}");
                let txn = match next(10) {
                    0 => Txn::new().then(Op::delete(&key(&name))),
                    1 => Txn::new().then(Op::Delete(KeyRange::new(
                        name.as_bytes(),
                        Some(format!("key/{:05}", number + 20).into_bytes()),
                    ))),
                    2 => Txn::new().then(Op::put_leased(key(&name), b"x".to_vec(), lease.id)),
                    _ => put(&name, &vec![7; next(300) as usize]),
                };
                store.txn(txn).await.unwrap();
            }
            let (bytes, made) = together(&store, &mut known);
            assert_eq!(bytes, store.checkpoint().bytes, "round {round}");
            reused += known.len() - made;
            // A store made from it is cut in the same places.
            let persist = Gate::new(usize::MAX >> 3);
            let none: [&[u8]; 0] = [];
            let again =
                Embedded::restore(rt.clone(), persist, Options::default(), Some(&bytes), none).unwrap();
            let mut nothing = BTreeMap::new();
            assert_eq!(together(&again, &mut nothing).0, bytes);
            let cut = |known: &BTreeMap<Box<[u8]>, (u64, Vec<u8>)>| -> Vec<(Box<[u8]>, Vec<u8>)> {
                known.iter().map(|(bound, (_, bytes))| (bound.clone(), bytes.clone())).collect()
            };
            assert_eq!(cut(&nothing), cut(&known), "round {round}");
        }
        assert!(reused > 200, "{reused} chunks were known");
    });
}
