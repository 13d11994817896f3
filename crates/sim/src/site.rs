//! A simulated site of one node: its media, its wires and its witness live on; processes come and go.

mod pause;
mod transport;
mod witness;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data::{Params, Superblock};
use engine::{Config, Deps, Engine, EngineError, OnLoss, WitnessState};
use proto::Request;
use seal::{EpochKeys, Kek, KeyRing, RecoveryKey, Sealer, WrappedKeys};
use seam::{Rt, Runtime};
use tokio::sync::oneshot;
use units::{MediumId, NodeId, SiteId};

use crate::executor::{Control, SimRuntime};
use crate::lost_answers::lost_answers;
use crate::medium::{Image, SimStore};
use crate::net::{Link, LinkPolicy};
pub use pause::Pause;
use transport::{SimTransport, Wire, Wires};
use witness::WitnessCell;

const SITE: SiteId = SiteId(*b"a simulated site");
/// How often a process looks for media that failed.
const KEEPER_PAUSE: Duration = Duration::from_millis(50);

fn ring() -> KeyRing {
    KeyRing::for_tests(1)
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

/// A medium of the site, as what stands outside of the engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub number: usize,
    /// What it holds is to move to the others, and then it is to go.
    pub leaving: bool,
}

type Members = Arc<Mutex<Vec<Member>>>;

/// A site; outlives its processes.
pub struct Site {
    control: Control,
    spec: SiteSpec,
    stores: Vec<SimStore>,
    ids: Vec<MediumId>,
    members: Members,
    sealer: Arc<Sealer>,
    epochs: Mutex<EpochKeys>,
    witness: WitnessCell,
    wires: Wires,
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
    /// Which of them are the site's.
    pub members: Vec<Member>,
    /// The witness.
    pub witness: WitnessState,
    /// The data keys, which stand on every medium.
    pub epochs: EpochKeys,
}

impl Site {
    /// A site on freshly formatted media.
    ///
    /// # Panics
    /// When the sizes make no site.
    pub async fn format(control: &Control, spec: SiteSpec) -> Self {
        let media = vec![Image::new(spec.medium_bytes); spec.media + spec.spares];
        let members = (0..spec.media).map(|number| Member { number, leaving: false }).collect();
        let (witness, epochs) = (WitnessState::default(), EpochKeys::default());
        let site = Self::of(control, spec, SiteImage { media, members, witness, epochs });
        let world = control.world();
        let formats = site.stores.iter().zip(&site.ids).map(|(store, id)| {
            let superblock = site.superblock(*id);
            let medium = store.open(world.clone()).expect("nobody else holds it");
            async move { data::format(&medium, &superblock).await.expect("a sound medium of a sane size") }
        });
        seam::join_all(formats).await;
        site
    }

    /// A site that was left so.
    pub fn of(control: &Control, spec: SiteSpec, image: SiteImage) -> Self {
        let ids: Vec<MediumId> = (0..image.media.len()).map(medium_id).collect();
        let store = |(number, image)| SimStore::from_image(control, &format!("medium{number}"), image);
        let wire = |id: &MediumId| {
            let link = |way: &str| Link::new(control, way, LinkPolicy::default());
            (*id, Wire { there: link("there"), back: link("back") })
        };
        Self {
            control: control.clone(),
            members: Arc::new(Mutex::new(image.members)),
            stores: image.media.into_iter().enumerate().map(store).collect(),
            sealer: Arc::new(Sealer::new(&image.epochs.open(&ring()).expect("its own keys"))),
            epochs: Mutex::new(image.epochs),
            witness: WitnessCell::new(image.witness, control.rng("witness")),
            wires: Arc::new(Mutex::new(ids.iter().map(wire).collect::<BTreeMap<_, _>>())),
            ids,
            spec,
        }
    }

    fn superblock(&self, medium: MediumId) -> Superblock {
        let (kek, recovery) = (Kek::from_bytes([2; 32]), RecoveryKey::from_bytes([3; 32]));
        Superblock {
            generation: 1,
            site: SITE,
            medium,
            medium_bytes: self.spec.medium_bytes,
            params: self.spec.params,
            media: self.spec.media as u16,
            released: false,
            keys: WrappedKeys::by_key_file(&ring(), &kek, &recovery, &[4; 40]),
            epochs: seal::EpochKeys::default(),
            recovered_ms: 0,
        }
    }

