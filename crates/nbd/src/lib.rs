//! NBD server on a unix socket, over an abstract block device; a client's hand-shake.
//!
//! Vocabulary. **Export**: what a client can name and open; the [`Exports`] trait lists and opens them. **Device**:
//! one opened export ([`Device`]); it closes when its last handle is dropped. **Context**: what an export tells of its
//! bytes besides the data ([`Context`]; `base:allocation` is the device's own). **Hand-shake**: the option haggling that
//! ends with an export opened. **Transmission**: requests and replies after it. **Request**: one command of a client;
//! **cookie**: the number the client gave it. **Link**: what one connection's tasks share: the replies ready to be sent,
//! what is in flight, and whether the server wants it to end.
//!
//! The road of a request: `source` (buffered bytes) → `proto` (decode) → `request` (check, run on the device) →
//! `link` (queue) → `reply` (encode) → `writer` (one vectored write for all replies that are ready). One task per
//! connection reads and writes; a request that does not complete at once gets a task of its own, so requests of one
//! connection run concurrently and may be answered out of order.
//!
//! Invariants:
//! - No length a client sends is used before it is checked against a named limit.
//! - A request is admitted before its payload is read and counted until its reply is written: [`Limits::requests`] and
//!   [`Limits::bytes`] bound a connection, and the server's budget all of them; beyond them the socket is not read.
//! - A client is told in the hand-shake when there is no seat for it. Seats for tasks are kept.
//! - A client that stops in the middle of a message, or does not take its replies, is cut off after [`Limits::stall`], or
//!   after [`Limits::pressed`] when others wait for memory that its replies hold; one that is silent between messages may stay. The whole hand-shake has [`Limits::handshake`].
//! - Every admitted request is answered once, or the connection is closed.
//! - A malformed message closes its own connection and touches no other.
//!
//! Crash rules: none of its own. A reply says what the device said; a device write that completed is durable, so a
//! disk served over several connections is coherent (`CAN_MULTI_CONN`). FUA and FLUSH call [`Device::flush`].
//!
//! What it does not do: TLS and TCP, beyond what is said before them ([`begin_tls`]); extended headers (64-bit lengths), resize, no knowledge of blocks, snapshots
//! or the engine.

#![forbid(unsafe_code)]

mod client;
mod device;
pub mod fuzz;
mod handshake;
mod link;
mod proto;
pub mod ram;
mod reply;
mod request;
mod seats;
mod secure;
mod server;
mod socket;
mod source;
mod transmission;
mod writer;

pub use client::hand_shake;
pub use device::{
    Context, Device, DeviceError, DeviceErrorKind, ExportInfo, Exports, Extent, OpenError, OpenErrorKind,
};
pub use seats::{Clients, Refusal, SHARE};
pub use secure::{ClientFlags, begin_tls, pass_greeting};
pub use server::{Limits, Server, ServerError, ServerErrorKind};

/// Why a connection ended before its time. For diagnosis only: nothing is decided by it.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the client left in the middle of a message")]
    Truncated,
    #[error("the client stopped in the middle of a message")]
    Stalled,
    #[error("the client did not take its replies")]
    Unread,
    #[error("the client broke the protocol: {0}")]
    Protocol(&'static str),
}
