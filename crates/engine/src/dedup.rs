//! Deduplication: guesses from the index, proof from directories.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use container::{Head, PRELUDE_BYTES, UnitKind};
use index::{Holder, Index};
use pool::Pool;
use units::{Address, ContainerId, Fingerprint, Map};

/// Directories kept in RAM: what a stream touches now; about 100 KB each.
const RECENT_MAX: usize = 64;
/// Directories read for one generation: duplicates without locality must not turn the flush into random reads.
const LOADS_MAX: usize = 64;

/// The data blocks of one committed container.
#[derive(Debug)]
pub(crate) struct Directory {
    container: ContainerId,
    blocks: Map<Fingerprint, Address>,
}

impl Directory {
    pub(crate) fn of(head: &Head, fragment_pages: u16) -> Self {
        let mut blocks = Map::default();
        for (slot, entry) in head.entries.iter().enumerate() {
            if entry.kind == UnitKind::Data
                && let Some(address) = head.address(slot as u16, fragment_pages)
            {
                blocks.insert(entry.fingerprint, address);
            }
        }
        Self { container: head.container, blocks }
    }
}

/// The index and the directories in RAM.
#[derive(Debug)]
pub(crate) struct Dedup {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: Index,
    recent: VecDeque<Arc<Directory>>,
    /// Containers the cleaner empties: they give no hits.
    condemned: BTreeSet<ContainerId>,
}

/// What is left of the directories one generation may read.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(LOADS_MAX)
    }
}

impl Dedup {
    pub(crate) fn new(index_bytes: usize, tag_bits: u32) -> Self {
        let index = Index::new(index_bytes).with_tag_bits(tag_bits);
        Self { inner: Mutex::new(Inner { index, recent: VecDeque::new(), condemned: BTreeSet::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The index may be wrong or lost at any time; a panic elsewhere does not make it worse.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a committed container.
    pub(crate) fn learn(&self, head: &Head, fragment_pages: u16, keep: bool) {
        let directory = Directory::of(head, fragment_pages);
        let holder = Holder { container: head.container, fragment_pages };
        let mut inner = self.lock();
        if inner.condemned.contains(&head.container) {
            return;
        }
        inner.index.insert(holder, directory.blocks.keys().copied());
        if keep && !directory.blocks.is_empty() {
            inner.remember(Arc::new(directory));
        }
    }

    /// A container that is lost, or going, gives no hits any more.
    pub(crate) fn forget(&self, container: ContainerId) {
        let mut inner = self.lock();
        inner.index.remove(container);
        inner.recent.retain(|directory| directory.container != container);
    }

    /// The cleaner empties a container: it gives no hits from here on.
    pub(crate) fn condemn(&self, container: ContainerId) {
        self.lock().condemned.insert(container);
        self.forget(container);
    }

    /// The cleaner left a container as it is.
    pub(crate) fn pardon(&self, container: ContainerId) {
        self.lock().condemned.remove(&container);
    }

    /// No directory of a deleted container is on its way to the index any more.
    pub(crate) fn forget_condemned(&self) {
        self.lock().condemned.clear();
    }

    pub(crate) fn knows(&self, container: ContainerId) -> bool {
        self.lock().index.knows(container)
    }

    /// The address of a block that a committed container holds: a hit counts only when the fingerprint was read in
    /// that container's directory.
    pub(crate) async fn find(&self, pool: &Pool, fp: &Fingerprint, budget: &mut Budget) -> Option<Address> {
        let guesses: Vec<Holder> = {
            let mut inner = self.lock();
            if let Some(address) = inner.find_recent(fp) {
                return Some(address);
            }
            inner.index.lookup(fp).collect()
        };
        for holder in guesses {
            if budget.0 == 0 {
                return None;
            }
            budget.0 -= 1;
            let Some(head) = read_head(pool, holder.container, holder.fragment_pages).await else {
                self.forget(holder.container);
                continue;
            };
            let directory = Arc::new(Directory::of(&head, holder.fragment_pages));
            let found = directory.blocks.get(fp).copied();
            let mut inner = self.lock();
            if inner.condemned.contains(&holder.container) {
                continue;
            }
            inner.remember(directory);
            drop(inner);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl Inner {
    fn find_recent(&mut self, fp: &Fingerprint) -> Option<Address> {
        let at = self.recent.iter().position(|directory| directory.blocks.contains_key(fp))?;
        let found = self.recent[at].blocks.get(fp).copied();
        if at > 0
            && let Some(directory) = self.recent.remove(at)
        {
            self.recent.push_front(directory);
        }
        found
    }

    fn remember(&mut self, directory: Arc<Directory>) {
        self.recent.retain(|have| have.container != directory.container);
        self.recent.push_front(directory);
        self.recent.truncate(RECENT_MAX);
    }
}

/// Reads and checks a container's directory.
pub(crate) async fn read_head(pool: &Pool, container: ContainerId, fragment_pages: u16) -> Option<Head> {
    let mut first = Vec::new();
    let mut place = None;
    let mut check = |bytes: &[u8]| {
        first = bytes.to_vec();
        place = Head::peek(bytes).ok();
        place.is_some()
    };
    pool.read(container, fragment_pages, 0, PRELUDE_BYTES, &mut check).await.ok()?;
    let range = place?.directory();
    if range.is_empty() {
        return Head::decode(&first, &[]).ok().filter(|head| head.container == container);
    }
    let mut head = None;
    let mut check = |bytes: &[u8]| {
        head = Head::decode(&first, bytes).ok().filter(|head| head.container == container);
        head.is_some()
    };
    pool.read(container, fragment_pages, range.start, range.len(), &mut check).await.ok()?;
    head
}
