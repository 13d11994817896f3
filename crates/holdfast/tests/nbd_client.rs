//! A small NBD client: one request at a time, simple replies, errors as numbers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No reply within this time is none.
const REPLY_WITHIN: Duration = Duration::from_secs(60);

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum NbdError {
    /// The server said so: an error number.
    Refused(u32),
    /// The connection broke: the request may be done or not.
    Gone(std::io::Error),
}

impl From<std::io::Error> for NbdError {
    fn from(error: std::io::Error) -> Self {
        Self::Gone(error)
    }
}

type Result<T> = std::result::Result<T, NbdError>;

/// An export that is open.
pub(crate) struct NbdClient {
    stream: UnixStream,
    cookie: u64,
    size: u64,
}

impl NbdClient {
    /// Opens an export.
    pub(crate) fn connect(socket: &Path, export: &str) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(REPLY_WITHIN))?;
        stream.set_write_timeout(Some(REPLY_WITHIN))?;
        let greeting: [u8; 18] = receive(&mut stream)?;
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        // Fixed newstyle, no zeroes; then GO for the export, no information asked for.
        let mut hello = 3_u32.to_be_bytes().to_vec();
        hello.extend(b"IHAVEOPT");
        hello.extend(7_u32.to_be_bytes());
        hello.extend((export.len() as u32 + 6).to_be_bytes());
        hello.extend((export.len() as u32).to_be_bytes());
        hello.extend(export.as_bytes());
        hello.extend([0, 0]);
        stream.write_all(&hello)?;
        let mut size = 0;
        loop {
            let head: [u8; 20] = receive(&mut stream)?;
            let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
            let mut payload = vec![0; u32::from_be_bytes(head[16..].try_into().unwrap()) as usize];
            stream.read_exact(&mut payload)?;
            match kind {
                REPLY_ACK => return Ok(Self { stream, cookie: 0, size }),
                REPLY_INFO if payload[..2] == [0, 0] => {
                    size = u64::from_be_bytes(payload[2..10].try_into().unwrap());
                }
                REPLY_INFO => {}
                refused => return Err(NbdError::Refused(refused)),
            }
        }
    }

    /// Asks for bytes, and takes no reply.
    pub(crate) fn ask(&mut self, offset: u64, length: u32) -> Result<()> {
        Ok(self.stream.write_all(&request(READ, 0, offset, length))?)
    }

    /// Size of the export in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.call(READ, offset, length, &[])?;
        let mut data = vec![0; length as usize];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.call(WRITE, offset, data.len() as u32, data)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.call(FLUSH, 0, 0, &[])
    }

    pub(crate) fn trim(&mut self, offset: u64, length: u32) -> Result<()> {
        self.call(TRIM, offset, length, &[])
    }

    pub(crate) fn write_zeroes(&mut self, offset: u64, length: u32) -> Result<()> {
        self.call(WRITE_ZEROES, offset, length, &[])
    }

    fn call(&mut self, command: u16, offset: u64, length: u32, data: &[u8]) -> Result<()> {
        self.cookie += 1;
        self.stream.write_all(&request(command, self.cookie, offset, length))?;
        self.stream.write_all(data)?;
        let reply: [u8; 16] = receive(&mut self.stream)?;
        assert_eq!(reply[..4], 0x6744_6698_u32.to_be_bytes(), "a simple reply");
        assert_eq!(reply[8..], self.cookie.to_be_bytes(), "the reply to this request");
        match u32::from_be_bytes(reply[4..8].try_into().unwrap()) {
            0 => Ok(()),
            number => Err(NbdError::Refused(number)),
        }
    }
}

impl Drop for NbdClient {
    fn drop(&mut self) {
        // The server may be gone.
        let _ = self.stream.write_all(&request(DISCONNECT, 0, 0, 0));
    }
}

fn request(command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut message = 0x2560_9513_u32.to_be_bytes().to_vec();
    message.extend([0, 0]);
    message.extend(command.to_be_bytes());
    message.extend(cookie.to_be_bytes());
    message.extend(offset.to_be_bytes());
    message.extend(length.to_be_bytes());
    message
}

fn receive<const COUNT: usize>(stream: &mut UnixStream) -> Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
