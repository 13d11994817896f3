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

use api::types::{Task, TaskKind};
use api::{Error, Result, code};
use data::{Layout, Params, Superblock};
use engine::{EngineErrorKind, Joins, Progress};
use units::{MediumId, PAGE};

use crate::running::{Shared, Site};
use machine::Entry;
use machine::NewMedium;
use task::Outcome;

/// Pause between looks at how far a drain or rebuild is.
const LOOK: Duration = Duration::from_millis(500);

impl Site {
    /// A medium of the site by its id, 32 hex digits.
    ///
    /// # Errors
    /// `medium_not_found`.
    pub fn medium_id(&self, id: &str) -> Result<MediumId> {
        let ids = self.shared.parts.home.manifest().ids();
        ids.into_iter().find(|known| known.to_string() == id).ok_or_else(|| not_found(id))
    }

    /// Formats a medium and takes it into the site; with `file_bytes` the file is made first. The geometry of what is
    /// stored grows by itself where more media allow it. A site that serves reads only for want of media takes one too: it
    /// may be what it takes to write again.
    ///
    /// # Errors
    /// `media_count`; `medium_in_use` when the site has it already; what a medium of a new site can meet
    /// (`medium_missing`, `medium_not_empty`, `foreign_medium`, `medium_too_small`, `no_space`).
    pub async fn add_medium(&self, path: &Path, file_bytes: Option<u64>) -> Result<MediumId> {
        let _turn = self.shared.media_turn.lock().await;
        match self.shared.parts.engine.check_writable() {
            Err(error) if error.kind == EngineErrorKind::TooFewMedia => {}
            checked => checked?,
        }
        self.shared.take_in(path, file_bytes, None).await
    }

    /// Moves everything off a medium and then lets go of it. When the task is cancelled the medium stays.
    ///
    /// # Errors
    /// `medium_not_found`; `medium_needed` when the others could not keep all safe; `task_running`.
    pub async fn drain_medium(&self, medium: MediumId) -> Result<Task> {
        let _turn = self.shared.media_turn.lock().await;
        self.shared.check_member(medium)?;
        self.shared.check_leave(&[medium], None).await?;
        self.shared.begin_drain(medium, true).await
    }

    /// Takes a medium into the site in the place of another, which is drained; one that is down is rebuilt at once.
    ///
    /// # Errors
    /// As for both. Nothing has changed then: whether the new one is large enough is seen before it is taken in.
    pub async fn replace_medium(&self, old: MediumId, path: &Path, file_bytes: Option<u64>) -> Result<Task> {
        let _turn = self.shared.media_turn.lock().await;
        self.shared.check_member(old)?;
        // A drain is a task, and has a record.
        self.shared.parts.engine.check_writable()?;
        self.shared.tasks.check_idle(TaskKind::Drain)?;
        self.shared.take_in(path, file_bytes, Some(old)).await?;
        self.shared.begin_drain(old, true).await
    }
}

impl Shared {
    fn check_member(&self, medium: MediumId) -> Result<()> {
        if self.parts.home.manifest().ids().contains(&medium) {
            return Ok(());
        }
        Err(not_found(&medium.to_string()))
    }

    async fn check_leave(&self, media: &[MediumId], joins: Option<Joins>) -> Result<()> {
        self.parts.engine.check_leave(media, joins).await.map_err(|error| match error.kind {
            EngineErrorKind::NoSpace if joins.is_some() => {
                let reason = format!("the new medium is too small: {}", error.reason);
                Error::new(code::MEDIUM_NEEDED, reason)
                    .hint("give one as large as the other media, or `media add` another first")
            }
            EngineErrorKind::TooFewMedia | EngineErrorKind::NoSpace => {
                Error::new(code::MEDIUM_NEEDED, error.reason)
                    .hint("`media add` a medium first, or put another in its place: `media replace`")
            }
            _ => error.into(),
        })
    }

    async fn take_in(
        self: &Arc<Self>,
        path: &Path,
        file_bytes: Option<u64>,
        replaced: Option<MediumId>,
    ) -> Result<MediumId> {
        let home = &self.parts.home;
        let check_size = async |bytes| {
            let params = params_for(&*self.keys.lock().await, bytes);
            machine::check_size(&path.display().to_string(), params, bytes)
        };
        if let Some(bytes) = file_bytes.filter(|bytes| bytes.is_multiple_of(PAGE as u64)) {
            check_size(bytes).await?;
        }
        let rows = self.parts.engine.pool().rows();
        let is_named = |medium| rows.iter().any(|row| row.members.contains(&medium));
        let new = home.find_new(path, file_bytes, &is_named).await?;
        let checked = match check_size(new.bytes).await {
            Ok(()) => self.check_replaces(&new, replaced).await,
            Err(error) => Err(error),
        };
        let taken = match checked {
            Ok(()) => self.take_in_found(&new, replaced).await,
            Err(error) => Err(error),
        };
        if taken.is_err() {
            home.discard(&new).await;
        }
        taken
    }

