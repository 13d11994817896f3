//! One operation on its way through a back end: what is left of it, what an answer of the kernel means for it, and
//! the state of a file that outlives each operation (the failed sync, the queue of syncs). No system calls here.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use units::{PAGE, PageBuf, PageSlice};

/// Answers in a row that bring an operation no further (interrupted, try again, less than a page) before it fails.
/// Each is rare alone; so many mean that the medium will never answer better.
const RETRIES_MAX: u32 = 32;

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The system's error.
    System(Errno),
    /// The medium took or gave fewer bytes than it has: it became shorter since it was opened.
    Short,
    /// This sync failed. Unlike a write that found no room, one that found none has failed the medium.
    Sync(Errno),
    /// A sync failed before, with this error.
    Unsynced(Errno),
}

/// Where the result goes, and the share of the medium's in-flight bound that is held until then.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    sender: oneshot::Sender<Result<T, Failure>>,
    permit: OwnedSemaphorePermit,
}

impl<T> Reply<T> {
    pub(crate) fn new(sender: oneshot::Sender<Result<T, Failure>>, permit: OwnedSemaphorePermit) -> Self {
        Self { sender, permit }
    }

    fn send(self, result: Result<T, Failure>) {
        drop(self.permit);
        // The caller may have dropped its future; then nobody wants to know.
        let _ = self.sender.send(result);
    }
}

/// What is to be done. Owns the buffer until the kernel has answered.
#[derive(Debug)]
pub(crate) enum Work {
    Read {
        offset: u64,
        buf: PageBuf,
        reply: Reply<PageBuf>,
    },
    /// With `durable`, a sync follows in the same back end, without a round through the caller.
    Write {
        offset: u64,
        bytes: PageSlice,
        durable: bool,
        reply: Reply<()>,
    },
    Sync {
        waiters: Vec<Reply<()>>,
    },
    /// Answers whether the file system can.
    Reserve {
        offset: u64,
        length: u64,
        reply: Reply<bool>,
    },
    Discard {
        offset: u64,
        length: u64,
        reply: Reply<()>,
    },
}

/// An open file and what must be remembered about it.
#[derive(Debug)]
pub(crate) struct Target {
    /// Closing it gives up the lock; so it lives until the last operation is answered.
    pub(crate) file: File,
    pub(crate) block_device: bool,
    failed_sync: OnceLock<Errno>,
    syncs: Mutex<Syncs>,
}

#[derive(Debug, Default)]
struct Syncs {
    running: bool,
    /// Asked while one was running, so that one may not cover them. Bounded by the medium's in-flight bound.
    waiting: Vec<Reply<()>>,
}

impl Target {
    pub(crate) fn new(file: File, block_device: bool) -> Self {
        Self { file, block_device, failed_sync: OnceLock::new(), syncs: Mutex::default() }
    }

    /// An error once a sync has failed.
    pub(crate) fn check_synced(&self) -> Result<(), Failure> {
        self.failed_sync.get().map_or(Ok(()), |errno| Err(Failure::Unsynced(*errno)))
    }

    /// Asks for a sync: the operation to start, or nothing when one is running whose end will start the next.
    pub(crate) fn ask_sync(self: &Arc<Self>, reply: Reply<()>) -> Option<Operation> {
        let mut syncs = lock(&self.syncs);
        if syncs.running {
            syncs.waiting.push(reply);
            return None;
        }
        syncs.running = true;
        Some(Operation::new(self.clone(), Work::Sync { waiters: vec![reply] }))
    }

    fn next_sync(self: Arc<Self>) -> Option<Operation> {
        let mut syncs = lock(&self.syncs);
        let waiters = std::mem::take(&mut syncs.waiting);
        syncs.running = !waiters.is_empty();
        drop(syncs);
        (!waiters.is_empty()).then(|| Operation::new(self, Work::Sync { waiters }))
    }
}

