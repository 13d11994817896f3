//! What a node has of the site once the metadata store was reached.

use std::sync::Arc;
use std::time::Duration;

use node::Directory;
use seam::Rt;
use tokio::sync::watch;
use trust::Identity;

use crate::access::{EtcdAccess, Meta, connect};
use crate::keeping::Keeper;
use crate::members::{Refresher, Roster, watch as watch_nodes};

/// Pause before the store is asked again.
const PAUSE: Duration = Duration::from_secs(2);

/// The metadata store, the nodes, and the node's own certificate, kept fresh.
pub struct Membership {
    /// The metadata store.
    pub meta: Arc<Meta>,
    /// The nodes.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// Who the node is, with its newest certificate.
    pub identity: watch::Receiver<Identity>,
    rt: Rt,
    refresher: Refresher,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Membership")
    }
}

impl Membership {
    /// Tries until the store was reached and the nodes were read.
    pub async fn begin(rt: &Rt, directory: &Directory, identity: Identity, access: &EtcdAccess) -> Self {
        let mut said = String::new();
        let meta = loop {
            match connect(rt, &identity, access).await {
                Ok(meta) => break meta,
                Err(error) => {
                    if error.reason != said {
                        tracing::warn!(%error, "the metadata store is not reached: trying again");
                        said = error.reason.clone();
                    }
                    rt.sleep(PAUSE).await;
                }
            }
        };
        let (roster, refresher) = loop {
            match watch_nodes(rt, meta.clone()).await {
                Ok(roster) => break roster,
                Err(error) => {
                    tracing::warn!(%error, "the nodes of the site cannot be read: trying again");
                    rt.sleep(PAUSE).await;
                }
            }
        };
        let identity = Keeper::start(rt, directory, identity, roster.clone(), meta.clone());
        Self { meta, roster, identity, rt: rt.clone(), refresher }
    }

    /// Has the nodes be as the store has them now, where it answers.
    pub async fn refresh(&self) {
        self.refresher.refresh(&self.rt).await;
    }

    /// Waits for another certificate or other nodes; false when there will be no news.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.roster.changed() => changed.is_ok(),
            changed = self.identity.changed() => changed.is_ok(),
        }
    }
}
