//! Media of this machine, listed in the site's directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Error, MEDIA_MAX, Result, code};
use data::{LocalTransport, MediumNode, OpenErrorKind, Superblock};
use media::Medium;
use proto::Transport;
use seam::{BoxFuture, Rt};
use units::{MediumId, PAGE};

use crate::directory::Directory;
use crate::home::{Away, FoundMedia, FoundMedium, Home, IsNamed, NewMedium};
use crate::host::OpenMedia;
use crate::manifest::{Entry, Manifest};
use crate::media_set::{self, Found, MediaSet, check_free, medium_error};

/// A medium that failed this often soon after coming back is left alone for [`REST`] each time.
const RETURNS_MAX: u32 = 5;
const REST: Duration = Duration::from_secs(600);
/// So long without a failure makes up for one.
const SOUND: Duration = Duration::from_secs(3600);

/// The media of a site on one machine.
pub(crate) struct LocalHome {
    rt: Rt,
    opener: Arc<dyn OpenMedia>,
    directory: Directory,
    transport: Arc<LocalTransport>,
    state: Mutex<State>,
}

struct State {
    manifest: Manifest,
    /// Open, and not attached yet.
    found: BTreeMap<MediumId, Found>,
    /// New ones, open, and not formatted yet.
    fresh: BTreeMap<MediumId, Arc<dyn Medium>>,
    /// What media carry that are attached.
    carried: BTreeMap<MediumId, Superblock>,
    /// How media came back behind failures.
    returns: BTreeMap<MediumId, Returns>,
    shared_devices: Vec<Vec<PathBuf>>,
}

/// How a medium came back behind failures.
#[derive(Debug, Clone, Copy, Default)]
struct Returns {
    /// How often; [`SOUND`] takes one off.
    count: u32,
    last: Duration,
    /// When it was seen to have failed again.
    failed: Option<Duration>,
}

impl Returns {
    /// It is down at `now`; says whether it may be tried.
    fn may_try(&mut self, now: Duration) -> bool {
        let failed = *self.failed.get_or_insert_with(|| {
            let sound = now.saturating_sub(self.last).as_secs() / SOUND.as_secs();
            self.count = self.count.saturating_sub(u32::try_from(sound).unwrap_or(u32::MAX));
            now
        });
        self.count < RETURNS_MAX || now.saturating_sub(failed) >= REST
    }

    fn came_back(&mut self, now: Duration) {
        *self = Self { count: self.count.saturating_add(1), last: now, failed: None };
    }
}

