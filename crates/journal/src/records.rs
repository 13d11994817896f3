//! Records and what a start record carries.
//!
//! ```text
//!  record    | kind u8 | zero 3 | body bytes u32 | body |
//!  write     disk u64 | lba u64 | fingerprint 16 | sealed unit
//!  hole      disk u64 | lba u64 | blocks u64
//!  meta      fingerprint 16 | sealed unit
//!  commit, checkpoint, backlog, row, cut, delete, start: postcard
//!  tail      first seq u64 | records u32 | zero u32 | records
//! ```
//! Kind 8 (reference to a durable block) is reserved. A start record takes no seq; it opens the first
//! batch of its segment, which holds nothing else but, in the first segment of a stream, a tail: the last batch of
//! the stream before, word for word, with the seqs it had. Only that batch may be on fewer media than its ensemble.

use container::HeadPlace;
use proto::SegmentId;
use serde::{Deserialize, Serialize};
use units::{Address, ContainerId, DiskId, Epoch, Fingerprint, Incarnation, Lba, MediumId, Seq};

use crate::{JournalFormatError, Start};

const WRITE: u8 = 1;
const HOLE: u8 = 2;
const META: u8 = 3;
const COMMIT: u8 = 4;
const CHECKPOINT: u8 = 5;
const ROW: u8 = 6;
const CUT: u8 = 7;
const START: u8 = 9;
const TAIL: u8 = 10;
const DELETE: u8 = 11;
const BACKLOG: u8 = 12;
const TAIL_HEADER_BYTES: usize = 16;
const RECORD_HEADER_BYTES: usize = 8;

/// A container became part of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The container.
    pub container: ContainerId,
    /// Bytes of the container.
    pub total: u32,
    /// Directory entries.
    pub entries: u32,
    /// Bytes of the sealed map log; 0 when there is none.
    pub map_log_bytes: u32,
    /// Name of the map log.
    pub map_log: Fingerprint,
    /// Count of commits of the site: their order.
    pub ordinal: u64,
    /// Every record before this seq is now covered by committed containers.
    pub covered: Seq,
    /// Blocks of guest data in it.
    pub blocks: u32,
    /// Bytes of their sealed units.
    pub block_bytes: u64,
}

impl Commit {
    /// Where the parts of the container's head lie.
    pub fn place(&self) -> HeadPlace {
        HeadPlace { total: self.total, entries: self.entries, map_log_bytes: self.map_log_bytes }
    }
}

/// One piece of what is sealed in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaPiece {
    /// Name of the piece.
    pub fingerprint: Fingerprint,
    /// Where it lies.
    pub address: Address,
}

/// Bytes in the log, sealed in pieces: the address of one piece leads to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its piece: the bytes themselves, or a list of pieces.
    pub piece: MetaPiece,
    /// Lists on the way from the root's piece to the bytes; 0 when it is the bytes.
    pub levels: u8,
}

/// A checkpoint: the maps, the metadata and the ledger up to a commit stand in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointPointer {
    /// Count of checkpoints of the site, from 1.
    pub number: u64,
    /// The checkpoint object.
    pub root: Root,
    /// Commits with a lower ordinal are in it.
    pub commits_before: u64,
    /// Metadata records with a seq below this are in it.
    pub meta_before: Seq,
    /// Every commit, deletion and metadata record with a seq below this is in it.
    pub told: Seq,
}

/// What no checkpoint has yet stands in the log, so that the journal's segments can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogPointer {
    /// The [`Backlog`].
    pub root: Root,
    /// Number of the checkpoint that it stands behind; 0 before the first.
    pub behind: u64,
    /// Every commit, deletion and metadata record with a seq below this is in the checkpoint or in it.
    pub told: Seq,
}

/// A row of the layout: which media hold the fragments of a container. Of two records of a row the higher version
/// counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// Geometry class.
    pub class: u8,
    /// Row of the class.
    pub row: u16,
    /// Count of the row's changes.
    pub version: u32,
    /// Media by fragment index. None: the row is retired, and no container names it.
    pub members: Vec<MediumId>,
    /// While fragments move: the media they move to, by fragment index; those that stay are the same in both.
    pub target: Vec<MediumId>,
}

