//! Transactions whose outcome nobody told.

use std::time::Duration;

use meta::{Compare, ErrorKind, Store};

use super::cluster::{Cluster, Shape};
use super::proxy::{Proxy, Road};
use super::{background, commit, get, key, put, run, store, until};

const DEADLINE: Duration = Duration::from_secs(3);

/// etcd did it and the connection ended before it said so: that is said, and it is not done a second time.
#[test]
fn a_transaction_whose_answer_is_lost_is_unknown_and_done_once() {
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(1)).await;
        let proxy = Proxy::to(&rt, &cluster.endpoint(0)).await;
        let direct = store(&rt, &cluster.endpoints_from(0), "/a/", DEADLINE).await;
        // Another way stays open: it must not be taken for this.
        let endpoints = [proxy.endpoint(), cluster.endpoint(0)];
        let store = store(&rt, &endpoints, "/a/", DEADLINE).await;
        proxy.set(Road::Deaf);
        let own = store.clone();
        let answered = background(&rt, async move { own.txn(put("k", "v")).await });
        until(&rt, "the put", async || get(&*direct, "k").await.is_some()).await;
        proxy.set(Road::Cut);
        let error = answered.await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unknown, "{error}");
        // The store itself goes on, by the other way.
        assert_eq!(get(&*store, "k").await.unwrap().version, 1, "it was done once");
        let retry = put("k", "v").when(Compare::absent(key("k")));
        assert!(!store.txn(retry).await.unwrap().succeeded, "who compares finds out");
    });
}

/// A server that takes requests and says nothing: within the deadline the caller knows that nobody knows.
#[test]
fn a_silent_server_makes_it_unknown_within_the_deadline() {
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(1)).await;
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", Duration::from_secs(1)).await;
        commit(&*store, put("k", "1")).await;
        cluster.freeze(0);
        let begun = rt.now();
        let error = store.txn(put("k", "2")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unknown, "{error}");
        assert!(rt.now() - begun < Duration::from_millis(2500));
        let error = store.get(&key("k")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "a read did nothing: {error}");
        cluster.thaw(0);
        until(&rt, "the server", async || store.get(&key("k")).await.is_ok()).await;
        assert!(get(&*store, "k").await.unwrap().version <= 2);
    });
}

/// Nobody listens: nothing was done, and that is certain.
#[test]
fn a_transaction_that_reached_nobody_is_not_unknown() {
    run(async |rt| {
        let mut cluster = Cluster::start(&rt, Shape::of(1)).await;
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", Duration::from_secs(1)).await;
        let put_it = async || store.txn(put("k", "1")).await;
        cluster.kill(0);
        // The connection that was there may take one more.
        let kinds = [put_it().await.unwrap_err().kind, put_it().await.unwrap_err().kind];
        assert!(matches!(kinds[0], ErrorKind::Unknown | ErrorKind::Unavailable), "{kinds:?}");
        assert_eq!(kinds[1], ErrorKind::Unavailable);
        cluster.spawn(0);
        cluster.ready().await;
        let waits = DEADLINE.max(Duration::from_secs(1));
        assert!(seam::timeout(&*rt, waits, put_it()).await.unwrap().unwrap().succeeded);
        assert_eq!(get(&*store, "k").await.unwrap().version, 1, "none of the others was done");
    });
}
