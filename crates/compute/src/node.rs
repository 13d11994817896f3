//! A compute node from its start to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{Error, Result, code};
use cluster::{EtcdAccess, Membership, Roster, State};
use machine::{ClientLimits, Lock, Options};
use meta::Store;
use net::{Limits, Remote, TcpDial};
use node::Directory;
use seam::Rt;
use site::Site;
use tokio::sync::watch;
use trust::rustls::{ClientConfig, ServerConfig};
use trust::{Access, Identity, Member, Role};

use crate::claim::Claim;
use crate::form::form;
use crate::front::{Front, Served, Serves};
use crate::home::{Nodes, NodesHome};
use crate::records::Serving;
use crate::restored;
use crate::tls::Certificates;
use crate::turn::{Turn, watch_serving};

/// Pause before the next attempt to serve.
const RETRY: Duration = Duration::from_secs(1);
/// How often is looked whether another has taken over.
const LOOK: Duration = Duration::from_millis(50);
/// How long requests of the interface have to end at a stop.
const REQUESTS_WITHIN: Duration = Duration::from_secs(5);

/// Who comes in by the port for peers, and by that for clients.
const NODES: [Role; 2] = [Role::Compute, Role::Manager];
const CLIENTS: [Role; 1] = [Role::Client];

/// How to run a compute node.
#[derive(Debug, Clone)]
pub struct ComputeOptions {
    /// The node's directory.
    pub dir: PathBuf,
    /// Where peers find it.
    pub listen: SocketAddr,
    /// Where NBD clients find it that come over the network; none to have no port for them.
    pub nbd_listen: Option<SocketAddr>,
    /// A group, by number, whose members may open the disks; else the owner alone.
    pub nbd_group: Option<u32>,
    /// What clients may take of this node, wherever the site is served.
    pub clients: ClientLimits,
    /// How long a medium may be away before what it held is made again on others; else as the engine has it.
    pub rebuild_after: Option<Duration>,
}

/// How serving ended.
enum End {
    /// It was told to stop.
    Stopped,
    /// Another compute node has taken over.
    Superseded,
    /// This node is to serve no more, for now.
    Drained,
}

