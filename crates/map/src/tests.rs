mod format;
mod fuzz;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use seam::BoxFuture;
use units::{Address, ContainerId, Fingerprint, Incarnation, Lba};

use super::*;

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

fn container(number: u32) -> ContainerId {
    ContainerId { incarnation: Incarnation(9), number, class: 1, row: 0 }
}

fn address(number: u32, slot: u16) -> Address {
    Address {
        container: container(number),
        slot,
        fragment_pages: 7,
        offset: u32::from(slot) * 100,
        length: 100,
    }
}

fn name(bytes: &[u8]) -> Fingerprint {
    let mut fp = [0; 16];
    for (i, chunk) in bytes.chunks(4).enumerate() {
        let sum = units::crc32c(&[&fp[..], chunk].concat());
        fp[..4].copy_from_slice(&sum.to_le_bytes());
        fp.rotate_left(4 + i % 3);
    }
    Fingerprint(fp)
}

/// A store of encoded pages; a container is full after three pages.
#[derive(Default, Clone)]
struct Store(Arc<Mutex<BTreeMap<(u32, u16), PageParts>>>);

struct Sink {
    store: Store,
    container: u32,
    slots: u16,
    stored: usize,
    kept: BTreeMap<(u32, u16), Arc<Page>>,
}

impl Sink {
    fn real(&self, place: Place) -> Address {
        match place {
            Place::Stored(address) => address,
            Place::Pending { container, slot, .. } => address(container, slot),
        }
    }
}

impl Sink {
    fn root(&self, top: Top) -> Option<Root> {
        top.map(|(level, entry)| Root {
            level,
            fingerprint: entry.fingerprint,
            address: self.real(entry.place),
            blocks: entry.blocks,
        })
    }
}

impl PageSink for Sink {
    type Error = ();
    fn store<'a>(&'a mut self, page: &'a Page) -> BoxFuture<'a, Result<(Fingerprint, Place), ()>> {
        Box::pin(async move {
            if self.slots == 3 {
                (self.container, self.slots) = (self.container + 1, 0);
            }
            let here = self.container;
            let parts = encode_page(page, &|c| (c != here).then(|| (container(c), 7)));
            let fp = name(&parts.fingerprints);
            let slot = self.slots;
            self.slots += 1;
            self.stored += 1;
            self.store.0.lock().expect("lock").insert((here, slot), parts);
            let place = Place::Pending { container: here, slot, offset: u32::from(slot) * 100, length: 100 };
            self.kept.insert((here, slot), Arc::new(page.clone()));
            Ok((fp, place))
        })
    }

    fn find(&self, pending: Place) -> Kept {
        let Place::Pending { container, slot, .. } = pending else { panic!("{pending:?} is stored") };
        match self.kept.get(&(container, slot)) {
            Some(page) if container == self.container => Kept::Page(page.clone()),
            _ => Kept::At(self.real(pending)),
        }
    }
}

impl Pages for Store {
    type Error = MapFormatError;
    fn load<'a>(
        &'a self,
        level: u8,
        fp: Fingerprint,
        address: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<Page>, MapFormatError>> {
        Box::pin(async move {
            let parts = self.0.lock().expect("lock")[&(address.container.number, address.slot)].clone();
            assert_eq!(name(&parts.fingerprints), fp);
            let page = decode_page(
                &parts.fingerprints,
                &parts.addresses,
                address.container,
                address.fragment_pages,
            )?;
            assert_eq!(page.level, level);
            Ok(Arc::new(page))
        })
    }
}

struct Tree {
    store: Store,
    root: Option<Root>,
    next: u32,
}

impl Tree {
    fn new() -> Self {
        Self { store: Store::default(), root: None, next: 0 }
    }

    fn sink(&self) -> Sink {
        let kept = BTreeMap::new();
        Sink { store: self.store.clone(), container: self.next, slots: 0, stored: 0, kept }
    }

    fn merge(&mut self, overlay: &Overlay, blocks: u64) -> usize {
        let mut sink = self.sink();
        let top = self.root.as_ref().map(Root::top);
        let top = block_on(merge(&self.store, &mut sink, top, overlay, blocks)).expect("merges");
        self.root = sink.root(top);
        self.next = sink.container + 1;
        sink.stored
    }

    fn get(&self, lba: u64) -> Option<(Fingerprint, Address)> {
        block_on(lookup(&self.store, self.root.as_ref(), Lba(lba))).expect("looks up")
    }
}

fn value(i: u64) -> (Fingerprint, Address) {
    (name(&i.to_le_bytes()), address(1_000_000 + (i % 50) as u32, i as u16))
}

#[test]
fn heights() {
    assert_eq!(
        (height_for(1), height_for(64), height_for(65), height_for(4096), height_for(4097)),
        (0, 0, 1, 1, 2)
    );
    assert_eq!(height_for(1 << 52), 8);
}

#[test]
fn a_change_writes_one_path_and_shares_the_rest() {
    let mut tree = Tree::new();
    let mut all = Overlay::default();
    for i in 0..4096 {
        all.put(Lba(i), value(i));
    }
    assert_eq!(tree.merge(&all, 4096), 65);
    let mut one = Overlay::default();
    one.put(Lba(70), value(9999));
    assert_eq!(tree.merge(&one, 4096), 2);
    assert_eq!(tree.get(70), Some(value(9999)));
    assert_eq!(tree.get(71), Some(value(71)));
    let mut hole = Overlay::default();
    hole.punch(Lba(0), 4096);
    assert_eq!(tree.merge(&hole, 4096), 0, "an emptied tree stores and loads nothing");
    assert_eq!(tree.root, None);
}

