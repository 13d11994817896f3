//! Reading a journal back: the union of what the reachable members hold.

use std::collections::{BTreeMap, BTreeSet};

use proto::{Request, Response, SegmentId, Transport};
use units::{Epoch, MediumId, Seq};

use crate::format::{earlier_version, version};
use crate::reader::{Batch, Cursor, Reader, ask};
use crate::{
    Backlog, BacklogAt, Ensemble, LiveSegment, Record, Registered, SegmentHeader, Start, Tail, Told,
};

/// Why a journal cannot be recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverErrorKind {
    /// More is lost or damaged than the ensemble tolerates: acknowledged writes would be missing.
    Lost,
    /// The media that are there cannot tell whether acknowledged writes would be missing.
    TooFewMedia,
    /// The journal is of an earlier format than this program writes.
    Format,
}

/// A journal cannot be recovered from the media that are there.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the journal cannot be recovered: {reason}")]
pub struct RecoverError {
    /// What to do about it.
    pub kind: RecoverErrorKind,
    /// What is lost.
    pub reason: String,
}

impl RecoverError {
    pub(crate) fn format(medium: MediumId, found: u16) -> Self {
        let known = version();
        let reason = format!(
            "medium {medium} holds a journal of format {found}, and this program knows format {known} alone: use the \
             version of holdfast that wrote it"
        );
        Self { kind: RecoverErrorKind::Format, reason }
    }
}

/// What the journal says.
#[derive(Debug)]
pub struct Recovered {
    /// The segments that hold uncovered records, the newest last: a new stream takes them over.
    pub live: Vec<LiveSegment>,
    /// Highest epoch found on any medium.
    pub epoch: Epoch,
    /// The newest start record.
    pub start: Start,
    /// Up to where the checkpoint and the backlog tell what happened.
    pub told: Told,
    /// The backlog, where a start record has it.
    pub backlog: Backlog,
    /// By seq: writes, holes and cuts that no commit covers, commits, deletions, metadata and checkpoints that are not told,
    /// and everything else in the newest segment.
    pub records: Vec<(Seq, Record)>,
    /// The last batch, which may be on fewer media than its ensemble: the new stream carries it in its first start.
    pub tail: Option<Tail>,
    /// Seq of the next record.
    pub next_seq: Seq,
    /// All segments found, of this and older streams, by medium: those that are not in `live` are to be freed when a
    /// new stream has taken over.
    pub segments: Vec<(MediumId, SegmentId)>,
}

/// Reads the newest stream from `media`, which take nothing from its writer any more. `registered` is what is known of it
/// outside the journal. `None` when there is no journal: a new site.
///
/// # Errors
/// [`RecoverErrorKind::Lost`] when records that may have been acknowledged are on no medium that is there;
/// [`RecoverErrorKind::TooFewMedia`] when no member of a registered ensemble is: the newest records may be there alone, and
/// the writer may go on there.
pub async fn recover(
    transport: &dyn Transport,
    media: &[MediumId],
    key: &[u8; 32],
    registered: &Registered,
) -> Result<Option<Recovered>, RecoverError> {
    tell(transport, media, key, registered, &mut Losses::Fatal).await
}

/// Reads what is left of a journal that [`recover`] cannot read: goes by the newest start record that is sound, and on past
/// every batch and segment that is not. Gives what is lost besides, one sentence each.
pub async fn salvage(
    transport: &dyn Transport,
    media: &[MediumId],
    key: &[u8; 32],
    registered: &Registered,
) -> (Option<Recovered>, Vec<String>) {
    let mut losses = Losses::Noted(Vec::new());
    let recovered = tell(transport, media, key, registered, &mut losses).await;
    match losses {
        Losses::Noted(noted) => (recovered.ok().flatten(), noted),
        Losses::Fatal => (None, Vec::new()),
    }
}

/// What a loss does.
enum Losses {
    /// It ends the recovery.
    Fatal,
    /// It is noted, and what is left is told.
    Noted(Vec<String>),
}

impl Losses {
    fn meet(&mut self, error: RecoverError) -> Result<(), RecoverError> {
        match self {
            Self::Fatal => Err(error),
            Self::Noted(noted) => {
                noted.push(error.reason);
                Ok(())
            }
        }
    }
}

async fn tell(
    transport: &dyn Transport,
    media: &[MediumId],
    key: &[u8; 32],
    registered: &Registered,
    losses: &mut Losses,
) -> Result<Option<Recovered>, RecoverError> {
    let (found, told) = list(transport, media, key).await?;
    let mut witness = registered.last;
    if let Err(error) = require_each(&registered.ensembles, &told) {
        losses.meet(error)?;
    }
    let reader = Reader { transport, key };
    for (id, place) in found.iter().rev() {
        if let Some(last) = witness.take_if(|last| *id < *last) {
            losses.meet(lost(format!(
                "segment {} of incarnation {:016x} (epoch {}) was in use and is on none of the media that are there",
                last.number, last.stream.0, last.epoch.0
            )))?;
        }
        let mut cursor = Cursor::new(*id, &place.holders, place.slot_bytes);
        let story = match reader.batch(&mut cursor).await {
            Ok(Some(first)) => recover_from(&reader, &found, (*id, cursor), first, losses).await.map(Some),
            // Never acknowledged: its start is durable nowhere. The stream went on elsewhere, or ended before.
            Ok(None) if Some(*id) != witness => Ok(None),
            Ok(None) => {
                let reason =
                    format!("the start of segment {} is damaged on every medium that is there", id.number);
                Err(lost(reason))
            }
            Err(error) => Err(error),
        };
        match story {
            Ok(Some(recovered)) => return Ok(Some(recovered)),
            Ok(None) => {}
            Err(error) => {
                losses.meet(error)?;
                witness = None;
            }
        }
    }
    if let Some(last) = witness {
        losses.meet(lost(format!("no segment of incarnation {:016x} is on any medium", last.stream.0)))?;
    }
    Ok(None)
}

