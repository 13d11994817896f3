//! The data protocol between nodes: requests of [`proto`] on a stream, many under way (section 7.3 of docs/design.md).
//!
//! ```text
//!  Transport::call ─► Client ─ budget ─► frame ═══ stream ═══► Server ─► Transport of the node's media
//!                        ◄──────────────────────── answer ◄──────┘
//! ```
//! Vocabulary: a request's **cost** is what it and its answer may take in memory; the **budget** is what the server lets be
//! under way towards it on one connection, said in its hello.
//!
//! Invariants: both ends count the same costs, so that the client waits where the server would refuse; the server answers
//! every request that it took, taken back or not, and counts it until the answer is about to be written; no wait is without a deadline.
//!
//! Crash rules: what was sent and not answered when a connection ends may or may not have happened. All requests may be asked
//! again.
//!
//! Below [`serve`] and [`Client`] there is any stream, in the simulator one of its own; [`Listener`] and [`TcpDial`] put TCP with
//! mutual TLS there.
//!
//! Connections are counted: by address until there is a certificate, then by node.
//!
//! What it does not do: no retry of a request.

mod client;
mod frames;
mod remote;
mod seats;
mod server;
mod tcp;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use client::Client;
pub use remote::{Dial, Remote};
pub use seats::{Knock, Seat, SeatLimits, Seats};
pub use server::{Server, refuse, serve};
pub use tcp::{Listener, TcpDial, forbidden, tune};

/// Bounds of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Costs of the requests under way, bytes. At least [`proto::wire::COST_MAX`], so that every request may be asked.
    pub bytes: u32,
    /// Time for the hand-shake.
    pub handshake: Duration,
    /// Time for a frame to arrive once it has begun, and for the peer to take one.
    pub stall: Duration,
}

impl Default for Limits {
    /// 192 MiB, 10 s, 60 s.
    fn default() -> Self {
        Self { bytes: 192 << 20, handshake: Duration::from_secs(10), stall: Duration::from_secs(60) }
    }
}

/// Why a connection was not made, or is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The stream failed or ended.
    #[error("the connection failed: {0}")]
    Stream(String),
    /// The other end did not keep to the protocol.
    #[error(transparent)]
    Protocol(#[from] proto::wire::WireError),
    /// The other end does not go on.
    #[error("the node refuses: {0}")]
    Refused(proto::wire::Refusal),
    /// Another node answered than the one that was asked for.
    #[error("another node answers there")]
    OtherNode,
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// The other end's certificate was revoked.
    #[error("its certificate was revoked")]
    Revoked,
    /// The other end's certificate has ended.
    #[error("its certificate has ended")]
    Expired,
    /// The node has as many connections as it may, or all seats are taken.
    #[error("there are as many connections as there may be")]
    Crowded,
    /// More was under way than this end lets be.
    #[error("the peer has more under way than it may")]
    Flood,
}

impl From<std::io::Error> for NetError {
    fn from(error: std::io::Error) -> Self {
        Self::Stream(error.to_string())
    }
}
