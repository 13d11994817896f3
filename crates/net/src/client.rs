//! The end that asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::wire::{self, Frame, FrameKind, Hello};
use proto::{CallError, CallErrorKind, Request, Response};
use seam::Rt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use units::{Epoch, Map, MediumId, NodeId};

use crate::frames::{read_hello, read_rest, read_start, write_frames, write_hello};
use crate::{Limits, NetError};

type Answer = Result<Response, CallError>;

/// A request that has no answer yet.
struct Waiting {
    medium: MediumId,
    /// `None` where nobody waits any more.
    caller: Option<oneshot::Sender<Answer>>,
    /// What the answer gives back.
    _budget: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    waiting: Map<u64, Waiting>,
    next: u64,
    /// Why the connection is no more.
    ended: Option<NetError>,
}

struct Shared {
    rt: Rt,
    state: Mutex<State>,
    /// In units of [`BUDGET_UNIT`].
    budget: Arc<Semaphore>,
    queue: Mutex<Option<mpsc::UnboundedSender<(Frame, ())>>>,
    /// Ends the reader when it goes.
    reader: Mutex<Option<oneshot::Sender<()>>>,
    /// Whole budget, in units.
    units_max: u32,
}

/// Bytes a permit of the budget stands for.
const BUDGET_UNIT: usize = 4096;

/// A connection to a node. Clones share it; it ends when the last is dropped.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _last: Arc<Last>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.ended())
    }
}

/// Ends the connection when it goes.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.end(&NetError::Stream("it was closed".to_owned()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain data, valid after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unreachable(medium: MediumId, reason: impl std::fmt::Display) -> CallError {
    CallError { kind: CallErrorKind::Unreachable, medium, reason: reason.to_string() }
}

impl Client {
    /// Says hello on a stream and goes on when the node that answers is `wanted`, or any where that is `None`. The connection
    /// ends when `until` does.
    ///
    /// # Errors
    /// When the stream fails, the other end does not answer in time, refuses, or is another node.
    pub async fn connect<S>(
        rt: Rt,
        stream: S,
        node: NodeId,
        wanted: Option<NodeId>,
        limits: Limits,
        until: impl Future<Output = NetError> + Send + 'static,
    ) -> Result<Self, NetError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let own = Hello::new(0, node);
        write_hello(&*rt, &mut writer, &own.encode(), limits.handshake).await?;
        let hello = Hello::decode(&read_hello(&*rt, &mut reader, limits.handshake).await?)?;
        let hello = hello.map_err(NetError::Refused)?;
        own.common(&hello).map_err(NetError::Refused)?;
        if wanted.is_some_and(|wanted| wanted != hello.node) {
            return Err(NetError::OtherNode);
        }
        let units_max = hello.in_flight_bytes / BUDGET_UNIT as u32;
        let (queue, mut frames) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::new(Shared {
            rt: rt.clone(),
            state: Mutex::default(),
            budget: Arc::new(Semaphore::new(units_max as usize)),
            queue: Mutex::new(Some(queue)),
            reader: Mutex::new(Some(stop)),
            units_max,
        });
        let writing = shared.clone();
        let write = async move {
            let written = write_frames(&*writing.rt, &mut writer, &mut frames, limits.stall).await;
            if let Err(error) = written {
                writing.end(&error);
            }
        };
        let reading = shared.clone();
        let read = async move {
            loop {
                let start = read_start(&*reading.rt, &mut reader, limits.stall).await;
                let rest = match start {
                    Ok(Some(start)) => read_rest(&*reading.rt, &mut reader, start, limits.stall).await,
                    Ok(None) => Err(NetError::Stream("the node closed it".to_owned())),
                    Err(error) => Err(error),
                };
                if let Err(error) = rest.and_then(|arrived| reading.take(arrived)) {
                    return reading.end(&error);
                }
            }
        };
        rt.spawn("data protocol, written", Box::pin(write));
        let ending = shared.clone();
        let read = async move {
            // Ends with the connection, whoever ends it.
            tokio::select! {
                biased;
                () = read => {}
                _ = stopped => {}
                error = until => ending.end(&error),
            }
        };
        rt.spawn("data protocol, read", Box::pin(read));
        Ok(Self { _last: Arc::new(Last(shared.clone())), shared })
    }

    /// Why the connection is no more; `None` while it is.
    pub fn ended(&self) -> Option<NetError> {
        lock(&self.shared.state).ended.clone()
    }

    /// Asks, and waits for the answer no longer than `limit`.
    ///
    /// # Errors
    /// What the node answers; `Unreachable` when there is no answer.
    pub async fn call(&self, by: Epoch, medium: MediumId, request: Request, limit: Duration) -> Answer {
        let rt = &*self.shared.rt;
        match seam::timeout(rt, limit, self.shared.clone().ask(by, medium, request, limit)).await {
            Ok(answer) => answer,
            Err(seam::Elapsed) => Err(unreachable(medium, NetError::Slow(limit))),
        }
    }
}