/// An operation in a back end.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) target: Arc<Target>,
    pub(crate) work: Work,
    /// Bytes done, in whole pages until the end; of a reservation, whether it was possible.
    pub(crate) done: usize,
    retries: u32,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Issue the call again for what is left.
    Again,
    /// Pass this to [`Operation::finish`].
    End(Result<(), Failure>),
}

impl Operation {
    pub(crate) fn new(target: Arc<Target>, work: Work) -> Self {
        Self { target, work, done: 0, retries: 0 }
    }

    /// Takes the kernel's answer to the last call: bytes transferred, or the error.
    pub(crate) fn advance(&mut self, answer: Result<usize, Errno>) -> Step {
        let (total, count) = match (&self.work, answer) {
            (_, Err(Errno::INTR | Errno::AGAIN)) => return self.retry(Failure::System(Errno::AGAIN)),
            (_, Err(errno)) => return Step::End(Err(Failure::System(errno))),
            (Work::Sync { .. } | Work::Discard { .. }, Ok(_)) => return Step::End(Ok(())),
            (Work::Reserve { .. }, Ok(can)) => {
                self.done = can;
                return Step::End(Ok(()));
            }
            (Work::Read { buf, .. }, Ok(count)) => (buf.len(), count),
            (Work::Write { bytes, .. }, Ok(count)) => (bytes.len(), count),
        };
        if self.done + count >= total {
            self.done = total;
            return Step::End(Ok(()));
        }
        if count == 0 {
            return Step::End(Err(Failure::Short));
        }
        // Direct I/O goes on at a page only.
        let pages = (self.done + count) / PAGE * PAGE;
        if pages == self.done {
            return self.retry(Failure::Short);
        }
        self.done = pages;
        self.retries = 0;
        Step::Again
    }

    fn retry(&mut self, failure: Failure) -> Step {
        self.retries += 1;
        if self.retries > RETRIES_MAX { Step::End(Err(failure)) } else { Step::Again }
    }

    /// Tells the caller; gives the operation that the same back end must start now, if any.
    ///
    /// The file, the buffer and the share of the bound are let go first: when the last caller knows, all is free.
    pub(crate) fn finish(self, outcome: Result<(), Failure>) -> Option<Self> {
        let Self { target, work, done, .. } = self;
        match work {
            Work::Reserve { reply, .. } => {
                drop(target);
                reply.send(outcome.map(|()| done > 0));
                None
            }
            Work::Read { buf, reply, .. } => {
                drop(target);
                reply.send(outcome.map(|()| buf));
                None
            }
            Work::Write { durable: true, reply, .. } if outcome.is_ok() => target.ask_sync(reply),
            Work::Write { bytes, reply, .. } => {
                drop((target, bytes));
                reply.send(outcome);
                None
            }
            Work::Discard { reply, .. } => {
                drop(target);
                reply.send(outcome);
                None
            }
            Work::Sync { waiters } => {
                if let Err(failure) = outcome {
                    let errno = if let Failure::System(errno) = failure { errno } else { Errno::IO };
                    // The first failure is the one to tell.
                    let _ = target.failed_sync.set(errno);
                }
                let outcome = match outcome {
                    Err(Failure::System(errno)) => Err(Failure::Sync(errno)),
                    Err(failure) => Err(failure),
                    Ok(()) => target.check_synced(),
                };
                let next = target.next_sync();
                waiters.into_iter().for_each(|waiter| waiter.send(outcome));
                next
            }
        }
    }

    /// Ends with `failure`, and so do the syncs that waited for it.
    pub(crate) fn fail(self, failure: Failure) {
        let mut next = Some(self);
        while let Some(operation) = next {
            next = operation.finish(Err(failure));
        }
    }
}

/// Whether the file system or device has no room, or the owner's quota none.
pub(crate) fn no_space(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT)
}

/// Locks; nothing here leaves the data half-changed when it panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
