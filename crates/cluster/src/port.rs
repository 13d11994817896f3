//! A manager's port: HTTP over TLS, where nodes join and renew.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Error, Result, code};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use net::{SeatLimits, Seats};
use seam::Rt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use trust::Access;
use trust::rustls::ServerConfig;
use trust::rustls::pki_types::CertificateDer;

use crate::manager::Manager;
use crate::wire::{Join, REQUEST_MAX, Renew, Renewed, refuse};

/// Connections at once: one more is closed as soon as it is made. They are short.
const SEATS: SeatLimits = SeatLimits { knocking: 256, knocking_each: 64, seated: 0, seated_each: 0 };
/// Longest time a connection may last: for its hand-shake and its one request.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after a connection could not be accepted, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A manager's port. Dropping it stops it.
pub struct Port {
    address: SocketAddr,
    _stop: watch::Sender<()>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({})", self.address)
    }
}

impl Port {
    /// Serves `manager` on `listen`, with what `access` has for each new connection.
    ///
    /// # Errors
    /// `port_in_use`.
    pub async fn start(
        rt: &Rt,
        manager: Arc<Manager>,
        access: watch::Receiver<Arc<Access<ServerConfig>>>,
        listen: SocketAddr,
    ) -> Result<Self> {
        let unusable = |error: std::io::Error| Error::of_io(code::PORT_IN_USE, listen, &error);
        let listener = TcpListener::bind(listen).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let (stop, stopped) = watch::channel(());
        let serving = Serving { rt: rt.clone(), manager, access, stopped };
        rt.spawn("manager's port", Box::pin(serving.run(listener)));
        Ok(Self { address, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Serving {
    rt: Rt,
    manager: Arc<Manager>,
    access: watch::Receiver<Arc<Access<ServerConfig>>>,
    stopped: watch::Receiver<()>,
}

impl Serving {
    async fn run(mut self, listener: TcpListener) {
        let seats = Seats::new(SEATS);
        loop {
            let accepted = tokio::select! {
                biased;
                // Nothing is ever sent: it ends with the port.
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
            let Some(seat) = seats.knock(peer.ip()) else {
                tracing::debug!(%peer, "closed: there are as many connections as there may be");
                continue;
            };
            let (rt, manager) = (self.rt.clone(), self.manager.clone());
            let (access, mut stopped) = (self.access.borrow().clone(), self.stopped.clone());
            let work = async move {
                let served = seam::timeout(&*rt, CONNECTION_TIME, serve(manager, access, stream));
                tokio::select! {
                    biased;
                    _ = stopped.changed() => {}
                    served = served => match served {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection ended"),
                        Err(seam::Elapsed) => tracing::debug!(%peer, "a connection took too long"),
                    },
                }
                drop(seat);
            };
            self.rt.spawn("manager's port, a connection", Box::pin(work));
        }
    }
}

async fn serve(
    manager: Arc<Manager>,
    access: Arc<Access<ServerConfig>>,
    stream: TcpStream,
) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    net::tune(&stream)?;
    let stream = TlsAcceptor::from(access.tls.clone()).accept(stream).await?;
    let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    let peer = peer.map(CertificateDer::into_owned);
    let service = service_fn(move |request| {
        let (manager, peer) = (manager.clone(), peer.clone());
        async move { Ok::<_, Infallible>(answer(&manager, peer.as_ref(), request).await) }
    });
    let mut builder = http1::Builder::new();
    // One request a connection: a limit in time for each is then one for all.
    builder.keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
    builder.serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

async fn answer(
    manager: &Manager,
    peer: Option<&CertificateDer<'static>>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (status, body) = match handle(manager, peer, request).await {
        Ok(body) => (200, body),
        Err(error) => {
            tracing::info!(code = error.code.name, reason = error.reason, "a node was refused");
            (error.code.status, refuse(&error))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

async fn handle(
    manager: &Manager,
    peer: Option<&CertificateDer<'static>>,
    request: Request<Incoming>,
) -> Result<Vec<u8>> {
    let (head, body) = request.into_parts();
    let (is_join, is_renew) = (head.uri.path() == "/v1/join", head.uri.path() == "/v1/renew");
    if head.method != Method::POST || !(is_join || is_renew) {
        return Err(Error::new(code::NOT_FOUND, "there is nothing at that path"));
    }
    let read = Limited::new(body, REQUEST_MAX).collect().await;
    let read =
        read.map_err(|error| Error::new(code::INVALID_REQUEST, format!("the request's body: {error}")))?;
    let bytes = read.to_bytes();
    if is_join {
        return manager.join(&Join::decode(&bytes)?).await?.encode();
    }
    let Some(peer) = peer else {
        let reason = "a node shows its certificate to get the next one";
        return Err(Error::new(code::TOKEN_REFUSED, reason));
    };
    let asked = Renew::decode(&bytes)?;
    Renewed(manager.renew(peer, &asked.0).await?.to_vec()).encode()
}
