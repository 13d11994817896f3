//! The store on real etcd servers: the conformance suite, and what happens when servers fail.
//!
//! Each test starts servers of its own, with their data in RAM, and speaks to the store through [`meta::Store`] alone,
//! while the harness stops, kills and fills the servers. They need what `cargo x setup` installs.
#![allow(clippy::unwrap_used)] // what fails here fails the test

mod etcd;
