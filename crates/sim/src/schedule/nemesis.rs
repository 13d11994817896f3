//! The nemesis: strikes media and wires at random, only victims where data could be lost.

use std::sync::Arc;
use std::time::Duration;

use seam::Runtime;
use units::PAGE;

use crate::medium::{FaultKind, Latency};
use crate::net::LinkPolicy;
use crate::rng::Rng;

use super::plan::Menu;
use super::world::World;

/// Kinds that make an operation fail, and by how many in a million at most.
const ERRORS: [(FaultKind, u64); 4] = [
    (FaultKind::ReadError, 100_000),
    (FaultKind::WriteError, 30_000),
    (FaultKind::SyncError, 10_000),
    (FaultKind::NoSpace, 30_000),
];
/// Kinds that make an operation lie.
const LIES: [(FaultKind, u64); 3] =
    [(FaultKind::WrongRead, 100_000), (FaultKind::LostWrite, 100_000), (FaultKind::MisdirectedWrite, 30_000)];
/// Strikes of one schedule: more cost time and find nothing new.
const STRIKES_MAX: usize = 300;
/// Where the second copy of the superblock lies.
const SUPERBLOCK_COPY: u64 = 64 << 10;
/// Most bits flipped at a time.
const ROT_BITS: u64 = 20;

pub(super) struct Nemesis {
    world: Arc<World>,
    rng: Rng,
}

