//! The data key is rotated: a new one for what is written from now on, and what was written before is sealed anew.
//!
//! Order: the new key, wrapped, is on every medium before anything is sealed under it; the old ones leave the media
//! when nothing is left that needs them. Between the two a start finds both, and goes on. What the media have locked for a
//! hold is not sealed anew before its time: the earlier keys stay until then, and what is left is done when it comes.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use api::types::{Keys, Task, TaskKind};
use api::{Error, PASSPHRASE_BYTES_MAX, Result, code, format_time};
use data::Superblock;
use engine::Progress;
use seal::{EPOCHS_MAX, EpochKeys};

use crate::running::{Shared, Site};
use machine::random_key;
use task::Outcome;

/// After this a rotation that failed is tried again: what stood in its way may be mended.
const AGAIN: Duration = Duration::from_secs(3600);

/// What is to be done of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rekey {
    /// Nothing, or it is at work.
    Idle,
    /// It goes on now.
    Due,
    /// It goes on at this site time in ms: held data may be sealed anew then.
    Held(u64),
    /// It is tried again at this site time in ms.
    Again(u64),
}

impl Site {
    /// Has another passphrase open the site from now on: the keys are wrapped anew on every medium, and the one before opens
    /// nothing any more. Cut off half-way, the new one opens the site where a medium has it; the next start brings the others
    /// up to date.
    ///
    /// # Errors
    /// `no_passphrase` for a site with a key file; `key_wrong` when `current` does not open it; `passphrase_missing` when
    /// the new one is empty; `invalid_request` when it is too long; `media_down` while a medium is not there: the one before
    /// would go on to open it.
    pub async fn change_passphrase(&self, current: Vec<u8>, new: Vec<u8>) -> Result<()> {
        if new.is_empty() {
            return Err(
                Error::new(code::PASSPHRASE_MISSING, "the new passphrase is empty").hint("choose one")
            );
        }
        if new.len() > PASSPHRASE_BYTES_MAX {
            let reason = format!("a passphrase has at most {PASSPHRASE_BYTES_MAX} bytes");
            return Err(Error::new(code::INVALID_REQUEST, reason).hint("choose a shorter one"));
        }
        self.check_all_up("the passphrase before would go on to open it").await?;
        let shared = &self.shared;
        let mut keys = shared.keys.lock().await;
        if !keys.keys.wants_passphrase() {
            let reason = "this site is opened by its key file, not by a passphrase";
            return Err(Error::new(code::NO_PASSPHRASE, reason));
        }
        let mut random = [0; 28];
        shared.parts.rt.fill_random(&mut random);
        let (wrapped, ring) = (keys.keys.clone(), shared.parts.ring.clone());
        let (answer, answered) = tokio::sync::oneshot::channel();
        // Each derivation takes a tenth of a second.
        let derive = move || {
            let opened = wrapped.unwrap_with_passphrase(&current);
            let _ = answer.send(opened.and_then(|_| wrapped.with_passphrase(&ring, &new, &random)));
        };
        shared.parts.rt.spawn_blocking("passphrase", Box::new(derive));
        let derived = answered
            .await
            .map_err(|_| Error::new(code::INTERNAL, "the key of the passphrase was not derived"))?;
        let next = derived.map_err(|error| {
            Error::new(code::KEY_WRONG, error.to_string()).hint("give the current passphrase")
        })?;
        let next = Superblock { keys: next, generation: keys.generation + 1, ..keys.clone() };
        shared.spread(&next).await?;
        *keys = next;
        tracing::info!("the passphrase was changed");
        Ok(())
    }

    /// The site's data keys.
    pub async fn keys(&self) -> Keys {
        let epochs = self.shared.keys.lock().await.epochs.clone();
        let held_until_ms = match *self.shared.rekey() {
            Rekey::Held(until_ms) if is_due(&epochs) => Some(until_ms),
            _ => None,
        };
        Keys { current_epoch: epochs.newest(), oldest_epoch: epochs.oldest(), held_until_ms }
    }

