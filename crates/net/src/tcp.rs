//! The data protocol over TCP, with mutual TLS.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustix::net::sockopt;
use seam::{BoxFuture, Rt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use trust::rustls::pki_types::CertificateDer;
use trust::rustls::{ClientConfig, ServerConfig};
use trust::{Access, Member, Role};
use units::{Map, NodeId, SiteId};

use crate::{Client, Dial, Knock, Limits, NetError, SeatLimits, Seats, Server, serve};

/// Pause after a connection could not be accepted, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a connection compares its peer's certificate with the clock, which may be set meanwhile.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

/// A peer that is silent this long is asked whether it is there, this often again, and gone behind so many times.
const SILENT: Duration = Duration::from_secs(10);
const ASKED_EVERY: Duration = Duration::from_secs(3);
const ASKED: u32 = 3;
/// What was sent is taken by the other end's machine within this time, or the connection ends. In milliseconds.
const UNACKNOWLEDGED_MS: u32 = 15_000;

/// Has a stream send what it has at once, and end when the machine at its other end is gone.
///
/// # Errors
/// When the system refuses.
pub fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENT)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, ASKED)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS)?;
    Ok(())
}

/// A port that serves the data protocol.
pub struct Listener {
    listener: TcpListener,
    server: Server,
    /// What it serves with; when it changes, new connections have it, and those end that it forbids.
    access: watch::Receiver<Arc<Access<ServerConfig>>>,
    seats: Seats,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?})", self.listener.local_addr().ok())
    }
}

impl Listener {
    /// Listens on `address`, for as many connections at once as `seats` says: one more is closed as soon as it is made, or is known.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn bind(
        address: SocketAddr,
        server: Server,
        access: watch::Receiver<Arc<Access<ServerConfig>>>,
        seats: SeatLimits,
    ) -> Result<Self, NetError> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, server, access, seats: Seats::new(seats) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> Result<SocketAddr, NetError> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until `stop` says so, or is dropped. Connections that are there then end with it.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let rt = self.server.rt.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                stopped = stop.wait_for(|stop| *stop) => {
                    drop(stopped);
                    return;
                }
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(knock) = self.seats.knock(peer.ip()) else {
                        tracing::debug!(%peer, "closed: there are as many connections as there may be");
                        continue;
                    };
                    let (server, mut stop) = (self.server.clone(), stop.clone());
                    let access = self.access.clone();
                    let work = async move {
                        let ended = tokio::select! {
                            biased;
                            _ = stop.wait_for(|stop| *stop) => Ok(()),
                            ended = serve_tls(server, access, stream, knock) => ended,
                        };
                        if let Err(error) = ended {
                            tracing::debug!(%peer, %error, "a connection ended");
                        }
                    };
                    rt.spawn("data protocol, a connection", Box::pin(work));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    rt.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve_tls(
    server: Server,
    access: watch::Receiver<Arc<Access<ServerConfig>>>,
    stream: TcpStream,
    knock: Knock,
) -> Result<(), NetError> {
    let (rt, limit) = (server.rt.clone(), server.limits.handshake);
    tune(&stream)?;
    let tls = TlsAcceptor::from(access.borrow().tls.clone());
    let stream = seam::timeout(&*rt, limit, tls.accept(stream)).await;
    let stream = stream.map_err(|seam::Elapsed| NetError::Slow(limit))??;
    let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    let node = peer.as_ref().and_then(|peer| Member::of(peer).ok()).map(|member| member.node);
    let Some(_seat) = node.and_then(|node| knock.sit(node)) else { return Err(NetError::Crowded) };
    tokio::select! {
        biased;
        error = forbidden(rt, access, peer) => Err(error),
        ended = serve(server, stream) => ended,
    }
}

/// Ends when a connection with the holder of `certificate` is not to go on.
pub async fn forbidden<C: Send + Sync>(
    rt: Rt,
    mut access: watch::Receiver<Arc<Access<C>>>,
    certificate: Option<CertificateDer<'static>>,
) -> NetError {
    let Some(certificate) = certificate else { return NetError::Revoked };
    // One that does not say until when it holds does not hold.
    let ends_ms = trust::ends_ms(&certificate).unwrap_or(0);
    // Whether somebody may still change what is served with.
    let mut changes = true;
    loop {
        if access.borrow_and_update().forbids(&certificate) {
            return NetError::Revoked;
        }
        let left = Duration::from_millis(ends_ms.saturating_sub(rt.wall_ms()));
        if left.is_zero() {
            return NetError::Expired;
        }
        tokio::select! {
            biased;
            changed = access.changed(), if changes => changes = changed.is_ok(),
            () = rt.sleep(left.min(CLOCK_LOOK)) => {}
        }
    }
}

/// Connects to nodes over TCP with mutual TLS.
pub struct TcpDial {
    rt: Rt,
    own: NodeId,
    site: SiteId,
    /// What the nodes that are asked do.
    role: Role,
    limits: Limits,
    access: watch::Receiver<Arc<Access<ClientConfig>>>,
    addresses: RwLock<Map<NodeId, SocketAddr>>,
}

impl std::fmt::Debug for TcpDial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TcpDial")
    }
}

impl TcpDial {
    /// A dialer for nodes of `own`'s site in the role `asked`, that knows no address yet.
    pub fn new(
        rt: Rt,
        own: &Member,
        asked: Role,
        limits: Limits,
        access: watch::Receiver<Arc<Access<ClientConfig>>>,
    ) -> Self {
        let (own, site) = (own.node, own.site);
        Self { rt, own, site, role: asked, limits, access, addresses: RwLock::default() }
    }

    /// Where `node` is from here on.
    pub fn set_address(&self, node: NodeId, address: SocketAddr) {
        self.addresses.write().unwrap_or_else(PoisonError::into_inner).insert(node, address);
    }

    async fn connect(&self, node: NodeId) -> Result<Client, NetError> {
        let address = self.addresses.read().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        let address = address.ok_or_else(|| NetError::Stream("it has no known address".to_owned()))?;
        let name = Member { site: self.site, role: self.role, node }.server_name();
        let name = name.map_err(|error| NetError::Stream(error.to_string()))?;
        let stream = TcpStream::connect(address).await?;
        tune(&stream)?;
        let access = self.access.clone();
        let tls = TlsConnector::from(access.borrow().tls.clone());
        let stream = tls.connect(name, stream).await?;
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        let until = forbidden(self.rt.clone(), access, peer);
        Client::connect(self.rt.clone(), stream, self.own, Some(node), self.limits, until).await
    }
}

impl Dial for TcpDial {
    fn dial(&self, node: NodeId) -> BoxFuture<'_, Result<Client, NetError>> {
        Box::pin(self.connect(node))
    }
}
