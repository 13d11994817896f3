//! Media of data nodes, listed in the metadata store.
//!
//! A medium's place is written `NODE:PATH`: the node's name, and where the medium is on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Error, Result, code};
use cluster::{Node, Roster, store_error};
use data::Superblock;
use machine::{Away, Entry, FoundMedia, FoundMedium, Home, IsNamed, Manifest, NewMedium};
use meta::{Compare, Op, Revision, Store, Txn};
use net::{Remote, TcpDial};
use proto::{CallError, CallErrorKind, NODE, NodeMedium, Request, Response, Transport};
use seam::BoxFuture;
use tokio::sync::watch;
use trust::Role;
use units::{Epoch, Map, MediumId, NodeId, PAGE};

use crate::records::media_key;

/// How long a node may take to tell of its media: they are synced for it.
const LIST_WITHIN: Duration = Duration::from_secs(4);
/// How long a node may take to format a medium, which writes the journal's room.
const FORMAT_WITHIN: Duration = Duration::from_secs(50);
/// Bytes of what free extents are counted in where nobody wants to know.
pub(crate) const EXTENT: u64 = 1 << 20;

/// What a node told of a medium.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) node: NodeId,
    pub(crate) medium: NodeMedium,
    pub(crate) superblock: Option<Superblock>,
}

/// The media of a site's data nodes.
pub(crate) struct NodesHome {
    nodes: Nodes,
    store: Arc<dyn Store>,
    /// Of the engine that owns the site here; 0 before there is one.
    epoch: AtomicU64,
    state: Mutex<State>,
}

struct State {
    manifest: Manifest,
    /// Where the manifest stands in the metadata store.
    at: Revision,
    /// What was last told of each medium.
    told: Map<MediumId, Told>,
}

/// The way to the data nodes.
#[derive(Clone)]
pub(crate) struct Nodes {
    pub(crate) dial: Arc<TcpDial>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
}

