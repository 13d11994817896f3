//! The witness of a site: where its journal was last, outside the media.
//!
//! ```text
//!  slot A at 0, slot B at 4096, each:
//!  | "HFWS" | version u32 | generation u64 | state bytes u32 | state | CRC-32C u32 | zeros
//! ```
//! A store writes the slot that does not hold the newest state, so a torn write leaves the older one. The file is
//! written in full when the site is made; later stores allocate nothing. A file of which a write or sync failed is never
//! written again: another takes its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Error, Result, code};
use engine::{Witness, WitnessError, WitnessErrorKind, WitnessState};
use seam::{BoxFuture, Rt};
use tokio::sync::Mutex;
use units::crc32c;

use crate::files::{Files, named};

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
pub(crate) fn make(files: &dyn Files, path: &Path) -> Result<()> {
    files.replace(path, &new_witness()).map_err(named(path))
}

/// The file that the witness of a new site is.
pub fn new_witness() -> Vec<u8> {
    [1, 2].map(|generation| encode(generation, &WitnessState::default())).concat()
}

/// What the file of a witness says; `None` when both of its slots are damaged.
pub fn witness_state(file: &[u8]) -> Option<WitnessState> {
    newest_slot(file).map(|(_, _, state)| state)
}

/// The newest generation, its slot and its state.
fn newest_slot(file: &[u8]) -> Option<(u64, u64, WitnessState)> {
    let slot = |slot: usize| {
        let (generation, state) = decode(file.get(slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES)?)?;
        Some((generation, slot as u64, state))
    };
    (0..2).filter_map(slot).max_by_key(|(generation, ..)| *generation)
}

/// The witness in a file.
pub(crate) struct FileWitness {
    rt: Rt,
    files: Arc<dyn Files>,
    path: PathBuf,
    last: Arc<Mutex<Last>>,
}

/// What the file holds.
struct Last {
    generation: u64,
    state: WitnessState,
    /// Slot of the newest state.
    slot: u64,
    /// A failed sync is never forgotten: what a later one would say of this file is worth nothing.
    spoiled: bool,
}

impl FileWitness {
    /// Opens the file.
    pub(crate) fn open(rt: Rt, files: &Arc<dyn Files>, path: &Path) -> Result<Self> {
        let lost = |reason: &str| {
            Error::new(code::WITNESS_LOST, format!("{}: {reason}", path.display()))
                .hint("put the newest copy of the file in its place; an old one is refused by the journal")
        };
        let bytes = files.read(path, 2 * SLOT_BYTES as u64).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Error::file(path, &error),
            _ => lost(&error.to_string()),
        })?;
        let bytes = bytes.ok_or_else(|| lost("no such file"))?;
        let (generation, slot, state) = newest_slot(&bytes).ok_or_else(|| lost("both slots are damaged"))?;
        let last = Arc::new(Mutex::new(Last { generation, state, slot, spoiled: false }));
        Ok(Self { rt, files: files.clone(), path: path.to_owned(), last })
    }

    /// The write runs to its end even when nobody waits for it any more: the next one must find the slot settled.
    async fn write(&self, state: WitnessState) -> std::result::Result<(), String> {
        let mut last = self.last.clone().lock_owned().await;
        let (files, path) = (self.files.clone(), self.path.clone());
        let (done, outcome) = tokio::sync::oneshot::channel();
        let work = move || {
            let stored = last.store(&*files, &path, state);
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
    fn store(
        &mut self,
        files: &dyn Files,
        path: &Path,
        state: WitnessState,
    ) -> std::result::Result<(), String> {
        if !self.spoiled {
            match self.overwrite(files, path, &state) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the witness could not be written: making it anew");
                    self.spoiled = true;
                }
            }
        }
        self.renew(files, path, state).map_err(|error| error.to_string())
    }

    fn overwrite(&mut self, files: &dyn Files, path: &Path, state: &WitnessState) -> std::io::Result<()> {
        let (generation, slot) = (self.generation + 1, 1 - self.slot);
        files.overwrite(path, slot * SLOT_BYTES as u64, &encode(generation, state))?;
        (self.generation, self.state, self.slot) = (generation, state.clone(), slot);
        Ok(())
    }

    /// Puts a new file in the place of this one. A crash leaves either.
    fn renew(&mut self, files: &dyn Files, path: &Path, state: WitnessState) -> Result<()> {
        // The failed write may have left the generation behind this one.
        let generation = self.generation + 2;
        let bytes = [encode(generation - 1, &self.state), encode(generation, &state)].concat();
        files.replace(path, &bytes).map_err(named(path))?;
        *self = Self { generation, state, slot: 1, spoiled: false };
        Ok(())
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
