//! Changes of one VM, one after the other.
//!
//! Each is a transaction that demands the record it began from. Two at once would be one that succeeds and one that is told
//! that somebody was faster, of which its client can make nothing: so they wait for each other here. What changes a VM
//! besides, such as a task that ends, is met by beginning again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{Error, Result, VmName, code};
use seam::{BoxFuture, Runtime};
use tokio::sync::OwnedMutexGuard;

/// Longest wait for the changes that came before. One of them that waits for media or room gives up by itself after less.
const PATIENCE: Duration = Duration::from_secs(45);
/// Attempts at a change while others than clients change the VM.
const TRIES: usize = 16;

type Names = Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>;

/// Whose turn it is to change a VM.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The VMs that are being changed.
    names: Names,
}

/// A turn; it ends when this goes.
struct Turn {
    name: String,
    names: Names,
    _held: OwnedMutexGuard<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that wait keep it: besides the map and this turn nobody does.
        if names.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) <= 2) {
            names.remove(&self.name);
        }
    }
}

impl Turns {
    async fn take(&self, rt: &dyn Runtime, vm: &VmName) -> Result<Turn> {
        let name = vm.folded();
        let lock = {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.entry(name.clone()).or_default().clone()
        };
        match seam::timeout(rt, PATIENCE, lock.lock_owned()).await {
            Ok(held) => Ok(Turn { name, names: self.names.clone(), _held: held }),
            Err(seam::Elapsed) => {
                let reason = format!("VM {vm}: changes that came before have not ended");
                Err(Error::new(code::BUSY, reason))
            }
        }
    }

    /// Makes a change of `vms` in its turn; again, from what there is then, when something else changed one of them meanwhile.
    ///
    /// # Errors
    /// The change's; `busy` when those before it do not end.
    pub(crate) async fn change<'a, T>(
        &self,
        rt: &dyn Runtime,
        vms: &[&VmName],
        change: impl Fn() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        let mut names: Vec<&VmName> = vms.to_vec();
        // In the same order by all, each once.
        names.sort_unstable_by_key(|name| name.folded());
        names.dedup();
        let mut turns = Vec::new();
        for name in names {
            turns.push(self.take(rt, name).await?);
        }
        let mut done = change().await;
        for _ in 1..TRIES {
            match &done {
                Err(error) if error.code == code::VM_CHANGED => done = change().await,
                _ => break,
            }
        }
        done
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
