//! The suite that every store must pass, each case under a prefix of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::etcd::DEADLINE;
use meta::conformance::{self, Factory};
use meta::{KeyRange, Store};
use seam::{BoxFuture, Rt};

use super::cluster::{Cluster, Shape};
use super::{commit, get, put, run, store};

struct Sites<'a> {
    rt: Rt,
    cluster: &'a Cluster,
    count: AtomicUsize,
}

impl Factory for Sites<'_> {
    fn rt(&self) -> Rt {
        self.rt.clone()
    }

    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async move {
            let site = self.count.fetch_add(1, Ordering::Relaxed);
            let endpoints = self.cluster.endpoints_from(site);
            store(&self.rt, &endpoints, &format!("/holdfast/{site}/"), DEADLINE).await as Arc<dyn Store>
        })
    }

    fn forget<'a>(&'a self, store: &'a dyn Store) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // etcd forgets what is before a revision, so everything must be before it.
            conformance::churn(store, 1).await;
            let newest = store.range(KeyRange::all(), 1, None).await.unwrap().revision;
            self.cluster.compact(newest.0).await;
        })
    }
}

fn conforms(shape: Shape) {
    run(async |rt| {
        let cluster = Cluster::start(&rt, shape).await;
        conformance::run(&Sites { rt, cluster: &cluster, count: AtomicUsize::new(0) }).await;
    });
}

#[test]
fn a_single_member_conforms() {
    conforms(Shape::of(1).hasty());
}

#[test]
fn three_members_conform() {
    conforms(Shape::of(3));
}

/// Sites in one etcd do not see each other, and a whole range is the site's alone.
#[test]
fn sites_share_an_etcd() {
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(1)).await;
        let sites = ["/holdfast/a/", "/holdfast/a/b/", "/holdfast/b/"];
        let [a, inner, b] = sites.map(|site| (site, cluster.endpoints_from(0)));
        let a = store(&rt, &a.1, a.0, DEADLINE).await;
        let inner = store(&rt, &inner.1, inner.0, DEADLINE).await;
        let b = store(&rt, &b.1, b.0, DEADLINE).await;
        let from = commit(&*a, put("k", "a")).await;
        commit(&*b, put("k", "b")).await;
        assert_eq!(&*get(&*a, "k").await.unwrap().value, b"a");
        commit(&*b, meta::Txn::new().then(meta::Op::Delete(KeyRange::all()))).await;
        assert!(get(&*b, "k").await.is_none() && get(&*a, "k").await.is_some());
        let mut watch = b.watch(KeyRange::all(), from).await.unwrap();
        assert_eq!(super::names(&rt, &mut *watch, 2).await, ["k=b", "-k"]);
        // A prefix within another is the administrator's mistake; names still come in and go out unchanged.
        commit(&*inner, put("k", "inner")).await;
        assert_eq!(&*get(&*a, "b/k").await.unwrap().value, b"inner");
        let raw = cluster.client(0).await.get("/holdfast/a/k", None).await.unwrap();
        assert_eq!(raw.kvs()[0].value(), b"a");
    });
}
