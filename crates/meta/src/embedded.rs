//! The embedded store: the state in RAM, one writer at a time, every change persisted before it is seen.
//!
//! A commit runs as a task of its own, holding the writer lock: a caller that gives up cannot leave a record half
//! persisted with its revision free for another.

mod expiry;
mod watch;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use seam::{BoxFuture, Rt};
use tokio::sync::{Notify, OwnedMutexGuard, oneshot, watch as broadcast};

use crate::chunks::KEYS_PER_CHUNK;
use crate::error::{Error, ErrorKind, PersistError, Result};
use crate::format::{
    decode_checkpoint, decode_record, encode_checkpoint, encode_entries, encode_head, encode_record,
};
use crate::key::{Key, KeyRange};
use crate::lease::Leases;
use crate::limits::{
    HISTORY_BYTES, HISTORY_EVENTS, KEY_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_MAX, OP_BYTES,
    RECORD_BYTES_LEAST, RECORD_BYTES_MAX, STATE_BYTES, TXN_OPS_MAX,
};
use crate::state::{Attachment, Put, Record, State};
use crate::store::{Get, KeyValue, Lease, LeaseId, Page, Revision, Store, Watch};
use crate::txn::{Op, Txn, TxnResult};

/// Where records go. The store calls it for one record at a time, in order of revision.
pub trait Persist: Send + Sync {
    /// Makes a record durable; at most [`crate::RECORD_BYTES_MAX`] bytes. Success means that every later rebuild finds
    /// it, behind all records persisted before it, unless a checkpoint at its revision or later is given too.
    ///
    /// # Errors
    /// When it is not durable, or nobody knows. The store takes no other transaction until it is rebuilt.
    fn persist(&self, record: Vec<u8>) -> BoxFuture<'_, std::result::Result<(), PersistError>>;

    /// Whether a record of at most so many bytes may be made; waits for room, within bounds. `frees` says that it only deletes.
    /// Everything may, unless told otherwise.
    ///
    /// # Errors
    /// When there is no room: the transaction is refused as [`ErrorKind::Full`], and nothing is done.
    fn admit(&self, _bytes: usize, _frees: bool) -> BoxFuture<'_, std::result::Result<(), PersistError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Keeps nothing.
struct Forgetful;

impl Persist for Forgetful {
    fn persist(&self, _record: Vec<u8>) -> BoxFuture<'_, std::result::Result<(), PersistError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Bounds of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Changes kept for watches and older reads; 65,536 unless told.
    pub history_events: usize,
    /// Bytes of these changes, old and new values counted; 32 MiB unless told.
    pub history_bytes: usize,
    /// Bytes of all keys and values and of their places in the map; 2 GiB unless told. Puts that would go beyond are
    /// refused with `Full`.
    pub state_bytes: u64,
    /// Longest record [`Persist`] takes, in bytes; [`crate::RECORD_BYTES_MAX`] unless told, and 1,152 at least.
    /// Transactions that could need a longer one are refused as invalid.
    pub record_bytes: usize,
    /// Keys of a chunk of [`Pieces`], on average; 128 unless told.
    pub keys_per_chunk: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_events: HISTORY_EVENTS,
            history_bytes: HISTORY_BYTES,
            state_bytes: STATE_BYTES,
            record_bytes: RECORD_BYTES_MAX,
            keys_per_chunk: KEYS_PER_CHUNK,
        }
    }
}

/// The whole state at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Records up to this revision are not needed beside it.
    pub revision: Revision,
    /// What [`Embedded::restore`] takes.
    pub bytes: Vec<u8>,
}

/// The whole state at one revision, cut into chunks: [`Pieces::head`] and the bytes of all chunks, one behind the other,
/// are what [`Checkpoint::bytes`] are.
#[derive(Debug)]
pub struct Pieces {
    /// Records up to this revision are not needed beside it.
    pub revision: Revision,
    /// What comes before the chunks.
    pub head: Vec<u8>,
    /// The chunks in order.
    pub chunks: Vec<Chunk>,
}

/// Neighbouring keys of a state.
#[derive(Debug)]
pub struct Chunk {
    /// Where it begins.
    pub bound: Box<[u8]>,
    /// A chunk of this bound with this stamp is of the same bytes, as long as the store is not rebuilt.
    pub stamp: u64,
    /// Its entries; `None` when its bytes are known.
    entries: Option<Vec<(KeyValue, Option<Attachment>)>>,
}

impl Chunk {
    /// Its bytes; `None` when they are known.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        Some(encode_entries(Vec::new(), self.entries.as_ref()?))
    }
}

/// The metadata store of a site without etcd. Dropping it ends its watches and its background task.
pub struct Embedded {
    core: Arc<Core>,
}

