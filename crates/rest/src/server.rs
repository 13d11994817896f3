//! The server: a unix socket, connections up to a cap, an end in good order.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::code;
use axum::Router;
use budget::Budget;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use seam::{BoxFuture, Rt};
use site::Site;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::memory::Memory;
use crate::refused::Refused;
use crate::routes::router;

/// Longest time a request may take.
pub const REQUEST_TIME: Duration = Duration::from_secs(60);
/// Longest time a connection may last: for its one request, and for sending and fetching it slowly.
const CONNECTION_TIME: Duration = Duration::from_secs(90);
/// Connections at once; further ones wait to be accepted.
const CONNECTIONS_MAX: u32 = 64;
/// Connections waiting to be accepted.
const BACKLOG: u32 = 128;
/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest time for telling a client that no more files can be opened: others wait meanwhile.
const REFUSE_TIME: Duration = Duration::from_millis(250);
/// Numbers of the errors for want of file descriptors: of the process, and of the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// A listening server. Dropping it stops it.
pub struct Server {
    rt: Rt,
    /// Where it listens; a server without one serves what is brought to it.
    path: Option<PathBuf>,
    accepting: Accepting,
    stopping: watch::Sender<bool>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({:?})", self.path)
    }
}

impl Server {
    /// Serves `site` on the unix socket `path`, for this user only; memory for requests and answers comes from `budget`.
    /// Must be called within the tokio runtime. The
    /// caller sees to it that no other server lives there; what stands at `path` is replaced.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start(rt: Rt, site: Site, path: &Path, budget: Budget) -> std::io::Result<Self> {
        let listener = listen(path)?;
        let mut server = Self::without_socket(rt.clone(), site, budget);
        server.path = Some(path.to_owned());
        rt.spawn("api accept", Box::pin(server.accepting.clone().run(listener)));
        Ok(server)
    }

    /// Serves `site` to those whom [`Server::serve`] is given.
    pub fn without_socket(rt: Rt, site: Site, budget: Budget) -> Self {
        let (stopping, stopped) = watch::channel(false);
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
        let accepting =
            Accepting { rt: rt.clone(), router: router(rt.clone(), site), budget, seats, stopped };
        Self { rt, path: None, accepting, stopping }
    }

    /// Serves a client whom another port let in, to its end; while as many are there as may be, it waits. Dropping the
    /// future hangs up, and so does a stop.
    pub fn serve<S>(&self, stream: S) -> BoxFuture<'static, ()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut accepting = self.accepting.clone();
        Box::pin(async move {
            let seats = accepting.seats.clone();
            let seat = tokio::select! {
                biased;
                _ = accepting.stopped.wait_for(|stopped| *stopped) => return,
                seat = seats.acquire_owned() => seat,
            };
            if let Ok(seat) = seat {
                accepting.serve(stream, seat).await;
            }
        })
    }

    /// Removes the socket, takes no more requests, and lets those that are there end, no longer than `within`.
    pub async fn stop(&self, within: Duration) {
        self.remove();
        self.stopping.send_replace(true);
        let ended = self.accepting.seats.clone().acquire_many_owned(CONNECTIONS_MAX);
        if seam::timeout(&*self.rt, within, ended).await.is_err() {
            tracing::warn!("requests of the interface did not end in time");
        }
    }

    fn remove(&self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "socket not removed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !*self.stopping.borrow() {
            self.remove();
            self.stopping.send_replace(true);
        }
    }
}

/// Listens beside `path` and renames: whoever sees the socket at `path` is answered.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    let aside = path.with_extension("new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(&aside)?;
    std::fs::set_permissions(&aside, Permissions::from_mode(0o600))?;
    let listener = socket.listen(BACKLOG)?;
    std::fs::rename(&aside, path)?;
    Ok(listener)
}

/// A file that is closed to make room for a client that is to be told that no more can be opened.
fn spare_file() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_files(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// Answers every request with why it is not served.
fn refusing() -> Router {
    let known = code::OUT_OF_FILES.next;
    let answer = move || async move {
        Refused::new(code::OUT_OF_FILES, "the server has as many files open as it may", known)
    };
    Router::new().fallback(answer)
}

/// Accepts connections until the server stops.
#[derive(Clone)]
struct Accepting {
    rt: Rt,
    router: Router,
    budget: Budget,
    seats: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Accepting {
    async fn run(mut self, listener: UnixListener) {
        let mut spare = spare_file();
        loop {
            let seats = self.seats.clone();
            let accepted = async {
                let seat = seats.acquire_owned().await.ok()?;
                Some((listener.accept().await, seat))
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                _ = self.stopped.wait_for(|stopped| *stopped) => return,
            };
            match accepted {
                Some((Ok((stream, _)), seat)) => {
                    self.rt.spawn("api connection", Box::pin(self.serve(stream, seat)))
                }
                Some((Err(error), seat)) if is_out_of_files(&error) && spare.is_some() => {
                    drop(spare.take());
                    // The system says so also where nobody is to be accepted.
                    let accepted = seam::timeout(&*self.rt, ACCEPT_PAUSE, listener.accept()).await;
                    spare = spare_file();
                    let Ok(Ok((stream, _))) = accepted else { continue };
                    if spare.is_some() {
                        self.rt.spawn("api connection", Box::pin(self.serve(stream, seat)));
                        continue;
                    }
                    tracing::warn!("a client of the interface is refused: as many files are open as may be");
                    let refused = Self { router: refusing(), ..self.clone() }.serve(stream, seat);
                    // One that asks nothing gets no answer.
                    let _ = seam::timeout(&*self.rt, REFUSE_TIME, refused).await;
                    spare = spare_file();
                }
                Some((Err(error), _)) => {
                    tracing::warn!(%error, "connection to the interface not accepted");
                    self.rt.sleep(ACCEPT_PAUSE).await;
                    spare = spare.or_else(spare_file);
                }
                None => return,
            }
        }
    }

    fn serve<S>(&self, stream: S, seat: OwnedSemaphorePermit) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let memory = Memory::of(&self.budget);
        let routes = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(memory.clone());
            routes.call(request)
        });
        let mut stopped = self.stopped.clone();
        let rt = self.rt.clone();
        async move {
            let mut builder = http1::Builder::new();
            // One request a connection: a limit in time for each is then one for all.
            builder.keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            let stop = async {
                // The sender goes with the server: that is an end too.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            let served = async {
                tokio::select! {
                    served = connection.as_mut() => served,
                    () = stop => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            };
            match seam::timeout(&*rt, CONNECTION_TIME, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "connection to the interface ended"),
                Err(seam::Elapsed) => tracing::debug!("connection to the interface cut off: too slow"),
            }
            drop(seat);
        }
    }
}
