//! Watches.

use std::sync::Arc;
use std::time::Duration;

use seam::Rt;

use super::{Factory, at_once, commit, key, next, put, show_event, shown};
use crate::error::ErrorKind;
use crate::key::KeyRange;
use crate::limits::{TXN_OPS_MAX, WATCH_EVENTS_MAX};
use crate::store::{Event, Revision, Store, Watch};
use crate::txn::{Op, Txn};

/// Long enough for an event that is there, short enough to wait for one that must not come.
const QUIET: Duration = Duration::from_millis(200);

/// Reads until an event on `last`, which is included.
async fn read_until(rt: &Rt, watch: &mut dyn Watch, last: &str) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let batch = next(rt, watch).await.expect("the watch goes on");
        assert!(!batch.events.is_empty(), "a batch is never empty");
        assert!(batch.events.is_sorted_by_key(Event::revision));
        let (first, end) = (batch.events[0].revision(), batch.events[batch.events.len() - 1].revision());
        assert!(events.last().is_none_or(|before| before.revision() < first), "a revision is not split");
        assert!(end <= batch.revision);
        events.extend(batch.events);
        if events.iter().any(|event| event.key().as_bytes() == last.as_bytes()) {
            return events;
        }
    }
}

pub(super) async fn each_event_once(rt: Rt, store: &dyn Store) {
    put(store, "w/old", "0").await;
    let from = put(store, "w/a", "1").await;
    put(store, "other", "x").await;
    commit(store, Txn::new().then(Op::delete(&key("w/a"))).then(Op::put(key("w/b"), *b"2"))).await;
    let mut watch = store.watch(KeyRange::prefix(*b"w/"), from).await.expect("a watch begins");
    put(store, "w/c", "3").await;
    put(store, "w/c", "4").await;
    commit(store, Txn::new().then(Op::Delete(KeyRange::prefix(*b"nothing")))).await;
    let end = put(store, "w/end", "").await;
    let events = read_until(&rt, &mut *watch, "w/end").await;
    let mut seen: Vec<String> = events.iter().map(show_event).collect();
    seen[1..3].sort(); // one revision: no order among them
    assert_eq!(seen, ["w/a=1", "-w/a", "w/b=2", "w/c=3", "w/c=4", "w/end="]);
    assert_eq!(events[0].revision(), from, "the first revision is included");
    assert_eq!(events[1].revision(), events[2].revision());
    assert!(matches!(&events[4], Event::Put(kv) if kv.version == 2), "the event carries the whole entry");

    // A watch from a revision to come says nothing before it.
    let mut later = store.watch(KeyRange::all(), Revision(end.0 + 2)).await.expect("a watch begins");
    put(store, "w/skipped", "").await;
    put(store, "w/first", "").await;
    let events = read_until(&rt, &mut *later, "w/first").await;
    assert_eq!(events.iter().map(show_event).collect::<Vec<_>>(), ["w/first="]);
    let zero = store.watch(KeyRange::all(), Revision::NONE).await.err().expect("there is no revision 0");
    assert_eq!(zero.kind, ErrorKind::Invalid);

    // More events than a batch holds, in revisions of many.
    let from = put(store, "m/start", "").await;
    for chunk in 0..=WATCH_EVENTS_MAX / TXN_OPS_MAX {
        let ops = (0..TXN_OPS_MAX).map(|n| Op::put(key(&format!("m/{chunk:02}{n:03}")), *b"")).collect();
        commit(store, Txn { then: ops, ..Txn::new() }).await;
    }
    put(store, "m/zend", "").await;
    let mut watch = store.watch(KeyRange::prefix(*b"m/"), from).await.expect("a watch begins");
    let events = read_until(&rt, &mut *watch, "m/zend").await;
    assert_eq!(events.len(), (WATCH_EVENTS_MAX / TXN_OPS_MAX + 1) * TXN_OPS_MAX + 2);
    let mut keys: Vec<_> = events.iter().map(Event::key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), events.len(), "each event once");
}