    /// Whether a new medium is large enough for what it is to take over.
    async fn check_replaces(&self, new: &NewMedium, replaced: Option<MediumId>) -> Result<()> {
        let Some(replaced) = replaced else { return Ok(()) };
        let params = params_for(&*self.keys.lock().await, new.bytes);
        // One without room for anything is refused for that as it is formatted.
        let Some(layout) = Layout::new(params, new.bytes) else { return Ok(()) };
        let joins = Joins { medium: new.id, data_bytes: layout.end - layout.data };
        self.check_leave(&[replaced], Some(joins)).await
    }

    async fn take_in_found(&self, new: &NewMedium, behind: Option<MediumId>) -> Result<MediumId> {
        let (home, manifest) = (&self.parts.home, self.parts.home.manifest());
        // Held until it is attached: a key that comes meanwhile goes to it too.
        let mut keys = self.keys.lock().await;
        let keys_from = keys.clone();
        let superblock = Superblock {
            generation: keys_from.generation + 1,
            medium: new.id,
            medium_bytes: new.bytes,
            params: params_for(&keys_from, new.bytes),
            // At most a site's media.
            media: manifest.media.len() as u16 + 1,
            released: false,
            ..keys_from
        };
        home.format(new, superblock.clone()).await?;
        let mut next = manifest.clone();
        let at = behind.and_then(|behind| next.media.iter().position(|entry| entry.id() == behind));
        let entry = Entry::new(new.id, &new.path, new.bytes, new.made).on_node(new.node);
        next.media.insert(at.map_or(next.media.len(), |at| at + 1), entry);
        home.set_manifest(next).await?;
        let broken = |reason: String| Error::new(code::MEDIUM_ERROR, reason);
        let attached = home.attach(new.id, &superblock).await;
        if let Err(reason) = attached {
            home.set_manifest(manifest).await?;
            return Err(broken(reason));
        }
        self.parts.engine.add_medium(new.id, behind, new.node);
        tracing::info!(medium = %new.id, path = %new.path.display(), bytes = new.bytes, "a medium has joined");
        self.spread_count(&mut keys, superblock).await;
        Ok(new.id)
    }

    async fn set_leaving(&self, medium: MediumId, leaving: bool) -> Result<()> {
        self.set_all_leaving(&[medium], leaving, false).await
    }

    async fn set_all_leaving(&self, media: &[MediumId], leaving: bool, with_node: bool) -> Result<()> {
        let mut next = self.parts.home.manifest();
        for entry in next.media.iter_mut().filter(|entry| media.contains(&entry.id())) {
            (entry.leaving, entry.with_node) = (leaving, with_node);
        }
        self.parts.home.set_manifest(next).await?;
        media.iter().for_each(|medium| self.parts.engine.set_leaving(*medium, leaving));
        Ok(())
    }

    /// Media of nodes that are to be emptied leave, all of a node at once; they stay when it is to stay after all.
    async fn follow_nodes(&self) -> Result<()> {
        let nodes = self.parts.home.draining();
        let _turn = self.media_turn.lock().await;
        let (mut more, mut fewer) = (Vec::new(), Vec::new());
        for entry in &self.parts.home.manifest().media {
            let drains = entry.node().is_some_and(|node| nodes.contains(&node));
            if drains && !entry.leaving {
                more.push(entry.id());
            } else if !drains && entry.leaving && entry.with_node {
                fewer.push(entry.id());
            }
        }
        if !fewer.is_empty() {
            self.set_all_leaving(&fewer, false, false).await?;
        }
        let refused = match self.check_leave(&more, None).await {
            _ if more.is_empty() => None,
            Ok(()) => {
                self.set_all_leaving(&more, true, true).await?;
                None
            }
            Err(error) => Some(error.reason.clone()),
        };
        *self.drain_refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
        Ok(())
    }

