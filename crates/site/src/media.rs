//! Media that join and leave while the site runs.
//!
//! ```text
//!  add      superblock on the medium ─ site.json ─ the engine uses it ─ the others' superblocks count it
//!  drain    site.json: leaving ─ the engine moves what it holds ─ its superblock: released ─ the engine forgets it
//!           ─ site.json without it ─ the others' superblocks
//! ```
//! `site.json` says who is a member, so each step that it does not show yet is done again or not at all: a medium that was
//! formatted and is not in it is free for another attempt; one that is leaving goes on leaving at the next start, also
//! when its superblock says already that it has left. Counts in superblocks are mended at each start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use data::{Layout, OpenErrorKind, Params, Superblock};
use engine::{EngineError, EngineErrorKind, Progress};
use media::Medium;
use units::{MediumId, PAGE};

use crate::directory;
use crate::error::{ErrorKind, Result, SiteError};
use crate::manifest::{Entry, MEDIA_MAX, Manifest};
use crate::media_set::{self, Found, check_free, medium_error};
use crate::probe::open_path;
use crate::running::{Shared, Site};
use crate::start::shared_devices;
use crate::tasks::{Outcome, Task, TaskKind};

/// Pause between looks at how far a drain or rebuild is.
const LOOK: Duration = Duration::from_millis(500);

impl Site {
    /// A medium of the site by its id, 32 hex digits.
    ///
    /// # Errors
    /// `medium_not_found`.
    pub fn medium_id(&self, id: &str) -> Result<MediumId> {
        let ids = self.shared.parts.manifest().ids();
        ids.into_iter().find(|known| known.to_string() == id).ok_or_else(|| not_found(id))
    }

    /// Formats a medium and takes it into the site; with `file_bytes` the file is made first. The geometry of what is
    /// stored grows by itself where more media allow it.
    ///
    /// # Errors
    /// `media_count`; `medium_in_use` when the site has it already; what a medium of a new site can meet
    /// (`medium_missing`, `medium_not_empty`, `foreign_medium`, `medium_too_small`, `no_space`).
    pub async fn add_medium(&self, path: &Path, file_bytes: Option<u64>) -> Result<MediumId> {
        let _turn = self.shared.media_turn.lock().await;
        self.shared.take_in(path, file_bytes, None).await
    }

    /// Moves everything off a medium and then lets go of it. When the task is cancelled the medium stays.
    ///
    /// # Errors
    /// `medium_not_found`; `medium_needed` when the others could not keep all safe; `task_running`.
    pub async fn drain_medium(&self, medium: MediumId) -> Result<Task> {
        let _turn = self.shared.media_turn.lock().await;
        self.shared.check_member(medium)?;
        self.shared.check_leave(medium).await?;
        self.shared.begin_drain(medium, true).await
    }

    /// Takes a medium into the site in the place of another, which is drained; one that is down is rebuilt at once.
    ///
    /// # Errors
    /// As for both; a medium that was taken in stays.
    pub async fn replace_medium(&self, old: MediumId, path: &Path, file_bytes: Option<u64>) -> Result<Task> {
        let _turn = self.shared.media_turn.lock().await;
        self.shared.check_member(old)?;
        self.shared.tasks.check_idle(TaskKind::Drain)?;
        self.shared.take_in(path, file_bytes, Some(old)).await?;
        self.shared.check_leave(old).await?;
        self.shared.begin_drain(old, true).await
    }
}

impl Shared {
    fn check_member(&self, medium: MediumId) -> Result<()> {
        if self.parts.manifest().ids().contains(&medium) {
            return Ok(());
        }
        Err(not_found(&medium.to_string()))
    }

    async fn check_leave(&self, medium: MediumId) -> Result<()> {
        self.parts.engine.check_leave(medium).await.map_err(|error| match error.kind {
            EngineErrorKind::TooFewMedia | EngineErrorKind::NoSpace => {
                SiteError::new(ErrorKind::Conflict, "medium_needed", error.reason)
                    .hint("`media add` a medium first, or put another in its place: `media replace`")
            }
            _ => error.into(),
        })
    }

