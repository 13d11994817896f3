//! Mark: which slots of which containers anything reaches (DESIGN 6).
//!
//! A page that was seen is not walked again, so it costs what unique metadata costs, however many snapshots share it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use container::UnitKind;
use map::{Pages, Place, Root};
use units::{Address, ContainerId, Fingerprint};

use crate::disk::Layer;
use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::pages::PageStore;
use crate::record::{Base, disks};

/// Pages walked before others are let in.
const PAGES_AT_ONCE: usize = 16;

/// Slots of one container.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots(Vec<u64>);

impl Slots {
    /// Enters a slot; false when it was there.
    fn set(&mut self, slot: u16) -> bool {
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
    /// since or in those that the state notes as hit.
    pub(crate) async fn mark(&self) -> Result<Marked, EngineError> {
        let mut marked = Marked::default();
        // A disk that is settled between two looks stands in RAM at the first or in the records at the second.
        let in_ram = self.roots_in_ram();
        self.mark_roots(&mut marked, &in_ram).await?;
        let meta = self.shared.embedded();
        let meta = meta.ok_or_else(|| EngineError::new(EngineErrorKind::Closed, "the engine is not open"))?;
        let roots = disks(&meta).await?.into_iter().filter_map(|(_, record)| match record.base {
            Base::Root(root) => root,
            _ => None,
        });
        let at_rest = Roots { roots: roots.collect(), layers: Vec::new() };
        self.mark_roots(&mut marked, &at_rest).await?;
        let in_ram = self.roots_in_ram();
        self.mark_roots(&mut marked, &in_ram).await?;
        Ok(marked)
    }

    fn roots_in_ram(&self) -> Roots {
        let mut state = self.shared.lock();
        let disks: Vec<_> = state.disks.keys().copied().collect();
        disks.iter().for_each(|disk| state.seal_overlay(*disk));
        let roots = state.disks.values().filter_map(|disk| disk.root).collect();
        let mut layers: Vec<Arc<Layer>> =
            state.disks.values().flat_map(|disk| disk.layers.iter().cloned()).collect();
        if let Some(boundary) = &state.boundary {
            layers.extend(boundary.parts.iter().flat_map(|part| part.layers.iter().cloned()));
        }
        layers.sort_by_key(|layer| Arc::as_ptr(layer) as usize);
        layers.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Roots { roots, layers }
    }

    async fn mark_roots(&self, marked: &mut Marked, roots: &Roots) -> Result<(), EngineError> {
        for root in &roots.roots {
            self.mark_tree(marked, root).await?;
        }
        for layer in &roots.layers {
            for (i, (_, (name, address))) in layer.points(0, u64::MAX).enumerate() {
                if i % 1024 == 1023 {
                    seam::yield_now().await;
                }
                let at = marked.place(&self.shared, UnitKind::Data, name, *address).await?;
                marked.live.entry(at.container).or_default().set(at.slot);
            }
        }
        Ok(())
    }

    async fn mark_tree(&self, marked: &mut Marked, root: &Root) -> Result<(), EngineError> {
        let pages = PageStore(&self.shared);
        let mut stack: Vec<(u8, Fingerprint, Address)> = vec![(root.level, root.fingerprint, root.address)];
        while let Some((level, name, address)) = stack.pop() {
            let at = marked.place(&self.shared, UnitKind::Page(level), &name, address).await?;
            if !marked.live.entry(at.container).or_default().set(at.slot) {
                continue;
            }
            marked.pages += 1;
            if marked.pages.is_multiple_of(PAGES_AT_ONCE as u64) {
                if self.shared.lock().closed {
                    return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
                }
                seam::yield_now().await;
            }
            let page = pages.load(level, name, &at).await?;
            for entry in page.entries() {
                let Place::Stored(address) = entry.place else { continue };
                if level > 0 {
                    stack.push((level - 1, entry.fingerprint, address));
                } else {
                    let at = marked.place(&self.shared, UnitKind::Data, &entry.fingerprint, address).await?;
                    marked.live.entry(at.container).or_default().set(at.slot);
                }
            }
        }
        Ok(())
    }
}

impl Marked {
    /// Where something lies now; notes the stub that says so.
    async fn place(
        &mut self,
        shared: &Shared,
        kind: UnitKind,
        name: &Fingerprint,
        address: Address,
    ) -> Result<Address, EngineError> {
        let at = shared.resolve(kind, name, address).await?;
        if at.container != address.container {
            self.met.insert(address.container);
        }
        Ok(at)
    }
}
