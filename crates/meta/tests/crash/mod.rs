//! Random transactions, a checkpoint at a random point, a crash: the rebuilt store equals one that never stopped,
//! and both equal a plain map that is told the same.

use std::collections::BTreeMap;
use std::time::Duration;

use meta::{Compare, Embedded, Key, KeyRange, LeaseId, Op, Options, Store, Txn};
use proptest::prelude::*;

use crate::Journal;
use crate::clock::virtually;

#[derive(Clone, Debug)]
enum Step {
    /// Puts these (key, value, leased) and deletes this range when key `0` is present as told.
    Txn {
        if_present: Option<(u8, bool)>,
        puts: BTreeMap<u8, (u8, bool)>,
        delete: Option<(u8, u8)>,
    },
    Revoke,
}

fn step() -> impl Strategy<Value = Step> {
    let puts = proptest::collection::btree_map(0..12_u8, (any::<u8>(), any::<bool>()), 0..4);
    let delete = proptest::option::of((0..12_u8, 0..12_u8));
    let txn = (proptest::option::of((0..12_u8, any::<bool>())), puts, delete)
        .prop_map(|(if_present, puts, delete)| Step::Txn { if_present, puts, delete });
    prop_oneof![9 => txn, 1 => Just(Step::Revoke)]
}

fn key(number: u8) -> Key {
    Key::new([b'k', number]).unwrap()
}

/// Value and whether it is leased.
type Model = BTreeMap<u8, (u8, bool)>;

async fn take(store: &Embedded, model: &mut Model, lease: &mut LeaseId, step: &Step) {
    let Step::Txn { if_present, puts, delete } = step else {
        store.revoke(*lease).await.unwrap();
        model.retain(|_, (_, leased)| !*leased);
        *lease = store.grant(Duration::from_secs(3600)).await.unwrap().id;
        return;
    };
    let mut txn = Txn::new();
    let mut expected = true;
    if let Some((number, present)) = if_present {
        expected = model.contains_key(number) == *present;
        txn = txn.when(if *present { Compare::present(key(*number)) } else { Compare::absent(key(*number)) });
    }
    let deleted = |number: &u8| delete.is_some_and(|(from, to)| (from..to).contains(number));
    if let Some((from, to)) = delete {
        txn = txn.then(Op::Delete(KeyRange::new([b'k', *from], Some(vec![b'k', *to]))));
    }
    for (number, (value, leased)) in puts.iter().filter(|(number, _)| !deleted(number)) {
        txn =
            txn.then(Op::Put { key: key(*number), value: [*value].into(), lease: leased.then_some(*lease) });
    }
    assert_eq!(store.txn(txn).await.unwrap().succeeded, expected);
    if expected {
        model.retain(|number, _| !deleted(number));
        model.extend(puts.iter().filter(|(number, _)| !deleted(number)).map(|(n, put)| (*n, *put)));
    }
}

async fn shown(store: &Embedded) -> Model {
    let page = store.range(KeyRange::all(), 1000, None).await.unwrap();
    page.kvs.iter().map(|kv| (kv.key.as_bytes()[1], (kv.value[0], kv.lease.is_some()))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn checkpoint_and_replay_equal_never_crashing(
        steps in proptest::collection::vec(step(), 1..40),
        cut in any::<proptest::sample::Index>(),
        kept in any::<proptest::sample::Index>(),
    ) {
        virtually(async |rt| {
            let journal = Journal::new(rt.clone());
            let restore = |checkpoint: Option<&[u8]>, records: &[Vec<u8>]| {
                Embedded::restore(rt.clone(), journal.clone(), Options::default(), checkpoint, records)
            };
            let store = restore(None, &[]).unwrap();
            let mut lease = store.grant(Duration::from_secs(3600)).await.unwrap().id;
            let mut model = Model::new();
            let mut checkpoint = store.checkpoint();
            let mut covered = 0;
            for (at, step) in steps.iter().enumerate() {
                take(&store, &mut model, &mut lease, step).await;
                if at == cut.index(steps.len()) {
                    checkpoint = store.checkpoint();
                    covered = journal.records().len();
                }
            }
            assert_eq!(shown(&store).await, model);
            let never_crashed = store.checkpoint();
            drop(store);
            // The journal may be trimmed anywhere up to the checkpoint.
            let records = journal.records();
            let trimmed = kept.index(covered + 1);
            let rebuilt = restore(Some(&checkpoint.bytes), &records[trimmed..]).unwrap();
            assert_eq!(rebuilt.checkpoint(), never_crashed);
            assert_eq!(shown(&rebuilt).await, model);
            assert_eq!(restore(None, &records).unwrap().checkpoint(), never_crashed);
            // Trimmed too far: the rebuild says so, it does not guess.
            if records.len() > covered + 1 {
                assert!(restore(Some(&checkpoint.bytes), &records[covered + 1..]).is_err());
            }
            // The rebuilt store goes on where the other stood.
            let next = rebuilt.txn(Txn::new().then(Op::put(key(99), *b"x"))).await.unwrap().revision;
            assert_eq!(next, never_crashed.revision.next());
        });
    }
}
