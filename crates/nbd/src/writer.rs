//! The sending side of a connection: all replies that are ready go out in one system call.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Duration;

use seam::Rt;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::SessionError;
use crate::link::Link;
use crate::reply::Batch;
use crate::server::Limits;
use crate::source::Watch;

/// Sends the replies of `link` for ever; each batch within its time ([`Limits::stall`], [`Limits::pressed`]). Ends only when
/// the client is gone.
///
/// It never sleeps while replies are ready, and relies on being polled after whatever adds replies in its own task.
pub(crate) async fn send_replies<W>(
    link: &Link,
    writer: &mut W,
    rt: Rt,
    limits: Limits,
) -> Result<(), SessionError>
where
    W: AsyncWrite + Unpin,
{
    let mut batch = Batch::default();
    let mut outgoing = VecDeque::new();
    // What goes into the socket at first is not taken yet: it fills the first step.
    let step = (limits.pressed / 2).min(limits.stall);
    let mut patience =
        Patience { link, watch: Watch::new(rt, step), step, limits, waited: Duration::ZERO, written: 0 };
    loop {
        let at_work = std::future::poll_fn(|_| match link.backlog() {
            (0, _) => Poll::Pending,
            (_, at_work) => Poll::Ready(at_work),
        })
        .await;
        if at_work > 0 {
            // Other requests may complete in this very turn of the scheduler: let them share the system call.
            seam::yield_now().await;
        }
        link.take_ready(&mut outgoing);
        while let Some(reply) = outgoing.pop_front() {
            if batch.add(reply) && !outgoing.is_empty() {
                continue;
            }
            send(&mut batch, writer, &mut patience).await?;
            let (requests, cost) = batch.reset();
            link.release(requests, cost);
        }
    }
}

/// How long a client may leave a batch of replies untaken.
struct Patience<'a> {
    link: &'a Link,
    /// Goes off at every step.
    watch: Watch,
    step: Duration,
    limits: Limits,
    /// Time that the batch has taken, in steps, and bytes that were written in this one.
    waited: Duration,
    written: usize,
}

impl Patience<'_> {
    /// A new batch begins.
    fn reset(&mut self) {
        self.watch.reset();
        (self.waited, self.written) = (Duration::ZERO, 0);
    }

    /// A step has gone by; whether the client is to be cut off.
    fn is_over(&mut self) -> bool {
        self.waited += self.step;
        let takes_nothing = std::mem::take(&mut self.written) == 0;
        self.watch.reset();
        self.waited >= self.limits.stall || (takes_nothing && self.link.holds_up_others())
    }
}

/// Writes a batch to its end.
async fn send<W: AsyncWrite + Unpin>(
    batch: &mut Batch,
    writer: &mut W,
    patience: &mut Patience<'_>,
) -> Result<(), SessionError> {
    patience.reset();
    while !batch.is_written() {
        let (slices, count) = batch.slices();
        let written = patience.watch.guard(writer.write_vectored(&slices[..count])).await;
        let written = match written {
            Ok(written) => written?,
            // A write that is given up has written nothing.
            Err(_step) if patience.is_over() => return Err(SessionError::Unread),
            Err(_step) => continue,
        };
        if written == 0 {
            return Err(SessionError::Io(std::io::ErrorKind::WriteZero.into()));
        }
        patience.written += written;
        batch.advance(written);
    }
    Ok(())
}
