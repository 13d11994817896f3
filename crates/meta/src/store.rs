//! The trait every metadata store implements, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use seam::BoxFuture;

use crate::error::{Error, Result};
use crate::key::{Key, KeyRange};
use crate::limits::RANGE_KEYS_MAX;
use crate::txn::{Txn, TxnResult};

/// Counts the transactions that changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// No revision: of an absent key.
    pub const NONE: Self = Self(0);
    /// The revision of an empty store, as in etcd.
    pub const EMPTY: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A lease: random, not zero, below 2^63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl LeaseId {
    /// Largest number: etcd's are signed.
    pub const MAX: u64 = u64::MAX >> 1;
}

/// A granted lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Its time to live: what was asked, in whole seconds, or more.
    pub ttl: Duration,
}

/// A key with its value and its history in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// Its value. Shared with the store: cheap to clone.
    pub value: Arc<[u8]>,
    /// The revision that made the key out of nothing.
    pub create_revision: Revision,
    /// The revision that changed it last.
    pub mod_revision: Revision,
    /// Puts since it was created, from 1.
    pub version: u64,
    /// The lease it is attached to.
    pub lease: Option<LeaseId>,
}

/// Answer to a get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// The key and its value; `None` when it is absent.
    pub kv: Option<KeyValue>,
    /// Revision of the store at which this is so.
    pub revision: Revision,
}

/// Answer to a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In order of keys.
    pub kvs: Vec<KeyValue>,
    /// Revision at which this is so; reading the next page at it gives one consistent view.
    pub revision: Revision,
    /// Whether the range holds more keys behind the last.
    pub more: bool,
}

/// A change seen by a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was set. `mod_revision` is the revision of the event.
    Put(KeyValue),
    /// The key was deleted.
    Delete {
        /// The key.
        key: Key,
        /// The revision that deleted it.
        revision: Revision,
    },
}

impl Event {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision it belongs to.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(kv) => kv.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// Events of whole revisions, in order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The events. Those of one revision are never split over batches; among themselves they have no order.
    pub events: Vec<Event>,
    /// Everything up to this revision was given: a new watch goes on behind it.
    pub revision: Revision,
}

/// A running watch. Dropping it ends it.
pub trait Watch: Send {
    /// Waits for the next events. Dropping the future loses none.
    ///
    /// # Errors
    /// `Compacted`: the watcher fell too far behind, or began too far back; it must list again and start a new watch.
    /// `Stopped`: the store is gone. `Unavailable`: nothing is seen for now; waiting again goes on where the watch stood.
    fn next(&mut self) -> BoxFuture<'_, Result<Batch>>;
}

/// A metadata store. All operations may run at once; reads see every transaction acknowledged before they began.
///
/// A store of several servers answers any of them with `Unavailable` while too few are up.
pub trait Store: Send + Sync {
    /// Reads one key.
    ///
    /// # Errors
    /// None of its own.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Get>>;

    /// Reads at most `limit` keys of `range`, in order, at revision `at`; without it, at the newest. An answer ends
    /// early at [`crate::RANGE_KEYS_MAX`] keys or [`crate::RANGE_BYTES_MAX`] bytes, with `more` set.
    ///
    /// # Errors
    /// `Compacted` when `at` is no longer kept; `Invalid` when it is in the future, `limit` is 0, or the range's ends
    /// are longer than a key.
    fn range(&self, range: KeyRange, limit: usize, at: Option<Revision>) -> BoxFuture<'_, Result<Page>>;

    /// Runs a transaction. A caller that drops the future does not know its outcome.
    ///
    /// # Errors
    /// `Invalid` beyond a limit; `LeaseNotFound`; `Full`; `Unknown` and `Stopped` as their names say.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult>>;

    /// Watches the keys of `range` for every change of revision `from` and later. After a range answered revision r,
    /// a watch from r+1 misses nothing. That `from` is no longer kept, the first [`Watch::next`] says.
    ///
    /// # Errors
    /// `Invalid` when `from` is 0 or the range's ends are longer than a key.
    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<Box<dyn Watch>>>;

    /// Grants a lease of at least `ttl`, between [`crate::LEASE_TTL_MIN`] and [`crate::LEASE_TTL_MAX`].
    ///
    /// # Errors
    /// `Invalid` outside these; `Full` beyond [`crate::LEASES_MAX`].
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease>>;

    /// Starts the lease's time anew; gives its time to live.
    ///
    /// # Errors
    /// `LeaseNotFound` once it has ended.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration>>;

    /// Ends a lease and deletes its keys, as its expiry does: in one transaction, or in several when they are many.
    ///
    /// # Errors
    /// `LeaseNotFound` once it has ended; `Unknown` and `Stopped` as for a transaction.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>>;
}

/// Reads all of `range` at one revision, page by page; gives that revision too.
///
/// # Errors
/// `Invalid` when there are more than `keys_max` keys; `Compacted` when writes overtook the reading: read again.
pub async fn list(store: &dyn Store, range: KeyRange, keys_max: usize) -> Result<(Vec<KeyValue>, Revision)> {
    let mut page = store.range(range.clone(), RANGE_KEYS_MAX, None).await?;
    let mut kvs = page.kvs;
    loop {
        if kvs.len() > keys_max {
            return Err(Error::invalid(format!("more than {keys_max} keys in {range:?}")));
        }
        let last = match kvs.last() {
            Some(last) if page.more => last,
            _ => return Ok((kvs, page.revision)),
        };
        page = store.range(range.behind(&last.key), RANGE_KEYS_MAX, Some(page.revision)).await?;
        kvs.append(&mut page.kvs);
    }
}
