//! A client that says exactly what it is told to.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::SOON;

pub(super) const READ: u16 = 0;
pub(super) const WRITE: u16 = 1;
pub(super) const DISC: u16 = 2;
pub(super) const FLUSH: u16 = 3;
pub(super) const TRIM: u16 = 4;
pub(super) const CACHE: u16 = 5;
pub(super) const WRITE_ZEROES: u16 = 6;
pub(super) const BLOCK_STATUS: u16 = 7;

pub(super) const FUA: u16 = 1;
pub(super) const NO_HOLE: u16 = 2;
pub(super) const DF: u16 = 4;
pub(super) const REQ_ONE: u16 = 8;
pub(super) const FAST_ZERO: u16 = 16;

pub(super) const EPERM: u32 = 1;
pub(super) const EIO: u32 = 5;
pub(super) const ENOMEM: u32 = 12;
pub(super) const EINVAL: u32 = 22;
pub(super) const ENOSPC: u32 = 28;
pub(super) const ESHUTDOWN: u32 = 108;

/// Errors of options are numbered from here.
pub(super) const ERR: u32 = 1 << 31;

pub(super) struct Client {
    pub(super) stream: UnixStream,
    cookie: u64,
}

/// A reply put together from its chunks.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reply {
    pub(super) cookie: u64,
    pub(super) error: u32,
    pub(super) text: String,
    /// Chunks of a READ: offset, length, whether a hole.
    pub(super) chunks: Vec<(u64, usize, bool)>,
    pub(super) data: Vec<u8>,
    /// Extents: length and flags.
    pub(super) extents: Vec<(u32, u32)>,
}

impl Client {
    pub(super) fn connect(path: &Path) -> Self {
        Self::of(UnixStream::connect(path).unwrap())
    }

    pub(super) fn of(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self { stream, cookie: 0x1234_5678_0000_0000 }
    }

    /// Reads the greeting and sends the client's flags.
    pub(super) fn greet(&mut self, flags: u32) {
        assert_eq!(self.receive(18), b"NBDMAGICIHAVEOPT\x00\x03");
        self.send(&flags.to_be_bytes());
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(super) fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.receive(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.receive(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.receive(8).try_into().unwrap())
    }

    /// Whether the server hung up. Anything it sent before is an error.
    pub(super) fn assert_closed(&mut self) {
        match self.stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            other => panic!("the connection is not closed: {other:?}"),
        }
    }

    /// Sends an option whose header says `length`.
    pub(super) fn option_of(&mut self, option: u32, length: u32, payload: &[u8]) {
        let mut message = b"IHAVEOPT".to_vec();
        message.extend_from_slice(&option.to_be_bytes());
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(payload);
        self.send(&message);
    }

    pub(super) fn option(&mut self, option: u32, payload: &[u8]) {
        self.option_of(option, payload.len() as u32, payload);
    }

    /// One reply to `option`: type and payload.
    pub(super) fn option_reply(&mut self, option: u32) -> (u32, Vec<u8>) {
        assert_eq!(self.u64(), 0x0003_e889_0455_65a9);
        assert_eq!(self.u32(), option);
        let kind = self.u32();
        let length = self.u32();
        (kind, self.receive(length as usize))
    }

    /// All replies to an option, up to ACK or an error.
    pub(super) fn haggle(&mut self, option: u32, payload: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.option(option, payload);
        let mut replies = Vec::new();
        loop {
            let (kind, payload) = self.option_reply(option);
            let last = kind == 1 || kind >= ERR;
            replies.push((kind, payload));
            if last {
                return replies;
            }
        }
    }

    /// The type of the last reply to an option.
    pub(super) fn outcome(&mut self, option: u32, payload: &[u8]) -> u32 {
        self.haggle(option, payload).pop().unwrap().0
    }

    pub(super) fn structured(&mut self) {
        assert_eq!(self.outcome(8, b""), 1);
    }

    pub(super) fn select_allocation(&mut self, export: &str) {
        let replies = self.haggle(10, &meta(export, &["base:allocation"]));
        assert_eq!(replies[0], (4, b"\0\0\0\x01base:allocation".to_vec()));
        assert_eq!(replies[1].0, 1);
    }

    /// Enters transmission. Gives size and flags.
    pub(super) fn go(&mut self, export: &str) -> (u64, u16) {
        let replies = self.haggle(7, &info(export, &[]));
        assert_eq!(replies.last().unwrap().0, 1);
        export_info(&replies[0].1)
    }

