//! Walks over maps that ask a visitor about every unit: what space accounting and verification are made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use container::UnitKind;
use map::{Page, Pages, Place, Root};
use units::{Address, ContainerId, DiskId, Fingerprint};

use crate::disk::Layer;
use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};
use crate::pace::Step;
use crate::pages::PageStore;
use crate::progress::Progress;
use crate::record::{Base, disks};

/// Units looked at before others are let in.
const UNITS_AT_ONCE: u64 = 1024;

/// What is asked on the way. Values are added up from the leaves to the root.
pub(crate) trait Visitor {
    /// A page is reached: its value when what is beneath it is not to be looked at.
    fn page(&mut self, at: &Address) -> Option<u64>;
    /// A block is reached: its value.
    fn block(&mut self, at: &Address) -> u64;
    /// All beneath a page was looked at: the sum. Gives the page's value.
    fn leave(&mut self, at: &Address, beneath: u64) -> u64;
    /// A page cannot be read, or a unit is not where a stub says: its value, or the error that ends the walk.
    fn lost(&mut self, at: &Address, error: EngineError) -> Result<u64, EngineError>;
}

/// What one disk reaches.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    pub(crate) root: Option<Root>,
    pub(crate) layers: Vec<Arc<Layer>>,
}

/// A page whose entries are being looked at.
struct Frame {
    at: Address,
    level: u8,
    page: Arc<Page>,
    next: usize,
    sum: u64,
}

/// A page to be looked at.
type Next = (u8, Fingerprint, Address);

pub(crate) struct Walk<'a> {
    engine: &'a Engine,
    progress: &'a Progress,
    step: Option<Step<'a>>,
    seen: u64,
}

impl Engine {
    pub(crate) fn walk<'a>(&'a self, progress: &'a Progress) -> Walk<'a> {
        Walk { engine: self, progress, step: Some(self.step()), seen: 0 }
    }

    /// All disks at one instant.
    pub(crate) async fn reached_by_each(&self) -> Result<BTreeMap<DiskId, Reached>, EngineError> {
        let _gate = self.shared.fork_gate.write().await;
        let meta = self.shared.embedded();
        let meta = meta.ok_or_else(|| EngineError::new(EngineErrorKind::Closed, "the engine is not open"))?;
        let mut all = BTreeMap::new();
        for (disk, record) in disks(&meta).await? {
            if record.gone {
                continue;
            }
            let root = if let Base::Root(root) = record.base { root } else { None };
            all.insert(disk, Reached { root, layers: Vec::new() });
        }
        let mut state = self.shared.lock();
        let resident: Vec<DiskId> = state.disks.keys().copied().collect();
        resident.iter().for_each(|disk| state.seal_overlay(*disk));
        for (id, disk) in state.disks.iter().filter(|(_, disk)| !disk.gone) {
            let mut reached = Reached { root: disk.root, layers: disk.layers.clone() };
            if let Some(source) = disk.below.and_then(|below| state.disks.get(&below.source)) {
                (reached.root, reached.layers) = (source.root, source.layers.clone());
            }
            all.insert(*id, reached);
        }
        Ok(all)
    }
}

impl<'a> Walk<'a> {
    /// Looks at all a disk reaches; gives the sum.
    pub(crate) async fn disk(
        &mut self,
        reached: &Reached,
        visitor: &mut (dyn Visitor + Send),
    ) -> Result<u64, EngineError> {
        let mut sum = 0;
        if let Some(root) = &reached.root {
            sum += self.tree(root, visitor).await?;
        }
        for layer in &reached.layers {
            for (_, (name, address)) in layer.points(0, u64::MAX) {
                sum += self.block(name, *address, visitor).await?;
            }
        }
        Ok(sum)
    }

    async fn tree(&mut self, root: &Root, visitor: &mut (dyn Visitor + Send)) -> Result<u64, EngineError> {
        let mut frames: Vec<Frame> = Vec::new();
        let mut next = Some((root.level, root.fingerprint, root.address));
        loop {
            let value = match next.take() {
                Some(page) => self.page(page, &mut frames, visitor).await?,
                None => self.go_on(&mut frames, &mut next, visitor).await?,
            };
            match (value, frames.last_mut()) {
                (None, _) => {}
                (Some(value), Some(above)) => above.sum += value,
                (Some(value), None) => return Ok(value),
            }
        }
    }

    /// Begins with a page; gives its value when there is nothing to look at beneath.
    async fn page(
        &mut self,
        (level, name, address): Next,
        frames: &mut Vec<Frame>,
        visitor: &mut (dyn Visitor + Send),
    ) -> Result<Option<u64>, EngineError> {
        let at = match self.place(UnitKind::Page(level), &name, address).await {
            Ok(at) => at,
            Err(error) => return lost(&address, error, visitor).map(Some),
        };
        if let Some(value) = visitor.page(&at) {
            return Ok(Some(value));
        }
        match PageStore(&self.engine.shared).load(level, name, &at).await {
            Ok(page) => frames.push(Frame { at, level, page, next: 0, sum: 0 }),
            Err(error) => return lost(&at, error, visitor).map(Some),
        }
        Ok(None)
    }

    /// Looks at the entries of the uppermost page up to the next page, or to its end: gives its value then.
    async fn go_on(
        &mut self,
        frames: &mut Vec<Frame>,
        next: &mut Option<Next>,
        visitor: &mut (dyn Visitor + Send),
    ) -> Result<Option<u64>, EngineError> {
        let Some(mut frame) = frames.pop() else { return Ok(Some(0)) };
        while let Some(entry) = frame.page.entries().get(frame.next).copied() {
            frame.next += 1;
            let Place::Stored(address) = entry.place else { continue };
            if frame.level > 0 {
                *next = Some((frame.level - 1, entry.fingerprint, address));
                frames.push(frame);
                return Ok(None);
            }
            frame.sum += self.block(&entry.fingerprint, address, visitor).await?;
        }
        Ok(Some(visitor.leave(&frame.at, frame.sum)))
    }

    async fn block(
        &mut self,
        name: &Fingerprint,
        address: Address,
        visitor: &mut (dyn Visitor + Send),
    ) -> Result<u64, EngineError> {
        match self.place(UnitKind::Data, name, address).await {
            Ok(at) => Ok(visitor.block(&at)),
            Err(error) => lost(&address, error, visitor),
        }
    }

    /// Where a unit lies now; lets others in now and then.
    async fn place(
        &mut self,
        kind: UnitKind,
        name: &Fingerprint,
        address: Address,
    ) -> Result<Address, EngineError> {
        self.seen += 1;
        if self.seen.is_multiple_of(UNITS_AT_ONCE) {
            self.progress.check()?;
            if self.engine.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            seam::yield_now().await;
            if let Some(step) = self.step.take() {
                self.step = Some(self.engine.next_step(step).await);
            }
        }
        self.engine.shared.resolve(kind, name, address).await
    }
}

fn lost(at: &Address, error: EngineError, visitor: &mut (dyn Visitor + Send)) -> Result<u64, EngineError> {
    if error.kind == EngineErrorKind::Lost { visitor.lost(at, error) } else { Err(error) }
}

/// A unit, as sets name it.
pub(crate) fn slot_of(at: &Address) -> (ContainerId, u16) {
    (at.container, at.slot)
}