impl Nodes {
    /// Has connections go where the nodes are now, until the roster ends.
    pub(crate) async fn follow(mut self) {
        loop {
            self.set_addresses();
            if self.roster.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn set_addresses(&self) {
        let roster = self.roster.borrow().clone();
        for node in roster.of(Role::Data) {
            if let Some(address) = node.address {
                self.dial.set_address(node.id, address);
            }
        }
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.roster.borrow().node(id).cloned()
    }

    fn name(&self, id: NodeId) -> String {
        self.node(id).map_or_else(|| "?".to_owned(), |node| node.name)
    }

    /// All media of a node.
    pub(crate) async fn list(&self, node: NodeId) -> std::result::Result<Vec<Told>, CallError> {
        match self.remote.ask_node(Epoch(0), node, NODE, Request::MediumList, LIST_WITHIN).await? {
            Response::Media(media) => Ok(media
                .into_iter()
                .map(|medium| {
                    let superblock = medium.superblock.as_ref();
                    let superblock = superblock.and_then(|page| Superblock::decode(page.as_ref()));
                    Told { node, medium, superblock }
                })
                .collect()),
            _ => Err(CallError {
                kind: CallErrorKind::Invalid,
                medium: NODE,
                reason: "the node answers something else".to_owned(),
            }),
        }
    }

    /// All media of all data nodes, by node's name, and why nodes do not tell.
    pub(crate) async fn list_all(&self) -> (Vec<Told>, Vec<(NodeId, String)>) {
        self.set_addresses();
        let nodes: Vec<Node> = self.roster.borrow().of(Role::Data).cloned().collect();
        let lists = seam::join_all(nodes.iter().map(|node| self.list(node.id))).await;
        let (mut told, mut silent) = (Vec::new(), Vec::new());
        for (node, list) in nodes.iter().zip(lists) {
            match list {
                Ok(list) => told.extend(list),
                Err(error) => silent.push((node.id, format!("node {}: {}", node.name, error.reason))),
            }
        }
        (told, silent)
    }

    /// Makes a medium one of the site, on behalf of the incarnation `by`.
    pub(crate) async fn format(
        &self,
        by: Epoch,
        node: NodeId,
        superblock: &Superblock,
    ) -> std::result::Result<(), CallError> {
        let request = Request::Format(superblock.encode().share());
        self.remote.ask_node(by, node, superblock.medium, request, FORMAT_WITHIN).await.map(drop)
    }

    /// A medium's place, for people.
    pub(crate) fn place(&self, told: &Told) -> PathBuf {
        PathBuf::from(format!("{}:{}", self.name(told.node), told.medium.name))
    }
}

/// How many of the site's media each data node holds.
///
/// # Errors
/// When the store does not answer, or its list of media makes no sense.
pub async fn media_of_nodes(store: &dyn Store) -> Result<BTreeMap<NodeId, u64>> {
    let mut counts = BTreeMap::new();
    let listed = NodesHome::load(store).await?;
    for node in listed.iter().flat_map(|(manifest, _)| &manifest.media).filter_map(Entry::node) {
        *counts.entry(node).or_default() += 1;
    }
    Ok(counts)
}

fn medium_error(error: &CallError) -> Error {
    let code = match error.kind {
        CallErrorKind::NoSpace => code::NO_SPACE,
        CallErrorKind::NotFound => code::MEDIUM_MISSING,
        CallErrorKind::Invalid => code::MEDIUM_INVALID,
        _ => code::MEDIUM_ERROR,
    };
    Error::new(code, error.to_string())
}

impl NodesHome {
    /// The media that `manifest`, of revision `at`, lists.
    pub(crate) fn new(nodes: Nodes, store: Arc<dyn Store>, manifest: Manifest, at: Revision) -> Self {
        let state = Mutex::new(State { manifest, at, told: Map::default() });
        Self { nodes, store, epoch: AtomicU64::new(0), state }
    }

    /// Reads the list; `None` before there is one.
    pub(crate) async fn load(store: &dyn Store) -> Result<Option<(Manifest, Revision)>> {
        let got = store.get(&media_key()?).await.map_err(|error| store_error(&error))?;
        let Some(kv) = got.kv else { return Ok(None) };
        let manifest = Manifest::decode(&kv.value).map_err(|reason| {
            let reason = format!("the list of media in the metadata store: {reason}");
            Error::new(code::RECORD_DAMAGED, reason)
        })?;
        Ok(Some((manifest, kv.mod_revision)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    fn told(&self, medium: MediumId) -> Option<Told> {
        self.lock().told.get(&medium).cloned()
    }

    async fn replace(&self, next: Manifest) -> Result<()> {
        let (key, at) = (media_key()?, self.lock().at);
        let value = next.encode()?;
        let txn =
            Txn::new().when(Compare::unchanged(key.clone(), at)).then(Op::put(key.clone(), value.clone()));
        let outcome = self.store.txn(txn).await;
        let at = match outcome {
            Ok(done) if done.succeeded => done.revision,
            Err(error) if error.kind != meta::ErrorKind::Unknown => return Err(store_error(&error)),
            // Somebody else changed it, or nobody knows.
            _ => {
                let got = self.store.get(&key).await.map_err(|error| store_error(&error))?;
                let is_done = got.kv.as_ref().is_some_and(|kv| *kv.value == value[..]);
                if !is_done {
                    let reason = "the list of media was changed by another compute node";
                    return Err(Error::new(code::CLOSING, reason));
                }
                got.kv.map_or(Revision::NONE, |kv| kv.mod_revision)
            }
        };
        let mut state = self.lock();
        (state.manifest, state.at) = (next, at);
        Ok(())
    }

    async fn look_for_all(&self) -> FoundMedia {
        let (all, silent) = self.nodes.list_all().await;
        let asked = self.nodes.roster.borrow().of(Role::Data).count();
        let mut manifest = self.manifest();
        let site = manifest.site();
        let mut media = FoundMedia::default();
        let mut moved = false;
        for entry in &mut manifest.media {
            let id = entry.id();
            let is_it =
                |told: &&Told| told.superblock.as_ref().is_some_and(|sb| sb.medium == id && sb.site == site);
            let Some(told) = all.iter().find(is_it) else {
                let on = |node: NodeId| silent.iter().find(|(of, _)| *of == node).map(|(_, why)| why.clone());
                let why = entry.node().and_then(on);
                media.absent.push((id, why.unwrap_or_else(|| format!("none of {asked} data nodes has it"))));
                continue;
            };
            if let Some(trouble) = &told.medium.trouble {
                media.absent.push((id, trouble.clone()));
                continue;
            }
            moved |= entry.node() != Some(told.node);
            *entry = entry.clone().on_node(Some(told.node));
            entry.path = PathBuf::from(&told.medium.name);
            if let Some(superblock) = told.superblock.clone() {
                self.lock().told.insert(id, told.clone());
                media.found.push(FoundMedium { id, superblock });
            }
        }
        if moved && let Err(error) = self.replace(manifest).await {
            tracing::warn!(%error, "that media have other places is not remembered");
        }
        media
    }

    async fn find_new_at(&self, place: &Path, is_named: IsNamed<'_>) -> Result<NewMedium> {
        let text = place.to_str().unwrap_or_default();
        let refused = |code, reason: String| Err(Error::new(code, reason));
        let Some((name, path)) = text.split_once(':') else {
            let reason = format!("{}: a medium of a data node is named NODE:PATH", place.display());
            return refused(code::INVALID_PATH, reason);
        };
        let node =
            self.nodes.roster.borrow().of(Role::Data).find(|node| node.name == name).map(|node| node.id);
        let Some(node) = node else {
            return refused(code::NODE_NOT_FOUND, format!("the site has no data node {name:?}"));
        };
        let list = self.nodes.list(node).await.map_err(|error| medium_error(&error))?;
        let Some(told) = list.into_iter().find(|told| told.medium.name == path) else {
            let reason = format!("{text}: the node was not given that medium: holdfast data --media {path}");
            return refused(code::MEDIUM_MISSING, reason);
        };
        if let Some(trouble) = &told.medium.trouble {
            return refused(code::MEDIUM_NOT_EMPTY, format!("{text}: {trouble}"));
        }
        let id = told.medium.medium;
        if told.superblock.is_some() || is_named(id) || self.manifest().ids().contains(&id) {
            return refused(code::MEDIUM_IN_USE, format!("{text}: the site has it already"));
        }
        let new =
            NewMedium { id, bytes: told.medium.bytes, path: path.into(), made: false, node: Some(node) };
        Ok(new)
    }

    async fn revive_one(&self, medium: MediumId, keys: &Superblock) -> std::result::Result<(), Away> {
        let entry = self.manifest().media.into_iter().find(|entry| entry.id() == medium);
        let node =
            entry.and_then(|entry| entry.node()).ok_or_else(|| Away::for_now("it is on no known node"))?;
        let list =
            self.nodes.list(node).await.map_err(|error| {
                Away::for_now(format!("node {}: {}", self.nodes.name(node), error.reason))
            })?;
        let is_it = |told: &Told| told.superblock.as_ref().is_some_and(|sb| sb.medium == medium);
        let told = list.into_iter().find(is_it);
        let told = told.ok_or_else(|| Away::for_now("its node does not have it any more"))?;
        if let Some(trouble) = told.medium.trouble {
            return Err(Away::for_now(trouble));
        }
        let has =
            told.superblock.clone().ok_or_else(|| Away::for_now("it carries no superblock any more"))?;
        self.lock().told.insert(medium, Told { medium: told.medium, ..told });
        self.nodes.remote.place(medium, node);
        if let Some(next) = machine::brought_up_to(&has, keys) {
            self.write_superblock(medium, next).await.map_err(Away::for_now)?;
        }
        let answer = self.nodes.remote.call(medium, Request::Info { extent: EXTENT }).await;
        answer.map(drop).map_err(|error| Away::for_now(error.reason))
    }
}

impl Home for NodesHome {
    fn transport(&self) -> Arc<dyn Transport> {
        self.nodes.remote.clone()
    }

    fn manifest(&self) -> Manifest {
        self.lock().manifest.clone()
    }

    fn set_manifest(&self, next: Manifest) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.replace(next))
    }

    fn look(&self) -> BoxFuture<'_, FoundMedia> {
        Box::pin(self.look_for_all())
    }

    fn attach<'a>(
        &'a self,
        medium: MediumId,
        like: &'a Superblock,
    ) -> BoxFuture<'a, std::result::Result<(), String>> {
        Box::pin(async move {
            let told = self.told(medium).ok_or_else(|| "no data node has it".to_owned())?;
            let sizes = |superblock: &Superblock| {
                let params = superblock.params;
                (params.container_bytes, params.segment_bytes, params.segments_max)
            };
            if told.superblock.as_ref().map(sizes) != Some(sizes(like)) {
                return Err("its sizes differ from the site's".to_owned());
            }
            self.nodes.remote.place(medium, told.node);
            Ok(())
        })
    }

