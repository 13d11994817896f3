//! Goal: whatever fails at whichever request, an acknowledged record is on a whole ensemble, and recovery from every
//! subset of media within tolerance gives exactly what was acknowledged, and at most the last batch more.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::CallErrorKind;
use seam::Rt;
use units::Seq;

use super::fake::*;
use crate::{JournalErrorKind, Record, recover};

/// What a run told its client.
struct Told {
    acked: BTreeMap<Seq, Record>,
    failed: Vec<Record>,
    witness: Option<proto::SegmentId>,
    covered: Seq,
    opened: bool,
}

/// Appends of all sizes, control records, a trim and a rotation, one after the other.
async fn script(rt: &Rt, media: &Arc<FakeMedia>) -> Told {
    let mut told =
        Told { acked: BTreeMap::new(), failed: Vec::new(), witness: None, covered: Seq(0), opened: false };
    let Ok(site) = Site::open(rt, media, None, Options::default()).await else { return told };
    told.opened = true;
    for n in 0..12u64 {
        let entries = match n {
            4 => (0..6).map(|i| write(100 + i, 3000)).collect(),
            8 => vec![hole(n), hole(n + 1), write(n, 4000)],
            _ => vec![write(n, 700 * n as usize + 1)],
        };
        let records: Vec<Record> = entries.iter().map(record).collect();
        match end(site.journal.append(entries)).await {
            Ok(end) => {
                let first = end.0 - records.len() as u64;
                told.acked.extend(records.into_iter().enumerate().map(|(i, r)| (Seq(first + i as u64), r)));
            }
            Err(_) => told.failed.extend(records),
        }
        if n == 6 {
            let _ = end(site.journal.rotate()).await;
        }
        if n == 9 {
            let covered = Seq(site.journal.next_seq().0.saturating_sub(3).max(1));
            if end(site.journal.append_control(vec![commit(1, covered)])).await.is_ok() {
                told.covered = covered;
                site.journal.trim(covered);
            }
        }
    }
    told.witness = site.witness();
    rt.sleep(std::time::Duration::from_secs(1)).await;
    told
}

async fn judge(media: &Arc<FakeMedia>, told: &Told, gone: usize, what: &str) {
    for here in subsets(&media.ids(), gone) {
        let recovered = recover(&**media, &here, &KEY, &by_last(told.witness)).await;
        let recovered = recovered.unwrap_or_else(|error| panic!("{what}, on {here:?}: {error}"));
        let Some(recovered) = recovered else {
            assert!(!told.opened && told.acked.is_empty(), "{what}: nothing was found on {here:?}");
            continue;
        };
        let mut found = data_of(&recovered);
        // A commit that was not acknowledged may be found; its container is whole all the same.
        let commits = recovered.records.iter().filter_map(|(_, record)| match record {
            Record::Commit(commit) => Some(commit.covered),
            _ => None,
        });
        let covered = commits.fold(told.covered, Seq::max);
        for (seq, record) in told.acked.range(covered..) {
            let have = found.remove(seq);
            assert_eq!(have.as_ref(), Some(record), "{what}: acknowledged seq {} on {here:?}", seq.0);
        }
        found.retain(|seq, _| *seq >= covered);
        let extra: Vec<&Record> = found.values().collect();
        assert!(extra.iter().all(|r| told.failed.contains(r)), "{what}: {extra:?} were never asked for");
    }
}

async fn requests_of_a_sound_run(rt: &Rt) -> u64 {
    let media = FakeMedia::new(5);
    let told = script(rt, &media).await;
    assert_eq!(told.acked.len(), 10 + 6 + 3);
    judge(&media, &told, 2, "no fault").await;
    media.with(|inner| inner.changes)
}

fn at_every_request(fault: Fault) {
    let total = run(0, async |rt| requests_of_a_sound_run(&rt).await);
    assert!(total > 40);
    for n in 0..total {
        run(n, async |rt| {
            let media = FakeMedia::new(5);
            media.fault_at(n, fault);
            let told = script(&rt, &media).await;
            let fenced = fault == Fault::Refused(CallErrorKind::Fenced);
            if fault != Fault::Crash && !fenced {
                assert!(told.opened && told.failed.is_empty(), "one fault at {n} is borne: {fault:?}");
            }
            judge(&media.restarted(), &told, 2, &format!("{fault:?} at {n}")).await;
        });
    }
}

#[test]
fn an_answer_that_is_lost() {
    at_every_request(Fault::Done(CallErrorKind::Unreachable));
}

#[test]
fn a_request_that_is_lost() {
    at_every_request(Fault::Refused(CallErrorKind::Unreachable));
}

