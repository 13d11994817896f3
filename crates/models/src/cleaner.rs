//! The cleaner: mark, second barrier, sweep, stubs.

use crate::model::{Action, Cleaning, Flaw};
use crate::state::{
    Address, Boundary, CONTAINERS, Cleaner, Event, HOLDERS, Phase, Place, Stage, State, Stub, members,
};

/// What a pass of the mark reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// What is in RAM, one after the other.
    Ram,
    /// What is in RAM, at one instant.
    RamAtOnce,
    /// Records of what rests, one after the other.
    Rest,
    /// All records that name a root, at one revision.
    RecordsAtOnce,
}

impl Cleaning {
    fn passes(&self) -> &'static [Pass] {
        match self.flaw {
            Some(Flaw::ForksNotNotedRamTwice) => &[Pass::Ram, Pass::Rest, Pass::Ram],
            Some(Flaw::ForksNotNotedRamTwiceAtOnce) => {
                &[Pass::RamAtOnce, Pass::RecordsAtOnce, Pass::RamAtOnce]
            }
            Some(Flaw::RestReadFirst) => &[Pass::Rest, Pass::Ram],
            _ => &[Pass::Ram, Pass::Rest],
        }
    }

    fn notes_forks(&self) -> bool {
        let left_out = matches!(
            self.flaw,
            Some(Flaw::ForksNotNoted | Flaw::ForksNotNotedRamTwice | Flaw::ForksNotNotedRamTwiceAtOnce)
        );
        !left_out && !self.scene.marks_at_once
    }

    pub(crate) fn records_hits(&self, state: &State) -> bool {
        match state.cleaner.phase {
            Phase::Begun | Phase::Marking(0, 0) => !self.has(Flaw::HitsRecordedLate),
            Phase::Marking(..) | Phase::Marked => true,
            _ => false,
        }
    }

    /// A disk or snapshot is about to begin as another is.
    pub(crate) fn note_fork(&self, state: &mut State, source: u8) {
        let noting = matches!(state.cleaner.phase, Phase::Begun | Phase::Marking(..) | Phase::Marked);
        if noting && self.notes_forks() {
            self.mark(state, source);
        }
    }

    pub(crate) fn cleaner_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let gate = state.batch.is_none() || self.has(Flaw::GateNotHeld);
        let early = self.has(Flaw::DeletedBeforeStub);
        match state.cleaner.phase {
            Phase::Idle => {
                let forks = state.at(Place::Published) == 0 || self.has(Flaw::ForkGateNotTaken);
                if state.left.cycles > 0 && gate && forks {
                    actions.push(Action::Begin);
                }
            }
            Phase::Begun => actions.push(Action::Candidates),
            Phase::Marking(..) => actions.push(Action::Read),
            Phase::Marked => {
                if gate && (state.boundary.is_none() || self.has(Flaw::CheckpointUnderWay)) {
                    actions.push(Action::Condemn);
                }
            }
            Phase::Sweeping => match state.first_condemned() {
                None => actions.push(Action::End),
                Some(container) if state.live_in(container) == 0 => actions.push(Action::Drop),
                Some(_) if (state.next as usize) < CONTAINERS => actions.push(Action::Copy),
                Some(_) => {}
            },
            Phase::Copied(_) => {
                let dropped =
                    state.first_condemned().is_none_or(|at| state.container(at).stage == Stage::Deleted);
                actions.push(if early && !dropped { Action::Drop } else { Action::Stub });
            }
            Phase::Stubbed => actions.push(if early { Action::Free } else { Action::Drop }),
            Phase::Dropped => actions.push(Action::Free),
        }
        if matches!(state.cleaner.phase, Phase::Sweeping | Phase::Copied(_) | Phase::Stubbed | Phase::Dropped)
        {
            actions.extend(members(self.old_stubs(state)).map(Action::RemoveStub));
        }
    }

    /// Stubs that may go.
    fn old_stubs(&self, state: &State) -> u8 {
        let stubs = state.containers(|container| matches!(container.stub, Stub::To(_)));
        let mut old = stubs;
        if !self.has(Flaw::StubGoesByEarlierMark) {
            old &= state.cleaner.stubs;
        }
        if !self.has(Flaw::StubGoesThoughMet) {
            old &= !state.cleaner.met;
        }
        old
    }

    /// (1), with the gates held.
    pub(crate) fn begin(&self, state: &mut State) {
        state.left.cycles -= 1;
        let stubs = state.containers(|container| matches!(container.stub, Stub::To(_)));
        state.cleaner = Cleaner { phase: Phase::Begun, stubs, ..Cleaner::default() };
        if self.scene.marks_at_once {
            members(state.alive()).for_each(|at| self.mark(state, at));
        }
    }

    /// (2)
    pub(crate) fn take_candidates(&self, state: &mut State) {
        let covered = state.containers(|container| container.covered);
        let covered = if self.has(Flaw::UncoveredAreCandidates) { u8::MAX } else { covered };
        state.cleaner.candidates = state.committed() & covered;
        state.cleaner.phase = if self.scene.marks_at_once { Phase::Marked } else { Phase::Marking(0, 0) };
    }

    /// (3) One step. Those that have left before their turn are passed over.
    pub(crate) fn read(&self, state: &mut State) {
        let Phase::Marking(pass, from) = state.cleaner.phase else { return };
        let (there, at_once) = match self.passes()[pass as usize] {
            Pass::Ram => (state.at(Place::Ram), false),
            Pass::RamAtOnce => (state.at(Place::Ram), true),
            Pass::Rest => (state.at(Place::Rest), false),
            Pass::RecordsAtOnce => (state.at(Place::Rest) | state.at(Place::Published), true),
        };
        let next = members(there).find(|at| *at >= from);
        let read = if at_once { there } else { next.map_or(0, |at| 1 << at) };
        members(read).for_each(|at| self.mark(state, at));
        let behind = 8 - read.leading_zeros() as u8;
        let goes_on = !at_once && read != 0 && there >> behind != 0;
        state.cleaner.phase = match (goes_on, pass as usize + 1 < self.passes().len()) {
            (true, _) => Phase::Marking(pass, behind),
            (false, true) => Phase::Marking(pass + 1, 0),
            (false, false) => Phase::Marked,
        };
    }

    fn mark(&self, state: &mut State, holder: u8) {
        // Layers that a checkpoint under way merges are below the overlay until it is durable.
        let part = |boundary: &Boundary| Some(boundary.maps[boundary.part_of[holder as usize]? as usize]);
        let merged = state.boundary.as_ref().and_then(part).unwrap_or_default();
        for address in state.holder(holder).addresses().chain(merged) {
            let (way, end) = state.follow(address);
            let first = address.parts().map_or(0, |(container, _)| 1 << container);
            state.cleaner.met |= if self.has(Flaw::WayNotMet) { first } else { way };
            let live = if self.has(Flaw::EndNotLive) { Some(address) } else { end };
            state.cleaner.live |= live.map_or(0, Address::bit);
        }
    }

    /// (4), with the gates held.
    pub(crate) fn condemn(&self, state: &mut State) {
        let hits = if self.has(Flaw::HitsNotSpared) { 0 } else { state.cleaner.hits };
        let chosen = state.cleaner.candidates & state.committed() & !hits;
        let wasteful = |at: &u8| {
            let live = state.live_in(*at);
            live == 0 || live != state.container(*at).slots || self.scene.moves_all
        };
        state.cleaner.condemned = members(chosen).filter(wasteful).fold(0, |set, at| set | 1 << at);
        let cleaner = &mut state.cleaner;
        (cleaner.phase, cleaner.hits, cleaner.candidates) = (Phase::Sweeping, 0, 0);
    }

    /// (5)
    pub(crate) fn put_stub(&self, state: &mut State) {
        let (Phase::Copied(to), Some(container)) = (state.cleaner.phase, state.first_condemned()) else {
            return;
        };
        state.container_mut(container).stub = Stub::To(to);
        state.cleaner.phase = Phase::Stubbed;
    }

    /// (5)
    pub(crate) fn put_delete_record(&self, state: &mut State) {
        let Some(container) = state.first_condemned() else { return };
        state.container_mut(container).stage = Stage::Deleted;
        // Left out of order, the stub is still to come.
        if !matches!(state.cleaner.phase, Phase::Copied(_)) {
            state.cleaner.phase = Phase::Dropped;
        }
    }
}

