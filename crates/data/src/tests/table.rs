//! Goal: the allocator never gives a byte twice and loses none; what it is told twice, or late, changes nothing.

use std::collections::BTreeMap;

use container::header_bytes;
use proptest::prelude::*;
use units::PAGE;

use super::common::container;
use crate::table::{Change, Extent, FragmentKey, Table, TablePlace};

const START: u64 = 1 << 20;
const PAGES: u64 = 200;
const END: u64 = START + PAGES * PAGE as u64;

#[derive(Debug, Clone)]
enum Step {
    Add(u32, u32),
    Replace(u32, u32),
    Free(u32),
    /// An add that fails half-way: its change is in the log, its extent is given back.
    Fail(u32, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pages = 1..12u32;
    let step = prop_oneof![
        4 => (0..30u32, pages.clone()).prop_map(|(key, pages)| Step::Add(key, pages)),
        1 => (0..30u32, pages.clone()).prop_map(|(key, pages)| Step::Replace(key, pages)),
        3 => (0..30u32).prop_map(Step::Free),
        1 => (0..30u32, pages).prop_map(|(key, pages)| Step::Fail(key, pages)),
    ];
    proptest::collection::vec(step, 0..120)
}

fn key(n: u32) -> FragmentKey {
    (container(n), 0)
}

/// Page by page, who holds it.
#[derive(Default)]
struct Model {
    pages: BTreeMap<u64, FragmentKey>,
    extents: BTreeMap<FragmentKey, Extent>,
}

impl Model {
    fn take(&mut self, key: FragmentKey, extent: Extent) {
        assert!(extent.offset >= START && extent.offset + extent.bytes() <= END, "outside: {extent:?}");
        for page in (extent.offset..extent.offset + extent.bytes()).step_by(PAGE) {
            assert_eq!(self.pages.insert(page, key), None, "page {page} is given twice");
        }
        self.extents.insert(key, extent);
    }

    fn give(&mut self, extent: Extent) {
        for page in (extent.offset..extent.offset + extent.bytes()).step_by(PAGE) {
            assert!(self.pages.remove(&page).is_some());
        }
    }

    fn longest_free(&self) -> u64 {
        let (mut run, mut longest) = (0, 0);
        for page in (START..END).step_by(PAGE) {
            run = if self.pages.contains_key(&page) { 0 } else { run + PAGE as u64 };
            longest = longest.max(run);
        }
        longest
    }

