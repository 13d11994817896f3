//! The ground a simulated site stands on: its files, media and wires live on; processes come and go.

mod files;
mod host;
mod pause;
mod transport;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data::{Params, Superblock};
use engine::{Engine, EngineError, EngineErrorKind, OnLoss, WitnessState};
use machine::{Directory, Entry, Host, Manifest, Options, Sizes};
use proto::Request;
use seal::{EpochKeys, Kek, KeyRing, RecoveryKey, WrappedKeys};
use tokio::sync::oneshot;
use units::{MediumId, NodeId, SiteId};

use crate::executor::{Control, SimRuntime};
use crate::lost_answers::lost_answers;
use crate::medium::{Image, SimStore};
use crate::net::{Link, LinkPolicy};
use files::SimFiles;
use host::SimHost;
pub use pause::Pause;
use transport::{SimTransport, Wire, Wires};

const SITE: SiteId = SiteId(*b"a simulated site");
/// The site's directory.
const DIRECTORY: &str = "/site";
/// The key in its key file.
const KEY: [u8; 32] = [2; 32];

/// Where medium number `number` is.
fn path_of(number: usize) -> PathBuf {
    PathBuf::from(format!("/dev/sim{number}"))
}

fn number_of(path: &Path) -> Option<usize> {
    path.to_str()?.strip_prefix("/dev/sim")?.parse().ok()
}

/// Sizes of a site.
#[derive(Debug, Clone)]
pub struct SiteSpec {
    /// Number of media at first.
    pub media: usize,
    /// Data nodes that the media are on, in turn; with fewer than two each medium fails by itself.
    pub nodes: usize,
    /// Media that are none of the site's at first.
    pub spares: usize,
    /// Bytes of each medium.
    pub medium_bytes: u64,
    /// Sizes within a medium.
    pub params: Params,
    /// Plaintext blocks in RAM, bytes: small, so that reads reach the media.
    pub block_cache_bytes: u64,
    /// Map pages in RAM, bytes.
    pub page_cache_bytes: u64,
    /// Map changes before a checkpoint.
    pub overlay_entries_max: usize,
    /// Commits before a checkpoint.
    pub commits_max: usize,
    /// Bytes of commits, deletions and metadata behind the last checkpoint in a start record: none, and all of it goes to the
    /// log.
    pub start_backlog_bytes: usize,
    /// Keys of a stretch of metadata that a checkpoint takes over as it is, on average.
    pub meta_keys_per_chunk: u64,
    /// Answers of the metadata store are lost at times.
    pub lost_answers: bool,
    /// Bits of a fingerprint in the index.
    pub index_tag_bits: u32,
    /// How long a medium is down before what it held is rebuilt.
    pub rebuild_after: Duration,
    /// Bytes of fragments moved each second.
    pub rebuild_bytes_per_second: u64,
}

impl SiteSpec {
    /// The data node of a medium, by number.
    pub fn node_of(&self, medium: usize) -> usize {
        if self.nodes < 2 { medium } else { medium % self.nodes }
    }

    /// Numbers of the media that fail together with one of the first media, by failure domain.
    pub fn domains(&self) -> Vec<Vec<usize>> {
        let count = if self.nodes < 2 { self.media } else { self.nodes.min(self.media) };
        (0..count)
            .map(|node| (0..self.media).filter(|medium| self.node_of(*medium) == node).collect())
            .collect()
    }

    fn node_id(&self, medium: usize) -> Option<NodeId> {
        (self.nodes >= 2).then(|| NodeId([self.node_of(medium) as u8; 16]))
    }
}

/// A medium of the site, as its directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub number: usize,
    /// Which it is.
    pub id: MediumId,
    /// What it holds is to move to the others, and then it is to go.
    pub leaving: bool,
}

/// A site; outlives its processes.
pub struct Site {
    control: Control,
    spec: SiteSpec,
    stores: Vec<SimStore>,
    files: SimFiles,
    wires: Arc<Mutex<Wires>>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Site({} media)", self.stores.len())
    }
}

/// What is left of a site when all its processes are dead.
#[derive(Debug, Clone)]
pub struct SiteImage {
    /// Contents of the media.
    pub media: Vec<Image>,
    /// The files of the site's directory, and others.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl SiteImage {
    /// The media of the site, in order.
    pub fn members(&self) -> Vec<Member> {
        members(&SimFiles::of(self.files.clone()))
    }