impl Row {
    /// A row as it begins.
    pub fn new(class: u8, row: u16, members: Vec<MediumId>) -> Self {
        Self { class, row, version: 0, members, target: Vec::new() }
    }

    /// Whether fragments move.
    pub fn is_moving(&self) -> bool {
        !self.target.is_empty()
    }

    /// Whether no container names it, nor ever will.
    pub fn is_retired(&self) -> bool {
        self.members.is_empty()
    }

    /// The media where a fragment may be: where it was, and where it moves to.
    pub fn places(&self, index: usize) -> impl Iterator<Item = MediumId> {
        let to = self.target.get(index).filter(|to| self.members.get(index) != Some(to));
        self.members.get(index).into_iter().chain(to).copied()
    }

    /// The next version with other media.
    #[must_use]
    pub fn changed(&self, members: Vec<MediumId>, target: Vec<MediumId>) -> Self {
        Self { version: self.version + 1, members, target, ..self.clone() }
    }
}

/// A container that is no part of the site any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The container.
    pub container: ContainerId,
    /// Bytes it had.
    pub total: u32,
    /// Blocks of guest data it had.
    pub blocks: u32,
}

/// A disk that begins as another is at a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The disk that is there.
    pub source: DiskId,
    /// The disk that begins.
    pub target: DiskId,
}

/// A segment that still holds records no container covers: of this stream or of one it took over from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSegment {
    /// Order of its incarnation.
    pub epoch: Epoch,
    /// Its stream.
    pub stream: Incarnation,
    /// Count within the stream.
    pub number: u32,
    /// Seq of its first record.
    pub first_seq: Seq,
}

impl LiveSegment {
    /// Its id.
    pub fn id(&self) -> SegmentId {
        SegmentId { epoch: self.epoch, stream: self.stream, number: self.number }
    }
}

/// The committed containers of one incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRun {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Ranges of numbers, end exclusive, in order, neither overlapping nor touching.
    pub committed: Vec<(u32, u32)>,
}

/// A record read from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A block was written.
    Write {
        /// The disk.
        disk: DiskId,
        /// The block.
        lba: Lba,
        /// Name of the block.
        fingerprint: Fingerprint,
        /// Its sealed unit.
        unit: Vec<u8>,
    },
    /// Blocks became holes.
    Hole {
        /// The disk.
        disk: DiskId,
        /// First block.
        lba: Lba,
        /// Number of blocks.
        count: u64,
    },
    /// A record of the metadata store.
    Meta {
        /// Name of the record.
        fingerprint: Fingerprint,
        /// Its sealed unit.
        unit: Vec<u8>,
    },
    /// A container became part of the site.
    Commit(Commit),
    /// A checkpoint was taken.
    Checkpoint(CheckpointPointer),
    /// What no checkpoint has yet was written to the log.
    Backlog(BacklogPointer),
    /// A row joined the layout.
    Row(Row),
    /// The instant at which disks begin as others are: behind all records before it and before all behind it.
    Cut(Vec<Fork>),
    /// Containers are deleted: their fragments may go.
    Delete(Vec<Deleted>),
    /// The start of a segment.
    Start(Box<Start>),
}

/// A record to be appended. Units are shared with the write buffer, not copied.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A block was written.
    Write {
        /// The disk.
        disk: DiskId,
        /// The block.
        lba: Lba,
        /// Name of the block.
        fingerprint: Fingerprint,
        /// Its sealed unit.
        unit: bytes::Bytes,
    },
    /// Blocks became holes.
    Hole {
        /// The disk.
        disk: DiskId,
        /// First block.
        lba: Lba,
        /// Number of blocks.
        count: u64,
    },
    /// A record of the metadata store.
    Meta {
        /// Name of the record.
        fingerprint: Fingerprint,
        /// Its sealed unit.
        unit: bytes::Bytes,
    },
    /// A container became part of the site.
    Commit(Commit),
    /// A checkpoint was taken.
    Checkpoint(CheckpointPointer),
    /// What no checkpoint has yet was written to the log.
    Backlog(BacklogPointer),
    /// A row joined the layout.
    Row(Row),
    /// The instant at which disks begin as others are.
    Cut(Vec<Fork>),
    /// Containers are deleted.
    Delete(Vec<Deleted>),
}

