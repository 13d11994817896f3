//! Who may be connected. A client that finds no seat is not hung up on: it sits down to be told so in the hand-shake, and a
//! task of an administrator finds one that is kept for it there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use budget::{Account, Budget};
use seam::Rt;
use tokio::sync::watch;

use crate::link::{Link, Phase};
use crate::server::Limits;

/// Bytes of the budget that are set aside for a connection: [`FIXED`], and three requests of 4 KiB whatever others do.
pub const SHARE: usize = 32 << 10;
/// Of these, what a connection takes that does nothing: its receive buffer, its task, its tables.
const FIXED: usize = 16 << 10;
/// The log tells of one kind of trouble with clients once in this time.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Why a client gets no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many clients are connected as may be.
    Full,
    /// No more memory can be set aside for clients.
    Memory,
    /// The process can open no more files.
    Files,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the server has as many connections as it may",
            Self::Memory => "the server's memory for clients is set aside for other connections",
            Self::Files => "the server has as many files open as it may",
        })
    }
}

/// How a server's clients are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clients {
    /// Connections open, those of tasks too.
    pub connections: usize,
    /// How many may be, those of tasks not counted.
    pub connections_max: usize,
    /// Clients refused since the start.
    pub refused: u64,
    /// Why the last one was, and how long ago.
    pub refused_last: Option<(Refusal, Duration)>,
    /// Clients cut off since the start because they did not take their replies.
    pub cut_off: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of any client.
    Client,
    /// Kept for tasks.
    Task,
    /// Of one that is told why it gets none.
    Answer,
}

struct Seated {
    link: Weak<Link>,
    kind: Kind,
}

/// When the log last told of something, and how often it has happened since.
#[derive(Default)]
struct Herald {
    said: Option<Duration>,
    unsaid: u64,
}

impl Herald {
    /// Counts one; gives how many there are to tell of, when it is time to.
    fn count(&mut self, now: Duration) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| now.saturating_sub(said) < SAY_EVERY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[derive(Default)]
struct Table {
    seated: BTreeMap<u64, Seated>,
    next: u64,
    clients: usize,
    tasks: usize,
    answers: usize,
    refused: u64,
    refused_last: Option<(Refusal, Duration)>,
    cut_off: u64,
    refusals: Herald,
    cuts: Herald,
}

impl Table {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Client => &mut self.clients,
            Kind::Task => &mut self.tasks,
            Kind::Answer => &mut self.answers,
        }
    }
}

/// Why a connection is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotNow {
    /// The server stops.
    Stopping,
    /// There are as many as are told at once: when one leaves, it can be.
    Busy,
}

/// The seats of a server.
pub(crate) struct Seats {
    rt: Rt,
    pub(crate) limits: Limits,
    budget: Budget,
    table: Mutex<Table>,
    /// Connections not yet closed, tasks of their requests included.
    pub(crate) open: watch::Sender<usize>,
    pub(crate) phase: watch::Sender<Phase>,
}

/// A connection's place, given back when dropped.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table();
        if let Some(seated) = table.seated.remove(&self.number) {
            *table.of(seated.kind) -= 1;
        }
        drop(table);
        self.seats.open.send_modify(|open| *open -= 1);
    }
}

impl Seat {
    /// Moves from where a client is only told that there is no seat to one kept for tasks; whether there is one.
    pub(crate) fn take_task_seat(&self) -> bool {
        let mut table = self.seats.table();
        let Some(kind) = table.seated.get(&self.number).map(|seated| seated.kind) else { return false };
        if kind != Kind::Answer {
            return true;
        }
        if table.tasks >= self.seats.limits.tasks {
            return false;
        }
        table.answers -= 1;
        table.tasks += 1;
        if let Some(seated) = table.seated.get_mut(&self.number) {
            seated.kind = Kind::Task;
        }
        drop(table);
        // Somebody may wait to be told.
        self.seats.open.send_modify(|_| {});
        true
    }

