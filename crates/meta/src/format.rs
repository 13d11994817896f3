//! The two encodings: records and checkpoints. The one place that knows them.
//!
//! Both are little postcard: numbers are varints (7 bits a byte, low first), byte strings carry their length.
//!
//! ```text
//! record       | 0x01 version | 0x00 Txn | revision | puts: count, {key, value, lease}.. | deletes: count, {start, end}.. |
//! checkpoint   | "HFMC" | 0x01 version | revision | count | {key, value, create, mod, version, lease}.. in key order     |
//! lease        | 0 |  or  | 1 | id | time to live in seconds |          end of a range   | 0 |  or  | 1 | bytes |
//! ```
//!
//! Why this order: the version first, so that a later reader knows what it holds; the revision next, so that a record
//! older than the checkpoint is known by its first bytes. A delete is kept as a range, not as the keys it hit: the
//! record stays small however many they are, and replay on the same state hits the same keys. Nothing here proves
//! integrity: records and checkpoints are sealed by whoever keeps them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::key::{Key, KeyRange};
use crate::limits::{
    LEASE_TTL_MAX, LEASE_TTL_MIN, RECORD_BYTES_MAX, REVISION_MAX, TXN_OPS_MAX, VALUE_BYTES_MAX,
};
use crate::state::{Attachment, Put, Record, State};
use crate::store::{KeyValue, LeaseId, Revision};
use crate::txn::{Op, check_ops};

const RECORD_VERSION: u8 = 1;
const CHECKPOINT_MAGIC: &[u8; 4] = b"HFMC";
const CHECKPOINT_VERSION: u8 = 1;

/// A byte string, borrowed from the input.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Bytes)
    }
}

#[derive(Serialize, Deserialize)]
enum WireRecord<'a> {
    Txn {
        revision: u64,
        #[serde(borrow)]
        puts: Vec<WirePut<'a>>,
        #[serde(borrow)]
        deletes: Vec<WireRange<'a>>,
    },
}

#[derive(Serialize, Deserialize)]
struct WireLease {
    id: u64,
    ttl_s: u32,
}

#[derive(Serialize, Deserialize)]
struct WirePut<'a> {
    #[serde(borrow)]
    key: Bytes<'a>,
    #[serde(borrow)]
    value: Bytes<'a>,
    lease: Option<WireLease>,
}

#[derive(Serialize, Deserialize)]
struct WireRange<'a> {
    #[serde(borrow)]
    start: Bytes<'a>,
    #[serde(borrow)]
    end: Option<Bytes<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireHead {
    revision: u64,
    count: u64,
}

#[derive(Serialize, Deserialize)]
struct WireEntry<'a> {
    #[serde(borrow)]
    key: Bytes<'a>,
    #[serde(borrow)]
    value: Bytes<'a>,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
    lease: Option<WireLease>,
}

impl<'a> WirePut<'a> {
    fn of(put: &'a Put) -> Self {
        Self { key: Bytes(put.key.as_bytes()), value: Bytes(&put.value), lease: put.lease.map(WireLease::of) }
    }
}

impl<'a> WireRange<'a> {
    fn of(range: &'a KeyRange) -> Self {
        Self { start: Bytes(range.start()), end: range.end().map(Bytes) }
    }
}

impl WireLease {
    fn of(lease: Attachment) -> Self {
        let ttl_s = u32::try_from(lease.ttl.as_secs()).unwrap_or(u32::MAX);
        Self { id: lease.id.0, ttl_s }
    }

    fn read(&self) -> Result<Attachment> {
        let ttl = Duration::from_secs(u64::from(self.ttl_s));
        if self.id == 0 || self.id > LeaseId::MAX || ttl < LEASE_TTL_MIN || ttl > LEASE_TTL_MAX {
            return Err(Error::corrupt(format!("lease {} of {} s cannot be", self.id, self.ttl_s)));
        }
        Ok(Attachment { id: LeaseId(self.id), ttl })
    }
}

fn revision(number: u64) -> Result<Revision> {
    if !(Revision::EMPTY.0..=REVISION_MAX).contains(&number) {
        return Err(Error::corrupt(format!("revision {number} cannot be")));
    }
    Ok(Revision(number))
}

fn key(bytes: Bytes<'_>) -> Result<Key> {
    Key::new(bytes.0).map_err(|error| Error::corrupt(error.context))
}

fn append(out: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, out).expect("plain structs of known length always encode")
}

fn malformed(what: &str, error: &postcard::Error) -> Error {
    Error::corrupt(format!("{what} is malformed: {error}"))
}

/// The bytes of a record, at most [`RECORD_BYTES_MAX`].
pub(crate) fn encode_record(record: &Record) -> Vec<u8> {
    let wire = WireRecord::Txn {
        revision: record.revision.0,
        puts: record.puts.iter().map(WirePut::of).collect(),
        deletes: record.deletes.iter().map(WireRange::of).collect(),
    };
    let bytes = append(vec![RECORD_VERSION], &wire);
    assert!(bytes.len() <= RECORD_BYTES_MAX, "a checked transaction fits a record");
    bytes
}

