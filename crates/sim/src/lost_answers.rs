//! A metadata store whose answers are lost at times, as those of many servers are: what was asked for is done, or not, or
//! will be, and nobody says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::MetaThrough;
use meta::{
    Error, ErrorKind, Get, Key, KeyRange, Lease, LeaseId, Page, Result, Revision, Store, Txn, TxnResult,
    Watch,
};
use seam::{BoxFuture, Runtime};

use crate::executor::SimRuntime;
use crate::rng::Rng;

/// One transaction in so many has no answer.
const SHARE: u64 = 5;
/// What is late comes within so many milliseconds.
const LATE_MS: u64 = 400;

/// Has an engine use such a store.
pub fn lost_answers(rt: &Arc<SimRuntime>, rng: Rng) -> MetaThrough {
    let (rt, rng) = (rt.clone(), Arc::new(Mutex::new(rng)));
    MetaThrough(Arc::new(move |store| Arc::new(LostAnswers { store, rt: rt.clone(), rng: rng.clone() })))
}

struct LostAnswers {
    store: Arc<dyn Store>,
    rt: Arc<SimRuntime>,
    rng: Arc<Mutex<Rng>>,
}

impl LostAnswers {
    fn below(&self, count: u64) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).below(count)
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::Unknown, "the answer was lost")
}

impl Store for LostAnswers {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Get>> {
        self.store.get(key)
    }

    fn range(&self, range: KeyRange, limit: usize, at: Option<Revision>) -> BoxFuture<'_, Result<Page>> {
        self.store.range(range, limit, at)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        if self.below(SHARE) > 0 {
            return self.store.txn(txn);
        }
        Box::pin(async move {
            match self.below(3) {
                0 => {
                    // What failed did nothing, and says so.
                    self.store.txn(txn).await?;
                }
                1 => {}
                _ => {
                    let (store, rt) = (self.store.clone(), self.rt.clone());
                    let late = Duration::from_millis(self.below(LATE_MS));
                    let task = async move {
                        rt.sleep(late).await;
                        let _nobody_hears = store.txn(txn).await;
                    };
                    self.rt.spawn("a late transaction", Box::pin(task));
                }
            }
            Err(unknown())
        })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<Box<dyn Watch>>> {
        self.store.watch(range, from)
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease>> {
        self.store.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration>> {
        self.store.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        self.store.revoke(lease)
    }
}
