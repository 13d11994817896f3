//! The wire: numbers, encoders and decoders of every message. Big-endian, no padding.
//!
//! Decoders are total functions over byte slices: any input gives a value or an error. Encoders append to a buffer.
//! Names and numbers are those of the NBD protocol document,
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.

mod option;
mod transmission;

#[cfg(test)]
mod tests;

pub(crate) use option::{
    InfoRequest, MetaQuery, OptionHeader, decode_client_flags, decode_option_header, encode_description,
    encode_export_name_reply, encode_greeting, encode_info_block_size, encode_info_export, encode_info_text,
    encode_meta_context, encode_option_reply, encode_option_server,
};
pub(crate) use transmission::{
    Chunk, Request, encode_block_status, encode_data_head, encode_error, encode_hole, encode_simple_reply,
};

/// The longest export name, in bytes. The protocol allows 4096; nothing here needs more than a file name has.
pub(crate) const MAX_NAME: usize = 255;
/// The largest READ and WRITE, in bytes, told to clients as the maximum block size. What other servers take.
pub(crate) const MAX_REQUEST: u32 = 32 << 20;
/// The block size that suits the device best, in bytes.
pub(crate) const PREFERRED_BLOCK: u32 = 4096;

/// First word of the greeting.
pub(crate) const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of the greeting and first of every option.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of every reply to an option.
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of every request.
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub(crate) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a structured reply chunk.
pub(crate) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Hand-shake flags of the server: fixed newstyle, no zeroes.
pub(crate) const HANDSHAKE_FLAGS: u16 = 0b11;
/// Client flag: replies to options are understood.
pub(crate) const CLIENT_FIXED_NEWSTYLE: u32 = 1;
/// Client flag: no 124 zero bytes after EXPORT_NAME.
pub(crate) const CLIENT_NO_ZEROES: u32 = 2;

/// Options.
pub(crate) mod opt {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const STARTTLS: u32 = 5;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
}

/// Types of replies to options.
pub(crate) mod rep {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const META_CONTEXT: u32 = 4;
    const ERROR: u32 = 1 << 31;
    pub(crate) const ERR_UNSUP: u32 = ERROR | 1;
    pub(crate) const ERR_POLICY: u32 = ERROR | 2;
    pub(crate) const ERR_INVALID: u32 = ERROR | 3;
    pub(crate) const ERR_PLATFORM: u32 = ERROR | 4;
    pub(crate) const ERR_TLS_REQD: u32 = ERROR | 5;
    pub(crate) const ERR_UNKNOWN: u32 = ERROR | 6;
    pub(crate) const ERR_SHUTDOWN: u32 = ERROR | 7;
    pub(crate) const ERR_TOO_BIG: u32 = ERROR | 9;
}

/// Kinds of information about an export.
pub(crate) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DESCRIPTION: u16 = 2;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags of an export.
pub(crate) mod export_flag {
    pub(crate) const HAS_FLAGS: u16 = 1;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(crate) const SEND_CACHE: u16 = 1 << 10;
    pub(crate) const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Commands.
pub(crate) mod cmd {
    pub(crate) const READ: u16 = 0;
    pub(crate) const WRITE: u16 = 1;
    pub(crate) const DISC: u16 = 2;
    pub(crate) const FLUSH: u16 = 3;
    pub(crate) const TRIM: u16 = 4;
    pub(crate) const CACHE: u16 = 5;
    pub(crate) const WRITE_ZEROES: u16 = 6;
    pub(crate) const BLOCK_STATUS: u16 = 7;
}

/// Flags of a command.
pub(crate) mod cmd_flag {
    pub(crate) const FUA: u16 = 1;
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    pub(crate) const DF: u16 = 1 << 2;
    pub(crate) const REQ_ONE: u16 = 1 << 3;
    pub(crate) const FAST_ZERO: u16 = 1 << 4;
}

/// Types of structured reply chunks.
pub(crate) mod chunk {
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const OFFSET_HOLE: u16 = 2;
    pub(crate) const BLOCK_STATUS: u16 = 5;
    pub(crate) const ERROR: u16 = (1 << 15) | 1;
}

/// Error numbers of replies.
pub(crate) mod errno {
    pub(crate) const EPERM: u32 = 1;
    pub(crate) const EIO: u32 = 5;
    pub(crate) const ENOMEM: u32 = 12;
    pub(crate) const EINVAL: u32 = 22;
    pub(crate) const ENOSPC: u32 = 28;
    pub(crate) const ESHUTDOWN: u32 = 108;
}

/// The metadata context that every export has.
pub(crate) const BASE_ALLOCATION: &str = "base:allocation";
/// Its namespace: as a query for a list, everything in it.
pub(crate) const BASE_NAMESPACE: &str = "base:";
/// The number clients know `base:allocation` by in block status replies.
pub(crate) const ALLOCATION_CONTEXT: u32 = 1;
/// The number of the first of the others.
pub(crate) const FIRST_CONTEXT: u32 = 2;
/// Block status flag: nothing is stored.
pub(crate) const STATE_HOLE: u32 = 1;
/// Block status flag: reads as zeros.
pub(crate) const STATE_ZERO: u32 = 2;

/// Reads fields off the front of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string behind its 32-bit length.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }
}
