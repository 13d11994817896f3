//! Who belongs to a site of many nodes: join tokens, certificates, the list of revoked ones (section 7.4 of docs/design.md).
//!
//! ```text
//!  node add ─► Manager ─► token ─ by hand ─► join ══ TLS, the authority pinned ══► Port ─► Manager ─┐
//!                                                                                                   ▼
//!  a node ◄─ addresses, revoked certificates ─ Roster ◄─────────────── watch ──────────── metadata store
//!     └─ Keeper ── at two thirds of its certificate's time ══ mutual TLS ══► Port ─► Manager ─► next certificate
//! ```
//! **Vocabulary.** A *token* lets one node join, once. A *manager* has the key of the site's authority; it alone writes
//! tokens, certificates and the list of revoked ones. The *roster* is what a node knows of all nodes, a copy of the
//! records in the metadata store.
//!
//! **Invariants.**
//! - A token is used by one request: who asks again with the same request gets the same answer, anybody else nothing.
//! - The store has a hash of a token's secret; the secret is in no record and no log. It is told to nobody but a manager
//!   whose certificate leads to the authority that the token names.
//! - Every change is one transaction that compares what it was decided on.
//! - A certificate is renewed only for a node that is a member, by a request under a certificate of its own that is not
//!   revoked. A removed node's certificates are all on the list, until they have ended anyway.
//! - The key that opens the site's data goes to managers and compute nodes only, when they join.
//! - In etcd each node is a user of its own, named as its certificate, from when its record is there until it was removed:
//!   a data node reads, a compute node changes what compute nodes agree on, managers change everything. Members of etcd know
//!   each other by an authority that names nobody else.
//! - Everything that comes from outside has a bound in bytes and in time, and connections are counted.
//!
//! - Each manager keeps a copy of the records of nodes, revoked certificates and media, from which a store that was lost is
//!   made anew.
//!
//! **Crash rules.** A joining node keeps its key before it asks, so that after a crash it asks the same again. What the
//! manager decided is in the store before it answers. A site that was being founded is founded anew.
//!
//! **What it does not do.** It moves no data off a node that is removed. It decides nothing of what nodes store.
#![forbid(unsafe_code)]

mod access;
mod birth;
mod catalogue;
mod founding;
mod joining;
mod keeping;
mod manager;
mod members;
mod membership;
mod port;
mod records;
#[cfg(test)]
mod tests;
mod text;
mod token;
mod users;
mod wire;

pub use access::{EtcdAccess, Meta, connect, store_error};
pub use birth::Birth;
pub use catalogue::{Catalogue, RestoredSite};
pub use founding::{Founded, Founding, found, load_founded};
pub use joining::{Joining, join};
pub use keeping::Keeper;
pub use manager::{Manager, TOKEN_LIFE, TOKEN_LIFE_MAX};
pub use members::{Roster, nodes};
pub use membership::Membership;
pub use port::Port;
pub use records::{Certificate, Node, State};
pub use token::JoinToken;
pub use users::{CLAIM, Differing, MEDIA, SERVING, Users};

/// The file with the key that opens the site's data, in the directories of managers and compute nodes.
pub const KEY_FILE: &str = "key";

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as each record, as the files of this room, as each body of a request and an answer, and as a token.
    pub fn fuzz_body(input: &[u8]) {
        let id = units::NodeId([1; 16]);
        let _ = crate::records::Node::decode(id, input);
        let _ = crate::records::Token::decode(input);
        let _ = crate::records::Revocations::decode(input);
        let _ = crate::access::EtcdAccess::decode(input);
        let _ = crate::birth::Birth::decode(input);
        let _ = crate::catalogue::Catalogue::decode(input);
        let _ = crate::wire::Join::decode(input);
        let _ = crate::wire::Joined::decode(input);
        let _ = crate::wire::Renew::decode(input);
        let _ = crate::wire::Renewed::decode(input);
        let _ = crate::wire::refusal(input);
        if let Ok(text) = std::str::from_utf8(input) {
            let _ = crate::JoinToken::parse(text);
        }
    }
}
