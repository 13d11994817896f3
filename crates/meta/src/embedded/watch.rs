//! A watch: a cursor into the history. It holds no event, so it cannot grow.

use std::sync::{Arc, RwLock};

use seam::BoxFuture;
use tokio::sync::watch::Receiver;

use crate::error::{Error, ErrorKind, Result};
use crate::history::Found;
use crate::key::KeyRange;
use crate::limits::WATCH_EVENTS_MAX;
use crate::state::State;
use crate::store::{Batch, Revision, Watch};

pub(super) struct Cursor {
    state: Arc<RwLock<State>>,
    applied: Receiver<Revision>,
    range: KeyRange,
    /// Everything up to here was given or does not concern the range.
    seen: Revision,
}

impl Cursor {
    pub(super) fn new(
        state: Arc<RwLock<State>>,
        applied: Receiver<Revision>,
        range: KeyRange,
        seen: Revision,
    ) -> Self {
        Self { state, applied, range, seen }
    }

    fn look(&self) -> Result<Found> {
        let state = self.state.read().expect("nothing panics while it changes the state");
        state.events(&self.range, self.seen, WATCH_EVENTS_MAX)
    }
}

impl Watch for Cursor {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            loop {
                match self.look()? {
                    Found::Events(batch) => {
                        self.seen = batch.revision;
                        return Ok(batch);
                    }
                    Found::Nothing(revision) => self.seen = revision,
                }
                // A revision applied after the look wakes us; one applied before it costs another look.
                let gone = |_| Error::new(ErrorKind::Stopped, "the store is gone");
                self.applied.changed().await.map_err(gone)?;
            }
        })
    }
}