/// Runs a compute node until `stop` says so. `said` is called with its address once its doors are open.
///
/// # Errors
/// `not_joined`, `identity_damaged`, `site_busy` when it runs already, `port_in_use`, and what reading its files can meet.
/// That the site cannot be served now is no error.
pub async fn run(
    rt: Rt,
    options: ComputeOptions,
    mut stop: watch::Receiver<bool>,
    said: impl FnOnce(SocketAddr),
) -> Result<()> {
    let directory = Directory::new(&options.dir)?;
    let access = EtcdAccess::load(&directory)?;
    let (identity, revoked) = node::load_identity(&directory)?;
    if identity.member().role != Role::Compute {
        let reason = format!("{}: its certificate is that of another role", directory.root().display());
        return Err(Error::new(code::IDENTITY_DAMAGED, reason));
    }
    let lock = Arc::new(Lock::take(&directory.file("lock"))?);
    let (server, serves) = watch::channel(server_access(&rt, &identity, &NODES, revoked.as_ref())?);
    let (outside, clients) = watch::channel(server_access(&rt, &identity, &CLIENTS, revoked.as_ref())?);
    let (client, asks) = watch::channel(client_access(&rt, &identity, revoked.as_ref())?);
    let (served, doors) = watch::channel(Served::Nowhere);
    let certificates =
        Certificates { site: identity.member().site, server: serves, outside: clients, client: asks.clone() };
    let doors_of = machine::Directory::new(&options.dir)?;
    let listen = (options.listen, options.nbd_listen);
    let (group, clients) = (options.nbd_group, options.clients.clone());
    let front = Front::open(&rt, &doors_of, listen, (group, clients), certificates, doors).await?;
    said(front.address());
    let membership = tokio::select! {
        membership = Membership::begin(&rt, &directory, identity, &access) => membership,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let compute = Compute { rt: rt.clone(), options, lock, served, stop, asks, membership: &membership };
    let outcome = tokio::select! {
        outcome = compute.run(front.address()) => outcome,
        () = keep_certificates(&rt, &membership, [&server, &outside], &client) => Ok(()),
    };
    drop(front);
    outcome
}

fn refused(error: &dyn std::fmt::Display) -> Error {
    Error::new(code::IDENTITY_DAMAGED, error.to_string())
}

type Revoked<'a> = Option<&'a trust::rustls::pki_types::CertificateRevocationListDer<'static>>;

fn server_access(
    rt: &Rt,
    identity: &Identity,
    allowed: &[Role],
    revoked: Revoked<'_>,
) -> Result<Arc<Access<ServerConfig>>> {
    identity.server(rt, allowed, revoked).map_err(|error| refused(&error))
}

fn client_access(rt: &Rt, identity: &Identity, revoked: Revoked<'_>) -> Result<Arc<Access<ClientConfig>>> {
    identity.client(rt, revoked).map_err(|error| refused(&error))
}

/// Has new connections made with the newest certificate and list of revoked ones, for ever.
async fn keep_certificates(
    rt: &Rt,
    membership: &Membership,
    [server, outside]: [&watch::Sender<Arc<Access<ServerConfig>>>; 2],
    client: &watch::Sender<Arc<Access<ClientConfig>>>,
) {
    let (mut roster, mut identity) = (membership.roster.clone(), membership.identity.clone());
    loop {
        let (known, own) = (roster.borrow_and_update().clone(), identity.borrow_and_update().clone());
        let revoked = known.revoked.as_ref();
        let next = || -> Result<_> {
            let serves = server_access(rt, &own, &NODES, revoked)?;
            Ok((serves, server_access(rt, &own, &CLIENTS, revoked)?, client_access(rt, &own, revoked)?))
        };
        match next() {
            Ok((serves, clients, asks)) => {
                server.send_replace(serves);
                outside.send_replace(clients);
                client.send_replace(asks);
            }
            Err(error) => tracing::warn!(%error, "certificates stay as they are"),
        }
        let changed = tokio::select! {
            changed = roster.changed() => changed.is_ok(),
            changed = identity.changed() => changed.is_ok(),
        };
        if !changed {
            return std::future::pending().await;
        }
    }
}

struct Compute<'a> {
    rt: Rt,
    options: ComputeOptions,
    lock: Arc<Lock>,
    served: watch::Sender<Served>,
    stop: watch::Receiver<bool>,
    asks: watch::Receiver<Arc<Access<ClientConfig>>>,
    membership: &'a Membership,
}

