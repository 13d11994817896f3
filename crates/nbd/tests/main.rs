//! The server from outside: raw messages, hostile clients, other people's clients, stop and start.
//!
//! Model: what a client may rely on is in the NBD protocol document; numbers are written out again in
//! `suite/client.rs`, so that a wrong constant in the server shows. Knobs: `Limits`, shortened where a test waits
//! for one to pass.

#![allow(clippy::unwrap_used)] // a test stops at what it did not expect

mod suite;
