//! What the journal has under way, as a plain state machine: queues, live segments, what may be written next.

use std::cmp::Ordering;
use std::collections::VecDeque;

use proto::SegmentId;
use tokio::sync::oneshot;
use units::{MediumId, Seq};

use crate::writer::{Append, JournalConfig, JournalError, JournalErrorKind};
use crate::{BATCH_HEADER_BYTES, Entry, LiveSegment, Start, Told};

/// Segments kept free for metadata, commits and checkpoints when writes have filled the rest.
const CONTROL_SEGMENTS: usize = 2;
/// Segments beyond `segments_max` that metadata may fill, so that a full site takes deletions. What makes room, and the
/// next start, find the slots behind these.
const META_SEGMENTS: usize = 4;

/// What is written before what, and what still goes when the journal fills up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Commits, rows and checkpoints: they make room, and always go.
    Control,
    /// Metadata.
    Meta,
    /// Writes and holes.
    Data,
}

impl Lane {
    /// In the order in which a batch takes from them.
    pub(crate) const ALL: [Self; 3] = [Self::Control, Self::Meta, Self::Data];

    /// With these segments in use: whether the lane's records may open another (`Less`), may only go on in the current
    /// one (`Equal`), or wait.
    fn may_go(self, live: usize, config: &JournalConfig) -> Ordering {
        match self {
            Self::Control => Ordering::Less,
            Self::Meta => live.cmp(&(config.segments_max + META_SEGMENTS)),
            Self::Data => (live + CONTROL_SEGMENTS).cmp(&config.segments_max),
        }
    }
}

type Reply = oneshot::Sender<Result<Seq, JournalError>>;

/// A record that waits for its batch.
pub(crate) struct Queued {
    pub(crate) entry: Entry,
    pub(crate) lane: Lane,
    /// On the last record of an append.
    pub(crate) reply: Option<Reply>,
    bytes: usize,
}

/// What the writer does next.
pub(crate) enum Next {
    /// Writes this batch.
    Batch(Vec<Queued>),
    /// Waits until it is woken.
    Wait,
    /// Ends: the journal was closed and nothing is queued.
    End,
}

#[derive(Default)]
pub(crate) struct State {
    lanes: [VecDeque<Queued>; 3],
    rotations: Vec<Reply>,
    /// Segments that hold uncovered records, oldest first; the newest takes records.
    pub(crate) live: Vec<LiveSegment>,
    /// The media of the live segments.
    segments: Vec<(SegmentId, Vec<MediumId>)>,
    current: Option<SegmentId>,
    to_free: Vec<(MediumId, SegmentId)>,
    pub(crate) next_seq: Seq,
    /// Up to where checkpoint and backlog tell what happened.
    pub(crate) told: Told,
    /// Why nothing more is taken in.
    refused: Option<JournalError>,
    /// The writer is through.
    pub(crate) finished: bool,
    /// The writer panicked.
    pub(crate) broken: bool,
}

