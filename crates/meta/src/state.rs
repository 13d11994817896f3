//! The ordered map and what is derived from it. A plain state machine: no clock, no I/O, no locks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::chunks::Chunks;
use crate::error::{Error, ErrorKind, Result};
use crate::history::{Change, Found, History};
use crate::key::{Key, KeyRange};
use crate::limits::{ENTRY_BYTES, RANGE_BYTES_MAX, RANGE_KEYS_MAX};
use crate::store::{KeyValue, LeaseId, Page, Revision};
use crate::txn::{Compare, Test};

/// A lease as a key remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) id: LeaseId,
    pub(crate) ttl: Duration,
}

/// A key to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) key: Key,
    pub(crate) value: Arc<[u8]>,
    pub(crate) lease: Option<Attachment>,
}

/// What a transaction came to: the content of a record. Puts and deletes do not touch each other, so order is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) revision: Revision,
    pub(crate) puts: Vec<Put>,
    pub(crate) deletes: Vec<KeyRange>,
}

#[derive(Debug, Default)]
struct Attached {
    ttl: Duration,
    keys: BTreeSet<Key>,
}

#[derive(Debug)]
pub(crate) struct State {
    revision: Revision,
    map: BTreeMap<Key, KeyValue>,
    chunks: Chunks,
    attached: BTreeMap<LeaseId, Attached>,
    bytes: u64,
    history: History,
}

fn entry_bytes(key: &Key, value: &[u8]) -> u64 {
    (key.as_bytes().len() + value.len() + ENTRY_BYTES) as u64
}

impl State {
    pub(crate) fn empty(events_max: usize, bytes_max: usize) -> Self {
        Self {
            revision: Revision::EMPTY,
            map: BTreeMap::new(),
            chunks: Chunks::default(),
            attached: BTreeMap::new(),
            bytes: 0,
            history: History::new(Revision::EMPTY, events_max, bytes_max),
        }
    }

    /// Starts over at a checkpoint's revision, still without its entries.
    pub(crate) fn begin_at(revision: Revision, events_max: usize, bytes_max: usize) -> Self {
        let history = History::new(revision, events_max, bytes_max);
        Self { revision, history, ..Self::empty(events_max, bytes_max) }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Bytes of all keys and values and of their places in the map.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&KeyValue> {
        self.map.get(key)
    }

    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = (&KeyValue, Option<Attachment>)> {
        self.map.values().map(|kv| (kv, kv.lease.map(|id| self.attachment(id))))
    }

    /// Cuts it into chunks of about so many keys.
    pub(crate) fn cut_into(&mut self, keys_per_chunk: u64) {
        self.chunks.cut_anew(keys_per_chunk, self.map.iter().map(|(key, kv)| (key, kv.value.len())));
    }

    /// How many keys there are.
    pub(crate) fn count(&self) -> usize {
        self.map.len()
    }

    /// The bounds of all chunks in order, each with its stamp.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.chunks.iter()
    }