    /// The witness.
    ///
    /// # Panics
    /// When its file is not whole.
    pub fn witness(&self) -> WitnessState {
        let file = self.files.get(&directory().witness()).expect("a site has its witness");
        machine::witness_state(file).expect("it makes sense")
    }
}

/// The media that `site.json` lists.
fn members(files: &SimFiles) -> Vec<Member> {
    let bytes = files.contents(&directory().manifest()).expect("a site has its list of media");
    let manifest = Manifest::decode(&bytes).expect("it makes sense");
    let member = |entry: &Entry| Member {
        number: number_of(&entry.path).expect("media are where they were made"),
        id: entry.id(),
        leaving: entry.leaving,
    };
    manifest.media.iter().map(member).collect()
}

fn directory() -> Directory {
    Directory::new(Path::new(DIRECTORY)).expect("a short path")
}

impl Site {
    /// A site on freshly formatted media.
    ///
    /// # Panics
    /// When the sizes make no site.
    pub async fn format(control: &Control, spec: SiteSpec) -> Self {
        let media = vec![Image::new(spec.medium_bytes); spec.media + spec.spares];
        let entry = |number: usize| {
            Entry::new(medium_id(number), &path_of(number), spec.medium_bytes, false)
                .on_node(spec.node_id(number))
        };
        let manifest = Manifest::new(SITE, (0..spec.media).map(entry).collect());
        let files = BTreeMap::from([
            (directory().manifest(), manifest.encode().expect("it can be written")),
            (directory().key(), KEY.to_vec()),
            (directory().witness(), machine::new_witness()),
        ]);
        let site = Self::of(control, spec, SiteImage { media, files });
        let world = control.world();
        let formats = site.stores.iter().enumerate().take(site.spec.media).map(|(number, store)| {
            let superblock = site.superblock(medium_id(number));
            let medium = store.open(world.clone()).expect("nobody else holds it");
            async move { data::format(&medium, &superblock).await.expect("a sound medium of a sane size") }
        });
        seam::join_all(formats).await;
        site
    }

    /// A site that was left so.
    pub fn of(control: &Control, spec: SiteSpec, image: SiteImage) -> Self {
        let store = |(number, image)| SimStore::from_image(control, &format!("medium{number}"), image);
        let link = |way: &str| Link::new(control, way, LinkPolicy::default());
        let wire = |_: &Image| Wire { there: link("there"), back: link("back") };
        let wires = image.media.iter().map(wire).collect();
        let files = SimFiles::of(image.files);
        Self {
            control: control.clone(),
            wires: Wires::new(wires, files.clone()),
            stores: image.media.into_iter().enumerate().map(store).collect(),
            files,
            spec,
        }
    }

    fn superblock(&self, medium: MediumId) -> Superblock {
        let (kek, recovery) = (Kek::from_bytes(KEY), RecoveryKey::from_bytes([3; 32]));
        Superblock {
            generation: 1,
            site: SITE,
            medium,
            medium_bytes: self.spec.medium_bytes,
            params: self.spec.params,
            media: self.spec.media as u16,
            released: false,
            keys: WrappedKeys::by_key_file(&KeyRing::for_tests(1), &kek, &recovery, &[4; 40]),
            epochs: EpochKeys::default(),
            recovered_ms: 0,
        }
    }

    /// The media, in order.
    pub fn stores(&self) -> &[SimStore] {
        &self.stores
    }

    /// Its sizes.
    pub fn spec(&self) -> &SiteSpec {
        &self.spec
    }

    /// The media of the site, in order.
    pub fn members(&self) -> Vec<Member> {
        members(&self.files)
    }

    /// The id of a medium of the site.
    ///
    /// # Panics
    /// When it is none of the site's.
    pub fn id(&self, number: usize) -> MediumId {
        let members = self.members();
        members.iter().find(|member| member.number == number).expect("a medium of the site").id
    }

    /// Where medium number `number` is.
    pub fn path(&self, number: usize) -> PathBuf {
        path_of(number)
    }

    /// Sets how messages to and from medium number `medium` fare.
    pub fn set_wire(&self, medium: usize, policy: LinkPolicy) {
        if let Some(wire) = lock(&self.wires).number(medium) {
            wire.there.set_policy(policy);
            wire.back.set_policy(policy);
        }
    }

    /// The contents of all media and files now.
    pub fn image(&self) -> SiteImage {
        SiteImage { media: self.stores.iter().map(SimStore::image).collect(), files: self.files.image() }
    }

    /// Starts a process that opens the site. It finds out itself which media are there.
    pub fn boot(&self) -> Life {
        self.boot_on(&vec![true; self.stores.len()])
    }

