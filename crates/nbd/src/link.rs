//! What the tasks of one connection share.
//!
//! The connection's own task reads and writes; tasks of single requests add replies. One lock guards it all and is
//! held for a few instructions. The connection's task registers its waker each time it runs, so one waker suffices.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use budget::Account;

use crate::reply::Reply;
use crate::seats::{Refusal, Seat};
use crate::server::Limits;

/// Whether the connection may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serve.
    Open,
    /// Take no more requests, answer those taken, close.
    Draining,
    /// Close now.
    Cut,
}

/// The shared state of a connection. It counts as open until the last task lets go of it.
pub(crate) struct Link {
    state: Mutex<State>,
    limits: Limits,
    seat: Option<Seat>,
    /// Why it has no seat of a client.
    refusal: Option<Refusal>,
}

struct State {
    phase: Phase,
    /// Replies ready to be sent, oldest first. Bounded by the requests admitted.
    ready: VecDeque<Reply>,
    /// Requests admitted whose reply is not yet written.
    requests: usize,
    /// Bytes of their payloads and data.
    bytes: usize,
    /// The reading side waits for room.
    starved: bool,
    /// Memory of the requests, and of the connection itself.
    account: Account,
    waker: Option<Waker>,
}

impl Link {
    /// A link within `limits`; `account` and `seat` are given back when the last task lets go.
    pub(crate) fn new(
        limits: Limits,
        account: Account,
        seat: Option<Seat>,
        refusal: Option<Refusal>,
    ) -> Self {
        let state = State {
            phase: Phase::Open,
            ready: VecDeque::new(),
            requests: 0,
            bytes: 0,
            starved: false,
            account,
            waker: None,
        };
        Self { state: Mutex::new(state), limits, seat, refusal }
    }

    /// Why the client is to be refused, unless [`Link::take_task_seat`] finds it a seat.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether there are seats for tasks at all.
    pub(crate) fn keeps_task_seats(&self) -> bool {
        self.limits.tasks > 0
    }

    /// Takes a seat that is kept for tasks; whether there is one.
    pub(crate) fn take_task_seat(&self) -> bool {
        self.seat.as_ref().is_some_and(Seat::take_task_seat)
    }

    /// The client is refused.
    pub(crate) fn refused(&self, why: Refusal) {
        if let Some(seat) = &self.seat {
            seat.refused(why);
        }
    }

    /// The client is cut off, for it does not take its replies.
    pub(crate) fn cut_off(&self) {
        if let Some(seat) = &self.seat {
            seat.cut_off(self.state().account.held());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Moves on to `phase`; never back. Wakes the connection.
    pub(crate) fn advance(&self, phase: Phase) {
        let waker = {
            let mut state = self.state();
            state.phase = state.phase.max(phase);
            state.waker.clone()
        };
        wake(waker);
    }

    /// Registers the connection's task, to be woken by replies and changes of phase. Gives the phase.
    pub(crate) fn enter(&self, cx: &Context<'_>) -> Phase {
        let mut state = self.state();
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        state.phase
    }

    /// Runs `work` while the phase is [`Phase::Open`]; `None` when it ends before.
    pub(crate) async fn while_open<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            if self.enter(cx) != Phase::Open {
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Waits until a request that holds `bytes` of memory fits, and counts it in. A request alone always fits the
    /// connection's bound; the budget has it when it is its turn. For the connection's own task.
    pub(crate) async fn admit(&self, bytes: usize) -> Admitted<'_> {
        if let Some(admitted) = self.try_admit(bytes, |account| account.try_take(bytes)) {
            return admitted;
        }
        let _waiting = Waiting(self);
        std::future::poll_fn(|cx| {
            let admitted = self.try_admit(bytes, |account| account.poll_take(cx, bytes).is_ready());
            admitted.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn try_admit(&self, bytes: usize, take: impl FnOnce(&mut Account) -> bool) -> Option<Admitted<'_>> {
        let mut state = self.state();
        let fits =
            state.requests < self.limits.requests && state.bytes.saturating_add(bytes) <= self.limits.bytes;
        if (!fits && state.requests > 0) || !take(&mut state.account) {
            state.starved = true;
            return None;
        }
        state.requests += 1;
        state.bytes += bytes;
        Some(Admitted { link: self, bytes })
    }

    /// Whether others wait for memory that it holds.
    pub(crate) fn holds_up_others(&self) -> bool {
        self.state().account.holds_up_others()
    }

    /// Takes memory for the connection itself, if there is some at once.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        self.state().account.try_take(bytes)
    }

    /// Gives it back.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.state().account.give_back(bytes);
    }

    /// Gives back what `requests` requests held.
    pub(crate) fn release(&self, requests: usize, bytes: usize) {
        let waker = {
            let mut state = self.state();
            state.requests -= requests;
            state.bytes -= bytes;
            state.account.give_back(bytes);
            if std::mem::take(&mut state.starved) { state.waker.clone() } else { None }
        };
        wake(waker);
    }

    /// Adds a reply from the connection's own task, which sends it before it sleeps.
    pub(crate) fn push_local(&self, reply: Reply) {
        self.state().ready.push_back(reply);
    }

    /// Adds a reply from another task.
    pub(crate) fn push(&self, reply: Reply) {
        let waker = {
            let mut state = self.state();
            state.ready.push_back(reply);
            state.waker.clone()
        };
        wake(waker);
    }

    /// Replies ready, and requests that are still at work.
    pub(crate) fn backlog(&self) -> (usize, usize) {
        let state = self.state();
        // Replies being written are neither: the writer asks only when it writes none.
        (state.ready.len(), state.requests - state.ready.len())
    }

    /// Takes all ready replies, oldest first, in exchange for an empty queue.
    pub(crate) fn take_ready(&self, empty: &mut VecDeque<Reply>) {
        std::mem::swap(&mut self.state().ready, empty);
    }

    /// Whether every admitted request has been answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.state().requests == 0
    }
}

/// The wait for room. Dropped half-way, nobody waits behind it.
struct Waiting<'a>(&'a Link);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().account.stop_waiting();
    }
}

/// A request that is counted and has no reply on its way yet. Dropped, it is counted out: its payload never came.
pub(crate) struct Admitted<'a> {
    link: &'a Link,
    bytes: usize,
}

impl Admitted<'_> {
    /// The reply is on its way: writing it counts the request out.
    pub(crate) fn hand_over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.link.release(1, self.bytes);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Closes the connection when a request's task ends without a reply: a client must never wait for ever.
pub(crate) struct MustAnswer<'a> {
    link: &'a Link,
    answered: bool,
}

impl<'a> MustAnswer<'a> {
    /// Watches over a task.
    pub(crate) fn new(link: &'a Link) -> Self {
        Self { link, answered: false }
    }

    /// The reply is there.
    pub(crate) fn answer(mut self, reply: Reply) {
        self.answered = true;
        self.link.push(reply);
    }
}

impl Drop for MustAnswer<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.advance(Phase::Cut);
        }
    }
}
