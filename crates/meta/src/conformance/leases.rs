//! Leases.

use std::time::Duration;

use seam::Rt;

use super::{commit, get, key, next, put, show_event, shown};
use crate::error::ErrorKind;
use crate::key::KeyRange;
use crate::limits::{LEASE_TTL_MAX, LEASE_TTL_MIN, TXN_OPS_MAX};
use crate::store::{LeaseId, Store};
use crate::txn::{Compare, Op, Txn};

/// Shortest lease; the store may grant longer.
const TTL: Duration = LEASE_TTL_MIN;
/// By then a lease that ended is gone with its keys.
const GRACE: Duration = Duration::from_secs(1);

fn leased(name: &str, lease: LeaseId) -> Txn {
    Txn::new().then(Op::put_leased(key(name), *b"", lease))
}

/// Nothing of a lease goes before its time, all of it soon after, and a watch sees it.
pub(super) async fn expiry(rt: Rt, store: &dyn Store) {
    let short = store.grant(TTL).await.expect("a lease is granted");
    let long = store.grant(TTL * 30).await.expect("a lease is granted");
    assert!(short.ttl >= TTL && long.ttl >= TTL * 30 && short.id != long.id);
    put(store, "e/free", "").await;
    commit(store, leased("e/long", long.id)).await;
    let written =
        commit(store, leased("e/a", short.id).then(Op::put_leased(key("e/b"), *b"", short.id))).await;
    assert_eq!(get(store, "e/a").await.expect("it was put").lease, Some(short.id));
    rt.sleep(short.ttl / 2).await;
    assert_eq!(shown(store, KeyRange::prefix(*b"e/")).await.len(), 4, "not before its time");
    rt.sleep(short.ttl / 2 + GRACE).await;
    assert_eq!(shown(store, KeyRange::prefix(*b"e/")).await, ["e/free=", "e/long="]);
    let mut watch =
        store.watch(KeyRange::prefix(*b"e/"), written.revision.next()).await.expect("a watch begins");
    let mut seen: Vec<String> = Vec::new();
    while seen.len() < 2 {
        seen.extend(next(&rt, &mut *watch).await.expect("the watch goes on").events.iter().map(show_event));
    }
    seen.sort();
    assert_eq!(seen, ["-e/a", "-e/b"]);
    // What ended is ended for everyone.
    let late = store.keep_alive(short.id).await.expect_err("it ended");
    assert_eq!(late.kind, ErrorKind::LeaseNotFound);
    let late = store.txn(leased("e/c", short.id)).await.expect_err("it ended");
    assert_eq!(late.kind, ErrorKind::LeaseNotFound);
    assert_eq!(store.revoke(short.id).await.expect_err("it ended").kind, ErrorKind::LeaseNotFound);
    // The key is free for the next holder.
    let heir = store.grant(TTL).await.expect("a lease is granted");
    let create = leased("e/a", heir.id).when(Compare::absent(key("e/a")));
    assert!(commit(store, create).await.succeeded);
}

/// A lease kept alive outlives many times its time to live; then it goes.
pub(super) async fn keep_alive(rt: Rt, store: &dyn Store) {
    let lease = store.grant(TTL).await.expect("a lease is granted");
    commit(store, leased("k", lease.id)).await;
    for _ in 0..5 {
        rt.sleep(lease.ttl * 6 / 10).await;
        assert_eq!(store.keep_alive(lease.id).await.expect("it lives"), lease.ttl);
        assert!(get(store, "k").await.is_some(), "a lease kept alive keeps its keys");
    }
    rt.sleep(lease.ttl + GRACE).await;
    assert!(get(store, "k").await.is_none(), "nobody kept it alive");
}

/// Revoking deletes all keys of the lease, however many, and no others.
pub(super) async fn revoke(store: &dyn Store) {
    let lease = store.grant(TTL * 60).await.expect("a lease is granted");
    let other = store.grant(TTL * 60).await.expect("a lease is granted");
    commit(store, leased("other", other.id)).await;
    for chunk in 0..3 {
        let name = |number| key(&format!("r/{chunk}/{number}"));
        let ops = (0..TXN_OPS_MAX).map(|n| Op::put_leased(name(n), *b"", lease.id)).collect();
        commit(store, Txn { then: ops, ..Txn::new() }).await;
    }
    store.revoke(lease.id).await.expect("it lives");
    assert_eq!(shown(store, KeyRange::all()).await, ["other="]);
    assert_eq!(store.keep_alive(lease.id).await.expect_err("it ended").kind, ErrorKind::LeaseNotFound);
    let empty = store.grant(TTL).await.expect("a lease is granted");
    store.revoke(empty.id).await.expect("a lease without keys can be revoked");
}

/// A later put decides which lease a key has; deleting it detaches it.
pub(super) async fn detached_keys_stay(rt: Rt, store: &dyn Store) {
    let lease = store.grant(TTL).await.expect("a lease is granted");
    let other = store.grant(TTL * 30).await.expect("a lease is granted");
    for name in ["t/kept", "t/moved", "t/again", "t/same"] {
        commit(store, leased(name, lease.id)).await;
    }
    put(store, "t/kept", "v").await;
    commit(store, leased("t/moved", other.id)).await;
    commit(store, Txn::new().then(Op::delete(&key("t/again")))).await;
    put(store, "t/again", "v").await;
    commit(store, leased("t/same", lease.id)).await;
    rt.sleep(lease.ttl + GRACE).await;
    assert_eq!(shown(store, KeyRange::prefix(*b"t/")).await, ["t/again=v", "t/kept=v", "t/moved="]);
}

pub(super) async fn bounds(store: &dyn Store) {
    for ttl in
        [Duration::ZERO, LEASE_TTL_MIN - Duration::from_millis(1), LEASE_TTL_MAX + Duration::from_millis(1)]
    {
        assert_eq!(store.grant(ttl).await.expect_err("out of bounds").kind, ErrorKind::Invalid);
    }
    let between = LEASE_TTL_MIN + Duration::from_millis(1);
    assert!(store.grant(between).await.expect("a lease is granted").ttl >= between);
    assert_eq!(store.keep_alive(LeaseId(1)).await.expect_err("never granted").kind, ErrorKind::LeaseNotFound);
}
