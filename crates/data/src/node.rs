//! One medium as the data node serves it: opening, formatting, and the table log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use media::{MediaError, MediaErrorKind, Medium, State as MediumState};
use proto::{CallError, CallErrorKind, MediumInfo, Request, Response};
use units::{MediumId, PAGE, PageSlice, SiteId};

use crate::gate::{self, Gate};
use crate::layout::Layout;
use crate::load::Loader;
use crate::slots::Slots;
use crate::superblock::{PLACES, Superblock, mend_superblock, read_superblock, write_superblock};
use crate::table::{Change, FragmentKey, Table, encode_log};

/// Why a medium cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// It could not be read or written.
    Medium,
    /// The file system it is a file of has too little room.
    NoSpace,
    /// It carries no superblock.
    NotFormatted,
    /// It belongs to another site.
    ForeignSite,
    /// It is smaller than when it was formatted, or too small at all.
    TooSmall,
}

/// A medium cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{medium}: {reason}")]
pub struct OpenError {
    /// What to do about it.
    pub kind: OpenErrorKind,
    /// Path or name of the medium.
    pub medium: String,
    /// What was found and what to do next.
    pub reason: String,
}

impl OpenError {
    fn new(kind: OpenErrorKind, medium: &dyn Medium, reason: impl Into<String>) -> Self {
        Self { kind, medium: medium.name().to_owned(), reason: reason.into() }
    }
}

fn failed(medium: &dyn Medium) -> impl Fn(MediaError) -> OpenError {
    let name = medium.name().to_owned();
    move |error| OpenError {
        kind: match error.kind {
            MediaErrorKind::NoSpace => OpenErrorKind::NoSpace,
            _ => OpenErrorKind::Medium,
        },
        medium: name.clone(),
        reason: format!("{} failed: {}", error.operation, error.reason),
    }
}

/// Makes a medium part of a site: empty table, superblock last. What was on the medium is lost from the first step
/// on; a medium that was not formatted to the end carries no superblock.
///
/// # Errors
/// When the medium is too small or a write fails.
pub async fn format(medium: &dyn Medium, superblock: &Superblock) -> Result<(), OpenError> {
    let too_small = "it is too small for the journal and one container";
    let layout = Layout::new(superblock.params, superblock.medium_bytes)
        .filter(|layout| layout.end <= medium.len())
        .ok_or_else(|| OpenError::new(OpenErrorKind::TooSmall, medium, too_small))?;
    let failed = failed(medium);
    let page = PageSlice::from(units::PageBuf::zeroed(PAGE));
    for place in PLACES.into_iter().chain(gate::PLACES) {
        medium.write(place, page.clone()).await.map_err(&failed)?;
    }
    medium.sync().await.map_err(&failed)?;
    // Room that the file system below may give to others later is taken now: a start on a full one must find a slot.
    let slots_bytes = u64::from(layout.slot_count) * u64::from(layout.params.segment_bytes);
    medium.reserve(layout.slots, slots_bytes).await.map_err(&failed)?;
    for slot in 0..layout.slot_count {
        medium.write(layout.slot(slot), page.clone()).await.map_err(&failed)?;
    }
    for number in 0..u64::from(layout.params.log_pages) {
        medium.write(layout.log + number * PAGE as u64, page.clone()).await.map_err(&failed)?;
    }
    let empty = Table::new(layout.data, layout.end, layout.params.fragments_max).encode(0).share();
    for table in layout.tables {
        // Written in full once, so that no table ever finds the file system below without room.
        medium.prepare(table, layout.table_bytes).await.map_err(&failed)?;
        medium.write(table, empty.clone()).await.map_err(&failed)?;
    }
    medium.sync().await.map_err(&failed)?;
    write_superblock(medium, superblock).await.map_err(&failed)
}

fn cut_short(bytes: u64, formatted: u64) -> String {
    format!("it has {bytes} bytes, and {formatted} when it was formatted: it was cut short")
}

