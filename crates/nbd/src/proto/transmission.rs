//! The transmission: requests, simple replies, structured reply chunks.

use super::{Fields, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk};

/// A request without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    /// The client's number for this request, repeated in the reply.
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl Request {
    /// Bytes on the wire.
    pub(crate) const BYTES: usize = 28;

    /// Layout: magic (4), flags (2), command (2), cookie (8), offset (8), length (4). `None` on another magic.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u32()? == REQUEST_MAGIC).then_some(())?;
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        })
    }
}

/// What the head of a chunk says besides its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) cookie: u64,
    /// Whether it is the reply's last.
    pub(crate) last: bool,
}

/// Layout: magic (4), error (4), cookie (8). Data of a READ follows.
pub(crate) fn encode_simple_reply(out: &mut Vec<u8>, error: u32, cookie: u64) {
    let mut head = [0; 16];
    head[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    head[4..8].copy_from_slice(&error.to_be_bytes());
    head[8..].copy_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&head);
}

/// Layout: magic (4), flags (2), type (2), cookie (8), payload length (4). The payload follows.
pub(crate) fn encode_chunk(out: &mut Vec<u8>, chunk: Chunk, kind: u16, length: u32) {
    let mut head = [0; 20];
    head[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    head[4..6].copy_from_slice(&u16::from(chunk.last).to_be_bytes());
    head[6..8].copy_from_slice(&kind.to_be_bytes());
    head[8..16].copy_from_slice(&chunk.cookie.to_be_bytes());
    head[16..].copy_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&head);
}

/// Head of an OFFSET_DATA chunk; `length` bytes of data follow.
pub(crate) fn encode_data_head(out: &mut Vec<u8>, chunk: Chunk, offset: u64, length: u32) {
    encode_chunk(out, chunk, chunk::OFFSET_DATA, 8 + length);
    out.extend_from_slice(&offset.to_be_bytes());
}

/// An OFFSET_HOLE chunk: `length` zeros at `offset`.
pub(crate) fn encode_hole(out: &mut Vec<u8>, chunk: Chunk, offset: u64, length: u32) {
    encode_chunk(out, chunk, chunk::OFFSET_HOLE, 12);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
}

/// A BLOCK_STATUS chunk of a metadata context: lengths and states.
pub(crate) fn encode_block_status(out: &mut Vec<u8>, chunk: Chunk, context: u32, extents: &[(u32, u32)]) {
    let length = u32::try_from(4 + 8 * extents.len()).expect("the number of extents is capped");
    encode_chunk(out, chunk, chunk::BLOCK_STATUS, length);
    out.extend_from_slice(&context.to_be_bytes());
    for (length, state) in extents {
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&state.to_be_bytes());
    }
}

/// An ERROR chunk with words for people.
pub(crate) fn encode_error(out: &mut Vec<u8>, chunk: Chunk, error: u32, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u8::MAX))];
    let length = u8::try_from(text.len()).expect("cut above");
    encode_chunk(out, chunk, chunk::ERROR, 6 + u32::from(length));
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&u16::from(length).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
