//! Goal: a stream takes over what the one before left, whatever is lost between; nothing uncovered is ever trimmed.

use std::collections::BTreeMap;
use std::sync::Arc;

use seam::Rt;
use units::Seq;

use super::fake::*;
use crate::{Entry, Record, recover};

fn records(entries: &BTreeMap<Seq, Entry>) -> BTreeMap<Seq, Record> {
    entries.iter().map(|(seq, e)| (*seq, record(e))).filter(|(_, r)| is_data(r)).collect()
}

/// A segment trimmed after the newest start was written is not missed.
#[test]
fn a_trim_behind_the_newest_start_does_not_stop_recovery() {
    run(1, async |rt| {
        let media = FakeMedia::new(4);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        for n in 0..40 {
            end(site.journal.append(vec![write(n, 3000)])).await.unwrap();
        }
        let covered = Seq(35);
        end(site.journal.append_control(vec![commit(1, covered)])).await.unwrap();
        let before = media.with(|inner| inner.media[&medium(1)].segments.len());
        site.journal.trim(covered);
        rt.sleep(std::time::Duration::from_secs(1)).await;
        assert!(media.with(|inner| inner.media[&medium(1)].segments.len()) < before, "segments went");
        for here in subsets(&media.ids(), 2) {
            let recovered = recover(&*media, &here, &KEY, &by_last(site.witness())).await.unwrap().unwrap();
            let mut expected = records(&site.durable());
            expected.retain(|seq, _| *seq >= covered);
            let mut found = data_of(&recovered);
            found.retain(|seq, _| *seq >= covered);
            assert_eq!(found, expected);
            assert_eq!(recovered.next_seq, Seq(42));
        }
    });
}

/// The last batch reached one medium only. It is found, taken over, and must then bear the loss of that medium.
#[test]
fn a_batch_on_one_medium_is_durable_once_a_new_stream_is_open() {
    for crash_at in 0..3 {
        run(2, async |rt| {
            let media = FakeMedia::new(5);
            let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
            end(site.journal.append(vec![write(0, 1000)])).await.unwrap();
            let n = media.with(|inner| inner.changes);
            media.fault_at(n + crash_at, Fault::Crash);
            assert!(end(site.journal.append(vec![write(1, 1000), meta(3, 10)])).await.is_err());
            let (mut media, mut witness) = (media.restarted(), site.witness());
            let mut expected = None;
            // The start that carries the batch along may be all a stream ever writes, several times over.
            for epoch in 2..6 {
                let recovered =
                    recover(&*media, &media.ids(), &KEY, &by_last(witness)).await.unwrap().unwrap();
                let found = data_of(&recovered);
                assert_eq!(found.len(), 1 + usize::from(crash_at > 0));
                assert_eq!(*expected.get_or_insert(found.clone()), found);
                assert_eq!(recovered.next_seq, Seq(if crash_at > 0 { 4 } else { 2 }));
                let options = Options { epoch, ..Options::default() };
                let next = Site::open(&rt, &media, Some(&recovered), options).await.unwrap();
                witness = next.witness();
                for here in subsets(&media.ids(), 2) {
                    let again = recover(&*media, &here, &KEY, &by_last(witness)).await.unwrap().unwrap();
                    assert_eq!(data_of(&again), found, "epoch {epoch} on {here:?}");
                    assert_eq!(again.next_seq, recovered.next_seq);
                }
                media = media.restarted();
            }
        });
    }
}

async fn crash_and_recover(
    rt: &Rt,
    media: Arc<FakeMedia>,
    crash_at: u64,
    epoch: u64,
    told: &mut BTreeMap<Seq, Record>,
    witness: Option<proto::SegmentId>,
) -> (Arc<FakeMedia>, Option<proto::SegmentId>) {
    let ids = media.ids();
    let recovered = recover(&*media, &ids, &KEY, &by_last(witness)).await.unwrap();
    if let Some(recovered) = &recovered {
        let found = data_of(recovered);
        for (seq, record) in &*told {
            assert_eq!(found.get(seq), Some(record), "acknowledged seq {} is there", seq.0);
        }
        assert!(found.len() <= told.len() + 3, "only the last batch may be there without an acknowledgement");
        *told = found;
    }
    media.fault_at(crash_at, Fault::Crash);
    let options = Options { epoch, segments_max: 40, ..Options::default() };
    let mut witness = witness;
    if let Ok(site) = Site::open(rt, &media, recovered.as_ref(), options).await {
        for n in 0..8 {
            let append = site.journal.append(vec![write(epoch * 100 + n, 2500), hole(n), hole(n + 1)]);
            if end(append).await.is_err() {
                break;
            }
            if n == 5 {
                let _ = end(site.journal.rotate()).await;
            }
        }
        told.extend(records(&site.durable()));
        witness = site.witness();
    }
    (media.restarted(), witness)
}

