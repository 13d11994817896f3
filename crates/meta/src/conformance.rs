//! What every metadata store must do, as cases that panic when it does not. For tests of this and other crates.
//!
//! [`run`] takes a [`Factory`] and runs all cases, each on an empty store. The cases use only the trait; time passes on
//! the factory's runtime, so a virtual clock makes the lease cases instant. Limits are those of this crate.

mod keys;
mod leases;
mod races;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use seam::{BoxFuture, Rt};

use crate::error::Result;
use crate::key::{Key, KeyRange};
use crate::store::{Batch, Event, KeyValue, Revision, Store, Watch};
use crate::txn::{Compare, Op, Txn, TxnResult};

/// Makes the stores under test.
pub trait Factory: Sync {
    /// The runtime the stores live on.
    fn rt(&self) -> Rt;
    /// A new, empty store.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>>;
    /// Makes the store forget the history it has now: etcd is told to compact, the embedded store is overrun by
    /// [`churn`].
    fn forget<'a>(&'a self, store: &'a dyn Store) -> BoxFuture<'a, ()>;
}

/// Runs every case.
///
/// # Panics
/// When the store breaks a promise of [`Store`].
pub async fn run(factory: &dyn Factory) {
    run_untimed(factory).await;
    leases::expiry(factory.rt(), &*factory.open().await).await;
    leases::keep_alive(factory.rt(), &*factory.open().await).await;
    leases::revoke(&*factory.open().await).await;
    leases::detached_keys_stay(factory.rt(), &*factory.open().await).await;
    leases::bounds(&*factory.open().await).await;
}

/// Runs every case but those of leases: what a real clock on a busy machine cannot upset.
///
/// # Panics
/// When the store breaks a promise of [`Store`].
pub async fn run_untimed(factory: &dyn Factory) {
    keys::put_get_delete(&*factory.open().await).await;
    keys::compares(&*factory.open().await).await;
    keys::range_order_and_limits(&*factory.open().await).await;
    keys::range_at_a_revision(factory, &*factory.open().await).await;
    keys::pages_under_writes(&*factory.open().await).await;
    keys::delete_ranges(&*factory.open().await).await;
    keys::revisions(&*factory.open().await).await;
    keys::limits(&*factory.open().await).await;
    races::create_if_absent(factory.rt(), factory.open().await).await;
    races::increments(factory.rt(), factory.open().await).await;
    races::moves_keep_the_sum(factory.rt(), factory.open().await).await;
    watches::each_event_once(factory.rt(), &*factory.open().await).await;
    watches::under_writes(factory.rt(), factory.open().await).await;
    watches::lagging(factory, &*factory.open().await).await;
    watches::dropped_wait(factory.rt(), &*factory.open().await).await;
}

/// Changes a key of its own `times` times.
///
/// # Panics
/// When the store refuses.
pub async fn churn(store: &dyn Store, times: usize) {
    for _ in 0..times {
        put(store, "churn", "x").await;
    }
}

fn key(text: &str) -> Key {
    Key::new(text).expect("cases use keys within the limit")
}

async fn commit(store: &dyn Store, txn: Txn) -> TxnResult {
    store.txn(txn).await.expect("the transaction is taken")
}

async fn put(store: &dyn Store, name: &str, value: &str) -> Revision {
    commit(store, Txn::new().then(Op::put(key(name), value.as_bytes()))).await.revision
}

async fn get(store: &dyn Store, name: &str) -> Option<KeyValue> {
    store.get(&key(name)).await.expect("a get is answered").kv
}

/// Names and values of a range, as `name=value`.
async fn shown(store: &dyn Store, range: KeyRange) -> Vec<String> {
    let page = store.range(range, 1000, None).await.expect("a range is answered");
    page.kvs.iter().map(show).collect()
}

fn show(kv: &KeyValue) -> String {
    format!("{}={}", kv.key, kv.value.escape_ascii())
}

/// Waits for a watch, but not for ever: what must come comes long before.
async fn next(rt: &Rt, watch: &mut dyn Watch) -> Result<Batch> {
    let patience = Duration::from_secs(60);
    seam::timeout(&**rt, patience, watch.next()).await.expect("the event that is due comes")
}

/// An event as `name=value` or `-name`.
fn show_event(event: &Event) -> String {
    match event {
        Event::Put(kv) => show(kv),
        Event::Delete { key, .. } => format!("-{key}"),
    }
}

/// Reads a number kept in decimal, and the compare that holds while it stays.
async fn number(store: &dyn Store, name: &str) -> (u64, Compare) {
    match get(store, name).await {
        None => (0, Compare::absent(key(name))),
        Some(kv) => {
            let text = str::from_utf8(&kv.value).expect("the cases write decimal");
            (text.parse().expect("the cases write decimal"), Compare::unchanged(kv.key, kv.mod_revision))
        }
    }
}

fn put_number(name: &str, number: u64) -> Op {
    Op::put(key(name), number.to_string().as_bytes())
}

/// Starts tasks made by `task` on the runtime; the future waits for all their answers.
fn at_once<T, F>(rt: &Rt, tasks: usize, task: impl Fn(usize) -> F) -> impl Future<Output = Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut answers = Vec::new();
    for number in 0..tasks {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let running = task(number);
        rt.spawn(
            "conformance",
            Box::pin(async move {
                let _ = answer.send(running.await); // nobody listens once the case has failed
            }),
        );
        answers.push(answered);
    }
    async move {
        let answers = seam::join_all(answers).await;
        answers.into_iter().map(|answer| answer.expect("no task of the case failed")).collect()
    }
}