    async fn take_in(
        self: &Arc<Self>,
        path: &Path,
        file_bytes: Option<u64>,
        behind: Option<MediumId>,
    ) -> Result<MediumId> {
        let path = std::path::absolute(path).map_err(|error| SiteError::file(path, &error))?;
        let manifest = self.parts.manifest();
        if manifest.media.len() >= MEDIA_MAX {
            let reason = format!("the site has {MEDIA_MAX} media, the most there can be");
            return Err(SiteError::invalid("media_count", reason));
        }
        if manifest.media.iter().any(|entry| self.parts.directory.resolve(&entry.path) == path) {
            return Err(in_use(&path.display().to_string()));
        }
        self.parts.engine.check_writable()?;
        check_file_size(file_bytes)?;
        let opened = open_path(self, path.clone(), file_bytes).await;
        let medium = opened.map_err(|error| medium_error(&error))?;
        let taken = self.take_in_opened(&path, medium, &manifest, file_bytes.is_some(), behind).await;
        if taken.is_err() && file_bytes.is_some() {
            // Nothing of it is in site.json.
            let _ = directory::remove(&path);
        }
        taken
    }

    async fn take_in_opened(
        &self,
        path: &Path,
        medium: Arc<dyn Medium>,
        manifest: &Manifest,
        made: bool,
        behind: Option<MediumId>,
    ) -> Result<MediumId> {
        self.check_unused(&*medium).await?;
        // Held until it is attached: a key that comes meanwhile goes to it too.
        let mut keys = self.keys.lock().await;
        let keys_from = keys.clone();
        let mut id = [0; 16];
        self.parts.rt.fill_random(&mut id);
        let id = MediumId(id);
        let bytes = medium.len();
        let superblock = Superblock {
            generation: keys_from.generation + 1,
            medium: id,
            medium_bytes: bytes,
            params: params_for(&keys_from, bytes),
            // At most MEDIA_MAX.
            media: manifest.media.len() as u16 + 1,
            released: false,
            ..keys_from
        };
        data::format(&*medium, &superblock).await.map_err(|error| match error.kind {
            OpenErrorKind::NoSpace => SiteError::new(ErrorKind::NoSpace, "no_space", error.to_string()),
            OpenErrorKind::TooSmall => SiteError::invalid("medium_too_small", error.to_string()),
            _ => SiteError::new(ErrorKind::Failed, "medium_error", error.to_string()),
        })?;
        let found = Found { id, medium, superblock: superblock.clone() };
        let broken = |reason: String| SiteError::new(ErrorKind::Failed, "medium_error", reason);
        let node = media_set::node(&found, &superblock).await.map_err(broken)?;
        let mut next = manifest.clone();
        let place = path.strip_prefix(self.parts.directory.root()).unwrap_or(path);
        let at = behind.and_then(|behind| next.media.iter().position(|entry| entry.id() == behind));
        next.media.insert(at.map_or(next.media.len(), |at| at + 1), Entry::new(id, place, bytes, made));
        self.set_manifest(next)?;
        self.parts.transport.attach(Arc::new(node));
        self.parts.engine.add_medium(id, behind);
        tracing::info!(medium = %id, path = %path.display(), bytes, "a medium has joined");
        self.spread_count(&mut keys, superblock).await;
        Ok(id)
    }

    /// Refuses a medium that holds something. What an attempt before left on it, or what has left the site, does not
    /// count.
    async fn check_unused(&self, medium: &dyn Medium) -> Result<()> {
        let known = media_set::peek(medium).await.map_err(|error| medium_error(&error))?;
        let Some(superblock) = known.filter(|found| found.site == self.parts.manifest().site()) else {
            return check_free(medium, None).await;
        };
        let rows = self.parts.engine.pool().rows();
        let is_named = rows.iter().any(|row| row.members.contains(&superblock.medium));
        if is_named || self.parts.manifest().ids().contains(&superblock.medium) {
            return Err(in_use(medium.name()));
        }
        Ok(())
    }