/// Takes a request back when whoever asked goes.
struct Asked<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        let abandoned =
            state.waiting.get_mut(&self.number).and_then(|waiting| waiting.caller.take()).is_some();
        drop(state);
        if abandoned {
            self.shared.send(wire::cancellation(self.number));
        }
    }
}

impl Shared {
    async fn ask(self: Arc<Self>, by: Epoch, medium: MediumId, request: Request, limit: Duration) -> Answer {
        let cost = wire::cost(&request).div_ceil(BUDGET_UNIT) as u32;
        if cost > self.units_max {
            let reason = "the request and its answer are larger than the node takes";
            return Err(CallError { kind: CallErrorKind::Invalid, medium, reason: reason.to_owned() });
        }
        let begun = self.rt.now();
        let budget = self.budget.clone().acquire_many_owned(cost).await;
        let budget = budget.map_err(|_| self.gone(medium))?;
        let left = limit.saturating_sub(self.rt.now().saturating_sub(begun));
        let timeout_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let (caller, answer) = oneshot::channel();
        let number = {
            let mut state = lock(&self.state);
            if state.ended.is_some() {
                drop(state);
                return Err(self.gone(medium));
            }
            state.next += 1;
            let number = state.next;
            state.waiting.insert(number, Waiting { medium, caller: Some(caller), _budget: budget });
            number
        };
        let asked = Asked { shared: &self, number };
        let frame = wire::request(number, by, medium, timeout_ms, &request).map_err(|error| {
            lock(&self.state).waiting.remove(&number);
            CallError { kind: CallErrorKind::Invalid, medium, reason: error.to_string() }
        })?;
        self.send(frame);
        let answered = answer.await;
        drop(asked);
        answered.unwrap_or_else(|_| Err(self.gone(medium)))
    }

    fn gone(&self, medium: MediumId) -> CallError {
        let ended = lock(&self.state).ended.clone();
        unreachable(
            medium,
            ended.map_or_else(|| "the connection is gone".to_owned(), |error| error.to_string()),
        )
    }

    fn send(&self, frame: Frame) {
        if let Some(queue) = &*lock(&self.queue) {
            // Closed with the connection, whose end all that wait are told.
            let _ = queue.send((frame, ()));
        }
    }

    fn take(&self, mut arrived: crate::frames::Arrived) -> Result<(), NetError> {
        let number = arrived.start.number;
        let waiting = lock(&self.state).waiting.remove(&number);
        let none = || NetError::Stream(format!("an answer to request {number}, which nobody asked"));
        if arrived.start.kind != FrameKind::Answer {
            return Err(NetError::Stream("the node asks".to_owned()));
        }
        let waiting = waiting.ok_or_else(none)?;
        let answer = wire::decode_answer(&arrived.start, waiting.medium, &mut arrived.front, arrived.bulk);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(caller) = waiting.caller {
                    // It may have given up meanwhile.
                    let _ = caller.send(Err(unreachable(waiting.medium, &error)));
                }
                return Err(error.into());
            }
        };
        if let Some(caller) = waiting.caller {
            // It may have given up meanwhile.
            let _ = caller.send(answer);
        }
        Ok(())
    }

    fn end(&self, error: &NetError) {
        let mut state = lock(&self.state);
        if state.ended.is_none() {
            state.ended = Some(error.clone());
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.budget.close();
        lock(&self.queue).take();
        lock(&self.reader).take();
        for (_, waiting) in waiting {
            if let Some(caller) = waiting.caller {
                // It may have given up meanwhile.
                let _ = caller.send(Err(unreachable(waiting.medium, error)));
            }
        }
    }
}