    /// The entries from one bound up to another, or to the end.
    pub(crate) fn entries_in(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> impl Iterator<Item = (&KeyValue, Option<Attachment>)> {
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let found = self.map.range::<[u8], _>(bounds);
        found.map(|(_, kv)| (kv, kv.lease.map(|id| self.attachment(id))))
    }

    /// The leases that have keys.
    pub(crate) fn leases(&self) -> impl Iterator<Item = Attachment> {
        self.attached.iter().map(|(id, attached)| Attachment { id: *id, ttl: attached.ttl })
    }

    /// The first keys attached to a lease, at most `max`.
    pub(crate) fn keys_of(&self, lease: LeaseId, max: usize) -> Vec<Key> {
        self.attached
            .get(&lease)
            .map_or(Vec::new(), |attached| attached.keys.iter().take(max).cloned().collect())
    }

    fn attachment(&self, id: LeaseId) -> Attachment {
        Attachment { id, ttl: self.attached.get(&id).map_or(Duration::ZERO, |attached| attached.ttl) }
    }

    fn in_range(&self, range: &KeyRange) -> impl Iterator<Item = &KeyValue> {
        (!range.is_empty())
            .then(|| self.map.range::<[u8], _>(range.bounds()))
            .into_iter()
            .flatten()
            .map(|(_, kv)| kv)
    }

    /// Whether a compare holds.
    pub(crate) fn holds(&self, compare: &Compare) -> bool {
        let kv = self.get(&compare.key);
        match &compare.test {
            Test::ModRevision(revision) => kv.map_or(Revision::NONE, |kv| kv.mod_revision) == *revision,
            Test::CreateRevision(revision) => kv.map_or(Revision::NONE, |kv| kv.create_revision) == *revision,
            Test::Value(value) => kv.is_some_and(|kv| kv.value == *value),
            Test::Present => kv.is_some(),
        }
    }

    /// Whether applying it would change anything.
    pub(crate) fn changes(&self, record: &Record) -> bool {
        !record.puts.is_empty() || record.deletes.iter().any(|range| self.in_range(range).next().is_some())
    }

    /// Bytes of the state once the puts are done, its deletes not counted.
    pub(crate) fn bytes_with(&self, puts: &[Put]) -> u64 {
        let old = |put: &Put| self.get(&put.key).map_or(0, |kv| entry_bytes(&kv.key, &kv.value));
        let (plus, minus) = puts
            .iter()
            .fold((0, 0), |(plus, minus), put| (plus + entry_bytes(&put.key, &put.value), minus + old(put)));
        self.bytes + plus - minus
    }

    /// Applies the record of the next revision.
    ///
    /// # Panics
    /// When it is another revision's: order is the caller's duty.
    pub(crate) fn apply(&mut self, record: Record) {
        assert_eq!(record.revision, self.revision.next(), "records are applied in order, without a gap");
        let mut changes = Vec::with_capacity(record.puts.len());
        for range in &record.deletes {
            let keys: Vec<Key> = self.in_range(range).map(|kv| kv.key.clone()).collect();
            for key in keys {
                let old = self.remove(&key);
                changes.push(Change { key, revision: record.revision, old, new: None });
            }
        }
        for put in record.puts {
            let old = self.remove(&put.key);
            let new = KeyValue {
                key: put.key,
                value: put.value,
                create_revision: old.as_ref().map_or(record.revision, |kv| kv.create_revision),
                mod_revision: record.revision,
                version: old.as_ref().map_or(0, |kv| kv.version) + 1,
                lease: put.lease.map(|lease| lease.id),
            };
            changes.push(Change {
                key: new.key.clone(),
                revision: record.revision,
                old,
                new: Some(new.clone()),
            });
            self.insert(new, put.lease);
        }
        self.revision = record.revision;
        self.history.push(changes);
    }

    /// Puts an entry into the map; the key is absent.
    pub(crate) fn insert(&mut self, kv: KeyValue, lease: Option<Attachment>) {
        self.bytes += entry_bytes(&kv.key, &kv.value);
        if let Some(lease) = lease {
            let attached = self.attached.entry(lease.id).or_default();
            if attached.ttl < lease.ttl {
                // All its keys tell of it.
                attached.ttl = lease.ttl;
                attached.keys.iter().for_each(|key| self.chunks.touch(key));
            }
            attached.keys.insert(kv.key.clone());
        }
        self.chunks.put(&kv.key, kv.value.len());
        self.map.insert(kv.key.clone(), kv);
    }

    fn remove(&mut self, key: &Key) -> Option<KeyValue> {
        let old = self.map.remove(key)?;
        self.chunks.remove(key);
        self.bytes -= entry_bytes(key, &old.value);
        if let Some(id) = old.lease
            && let Some(attached) = self.attached.get_mut(&id)
        {
            attached.keys.remove(key);
            if attached.keys.is_empty() {
                self.attached.remove(&id);
            }
        }
        Some(old)
    }

    /// Reads a page at a revision: the newest map with the history undone back to it.
    pub(crate) fn page(&self, range: &KeyRange, limit: usize, at: Option<Revision>) -> Result<Page> {
        let at = at.unwrap_or(self.revision);
        if at > self.revision {
            let context = format!("revision {at} is in the future, the newest is {}", self.revision);
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let undone = self.history.undo(range, at)?;
        let unchanged = self.in_range(range).filter(|kv| !undone.contains_key(kv.key.as_bytes())).peekable();
        let mut unchanged = unchanged;
        let mut undone = undone.values().copied().flatten().peekable();
        let mut page = Page { kvs: Vec::new(), revision: at, more: false };
        let mut bytes = 0;
        loop {
            let take_undone = match (unchanged.peek(), undone.peek()) {
                (None, None) => return Ok(page),
                (Some(unchanged), Some(undone)) => undone.key < unchanged.key,
                (unchanged, _) => unchanged.is_none(),
            };
            let kv = if take_undone { undone.next() } else { unchanged.next() };
            let kv = kv.expect("it was peeked");
            bytes += kv.key.as_bytes().len() + kv.value.len();
            let full = page.kvs.len() >= limit.min(RANGE_KEYS_MAX) || bytes > RANGE_BYTES_MAX;
            if full && !page.kvs.is_empty() {
                page.more = true;
                return Ok(page);
            }
            page.kvs.push(kv.clone());
        }
    }

    /// What a watch of `range` that has seen everything up to `cursor` gets now.
    pub(crate) fn events(&self, range: &KeyRange, cursor: Revision, enough: usize) -> Result<Found> {
        self.history.events(range, cursor, enough, self.revision)
    }

    /// Predicate `derived_agrees`: byte count and lease index are what the map says, and revisions are in order.
    pub(crate) fn derived_agrees(&self) -> bool {
        let bytes: u64 = self.map.values().map(|kv| entry_bytes(&kv.key, &kv.value)).sum();
        let leased = self.map.values().filter(|kv| kv.lease.is_some()).count();
        let indexed: usize = self.attached.values().map(|attached| attached.keys.len()).sum();
        let attached = |kv: &KeyValue| {
            kv.lease.is_none_or(|id| {
                self.attached.get(&id).is_some_and(|attached| attached.keys.contains(&kv.key))
            })
        };
        let sound = |kv: &KeyValue| {
            kv.create_revision > Revision::EMPTY
                && kv.create_revision <= kv.mod_revision
                && kv.mod_revision <= self.revision
                && kv.version >= 1
        };
        bytes == self.bytes
            && leased == indexed
            && self.attached.values().all(|attached| !attached.keys.is_empty())
            && self.map.iter().all(|(key, kv)| *key == kv.key && attached(kv) && sound(kv))
    }
}
