//! One connection's part of the budget.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::common::Draw;
use crate::{Shared, TAKE_MAX};

/// Draws are rounded up to this many bytes where they can be, and this much is kept while the account holds anything beyond
/// its share: so many small requests ask the common part once.
const STEP: usize = 64 << 10;

/// What one connection holds of the budget. It has one owner, and one thing at a time that it waits for.
#[derive(Debug)]
pub struct Account {
    common: Arc<Shared>,
    share: usize,
    /// Bytes drawn on the common part.
    drawn: usize,
    /// Bytes taken: at most share and draws together.
    held: usize,
    /// Its place among those who wait.
    ticket: Option<u64>,
}

impl Account {
    pub(crate) fn new(common: Arc<Shared>, share: usize) -> Self {
        Self { common, share, drawn: 0, held: 0, ticket: None }
    }

    /// Bytes it holds.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether it has drawn on the common part, and somebody waits who has not.
    pub fn holds_up_others(&self) -> bool {
        self.drawn > 0 && self.common.lock().is_short()
    }

    /// Takes `bytes` if they may be taken now. Requires at most [`TAKE_MAX`].
    pub fn try_take(&mut self, bytes: usize) -> bool {
        debug_assert!(bytes <= TAKE_MAX, "more than the common part is sure to have");
        let has = self.share + self.drawn;
        let missing = (self.held + bytes).saturating_sub(has);
        let woken = match missing {
            0 if self.ticket.is_none() => Vec::new(),
            0 => self.common.lock().forget(self.ticket.take()),
            _ => {
                let mut common = self.common.lock();
                let ample = missing.next_multiple_of(STEP);
                let draw = |bytes| Draw { bytes, drawn: self.drawn };
                let drawn = common.draw(draw(ample), self.ticket).map(|woken| (ample, woken));
                let drawn =
                    drawn.or_else(|| common.draw(draw(missing), self.ticket).map(|woken| (missing, woken)));
                let Some((drawn, woken)) = drawn else { return false };
                drop(common);
                self.ticket = None;
                self.drawn += drawn;
                woken
            }
        };
        wake(woken);
        self.held += bytes;
        true
    }

    /// Takes `bytes`, or has the task woken when it should try again. Requires at most [`TAKE_MAX`], and
    /// [`Account::stop_waiting`] when it is not to be tried again.
    pub fn poll_take(&mut self, cx: &Context<'_>, bytes: usize) -> Poll<()> {
        if self.try_take(bytes) {
            return Poll::Ready(());
        }
        let missing = (self.held + bytes).saturating_sub(self.share + self.drawn);
        let draw = Draw { bytes: missing, drawn: self.drawn };
        self.ticket = Some(self.common.lock().wait(draw, self.ticket, cx.waker()));
        // What was given back between the attempt and here woke nobody.
        if self.try_take(bytes) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes `bytes` when it is its turn. Requires at most [`TAKE_MAX`].
    pub fn take(&mut self, bytes: usize) -> Taking<'_> {
        Taking { account: self, bytes }
    }

    /// Gives up what [`Account::poll_take`] waits for.
    pub fn stop_waiting(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let woken = self.common.lock().forget(Some(ticket));
            wake(woken);
        }
    }

    /// Gives back `bytes` of those taken.
    pub fn give_back(&mut self, bytes: usize) {
        self.held = self.held.checked_sub(bytes).expect("no more is given back than was taken");
        let beyond = self.held.saturating_sub(self.share);
        let surplus = self.drawn - beyond;
        if surplus > 0 && (beyond == 0 || surplus > STEP) {
            self.drawn = beyond;
            let mut common = self.common.lock();
            let mut woken = common.give_back(surplus);
            // It may draw by other rules now.
            woken.extend(self.ticket.and_then(|ticket| common.waker(ticket)));
            drop(common);
            wake(woken);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let woken = self.common.lock().close(self.share, self.drawn, self.ticket.take());
        wake(woken);
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// The wait for bytes. Dropped, it waits no more.
#[derive(Debug)]
#[must_use = "nothing is taken before it is awaited"]
pub struct Taking<'a> {
    account: &'a mut Account,
    bytes: usize,
}

impl Future for Taking<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let bytes = self.bytes;
        self.account.poll_take(cx, bytes)
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.account.stop_waiting();
    }
}
