//! Keys, ranges, revisions, limits.

use super::{Factory, commit, get, key, put, shown};
use crate::error::ErrorKind;
use crate::key::KeyRange;
use crate::limits::{
    KEY_BYTES_MAX, RANGE_BYTES_MAX, RANGE_KEYS_MAX, TXN_BYTES_MAX, TXN_OPS_MAX, VALUE_BYTES_MAX,
};
use crate::store::{LeaseId, Revision, Store, list};
use crate::txn::{Compare, Op, Txn};

pub(super) async fn put_get_delete(store: &dyn Store) {
    assert_eq!(get(store, "a").await, None);
    let first = put(store, "a", "1").await;
    let second = put(store, "a", "2").await;
    assert!(Revision::EMPTY < first && first < second, "revisions rise");
    let kv = get(store, "a").await.expect("a is there");
    assert_eq!((&*kv.value, kv.create_revision, kv.mod_revision), (b"2".as_slice(), first, second));
    assert_eq!((kv.version, kv.lease), (2, None));
    let gone = commit(store, Txn::new().then(Op::delete(&key("a")))).await;
    assert!(gone.revision > second && get(store, "a").await.is_none());
    let again = put(store, "a", "").await;
    let kv = get(store, "a").await.expect("an empty value is a value");
    assert_eq!(
        (kv.create_revision, kv.version, kv.value.len()),
        (again, 1, 0),
        "a key made again starts anew"
    );
}

/// Each kind of test, on a present key, an absent key, and a key that changed since.
pub(super) async fn compares(store: &dyn Store) {
    let old = put(store, "a", "1").await;
    let now = put(store, "a", "2").await;
    let (a, b) = (|| key("a"), || key("b"));
    let created =
        |name, revision| Compare { key: key(name), test: crate::txn::Test::CreateRevision(revision) };
    let cases = [
        (Compare::unchanged(a(), now), true),
        (Compare::unchanged(a(), old), false),
        (Compare::unchanged(b(), Revision::NONE), true),
        (created("a", old), true),
        (created("a", now), false),
        (Compare::absent(a()), false),
        (Compare::absent(b()), true),
        (Compare::present(a()), true),
        (Compare::present(b()), false),
        (Compare::value(a(), *b"2"), true),
        (Compare::value(a(), *b"1"), false),
        (Compare::value(b(), *b""), false),
    ];
    for (compare, expected) in cases {
        let txn = Txn::new()
            .when(compare.clone())
            .then(Op::put(key("yes"), *b""))
            .or_else(Op::put(key("no"), *b""));
        let before = store.get(&a()).await.expect("a get is answered").revision;
        let result = commit(store, txn).await;
        assert_eq!(result.succeeded, expected, "{compare:?}");
        assert_eq!(result.revision, before.next(), "either branch is one transaction");
        let written = get(store, if expected { "yes" } else { "no" }).await.expect("the branch was done");
        assert_eq!(written.mod_revision, result.revision, "only the chosen branch was done");
    }
    // All must hold, and a conflict with an empty branch changes nothing.
    let both = Txn::new().when(Compare::present(a())).when(Compare::present(b())).then(Op::put(a(), *b"3"));
    let result = commit(store, both).await;
    assert!(!result.succeeded);
    assert_eq!(&*get(store, "a").await.expect("a is there").value, b"2");
}

pub(super) async fn range_order_and_limits(store: &dyn Store) {
    for name in ["p/b", "p/a", "q", "p/", "p", "p/a/x", "o", "p0"] {
        put(store, name, "v").await;
    }
    let under = KeyRange::prefix(*b"p/");
    assert_eq!(shown(store, under.clone()).await, ["p/=v", "p/a=v", "p/a/x=v", "p/b=v"]);
    let between = KeyRange::new(*b"p/a", Some(b"p/b".to_vec()));
    assert_eq!(shown(store, between).await, ["p/a=v", "p/a/x=v"], "the end is not in the range");
    assert_eq!(shown(store, KeyRange::new(*b"p0", None)).await, ["p0=v", "q=v"]);
    assert_eq!(shown(store, KeyRange::all()).await.len(), 8);
    assert!(shown(store, KeyRange::new(*b"q", Some(b"o".to_vec()))).await.is_empty());
    assert_eq!(shown(store, KeyRange::one(&key("p"))).await, ["p=v"]);

    let page = store.range(under.clone(), 4, None).await.expect("a range is answered");
    assert!(!page.more, "exactly the limit is not more");
    let page = store.range(under.clone(), 3, None).await.expect("a range is answered");
    assert!(page.more && page.kvs.len() == 3);
    let rest = under.behind(&page.kvs[2].key);
    assert_eq!(shown(store, rest).await, ["p/b=v"]);
    let none = store.range(under, 0, None).await.expect_err("a limit of 0 is a mistake");
    assert_eq!(none.kind, ErrorKind::Invalid);
}

