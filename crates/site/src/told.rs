//! What is known of the site in the words of the contract.

use api::types::{Clients, Clock, Geometry, Medium, Moving, Scrubbing, Status, Unreadable};

use crate::clock::ClockState;
use crate::status::MediumStatus;
use crate::upkeep::ScrubState;

/// What cannot be read, when there is such.
fn unreadable(unreadable: crate::Unreadable) -> Option<Unreadable> {
    let is_some = !unreadable.is_none();
    let crate::Unreadable { short, damaged, affected, affected_count } = unreadable;
    is_some.then_some(Unreadable {
        short_containers: short,
        damaged_containers: damaged,
        affected,
        affected_count,
    })
}

impl From<crate::Status> for Status {
    fn from(status: crate::Status) -> Self {
        Self {
            site: status.site.to_string(),
            health: status.health,
            reasons: status.reasons,
            next: status.next,
            notices: status.notices,
            writable: status.writable,
            can_lose_now: status.can_lose_now,
            unreadable: unreadable(status.unreadable),
            geometry: status.geometry.map(|(data, parity)| Geometry { data, parity }),
            vms: status.vms,
            provisioned_bytes: status.provisioned_bytes,
            logical_bytes: status.logical_bytes,
            unique_bytes: status.unique_bytes,
            stored_bytes: status.stored_bytes,
            raw_bytes: status.raw_bytes,
            raw_capacity_bytes: status.raw_capacity_bytes,
            usable_bytes: status.usable_bytes,
            likely_bytes: status.likely_bytes,
            buffered_bytes: status.buffered_bytes,
            journal_used_percent: status.journal_used_percent,
            faults: status.faults,
            repaired: status.repaired,
            trash: status.trash,
            clients: Clients {
                connections: status.clients.connections,
                connections_max: status.clients.connections_max,
                refused: status.clients.refused,
                cut_off: status.clients.cut_off,
                memory_used_bytes: status.clients.memory_used_bytes,
                memory_bytes: status.clients.memory_bytes,
            },
            tasks: Vec::new(),
            media: status.media.into_iter().map(Medium::from).collect(),
        }
    }
}

impl From<MediumStatus> for Medium {
    fn from(medium: MediumStatus) -> Self {
        Self {
            id: medium.id.to_string(),
            path: medium.path.display().to_string(),
            bytes: medium.bytes,
            state: medium.state,
            leaving: medium.leaving,
            moving: medium.moving.map(|(done_bytes, left_bytes)| Moving { done_bytes, left_bytes }),
            reason: medium.reason,
        }
    }
}

impl From<ScrubState> for Scrubbing {
    fn from(state: ScrubState) -> Self {
        let since = |ms: u64| (ms > 0).then_some(ms);
        Self {
            every_s: since(state.every_s),
            begun_ms: since(state.begun_ms),
            done_ms: since(state.done_ms),
            next_ms: state.next_ms().filter(|_| state.begun_ms > 0),
            damaged: state.damaged,
            task: since(state.task),
        }
    }
}

impl From<ClockState> for Clock {
    fn from(clock: ClockState) -> Self {
        Self { site_ms: clock.site_ms, host_ms: clock.host_ms }
    }
}
