//! What the journal has under way, as a plain state machine: queues, live segments, what may be written next.

use std::collections::VecDeque;

use proto::SegmentId;
use tokio::sync::oneshot;
use units::{MediumId, Seq};

use crate::writer::{Append, JournalConfig, JournalError, JournalErrorKind};
use crate::{BATCH_HEADER_BYTES, Entry, LiveSegment};

/// Segments kept free for commits and checkpoints, which make room, when writes have filled the rest.
const CONTROL_SEGMENTS: usize = 2;

type Reply = oneshot::Sender<Result<Seq, JournalError>>;

/// A record that waits for its batch.
pub(crate) struct Queued {
    pub(crate) entry: Entry,
    pub(crate) control: bool,
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
    control: VecDeque<Queued>,
    data: VecDeque<Queued>,
    rotations: Vec<Reply>,
    /// Segments that hold uncovered records, oldest first; the newest takes records.
    pub(crate) live: Vec<LiveSegment>,
    /// The media of the live segments.
    segments: Vec<(SegmentId, Vec<MediumId>)>,
    current: Option<SegmentId>,
    to_free: Vec<(MediumId, SegmentId)>,
    pub(crate) next_seq: Seq,
    /// Why nothing more is taken in.
    refused: Option<JournalError>,
    /// The writer is through.
    pub(crate) finished: bool,
}

impl State {
    pub(crate) fn new(config: &JournalConfig) -> Self {
        Self {
            next_seq: config.first_seq,
            live: config.inherited.iter().map(|(live, _)| *live).collect(),
            segments: config.inherited.iter().map(|(live, media)| (live.id(), media.clone())).collect(),
            ..Self::default()
        }
    }

    /// Queues one append.
    pub(crate) fn push(&mut self, entries: Vec<Entry>, control: bool, config: &JournalConfig) -> Append {
        let (sender, receiver) = oneshot::channel();
        let sizes: Vec<usize> = entries.iter().map(Entry::encoded_bytes).collect();
        let refused = self.refused.clone().or_else(|| sizes.iter().find_map(|size| too_large(*size, config)));
        if refused.is_some() || entries.is_empty() {
            let _ = sender.send(refused.map_or(Ok(self.next_seq), Err));
            return receiver;
        }
        let queue = if control { &mut self.control } else { &mut self.data };
        queue.extend(entries.into_iter().zip(sizes).map(|(entry, bytes)| Queued {
            entry,
            control,
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
        self.control.len() + self.data.len()
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

    /// What one batch holds, where the current segment has `left` bytes. Control records always go; writes wait
    /// while the journal has no room left for them, so that what makes room finds some.
    pub(crate) fn next(&mut self, config: &JournalConfig, left: usize) -> Next {
        let mut batch = Vec::new();
        let mut bytes = BATCH_HEADER_BYTES;
        take(&mut self.control, &mut batch, &mut bytes, config.batch_bytes, true);
        match (self.live.len() + CONTROL_SEGMENTS).cmp(&config.segments_max) {
            std::cmp::Ordering::Less => {
                take(&mut self.data, &mut batch, &mut bytes, config.batch_bytes, true);
            }
            // The last segment writes may fill; they do not open the next.
            std::cmp::Ordering::Equal => {
                take(&mut self.data, &mut batch, &mut bytes, left.min(config.batch_bytes), false);
            }
            std::cmp::Ordering::Greater => {}
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

    /// Takes nothing more in; what is queued is still written.
    pub(crate) fn refuse(&mut self, error: JournalError) {
        self.refused.get_or_insert(error);
    }

    /// Fails all that is queued.
    pub(crate) fn fail_queued(&mut self, error: &JournalError) {
        let queued = self.control.drain(..).chain(self.data.drain(..)).filter_map(|queued| queued.reply);
        for reply in queued.chain(self.rotations.drain(..)) {
            let _ = reply.send(Err(error.clone()));
        }
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
        for reply in self.data.drain(..).filter_map(|queued| queued.reply) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// Fails what is still queued of an append whose first part failed.
    pub(crate) fn fail_rest(&mut self, control: bool, error: &JournalError) {
        let queue = if control { &mut self.control } else { &mut self.data };
        while let Some(queued) = queue.pop_front() {
            if let Some(reply) = queued.reply {
                let _ = reply.send(Err(error.clone()));
                return;
            }
        }
    }

    /// Segments whose records all lie before `covered` go; never the one that takes records.
    pub(crate) fn trim(&mut self, covered: Seq) {
        assert!(covered <= self.next_seq, "I5: trim goes no further than what was written");
        while let Some(first) = self.live.first().copied() {
            let end = self.live.get(1).map_or(self.next_seq, |next| next.first_seq);
            if Some(first.id()) == self.current || end > covered {
                break;
            }
            self.live.remove(0);
            self.release(first.id());
        }
    }

    /// The segment takes records from now on, the first of them `segment.first_seq`; one before it that got none
    /// holds nothing recovery needs.
    pub(crate) fn enlist(&mut self, segment: LiveSegment, members: &[MediumId]) {
        if let Some(last) = self.live.last().copied()
            && last.first_seq == segment.first_seq
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
