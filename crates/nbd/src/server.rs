//! The server: accepts connections, and stops in good order.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use budget::Budget;
use seam::{BoxFuture, Rt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};

use crate::SessionError;
use crate::device::{Device, ExportInfo, Exports, OpenError, OpenErrorKind};
use crate::link::{Link, Phase};
use crate::seats::{Clients, Seats};
use crate::socket::{self, SocketFile};
use crate::transmission;

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Numbers of the errors for want of file descriptors: of the process, and of the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Bounds of a server, and of each of its connections. Memory is bounded by the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. Further clients are told that there are so many.
    pub connections: usize,
    /// Connections at once beyond these for devices of tasks ([`crate::Device::of_task`]).
    pub tasks: usize,
    /// Clients that are told at once that there is no seat for them; others wait to be.
    pub answers: usize,
    /// Requests of one connection at once, counted until their reply is written.
    pub requests: usize,
    /// Bytes of one connection's requests and replies at once. A single request is always taken.
    pub bytes: usize,
    /// Time for the whole hand-shake.
    pub handshake: Duration,
    /// The same for a client that is told that there is no seat for it.
    pub answer: Duration,
    /// Time for a message to arrive once it has begun, and for a client to take replies.
    pub stall: Duration,
    /// The same for a client that takes nothing at all of its replies while others wait for the memory it holds.
    pub pressed: Duration,
}

impl Default for Limits {
    /// 2^20 connections (10,000 VMs with 32 disks each have a third of them), 64 of tasks, 16 that are told, 256 requests,
    /// 65 MiB (two of the largest requests), 10 s, 3 s, 60 s, 10 s.
    fn default() -> Self {
        Self {
            connections: 1 << 20,
            tasks: 64,
            answers: 16,
            requests: 256,
            bytes: 65 << 20,
            handshake: Duration::from_secs(10),
            answer: Duration::from_secs(3),
            stall: Duration::from_secs(60),
            pressed: Duration::from_secs(10),
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
    seats: Arc<Seats>,
    /// Where it listens; a server without one serves what is brought to it.
    file: Option<SocketFile>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.file.as_ref().map(SocketFile::path);
        write!(f, "Server({path:?}, {} connections)", self.connections())
    }
}

impl Server {
    /// Listens on the unix socket `path` and serves `exports`. Must be called within the tokio runtime.
    ///
    /// A stale socket file is replaced. The file's mode is 0600. Memory for clients comes from `budget`.
    ///
    /// # Errors
    /// [`ServerErrorKind::Busy`] when another server listens there, [`ServerErrorKind::NotASocket`] when something
    /// else lies there, [`ServerErrorKind::Io`] when the system refuses.
    pub async fn start(
        rt: Rt,
        exports: Arc<dyn Exports>,
        path: &Path,
        limits: Limits,
        budget: Budget,
    ) -> Result<Self, ServerError> {
        let (listener, file) = socket::claim(&*rt, path).await?;
        let mut server = Self::without_socket(rt.clone(), exports.clone(), limits, budget);
        server.file = Some(file);
        let accepting =
            Accepting { rt: rt.clone(), exports, seats: server.seats.clone(), spare: spare_file() };
        let accepting = accepting.run(listener);
        rt.spawn("nbd accept", Box::pin(accepting));
        Ok(server)
    }

    /// Serves `exports` to those whom [`Server::serve`] is given.
    pub fn without_socket(rt: Rt, exports: Arc<dyn Exports>, limits: Limits, budget: Budget) -> Self {
        let seats = Arc::new(Seats::new(rt.clone(), limits, budget));
        Self { rt, exports, seats, file: None }
    }

    /// A server whose every client is told that there is no seat for it: for whoever takes connections without one.
    pub fn refusing(rt: Rt, budget: Budget) -> Self {
        let limits = Limits { connections: 0, tasks: 0, ..Limits::default() };
        Self::without_socket(rt, Arc::new(Nothing), limits, budget)
    }