/// Goes by the start record of segment `id`, the newest; `first` is the batch it is in.
async fn recover_from(
    reader: &Reader<'_>,
    found: &Found,
    (id, mut cursor): (SegmentId, Cursor),
    first: Batch,
    losses: &mut Losses,
) -> Result<Recovered, RecoverError> {
    let carried = Tail::of_start(&first.payload);
    let mut records = first.records.into_iter();
    let Some((next, Record::Start(start))) = records.next() else {
        return Err(lost(format!("segment {} does not begin with a start record", id.number)));
    };
    let tail: Vec<(Seq, Record)> = records.collect();
    let first_seq = tail.first().map_or(next, |(seq, _)| *seq);
    let (newest, next_seq, last) = rest(reader, &mut cursor, next, losses).await?;
    // A segment may be gone once a commit covers it, be it one behind the start record.
    let commits = newest.iter().filter_map(|(_, record)| match record {
        Record::Commit(commit) => Some(commit.covered),
        _ => None,
    });
    let covered = commits.fold(start.covered, Seq::max);
    let this = LiveSegment { epoch: id.epoch, stream: id.stream, number: id.number, first_seq };
    // The same of what is told by a checkpoint or a backlog.
    let mut told = Told::by(&start, this);
    newest.iter().for_each(|(_, record)| told.found(record));
    let needed = covered.min(told.before);

    let mut live: Vec<LiveSegment> = start.live.iter().copied().chain([this]).collect();
    let mut records = Vec::new();
    let mut keep = Vec::new();
    for (i, segment) in live.iter().enumerate() {
        let end = live.get(i + 1).map_or(next_seq, |next| next.first_seq);
        let stays = end > needed || told.is_in(*segment);
        keep.push(stays);
        if stays && *segment != this {
            records.extend(older(reader, found, segment, end, losses).await?);
        }
    }
    let backlog = match (&told.backlog, start.backlog.clone()) {
        (BacklogAt::Start(segment), BacklogAt::Here(backlog)) if *segment == this => backlog,
        (BacklogAt::Start(segment), _) => earlier_backlog(reader, found, segment, losses).await?,
        _ => Backlog::default(),
    };
    // What is told is not told again by records from before it.
    records.extend(tail);
    records.retain(|(_, record)| !matches!(record, Record::Row(_) | Record::Start(_)));
    records.extend(newest);
    records.retain(|(seq, record)| is_needed(*seq, record, covered, told.before));
    let mut keep = keep.into_iter();
    live.retain(|_| keep.next().unwrap_or(true));
    // The start was never acknowledged for certain: what it carries is carried on.
    let tail = last.or(carried).filter(|_| live.last() == Some(&this));
    Ok(Recovered {
        live,
        tail,
        told,
        backlog,
        epoch: found.keys().map(|id| id.epoch).max().unwrap_or_default(),
        start: *start,
        records,
        next_seq,
        segments: found.iter().flat_map(|(id, f)| f.holders.iter().map(|m| (*m, *id))).collect(),
    })
}

/// Whether a record says what neither a commit covers nor a checkpoint or backlog tells.
fn is_needed(seq: Seq, record: &Record, covered: Seq, told: Seq) -> bool {
    match record {
        Record::Write { .. } | Record::Hole { .. } | Record::Cut(_) => seq >= covered,
        Record::Row(_) | Record::Start(_) => true,
        Record::Meta { .. }
        | Record::Commit(_)
        | Record::Delete(_)
        | Record::Checkpoint(_)
        | Record::Backlog(_) => seq >= told,
    }
}

/// The backlog in the start record of a segment before the newest.
async fn earlier_backlog(
    reader: &Reader<'_>,
    found: &Found,
    segment: &LiveSegment,
    losses: &mut Losses,
) -> Result<Backlog, RecoverError> {
    let none = Place::default();
    let place = found.get(&segment.id()).unwrap_or(&none);
    let mut cursor = Cursor::new(segment.id(), &place.holders, place.slot_bytes);
    let first = reader.batch(&mut cursor).await.ok().flatten();
    let start = first.and_then(|batch| match batch.records.into_iter().next() {
        Some((_, Record::Start(start))) => Some(start.backlog),
        _ => None,
    });
    if let Some(BacklogAt::Here(backlog)) = start {
        return Ok(backlog);
    }
    let reason = format!(
        "the start of segment {}, which tells of commits and metadata, is damaged or missing on every medium that is there",
        segment.number
    );
    losses.meet(lost(reason))?;
    Ok(Backlog::default())
}

