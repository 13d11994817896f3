//! What a store knows, and what happens to its writes: landing, syncing, surviving.
//!
//! A write is **in flight** until its time comes, then it **lands**: reads see it (`current`), a power cut may undo
//! it (`unsynced`). A sync moves the writes that had landed before it into `durable`. Whatever is due happens when
//! the store is next touched ([`StoreState::settle`]), whether or not anybody still waits for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use media::MediaErrorKind;
use units::PAGE;

use crate::digest::Event;
use crate::executor::Control;
use crate::rng::{MILLION, Rng};

use super::faults::{FaultKind, Faults};
use super::image::{ALL_SECTORS, Image, Page, Piece, flip, merge};

/// Landed writes kept unsynced; beyond it the oldest become durable, as a disk's own cache writes back.
const UNSYNCED_MAX: usize = 65_536;
/// Of the writes that survive a power cut, how many in a million are torn, unless set otherwise.
const TORN_PPM: u32 = 333_333;

/// How an operation ended.
pub(super) type Outcome = std::result::Result<(), (MediaErrorKind, &'static str)>;
/// Where the one who waits for an operation finds its outcome.
pub(super) type OutcomeCell = Arc<OnceLock<Outcome>>;

pub(super) const GONE: (MediaErrorKind, &str) = (MediaErrorKind::Gone, "the medium is gone or was closed");
const FAILED: (MediaErrorKind, &str) = (MediaErrorKind::Io, "input/output error");
const UNSYNCED: (MediaErrorKind, &str) = (MediaErrorKind::Io, "an earlier sync failed: reopen the medium");
const FULL: (MediaErrorKind, &str) = (MediaErrorKind::NoSpace, "no space left");

pub(super) enum Work {
    Write { pieces: Vec<Piece>, durable: bool },
    Sync { covers: u64 },
}

/// An operation in flight.
pub(super) struct Pending {
    pub(super) work: Work,
    pub(super) fault: Option<FaultKind>,
    pub(super) outcome: OutcomeCell,
}

/// A write that reads see and a power cut may undo.
struct Landed {
    number: u64,
    pieces: Vec<Piece>,
}

pub(super) struct StoreState {
    pub(super) control: Control,
    /// Tells stores apart in the digest.
    pub(super) id: u64,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) current: Image,
    pub(super) capacity_pages: Option<u64>,
    /// Pages whose room is taken, written or not.
    reserved: BTreeSet<u64>,
    pub(super) opening: u64,
    pub(super) held: bool,
    pub(super) gone: bool,
    pub(super) failing: bool,
    pub(super) torn_ppm: u32,
    durable: Image,
    unsynced: VecDeque<Landed>,
    landed: u64,
    pending: BTreeMap<(Duration, u64), Pending>,
    submitted: u64,
    /// Pages that cannot be read until they are written again.
    unreadable: BTreeSet<u64>,
}

