//! The transport of a compute node: every message to a data node crosses links that are theirs alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data::LocalTransport;
use proto::{CallError, CallErrorKind, Request, Response, Transport};
use seam::{BoxFuture, Runtime};
use tokio::sync::oneshot;
use units::{Epoch, MediumId};

use super::lock;
use crate::executor::{Control, SimRuntime};
use crate::net::{Fate, Link, LinkPolicy};

/// No answer within this time counts as none, as in `net::Remote`.
const DEADLINE: Duration = Duration::from_secs(30);

/// The two directions between a compute node and a data node.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) there: Link,
    pub(super) back: Link,
}

/// By number of the compute node and of the data node; they outlive processes.
pub(super) type Wires = Arc<Mutex<BTreeMap<(usize, usize), Wire>>>;

/// The data nodes that run: the process, and its media.
pub(super) type Servers = Arc<Mutex<BTreeMap<usize, (Arc<SimRuntime>, Arc<LocalTransport>)>>>;

pub(super) fn wires(control: &Control, computes: usize, nodes: usize) -> Wires {
    let link = |way: &str| Link::new(control, way, LinkPolicy::default());
    let pairs = (0..computes).flat_map(|compute| (0..nodes).map(move |node| (compute, node)));
    let wires = pairs.map(|pair| (pair, Wire { there: link("there"), back: link("back") }));
    Arc::new(Mutex::new(wires.collect()))
}

type Answer = Result<Response, CallError>;

/// A request, and who asks.
#[derive(Clone)]
struct Ask {
    by: Epoch,
    medium: MediumId,
    request: Request,
}

/// Carries requests of one compute node, and loses, doubles and delays them by the links' policies.
#[derive(Clone)]
pub(super) struct ClusterTransport {
    rt: Arc<SimRuntime>,
    number: usize,
    wires: Wires,
    servers: Servers,
    nodes: Arc<BTreeMap<MediumId, usize>>,
}

impl ClusterTransport {
    pub(super) fn new(
        rt: Arc<SimRuntime>,
        number: usize,
        wires: Wires,
        servers: Servers,
        nodes: BTreeMap<MediumId, usize>,
    ) -> Self {
        Self { rt, number, wires, servers, nodes: Arc::new(nodes) }
    }

    fn decide(&self, node: usize, there: bool) -> Fate {
        let now = self.rt.now();
        match lock(&self.wires).get_mut(&(self.number, node)) {
            Some(wire) if there => wire.there.decide(now),
            Some(wire) => wire.back.decide(now),
            None => Fate::Drop,
        }
    }

    /// One arrival of a request after a time, and its answer on the way back. The message is on its way whatever becomes
    /// of who sent it; the node that runs when it arrives serves it, and its end ends that.
    fn arrive(&self, after: Duration, node: usize, ask: Ask, answers: Option<oneshot::Sender<Answer>>) {
        let (this, world) = (self.clone(), self.rt.control().world());
        let work = async move {
            this.rt.control().world().sleep(after).await;
            let Some((rt, media)) = lock(&this.servers).get(&node).cloned() else { return };
            let work = async move {
                let answer = media.call_by(ask.by, ask.medium, ask.request).await;
                let Some(answers) = answers else { return };
                let world = this.rt.control().world();
                if let Fate::Deliver(after) | Fate::Twice(after, _) = this.decide(node, false) {
                    let deliver = async move {
                        this.rt.control().world().sleep(after).await;
                        // The caller may be gone.
                        let _ = answers.send(answer);
                    };
                    world.spawn("answer", Box::pin(deliver));
                }
            };
            rt.spawn("request", Box::pin(work));
        };
        world.spawn("message", Box::pin(work));
    }
}

impl Transport for ClusterTransport {
    fn call_by(&self, by: Epoch, medium: MediumId, request: Request) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let Some(node) = self.nodes.get(&medium).copied() else { return Err(no_answer(medium)) };
            let ask = Ask { by, medium, request };
            let (sender, answer) = oneshot::channel();
            match self.decide(node, true) {
                Fate::Deliver(after) => self.arrive(after, node, ask, Some(sender)),
                Fate::Twice(first, second) => {
                    self.arrive(first, node, ask.clone(), Some(sender));
                    self.arrive(second, node, ask, None);
                }
                // Kept until the deadline: nobody says that the message is lost.
                Fate::Drop => {
                    self.rt.sleep(DEADLINE).await;
                    drop(sender);
                }
            }
            match seam::timeout(&*self.rt, DEADLINE, answer).await {
                Ok(Ok(answer)) => answer,
                // A connection breaks when the node at its other end dies.
                Ok(Err(_)) | Err(seam::Elapsed) => Err(no_answer(medium)),
            }
        })
    }
}

fn no_answer(medium: MediumId) -> CallError {
    CallError { kind: CallErrorKind::Unreachable, medium, reason: "no answer".to_owned() }
}