    /// Tells the media that are there how many there are. What one does not hear it hears at the next start.
    async fn spread_count(&self, keys: &mut Superblock, like: Superblock) {
        *keys = like.clone();
        let home = &self.parts.home;
        for id in home.manifest().ids() {
            let Ok(Some(has)) = home.superblock(id).await else { continue };
            let Some(next) = machine::brought_up_to(&has, &like) else { continue };
            if let Err(error) = home.write_superblock(id, next).await {
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
        let marked = if new { self.set_leaving(medium, true).await } else { Ok(()) };
        let shared = self.clone();
        self.clone().spawn_work(task.id, async move {
            if let Err(error) = marked {
                return Err(error);
            }
            *shared.draining.lock().unwrap_or_else(PoisonError::into_inner) = true;
            let drained = shared.drain(medium, &progress).await;
            *shared.draining.lock().unwrap_or_else(PoisonError::into_inner) = false;
            drained
        });
        Ok(task)
    }

    fn path_of(&self, medium: MediumId) -> PathBuf {
        let manifest = self.parts.home.manifest();
        let entry = manifest.media.iter().find(|entry| entry.id() == medium);
        entry.map_or_else(PathBuf::new, |entry| self.parts.home.shown(entry))
    }

    /// Waits until a medium is empty, and lets go of it.
    async fn drain(&self, medium: MediumId, progress: &Progress) -> Result<Outcome> {
        let mut moved = 0;
        loop {
            if let Err(cancelled) = progress.check() {
                let _turn = self.media_turn.lock().await;
                self.set_leaving(medium, false).await?;
                return Err(cancelled.into());
            }
            if let Some(moving) = self.parts.engine.moving().into_iter().find(|it| it.medium == medium) {
                moved = moving.done_bytes;
                progress.set(moving.done_bytes, moving.done_bytes + moving.left_bytes);
            }
            if !self.parts.home.manifest().leaving().contains(&medium) {
                return Err(Error::new(code::TASK_ENDED, "the medium is to stay"));
            }
            if self.parts.engine.is_empty_of(medium) {
                let _turn = self.media_turn.lock().await;
                if self.parts.engine.is_empty_of(medium) {
                    self.release(medium).await?;
                    return Ok(Outcome::default().count("moved_bytes", moved));
                }
            }
            if *self.stopping.borrow() {
                return Err(stops());
            }
            self.parts.rt.sleep(LOOK).await;
        }
    }

    /// An empty medium is none of the site's from here on.
    async fn release(&self, medium: MediumId) -> Result<()> {
        let home = &self.parts.home;
        let mut next = home.manifest();
        let entry = next.media.iter().position(|entry| entry.id() == medium);
        let Some(entry) = entry.map(|at| next.media.remove(at)) else { return Ok(()) };
        let mut keys = self.keys.lock().await;
        let keys_from = keys.clone();
        let (generation, media) = (keys_from.generation + 1, next.media.len() as u16);
        let is_known = self.parts.engine.pool().health().iter().any(|health| health.medium == medium);
        if is_known {
            self.parts.engine.release_medium(medium)?;
        }
        let was_there = home.is_attached(medium);
        if let Ok(Some(found)) = home.superblock(medium).await {
            let gone = Superblock { released: true, generation, media, ..found };
            // One that fails is no member all the same: site.json says so.
            let _ = home.write_superblock(medium, gone).await;
        }
        let path = home.shown(&entry);
        home.set_manifest(next).await?;
        home.detach(medium);
        if was_there {
            home.gone(&entry).await;
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
        self.follow_nodes().await?;
        if !self.parts.home.manifest().leaving().is_empty() {
            let _turn = self.media_turn.lock().await;
            let busy = *self.draining.lock().unwrap_or_else(PoisonError::into_inner);
            if !busy
                && self.tasks.check_idle(TaskKind::Drain).is_ok()
                && let Some(medium) = self.parts.home.manifest().leaving().first().copied()
            {
                self.begin_drain(medium, false).await?;
            }
        }
        let leaving = self.parts.home.manifest().leaving();
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
                    return Err(stops());
                }
                shared.parts.rt.sleep(LOOK).await;
            }
        });
        Ok(())
    }
}

fn stops() -> Error {
    Error::new(code::CLOSING, "the server stops: it goes on with the next start")
}

fn not_found(id: &str) -> Error {
    Error::new(code::MEDIUM_NOT_FOUND, format!("the site has no medium {id}"))
}

/// Sizes of a medium of `bytes`: those of the site, with room for as many fragments as it can have.
fn params_for(like: &Superblock, bytes: u64) -> Params {
    let fragments_max = Params::for_medium(bytes).fragments_max.max(like.params.fragments_max.min(4096));
    let params = Params { fragments_max, ..like.params };
    if Layout::new(params, bytes).is_some() { params } else { like.params }
}
