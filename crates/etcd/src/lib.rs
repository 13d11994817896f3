//! The metadata store of a site of many nodes: etcd behind [`meta::Store`] (section 7.1 of docs/design.md).
//!
//! ```text
//!  Store ─► names ─► Members ─ deadline ─┬─► member 1 ┐
//!  Watch ─► a connection of its own ─────┼─► member 2 ├─ etcd, which agrees by Raft
//!                                        └─► member 3 ┘
//! ```
//! **Vocabulary.** A *member* is one etcd server, an *endpoint* its address, a *leader* the member that orders all writes;
//! *quorum* is a majority of members that hear each other. The *prefix* is what all keys of a site begin with: several
//! sites may share one etcd. It is on every key that goes out and on none that comes in. Revisions, versions and leases
//! are etcd's own; since revisions count the changes of all sites, those of one site may have gaps.
//!
//! **Invariants.**
//! - Every request to etcd ends within the deadline, whatever the servers do; a watch that finds no member for so long
//!   says so.
//! - Reads are linearizable: they see every transaction acknowledged before they began, through whichever member.
//! - A transaction is sent once. It is sent again only when the member that had it cannot have passed it on: nobody was
//!   connected, or the member refused it at its door. When it may have been taken and no answer came, it is `Unknown`.
//! - Reads, grants and renewals are asked of one member after another until the deadline: asking twice does no harm. A
//!   grant brings its own id, so that asking again finds the lease.
//! - A watch gives whole revisions, each once, in order. When its stream breaks it goes on behind the last revision that
//!   was given, at the next member; when etcd has forgotten what lies there it says `Compacted`.
//! - Memory is bounded: an answer by [`meta::RANGE_BYTES_MAX`], a watch by one revision and one message of the stream.
//!
//! **Crash rules.** Nothing is kept here. A transaction that is `Unknown` may still happen after later reads: what its
//! caller does next must compare. `Full` says that nothing was done. etcd itself may do a change and then call its
//! database full, so that answer is believed only when the alarm for it was up before, or when nothing has changed since;
//! else the outcome is `Unknown`.
//!
//! **Users.** Certificates lead to etcd's own users: where they are asked for, a certificate is worth what the user of its
//! common name may do, and nothing once the user was removed.
//!
//! **What it does not do.** It starts no etcd and configures none but its users. It does
//! not compact: how long history is kept is etcd's setting. It needs tokio: the simulator has [`meta::Embedded`].
#![forbid(unsafe_code)]

mod fault;
mod lease;
mod members;
mod names;
mod range;
mod txn;
mod users;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use meta::{
    ErrorKind, Get, Key, KeyRange, Lease, LeaseId, Page, Result, Revision, Store, Txn, TxnResult, Watch,
};
use seam::{BoxFuture, Rt};

use members::Members;
use names::Names;
pub use users::{Right, UserRole};

/// Time that a request may take, unless told otherwise: an election of etcd takes one to two seconds.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Longest prefix, in bytes: a full transaction has 384 keys, and with their prefixes it must stay below 1.5 MiB.
pub const PREFIX_BYTES_MAX: usize = 128;

/// Where etcd is, and what of it is ours.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses of members, `https://host:2379`; some of them, or all. They are tried in this order.
    pub endpoints: Vec<String>,
    /// What every key begins with: `/holdfast/SITE/`.
    pub prefix: String,
    /// Certificates; none to go without TLS.
    pub tls: Option<Tls>,
    /// Time that a request may take.
    pub deadline: Duration,
    /// What is read to see whether etcd serves at all: users may not read everything.
    pub probe: KeyRange,
}

impl Options {
    /// Without TLS, with [`DEADLINE`].
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>, prefix: impl Into<String>) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self { endpoints, prefix: prefix.into(), tls: None, deadline: DEADLINE, probe: KeyRange::all() }
    }
}

/// Certificates for TLS on both sides, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// The authority that signed the certificates of the members.
    pub authority: String,
    /// Our certificate, and those between it and the authority that the members trust.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// The name that the members' certificates have, where it is not that of their addresses.
    pub name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// A metadata store on etcd. Watches go on when it is dropped.
pub struct Etcd {
    members: Arc<Members>,
    names: Names,
    /// The newest revision that an answer named.
    newest: AtomicU64,
    /// etcd said that its database is full, and has taken no put since.
    full: AtomicBool,
}

impl Etcd {
    /// Connects to etcd, within the deadline.
    ///
    /// # Errors
    /// `Invalid` when endpoints, prefix or certificates are malformed; `Unavailable` when no member answers, or none with
    /// a quorum, or they refuse our certificate.
    pub async fn connect(rt: Rt, options: Options) -> Result<Self> {
        let names = Names::new(&options.prefix)?;
        let members = Arc::new(Members::new(rt, &options).await?);
        let probe = options.probe.clone();
        let store = Self { members, names, newest: AtomicU64::new(0), full: AtomicBool::new(false) };
        match store.range_of(probe, 1, None).await {
            Ok(_) => Ok(store),
            Err(mut error) => {
                if options.tls.is_some() && error.kind == ErrorKind::Unavailable {
                    // With TLS 1.3 that is all one hears of it.
                    error.context +=
                        "; a member that closes connections at once does not trust our certificate";
                }
                Err(error)
            }
        }
    }

    /// An answer of etcd named this revision.
    fn seen(&self, revision: Revision) {
        self.newest.fetch_max(revision.0, Ordering::Relaxed);
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Etcd({:?})", self.members)
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Get>> {
        Box::pin(async move {
            let page = self.range_of(KeyRange::one(key), 1, None).await?;
            Ok(Get { kv: page.kvs.into_iter().next(), revision: page.revision })
        })
    }

    fn range(&self, range: KeyRange, limit: usize, at: Option<Revision>) -> BoxFuture<'_, Result<Page>> {
        Box::pin(self.range_of(range, limit, at))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        Box::pin(self.transact(txn))
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<Box<dyn Watch>>> {
        Box::pin(async move {
            let watch = watch::Cursor::new(self.members.clone(), self.names.clone(), &range, from)?;
            Ok(Box::new(watch) as Box<dyn Watch>)
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease>> {
        Box::pin(self.grant_lease(ttl))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(self.renew_lease(lease))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.end_lease(lease))
    }
}
