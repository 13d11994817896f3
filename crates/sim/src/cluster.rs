//! A simulated site of many nodes: data nodes that crash, pause and come back, and compute nodes that take the site over
//! from each other, behind links of their own.

mod claim;
mod transport;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data::{LocalTransport, Superblock};
use engine::{Config, Deps, Engine, EngineError};
use proto::{Request, Transport};
use seal::{EpochKeys, Kek, KeyRing, RecoveryKey, Sealer, WrappedKeys};
use seam::Runtime;
use units::{MediumId, NodeId, SiteId};

use crate::executor::{Control, ProcessId, SimRuntime};
use crate::ground::SiteSpec;
use crate::medium::SimStore;
use crate::net::LinkPolicy;
pub use claim::ClaimCell;
use transport::{ClusterTransport, Servers, Wires};

const SITE: SiteId = SiteId(*b"a simulated site");
/// How often a compute node looks for media that are back.
const KEEPER_PAUSE: Duration = Duration::from_millis(300);
/// Pause between attempts to open the site.
const RETRY: Duration = Duration::from_millis(200);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Data nodes, and what compute nodes share.
pub struct Cluster {
    control: Control,
    spec: SiteSpec,
    stores: Vec<SimStore>,
    ids: Vec<MediumId>,
    sealer: Arc<Sealer>,
    claim: ClaimCell,
    servers: Servers,
    wires: Wires,
    data: Mutex<Vec<Option<ProcessId>>>,
    lease: Duration,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({} media)", self.stores.len())
    }
}

/// A run of a compute node.
pub struct Compute {
    rt: Arc<SimRuntime>,
    engine: Arc<Mutex<Option<Engine>>>,
}

impl std::fmt::Debug for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compute({:?})", self.rt)
    }
}

impl Compute {
    /// The engine, once it has taken the site over.
    pub fn engine(&self) -> Option<Engine> {
        lock(&self.engine).clone()
    }

    /// Its process.
    pub fn runtime(&self) -> Arc<SimRuntime> {
        self.rt.clone()
    }
}

impl Cluster {
    /// Data nodes with freshly formatted media, running. Links to and from each of `computes` compute nodes are sound.
    ///
    /// # Panics
    /// When the sizes make no site.
    pub async fn format(control: &Control, spec: SiteSpec, computes: usize, lease: Duration) -> Self {
        assert!(spec.nodes >= 2 && spec.media >= spec.nodes, "each data node has a medium");
        let store = |number: usize| SimStore::new(control, &format!("medium{number}"), spec.medium_bytes);
        let stores: Vec<SimStore> = (0..spec.media).map(store).collect();
        let ids: Vec<MediumId> = (0..spec.media).map(medium_id).collect();
        for (store, id) in stores.iter().zip(&ids) {
            let medium = store.open(control.world()).expect("nobody else holds it");
            let superblock = superblock(&spec, *id);
            data::format(&medium, &superblock).await.expect("a sound medium of a sane size");
        }
        let cluster = Self {
            control: control.clone(),
            stores,
            ids,
            sealer: Arc::new(Sealer::new(&EpochKeys::default().open(&ring()).expect("its own keys"))),
            claim: ClaimCell::new(control),
            servers: Servers::default(),
            wires: transport::wires(control, computes, spec.nodes),
            data: Mutex::new(vec![None; spec.nodes]),
            lease,
            spec,
        };
        for node in 0..cluster.spec.nodes {
            cluster.start_data(node).await;
        }
        cluster
    }

    /// What compute nodes claim the site with.
    pub fn claim(&self) -> &ClaimCell {
        &self.claim
    }

    /// Sets how messages between a compute node and a data node fare: to it, and back.
    pub fn set_wire(&self, compute: usize, node: usize, there: LinkPolicy, back: LinkPolicy) {
        if let Some(wire) = lock(&self.wires).get_mut(&(compute, node)) {
            wire.there.set_policy(there);
            wire.back.set_policy(back);
        }
    }

    /// Starts a data node that does not run.
    pub async fn start_data(&self, node: usize) {
        if lock(&self.data)[node].is_some() {
            return;
        }
        let rt = self.control.process("data");
        let id = rt.id();
        lock(&self.data)[node] = Some(id);
        // Leases that the node granted before it stopped hold: the transport waits for them.
        let media = Arc::new(LocalTransport::with_leases(rt.clone(), self.lease));
        for number in (0..self.spec.media).filter(|number| self.spec.node_of(*number) == node) {
            let Ok(medium) = self.stores[number].open(rt.clone()) else { continue };
            if let Ok(opened) = data::open(Arc::new(medium), SITE).await {
                media.attach(Arc::new(opened));
            }
        }
        if lock(&self.data)[node] == Some(id) {
            lock(&self.servers).insert(node, (rt, media));
        }
    }

