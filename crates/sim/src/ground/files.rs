//! The files of a simulated machine: they live on when processes die.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machine::{Files, Lock};

/// Files by path. Clones are handles on the same files. Every change is durable when it returns.
#[derive(Debug, Clone, Default)]
pub(super) struct SimFiles {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Which taking of each lock holds.
    locks: BTreeMap<PathBuf, u64>,
    takings: u64,
}

impl SimFiles {
    pub(super) fn of(files: BTreeMap<PathBuf, Vec<u8>>) -> Self {
        Self { state: Arc::new(Mutex::new(State { files, ..State::default() })) }
    }

    pub(super) fn image(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.lock_state().files.clone()
    }

    pub(super) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.lock_state().files.get(path).cloned()
    }

    /// The process died: what it held it holds no more.
    pub(super) fn end_locks(&self) {
        self.lock_state().locks.clear();
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock that is held.
struct Held {
    files: SimFiles,
    path: PathBuf,
    taking: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.files.lock_state();
        if state.locks.get(&self.path) == Some(&self.taking) {
            state.locks.remove(&self.path);
        }
    }
}

impl Files for SimFiles {
    fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
        let state = self.lock_state();
        let most = usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1);
        Ok(state.files.get(path).map(|bytes| bytes[..bytes.len().min(most)].to_vec()))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.lock_state().files.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn make_new(&self, path: &Path, bytes: &[u8]) -> Result<bool> {
        if self.is_there(path) {
            return Ok(false);
        }
        self.replace(path, bytes).map(|()| true)
    }

    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.lock_state();
        let file = state.files.get_mut(path).ok_or(ErrorKind::NotFound)?;
        let start = usize::try_from(offset).map_err(Error::other)?;
        file.resize(file.len().max(start + bytes.len()), 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.lock_state().files.remove(path);
        Ok(())
    }

    fn make_folder(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn remove_folder(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let state = self.lock_state();
        Ok(state.files.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn is_there(&self, path: &Path) -> bool {
        self.lock_state().files.contains_key(path)
    }

    fn is_open_to_others(&self, _: &Path) -> bool {
        false
    }

    fn remove_leftovers(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> api::Result<Lock> {
        let mut state = self.lock_state();
        if state.locks.contains_key(path) {
            return Err(Lock::is_taken(path));
        }
        state.takings += 1;
        let taking = state.takings;
        state.locks.insert(path.to_owned(), taking);
        Ok(Lock::new(Box::new(Held { files: self.clone(), path: path.to_owned(), taking })))
    }
}
