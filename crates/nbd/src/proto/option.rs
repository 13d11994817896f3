//! The hand-shake: greeting, options, replies to options.

use super::{
    Fields, HANDSHAKE_FLAGS, MAX_NAME, MAX_REQUEST, NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    PREFERRED_BLOCK, info, rep,
};

/// An option and the length of its payload, which follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptionHeader {
    pub(crate) option: u32,
    pub(crate) length: u32,
}

impl OptionHeader {
    /// Bytes on the wire.
    pub(crate) const BYTES: usize = 16;
}

/// What is wrong with the payload of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadOption {
    /// Lengths do not add up, or a name is not text.
    Malformed,
    /// The export name is longer than [`MAX_NAME`].
    NameTooLong,
}

impl BadOption {
    /// Reply type and words for the client.
    pub(crate) fn reply(self) -> (u32, &'static str) {
        match self {
            Self::Malformed => (rep::ERR_INVALID, "the option's payload is malformed"),
            Self::NameTooLong => (rep::ERR_TOO_BIG, "the export name is longer than 255 bytes"),
        }
    }
}

/// Payload of INFO and GO.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InfoRequest<'a> {
    pub(crate) name: &'a str,
    /// Kinds asked for, each 16 bits.
    wanted: &'a [u8],
}

impl<'a> InfoRequest<'a> {
    /// Layout: name length (4), name, count (2), count kinds (2 each).
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, BadOption> {
        let mut fields = Fields(payload);
        let name = export_name(fields.text().ok_or(BadOption::Malformed)?)?;
        let count = usize::from(fields.u16().ok_or(BadOption::Malformed)?);
        if fields.0.len() != count * 2 {
            return Err(BadOption::Malformed);
        }
        Ok(Self { name, wanted: fields.0 })
    }

    /// Whether the client asked for this kind.
    pub(crate) fn wants(&self, kind: u16) -> bool {
        self.wanted.chunks_exact(2).any(|pair| pair == kind.to_be_bytes())
    }
}

/// Payload of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MetaQuery<'a> {
    pub(crate) name: &'a str,
    /// No query at all: for a list, everything.
    pub(crate) empty: bool,
    queries: &'a [u8],
}

impl<'a> MetaQuery<'a> {
    /// Layout: name length (4), name, count (4), count times: query length (4), query.
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, BadOption> {
        let mut fields = Fields(payload);
        let name = export_name(fields.text().ok_or(BadOption::Malformed)?)?;
        let count = fields.u32().ok_or(BadOption::Malformed)?;
        let queries = fields.0;
        // Each query takes four bytes at least, so the payload's length bounds the loop.
        for _ in 0..count {
            fields.text().ok_or(BadOption::Malformed)?;
        }
        if !fields.0.is_empty() {
            return Err(BadOption::Malformed);
        }
        Ok(Self { name, empty: count == 0, queries })
    }

    /// Whether `query` is among the queries.
    pub(crate) fn asks(&self, query: &str) -> bool {
        self.queries().any(|one| one == query)
    }

    /// The queries that are text, in order.
    pub(crate) fn queries(&self) -> impl Iterator<Item = &'a str> {
        let mut fields = Fields(self.queries);
        std::iter::from_fn(move || fields.text()).filter_map(|one| std::str::from_utf8(one).ok())
    }
}

/// Checks an export name: short enough, and text.
fn export_name(bytes: &[u8]) -> Result<&str, BadOption> {
    if bytes.len() > MAX_NAME {
        return Err(BadOption::NameTooLong);
    }
    std::str::from_utf8(bytes).map_err(|_| BadOption::Malformed)
}

/// The client's flags; `None` when it sets one that does not exist.
pub(crate) fn decode_client_flags(bytes: &[u8]) -> Option<u32> {
    let flags = Fields(bytes).u32()?;
    (flags & !u32::from(HANDSHAKE_FLAGS) == 0).then_some(flags)
}

/// Layout: magic (8), option (4), payload length (4). `None` on another magic.
pub(crate) fn decode_option_header(bytes: &[u8]) -> Option<OptionHeader> {
    let mut fields = Fields(bytes);
    (fields.u64()? == OPTION_MAGIC).then_some(())?;
    Some(OptionHeader { option: fields.u32()?, length: fields.u32()? })
}

/// What the server says first.
pub(crate) fn encode_greeting(out: &mut Vec<u8>) {
    out.extend_from_slice(&NBD_MAGIC.to_be_bytes());
    out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&HANDSHAKE_FLAGS.to_be_bytes());
}

/// Head of a reply to an option whose payload of `length` bytes follows.
fn encode_reply_head(out: &mut Vec<u8>, option: u32, kind: u32, length: usize) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length_field(length).to_be_bytes());
}

/// A reply whose payload is text for people, or nothing.
pub(crate) fn encode_option_reply(out: &mut Vec<u8>, option: u32, kind: u32, text: &str) {
    let text = clip(text);
    encode_reply_head(out, option, kind, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// One export of a list.
pub(crate) fn encode_option_server(out: &mut Vec<u8>, option: u32, name: &str, description: &str) {
    let description = clip(description);
    encode_reply_head(out, option, rep::SERVER, 4 + name.len() + description.len());
    out.extend_from_slice(&length_field(name.len()).to_be_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(description.as_bytes());
}

/// Size and transmission flags of an export.
pub(crate) fn encode_info_export(out: &mut Vec<u8>, option: u32, size: u64, flags: u16) {
    encode_reply_head(out, option, rep::INFO, 12);
    out.extend_from_slice(&info::EXPORT.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
}

/// Name or description of an export.
pub(crate) fn encode_info_text(out: &mut Vec<u8>, option: u32, kind: u16, text: &str) {
    encode_reply_head(out, option, rep::INFO, 2 + text.len());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The description of an export, cut to what a client must accept.
pub(crate) fn encode_description(out: &mut Vec<u8>, option: u32, text: &str) {
    encode_info_text(out, option, info::DESCRIPTION, clip(text));
}

/// Smallest, preferred and largest request: any byte, a block, [`MAX_REQUEST`].
pub(crate) fn encode_info_block_size(out: &mut Vec<u8>, option: u32) {
    encode_reply_head(out, option, rep::INFO, 14);
    out.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(&PREFERRED_BLOCK.to_be_bytes());
    out.extend_from_slice(&MAX_REQUEST.to_be_bytes());
}

/// One metadata context and its number.
pub(crate) fn encode_meta_context(out: &mut Vec<u8>, option: u32, id: u32, name: &str) {
    encode_reply_head(out, option, rep::META_CONTEXT, 4 + name.len());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

/// The reply to EXPORT_NAME: size, flags and, for old clients, 124 zeros.
pub(crate) fn encode_export_name_reply(out: &mut Vec<u8>, size: u64, flags: u16, zeroes: bool) {
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    if zeroes {
        out.extend_from_slice(&[0; 124]);
    }
}

/// Cuts text to the 4096 bytes a client must accept, at a character's end.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(4096)]
}

/// A length as the wire has it.
fn length_field(length: usize) -> u32 {
    u32::try_from(length).expect("names and texts are cut far below 4 GiB")
}
