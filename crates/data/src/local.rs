//! The transport of one process: requests go straight to the media of this node.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use proto::{CallError, CallErrorKind, Request, Response, Transport};
use seam::{BoxFuture, Rt};
use units::{Map, MediumId};

use crate::node::MediumNode;

/// No answer within this time counts as none: a medium this slow must not hold up the others.
const DEADLINE: Duration = Duration::from_secs(30);

/// Carries requests to the media of this process.
pub struct LocalTransport {
    rt: Rt,
    media: RwLock<Map<MediumId, Arc<MediumNode>>>,
}

impl std::fmt::Debug for LocalTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalTransport")
    }
}

impl LocalTransport {
    /// A transport without media.
    pub fn new(rt: Rt) -> Self {
        Self { rt, media: RwLock::default() }
    }

    /// Adds a medium, or puts a reopened one in the place of the old.
    pub fn attach(&self, node: Arc<MediumNode>) {
        self.media.write().unwrap_or_else(PoisonError::into_inner).insert(node.id(), node);
    }

    /// Takes a medium away.
    pub fn detach(&self, medium: MediumId) {
        self.media.write().unwrap_or_else(PoisonError::into_inner).remove(&medium);
    }

    /// The medium, when it is attached.
    pub fn medium(&self, medium: MediumId) -> Option<Arc<MediumNode>> {
        self.media.read().unwrap_or_else(PoisonError::into_inner).get(&medium).cloned()
    }
}

impl Transport for LocalTransport {
    fn call(&self, medium: MediumId, request: Request) -> BoxFuture<'_, Result<Response, CallError>> {
        Box::pin(async move {
            let Some(node) = self.medium(medium) else {
                let reason = "the medium is not attached".into();
                return Err(CallError { kind: CallErrorKind::Failed, medium, reason });
            };
            let changes = matches!(
                request,
                Request::SegmentOpen { .. }
                    | Request::SegmentAppend { .. }
                    | Request::SegmentFree(_)
                    | Request::FragmentWrite { .. }
                    | Request::FragmentFree(_)
            );
            let answer = if changes {
                // A change goes on to its end even when nobody waits for it any more: half-done it would leave an
                // extent or slot taken.
                let (sender, receiver) = tokio::sync::oneshot::channel();
                let work = async move { drop(sender.send(node.handle(request).await)) };
                self.rt.spawn("data request", Box::pin(work));
                seam::timeout(&*self.rt, DEADLINE, receiver).await.map(|answer| answer.ok())
            } else {
                seam::timeout(&*self.rt, DEADLINE, node.handle(request)).await.map(Some)
            };
            match answer {
                Ok(Some(answer)) => answer,
                Ok(None) | Err(seam::Elapsed) => {
                    let reason = format!("no answer within {} s", DEADLINE.as_secs());
                    Err(CallError { kind: CallErrorKind::Unreachable, medium, reason })
                }
            }
        })
    }
}
