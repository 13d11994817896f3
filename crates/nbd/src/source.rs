//! The receiving side of a connection: one buffer, few system calls, and a deadline for messages that stop half-way.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use seam::{BoxFuture, Rt};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::SessionError;
use crate::link::Link;

/// Bytes of the receive buffer of a busy connection: some sixty 4 KiB writes, or nine thousand reads, per system call.
const BUFFER: usize = 256 << 10;
/// Bytes of that of others: there may be hundreds of thousands of them.
const SMALL_BUFFER: usize = 8 << 10;
/// A connection that has received nothing for this long, or twice it, is busy no more.
const QUIET: Duration = Duration::from_secs(2);
/// Payloads from this size on are expected to be followed by others like them: the next head is then read with
/// little behind it, so that most of the payload goes straight into its own memory and is copied once less.
const LARGE_PAYLOAD: usize = 32 << 10;
/// Bytes read for a head when a large payload is expected behind it.
const SMALL_READ: usize = 4 << 10;

/// The bytes a client sends.
pub(crate) struct Source<R> {
    reader: R,
    /// Of [`SMALL_BUFFER`] bytes or of [`BUFFER`]; the difference is counted on the link.
    buffer: Box<[u8]>,
    link: Arc<Link>,
    /// Received and not yet consumed: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The last payload was large.
    large: bool,
    /// The last read filled the buffer.
    was_filled: bool,
    watch: Watch,
    /// Something was received since `quiet` began; for a large buffer.
    received: bool,
    quiet: Option<BoxFuture<'static, ()>>,
}

/// The deadline of one message. The timer is made only when there is something to wait for.
pub(crate) struct Watch {
    rt: Rt,
    limit: Duration,
    alarm: Option<BoxFuture<'static, ()>>,
}

impl Watch {
    /// A watch whose messages may take `limit` each.
    pub(crate) fn new(rt: Rt, limit: Duration) -> Self {
        Self { rt, limit, alarm: None }
    }

    /// A new message begins.
    pub(crate) fn reset(&mut self) {
        self.alarm = None;
    }

    /// Runs `work`, a part of the current message, within its deadline.
    pub(crate) async fn guard<F: Future>(&mut self, work: F) -> Result<F::Output, SessionError> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let alarm = self.alarm.get_or_insert_with(|| self.rt.sleep(self.limit));
            alarm.as_mut().poll(cx).map(|()| Err(SessionError::Stalled))
        })
        .await
    }
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// Reads from `reader`; each message may take `stall` from its first byte to its last. A large buffer is asked for on
    /// `link`, and given back with it at the latest.
    pub(crate) fn new(reader: R, rt: Rt, stall: Duration, link: Arc<Link>) -> Self {
        Self {
            reader,
            buffer: vec![0; SMALL_BUFFER].into(),
            link,
            start: 0,
            end: 0,
            large: false,
            was_filled: false,
            watch: Watch::new(rt, stall),
            received: false,
            quiet: None,
        }
    }

    /// The next message's first `count` bytes, consumed; `None` when the client left instead. Waits for the first
    /// byte as long as it takes.
    pub(crate) async fn message(&mut self, count: usize) -> Result<Option<&[u8]>, SessionError> {
        self.watch.reset();
        if self.start == self.end && self.receive(false).await? == 0 {
            return Ok(None);
        }
        self.bytes(count).await.map(Some)
    }

    /// The rest of the message has a deadline of its own: the client is not to blame for the wait before.
    pub(crate) fn admitted(&mut self) {
        self.watch.reset();
    }

    /// The message's next `count` bytes, consumed. `count` is at most [`SMALL_BUFFER`]: a protocol constant.
    pub(crate) async fn bytes(&mut self, count: usize) -> Result<&[u8], SessionError> {
        debug_assert!(count <= SMALL_BUFFER, "more than the buffer holds");
        while self.end - self.start < count {
            if self.receive(true).await? == 0 {
                return Err(SessionError::Truncated);
            }
        }
        self.start += count;
        Ok(&self.buffer[self.start - count..self.start])
    }

    /// A payload of `length` bytes in memory of its own. `length` was checked and admitted.
    pub(crate) async fn payload(&mut self, length: usize) -> Result<Bytes, SessionError> {
        let buffered = length.min(self.end - self.start);
        self.large = length >= LARGE_PAYLOAD;
        if buffered == length {
            let payload = Bytes::copy_from_slice(&self.buffer[self.start..self.start + length]);
            self.start += length;
            return Ok(payload);
        }
        let mut payload = BytesMut::with_capacity(length);
        payload.put_slice(&self.buffer[self.start..self.end]);
        self.start = self.end;
        while payload.len() < length {
            let missing = length - payload.len();
            let mut rest = (&mut payload).limit(missing);
            if self.watch.guard(self.reader.read_buf(&mut rest)).await?? == 0 {
                return Err(SessionError::Truncated);
            }
        }
        Ok(payload.freeze())
    }

    /// Consumes `length` bytes without keeping them.
    pub(crate) async fn discard(&mut self, mut length: usize) -> Result<(), SessionError> {
        loop {
            let buffered = length.min(self.end - self.start);
            self.start += buffered;
            length -= buffered;
            if length == 0 {
                return Ok(());
            }
            if self.receive(true).await? == 0 {
                return Err(SessionError::Truncated);
            }
        }
    }

    /// Receives more bytes, within the message's deadline when in the middle of one. 0: the client left.
    async fn receive(&mut self, in_message: bool) -> Result<usize, SessionError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.was_filled && !self.large {
            self.grow();
        }
        let room = self.buffer.len() - self.end;
        let wanted = if self.large { SMALL_READ.min(room) } else { room };
        let is_small = self.buffer.len() == SMALL_BUFFER;
        let read = self.reader.read(&mut self.buffer[self.end..self.end + wanted]);
        let count = if in_message {
            self.watch.guard(read).await??
        } else if is_small {
            read.await?
        } else {
            match until_quiet(read, &self.watch.rt, &mut self.quiet, &mut self.received).await {
                Some(read) => read?,
                None => {
                    self.shrink();
                    self.reader.read(&mut self.buffer).await?
                }
            }
        };
        self.received = true;
        self.was_filled = count == wanted;
        self.end += count;
        Ok(count)
    }

    /// Gets a large buffer, if there is memory for it now.
    fn grow(&mut self) {
        if self.buffer.len() < BUFFER && self.link.try_take(BUFFER - SMALL_BUFFER) {
            let mut buffer = vec![0; BUFFER];
            buffer[..self.end].copy_from_slice(&self.buffer[..self.end]);
            self.buffer = buffer.into();
        }
    }

    /// Gives a large buffer back. Nothing is in it.
    fn shrink(&mut self) {
        self.buffer = vec![0; SMALL_BUFFER].into();
        self.link.give_back(BUFFER - SMALL_BUFFER);
        (self.quiet, self.was_filled) = (None, false);
    }
}

/// Waits for `read`, or until nothing was received for [`QUIET`]: then `None`. One timer serves all reads of that time.
async fn until_quiet<F: Future>(
    read: F,
    rt: &Rt,
    quiet: &mut Option<BoxFuture<'static, ()>>,
    received: &mut bool,
) -> Option<F::Output> {
    let mut read = std::pin::pin!(read);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = read.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        loop {
            let timer = quiet.get_or_insert_with(|| rt.sleep(QUIET));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            *quiet = None;
            if !std::mem::take(received) {
                return Poll::Ready(None);
            }
        }
    })
    .await
}
