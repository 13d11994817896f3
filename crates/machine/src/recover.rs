//! Recovering a site whose directory is lost, from its media and the recovery key.
//!
//! The media hold everything but the list of themselves, the key that opens them without the recovery key, and the
//! witness. The list is made anew from the superblocks, which say how many there are; the key is made anew, as at a
//! first start, so the directory that is lost has the site no more should it turn up: the media say since when; and the
//! journal is believed as the media that are there tell it, which is why they must be all, or all
//! but as many as may be lost. `site.json` comes last: without it nothing has happened that a second attempt does not
//! do again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Error, Result, code};
use data::{LocalTransport, Superblock};
use media::Backend;
use seal::{KeyRing, RecoveryKey, Sealer};
use seam::Rt;
use units::{MediumId, SiteId};

use crate::directory::Directory;
use crate::files::named;
use crate::host::{self, Host, OpenMedia};
use crate::keys;
use crate::manifest::{Entry, Manifest};
use crate::media_set::{self, Found, medium_error, peek};
use crate::witness;

/// What to recover a site from.
#[derive(Debug, Clone)]
pub struct RecoverOptions {
    /// The new directory, without a site in it.
    pub dir: PathBuf,
    /// The site's media; none: the files in `dir`/media.
    pub media: Vec<PathBuf>,
    /// File with the recovery key; not asked for where the directory has its site.
    pub recovery_key_file: Option<PathBuf>,
    /// File with the passphrase that shall open the site from now on, instead of a key file.
    pub passphrase_file: Option<PathBuf>,
    /// How many media are lost for good: at most as many as the geometry bears.
    pub missing: usize,
    /// Give up what is on none of the media that are there: then as many as there are may be missing.
    pub accept_loss: bool,
    /// How media are read and written.
    pub backend: Backend,
    /// A simulated machine; else the one the process runs on.
    pub host: Option<Arc<dyn Host>>,
}

impl RecoverOptions {
    /// The directory of the site.
    ///
    /// # Errors
    /// As [`Directory::new`].
    pub fn directory(&self) -> Result<Directory> {
        host::directory(self.host.as_deref(), &self.dir)
    }
}

/// A site that can be started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredSite {
    /// The site.
    pub site: SiteId,
    /// Its media that are there.
    pub media: usize,
    /// Its media that are not.
    pub missing: usize,
    /// What was given up, one sentence each.
    pub lost: Vec<String>,
}

/// Makes the directory of a site anew. The site does not serve.
///
/// # Errors
/// `site_exists` when the directory has a site; `recovery_key_wrong`; `media_missing`; `foreign_medium` when the
/// media are of several sites; `journal_lost` when the media do not tell all that was acknowledged. Nothing is
/// changed on the media before all of that is known.
pub async fn recover(rt: Rt, options: RecoverOptions) -> Result<RecoveredSite> {
    let directory = options.directory()?;
    let key_file = options.recovery_key_file.as_deref().ok_or_else(|| {
        let reason = format!("{}: no site is there, and no recovery key is given", options.dir.display());
        Error::new(code::RECOVERY_KEY_WRONG, reason)
            .hint("name the directory of the site, or its media and recovery key")
    })?;
    let recovery = read_recovery_key(&directory, key_file)?;
    directory.make()?;
    let _lock = directory.files().lock(&directory.lock())?;
    if Manifest::load(&directory, &directory.manifest())?.is_some() {
        let reason = format!("{}: there is a site already", directory.root().display());
        return Err(Error::new(code::SITE_EXISTS, reason)
            .hint("start it with `holdfast standalone`, or name another directory"));
    }
    keys::check_new_site(&directory, options.passphrase_file.as_deref())?;
    let opener = host::opener(options.host.as_deref(), &rt, options.backend)?;
    let work = Recovering { rt, directory, options, media: Vec::new() };
    work.run(&*opener, &recovery).await
}

fn read_recovery_key(directory: &Directory, path: &Path) -> Result<RecoveryKey> {
    let wrong = |reason: &str| {
        Error::new(code::RECOVERY_KEY_WRONG, format!("{}: {reason}", path.display()))
            .hint("name the file that --recovery-key-file made, or one with the key as it was shown")
    };
    let bytes = directory.read(path)?.ok_or_else(|| wrong("no such file"))?;
    keys::recovery_of(&bytes).ok_or_else(|| wrong("it holds no recovery key"))
}

