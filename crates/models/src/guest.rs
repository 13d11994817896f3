//! What guests and users do: writes, snapshots, clones, deletions. And the flush of what was written.

use crate::model::{Action, Cleaning, Flaw};
use crate::state::{
    Batch, CONTAINERS, Change, DISKS, Event, FINGERPRINTS, HOLDERS, HOLE, Holder, LBAS, Place, Stage, State,
    Write, members,
};

/// The places of disks.
const DISK_SET: u8 = (1 << DISKS) - 1;
/// The places of snapshots.
const SNAPSHOT_SET: u8 = ((1 << HOLDERS) - 1) & !DISK_SET;

impl Cleaning {
    pub(crate) fn guest_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (ram, rest) = (state.at(Place::Ram), state.at(Place::Rest));
        if state.left.writes > 0 {
            for disk in members(ram & DISK_SET) {
                for lba in 0..LBAS as u8 {
                    let all = HOLE..=FINGERPRINTS;
                    actions.extend(all.map(|fingerprint| Action::Write { disk, lba, fingerprint }));
                }
            }
        }
        if state.left.forks > 0 {
            let free = !state.alive();
            let targets = [free & DISK_SET, free & SNAPSHOT_SET].map(u8::trailing_zeros);
            let targets = targets.into_iter().filter(|target| *target < HOLDERS as u32);
            for target in targets {
                let fork = |source| Action::Fork { source, target: target as u8 };
                actions.extend(members(ram | rest).map(fork));
            }
        }
        actions.extend(members(state.at(Place::Published)).map(Action::Publish));
        if state.left.deletes > 0 {
            actions.extend(members(ram | rest).map(Action::Delete));
        }
        actions.extend(members(ram & SNAPSHOT_SET).filter(|at| state.is_settled(*at)).map(Action::Settle));
    }

    pub(crate) fn fork(&self, state: &mut State, source: u8, target: u8) {
        state.left.forks -= 1;
        self.note_fork(state, source);
        let from = *state.holder(source);
        let place = match from.place {
            Place::Rest if DISK_SET & (1 << target) != 0 => Place::Published,
            Place::Rest => Place::Rest,
            _ => Place::Ram,
        };
        *state.holder_mut(target) = Holder { place, ..from };
        for write in state.waiting() {
            write.holders |= (write.holders >> source & 1) << target;
        }
        if let Some(boundary) = &mut state.boundary {
            boundary.part_of[target as usize] = boundary.part_of[source as usize];
        }
        state.events.push(Event::Fork { source, target });
    }

    pub(crate) fn flush_actions(&self, state: &State, actions: &mut Vec<Action>) {
        match &state.batch {
            Some(batch) if batch.stored => actions.push(Action::Commit),
            Some(_) => actions.push(Action::Store),
            None if state.buffer.is_empty() || state.next as usize >= CONTAINERS => {}
            None => {
                let [first, second] = [1, 2].map(|fingerprint| self.homes(state, fingerprint));
                for one in &first {
                    actions.extend(second.iter().map(|two| Action::Choose([*one, *two])));
                }
            }
        }
    }

    /// Where a block of the batch may end up. An index answer is a guess: any container that counts, or none.
    fn homes(&self, state: &State, fingerprint: u8) -> Vec<Option<u8>> {
        let mut homes = vec![None];
        if state.buffer.iter().any(|write| write.fingerprint == fingerprint) {
            let spared = if self.has(Flaw::CondemnedGiveHits) { 0 } else { state.cleaner.condemned };
            let has = state.containers(|container| container.slots & (1 << fingerprint) != 0);
            homes.extend(members(state.committed() & has & !spared).map(Some));
        }
        homes
    }

    pub(crate) fn choose(&self, state: &mut State, choice: [Option<u8>; 2]) {
        let container = state.next;
        state.next += 1;
        let writes = std::mem::take(&mut state.buffer);
        let mut addresses = Vec::new();
        let mut slots = 0;
        for write in &writes {
            let hit = (write.fingerprint != HOLE).then(|| choice[write.fingerprint as usize - 1]).flatten();
            let home = hit.unwrap_or(container);
            addresses.push(match write.fingerprint {
                HOLE => crate::state::Address::default(),
                fingerprint => crate::state::Address::new(home, fingerprint),
            });
            if write.fingerprint != HOLE && hit.is_none() {
                slots |= 1 << write.fingerprint;
            }
        }
        if self.records_hits(state) {
            choice.iter().flatten().for_each(|hit| state.cleaner.hits |= 1 << hit);
        }
        let filled = state.container_mut(container);
        (filled.stage, filled.slots) = (Stage::Written, slots);
        state.batch = Some(Batch { container, stored: false, writes, addresses });
    }
}

impl State {
    pub(crate) fn write(&mut self, disk: u8, lba: u8, fingerprint: u8) {
        self.left.writes -= 1;
        self.buffer.push(Write { holders: 1 << disk, lba, fingerprint });
    }

    /// Writes that no map has.
    fn waiting(&mut self) -> impl Iterator<Item = &mut Write> {
        self.buffer.iter_mut().chain(self.batch.iter_mut().flat_map(|batch| &mut batch.writes))
    }

    pub(crate) fn delete(&mut self, holder: u8) {
        self.left.deletes -= 1;
        *self.holder_mut(holder) = Holder::default();
        for write in self.waiting() {
            write.holders &= !(1 << holder);
        }
        self.buffer.retain(|write| write.holders != 0);
        if let Some(boundary) = &mut self.boundary {
            boundary.part_of[holder as usize] = None;
        }
    }

    /// Whether the last checkpoint says all there is of a snapshot.
    fn is_settled(&self, snapshot: u8) -> bool {
        let found = self.holder(snapshot);
        let is_new = |event: &Event| matches!(event, Event::Fork { target, .. } if *target == snapshot);
        let batched = self.batch.iter().flat_map(|batch| &batch.writes);
        let mut waiting = self.buffer.iter().chain(batched);
        found.root == found.now
            && !self.events.iter().any(is_new)
            && !waiting.any(|write| write.holders >> snapshot & 1 != 0)
    }

    pub(crate) fn store(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.stored = true;
        }
    }

    pub(crate) fn commit(&mut self) {
        let Some(Batch { container, writes, addresses, .. }) = self.batch.take() else { return };
        let change =
            |(write, address): (&Write, _)| Change { holders: write.holders, lba: write.lba, address };
        let changes: Vec<Change> = writes.iter().zip(addresses).map(change).collect();
        for change in &changes {
            members(change.holders)
                .for_each(|at| self.holder_mut(at).now[change.lba as usize] = change.address);
        }
        self.container_mut(container).stage = Stage::Committed;
        self.events.push(Event::Commit { container, changes });
    }
}
