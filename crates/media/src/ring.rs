//! The reads and writes of the `io_uring` back end: one thread and one ring for all media of the process.
//!
//! A caller puts its operation into the inbox and, when the ring thread sleeps, rings the bell (an eventfd that the
//! ring polls). The thread takes the whole inbox, submits it in one call that also waits, and tells the callers.
//! Needs Linux 6.1; without it, or where the system forbids `io_uring`, [`Ring::shared`] fails and the pool serves.
#![allow(unsafe_code)] // submission entries point at buffers

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};

use io_uring::types::Fd;
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, PollFlags};
use rustix::io::Errno;

use crate::operation::{Operation, Step, Work, lock};

/// Operations the kernel has at once, over all media. More wait in the ring thread, bounded by their media. Eight
/// media can fill it, so a few that hang do not stop the others; the ring's memory stays far below
/// `RLIMIT_MEMLOCK`, against which old kernels count it.
const RUNNING_MAX: usize = 1024;

/// Bytes asked for in one call: the kernel takes a 32-bit length, and answers with a signed one.
const CALL_BYTES_MAX: usize = 1 << 30;

/// `user_data` of the bell's poll; those of operations are indices into the slots.
const BELL: u64 = u64::MAX;

/// The ring of the process, while a medium uses it.
static SHARED: Mutex<Weak<Ring>> = Mutex::new(Weak::new());

/// Hands operations to the ring thread, which ends when this is dropped and all of them are done.
#[derive(Debug)]
pub(crate) struct Ring {
    inbox: Arc<Inbox>,
}

#[derive(Debug)]
struct Inbox {
    state: Mutex<InboxState>,
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct InboxState {
    /// Bounded by the in-flight bounds of the media.
    queue: VecDeque<Operation>,
    /// The thread waits, or is about to: only the bell brings it here.
    asleep: bool,
    closed: bool,
}

impl Inbox {
    fn ring_bell(&self) {
        // Fails only when the counter is full, and then the bell is ringing already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Ring {
    /// The ring of the process; starts it for the first medium.
    pub(crate) fn shared() -> io::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ring) = shared.upgrade() {
            return Ok(ring);
        }
        let ring = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&ring);
        Ok(ring)
    }

    fn start() -> io::Result<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let inbox = Arc::new(Inbox { state: Mutex::default(), bell });
        let (report, started) = mpsc::sync_channel(1);
        let inbox_of_thread = inbox.clone();
        let thread = std::thread::Builder::new().name("media-ring".into());
        // The kernel ties the ring to the thread that makes it.
        thread.spawn(move || match make_ring() {
            Ok(ring) => {
                let _ = report.send(Ok(()));
                Worker::new(ring, inbox_of_thread).run();
            }
            Err(error) => {
                let _ = report.send(Err(error));
            }
        })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the ring thread died at its start")))?;
        Ok(Self { inbox })
    }

    /// Queues an operation.
    pub(crate) fn submit(&self, operation: Operation) {
        let mut state = lock(&self.inbox.state);
        state.queue.push_back(operation);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.inbox.ring_bell();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        lock(&self.inbox.state).closed = true;
        self.inbox.ring_bell();
    }
}

fn make_ring() -> io::Result<IoUring> {
    // Completions are worked off when the thread asks for them, not by interrupting it.
    let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(RUNNING_MAX as u32)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::PollAdd::CODE];
    if !ring.params().is_feature_nodrop() || !needed.iter().all(|code| probe.is_supported(*code)) {
        return Err(io::Error::from(Errno::NOSYS));
    }
    Ok(ring)
}

/// The ring thread.
struct Worker {
    ring: IoUring,
    inbox: Arc<Inbox>,
    /// Taken from the inbox, not yet given to the kernel.
    pending: VecDeque<Operation>,
    /// What the kernel has: file and buffer of each stay here until its answer.
    slots: Vec<Option<Operation>>,
    free: Vec<usize>,
    bell_armed: bool,
}