    fn agrees(&self, table: &Table) {
        assert_eq!(table.free_bytes(), (PAGES - self.pages.len() as u64) * PAGE as u64);
        let listed = table.list(None, 1000);
        assert_eq!(listed, self.extents.keys().copied().collect::<Vec<_>>());
        for (key, extent) in &self.extents {
            assert_eq!(table.get(key), Some(*extent));
        }
    }
}

/// Runs `steps`; gives table, model and the changes in the order of the log.
fn play(steps: &[Step]) -> (Table, Model, Vec<Change>) {
    let mut table = Table::new(START, END, 1000);
    let mut model = Model::default();
    let mut log = Vec::new();
    for step in steps {
        match *step {
            Step::Add(n, pages) | Step::Replace(n, pages) | Step::Fail(n, pages) => {
                let key = key(n);
                let replaces = table.get(&key).is_some();
                if replaces != matches!(step, Step::Replace(..)) {
                    continue;
                }
                let payload = pages * PAGE as u32;
                let need = (header_bytes(payload as usize) + payload as usize) as u64;
                let Some(extent) = table.allocate(payload) else {
                    assert!(model.longest_free() < need, "there was room for {need}");
                    continue;
                };
                assert_eq!(extent.bytes(), need);
                log.push(Change::Add(key, extent));
                let older = table.insert(key, extent);
                if matches!(step, Step::Fail(..)) {
                    table.remove(&key);
                    table.release(extent);
                    continue;
                }
                model.take(key, extent);
                if let Some(older) = older {
                    table.release(older);
                    model.give(older);
                }
            }
            Step::Free(n) => {
                let Some(extent) = table.get(&key(n)) else { continue };
                table.remove(&key(n));
                log.push(Change::Free(key(n), extent));
                table.release(extent);
                model.give(extent);
                model.extents.remove(&key(n));
            }
        }
        model.agrees(&table);
    }
    (table, model, log)
}

/// Extents of a table read from the medium: they may not overlap.
fn assert_apart(table: &Table) {
    let mut model = Model::default();
    for key in table.list(None, 1000) {
        model.take(key, table.get(&key).unwrap());
    }
    model.agrees(table);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_page_is_given_twice_or_lost(steps in steps()) {
        play(&steps);
    }

    /// A stored table and the log behind it, from any point, from before that point too, gives the table again; adds
    /// that failed may be there besides.
    #[test]
    fn table_and_log_give_the_table(steps in steps(), cut in 0..120usize, overlap in 0..20usize) {
        let (_, model, log) = play(&steps);
        let cut = cut.min(log.len());
        let mut early = Table::new(START, END, 1000);
        log[..cut].iter().for_each(|change| early.apply(*change));
        let stored = early.encode(cut as u64);
        let place = TablePlace::peek(stored.as_ref(), 1000).unwrap();
        prop_assert_eq!(place.number, cut as u64);
        let mut table = Table::new(START, END, 1000);
        prop_assert!(table.load(stored.as_ref(), place).is_some());
        log[cut.saturating_sub(overlap)..].iter().for_each(|change| table.apply(*change));
        assert_apart(&table);
        for (key, extent) in &model.extents {
            prop_assert_eq!(table.get(key), Some(*extent));
        }
    }

    /// Pages of the log that are lost cost the fragments they name, never an overlap.
    #[test]
    fn a_log_with_holes_gives_no_overlap(steps in steps(), lost in proptest::collection::vec(any::<bool>(), 120)) {
        let (_, _, log) = play(&steps);
        let mut table = Table::new(START, END, 1000);
        for (change, lost) in log.iter().zip(&lost) {
            if !lost {
                table.apply(*change);
            }
        }
        assert_apart(&table);
    }

    /// Headers are found in order of place, not of time: the newest of those that overlap stays.
    #[test]
    fn headers_in_order_of_place_keep_every_live_fragment(steps in steps()) {
        let (_, model, log) = play(&steps);
        let mut headers: Vec<(FragmentKey, Extent)> = log
            .iter()
            .filter_map(|change| match change {
                Change::Add(key, extent) => Some((*key, *extent)),
                Change::Free(..) | Change::Lock(..) => None,
            })
            .collect();
        headers.sort_by_key(|(_, extent)| (extent.offset, extent.allocation));
        let mut table = Table::new(START, END, 1000);
        headers.iter().for_each(|(key, extent)| table.apply(Change::Add(*key, *extent)));
        assert_apart(&table);
        for (key, extent) in &model.extents {
            prop_assert_eq!(table.get(key), Some(*extent));
        }
        // And the log over it frees what was freed.
        log.iter().for_each(|change| table.apply(*change));
        assert_apart(&table);
        for (key, extent) in &model.extents {
            prop_assert_eq!(table.get(key), Some(*extent));
        }
    }
}

/// At the limit a log replayed over a table may replace, but not grow.
#[test]
fn the_limit_of_entries_bounds_the_table_and_spares_replacements() {
    let extent = |page: u64, allocation| Extent {
        offset: START + page * PAGE as u64,
        payload: PAGE as u32,
        allocation,
    };
    let mut table = Table::new(START, END, 2);
    table.apply(Change::Add(key(1), extent(0, 1)));
    table.apply(Change::Add(key(2), extent(10, 2)));
    table.apply(Change::Add(key(3), extent(20, 3)));
    assert_eq!(table.list(None, 9).len(), 2);
    table.apply(Change::Add(key(1), extent(30, 4)));
    assert_eq!(table.get(&key(1)), Some(extent(30, 4)));
    table.apply(Change::Add(key(4), extent(9, 5)));
    assert_eq!((table.get(&key(2)), table.get(&key(4))), (None, Some(extent(9, 5))));
    assert_apart(&table);
}

#[test]
fn a_list_does_not_part_the_fragments_of_a_container() {
    let mut table = Table::new(START, END, 100);
    for n in 0..4 {
        for index in 0..3 {
            let extent = table.allocate(PAGE as u32).unwrap();
            table.insert((container(n), index), extent);
        }
    }
    for limit in 1..8 {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let keys = table.list(after, limit);
            let Some(last) = keys.last() else { break };
            after = Some(last.0);
            seen.extend(keys);
        }
        assert_eq!(seen.len(), 12, "limit {limit}");
    }
}
