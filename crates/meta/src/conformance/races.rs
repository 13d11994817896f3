//! Many writers at once.

use std::sync::Arc;

use seam::Rt;

use super::{at_once, commit, get, key, number, put, put_number};
use crate::key::KeyRange;
use crate::store::Store;
use crate::txn::{Compare, Op, Txn};

const TASKS: usize = 16;
const ROUNDS: usize = 20;

/// Of many that create the same key, exactly one succeeds, and its value stands.
pub(super) async fn create_if_absent(rt: Rt, store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        let name = format!("lock/{round}");
        let won = at_once(&rt, TASKS, |task| {
            let (store, name) = (store.clone(), key(&name));
            async move {
                let create = Op::put(name.clone(), task.to_string().as_bytes());
                commit(&*store, Txn::new().when(Compare::absent(name)).then(create)).await.succeeded
            }
        });
        let won = won.await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "one creator wins");
        let winner = won.iter().position(|won| *won).map(|task| task.to_string());
        let kv = get(&*store, &name).await.expect("the winner wrote");
        assert_eq!((Some(kv.value.to_vec()), kv.version), (winner.map(String::into_bytes), 1));
    }
}

/// Read, add one, compare and swap, again on conflict: no increment is lost and none is counted twice.
pub(super) async fn increments(rt: Rt, store: Arc<dyn Store>) {
    let all_have_read = Arc::new(tokio::sync::Barrier::new(TASKS));
    let conflicts = at_once(&rt, TASKS, |_| {
        let (store, all_have_read) = (store.clone(), all_have_read.clone());
        async move {
            let (mut conflicts, mut first) = (0_usize, true);
            for _ in 0..ROUNDS {
                loop {
                    let (count, unchanged) = number(&*store, "count").await;
                    seam::yield_now().await; // others get between the read and the swap
                    if std::mem::take(&mut first) {
                        all_have_read.wait().await; // of the first swaps all but one fail
                    }
                    let txn = Txn::new().when(unchanged).then(put_number("count", count + 1));
                    if commit(&*store, txn).await.succeeded {
                        break;
                    }
                    conflicts += 1;
                }
            }
            conflicts
        }
    });
    let conflicts: usize = conflicts.await.into_iter().sum();
    let kv = get(&*store, "count").await.expect("it was counted");
    assert_eq!(kv.version, (TASKS * ROUNDS) as u64, "each success was one put");
    assert_eq!(number(&*store, "count").await.0, (TASKS * ROUNDS) as u64, "no increment is lost");
    assert!(conflicts >= TASKS - 1, "the race took place");
}

/// Moves between two keys in one transaction; every range sees the same sum.
pub(super) async fn moves_keep_the_sum(rt: Rt, store: Arc<dyn Store>) {
    put(&*store, "s/a", "100").await;
    put(&*store, "s/b", "100").await;
    at_once(&rt, TASKS, |task| {
        let store = store.clone();
        async move {
            for _ in 0..ROUNDS {
                if task % 2 == 0 {
                    let (a, same_a) = number(&*store, "s/a").await;
                    let (b, same_b) = number(&*store, "s/b").await;
                    let txn =
                        Txn::new().when(same_a).when(same_b).then(put_number("s/a", a.saturating_sub(1)));
                    commit(&*store, txn.then(put_number("s/b", b + a.min(1)))).await;
                } else {
                    let page =
                        store.range(KeyRange::prefix(*b"s/"), 2, None).await.expect("a range is answered");
                    let value =
                        |at: usize| str::from_utf8(&page.kvs[at].value).ok().and_then(|v| v.parse().ok());
                    let sum = value(0).zip(value(1)).map(|(a, b): (u64, u64)| a + b);
                    assert_eq!(sum, Some(200), "a range saw half a transaction");
                    seam::yield_now().await;
                }
            }
        }
    })
    .await;
}