    fn detach(&self, medium: MediumId) {
        self.lock().told.remove(&medium);
        self.nodes.remote.remove(medium);
    }

    fn is_attached(&self, medium: MediumId) -> bool {
        self.nodes.remote.has(medium)
    }

    fn superblock(&self, medium: MediumId) -> BoxFuture<'_, Result<Option<Superblock>>> {
        Box::pin(async move {
            let Some(told) = self.told(medium) else { return Ok(None) };
            let list = self.nodes.list(told.node).await.map_err(|error| medium_error(&error))?;
            let mut superblocks = list.into_iter().filter_map(|told| told.superblock);
            Ok(superblocks.find(|superblock| superblock.medium == medium))
        })
    }

    fn write_superblock(&self, medium: MediumId, superblock: Superblock) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let gone = || Error::new(code::MEDIUM_ERROR, "no data node has the medium");
            let told = self.told(medium).ok_or_else(gone)?;
            let page = superblock.encode().share();
            debug_assert_eq!(page.len(), PAGE, "a superblock is a page");
            let request = Request::SuperblockWrite(page);
            let written =
                self.nodes.remote.ask_node(self.epoch(), told.node, medium, request, LIST_WITHIN).await;
            written.map_err(|error| medium_error(&error))?;
            if let Some(told) = self.lock().told.get_mut(&medium) {
                told.superblock = Some(superblock);
            }
            Ok(())
        })
    }

    fn revive<'a>(
        &'a self,
        medium: MediumId,
        keys: &'a Superblock,
    ) -> BoxFuture<'a, std::result::Result<(), Away>> {
        Box::pin(self.revive_one(medium, keys))
    }

    fn find_new<'a>(
        &'a self,
        path: &'a Path,
        file_bytes: Option<u64>,
        is_named: IsNamed<'a>,
    ) -> BoxFuture<'a, Result<NewMedium>> {
        Box::pin(async move {
            if file_bytes.is_some() {
                let reason = "files for media are made on the data node";
                return Err(Error::new(code::INVALID_REQUEST, reason));
            }
            self.find_new_at(path, is_named).await
        })
    }

    fn format<'a>(&'a self, new: &'a NewMedium, superblock: Superblock) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let on_none = || Error::new(code::MEDIUM_ERROR, "the new medium is on no data node");
            let node = new.node.ok_or_else(on_none)?;
            self.nodes.format(self.epoch(), node, &superblock).await.map_err(|error| medium_error(&error))?;
            let medium = NodeMedium {
                medium: new.id,
                bytes: new.bytes,
                name: new.path.display().to_string(),
                superblock: None,
                trouble: None,
            };
            self.lock().told.insert(new.id, Told { node, medium, superblock: Some(superblock) });
            Ok(())
        })
    }

    fn discard<'a>(&'a self, _new: &'a NewMedium) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn gone<'a>(&'a self, _entry: &'a Entry) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn shown(&self, entry: &Entry) -> PathBuf {
        let name = entry.node().map_or_else(|| "?".to_owned(), |node| self.nodes.name(node));
        PathBuf::from(format!("{name}:{}", entry.path.display()))
    }

    fn owned(&self, by: Epoch) {
        self.epoch.store(by.0, Ordering::Release);
    }

    fn draining(&self) -> Vec<NodeId> {
        let roster = self.nodes.roster.borrow().clone();
        let draining = roster.of(Role::Data).filter(|node| node.state == cluster::State::Draining);
        draining.map(|node| node.id).collect()
    }

    fn shared_devices(&self) -> Vec<Vec<PathBuf>> {
        Vec::new()
    }
}
