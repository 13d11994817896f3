//! Replies, and batches of them as bytes for one vectored write.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use crate::proto::{self, Chunk};

/// A batch takes no further reply once it holds this many bytes: enough to make the system call cheap.
const BATCH_BYTES: usize = 1 << 20;
/// Slices handed to one system call: enough for thirty replies with data, and small enough for the stack.
const SLICES: usize = 64;
/// Heads kept for the next batch; a batch with long block status lists may need more, which is then given back.
const HEADS_KEPT: usize = 64 << 10;

/// The answer to one request.
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    /// Bytes the request was admitted with.
    pub(crate) cost: usize,
    pub(crate) answer: Answer,
}

/// What the client gets.
pub(crate) enum Answer {
    /// Done, nothing to say.
    Done,
    /// Failed, as a bare number.
    Failed(u32),
    /// Failed, with words: for clients that negotiated structured replies.
    Explained(u32, String),
    /// Data of a READ, as a simple reply.
    Data(Bytes),
    /// Data of a READ at `offset`, in chunks: `first`, then `rest`.
    Chunks { offset: u64, first: Piece, rest: Vec<Piece> },
    /// Extents, for each metadata context with its number: lengths and states.
    Status(Vec<(u32, Vec<(u32, u32)>)>),
}

/// A stretch of what a READ found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    /// This many zeros.
    Zeros(u32),
}

enum Segment {
    Heads(Range<usize>),
    Data(Bytes),
}

impl Segment {
    fn bytes<'a>(&'a self, heads: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Heads(range) => &heads[range.clone()],
            Self::Data(data) => data,
        }
    }
}

/// Replies as bytes. Heads lie in one buffer; data is not copied.
#[derive(Default)]
pub(crate) struct Batch {
    heads: Vec<u8>,
    segments: Vec<Segment>,
    /// Bytes in all segments.
    length: usize,
    /// Where the unwritten part begins.
    segment: usize,
    within: usize,
    /// What its requests were admitted with.
    requests: usize,
    cost: usize,
}

impl Batch {
    /// Adds a reply. `false`: the batch is full enough.
    pub(crate) fn add(&mut self, reply: Reply) -> bool {
        let start = self.heads.len();
        let cookie = reply.cookie;
        self.requests += 1;
        self.cost += reply.cost;
        match reply.answer {
            Answer::Done => proto::encode_simple_reply(&mut self.heads, 0, cookie),
            Answer::Failed(error) => proto::encode_simple_reply(&mut self.heads, error, cookie),
            Answer::Explained(error, text) => {
                proto::encode_error(&mut self.heads, Chunk { cookie, last: true }, error, &text);
            }
            Answer::Status(contexts) => {
                let count = contexts.len();
                for (number, (context, extents)) in (1..).zip(contexts) {
                    let chunk = Chunk { cookie, last: number == count };
                    proto::encode_block_status(&mut self.heads, chunk, context, &extents);
                }
            }
            Answer::Data(data) => {
                proto::encode_simple_reply(&mut self.heads, 0, cookie);
                self.add_heads(start);
                self.add_data(data);
                return self.length < BATCH_BYTES;
            }
            Answer::Chunks { mut offset, first, rest } => {
                let more = !rest.is_empty();
                self.add_piece(Chunk { cookie, last: !more }, &mut offset, first);
                let last = rest.len();
                for (number, piece) in (1..).zip(rest) {
                    self.add_piece(Chunk { cookie, last: number == last }, &mut offset, piece);
                }
                return self.length < BATCH_BYTES;
            }
        }
        self.add_heads(start);
        self.length < BATCH_BYTES
    }

    fn add_piece(&mut self, chunk: Chunk, offset: &mut u64, piece: Piece) {
        let start = self.heads.len();
        match piece {
            Piece::Data(data) => {
                let length = u32::try_from(data.len()).expect("a READ is at most 32 MiB");
                proto::encode_data_head(&mut self.heads, chunk, *offset, length);
                *offset += u64::from(length);
                self.add_heads(start);
                self.add_data(data);
            }
            Piece::Zeros(length) => {
                proto::encode_hole(&mut self.heads, chunk, *offset, length);
                *offset += u64::from(length);
                self.add_heads(start);
            }
        }
    }

    /// Takes in what was appended to the heads since `start`, joined to the segment before where it can be.
    fn add_heads(&mut self, start: usize) {
        let end = self.heads.len();
        self.length += end - start;
        match self.segments.last_mut() {
            Some(Segment::Heads(range)) => range.end = end,
            _ => self.segments.push(Segment::Heads(start..end)),
        }
    }

    fn add_data(&mut self, data: Bytes) {
        self.length += data.len();
        self.segments.push(Segment::Data(data));
    }

    /// Whether all of it has been written.
    pub(crate) fn is_written(&self) -> bool {
        self.segment == self.segments.len()
    }

    /// The unwritten part, up to [`SLICES`] slices of it; gives them with their number.
    pub(crate) fn slices(&self) -> ([IoSlice<'_>; SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut skip = self.within;
        let rest = &self.segments[self.segment..];
        for (slice, segment) in slices.iter_mut().zip(rest) {
            *slice = IoSlice::new(&segment.bytes(&self.heads)[skip..]);
            skip = 0;
        }
        (slices, rest.len().min(SLICES))
    }

    /// `count` bytes more have been written. Data that is out is let go.
    pub(crate) fn advance(&mut self, count: usize) {
        let mut count = count + self.within;
        while let Some(segment) = self.segments.get_mut(self.segment) {
            let length = segment.bytes(&self.heads).len();
            if count < length {
                break;
            }
            count -= length;
            *segment = Segment::Heads(0..0);
            self.segment += 1;
        }
        self.within = count;
    }

    /// Empties it for the next replies. Gives the requests it answered and what they were admitted with.
    pub(crate) fn reset(&mut self) -> (usize, usize) {
        let answered = (self.requests, self.cost);
        let mut heads = std::mem::take(&mut self.heads);
        let mut segments = std::mem::take(&mut self.segments);
        heads.clear();
        heads.shrink_to(HEADS_KEPT);
        segments.clear();
        segments.shrink_to(SLICES);
        *self = Self { heads, segments, ..Self::default() };
        answered
    }
}