/// The kernel may still write to the buffers in the slots when this thread panics: they must not be freed.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Worker {
    fn new(ring: IoUring, inbox: Arc<Inbox>) -> Self {
        let slots = (0..RUNNING_MAX).map(|_| None).collect();
        Self {
            ring,
            inbox,
            pending: VecDeque::new(),
            slots,
            free: (0..RUNNING_MAX).rev().collect(),
            bell_armed: false,
        }
    }

    fn run(mut self) {
        let _guard = AbortOnPanic;
        let mut answers = Vec::new();
        loop {
            let closed = self.empty_inbox();
            self.fill_ring();
            if closed && self.free.len() == RUNNING_MAX && self.pending.is_empty() {
                return;
            }
            self.wait();
            lock(&self.inbox.state).asleep = false;
            self.take_answers(&mut answers);
            self.work_off(&mut answers);
        }
    }

    /// Takes what callers have queued; from here on they ring the bell. Tells whether the last medium is gone.
    fn empty_inbox(&mut self) -> bool {
        let mut state = lock(&self.inbox.state);
        self.pending.append(&mut state.queue);
        state.asleep = true;
        state.closed
    }

    fn fill_ring(&mut self) {
        let mut queue = self.ring.submission();
        if !self.bell_armed && !queue.is_full() {
            let events = u32::from(PollFlags::IN.bits());
            let poll = opcode::PollAdd::new(Fd(self.inbox.bell.as_raw_fd()), events).multi(true);
            // SAFETY: the entry points at no memory.
            self.bell_armed = unsafe { queue.push(&poll.build().user_data(BELL)) }.is_ok();
        }
        while !queue.is_full() && !self.pending.is_empty() {
            let Some(slot) = self.free.pop() else { break };
            let Some(operation) = self.pending.pop_front() else { break };
            let operation = self.slots[slot].insert(operation);
            let entry = entry_for(operation).user_data(slot as u64);
            // SAFETY: file and buffer belong to the operation, which stays in its slot, untouched, until the answer
            // with its number arrives; a panic before that aborts the process.
            unsafe { queue.push(&entry) }.expect("the queue is not full");
        }
    }

    /// Submits what is queued and waits for an answer.
    fn wait(&self) {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INTR) => {}
                // The kernel is short of memory, or of room for answers, which are taken next.
                Some(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) => std::thread::yield_now(),
                _ => panic!("io_uring_enter: {error}"),
            },
        }
    }

    fn take_answers(&mut self, answers: &mut Vec<(usize, Result<usize, Errno>)>) {
        for answer in self.ring.completion() {
            if answer.user_data() == BELL {
                assert!(answer.result() >= 0, "the bell cannot be polled: {}", answer.result());
                self.bell_armed = cqueue::more(answer.flags());
                continue;
            }
            let result = usize::try_from(answer.result())
                .map_err(|_| Errno::from_raw_os_error(answer.result().saturating_neg()));
            answers.push((answer.user_data() as usize, result));
        }
    }

    fn work_off(&mut self, answers: &mut Vec<(usize, Result<usize, Errno>)>) {
        for (slot, answer) in answers.drain(..) {
            let mut operation = self.slots[slot].take().expect("the kernel answers each operation once");
            self.free.push(slot);
            match operation.advance(answer) {
                Step::Again => self.pending.push_front(operation),
                Step::End(outcome) => {
                    let next = operation.finish(outcome);
                    debug_assert!(next.is_none(), "reads and plain writes have no sequel");
                }
            }
        }
    }
}

/// The submission entry for what is left of an operation.
fn entry_for(operation: &mut Operation) -> squeue::Entry {
    let done = operation.done;
    let fd = Fd(file_of(operation));
    match &mut operation.work {
        Work::Read { offset, buf, .. } => {
            let left = &mut buf.as_mut()[done..];
            let length = left.len().min(CALL_BYTES_MAX) as u32;
            opcode::Read::new(fd, left.as_mut_ptr(), length).offset(*offset + done as u64).build()
        }
        Work::Write { offset, bytes, .. } => {
            let left = &bytes.as_ref()[done..];
            let length = left.len().min(CALL_BYTES_MAX) as u32;
            opcode::Write::new(fd, left.as_ptr(), length).offset(*offset + done as u64).build()
        }
        Work::Sync { .. } | Work::Reserve { .. } | Work::Discard { .. } => {
            unreachable!("the pool does what blocks")
        }
    }
}

fn file_of(operation: &Operation) -> RawFd {
    operation.target.file.as_raw_fd()
}