/// Opens a formatted medium of site `site` and reads its allocation table.
///
/// # Errors
/// When it is of another site, not formatted, shorter than it was, or cannot be read.
pub async fn open(medium: Arc<dyn Medium>, site: SiteId) -> Result<MediumNode, OpenError> {
    let superblock = read_superblock(&*medium).await.map_err(failed(&*medium))?.ok_or_else(|| {
        OpenError::new(OpenErrorKind::NotFormatted, &*medium, "it carries no Holdfast superblock")
    })?;
    if superblock.site != site {
        let reason = format!("it belongs to site {}, not to site {site}: left untouched", superblock.site);
        return Err(OpenError::new(OpenErrorKind::ForeignSite, &*medium, reason));
    }
    if medium.len() < superblock.medium_bytes {
        let reason = cut_short(medium.len(), superblock.medium_bytes);
        return Err(OpenError::new(OpenErrorKind::TooSmall, &*medium, reason));
    }
    let layout = Layout::new(superblock.params, superblock.medium_bytes)
        .ok_or_else(|| OpenError::new(OpenErrorKind::TooSmall, &*medium, "its layout makes no sense"))?;
    // The medium may be failing; it has one good copy, and the next write will tell.
    let _ = mend_superblock(&*medium, &superblock).await;
    let sealed = gate::read(&*medium).await.map_err(failed(&*medium))?.ok_or_else(|| {
        let reason = "both copies of what seals it are damaged: it cannot be told who may write to it";
        OpenError::new(OpenErrorKind::Medium, &*medium, reason)
    })?;
    let loader = Loader { medium: &*medium, id: superblock.medium, layout };
    let loaded = loader.load().await.map_err(failed(&*medium))?;
    let slots = Slots::read(&*medium, &layout).await.map_err(failed(&*medium))?;
    let first_allocation = loaded.table.next_allocation();
    let node = MediumNode {
        id: superblock.medium,
        medium: medium.clone(),
        layout,
        state: Mutex::new(State {
            table: loaded.table,
            log: loaded.log,
            pending: Vec::new(),
            first_allocation,
        }),
        checkpointing: tokio::sync::Mutex::new(()),
        time_ms: AtomicU64::new(u64::from(loaded.seconds) * 1000),
        slots: Mutex::new(slots),
        gate: Gate::new(sealed),
    };
    for which in loaded.damaged {
        tracing::warn!(medium = medium.name(), which, "an allocation table was damaged: writing it anew");
        node.write_table(which).await.map_err(failed(&*medium))?;
    }
    Ok(node)
}

#[derive(Debug)]
pub(crate) struct Log {
    /// Number of the next page.
    pub(crate) next: u64,
    /// Up to which page each of the two tables holds all changes.
    pub(crate) tables: [u64; 2],
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) table: Table,
    pub(crate) log: Log,
    /// Fragments that are on their way: in the table, not yet durable.
    pub(crate) pending: Vec<FragmentKey>,
    /// Fragments allocated before it were found when the medium was opened.
    pub(crate) first_allocation: u64,
}

/// One medium in use.
#[derive(Debug)]
pub struct MediumNode {
    pub(crate) id: MediumId,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) layout: Layout,
    pub(crate) state: Mutex<State>,
    checkpointing: tokio::sync::Mutex<()>,
    /// The highest time it was told, ms since the epoch: what locks end by.
    time_ms: AtomicU64,
    pub(crate) slots: Mutex<Slots>,
    pub(crate) gate: Gate,
}

impl MediumNode {
    /// Which medium this is.
    pub fn id(&self) -> MediumId {
        self.id
    }

    /// The medium itself.
    pub fn medium(&self) -> &Arc<dyn Medium> {
        &self.medium
    }

    /// Where things lie on it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Tells the medium the time, ms since the epoch. It never goes back.
    pub fn tell_time(&self, ms: u64) {
        self.time_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// The medium's time, ms since the epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.time_ms.load(Ordering::Relaxed)
    }

    /// Serves one request of whoever may ask for it.
    pub(crate) async fn handle(&self, request: Request) -> Result<Response, CallError> {
        match request {
            Request::SegmentOpen { id, header } => self.segment_open(id, header).await,
            Request::SegmentAppend { id, offset, bytes } => self.segment_append(id, offset, bytes).await,
            Request::SegmentList => Ok(Response::Segments(self.segments())),
            Request::SegmentRead { id, offset, length } => self.segment_read(id, offset, length).await,
            Request::SegmentFree(ids) => self.segment_free(&ids).await,
            Request::FragmentWrite { header, payload, replace } => {
                self.fragment_write(*header, payload, replace).await
            }
            Request::FragmentRead { container, index, offset, length, verify } => {
                self.fragment_read((container, index), offset, length, verify).await
            }
            Request::FragmentHeader { container, index } => {
                let (header, _) = self.fragment_header((container, index)).await?;
                Ok(Response::Header(Box::new(header)))
            }
            Request::FragmentFree(containers) => self.fragment_free(&containers).await,
            Request::FragmentLock { containers, until_ms } => self.fragment_lock(&containers, until_ms).await,
            Request::LockList { after, limit } => Ok(self.lock_list(after, limit)),
            Request::FragmentFreeAt(keys) => self.free_at(&keys).await,
            Request::FragmentList { after, limit } => {
                Ok(Response::Fragments(self.lock().table.list(after, limit as usize)))
            }
            Request::Info { extent } => {
                if extent == 0 {
                    self.probe().await?;
                }
                Ok(Response::Info(self.info(extent)))
            }
            Request::Lease => Ok(Response::Done),
            Request::Seal
            | Request::Release
            | Request::MediumList
            | Request::Format(_)
            | Request::SuperblockWrite(_) => {
                Err(self.error(CallErrorKind::Invalid, "that is not for a medium to do"))
            }
        }
    }

