//! Threads that make plain system calls, started when they are needed: all of the sync back end, and what makes the
//! kernel wait (syncs, durable writes, discards) on the ring back end too.
//!
//! Works everywhere, and system-call fault injection (`strace -e inject`) reaches it.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::io::Errno;

use crate::operation::{Failure, Operation, Step, Work, lock};
use crate::sys;

/// The threads of one medium. They end when it is dropped and the queue is empty.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads_max: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bounded by the medium's in-flight bound: each operation holds its share of it.
    queue: VecDeque<Operation>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(threads_max: usize) -> Self {
        Self { shared: Arc::default(), threads_max }
    }

    /// Queues an operation. It fails when no thread can be started.
    pub(crate) fn submit(&self, operation: Operation) {
        let mut state = lock(&self.shared.state);
        state.queue.push_back(operation);
        if state.queue.len() > state.idle && state.threads < self.threads_max {
            let shared = self.shared.clone();
            match std::thread::Builder::new().name("media-pool".into()).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    let stranded = std::mem::take(&mut state.queue);
                    drop(state);
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                    stranded.into_iter().for_each(|operation| operation.fail(Failure::System(errno)));
                    return;
                }
                // The threads there are will come to it.
                Err(_) => {}
            }
        }
        drop(state);
        self.shared.ready.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.ready.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        while let Some(operation) = self.next() {
            let mut next = Some(operation);
            while let Some(operation) = next {
                next = perform(operation);
            }
        }
    }

    fn next(&self) -> Option<Operation> {
        let mut state = lock(&self.state);
        loop {
            if let Some(operation) = state.queue.pop_front() {
                return Some(operation);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

/// Runs one operation to its end.
fn perform(mut operation: Operation) -> Option<Operation> {
    loop {
        let done = operation.done;
        let file = &operation.target.file;
        let answer = match &mut operation.work {
            Work::Read { offset, buf, .. } => file.read_at(&mut buf.as_mut()[done..], *offset + done as u64),
            Work::Write { offset, bytes, .. } => {
                file.write_at(&bytes.as_ref()[done..], *offset + done as u64)
            }
            Work::Sync { .. } => file.sync_data().map(|()| 0),
            Work::Reserve { offset, length, .. } => {
                sys::reserve(file, *offset, *length).map(usize::from).map_err(Into::into)
            }
            Work::Discard { offset, length, .. } => {
                sys::discard(file, operation.target.block_device, *offset, *length)
                    .map(|()| 0)
                    .map_err(Into::into)
            }
        };
        let answer = answer.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        if let Step::End(outcome) = operation.advance(answer) {
            return operation.finish(outcome);
        }
    }
}
