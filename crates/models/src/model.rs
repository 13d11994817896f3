//! The model as the checker sees it: a start, bounds, actions, properties.

use stateright::{Model, Property};

use crate::properties;
use crate::state::{Address, Container, HOLDERS, HOLE, LBAS, Left, Place, Stage, State};

/// A rule of the algorithm left out: the checker must find what it is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Hits are recorded from the mark's first step on, not before.
    HitsRecordedLate,
    /// No second barrier: candidates that were hit are condemned all the same.
    HitsNotSpared,
    /// Condemned containers still give hits.
    CondemnedGiveHits,
    /// Containers whose commit no checkpoint covers are candidates too.
    UncoveredAreCandidates,
    /// The Delete record comes before the stub.
    DeletedBeforeStub,
    /// Stubs go though the mark met an address in them.
    StubGoesThoughMet,
    /// Stubs go by a mark that began before their container was condemned.
    StubGoesByEarlierMark,
    /// The mark meets the address a map holds, not those that stubs lead on to.
    WayNotMet,
    /// The mark takes the slot a map names for live, not the one stubs lead to.
    EndNotLive,
    /// A batch under way does not keep the cleaner waiting.
    GateNotHeld,
    /// Disks that begin during the mark are not noted. The mark reads RAM, then what rests, one after the other.
    ForksNotNoted,
    /// They are not noted, but RAM is read once more behind, one disk after the other.
    ForksNotNotedRamTwice,
    /// They are not noted, but RAM is read before and behind, each time all at one instant, and between all records of the
    /// metadata at one revision.
    ForksNotNotedRamTwiceAtOnce,
    /// What rests is read before RAM, and forks are noted.
    RestReadFirst,
    /// A cycle may begin while a disk is in the metadata and not yet in RAM.
    ForkGateNotTaken,
    /// Containers are condemned while a checkpoint is under way.
    CheckpointUnderWay,
    /// Maps are mended in RAM, with no checkpoint that says so.
    MendedInRam,
}

/// Where a run begins and how much may happen.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Fingerprints of the containers there are, all committed and checkpointed.
    pub containers: &'static [&'static [u8]],
    /// Disks and snapshots there are, by place; for each block container and fingerprint, 0 for a hole.
    pub holders: [Option<[(u8, u8); LBAS]>; HOLDERS],
    /// Operations left.
    pub left: Left,
    /// Checkpoints put addresses right that stubs replaced.
    pub mends: bool,
    /// A restart finishes the deletion of containers that have a stub.
    pub resumes: bool,
    /// The mark reads everything in the instant of (1) and notes nothing later: the other sound way.
    pub marks_at_once: bool,
    /// Containers without garbage are condemned too: to seal them with a new key, to leave a row of media.
    pub moves_all: bool,
    /// A checkpoint takes two steps, so that others come between.
    pub slow_checkpoints: bool,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Cleaning {
    /// Where it begins.
    pub scene: Scene,
    /// What is left out.
    pub flaw: Option<Flaw>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A write is acknowledged; fingerprint 0 is a trim.
    Write {
        /// The disk.
        disk: u8,
        /// The block.
        lba: u8,
        /// What is written.
        fingerprint: u8,
    },
    /// A snapshot, a clone, a copy of a snapshot.
    Fork {
        /// What it begins as.
        source: u8,
        /// The new one.
        target: u8,
    },
    /// A disk made from a snapshot at rest comes into RAM.
    Publish(u8),
    /// A disk or snapshot is deleted.
    Delete(u8),
    /// A snapshot that a checkpoint has leaves RAM.
    Settle(u8),
    /// A batch takes the buffer. For each fingerprint the container it hits, or `None`: a new slot.
    Choose([Option<u8>; 2]),
    /// Its container is durable.
    Store,
    /// Its commit record is durable, its changes are in the maps.
    Commit,
    /// A checkpoint draws its boundary.
    Draw,
    /// It is durable, and its roots are in use.
    Checkpoint,
    /// A map is mended in RAM.
    Mend(u8),
    /// The node goes down.
    Crash,
    /// It comes back.
    Restart,
    /// (1) The cleaner takes the gate for an instant: hits and forks are noted from here.
    Begin,
    /// (2) It takes its candidates.
    Candidates,
    /// (3) The mark reads on.
    Read,
    /// (4) It takes the gate again: hits are spared, the rest condemned.
    Condemn,
    /// (5) Live blocks of a condemned container are in a new one.
    Copy,
    /// (5) The stub is durable.
    Stub,
    /// (5) The Delete record is durable.
    Drop,
    /// (5) The fragments are freed.
    Free,
    /// (6) A stub goes.
    RemoveStub(u8),
    /// The cycle ends.
    End,
}

impl Cleaning {
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn start(&self) -> State {
        let mut state = State { left: self.scene.left, ..State::default() };
        for (container, slots) in state.containers.iter_mut().zip(self.scene.containers) {
            let slots = slots.iter().fold(0, |set, fingerprint| set | 1 << fingerprint);
            *container = Container { stage: Stage::Committed, slots, covered: true, ..Container::default() };
            state.next += 1;
        }
        for (at, given) in self.scene.holders.iter().enumerate() {
            let Some(given) = given else { continue };
            let address = |(container, fingerprint)| match fingerprint {
                HOLE => Address::default(),
                _ => Address::new(container, fingerprint),
            };
            let map = given.map(address);
            let place = if at < crate::state::DISKS { Place::Ram } else { Place::Rest };
            (state.holders[at].place, state.holders[at].root, state.holders[at].now) = (place, map, map);
            state.checkpointed[at] = map;
        }
        state
    }
}

impl Model for Cleaning {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.down.is_some() {
            actions.push(Action::Restart);
            return;
        }
        self.guest_actions(state, actions);
        self.flush_actions(state, actions);
        self.durability_actions(state, actions);
        self.cleaner_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Write { disk, lba, fingerprint } => state.write(disk, lba, fingerprint),
            Action::Fork { source, target } => self.fork(&mut state, source, target),
            Action::Publish(disk) => state.holder_mut(disk).place = Place::Ram,
            Action::Delete(holder) => state.delete(holder),
            Action::Settle(snapshot) => state.holder_mut(snapshot).place = Place::Rest,
            Action::Choose(choice) => self.choose(&mut state, choice),
            Action::Store => state.store(),
            Action::Commit => state.commit(),
            Action::Draw => self.draw(&mut state),
            Action::Checkpoint => state.checkpoint(),
            Action::Mend(holder) => state.mend(holder),
            Action::Crash => state.crash(),
            Action::Restart => self.restart(&mut state),
            Action::Begin => self.begin(&mut state),
            Action::Candidates => self.take_candidates(&mut state),
            Action::Read => self.read(&mut state),
            Action::Condemn => self.condemn(&mut state),
            Action::Copy => state.copy(),
            Action::Stub => self.put_stub(&mut state),
            Action::Drop => self.put_delete_record(&mut state),
            Action::Free => state.free(),
            Action::RemoveStub(container) => state.remove_stub(container),
            Action::End => state.cleaner = crate::state::Cleaner::default(),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