struct Recovering {
    rt: Rt,
    directory: Directory,
    options: RecoverOptions,
    /// In the order they were named.
    media: Vec<(PathBuf, Found)>,
}

impl Recovering {
    async fn run(mut self, opener: &dyn OpenMedia, recovery: &RecoveryKey) -> Result<RecoveredSite> {
        self.open(opener).await?;
        let superblocks = self.media.iter().map(|(_, found)| &found.superblock);
        let newest = superblocks.max_by_key(|superblock| superblock.generation).cloned();
        let newest = newest.ok_or_else(|| media_missing("no medium is given".to_owned()))?;
        let ring = newest.keys.unwrap_with_recovery(recovery).map_err(|error| {
            Error::new(code::RECOVERY_KEY_WRONG, error.to_string()).hint(
                "the newest recovery key counts: `standalone --recovery-key-file` replaces the one before",
            )
        })?;
        let total = usize::from(newest.media);
        let missing = self.check_missing(total)?;
        let mut lost = Vec::new();
        if missing > bearable(total) {
            // No witness tells whether the newest segment is among those that are there.
            lost.push(format!(
                "{missing} of {total} media are missing: the newest changes may have been on these alone"
            ));
        }
        let unreachable = self.members(&newest, &ring).await?;
        self.change(&newest, &ring, recovery, &unreachable).await?;
        tracing::info!(site = %newest.site, media = self.media.len(), missing, "site recovered");
        Ok(RecoveredSite { site: newest.site, media: self.media.len(), missing, lost })
    }

    /// Opens the media and sees that they are different ones of one site.
    async fn open(&mut self, opener: &dyn OpenMedia) -> Result<()> {
        for path in self.paths()? {
            let medium = opener.open(&path, None).map_err(|error| medium_error(&error))?;
            let name = medium.name().to_owned();
            let superblock =
                peek(&*medium).await.map_err(|error| medium_error(&error))?.ok_or_else(|| {
                    let reason = format!("{name}: it carries no superblock");
                    Error::new(code::NOT_A_MEDIUM, reason).hint("leave it out")
                })?;
            if superblock.released && self.options.media.is_empty() {
                continue;
            }
            if superblock.released {
                let reason = format!("{name}: it has left its site");
                return Err(Error::new(code::NOT_A_MEDIUM, reason).hint("leave it out"));
            }
            for (other, found) in &self.media {
                let reason = if found.superblock.site != superblock.site {
                    format!("{name} belongs to site {}, {} does not", superblock.site, other.display())
                } else if found.id == superblock.medium {
                    format!("{name} and {} are copies of one medium", other.display())
                } else {
                    continue;
                };
                return Err(
                    Error::new(code::FOREIGN_MEDIUM, reason).hint("name the media of one site, each once")
                );
            }
            self.media.push((path, Found { id: superblock.medium, medium, superblock }));
        }
        Ok(())
    }