impl Compute<'_> {
    fn store(&self) -> Arc<dyn Store> {
        self.membership.meta.clone()
    }

    fn own(&self, address: SocketAddr) -> Serving {
        let (member, roster) =
            (self.membership.identity.borrow().member(), self.membership.roster.borrow().clone());
        let name = roster.node(member.node).map_or_else(String::new, |node| node.name.clone());
        Serving { node: member.node, name, address }
    }

    /// Whether this node is to serve no more.
    fn is_draining(&self, roster: &Roster) -> bool {
        let own = roster.node(self.membership.identity.borrow().member().node);
        own.is_some_and(|own| own.state == State::Draining)
    }

    fn nodes(&self, member: &Member) -> Nodes {
        let dial = TcpDial::new(self.rt.clone(), member, Role::Data, Limits::default(), self.asks.clone());
        let dial = Arc::new(dial);
        let remote = Arc::new(Remote::new(self.rt.clone(), dial.clone()));
        Nodes { dial, remote, roster: self.membership.roster.clone() }
    }

    /// Stands by and serves, in turns.
    async fn run(mut self, address: SocketAddr) -> Result<()> {
        let (told, mut elsewhere) = watch::channel(None);
        self.rt.spawn("who serves", Box::pin(watch_serving(self.rt.clone(), self.store(), told)));
        let own = self.own(address);
        loop {
            let mut stop = self.stop.clone();
            let turn = tokio::select! {
                turn = self.stand_by(&own, &mut elsewhere) => turn,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            let mut turn = turn;
            tracing::info!("it is this node's turn to serve");
            let end = {
                let serving = self.serve();
                tokio::select! {
                    end = serving => end,
                    () = turn.keep() => continue,
                }
            };
            self.served.send_replace(Served::Nowhere);
            turn.give_back().await;
            match end {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::Drained) => {
                    tracing::info!("this node is to serve no more: standing by");
                    continue;
                }
                Ok(End::Superseded) => {
                    tracing::warn!("another compute node has taken over: standing by");
                    continue;
                }
                Err(error) => tracing::warn!(%error, "the site cannot be served: standing by"),
            }
            tokio::select! {
                () = self.rt.sleep(RETRY) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    /// Hands clients on to whoever serves until nobody does, and it is this node's turn.
    async fn stand_by(&self, own: &Serving, elsewhere: &mut watch::Receiver<Option<Serving>>) -> Turn {
        loop {
            let serving = elsewhere.borrow_and_update().clone();
            let drains = self.is_draining(&self.membership.roster.borrow());
            match serving {
                // This node's own, of before it was started anew, ends by itself.
                Some(serving) if serving.node != own.node => {
                    self.served.send_replace(Served::By(serving));
                }
                Some(_) => {}
                None if drains => drop(self.served.send_replace(Served::Nowhere)),
                None => {
                    self.served.send_replace(Served::Nowhere);
                    match Turn::take(&self.rt, &self.store(), own).await {
                        Ok(Some(turn)) => return turn,
                        Ok(None) => {}
                        Err(error) => tracing::debug!(%error, "the turn is not taken"),
                    }
                }
            }
            let _ = seam::timeout(&*self.rt, RETRY, elsewhere.changed()).await;
        }
    }

    /// Serves the site until it is told to stop or another has taken over.
    async fn serve(&mut self) -> Result<End> {
        let (site, follow) = self.open().await?;
        let mut stop = self.stop.clone();
        site.serve_without_socket().await;
        let budget = site.budget().clone();
        let api = rest::Server::without_socket(self.rt.clone(), site.clone(), budget);
        let serves = Arc::new(Serves { site: site.clone(), api });
        self.served.send_replace(Served::Here(serves.clone()));
        tracing::info!(epoch = site.engine().epoch().0, "this node serves the site");
        let superseded = async {
            while !site.engine().is_superseded() {
                self.rt.sleep(LOOK).await;
            }
        };
        let mut roster = self.membership.roster.clone();
        let drained = async {
            if roster.wait_for(|roster| self.is_draining(roster)).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let end = tokio::select! {
            () = superseded => End::Superseded,
            () = drained => End::Drained,
            _ = stop.wait_for(|stop| *stop) => End::Stopped,
        };
        self.served.send_replace(Served::Nowhere);
        match end {
            End::Superseded => site.abandon().await,
            End::Stopped | End::Drained => {
                serves.api.stop(REQUESTS_WITHIN).await;
                if let Err(error) = site.stop().await {
                    tracing::warn!(%error, "not all was written; the journal has it");
                }
            }
        }
        drop(follow);
        Ok(end)
    }

    async fn open(&self) -> Result<(Site, watch::Sender<()>)> {
        let member = self.membership.identity.borrow().member();
        // A store that was made anew meanwhile may have been read before it had all nodes.
        self.membership.refresh().await;
        let (store, nodes) = (self.store(), self.nodes(&member));
        nodes.set_addresses();
        let (manifest, at) = match NodesHome::load(&*store).await? {
            Some(loaded) => restored::check(&nodes, &*store, loaded).await?,
            None => form(&nodes, &*store, member.site).await?,
        };
        let (follow, mut followed) = watch::channel(());
        let follows = nodes.clone();
        let task = async move {
            tokio::select! {
                () = follows.follow() => {}
                _ = followed.changed() => {}
            }
        };
        self.rt.spawn("addresses of nodes", Box::pin(task));
        let home = Arc::new(NodesHome::new(nodes, store.clone(), manifest, at));
        let claim = Arc::new(Claim::new(&self.rt, store)?);
        let options = Options {
            lease: proto::LEASE,
            rebuild_after: self.options.rebuild_after,
            clients: self.options.clients.clone(),
            ..Options::new(&self.options.dir)
        };
        let site = Site::open(self.rt.clone(), home, claim, self.lock.clone(), &options).await?;
        Ok((site, follow))
    }
}