/// The records of a segment before `end`. All of them were acknowledged, so all must be found.
async fn older(
    reader: &Reader<'_>,
    found: &Found,
    live: &LiveSegment,
    end: Seq,
    losses: &mut Losses,
) -> Result<Vec<(Seq, Record)>, RecoverError> {
    let none = Place::default();
    let place = found.get(&live.id()).unwrap_or(&none);
    let mut cursor = Cursor::new(live.id(), &place.holders, place.slot_bytes);
    let mut records = Vec::new();
    let mut next = live.first_seq;
    let mut is_behind = false;
    while next < end {
        let batch = reader.batch(&mut cursor).await.and_then(|batch| {
            let reason = || {
                format!(
                    "records {} to {} of segment {} are damaged or missing on every medium that is there",
                    next.0,
                    end.0 - 1,
                    live.number
                )
            };
            batch.ok_or_else(|| lost(reason()))
        });
        let Batch { header, records: of_batch, .. } = match batch {
            Ok(batch) => batch,
            Err(error) => {
                losses.meet(error)?;
                if !cursor.pass_damage() {
                    return Ok(records);
                }
                is_behind = true;
                continue;
            }
        };
        // A start record counts for nothing; the tail behind it does.
        let begins = of_batch.iter().find(|(_, record)| !matches!(record, Record::Start(_)));
        let begins = begins.map_or(header.first_seq, |(seq, _)| *seq);
        if begins != next && !std::mem::take(&mut is_behind) {
            losses.meet(jump(live.number, next, begins))?;
        }
        next = header.end_seq();
        records.extend(of_batch.into_iter().filter(|(seq, _)| *seq < end));
    }
    Ok(records)
}

/// Everything behind the start record of the newest segment, and the seq behind it.
async fn rest(
    reader: &Reader<'_>,
    cursor: &mut Cursor,
    first: Seq,
    losses: &mut Losses,
) -> Result<(Vec<(Seq, Record)>, Seq, Option<Tail>), RecoverError> {
    let mut records = Vec::new();
    let mut next = first;
    let mut last = None;
    let mut is_behind = false;
    loop {
        let batch = match reader.batch(cursor).await {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(error) => {
                losses.meet(error)?;
                if !cursor.pass_damage() {
                    break;
                }
                is_behind = true;
                continue;
            }
        };
        if batch.header.first_seq != next && !std::mem::take(&mut is_behind) {
            losses.meet(jump(batch.header.segment.number, next, batch.header.first_seq))?;
        }
        next = batch.header.end_seq();
        records.extend(batch.records);
        last =
            Some(Tail { first: batch.header.first_seq, count: batch.header.records, payload: batch.payload });
    }
    Ok((records, next, last))
}

/// A member of each of `ensembles` must be among those that told what they hold: every acknowledged batch is on all members
/// of its segment, so then the newest segment is found.
fn require_each(ensembles: &[Ensemble], told: &BTreeSet<MediumId>) -> Result<(), RecoverError> {
    let is_unknown = |ensemble: &&Ensemble| !ensemble.members().iter().any(|medium| told.contains(medium));
    let unknown: Vec<String> = ensembles.iter().filter(is_unknown).map(ToString::to_string).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "the newest records may be on these media alone, and of each group one must be there: {}",
        unknown.join("; ")
    );
    Err(RecoverError { kind: RecoverErrorKind::TooFewMedia, reason })
}

type Found = BTreeMap<SegmentId, Place>;

#[derive(Debug, Clone, Default)]
struct Place {
    slot_bytes: u32,
    holders: Vec<MediumId>,
}

/// The segments on `media`, and which of these told.
async fn list(
    transport: &dyn Transport,
    media: &[MediumId],
    key: &[u8; 32],
) -> Result<(Found, BTreeSet<MediumId>), RecoverError> {
    let answers =
        seam::join_all(media.iter().map(|medium| ask(transport, *medium, Request::SegmentList))).await;
    let (mut found, mut told) = (Found::new(), BTreeSet::new());
    for (medium, answer) in media.iter().zip(answers) {
        let Ok(Response::Segments(pages)) = answer else { continue };
        told.insert(*medium);
        if let Some(earlier) = pages.iter().find_map(|page| earlier_version(page.as_ref())) {
            return Err(RecoverError::format(*medium, earlier));
        }
        for header in pages.iter().filter_map(|page| SegmentHeader::decode(page.as_ref(), key).ok()) {
            let place = found.entry(header.id).or_default();
            place.slot_bytes = header.slot_bytes;
            if !place.holders.contains(medium) {
                place.holders.push(*medium);
            }
        }
    }
    Ok((found, told))
}

fn jump(number: u32, from: Seq, to: Seq) -> RecoverError {
    lost(format!("segment {number} jumps from seq {} to {}", from.0, to.0))
}

pub(crate) fn lost(reason: String) -> RecoverError {
    RecoverError { kind: RecoverErrorKind::Lost, reason }
}
