//! A disk as the machine sees it: it lives on when processes die, and the harness does to it what it likes.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use media::{IN_FLIGHT_MAX, MediaError, MediaErrorKind, Result};
use seam::Rt;
use tokio::sync::Semaphore;
use units::{PAGE, PageBuf};

use crate::executor::Control;
use crate::rng::MILLION;

use super::SimMedium;
use super::faults::{FaultKind, Injection, Latency, Op};
use super::image::{ALL_SECTORS, Image, Piece, pieces_of};
use super::state::{GONE, OutcomeCell, StoreState, Work};

const PAGE_U64: u64 = PAGE as u64;

struct Shared {
    name: String,
    len: u64,
    state: Mutex<StoreState>,
}

/// A simulated disk. Clones are handles on the same disk.
#[derive(Clone)]
pub struct SimStore {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for SimStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimStore({})", self.shared.name)
    }
}

/// What is being done, for errors.
#[derive(Debug, Clone, Copy)]
struct What(&'static str, u64, u64);

/// A read that was taken in.
pub(super) struct Read {
    pub(super) wait: Duration,
    pub(super) fault: Option<FaultKind>,
}

/// Another operation that was taken in.
pub(super) struct Ticket {
    pub(super) wait: Duration,
    what: What,
    outcome: OutcomeCell,
}

impl SimStore {
    /// An empty disk of `len` bytes.
    ///
    /// # Panics
    /// When `len` is not a multiple of [`PAGE`].
    pub fn new(control: &Control, name: &str, len: u64) -> Self {
        Self::from_image(control, name, Image::new(len))
    }

    /// A disk that holds `image`, all of it durable.
    pub fn from_image(control: &Control, name: &str, image: Image) -> Self {
        let len = image.len();
        let state = Mutex::new(StoreState::new(control.clone(), name, image));
        Self { shared: Arc::new(Shared { name: name.to_owned(), len, state }) }
    }

    /// Opens it for the process behind `rt`. A failed sync before this is forgotten.
    ///
    /// # Errors
    /// `Busy` while it is open elsewhere, `Gone` while the disk is gone.
    pub fn open(&self, rt: Rt) -> Result<SimMedium> {
        let mut state = self.lock();
        state.settle();
        if state.gone {
            return Err(self.error(What("open", 0, 0), GONE));
        }
        if state.held {
            let held = (MediaErrorKind::Busy, "held by another process");
            return Err(self.error(What("open", 0, 0), held));
        }
        state.held = true;
        state.failing = false;
        state.opening += 1;
        Ok(SimMedium {
            store: self.clone(),
            rt,
            opening: state.opening,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        })
    }

    /// Path-like name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.shared.len
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.shared.len == 0
    }

    /// The process that holds it is killed: each write in flight happens or not; handles left over find it gone.
    /// Dropping the last handle does the same.
    pub fn kill(&self) {
        self.lock().release();
    }

    /// The machine loses power: each unsynced write, completed or in flight, survives whole, is lost, or is torn.
    /// Kill the processes of the machine first; handles left over find it gone.
    pub fn power_cut(&self) {
        self.lock().power_cut();
    }

    /// Takes the disk away (every operation fails with `Gone`) or brings it back.
    pub fn set_gone(&self, gone: bool) {
        let mut state = self.lock();
        state.settle();
        state.gone = gone;
    }

    /// What reads see now.
    pub fn image(&self) -> Image {
        let mut state = self.lock();
        state.settle();
        state.current.clone()
    }

    /// Flips bit `bit` of the disk (bit 0 of byte 0 is bit 0).
    ///
    /// # Panics
    /// When it lies beyond the end.
    pub fn flip_bit(&self, bit: u64) {
        self.lock().flip_bit(bit);
    }

    /// Flips a random bit of a random page in use that begins in `bytes`; says which bit, or `None` when none is.
    pub fn rot_random(&self, bytes: Range<u64>) -> Option<u64> {
        let mut state = self.lock();
        state.settle();
        let used: Vec<u64> = state
            .current
            .allocated_in(bytes.start.div_ceil(PAGE_U64)..bytes.end.div_ceil(PAGE_U64))
            .collect();
        let page = *used.get(state.rng.index(used.len()))?;
        let bit = page * PAGE_U64 * 8 + state.rng.below(PAGE_U64 * 8);
        state.flip_bit(bit);
        Some(bit)
    }

    /// Makes the pages of `bytes` unreadable until each is written again.
    pub fn spoil(&self, bytes: Range<u64>) {
        self.lock().spoil(bytes.start / PAGE_U64..bytes.end.div_ceil(PAGE_U64));
    }

    /// `fault` strikes `ppm` in a million operations from now on.
    ///
    /// # Panics
    /// When `fault` is of a kind that happens by itself.
    pub fn set_rate(&self, fault: FaultKind, ppm: u32) {
        self.lock().faults.set_rate(fault, ppm);
    }

    /// One fault at one chosen operation.
    ///
    /// # Panics
    /// When the fault is of a kind that happens by itself.
    pub fn inject(&self, injection: Injection) {
        self.lock().faults.inject(injection);
    }

    /// No rates, no injections: from now on the disk is sound and as fast as its latency says.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.faults.slow_percent = 100;
    }

    /// How often `fault` has struck.
    pub fn fired(&self, fault: FaultKind) -> u64 {
        self.lock().faults.fired(fault)
    }

    /// Sets how long operations take.
    ///
    /// # Panics
    /// When `min`, `max` and `rare_max` are not in ascending order.
    pub fn set_latency(&self, latency: Latency) {
        assert!(latency.min <= latency.max && latency.max <= latency.rare_max, "latencies must ascend");
        self.lock().faults.latency = latency;
    }

    /// Multiplies every latency: 100 is the usual, 5000 a dying disk.
    pub fn set_slow_percent(&self, percent: u32) {
        self.lock().faults.slow_percent = percent;
    }

    /// Of the writes that survive a power cut, how many in a million are torn.
    pub fn set_torn_ppm(&self, ppm: u32) {
        self.lock().torn_ppm = ppm.min(MILLION);
    }

    /// How many bytes can be in use before writes to new pages find no room; `None`: all.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_pages = bytes.map(|bytes| bytes / PAGE_U64);
    }

    pub(super) fn room(&self) -> u64 {
        let mut state = self.lock();
        state.settle();
        // Counting takes long, and most media have room for all.
        let Some(pages) = state.capacity_pages else { return u64::MAX };
        pages.saturating_sub(state.pages_taken()) * PAGE_U64
    }

    pub(super) fn close(&self, opening: u64) {
        let mut state = self.lock();
        if state.held && state.opening == opening {
            state.release();
        }
    }

    pub(super) fn submit_read(&self, opening: u64, offset: u64, length: usize) -> Result<Read> {
        let what = What("read", offset, length as u64);
        let mut state = self.begin(opening, what)?;
        let StoreState { rng, faults, .. } = &mut *state;
        let fault = faults.draw(rng, Op::Read, offset..offset + length as u64);
        let wait = faults.draw_latency(rng);
        Ok(Read { wait, fault })
    }

    pub(super) fn complete_read(
        &self,
        opening: u64,
        offset: u64,
        length: usize,
        fault: Option<FaultKind>,
    ) -> Result<PageBuf> {
        let what = What("read", offset, length as u64);
        let mut state = self.begin(opening, what)?;
        let pages = offset / PAGE_U64..(offset + length as u64) / PAGE_U64;
        let unreadable = state.is_unreadable(pages);
        if unreadable {
            state.faults.count(FaultKind::ReadError);
        }
        if unreadable || fault == Some(FaultKind::ReadError) {
            state.trace(6, offset, u64::MAX);
            return Err(self.error(what, (MediaErrorKind::Io, "input/output error")));
        }
        let mut out = PageBuf::zeroed(length);
        state.look(offset, out.as_mut());
        if fault == Some(FaultKind::WrongRead) && length > 0 {
            let bit = state.rng.index(length * 8);
            out.as_mut()[bit / 8] ^= 1 << (bit % 8);
        }
        state.trace(6, offset, u64::from(units::crc32c(out.as_ref())));
        Ok(out)
    }

    pub(super) fn submit_write(
        &self,
        opening: u64,
        offset: u64,
        bytes: &[u8],
        durable: bool,
    ) -> Result<Ticket> {
        let what = What("write", offset, bytes.len() as u64);
        let mut state = self.begin(opening, what)?;
        let StoreState { rng, faults, .. } = &mut *state;
        let fault = faults.draw(rng, Op::Write, offset..offset + bytes.len() as u64);
        let work = Work::Write { pieces: pieces_of(offset, bytes), durable };
        let (wait, outcome) = state.submit(work, fault);
        Ok(Ticket { wait, what, outcome })
    }

    /// Gives back each page in use or not, by the seed: contents after a discard are undefined.
    pub(super) fn submit_discard(&self, opening: u64, offset: u64, length: u64) -> Result<Ticket> {
        let what = What("discard", offset, length);
        let mut state = self.begin(opening, what)?;
        let all = state.rng.coin();
        let StoreState { rng, current, .. } = &mut *state;
        let pages = current.allocated_in(offset / PAGE_U64..(offset + length) / PAGE_U64);
        let pieces = pages
            .filter(|_| all || rng.coin())
            .map(|page| Piece { page, bytes: None, sectors: ALL_SECTORS })
            .collect();
        let StoreState { rng, faults, .. } = &mut *state;
        let wait = faults.draw_discard(rng);
        let (wait, outcome) = state.submit_for(wait, Work::Write { pieces, durable: false }, None);
        Ok(Ticket { wait, what, outcome })
    }

    pub(super) fn reserve(&self, opening: u64, offset: u64, length: u64) -> Result<()> {
        let what = What("reserve", offset, length);
        let mut state = self.begin(opening, what)?;
        let pages = offset / PAGE_U64..(offset + length) / PAGE_U64;
        state.reserve(pages).map_err(|refusal| self.error(what, refusal))
    }

    pub(super) fn submit_sync(&self, opening: u64) -> Result<Ticket> {
        let what = What("sync", 0, 0);
        let mut state = self.begin(opening, what)?;
        let StoreState { rng, faults, .. } = &mut *state;
        let fault = faults.draw(rng, Op::Sync, 0..0);
        let covers = state.landed();
        let (wait, outcome) = state.submit(Work::Sync { covers }, fault);
        Ok(Ticket { wait, what, outcome })
    }

    pub(super) fn complete(&self, opening: u64, ticket: &Ticket) -> Result<()> {
        let state = self.begin(opening, ticket.what)?;
        drop(state);
        match ticket.outcome.get() {
            Some(Ok(())) => Ok(()),
            Some(Err(failure)) => Err(self.error(ticket.what, *failure)),
            None => Err(self.error(ticket.what, GONE)),
        }
    }

    /// The state, settled, for an operation of a living opening on sound bounds.
    fn begin(&self, opening: u64, what: What) -> Result<MutexGuard<'_, StoreState>> {
        let What(_, offset, length) = what;
        let aligned = offset.is_multiple_of(PAGE_U64) && length.is_multiple_of(PAGE_U64);
        if !aligned || offset.checked_add(length).is_none_or(|end| end > self.shared.len) {
            return Err(self.error(what, (MediaErrorKind::Invalid, "out of bounds or not aligned")));
        }
        let mut state = self.lock();
        state.settle();
        if state.gone || !state.held || state.opening != opening {
            state.faults.count(FaultKind::Gone);
            return Err(self.error(what, GONE));
        }
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, StoreState> {
        // A panic under the lock ends the simulation; its tasks still want to close what they hold.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, what: What, (kind, reason): (MediaErrorKind, &str)) -> MediaError {
        let What(verb, offset, length) = what;
        MediaError {
            kind,
            medium: self.shared.name.clone(),
            operation: format!("{verb} at {offset}, {length} bytes"),
            reason: reason.to_owned(),
        }
    }
}