/// Only the holder may change the state.
#[derive(Default)]
struct Writer {
    /// Set while a record is on its way, and for good when nobody knows whether it arrived.
    unsettled: bool,
}

struct Core {
    rt: Rt,
    persist: Arc<dyn Persist>,
    options: Options,
    writer: Arc<tokio::sync::Mutex<Writer>>,
    state: Arc<RwLock<State>>,
    leases: Mutex<Leases>,
    /// Tells watches of each revision.
    applied: broadcast::Sender<Revision>,
    /// Tells the expiry task of new deadlines and of the end.
    wake: Arc<Notify>,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Embedded {
    /// Rebuilds the store from the last checkpoint, if there is one, and the records found in the journal, in order.
    /// Records the checkpoint covers are skipped, so it does not matter whether the journal was trimmed. Every lease
    /// that has keys starts its time anew.
    ///
    /// # Errors
    /// `Corrupt`: a checkpoint or record that cannot be decoded, a gap between revisions (it is named), or a record
    /// that does not fit the state before it.
    pub fn restore<R: AsRef<[u8]>>(
        rt: Rt,
        persist: Arc<dyn Persist>,
        options: Options,
        checkpoint: Option<&[u8]>,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Self> {
        let (store, _, trouble) = Self::salvage(rt, persist, options, checkpoint, records)?;
        trouble.map_or(Ok(store), Err)
    }

    /// [`Embedded::restore`], up to the first record that makes no sense: the store as it was before it, how many records
    /// that took, and what is wrong with the next.
    ///
    /// # Errors
    /// `Corrupt`: a checkpoint that cannot be decoded.
    pub fn salvage<R: AsRef<[u8]>>(
        rt: Rt,
        persist: Arc<dyn Persist>,
        options: Options,
        checkpoint: Option<&[u8]>,
        records: impl IntoIterator<Item = R>,
    ) -> Result<(Self, usize, Option<Error>)> {
        let mut state = base(options, checkpoint)?;
        let (mut taken, mut trouble) = (0, None);
        for bytes in records {
            match advance(&mut state, bytes.as_ref()) {
                Ok(()) => taken += 1,
                Err(error) => {
                    trouble = Some(error);
                    break;
                }
            }
        }
        Ok((Self::start(rt, persist, options, state), taken, trouble))
    }

    /// An empty store that persists nothing: for tests and the simulator.
    pub fn in_memory(rt: Rt, options: Options) -> Self {
        let state = State::empty(options.history_events, options.history_bytes);
        Self::start(rt, Arc::new(Forgetful), options, state)
    }

    /// The whole state. Its bytes depend on nothing but the state. A transaction on its way is not in it: its record
    /// has a later revision and must be kept.
    pub fn checkpoint(&self) -> Checkpoint {
        checkpoint(&self.core.state())
    }

    /// The same, cut into chunks; `known` says whether the bytes of a chunk with this bound and stamp are known. It takes
    /// time in proportion to the chunks and to what is in those that are not.
    pub fn pieces(&self, known: impl Fn(&[u8], u64) -> bool) -> Pieces {
        let state = self.core.state();
        let mut chunks: Vec<Chunk> = state
            .chunks()
            .map(|(bound, stamp)| Chunk { bound: bound.into(), stamp, entries: None })
            .collect();
        for at in 0..chunks.len() {
            let (bound, behind) = (&chunks[at].bound, chunks.get(at + 1).map(|next| &*next.bound));
            if !known(bound, chunks[at].stamp) {
                let entries = state.entries_in(bound, behind).map(|(kv, lease)| (kv.clone(), lease));
                chunks[at].entries = Some(entries.collect());
            }
        }
        let head = encode_head(state.revision(), state.count() as u64);
        Pieces { revision: state.revision(), head, chunks }
    }

    /// Whether no record is on its way: all that was persisted before is in the state.
    pub fn is_settled(&self) -> bool {
        self.core.writer.try_lock().is_ok_and(|writer| !writer.unsettled)
    }

    fn start(rt: Rt, persist: Arc<dyn Persist>, options: Options, mut state: State) -> Self {
        state.cut_into(options.keys_per_chunk);
        let record_bytes = options.record_bytes.clamp(RECORD_BYTES_LEAST, RECORD_BYTES_MAX);
        let options = Options { record_bytes, ..options };
        let mut leases = Leases::default();
        let now = rt.now();
        for lease in state.leases() {
            leases.grant(lease.id, lease.ttl, now);
        }
        let core = Arc::new(Core {
            rt: rt.clone(),
            persist,
            options,
            writer: Arc::default(),
            applied: broadcast::Sender::new(state.revision()),
            state: Arc::new(RwLock::new(state)),
            leases: Mutex::new(leases),
            wake: Arc::default(),
        });
        let task = expiry::run(Arc::downgrade(&core), core.wake.clone(), rt.clone());
        rt.spawn("meta-expiry", Box::pin(task));
        Self { core }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedded(revision {})", self.core.state().revision())
    }
}

/// The state that a checkpoint and the records behind it make.
pub(crate) fn rebuild<R: AsRef<[u8]>>(
    options: Options,
    checkpoint: Option<&[u8]>,
    records: impl IntoIterator<Item = R>,
) -> Result<State> {
    let mut state = base(options, checkpoint)?;
    for bytes in records {
        advance(&mut state, bytes.as_ref())?;
    }
    Ok(state)
}

fn base(options: Options, checkpoint: Option<&[u8]>) -> Result<State> {
    match checkpoint {
        Some(bytes) => decode_checkpoint(bytes, options.history_events, options.history_bytes),
        None => Ok(State::empty(options.history_events, options.history_bytes)),
    }
}

/// Applies an encoded record that is the next one; one that the state has already does nothing.
fn advance(state: &mut State, bytes: &[u8]) -> Result<()> {
    let record = decode_record(bytes)?;
    if record.revision <= state.revision() {
        return Ok(());
    }
    if record.revision != state.revision().next() {
        let (next, found) = (state.revision().next(), record.revision);
        return Err(Error::corrupt(format!("records are missing: revision {next} expected, {found} found")));
    }
    if !state.changes(&record) {
        return Err(Error::corrupt(format!("record {} changes nothing: not of this state", record.revision)));
    }
    state.apply(record);
    Ok(())
}

pub(crate) fn checkpoint(state: &State) -> Checkpoint {
    let entries: Vec<_> = state.entries().map(|(kv, lease)| (kv.clone(), lease)).collect();
    Checkpoint { revision: state.revision(), bytes: encode_checkpoint(state.revision(), &entries) }
}

impl Core {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("nothing panics while it changes the state")
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("nothing panics while it changes the state")
    }

    /// Between a look at the state and its answer, where that of a store of many servers is on its way.
    async fn maybe_yield(&self) {
        seam::maybe_yield(&*self.rt).await;
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().expect("nothing panics while it changes the leases")
    }

    /// Becomes the writer, in order of asking.
    async fn write(&self) -> Result<OwnedMutexGuard<Writer>> {
        let writer = self.writer.clone().lock_owned().await;
        if writer.unsettled {
            let context = "refuses writes since a record was left unsettled; rebuild it from the journal";
            return Err(Error::new(ErrorKind::Stopped, context));
        }
        Ok(writer)
    }

    /// Evaluates a transaction: whether its compares hold, and its record when it changes something. The caller is
    /// the writer, so nothing of this changes before it commits.
    fn evaluate(&self, txn: Txn) -> Result<(bool, Revision, Option<Record>)> {
        let state = self.state();
        let succeeded = txn.compares.iter().all(|compare| state.holds(compare));
        let ops = if succeeded { txn.then } else { txn.otherwise };
        let mut record = Record { revision: state.revision().next(), puts: Vec::new(), deletes: Vec::new() };
        for op in ops {
            match op {
                Op::Delete(range) => record.deletes.push(range),
                Op::Put { key, value, lease } => {
                    let lease = lease.map(|id| self.attachment(id)).transpose()?;
                    record.puts.push(Put { key, value, lease });
                }
            }
        }
        let bytes = state.bytes_with(&record.puts);
        if bytes > self.options.state_bytes && bytes > state.bytes() {
            let limit = self.options.state_bytes;
            return Err(Error::new(ErrorKind::Full, format!("{bytes} bytes of state, more than {limit}")));
        }
        let record = state.changes(&record).then_some(record);
        Ok((succeeded, state.revision(), record))
    }

    fn attachment(&self, id: LeaseId) -> Result<Attachment> {
        let ttl = self.leases().live(id, self.rt.now()).ok_or_else(|| no_lease(id))?;
        Ok(Attachment { id, ttl })
    }

    /// Persists and applies a record, in a task that outlives its caller.
    async fn commit(
        self: &Arc<Self>,
        mut writer: OwnedMutexGuard<Writer>,
        record: Record,
    ) -> Result<Revision> {
        let (answer, answered) = oneshot::channel();
        let core = self.clone();
        let revision = record.revision;
        let task = async move {
            let result = core.persist_and_apply(&mut writer, record).await;
            drop(writer);
            // Nobody listens when the caller gave up; the commit stands all the same.
            let _ = answer.send(result);
        };
        self.rt.spawn("meta-commit", Box::pin(task));
        let gone =
            |_| Err(Error::new(ErrorKind::Unknown, format!("the task that commits {revision} ended early")));
        answered.await.unwrap_or_else(gone)
    }

    async fn persist_and_apply(&self, writer: &mut Writer, record: Record) -> Result<Revision> {
        let revision = record.revision;
        // Stays set when persisting fails, panics, or is dropped half-way.
        writer.unsettled = true;
        self.persist.persist(encode_record(&record)).await.map_err(|source| Error {
            kind: ErrorKind::Unknown,
            context: format!("transaction {revision} may be in the journal or not; rebuild the store"),
            source: Some(source),
        })?;
        self.state_mut().apply(record);
        writer.unsettled = false;
        self.applied.send_replace(revision);
        Ok(revision)
    }

    /// Deletes the keys of a lease that has ended, then forgets it. May be run by several at once.
    async fn drain(self: &Arc<Self>, id: LeaseId) -> Result<()> {
        loop {
            let writer = self.write().await?;
            let each = 2 * KEY_BYTES_MAX + OP_BYTES;
            let most = (self.options.record_bytes.saturating_sub(OP_BYTES) / each).clamp(1, TXN_OPS_MAX);
            let keys = self.state().keys_of(id, most);
            if keys.is_empty() {
                self.leases().remove(id);
                return Ok(());
            }
            let revision = self.state().revision().next();
            let deletes = keys.iter().map(KeyRange::one).collect();
            self.commit(writer, Record { revision, puts: Vec::new(), deletes }).await?;
        }
    }
}

fn no_lease(id: LeaseId) -> Error {
    Error::new(ErrorKind::LeaseNotFound, format!("lease {:016x} has ended or never was", id.0))
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Get>> {
        Box::pin(async move {
            let got = {
                let state = self.core.state();
                Get { kv: state.get(key).cloned(), revision: state.revision() }
            };
            self.core.maybe_yield().await;
            Ok(got)
        })
    }

    fn range(&self, range: KeyRange, limit: usize, at: Option<Revision>) -> BoxFuture<'_, Result<Page>> {
        Box::pin(async move {
            range.check()?;
            if limit == 0 {
                return Err(Error::invalid("a range of at most 0 keys"));
            }
            let page = self.core.state().page(&range, limit, at);
            self.core.maybe_yield().await;
            page
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        Box::pin(async move {
            let (bytes, most) = (txn.check()?, self.core.options.record_bytes);
            if bytes > most {
                return Err(Error::invalid(format!("a record of {bytes} bytes, more than {most}")));
            }
            self.core.maybe_yield().await;
            let writer = self.core.write().await?;
            let (succeeded, revision, record) = self.core.evaluate(txn)?;
            let revision = match record {
                Some(record) => {
                    let frees = record.puts.is_empty();
                    self.core.persist.admit(bytes, frees).await.map_err(|source| Error {
                        kind: ErrorKind::Full,
                        context: "no room for a transaction".to_owned(),
                        source: Some(source),
                    })?;
                    self.core.commit(writer, record).await?
                }
                None => {
                    drop(writer);
                    revision
                }
            };
            self.core.maybe_yield().await;
            Ok(TxnResult { succeeded, revision })
        })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<Box<dyn Watch>>> {
        Box::pin(async move {
            range.check()?;
            let Some(cursor) = from.0.checked_sub(1) else {
                return Err(Error::invalid("a watch begins at revision 1 or later"));
            };
            let applied = self.core.applied.subscribe();
            self.core.maybe_yield().await;
            let watch = watch::Cursor::new(self.core.state.clone(), applied, range, Revision(cursor));
            Ok(Box::new(watch) as Box<dyn Watch>)
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease>> {
        Box::pin(async move {
            if !(LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&ttl) {
                return Err(Error::invalid(format!("a time to live of {ttl:?}: it is 1 second to 24 hours")));
            }
            let ttl = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
            let mut leases = self.core.leases();
            if leases.len() >= LEASES_MAX {
                return Err(Error::new(ErrorKind::Full, format!("{LEASES_MAX} leases are granted")));
            }
            let id = loop {
                let id = LeaseId(seam::random_u64(&*self.core.rt) & LeaseId::MAX);
                if id.0 != 0 && !leases.contains(id) {
                    break id;
                }
            };
            leases.grant(id, ttl, self.core.rt.now());
            drop(leases);
            self.core.wake.notify_one();
            Ok(Lease { id, ttl })
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(async move {
            let now = self.core.rt.now();
            self.core.leases().renew(lease, now).ok_or_else(|| no_lease(lease))
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // A store that refuses writes leaves the lease as it is.
            let writer = self.core.write().await?;
            let now = self.core.rt.now();
            if !self.core.leases().end(lease, now) {
                return Err(no_lease(lease));
            }
            drop(writer);
            // The expiry task finishes what a caller that gives up leaves behind.
            self.core.wake.notify_one();
            self.core.drain(lease).await
        })
    }
}