    /// The media, in order.
    pub fn stores(&self) -> &[SimStore] {
        &self.stores
    }

    /// Their ids, in order.
    pub fn ids(&self) -> &[MediumId] {
        &self.ids
    }

    /// Its sizes.
    pub fn spec(&self) -> &SiteSpec {
        &self.spec
    }

    /// The media of the site, in order.
    pub fn members(&self) -> Vec<Member> {
        lock(&self.members).clone()
    }

    /// Medium number `number` is to be one of the site's; a process takes it in when it next looks.
    pub fn add(&self, number: usize) {
        let mut members = lock(&self.members);
        if !members.iter().any(|member| member.number == number) {
            members.push(Member { number, leaving: false });
        }
    }

    /// Medium number `number` is to leave the site, or to stay.
    pub fn set_leaving(&self, number: usize, leaving: bool) {
        let mut members = lock(&self.members);
        members.iter_mut().filter(|member| member.number == number).for_each(|m| m.leaving = leaving);
    }

    /// Sets how messages to and from medium number `medium` fare.
    pub fn set_wire(&self, medium: usize, policy: LinkPolicy) {
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = wires.get_mut(&self.ids[medium]) {
            wire.there.set_policy(policy);
            wire.back.set_policy(policy);
        }
    }

    /// The contents of all media and the witness now.
    pub fn image(&self) -> SiteImage {
        SiteImage {
            media: self.stores.iter().map(SimStore::image).collect(),
            members: self.members(),
            witness: self.witness.state(),
            epochs: self.lock_epochs().clone(),
        }
    }

    fn lock_epochs(&self) -> std::sync::MutexGuard<'_, EpochKeys> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest key epoch.
    pub fn key_epoch(&self) -> u16 {
        self.lock_epochs().newest()
    }

    /// Puts a new data key on every medium, and has it used from then on; false when there are too many already.
    pub fn add_key(&self) -> bool {
        let mut epochs = self.lock_epochs();
        let number = epochs.newest() as u8;
        let Some(next) = epochs.next(&ring(), &[number; 32], &[number; 12]) else { return false };
        if !self.sealer.adopt(&next.open(&ring()).expect("its own keys")) {
            return false;
        }
        *epochs = next;
        true
    }

    /// Takes every data key but the newest off the media: what is still sealed under one of them is lost.
    pub fn retire_keys(&self) {
        let mut epochs = self.lock_epochs();
        *epochs = epochs.newest_alone();
        assert!(self.sealer.adopt(&epochs.open(&ring()).expect("its own keys")), "no key is new");
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
        let stores: Vec<Option<SimStore>> = self.stores.iter().enumerate().map(present).collect();
        let engine = Arc::new(Mutex::new(None));
        let seen = transport.clone();
        let (sender, opened) = oneshot::channel();
        let node = Node {
            rt: rt.clone(),
            transport: transport.clone(),
            stores,
            ids: self.ids.clone(),
            spec: self.spec.clone(),
            members: self.members.clone(),
            engine: engine.clone(),
        };
        let deps = Deps {
            rt: rt.clone(),
            transport: Arc::new(transport),
            media: self.members().iter().map(|member| self.ids[member.number]).collect(),
            nodes: self
                .ids
                .iter()
                .enumerate()
                .filter_map(|(at, id)| Some((*id, self.spec.node_id(at)?)))
                .collect(),
            up: Vec::new(),
            leaving: self
                .members()
                .iter()
                .filter(|member| member.leaving)
                .map(|m| self.ids[m.number])
                .collect(),
            sealer: self.sealer.clone(),
            witness: Arc::new(self.witness.open(rt.clone())),
        };
        let meta_through = self
            .spec
            .lost_answers
            .then(|| lost_answers(&rt, self.control.rng("answers of the metadata store")));
        let config = Config { on_loss, meta_through, ..self.config() };
        let boot = async move {
            let opened = node.open(deps, config).await;
            let ok = opened.is_ok();
            let _ = sender.send(opened.map(drop));
            if ok {
                node.keep().await;
            }
        };
        rt.spawn("boot", Box::pin(boot));
        Life { rt, engine, opened: Some(opened), transport: seen }
    }

