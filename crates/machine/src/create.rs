//! The first start: from nothing to a site, or to nothing that matters.
//!
//! Order: check everything; `first-start.json`; the key file; the recovery key's file; media, made and formatted one
//! after the other; witness; `site.json`. A medium that the plan names and that was half formatted holds an allocation
//! table and nothing else; so the next attempt knows it for its own whatever a crash left. An attempt that fails takes back what
//! it made, `first-start.json` last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Error, MEDIA_MAX, Result, code, format_size};
use data::{Layout, OpenErrorKind, Params, Superblock};
use media::Medium;
use seal::{KeyRing, RecoveryKey, WrappedKeys};
use seam::Rt;
use units::{MediumId, PAGE, SiteId};

use crate::directory::Directory;
use crate::host::OpenMedia;
use crate::keys;
use crate::manifest::{Entry, Manifest};
use crate::media_set::{self, Unfinished, check_free, medium_error};
use crate::open::{FileMedia, Options, Sizes};
use crate::witness;

/// Media of a site when nothing is said: six sparse files of 64 GiB, so that any two may be lost.
const FILE_MEDIA: FileMedia = FileMedia { count: 6, bytes: 64 << 30 };

/// Makes the site; gives its manifest and, when no file was named for it, the recovery key.
pub(crate) async fn create(
    rt: &Rt,
    opener: &dyn OpenMedia,
    directory: &Directory,
    options: &Options,
) -> Result<(Manifest, Option<RecoveryKey>)> {
    let unfinished = Manifest::load(directory, &directory.first_start())?;
    let had_key = directory.files().is_there(&directory.key());
    let first =
        First { rt, opener, directory, options, unfinished, had_key, wrote_recovery: AtomicBool::new(false) };
    first.check_files()?;
    let mut plan = first.plan().await?;
    first.remove_leftovers()?;
    let made = first.make(&plan).await;
    let recovery = match made {
        Ok(recovery) => recovery,
        Err(error) => {
            first.take_back(&plan).await;
            return Err(error);
        }
    };
    directory.remove(&directory.first_start())?;
    plan.recovery_key_file = None;
    tracing::info!(site = %plan.site(), media = plan.media.len(), "site made");
    Ok((plan, options.recovery_key_file.is_none().then_some(recovery)))
}

/// A first start under way.
struct First<'a> {
    rt: &'a Rt,
    opener: &'a dyn OpenMedia,
    directory: &'a Directory,
    options: &'a Options,
    /// What an earlier attempt had planned.
    unfinished: Option<Manifest>,
    /// The key file was there before.
    had_key: bool,
    /// The recovery key is in its file, by this attempt.
    wrote_recovery: AtomicBool,
}

