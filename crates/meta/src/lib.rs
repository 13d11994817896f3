//! The metadata store: ordered keys, range, compare-and-swap transactions, watch, lease (section 7.1 of docs/design.md).
//!
//! It holds membership, layout, ownership, roots, snapshots, policies, tasks and users: transactions per checkpoint
//! and snapshot, never per I/O. [`Store`] is the one trait; what it asks stays within what etcd 3.4 offers, and the
//! crate `etcd` puts etcd behind it for a site of many nodes. [`Embedded`] is the store of a site without etcd: an
//! ordered map in RAM, rebuilt at start from records and a checkpoint that its owner keeps in the journal and the log.
//! [`Embedded::in_memory`] keeps nothing and serves tests and the simulator. [`conformance`] is the one suite that
//! every store must pass.
//!
//! **Vocabulary.** *Revision*: counts transactions that changed something; an empty store has revision 1, and 0 means
//! absent. *Record*: one such transaction, encoded. *Checkpoint*: the whole state at one revision, encoded. *History*:
//! the last changes, kept in RAM for watches and for reads at an older revision; its *floor* is the oldest revision
//! that can still be read. *Lease*: a promise with a time to live; keys attached to it go when it ends.
//!
//! **Invariants.**
//! - Revisions have no gap: record r+1 is persisted only after record r was applied (one writer at a time).
//! - A change is visible to a read, a watch or a compare only when its record is persisted.
//! - All changes of a transaction carry its revision and become visible together.
//! - A watch gives each event once, in order of revision; or it says `Compacted`, and the watcher lists again.
//! - The same state gives the same checkpoint bytes; checkpoint + records give the same state as never stopping.
//! - Memory is bounded: the state by [`Options::state_bytes`], the history by events and bytes, a watch by a cursor.
//!
//! **Crash rules.** When persisting fails, or its task is dropped half-way, nobody knows whether the record is in the
//! journal. Taking another transaction would give its revision to a second record, and replay would apply the wrong
//! one. So the transaction is answered [`ErrorKind::Unknown`], is not applied, and the store refuses writes until it is
//! rebuilt from what the journal really holds; reads go on. A caller that drops its future changes nothing: a started
//! commit runs to its end. A lease is remembered through the keys attached to it, with its time to live; a rebuilt
//! store gives it that time again in full. A dead holder is thus noticed later, but a living one never loses its keys
//! early, which is the direction that cannot make two holders. A lease without keys is gone after a rebuild.
//!
//! **Locks.** `writer` (asynchronous, held from the compare to the apply) before `state` before `leases`; the last two
//! are held for moments, never across an await. Reads take `state` only.
//!
//! **What it does not do.** It seals nothing, writes no medium, and knows no product record: the journal and the log do
//! the first two, its users the last. It does not notice a record that was lost from the end of the journal.
#![forbid(unsafe_code)]

mod chunks;
pub mod conformance;
mod embedded;
mod error;
mod format;
pub mod fuzz;
mod history;
mod key;
mod lease;
mod limits;
mod state;
mod store;
mod stored;
mod txn;

pub use embedded::{Checkpoint, Chunk, Embedded, Options, Persist, Pieces};
pub use error::{Error, ErrorKind, PersistError, Result};
pub use key::{Key, KeyBuilder, KeyRange, Segments, Shard, Site, Table};
pub use limits::{
    KEY_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_MAX, RANGE_BYTES_MAX, RANGE_KEYS_MAX,
    RECORD_BYTES_MAX, TXN_BYTES_MAX, TXN_OPS_MAX, VALUE_BYTES_MAX, WATCH_EVENTS_MAX,
};
pub use store::{Batch, Event, Get, KeyValue, Lease, LeaseId, Page, Revision, Store, Watch, list};
pub use stored::Stored;
pub use txn::{Compare, Op, Test, Txn, TxnResult};