    /// Seals what is written from now on under a new data key, and begins to seal everything else anew.
    ///
    /// # Errors
    /// `media_down` while a medium is not there: it would not get the new key; `task_running` while an earlier rotation
    /// goes on; `too_many_key_epochs`.
    pub async fn rotate_key(&self) -> Result<Task> {
        let shared = &self.shared;
        self.check_all_up("it would not get the new key").await?;
        let message = "a new data key; what is there is sealed anew";
        let (task, progress) = shared.tasks.begin_work(TaskKind::Rekey, "site", message).await?;
        if let Err(error) = shared.add_key().await {
            shared.tasks.end_work(task.id, Err(error.clone())).await?;
            return Err(error);
        }
        shared.reseal(task.id, progress);
        Ok(task)
    }

    /// Requires that every medium is there: `else_what` says what would become of one that is not.
    async fn check_all_up(&self, else_what: &str) -> Result<()> {
        let media = self.status().await?.media;
        let Some(medium) = media.iter().find(|medium| medium.state == api::types::MediumState::Down) else {
            return Ok(());
        };
        let reason = format!("medium {} is down: {else_what}", medium.path);
        Err(Error::new(code::MEDIA_DOWN, reason)
            .hint("bring it back, or take it out of the site, then try again"))
    }
}

impl Shared {
    fn rekey(&self) -> MutexGuard<'_, Rekey> {
        // A plain value.
        self.rekey.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with a rotation that was interrupted, or waited for the end of a hold.
    pub(crate) async fn rekey_when_due(self: &Arc<Self>) -> Result<()> {
        let engine = &self.parts.engine;
        let is_due = match *self.rekey() {
            Rekey::Idle => false,
            Rekey::Due => true,
            Rekey::Held(at_ms) | Rekey::Again(at_ms) => at_ms <= engine.site_time_ms(),
        };
        // Until all is indexed nobody knows what is left.
        if !is_due || !engine.is_writable() || engine.is_indexing() {
            return Ok(());
        }
        if let Some(kept) = engine.reseal_waits_for().await? {
            *self.rekey() = Rekey::Held(kept.until_ms);
            return Ok(());
        }
        let message = "what is there is sealed anew, from where it was interrupted";
        match self.tasks.begin_work(TaskKind::Rekey, "site", message).await {
            Ok((task, progress)) => {
                *self.rekey() = Rekey::Idle;
                self.reseal(task.id, progress);
                Ok(())
            }
            Err(error) if matches!(error.code, code::TASK_RUNNING | code::TOO_MANY_TASKS) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn reseal(self: &Arc<Self>, task: u64, progress: Arc<Progress>) {
        let shared = self.clone();
        let work = async move {
            let done = shared.seal_anew(&progress).await;
            let again_ms = shared.parts.engine.site_time_ms() + AGAIN.as_millis() as u64;
            match &done {
                Err(error) if error.code != code::TASK_ENDED => {
                    *shared.rekey() = Rekey::Again(again_ms);
                }
                _ => {}
            }
            done
        };
        self.clone().spawn_work(task, work);
    }

    async fn seal_anew(&self, progress: &Progress) -> Result<Outcome> {
        if let Some(kept) = self.parts.engine.reseal(progress).await? {
            *self.rekey() = Rekey::Held(kept.until_ms);
            let until = format_time(kept.until_ms);
            let said = format!(
                "what is written from now on is sealed under the new key, and what was there anew, but for held data: the \
                 earlier keys stay for it until {until}, and go then by themselves"
            );
            return Ok(Outcome::said(said)
                .count("keys_retired", 0)
                .count("containers_held", kept.containers));
        }
        let retired = self.retire_keys().await?;
        *self.rekey() = Rekey::Idle;
        Ok(Outcome::default().count("keys_retired", retired))
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
            Error::new(code::TOO_MANY_KEY_EPOCHS, reason)
                .hint("let the running rotation end (`task list`), or the holds that the earlier keys stay for (`key show`); then start the server anew")
        };
        let epochs = keys.epochs.next(&self.parts.ring, &secret, &random).ok_or_else(too_many)?;
        let ring = epochs
            .open(&self.parts.ring)
            .map_err(|error| Error::new(code::INTERNAL, error.to_string()).hint("see the server's log"))?;
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
        let ring = next
            .epochs
            .open(&self.parts.ring)
            .map_err(|error| Error::new(code::INTERNAL, error.to_string()).hint("see the server's log"))?;
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
            home.write_superblock(entry.id(), machine::with_keys(&own, like)).await?;
        }
        Ok(())
    }
}

/// Whether a rotation was interrupted.
pub(crate) fn is_due(epochs: &EpochKeys) -> bool {
    epochs.oldest() < epochs.newest()
}
