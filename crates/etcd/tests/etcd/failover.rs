//! Members that die, hang or are too few.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::etcd::Etcd;
use meta::{Compare, ErrorKind, Event, Op, Revision, Store, Txn};
use seam::Rt;

use super::cluster::{Cluster, Shape};
use super::proxy::silent;
use super::{all, background, commit, get, key, names, next, put, run, store, until};

const DEADLINE: Duration = Duration::from_secs(3);

/// What one task that counts came to.
#[derive(Default)]
struct Counted {
    acknowledged: u64,
    unknown: u64,
}

/// Adds one again and again, by compare and swap, until it is told to end.
async fn count(rt: Rt, store: Arc<Etcd>, end: Arc<AtomicBool>) -> Counted {
    let mut counted = Counted::default();
    while !end.load(Ordering::Relaxed) {
        let Ok(now) = store.get(&key("c/count")).await else { continue };
        let (number, same) = match &now.kv {
            None => (0, Compare::absent(key("c/count"))),
            Some(kv) => {
                let text = str::from_utf8(&kv.value).unwrap();
                (text.parse().unwrap(), Compare::unchanged(kv.key.clone(), kv.mod_revision))
            }
        };
        let number: u64 = number;
        match store.txn(put("c/count", (number + 1).to_string()).when(same)).await {
            Ok(result) => counted.acknowledged += u64::from(result.succeeded),
            Err(error) if error.kind == ErrorKind::Unknown => counted.unknown += 1,
            Err(error) => assert_eq!(error.kind, ErrorKind::Unavailable, "{error}"),
        }
        rt.sleep(Duration::from_millis(1)).await;
    }
    counted
}

/// Follows the counter until it has seen `last`; every number comes once, in order.
async fn follow(rt: Rt, store: Arc<Etcd>, last: tokio::sync::oneshot::Receiver<u64>) -> u64 {
    let mut watch = store.watch(all("c/"), Revision::EMPTY).await.unwrap();
    let (mut seen, mut last, mut end) = (0, last, None);
    while end != Some(seen) {
        match seam::timeout(&*rt, Duration::from_millis(100), watch.next()).await {
            Ok(Ok(batch)) => {
                for event in batch.events {
                    let Event::Put(kv) = event else { panic!("nobody deletes") };
                    seen += 1;
                    assert_eq!(
                        str::from_utf8(&kv.value).unwrap(),
                        seen.to_string(),
                        "none missed, none twice"
                    );
                }
            }
            Ok(Err(error)) => assert_eq!(error.kind, ErrorKind::Unavailable, "{error}"),
            Err(seam::Elapsed) => {}
        }
        if end.is_none() {
            end = last.try_recv().ok();
        }
    }
    seen
}

/// The leader dies in the middle of a stream of increments, twice: none that was acknowledged is lost, none is done twice,
/// and watches miss nothing.
#[test]
fn increments_and_watches_survive_the_death_of_the_leader() {
    run(async |rt| {
        let mut cluster = Cluster::start(&rt, Shape::of(3).hasty()).await;
        let end = Arc::new(AtomicBool::new(false));
        let (mut counters, mut followers) = (Vec::new(), Vec::new());
        for member in 0..3 {
            let endpoints = cluster.endpoints_from(member);
            let writer = store(&rt, &endpoints, "/a/", DEADLINE).await;
            counters.push(background(&rt, count(rt.clone(), writer.clone(), end.clone())));
            let (tell, told) = tokio::sync::oneshot::channel();
            followers.push((tell, background(&rt, follow(rt.clone(), writer, told))));
        }
        let observer = store(&rt, &cluster.endpoints_from(0), "/b/", DEADLINE).await;
        for _ in 0..2 {
            rt.sleep(Duration::from_millis(700)).await;
            let leader = cluster.leader().await;
            cluster.kill(leader);
            let begun = rt.now();
            until(&rt, "another leader", async || observer.txn(put("alive", "")).await.is_ok()).await;
            assert!(rt.now() - begun < Duration::from_secs(10));
            rt.sleep(Duration::from_millis(500)).await;
            cluster.spawn(leader);
            cluster.ready().await;
        }
        rt.sleep(Duration::from_millis(300)).await;
        end.store(true, Ordering::Relaxed);
        let mut sum = Counted::default();
        for counter in counters {
            let counted = counter.await.unwrap();
            assert!(counted.acknowledged > 20, "every task goes on over the change");
            sum.acknowledged += counted.acknowledged;
            sum.unknown += counted.unknown;
        }
        let reader = store(&rt, &cluster.endpoints_from(0), "/a/", DEADLINE).await;
        // One of unknown outcome may still be under way; behind this nothing is.
        commit(&*reader, put("barrier", "")).await;
        let version = get(&*reader, "c/count").await.unwrap().version;
        let most = sum.acknowledged + sum.unknown;
        assert!(
            (sum.acknowledged..=most).contains(&version),
            "{version} not in {}..={most}",
            sum.acknowledged
        );
        for (tell, follower) in followers {
            tell.send(version).unwrap();
            let seen =
                seam::timeout(&*rt, super::PATIENCE, follower).await.expect("a watch misses some").unwrap();
            assert_eq!(seen, version);
        }
    });
}

