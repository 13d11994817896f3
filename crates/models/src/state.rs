//! The state of the model: what is durable, what is in RAM, what is left to be done.

/// Blocks of a disk.
pub const LBAS: usize = 2;
/// Disks and snapshots: the first two places are disks, the others snapshots.
pub const HOLDERS: usize = 4;
/// Places of disks.
pub const DISKS: usize = 2;
/// Container ids; one is never used again.
pub const CONTAINERS: usize = 7;
/// Contents a block may have.
pub const FINGERPRINTS: u8 = 2;

/// A block that holds nothing.
pub const HOLE: u8 = 0;

/// Container and fingerprint (which slot of a container has a fingerprint does not matter here); 0 is a hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(u8);

impl Address {
    /// The address of `fingerprint` (1 or above) in `container`.
    pub fn new(container: u8, fingerprint: u8) -> Self {
        Self(1 + container * FINGERPRINTS + fingerprint - 1)
    }

    /// Container and fingerprint; `None` for a hole.
    pub fn parts(self) -> Option<(u8, u8)> {
        let at = self.0.checked_sub(1)?;
        Some((at / FINGERPRINTS, at % FINGERPRINTS + 1))
    }

    /// What the block holds.
    pub fn fingerprint(self) -> u8 {
        self.parts().map_or(HOLE, |(_, fingerprint)| fingerprint)
    }

    /// Its bit in a set of slots of all containers.
    pub(crate) fn bit(self) -> u16 {
        self.0.checked_sub(1).map_or(0, |at| 1 << at)
    }
}

/// A block map.
pub type Map = [Address; LBAS];

/// Where a disk or snapshot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// There is none.
    #[default]
    Nowhere,
    /// In the metadata, not yet in RAM: made from a snapshot at rest.
    Published,
    /// In RAM.
    Ram,
    /// A snapshot that the metadata holds with its root and RAM does not.
    Rest,
}

/// A disk or a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Where it is.
    pub place: Place,
    /// Its root, as RAM has it: what is in an overlay above is still in it.
    pub root: Map,
    /// Root and overlay together.
    pub now: Map,
}

impl Holder {
    /// Every address it holds, those below the overlay too.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + use<> {
        self.root.into_iter().chain(self.now)
    }
}

/// What became of a container id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Not yet given out.
    #[default]
    Unused,
    /// Fragments are durable, or not even that; no commit record.
    Written,
    /// Its commit record is durable.
    Committed,
    /// Its Delete record is durable.
    Deleted,
    /// Its fragments are gone.
    Freed,
}

/// The stub of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stub {
    /// None, and never was.
    #[default]
    None,
    /// What was live is in this container.
    To(u8),
    /// There was one.
    Removed,
}

/// A container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Container {
    /// What became of it.
    pub stage: Stage,
    /// Its fingerprints, a set of bits.
    pub slots: u8,
    /// The last durable checkpoint covers its commit.
    pub covered: bool,
    /// Where its live blocks went; durable, in the metadata.
    pub stub: Stub,
}

/// A buffered write: durable in the journal's tail, in no map yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// Who sees it: the disk, and all that began as the disk since.
    pub holders: u8,
    /// Where.
    pub lba: u8,
    /// What.
    pub fingerprint: u8,
}

/// A change of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The maps it changes.
    pub holders: u8,
    /// Where.
    pub lba: u8,
    /// The new address.
    pub address: Address,
}

/// A flush batch under way. It holds the flush gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// The container it fills.
    pub container: u8,
    /// The container's fragments are durable.
    pub stored: bool,
    /// What it took from the buffer, in order.
    pub writes: Vec<Write>,
    /// Where each of these ends up: its map log.
    pub addresses: Vec<Address>,
}

/// What recovery replays above the roots of a checkpoint, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A commit record; the changes are in the container's map log.
    Commit {
        /// The container.
        container: u8,
        /// Its map log.
        changes: Vec<Change>,
    },
    /// A disk or snapshot began as another was.
    Fork {
        /// The other.
        source: u8,
        /// The new one.
        target: u8,
    },
}

/// A checkpoint under way: what it will say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Boundary {
    /// For each disk and snapshot whose map it will have: it was there, or it began since as one that was. A fork
    /// shares the layers that are merged, so the new root takes their place in it too.
    pub part_of: [Option<u8>; HOLDERS],
    /// Their maps when it was drawn.
    pub maps: [Map; HOLDERS],
    /// The same, with addresses that stubs replaced put right.
    pub mended: [Map; HOLDERS],
    /// Events before it.
    pub events: u8,
    /// Containers committed before it.
    pub commits: u8,
}

/// Where the cleaner is in its cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No cycle.
    #[default]
    Idle,
    /// Hits are recorded; no candidates are taken yet.
    Begun,
    /// The mark reads: which pass, and whom next.
    Marking(u8, u8),
    /// The mark is whole.
    Marked,
    /// Candidates are condemned; the next of them is to be swept.
    Sweeping,
    /// The live blocks of the first condemned container are in this one, committed.
    Copied(u8),
    /// A stub says so.
    Stubbed,
    /// The Delete record of the first condemned container is durable.
    Dropped,
}

