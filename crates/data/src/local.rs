//! The transport of one process: requests go straight to the media of this node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use proto::{CallError, CallErrorKind, Request, Response, Transport};
use seam::{BoxFuture, Rt, SiteClock};
use units::{Epoch, Map, MediumId};

use crate::node::MediumNode;

/// No answer within this time counts as none: a medium this slow must not hold up the others.
const DEADLINE: Duration = Duration::from_secs(30);

/// Carries requests to the media of this process.
pub struct LocalTransport {
    rt: Rt,
    /// What media are told of the time.
    clock: SiteClock,
    media: RwLock<Map<MediumId, Arc<MediumNode>>>,
    /// How long leases hold; zero where nobody else can take over.
    lease: Duration,
}

impl std::fmt::Debug for LocalTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalTransport")
    }
}

impl LocalTransport {
    /// A transport without media, which go by the time that they hear of ([`Transport::tell_time`]).
    pub fn new(rt: Rt) -> Self {
        let clock = SiteClock::unset(rt.clone());
        Self { clock, rt, media: RwLock::default(), lease: Duration::ZERO }
    }

    /// A transport without media, whose media grant leases that hold so long, and go by the host's clock.
    pub fn with_leases(rt: Rt, lease: Duration) -> Self {
        Self { clock: SiteClock::new(rt.clone()), rt, media: RwLock::default(), lease }
    }

    /// Adds a medium, or puts a reopened one in the place of the old.
    pub fn attach(&self, node: Arc<MediumNode>) {
        node.use_leases(self.lease, self.rt.now());
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

type Answer = Result<Response, CallError>;

/// A change, which goes on to its end even when nobody waits for it any more: half-done it would leave an extent or
/// slot taken. Dropped before its end it becomes a task; until then it costs none.
struct ToTheEnd<'a> {
    rt: &'a Rt,
    medium: MediumId,
    work: Option<BoxFuture<'static, Answer>>,
}

impl Future for ToTheEnd<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        // A fault in one request must not end the caller, which may be the journal.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Ready(answer)) => Poll::Ready(answer),
            Ok(Poll::Pending) => {
                self.work = Some(work);
                Poll::Pending
            }
            Err(_) => {
                let reason = "the request ended in a fault of the data node".to_owned();
                let (kind, medium) = (CallErrorKind::Failed, self.medium);
                Poll::Ready(Err(CallError { kind, medium, reason }))
            }
        }
    }
}

impl Drop for ToTheEnd<'_> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.rt.spawn("data request", Box::pin(async move { drop(work.await) }));
        }
    }
}

impl Transport for LocalTransport {
    fn tell_time(&self, ms: u64) {
        self.clock.raise(ms);
    }

    fn call_by(
        &self,
        by: Epoch,
        medium: MediumId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, CallError>> {
        Box::pin(async move {
            let Some(node) = self.medium(medium) else {
                let reason = "the medium is not attached".into();
                return Err(CallError { kind: CallErrorKind::Failed, medium, reason });
            };
            node.tell_time(self.clock.now_ms());
            let answer = if request.is_change() {
                let rt = self.rt.clone();
                let work = Box::pin(async move { node.serve(&*rt, by, request).await });
                let work = ToTheEnd { rt: &self.rt, medium, work: Some(work) };
                seam::timeout(&*self.rt, DEADLINE, work).await
            } else {
                seam::timeout(&*self.rt, DEADLINE, node.serve(&*self.rt, by, request)).await
            };
            answer.unwrap_or_else(|seam::Elapsed| {
                let reason = format!("no answer within {} s", DEADLINE.as_secs());
                Err(CallError { kind: CallErrorKind::Unreachable, medium, reason })
            })
        })
    }
}
