//! Verify: every unit that any disk, snapshot or clone reaches is read and opened; what is lost is named by disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use container::{Head, UnitKind};
use seal::Kind;
use units::{Address, ContainerId, DiskId, Incarnation, Map};

use crate::dedup::read_head;
use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};
use crate::mark::Slots;
use crate::pages::open_page;
use crate::progress::Progress;
use crate::walk::{Visitor, slot_of};

/// Bytes read together.
const READ_BYTES: usize = 1 << 20;
/// Places of lost units that are remembered one by one; beyond them whole containers count as lost.
const LOST_MAX: usize = 1 << 16;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Units opened, blocks and map pages, and their bytes.
    pub units: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Units that cannot be read or are not what their names say.
    pub lost_units: u64,
    /// Containers they are in.
    pub damaged: Vec<ContainerId>,
    /// Disks that reach them, in order: what cannot be restored whole.
    pub affected: Vec<DiskId>,
}

/// Units that are lost.
#[derive(Default)]
pub(crate) struct Lost {
    places: BTreeSet<(ContainerId, u16)>,
    containers: BTreeSet<ContainerId>,
    /// Containers of which only incarnation and number are known.
    missing: BTreeSet<(Incarnation, u32)>,
    /// What the media that are up do not give is lost too.
    reach: Option<pool::Pool>,
    units: u64,
}

impl Lost {
    pub(crate) fn of(
        containers: impl IntoIterator<Item = ContainerId>,
        missing: impl IntoIterator<Item = (Incarnation, u32)>,
    ) -> Self {
        Self {
            containers: containers.into_iter().collect(),
            missing: missing.into_iter().collect(),
            ..Self::default()
        }
    }

    /// What the media that are up do not give is lost too.
    pub(crate) fn is_by_reach_too(&mut self, pool: pool::Pool) {
        self.reach = Some(pool);
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
            && self.containers.is_empty()
            && self.missing.is_empty()
            && self.reach.is_none()
    }

    fn note(&mut self, place: (ContainerId, u16)) {
        self.units += 1;
        if self.places.len() < LOST_MAX {
            self.places.insert(place);
        } else {
            self.containers.insert(place.0);
        }
    }

    fn holds(&self, at: &Address) -> bool {
        let id = at.container;
        self.containers.contains(&id)
            || self.missing.contains(&(id.incarnation, id.number))
            || self.places.contains(&slot_of(at))
            || self.reach.as_ref().is_some_and(|pool| !pool.is_within_reach(at))
    }
}

/// Notes everything that is reached.
struct Everything<'a> {
    live: BTreeMap<ContainerId, Slots>,
    bytes: u64,
    lost: Lost,
    /// Counts the pages.
    progress: &'a Progress,
}

impl Visitor for Everything<'_> {
    fn page(&mut self, at: &Address) -> Option<u64> {
        let is_new = self.live.entry(at.container).or_default().set(at.slot);
        if is_new {
            self.bytes += u64::from(at.length);
            self.progress.add(u64::from(at.length));
        }
        (!is_new).then_some(0)
    }

    fn block(&mut self, at: &Address) -> u64 {
        let is_new = self.live.entry(at.container).or_default().set(at.slot);
        self.bytes += if is_new { u64::from(at.length) } else { 0 };
        0
    }

    fn leave(&mut self, _: &Address, _: u64) -> u64 {
        0
    }

    fn lost(&mut self, at: &Address, _: EngineError) -> Result<u64, EngineError> {
        self.lost.note(slot_of(at));
        Ok(0)
    }
}

/// Asks of each disk whether it reaches something lost.
struct Affected<'a> {
    lost: &'a Lost,
    known: Map<(ContainerId, u16), bool>,
}

impl Visitor for Affected<'_> {
    fn page(&mut self, at: &Address) -> Option<u64> {
        if self.lost.holds(at) {
            return Some(1);
        }
        self.known.get(&slot_of(at)).map(|affected| u64::from(*affected))
    }

    fn block(&mut self, at: &Address) -> u64 {
        u64::from(self.lost.holds(at))
    }

    fn leave(&mut self, at: &Address, beneath: u64) -> u64 {
        self.known.insert(slot_of(at), beneath > 0);
        u64::from(beneath > 0)
    }

    fn lost(&mut self, _: &Address, _: EngineError) -> Result<u64, EngineError> {
        Ok(1)
    }
}

impl Engine {
    /// Reads and opens every unit that a disk, snapshot or clone reaches: what passes can be restored. What is wrong on
    /// the media and can be decoded is repaired on the way. `progress` counts bytes: of map pages, while what is reached is
    /// looked for among all that is stored, and then of units that are opened.
    ///
    /// # Errors
    /// `Cancelled`, `Closed`; damage is told in the report.
    pub async fn verify(&self, progress: &Progress) -> Result<VerifyReport, EngineError> {
        self.expect_all(progress);
        self.drain().await?;
        // The cleaner moves what is being looked at.
        let _turn = self.shared.cleaning.lock().await;
        self.expect_all(progress);
        let Everything { live, bytes, mut lost, .. } = self.everything(progress).await?;
        progress.expect_more(bytes);
        let mut report = VerifyReport::default();
        let mut step = self.step();
        for (container, slots) in &live {
            let before = lost.units;
            self.open_all(*container, slots, &mut report, &mut lost, progress).await?;
            if lost.units == before {
                self.shared.pool.found_whole(*container);
            }
            step = self.next_step(step).await;
        }
        drop(step);
        report.lost_units = lost.units;
        report.damaged = lost
            .places
            .iter()
            .map(|(container, _)| *container)
            .chain(lost.containers.iter().copied())
            .collect();
        report.damaged.sort_unstable();
        report.damaged.dedup();
        report.affected = self.affected_by(&lost, progress).await?;
        Ok(report)
    }