impl LocalHome {
    /// The media that `manifest` lists.
    pub(crate) fn new(
        rt: &Rt,
        opener: Arc<dyn OpenMedia>,
        directory: &Directory,
        manifest: Manifest,
    ) -> Self {
        let shared_devices = shared_devices(&*opener, directory, &manifest);
        let state = State {
            manifest,
            found: BTreeMap::new(),
            fresh: BTreeMap::new(),
            carried: BTreeMap::new(),
            returns: BTreeMap::new(),
            shared_devices,
        };
        Self {
            rt: rt.clone(),
            opener,
            directory: directory.clone(),
            transport: Arc::new(LocalTransport::new(rt.clone())),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens, or makes, a medium off the threads that serve: that waits for locks.
    async fn open_path(&self, path: PathBuf, create_size: Option<u64>) -> media::Result<Arc<dyn Medium>> {
        let opener = self.opener.clone();
        let name = path.display().to_string();
        let (done, opened) = tokio::sync::oneshot::channel();
        let work = move || {
            // The waiter may be gone.
            let _ = done.send(opener.open(&path, create_size));
        };
        self.rt.spawn_blocking("medium open", Box::new(work));
        opened.await.unwrap_or_else(|_| {
            Err(media::MediaError {
                kind: media::MediaErrorKind::Gone,
                medium: name,
                operation: "open".to_owned(),
                reason: "the server is going down".to_owned(),
            })
        })
    }

    /// Opens a medium of the site that was not there: at its own place, or where another that is not there was.
    async fn find(&self, medium: MediumId) -> std::result::Result<Found, String> {
        let manifest = self.manifest();
        let entry = manifest.media.iter().find(|entry| entry.id() == medium);
        let entry = entry.ok_or_else(|| "it is not in site.json".to_owned())?;
        let own = match self.find_at(entry, &manifest).await {
            Ok(found) if found.id == medium => return Ok(found),
            Ok(found) => format!("{}: it is medium {} of this site", found.medium.name(), found.id),
            Err(reason) => reason,
        };
        let is_empty = |other: &&Entry| other.id() != medium && !self.is_attached(other.id());
        for other in manifest.media.iter().filter(is_empty) {
            if let Ok(found) = self.find_at(other, &manifest).await
                && found.id == medium
            {
                tracing::info!(%medium, path = %other.path.display(), "a medium has changed places");
                return Ok(found);
            }
        }
        Err(own)
    }

    async fn find_at(&self, entry: &Entry, manifest: &Manifest) -> std::result::Result<Found, String> {
        let opened = self.open_path(self.directory.resolve(&entry.path), None).await;
        media_set::identify(opened.map_err(|error| error.to_string())?, manifest).await
    }

    async fn attach_found(&self, found: &Found, like: &Superblock) -> std::result::Result<(), String> {
        let node = media_set::node(found, like).await?;
        self.lock().carried.insert(found.id, found.superblock.clone());
        self.transport.attach(Arc::new(node));
        Ok(())
    }

    /// Whether a medium that failed while in use can go on: it has all its bytes, and what is written to it is read again.
    async fn resume(&self, node: &MediumNode, keys: &Superblock) -> std::result::Result<(), Away> {
        let (id, medium) = (node.id(), &**node.medium());
        let now = self.rt.now();
        let carried = {
            let mut state = self.lock();
            let returns = state.returns.entry(id).or_default();
            if !returns.may_try(now) {
                let (often, minutes) = (returns.count, REST.as_secs() / 60);
                return Err(Away::for_now(format!(
                    "it failed soon after each of {often} returns: tried again {minutes} minutes after the last"
                )));
            }
            state.carried.get(&id).cloned()
        };
        node.check_whole().map_err(|reason| Away { robbed: true, ..Away::for_now(reason) })?;
        // The medium itself remembers a sync that failed, also one before this.
        if let Err(error) = medium.sync().await {
            let reason = format!("{error}; it may come back at the next start");
            return Err(Away { barred: true, ..Away::for_now(reason) });
        }
        let gone = || Away { barred: true, ..Away::for_now("it carries no superblock any more") };
        let carried = match carried {
            Some(carried) => carried,
            None => media_set::peek(medium).await.map_err(Away::for_now)?.ok_or_else(gone)?,
        };
        let next = media_set::brought_up_to(&carried, keys).unwrap_or(carried);
        data::write_superblock(medium, &next).await.map_err(Away::for_now)?;
        if media_set::peek(medium).await.map_err(Away::for_now)?.as_ref() != Some(&next) {
            return Err(Away::for_now("what is written to it is not what it gives back"));
        }
        let mut state = self.lock();
        state.carried.insert(id, next);
        state.returns.entry(id).or_default().came_back(now);
        Ok(())
    }

    /// Refuses a medium that holds something. What an attempt before left on it, or what has left the site, does not
    /// count.
    async fn check_unused(&self, medium: &dyn Medium, is_named: IsNamed<'_>) -> Result<()> {
        let known = media_set::peek(medium).await.map_err(|error| medium_error(&error))?;
        let Some(superblock) = known.filter(|found| found.site == self.manifest().site()) else {
            return check_free(medium, None).await;
        };
        if is_named(superblock.medium) || self.manifest().ids().contains(&superblock.medium) {
            return Err(in_use(medium.name()));
        }
        Ok(())
    }

    async fn find_new_at(
        &self,
        path: &Path,
        file_bytes: Option<u64>,
        is_named: IsNamed<'_>,
    ) -> Result<NewMedium> {
        if !path.is_absolute() {
            let reason = format!("{}: no absolute path", path.display());
            return Err(Error::new(code::INVALID_PATH, reason));
        }
        let path = path.to_owned();
        if self.manifest().media.len() >= MEDIA_MAX {
            let reason = format!("the site has {MEDIA_MAX} media, the most there can be");
            return Err(Error::new(code::MEDIA_COUNT, reason));
        }
        if self.manifest().media.iter().any(|entry| self.directory.resolve(&entry.path) == path) {
            return Err(in_use(&path.display().to_string()));
        }
        check_file_size(file_bytes)?;
        let opened = self.open_path(path.clone(), file_bytes).await;
        let medium = opened.map_err(|error| medium_error(&error))?;
        let mut id = [0; 16];
        self.rt.fill_random(&mut id);
        let remembered = path.strip_prefix(self.directory.root()).unwrap_or(&path).to_owned();
        let (bytes, made) = (medium.len(), file_bytes.is_some());
        let node = self.opener.node_of(&path);
        let new = NewMedium { id: MediumId(id), bytes, path: remembered, made, node };
        if let Err(error) = self.check_unused(&*medium, is_named).await {
            self.discard(&new).await;
            return Err(error);
        }
        self.lock().fresh.insert(new.id, medium);
        Ok(new)
    }

    async fn format_new(&self, new: &NewMedium, superblock: Superblock) -> Result<()> {
        let medium = self.lock().fresh.remove(&new.id);
        let lost = || Error::new(code::MEDIUM_ERROR, "the new medium is not open any more");
        let medium = medium.ok_or_else(lost)?;
        data::format(&*medium, &superblock).await.map_err(|error| match error.kind {
            OpenErrorKind::NoSpace => Error::new(code::NO_SPACE, error.to_string()),
            OpenErrorKind::TooSmall => Error::new(code::MEDIUM_TOO_SMALL, error.to_string()),
            _ => Error::new(code::MEDIUM_ERROR, error.to_string()),
        })?;
        self.lock().found.insert(new.id, Found { id: new.id, medium, superblock });
        Ok(())
    }
}

impl Home for LocalHome {
    fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    fn manifest(&self) -> Manifest {
        self.lock().manifest.clone()
    }

    fn set_manifest(&self, next: Manifest) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.directory.replace(&self.directory.manifest(), &next.encode()?)?;
            let shared = shared_devices(&*self.opener, &self.directory, &next);
            let mut state = self.lock();
            (state.manifest, state.shared_devices) = (next, shared);
            Ok(())
        })
    }

    fn look(&self) -> BoxFuture<'_, FoundMedia> {
        Box::pin(async move {
            let set = MediaSet::open(&*self.opener, &self.directory, &self.manifest()).await;
            let found = set
                .found
                .iter()
                .map(|found| FoundMedium { id: found.id, superblock: found.superblock.clone() });
            let found = found.collect();
            self.lock().found = set.found.into_iter().map(|found| (found.id, found)).collect();
            FoundMedia { found, absent: set.absent }
        })
    }

    fn attach<'a>(
        &'a self,
        medium: MediumId,
        like: &'a Superblock,
    ) -> BoxFuture<'a, std::result::Result<(), String>> {
        Box::pin(async move {
            // Its lock goes with it when it cannot serve, so that it can be opened again when it is back.
            let found = self.lock().found.remove(&medium);
            let found = found.ok_or_else(|| "it is not open".to_owned())?;
            self.attach_found(&found, like).await
        })
    }

    fn detach(&self, medium: MediumId) {
        let mut state = self.lock();
        state.found.remove(&medium);
        state.carried.remove(&medium);
        drop(state);
        self.transport.detach(medium);
    }

    fn is_attached(&self, medium: MediumId) -> bool {
        self.transport.medium(medium).is_some()
    }

    fn superblock(&self, medium: MediumId) -> BoxFuture<'_, Result<Option<Superblock>>> {
        Box::pin(async move {
            let Some(node) = self.transport.medium(medium) else { return Ok(None) };
            media_set::peek(&**node.medium()).await.map_err(|error| medium_error(&error))
        })
    }

    fn write_superblock(&self, medium: MediumId, superblock: Superblock) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let waiting = self.lock().found.get(&medium).map(|found| found.medium.clone());
            let attached = self.transport.medium(medium).map(|node| node.medium().clone());
            let gone = || Error::new(code::MEDIUM_ERROR, "the medium is not there");
            let open = waiting.or(attached).ok_or_else(gone)?;
            let written = data::write_superblock(&*open, &superblock).await;
            written.map_err(|error| medium_error(&error))?;
            let mut state = self.lock();
            if let Some(carried) = state.carried.get_mut(&medium) {
                *carried = superblock.clone();
            }
            if let Some(found) = state.found.get_mut(&medium) {
                found.superblock = superblock;
            }
            Ok(())
        })
    }

    fn revive<'a>(
        &'a self,
        medium: MediumId,
        keys: &'a Superblock,
    ) -> BoxFuture<'a, std::result::Result<(), Away>> {
        Box::pin(async move {
            if let Some(node) = self.transport.medium(medium) {
                return self.resume(&node, keys).await;
            }
            let mut found = self.find(medium).await.map_err(Away::for_now)?;
            media_set::with_keys_of(&mut found, keys).await.map_err(Away::for_now)?;
            self.attach_found(&found, keys).await.map_err(Away::for_now)
        })
    }

    fn mend_superblocks<'a>(&'a self, keys: &'a Superblock) -> BoxFuture<'a, Vec<MediumId>> {
        Box::pin(async move {
            let carried = self.lock().carried.clone();
            let mut mended = Vec::new();
            for (id, carried) in carried {
                let Some(node) = self.transport.medium(id) else { continue };
                let medium = &**node.medium();
                let look = async {
                    // The sound copy counts, where there is one.
                    let sound = media_set::peek(medium).await?.filter(|found| found.medium == id);
                    let known = || media_set::brought_up_to(&carried, keys).unwrap_or(carried);
                    data::mend_superblock(medium, &sound.unwrap_or_else(known)).await
                };
                match look.await {
                    Ok(true) => mended.push(id),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(medium = %id, %error, "a superblock cannot be looked at"),
                }
            }
            mended
        })
    }

    fn removed(&self) -> Vec<MediumId> {
        let ids: Vec<MediumId> = self.lock().carried.keys().copied().collect();
        let is_removed = |id: &MediumId| {
            let node = self.transport.medium(*id);
            node.is_some_and(|node| node.medium().state() == media::State::Removed)
        };
        ids.into_iter().filter(is_removed).collect()
    }

    fn find_new<'a>(
        &'a self,
        path: &'a Path,
        file_bytes: Option<u64>,
        is_named: IsNamed<'a>,
    ) -> BoxFuture<'a, Result<NewMedium>> {
        Box::pin(self.find_new_at(path, file_bytes, is_named))
    }

    fn format<'a>(&'a self, new: &'a NewMedium, superblock: Superblock) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.format_new(new, superblock))
    }

    fn discard<'a>(&'a self, new: &'a NewMedium) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut state = self.lock();
            state.fresh.remove(&new.id);
            state.found.remove(&new.id);
            drop(state);
            if new.made {
                // Nothing of it is in site.json.
                let _ = self.directory.remove(&self.directory.resolve(&new.path));
            }
        })
    }

    fn gone<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if entry.made {
                // It holds nothing, and the site made it.
                let _ = self.directory.remove(&self.directory.resolve(&entry.path));
            }
        })
    }

    fn shown(&self, entry: &Entry) -> PathBuf {
        self.directory.resolve(&entry.path)
    }

    fn shared_devices(&self) -> Vec<Vec<PathBuf>> {
        self.lock().shared_devices.clone()
    }
}