impl StoreState {
    pub(super) fn new(control: Control, name: &str, image: Image) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..8]);
        let rng = control.rng(name);
        Self {
            control,
            id: u64::from_le_bytes(id),
            rng,
            faults: Faults::new(),
            durable: image.clone(),
            current: image,
            capacity_pages: None,
            reserved: BTreeSet::new(),
            opening: 0,
            held: false,
            gone: false,
            failing: false,
            torn_ppm: TORN_PPM,
            unsynced: VecDeque::new(),
            landed: 0,
            pending: BTreeMap::new(),
            submitted: 0,
            unreadable: BTreeSet::new(),
        }
    }

    pub(super) fn trace(&self, what: u64, a: u64, b: u64) {
        self.control.trace_words(Event::Medium, &[self.id, what, a, b]);
    }

    /// Takes an operation in; returns how long it takes and where its outcome will be.
    pub(super) fn submit(&mut self, work: Work, fault: Option<FaultKind>) -> (Duration, OutcomeCell) {
        let wait = self.faults.draw_latency(&mut self.rng);
        self.submit_for(wait, work, fault)
    }

    /// As [`StoreState::submit`], of an operation that takes so long.
    pub(super) fn submit_for(
        &mut self,
        wait: Duration,
        work: Work,
        fault: Option<FaultKind>,
    ) -> (Duration, OutcomeCell) {
        let outcome = OutcomeCell::default();
        self.submitted += 1;
        let due = self.control.now().saturating_add(wait);
        self.pending.insert((due, self.submitted), Pending { work, fault, outcome: outcome.clone() });
        (wait, outcome)
    }

    /// Everything due by now happens, in order.
    pub(super) fn settle(&mut self) {
        let now = self.control.now();
        while let Some(entry) = self.pending.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let Pending { work, fault, outcome } = entry.remove();
            let result = match work {
                Work::Write { pieces, durable } => self.finish_write(pieces, durable, fault),
                Work::Sync { covers } => self.finish_sync(covers, fault),
            };
            // Nobody else sets it: the operation was in the list of those in flight until now.
            let _ = outcome.set(result);
        }
    }

    /// How many writes have landed: what a sync that starts now covers.
    pub(super) fn landed(&self) -> u64 {
        self.landed
    }

    fn finish_write(&mut self, mut pieces: Vec<Piece>, durable: bool, fault: Option<FaultKind>) -> Outcome {
        let sum = pieces.iter().fold(0, |sum, piece| {
            let crc = piece.bytes.as_ref().map_or(1, |bytes| units::crc32c(&bytes[..]));
            u64::from(crc).wrapping_add(u64::rotate_left(sum, 7))
        });
        self.trace(1, pieces.first().map_or(0, |piece| piece.page), sum);
        if self.gone || self.failing {
            return Err(if self.gone { GONE } else { UNSYNCED });
        }
        match fault {
            Some(FaultKind::LostWrite) => return Ok(()),
            Some(FaultKind::MisdirectedWrite) => self.misdirect(&mut pieces),
            Some(FaultKind::WriteError) => {
                if self.rng.coin() {
                    tear(&mut self.rng, &mut pieces);
                }
                self.land(pieces);
                // A failed durable write counts as a failed sync.
                self.failing |= durable;
                return Err(FAILED);
            }
            Some(FaultKind::NoSpace) => pieces.truncate(self.rng.index(pieces.len())),
            _ => {}
        }
        let fits = self.fitting(&pieces);
        let full = fault == Some(FaultKind::NoSpace) || fits < pieces.len();
        pieces.truncate(fits);
        if durable {
            self.land_durable(&pieces);
        } else {
            self.land(pieces);
        }
        if full { Err(FULL) } else { Ok(()) }
    }

    /// Takes the room of `pages`; nothing when it is not all there.
    pub(super) fn reserve(
        &mut self,
        pages: std::ops::Range<u64>,
    ) -> std::result::Result<(), (MediaErrorKind, &'static str)> {
        let new: Vec<u64> = pages.filter(|page| !self.has_room(*page)).collect();
        let free = self.capacity_pages.map(|capacity| capacity.saturating_sub(self.pages_taken()));
        if free.is_some_and(|free| free < new.len() as u64) {
            return Err(FULL);
        }
        self.reserved.extend(new);
        Ok(())
    }

    fn has_room(&self, page: u64) -> bool {
        self.current.is_allocated(page) || self.reserved.contains(&page)
    }

    /// Pages written or reserved.
    pub(super) fn pages_taken(&self) -> u64 {
        let unwritten = self.reserved.iter().filter(|page| !self.current.is_allocated(**page));
        self.current.allocated() + unwritten.count() as u64
    }

    /// How many pieces, from the front, find room.
    fn fitting(&self, pieces: &[Piece]) -> usize {
        let Some(capacity) = self.capacity_pages else { return pieces.len() };
        let mut room = capacity.saturating_sub(self.pages_taken());
        let fits = |piece: &&Piece| {
            if piece.bytes.is_none() || self.has_room(piece.page) {
                return true;
            }
            let found = room > 0;
            room = room.saturating_sub(1);
            found
        };
        pieces.iter().take_while(fits).count()
    }

    /// Sends a write elsewhere: on data already there, when there is any.
    fn misdirect(&mut self, pieces: &mut [Piece]) {
        let pages = self.current.len() / PAGE as u64;
        let limit = pages.saturating_sub(pieces.len() as u64) + 1;
        let used = self.current.allocated_in(0..limit).count();
        let nth = self.rng.index(used);
        let victim = self.current.allocated_in(0..limit).nth(nth);
        let target = match victim {
            Some(page) if self.rng.coin() => page,
            _ => self.rng.below(limit),
        };
        for (page, piece) in (target..).zip(pieces) {
            piece.page = page;
        }
    }

    fn land(&mut self, pieces: Vec<Piece>) {
        for piece in pieces.iter().filter(|piece| piece.sectors != 0) {
            self.current.apply(piece);
            self.unreadable.remove(&piece.page);
        }
        self.landed += 1;
        self.unsynced.push_back(Landed { number: self.landed, pieces });
        while self.unsynced.len() > UNSYNCED_MAX {
            self.sync_oldest();
        }
    }

    /// Lands a write that is durable by itself. Older unsynced writes below it can no longer come back.
    fn land_durable(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            self.current.apply(piece);
            self.durable.apply(piece);
            self.unreadable.remove(&piece.page);
        }
        let Some(first) = pieces.first() else { return };
        for piece in self.unsynced.iter_mut().flat_map(|landed| &mut landed.pieces) {
            if piece.page.checked_sub(first.page).is_some_and(|index| index < pieces.len() as u64) {
                piece.sectors = 0;
            }
        }
    }

    fn sync_oldest(&mut self) {
        if let Some(landed) = self.unsynced.pop_front() {
            landed.pieces.iter().for_each(|piece| self.durable.apply(piece));
        }
    }

    fn finish_sync(&mut self, covers: u64, fault: Option<FaultKind>) -> Outcome {
        self.trace(2, covers, u64::from(self.failing) << 1 | u64::from(self.gone));
        if self.gone || self.failing {
            return Err(if self.gone { GONE } else { UNSYNCED });
        }
        if fault.is_some() {
            self.failing = true;
            self.durable = self.survivors();
            self.current = self.durable.clone();
            self.unsynced.clear();
            return Err(FAILED);
        }
        while self.unsynced.front().is_some_and(|landed| landed.number <= covers) {
            self.sync_oldest();
        }
        Ok(())
    }

    /// What a power cut now would leave of what has landed. Each cut has a bias of its own, so that all-lost and
    /// all-kept are reached however many writes there are.
    fn survivors(&mut self) -> Image {
        let kept_ppm = self.rng.below(5) as u32 * (MILLION / 4);
        let mut image = self.durable.clone();
        for landed in &self.unsynced {
            if !self.rng.chance(kept_ppm) {
                self.faults.count(FaultKind::CutLost);
                continue;
            }
            let mut pieces = landed.pieces.clone();
            if self.rng.chance(self.torn_ppm) {
                self.faults.count(FaultKind::CutTorn);
                tear(&mut self.rng, &mut pieces);
            } else {
                self.faults.count(FaultKind::CutKept);
            }
            pieces.iter().for_each(|piece| image.apply(piece));
        }
        image
    }

    /// The writes in flight, in a seeded order; syncs in flight are forgotten. Nobody gets an outcome.
    fn take_in_flight(&mut self) -> Vec<Vec<Piece>> {
        self.settle();
        let mut writes: Vec<_> = std::mem::take(&mut self.pending)
            .into_values()
            .filter_map(|pending| match (pending.work, pending.fault) {
                (Work::Sync { .. }, _) | (_, Some(FaultKind::LostWrite)) => None,
                (Work::Write { mut pieces, .. }, fault) => {
                    if fault == Some(FaultKind::MisdirectedWrite) {
                        self.misdirect(&mut pieces);
                    }
                    let fits = self.fitting(&pieces);
                    pieces.truncate(fits);
                    Some(pieces)
                }
            })
            .collect();
        self.rng.shuffle(&mut writes);
        writes
    }

    /// The process that held the medium is gone: each write in flight lands whole, in some of its pages, or not.
    pub(super) fn release(&mut self) {
        for mut pieces in self.take_in_flight() {
            match self.rng.below(4) {
                0 | 1 => {}
                kind => {
                    for piece in &mut pieces {
                        piece.sectors = if kind == 2 || self.rng.coin() { 0 } else { ALL_SECTORS };
                    }
                    if pieces.iter().any(|piece| piece.sectors == 0) {
                        self.faults.count(FaultKind::KillLost);
                    }
                }
            }
            self.land(pieces);
        }
        self.held = false;
        self.opening += 1;
        self.trace(3, self.opening, 0);
    }

    /// The machine lost power: unsynced writes, landed or in flight, are decided.
    pub(super) fn power_cut(&mut self) {
        let in_flight = self.take_in_flight();
        in_flight.into_iter().for_each(|pieces| self.land(pieces));
        self.durable = self.survivors();
        self.current = self.durable.clone();
        self.unsynced.clear();
        self.held = false;
        self.opening += 1;
        self.trace(4, self.opening, self.current.allocated());
    }

    /// Whether a page in `pages` cannot be read.
    pub(super) fn is_unreadable(&self, pages: Range<u64>) -> bool {
        self.unreadable.range(pages).next().is_some()
    }

    pub(super) fn spoil(&mut self, pages: Range<u64>) {
        self.unreadable.extend(pages);
    }

    /// What a read sees: what has landed, and of overlapping writes in flight whatever sectors.
    pub(super) fn look(&mut self, offset: u64, out: &mut [u8]) {
        self.current.read(offset, out);
        let first = offset / PAGE as u64;
        for pending in self.pending.values().filter(|pending| pending.fault.is_none()) {
            let Work::Write { pieces, .. } = &pending.work else { continue };
            for piece in pieces {
                let index = piece.page.wrapping_sub(first) as usize;
                if let (Some(page), Some(bytes)) = (out.chunks_exact_mut(PAGE).nth(index), &piece.bytes) {
                    merge(page, bytes, self.rng.next_u64() as u8);
                }
            }
        }
    }

    /// Flips one bit wherever its page is kept.
    pub(super) fn flip_bit(&mut self, bit: u64) {
        self.settle();
        self.faults.count(FaultKind::BitFlip);
        self.trace(5, bit, 0);
        self.current.flip_bit(bit);
        self.durable.flip_bit(bit);
        let number = bit / (PAGE as u64 * 8);
        for piece in self.unsynced.iter_mut().flat_map(|landed| &mut landed.pieces) {
            if let (true, Some(page)) = (piece.page == number, &mut piece.bytes) {
                let page: &mut Page = Arc::make_mut(page);
                flip(page, bit);
            }
        }
    }
}

/// Leaves a prefix of the sectors of a write, or any of them.
fn tear(rng: &mut Rng, pieces: &mut [Piece]) {
    let sectors = pieces.len() * ALL_SECTORS.count_ones() as usize;
    let prefix = rng.coin().then(|| rng.index(sectors + 1));
    for (index, piece) in pieces.iter_mut().enumerate() {
        let mask = match prefix {
            None => rng.next_u64() as u8,
            Some(kept) => match kept.saturating_sub(index * 8) {
                left @ 0..8 => (1 << left) - 1,
                _ => ALL_SECTORS,
            },
        };
        piece.sectors &= mask;
    }
}