    /// Kills a data node, with or without the power of its machine.
    pub fn kill_data(&self, node: usize, power_cut: bool) {
        let Some(process) = lock(&self.data)[node].take() else { return };
        let server = lock(&self.servers).remove(&node);
        self.control.kill(process);
        drop(server);
        for number in (0..self.spec.media).filter(|number| self.spec.node_of(*number) == node) {
            self.stores[number].kill();
            if power_cut {
                self.stores[number].power_cut();
            }
        }
    }

    /// Stops a data node where it stands, or lets it go on.
    pub fn pause_data(&self, node: usize, paused: bool) {
        if let Some(process) = lock(&self.data)[node] {
            if paused { self.control.pause(process) } else { self.control.resume(process) }
        }
    }

    /// Starts compute node number `number`: it takes the site over from whoever has it, as soon as it can.
    pub fn start_compute(&self, number: usize) -> Compute {
        let rt = self.control.process("compute");
        let transport = Arc::new(ClusterTransport::new(
            rt.clone(),
            number,
            self.wires.clone(),
            self.servers.clone(),
            self.nodes(),
        ));
        let deps = Deps {
            rt: rt.clone(),
            transport: transport.clone(),
            media: self.ids.clone(),
            nodes: self.nodes().into_iter().map(|(id, node)| (id, NodeId([node as u8; 16]))).collect(),
            up: self.ids.clone(),
            leaving: Vec::new(),
            sealer: self.sealer.clone(),
            witness: Arc::new(self.claim.open(rt.clone())),
        };
        let engine = Arc::new(Mutex::new(None));
        let (config, opened, own) = (self.config(), engine.clone(), rt.clone());
        let work = async move {
            let engine = open(&own, &deps, &config).await;
            *lock(&opened) = Some(engine.clone());
            keep(&own, &*transport, &engine).await;
        };
        rt.spawn("compute", Box::pin(work));
        Compute { rt, engine }
    }

    /// Kills a compute node.
    pub fn kill_compute(&self, compute: &Compute) {
        self.control.kill(compute.rt.id());
        *lock(&compute.engine) = None;
    }

    /// The data node that a medium is on.
    pub fn node_of(&self, medium: MediumId) -> Option<usize> {
        self.nodes().get(&medium).copied()
    }

    fn nodes(&self) -> BTreeMap<MediumId, usize> {
        self.ids.iter().enumerate().map(|(number, id)| (*id, self.spec.node_of(number))).collect()
    }

    fn config(&self) -> Config {
        let data::Params { container_bytes, segment_bytes, segments_max, .. } = self.spec.params;
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
            lease: self.lease,
            ..Config::for_params(container_bytes, segment_bytes, segments_max)
        }
    }
}

/// Opens the site, however often it takes. What fails may be for want of nodes, or because another was faster.
async fn open(rt: &Arc<SimRuntime>, deps: &Deps, config: &Config) -> Engine {
    loop {
        let failed: EngineError = match Engine::open(deps.clone(), config.clone()).await {
            Ok(engine) => return engine,
            Err(error) => error,
        };
        tracing::debug!(%failed, "the site is not taken over yet");
        rt.sleep(RETRY).await;
    }
}

/// Puts media to work that answer again.
async fn keep(rt: &Arc<SimRuntime>, transport: &dyn Transport, engine: &Engine) {
    loop {
        rt.sleep(KEEPER_PAUSE).await;
        for health in engine.pool().health().into_iter().filter(|health| !health.up) {
            let ask = transport.call(health.medium, Request::Info { extent: 4096 });
            if let Ok(Ok(_)) = seam::timeout(&**rt, KEEPER_PAUSE, ask).await {
                engine.medium_returned(health.medium).await;
            }
        }
    }
}

fn ring() -> KeyRing {
    KeyRing::for_tests(1)
}

fn medium_id(number: usize) -> MediumId {
    let mut id = *b"simulated medium";
    id[0] = b'0' + number as u8;
    MediumId(id)
}

fn superblock(spec: &SiteSpec, medium: MediumId) -> Superblock {
    let (kek, recovery) = (Kek::from_bytes([2; 32]), RecoveryKey::from_bytes([3; 32]));
    Superblock {
        generation: 1,
        site: SITE,
        medium,
        medium_bytes: spec.medium_bytes,
        params: spec.params,
        media: spec.media as u16,
        released: false,
        keys: WrappedKeys::by_key_file(&ring(), &kek, &recovery, &[4; 40]),
        epochs: EpochKeys::default(),
        recovered_ms: 0,
    }
}
