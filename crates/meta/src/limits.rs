//! Every bound of the store, with its reason.

use std::time::Duration;

/// Longest key, in bytes. Names and ids are far shorter; it keeps a full transaction of keys small.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest value, in bytes. etcd takes 1.5 MiB a request by default; this leaves room for the rest of it.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most compares, and most operations per branch, of one transaction: a revert of the largest VM compares, removes and
/// makes each of its disks and files. etcd takes 128 by default and is set up for this (`max-txn-ops`).
pub const TXN_OPS_MAX: usize = 512;
/// Most bytes of keys and values in one transaction, both branches counted: below etcd's 1.5 MiB a request.
pub const TXN_BYTES_MAX: usize = (1 << 20) + (1 << 18);
/// Most bytes of lengths, lease and revision that an operation adds to a record; the record itself adds as many.
pub(crate) const OP_BYTES: usize = 64;
/// Longest encoded record: [`TXN_BYTES_MAX`] and what is around them.
pub const RECORD_BYTES_MAX: usize = TXN_BYTES_MAX + OP_BYTES * (TXN_OPS_MAX + 1);
/// Shortest limit of records a store can have: the keys of a lease go at least one by one.
pub(crate) const RECORD_BYTES_LEAST: usize = 2 * KEY_BYTES_MAX + 2 * OP_BYTES;
/// Most keys in one answer to a range.
pub const RANGE_KEYS_MAX: usize = 4096;
/// Most bytes of keys and values in one answer to a range, unless its first value alone is longer: one message.
pub const RANGE_BYTES_MAX: usize = 4 << 20;
/// Events after which a watch answers, at the end of a revision.
pub const WATCH_EVENTS_MAX: usize = 1024;
/// Shortest time to live. etcd counts in seconds.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);
/// Longest time to live: what nobody renewed in a day is not alive.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most leases at once: a few for each node and task of the largest site.
pub const LEASES_MAX: usize = 1 << 16;

/// Events kept in the history: minutes of the busiest site.
pub(crate) const HISTORY_EVENTS: usize = 1 << 16;
/// Bytes kept in the history, old and new values counted.
pub(crate) const HISTORY_BYTES: usize = 32 << 20;
/// Bytes of the whole state: etcd's default quota, so that a site can move there.
pub(crate) const STATE_BYTES: u64 = 2 << 30;
/// What an entry of the ordered map costs beside its key and value, in bytes, roughly.
pub(crate) const ENTRY_BYTES: usize = 160;
/// Largest revision a decoder takes. No store gets there; counting on from it cannot overflow.
pub(crate) const REVISION_MAX: u64 = 1 << 62;
