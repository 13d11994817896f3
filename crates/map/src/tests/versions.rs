//! Goal: versions of a map: each keeps its contents, whether merged one by one or in one go, and the difference of any
//! two is exact.

use super::*;

/// What a version adds to the one before it: holes (start, count), blocks (lba, value).
type Change = (Vec<(u64, u64)>, Vec<(u64, u64)>);

fn layers() -> impl Strategy<Value = Vec<Change>> {
    let puts = proptest::collection::vec((near_a_border(5000), 0..40u64), 0..60);
    let holes = proptest::collection::vec((near_a_border(5000), near_a_border(5000)), 0..3);
    proptest::collection::vec((holes, puts), 1..7)
}

/// Sizes that most of the blocks fit, and those of small trees.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![2 => 3000..6000u64, 1 => near_a_border(6000).prop_map(|size| size.max(1))]
}

fn overlay(holes: &[(u64, u64)], puts: &[(u64, u64)], model: &mut BTreeMap<u64, u64>) -> Overlay {
    let mut overlay = Overlay::default();
    for (lba, count) in holes {
        overlay.punch(Lba(*lba), *count);
        model.retain(|at, _| !(*lba..lba + count).contains(at));
    }
    for (lba, v) in puts {
        overlay.put(Lba(*lba), value(*v));
        model.insert(*lba, *v);
    }
    overlay
}

/// What changed between two plain maps, block by block: whether it is there now.
fn changes(old: &BTreeMap<u64, u64>, new: &BTreeMap<u64, u64>, start: u64, end: u64) -> BTreeMap<u64, bool> {
    let lbas = old.keys().chain(new.keys()).copied().filter(|lba| (start..end).contains(lba));
    lbas.filter(|lba| old.get(lba) != new.get(lba)).map(|lba| (lba, new.contains_key(&lba))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn versions_keep_their_contents_and_differ_exactly(
        layers in layers(), sizes in proptest::collection::vec(size(), 7),
        window in (near_a_border(5000), near_a_border(5000)),
    ) {
        let mut model = BTreeMap::new();
        let (mut tree, mut step) = (Tree::new(), Tree::new());
        let mut sink = tree.sink();
        let mut top: Top = None;
        let mut collapsed = Overlay::default();
        let mut versions: Vec<(Option<Root>, BTreeMap<u64, u64>)> = vec![(None, BTreeMap::new())];
        let mut last = 0;
        for ((holes, puts), size) in layers.iter().zip(&sizes) {
            let mut layer = overlay(holes, puts, &mut model);
            layer.punch(Lba(*size), u64::MAX - size);
            model.retain(|lba, _| lba < size);
            top = block_on(merge(&tree.store, &mut sink, top, &layer, *size)).expect("merges");
            step.merge(&layer, *size);
            collapsed.cover(&layer);
            let root = sink.root(top);
            let name = |root: Option<Root>| root.map(|root| (root.level, root.fingerprint));
            prop_assert_eq!(name(root), name(step.root), "in one go and one by one");
            versions.push((root, model.clone()));
            last = *size;
        }
        tree.next = sink.container + 1;
        let mut at_once = Tree::new();
        at_once.merge(&collapsed, last);
        let end = versions.last().and_then(|(root, _)| root.map(|r| (r.level, r.fingerprint)));
        prop_assert_eq!(at_once.root.map(|r| (r.level, r.fingerprint)), end, "layers laid over one another");
        let (start, end) = (window.0, window.0 + window.1);
        for (root, contents) in &versions {
            for lba in (0..5000).step_by(7).chain(beside_borders()) {
                let found = block_on(lookup(&tree.store, root.as_ref(), Lba(lba))).expect("looks up");
                prop_assert_eq!(found, contents.get(&lba).map(|v| value(*v)));
            }
            for (other, theirs) in &versions {
                let found = block_on(diff(&tree.store, root.as_ref(), other.as_ref(), start, end, usize::MAX));
                let found = found.expect("compares");
                let blocks = found.iter().flat_map(|e| (e.start..e.end).map(|lba| (lba, e.mapped)));
                prop_assert_eq!(blocks.collect::<BTreeMap<_, _>>(), changes(contents, theirs, start, end));
                let some = block_on(diff(&tree.store, root.as_ref(), other.as_ref(), start, end, 2)).expect("compares");
                prop_assert_eq!(&some[..], &found[..found.len().min(2)]);
            }
        }
    }
}

/// Loads pages and counts the times that neighbours were asked for together.
struct Fetching(Store, Mutex<(usize, Vec<Address>)>);

impl Pages for Fetching {
    type Error = MapFormatError;
    fn load<'a>(
        &'a self,
        level: u8,
        fp: Fingerprint,
        address: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<Page>, MapFormatError>> {
        assert!(self.1.lock().expect("lock").1.contains(address), "loaded alone");
        self.0.load(level, fp, address)
    }

    fn fetch<'a>(&'a self, _: u8, pages: &'a [(Fingerprint, Address)]) -> BoxFuture<'a, ()> {
        let mut told = self.1.lock().expect("lock");
        told.0 += 1;
        told.1.extend(pages.iter().map(|(_, address)| *address));
        Box::pin(async {})
    }
}

#[test]
fn a_diff_asks_for_neighbours_together() {
    let mut tree = Tree::new();
    let mut scattered = Overlay::default();
    (0..512).for_each(|i| {
        scattered.put(Lba(i << 18), value(i));
    });
    tree.merge(&scattered, 1 << 34);
    let pages = Fetching(tree.store.clone(), Mutex::default());
    let found = block_on(diff(&pages, None, tree.root.as_ref(), 0, u64::MAX, 1000)).expect("compares");
    assert_eq!(found.len(), 512);
    let (times, fetched) = pages.1.into_inner().expect("lock");
    // Three pages above each block have no other beneath them.
    assert!(fetched.len() > 3 * 512 && times < 30, "{} pages in {times} requests", fetched.len());
}

/// Loads pages and counts them.
struct Counting(Store, Mutex<usize>);

impl Pages for Counting {
    type Error = MapFormatError;
    fn load<'a>(
        &'a self,
        level: u8,
        fp: Fingerprint,
        address: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<Page>, MapFormatError>> {
        *self.1.lock().expect("lock") += 1;
        self.0.load(level, fp, address)
    }
}

#[test]
fn a_diff_reads_only_pages_that_differ() {
    let mut tree = Tree::new();
    let mut all = Overlay::default();
    (0..64 * 64 * 4).for_each(|i| {
        all.put(Lba(i), value(i));
    });
    tree.merge(&all, 1 << 20);
    let old = tree.root;
    let mut one = Overlay::default();
    one.put(Lba(5000), value(9999));
    tree.merge(&one, 1 << 20);
    let pages = Counting(tree.store.clone(), Mutex::new(0));
    let found = block_on(diff(&pages, old.as_ref(), tree.root.as_ref(), 0, u64::MAX, 10)).expect("compares");
    assert_eq!(found, [Extent { start: 5000, end: 5001, mapped: true }]);
    let height = usize::from(old.expect("blocks").level) + 1;
    assert_eq!(*pages.1.lock().expect("lock"), 2 * height);
}
