//! Long work: how far it is, and whether it is still wanted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{EngineError, EngineErrorKind};

/// How far a piece of long work is, for whoever watches it, and a way to end it. The unit is bytes.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Bytes done and bytes in all, as far as they are known.
    pub fn now(&self) -> (u64, u64) {
        let total = self.total.load(Ordering::Relaxed);
        (self.done.load(Ordering::Relaxed).min(total), total)
    }

    /// Sets both.
    pub fn set(&self, done: u64, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }

    /// Asks the work to end at the next place where it can.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Sets what there is to do.
    pub(crate) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Sets what there is to do behind what is done.
    pub(crate) fn expect_more(&self, bytes: u64) {
        self.expect(self.done.load(Ordering::Relaxed) + bytes);
    }

    /// So much more is done.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An error when the work is not wanted any more.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn check(&self) -> Result<(), EngineError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(EngineError::new(EngineErrorKind::Cancelled, "it was cancelled"));
        }
        Ok(())
    }
}
