//! Tests of the suite `etcd`.

mod cluster;
mod conformance;
mod failover;
mod full;
mod proxy;
mod tls;
mod unknown;
mod users;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use ::etcd::{Etcd, Options};
use meta::{Batch, Event, Key, KeyRange, KeyValue, Op, Result, Revision, Store, Txn, Watch};
use seam::Rt;
use tokio::sync::oneshot;

/// Longer than anything that is waited for here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on threads and the real clock.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Rt) -> F) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rt: Rt = Arc::new(seam::TokioRuntime::new(tokio.handle().clone()));
    tokio.block_on(test(rt));
}

/// Starts a task; the other end waits for its answer.
fn background<T: Send + 'static>(
    rt: &Rt,
    task: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (answer, answered) = oneshot::channel();
    let task = async move {
        let _ = answer.send(task.await); // nobody listens once the test has failed
    };
    rt.spawn("test", Box::pin(task));
    answered
}

/// A store at these endpoints, with little patience.
async fn store(rt: &Rt, endpoints: &[String], prefix: &str, deadline: Duration) -> Arc<Etcd> {
    let options = Options { deadline, ..Options::new(endpoints, prefix) };
    Arc::new(Etcd::connect(rt.clone(), options).await.unwrap())
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(name: &str, value: impl AsRef<[u8]>) -> Txn {
    Txn::new().then(Op::put(key(name), value.as_ref()))
}

async fn get(store: &dyn Store, name: &str) -> Option<KeyValue> {
    store.get(&key(name)).await.unwrap().kv
}

/// What a transaction that the store takes comes to.
async fn commit(store: &dyn Store, txn: Txn) -> Revision {
    let result = store.txn(txn).await.unwrap();
    assert!(result.succeeded);
    result.revision
}

/// The next events of a watch, which are due.
async fn next(rt: &Rt, watch: &mut dyn Watch) -> Result<Batch> {
    seam::timeout(&**rt, PATIENCE, watch.next()).await.expect("the event that is due comes")
}

/// The names of the next so many events.
async fn names(rt: &Rt, watch: &mut dyn Watch, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < count {
        names.extend(next(rt, watch).await.unwrap().events.iter().map(|event| match event {
            Event::Put(kv) => format!("{}={}", kv.key, kv.value.escape_ascii()),
            Event::Delete { key, .. } => format!("-{key}"),
        }));
    }
    names
}

/// Asks again until it holds.
async fn until(rt: &Rt, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = rt.now() + PATIENCE;
    while !holds().await {
        assert!(rt.now() < end, "{what} does not come to pass");
        rt.sleep(Duration::from_millis(20)).await;
    }
}

fn all(prefix: &str) -> KeyRange {
    KeyRange::prefix(prefix.as_bytes())
}