    /// Whether it has all its bytes, and anything can be read: one of the two copies of the superblock.
    async fn probe(&self) -> Result<(), CallError> {
        self.check_whole().map_err(|reason| self.error(CallErrorKind::Failed, reason))?;
        let Err(_) = self.medium.read(PLACES[0], PAGE).await else { return Ok(()) };
        let read = self.medium.read(PLACES[1], PAGE).await;
        read.map(drop).map_err(|error| self.error(CallErrorKind::Failed, error.to_string()))
    }

    /// Whether the medium has all its bytes; the error says what it has.
    ///
    /// # Errors
    /// When it was cut short.
    pub fn check_whole(&self) -> Result<(), String> {
        match self.medium.state() {
            MediumState::CutShort(bytes) if bytes < self.layout.end => Err(cut_short(bytes, self.layout.end)),
            _ => Ok(()),
        }
    }

    fn info(&self, extent: u64) -> MediumInfo {
        let state = self.lock();
        let slots = self.lock_slots();
        MediumInfo {
            capacity: state.table.capacity(),
            free: state.table.free_bytes(),
            free_extents: if extent == 0 { 0 } else { state.table.fitting(extent) },
            room_below: self.medium.room(),
            slots: self.layout.slot_count,
            slots_free: slots.free_count(),
            sealed: self.gate.epoch(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, valid after every statement: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn error(&self, kind: CallErrorKind, reason: impl Into<String>) -> CallError {
        CallError { kind, medium: self.id, reason: reason.into() }
    }

    pub(crate) fn media_error(&self, error: &MediaError) -> CallError {
        let kind = match error.kind {
            MediaErrorKind::NoSpace => CallErrorKind::NoSpace,
            MediaErrorKind::Invalid => CallErrorKind::Invalid,
            MediaErrorKind::Io | MediaErrorKind::Gone | MediaErrorKind::Busy | MediaErrorKind::Denied => {
                CallErrorKind::Failed
            }
        };
        self.error(kind, error.to_string())
    }

    /// A place that cannot be read is damage there, not the loss of the medium: the next write will tell.
    pub(crate) fn read_error(&self, error: &MediaError) -> CallError {
        match error.kind {
            MediaErrorKind::Io => self.error(CallErrorKind::Corrupt, error.to_string()),
            _ => self.media_error(error),
        }
    }

    /// Waits until the ring has a free page.
    pub(crate) async fn log_room(&self) -> Result<(), CallError> {
        while self.wants_checkpoint() {
            let _turn = self.checkpointing.lock().await;
            if self.wants_checkpoint() {
                self.checkpoint().await.map_err(|error| self.media_error(&error))?;
            }
        }
        Ok(())
    }

    /// The ring keeps what the older table lacks; a table at each quarter of it leaves the rest as slack. A table found
    /// much older than the other, because its last write was lost, is written before the ring runs out.
    fn wants_checkpoint(&self) -> bool {
        let log = &self.lock().log;
        let ring = u64::from(self.layout.params.log_pages);
        let [a, b] = log.tables;
        log.next - a.max(b) > ring / 4 || log.next - a.min(b) > ring * 3 / 4
    }

    /// Enters `changes` under the lock of `state`; gives where the page goes and the page.
    pub(crate) fn log_page(&self, state: &mut State, changes: &[Change]) -> (u64, PageSlice) {
        let (number, ring) = (state.log.next, u64::from(self.layout.params.log_pages));
        assert!(
            number - state.log.tables[0].min(state.log.tables[1]) <= ring,
            "the table log keeps what a table lacks"
        );
        state.log.next += 1;
        let place = self.layout.log + number % ring * PAGE as u64;
        let seconds = u32::try_from(self.now_ms() / 1000).unwrap_or(u32::MAX);
        (place, encode_log(number, changes, seconds).share())
    }

    /// Writes the whole table over the older of the two stored ones. One at a time.
    async fn checkpoint(&self) -> Result<(), MediaError> {
        let [a, b] = self.lock().log.tables;
        self.write_table(usize::from(b < a)).await
    }

    async fn write_table(&self, which: usize) -> Result<(), MediaError> {
        let (number, bytes) = {
            let state = self.lock();
            let number = state.log.next - 1;
            (number, state.table.encode(number))
        };
        self.medium.write(self.layout.tables[which], bytes.share()).await?;
        self.medium.sync().await?;
        self.lock().log.tables[which] = number;
        Ok(())
    }
}
