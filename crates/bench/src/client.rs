//! An NBD client that keeps many requests on their way, on one thread.
//!
//! Fixed newstyle hand-shake, simple replies. Requests gather in one buffer and leave in one system call; replies are
//! taken as they are there. While requests wait to leave, the socket is watched both ways, so that a server which
//! stops reading until its replies are taken cannot lock up with us.

#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::Failure;

/// No reply within this time is none.
const REPLY_WITHIN: Duration = Duration::from_secs(60);
/// Most requests on their way at once.
pub(crate) const DEPTH_MAX: usize = 256;
/// Bytes taken from the socket at once.
const INPUT: usize = 256 << 10;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REQUEST: usize = 28;
const REPLY: usize = 16;
const DISCONNECT: u16 = 2;

/// What is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read = 0,
    Write = 1,
    Flush = 3,
}

/// A request; a flush has offset and length 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: usize,
    /// When it began, for its latency.
    pub(crate) since: Instant,
}

/// A request and the data of its reply, when it read and data is kept.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) request: Request,
    pub(crate) data: Vec<u8>,
}

/// A connection with an export open.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    size: u64,
    keep_data: bool,
    /// Requests on their way; the place of a request is the low half of its cookie.
    slots: Vec<Option<Slot>>,
    on_the_way: usize,
    turns: u32,
    out: Vec<u8>,
    sent: usize,
    input: Box<[u8]>,
    taken: usize,
    filled: usize,
    /// The slot whose data is coming in, and how much of it is still to come.
    coming: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Slot {
    turn: u32,
    request: Request,
    data: Vec<u8>,
}

impl Client {
    /// Opens `export`; the data that reads give is kept or only taken.
    pub(crate) fn connect(socket: &Path, export: &str, keep_data: bool) -> Result<Self, Failure> {
        let mut stream = UnixStream::connect(socket)
            .map_err(|error| Failure::failed(format!("{}: {error}", socket.display())))?;
        stream.set_read_timeout(Some(REPLY_WITHIN))?;
        stream.set_write_timeout(Some(REPLY_WITHIN))?;
        let size = nbd::hand_shake(&mut stream, export)?;
        Ok(Self {
            stream,
            size,
            keep_data,
            slots: Vec::new(),
            on_the_way: 0,
            turns: 0,
            out: Vec::new(),
            sent: 0,
            input: vec![0; INPUT].into(),
            taken: 0,
            filled: 0,
            coming: None,
        })
    }

    /// Bytes of the export.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Requests not yet answered.
    pub(crate) fn on_the_way(&self) -> usize {
        self.on_the_way
    }

    /// True when no request on its way touches the range.
    pub(crate) fn is_quiet(&self, offset: u64, length: usize) -> bool {
        let end = offset + length as u64;
        self.slots
            .iter()
            .flatten()
            .map(|slot| slot.request)
            .all(|other| other.offset >= end || other.offset + other.length as u64 <= offset)
    }

    /// Takes a request; it leaves at the next [`Client::wait`]. `fill` writes the data of a write.
    pub(crate) fn submit(&mut self, request: Request, fill: impl FnOnce(&mut [u8])) {
        let place = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        assert!(place < DEPTH_MAX, "no case goes so deep");
        self.turns = self.turns.wrapping_add(1);
        let cookie = (u64::from(self.turns) << 32) | place as u64;
        if place == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[place] = Some(Slot { turn: self.turns, request, data: Vec::new() });
        self.on_the_way += 1;
        self.out.extend(REQUEST_MAGIC.to_be_bytes());
        self.out.extend([0, 0]);
        self.out.extend((request.operation as u16).to_be_bytes());
        self.out.extend(cookie.to_be_bytes());
        self.out.extend(request.offset.to_be_bytes());
        self.out.extend((request.length as u32).to_be_bytes());
        if request.operation == Operation::Write {
            let start = self.out.len();
            self.out.resize(start + request.length, 0);
            fill(&mut self.out[start..]);
        }
    }