impl State {
    pub(crate) fn first_condemned(&self) -> Option<u8> {
        members(self.cleaner.condemned).next()
    }

    /// Fingerprints the mark found live in a container.
    pub(crate) fn live_in(&self, container: u8) -> u8 {
        let slots = self.container(container).slots;
        let is_live = |fingerprint: &u8| {
            slots >> fingerprint & 1 != 0
                && self.cleaner.live & Address::new(container, *fingerprint).bit() != 0
        };
        (1..=crate::state::FINGERPRINTS).filter(is_live).fold(0, |set, fingerprint| set | 1 << fingerprint)
    }

    /// (5) The new container has no map log, but a commit record.
    pub(crate) fn copy(&mut self) {
        let Some(container) = self.first_condemned() else { return };
        let (to, slots) = (self.next, self.live_in(container));
        self.next += 1;
        let new = self.container_mut(to);
        (new.stage, new.slots) = (Stage::Committed, slots);
        self.cleaner.phase = Phase::Copied(to);
        self.events.push(Event::Commit { container: to, changes: Vec::new() });
    }

    /// (5)
    pub(crate) fn free(&mut self) {
        let Some(container) = self.first_condemned() else { return };
        self.container_mut(container).free();
        self.cleaner.condemned &= !(1 << container);
        self.cleaner.phase = Phase::Sweeping;
    }

    /// (6)
    pub(crate) fn remove_stub(&mut self, container: u8) {
        self.container_mut(container).stub = Stub::Removed;
        self.cleaner.stubs &= !(1 << container);
    }
}

const _: () = assert!(HOLDERS < 8 && CONTAINERS <= 8, "sets have eight bits");