/// A discard of a whole disk of 64 TiB, as mkfs does it, or cutting most of one off: this ends only when it costs
/// what it empties.
#[test]
fn a_hole_costs_what_it_empties_and_not_what_it_spans() {
    let blocks = 1 << 34;
    let mut tree = Tree::new();
    let mut hole = Overlay::default();
    hole.punch(Lba(0), blocks);
    assert_eq!(tree.merge(&hole, blocks), 0);
    assert_eq!(tree.root, None);
    let far = [3, 1 << 20, (1 << 33) + 7, blocks - 1];
    let mut points = Overlay::default();
    for lba in far {
        points.put(Lba(lba), value(lba));
    }
    tree.merge(&points, blocks);
    // All but the first and one that is written again.
    let mut hole = Overlay::default();
    hole.punch(Lba(4), blocks - 4);
    hole.put(Lba(far[2]), value(5));
    tree.merge(&hole, blocks);
    let found: Vec<bool> = far.iter().map(|lba| tree.get(*lba).is_some()).collect();
    assert_eq!(found, [true, false, true, false]);
    // And with the disk cut to its first block and grown again.
    tree.merge(&Overlay::default(), 1);
    tree.merge(&hole, blocks);
    let found: Vec<bool> = far.iter().map(|lba| tree.get(*lba).is_some()).collect();
    assert_eq!(found, [false, false, true, false]);
}

/// What pages of the first levels hold: where so many blocks end a map gets another page, or another level.
const BORDERS: [u64; 4] = [1, 64, 64 * 64, 64 * 64 * 64];
/// Beyond the largest of them.
const SIZE_MAX: u64 = 2 * 64 * 64 * 64;

/// A number below `most`: in half the cases a border of pages, a few of them in a row, or one beside.
fn near_a_border(most: u64) -> impl Strategy<Value = u64> {
    let border = (0..BORDERS.len(), 1..4u64, 0..3u64)
        .prop_map(move |(page, times, beside)| (BORDERS[page] * times + beside - 1).min(most - 1));
    prop_oneof![border, 0..most]
}

/// All that lies at a border, and beside.
fn beside_borders() -> impl Iterator<Item = u64> {
    let borders = BORDERS.into_iter().flat_map(|page| [page, 2 * page, 3 * page]);
    borders.flat_map(|border| [border - 1, border, border + 1])
}

#[derive(Debug, Clone)]
enum Op {
    Put(u64, u64),
    Punch(u64, u64),
    Merge,
    Resize(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (near_a_border(SIZE_MAX), any::<u64>()).prop_map(|(lba, v)| Op::Put(lba, v % 5000)),
        2 => (near_a_border(SIZE_MAX), near_a_border(SIZE_MAX)).prop_map(|(lba, n)| Op::Punch(lba, n)),
        1 => Just(Op::Merge),
        1 => near_a_border(SIZE_MAX).prop_map(|size| Op::Resize(size.max(1))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn tree_and_overlay_agree_with_a_plain_map(ops in proptest::collection::vec(op(), 1..120)) {
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut tree, mut overlay, mut size) = (Tree::new(), Overlay::default(), SIZE_MAX);
        let mut written = BTreeSet::new();
        for op in ops {
            match op {
                Op::Put(lba, v) if lba < size => {
                    model.insert(lba, v);
                    written.insert(lba);
                    overlay.put(Lba(lba), value(v));
                }
                Op::Put(..) => {}
                Op::Punch(lba, n) => {
                    model.retain(|at, _| !(lba..lba + n).contains(at));
                    overlay.punch(Lba(lba), n);
                }
                Op::Merge => {
                    tree.merge(&overlay, size);
                    overlay = Overlay::default();
                }
                Op::Resize(to) => {
                    model.retain(|at, _| *at < to);
                    overlay.punch(Lba(to), u64::MAX - to);
                    size = to;
                }
            }
        }
        tree.merge(&overlay, size);
        // Beyond the end too: what a disk that grew asks its tree for.
        for lba in written.into_iter().chain(beside_borders()) {
            let want = model.get(&lba).map(|v| value(*v));
            prop_assert_eq!(tree.get(lba), want, "lba {}", lba);
        }
        prop_assert_eq!(tree.root.map_or(0, |root| root.blocks), model.len() as u64);
        let found = block_on(extents(&tree.store, tree.root.as_ref(), 0, size, usize::MAX)).expect("extents");
        let mapped: u64 = found.iter().filter(|e| e.mapped).map(|e| e.end - e.start).sum();
        prop_assert_eq!(mapped, model.len() as u64);
        prop_assert_eq!(found.last().map(|e| e.end), Some(size));
        // Canonical: the same contents written at once give the same root name.
        let mut fresh = Tree::new();
        let mut all = Overlay::default();
        for (lba, v) in &model {
            all.put(Lba(*lba), value(*v));
        }
        fresh.merge(&all, size);
        prop_assert_eq!(fresh.root.map(|r| (r.level, r.fingerprint)), tree.root.map(|r| (r.level, r.fingerprint)));
    }
}
