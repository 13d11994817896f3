//! Opening media, and telling ours from others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Error, Result, code};
use data::{Layout, MediumNode, Superblock};
use media::{Backend, Medium, OpenOptions};
use seam::Rt;
use units::{MediumId, PAGE, SiteId};

use crate::directory::Directory;
use crate::host::OpenMedia;
use crate::manifest::{Entry, Manifest};

/// Looked at on either end of a medium that is to be formatted: partition tables, file systems, volume managers and
/// RAID leave their marks there.
const LOOK_BYTES: usize = 1 << 20;
/// Where the two superblocks stand (`data`).
const SUPERBLOCKS: [usize; 2] = [0, 64 * 1024];

/// Opens media of this machine, all in the same way.
#[derive(Clone)]
pub struct Opener {
    backend: Backend,
    #[cfg(feature = "fault-injection")]
    faults: (media::FaultPlan, Rt),
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener({:?})", self.backend)
    }
}

impl Opener {
    /// Opens with `backend`.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "fault-injection"))]
    pub fn new(_rt: &Rt, backend: Backend) -> Result<Self> {
        Ok(Self { backend })
    }

    /// Opens with `backend`, with the faults that `HOLDFAST_FAULT` plans.
    ///
    /// # Errors
    /// `fault_plan`.
    #[cfg(feature = "fault-injection")]
    pub fn new(rt: &Rt, backend: Backend) -> Result<Self> {
        let plan = media::FaultPlan::from_env("HOLDFAST_FAULT")
            .map_err(|error| Error::new(code::FAULT_PLAN, error.to_string()))?;
        Ok(Self { backend, faults: (plan, rt.clone()) })
    }
}

impl OpenMedia for Opener {
    fn open(&self, path: &Path, create_size: Option<u64>) -> media::Result<Arc<dyn Medium>> {
        let medium = media::open(path, OpenOptions { create_size, backend: self.backend })?;
        #[cfg(feature = "fault-injection")]
        let medium: Arc<dyn Medium> =
            Arc::new(media::FaultMedium::new(medium, self.faults.0.clone(), self.faults.1.clone()));
        Ok(medium)
    }

    fn same_device(&self, paths: &[PathBuf]) -> Vec<Vec<usize>> {
        media::same_device(paths)
    }
}

/// A failed medium as an error of the site.
pub(crate) fn medium_error(error: &media::MediaError) -> Error {
    let code = match error.kind {
        media::MediaErrorKind::NoSpace => code::NO_SPACE,
        media::MediaErrorKind::Gone => code::MEDIUM_MISSING,
        media::MediaErrorKind::Busy => code::MEDIUM_BUSY,
        media::MediaErrorKind::Invalid => code::MEDIUM_INVALID,
        media::MediaErrorKind::Denied => code::PERMISSION_DENIED,
        media::MediaErrorKind::Io => code::MEDIUM_ERROR,
    };
    let hint = match error.kind {
        media::MediaErrorKind::Busy => "unmount it, or stop what uses it; name each medium once",
        media::MediaErrorKind::Gone => "a file is made with: truncate -s 64G PATH",
        media::MediaErrorKind::Invalid => "a medium is a regular file or a block device of 1 GiB or more",
        media::MediaErrorKind::Denied => {
            "let the server's user read and write it, and the folders above it be entered"
        }
        media::MediaErrorKind::NoSpace => "make room on the file system, or give smaller media",
        media::MediaErrorKind::Io => "the medium fails: see the system's log, and choose another",
    };
    Error::new(code, error.to_string()).hint(hint).caused_by(error.clone())
}

/// The newest superblock on a medium, without changing anything on it.
///
/// # Errors
/// When neither copy can be read.
pub async fn peek(medium: &dyn Medium) -> media::Result<Option<Superblock>> {
    let mut newest: Option<Superblock> = None;
    let mut failed = None;
    for offset in SUPERBLOCKS.map(|offset| offset as u64) {
        if offset + PAGE as u64 > medium.len() {
            continue;
        }
        match medium.read(offset, PAGE).await {
            Ok(page) => {
                let found = Superblock::decode(page.as_ref());
                newest = newest.into_iter().chain(found).max_by_key(|superblock| superblock.generation);
            }
            Err(error) => failed = Some(error),
        }
    }
    match (newest, failed) {
        (None, Some(error)) => Err(error),
        (newest, _) => Ok(newest),
    }
}