    fn set_manifest(&self, next: Manifest) -> Result<()> {
        directory::replace(&self.parts.directory.manifest(), &next.encode()?)?;
        let shared = shared_devices(&self.parts.directory, &next);
        *self.parts.shared_devices.lock().unwrap_or_else(PoisonError::into_inner) = shared;
        *self.parts.manifest.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn set_leaving(&self, medium: MediumId, leaving: bool) -> Result<()> {
        let mut next = self.parts.manifest();
        next.media.iter_mut().filter(|entry| entry.id() == medium).for_each(|entry| entry.leaving = leaving);
        self.set_manifest(next)?;
        self.parts.engine.set_leaving(medium, leaving);
        Ok(())
    }

    /// Tells the media that are there how many there are. What one does not hear it hears at the next start.
    async fn spread_count(&self, keys: &mut Superblock, like: Superblock) {
        *keys = like.clone();
        for id in self.parts.manifest().ids() {
            let Some(node) = self.parts.transport.medium(id) else { continue };
            let medium = node.medium();
            let Ok(Some(superblock)) = media_set::peek(&**medium).await else { continue };
            let mut found = Found { id, medium: medium.clone(), superblock };
            if let Err(error) = media_set::with_keys_of(&mut found, &like).await {
                tracing::warn!(%error, "a superblock does not tell how many media there are now");
            }
        }
    }

    /// Begins to move everything off a medium; with `new` it is marked first.
    async fn begin_drain(self: &Arc<Self>, medium: MediumId, new: bool) -> Result<Task> {
        let path = self.path_of(medium);
        let message = if new { "all that it holds moves to the others" } else { "goes on behind a restart" };
        let target = path.display().to_string();
        let (task, progress) = self.tasks.begin_work(TaskKind::Drain, &target, message).await?;
        let marked = if new { self.set_leaving(medium, true) } else { Ok(()) };
        let shared = self.clone();
        self.clone().spawn_work(task.id, async move {
            if let Err(error) = marked {
                return Err(EngineError { kind: EngineErrorKind::Invalid, reason: error.reason });
            }
            *shared.draining.lock().unwrap_or_else(PoisonError::into_inner) = true;
            let drained = shared.drain(medium, &progress).await;
            *shared.draining.lock().unwrap_or_else(PoisonError::into_inner) = false;
            drained
        });
        Ok(task)
    }

    fn path_of(&self, medium: MediumId) -> PathBuf {
        let manifest = self.parts.manifest();
        let entry = manifest.media.iter().find(|entry| entry.id() == medium);
        entry.map_or_else(PathBuf::new, |entry| self.parts.directory.resolve(&entry.path))
    }

    /// Waits until a medium is empty, and lets go of it.
    async fn drain(
        &self,
        medium: MediumId,
        progress: &Progress,
    ) -> std::result::Result<Outcome, EngineError> {
        let invalid = |error: SiteError| EngineError { kind: EngineErrorKind::Invalid, reason: error.reason };
        let mut moved = 0;
        loop {
            if let Err(cancelled) = progress.check() {
                let _turn = self.media_turn.lock().await;
                self.set_leaving(medium, false).map_err(invalid)?;
                return Err(cancelled);
            }
            if let Some(moving) = self.parts.engine.moving().into_iter().find(|it| it.medium == medium) {
                moved = moving.done_bytes;
                progress.set(moving.done_bytes, moving.done_bytes + moving.left_bytes);
            }
            if self.parts.engine.is_empty_of(medium) {
                let _turn = self.media_turn.lock().await;
                if self.parts.engine.is_empty_of(medium) {
                    self.release(medium).await.map_err(invalid)?;
                    return Ok(Outcome::default().count("moved_bytes", moved));
                }
            }
            if *self.stopping.borrow() {
                let reason = "the server stops: it goes on with the next start".to_owned();
                return Err(EngineError { kind: EngineErrorKind::Closed, reason });
            }
            self.parts.rt.sleep(LOOK).await;
        }
    }

    /// An empty medium is none of the site's from here on.
    async fn release(&self, medium: MediumId) -> Result<()> {
        let mut next = self.parts.manifest();
        next.media.retain(|entry| entry.id() != medium);
        let mut keys = self.keys.lock().await;
        let keys_from = keys.clone();
        let (generation, media) = (keys_from.generation + 1, next.media.len() as u16);
        let node = self.parts.transport.medium(medium);
        let is_known = self.parts.engine.pool().health().iter().any(|health| health.medium == medium);
        if is_known {
            self.parts.engine.release_medium(medium)?;
        }
        if let Some(node) = &node
            && let Ok(Some(found)) = media_set::peek(&**node.medium()).await
        {
            let gone = Superblock { released: true, generation, media, ..found };
            // One that fails is no member all the same: site.json says so.
            let _ = data::write_superblock(&**node.medium(), &gone).await;
        }
        let path = self.path_of(medium);
        let made = self.parts.manifest().media.iter().any(|entry| entry.id() == medium && entry.made);
        self.set_manifest(next)?;
        self.parts.transport.detach(medium);
        if made && node.is_some() {
            // It holds nothing, and the site made it.
            let _ = directory::remove(&path);
        }
        self.away().remove(&medium);
        tracing::info!(%medium, path = %path.display(), "a medium has left");
        self.spread_count(&mut keys, Superblock { generation, media, ..keys_from }).await;
        Ok(())
    }

    /// Sees that what moves has a task, also behind a restart.
    pub(crate) async fn watch_media(self: &Arc<Self>) -> Result<()> {
        if !self.parts.engine.is_writable() || *self.stopping.borrow() {
            return Ok(());
        }
        if !self.parts.manifest().leaving().is_empty() {
            let _turn = self.media_turn.lock().await;
            let busy = *self.draining.lock().unwrap_or_else(PoisonError::into_inner);
            if !busy
                && self.tasks.check_idle(TaskKind::Drain).is_ok()
                && let Some(medium) = self.parts.manifest().leaving().first().copied()
            {
                self.begin_drain(medium, false).await?;
            }
        }
        let leaving = self.parts.manifest().leaving();
        let lost = self.parts.engine.moving().into_iter().find(|moving| !leaving.contains(&moving.medium));
        if let Some(lost) = lost
            && self.tasks.check_idle(TaskKind::Rebuild).is_ok()
        {
            self.begin_rebuild(lost.medium).await?;
        }
        Ok(())
    }

    async fn begin_rebuild(self: &Arc<Self>, medium: MediumId) -> Result<()> {
        let target = self.path_of(medium).display().to_string();
        let message = "what the medium held is written anew on the others";
        let (task, progress) = self.tasks.begin_work(TaskKind::Rebuild, &target, message).await?;
        let shared = self.clone();
        self.clone().spawn_work(task.id, async move {
            let mut moved = 0;
            loop {
                progress.check()?;
                let moving = shared.parts.engine.moving().into_iter().find(|it| it.medium == medium);
                let Some(moving) = moving else {
                    return Ok(Outcome::default().count("rebuilt_bytes", moved));
                };
                moved = moving.done_bytes + moving.left_bytes;
                progress.set(moving.done_bytes, moved);
                if *shared.stopping.borrow() {
                    let reason = "the server stops: it goes on with the next start".to_owned();
                    return Err(EngineError { kind: EngineErrorKind::Closed, reason });
                }
                shared.parts.rt.sleep(LOOK).await;
            }
        });
        Ok(())
    }
}

fn not_found(id: &str) -> SiteError {
    SiteError::new(ErrorKind::NotFound, "medium_not_found", format!("the site has no medium {id}"))
}

fn in_use(name: &str) -> SiteError {
    SiteError::new(
        ErrorKind::Conflict,
        "medium_in_use",
        format!("{name}: it is a medium of this site already"),
    )
}

fn check_file_size(bytes: Option<u64>) -> Result<()> {
    match bytes {
        Some(bytes) if !bytes.is_multiple_of(PAGE as u64) || bytes == 0 => {
            let reason = format!("a medium's size must be a multiple of {PAGE} bytes, not {bytes}");
            Err(SiteError::invalid("invalid_size", reason))
        }
        _ => Ok(()),
    }
}

/// Sizes of a medium of `bytes`: those of the site, with room for as many fragments as it can have.
fn params_for(like: &Superblock, bytes: u64) -> Params {
    let fragments_max = Params::for_medium(bytes).fragments_max.max(like.params.fragments_max.min(4096));
    let params = Params { fragments_max, ..like.params };
    if Layout::new(params, bytes).is_some() { params } else { like.params }
}
