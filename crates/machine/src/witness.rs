//! The witness of a site: where its journal was last, outside the media.
//!
//! ```text
//!  slot A at 0, slot B at 4096, each:
//!  | "HFWS" | version u32 | generation u64 | state bytes u32 | state | CRC-32C u32 | zeros
//! ```
//! A store writes the slot that does not hold the newest state, so a torn write leaves the older one. The file is
//! written in full when the site is made; later stores allocate nothing. A file of which a write or sync failed is never
//! written again: another takes its place.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Error, Result, code};
use engine::{Witness, WitnessError, WitnessErrorKind, WitnessState};
use seam::{BoxFuture, Rt};
use tokio::sync::Mutex;
use units::crc32c;

use crate::directory;

const MAGIC: &[u8; 4] = b"HFWS";
const VERSION: u32 = 2;
/// One slot: a page, so that a torn write of one cannot touch the other.
pub(crate) const SLOT_BYTES: usize = 4096;
/// Where the state begins.
const STATE: usize = 20;
/// Longest state: one with all ensembles that may be registered.
const STATE_BYTES_MAX: usize = SLOT_BYTES - STATE - 4;

/// A slot with this generation and state.
fn encode(generation: u64, state: &WitnessState) -> Vec<u8> {
    let state = state.encode();
    assert!(state.len() <= STATE_BYTES_MAX, "a slot holds any state");
    let mut slot = MAGIC.to_vec();
    slot.extend(VERSION.to_le_bytes());
    slot.extend(generation.to_le_bytes());
    slot.extend((state.len() as u32).to_le_bytes());
    slot.extend(state);
    slot.extend(crc32c(&slot).to_le_bytes());
    slot.resize(SLOT_BYTES, 0);
    slot
}

/// Reads a slot; `None` when it is damaged or of another version.
pub(crate) fn decode(slot: &[u8]) -> Option<(u64, WitnessState)> {
    let word = |at: usize| slot.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let bytes = usize::try_from(word(16)?).ok().filter(|bytes| *bytes <= STATE_BYTES_MAX)?;
    let end = STATE + bytes;
    if slot.get(..4)? != MAGIC || word(4)? != VERSION || word(end)? != crc32c(slot.get(..end)?) {
        return None;
    }
    let generation = u64::from_le_bytes(slot.get(8..16)?.try_into().ok()?);
    Some((generation, WitnessState::decode(slot.get(STATE..end)?)?))
}

/// Makes the witness of a new site, durably; what was there goes.
pub(crate) fn make(path: &Path) -> Result<()> {
    let mut bytes = encode(1, &WitnessState::default());
    bytes.extend(encode(2, &WitnessState::default()));
    directory::replace(path, &bytes)
}

/// The witness in a file.
pub(crate) struct FileWitness {
    rt: Rt,
    path: PathBuf,
    last: Arc<Mutex<Last>>,
}

/// What the file holds.
struct Last {
    file: File,
    generation: u64,
    state: WitnessState,
    /// Slot of the newest state.
    slot: u64,
    /// A failed sync is never forgotten: what a later one would say of this file is worth nothing.
    spoiled: bool,
}

impl FileWitness {
    /// Opens the file.
    pub(crate) fn open(rt: Rt, path: &Path) -> Result<Self> {
        let lost = |reason: String| {
            Error::new(code::WITNESS_LOST, format!("{}: {reason}", path.display()))
                .hint("put the newest copy of the file in its place; an old one is refused by the journal")
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Error::file(path, &error),
            _ => lost(error.to_string()),
        })?;
        let mut slots = Vec::new();
        for slot in 0..2 {
            let mut bytes = vec![0; SLOT_BYTES];
            match file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64) {
                Ok(()) => slots.extend(decode(&bytes).map(|(generation, state)| (generation, slot, state))),
                Err(error) => {
                    tracing::warn!(path = %path.display(), slot, %error, "a slot of the witness cannot be read")
                }
            }
        }
        let newest = slots.into_iter().max_by_key(|(generation, ..)| *generation);
        let (generation, slot, state) = newest.ok_or_else(|| lost("both slots are damaged".to_owned()))?;
        let last = Arc::new(Mutex::new(Last { file, generation, state, slot, spoiled: false }));
        Ok(Self { rt, path: path.to_owned(), last })
    }

    /// The write runs to its end even when nobody waits for it any more: the next one must find the slot settled.
    async fn write(&self, state: WitnessState) -> std::result::Result<(), String> {
        let mut last = self.last.clone().lock_owned().await;
        let path = self.path.clone();
        let (done, outcome) = tokio::sync::oneshot::channel();
        let work = move || {
            let stored = last.store(&path, state);
            drop(last);
            // The waiter may be gone.
            let _ = done.send(stored);
        };
        self.rt.spawn_blocking("witness", Box::new(work));
        match outcome.await {
            Ok(stored) => stored.map_err(|reason| format!("{}: {reason}", self.path.display())),
            Err(_) => Err(format!("{}: the server is going down", self.path.display())),
        }
    }
}

impl Last {
    fn store(&mut self, path: &Path, state: WitnessState) -> std::result::Result<(), String> {
        if !self.spoiled {
            match self.overwrite(&state) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the witness could not be written: making it anew");
                    self.spoiled = true;
                }
            }
        }
        self.renew(path, state).map_err(|error| error.to_string())
    }

    fn overwrite(&mut self, state: &WitnessState) -> std::io::Result<()> {
        let (generation, slot) = (self.generation + 1, 1 - self.slot);
        self.file.write_all_at(&encode(generation, state), slot * SLOT_BYTES as u64)?;
        self.file.sync_data()?;
        (self.generation, self.state, self.slot) = (generation, state.clone(), slot);
        Ok(())
    }

    /// Puts a new file in the place of this one. A crash leaves either.
    fn renew(&mut self, path: &Path, state: WitnessState) -> Result<()> {
        // The failed write may have left the generation behind this one.
        let generation = self.generation + 2;
        let bytes = [encode(generation - 1, &self.state), encode(generation, &state)].concat();
        directory::replace(path, &bytes)?;
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|error| Error::file(path, &error))?;
        *self = Self { file, generation, state, slot: 1, spoiled: false };
        Ok(())
    }
}

#[cfg(test)]
impl FileWitness {
    /// Lets the next store fail, by a handle that takes no writes.
    pub(crate) fn spoil(&self) {
        let file = File::open(&self.path).expect("the file is there");
        self.last.try_lock().expect("no store is under way").file = file;
    }
}

impl Witness for FileWitness {
    fn load(&self) -> BoxFuture<'_, std::result::Result<WitnessState, WitnessError>> {
        Box::pin(async { Ok(self.last.lock().await.state.clone()) })
    }

    fn store(&self, state: WitnessState) -> BoxFuture<'_, std::result::Result<(), WitnessError>> {
        let unanswered = |reason| WitnessError { kind: WitnessErrorKind::Unanswered, reason };
        Box::pin(async move { self.write(state).await.map_err(unanswered) })
    }
}