    /// Serves a client that has not been greeted yet, whom another port let in, until it leaves or is hung up on, as when the
    /// server stops. Dropping the future hangs up.
    pub fn serve<S>(&self, stream: S) -> BoxFuture<'static, ()>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (seats, exports, rt) = (self.seats.clone(), self.exports.clone(), self.rt.clone());
        Box::pin(async move {
            let Some(link) = seats.seat().await else { return };
            let (reader, writer) = tokio::io::split(stream);
            connection(rt, exports, link, seats.limits, reader, writer).await;
        })
    }

    fn remove_file(&mut self) {
        if let Some(file) = &mut self.file {
            file.remove();
        }
    }

    /// Connections now open.
    pub fn connections(&self) -> usize {
        *self.seats.open.borrow()
    }

    /// How its clients are.
    pub fn clients(&self) -> Clients {
        self.seats.clients()
    }

    /// Stops: takes no more connections and requests, answers the requests taken, closes, removes the socket file.
    /// What is not done after `within` is cut off. Gives the number of connections cut off: 0 when all ended well.
    pub async fn stop(mut self, within: Duration) -> usize {
        self.remove_file();
        self.seats.advance(Phase::Draining);
        let mut open = self.seats.open.subscribe();
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
        self.seats.advance(Phase::Cut);
    }
}

/// No exports.
struct Nothing;

impl Exports for Nothing {
    fn list(&self) -> BoxFuture<'_, Vec<ExportInfo>> {
        Box::pin(async { Vec::new() })
    }

    fn open(&self, _: &str) -> BoxFuture<'_, Result<Arc<dyn Device>, OpenError>> {
        let none = OpenError { kind: OpenErrorKind::Unknown, reason: "there are no exports".to_owned() };
        Box::pin(async { Err(none) })
    }
}

/// A file that is closed to make room for a client that is to be told that no more can be opened.
fn spare_file() -> Option<File> {
    File::open("/dev/null").ok()
}

/// What accepts connections until the server stops.
struct Accepting {
    rt: Rt,
    exports: Arc<dyn Exports>,
    seats: Arc<Seats>,
    spare: Option<File>,
}

impl Accepting {
    async fn run(mut self, listener: UnixListener) {
        let mut phase = self.seats.phase.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let Some(link) = self.seats.seat().await else { return };
                    self.rt.spawn("nbd connection", Box::pin(self.serve(stream, link)));
                }
                Err(error) if is_out_of_files(&error) && self.spare.is_some() => {
                    self.spare = None;
                    // The system says so also where nobody is to be accepted.
                    let accepted = seam::timeout(&*self.rt, ACCEPT_PAUSE, listener.accept()).await;
                    self.spare = spare_file();
                    let Ok(Ok((stream, _))) = accepted else { continue };
                    if self.spare.is_some() {
                        let Some(link) = self.seats.seat().await else { return };
                        self.rt.spawn("nbd connection", Box::pin(self.serve(stream, link)));
                    } else if let Some(link) = self.seats.admit_without_file() {
                        self.serve(stream, link).await;
                        self.spare = spare_file();
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "NBD connection not accepted");
                    self.rt.sleep(ACCEPT_PAUSE).await;
                    self.spare = self.spare.take().or_else(spare_file);
                }
            }
        }
    }

    fn serve(&self, stream: UnixStream, link: Arc<Link>) -> impl Future<Output = ()> + Send + use<> {
        let (reader, writer) = stream.into_split();
        connection(self.rt.clone(), self.exports.clone(), link, self.seats.limits, reader, writer)
    }
}

fn is_out_of_files(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
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
    let served = transmission::serve(rt, &*exports, link.clone(), limits, reader, writer).await;
    match served {
        Ok(()) => {}
        Err(SessionError::Unread) => link.cut_off(),
        Err(error) => tracing::debug!(%error, "NBD connection ended"),
    }
}
