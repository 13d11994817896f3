//! What is known of each point without reading it.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use catalog::{PointState, StoredPoint};

/// Where a point stands in time, ms, and its number.
pub(super) type Place = (u64, u64);

/// A point as retention and lists see it.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) schedule: Arc<str>,
    pub(super) locked_until_ms: u64,
    pub(super) is_good: bool,
}

/// All points.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By group.
    pub(super) groups: BTreeMap<u64, BTreeMap<Place, Facts>>,
    /// The newest good point of each VM, by the VM's number.
    newest: BTreeMap<u64, Place>,
    /// Points that a crash left in the middle.
    pub(super) remnants: BTreeSet<u64>,
    /// Points that are locked and whose disks the engine does not hold yet.
    pub(super) unheld: BTreeSet<u64>,
    /// Each name of a schedule once.
    names: BTreeSet<Arc<str>>,
}

impl Index {
    /// Takes a point in.
    pub(super) fn add(&mut self, point: &StoredPoint) {
        let StoredPoint { id, record } = point;
        if record.state != PointState::Whole {
            self.remnants.insert(*id);
            return;
        }
        if record.disks_held_until_ms < record.locked_until_ms {
            self.unheld.insert(*id);
        }
        let name = api::fold(&record.schedule);
        let schedule = match self.names.get(name.as_str()) {
            Some(known) => known.clone(),
            None => {
                let name: Arc<str> = name.into();
                self.names.insert(name.clone());
                name
            }
        };
        let place = (record.at_ms, *id);
        let facts = Facts { schedule, locked_until_ms: record.locked_until_ms, is_good: record.is_good() };
        self.groups.entry(record.group).or_default().insert(place, facts);
        for member in record.members.iter().filter(|member| member.note.is_none()) {
            let newest = self.newest.entry(member.vm).or_insert(place);
            *newest = place.max(*newest);
        }
    }

    /// Takes a point out; gives the VMs of which it was the newest good one.
    pub(super) fn remove(&mut self, point: &StoredPoint) -> Vec<u64> {
        let place = (point.record.at_ms, point.id);
        if let Some(points) = self.groups.get_mut(&point.record.group) {
            points.remove(&place);
            if points.is_empty() {
                self.groups.remove(&point.record.group);
            }
        }
        self.unheld.remove(&point.id);
        let was_newest = |vm: &u64| self.newest.get(vm) == Some(&place);
        let orphaned: Vec<u64> =
            point.record.members.iter().map(|member| member.vm).filter(was_newest).collect();
        for vm in &orphaned {
            self.newest.remove(vm);
        }
        orphaned
    }

    /// A VM's newest good point is this one, where nothing newer is known.
    pub(super) fn found_newest(&mut self, vm: u64, place: Place) {
        let newest = self.newest.entry(vm).or_insert(place);
        *newest = place.max(*newest);
    }

    /// The newest good point of a VM, ms.
    pub(super) fn newest_of(&self, vm: u64) -> Option<u64> {
        self.newest.get(&vm).map(|(at_ms, _)| *at_ms)
    }

    /// The points of a group.
    pub(super) fn of(&self, group: u64) -> impl Iterator<Item = (&Place, &Facts)> {
        self.groups.get(&group).into_iter().flatten()
    }

    /// Points of some groups before a place, newest first.
    pub(super) fn newest_first<'i>(
        &'i self,
        groups: Option<u64>,
        before: Place,
    ) -> impl Iterator<Item = (Place, u64, &'i Facts)> + 'i {
        let chosen = self.groups.iter().filter(move |(group, _)| groups.is_none_or(|only| only == **group));
        let mut rows: Vec<_> = chosen.map(|(group, points)| (*group, points.range(..before).rev())).collect();
        let mut heads: BinaryHeap<(Place, usize)> = BinaryHeap::new();
        let mut facts: Vec<Option<&Facts>> = vec![None; rows.len()];
        for (row, (_, points)) in rows.iter_mut().enumerate() {
            if let Some((place, found)) = points.next() {
                heads.push((*place, row));
                facts[row] = Some(found);
            }
        }
        std::iter::from_fn(move || {
            let (place, row) = heads.pop()?;
            let found = facts[row].take()?;
            let (group, points) = &mut rows[row];
            if let Some((next, of_next)) = points.next() {
                heads.push((*next, row));
                facts[row] = Some(of_next);
            }
            Some((place, *group, found))
        })
    }
}