    /// Sends what waits to leave and waits until at least one request is answered; adds the answered ones to `done`.
    ///
    /// # Errors
    /// A request refused by the server, a broken connection, a reply that is none.
    pub(crate) fn wait(&mut self, done: &mut Vec<Done>) -> Result<(), Failure> {
        assert!(self.on_the_way > 0, "there is something to wait for");
        let before = done.len();
        while done.len() == before {
            self.send()?;
            self.receive()?;
            self.take_replies(done)?;
        }
        Ok(())
    }

    /// Sends until all has left or the server has something for us and takes no more.
    fn send(&mut self) -> Result<(), Failure> {
        while self.sent < self.out.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.stream, &self.out[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let both = PollFlags::IN | PollFlags::OUT;
                    let mut watched = [PollFd::new(&self.stream, both)];
                    let limit = rustix::event::Timespec::try_from(REPLY_WITHIN).ok();
                    match poll(&mut watched, limit.as_ref()) {
                        Ok(0) => return Err(Failure::failed("the server takes nothing and says nothing")),
                        Ok(_) if watched[0].revents().contains(PollFlags::IN) => return Ok(()),
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(Failure::failed(format!("poll: {error}"))),
                    }
                }
                Err(error) => return Err(Failure::failed(format!("the connection broke: {error}"))),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Failure> {
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        } else if self.filled + REPLY > self.input.len() {
            self.input.copy_within(self.taken..self.filled, 0);
            (self.taken, self.filled) = (0, self.filled - self.taken);
        }
        loop {
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(Failure::failed("the server closed the connection")),
                Ok(count) => {
                    self.filled += count;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    crate::stop::check()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Failure::failed(format!("no reply within {} s", REPLY_WITHIN.as_secs())));
                }
                Err(error) => return Err(Failure::failed(format!("the connection broke: {error}"))),
            }
        }
    }

    fn take_replies(&mut self, done: &mut Vec<Done>) -> Result<(), Failure> {
        loop {
            if let Some((place, left)) = self.coming {
                let count = left.min(self.filled - self.taken);
                if self.keep_data
                    && let Some(slot) = &mut self.slots[place]
                {
                    slot.data.extend_from_slice(&self.input[self.taken..self.taken + count]);
                }
                self.taken += count;
                if count < left {
                    self.coming = Some((place, left - count));
                    return Ok(());
                }
                self.coming = None;
                self.finish(place, done);
            }
            let Some(head) = self.input[self.taken..self.filled].first_chunk::<REPLY>() else {
                return Ok(());
            };
            self.taken += REPLY;
            let place = self.understand(*head)?;
            let request = self.slots[place].as_ref().map(|slot| slot.request);
            match request {
                Some(Request { operation: Operation::Read, length, .. }) => {
                    self.coming = Some((place, length));
                }
                _ => self.finish(place, done),
            }
        }
    }

    /// The slot a reply is for.
    fn understand(&self, head: [u8; REPLY]) -> Result<usize, Failure> {
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if word(0) != REPLY_MAGIC {
            return Err(Failure::failed("the server sent something that is no simple reply"));
        }
        let (turn, place) = (word(8), word(12) as usize);
        let Some(slot) = self.slots.get(place).and_then(Option::as_ref).filter(|slot| slot.turn == turn)
        else {
            return Err(Failure::failed("the server answered what was not asked"));
        };
        match word(4) {
            0 => Ok(place),
            number => {
                let Request { operation, offset, length, .. } = slot.request;
                let why = std::io::Error::from_raw_os_error(number as i32);
                Err(Failure::failed(format!("{operation:?} of {length} bytes at {offset} refused: {why}")))
            }
        }
    }

    fn finish(&mut self, place: usize, done: &mut Vec<Done>) {
        if let Some(slot) = self.slots[place].take() {
            self.on_the_way -= 1;
            done.push(Done { request: slot.request, data: slot.data });
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut message = [0; REQUEST];
        message[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        message[6..8].copy_from_slice(&DISCONNECT.to_be_bytes());
        // A courtesy: the server may be gone, or in the middle of a message of ours.
        let _ = rustix::net::send(&self.stream, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}