impl Nemesis {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: world.clone(), rng: world.control.rng("nemesis") }
    }

    /// Sets the usual latencies and delays; nothing fails yet.
    pub(super) fn prepare(&mut self) {
        let Menu { disorder, .. } = self.world.plan.menu;
        for medium in 0..self.world.site.stores().len() {
            let policy = if disorder { disordered() } else { LinkPolicy::default() };
            self.world.site.set_wire(medium, policy);
        }
        let latency = Latency { discards: self.world.plan.discards, ..Latency::default() };
        self.world.site.stores().iter().for_each(|store| store.set_latency(latency));
    }

    /// Strikes until told to stop.
    pub(super) async fn run(mut self) {
        for _ in 0..STRIKES_MAX {
            let calm = self.rng.below(self.world.plan.calm.as_nanos() as u64);
            self.world.rt.sleep(Duration::from_nanos(calm)).await;
            if self.world.is_over() {
                return;
            }
            self.strike().await;
        }
    }

    fn victim(&mut self) -> Option<usize> {
        let victims = &self.world.plan.victims;
        victims.get(self.rng.index(victims.len())).copied()
    }

    async fn strike(&mut self) {
        let menu = self.world.plan.menu;
        let victim = self.victim();
        match (self.rng.below(8), victim) {
            (0, Some(victim)) if menu.gone => self.take_away(victim).await,
            (1, Some(victim)) if menu.rot => self.rot(victim),
            (2, Some(victim)) if menu.errors => self.disturb(victim, &ERRORS).await,
            (3, Some(victim)) if menu.lies => self.disturb(victim, &LIES).await,
            (4, Some(victim)) if menu.drops => self.cut_off(victim).await,
            (5, _) if menu.slow => self.slow_down().await,
            (6, _) if menu.host_full => self.fill_host().await,
            _ => {}
        }
    }

    async fn last(&mut self) {
        let most = 3 * self.world.plan.calm.as_nanos() as u64;
        let span = Duration::from_nanos(self.rng.below(most));
        self.world.rt.sleep(span).await;
    }

    /// The victim, or all victims of its data node.
    fn struck(&mut self, victim: usize) -> Vec<usize> {
        let plan = &self.world.plan;
        let node = plan.spec.node_of(victim);
        let mut struck = vec![victim];
        if plan.spec.nodes > 1 && !self.rng.chance(300_000) {
            let others =
                plan.victims.iter().filter(|other| **other != victim && plan.spec.node_of(**other) == node);
            struck.extend(others);
        }
        struck
    }

    async fn take_away(&mut self, victim: usize) {
        let struck = self.struck(victim);
        self.world.note(format_args!("media {struck:?} go"));
        struck.iter().for_each(|victim| self.world.set_gone(*victim, true));
        self.last().await;
        // Sometimes they stay away until the end, or until another strike brings them back.
        if self.rng.chance(750_000) {
            self.world.note(format_args!("media {struck:?} are back"));
            struck.iter().for_each(|victim| self.world.set_gone(*victim, false));
        }
    }

    /// Flips bits and spoils pages of a victim; also done between lives.
    pub(super) fn rot(&mut self, victim: usize) {
        let store = &self.world.site.stores()[victim];
        // One copy of the superblock and of the seal stays as it is: without both the medium is no part of the site any more.
        let start = if victim.is_multiple_of(2) { 2 * PAGE as u64 } else { 0 };
        let end = if start == 0 { SUPERBLOCK_COPY } else { store.len() };
        let (start, end) = if self.rng.chance(50_000) {
            (start, end)
        } else {
            (SUPERBLOCK_COPY + 2 * PAGE as u64, store.len())
        };
        for _ in 0..1 + self.rng.below(ROT_BITS) {
            // All over, or close together.
            let at = self.rng.range(start..end);
            let range = if self.rng.coin() { start..end } else { at..end.min(at + (256 << 10)) };
            if self.rng.chance(100_000) {
                store.spoil(at..end.min(at + 4096));
                self.world.note(format_args!("medium {victim}: bytes from {at} on cannot be read"));
            } else if let Some(bit) = store.rot_random(range) {
                self.world.note(format_args!("medium {victim}: bit {bit} flips"));
            }
        }
    }

    async fn disturb(&mut self, victim: usize, kinds: &[(FaultKind, u64)]) {
        let store = self.world.site.stores()[victim].clone();
        let (kind, most) = kinds[self.rng.index(kinds.len())];
        let ppm = self.rng.below(most) as u32;
        self.world.note(format_args!("medium {victim}: {kind:?} at {ppm} in a million"));
        store.set_rate(kind, ppm);
        self.last().await;
        store.set_rate(kind, 0);
    }

    async fn cut_off(&mut self, victim: usize) {
        let drop_ppm = if self.rng.coin() { 1_000_000 } else { self.rng.below(300_000) as u32 };
        let struck = self.struck(victim);
        self.world.note(format_args!("media {struck:?}: messages are lost, {drop_ppm} in a million"));
        let rare_max = Duration::from_secs(self.rng.below(50));
        let policy = LinkPolicy {
            drop_ppm,
            rare_ppm: 50_000,
            rare_max: rare_max.max(Duration::from_millis(5)),
            ..disordered()
        };
        struck.iter().for_each(|victim| self.world.site.set_wire(*victim, policy));
        self.last().await;
        // Behind the end of the schedule nothing is struck.
        let disorder = self.world.plan.menu.disorder && !self.world.is_over();
        let policy = if disorder { disordered() } else { LinkPolicy::default() };
        struck.iter().for_each(|victim| self.world.site.set_wire(*victim, policy));
    }

    async fn slow_down(&mut self) {
        let medium = self.rng.index(self.world.plan.spec.media);
        let percent = 100 + self.rng.below(5000) as u32;
        let store = self.world.site.stores()[medium].clone();
        self.world.note(format_args!("medium {medium} works at {percent} % of its latency"));
        store.set_slow_percent(percent);
        self.last().await;
        store.set_slow_percent(100);
    }

    /// All media are on one file system, which another program fills.
    async fn fill_host(&mut self) {
        self.world.note(format_args!("the file system below is full"));
        self.world.set_host_full(true);
        for store in self.world.site.stores() {
            store.set_capacity(Some(0));
        }
        self.last().await;
        for store in self.world.site.stores() {
            store.set_capacity(None);
        }
        self.world.set_host_full(false);
        self.world.note(format_args!("the file system below has room again"));
    }

    /// Between lives: media stay away or come back, and rot while nobody looks.
    pub(super) fn between_lives(&mut self) {
        let menu = self.world.plan.menu;
        for victim in self.world.plan.victims.clone() {
            if menu.gone && self.rng.chance(300_000) {
                self.world.note(format_args!("medium {victim} is away at the start"));
                self.world.set_gone(victim, true);
            } else if self.rng.coin() {
                self.world.set_gone(victim, false);
            }
            if menu.rot && self.rng.chance(300_000) {
                self.rot(victim);
            }
        }
    }
}

/// Messages of a bad network, none lost.
fn disordered() -> LinkPolicy {
    LinkPolicy {
        rare_ppm: 20_000,
        rare_max: Duration::from_millis(50),
        twice_ppm: 30_000,
        twice_max: Duration::from_secs(2),
        reorder_ppm: 500_000,
        ..LinkPolicy::default()
    }
}
