//! What an opening finds lost: named, and gone past as far as [`OnLoss`] says.
//!
//! A disk that never changes and stands on its own is a tree that its record names: whatever else is lost, it reads as it
//! was or not at all. Of all other disks the newest changes may be among what is lost, and nobody can tell of which: they
//! are **in doubt**.

use std::collections::BTreeSet;

use journal::{Recovered, Registered};
use proto::Transport;
use units::{DiskId, MediumId};

use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};

/// Losses named one by one; the others are counted.
const NAMED_MAX: usize = 16;

/// What to do when something that was acknowledged, or that leads to it, is on none of the media that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// The opening ends with [`EngineErrorKind::Lost`].
    Refuse,
    /// Reads only, and only of disks that are not in doubt; taken over when media come back with what was missing.
    Serve,
    /// Reads only, of all disks: those in doubt as far as they are known.
    ServeAll,
    /// What is lost is given up: the site goes on from what is left.
    Accept,
}

/// What was found lost so far.
#[derive(Debug)]
pub(crate) struct Losses {
    on_loss: OnLoss,
    named: Vec<String>,
    more: usize,
}

impl Losses {
    pub(crate) fn new(on_loss: OnLoss) -> Self {
        Self { on_loss, named: Vec::new(), more: 0 }
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// What is lost is given up, and the next opening shall not meet it again.
    pub(crate) fn are_accepted(&self) -> bool {
        self.on_loss == OnLoss::Accept
    }

    fn note(&mut self, what: String) {
        tracing::error!(what, "lost");
        if self.named.len() < NAMED_MAX {
            self.named.push(what);
        } else {
            self.more += 1;
        }
    }

    /// Notes a loss.
    ///
    /// # Errors
    /// The loss itself when it is to end the opening, and what is none.
    pub(crate) fn meet(&mut self, error: EngineError) -> Result<(), EngineError> {
        if error.kind != EngineErrorKind::Lost || self.on_loss == OnLoss::Refuse {
            return Err(error);
        }
        self.note(error.reason);
        Ok(())
    }

    /// Notes the loss of what all else stands on: there is nothing to go on from.
    ///
    /// # Errors
    /// As [`Losses::meet`], and where losses are accepted.
    pub(crate) fn meet_base(&mut self, error: EngineError) -> Result<(), EngineError> {
        if self.are_accepted() && error.kind == EngineErrorKind::Lost {
            let reason = format!("{}: without it nothing is known of any VM", error.reason);
            return Err(EngineError::new(EngineErrorKind::Lost, reason));
        }
        self.meet(error)
    }

    /// A value, or what stands for one that is lost.
    pub(crate) fn or_default<T: Default>(
        &mut self,
        result: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => self.meet(error).map(|()| T::default()),
        }
    }

    /// One sentence for each, and the number of those that are not named.
    fn list(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.named.iter().cloned().chain(more).collect()
    }

    /// What is in doubt of these disks, which the journal and the checkpoint tell of.
    pub(crate) fn doubt<'a>(&self, told: impl Iterator<Item = &'a DiskId>) -> Doubt {
        let is_kept_from = self.on_loss == OnLoss::Serve && !self.is_empty();
        let disks = if is_kept_from { told.copied().collect() } else { BTreeSet::new() };
        Doubt { lost: self.list(), disks }
    }

    /// Whether the site may be taken over with what was found.
    ///
    /// # Errors
    /// What is lost and not accepted.
    pub(crate) fn allow(&self) -> Result<(), EngineError> {
        if self.is_empty() || self.are_accepted() {
            return Ok(());
        }
        Err(EngineError::new(EngineErrorKind::Lost, format!("lost: {}", self.list().join("; "))))
    }
}

/// What the journal tells, or is left of it.
pub(crate) async fn recover(
    transport: &dyn Transport,
    media: &[MediumId],
    key: &[u8; 32],
    registered: &Registered,
    losses: &mut Losses,
) -> Result<Option<Recovered>, EngineError> {
    let error = match journal::recover(transport, media, key, registered).await {
        // A new site has lost nothing.
        Ok(None) if losses.are_accepted() => return Err(nothing_left("there is no journal")),
        Ok(recovered) => return Ok(recovered),
        Err(error) => EngineError::from(error),
    };
    let goes_on = match losses.on_loss {
        OnLoss::Refuse => false,
        // Media that are away may come back.
        OnLoss::Serve => error.kind == EngineErrorKind::Lost,
        OnLoss::ServeAll | OnLoss::Accept => true,
    };
    if !goes_on {
        return Err(error);
    }
    let (recovered, lost) = journal::salvage(transport, media, key, registered).await;
    if losses.are_accepted() && recovered.is_none() {
        return Err(nothing_left(&error.reason));
    }
    lost.into_iter().for_each(|lost| losses.note(lost));
    Ok(recovered)
}

/// To go on from nothing would be to begin a new site over what the old one left.
fn nothing_left(why: &str) -> EngineError {
    let reason = format!("{why}: nothing is left of the journal on these media, and nothing to go on from");
    EngineError::new(EngineErrorKind::Lost, reason)
}

/// What is known to be lost.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    lost: Vec<String>,
    /// Disks that are not read, for their newest changes may be lost.
    disks: BTreeSet<DiskId>,
}

impl Doubt {
    pub(crate) fn lost(&self) -> &[String] {
        &self.lost
    }

    /// # Errors
    /// `Lost` for a disk in doubt.
    pub(crate) fn check(&self, disk: DiskId) -> Result<(), EngineError> {
        if !self.disks.contains(&disk) {
            return Ok(());
        }
        let reason = format!(
            "disk {}: its newest writes may be among what is lost: {}",
            disk.0,
            self.lost.first().map_or("", String::as_str)
        );
        Err(EngineError::new(EngineErrorKind::Lost, reason))
    }
}

impl Engine {
    /// What the opening found lost, one sentence each; empty when nothing was.
    pub fn losses(&self) -> Vec<String> {
        self.shared.lock().doubt.lost.clone()
    }
}