/// Reads a record.
///
/// # Errors
/// `Corrupt`: malformed, beyond a limit, of an unknown version, or with bytes behind its end.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<Record> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(Error::corrupt(format!("record of {} bytes, more than {RECORD_BYTES_MAX}", bytes.len())));
    }
    let body = match bytes {
        [RECORD_VERSION, body @ ..] => body,
        [version, ..] => return Err(Error::corrupt(format!("record of unknown version {version}"))),
        [] => return Err(Error::corrupt("record is empty")),
    };
    let (WireRecord::Txn { revision: number, puts, deletes }, rest) =
        postcard::take_from_bytes(body).map_err(|error| malformed("record", &error))?;
    if !rest.is_empty() {
        return Err(Error::corrupt(format!("{} bytes behind the end of a record", rest.len())));
    }
    if puts.len() + deletes.len() > TXN_OPS_MAX {
        return Err(Error::corrupt(format!("record of {} puts, {} deletes", puts.len(), deletes.len())));
    }
    let mut record =
        Record { revision: revision(number)?, puts: Vec::with_capacity(puts.len()), deletes: Vec::new() };
    let mut ops = Vec::with_capacity(puts.len() + deletes.len());
    for put in &puts {
        let lease = put.lease.as_ref().map(WireLease::read).transpose()?;
        let put = Put { key: key(put.key)?, value: put.value.0.into(), lease };
        ops.push(Op::Put { key: put.key.clone(), value: put.value.clone(), lease: None });
        record.puts.push(put);
    }
    for range in &deletes {
        let range = KeyRange::new(range.start.0, range.end.map(|end| end.0.to_vec()));
        ops.push(Op::Delete(range.clone()));
        record.deletes.push(range);
    }
    // The same rules as before it was written.
    check_ops(&ops).map_err(|error| Error::corrupt(format!("record {number}: {}", error.context)))?;
    Ok(record)
}

/// The bytes of a checkpoint. The same entries give the same bytes.
pub(crate) fn encode_checkpoint(revision: Revision, entries: &[(KeyValue, Option<Attachment>)]) -> Vec<u8> {
    encode_entries(encode_head(revision, entries.len() as u64), entries)
}

/// What a checkpoint of so many entries begins with.
pub(crate) fn encode_head(revision: Revision, count: u64) -> Vec<u8> {
    let mut out = CHECKPOINT_MAGIC.to_vec();
    out.push(CHECKPOINT_VERSION);
    append(out, &WireHead { revision: revision.0, count })
}

/// Entries, behind what is there.
pub(crate) fn encode_entries(mut out: Vec<u8>, entries: &[(KeyValue, Option<Attachment>)]) -> Vec<u8> {
    for (kv, lease) in entries {
        let entry = WireEntry {
            key: Bytes(kv.key.as_bytes()),
            value: Bytes(&kv.value),
            create_revision: kv.create_revision.0,
            mod_revision: kv.mod_revision.0,
            version: kv.version,
            lease: lease.map(WireLease::of),
        };
        out = append(out, &entry);
    }
    out
}

/// Reads a checkpoint into a state. Takes memory in proportion to the bytes given, whatever count they claim.
///
/// # Errors
/// `Corrupt`: malformed, out of order, beyond a limit, of an unknown version, or with bytes behind its end.
pub(crate) fn decode_checkpoint(bytes: &[u8], events_max: usize, bytes_max: usize) -> Result<State> {
    let body = match bytes.strip_prefix(CHECKPOINT_MAGIC) {
        Some([CHECKPOINT_VERSION, body @ ..]) => body,
        Some([version, ..]) => {
            return Err(Error::corrupt(format!("checkpoint of unknown version {version}")));
        }
        _ => return Err(Error::corrupt("not a checkpoint of the metadata store")),
    };
    let (head, mut rest) =
        postcard::take_from_bytes::<WireHead>(body).map_err(|error| malformed("checkpoint", &error))?;
    let mut state = State::begin_at(revision(head.revision)?, events_max, bytes_max);
    let mut last: Option<Key> = None;
    for _ in 0..head.count {
        let (entry, behind) = postcard::take_from_bytes::<WireEntry>(rest)
            .map_err(|error| malformed("checkpoint entry", &error))?;
        rest = behind;
        let (kv, lease) = read_entry(&entry, state.revision())?;
        if last.as_ref().is_some_and(|last| *last >= kv.key) {
            return Err(Error::corrupt(format!("checkpoint entry {} is out of order", kv.key)));
        }
        last = Some(kv.key.clone());
        state.insert(kv, lease);
    }
    if !rest.is_empty() {
        return Err(Error::corrupt(format!("{} bytes behind the end of a checkpoint", rest.len())));
    }
    Ok(state)
}

fn read_entry(entry: &WireEntry<'_>, newest: Revision) -> Result<(KeyValue, Option<Attachment>)> {
    let lease = entry.lease.as_ref().map(WireLease::read).transpose()?;
    let kv = KeyValue {
        key: key(entry.key)?,
        value: entry.value.0.into(),
        create_revision: revision(entry.create_revision)?,
        mod_revision: revision(entry.mod_revision)?,
        version: entry.version,
        lease: lease.map(|lease| lease.id),
    };
    let in_order = Revision::EMPTY < kv.create_revision
        && kv.create_revision <= kv.mod_revision
        && kv.mod_revision <= newest
        && kv.version >= 1
        && kv.version <= kv.mod_revision.0 - kv.create_revision.0 + 1;
    if !in_order || kv.value.len() > VALUE_BYTES_MAX {
        return Err(Error::corrupt(format!("checkpoint entry {} cannot be", kv.key)));
    }
    Ok((kv, lease))
}

#[cfg(test)]
mod tests;