/// The member that is spoken to dies, another never answers: requests and watches go on.
#[test]
fn the_next_member_is_asked() {
    run(async |rt| {
        let mut cluster = Cluster::start(&rt, Shape::of(3).hasty()).await;
        let follower = (cluster.leader().await + 1) % 3;
        // One refuses, one accepts and is silent, and then those that are there.
        let nobody = "http://127.0.0.1:1".to_owned();
        let mut endpoints = vec![nobody, silent(&rt).await];
        endpoints.extend(cluster.endpoints_from(follower));
        let begun = rt.now();
        let store = store(&rt, &endpoints, "/a/", DEADLINE).await;
        assert!(rt.now() - begun < DEADLINE);
        let from = commit(&*store, put("k", "1")).await;
        let mut watch = store.watch(all("k"), from).await.unwrap();
        assert_eq!(names(&rt, &mut *watch, 1).await, ["k=1"]);
        cluster.kill(follower);
        let begun = rt.now();
        assert_eq!(&*get(&*store, "k").await.unwrap().value, b"1");
        until(&rt, "a write", async || store.txn(put("k", "2")).await.is_ok()).await;
        assert!(rt.now() - begun < 2 * DEADLINE);
        assert_eq!(names(&rt, &mut *watch, 1).await, ["k=2"]);
    });
}

/// A member hangs with its connections up: reads go on within the deadline, a watch at the next member.
#[test]
fn a_member_that_hangs_is_left() {
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(3).hasty()).await;
        let follower = (cluster.leader().await + 1) % 3;
        let store = store(&rt, &cluster.endpoints_from(follower), "/a/", Duration::from_secs(2)).await;
        let from = commit(&*store, put("k", "1")).await;
        let mut watch = store.watch(all("k"), from).await.unwrap();
        assert_eq!(names(&rt, &mut *watch, 1).await, ["k=1"]);
        cluster.freeze(follower);
        assert_eq!(&*get(&*store, "k").await.unwrap().value, b"1");
        commit(&*store, put("k", "2")).await;
        // The stream is not known to be dead before a probe went unanswered.
        assert_eq!(names(&rt, &mut *watch, 1).await, ["k=2"]);
        cluster.thaw(follower);
    });
}

/// Two of three members are gone: everything ends with an error in time, nothing was done, and it heals by itself.
#[test]
fn without_a_quorum_everything_ends_in_time() {
    run(async |rt| {
        let mut cluster = Cluster::start(&rt, Shape::of(3).hasty()).await;
        let deadline = Duration::from_secs(1);
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", deadline).await;
        let from = commit(&*store, put("k", "1")).await;
        let lease = store.grant(Duration::from_secs(60)).await.unwrap();
        let mut watch = store.watch(all("k"), from.next()).await.unwrap();
        cluster.kill(1);
        cluster.kill(2);
        let in_time = async |what: &str, asked: meta::Result<()>, begun: Duration| {
            let error = asked.expect_err(what);
            assert!(rt.now() - begun < 2 * deadline, "{what} took {:?}", rt.now() - begun);
            assert!(matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Unknown), "{what}: {error}");
            error.kind
        };
        for round in 0..2 {
            let mut kinds = Vec::new();
            let begun = rt.now();
            kinds.push(in_time("a read", store.get(&key("k")).await.map(drop), begun).await);
            let begun = rt.now();
            let listed = store.range(all(""), 9, None).await;
            kinds.push(in_time("a range", listed.map(drop), begun).await);
            let begun = rt.now();
            kinds.push(in_time("a renewal", store.keep_alive(lease.id).await.map(drop), begun).await);
            assert_eq!(kinds, [ErrorKind::Unavailable; 3]);
            let begun = rt.now();
            let wrote = in_time("a write", store.txn(put("k", "2")).await.map(drop), begun).await;
            assert!(round == 0 || wrote == ErrorKind::Unavailable, "the survivor refuses it at the door");
        }
        let blind = next(&rt, &mut *watch).await;
        assert!(blind.is_err_and(|error| error.kind == ErrorKind::Unavailable));
        cluster.spawn(1);
        until(&rt, "a quorum", async || store.txn(put("healed", "")).await.is_ok()).await;
        assert_eq!(get(&*store, "k").await.unwrap().version, 1, "what was refused was not done");
        commit(&*store, put("k", "3")).await;
        let batch = loop {
            // It may have found out a moment before.
            match next(&rt, &mut *watch).await {
                Ok(batch) => break batch,
                Err(error) => assert_eq!(error.kind, ErrorKind::Unavailable),
            }
        };
        assert_eq!(batch.events.len(), 1);
        assert_eq!(store.keep_alive(lease.id).await.unwrap(), lease.ttl);
    });
}

/// A lease that is kept alive keeps its keys while leaders change; one that is not ends, later than it would have.
#[test]
fn leases_live_and_end_over_a_change_of_leader() {
    run(async |rt| {
        let mut cluster = Cluster::start(&rt, Shape::of(3).hasty()).await;
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", DEADLINE).await;
        let ttl = Duration::from_secs(3);
        let (kept, left) = (store.grant(ttl).await.unwrap(), store.grant(ttl).await.unwrap());
        let both = Txn::new().then(Op::put_leased(key("kept"), *b"", kept.id)).then(Op::put_leased(
            key("left"),
            *b"",
            left.id,
        ));
        commit(&*store, both).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        let begun = rt.now();
        let mut renewed = begun;
        while rt.now() - begun < 4 * ttl && get(&*store, "left").await.is_some() {
            match store.keep_alive(kept.id).await {
                Ok(again) => (assert_eq!(again, ttl), renewed = rt.now()).1,
                Err(error) => assert_eq!(error.kind, ErrorKind::Unavailable, "{error}"),
            }
            rt.sleep(Duration::from_millis(300)).await;
        }
        assert!(get(&*store, "left").await.is_none(), "nobody kept it alive");
        assert!(rt.now() - begun > Duration::from_secs(2), "not before its time");
        assert_eq!(store.keep_alive(left.id).await.unwrap_err().kind, ErrorKind::LeaseNotFound);
        assert!(get(&*store, "kept").await.is_some() && rt.now() - renewed < ttl);
        store.revoke(kept.id).await.unwrap();
        assert!(get(&*store, "kept").await.is_none());
    });
}