/// What an unfinished first start may have left on a medium.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unfinished {
    /// The site it was making.
    pub(crate) site: SiteId,
    /// The layout it was formatting this medium with, when this medium was in its plan.
    pub(crate) formatting: Option<Layout>,
}

/// Refuses a medium that may hold something of someone else's. What an unfinished first start left is ours: its
/// superblock, or an allocation table and nothing else. File systems and the like leave their marks elsewhere.
pub(crate) async fn check_free(medium: &dyn Medium, unfinished: Option<Unfinished>) -> Result<()> {
    if let Some(superblock) = peek(medium).await.map_err(|error| medium_error(&error))? {
        if unfinished.is_some_and(|unfinished| unfinished.site == superblock.site) {
            return Ok(());
        }
        let reason = format!("{}: it belongs to site {}: left untouched", medium.name(), superblock.site);
        return Err(Error::new(code::FOREIGN_MEDIUM, reason).hint(wipe(medium.name())));
    }
    let layout = unfinished.and_then(|unfinished| unfinished.formatting);
    let look = LOOK_BYTES.min(usize::try_from(medium.len()).unwrap_or(LOOK_BYTES));
    for offset in [0, medium.len() - look as u64] {
        let mut bytes = medium.read(offset, look).await.map_err(|error| medium_error(&error))?;
        if let Some(layout) = layout {
            blank_tables(&layout, offset, bytes.as_mut());
        }
        if !seal::is_zero(bytes.as_ref()) {
            let end = if offset == 0 { "start" } else { "end" };
            let reason = format!("{}: something stands at its {end}: left untouched", medium.name());
            return Err(Error::new(code::MEDIUM_NOT_EMPTY, reason).hint(wipe(medium.name())));
        }
    }
    Ok(())
}

/// Refuses a medium that may hold something.
///
/// # Errors
/// `foreign_medium`, `medium_not_empty`, and when it cannot be read.
pub async fn check_free_whole(medium: &dyn Medium) -> Result<()> {
    check_free(medium, None).await
}

/// Zeroes what of a medium is looked at when it is to be formatted. *Requires* that it was found free.
pub(crate) async fn blank(medium: &dyn Medium) -> media::Result<()> {
    let look = (LOOK_BYTES as u64).min(medium.len());
    medium.prepare(0, look).await?;
    medium.prepare(medium.len() - look, look).await
}

/// Zeroes what of the allocation tables lies in `bytes`, read at `offset`.
fn blank_tables(layout: &Layout, offset: u64, bytes: &mut [u8]) {
    for table in layout.tables {
        // Within the bytes, whose length is a `usize`.
        let within = |at: u64| at.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (start, end) = (within(table), within(table + layout.table_bytes));
        bytes[start..end].fill(0);
    }
}

fn wipe(name: &str) -> String {
    format!(
        "choose another medium; or, when nothing on it is needed any more, zero its first and last MiB: \
         dd if=/dev/zero of={name} bs=1M count=1 conv=notrunc oflag=direct (and again with seek= for the end)"
    )
}

/// A medium of the site that is there, with its own word on who it is.
pub(crate) struct Found {
    pub(crate) id: MediumId,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) superblock: Superblock,
}

/// What became of the site's media when they were opened.
pub(crate) struct MediaSet {
    pub(crate) found: Vec<Found>,
    /// Those that are not there, with the reason.
    pub(crate) absent: Vec<(MediumId, String)>,
}

