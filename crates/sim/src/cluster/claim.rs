//! What compute nodes claim the site with: one durable cell of the metadata store, changed by compare and swap.
//!
//! Requests cross a network: what is asked while the store is away is lost, or done when it is back, whatever has become of
//! who asked; an answer may be lost behind a change that was made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::{Witness, WitnessError, WitnessErrorKind, WitnessState};
use seam::{BoxFuture, Rt, Runtime};
use tokio::sync::oneshot;
use units::Epoch;

use crate::executor::{Control, SimRuntime};
use crate::rng::Rng;

/// How long a request takes at most each way, where the store is well.
const WAY_MAX: Duration = Duration::from_millis(2);
/// How often a request that is kept looks whether the store is back.
const LOOK: Duration = Duration::from_millis(50);
/// No answer within this time counts as none.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often a handle swaps over what stores of its own have left that it heard nothing of.
const SWAPS_MAX: usize = 4;

#[derive(Debug)]
struct Cell {
    state: WitnessState,
    /// Counts changes.
    revision: u64,
    away: bool,
    way_max: Duration,
    rng: Rng,
}

/// The cell; outlives processes.
#[derive(Debug, Clone)]
pub struct ClaimCell {
    cell: Arc<Mutex<Cell>>,
    world: Arc<SimRuntime>,
}

impl ClaimCell {
    pub(super) fn new(control: &Control) -> Self {
        let rng = control.rng("claim");
        let cell = Cell { state: WitnessState::default(), revision: 0, away: false, way_max: WAY_MAX, rng };
        Self { cell: Arc::new(Mutex::new(cell)), world: control.world() }
    }

    fn lock(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody answers from now on, or somebody does again.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Every request is answered soon from now on.
    pub fn set_well(&self) {
        self.set_away(false);
        self.set_slow(None);
    }

    /// How long a request takes at most each way; as when the store is well when `None`.
    pub fn set_slow(&self, way_max: Option<Duration>) {
        self.lock().way_max = way_max.unwrap_or(WAY_MAX);
    }

    /// The cell now.
    pub fn state(&self) -> WitnessState {
        self.lock().state.clone()
    }

    pub(super) fn open(&self, rt: Rt) -> Claim {
        Claim { cell: self.clone(), rt, seen: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    async fn way(&self) {
        let wait = {
            let mut cell = self.lock();
            let most = cell.way_max.as_nanos() as u64;
            Duration::from_nanos(cell.rng.below(most))
        };
        self.world.sleep(wait).await;
    }

    /// One request on its way; drops `answer` when none comes.
    async fn serve<T>(self, what: impl FnOnce(&mut Cell) -> T, answer: oneshot::Sender<T>) {
        self.way().await;
        let is_lost = {
            let mut cell = self.lock();
            cell.away && cell.rng.coin()
        };
        if is_lost {
            // Nobody tells its sender.
            return self.world.sleep(DEADLINE).await;
        }
        while self.lock().away {
            self.world.sleep(LOOK).await;
        }
        let done = what(&mut self.lock());
        self.way().await;
        if !self.lock().away {
            // Whoever asked may be gone.
            let _ = answer.send(done);
        }
    }
}

/// What a handle last read or wrote.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    revision: u64,
    epoch: Epoch,
}

/// The cell as one compute node sees it.
pub(super) struct Claim {
    cell: ClaimCell,
    rt: Rt,
    seen: Mutex<Seen>,
    /// Stores come one after the other.
    turn: tokio::sync::Mutex<()>,
}

impl Claim {
    async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Cell) -> T + Send + 'static,
    ) -> Result<T, WitnessError> {
        let (sender, answer) = oneshot::channel();
        self.cell.world.spawn("request for the claim", Box::pin(self.cell.clone().serve(what, sender)));
        match seam::timeout(&*self.rt, DEADLINE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(seam::Elapsed) => {
                let reason = "the metadata store does not answer".to_owned();
                Err(WitnessError { kind: WitnessErrorKind::Unanswered, reason })
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `state` in the place of what was seen; or gives what stands there instead.
    async fn swap(&self, state: &WitnessState) -> Result<Result<(), Seen>, WitnessError> {
        let (seen, next) = (*self.seen(), state.clone());
        let epoch = state.epoch;
        let swapped = self.ask(move |cell| {
            if cell.revision != seen.revision {
                return Err(Seen { revision: cell.revision, epoch: cell.state.epoch });
            }
            cell.state = next;
            cell.revision += 1;
            Ok(Seen { revision: cell.revision, epoch })
        });
        Ok(swapped.await?.map(|now| *self.seen() = now))
    }
}

impl Witness for Claim {
    fn load(&self) -> BoxFuture<'_, Result<WitnessState, WitnessError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let (state, revision) = self.ask(|cell| (cell.state.clone(), cell.revision)).await?;
            *self.seen() = Seen { revision, epoch: state.epoch };
            Ok(state)
        })
    }

    fn store(&self, state: WitnessState) -> BoxFuture<'_, Result<(), WitnessError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            for _ in 0..SWAPS_MAX {
                let Err(there) = self.swap(&state).await? else { return Ok(()) };
                // The epoch is this handle's alone once its first store was answered.
                let is_own = there.epoch == state.epoch && self.seen().epoch == state.epoch;
                if !is_own {
                    let reason = "another incarnation has claimed the site".to_owned();
                    return Err(WitnessError { kind: WitnessErrorKind::Superseded, reason });
                }
                *self.seen() = there;
            }
            let reason = "stores that were not answered get in the way".to_owned();
            Err(WitnessError { kind: WitnessErrorKind::Unanswered, reason })
        })
    }
}
