//! The history of one block, and what is known from it.
//!
//! A write takes effect at one moment, or never when it failed or was cut off. Per write three bounds are kept, all
//! stamps of the model's clock: `order_end` (a write that begins later is ordered behind it), `latest` (it takes effect by then or
//! never), and `dead` (by then something newer was in effect). A read of `x` within `[start, end]` is right when some
//! write of `x` was not dead before `start`. Bounds only tighten, and only on proof:
//! - a write that certainly happened kills by its `latest` all writes ordered before it;
//! - a read of `x` kills by `x`'s `latest` every other write that took effect before the read began, or never.

use std::time::Duration;

use super::fill::Contents;

/// A moment on the model's own clock, which tells the order of events at the same virtual time.
pub(super) type Stamp = u64;
/// Not yet known.
const NEVER: Stamp = Stamp::MAX;
/// Dead writes a block remembers for its report.
const DEAD_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Acked,
    Failed,
    Cut,
}

#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) op: u64,
    pub(super) contents: Contents,
    hash: u128,
    state: State,
    begun: Stamp,
    begun_at: Duration,
    ended: Stamp,
    ended_at: Duration,
    order_end: Stamp,
    latest: Stamp,
    dead: Stamp,
    seen: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Block {
    writes: Vec<Write>,
}

/// Whether a value that was read had ever been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    NeverWritten,
    Superseded,
}

impl Block {
    /// A block of zeros.
    pub(super) fn new(zero: u128) -> Self {
        let initial = Write {
            op: 0,
            contents: Contents::Zero,
            hash: zero,
            state: State::Acked,
            begun: 0,
            begun_at: Duration::ZERO,
            ended: 0,
            ended_at: Duration::ZERO,
            order_end: 0,
            latest: 0,
            dead: NEVER,
            seen: false,
        };
        Self { writes: vec![initial] }
    }

    pub(super) fn begin(&mut self, op: u64, contents: Contents, hash: u128, stamp: Stamp, at: Duration) {
        self.writes.push(Write {
            op,
            contents,
            hash,
            state: State::Running,
            begun: stamp,
            begun_at: at,
            ended: NEVER,
            ended_at: Duration::ZERO,
            order_end: NEVER,
            latest: NEVER,
            dead: NEVER,
            seen: false,
        });
    }

    fn end(&mut self, op: u64, state: State, stamp: Stamp, at: Duration) -> Option<usize> {
        let index = self.writes.iter().position(|write| write.op == op)?;
        let write = &mut self.writes[index];
        write.state = state;
        write.ended = stamp;
        write.ended_at = at;
        write.order_end = write.order_end.min(stamp);
        Some(index)
    }

    /// The write was acknowledged: it has taken effect.
    pub(super) fn ack(&mut self, op: u64, stamp: Stamp, at: Duration) {
        if let Some(index) = self.end(op, State::Acked, stamp, at) {
            let write = &mut self.writes[index];
            write.latest = write.latest.min(stamp);
            self.happened(index);
        }
    }

    /// The write returned an error: it may take effect, now or later, but not over a write begun after this.
    pub(super) fn fail(&mut self, op: u64, stamp: Stamp, at: Duration) {
        self.end(op, State::Failed, stamp, at);
    }

    /// What had not taken effect by now never will.
    pub(super) fn crash(&mut self, stamp: Stamp, at: Duration) {
        for index in 0..self.writes.len() {
            let write = &self.writes[index];
            let (op, state) = (write.op, write.state);
            if state == State::Running {
                self.end(op, State::Cut, stamp, at);
            }
            let write = &mut self.writes[index];
            write.latest = write.latest.min(stamp);
        }
    }

    /// What was acknowledged after `since`, or seen and not answered before, may be lost after all, as if a crash had cut it off: what it superseded is
    /// possible again.
    pub(super) fn doubt(&mut self, since: Duration) {
        let doubtful = |write: &Write| (write.state == State::Acked || write.seen) && write.ended_at > since;
        let Some(begun) = self.writes.iter().filter(|write| doubtful(write)).map(|write| write.begun).min()
        else {
            return;
        };
        for write in &mut self.writes {
            if write.dead >= begun {
                write.dead = NEVER;
            }
            if doubtful(write) {
                write.state = State::Cut;
                write.seen = false;
            }
        }
    }