impl MediaSet {
    /// Opens every medium of the site. Superblocks say which is which, so devices may have changed places.
    pub(crate) async fn open(opener: &dyn OpenMedia, directory: &Directory, manifest: &Manifest) -> Self {
        let mut found: Vec<Found> = Vec::new();
        let mut reasons = Vec::new();
        for entry in &manifest.media {
            match open_entry(opener, directory, manifest, entry).await {
                Ok(medium) if found.iter().any(|other| other.id == medium.id) => {
                    reasons.push((entry.id(), format!("{}: a copy of another medium", entry.path.display())));
                }
                Ok(medium) => {
                    if medium.id != entry.id() {
                        tracing::info!(medium = %medium.id, path = %entry.path.display(), "a medium has changed places");
                    }
                    found.push(medium);
                }
                Err(reason) => reasons.push((entry.id(), reason)),
            }
        }
        let order = manifest.ids();
        found.sort_by_key(|found| order.iter().position(|id| *id == found.id));
        let absent = order.iter().filter(|id| !found.iter().any(|found| found.id == **id)).map(|id| {
            let reason = reasons.iter().find(|(of, _)| of == id).map(|(_, reason)| reason.clone());
            (*id, reason.unwrap_or_else(|| "another medium stands in its place".to_owned()))
        });
        let absent = absent.collect();
        Self { found, absent }
    }
}

/// What a superblock becomes that has other keys, or another count of media, than `newest`; `None` where it is as it is to
/// be.
pub fn brought_up_to(has: &Superblock, newest: &Superblock) -> Option<Superblock> {
    let same = has.keys == newest.keys
        && has.epochs == newest.epochs
        && has.media == newest.media
        && has.recovered_ms == newest.recovered_ms;
    (!same).then(|| Superblock { media: newest.media, ..with_keys(has, newest) })
}

/// Rewrites the superblock of a medium that has other keys, or another count of media, than `newest`.
pub(crate) async fn with_keys_of(found: &mut Found, newest: &Superblock) -> media::Result<()> {
    if let Some(superblock) = brought_up_to(&found.superblock, newest) {
        data::write_superblock(&*found.medium, &superblock).await?;
        found.superblock = superblock;
    }
    Ok(())
}

/// Opens one entry; the error says why the medium is not there.
async fn open_entry(
    opener: &dyn OpenMedia,
    directory: &Directory,
    manifest: &Manifest,
    entry: &Entry,
) -> std::result::Result<Found, String> {
    let medium = opener.open(&directory.resolve(&entry.path), None).map_err(|error| error.to_string())?;
    identify(medium, manifest).await
}

/// Finds out which medium of the site it is; the error says why it is none.
pub(crate) async fn identify(
    medium: Arc<dyn Medium>,
    manifest: &Manifest,
) -> std::result::Result<Found, String> {
    let superblock = peek(&*medium).await.map_err(|error| error.to_string())?;
    let name = medium.name();
    let superblock = superblock.ok_or_else(|| format!("{name}: it carries no superblock"))?;
    if superblock.site != manifest.site() {
        return Err(format!("{name}: it belongs to site {}: left untouched", superblock.site));
    }
    if superblock.released {
        return Err(format!("{name}: medium {} has left the site", superblock.medium));
    }
    if !manifest.ids().contains(&superblock.medium) {
        return Err(format!("{name}: medium {} is not in site.json", superblock.medium));
    }
    Ok(Found { id: superblock.medium, medium, superblock })
}

/// Reads the medium's table: it can serve.
pub(crate) async fn node(found: &Found, like: &Superblock) -> std::result::Result<MediumNode, String> {
    let sizes = |superblock: &Superblock| {
        let params = superblock.params;
        (params.container_bytes, params.segment_bytes, params.segments_max)
    };
    if sizes(&found.superblock) != sizes(like) {
        return Err(format!("{}: its sizes differ from the site's", found.medium.name()));
    }
    data::open(found.medium.clone(), found.superblock.site).await.map_err(|error| error.to_string())
}

/// A medium's superblock with the keys of another.
pub fn with_keys(own: &Superblock, like: &Superblock) -> Superblock {
    Superblock {
        keys: like.keys.clone(),
        epochs: like.epochs.clone(),
        recovered_ms: like.recovered_ms,
        generation: like.generation,
        ..own.clone()
    }
}