/// The cleaner: all of it is in RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cleaner {
    /// Where it is.
    pub phase: Phase,
    /// Containers that hits named since they are recorded.
    pub hits: u8,
    /// S0: containers that may be condemned.
    pub candidates: u8,
    /// Stubs there were when the cycle began.
    pub stubs: u8,
    /// Slots the mark found live, by [`Address`].
    pub live: u16,
    /// Containers in which the mark met an address.
    pub met: u8,
    /// Containers condemned and not yet freed.
    pub condemned: u8,
}

/// What was under way when the node went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Down {
    /// Of the cleaner; the numbers in it mean nothing.
    pub phase: Phase,
    /// The flush batch: whether there was one, and whether its container was stored.
    pub batch: Option<bool>,
    /// Whether a checkpoint was under way.
    pub checkpoint: bool,
}

/// How often each thing may still happen: what makes the state space finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// Writes and trims.
    pub writes: u8,
    /// Snapshots, clones, copies of snapshots.
    pub forks: u8,
    /// Deletions of disks and snapshots.
    pub deletes: u8,
    /// Checkpoints.
    pub checkpoints: u8,
    /// Crashes.
    pub crashes: u8,
    /// Cycles of the cleaner.
    pub cycles: u8,
}

/// All there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Disks and snapshots.
    pub holders: [Holder; HOLDERS],
    /// Containers.
    pub containers: [Container; CONTAINERS],
    /// The next container id.
    pub next: u8,
    /// The write buffer.
    pub buffer: Vec<Write>,
    /// The flush batch under way.
    pub batch: Option<Batch>,
    /// Maps of the last durable checkpoint, of deleted disks too.
    pub checkpointed: [Map; HOLDERS],
    /// What came since.
    pub events: Vec<Event>,
    /// The checkpoint under way.
    pub boundary: Option<Boundary>,
    /// The cleaner.
    pub cleaner: Cleaner,
    /// The node is down.
    pub down: Option<Down>,
    /// What may still happen.
    pub left: Left,
}

/// The indices of a set of bits.
pub(crate) fn members(set: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |bit| set & (1 << bit) != 0)
}

impl State {
    /// Those in these places.
    pub fn at(&self, place: Place) -> u8 {
        self.set(|holder| holder.place == place)
    }

    /// Disks and snapshots there are.
    pub fn alive(&self) -> u8 {
        self.set(|holder| holder.place != Place::Nowhere)
    }

    fn set(&self, belongs: impl Fn(&Holder) -> bool) -> u8 {
        let bits = self.holders.iter().enumerate().map(|(at, holder)| u8::from(belongs(holder)) << at);
        bits.fold(0, |set, bit| set | bit)
    }

    /// Containers for which this holds.
    pub(crate) fn containers(&self, belongs: impl Fn(&Container) -> bool) -> u8 {
        let bits = self.containers.iter().enumerate().map(|(at, one)| u8::from(belongs(one)) << at);
        bits.fold(0, |set, bit| set | bit)
    }

    /// Committed containers.
    pub fn committed(&self) -> u8 {
        self.containers(|container| container.stage == Stage::Committed)
    }

    /// A container.
    pub fn container(&self, container: u8) -> &Container {
        &self.containers[container as usize]
    }

    pub(crate) fn container_mut(&mut self, container: u8) -> &mut Container {
        &mut self.containers[container as usize]
    }

    pub(crate) fn holder(&self, holder: u8) -> &Holder {
        &self.holders[holder as usize]
    }

    pub(crate) fn holder_mut(&mut self, holder: u8) -> &mut Holder {
        &mut self.holders[holder as usize]
    }

    /// Containers on the way of an address, through stubs, and the address it ends at; `None` when it is lost.
    pub(crate) fn follow(&self, address: Address) -> (u8, Option<Address>) {
        let Some((mut container, fingerprint)) = address.parts() else { return (0, Some(address)) };
        let mut way = 0;
        // A stub names a container with a higher id: there is no way round.
        loop {
            way |= 1 << container;
            let found = self.container(container);
            match (found.stage, found.stub) {
                (Stage::Committed, _) => {
                    let there = found.slots & (1 << fingerprint) != 0;
                    return (way, there.then(|| Address::new(container, fingerprint)));
                }
                (_, Stub::To(next)) => container = next,
                _ => return (way, None),
            }
        }
    }

    /// Whether an address leads to its block.
    pub fn resolves(&self, address: Address) -> bool {
        self.follow(address).1.is_some()
    }

    /// What recovery would make of root and map of each, if the node crashed now.
    pub(crate) fn recovered(&self) -> [(Map, Map); HOLDERS] {
        let mut maps = self.checkpointed.map(|map| (map, map));
        for event in &self.events {
            match event {
                // The map log of a deleted container is not there any more.
                Event::Commit { container, changes }
                    if self.container(*container).stage == Stage::Committed =>
                {
                    for change in changes {
                        members(change.holders)
                            .for_each(|at| maps[at as usize].1[change.lba as usize] = change.address);
                    }
                }
                Event::Commit { .. } => {}
                Event::Fork { source, target } => maps[*target as usize] = maps[*source as usize],
            }
        }
        for at in members(self.at(Place::Rest)) {
            maps[at as usize] = (self.holder(at).root, self.holder(at).now);
        }
        maps
    }
}