/// Says which media lie on one physical device: they fail together.
fn shared_devices(opener: &dyn OpenMedia, directory: &Directory, manifest: &Manifest) -> Vec<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = manifest.media.iter().map(|entry| directory.resolve(&entry.path)).collect();
    let groups = opener.same_device(&paths).into_iter().filter(|group| group.len() > 1);
    let groups: Vec<Vec<PathBuf>> =
        groups.map(|group| group.into_iter().map(|index| paths[index].clone()).collect()).collect();
    for group in &groups {
        tracing::warn!(media = ?group, "these media share one physical device: they fail together");
    }
    groups
}

pub(crate) fn in_use(name: &str) -> Error {
    Error::new(code::MEDIUM_IN_USE, format!("{name}: it is a medium of this site already"))
}

fn check_file_size(bytes: Option<u64>) -> Result<()> {
    match bytes {
        Some(bytes) if !bytes.is_multiple_of(PAGE as u64) || bytes == 0 => {
            let reason = format!("a medium's size must be a multiple of {PAGE} bytes, not {bytes}");
            Err(Error::new(code::INVALID_SIZE, reason))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails `pause` behind each return, `times` in a row; gives how long it was away in the end.
    fn away(returns: &mut Returns, now: &mut Duration, pause: Duration, times: usize) -> Duration {
        let mut waited = Duration::ZERO;
        for _ in 0..times {
            *now += pause;
            waited = Duration::ZERO;
            while !returns.may_try(*now) {
                assert!(waited < 24 * SOUND, "it is never tried again");
                (*now, waited) = (*now + Duration::from_secs(3), waited + Duration::from_secs(3));
            }
            returns.came_back(*now);
        }
        waited
    }

    #[test]
    fn short_failures_far_apart_never_keep_a_medium_away() {
        let (mut returns, mut now) = (Returns::default(), Duration::from_secs(7));
        assert_eq!(away(&mut returns, &mut now, SOUND, 100), Duration::ZERO);
        // Soon one after the other: the first few at once, then each behind a rest, and never for good.
        assert_eq!(
            away(&mut returns, &mut now, Duration::from_secs(5), RETURNS_MAX as usize - 1),
            Duration::ZERO
        );
        let rested = away(&mut returns, &mut now, Duration::from_secs(5), 3);
        assert!(rested >= REST && rested < REST + Duration::from_secs(10), "{rested:?}");
        // A day without a failure makes up for them.
        assert_eq!(away(&mut returns, &mut now, 24 * SOUND, 1), Duration::ZERO);
    }
}