    /// The client is told why it gets no seat.
    pub(crate) fn refused(&self, why: Refusal) {
        let now = self.seats.rt.now();
        let mut table = self.seats.table();
        table.refused += 1;
        table.refused_last = Some((why, now));
        let due = table.refusals.count(now);
        drop(table);
        if let Some(count) = due {
            tracing::warn!(count, "NBD clients refused: {why}");
        }
    }

    /// The client has not taken its replies for too long; it held `bytes` of memory.
    pub(crate) fn cut_off(&self, bytes: usize) {
        let mut table = self.seats.table();
        table.cut_off += 1;
        let due = table.cuts.count(self.seats.rt.now());
        drop(table);
        if let Some(count) = due {
            tracing::warn!(count, bytes, "NBD clients cut off: they did not take their replies in time");
        }
    }
}

impl Seats {
    pub(crate) fn new(rt: Rt, limits: Limits, budget: Budget) -> Self {
        Self {
            rt,
            limits,
            budget,
            table: Mutex::default(),
            open: watch::Sender::new(0),
            phase: watch::Sender::new(Phase::Open),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Whole after every statement, so a panic elsewhere spoils nothing.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the clients are.
    pub(crate) fn clients(&self) -> Clients {
        let table = self.table();
        let ago = |(why, at)| (why, self.rt.now().saturating_sub(at));
        Clients {
            connections: table.clients + table.tasks,
            connections_max: self.limits.connections.min(self.budget.total() / 2 / SHARE),
            refused: table.refused,
            refused_last: table.refused_last.map(ago),
            cut_off: table.cut_off,
        }
    }

    /// Seats a connection, when it can be; `None` when the server stops.
    pub(crate) async fn seat(self: &Arc<Self>) -> Option<Arc<Link>> {
        let (mut open, mut phase) = (self.open.subscribe(), self.phase.subscribe());
        loop {
            match self.admit() {
                Ok(link) => return Some(link),
                Err(NotNow::Stopping) => return None,
                Err(NotNow::Busy) => {}
            }
            tokio::select! {
                _ = open.changed() => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// Takes in a connection.
    fn admit(self: &Arc<Self>) -> Result<Arc<Link>, NotNow> {
        let mut table = self.table();
        if *self.phase.borrow() != Phase::Open {
            return Err(NotNow::Stopping);
        }
        let full = table.clients >= self.limits.connections;
        let account = if full { None } else { self.budget.open(SHARE) };
        if let Some(account) = account {
            return Ok(self.sit(&mut table, Kind::Client, None, account));
        }
        if table.answers >= self.limits.answers {
            return Err(NotNow::Busy);
        }
        let why = if full { Refusal::Full } else { Refusal::Memory };
        let account = self.budget.open_first(SHARE).ok_or(NotNow::Busy)?;
        Ok(self.sit(&mut table, Kind::Answer, Some(why), account))
    }

    /// Takes in a connection beyond the number, to tell it that no more files can be opened.
    pub(crate) fn admit_without_file(self: &Arc<Self>) -> Option<Arc<Link>> {
        let account = self.budget.open_first(SHARE)?;
        Some(self.sit(&mut self.table(), Kind::Answer, Some(Refusal::Files), account))
    }

    fn sit(
        self: &Arc<Self>,
        table: &mut Table,
        kind: Kind,
        why: Option<Refusal>,
        mut account: Account,
    ) -> Arc<Link> {
        assert!(account.try_take(FIXED), "a new account has all of its share");
        let number = table.next;
        table.next += 1;
        *table.of(kind) += 1;
        self.open.send_modify(|open| *open += 1);
        let seat = Seat { seats: self.clone(), number };
        let link = Arc::new(Link::new(self.limits, account, Some(seat), why));
        table.seated.insert(number, Seated { link: Arc::downgrade(&link), kind });
        link
    }

    /// Tells the accepting task and every connection.
    pub(crate) fn advance(&self, phase: Phase) {
        let links: Vec<_> = {
            let table = self.table();
            self.phase.send_modify(|known| *known = (*known).max(phase));
            table.seated.values().filter_map(|seated| seated.link.upgrade()).collect()
        };
        // Outside the lock: letting go of a link may give its seat back.
        for link in links {
            link.advance(phase);
        }
    }
}