impl Entry {
    /// Bytes of the encoded record.
    pub fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES
            + match self {
                Self::Write { unit, .. } => 32 + unit.len(),
                Self::Hole { .. } => 24,
                Self::Meta { unit, .. } => 16 + unit.len(),
                Self::Commit(commit) => postcard_bytes(commit).len(),
                Self::Checkpoint(pointer) => postcard_bytes(pointer).len(),
                Self::Backlog(pointer) => postcard_bytes(pointer).len(),
                Self::Row(row) => postcard_bytes(row).len(),
                Self::Cut(forks) => postcard_bytes(forks).len(),
                Self::Delete(deleted) => postcard_bytes(deleted).len(),
            }
    }

    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Write { disk, lba, fingerprint, unit } => {
                header(out, WRITE, 32 + unit.len());
                out.extend_from_slice(&disk.0.to_le_bytes());
                out.extend_from_slice(&lba.0.to_le_bytes());
                out.extend_from_slice(&fingerprint.0);
                out.extend_from_slice(unit);
            }
            Self::Hole { disk, lba, count } => {
                header(out, HOLE, 24);
                for field in [disk.0, lba.0, *count] {
                    out.extend_from_slice(&field.to_le_bytes());
                }
            }
            Self::Meta { fingerprint, unit } => {
                header(out, META, 16 + unit.len());
                out.extend_from_slice(&fingerprint.0);
                out.extend_from_slice(unit);
            }
            Self::Commit(commit) => postcard_record(out, COMMIT, commit),
            Self::Checkpoint(pointer) => postcard_record(out, CHECKPOINT, pointer),
            Self::Backlog(pointer) => postcard_record(out, BACKLOG, pointer),
            Self::Row(row) => postcard_record(out, ROW, row),
            Self::Cut(forks) => postcard_record(out, CUT, forks),
            Self::Delete(deleted) => postcard_record(out, DELETE, deleted),
        }
    }
}

impl Start {
    /// Appends the start record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        postcard_record(out, START, self);
    }
}

fn postcard_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain values always encode")
}

fn postcard_record<T: Serialize>(out: &mut Vec<u8>, kind: u8, value: &T) {
    let body = postcard_bytes(value);
    header(out, kind, body.len());
    out.extend_from_slice(&body);
}

fn header(out: &mut Vec<u8>, kind: u8, body: usize) {
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&(body as u32).to_le_bytes());
}

/// The last batch of the stream before, carried in the first batch of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Seq of its first record.
    pub(crate) first: Seq,
    /// Records in it.
    pub(crate) count: u32,
    /// The records, encoded.
    pub(crate) payload: Vec<u8>,
}

impl Tail {
    /// Appends the tail record to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        header(out, TAIL, TAIL_HEADER_BYTES + self.payload.len());
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.payload);
    }

    /// The tail in the payload of a segment's first batch; `None` when it carries none.
    pub(crate) fn of_start(payload: &[u8]) -> Option<Self> {
        let (_, _, rest) = split_record(payload).ok()?;
        match split_record(rest).ok()? {
            (TAIL, body, _) => Self::decode(body).ok(),
            _ => None,
        }
    }

    fn decode(body: &[u8]) -> Result<Self, JournalFormatError> {
        let (fields, payload) =
            body.split_first_chunk::<TAIL_HEADER_BYTES>().ok_or_else(|| bad("a tail is cut short"))?;
        if fields[12..] != [0; 4] {
            return Err(bad("a tail makes no sense"));
        }
        let count = word(&fields[8..12]) as u32;
        Ok(Self { first: Seq(word(&fields[..8])), count, payload: payload.to_vec() })
    }
}