pub(super) async fn range_at_a_revision(factory: &dyn Factory, store: &dyn Store) {
    put(store, "a", "1").await;
    put(store, "b", "1").await;
    let then = put(store, "d", "1").await;
    put(store, "a", "2").await; // changed, twice
    put(store, "a", "3").await;
    commit(store, Txn::new().then(Op::delete(&key("b")))).await; // gone
    put(store, "c", "1").await; // new
    commit(store, Txn::new().then(Op::delete(&key("d")))).await; // gone and back
    put(store, "d", "2").await;
    let at = async |limit, at| store.range(KeyRange::all(), limit, Some(at)).await;
    let names = |page: &crate::store::Page| page.kvs.iter().map(super::show).collect::<Vec<_>>();
    let page = at(9, then).await.expect("the revision is still kept");
    assert_eq!(
        (names(&page), page.revision, page.more),
        (vec!["a=1".into(), "b=1".into(), "d=1".into()], then, false)
    );
    assert_eq!(page.kvs[0].version, 1, "the whole entry is the old one");
    let page = at(2, then).await.expect("the revision is still kept");
    assert_eq!((names(&page), page.more), (vec!["a=1".into(), "b=1".into()], true));
    assert_eq!(shown(store, KeyRange::all()).await, ["a=3", "c=1", "d=2"]);
    let newest = store.get(&key("a")).await.expect("a get is answered").revision;
    assert_eq!(at(9, newest.next()).await.expect_err("not yet").kind, ErrorKind::Invalid);
    factory.forget(store).await;
    assert_eq!(at(9, then).await.expect_err("forgotten").kind, ErrorKind::Compacted);
}