impl State {
    pub(crate) fn new(config: &JournalConfig) -> Self {
        Self {
            next_seq: config.first_seq,
            told: config.told.clone(),
            live: config.inherited.iter().map(|(live, _)| *live).collect(),
            segments: config.inherited.iter().map(|(live, media)| (live.id(), media.clone())).collect(),
            ..Self::default()
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Queued> {
        &mut self.lanes[lane as usize]
    }

    /// Queues one append.
    pub(crate) fn push(&mut self, entries: Vec<Entry>, lane: Lane, config: &JournalConfig) -> Append {
        let (sender, receiver) = oneshot::channel();
        let sizes: Vec<usize> = entries.iter().map(Entry::encoded_bytes).collect();
        let refused = self.refused.clone().or_else(|| sizes.iter().find_map(|size| too_large(*size, config)));
        if refused.is_some() || entries.is_empty() {
            let _ = sender.send(refused.map_or(Ok(self.next_seq), Err));
            return receiver;
        }
        let queue = self.lane(lane);
        queue.extend(entries.into_iter().zip(sizes).map(|(entry, bytes)| Queued {
            entry,
            lane,
            reply: None,
            bytes,
        }));
        if let Some(last) = queue.back_mut() {
            last.reply = Some(sender);
        }
        receiver
    }

    /// Records that wait for a batch.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// Asks for a new segment.
    pub(crate) fn rotate(&mut self) -> Append {
        let (sender, receiver) = oneshot::channel();
        match &self.refused {
            Some(error) => drop(sender.send(Err(error.clone()))),
            None => self.rotations.push(sender),
        }
        receiver
    }

    pub(crate) fn take_rotations(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.rotations)
    }

    /// What one batch holds, where the current segment has `left` bytes. Metadata and writes wait while the journal has
    /// no room left for them, so that what makes room finds some.
    pub(crate) fn next(&mut self, config: &JournalConfig, left: usize) -> Next {
        let mut batch = Vec::new();
        let mut bytes = BATCH_HEADER_BYTES;
        let live = self.live.len();
        for lane in Lane::ALL {
            let (limit, alone) = match lane.may_go(live, config) {
                Ordering::Less => (config.batch_bytes, true),
                Ordering::Equal => (left.min(config.batch_bytes), false),
                Ordering::Greater => continue,
            };
            take(self.lane(lane), &mut batch, &mut bytes, limit, alone);
        }
        if !batch.is_empty() {
            return Next::Batch(batch);
        }
        match self.refused.clone() {
            None => Next::Wait,
            Some(error) => {
                // Nothing makes room any more for writes that wait for it.
                self.fail_queued(&error);
                Next::End
            }
        }
    }

    /// Why nothing more is taken in, when another incarnation has taken over.
    pub(crate) fn fenced(&self) -> Option<JournalError> {
        self.refused.clone().filter(|error| error.kind == JournalErrorKind::Fenced)
    }

    /// Takes nothing more in; what is queued is still written.
    pub(crate) fn refuse(&mut self, error: JournalError) {
        // That somebody has taken over outranks that it was closed.
        if self.refused.is_none() || error.kind == JournalErrorKind::Fenced {
            self.refused = Some(error);
        }
    }

    /// Fails all that is queued.
    pub(crate) fn fail_queued(&mut self, error: &JournalError) {
        let queued = self.lanes.iter_mut().flat_map(|lane| lane.drain(..)).filter_map(|queued| queued.reply);
        for reply in queued.chain(self.rotations.drain(..)) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// The least that `measure` gives for the members of a live segment; `None` without segments.
    pub(crate) fn least_of(&self, measure: &dyn Fn(&[MediumId]) -> usize) -> Option<usize> {
        self.segments.iter().map(|(_, members)| measure(members)).min()
    }

    /// Whether a live segment is on `medium`.
    pub(crate) fn is_on(&self, medium: MediumId) -> bool {
        self.segments.iter().any(|(_, members)| members.contains(&medium))
    }

    /// Segments that metadata may still open.
    pub(crate) fn segments_for_meta(&self, config: &JournalConfig) -> usize {
        (config.segments_max + META_SEGMENTS).saturating_sub(self.live.len())
    }

    /// Whether writes open no further segment.
    pub(crate) fn is_full(&self, config: &JournalConfig) -> bool {
        self.live.len() + CONTROL_SEGMENTS >= config.segments_max
    }

    /// Fails the writes that wait because the journal has no room for them.
    pub(crate) fn fail_waiting(&mut self, config: &JournalConfig, error: &JournalError) {
        if !self.is_full(config) {
            return;
        }
        for reply in self.lane(Lane::Data).drain(..).filter_map(|queued| queued.reply) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// Fails what is still queued of an append whose first part failed.
    pub(crate) fn fail_rest(&mut self, lane: Lane, error: &JournalError) {
        let queue = self.lane(lane);
        while let Some(queued) = queue.pop_front() {
            if let Some(reply) = queued.reply {
                let _ = reply.send(Err(error.clone()));
                return;
            }
        }
    }

    /// Segments whose records all lie before `covered` and are told go; never the one that takes records, nor one whose start
    /// record has the backlog.
    pub(crate) fn trim(&mut self, covered: Seq) {
        assert!(covered <= self.next_seq, "I5: trim goes no further than what was written");
        let needed = covered.min(self.told.before);
        while let Some(first) = self.live.first().copied() {
            let end = self.live.get(1).map_or(self.next_seq, |next| next.first_seq);
            if Some(first.id()) == self.current || end > needed || self.told.is_in(first) {
                break;
            }
            self.live.remove(0);
            self.release(first.id());
        }
    }

    /// How many segments stay for nothing but what no start record tells.
    pub(crate) fn untold(&self, covered: Seq) -> usize {
        let ends = self.live.iter().skip(1).map(|next| next.first_seq);
        ends.filter(|end| *end <= covered).count()
    }

    /// The start record of `segment` is durable: what it tells is told.
    pub(crate) fn begun(&mut self, start: &Start, segment: LiveSegment) {
        self.told = Told::by(start, segment);
    }

    /// The segment takes records from now on, the first of them `segment.first_seq`; one before it that got none
    /// holds nothing recovery needs.
    pub(crate) fn enlist(&mut self, segment: LiveSegment, members: &[MediumId]) {
        if let Some(last) = self.live.last().copied()
            && last.first_seq == segment.first_seq
            && !self.told.is_in(last)
        {
            self.live.pop();
            self.release(last.id());
        }
        self.live.push(segment);
        tracing::debug!(id = ?segment.id(), ?members, live = self.live.len(), "the journal goes on in a segment");
        self.segments.push((segment.id(), members.to_vec()));
        self.current = Some(segment.id());
    }

    fn release(&mut self, id: SegmentId) {
        if let Some(at) = self.segments.iter().position(|(have, _)| *have == id) {
            let (_, members) = self.segments.remove(at);
            self.give_up(id, &members);
        }
    }

    /// `members` need not keep the segment.
    pub(crate) fn give_up(&mut self, id: SegmentId, members: &[MediumId]) {
        self.to_free.extend(members.iter().map(|medium| (*medium, id)));
    }

    pub(crate) fn take_to_free(&mut self) -> Vec<(MediumId, SegmentId)> {
        std::mem::take(&mut self.to_free)
    }
}

/// A record, like any batch, takes no more than a quarter of a segment: a start and a batch always fit, and recovery
/// can carry a batch in a start.
fn too_large(bytes: usize, config: &JournalConfig) -> Option<JournalError> {
    let most = config.segment_bytes as usize / 4 - BATCH_HEADER_BYTES;
    (bytes > most).then(|| JournalError {
        kind: JournalErrorKind::NoSpace,
        reason: format!("a record of {bytes} bytes is too large: a segment takes {most}"),
    })
}

/// Moves records to the batch while they fit; with `alone`, a record larger than a batch goes by itself.
fn take(queue: &mut VecDeque<Queued>, batch: &mut Vec<Queued>, bytes: &mut usize, limit: usize, alone: bool) {
    while let Some(first) = queue.front() {
        if *bytes + first.bytes > limit && !(alone && batch.is_empty()) {
            break;
        }
        *bytes += first.bytes;
        batch.extend(queue.pop_front());
    }
}