#[test]
fn a_medium_that_fails_one_request() {
    at_every_request(Fault::Refused(CallErrorKind::Failed));
    at_every_request(Fault::Torn(CallErrorKind::Failed));
    at_every_request(Fault::Done(CallErrorKind::Failed));
}

#[test]
fn a_medium_without_room_or_without_sense() {
    at_every_request(Fault::Refused(CallErrorKind::NoSpace));
    at_every_request(Fault::Refused(CallErrorKind::NotFound));
    at_every_request(Fault::Torn(CallErrorKind::Corrupt));
    at_every_request(Fault::Refused(CallErrorKind::Invalid));
}

#[test]
fn a_medium_that_goes_and_stays_away() {
    at_every_request(Fault::Down);
}

#[test]
fn a_newer_incarnation() {
    at_every_request(Fault::Refused(CallErrorKind::Fenced));
}

#[test]
fn a_crash_of_the_writer() {
    at_every_request(Fault::Crash);
}

#[test]
fn two_media_that_go_at_different_times() {
    for n in (0..45).step_by(2) {
        for m in [1, 5, 9] {
            run(n, async |rt| {
                let media = FakeMedia::new(5);
                media.fault_at(n, Fault::Down);
                media.fault_at(n + m, Fault::Down);
                let told = script(&rt, &media).await;
                assert!(told.failed.is_empty(), "three media are left");
                judge(&media.restarted(), &told, 2, &format!("two down, {n} and {}", n + m)).await;
            });
        }
    }
}

#[test]
fn too_few_media_is_said_and_heals() {
    run(1, async |rt| {
        let media = FakeMedia::new(3);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        media.with(|inner| inner.media.values_mut().skip(1).for_each(|m| m.down = true));
        let error = end(site.journal.append(vec![hole(1)])).await.unwrap_err();
        assert_eq!(error.kind, JournalErrorKind::TooFewMedia);
        assert_eq!(site.durable().len(), 0);
        media.with(|inner| inner.media.values_mut().for_each(|m| m.down = false));
        site.pool.out.lock().unwrap().clear();
        assert_eq!(end(site.journal.append(vec![hole(2)])).await.unwrap(), Seq(2));
    });
}

#[test]
fn a_data_node_that_started_anew_is_no_failed_medium() {
    run(1, async |rt| {
        let media = FakeMedia::new(2);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        for n in 1..=4 {
            end(site.journal.append(vec![hole(n)])).await.unwrap();
            media.restart(medium(1 + (n % 2) as u8));
        }
        assert!(site.pool.out.lock().unwrap().is_empty());
        // Nor when it starts anew between the header of a segment and the start record.
        let behind_the_next_header = media.with(|inner| inner.changes + 4);
        media.fault_at(behind_the_next_header, Fault::Refused(CallErrorKind::Invalid));
        end(site.journal.append(vec![hole(5)])).await.unwrap();
        assert!(site.pool.out.lock().unwrap().is_empty());
        // One that makes no sense of anything is.
        let media = FakeMedia::new(3);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        media.with(|inner| inner.media.get_mut(&medium(3)).unwrap().senseless = true);
        end(site.journal.append(vec![hole(1)])).await.unwrap();
        assert_eq!(*site.pool.out.lock().unwrap(), [medium(3)].into());
    });
}

#[test]
fn no_slot_is_said_as_no_space() {
    run(1, async |rt| {
        let media = FakeMedia::new(3);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        media.with(|inner| inner.slots = 1);
        end(site.journal.append(vec![hole(1)])).await.unwrap();
        assert_eq!(end(site.journal.rotate()).await.unwrap_err().kind, JournalErrorKind::NoSpace);
        media.with(|inner| inner.slots = 2);
        end(site.journal.append(vec![hole(2)])).await.unwrap();
    });
}

/// Many writers at once: acknowledgements come in the order of the seqs.
#[test]
fn group_commit_keeps_order() {
    for seed in 0..30 {
        run(seed, async |rt| {
            let media = FakeMedia::new(5);
            media.fault_at(seed * 2, Fault::Down);
            let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
            let appends: Vec<_> = (0..60)
                .map(|n| match n % 7 {
                    0 => site.journal.append_control(vec![meta(n, 50), meta(n + 1, 60)]),
                    _ => site.journal.append(vec![write(n, (n as usize * 131) % 3000), hole(n)]),
                })
                .collect();
            let mut last = [Seq(0), Seq(0)];
            for (n, append) in appends.into_iter().enumerate() {
                let seq = end(append).await.unwrap();
                let queue = usize::from(n % 7 == 0);
                assert!(seq > last[queue]);
                last[queue] = seq;
            }
            assert_eq!(site.durable().len(), 120);
        });
    }
}