    /// As [`Site::boot`], on those media only that `there` says.
    pub fn boot_on(&self, there: &[bool]) -> Life {
        self.boot_for(there, OnLoss::Refuse)
    }

    /// As [`Site::boot_on`], and what is to be done about losses.
    pub fn boot_for(&self, there: &[bool], on_loss: OnLoss) -> Life {
        let rt = self.control.process("node");
        let transport = SimTransport::new(rt.clone(), self.wires.clone());
        let present = |(number, store): (usize, &SimStore)| there[number].then(|| store.clone());
        let meta_through = self
            .spec
            .lost_answers
            .then(|| lost_answers(&rt, self.control.rng("answers of the metadata store")));
        let host: Arc<dyn Host> = Arc::new(SimHost {
            rt: rt.clone(),
            files: self.files.clone(),
            stores: self.stores.iter().enumerate().map(present).collect(),
            transport: transport.clone(),
            spec: self.spec.clone(),
            meta_through,
        });
        let options = Options {
            sizes: Sizes::Given(self.spec.params),
            on_loss,
            host: Some(host),
            default_points: false,
            ..Options::new(DIRECTORY)
        };
        let running = Arc::new(Mutex::new(None));
        let (sender, opened) = oneshot::channel();
        let (starting, started) = (rt.clone(), running.clone());
        let boot = async move {
            let site = ::site::Site::start(starting, options).await;
            let site = site.map(|site| *lock(&started) = Some(site.site));
            let _ = sender.send(site.map_err(engine_error));
        };
        seam::Runtime::spawn(&*rt, "boot", Box::pin(boot));
        Life { rt, running, opened: Some(opened), transport }
    }

    /// Kills the process, with or without the power of the machine.
    pub fn end(&self, life: Life, power_cut: bool) {
        self.control.kill(life.rt.id());
        drop(life);
        for store in &self.stores {
            store.kill();
            if power_cut {
                store.power_cut();
            }
        }
        self.files.end_locks();
    }
}

/// What a site says of its engine, as the engine said it.
pub fn engine_error(error: api::Error) -> EngineError {
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<EngineError>());
    if let Some(source) = source {
        return source.clone();
    }
    let kind = match error.code {
        api::code::TOO_FEW_MEDIA => EngineErrorKind::TooFewMedia,
        api::code::BUSY | api::code::TASK_RUNNING => EngineErrorKind::Busy,
        api::code::CLOSING => EngineErrorKind::Closed,
        _ => EngineErrorKind::Lost,
    };
    EngineError { kind, reason: error.to_string() }
}

/// Id of medium number `number` of a new site.
fn medium_id(number: usize) -> MediumId {
    let mut id = *b"simulated medium";
    id[0] = b'0' + number as u8;
    MediumId(id)
}

/// One run of the node's process.
pub struct Life {
    rt: Arc<SimRuntime>,
    running: Arc<Mutex<Option<::site::Site>>>,
    opened: Option<oneshot::Receiver<Result<(), EngineError>>>,
    transport: SimTransport,
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Life({:?})", self.rt)
    }
}

impl Life {
    /// Waits until the site is open, or what it said; `None` when the process was killed before.
    ///
    /// # Panics
    /// When asked twice.
    pub async fn opened(&mut self) -> Option<Result<Engine, EngineError>> {
        let opened = self.opened.take().expect("asked once").await.ok()?;
        Some(opened.map(|()| self.engine().expect("an open site has its engine")))
    }

    /// The engine, once the site is open.
    pub fn engine(&self) -> Option<Engine> {
        self.site().map(|site| site.engine().clone())
    }

    /// The site, once it is open.
    pub fn site(&self) -> Option<::site::Site> {
        lock(&self.running).clone()
    }

    /// What was acknowledged since then stands in the newest two batches of the journal, and nowhere else for
    /// certain. `None` when this process wrote no batch.
    pub fn newest_batches(&self) -> Option<Duration> {
        self.transport.newest_appends()
    }

    /// Has the task of the engine that sends the next request of a kind panic.
    pub fn set_trap(&self, kind: fn(&Request) -> bool) {
        self.transport.set_trap(kind);
    }

    /// Holds up the next request of a kind, until what is given is dropped.
    pub fn pause(&self, kind: fn(&Request) -> bool) -> Pause {
        self.transport.pause(kind)
    }

    /// The runtime of the process.
    pub fn runtime(&self) -> Arc<SimRuntime> {
        self.rt.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