    fn paths(&self) -> Result<Vec<PathBuf>> {
        let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|error| Error::file(path, &error));
        if !self.options.media.is_empty() {
            return self.options.media.iter().map(absolute).collect();
        }
        let folder = self.directory.media();
        self.directory.files().list(&folder).map_err(named(&folder))
    }

    fn check_missing(&self, total: usize) -> Result<usize> {
        let given = self.media.len();
        let missing = total.saturating_sub(given);
        let bearable = bearable(total);
        if self.options.accept_loss {
            return Ok(missing);
        }
        let said = self.options.missing;
        if missing <= bearable && said > bearable {
            let reason = format!(
                "--missing {said}: the site has {total} media, and no more than {bearable} of them may be missing"
            );
            return Err(Error::new(code::INVALID_REQUEST, reason)
                .hint("say how many media are lost for good; leave --missing out when none is"));
        }
        if missing > bearable {
            return Err(media_missing(format!(
                "the site has {total} media, {given} are given, and no more than {bearable} may be missing"
            )));
        }
        if missing > self.options.missing {
            return Err(media_missing(format!("the site has {total} media, and {given} are given"))
                .hint(format!("name all of them; when {missing} are lost for good: --missing {missing}")));
        }
        Ok(missing)
    }

    /// Reads the journal: the media must tell all of it. Gives the media that hold containers and are not there.
    async fn members(&self, newest: &Superblock, ring: &KeyRing) -> Result<Vec<MediumId>> {
        let transport = LocalTransport::new(self.rt.clone());
        let mut there = Vec::new();
        for (path, found) in &self.media {
            let node = media_set::node(found, newest)
                .await
                .map_err(|reason| Error::new(code::MEDIUM_ERROR, format!("{}: {reason}", path.display())))?;
            transport.attach(Arc::new(node));
            there.push(found.id);
        }
        let sealer = Sealer::new(&keys::open_epochs(&newest.epochs, ring)?);
        let unknown = journal::Registered::default();
        let story = match journal::recover(&transport, &there, sealer.journal_key(), &unknown).await {
            Err(_) if self.options.accept_loss => {
                journal::salvage(&transport, &there, sealer.journal_key(), &unknown).await.0
            }
            story => story.map_err(|error| {
                Error::new(code::JOURNAL_LOST, error.to_string())
                    .hint("bring more of the site's media; --accept-loss gives up what is on none of them")
            })?,
        };
        let Some(story) = story else {
            if self.options.accept_loss {
                let reason = "nothing is left of the journal on these media, and nothing to go on from";
                return Err(Error::new(code::JOURNAL_LOST, reason)
                    .hint("bring more of the site's media; nothing was changed"));
            }
            return Ok(Vec::new());
        };
        let mut rows = std::collections::BTreeMap::new();
        let later = story.records.iter().filter_map(|(_, record)| match record {
            journal::Record::Row(row) => Some(row),
            _ => None,
        });
        for row in story.start.rows.iter().chain(later) {
            let newest = rows.entry((row.class, row.row)).or_insert(row);
            if newest.version <= row.version {
                *newest = row;
            }
        }
        let mut missing: Vec<MediumId> = rows.values().flat_map(|row| row.members.iter().copied()).collect();
        missing.sort_unstable();
        missing.dedup();
        missing.retain(|id| !there.contains(id));
        Ok(missing)
    }

    /// Key, superblocks, witness, and last the manifest.
    async fn change(
        &mut self,
        newest: &Superblock,
        ring: &KeyRing,
        recovery: &RecoveryKey,
        missing: &[MediumId],
    ) -> Result<()> {
        let unlock = keys::of_new_site(&*self.rt, &self.directory, self.options.passphrase_file.as_deref())?;
        let keys = unlock.wrap(&*self.rt, ring, recovery)?;
        let media = (self.media.len() + missing.len()) as u16;
        let mut entries = Vec::new();
        // Another one than that of a recovery before, whatever the clock says.
        let recovered_ms = self.rt.wall_ms().max(newest.recovered_ms + 1);
        for (path, found) in &mut self.media {
            let old = &found.superblock;
            let generation = newest.generation + 1;
            let like = Superblock { keys: keys.clone(), generation, recovered_ms, ..newest.clone() };
            let superblock = Superblock { media, ..media_set::with_keys(old, &like) };
            data::write_superblock(&*found.medium, &superblock)
                .await
                .map_err(|error| medium_error(&error))?;
            let place = path.strip_prefix(self.directory.root()).unwrap_or(path);
            entries.push(Entry::new(found.id, place, old.medium_bytes, place.is_relative()));
        }
        for id in missing {
            // A place where the medium can be put should it turn up.
            let place = PathBuf::from(format!("media/missing-{id}"));
            entries.push(Entry::new(*id, &place, newest.medium_bytes, false));
        }
        witness::make(&**self.directory.files(), &self.directory.witness())?;
        let mut manifest = Manifest::new(newest.site, entries);
        manifest.recovered_ms = recovered_ms;
        self.directory.replace(&self.directory.manifest(), &manifest.encode()?)?;
        self.directory.remove(&self.directory.first_start())
    }
}

/// How many of so many media may be lost.
fn bearable(total: usize) -> usize {
    match total {
        0 | 1 => 0,
        2 => 1,
        _ => 2,
    }
}

fn media_missing(reason: String) -> Error {
    Error::new(code::MEDIA_MISSING, reason).hint("name all media of the site with --media")
}
