//! The end that answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::wire::{self, Frame, FrameKind, Hello, Refusal};
use proto::{CallError, CallErrorKind, Request, Response, Transport};
use seam::Rt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use units::{Epoch, Map, MediumId, NodeId};

use crate::frames::{Arrived, read_hello, read_rest, read_start, write_frames, write_hello};
use crate::{Limits, NetError};

/// The longest that a request is worked on, whatever whoever asks says.
const DEADLINE: Duration = Duration::from_secs(60);

/// What all connections of a node share.
#[derive(Clone)]
pub struct Server {
    /// The runtime.
    pub rt: Rt,
    /// Where the requests go.
    pub media: Arc<dyn Transport>,
    /// The node, as it says in its hello.
    pub node: NodeId,
    /// Bounds of each connection.
    pub limits: Limits,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({:?})", self.limits)
    }
}

/// Requests under way on a connection.
#[derive(Default)]
struct State {
    cost: usize,
    /// Each with what takes it back when it goes.
    asked: Map<u64, oneshot::Sender<()>>,
}

struct Connection {
    server: Server,
    state: Mutex<State>,
    queue: mpsc::UnboundedSender<(Frame, Counted)>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Plain data, valid after every statement.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a request until its answer is about to be written.
struct Counted {
    connection: std::sync::Weak<Connection>,
    cost: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.upgrade() {
            lock(&connection.state).cost -= self.cost;
        }
    }
}

/// Serves a stream until the other end is done or does not keep to the protocol. What was begun goes on to its end.
///
/// # Errors
/// Why it ended, when not because the other end was done.
pub async fn serve<S>(server: Server, stream: S) -> Result<(), NetError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (rt, limits) = (server.rt.clone(), server.limits);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let own = Hello::new(limits.bytes, server.node);
    let hello = Hello::decode(&read_hello(&*rt, &mut reader, limits.handshake).await?)?;
    let hello = hello.map_err(NetError::Refused)?;
    let version = match own.common(&hello) {
        Ok(version) => version,
        Err(refusal) => {
            write_hello(&*rt, &mut writer, &refusal.encode(), limits.handshake).await?;
            return Err(NetError::Refused(refusal));
        }
    };
    let agreed = Hello { least: version, most: version, ..own };
    write_hello(&*rt, &mut writer, &agreed.encode(), limits.handshake).await?;
    let (queue, mut frames) = mpsc::unbounded_channel();
    let connection = Arc::new(Connection { server, state: Mutex::default(), queue });
    let write = async move {
        let rt = rt;
        write_frames(&*rt, &mut writer, &mut frames, limits.stall).await
    };
    let read = read_requests(connection, &mut reader);
    let (mut write, mut read) = (std::pin::pin!(write), std::pin::pin!(read));
    tokio::select! {
        biased;
        // The queue closes when the reader is done and the last answer was put into it.
        done = &mut read => {
            done?;
            write.await
        }
        done = &mut write => done,
    }
}

/// Tells the other end why it is not served, once it has said hello.
///
/// # Errors
/// When it says none, or does not take the answer.
pub async fn refuse<S>(server: &Server, mut stream: S, refusal: Refusal) -> Result<(), NetError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    // What is not read could break the connection before the answer is there.
    read_hello(&*server.rt, &mut stream, server.limits.handshake).await?;
    write_hello(&*server.rt, &mut stream, &refusal.encode(), server.limits.handshake).await
}

async fn read_requests(
    connection: Arc<Connection>,
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<(), NetError> {
    let (rt, stall) = (connection.server.rt.clone(), connection.server.limits.stall);
    while let Some(start) = read_start(&*rt, reader, stall).await? {
        let arrived = read_rest(&*rt, reader, start, stall).await?;
        connection.take(arrived)?;
    }
    Ok(())
}

impl Connection {
    fn take(self: &Arc<Self>, mut arrived: Arrived) -> Result<(), NetError> {
        let number = arrived.start.number;
        match arrived.start.kind {
            FrameKind::Request => {}
            FrameKind::Cancel => {
                lock(&self.state).asked.remove(&number);
                return Ok(());
            }
            FrameKind::Answer => return Err(NetError::Stream("the peer answers".to_owned())),
        }
        let (by, medium, request) = wire::decode_request(&arrived.start, &mut arrived.front, arrived.bulk)?;
        let cost = wire::cost(&request);
        let (back, taken_back) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            if state.cost + cost > self.server.limits.bytes as usize {
                return Err(NetError::Flood);
            }
            if state.asked.insert(number, back).is_some() {
                return Err(NetError::Stream(format!("request {number} twice")));
            }
            state.cost += cost;
        }
        let counted = Counted { connection: Arc::downgrade(self), cost };
        let limit = Duration::from_millis(u64::from(arrived.start.timeout_ms)).min(DEADLINE);
        let work = self.clone().answer(number, (by, medium), request, limit, taken_back, counted);
        self.server.rt.spawn("data request of a peer", Box::pin(work));
        Ok(())
    }

    async fn answer(
        self: Arc<Self>,
        number: u64,
        (by, medium): (Epoch, MediumId),
        request: Request,
        limit: Duration,
        taken_back: oneshot::Receiver<()>,
        counted: Counted,
    ) {
        let none = |reason: &str| {
            Err(CallError { kind: CallErrorKind::Unreachable, medium, reason: reason.to_owned() })
        };
        let work = seam::timeout(&*self.server.rt, limit, self.server.media.call_by(by, medium, request));
        let answer: Result<Response, CallError> = tokio::select! {
            biased;
            done = work => done.unwrap_or_else(|seam::Elapsed| none("the node did not answer in time")),
            // Only a cancellation drops the other end while this runs.
            _ = taken_back => none("the request was taken back"),
        };
        lock(&self.state).asked.remove(&number);
        let frame = wire::answer(number, &answer).or_else(|error| {
            let reason = error.to_string();
            wire::answer(number, &Err(CallError { kind: CallErrorKind::Invalid, medium, reason }))
        });
        if let Ok(frame) = frame {
            // Closed when the peer takes no answers any more.
            let _ = self.queue.send((frame, counted));
        }
    }
}
