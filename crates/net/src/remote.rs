//! Media of other nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use proto::{CallError, CallErrorKind, Request, Response, Transport};
use seam::{BoxFuture, Rt};
use units::{Epoch, Map, MediumId, NodeId};

use crate::{Client, NetError};

/// No answer within this time counts as none: a node this slow must not hold up the others.
const DEADLINE: Duration = Duration::from_secs(30);
/// A connection that is not made within this time is given up.
const DIAL: Duration = Duration::from_secs(10);
/// Pause behind an attempt to connect that failed, doubled with each up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Makes connections to nodes.
pub trait Dial: Send + Sync {
    /// A new connection to `node`.
    fn dial(&self, node: NodeId) -> BoxFuture<'_, Result<Client, NetError>>;
}

#[derive(Default)]
struct Line {
    client: Option<Client>,
    /// Why the last attempt failed, how many in a row did, and until when no other is made.
    failed: Option<NetError>,
    failures: u32,
    until: Duration,
}

/// A node, and the connections to it: what others wait for, such as leases and the journal, does not wait behind what is
/// large.
#[derive(Default)]
struct Node {
    urgent: Lane,
    bulk: Lane,
}

impl Node {
    fn lane(&self, request: &Request) -> &Lane {
        match request {
            Request::FragmentWrite { .. } | Request::FragmentRead { .. } | Request::SegmentRead { .. } => {
                &self.bulk
            }
            _ => &self.urgent,
        }
    }
}

/// One connection to a node, when there is one.
#[derive(Default)]
struct Lane {
    line: Mutex<Line>,
    /// One connects, the others wait for it.
    dialing: tokio::sync::Mutex<()>,
}

/// Carries requests to the media of other nodes, over a connection to each that is made anew when it breaks. A node that
/// cannot be reached is asked again behind a pause; until then its media are unreachable at once.
pub struct Remote {
    rt: Rt,
    dial: Arc<dyn Dial>,
    places: RwLock<Places>,
}

#[derive(Default)]
struct Places {
    media: Map<MediumId, NodeId>,
    nodes: Map<NodeId, Arc<Node>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    // Plain data, valid after every statement.
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// The connection, or why there will be none for now; `None` where one may be made.
    fn now(&mut self, now: Duration) -> Option<Result<Client, NetError>> {
        if let Some(client) = self.client.take_if(|client| client.ended().is_none()) {
            self.client = Some(client.clone());
            return Some(Ok(client));
        }
        self.client = None;
        self.failed.clone().filter(|_| now < self.until).map(Err)
    }

    fn note(&mut self, made: &Result<Client, NetError>, now: Duration) {
        match made {
            Ok(client) => *self = Self { client: Some(client.clone()), ..Self::default() },
            Err(error) => {
                let pause = PAUSE.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
                (self.failures, self.until) = (self.failures + 1, now + pause);
                self.failed = Some(error.clone());
            }
        }
    }
}

impl Remote {
    /// A transport without media.
    pub fn new(rt: Rt, dial: Arc<dyn Dial>) -> Self {
        Self { rt, dial, places: RwLock::default() }
    }

    /// Has requests for `medium` go to `node`, which may be another than before.
    pub fn place(&self, medium: MediumId, node: NodeId) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.media.insert(medium, node);
        places.nodes.entry(node).or_default();
    }

    /// `medium` is on no node any more.
    pub fn remove(&self, medium: MediumId) {
        self.places.write().unwrap_or_else(PoisonError::into_inner).media.remove(&medium);
    }

    /// Whether it is known which node has `medium`.
    pub fn has(&self, medium: MediumId) -> bool {
        self.places.read().unwrap_or_else(PoisonError::into_inner).media.contains_key(&medium)
    }

    /// Ends the connection to a node that is none of the site's any more.
    pub fn forget(&self, node: NodeId) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.media.retain(|_, on| *on != node);
        places.nodes.remove(&node);
    }

    /// Asks a node itself on behalf of the incarnation `by`, and waits no longer than `limit`.
    ///
    /// # Errors
    /// What the node answers; `Unreachable` when there is no answer.
    pub async fn ask_node(
        &self,
        by: Epoch,
        id: NodeId,
        medium: MediumId,
        request: Request,
        limit: Duration,
    ) -> Result<Response, CallError> {
        let node = {
            let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
            places.nodes.entry(id).or_default().clone()
        };
        let unreachable = |error: NetError| CallError {
            kind: CallErrorKind::Unreachable,
            medium,
            reason: error.to_string(),
        };
        let ask = async {
            let client = self.client(id, node.lane(&request)).await.map_err(unreachable)?;
            client.call(by, medium, request, limit).await
        };
        let answer = seam::timeout(&*self.rt, limit, ask).await;
        answer.unwrap_or_else(|seam::Elapsed| Err(unreachable(NetError::Slow(limit))))
    }

    async fn client(&self, id: NodeId, node: &Lane) -> Result<Client, NetError> {
        if let Some(known) = lock(&node.line).now(self.rt.now()) {
            return known;
        }
        let _turn = node.dialing.lock().await;
        if let Some(known) = lock(&node.line).now(self.rt.now()) {
            return known;
        }
        let made = seam::timeout(&*self.rt, DIAL, self.dial.dial(id)).await;
        let made = made.unwrap_or(Err(NetError::Slow(DIAL)));
        if let Err(error) = &made {
            tracing::debug!(%error, "a node is not reached");
        }
        lock(&node.line).note(&made, self.rt.now());
        made
    }

    async fn ask(&self, by: Epoch, medium: MediumId, request: Request) -> Result<Response, CallError> {
        let place = {
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            let on = places.media.get(&medium).copied();
            on.and_then(|on| Some((on, places.nodes.get(&on)?.clone())))
        };
        let Some((id, node)) = place else {
            let reason = "it is on no node that is known".to_owned();
            return Err(CallError { kind: CallErrorKind::Unreachable, medium, reason });
        };
        let client = self.client(id, node.lane(&request)).await.map_err(|error| {
            let reason = error.to_string();
            CallError { kind: CallErrorKind::Unreachable, medium, reason }
        })?;
        client.call(by, medium, request, DEADLINE).await
    }
}

impl Transport for Remote {
    fn call_by(
        &self,
        by: Epoch,
        medium: MediumId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, CallError>> {
        Box::pin(async move {
            let answer = seam::timeout(&*self.rt, DEADLINE, self.ask(by, medium, request)).await;
            answer.unwrap_or_else(|seam::Elapsed| {
                let reason = NetError::Slow(DEADLINE).to_string();
                Err(CallError { kind: CallErrorKind::Unreachable, medium, reason })
            })
        })
    }
}
