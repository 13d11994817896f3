//! The witness of a simulated site: one small durable cell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::{Witness, WitnessError, WitnessState};
use seam::{BoxFuture, Rt};

use crate::rng::Rng;

/// How long a store takes at most.
const STORE_MAX: Duration = Duration::from_micros(400);

#[derive(Debug)]
struct Cell {
    durable: WitnessState,
    /// Stores that were not acknowledged yet, oldest first.
    on_the_way: Vec<WitnessState>,
    rng: Rng,
}

/// What a site keeps outside its media; outlives processes.
#[derive(Debug, Clone)]
pub(super) struct WitnessCell {
    cell: Arc<Mutex<Cell>>,
}

impl WitnessCell {
    pub(super) fn new(state: WitnessState, rng: Rng) -> Self {
        Self { cell: Arc::new(Mutex::new(Cell { durable: state, on_the_way: Vec::new(), rng })) }
    }

    fn lock(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process died: what was on the way happened or not.
    pub(super) fn crash(&self) {
        let mut cell = self.lock();
        for state in std::mem::take(&mut cell.on_the_way) {
            if cell.rng.coin() {
                cell.durable = state;
            }
        }
    }

    pub(super) fn state(&self) -> WitnessState {
        self.lock().durable.clone()
    }

    /// The witness as the process behind `rt` sees it.
    pub(super) fn open(&self, rt: Rt) -> SimWitness {
        SimWitness { cell: self.clone(), rt }
    }
}

/// A [`Witness`] on a [`WitnessCell`].
pub(super) struct SimWitness {
    cell: WitnessCell,
    rt: Rt,
}

impl Witness for SimWitness {
    fn load(&self) -> BoxFuture<'_, Result<WitnessState, WitnessError>> {
        Box::pin(async move { Ok(self.cell.state()) })
    }

    fn store(&self, state: WitnessState) -> BoxFuture<'_, Result<(), WitnessError>> {
        Box::pin(async move {
            let wait = {
                let mut cell = self.cell.lock();
                cell.on_the_way.push(state.clone());
                Duration::from_nanos(cell.rng.below(STORE_MAX.as_nanos() as u64))
            };
            self.rt.sleep(wait).await;
            let mut cell = self.cell.lock();
            cell.on_the_way.retain(|other| *other != state);
            cell.durable = state;
            Ok(())
        })
    }
}
