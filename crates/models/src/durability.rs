//! Checkpoints, crashes, restarts.

use crate::model::{Action, Cleaning, Flaw};
use crate::state::{
    Address, Batch, Boundary, Cleaner, Container, Down, HOLDERS, Holder, Map, Phase, Place, Stage, State,
    Stub, members,
};

impl Cleaning {
    pub(crate) fn durability_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.boundary.is_some() {
            actions.push(Action::Checkpoint);
        } else if state.left.checkpoints > 0 {
            actions.push(Action::Draw);
        }
        if self.has(Flaw::MendedInRam) {
            let old = |at: &u8| state.mended(&state.holder(*at).now) != state.holder(*at).now;
            actions.extend(members(state.at(Place::Ram)).filter(old).map(Action::Mend));
        }
        if state.left.crashes > 0 {
            actions.push(Action::Crash);
        }
    }

    pub(crate) fn draw(&self, state: &mut State) {
        state.left.checkpoints -= 1;
        let (mut maps, mut mended) = ([Map::default(); HOLDERS], [Map::default(); HOLDERS]);
        let mut part_of = [None; HOLDERS];
        for at in members(state.alive()) {
            let found = state.holder(at);
            // A snapshot at rest stays as its record says.
            let mends = self.scene.mends && found.place != Place::Rest;
            part_of[at as usize] = Some(at);
            maps[at as usize] = found.now;
            mended[at as usize] = if mends { state.mended(&found.now) } else { found.now };
        }
        let (events, commits) = (state.events.len() as u8, state.committed());
        state.boundary = Some(Boundary { part_of, maps, mended, events, commits });
        if !self.scene.slow_checkpoints {
            state.checkpoint();
        }
    }

    pub(crate) fn restart(&self, state: &mut State) {
        state.down = None;
        let recovered = state.recovered();
        for (holder, (root, now)) in state.holders.iter_mut().zip(recovered) {
            if matches!(holder.place, Place::Ram | Place::Published) {
                *holder = Holder { place: Place::Ram, root, now };
            }
        }
        for container in &mut state.containers {
            let moved = self.scene.resumes
                && matches!(container.stub, Stub::To(_))
                && container.stage == Stage::Committed;
            if moved || matches!(container.stage, Stage::Written | Stage::Deleted) {
                container.free();
            }
        }
    }
}

impl State {
    /// A map with the addresses that stubs lead to.
    fn mended(&self, map: &Map) -> Map {
        map.map(|address| self.follow(address).1.unwrap_or(address))
    }

    pub(crate) fn mend(&mut self, holder: u8) {
        let now = self.mended(&self.holder(holder).now);
        self.holder_mut(holder).now = now;
    }

    pub(crate) fn checkpoint(&mut self) {
        let Some(Boundary { part_of, maps, mended, events, commits }) = self.boundary.take() else { return };
        self.checkpointed = mended;
        self.events.drain(..events as usize);
        members(commits).for_each(|at| {
            let container = self.container_mut(at);
            container.covered |= container.stage == Stage::Committed;
        });
        for at in members(!self.at(Place::Rest)).take_while(|at| (*at as usize) < HOLDERS) {
            let Some(part) = part_of[at as usize] else { continue };
            let (before, root) = (maps[part as usize], mended[part as usize]);
            let holder = self.holder_mut(at);
            holder.root = root;
            for (now, (old, new)) in holder.now.iter_mut().zip(before.into_iter().zip(root)) {
                if *now == old {
                    *now = new;
                }
            }
        }
    }

    pub(crate) fn crash(&mut self) {
        self.left.crashes -= 1;
        let Cleaner { phase, .. } = std::mem::take(&mut self.cleaner);
        let phase = match phase {
            Phase::Marking(..) => Phase::Marking(0, 0),
            Phase::Copied(_) => Phase::Copied(0),
            other => other,
        };
        let (batch, checkpoint) = (self.batch.take(), self.boundary.take().is_some());
        self.down = Some(Down { phase, batch: batch.as_ref().map(|batch| batch.stored), checkpoint });
        if let Some(Batch { mut writes, .. }) = batch {
            // The journal's tail has them.
            writes.retain(|write| write.holders != 0);
            writes.append(&mut self.buffer);
            self.buffer = writes;
        }
    }

    /// Addresses of everything that somebody may read, now or behind a restart at this instant.
    pub(crate) fn reachable(&self) -> impl Iterator<Item = Address> {
        let recovered = self.recovered();
        let alive = self.alive();
        let boundary = self.boundary.iter().flat_map(|boundary| boundary.maps.into_iter().flatten());
        members(alive)
            .flat_map(move |at| self.holder(at).addresses().chain(recovered[at as usize].1))
            .chain(boundary)
    }
}

impl Container {
    /// Only what others may still ask stays: whether there is a stub.
    pub(crate) fn free(&mut self) {
        *self = Self { stage: Stage::Freed, stub: self.stub, ..Self::default() };
    }
}
