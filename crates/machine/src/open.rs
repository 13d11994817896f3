//! A start: the lock, the manifest, the media, the keys, the engine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Error, Result, code, format_time};
use data::{Params, Superblock};
use engine::{Config, Deps, Engine, EngineErrorKind, OnLoss, Witness};
use media::Backend;
use proto::Transport;
use seal::{KeyRing, RecoveryKey, Sealer};
use seam::Rt;
use units::MediumId;

use crate::clients::ClientLimits;
use crate::create::create;
use crate::directory::Directory;
use crate::home::{FoundMedia, FoundMedium, Home};
use crate::host::{self, Host};
use crate::keys::{self, Unlock};
use crate::local_home::LocalHome;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::media_set;
use crate::witness::FileWitness;

/// File media to be made at the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMedia {
    /// How many.
    pub count: usize,
    /// Bytes of each.
    pub bytes: u64,
}

/// Sizes of containers and segments of a new site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sizes {
    /// Those of a real site.
    #[default]
    Normal,
    /// Very small ones, so that a test reaches every record type with little data.
    Tiny,
    /// These.
    Given(Params),
}

/// How to start a site.
#[derive(Debug, Clone)]
pub struct Options {
    /// The site's directory; made when it is not there.
    pub dir: PathBuf,
    /// Media of a new site: files or block devices that are there. A later start has those it has.
    pub media: Vec<PathBuf>,
    /// File media of a new site. A later start has those it has.
    pub file_media: Option<FileMedia>,
    /// File with the passphrase that opens the site's keys, instead of a key file.
    pub passphrase_file: Option<PathBuf>,
    /// New file for the recovery key; an existing site gets a new recovery key.
    pub recovery_key_file: Option<PathBuf>,
    /// How media are read and written.
    pub backend: Backend,
    /// Sizes of a new site.
    pub sizes: Sizes,
    /// How long a medium may be away before what it held is made again on others; else as the engine has it.
    pub rebuild_after: Option<Duration>,
    /// How long writes wait while nothing can be flushed before they are refused; else as the engine has it.
    pub write_patience: Option<Duration>,
    /// How long clients of tasks may be silent before their tasks have failed; else as tasks have it.
    pub task_patience: Option<Duration>,
    /// Whether the built-in group of a new site makes points of VMs that no other group takes.
    pub default_points: bool,
    /// A group, by number, whose members may open the disks; else the owner alone.
    pub nbd_group: Option<u32>,
    /// What clients may take of the server.
    pub clients: ClientLimits,
    /// How long leases hold that media grant; zero where no other process can take over.
    pub lease: Duration,
    /// What to do when something that was acknowledged is on none of the media that are there. Where another process can
    /// take over the start is refused.
    pub on_loss: OnLoss,
    /// A simulated machine; else the one the process runs on.
    pub host: Option<Arc<dyn Host>>,
}

impl Options {
    /// A start in `dir` with nothing else said.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            media: Vec::new(),
            file_media: None,
            passphrase_file: None,
            recovery_key_file: None,
            rebuild_after: None,
            write_patience: None,
            task_patience: None,
            default_points: true,
            nbd_group: None,
            clients: ClientLimits::default(),
            lease: Duration::ZERO,
            on_loss: OnLoss::Serve,
            backend: Backend::Auto,
            sizes: Sizes::Normal,
            host: None,
        }
    }

    /// The directory of the site.
    ///
    /// # Errors
    /// As [`Directory::new`].
    pub fn directory(&self) -> Result<Directory> {
        host::directory(self.host.as_deref(), &self.dir)
    }

    fn way(&self, transport: Arc<dyn Transport>) -> Arc<dyn Transport> {
        match &self.host {
            Some(host) => host.way(transport),
            None => transport,
        }
    }
}

/// A site whose engine is open: what whoever serves it is given.
pub struct Opened {
    /// The runtime.
    pub rt: Rt,
    /// Where its media are.
    pub home: Arc<dyn Home>,
    /// Its directory.
    pub directory: Directory,
    /// The engine.
    pub engine: Engine,
    /// Media that could not be opened, with the reason.
    pub absent: Vec<(MediumId, String)>,
    /// The superblock whose keys every medium must carry.
    pub keys_from: Superblock,
    /// The site's secrets, opened.
    pub ring: KeyRing,
    /// Held as long as the site is open.
    pub lock: Arc<Lock>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({})", self.directory.root().display())
    }
}

/// What a start found or made.
#[derive(Debug)]
pub struct Begun {
    /// The site.
    pub opened: Opened,
    /// Whether this start made it.
    pub is_new: bool,
    /// The recovery key of a new site whose key went to no file: for the administrator's eyes, once.
    pub recovery_key: Option<String>,
    /// What the site's media are, where the options name others: they are for a site's first start.
    pub other_media: Option<String>,
}

