//! Frames on a stream.

use std::time::Duration;

use proto::wire::{FRAME_BYTES, Frame, FrameStart, HELLO_BYTES};
use seam::Runtime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use units::PageBuf;

use crate::NetError;

/// Frames shorter than this are gathered, so that several go out at once.
const GATHERED: usize = 64 << 10;

/// A frame that has arrived.
pub(crate) struct Arrived {
    pub(crate) start: FrameStart,
    /// Start and head.
    pub(crate) front: Vec<u8>,
    pub(crate) bulk: PageBuf,
}

async fn within<T>(
    rt: &dyn Runtime,
    limit: Duration,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, NetError> {
    match seam::timeout(rt, limit, work).await {
        Ok(done) => Ok(done?),
        Err(seam::Elapsed) => Err(NetError::Slow(limit)),
    }
}

/// Reads a hello or refusal.
pub(crate) async fn read_hello(
    rt: &dyn Runtime,
    stream: &mut (impl AsyncRead + Unpin),
    limit: Duration,
) -> Result<[u8; HELLO_BYTES], NetError> {
    let mut bytes = [0; HELLO_BYTES];
    within(rt, limit, stream.read_exact(&mut bytes)).await?;
    Ok(bytes)
}

/// Writes bytes and sees them off.
pub(crate) async fn write_hello(
    rt: &dyn Runtime,
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    limit: Duration,
) -> Result<(), NetError> {
    let work = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    within(rt, limit, work).await
}

/// Reads the start of the next frame; `None` when the other end is done. Waits for as long as none begins.
pub(crate) async fn read_start(
    rt: &dyn Runtime,
    stream: &mut (impl AsyncRead + Unpin),
    stall: Duration,
) -> Result<Option<(FrameStart, Vec<u8>)>, NetError> {
    let mut bytes = [0; FRAME_BYTES];
    let first = stream.read(&mut bytes).await?;
    if first == 0 {
        return Ok(None);
    }
    within(rt, stall, stream.read_exact(&mut bytes[first..])).await?;
    Ok(Some((FrameStart::decode(&bytes)?, bytes.to_vec())))
}

/// Reads the rest of a frame.
pub(crate) async fn read_rest(
    rt: &dyn Runtime,
    stream: &mut (impl AsyncRead + Unpin),
    (start, mut front): (FrameStart, Vec<u8>),
    stall: Duration,
) -> Result<Arrived, NetError> {
    let mut bulk = PageBuf::zeroed(start.bulk_bytes);
    front.resize(FRAME_BYTES + start.head_bytes, 0);
    let work = async {
        stream.read_exact(&mut front[FRAME_BYTES..]).await?;
        stream.read_exact(&mut bulk.as_mut()[..start.bulk_bytes]).await
    };
    within(rt, stall, work).await?;
    Ok(Arrived { start, front, bulk })
}

/// Writes frames until the queue closes. What counts a frame goes when its turn has come: before the other end has it,
/// which then counts it no more.
pub(crate) async fn write_frames<T>(
    rt: &dyn Runtime,
    stream: &mut (impl AsyncWrite + Unpin),
    queue: &mut mpsc::UnboundedReceiver<(Frame, T)>,
    stall: Duration,
) -> Result<(), NetError> {
    let mut gathered = Vec::with_capacity(GATHERED);
    while let Some(next) = queue.recv().await {
        let mut next = Some(next);
        while let Some((frame, counted)) = next {
            drop(counted);
            if gathered.len() + frame.front.len() > GATHERED {
                send(rt, stream, &gathered, stall).await?;
                gathered.clear();
            }
            gathered.extend_from_slice(&frame.front);
            for part in frame.bulk.parts() {
                if gathered.len() + part.len() <= GATHERED {
                    gathered.extend_from_slice(part);
                } else {
                    send(rt, stream, &gathered, stall).await?;
                    gathered.clear();
                    send(rt, stream, part, stall).await?;
                }
            }
            next = queue.try_recv().ok();
        }
        send(rt, stream, &gathered, stall).await?;
        gathered.clear();
        within(rt, stall, stream.flush()).await?;
    }
    within(rt, stall, stream.shutdown()).await
}

async fn send(
    rt: &dyn Runtime,
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    stall: Duration,
) -> Result<(), NetError> {
    within(rt, stall, stream.write_all(bytes)).await
}
