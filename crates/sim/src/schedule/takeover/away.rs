//! The metadata store is away for many segments of the journal while nothing else is wrong, and then while one data node is
//! lost: running disks go on (section 4.1 of docs/design.md).

use std::sync::Arc;
use std::time::Duration;

use seam::Runtime;
use units::MediumId;

use super::{Guest, Running, SLOW, Stage, TAKEOVER_MAX};
use crate::rng::Rng;

/// From so many data nodes on one may be lost without any word of the store: the ensembles that go on without it are
/// registered ahead.
const NODES_TO_SPARE: usize = 4;
/// In this time these are registered once a takeover is through.
const AHEAD_MAX: Duration = Duration::from_secs(3);
/// In this time a write is answered while nothing but the store is away: at worst it waits for what makes room in a full
/// journal.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// The same with a data node that was lost, as leases and requests tell.
const WRITE_MAX_LOST: Duration = Duration::from_secs(3);
/// Writes of each part: some dozen segments.
const WRITES: u64 = 300;

impl Stage {
    /// The faults stop; then the store goes away, and where one is to spare a data node with it.
    pub(super) async fn without_store(self: &Arc<Self>, rng: &mut Rng) {
        self.heal().await;
        let owner = self.take_over(rng.index(self.plan.hosts));
        if self.opened(&owner, TAKEOVER_MAX).await.is_none() {
            return self.wrong(format!("no takeover within {TAKEOVER_MAX:?} before the store goes away"));
        }
        self.rt.sleep(AHEAD_MAX).await;
        let nodes = self.plan.spec.nodes;
        let node = rng.index(nodes);
        let ensembles = self.cluster.claim().state().ensembles;
        let is_there = |medium: &MediumId| self.cluster.node_of(*medium) == Some(node);
        let is_ahead = ensembles.iter().any(|ensemble| !ensemble.members().iter().any(is_there));
        if nodes >= NODES_TO_SPARE && !is_ahead {
            return self.wrong(format!("no ensemble without data node {node} is registered: {ensembles:?}"));
        }
        if rng.coin() {
            self.note("the metadata store is away, and nothing else");
            self.cluster.claim().set_away(true);
        } else {
            self.note("the metadata store is slow, and nothing else");
            self.cluster.claim().set_slow(Some(SLOW));
        }
        self.write_on(&owner, WRITE_MAX).await;
        if nodes >= NODES_TO_SPARE {
            self.note(format!("data node {node} is lost besides"));
            self.cluster.kill_data(node, rng.coin());
            self.write_on(&owner, WRITE_MAX_LOST).await;
        }
    }

    /// Writes to the disk; each is answered within `limit`.
    async fn write_on(self: &Arc<Self>, owner: &Arc<Running>, limit: Duration) {
        let mut guest =
            Guest { stage: self.clone(), host: owner.host, rng: self.control.rng("guest without store") };
        for _ in 0..WRITES {
            if self.lock().over {
                return;
            }
            let first = guest.rng.below(self.plan.blocks);
            let count = 1 + guest.rng.below((self.plan.blocks - first).min(3));
            let begun = self.control.now();
            match seam::timeout(&*self.rt, limit, guest.write(owner, first, count)).await {
                Ok(true) => {}
                Ok(false) => return self.wrong("a write fails while the metadata store is away"),
                Err(seam::Elapsed) => {
                    return self.wrong(format!("no answer to a write within {limit:?}, begun at {begun:?}"));
                }
            }
            let pause = Duration::from_micros(guest.rng.below(50_000));
            self.rt.sleep(pause).await;
        }
    }
}
