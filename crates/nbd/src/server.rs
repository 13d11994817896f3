//! The server: accepts connections up to a cap, and stops in good order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use seam::{BoxFuture, Rt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::device::Exports;
use crate::link::{Link, Phase};
use crate::socket::{self, SocketFile};
use crate::transmission;

/// Pause after a connection could not be accepted, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of a server. A server holds at most `connections` times `bytes` of clients' data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is closed as soon as it is made.
    pub connections: usize,
    /// Requests of one connection at once, counted until their reply is written.
    pub requests: usize,
    /// Bytes of one connection's requests and replies at once. A single request is always taken.
    pub bytes: usize,
    /// Time for the whole hand-shake.
    pub handshake: Duration,
    /// Time for a message to arrive once it has begun, and for a client to take replies.
    pub stall: Duration,
}

impl Default for Limits {
    /// 256 connections, 256 requests, 64 MiB (two of the largest requests), 10 s, 60 s.
    fn default() -> Self {
        Self {
            connections: 256,
            requests: 256,
            bytes: 64 << 20,
            handshake: Duration::from_secs(10),
            stall: Duration::from_secs(60),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerErrorKind {
    /// Another server listens on the socket.
    Busy,
    /// Something that is no socket lies at the path.
    NotASocket,
    /// The system refused.
    Io,
}

/// A server did not start.
#[derive(Debug, thiserror::Error)]
#[error("NBD socket {}: {reason}", path.display())]
pub struct ServerError {
    /// What to do about it.
    pub kind: ServerErrorKind,
    /// The socket.
    pub path: PathBuf,
    /// What happened.
    pub reason: String,
}

/// A listening NBD server. Dropping it stops it at once; [`Server::stop`] does so in good order.
pub struct Server {
    rt: Rt,
    exports: Arc<dyn Exports>,
    shared: Arc<Shared>,
    /// Where it listens; a server without one serves what is brought to it.
    file: Option<SocketFile>,
}

/// What the server shares with its connections.
struct Shared {
    limits: Limits,
    connections: Mutex<Connections>,
    /// Connections not yet closed, tasks of their requests included.
    open: watch::Sender<usize>,
    phase: watch::Sender<Phase>,
}

#[derive(Default)]
struct Connections {
    links: BTreeMap<u64, Weak<Link>>,
    next: u64,
}

/// A connection's place under the cap, given back when dropped.
pub(crate) struct Seat {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.connections().links.remove(&self.number);
        self.shared.open.send_modify(|open| *open -= 1);
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.file.as_ref().map(SocketFile::path);
        write!(f, "Server({path:?}, {} connections)", self.connections())
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        // The table is whole after every statement, so a panic elsewhere spoils nothing.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection; `None` when the server is full or stopping.
    fn admit(self: &Arc<Self>) -> Option<Arc<Link>> {
        let mut connections = self.connections();
        if *self.phase.borrow() != Phase::Open || *self.open.borrow() >= self.limits.connections {
            return None;
        }
        let number = connections.next;
        connections.next += 1;
        self.open.send_modify(|open| *open += 1);
        let link = Arc::new(Link::new(self.limits, Some(Seat { shared: self.clone(), number })));
        connections.links.insert(number, Arc::downgrade(&link));
        Some(link)
    }

    /// Tells the accepting task and every connection.
    fn advance(&self, phase: Phase) {
        let links: Vec<_> = {
            let connections = self.connections();
            self.phase.send_modify(|known| *known = (*known).max(phase));
            connections.links.values().filter_map(Weak::upgrade).collect()
        };
        // Outside the lock: letting go of a link may give its seat back.
        for link in links {
            link.advance(phase);
        }
    }
}

impl Server {
    /// Listens on the unix socket `path` and serves `exports`. Must be called within the tokio runtime.
    ///
    /// A stale socket file is replaced. The file's mode is 0600.
    ///
    /// # Errors
    /// [`ServerErrorKind::Busy`] when another server listens there, [`ServerErrorKind::NotASocket`] when something
    /// else lies there, [`ServerErrorKind::Io`] when the system refuses.
    pub async fn start(
        rt: Rt,
        exports: Arc<dyn Exports>,
        path: &Path,
        limits: Limits,
    ) -> Result<Self, ServerError> {
        let (listener, file) = socket::claim(&*rt, path).await?;
        let mut server = Self::without_socket(rt.clone(), exports.clone(), limits);
        server.file = Some(file);
        let accepting = accept(rt.clone(), exports, listener, server.shared.clone());
        rt.spawn("nbd accept", Box::pin(accepting));
        Ok(server)
    }

    /// Serves `exports` to those whom [`Server::serve`] is given.
    pub fn without_socket(rt: Rt, exports: Arc<dyn Exports>, limits: Limits) -> Self {
        let shared = Arc::new(Shared {
            limits,
            connections: Mutex::default(),
            open: watch::Sender::new(0),
            phase: watch::Sender::new(Phase::Open),
        });
        Self { rt, exports, shared, file: None }
    }

    /// Serves a client that has not been greeted yet, whom another port let in, until it leaves or is hung up on, as when the
    /// server is full or stops. Dropping the future hangs up.
    pub fn serve<S>(&self, stream: S) -> BoxFuture<'static, ()>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Some(link) = self.shared.admit() else { return Box::pin(async {}) };
        let (reader, writer) = tokio::io::split(stream);
        let limits = self.shared.limits;
        Box::pin(connection(self.rt.clone(), self.exports.clone(), link, limits, reader, writer))
    }

    fn remove_file(&mut self) {
        if let Some(file) = &mut self.file {
            file.remove();
        }
    }

    /// Connections now open.
    pub fn connections(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Stops: takes no more connections and requests, answers the requests taken, closes, removes the socket file.
    /// What is not done after `within` is cut off. Gives the number of connections cut off: 0 when all ended well.
    pub async fn stop(mut self, within: Duration) -> usize {
        self.remove_file();
        self.shared.advance(Phase::Draining);
        let mut open = self.shared.open.subscribe();
        let closed = async {
            // The sender lives as long as the server, so this ends only when it holds.
            let _ = open.wait_for(|open| *open == 0).await;
        };
        match seam::timeout(&*self.rt, within, closed).await {
            Ok(()) => 0,
            Err(seam::Elapsed) => self.connections(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remove_file();
        self.shared.advance(Phase::Cut);
    }
}

/// Accepts connections until the server stops.
async fn accept(rt: Rt, exports: Arc<dyn Exports>, listener: UnixListener, shared: Arc<Shared>) {
    let mut phase = shared.phase.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
        };
        match accepted {
            Ok((stream, _)) => match shared.admit() {
                Some(link) => {
                    let (reader, writer) = stream.into_split();
                    let (limits, exports) = (shared.limits, exports.clone());
                    let task = connection(rt.clone(), exports, link, limits, reader, writer);
                    rt.spawn("nbd connection", Box::pin(task));
                }
                None => drop(stream),
            },
            Err(error) => {
                tracing::warn!(%error, "NBD connection not accepted");
                rt.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<R, W>(
    rt: Rt,
    exports: Arc<dyn Exports>,
    link: Arc<Link>,
    limits: Limits,
    reader: R,
    writer: W,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if let Err(error) = transmission::serve(rt, &*exports, link, limits, reader, writer).await {
        tracing::debug!(%error, "NBD connection ended");
    }
}
