//! Mark: which slots of which containers anything reaches (section 6.2 of docs/design.md).
//!
//! A page that was seen is not walked again, so it costs what unique metadata costs, however many snapshots share it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use container::UnitKind;
use map::{Page, Pages, Place, Root};
use units::{Address, ContainerId, DiskId, Fingerprint};

use crate::disk::{Disk, Layer};
use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::kept::LostPages;
use crate::pace::Step;
use crate::pages::PageStore;
use crate::progress::Progress;
use crate::record::{Base, disks};

/// Pages walked before others are let in.
const PAGES_AT_ONCE: usize = 16;

/// Pages of a level that are read together: as many as a page stands above, twice.
const PAGES_TOGETHER: usize = 128;

/// Slots of one container.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots(Vec<u64>);

impl Slots {
    /// Enters a slot; false when it was there.
    pub(crate) fn set(&mut self, slot: u16) -> bool {
        let (word, bit) = (usize::from(slot) / 64, 1 << (slot % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    pub(crate) fn contains(&self, slot: u16) -> bool {
        self.0.get(usize::from(slot) / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// The first `count` slots.
    pub(crate) fn all(count: u32) -> Self {
        let mut slots = Self::default();
        for slot in 0..count {
            slots.set(slot as u16);
        }
        slots
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// What is reached.
#[derive(Debug, Default)]
pub(crate) struct Marked {
    pub(crate) live: BTreeMap<ContainerId, Slots>,
    /// Stubs on the way.
    pub(crate) met: BTreeSet<ContainerId>,
    /// Pages walked.
    pub(crate) pages: u64,
    /// Pages that are lost for good.
    pub(crate) lost: LostPages,
    /// A loss ends the walk, for good or not.
    is_strict: bool,
}

/// Trees and changes above them.
struct Roots {
    /// With their disks.
    roots: Vec<(DiskId, Root)>,
    layers: Vec<Arc<Layer>>,
}

impl Engine {
    /// Marks all that disks, snapshots and clones reach. What becomes reachable meanwhile is in containers committed
    /// since or in those that the state notes as hit. `progress` counts the bytes of pages.
    pub(crate) async fn mark(&self, progress: &Progress) -> Result<Marked, EngineError> {
        let roots = self.all_roots().await?;
        let mut marked = Marked::default();
        let mut step = self.step();
        for (disk, root) in &roots.roots {
            step = self.mark_tree(&mut marked, Some(*disk), root, step, progress).await?;
        }
        for layer in &roots.layers {
            progress.check()?;
            step = self.mark_layer(&mut marked, layer, step).await?;
        }
        Ok(marked)
    }

    /// The containers that hold what a tree reaches.
    pub(crate) async fn containers_under(&self, root: &Root) -> Result<BTreeSet<ContainerId>, EngineError> {
        let mut marked = Marked { is_strict: true, ..Marked::default() };
        let step = self.step();
        self.mark_tree(&mut marked, None, root, step, &Progress::default()).await?;
        Ok(marked.live.into_keys().collect())
    }

    /// All roots at one instant: no disk is on its way between RAM and the records, or from one to another.
    async fn all_roots(&self) -> Result<Roots, EngineError> {
        let _gate = self.shared.fork_gate.write().await;
        let meta = self.shared.embedded();
        let meta = meta.ok_or_else(|| EngineError::new(EngineErrorKind::Closed, "the engine is not open"))?;
        let mut roots = self.roots_in_ram();
        roots.roots.extend(disks(&meta).await?.into_iter().filter_map(|(id, record)| match record.base {
            Base::Root(root) => Some((id, root?)),
            _ => None,
        }));
        Ok(roots)
    }

    fn roots_in_ram(&self) -> Roots {
        let mut state = self.shared.lock();
        let disks: Vec<_> = state.disks.keys().copied().collect();
        disks.iter().for_each(|disk| state.seal_overlay(*disk));
        let root_of = |(id, disk): (&DiskId, &Disk)| Some((*id, disk.root?));
        let mut roots: Vec<(DiskId, Root)> = state.disks.iter().filter_map(root_of).collect();
        let mut layers: Vec<Arc<Layer>> =
            state.disks.values().flat_map(|disk| disk.layers.iter().cloned()).collect();
        // A checkpoint under way merges disks that may be deleted by now.
        if let Some(boundary) = &state.boundary {
            layers.extend(boundary.parts.iter().flat_map(|part| part.layers.iter().cloned()));
            roots.extend(boundary.parts.iter().filter_map(|part| Some((part.disk, part.root?))));
        }
        // Recovery begins with what the last checkpoint lists, for every disk that has a record.
        let has_record = |id: &DiskId| state.disks.contains_key(id) || state.tombstones.contains(id);
        roots.extend(state.listed.iter().filter(|(id, _)| has_record(id)).map(|(id, root)| (*id, *root)));
        layers.sort_by_key(|layer| Arc::as_ptr(layer) as usize);
        layers.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Roots { roots, layers }
    }

    async fn mark_layer<'a>(
        &'a self,
        marked: &mut Marked,
        layer: &Layer,
        mut step: Step<'a>,
    ) -> Result<Step<'a>, EngineError> {
        for (i, (_, (name, address))) in layer.points(0, u64::MAX).enumerate() {
            if i % 1024 == 1023 {
                seam::yield_now().await;
                step = self.next_step(step).await;
            }
            marked.block(&self.shared, name, *address).await?;
        }
        Ok(step)
    }

    async fn mark_tree<'a>(
        &'a self,
        marked: &mut Marked,
        disk: Option<DiskId>,
        root: &Root,
        mut step: Step<'a>,
        progress: &Progress,
    ) -> Result<Step<'a>, EngineError> {
        let pages = PageStore(&self.shared);
        let mut stack = vec![(root.level, vec![(root.fingerprint, root.address)])];
        while let Some((level, some)) = stack.pop() {
            let mut unseen = Vec::new();
            for (name, address) in some {
                let at = match marked.place(&self.shared, UnitKind::Page(level), &name, address).await {
                    Ok(at) => at,
                    Err(error) => {
                        marked.pass(&self.shared, error)?;
                        marked.lost.add(address.container, disk);
                        continue;
                    }
                };
                if marked.live.entry(at.container).or_default().set(at.slot) {
                    unseen.push((name, at));
                }
            }
            pages.fetch(level, &unseen).await;
            let mut below = Vec::new();
            for (name, at) in unseen {
                marked.pages += 1;
                progress.add(u64::from(at.length));
                if marked.pages.is_multiple_of(PAGES_AT_ONCE as u64) {
                    if self.shared.lock().closed {
                        return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
                    }
                    progress.check()?;
                    seam::yield_now().await;
                    step = self.next_step(step).await;
                }
                let Some(page) = marked.load(&pages, level, name, &at).await? else {
                    marked.lost.add(at.container, disk);
                    continue;
                };
                for entry in page.entries() {
                    let Place::Stored(address) = entry.place else { continue };
                    if level > 0 {
                        below.push((entry.fingerprint, address));
                    } else {
                        marked.block(&self.shared, &entry.fingerprint, address).await?;
                    }
                }
            }
            let lower = level.saturating_sub(1);
            stack.extend(below.chunks(PAGES_TOGETHER).rev().map(|some| (lower, some.to_vec())));
        }
        Ok(step)
    }
}

impl Marked {
    /// Lets a loss that is for good pass, where that is allowed.
    fn pass(&self, shared: &Shared, error: EngineError) -> Result<(), EngineError> {
        if self.is_strict { Err(error) } else { shared.pass_loss(error) }
    }

    /// A page; `None` when it is lost for good: it was tried twice.
    async fn load(
        &self,
        pages: &PageStore<'_>,
        level: u8,
        name: Fingerprint,
        at: &Address,
    ) -> Result<Option<Arc<Page>>, EngineError> {
        if let Ok(page) = pages.load(level, name, at).await {
            return Ok(Some(page));
        }
        match pages.load(level, name, at).await {
            Ok(page) => Ok(Some(page)),
            Err(error) => self.pass(pages.0, error).map(|()| None),
        }
    }

    /// Marks a block. Where one went that is not where the stub of its container leads, nobody knows.
    async fn block(
        &mut self,
        shared: &Shared,
        name: &Fingerprint,
        address: Address,
    ) -> Result<(), EngineError> {
        match self.place(shared, UnitKind::Data, name, address).await {
            Ok(at) => drop(self.live.entry(at.container).or_default().set(at.slot)),
            Err(error) => {
                self.pass(shared, error)?;
                self.lost.add_astray(address.container);
            }
        }
        Ok(())
    }

    /// Where something lies now; notes every stub on the way.
    async fn place(
        &mut self,
        shared: &Shared,
        kind: UnitKind,
        name: &Fingerprint,
        address: Address,
    ) -> Result<Address, EngineError> {
        let mut note = |stub| {
            self.met.insert(stub);
        };
        shared.follow(kind, name, address, &mut note).await
    }
}
