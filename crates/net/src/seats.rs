//! Who may be connected, and how often: whoever has not shown a certificate yet is counted by its address, whoever has by
//! its node. So a flood of connections takes no seats from members, and one member takes none from the others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use units::NodeId;

/// Connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatLimits {
    /// In their hand-shake, of all addresses.
    pub knocking: usize,
    /// In their hand-shake, of one address.
    pub knocking_each: usize,
    /// Behind it, of all nodes.
    pub seated: usize,
    /// Behind it, of one node.
    pub seated_each: usize,
}

#[derive(Default)]
struct State {
    knocking: usize,
    by_address: BTreeMap<IpAddr, usize>,
    seated: usize,
    by_node: BTreeMap<NodeId, usize>,
}

struct Shared {
    limits: SeatLimits,
    state: Mutex<State>,
}

/// The seats of a port.
#[derive(Clone)]
pub struct Seats {
    shared: Arc<Shared>,
}

/// A connection in its hand-shake; it is counted until this goes.
pub struct Knock {
    shared: Arc<Shared>,
    address: IpAddr,
}

/// A connection of a node; it is counted until this goes.
pub struct Seat {
    shared: Arc<Shared>,
    node: NodeId,
}

/// One more under `key`, unless there are so many.
fn one_more<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, most: usize) -> bool {
    let count = counts.entry(key).or_default();
    let fits = *count < most;
    *count += usize::from(fits);
    fits
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// With so many seats.
    pub fn new(limits: SeatLimits) -> Self {
        Self { shared: Arc::new(Shared { limits, state: Mutex::default() }) }
    }

    /// Somebody at `address` is at the door; `None` when too many are.
    pub fn knock(&self, address: IpAddr) -> Option<Knock> {
        let limits = self.shared.limits;
        let mut state = self.shared.lock();
        if state.knocking >= limits.knocking
            || !one_more(&mut state.by_address, address, limits.knocking_each)
        {
            return None;
        }
        state.knocking += 1;
        drop(state);
        Some(Knock { shared: self.shared.clone(), address })
    }
}

impl Knock {
    /// It is `node`; `None` when there is no seat for it.
    pub fn sit(self, node: NodeId) -> Option<Seat> {
        let limits = self.shared.limits;
        let mut state = self.shared.lock();
        if state.seated >= limits.seated || !one_more(&mut state.by_node, node, limits.seated_each) {
            return None;
        }
        state.seated += 1;
        drop(state);
        Some(Seat { shared: self.shared.clone(), node })
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.knocking -= 1;
        one_less(&mut state.by_address, &self.address);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.seated -= 1;
        one_less(&mut state.by_node, &self.node);
    }
}

impl std::fmt::Debug for Seats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seats({:?})", self.shared.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn a_flood_takes_no_seats_from_others() {
        let seats = Seats::new(SeatLimits { knocking: 5, knocking_each: 3, seated: 4, seated_each: 2 });
        let flood: Vec<_> = (0..10).filter_map(|_| seats.knock(FLOOD)).collect();
        assert_eq!(flood.len(), 3);
        let (one, two) = (NodeId([1; 16]), NodeId([2; 16]));
        let own: Vec<_> = (0..3).filter_map(|_| seats.knock(OTHER)?.sit(one)).collect();
        assert_eq!(own.len(), 2, "a node has its share of the seats");
        let others: Vec<_> = (0..2).filter_map(|_| seats.knock(OTHER)?.sit(two)).collect();
        assert_eq!(others.len(), 2);
        assert!(seats.knock(OTHER).unwrap().sit(NodeId([3; 16])).is_none(), "all are taken");
        let knocks: Vec<_> = (0..4).filter_map(|_| seats.knock(OTHER)).collect();
        assert_eq!(knocks.len(), 2);
        drop((flood, own, others, knocks));
        let state = seats.shared.lock();
        assert_eq!((state.knocking, state.seated), (0, 0));
        assert!(state.by_address.is_empty() && state.by_node.is_empty(), "nothing is kept of who is gone");
    }
}