/// Crashes at every request of a stream that took over from a crashed one that took over.
#[test]
fn crash_after_crash_keeps_every_acknowledged_write() {
    for first in (0..50).step_by(3) {
        for second in 0..40 {
            run(first * 100 + second, async |rt| {
                let mut told = BTreeMap::new();
                let media = FakeMedia::new(5);
                let (media, witness) = crash_and_recover(&rt, media, first, 1, &mut told, None).await;
                let (media, witness) = crash_and_recover(&rt, media, second, 2, &mut told, witness).await;
                let (media, witness) = crash_and_recover(&rt, media, 7, 3, &mut told, witness).await;
                let whole = recover(&*media, &media.ids(), &KEY, &by_last(witness)).await.unwrap();
                for here in subsets(&media.ids(), 2) {
                    let recovered = recover(&*media, &here, &KEY, &by_last(witness)).await.unwrap();
                    let found = recovered.as_ref().map(data_of).unwrap_or_default();
                    let all = whole.as_ref().map(data_of).unwrap_or_default();
                    assert!(all.len() <= found.len() + 3);
                    for (seq, record) in &told {
                        assert_eq!(found.get(seq), Some(record));
                    }
                }
            });
        }
    }
}

#[test]
fn what_was_not_acknowledged_is_not_resurrected_by_a_medium_that_returns() {
    run(3, async |rt| {
        let media = FakeMedia::new(5);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        end(site.journal.append(vec![write(0, 100)])).await.unwrap();
        let n = media.with(|inner| inner.changes);
        media.fault_at(n + 1, Fault::Crash);
        assert!(end(site.journal.append(vec![write(1, 100)])).await.is_err());
        let (media, witness) = (media.restarted(), site.witness());
        let all = media.ids();
        let holder = |m: &units::MediumId| {
            media.with(|inner| {
                inner.media[m]
                    .segments
                    .values()
                    .any(|bytes| bytes.windows(4).filter(|w| w == b"HFJB").count() == 3)
            })
        };
        let here: Vec<_> = all.iter().filter(|id| !holder(id)).copied().collect();
        assert_eq!(here.len(), 4, "one medium has the batch that was not acknowledged");
        let recovered = recover(&*media, &here, &KEY, &by_last(witness)).await.unwrap().unwrap();
        assert_eq!(recovered.next_seq, Seq(2));
        let options = Options { epoch: 2, ..Options::default() };
        let next = Site::open(&rt, &media, Some(&recovered), options).await.unwrap();
        end(next.journal.append(vec![write(9, 100)])).await.unwrap();
        let again = recover(&*media, &all, &KEY, &by_last(next.witness())).await.unwrap().unwrap();
        let lbas: Vec<u64> = again
            .records
            .iter()
            .filter_map(|(_, r)| match r {
                Record::Write { lba, .. } => Some(lba.0),
                _ => None,
            })
            .collect();
        assert_eq!(lbas, [0, 9]);
    });
}

/// Trims at every seq, at random, never drop a record that is not covered.
#[test]
fn trim_never_drops_what_is_not_covered() {
    for seed in 0..40u64 {
        run(seed, async |rt| {
            let media = FakeMedia::new(4);
            let options = Options { segments_max: 30, ..Options::default() };
            let site = Site::open(&rt, &media, None, options).await.unwrap();
            let mut covered = Seq(1);
            for step in 0..30 {
                let n = seed * 100 + step;
                end(site.journal.append(vec![write(n, 500 + (n as usize * 37) % 6000)])).await.unwrap();
                match seam::random_u64(&*rt) % 5 {
                    0 => drop(end(site.journal.rotate()).await.unwrap()),
                    1 => {
                        let room = site.journal.next_seq().0 - covered.0;
                        covered = covered.plus(seam::random_u64(&*rt) % (room + 1));
                        end(site.journal.append_control(vec![commit(step, covered)])).await.unwrap();
                        site.journal.trim(covered);
                    }
                    _ => {}
                }
                let here = &subsets(&media.ids(), 2)[(n % 11) as usize];
                let recovered =
                    recover(&*media, here, &KEY, &by_last(site.witness())).await.unwrap().unwrap();
                let mut expected = records(&site.durable());
                expected.retain(|seq, _| *seq >= covered);
                let mut found = data_of(&recovered);
                found.retain(|seq, _| *seq >= covered);
                assert_eq!(found, expected);
            }
        });
    }
}

#[test]
fn used_percent_counts_live_segments() {
    run(4, async |rt| {
        let media = FakeMedia::new(3);
        let options = Options { segments_max: 10, ..Options::default() };
        let site = Site::open(&rt, &media, None, options).await.unwrap();
        assert_eq!(site.journal.used_percent(), 10);
        for n in 1..=3 {
            end(site.journal.append(vec![hole(n)])).await.unwrap();
            end(site.journal.rotate()).await.unwrap();
            assert_eq!(site.journal.used_percent(), 10 + 10 * n as usize);
        }
        end(site.journal.rotate()).await.unwrap();
        assert_eq!(site.journal.used_percent(), 40, "a segment without records is replaced");
        site.journal.trim(site.journal.next_seq());
        assert_eq!(site.journal.used_percent(), 10);
    });
}
