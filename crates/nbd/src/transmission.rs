//! The transmission of one connection: requests in, replies out, until either side ends it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use seam::Rt;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::SessionError;
use crate::device::{Device, Exports};
use crate::handshake;
use crate::link::{Link, MustAnswer, Phase};
use crate::proto::{Request, cmd};
use crate::reply::{Answer, Reply};
use crate::request::{self, Contexts, Facts, Plan, Refusal, Terms};
use crate::server::Limits;
use crate::source::Source;
use crate::writer;

/// The longest payload of a refused WRITE that is read and thrown away; a longer one closes the connection.
const MAX_DISCARD: usize = 64 << 20;
/// Memory of a request besides its data, bytes: its task, its reply's head, its place in lists.
const REQUEST_BYTES: usize = 512;
/// Requests answered at once before replies are sent and other tasks get their turn.
const BURST: usize = 32;

/// Serves one client from greeting to end. An error is the client's, or its socket's.
pub(crate) async fn serve<R, W>(
    rt: Rt,
    exports: &dyn Exports,
    link: Arc<Link>,
    limits: Limits,
    reader: R,
    mut writer: W,
) -> Result<(), SessionError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut source = Source::new(reader, rt.clone(), limits.stall, link.clone());
    let negotiation = handshake::negotiate(&mut source, &mut writer, exports, &link);
    let within = if link.refusal().is_some() { limits.answer } else { limits.handshake };
    let opened = link.while_open(seam::timeout(&*rt, within, negotiation)).await;
    let session = match opened {
        None => return Ok(()),
        Some(Err(seam::Elapsed)) => return Err(SessionError::Stalled),
        Some(Ok(session)) => session?,
    };
    let Some((device, terms, contexts)) = session else { return Ok(()) };
    let requests = Requests { rt: rt.clone(), device, contexts, terms, link: link.clone() };
    let receive = std::pin::pin!(Some(requests.receive(&mut source)));
    let send = std::pin::pin!(writer::send_replies(&link, &mut writer, rt, limits));
    drive(&link, receive, send).await
}

/// Runs both sides in one task: what the receiving side answered is sent before the task sleeps. Ends when nothing
/// more is received and everything is answered.
async fn drive<F: Future<Output = Result<(), SessionError>>>(
    link: &Link,
    mut receive: Pin<&mut Option<F>>,
    mut send: Pin<&mut impl Future<Output = Result<(), SessionError>>>,
) -> Result<(), SessionError> {
    let mut received = Ok(());
    std::future::poll_fn(|cx| {
        match link.enter(cx) {
            Phase::Cut => return Poll::Ready(Ok(())),
            // Drops a request whose payload is still coming.
            Phase::Draining => receive.set(None),
            Phase::Open => {}
        }
        if let Some(running) = receive.as_mut().as_pin_mut()
            && let Poll::Ready(result) = running.poll(cx)
        {
            received = result;
            receive.set(None);
        }
        if let Poll::Ready(result) = send.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if receive.is_none() && link.is_idle() {
            return Poll::Ready(std::mem::replace(&mut received, Ok(())));
        }
        Poll::Pending
    })
    .await
}

/// The receiving side.
struct Requests {
    rt: Rt,
    device: Arc<dyn Device>,
    contexts: Contexts,
    terms: Terms,
    link: Arc<Link>,
}

impl Requests {
    /// Takes requests until the client leaves.
    async fn receive<R: AsyncRead + Unpin>(&self, source: &mut Source<R>) -> Result<(), SessionError> {
        let mut burst = 0;
        while let Some(head) = source.message(Request::BYTES).await? {
            let request = Request::decode(head).ok_or(SessionError::Protocol("not a request"))?;
            if request.command == cmd::DISC {
                break;
            }
            let checked = request::check(&request, Facts::of(&*self.device), self.terms);
            let cost = checked.map_or(0, Plan::cost) + REQUEST_BYTES;
            let admitted = self.link.admit(cost).await;
            source.admitted();
            let answer = self.take(source, &request, checked, cost).await?;
            admitted.hand_over();
            if let Some(answer) = answer {
                self.link.push_local(Reply { cookie: request.cookie, cost, answer });
                burst += 1;
            }
            if burst == BURST {
                burst = 0;
                seam::yield_now().await;
            }
        }
        Ok(())
    }

    /// Reads the payload and runs an admitted request. Gives the answer when it is there at once.
    async fn take<R: AsyncRead + Unpin>(
        &self,
        source: &mut Source<R>,
        request: &Request,
        checked: Result<Plan, Refusal>,
        cost: usize,
    ) -> Result<Option<Answer>, SessionError> {
        let carried = if request.command == cmd::WRITE { request.length as usize } else { 0 };
        match checked {
            Ok(plan) => {
                let payload = if carried > 0 { source.payload(carried).await? } else { Bytes::new() };
                Ok(self.start(request.cookie, plan, payload, cost).await)
            }
            Err(_) if carried > MAX_DISCARD => Err(SessionError::Protocol("a WRITE far too long")),
            Err(refusal) => {
                source.discard(carried).await?;
                Ok(Some(request::refused(refusal, self.terms)))
            }
        }
    }

    /// Starts a request. What does not complete at once goes on in a task of its own.
    async fn start(&self, cookie: u64, plan: Plan, payload: Bytes, cost: usize) -> Option<Answer> {
        let contexts = match plan {
            Plan::Status { .. } => self.contexts.clone(),
            _ => None,
        };
        let mut work = Box::pin(request::run(self.device.clone(), contexts, plan, payload, self.terms));
        let first = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        match first {
            Poll::Ready(Some(answer)) => return Some(answer),
            Poll::Ready(None) => {
                self.link.advance(Phase::Cut);
                return None;
            }
            Poll::Pending => {}
        }
        let link = self.link.clone();
        let task = async move {
            let owed = MustAnswer::new(&link);
            if let Some(answer) = work.await {
                owed.answer(Reply { cookie, cost, answer });
            }
        };
        self.rt.spawn("nbd request", Box::pin(task));
        None
    }
}
