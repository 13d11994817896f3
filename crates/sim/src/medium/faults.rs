//! Which operation fails, and how: probabilities, injections, counts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::rng::{MILLION, Rng};

/// What can go wrong. The first group can be given a rate or injected; the second is counted when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A read returns an error.
    ReadError,
    /// A read returns its data with one bit flipped; the medium itself is sound.
    WrongRead,
    /// A write returns an error; it may have landed, in part or whole.
    WriteError,
    /// A write claims success and never lands.
    LostWrite,
    /// A write claims success and lands at another place of the same medium.
    MisdirectedWrite,
    /// A write finds no room; pages in front may have landed.
    NoSpace,
    /// A sync returns an error: what was unsynced is kept, torn or lost, and writes and syncs fail until the
    /// medium is opened again.
    SyncError,

    /// An operation took the rare long latency.
    SlowOp,
    /// A bit of the medium flipped.
    BitFlip,
    /// An operation met a medium that was gone.
    Gone,
    /// A write in flight was lost with the process that made it, in part or whole.
    KillLost,
    /// An unsynced write was lost in a power cut.
    CutLost,
    /// An unsynced write was torn in a power cut.
    CutTorn,
    /// An unsynced write survived a power cut.
    CutKept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    Write,
    Sync,
}

impl FaultKind {
    /// The operation it strikes; `None` for those that cannot be asked for.
    fn strikes(self) -> Option<Op> {
        match self {
            Self::ReadError | Self::WrongRead => Some(Op::Read),
            Self::WriteError | Self::LostWrite | Self::MisdirectedWrite | Self::NoSpace => Some(Op::Write),
            Self::SyncError => Some(Op::Sync),
            _ => None,
        }
    }
}

/// One fault at one chosen operation.
#[derive(Debug, Clone)]
pub struct Injection {
    /// What happens; it decides which kind of operation is meant.
    pub fault: FaultKind,
    /// Matching operations that pass unharmed first.
    pub skip: u64,
    /// Bytes of the medium: an operation matches when it touches one of them. Of no meaning for a sync.
    pub within: Range<u64>,
}

/// How long operations take: uniform in `min..=max`, rarely in `max..=rare_max`; a discard `discards` times a
/// usual one.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// The shortest.
    pub min: Duration,
    /// The longest of the usual ones.
    pub max: Duration,
    /// How many in a million take longer.
    pub rare_ppm: u32,
    /// The longest of the rare ones.
    pub rare_max: Duration,
    /// How many times as long a discard takes as other operations usually do.
    pub discards: u32,
}

impl Default for Latency {
    /// 20 to 200 us, and 20 ms for one in a thousand: a flash disk; discards are as fast as writes.
    fn default() -> Self {
        Self {
            min: Duration::from_micros(20),
            max: Duration::from_micros(200),
            rare_ppm: 1000,
            rare_max: Duration::from_millis(20),
            discards: 1,
        }
    }
}

/// Rates, injections not yet fired, and counts of what fired.
#[derive(Debug)]
pub(super) struct Faults {
    rates: BTreeMap<FaultKind, u32>,
    injections: Vec<Injection>,
    counts: BTreeMap<FaultKind, u64>,
    pub(super) latency: Latency,
    pub(super) slow_percent: u32,
}

impl Faults {
    /// None; the usual speed.
    pub(super) fn new() -> Self {
        Self {
            rates: BTreeMap::new(),
            injections: Vec::new(),
            counts: BTreeMap::new(),
            latency: Latency::default(),
            slow_percent: 100,
        }
    }

    pub(super) fn set_rate(&mut self, fault: FaultKind, ppm: u32) {
        assert!(fault.strikes().is_some(), "{fault:?} happens by itself and has no rate");
        assert!(ppm <= MILLION, "a rate is at most one in one");
        self.rates.insert(fault, ppm);
    }

    pub(super) fn clear(&mut self) {
        self.rates.clear();
        self.injections.clear();
    }

    pub(super) fn inject(&mut self, injection: Injection) {
        assert!(injection.fault.strikes().is_some(), "{:?} cannot be injected", injection.fault);
        self.injections.push(injection);
    }

    pub(super) fn count(&mut self, fault: FaultKind) {
        *self.counts.entry(fault).or_default() += 1;
    }

    pub(super) fn fired(&self, fault: FaultKind) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }

    /// The fault that strikes this operation, if any.
    pub(super) fn draw(&mut self, rng: &mut Rng, op: Op, bytes: Range<u64>) -> Option<FaultKind> {
        let fault = self.injected(op, &bytes).or_else(|| {
            let rates = self.rates.iter().filter(|(fault, _)| fault.strikes() == Some(op));
            rates.fold(None, |drawn, (&fault, &ppm)| if rng.chance(ppm) { Some(fault) } else { drawn })
        });
        fault.inspect(|&fault| self.count(fault))
    }

    fn injected(&mut self, op: Op, bytes: &Range<u64>) -> Option<FaultKind> {
        let mut due = None;
        for (index, injection) in self.injections.iter_mut().enumerate() {
            let touches = injection.within.start < bytes.end && bytes.start < injection.within.end;
            if injection.fault.strikes() != Some(op) || (op != Op::Sync && !touches) {
                continue;
            }
            if injection.skip > 0 {
                injection.skip -= 1;
            } else if due.is_none() {
                due = Some(index);
            }
        }
        due.map(|index| self.injections.remove(index).fault)
    }

    /// How long an operation takes.
    pub(super) fn draw_latency(&mut self, rng: &mut Rng) -> Duration {
        let Latency { min, max, rare_ppm, rare_max, .. } = self.latency;
        let (low, high) = if rng.chance(rare_ppm) {
            self.count(FaultKind::SlowOp);
            (max, rare_max)
        } else {
            (min, max)
        };
        self.draw_between(rng, low, high)
    }

    /// How long a discard takes.
    pub(super) fn draw_discard(&mut self, rng: &mut Rng) -> Duration {
        let Latency { min, max, discards, .. } = self.latency;
        if discards == 1 {
            return self.draw_latency(rng);
        }
        self.draw_between(rng, min, max).saturating_mul(discards)
    }

    fn draw_between(&self, rng: &mut Rng, low: Duration, high: Duration) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2);
        let drawn = Duration::from_nanos(rng.range(nanos(low)..nanos(high) + 1));
        drawn.saturating_mul(self.slow_percent) / 100
    }
}