/// Opens the site in a directory, making it at the first start.
///
/// # Errors
/// `site_busy` when it is started already; `key_wrong` and its like; `too_few_media`, naming the missing ones;
/// what making a site can meet (`foreign_medium`, `medium_not_empty`, `recovery_key_file_exists`).
pub async fn start(rt: Rt, options: &Options) -> Result<Begun> {
    let directory = options.directory()?;
    directory.make()?;
    let lock = directory.files().lock(&directory.lock())?;
    directory.remove_leftovers()?;
    // A killed server left it; nobody shall take it for the sign that this one serves.
    directory.remove(&directory.api_socket())?;
    let opener = host::opener(options.host.as_deref(), &rt, options.backend)?;
    let mut other_media = None;
    let (manifest, new_key) = match Manifest::load(&directory, &directory.manifest())? {
        Some(manifest) => {
            other_media = find_other_media(&directory, &manifest, options)?;
            directory.remove(&directory.first_start())?;
            (manifest, None)
        }
        None => {
            let (manifest, key) = create(&rt, &*opener, &directory, options).await?;
            (manifest, Some(key))
        }
    };
    let is_new = new_key.is_some();
    let witness = Arc::new(FileWitness::open(rt.clone(), directory.files(), &directory.witness())?);
    let home = Arc::new(LocalHome::new(&rt, opener, &directory, manifest));
    let opening = Opening { rt, home, witness, directory, options };
    let opened = opening.run(Arc::new(lock), is_new).await?;
    let recovery_key = new_key.flatten().map(|key| key.to_text());
    Ok(Begun { opened, is_new, recovery_key, other_media })
}

/// Opens a site whose media are at `home`, for the one who has claimed it with `witness`. `options` say how; not where
/// its media are.
///
/// # Errors
/// As [`start`] for a site that is there.
pub async fn open(
    rt: Rt,
    home: Arc<dyn Home>,
    witness: Arc<dyn Witness>,
    lock: Arc<Lock>,
    options: &Options,
) -> Result<Opened> {
    let directory = options.directory()?;
    Opening { rt, home, witness, directory, options }.run(lock, false).await
}

/// What the site's media are, when the options name others. Media come and go, and the options of the first start may stand in
/// the file of a service: they do no harm.
fn find_other_media(directory: &Directory, manifest: &Manifest, options: &Options) -> Result<Option<String>> {
    let known: BTreeSet<PathBuf> =
        manifest.media.iter().map(|entry| directory.resolve(&entry.path)).collect();
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|error| Error::file(path, &error));
    let given: BTreeSet<PathBuf> = options.media.iter().map(absolute).collect::<Result<_>>()?;
    let are_other_files = options.file_media.is_some_and(|files| {
        let same = manifest.media.iter().filter(|entry| entry.made && entry.bytes == files.bytes).count();
        same != files.count || manifest.media.len() != files.count
    });
    if !are_other_files && (given.is_empty() || given == known) {
        return Ok(None);
    }
    let known: Vec<String> = known.iter().map(|path| path.display().to_string()).collect();
    Ok(Some(format!(
        "--media and --file-media are for a site's first start: this one has {} media: {}",
        known.len(),
        known.join(", ")
    )))
}

/// The file of a new recovery key: it goes again where no medium comes to name the key.
struct WrittenKey<'a>(Option<(Directory, &'a Path)>);

impl WrittenKey<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for WrittenKey<'_> {
    fn drop(&mut self) {
        if let Some((directory, path)) = &self.0
            && let Err(error) = directory.remove(path)
        {
            tracing::warn!(%error, "a recovery key that opens nothing stays");
        }
    }
}

/// An existing site being opened.
struct Opening<'a> {
    rt: Rt,
    home: Arc<dyn Home>,
    witness: Arc<dyn Witness>,
    directory: Directory,
    options: &'a Options,
}

