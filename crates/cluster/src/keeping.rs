//! A node's certificate is renewed in time.

use std::sync::Arc;
use std::time::Duration;

use api::Result;
use node::Directory;
use seam::Rt;
use tokio::sync::watch;
use trust::{Identity, Member, Role};

use crate::access::Meta;
use crate::joining::renew;
use crate::members::Roster;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps a node's certificate good: at two thirds of its time a manager is asked for the next one.
pub struct Keeper {
    rt: Rt,
    directory: Directory,
    roster: watch::Receiver<Arc<Roster>>,
    meta: Arc<Meta>,
    identity: watch::Sender<Identity>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

impl Keeper {
    /// Keeps `identity`, whose newest certificate is what the receiver has. It ends with the receiver.
    pub fn start(
        rt: &Rt,
        directory: &Directory,
        identity: Identity,
        roster: watch::Receiver<Arc<Roster>>,
        meta: Arc<Meta>,
    ) -> watch::Receiver<Identity> {
        let (sender, receiver) = watch::channel(identity);
        let keeper = Self { rt: rt.clone(), directory: directory.clone(), roster, meta, identity: sender };
        rt.spawn("certificate", Box::pin(keeper.run()));
        receiver
    }

    async fn run(self) {
        loop {
            // An attempt before may not have reached the store.
            let own = self.identity.borrow().clone();
            if let Err(error) = self.meta.renew_if_older(&own).await {
                tracing::debug!(%error, "the metadata store is asked with the certificate before");
            }
            if self.is_due()
                && let Err(error) = self.renew().await
            {
                tracing::warn!(%error, "the node's certificate was not renewed");
            }
            tokio::select! {
                () = self.rt.sleep(LOOK) => {}
                () = self.identity.closed() => return,
            }
        }
    }

    fn is_due(&self) -> bool {
        let held = trust::holds_ms(self.identity.borrow().certificate());
        held.map_or(true, |(from, until)| self.rt.wall_ms() >= from + until.saturating_sub(from) / 3 * 2)
    }

    async fn renew(&self) -> Result<()> {
        let own = self.identity.borrow().clone();
        let roster = self.roster.borrow().clone();
        let mut outcome = Ok(());
        for manager in roster.of(Role::Manager) {
            let Some(address) = manager.address else { continue };
            let member = Member { site: own.member().site, role: Role::Manager, node: manager.id };
            match renew(&self.rt, &own, &member, address).await {
                Ok(next) => {
                    // It is in use whatever becomes of the rest: whoever asks again and again gets none in the end.
                    self.identity.send_replace(next.clone());
                    tracing::info!("the node's certificate was renewed");
                    node::save_certificate(&self.directory, &next)?;
                    return self.meta.renew(&next).await;
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}