    /// Sends a request and gives its cookie.
    pub(super) fn request(&mut self, command: u16, flags: u16, offset: u64, length: u32) -> u64 {
        self.cookie += 1;
        let message = request(command, flags, self.cookie, offset, length);
        self.send(&message);
        self.cookie
    }

    /// Reads a reply of either kind; `length` bytes of data follow a simple one without error.
    pub(super) fn reply(&mut self, length: usize) -> Reply {
        let mut reply = Reply::default();
        loop {
            match self.u32() {
                0x6744_6698 => {
                    (reply.error, reply.cookie) = (self.u32(), self.u64());
                    if reply.error == 0 {
                        reply.data = self.receive(length);
                    }
                    return reply;
                }
                0x668e_33ef => {
                    if self.chunk(&mut reply) {
                        return reply;
                    }
                }
                other => panic!("no reply begins with {other:#x}"),
            }
        }
    }

    /// Reads a chunk behind its magic; whether it is the last.
    fn chunk(&mut self, reply: &mut Reply) -> bool {
        let (flags, kind, cookie, length) = (self.u16(), self.u16(), self.u64(), self.u32() as usize);
        assert!(reply.cookie == 0 || reply.cookie == cookie, "chunks of two replies are mixed");
        reply.cookie = cookie;
        match kind {
            1 => {
                reply.chunks.push((self.u64(), length - 8, false));
                let data = self.receive(length - 8);
                reply.data.extend_from_slice(&data);
            }
            2 => {
                assert_eq!(length, 12);
                let offset = self.u64();
                let hole = self.u32() as usize;
                reply.chunks.push((offset, hole, true));
                reply.data.resize(reply.data.len() + hole, 0);
            }
            5 => {
                assert_eq!(self.u32(), 1, "context number");
                reply.extents = (0..(length - 4) / 8).map(|_| (self.u32(), self.u32())).collect();
            }
            0x8001 => {
                reply.error = self.u32();
                let text = usize::from(self.u16());
                assert_eq!(length, 6 + text);
                reply.text = String::from_utf8(self.receive(text)).unwrap();
            }
            other => panic!("unknown chunk type {other}"),
        }
        assert!(flags <= 1);
        flags == 1
    }

    /// Sends a request without payload and reads its reply.
    pub(super) fn call(&mut self, command: u16, flags: u16, offset: u64, length: u32) -> Reply {
        let cookie = self.request(command, flags, offset, length);
        let reply = self.reply(if command == READ { length as usize } else { 0 });
        assert_eq!(reply.cookie, cookie);
        reply
    }

    /// Writes and gives the error number.
    pub(super) fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        let cookie = self.request(WRITE, flags, offset, data.len() as u32);
        self.send(data);
        let reply = self.reply(0);
        assert_eq!(reply.cookie, cookie);
        reply.error
    }

    /// Reads what must be there.
    pub(super) fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        let reply = self.call(READ, 0, offset, length);
        assert_eq!(reply.error, 0);
        reply.data
    }

    /// Whether the connection still serves.
    pub(super) fn assert_alive(&mut self) {
        assert_eq!(self.call(FLUSH, 0, 0, 0).error, 0);
    }
}

/// A request as bytes.
pub(super) fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut message = 0x2560_9513_u32.to_be_bytes().to_vec();
    message.extend_from_slice(&flags.to_be_bytes());
    message.extend_from_slice(&command.to_be_bytes());
    message.extend_from_slice(&cookie.to_be_bytes());
    message.extend_from_slice(&offset.to_be_bytes());
    message.extend_from_slice(&length.to_be_bytes());
    message
}

/// Payload of INFO and GO.
pub(super) fn info(export: &str, kinds: &[u16]) -> Vec<u8> {
    let mut payload = text(export);
    payload.extend_from_slice(&(kinds.len() as u16).to_be_bytes());
    payload.extend(kinds.iter().flat_map(|kind| kind.to_be_bytes()));
    payload
}

/// Payload of the options on metadata contexts.
pub(super) fn meta(export: &str, queries: &[&str]) -> Vec<u8> {
    let mut payload = text(export);
    payload.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    payload.extend(queries.iter().flat_map(|query| text(query)));
    payload
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Size and flags in an INFO_EXPORT reply.
pub(super) fn export_info(payload: &[u8]) -> (u64, u16) {
    assert_eq!((payload.len(), &payload[..2]), (12, &[0, 0][..]));
    (
        u64::from_be_bytes(payload[2..10].try_into().unwrap()),
        u16::from_be_bytes(payload[10..].try_into().unwrap()),
    )
}
