//! Goal: a chunk whose stamp stayed is of the same bytes, whatever came and went around it; the same entries
//! are cut in the same places; a change costs its own chunk and the one before, and no other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::format::encode_entries;
use crate::key::KeyRange;
use crate::state::{Attachment, Put, Record, State};
use crate::store::LeaseId;

fn key(number: usize) -> Key {
    Key::new(format!("key{number:04}").into_bytes()).expect("a short key")
}

fn bounds(chunks: &Chunks) -> Vec<&[u8]> {
    chunks.iter().map(|(bound, _)| bound).collect()
}

/// Large values are alone; a value that becomes small joins its neighbours; and whoever restores cuts the
/// same.
#[test]
fn a_large_value_begins_a_chunk() {
    let sizes = |number: usize| if number % 10 == 3 { LARGE_BYTES } else { LARGE_BYTES - 1 };
    let mut grown = Chunks::default();
    (0..500).rev().for_each(|number| grown.put(&key(number), 0));
    (0..500).for_each(|number| grown.put(&key(number), sizes(number)));
    let mut restored = Chunks { keys: 1, ..Chunks::default() };
    let keys: Vec<Key> = (0..500).map(key).collect();
    let entries = keys.iter().enumerate().map(|(number, key)| (key, sizes(number)));
    restored.cut_anew(KEYS_PER_CHUNK, entries);
    assert_eq!(bounds(&grown), bounds(&restored));
    assert!((0..50).all(|number| grown.stamps.contains_key(key(10 * number + 3).as_bytes())));

    let stamp = |chunks: &Chunks, bound: &Key| chunks.stamps.get(bound.as_bytes()).copied();
    let (changed, next) = (key(13), key(23));
    let (before, beside) = (stamp(&grown, &changed), stamp(&grown, &next));
    grown.put(&changed, LARGE_BYTES + 7);
    assert_ne!(stamp(&grown, &changed), before);
    assert_eq!(stamp(&grown, &next), beside, "another value costs nothing");

    (0..500).for_each(|number| grown.put(&key(number), 0));
    let mut small = Chunks { keys: 1, ..Chunks::default() };
    small.cut_anew(KEYS_PER_CHUNK, keys.iter().map(|key| (key, 0)));
    assert_eq!(bounds(&grown), bounds(&small));
}

/// A change of the map, as a record makes it. Keys are of few numbers, so that bounds come and go and come
/// back.
#[derive(Debug, Clone)]
enum Change {
    /// A value of so many bytes, and the lease it is attached to.
    Put(usize, usize, Option<u8>),
    Delete(usize),
    /// So many keys from one on.
    DeleteRange(usize, usize),
}

const KEYS: usize = 40;

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![Just(0), 1..9usize, LARGE_BYTES - 1..LARGE_BYTES + 2];
    prop_oneof![
        6 => (0..KEYS, bytes, proptest::option::of(0..3u8)).prop_map(|(at, bytes, lease)| Change::Put(at, bytes, lease)),
        3 => (0..KEYS).prop_map(Change::Delete),
        1 => (0..KEYS, 0..KEYS / 4).prop_map(|(at, count)| Change::DeleteRange(at, count)),
    ]
}

/// Leases are of 10 s more each, in a record of a journal that is read back too.
fn record(state: &State, change: &Change, fill: u8) -> Record {
    let lease = |number: u8| Attachment {
        id: LeaseId(1 + u64::from(number)),
        ttl: Duration::from_secs(10 + 10 * u64::from(number)),
    };
    let (mut puts, mut deletes) = (Vec::new(), Vec::new());
    match *change {
        Change::Put(at, bytes, attached) => {
            puts.push(Put { key: key(at), value: Arc::from(vec![fill; bytes]), lease: attached.map(lease) });
        }
        Change::Delete(at) => deletes.push(KeyRange::one(&key(at))),
        Change::DeleteRange(at, count) => {
            let end = key(at + count).as_bytes().to_vec();
            deletes.push(KeyRange::new(key(at).as_bytes().to_vec(), Some(end)));
        }
    }
    Record { revision: state.revision().next(), puts, deletes }
}

/// A chunk: its bound, stamp and encoded entries.
type Cut = (Box<[u8]>, u64, Vec<u8>);

fn chunks(state: &State) -> Vec<Cut> {
    let bounds: Vec<(Box<[u8]>, u64)> = state.chunks().map(|(bound, stamp)| (bound.into(), stamp)).collect();
    let chunk = |at: usize| {
        let ((bound, stamp), behind) = (&bounds[at], bounds.get(at + 1).map(|(bound, _)| &**bound));
        let entries: Vec<_> =
            state.entries_in(bound, behind).map(|(kv, lease)| (kv.clone(), lease)).collect();
        (bound.clone(), *stamp, encode_entries(Vec::new(), &entries))
    };
    (0..bounds.len()).map(chunk).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn a_chunk_whose_stamp_stayed_is_of_the_same_bytes(
        keys_per_chunk in 1..7u64, changes in proptest::collection::vec(change(), 1..80),
    ) {
        let mut state = State::empty(1000, 1 << 20);
        state.cut_into(keys_per_chunk);
        // Of every chunk that ever was: a stamp never comes back with other bytes.
        let mut seen: BTreeMap<(Box<[u8]>, u64), Vec<u8>> = BTreeMap::new();
        for (round, change) in changes.iter().enumerate() {
            let record = record(&state, change, round as u8);
            if !state.changes(&record) {
                continue;
            }
            state.apply(record);
            let now = chunks(&state);
            let mut changed = 0;
            for (bound, stamp, bytes) in &now {
                match seen.get(&(bound.clone(), *stamp)) {
                    Some(known) => prop_assert_eq!(known, bytes, "round {}: chunk {:?} stamp {}", round, bound, stamp),
                    None => changed += 1,
                }
                seen.insert((bound.clone(), *stamp), bytes.clone());
            }
            if !matches!(change, Change::DeleteRange(..)) {
                prop_assert!(changed <= 2, "round {}: {} chunks changed", round, changed);
            }
            let all: Vec<_> = state.entries().map(|(kv, lease)| (kv.clone(), lease)).collect();
            let together: Vec<u8> = now.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
            prop_assert_eq!(together, encode_entries(Vec::new(), &all), "round {}", round);
            let mut anew = Chunks { keys: keys_per_chunk + 1, ..Chunks::default() };
            anew.cut_anew(keys_per_chunk, all.iter().map(|(kv, _)| (&kv.key, kv.value.len())));
            let cut: BTreeSet<&[u8]> = now.iter().map(|(bound, _, _)| &**bound).collect();
            prop_assert_eq!(cut, bounds(&anew).into_iter().collect::<BTreeSet<_>>(), "round {}", round);
        }
    }
}