impl First<'_> {
    /// Makes the site as it is planned, up to its `site.json`.
    async fn make(&self, plan: &Manifest) -> Result<RecoveryKey> {
        let (rt, directory) = (&**self.rt, self.directory);
        directory.replace(&directory.first_start(), &plan.encode()?)?;
        let unlock = keys::of_new_site(rt, directory, self.options.passphrase_file.as_deref())?;
        let ring = KeyRing::from_master(keys::random_key(rt));
        let recovery = self.recovery_key()?;
        let wrapped = unlock.wrap(rt, &ring, &recovery)?;
        for entry in &plan.media {
            let medium = self.medium(entry)?;
            self.format(&*medium, plan, entry, &wrapped).await?;
        }
        witness::make(&**directory.files(), &directory.witness())?;
        let mut whole = plan.clone();
        whole.recovery_key_file = None;
        directory.replace(&directory.manifest(), &whole.encode()?)?;
        Ok(recovery)
    }

    /// Removes what a failed attempt made, as far as the system lets it. What stays the next attempt knows by `first-start.json`,
    /// which stays then too.
    async fn take_back(&self, plan: &Manifest) {
        if self.directory.files().is_there(&self.directory.manifest()) {
            // Only its durability is in doubt.
            return;
        }
        match self.try_take_back(plan).await {
            Ok(()) => tracing::info!("what the start had made was removed again"),
            Err(error) => tracing::warn!(%error, "what the start had made stays for the next attempt"),
        }
    }

    async fn try_take_back(&self, plan: &Manifest) -> Result<()> {
        for entry in &plan.media {
            let path = self.directory.resolve(&entry.path);
            if entry.made {
                self.directory.remove(&path)?;
                continue;
            }
            let medium = self.opener.open(&path, None).map_err(|error| medium_error(&error))?;
            media_set::blank(&*medium).await.map_err(|error| medium_error(&error))?;
        }
        // Whoever else put something there keeps it; a witness is in nobody's way.
        let _ = self.directory.files().remove_folder(&self.directory.media());
        let _ = self.directory.remove(&self.directory.witness());
        if !self.had_key {
            self.directory.remove(&self.directory.key())?;
        }
        if let Some(path) = &self.options.recovery_key_file
            && (self.wrote_recovery.load(Ordering::Relaxed) || self.is_own_recovery_file(path))
        {
            self.directory.remove(path)?;
        }
        self.directory.remove(&self.directory.first_start())
    }

    /// Refuses what files that are there, or not there, forbid.
    fn check_files(&self) -> Result<()> {
        keys::check_new_site(self.directory, self.options.passphrase_file.as_deref())?;
        if let Some(path) = &self.options.recovery_key_file
            && !self.is_own_recovery_file(path)
        {
            keys::check_no_recovery_file(&**self.directory.files(), path)?;
        }
        let folder = self.directory.media();
        let holds_media = self.directory.files().list(&folder).is_ok_and(|entries| !entries.is_empty());
        if self.unfinished.is_none() && holds_media && self.options.media.is_empty() {
            let reason = format!("{}: it holds media, but site.json is gone", folder.display());
            return Err(Error::new(code::SITE_LOST, reason)
                .hint("put site.json back; to begin anew, remove the media or choose another directory"));
        }
        Ok(())
    }

    /// Whether an earlier attempt was to write its recovery key there.
    fn is_own_recovery_file(&self, path: &Path) -> bool {
        let planned = self.unfinished.as_ref().and_then(|plan| plan.recovery_key_file.as_ref());
        planned.is_some_and(|planned| std::path::absolute(path).is_ok_and(|path| path == *planned))
    }

    /// Removes the files that an earlier attempt made.
    fn remove_leftovers(&self) -> Result<()> {
        let made = self.unfinished.iter().flat_map(|plan| &plan.media).filter(|entry| entry.made);
        made.map(|entry| self.directory.resolve(&entry.path))
            .try_for_each(|path| self.directory.remove(&path))
    }

    /// What the site will be, checked as far as it can be before anything is written.
    async fn plan(&self) -> Result<Manifest> {
        let site = match &self.unfinished {
            Some(plan) => plan.site(),
            None => SiteId(self.random_id()),
        };
        let media = match (self.options.media.as_slice(), self.options.file_media) {
            ([], file_media) => self.plan_files(file_media.unwrap_or(FILE_MEDIA))?,
            (_, Some(_)) => {
                return Err(Error::new(code::MEDIA_TWICE, "--media and --file-media exclude each other"));
            }
            (paths, None) => self.plan_paths(paths).await?,
        };
        let mut plan = Manifest::new(site, media);
        plan.recovery_key_file = match &self.options.recovery_key_file {
            Some(path) => Some(std::path::absolute(path).map_err(|error| Error::file(path, &error))?),
            None => None,
        };
        Ok(plan)
    }

    fn plan_files(&self, files: FileMedia) -> Result<Vec<Entry>> {
        check_count(files.count)?;
        let page = PAGE as u64;
        if !files.bytes.is_multiple_of(page) {
            let reason = format!("a medium's size must be a multiple of {page} bytes, not {}", files.bytes);
            return Err(Error::new(code::INVALID_SIZE, reason));
        }
        self.check_size("a medium of that size", files.bytes)?;
        let path = |number| PathBuf::from(format!("media/{number:02}.img"));
        Ok((0..files.count).map(|i| Entry::new(self.random_medium(), &path(i), files.bytes, true)).collect())
    }

    async fn plan_paths(&self, paths: &[PathBuf]) -> Result<Vec<Entry>> {
        check_count(paths.len())?;
        let mut opened: Vec<Arc<dyn Medium>> = Vec::new();
        let mut entries = Vec::new();
        for path in paths {
            let path = std::path::absolute(path).map_err(|error| Error::file(path, &error))?;
            let medium = self.opener.open(&path, None).map_err(|error| medium_error(&error))?;
            check_free(&*medium, self.left_by_unfinished(&path, medium.len())).await?;
            self.check_size(medium.name(), medium.len())?;
            entries.push(Entry::new(self.random_medium(), &path, medium.len(), false));
            // Held open, so that a medium named twice is found out.
            opened.push(medium);
        }
        Ok(entries)
    }

    /// What the earlier attempt may have left on a medium.
    fn left_by_unfinished(&self, path: &Path, bytes: u64) -> Option<Unfinished> {
        let plan = self.unfinished.as_ref()?;
        let planned = plan.media.iter().any(|entry| entry.path == path && entry.bytes == bytes);
        let formatting = planned.then(|| Layout::new(self.params(bytes), bytes)).flatten();
        Some(Unfinished { site: plan.site(), formatting })
    }

    fn check_size(&self, name: &str, bytes: u64) -> Result<()> {
        check_size(name, self.params(bytes), bytes)
    }

    fn params(&self, bytes: u64) -> Params {
        match self.options.sizes {
            Sizes::Normal => Params::for_medium(bytes),
            Sizes::Given(params) => params,
            Sizes::Tiny => Params {
                container_bytes: 128 << 10,
                segment_bytes: 128 << 10,
                segments_max: 12,
                log_pages: 64,
                fragments_max: 4096,
            },
        }
    }

    fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.rt.fill_random(&mut id);
        id
    }

    fn random_medium(&self) -> MediumId {
        MediumId(self.random_id())
    }

    /// The recovery key, in its file when there is to be one. An interrupted attempt's key is taken over with its file.
    fn recovery_key(&self) -> Result<RecoveryKey> {
        let Some(path) = &self.options.recovery_key_file else {
            return Ok(RecoveryKey::from_bytes(keys::random_key(&**self.rt)));
        };
        if self.is_own_recovery_file(path)
            && let Some(recovery) = keys::read_recovery_file(&**self.directory.files(), path)?
        {
            return Ok(recovery);
        }
        let recovery = RecoveryKey::from_bytes(keys::random_key(&**self.rt));
        keys::write_recovery_file(&**self.directory.files(), path, &recovery)?;
        self.wrote_recovery.store(true, Ordering::Relaxed);
        Ok(recovery)
    }

    /// Opens a planned medium, made anew when the site makes it.
    fn medium(&self, entry: &Entry) -> Result<Arc<dyn Medium>> {
        let path = self.directory.resolve(&entry.path);
        if entry.made {
            self.directory.make_folder(&self.directory.media())?;
        }
        self.opener.open(&path, entry.made.then_some(entry.bytes)).map_err(|error| medium_error(&error))
    }

    async fn format(
        &self,
        medium: &dyn Medium,
        plan: &Manifest,
        entry: &Entry,
        keys: &WrappedKeys,
    ) -> Result<()> {
        let superblock = Superblock {
            generation: 1,
            site: plan.site(),
            medium: entry.id(),
            medium_bytes: entry.bytes,
            params: self.params(entry.bytes),
            // At most MEDIA_MAX.
            media: plan.media.len() as u16,
            released: false,
            keys: keys.clone(),
            epochs: seal::EpochKeys::default(),
            recovered_ms: 0,
        };
        data::format(medium, &superblock).await.map_err(|error| match error.kind {
            OpenErrorKind::NoSpace => {
                let layout = Layout::new(superblock.params, superblock.medium_bytes);
                let mib = layout.map_or(0, |layout| layout.data).div_ceil(1 << 20);
                Error::new(code::NO_SPACE, error.to_string()).hint(format!(
                    "journal and tables take {mib} MiB on each medium at once: make room there, or give media elsewhere"
                ))
            }
            _ => Error::new(code::MEDIUM_ERROR, error.to_string()),
        })
    }
}

/// Refuses a medium on which a site could not go on for long.
///
/// # Errors
/// `medium_too_small`; `invalid_size` for one that is no whole number of pages.
pub fn check_size(name: &str, params: Params, bytes: u64) -> Result<()> {
    let least = params.least_medium_bytes();
    if bytes >= least && Layout::new(params, bytes).is_some() {
        return Ok(());
    }
    let (has, least) = (format_size(bytes), format_size(least));
    let reason = format!("{name}: it has {has}, and a medium has {least} at least");
    Err(Error::new(code::MEDIUM_TOO_SMALL, reason).hint(format!("give media of {least} or more")))
}

fn check_count(count: usize) -> Result<()> {
    if (1..=MEDIA_MAX).contains(&count) {
        return Ok(());
    }
    Err(Error::new(code::MEDIA_COUNT, format!("a site has 1 to {MEDIA_MAX} media, not {count}")))
}
