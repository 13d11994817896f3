//! Who is who in a site: its own certificate authority, a certificate for each node, mutual TLS 1.3 (R49).
//!
//! ```text
//!  Authority ── issues ──► certificate: NODE.ROLE.SITE.holdfast.internal ──► Identity ──► ServerConfig, ClientConfig
//!      └──── revokes ───► list of revoked certificates ─────────────────────────┘
//! ```
//! Vocabulary: a **member** is a node in one role, named by its certificate; an **identity** is its key and certificate. The key
//! is made on the node and never leaves it: the authority sees a request with the public half.
//!
//! Invariants: no connection without both certificates; the name that is asked for is the name that answers, and the role
//! that asks is one that may; TLS 1.3 only, and no session goes on without a new look at the certificates.
//!
//! Who has no certificate yet trusts the one authority whose fingerprint it was told ([`joining_client`]).
//!
//! What it does not do: it keeps nothing and listens nowhere; who may have a certificate is decided above.

mod authority;
mod identity;
mod joining;
mod member;
#[cfg(test)]
mod tests;
mod text;

pub use authority::{Authority, Revoked};
pub use identity::{Access, Identity, NewIdentity, serial};
pub use joining::{Fingerprint, joining_client, sha256};
pub use member::{Member, Role, etcd_name};
pub use rustls;
pub use text::{certificate_pem, ends_ms, holds_ms, key_pem};

/// Something about a certificate is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TrustError(String);

fn bad(reason: impl std::fmt::Display) -> TrustError {
    TrustError(reason.to_string())
}