/// Reads the records of a batch whose MAC is verified; `first` is the seq of the first and `count` how many there are.
/// The first batch of a segment gives its start record, then the records of the tail it carries under their own seqs.
///
/// # Errors
/// When the payload does not decode: the writer was wrong, or the key is known to an attacker.
pub fn decode_records(
    first: Seq,
    count: u32,
    payload: &[u8],
) -> Result<Vec<(Seq, Record)>, JournalFormatError> {
    match split_record(payload) {
        Ok((START, body, rest)) if count == 0 => {
            let mut records = vec![(first, Record::Start(Box::new(from_postcard(body)?)))];
            if !rest.is_empty() {
                let (TAIL, body, []) = split_record(rest)? else {
                    return Err(bad("more than a tail follows a start"));
                };
                let tail = Tail::decode(body)?;
                if tail.first.0.checked_add(u64::from(tail.count)) != Some(first.0) {
                    return Err(bad("a tail ends at another seq than its segment begins"));
                }
                records.extend(decode_plain(tail.first, tail.count, &tail.payload)?);
            }
            Ok(records)
        }
        _ => decode_plain(first, count, payload),
    }
}

fn decode_plain(first: Seq, count: u32, payload: &[u8]) -> Result<Vec<(Seq, Record)>, JournalFormatError> {
    if first.0.checked_add(u64::from(count)).is_none() {
        return Err(bad("the seq overflows"));
    }
    let mut rest = payload;
    let mut records = Vec::new();
    while !rest.is_empty() {
        if records.len() as u64 >= u64::from(count) {
            return Err(bad("there are more records than the header says"));
        }
        let (record, behind) = decode_record(rest)?;
        rest = behind;
        records.push((first.plus(records.len() as u64), record));
    }
    if records.len() as u64 == u64::from(count) {
        Ok(records)
    } else {
        Err(bad("the number of records is wrong"))
    }
}

fn split_record(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), JournalFormatError> {
    let (head, rest) =
        bytes.split_first_chunk::<RECORD_HEADER_BYTES>().ok_or_else(|| bad("it is cut short"))?;
    let [kind, 0, 0, 0, l0, l1, l2, l3] = *head else { return Err(bad("its header makes no sense")) };
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let (body, rest) = rest.split_at_checked(length).ok_or_else(|| bad("its body is cut short"))?;
    Ok((kind, body, rest))
}

fn decode_record(bytes: &[u8]) -> Result<(Record, &[u8]), JournalFormatError> {
    let (kind, body, rest) = split_record(bytes)?;
    let record = match kind {
        WRITE => {
            let (fields, unit) = body.split_first_chunk::<32>().ok_or_else(|| bad("a write is cut short"))?;
            Record::Write {
                disk: DiskId(word(&fields[..8])),
                lba: Lba(word(&fields[8..16])),
                fingerprint: name(&fields[16..]),
                unit: unit.to_vec(),
            }
        }
        HOLE => {
            let fields: &[u8; 24] = body.try_into().map_err(|_| bad("a hole has the wrong length"))?;
            Record::Hole {
                disk: DiskId(word(&fields[..8])),
                lba: Lba(word(&fields[8..16])),
                count: word(&fields[16..]),
            }
        }
        META => {
            let (fp, unit) =
                body.split_first_chunk::<16>().ok_or_else(|| bad("a meta record is cut short"))?;
            Record::Meta { fingerprint: name(fp), unit: unit.to_vec() }
        }
        COMMIT => Record::Commit(from_postcard(body)?),
        CHECKPOINT => Record::Checkpoint(from_postcard(body)?),
        BACKLOG => Record::Backlog(from_postcard(body)?),
        ROW => Record::Row(from_postcard(body)?),
        CUT => Record::Cut(from_postcard(body)?),
        DELETE => Record::Delete(from_postcard(body)?),
        START | TAIL => return Err(bad("it belongs in the first batch of a segment")),
        _ => return Err(bad("it has an unknown kind")),
    };
    Ok((record, rest))
}

fn from_postcard<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, JournalFormatError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(bad("its body does not decode")),
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn name(bytes: &[u8]) -> Fingerprint {
    let mut fp = Fingerprint::default();
    fp.0.copy_from_slice(&bytes[..16]);
    fp
}

fn bad(reason: &'static str) -> JournalFormatError {
    JournalFormatError { what: "journal record", reason }
}
