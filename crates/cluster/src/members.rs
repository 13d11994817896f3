//! All nodes as the metadata store has them.

use std::sync::Arc;
use std::time::Duration;

use api::{Error, Result, code};
use meta::{KeyValue, Revision, Store};
use seam::Rt;
use tokio::sync::{Notify, watch};
use trust::Role;
use trust::rustls::pki_types::CertificateRevocationListDer;
use units::NodeId;

use crate::access::store_error;
use crate::records::{NODES, Node, REVOKED, Revocations};
use crate::text::node_id;

/// Most nodes of a site.
pub(crate) const NODES_MAX: usize = 1024;
/// Pause before the next look where the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Without news all is read again after this time: a watch of a store that was made anew may wait for a revision of the one
/// before.
const LOOK: Duration = Duration::from_secs(10);
/// How long whoever asks for the newest roster waits for it.
const REFRESH: Duration = Duration::from_secs(5);

/// What a node knows of all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// The nodes, by name.
    pub nodes: Vec<Node>,
    /// The newest list of revoked certificates; `None` where none was ever given out.
    pub revoked: Option<CertificateRevocationListDer<'static>>,
}

impl Roster {
    /// A node by its id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Nodes in a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role == role)
    }
}

fn decode(kv: &KeyValue) -> Result<Node> {
    let id = NODES.segments(&kv.key).and_then(|mut segments| node_id(segments.text()?));
    let id = id.ok_or_else(|| {
        let reason = format!("the key {:?} in the metadata store names no node", kv.key);
        Error::new(code::RECORD_DAMAGED, reason)
    })?;
    Node::decode(id, &kv.value)
}

/// All nodes, by name.
///
/// # Errors
/// `metadata_unavailable`.
pub async fn nodes(store: &dyn Store) -> Result<Vec<Node>> {
    let (kvs, _) = meta::list(store, NODES.all(), NODES_MAX).await.map_err(|error| store_error(&error))?;
    // One that cannot be read must not hide the others, nor what was revoked.
    let read = |kv| decode(kv).inspect_err(|error| tracing::warn!(%error, "a node is passed over")).ok();
    let mut nodes: Vec<Node> = kvs.iter().filter_map(read).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(nodes)
}

pub(crate) async fn revocations(store: &dyn Store) -> Result<Option<(Revocations, Revision)>> {
    let got = store.get(&Revocations::key()?).await.map_err(|error| store_error(&error))?;
    got.kv.map(|kv| Ok((Revocations::decode(&kv.value)?, kv.mod_revision))).transpose()
}

/// The roster now, and the revision from which on changes are news.
async fn look(store: &dyn Store) -> Result<(Roster, Revision)> {
    let got = store.get(&Revocations::key()?).await.map_err(|error| store_error(&error))?;
    let revoked = got.kv.map(|kv| Revocations::decode(&kv.value)).transpose()?.map(|revoked| revoked.list);
    Ok((Roster { nodes: nodes(store).await?, revoked }, got.revision.next()))
}

/// Has the roster be read again.
#[derive(Debug, Clone)]
pub(crate) struct Refresher {
    wanted: Arc<Notify>,
    /// How often it was read.
    looks: watch::Receiver<u64>,
}

impl Refresher {
    /// Waits until the roster was read again, or for a while where the store does not answer.
    pub(crate) async fn refresh(&self, rt: &Rt) {
        let mut looks = self.looks.clone();
        // One that is under way may have begun before this was called.
        let until = *looks.borrow_and_update() + 2;
        let read = async {
            while *looks.borrow_and_update() < until {
                self.wanted.notify_one();
                if looks.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = seam::timeout(&**rt, REFRESH, read).await;
    }
}

/// Reads the roster, and keeps it fresh until nobody looks at it any more.
///
/// # Errors
/// When it cannot be read now.
pub(crate) async fn watch(
    rt: &Rt,
    store: Arc<dyn Store>,
) -> Result<(watch::Receiver<Arc<Roster>>, Refresher)> {
    let (roster, mut from) = look(&*store).await?;
    let (sender, receiver) = watch::channel(Arc::new(roster));
    let (looked, looks) = watch::channel(0);
    let wanted = Arc::new(Notify::new());
    let refresher = Refresher { wanted: wanted.clone(), looks };
    let own = rt.clone();
    let keep = async move {
        loop {
            tokio::select! {
                () = news(&own, &*store, from) => {}
                () = wanted.notified() => {}
                () = sender.closed() => return,
            }
            match look(&*store).await {
                Ok((roster, next)) => {
                    from = next;
                    looked.send_modify(|looks| *looks += 1);
                    sender.send_if_modified(|known| {
                        let is_news = **known != roster;
                        if is_news {
                            *known = Arc::new(roster);
                        }
                        is_news
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the roster cannot be read");
                    own.sleep(PAUSE).await;
                }
            }
        }
    };
    rt.spawn("roster", Box::pin(keep));
    Ok((receiver, refresher))
}

/// Waits until something may have changed since `from`, or a look is due.
async fn news(rt: &Rt, store: &dyn Store, from: Revision) {
    let changed = async {
        let mut nodes = store.watch(NODES.all(), from).await?;
        let mut revoked = store.watch(REVOKED.all(), from).await?;
        tokio::select! {
            batch = nodes.next() => batch.map(drop),
            batch = revoked.next() => batch.map(drop),
        }
    };
    match seam::timeout(&**rt, LOOK, changed).await {
        Ok(Ok(())) | Err(seam::Elapsed) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, "the roster is not watched");
            rt.sleep(PAUSE).await;
        }
    }
}
