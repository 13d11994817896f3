//! Space: what each of several groups of disks has for itself, and what it shares. Computed by walking all maps.
//!
//! Every unit, block or map page, gets the label of the group that reaches it, and another when a second group does: a
//! page is walked at most twice, however many disks share it.

use std::collections::BTreeMap;

use units::{Address, ContainerId, DiskId, Map};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::progress::Progress;
use crate::walk::{Reached, Visitor, slot_of};

/// What a unit is reached by.
type Label = u16;
const NOBODY: Label = 0;
/// Disks that are in no group of this pass.
const OTHERS: Label = 1;
const SEVERAL: Label = 2;
const FIRST_GROUP: Label = 3;
/// Groups told apart in one pass: two bytes a unit.
const GROUPS_AT_ONCE: usize = (u16::MAX - FIRST_GROUP) as usize;

/// What a group of disks takes, bytes of sealed units, blocks and map pages, before parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupSpace {
    /// Of units that nothing else reaches: freed when the group is deleted and the cleaner has been there.
    pub unique_bytes: u64,
    /// Of units that others reach too, as often as this group refers to them.
    pub shared_bytes: u64,
}

/// What all disks take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpaceReport {
    /// Of units that anything reaches, each once: what a full scan counts.
    pub live_bytes: u64,
    /// Those units.
    pub live_units: u64,
    /// Bytes of all containers, garbage and directories included.
    pub stored_bytes: u64,
    /// The groups, as they were asked for.
    pub groups: Vec<GroupSpace>,
}

impl Engine {
    /// What groups of disks take. Everything acknowledged before is counted; while guests write, the answer is for some
    /// instant meanwhile. Two bytes of RAM for each unit that is stored. `progress` counts bytes of units.
    ///
    /// # Errors
    /// `NotFound` for a disk that is not there; `Cancelled`; when a map page is lost.
    pub async fn space(
        &self,
        groups: &[Vec<DiskId>],
        progress: &Progress,
    ) -> Result<SpaceReport, EngineError> {
        self.drain().await?;
        self.take_checkpoint().await?;
        // The cleaner moves what is being looked at.
        let _turn = self.shared.cleaning.lock().await;
        let reached = self.reached_by_each().await?;
        for disk in groups.iter().flatten() {
            if !reached.contains_key(disk) {
                return Err(crate::metadata::no_disk(*disk));
            }
        }
        let stored_bytes = self.shared.lock().totals.container_bytes;
        let passes = groups.len().div_ceil(GROUPS_AT_ONCE).max(1);
        progress.expect(stored_bytes * passes as u64);
        let mut report = SpaceReport { stored_bytes, ..SpaceReport::default() };
        for pass in 0..passes {
            let first = pass * GROUPS_AT_ONCE;
            let some = &groups[first..groups.len().min(first + GROUPS_AT_ONCE)];
            let census = self.census(some, &reached, progress).await?;
            (report.live_bytes, report.live_units) = (census.live_bytes, census.live_units);
            let each = census.unique.iter().zip(&census.referenced).skip(usize::from(FIRST_GROUP));
            report.groups.extend(each.map(|(unique, referenced)| GroupSpace {
                unique_bytes: *unique,
                shared_bytes: referenced.saturating_sub(*unique),
            }));
        }
        Ok(report)
    }

    async fn census(
        &self,
        groups: &[Vec<DiskId>],
        reached: &BTreeMap<DiskId, Reached>,
        progress: &Progress,
    ) -> Result<Census, EngineError> {
        let labels = groups.len() + usize::from(FIRST_GROUP);
        let mut census = Census { unique: vec![0; labels], referenced: vec![0; labels], ..Census::default() };
        let mut label_of: BTreeMap<DiskId, Label> = BTreeMap::new();
        for (i, group) in groups.iter().enumerate() {
            label_of.extend(group.iter().map(|disk| (*disk, FIRST_GROUP + i as Label)));
        }
        // One group after the other: a page that a second group reaches has nothing beneath that is only the second's.
        let label = |disk: &DiskId| label_of.get(disk).copied().unwrap_or(OTHERS);
        let mut order: Vec<(Label, &Reached)> = reached.iter().map(|(disk, to)| (label(disk), to)).collect();
        order.sort_by_key(|(label, _)| *label);
        let mut walk = self.walk(progress);
        for (label, reached) in order {
            census.label = label;
            let before = census.live_bytes;
            census.referenced[usize::from(label)] += walk.disk(reached, &mut census).await?;
            progress.add(census.live_bytes - before);
        }
        Ok(census)
    }
}

/// One pass over all maps.
#[derive(Default)]
struct Census {
    /// Of the group that is looked at.
    label: Label,
    labels: BTreeMap<ContainerId, Vec<Label>>,
    /// Bytes that a page and all beneath it refer to.
    beneath: Map<(ContainerId, u16), u64>,
    live_bytes: u64,
    live_units: u64,
    /// Bytes of units with a label, and bytes referred to, by label.
    unique: Vec<u64>,
    referenced: Vec<u64>,
}

impl Census {
    /// Enters a unit; true when what is beneath it has to be looked at.
    fn enter(&mut self, at: &Address) -> bool {
        let labels = self.labels.entry(at.container).or_default();
        let slot = usize::from(at.slot);
        if labels.len() <= slot {
            labels.resize(slot + 1, NOBODY);
        }
        let old = labels[slot];
        if old == self.label || old == SEVERAL {
            return false;
        }
        let (length, new) = (u64::from(at.length), if old == NOBODY { self.label } else { SEVERAL });
        labels[slot] = new;
        if old == NOBODY {
            self.live_bytes += length;
            self.live_units += 1;
        } else {
            self.unique[usize::from(old)] -= length;
        }
        self.unique[usize::from(new)] += length;
        true
    }
}

impl Visitor for Census {
    fn page(&mut self, at: &Address) -> Option<u64> {
        if self.enter(at) { None } else { Some(self.beneath.get(&slot_of(at)).copied().unwrap_or(0)) }
    }

    fn block(&mut self, at: &Address) -> u64 {
        self.enter(at);
        u64::from(at.length)
    }

    fn leave(&mut self, at: &Address, beneath: u64) -> u64 {
        let value = beneath + u64::from(at.length);
        self.beneath.insert(slot_of(at), value);
        value
    }

    fn lost(&mut self, _: &Address, error: EngineError) -> Result<u64, EngineError> {
        Err(error)
    }
}
