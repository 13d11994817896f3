//! The doors of a compute node: its own sockets, and one on the network for its peers.
//!
//! Whoever comes through a door is served here when this node serves the site, else handed on to the one that does. Where
//! nobody serves, an NBD client waits for a while; whoever asks the interface is told.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::{Error, Result, code};
use machine::ClientLimits;
use net::{Knock, Seat, SeatLimits, Seats};
use seam::{BoxFuture, Rt};
use site::Site;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::server;
use trust::Member;

use crate::records::Serving;
use crate::tls::{Certificates, Door};

/// Connections through the door of the interface at once; further ones wait.
const INTERFACE_MAX: usize = 256;
/// Clients at once that are told that there is no seat for them, or wait to be; further ones wait to be accepted.
const REFUSED_AT_ONCE: usize = 64;
/// Connections of one host, through its node, that there may be in any case.
const OF_ONE_HOST: usize = 4096;
/// Connections through the door on the network that have not shown a certificate yet.
const KNOCKING: SeatLimits = SeatLimits { knocking: 256, knocking_each: 64, seated: 0, seated_each: 0 };
/// Pause after a connection could not be accepted, most likely for want of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client waits for somebody who serves. It may come again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes on their way in each direction of a connection that is handed on.
pub(crate) const HANDED_ON_BYTES: usize = 128 << 10;
/// Longest head of a request that is told that nobody serves, bytes, and the time it has.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Who serves the site, as a door needs to know it.
#[derive(Clone, Default)]
pub(crate) enum Served {
    /// Nobody, as far as is known.
    #[default]
    Nowhere,
    /// This node.
    Here(Arc<Serves>),
    /// Another.
    By(Serving),
}

/// What serves clients.
pub(crate) struct Serves {
    pub(crate) site: Site,
    pub(crate) api: rest::Server,
}

impl Served {
    /// Whether a connection handed on to `other` may go on.
    fn is_by(&self, other: &Serving) -> bool {
        matches!(self, Self::By(serving) if serving == other)
    }
}

/// The doors. They close when it goes.
pub(crate) struct Front {
    address: SocketAddr,
    _stop: watch::Sender<()>,
}

/// What all doors share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) rt: Rt,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) served: watch::Receiver<Served>,
    pub(crate) stopped: watch::Receiver<()>,
    /// What clients may take of this node.
    pub(crate) clients: ClientLimits,
    /// Tells clients that there is no seat for them.
    pub(crate) full: Arc<nbd::Server>,
    pub(crate) refusals: Arc<Semaphore>,
}

impl Front {
    /// Opens the doors: sockets at `nbd` and `api` for this user, and `nbd_group`; one for peers, and one for clients over the
    /// network where there is an address for it.
    ///
    /// # Errors
    /// `port_in_use`, `nbd_socket`, `permission_denied`.
    pub(crate) async fn open(
        rt: &Rt,
        directory: &machine::Directory,
        (listen, outside): (SocketAddr, Option<SocketAddr>),
        (nbd_group, clients): (Option<u32>, ClientLimits),
        certificates: Certificates,
        served: watch::Receiver<Served>,
    ) -> Result<Self> {
        let network = listen_at(listen).await?;
        let in_use = |error| port_in_use(listen, &error);
        let address = network.local_addr().map_err(in_use)?;
        let outside = match outside {
            Some(outside) => Some(listen_at(outside).await?),
            None => None,
        };
        let disks = bind(&directory.nbd_socket())?;
        if let Some(group) = nbd_group {
            machine::admit_group(directory, group)?;
        }
        let interface = bind(&directory.api_socket())?;
        let (stop, stopped) = watch::channel(());
        let shared = Shared {
            rt: rt.clone(),
            certificates: Arc::new(certificates),
            served,
            stopped,
            full: Arc::new(nbd::Server::refusing(rt.clone(), clients.budget.clone())),
            clients,
            refusals: Arc::new(Semaphore::new(REFUSED_AT_ONCE)),
        };
        rt.spawn("compute, disks", Box::pin(shared.clone().own(disks, Door::Disks)));
        rt.spawn("compute, interface", Box::pin(shared.clone().own(interface, Door::Interface)));
        if let Some(outside) = outside {
            rt.spawn("compute, clients", Box::pin(shared.clone().outside(outside)));
        }
        rt.spawn("compute, peers", Box::pin(shared.peers(network)));
        Ok(Self { address, _stop: stop })
    }

