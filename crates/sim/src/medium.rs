//! The simulated medium: one opening of a [`SimStore`] by one process.

mod faults;
mod image;
mod state;
mod store;
#[cfg(test)]
mod tests;

use media::{MediaErrorKind, Medium, Result};
use seam::{BoxFuture, Rt};
use tokio::sync::{Semaphore, SemaphorePermit};
use units::{PageBuf, PageSlice};

pub use faults::{FaultKind, Injection, Latency};
pub use image::{Image, SECTOR};
pub use store::SimStore;

/// A store opened by a process. Dropping it closes it: each write still in flight then happens or not, by the seed.
pub struct SimMedium {
    store: SimStore,
    rt: Rt,
    /// Which opening this is: a later one, or a power cut, makes it stale.
    opening: u64,
    /// Beyond its permits callers wait, as they do for a real medium.
    in_flight: Semaphore,
}

impl std::fmt::Debug for SimMedium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimMedium({})", self.store.name())
    }
}

impl Drop for SimMedium {
    fn drop(&mut self) {
        self.store.close(self.opening);
    }
}

impl SimMedium {
    async fn permit(&self) -> SemaphorePermit<'_> {
        self.in_flight.acquire().await.expect("the semaphore is never closed")
    }

    async fn write_with(&self, offset: u64, bytes: PageSlice, durable: bool) -> Result<()> {
        let _permit = self.permit().await;
        let ticket = self.store.submit_write(self.opening, offset, bytes.as_ref(), durable)?;
        self.rt.sleep(ticket.wait).await;
        self.store.complete(self.opening, &ticket)
    }
}

impl Medium for SimMedium {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn len(&self) -> u64 {
        self.store.len()
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<PageBuf>> {
        Box::pin(async move {
            let _permit = self.permit().await;
            let read = self.store.submit_read(self.opening, offset, length)?;
            self.rt.sleep(read.wait).await;
            self.store.complete_read(self.opening, offset, length, read.fault)
        })
    }

    fn write(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.write_with(offset, bytes, false))
    }

    fn write_durable(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.write_with(offset, bytes, true))
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let _permit = self.permit().await;
            let ticket = self.store.submit_sync(self.opening)?;
            self.rt.sleep(ticket.wait).await;
            self.store.complete(self.opening, &ticket)
        })
    }

    fn reserve(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let _permit = self.permit().await;
            self.store.reserve(self.opening, offset, length)
        })
    }

    fn discard(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let _permit = self.permit().await;
            let ticket = self.store.submit_discard(self.opening, offset, length)?;
            self.rt.sleep(ticket.wait).await;
            match self.store.complete(self.opening, &ticket) {
                Err(error) if error.kind == MediaErrorKind::Io => Ok(()), // a hint
                outcome => outcome,
            }
        })
    }

    fn room(&self) -> u64 {
        self.store.room()
    }
}