    /// Opens all that anything reaches in these containers; gives what is lost of it, and map pages that cannot be read.
    pub(crate) async fn lost_in(
        &self,
        containers: &BTreeSet<ContainerId>,
        progress: &Progress,
    ) -> Result<Lost, EngineError> {
        if containers.is_empty() {
            return Ok(Lost::default());
        }
        let Everything { live, mut lost, .. } = self.everything(progress).await?;
        let mut report = VerifyReport::default();
        let mut step = self.step();
        for (container, slots) in live.iter().filter(|(container, _)| containers.contains(container)) {
            self.open_all(*container, slots, &mut report, &mut lost, progress).await?;
            step = self.next_step(step).await;
        }
        drop(step);
        Ok(lost)
    }

    /// All that anything reaches.
    async fn everything<'a>(&self, progress: &'a Progress) -> Result<Everything<'a>, EngineError> {
        let mut found = Everything { live: BTreeMap::new(), bytes: 0, lost: Lost::default(), progress };
        let mut walk = self.walk(progress);
        for reached in self.reached_by_each().await?.values() {
            walk.disk(reached, &mut found).await?;
        }
        Ok(found)
    }

    /// Says that all that is stored may have to be looked at.
    pub(crate) fn expect_all(&self, progress: &Progress) {
        progress.set(0, self.shared.lock().totals.container_bytes);
    }

    /// Disks that reach something lost.
    pub(crate) async fn affected_by(
        &self,
        lost: &Lost,
        progress: &Progress,
    ) -> Result<Vec<DiskId>, EngineError> {
        let mut affected = Vec::new();
        if lost.is_empty() {
            return Ok(affected);
        }
        let mut visitor = Affected { lost, known: Map::default() };
        let mut walk = self.walk(progress);
        for (disk, reached) in &self.reached_by_each().await? {
            if walk.disk(reached, &mut visitor).await? > 0 {
                affected.push(*disk);
            }
        }
        Ok(affected)
    }

    /// Opens the units of a container that are reached, neighbours together.
    async fn open_all(
        &self,
        container: ContainerId,
        slots: &Slots,
        report: &mut VerifyReport,
        lost: &mut Lost,
        progress: &Progress,
    ) -> Result<(), EngineError> {
        let pool = &self.shared.pool;
        let pages = pool.fragment_pages_of(container).await;
        let head = match pages {
            Some(pages) => read_head(pool, container, pages).await.map(|head| (head, pages)),
            None => None,
        };
        let Some((head, pages)) = head else {
            lost.units += u64::from(slots.count());
            lost.containers.insert(container);
            pool.note_hurt(container, pages.unwrap_or(0));
            return Ok(());
        };
        let wanted: Vec<u16> = (0..head.entries.len() as u16).filter(|slot| slots.contains(*slot)).collect();
        for some in stretches(&head, &wanted) {
            progress.check()?;
            if self.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            let some = &wanted[some];
            if !self.opens(&head, pages, some).await {
                for slot in some {
                    if !self.opens(&head, pages, std::slice::from_ref(slot)).await {
                        lost.note((container, *slot));
                    }
                }
            }
            let bytes = some.iter().map(|slot| u64::from(head.entries[usize::from(*slot)].length)).sum();
            progress.add(bytes);
            report.units += some.len() as u64;
            report.bytes += bytes;
        }
        Ok(())
    }

    /// Whether these units, which lie behind one another, are what their names say.
    async fn opens(&self, head: &Head, pages: u16, slots: &[u16]) -> bool {
        let place = |slot: &u16| head.address(*slot, pages);
        let Some(addresses) = slots.iter().map(place).collect::<Option<Vec<Address>>>() else { return false };
        let Some((first, last)) = addresses.first().zip(addresses.last()) else { return true };
        let start = first.offset as usize;
        let length = (last.offset + last.length) as usize - start;
        let sealer = self.shared.sealer.clone();
        let mut plain = Vec::new();
        let mut check = |bytes: &[u8]| {
            slots.iter().zip(&addresses).all(|(slot, address)| {
                let entry = &head.entries[usize::from(*slot)];
                let from = address.offset as usize - start;
                let unit = &bytes[from..from + address.length as usize];
                match entry.kind {
                    UnitKind::Data => sealer.open(Kind::Data, entry.fingerprint, unit, &mut plain).is_ok(),
                    UnitKind::Page(level) => {
                        open_page(&sealer, level, entry.fingerprint, address, unit).is_some()
                    }
                    UnitKind::Meta => false,
                }
            })
        };
        let pool = &self.shared.pool;
        pool.read(head.container, pages, start, length, &mut check).await.is_ok()
    }
}

/// Runs of slots whose units lie within one read.
fn stretches(head: &Head, slots: &[u16]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    let entry = |at: usize| &head.entries[usize::from(slots[at])];
    for at in 0..slots.len() {
        let end = entry(at).offset as usize + entry(at).length as usize;
        match out.last_mut() {
            Some(run)
                if entry(at).offset >= entry(run.start).offset
                    && end - entry(run.start).offset as usize <= READ_BYTES =>
            {
                run.end = at + 1;
            }
            _ => out.push(at..at + 1),
        }
    }
    out
}
