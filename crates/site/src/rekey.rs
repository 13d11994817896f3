//! The data key is rotated: a new one for what is written from now on, and what was written before is sealed anew.
//!
//! Order: the new key, wrapped, is on every medium before anything is sealed under it; the old ones leave the media
//! when nothing is left that needs them. Between the two a start finds both, and goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use data::Superblock;
use engine::{EngineError, Progress};
use seal::{EPOCHS_MAX, EpochKeys};

use crate::error::{ErrorKind, Result, SiteError};
use crate::keys::random_key;
use crate::running::{Shared, Site};
use crate::tasks::{Outcome, Task, TaskKind};

/// The site's data keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyState {
    /// The key epoch of what is written now; 1 is the site's first.
    pub current: u16,
    /// The oldest that something may still be sealed under.
    pub oldest: u16,
}

impl Site {
    /// The site's data keys.
    pub async fn key_state(&self) -> KeyState {
        let epochs = self.shared.keys.lock().await.epochs.clone();
        KeyState { current: epochs.newest(), oldest: epochs.oldest() }
    }

    /// Seals what is written from now on under a new data key, and begins to seal everything else anew.
    ///
    /// # Errors
    /// `media_down` while a medium is not there: it would not get the new key; `task_running` while an earlier rotation
    /// goes on; `too_many_key_epochs`.
    pub async fn rotate_key(&self) -> Result<Task> {
        let shared = &self.shared;
        if let Some(medium) =
            self.status().await?.media.iter().find(|medium| medium.state == crate::MediumState::Down)
        {
            let reason = format!("medium {} is down: it would not get the new key", medium.path.display());
            return Err(SiteError::new(ErrorKind::Unavailable, "media_down", reason)
                .hint("bring it back, or take it out of the site, then rotate"));
        }
        let message = "a new data key; what is there is sealed anew";
        let (task, progress) = shared.tasks.begin_work(TaskKind::Rekey, "site", message).await?;
        if let Err(error) = shared.add_key().await {
            let failed = EngineError { kind: engine::EngineErrorKind::Invalid, reason: error.reason.clone() };
            shared.tasks.end_work(task.id, Err(failed)).await?;
            return Err(error);
        }
        shared.reseal(task.id, progress);
        Ok(task)
    }
}

impl Shared {
    /// Goes on with a rotation that was interrupted.
    pub(crate) async fn rekey_when_due(self: &Arc<Self>) -> Result<()> {
        if !self.rekey_due.load(Ordering::Relaxed) || !self.parts.engine.is_writable() {
            return Ok(());
        }
        let message = "what is there is sealed anew, from where it was interrupted";
        match self.tasks.begin_work(TaskKind::Rekey, "site", message).await {
            Ok((task, progress)) => {
                self.rekey_due.store(false, Ordering::Relaxed);
                self.reseal(task.id, progress);
                Ok(())
            }
            Err(error) if matches!(error.code, "task_running" | "too_many_tasks") => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn reseal(self: &Arc<Self>, task: u64, progress: Arc<Progress>) {
        let shared = self.clone();
        let work = async move {
            shared.parts.engine.reseal(&progress).await?;
            let retired = shared.retire_keys().await;
            let failed =
                |error: SiteError| EngineError { kind: engine::EngineErrorKind::Busy, reason: error.reason };
            let retired = retired.map_err(failed)?;
            Ok(Outcome::default().count("keys_retired", retired))
        };
        self.clone().spawn_work(task, work);
    }

    /// Makes a new key, puts it on every medium, and seals with it from then on.
    pub(crate) async fn add_key(&self) -> Result<()> {
        let mut keys = self.keys.lock().await;
        let rt = &*self.parts.rt;
        let (secret, mut random) = (random_key(rt), [0; 12]);
        rt.fill_random(&mut random);
        let too_many = || {
            let reason = format!(
                "{EPOCHS_MAX} earlier keys are still in use, or too many were in use since the server started"
            );
            SiteError::new(ErrorKind::Conflict, "too_many_key_epochs", reason)
                .hint("let the running rotation end (`task list`), and start the server anew")
        };
        let epochs = keys.epochs.next(&self.parts.ring, &secret, &random).ok_or_else(too_many)?;
        let ring = epochs.open(&self.parts.ring).map_err(|error| {
            SiteError::new(ErrorKind::Failed, "internal", error.to_string()).hint("see the server's log")
        })?;
        let next = Superblock { epochs, generation: keys.generation + 1, ..keys.clone() };
        self.spread(&next).await?;
        // On all media: from here on it may be used.
        *keys = next;
        if !self.parts.engine.sealer().adopt(&ring) {
            return Err(too_many());
        }
        tracing::info!(epoch = keys.epochs.newest(), "a new data key");
        Ok(())
    }

    /// Takes all keys but the newest off the media; gives how many.
    async fn retire_keys(&self) -> Result<u64> {
        let mut keys = self.keys.lock().await;
        let retired = u64::from(keys.epochs.newest() - keys.epochs.oldest());
        let next = Superblock {
            epochs: keys.epochs.newest_alone(),
            generation: keys.generation + 1,
            ..keys.clone()
        };
        let ring = next.epochs.open(&self.parts.ring).map_err(|error| {
            SiteError::new(ErrorKind::Failed, "internal", error.to_string()).hint("see the server's log")
        })?;
        self.spread(&next).await?;
        *keys = next;
        if !self.parts.engine.sealer().adopt(&ring) {
            tracing::warn!("the earlier keys go with the next start");
        }
        Ok(retired)
    }

    /// Writes the keys of `like` onto every medium that is attached.
    async fn spread(&self, like: &Superblock) -> Result<()> {
        let home = &self.parts.home;
        for entry in home.manifest().media {
            let Some(own) = home.superblock(entry.id()).await? else { continue };
            home.write_superblock(entry.id(), with_keys(&own, like)).await?;
        }
        Ok(())
    }
}

/// A medium's superblock with the keys of another.
pub(crate) fn with_keys(own: &Superblock, like: &Superblock) -> Superblock {
    Superblock {
        keys: like.keys.clone(),
        epochs: like.epochs.clone(),
        generation: like.generation,
        ..own.clone()
    }
}

/// Whether a rotation was interrupted.
pub(crate) fn is_due(epochs: &EpochKeys) -> bool {
    epochs.oldest() < epochs.newest()
}
