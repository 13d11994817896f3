//! The real binary from outside: its command line, its first start, other people's NBD clients.
//!
//! Model: each test has a site of its own in a temporary directory, on small file media, served by the program as it is
//! built. `harness` starts, asks, kills and restarts it, and speaks NBD. Knobs: `HOLDFAST_SOAK=1` leaves nothing out,
//! `HOLDFAST_PICK` chooses the sample otherwise. Outside tools come from `cargo x setup`; one that is missing fails the
//! test that wants it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // tests stop at what they did not expect; their clock is real

mod bad_input;
mod changes;
mod cli;
mod clients;
mod cluster;
mod codes;
mod denied;
mod etcd;
mod export_instant;
mod files;
mod first_start;
mod harness;
mod kill;
mod limits;
mod media_changes;
mod nbd_client;
mod paths;
mod recover;
mod snapshots;
mod transfer;
mod trash;
mod unit;
mod walk;
mod words;