/// List, then watch from the next revision, while others write: the copy made so equals the store.
pub(super) async fn under_writes(rt: Rt, store: Arc<dyn Store>) {
    for name in 0..8 {
        put(&*store, &format!("c/{name}"), "start").await;
    }
    let writers = at_once(&rt, 4, |task| {
        let store = store.clone();
        async move {
            for round in 0..50_usize {
                let name = format!("c/{}", (task * 7 + round) % 12);
                match round % 5 {
                    4 => commit(&*store, Txn::new().then(Op::delete(&key(&name)))).await.revision,
                    _ => put(&*store, &name, &format!("{task}.{round}")).await,
                };
                seam::yield_now().await;
            }
        }
    });
    let copies = at_once(&rt, 3, |_| {
        let (rt, store) = (rt.clone(), store.clone());
        async move {
            seam::yield_now().await;
            let page = store.range(KeyRange::prefix(*b"c/"), 100, None).await.expect("a range is answered");
            let mut copy: std::collections::BTreeMap<_, _> =
                page.kvs.iter().map(|kv| (kv.key.clone(), super::show(kv))).collect();
            if copy.contains_key(&key("c/end")) {
                // It came so late that there is nothing to wait for.
                return copy.into_values().collect::<Vec<_>>();
            }
            let mut watch =
                store.watch(KeyRange::prefix(*b"c/"), page.revision.next()).await.expect("a watch begins");
            for event in read_until(&rt, &mut *watch, "c/end").await {
                match &event {
                    Event::Put(_) => copy.insert(event.key().clone(), show_event(&event)),
                    Event::Delete { key, .. } => copy.remove(key),
                };
            }
            copy.into_values().collect::<Vec<_>>()
        }
    });
    writers.await;
    put(&*store, "c/end", "").await;
    let truth = shown(&*store, KeyRange::prefix(*b"c/")).await;
    for copy in copies.await {
        assert_eq!(copy, truth, "a copy kept by watching equals the store");
    }
}

/// A watch that fell behind what is kept gets what it missed all the same or is told, and one that begins too far back is
/// told; listing again repairs it. Stores differ in the first: etcd sends on what happens, the embedded store looks it up.
pub(super) async fn lagging(factory: &dyn Factory, store: &dyn Store) {
    let rt = factory.rt();
    let from = put(store, "l/a", "1").await;
    let mut slow = store.watch(KeyRange::prefix(*b"l/"), from).await.expect("a watch begins");
    assert_eq!(next(&rt, &mut *slow).await.expect("the first event").events.len(), 1);
    let missed = put(store, "l/b", "1").await;
    factory.forget(store).await;
    match next(&rt, &mut *slow).await {
        Ok(batch) => assert_eq!(batch.events.iter().map(show_event).collect::<Vec<_>>(), ["l/b=1"]),
        Err(error) => assert_eq!(error.kind, ErrorKind::Compacted),
    }
    let mut late = store.watch(KeyRange::prefix(*b"l/"), missed).await.expect("the first answer tells");
    assert_eq!(next(&rt, &mut *late).await.expect_err("it is told").kind, ErrorKind::Compacted);
    let page = store.range(KeyRange::prefix(*b"l/"), 10, None).await.expect("a range is answered");
    assert_eq!(page.kvs.len(), 2);
    let mut again =
        store.watch(KeyRange::prefix(*b"l/"), page.revision.next()).await.expect("a watch begins");
    put(store, "l/c", "1").await;
    assert_eq!(next(&rt, &mut *again).await.expect("the watch goes on").events.len(), 1);
}

/// Giving up waiting loses no event.
pub(super) async fn dropped_wait(rt: Rt, store: &dyn Store) {
    let from = store.get(&key("d")).await.expect("a get is answered").revision.next();
    let mut watch = store.watch(KeyRange::prefix(*b"d"), from).await.expect("a watch begins");
    assert!(seam::timeout(&*rt, QUIET, watch.next()).await.is_err(), "nothing happened yet");
    put(store, "other", "").await;
    assert!(seam::timeout(&*rt, QUIET, watch.next()).await.is_err(), "nothing of this range happened yet");
    put(store, "d", "1").await;
    let batch = next(&rt, &mut *watch).await.expect("the watch goes on");
    assert_eq!(batch.events.iter().map(show_event).collect::<Vec<_>>(), ["d=1"]);
    assert!(seam::timeout(&*rt, QUIET, watch.next()).await.is_err(), "an event is given once");
}