    /// The write at `index` took effect by its `latest`: all ordered before it are dead by then.
    fn happened(&mut self, index: usize) {
        let Write { begun, latest, .. } = self.writes[index];
        for write in self.writes.iter_mut().filter(|write| write.order_end < begun) {
            write.dead = write.dead.min(latest);
        }
    }

    /// The writes that explain a read that began at `start`: at least one.
    pub(super) fn explain(&self, hash: u128, start: Stamp) -> Result<Vec<usize>, Wrong> {
        let candidates: Vec<usize> = (0..self.writes.len())
            .filter(|&index| self.writes[index].hash == hash && self.writes[index].dead >= start)
            .collect();
        if candidates.is_empty() {
            let known = self.writes.iter().any(|write| write.hash == hash);
            return Err(if known { Wrong::Superseded } else { Wrong::NeverWritten });
        }
        Ok(candidates)
    }

    /// Judges a read that began at `start` and ended at `end`, and learns from it.
    pub(super) fn read(&mut self, hash: u128, start: Stamp, end: Stamp) -> Result<(), Wrong> {
        let candidates = self.explain(hash, start)?;
        let newest = candidates.iter().map(|&index| self.writes[index].latest.min(end)).fold(0, Stamp::max);
        if let [only] = candidates[..] {
            let write = &mut self.writes[only];
            write.latest = write.latest.min(end);
            write.order_end = write.order_end.min(end);
            write.seen = true;
            self.happened(only);
        }
        for (index, write) in self.writes.iter_mut().enumerate() {
            if write.latest < start && !candidates.contains(&index) {
                write.dead = write.dead.min(newest);
            }
        }
        Ok(())
    }

    /// The contents, when no other are possible for a read that begins now.
    pub(super) fn exact(&self) -> Option<&Contents> {
        let mut alive = self.writes.iter().filter(|write| write.dead == NEVER);
        let first = alive.next()?;
        alive.all(|write| write.hash == first.hash).then_some(&first.contents)
    }

    /// Forgets writes that no read can return, but for the last few. `oldest_read`: when the oldest read still
    /// running began.
    pub(super) fn prune(&mut self, oldest_read: Stamp) {
        let forgettable = |write: &Write| write.dead < oldest_read && write.state != State::Running;
        let count = self.writes.iter().filter(|write| forgettable(write)).count();
        let mut surplus = count.saturating_sub(DEAD_MAX);
        self.writes.retain(|write| {
            let drop = surplus > 0 && forgettable(write);
            surplus -= usize::from(drop);
            !drop
        });
    }

    /// The block as a cut made between `begun` and `now` may hold it: what was acknowledged before `begun` is in it,
    /// what was still running then may be.
    pub(super) fn at_cut(&self, begun: Stamp, now: Stamp, at: Duration) -> Self {
        let possible = self.writes.iter().filter(|write| write.dead >= begun);
        let writes = possible.cloned().map(|mut write| {
            write.dead = NEVER;
            write.op = 0;
            if write.state != State::Acked {
                write.state = State::Cut;
                write.order_end = now;
                write.latest = now;
                (write.ended, write.ended_at) = (now, at);
                write.seen = false;
            }
            write
        });
        Self { writes: writes.collect() }
    }

    /// One line per write, in the order they began. `describe` names contents.
    pub(super) fn lines(&self, describe: impl Fn(&Contents) -> String) -> Vec<String> {
        let line = |write: &Write| {
            let end = match write.state {
                State::Running => "running".to_owned(),
                State::Acked => format!("acked #{} {:?}", write.ended, write.ended_at),
                State::Failed => format!("failed #{} {:?}", write.ended, write.ended_at),
                State::Cut => format!("cut off #{} {:?}", write.ended, write.ended_at),
            };
            let seen = if write.seen { ", seen by a read" } else { "" };
            let dead = match write.dead {
                NEVER => "possible".to_owned(),
                dead => format!("superseded by #{dead}"),
            };
            let contents = describe(&write.contents);
            format!(
                "op {}: {contents}, begun #{} {:?}, {end}{seen}: {dead}",
                write.op, write.begun, write.begun_at
            )
        };
        self.writes.iter().map(line).collect()
    }

    /// Whether a write of this hash is remembered.
    pub(super) fn knows(&self, hash: u128) -> bool {
        self.writes.iter().any(|write| write.hash == hash)
    }
}