    fn config(&self) -> Config {
        let Params { container_bytes, segment_bytes, segments_max, .. } = self.spec.params;
        Config {
            block_cache_bytes: self.spec.block_cache_bytes,
            page_cache_bytes: self.spec.page_cache_bytes,
            overlay_entries_max: self.spec.overlay_entries_max,
            commits_max: self.spec.commits_max,
            start_backlog_bytes: self.spec.start_backlog_bytes,
            meta_keys_per_chunk: self.spec.meta_keys_per_chunk,
            index_tag_bits: self.spec.index_tag_bits,
            rebuild_after: self.spec.rebuild_after,
            rebuild_bytes_per_second: self.spec.rebuild_bytes_per_second,
            ..Config::for_params(container_bytes, segment_bytes, segments_max)
        }
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
        self.witness.crash();
    }
}

/// Id of medium number `number`.
fn medium_id(number: usize) -> MediumId {
    let mut id = *b"simulated medium";
    id[0] = b'0' + number as u8;
    MediumId(id)
}

/// One run of the node's process.
pub struct Life {
    rt: Arc<SimRuntime>,
    engine: Arc<Mutex<Option<Engine>>>,
    opened: Option<oneshot::Receiver<Result<(), EngineError>>>,
    transport: SimTransport,
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Life({:?})", self.rt)
    }
}

impl Life {
    /// Waits until the site is open, or what the engine said; `None` when the process was killed before.
    ///
    /// # Panics
    /// When asked twice.
    pub async fn opened(&mut self) -> Option<Result<Engine, EngineError>> {
        let opened = self.opened.take().expect("asked once").await.ok()?;
        Some(opened.map(|()| self.engine().expect("an open site has its engine")))
    }

    /// The engine, once the site is open.
    pub fn engine(&self) -> Option<Engine> {
        lock(&self.engine).clone()
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

/// The inside of the process.
struct Node {
    rt: Arc<SimRuntime>,
    transport: SimTransport,
    stores: Vec<Option<SimStore>>,
    ids: Vec<MediumId>,
    spec: SiteSpec,
    members: Members,
    engine: Arc<Mutex<Option<Engine>>>,
}

impl Node {
    async fn open(&self, mut deps: Deps, config: Config) -> Result<(), EngineError> {
        let members = lock(&self.members).clone();
        seam::join_all(members.iter().map(|member| self.attach(member.number))).await;
        let attached = self.transport.attached();
        deps.up = deps.media.iter().filter(|id| attached.contains(id)).copied().collect();
        let engine = Engine::open(deps, config).await?;
        *lock(&self.engine) = Some(engine);
        Ok(())
    }

    /// Opens a medium and puts it behind the transport; says whether that went well.
    async fn attach(&self, number: usize) -> bool {
        let Some(store) = &self.stores[number] else { return false };
        let rt: Rt = self.rt.clone();
        let medium = match store.open(rt) {
            Ok(medium) => medium,
            Err(error) => {
                tracing::debug!(%error, "a medium is left out");
                return false;
            }
        };
        match data::open(Arc::new(medium), SITE).await {
            Ok(node) if node.id() == self.ids[number] => {
                self.transport.attach(Arc::new(node));
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(%error, "a medium is left out");
                false
            }
        }
    }

    /// Puts media that failed back to work when they answer again, takes in those that are new, and lets go of those that
    /// are to leave and hold nothing any more.
    async fn keep(&self) {
        loop {
            self.rt.sleep(KEEPER_PAUSE).await;
            let Some(engine) = lock(&self.engine).clone() else { continue };
            self.keep_members(&engine).await;
            for medium in engine.pool().health() {
                let number = self.ids.iter().position(|id| *id == medium.medium);
                let Some(number) = number.filter(|_| !medium.up) else { continue };
                self.transport.detach(medium.medium);
                if self.attach(number).await {
                    engine.medium_returned(medium.medium).await;
                }
            }
        }
    }

    async fn keep_members(&self, engine: &Engine) {
        let members = lock(&self.members).clone();
        for Member { number, leaving } in members {
            let id = self.ids[number];
            match engine.pool().health().into_iter().find(|health| health.medium == id) {
                None if self.attach(number).await => engine.add_medium(id, None, self.spec.node_id(number)),
                Some(health) if health.leaving != leaving => engine.set_leaving(id, leaving),
                Some(_) if leaving && engine.release_medium(id).is_ok() => {
                    self.transport.detach(id);
                    lock(&self.members).retain(|member| member.number != number);
                }
                _ => {}
            }
        }
    }
}
