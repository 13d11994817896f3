//! The sending side of a connection: all replies that are ready go out in one system call.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Duration;

use seam::Rt;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::SessionError;
use crate::link::Link;
use crate::reply::Batch;
use crate::source::Watch;

/// Sends the replies of `link` for ever; each batch within `stall`. Ends only when the client is gone.
///
/// It never sleeps while replies are ready, and relies on being polled after whatever adds replies in its own task.
pub(crate) async fn send_replies<W>(
    link: &Link,
    writer: &mut W,
    rt: Rt,
    stall: Duration,
) -> Result<(), SessionError>
where
    W: AsyncWrite + Unpin,
{
    let mut batch = Batch::default();
    let mut outgoing = VecDeque::new();
    let mut watch = Watch::new(rt, stall);
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
            send(&mut batch, writer, &mut watch).await?;
            let (requests, cost) = batch.reset();
            link.release(requests, cost);
        }
    }
}

/// Writes a batch to its end.
async fn send<W: AsyncWrite + Unpin>(
    batch: &mut Batch,
    writer: &mut W,
    watch: &mut Watch,
) -> Result<(), SessionError> {
    watch.reset();
    while !batch.is_written() {
        let (slices, count) = batch.slices();
        let written = watch.guard(writer.write_vectored(&slices[..count])).await??;
        if written == 0 {
            return Err(SessionError::Io(std::io::ErrorKind::WriteZero.into()));
        }
        batch.advance(written);
    }
    Ok(())
}