impl Opening<'_> {
    async fn run(self, lock: Arc<Lock>, is_new: bool) -> Result<Opened> {
        let manifest = self.home.manifest();
        let mut media = self.home.look().await;
        let superblocks = media.found.iter().map(|found| &found.superblock);
        let newest = superblocks.max_by_key(|superblock| superblock.generation).cloned();
        let newest = newest.ok_or_else(|| self.too_few(&media, "no medium is there"))?;
        if newest.recovered_ms > manifest.recovered_ms {
            return Err(self.taken_over(newest.recovered_ms));
        }
        let wants_passphrase = newest.keys.wants_passphrase();
        let passphrase_file = self.options.passphrase_file.as_deref();
        let unlock = Unlock::of_site(&self.directory, passphrase_file, wants_passphrase)?;
        let ring = unlock.open(&newest.keys)?;
        let (newest, written) = match &self.options.recovery_key_file {
            Some(path) if !is_new => {
                let next = self.new_recovery_key(path, &newest, &ring)?;
                (next, Some(WrittenKey(Some((self.directory.clone(), path)))))
            }
            _ => (newest, None),
        };
        let count = manifest.media.len() as u16;
        // A medium came or went, and not every superblock heard of it.
        let stale = newest.media != count;
        let newest = Superblock {
            media: count,
            generation: newest.generation + u64::from(stale),
            released: false,
            ..newest
        };
        let opened = keys::open_epochs(&newest.epochs, &ring)?;
        let has = media.found.clone();
        let up = self.attach(&mut media, &newest).await?;
        let nodes = manifest.media.iter().filter_map(|entry| Some((entry.id(), entry.node()?)));
        let deps = Deps {
            rt: self.rt.clone(),
            transport: self.options.way(self.home.transport()),
            media: manifest.ids(),
            nodes: nodes.collect(),
            up,
            leaving: manifest.leaving(),
            sealer: Arc::new(Sealer::new(&opened)),
            witness: self.witness.clone(),
        };
        let engine = match Engine::open(deps, self.config(&newest)).await {
            Ok(engine) => engine,
            Err(error) if error.kind == EngineErrorKind::TooFewMedia => {
                return Err(self.too_few(&media, &error.reason));
            }
            Err(error) => return Err(error.into()),
        };
        self.home.owned(engine.epoch());
        self.spread(&has, &newest).await;
        if let Some(written) = written {
            written.keep();
        }
        Ok(Opened {
            rt: self.rt,
            home: self.home,
            directory: self.directory,
            engine,
            absent: media.absent,
            keys_from: newest,
            ring,
            lock,
        })
    }

    /// Has the media that are there and sound served; gives which.
    async fn attach(&self, media: &mut FoundMedia, newest: &Superblock) -> Result<Vec<MediumId>> {
        let mut up = Vec::new();
        for FoundMedium { id, .. } in std::mem::take(&mut media.found) {
            match self.home.attach(id, newest).await {
                Ok(()) => up.push(id),
                Err(reason) => {
                    self.home.detach(id);
                    media.absent.push((id, reason));
                }
            }
        }
        for (medium, reason) in &media.absent {
            tracing::warn!(%medium, reason, "a medium is not there");
        }
        if up.is_empty() {
            return Err(self.too_few(media, "no medium can be used"));
        }
        Ok(up)
    }

    /// Gives every medium that serves the newest keys. Only whoever owns the site may; one that does not take them gets them
    /// at the next start.
    async fn spread(&self, has: &[FoundMedium], newest: &Superblock) {
        for FoundMedium { id, superblock } in has.iter().filter(|found| self.home.is_attached(found.id)) {
            let Some(next) = media_set::brought_up_to(superblock, newest) else { continue };
            if let Err(error) = self.home.write_superblock(*id, next).await {
                tracing::warn!(%error, medium = %id, "a medium does not get the newest keys");
            }
        }
    }

    fn config(&self, newest: &Superblock) -> Config {
        let params = newest.params;
        let mut config =
            Config::for_params(params.container_bytes, params.segment_bytes, params.segments_max);
        config.lease = self.options.lease;
        if config.lease.is_zero() {
            config.on_loss = self.options.on_loss;
        }
        if let Some(patience) = self.options.write_patience {
            config.write_patience = patience;
        }
        if let Some(patience) = self.options.rebuild_after {
            config.rebuild_after = patience;
        }
        if let Some(host) = &self.options.host {
            host.set_up(&mut config);
        }
        config
    }

    /// Wraps the ring by a new recovery key. Its file comes first: a superblock must not name a key nobody has.
    fn new_recovery_key(&self, path: &Path, newest: &Superblock, ring: &KeyRing) -> Result<Superblock> {
        let recovery = RecoveryKey::from_bytes(keys::random_key(&*self.rt));
        keys::write_recovery_file(&**self.directory.files(), path, &recovery)?;
        let mut random = [0; 12];
        self.rt.fill_random(&mut random);
        let keys = newest.keys.with_recovery(ring, &recovery, &random);
        tracing::info!(path = %path.display(), "a new recovery key replaces the old one");
        Ok(Superblock { keys, generation: newest.generation + 1, ..newest.clone() })
    }

    /// This directory is that of a time before the site was recovered.
    fn taken_over(&self, recovered_ms: u64) -> Error {
        let reason = format!(
            "{}: `site recover` gave the site another directory at {}: this one is out of date since",
            self.directory.root().display(),
            format_time(recovered_ms)
        );
        Error::new(code::SITE_RECOVERED, reason)
    }

    fn too_few(&self, media: &FoundMedia, reason: &str) -> Error {
        let absent: Vec<String> =
            media.absent.iter().map(|(medium, why)| format!("{medium} ({why})")).collect();
        let total = self.home.manifest().media.len();
        let reason =
            format!("{reason}; {} of {total} media are missing: {}", absent.len(), absent.join("; "));
        // The words of the system.
        let is_denied = |why: &str| why.contains("Permission denied") || why.contains("not permitted");
        if media.absent.iter().any(|(_, why)| is_denied(why)) {
            return Error::new(code::PERMISSION_DENIED, reason);
        }
        Error::new(code::TOO_FEW_MEDIA, reason)
            .hint("bring the missing media back, then start again; nothing was changed")
    }
}
