//! The common part: what is free, and who waits for it.

use std::collections::BTreeMap;
use std::task::Waker;

/// One in this many bytes of the budget is not drawn: accounts can be opened while others hold all the rest.
const KEPT_PART: usize = 16;
/// Waiters of each queue that are looked at when something is given back: those that have waited longest.
const LOOKED_AT: usize = 32;

/// What an account waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    /// Bytes to be drawn.
    pub(crate) bytes: usize,
    /// Bytes that the account has drawn.
    pub(crate) drawn: usize,
}

impl Draw {
    fn is_first(self) -> bool {
        self.drawn == 0
    }

    /// Bytes that must be free for it: as much as the account then holds stays so.
    fn wants(self) -> usize {
        self.drawn.saturating_add(self.bytes).saturating_add(self.bytes)
    }
}

#[derive(Debug)]
struct Waiter {
    draw: Draw,
    /// Bytes drawn by anybody until it came.
    since: u64,
    waker: Waker,
}

/// The common part's state.
#[derive(Debug)]
pub(crate) struct Common {
    /// Bytes neither set aside nor drawn.
    free: usize,
    /// Bytes set aside as shares, and how many they may be.
    aside: usize,
    aside_max: usize,
    /// Bytes of those free that are not drawn.
    kept: usize,
    /// Bytes drawn by anybody since the start, and how many others may draw while one waits.
    drawn_ever: u64,
    patience: u64,
    /// Who waits, by order of arrival: first draws, and further ones.
    first: BTreeMap<u64, Waiter>,
    further: BTreeMap<u64, Waiter>,
    next: u64,
}

impl Common {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            free: total,
            aside: 0,
            aside_max: total / 2,
            kept: total / KEPT_PART,
            drawn_ever: 0,
            patience: total as u64,
            first: BTreeMap::new(),
            further: BTreeMap::new(),
            next: 0,
        }
    }

    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Whether somebody waits who has drawn nothing.
    pub(crate) fn is_short(&self) -> bool {
        !self.first.is_empty()
    }

    /// Sets a share aside, if it may be; `beyond` the bound for all shares too.
    pub(crate) fn set_aside(&mut self, share: usize, beyond: bool) -> bool {
        let fits = share <= self.free && (beyond || share <= self.aside_max.saturating_sub(self.aside));
        if fits {
            self.free -= share;
            self.aside += share;
        }
        fits
    }

    /// Ends an account.
    pub(crate) fn close(&mut self, share: usize, drawn: usize, ticket: Option<u64>) -> Vec<Waker> {
        self.free += share + drawn;
        self.aside -= share;
        self.forget(ticket)
    }

    /// Bytes that can be drawn.
    fn room(&self) -> usize {
        self.free.saturating_sub(self.kept)
    }

    /// Who was passed over for long enough: nobody else draws before.
    fn patient(&self) -> Option<(u64, &Waiter)> {
        let (ticket, waiter) = self.first.first_key_value()?;
        (self.drawn_ever - waiter.since >= self.patience).then_some((*ticket, waiter))
    }

    /// Draws for an account, or says that it cannot be now.
    pub(crate) fn draw(&mut self, draw: Draw, ticket: Option<u64>) -> Option<Vec<Waker>> {
        let is_kept_back = self.patient().is_some_and(|(patient, _)| ticket != Some(patient));
        if is_kept_back || draw.wants() > self.room() {
            return None;
        }
        self.free -= draw.bytes;
        self.drawn_ever += draw.bytes as u64;
        Some(self.forget(ticket))
    }

    /// Has an account wait; gives its ticket, which is the one it had.
    pub(crate) fn wait(&mut self, draw: Draw, ticket: Option<u64>, waker: &Waker) -> u64 {
        let ticket = ticket.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let before = self.first.remove(&ticket).or_else(|| self.further.remove(&ticket));
        let since = before.map_or(self.drawn_ever, |waiter| waiter.since);
        let queue = if draw.is_first() { &mut self.first } else { &mut self.further };
        queue.insert(ticket, Waiter { draw, since, waker: waker.clone() });
        ticket
    }

    /// Gives drawn bytes back. Gives whom to wake, outside the lock.
    pub(crate) fn give_back(&mut self, bytes: usize) -> Vec<Waker> {
        self.free += bytes;
        self.ready()
    }

    /// What wakes the one who waits with `ticket`.
    pub(crate) fn waker(&self, ticket: u64) -> Option<Waker> {
        let waiter = self.first.get(&ticket).or_else(|| self.further.get(&ticket))?;
        Some(waiter.waker.clone())
    }

    /// An account does not wait any more.
    pub(crate) fn forget(&mut self, ticket: Option<u64>) -> Vec<Waker> {
        if let Some(ticket) = ticket {
            self.first.remove(&ticket);
            self.further.remove(&ticket);
        }
        self.ready()
    }

    /// Those who may draw now. They stay in their queue until they have.
    fn ready(&self) -> Vec<Waker> {
        let mut room = self.room();
        if let Some((_, waiter)) = self.patient() {
            let fits = waiter.draw.wants() <= room;
            return if fits { vec![waiter.waker.clone()] } else { Vec::new() };
        }
        let mut ready = Vec::new();
        let oldest = self.first.values().take(LOOKED_AT).chain(self.further.values().take(LOOKED_AT));
        for waiter in oldest {
            if waiter.draw.wants() <= room {
                room -= waiter.draw.bytes;
                ready.push(waiter.waker.clone());
            }
        }
        ready
    }
}
