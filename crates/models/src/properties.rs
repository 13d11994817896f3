//! What must always hold, and what must be reached.

use stateright::Property;

use crate::model::Cleaning;
use crate::state::{Address, DISKS, Down, HOLDERS, Phase, Stage, State, Stub, members};

/// I6: every address of a root, an overlay, a checkpoint under way, a batch under way or of what recovery would rebuild
/// leads to a slot with its fingerprint.
pub const RESOLVES: &str = "I6 address_resolves";
/// Recovery rebuilds the contents that RAM has.
pub const RECOVERS: &str = "I4 recovery gives the contents that were there";
/// I7: what is reachable is in no condemned container, unless as a slot that is copied.
pub const NOT_CONDEMNED: &str = "I7 live_not_condemned";

/// All properties that must always hold.
pub const ALWAYS: &[&str] = &[RESOLVES, RECOVERS, NOT_CONDEMNED];

macro_rules! crashed {
    ($name:literal, $pattern:pat) => {
        Property::sometimes($name, |_: &Cleaning, state: &State| {
            state.down.is_some_and(|down| matches!(down, $pattern))
        })
    };
}

pub(crate) fn all() -> Vec<Property<Cleaning>> {
    vec![
        Property::always(RESOLVES, resolves),
        Property::always(RECOVERS, recovers),
        Property::always(NOT_CONDEMNED, not_condemned),
        Property::sometimes("a hit spares a candidate", spares),
        Property::sometimes("a container moves under a snapshot", moves_under_a_snapshot),
        Property::sometimes("an address leads through a stub", |_, state: &State| leads_through(state, 2)),
        Property::sometimes("an address leads through two stubs", |_, state: &State| leads_through(state, 3)),
        Property::sometimes("a stub goes", |_, state: &State| {
            state.containers(|one| one.stub == Stub::Removed) != 0
        }),
        Property::sometimes("a container is committed and has a stub, behind a crash", resurrected),
        crashed!("crash: no cycle", Down { phase: Phase::Idle, .. }),
        crashed!("crash: hits recorded", Down { phase: Phase::Begun, .. }),
        crashed!("crash: marking", Down { phase: Phase::Marking(..), .. }),
        crashed!("crash: marked", Down { phase: Phase::Marked, .. }),
        crashed!("crash: condemned", Down { phase: Phase::Sweeping, .. }),
        crashed!("crash: copied", Down { phase: Phase::Copied(_), .. }),
        crashed!("crash: stub written", Down { phase: Phase::Stubbed, .. }),
        crashed!("crash: Delete record written", Down { phase: Phase::Dropped, .. }),
        crashed!("crash: batch chosen", Down { batch: Some(false), .. }),
        crashed!("crash: batch stored", Down { batch: Some(true), .. }),
        crashed!("crash: checkpoint under way", Down { checkpoint: true, .. }),
    ]
}

fn resolves(_: &Cleaning, state: &State) -> bool {
    // A batch's own container is not committed yet.
    let hits = state.batch.iter().flat_map(|batch| {
        let own = batch.container;
        let named = batch.writes.iter().zip(&batch.addresses).filter(|(write, _)| write.holders != 0);
        named.map(|(_, address)| *address).filter(move |at| at.parts().is_some_and(|(to, _)| to != own))
    });
    state.reachable().chain(hits).all(|address| state.resolves(address))
}

fn recovers(_: &Cleaning, state: &State) -> bool {
    let recovered = state.recovered();
    members(state.alive()).all(|at| {
        let contents = |map: crate::state::Map| map.map(Address::fingerprint);
        state.down.is_some() || contents(recovered[at as usize].1) == contents(state.holder(at).now)
    })
}

fn not_condemned(_: &Cleaning, state: &State) -> bool {
    let condemned = state.cleaner.condemned;
    condemned == 0
        || state.reachable().filter_map(|address| state.follow(address).1).all(|end| {
            let inside = end.parts().is_some_and(|(container, _)| condemned >> container & 1 != 0);
            !inside || state.cleaner.live & end.bit() != 0
        })
}

fn spares(_: &Cleaning, state: &State) -> bool {
    let wasteful = |at: u8| state.live_in(at) != state.container(at).slots;
    state.cleaner.phase == Phase::Marked
        && members(state.cleaner.hits & state.cleaner.candidates).any(wasteful)
}

fn moves_under_a_snapshot(_: &Cleaning, state: &State) -> bool {
    let Some(container) = state.first_condemned().filter(|_| state.cleaner.phase == Phase::Stubbed) else {
        return false;
    };
    let inside = |address: Address| address.parts().is_some_and(|(at, _)| at == container);
    (DISKS..HOLDERS).any(|at| state.holders[at].addresses().any(inside))
}

fn leads_through(state: &State, containers: u32) -> bool {
    state.reachable().any(|address| state.follow(address).0.count_ones() >= containers)
}

fn resurrected(_: &Cleaning, state: &State) -> bool {
    state.cleaner.phase == Phase::Idle
        && state.containers(|one| one.stage == Stage::Committed && matches!(one.stub, Stub::To(_))) != 0
}
