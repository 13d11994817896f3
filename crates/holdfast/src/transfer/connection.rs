//! A small NBD client for raw streams: one export, several requests under way, simple replies.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REQUEST_MAGIC: u32 = 0x2560_9513;
/// No reply within this time is none; writes wait while media are away.
const REPLY_WITHIN: Duration = Duration::from_secs(120);
/// Requests under way.
pub(super) const WINDOW: usize = 8;

/// An open export. Every method blocks.
pub(super) struct Connection {
    stream: UnixStream,
    cookie: u64,
    /// Writes whose replies are to come.
    under_way: usize,
    size: u64,
}

fn bad(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("NBD: {reason}"))
}

fn receive<const COUNT: usize>(stream: &mut UnixStream) -> Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

impl Connection {
    /// Opens an export.
    pub(super) fn open(socket: &Path, export: &str) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(REPLY_WITHIN))?;
        stream.set_write_timeout(Some(REPLY_WITHIN))?;
        let size = nbd::hand_shake(&mut stream, export)?;
        Ok(Self { stream, cookie: 0, under_way: 0, size })
    }

    /// Bytes of the export.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Sends a write; an error may be that of one before.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        if self.under_way == WINDOW {
            self.settle_one()?;
        }
        self.send(WRITE, offset, data.len() as u32)?;
        self.stream.write_all(data)?;
        self.under_way += 1;
        Ok(())
    }

    /// Waits until all writes are done, and so durable.
    pub(super) fn settle(&mut self) -> Result<()> {
        while self.under_way > 0 {
            self.settle_one()?;
        }
        Ok(())
    }

    fn settle_one(&mut self) -> Result<()> {
        self.under_way -= 1;
        self.reply().map(drop)
    }

    /// Reads pieces that follow each other, at most [`WINDOW`], all asked for at once.
    pub(super) fn read(&mut self, offset: u64, lengths: &[u32]) -> Result<Vec<Vec<u8>>> {
        let first = self.cookie + 1;
        let mut at = offset;
        for length in lengths {
            self.send(READ, at, *length)?;
            at += u64::from(*length);
        }
        let mut pieces = vec![Vec::new(); lengths.len()];
        for _ in lengths {
            let number = usize::try_from(self.reply()?.wrapping_sub(first)).unwrap_or(usize::MAX);
            let length = *lengths.get(number).ok_or_else(|| bad("a reply to nothing"))?;
            let mut data = vec![0; length as usize];
            self.stream.read_exact(&mut data)?;
            pieces[number] = data;
        }
        Ok(pieces)
    }

    fn send(&mut self, command: u16, offset: u64, length: u32) -> Result<()> {
        self.cookie += 1;
        let mut message = REQUEST_MAGIC.to_be_bytes().to_vec();
        message.extend([0, 0]);
        message.extend(command.to_be_bytes());
        message.extend(self.cookie.to_be_bytes());
        message.extend(offset.to_be_bytes());
        message.extend(length.to_be_bytes());
        self.stream.write_all(&message)
    }

    /// The cookie of the next reply.
    fn reply(&mut self) -> Result<u64> {
        let reply: [u8; 16] = receive(&mut self.stream)?;
        if word(&reply) != REPLY_MAGIC {
            return Err(bad("no reply where one should be"));
        }
        match word(&reply[4..]) {
            0 => Ok(reply[8..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))),
            number => Err(Error::from_raw_os_error(i32::try_from(number).unwrap_or(i32::MAX))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The server may be gone.
        let _ = self.send(DISCONNECT, 0, 0);
    }
}
