//! Watches over broken streams, forgotten history and long answers.

use std::time::Duration;

use meta::{ErrorKind, KeyRange, Op, Store, Txn, list};

use super::cluster::{Cluster, Shape};
use super::proxy::{Proxy, Road};
use super::{all, commit, key, names, next, put, run, store};

const DEADLINE: Duration = Duration::from_secs(1);

/// What happened while there was no stream comes when there is one again, and what was given does not come twice.
#[test]
fn a_stream_that_breaks_goes_on_behind_the_last_revision() {
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(1)).await;
        let proxy = Proxy::to(&rt, &cluster.endpoint(0)).await;
        let direct = store(&rt, &cluster.endpoints_from(0), "/a/", DEADLINE).await;
        let watched = store(&rt, &[proxy.endpoint()], "/a/", DEADLINE).await;
        let from = commit(&*direct, put("w/1", "a")).await;
        let mut watch = watched.watch(all("w/"), from).await.unwrap();
        assert_eq!(names(&rt, &mut *watch, 1).await, ["w/1=a"]);
        for round in 0..3 {
            proxy.set(Road::Cut);
            commit(&*direct, put("w/2", "b")).await;
            commit(&*direct, put("other", "x")).await;
            let both = Txn::new().then(Op::delete(&key("w/2"))).then(Op::put(key("w/3"), *b"c"));
            commit(&*direct, both).await;
            if round == 2 {
                // A watch that sees nothing says so, and loses nothing by it.
                let blind = next(&rt, &mut *watch).await.unwrap_err();
                assert_eq!(blind.kind, ErrorKind::Unavailable, "{blind}");
            }
            proxy.set(Road::Open);
            let mut seen = names(&rt, &mut *watch, 3).await;
            seen[1..].sort(); // one revision: no order among them
            assert_eq!(seen, ["w/2=b", "-w/2", "w/3=c"], "round {round}");
        }
        let quiet = seam::timeout(&*rt, Duration::from_millis(300), watch.next()).await;
        assert!(quiet.is_err(), "nothing is given twice");
    });
}

/// What was forgotten while a watch was away is not passed over: it is told, lists again, and goes on.
#[test]
fn history_forgotten_under_a_watch_is_told() {
    run(async |rt| {
        let mut cluster = Cluster::start(&rt, Shape::of(1)).await;
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", Duration::from_secs(3)).await;
        let from = commit(&*store, put("w/1", "a")).await;
        let mut watch = store.watch(all("w/"), from).await.unwrap();
        assert_eq!(names(&rt, &mut *watch, 1).await, ["w/1=a"]);
        cluster.kill(0);
        cluster.spawn(0);
        cluster.ready().await;
        commit(&*store, put("w/2", "b")).await;
        let newest = commit(&*store, put("w/3", "c")).await;
        cluster.compact(newest.0).await;
        for _ in 0..2 {
            let told = next(&rt, &mut *watch).await.unwrap_err();
            assert_eq!(told.kind, ErrorKind::Compacted, "however often it is asked: {told}");
        }
        let (kvs, revision) = list(&*store, all("w/"), 10).await.unwrap();
        assert_eq!(kvs.len(), 3);
        let mut again = store.watch(all("w/"), revision.next()).await.unwrap();
        commit(&*store, put("w/4", "d")).await;
        assert_eq!(names(&rt, &mut *again, 1).await, ["w/4=d"]);
    });
}

/// A long history comes in messages that are cut anywhere; what is given are whole revisions all the same.
#[test]
fn a_revision_is_not_split_however_long_the_history() {
    const REVISIONS: usize = 12;
    const EACH: usize = 100;
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(1)).await;
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", Duration::from_secs(5)).await;
        let from = commit(&*store, put("w/start", "")).await.next();
        for round in 0..REVISIONS {
            let ops = (0..EACH).map(|n| Op::put(key(&format!("w/{n}")), vec![round as u8; 12_000]));
            commit(&*store, Txn { then: ops.collect(), ..Txn::new() }).await;
        }
        let mut watch = store.watch(all("w/"), from).await.unwrap();
        let (mut seen, mut batches) = (Vec::new(), 0);
        while seen.len() < REVISIONS * EACH {
            let batch = next(&rt, &mut *watch).await.unwrap();
            assert_eq!(batch.events.len() % EACH, 0, "whole revisions");
            assert_eq!(batch.events.last().unwrap().revision(), batch.revision);
            seen.extend(batch.events.iter().map(meta::Event::revision));
            batches += 1;
        }
        assert!(batches > 3, "{batches} messages were cut");
        let expected = (0..REVISIONS * EACH).map(|n| from.0 + (n / EACH) as u64);
        assert!(seen.iter().map(|revision| revision.0).eq(expected), "each event once, in order");
        // Pages of such values are bounded too, and the whole can be listed.
        let (kvs, _) = list(&*store, KeyRange::all(), 1000).await.unwrap();
        assert_eq!(kvs.len(), EACH + 1);
    });
}

/// Whoever does not read its watch holds up nobody else.
#[test]
fn a_watch_that_is_not_read_holds_up_nobody() {
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(1)).await;
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", Duration::from_secs(5)).await;
        let from = commit(&*store, put("w/start", "")).await;
        let mut lazy = Vec::new();
        for _ in 0..3 {
            let mut watch = store.watch(all("w/"), from).await.unwrap();
            assert_eq!(names(&rt, &mut *watch, 1).await, ["w/start="]);
            lazy.push(watch);
        }
        // More than all windows of a connection together.
        for round in 0..12 {
            commit(&*store, put("w/big", vec![round; 1_000_000])).await;
        }
        for mut watch in lazy {
            let mut versions = Vec::new();
            while versions.len() < 12 {
                let batch = next(&rt, &mut *watch).await.unwrap();
                versions.extend(batch.events.iter().map(|event| match event {
                    meta::Event::Put(kv) => kv.version,
                    meta::Event::Delete { .. } => 0,
                }));
            }
            assert!(versions.iter().copied().eq(1..=12), "{versions:?}");
        }
    });
}