/// Pages at one revision are one view, whatever is written between them; `list` reads them all.
pub(super) async fn pages_under_writes(store: &dyn Store) {
    for number in 0..10 {
        put(store, &format!("k{number}"), "old").await;
    }
    let range = KeyRange::prefix(*b"k");
    let mut page = store.range(range.clone(), 3, None).await.expect("a range is answered");
    let mut seen = page.kvs.clone();
    while page.more {
        commit(store, Txn::new().then(Op::delete(&key(&format!("k{}", seen.len()))))).await;
        put(store, "k9", "new").await;
        put(store, "k00", "new").await;
        let rest = range.behind(&seen[seen.len() - 1].key);
        page = store.range(rest, 3, Some(page.revision)).await.expect("the revision is still kept");
        seen.extend(page.kvs.iter().cloned());
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.iter().all(|kv| *kv.value == *b"old"));

    for chunk in 0..=RANGE_KEYS_MAX / TXN_OPS_MAX {
        let name = |number| key(&format!("many/{chunk:03}{number:03}"));
        commit(store, Txn { then: (0..TXN_OPS_MAX).map(|n| Op::put(name(n), *b"")).collect(), ..Txn::new() })
            .await;
    }
    let total = RANGE_KEYS_MAX + TXN_OPS_MAX;
    let many = KeyRange::prefix(*b"many/");
    let page = store.range(many.clone(), usize::MAX, None).await.expect("a range is answered");
    assert!(page.more && page.kvs.len() <= RANGE_KEYS_MAX, "an answer is bounded");
    let (kvs, _) = list(store, many.clone(), total).await.expect("all pages are read");
    assert!(kvs.len() == total && kvs.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(list(store, many, total - 1).await.expect_err("one too many").kind, ErrorKind::Invalid);
}

pub(super) async fn delete_ranges(store: &dyn Store) {
    for name in ["a", "b1", "b2", "b3", "c"] {
        put(store, name, "v").await;
    }
    let before = put(store, "d", "v").await;
    let nothing = commit(store, Txn::new().then(Op::Delete(KeyRange::prefix(*b"x")))).await;
    assert_eq!(nothing.revision, before, "deleting nothing is no change");
    let txn = Txn::new()
        .then(Op::Delete(KeyRange::prefix(*b"b")))
        .then(Op::Delete(KeyRange::new(*b"b3", Some(b"c\0".to_vec()))))
        .then(Op::put(key("e"), *b"v"));
    let result = commit(store, txn).await;
    assert_eq!(result.revision, before.next(), "one transaction, one revision");
    assert_eq!(shown(store, KeyRange::all()).await, ["a=v", "d=v", "e=v"]);
    commit(store, Txn::new().then(Op::Delete(KeyRange::all()))).await;
    assert!(shown(store, KeyRange::all()).await.is_empty());
}

/// A revision for each change, none for what changes nothing; all of a transaction under one.
pub(super) async fn revisions(store: &dyn Store) {
    let empty = store.get(&key("a")).await.expect("a get is answered").revision;
    let txn = Txn::new().then(Op::put(key("a"), *b"1")).then(Op::put(key("b"), *b"1"));
    let result = commit(store, txn).await;
    assert_eq!(result.revision, empty.next());
    let page = store.range(KeyRange::all(), 10, None).await.expect("a range is answered");
    assert_eq!(page.revision, result.revision);
    assert!(page.kvs.iter().all(|kv| kv.mod_revision == result.revision));
    assert_eq!(
        commit(store, Txn::new()).await.revision,
        result.revision,
        "an empty transaction is no change"
    );
    let failed = Txn::new().when(Compare::absent(key("a"))).then(Op::put(key("a"), *b"2"));
    assert_eq!(commit(store, failed).await.revision, result.revision);
    assert_eq!(put(store, "a", "1").await, result.revision.next(), "the same value again is a change");
}

pub(super) async fn limits(store: &dyn Store) {
    let put_of = |bytes: usize| Op::put(key("a"), vec![7; bytes]);
    let many = |count: usize| (0..count).map(|n| Op::put(key(&format!("k{n:04}")), *b"")).collect::<Vec<_>>();
    let tests = |count: usize| vec![Compare::absent(key("none")); count];
    let half = |name: &str| Op::put(key(name), vec![7; TXN_BYTES_MAX / 2]);
    let allowed = [
        Txn::new().then(put_of(VALUE_BYTES_MAX)),
        Txn { then: many(TXN_OPS_MAX), otherwise: many(TXN_OPS_MAX), compares: tests(TXN_OPS_MAX) },
        Txn::new().then(Op::put(crate::Key::new([7; KEY_BYTES_MAX]).expect("the longest key"), *b"")),
        // The rule about touching a key twice is each branch's own.
        Txn::new().then(put_of(1)).or_else(put_of(1)),
    ];
    for txn in allowed {
        commit(store, txn).await;
    }
    let before = store.get(&key("a")).await.expect("a get is answered").revision;
    let refused = [
        Txn::new().then(put_of(VALUE_BYTES_MAX + 1)),
        Txn::new().when(Compare::present(key("none"))).then(put_of(1)).or_else(put_of(VALUE_BYTES_MAX + 1)),
        Txn { then: many(TXN_OPS_MAX + 1), ..Txn::new() },
        Txn { otherwise: many(TXN_OPS_MAX + 1), ..Txn::new() },
        Txn { compares: tests(TXN_OPS_MAX + 1), ..Txn::new() },
        Txn::new().then(half("a")).or_else(half("b")),
        Txn::new().then(put_of(1)).then(put_of(2)),
        Txn::new().then(Op::Delete(KeyRange::all())).then(put_of(1)),
        Txn::new().then(Op::Delete(KeyRange::new([7; KEY_BYTES_MAX + 2], None))),
    ];
    for (number, txn) in refused.into_iter().enumerate() {
        let error = store.txn(txn).await.expect_err("beyond a limit");
        assert_eq!(error.kind, ErrorKind::Invalid, "case {number}: {error}");
    }
    let unleased = Txn::new().then(Op::put(key("b"), *b"")).then(Op::put_leased(key("c"), *b"", LeaseId(1)));
    let error = store.txn(unleased).await.expect_err("no such lease");
    assert_eq!(error.kind, ErrorKind::LeaseNotFound);
    let after = store.get(&key("a")).await.expect("a get is answered").revision;
    assert_eq!(after, before, "what was refused changed nothing");
    answers_are_bounded_by_bytes(store).await;
}

async fn answers_are_bounded_by_bytes(store: &dyn Store) {
    let count = RANGE_BYTES_MAX / VALUE_BYTES_MAX + 1;
    for number in 0..count {
        let op = Op::put(key(&format!("z{number}")), vec![7; VALUE_BYTES_MAX]);
        commit(store, Txn::new().then(op)).await;
    }
    let page = store.range(KeyRange::prefix(*b"z"), 100, None).await.expect("a range is answered");
    let bytes: usize = page.kvs.iter().map(|kv| kv.value.len()).sum();
    assert!(page.more && bytes <= RANGE_BYTES_MAX && !page.kvs.is_empty(), "an answer is bounded by bytes");
}
