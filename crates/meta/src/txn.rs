//! Transactions: compares, then one of two lists of operations.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::key::{Key, KeyRange};
use crate::limits::{OP_BYTES, TXN_BYTES_MAX, TXN_OPS_MAX, VALUE_BYTES_MAX};
use crate::store::{LeaseId, Revision};

/// What must hold for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// The last change was made by this revision; 0: the key is absent.
    ModRevision(Revision),
    /// The key was created by this revision; 0: the key is absent.
    CreateRevision(Revision),
    /// The key is present with this value.
    Value(Arc<[u8]>),
    /// The key is present.
    Present,
}

/// A test of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Key,
    /// What must hold for it.
    pub test: Test,
}

impl Compare {
    /// The key is absent.
    pub fn absent(key: Key) -> Self {
        Self { key, test: Test::CreateRevision(Revision::NONE) }
    }

    /// The key is present.
    pub fn present(key: Key) -> Self {
        Self { key, test: Test::Present }
    }

    /// The key was last changed by `revision`.
    pub fn unchanged(key: Key, revision: Revision) -> Self {
        Self { key, test: Test::ModRevision(revision) }
    }

    /// The key has this value.
    pub fn value(key: Key, value: impl Into<Arc<[u8]>>) -> Self {
        Self { key, test: Test::Value(value.into()) }
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key. The lease replaces the one the key had; `None` detaches it.
    Put {
        /// The key.
        key: Key,
        /// Its new value, at most [`VALUE_BYTES_MAX`] bytes.
        value: Arc<[u8]>,
        /// The key goes when this lease ends.
        lease: Option<LeaseId>,
    },
    /// Deletes every key in the range; no error when there is none.
    Delete(KeyRange),
}

impl Op {
    /// Sets a key for good.
    pub fn put(key: Key, value: impl Into<Arc<[u8]>>) -> Self {
        Self::Put { key, value: value.into(), lease: None }
    }

    /// Sets a key until the lease ends.
    pub fn put_leased(key: Key, value: impl Into<Arc<[u8]>>, lease: LeaseId) -> Self {
        Self::Put { key, value: value.into(), lease: Some(lease) }
    }

    /// Bytes it takes in the record of its transaction, at most.
    pub fn record_bytes(&self) -> usize {
        OP_BYTES
            + match self {
                Self::Put { key, value, .. } => key.as_bytes().len() + value.len(),
                Self::Delete(range) => range.bytes(),
            }
    }

    /// Deletes one key.
    pub fn delete(key: &Key) -> Self {
        Self::Delete(KeyRange::one(key))
    }
}

/// When all compares hold, `then` is done, else `otherwise`: whole or not at all.
///
/// As in etcd, one branch may not touch a key twice with a put: neither two puts nor a put within a deleted range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold; nothing always holds.
    pub compares: Vec<Compare>,
    /// Done when it holds.
    pub then: Vec<Op>,
    /// Done when it does not.
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// Bytes of the record of a transaction beside those of its operations, at most.
    pub const RECORD_BYTES: usize = OP_BYTES;

    /// A transaction that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a compare.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation for the case that all compares hold.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.then.push(op);
        self
    }

    /// Adds an operation for the other case.
    #[must_use]
    pub fn or_else(mut self, op: Op) -> Self {
        self.otherwise.push(op);
        self
    }

    /// Refuses what is beyond a limit or malformed, before anything is asked or locked. Gives the bytes that the longer
    /// branch's record may take.
    ///
    /// # Errors
    /// `Invalid`, and what is.
    pub fn check(&self) -> Result<usize> {
        if self.compares.len() > TXN_OPS_MAX {
            return Err(Error::invalid(format!("{} compares, more than {TXN_OPS_MAX}", self.compares.len())));
        }
        let compared = self.compares.iter().map(|compare| {
            let value = if let Test::Value(value) = &compare.test { value.len() } else { 0 };
            compare.key.as_bytes().len() + value
        });
        let (then, otherwise) = (check_ops(&self.then)?, check_ops(&self.otherwise)?);
        let bytes = compared.sum::<usize>() + then + otherwise;
        if bytes > TXN_BYTES_MAX {
            return Err(Error::invalid(format!("{bytes} bytes in a transaction, more than {TXN_BYTES_MAX}")));
        }
        let record = |bytes: usize, ops: &[Op]| bytes + OP_BYTES * (ops.len() + 1);
        Ok(record(then, &self.then).max(record(otherwise, &self.otherwise)))
    }
}

/// Checks one branch; gives its bytes of keys and values.
pub(crate) fn check_ops(ops: &[Op]) -> Result<usize> {
    if ops.len() > TXN_OPS_MAX {
        return Err(Error::invalid(format!("{} operations, more than {TXN_OPS_MAX}", ops.len())));
    }
    let mut put = BTreeSet::new();
    let mut bytes = 0;
    for op in ops {
        match op {
            Op::Put { key, value, .. } => {
                if value.len() > VALUE_BYTES_MAX {
                    let length = value.len();
                    return Err(Error::invalid(format!(
                        "value of {key}: {length} bytes, more than {VALUE_BYTES_MAX}"
                    )));
                }
                if !put.insert(key) {
                    return Err(Error::invalid(format!("{key} is put twice")));
                }
                bytes += key.as_bytes().len() + value.len();
            }
            Op::Delete(range) => {
                range.check()?;
                bytes += range.bytes();
            }
        }
    }
    let deleted = |key: &&Key| ops.iter().any(|op| matches!(op, Op::Delete(range) if range.contains(key)));
    match put.into_iter().find(deleted) {
        Some(key) => Err(Error::invalid(format!("{key} is both put and deleted"))),
        None => Ok(bytes),
    }
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The revision of the transaction; when it changed nothing, that of the store.
    pub revision: Revision,
}