    /// Where peers find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn port_in_use(listen: SocketAddr, error: &std::io::Error) -> Error {
    Error::of_io(code::PORT_IN_USE, listen, error)
}

async fn listen_at(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| port_in_use(listen, &error))
}

/// Listens on a socket of this process alone; what a process before left there goes.
fn bind(path: &Path) -> Result<UnixListener> {
    let listen = || {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listen().map_err(|error: std::io::Error| Error::of_io(code::NBD_SOCKET, path.display(), &error))
}

impl Shared {
    /// A socket of this host.
    async fn own(mut self, listener: UnixListener, door: Door) {
        // A client that is handed on is two connections.
        let most = if door == Door::Disks { self.clients.connections / 2 } else { INTERFACE_MAX };
        let seats = Arc::new(Semaphore::new(most));
        loop {
            let accepted = tokio::select! {
                biased;
                // Nothing is ever sent: it ends with the front.
                _ = self.stopped.changed() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    self.rt.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let seat = match seats.clone().try_acquire_owned() {
                Ok(seat) => seat,
                Err(_) if door == Door::Disks => {
                    self.refuse(stream).await;
                    continue;
                }
                Err(_) => match seats.clone().acquire_owned().await {
                    Ok(seat) => seat,
                    Err(_closed) => return,
                },
            };
            let shared = self.clone();
            let work = async move {
                let mut stopped = shared.stopped.clone();
                tokio::select! {
                    biased;
                    _ = stopped.changed() => {}
                    () = shared.route(stream, door) => {}
                }
                drop(seat);
            };
            self.rt.spawn("compute, a connection", Box::pin(work));
        }
    }

    /// Has a client told that there is no seat for it.
    pub(crate) async fn refuse<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Ok(permit) = self.refusals.clone().acquire_owned().await else { return };
        let told = self.full.serve(stream);
        let task = async move {
            told.await;
            drop(permit);
        };
        self.rt.spawn("compute, a refused client", Box::pin(task));
    }

    /// Seats for those who come over the network, of whom each may have `each`.
    pub(crate) fn seats(&self, each: usize) -> Seats {
        let seated = self.clients.connections;
        Seats::new(SeatLimits { seated, seated_each: each.min(seated), ..KNOCKING })
    }

    /// The door on the network.
    async fn peers(mut self, listener: TcpListener) {
        let seats = self.seats((self.clients.connections / 8).max(OF_ONE_HOST));
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.stopped.changed() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    self.rt.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(knock) = seats.knock(peer.ip()) else { continue };
            let shared = self.clone();
            let work = async move {
                let accepted = shared.certificates.accept(&shared.rt, stream).await;
                match accepted {
                    Ok((door, stream)) => match seat(knock, &stream) {
                        Some(_seat) => shared.serve_peer(stream, door).await,
                        None => {
                            tracing::warn!(%peer, "a peer has as many connections as it may");
                            if door == Door::Disks {
                                shared.refuse(stream).await;
                            }
                        }
                    },
                    Err(error) => tracing::debug!(%peer, %error, "a peer was not let in"),
                }
            };
            self.rt.spawn("compute, a peer", Box::pin(work));
        }
    }

    /// Serves a peer when this node serves at all: one that thinks so when it is not finds out, and looks again.
    async fn serve_peer(&self, stream: server::TlsStream<TcpStream>, door: Door) {
        let mut served = self.served.clone();
        if door == Door::Disks {
            // It may be about to: the peer heard that it is this node's turn.
            let here = served.wait_for(|served| !matches!(served, Served::Nowhere));
            let _ = seam::timeout(&*self.rt, PATIENCE, here).await;
        }
        let now = served.borrow().clone();
        let Served::Here(serves) = now else {
            if door == Door::Interface {
                self.tell(stream).await;
            }
            return;
        };
        let mut stopped = self.stopped.clone();
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        let forbidden = net::forbidden(self.rt.clone(), self.certificates.server.clone(), peer);
        let served = serves.serve(stream, door).await;
        drop(serves);
        tokio::select! {
            biased;
            _ = stopped.changed() => {}
            error = forbidden => tracing::info!(%error, "a peer may not stay"),
            () = served => {}
        }
    }

    /// Takes a client of this host to whoever serves.
    async fn route(&self, stream: UnixStream, door: Door) {
        let mut served = self.served.clone();
        let patience = if door == Door::Disks { PATIENCE } else { Duration::ZERO };
        let end = self.rt.now() + patience;
        loop {
            let now = served.borrow_and_update().clone();
            match now {
                Served::Here(serves) => {
                    let served = serves.serve(stream, door).await;
                    drop(serves);
                    return served.await;
                }
                Served::By(serving) => match self.certificates.connect(&self.rt, &serving, door).await {
                    Ok(peer) => return self.hand_on(stream, peer, &serving).await,
                    Err(error) => tracing::debug!(%error, name = serving.name, "who serves is not reached"),
                },
                Served::Nowhere => {}
            }
            let left = end.saturating_sub(self.rt.now());
            if left.is_zero() {
                break;
            }
            // News, or another attempt to reach who serves.
            let pause = left.min(Duration::from_millis(300));
            let _ = seam::timeout(&*self.rt, pause, served.changed()).await;
        }
        if door == Door::Interface {
            self.tell(stream).await;
        }
    }

    /// Carries bytes both ways until either end is done, or another serves; tells a client when there is no memory for it.
    async fn hand_on<S>(&self, mut stream: UnixStream, mut peer: S, serving: &Serving)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(_memory) = self.clients.budget.open(2 * HANDED_ON_BYTES) else {
            return self.refuse(stream).await;
        };
        let mut served = self.served.clone();
        let carried = copy_bidirectional_with_sizes(&mut stream, &mut peer, HANDED_ON_BYTES, HANDED_ON_BYTES);
        tokio::select! {
            carried = carried => {
                if let Err(error) = carried {
                    tracing::debug!(%error, "a connection that was handed on ended");
                }
            }
            _ = served.wait_for(|served| !served.is_by(serving)) => {}
        }
    }

    /// Says that nobody serves, once there is a request.
    async fn tell<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let answer = async {
            let mut head = Vec::new();
            let mut chunk = [0; 1024];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
                match stream.read(&mut chunk).await? {
                    0 => break,
                    read => head.extend_from_slice(&chunk[..read]),
                }
            }
            let reason = "no compute node serves the site now, or the one that does cannot be reached";
            let error = Error::new(code::NOT_SERVED, reason);
            let body = api::Problem::from(error).body();
            let head = format!(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
            stream.shutdown().await?;
            // What is not read, such as a body, could break the connection before the answer is there.
            while stream.read(&mut chunk).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        if let Ok(Err(error)) = seam::timeout(&*self.rt, HEAD_TIME, answer).await {
            tracing::debug!(%error, "a request was not answered");
        }
    }
}

/// A peer's seat.
fn seat(knock: Knock, stream: &server::TlsStream<TcpStream>) -> Option<Seat> {
    let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first)?;
    knock.sit(Member::of(peer).ok()?.node)
}

impl Serves {
    /// What serves a client, to its end.
    pub(crate) async fn serve<S>(&self, stream: S, door: Door) -> BoxFuture<'static, ()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match door {
            Door::Disks => self.site.serve_client(stream).await,
            Door::Interface => self.api.serve(stream),
        }
    }
}
