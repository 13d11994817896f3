//! Mark: which slots of which containers anything reaches (section 6.2 of docs/design.md).
//!
//! A page that was seen is not walked again, so it costs what unique metadata costs, however many snapshots share it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use container::UnitKind;
use map::{Pages, Place, Root};
use units::{Address, ContainerId, DiskId, Fingerprint};

use crate::disk::Layer;
use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
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
}

/// Trees and changes above them.
struct Roots {
    roots: Vec<Root>,
    layers: Vec<Arc<Layer>>,
}

impl Engine {
    /// Marks all that disks, snapshots and clones reach. What becomes reachable meanwhile is in containers committed
    /// since or in those that the state notes as hit. `progress` counts the bytes of pages.
    pub(crate) async fn mark(&self, progress: &Progress) -> Result<Marked, EngineError> {
        let roots = self.all_roots().await?;
        let mut marked = Marked::default();
        let mut step = self.step();
        for root in &roots.roots {
            step = self.mark_tree(&mut marked, root, step, progress).await?;
        }
        for layer in &roots.layers {
            progress.check()?;
            step = self.mark_layer(&mut marked, layer, step).await?;
        }
        Ok(marked)
    }

    /// The containers that hold what a tree reaches.
    pub(crate) async fn containers_under(&self, root: &Root) -> Result<BTreeSet<ContainerId>, EngineError> {
        let mut marked = Marked::default();
        let step = self.step();
        self.mark_tree(&mut marked, root, step, &Progress::default()).await?;
        Ok(marked.live.into_keys().collect())
    }

    /// All roots at one instant: no disk is on its way between RAM and the records, or from one to another.
    async fn all_roots(&self) -> Result<Roots, EngineError> {
        let _gate = self.shared.fork_gate.write().await;
        let meta = self.shared.embedded();
        let meta = meta.ok_or_else(|| EngineError::new(EngineErrorKind::Closed, "the engine is not open"))?;
        let mut roots = self.roots_in_ram();
        roots.roots.extend(disks(&meta).await?.into_iter().filter_map(|(_, record)| match record.base {
            Base::Root(root) => root,
            _ => None,
        }));
        Ok(roots)
    }

    fn roots_in_ram(&self) -> Roots {
        let mut state = self.shared.lock();
        let disks: Vec<_> = state.disks.keys().copied().collect();
        disks.iter().for_each(|disk| state.seal_overlay(*disk));
        let mut roots: Vec<Root> = state.disks.values().filter_map(|disk| disk.root).collect();
        let mut layers: Vec<Arc<Layer>> =
            state.disks.values().flat_map(|disk| disk.layers.iter().cloned()).collect();
        // A checkpoint under way merges disks that may be deleted by now.
        if let Some(boundary) = &state.boundary {
            layers.extend(boundary.parts.iter().flat_map(|part| part.layers.iter().cloned()));
            roots.extend(boundary.parts.iter().filter_map(|part| part.root));
        }
        // Recovery begins with what the last checkpoint lists, for every disk that has a record.
        let has_record = |id: &DiskId| state.disks.contains_key(id) || state.tombstones.contains(id);
        roots.extend(state.listed.iter().filter(|(id, _)| has_record(id)).map(|(_, root)| *root));
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
            let at = marked.place(&self.shared, UnitKind::Data, name, *address).await?;
            marked.live.entry(at.container).or_default().set(at.slot);
        }
        Ok(step)
    }

    async fn mark_tree<'a>(
        &'a self,
        marked: &mut Marked,
        root: &Root,
        mut step: Step<'a>,
        progress: &Progress,
    ) -> Result<Step<'a>, EngineError> {
        let pages = PageStore(&self.shared);
        let mut stack = vec![(root.level, vec![(root.fingerprint, root.address)])];
        while let Some((level, some)) = stack.pop() {
            let mut unseen = Vec::new();
            for (name, address) in some {
                let at = marked.place(&self.shared, UnitKind::Page(level), &name, address).await?;
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
                let page = pages.load(level, name, &at).await?;
                for entry in page.entries() {
                    let Place::Stored(address) = entry.place else { continue };
                    if level > 0 {
                        below.push((entry.fingerprint, address));
                    } else {
                        let at =
                            marked.place(&self.shared, UnitKind::Data, &entry.fingerprint, address).await?;
                        marked.live.entry(at.container).or_default().set(at.slot);
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
