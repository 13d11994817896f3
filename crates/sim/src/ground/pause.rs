//! A request that is held up, so that something else comes at that very moment.

use tokio::sync::oneshot;

use super::transport::Kind;

/// A request that was held up, or will be: it goes on when this is dropped.
#[derive(Debug)]
pub struct Pause {
    reached: oneshot::Receiver<()>,
    _goes_on: oneshot::Sender<()>,
}

/// The other end, at whoever sends the request.
pub(super) struct Barrier {
    kind: Kind,
    reached: oneshot::Sender<()>,
    goes_on: oneshot::Receiver<()>,
}

impl Pause {
    /// A pause before the next request of a kind.
    pub(super) fn before(kind: Kind) -> (Self, Barrier) {
        let ((reached_at, reached), (go, goes_on)) = (oneshot::channel(), oneshot::channel());
        (Self { reached, _goes_on: go }, Barrier { kind, reached: reached_at, goes_on })
    }

    /// Waits until a request is held up; false when none will be any more.
    pub async fn reached(&mut self) -> bool {
        (&mut self.reached).await.is_ok()
    }
}

impl Barrier {
    pub(super) fn is_for(&self, request: &proto::Request) -> bool {
        (self.kind)(request)
    }

    /// Holds up whoever waits for this.
    pub(super) async fn wait(self) {
        let _ = self.reached.send(());
        // The other end sends nothing: it goes.
        let _ = self.goes_on.await;
    }
}
