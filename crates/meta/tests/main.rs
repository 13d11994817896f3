//! The metadata store as its users see it: the conformance suite on each store, persistence, rebuild after crashes.
#![allow(clippy::unwrap_used)] // what fails here fails the test

mod clock;
mod crash;
mod embedded;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::virtually;
use meta::conformance::{self, Factory};
use meta::{Embedded, Options, Persist, PersistError, Store};
use seam::{BoxFuture, Rt};

/// A journal in RAM. Each record takes a moment to become durable, so that others run meanwhile.
struct Journal {
    rt: Rt,
    records: Mutex<Vec<Vec<u8>>>,
}

impl Journal {
    fn new(rt: Rt) -> Arc<Self> {
        Arc::new(Self { rt, records: Mutex::default() })
    }

    fn records(&self) -> Vec<Vec<u8>> {
        self.records.lock().unwrap().clone()
    }
}

impl Persist for Journal {
    fn persist(&self, record: Vec<u8>) -> BoxFuture<'_, Result<(), PersistError>> {
        Box::pin(async move {
            self.rt.sleep(Duration::from_micros(50)).await;
            self.records.lock().unwrap().push(record);
            Ok(())
        })
    }
}

const BOUNDS: Options = Options {
    history_events: 3000,
    history_bytes: 32 << 20,
    state_bytes: 1 << 30,
    record_bytes: meta::RECORD_BYTES_MAX,
    keys_per_chunk: 16,
};

/// Makes stores in RAM, or stores over a [`Journal`].
struct Stores {
    rt: Rt,
    journal: bool,
}

impl Factory for Stores {
    fn rt(&self) -> Rt {
        self.rt.clone()
    }

    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async move {
            let rt = self.rt.clone();
            let store = if self.journal {
                let none: [&[u8]; 0] = [];
                Embedded::restore(rt.clone(), Journal::new(rt), BOUNDS, None, none).unwrap()
            } else {
                Embedded::in_memory(rt, BOUNDS)
            };
            Arc::new(store) as Arc<dyn Store>
        })
    }

    fn forget<'a>(&'a self, store: &'a dyn Store) -> BoxFuture<'a, ()> {
        Box::pin(conformance::churn(store, BOUNDS.history_events + 1))
    }
}

#[test]
fn the_memory_store_conforms() {
    virtually(async |rt| conformance::run(&Stores { rt, journal: false }).await);
}

#[test]
fn the_embedded_store_conforms() {
    virtually(async |rt| conformance::run(&Stores { rt, journal: true }).await);
}

/// On real threads: other interleavings.
#[test]
fn the_memory_store_conforms_on_threads() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let rt: Rt = Arc::new(seam::TokioRuntime::new(tokio.handle().clone()));
    tokio.block_on(conformance::run_untimed(&Stores { rt, journal: false }));
}
