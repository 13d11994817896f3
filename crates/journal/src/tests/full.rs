//! Goal: a full journal lets through what makes room and nothing else; close and fencing leave nobody waiting.

use std::time::Duration;

use proto::CallErrorKind;

use super::fake::*;
use crate::JournalErrorKind;

const MILLISECOND: Duration = Duration::from_millis(1);

fn live(site: &Site) -> usize {
    site.journal.used_percent() * 8 / 100
}

/// Appends writes until one waits.
async fn fill(rt: &seam::Rt, site: &Site) -> (u64, crate::Append) {
    for n in 0.. {
        let mut append = site.journal.append(vec![write(n, 4000)]);
        if waits(rt, &mut append).await {
            return (n, append);
        }
    }
    unreachable!()
}

#[test]
fn writes_wait_and_control_goes_on_when_the_journal_is_full() {
    run(1, async |rt| {
        let media = FakeMedia::new(5);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        let (_, mut waiting) = fill(&rt, &site).await;
        assert_eq!(live(&site), 6, "two segments are left for control");
        // Control fills the two kept segments and more; no write may slip in behind it.
        let mut ordinal = 0;
        while live(&site) <= 8 {
            end(site.journal.append_control(vec![meta(ordinal, 4000)])).await.unwrap();
            ordinal += 1;
            assert!(ordinal < 100, "control records fill segments");
        }
        assert!(waits(&rt, &mut waiting).await, "a write took the room of control records");
        let covered = site.journal.next_seq();
        end(site.journal.append_control(vec![commit(2, covered)])).await.unwrap();
        site.journal.trim(covered);
        assert!(live(&site) <= 1);
        end(waiting).await.unwrap();
        let recovered =
            crate::recover(&*media, &media.ids(), &KEY, &by_last(site.witness())).await.unwrap().unwrap();
        assert_eq!(data_of(&recovered).len(), 1, "only the last write is not covered");
    });
}

#[test]
fn writes_do_not_follow_control_into_the_kept_segments() {
    run(2, async |rt| {
        let media = FakeMedia::new(5);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        let (count, waiting) = fill(&rt, &site).await;
        let mut appends: Vec<_> =
            (0..200).map(|n| site.journal.append(vec![write(count + n, 500)])).collect();
        for n in 0..40 {
            end(site.journal.append_control(vec![meta(n, 4000)])).await.unwrap();
        }
        // 40 control records of a page or two each need about five segments, and no more.
        assert!(live(&site) <= 6 + 6, "{} segments are live", live(&site));
        let done = site.durable().values().filter(|e| super::fake::is_data(&record(e))).count() as u64;
        assert!(done <= count + 8, "{} small writes went into segments kept for control", done - count);
        let covered = site.journal.next_seq();
        end(site.journal.append_control(vec![commit(1, covered)])).await.unwrap();
        site.journal.trim(covered);
        end(waiting).await.unwrap();
        for append in appends.drain(..) {
            end(append).await.unwrap();
        }
    });
}

#[test]
fn writes_that_wait_for_what_does_not_come_fail() {
    run(9, async |rt| {
        let media = FakeMedia::new(5);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        let (count, waiting) = fill(&rt, &site).await;
        let error = crate::JournalError { kind: JournalErrorKind::NoSpace, reason: "full".into() };
        site.journal.fail_waiting(&error);
        assert_eq!(end(waiting).await.unwrap_err().kind, JournalErrorKind::NoSpace);
        let covered = site.journal.next_seq();
        end(site.journal.append_control(vec![commit(1, covered)])).await.unwrap();
        site.journal.trim(covered);
        // With room nobody waits, and nobody fails.
        let append = site.journal.append(vec![write(count, 4000)]);
        site.journal.fail_waiting(&error);
        end(append).await.unwrap();
    });
}

#[test]
fn close_fails_writes_that_wait_for_room_and_answers_everybody() {
    run(3, async |rt| {
        let media = FakeMedia::new(5);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        let (_, waiting) = fill(&rt, &site).await;
        let control = site.journal.append_control(vec![meta(1, 100)]);
        let rotation = site.journal.rotate();
        let limit = std::time::Duration::from_secs(60);
        seam::timeout(&*rt, limit, site.journal.close()).await.expect("close ends");
        end(control).await.expect("what was queued is written");
        end(rotation).await.expect("and so is a rotation");
        assert_eq!(end(waiting).await.unwrap_err().kind, JournalErrorKind::Closed);
        for _ in 0..3 {
            seam::timeout(&*rt, limit, site.journal.close()).await.expect("closing again ends too");
        }
        assert_eq!(end(site.journal.append(vec![hole(1)])).await.unwrap_err().kind, JournalErrorKind::Closed);
        assert_eq!(end(site.journal.rotate()).await.unwrap_err().kind, JournalErrorKind::Closed);
    });
}

#[test]
fn close_writes_what_is_queued() {
    for seed in 0..20 {
        run(seed, async |rt| {
            let media = FakeMedia::new(3);
            let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
            let appends: Vec<_> =
                (0..30).map(|n| site.journal.append(vec![write(n, 900), hole(n)])).collect();
            site.journal.close().await;
            for append in appends {
                end(append).await.unwrap();
            }
            assert_eq!(site.durable().len(), 60);
        });
    }
}

#[test]
fn a_record_too_large_fails_and_blames_no_medium() {
    run(4, async |rt| {
        let media = FakeMedia::new(3);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        for bytes in [SEGMENT as usize / 4, SEGMENT as usize, 3 * SEGMENT as usize] {
            let error = end(site.journal.append_control(vec![hole(1), meta(1, bytes)])).await.unwrap_err();
            assert_eq!(error.kind, JournalErrorKind::NoSpace);
        }
        assert!(site.pool.out.lock().unwrap().is_empty());
        // The largest that is taken is larger than a batch and goes by itself.
        let most = SEGMENT as usize / 4 - crate::BATCH_HEADER_BYTES - 8 - 16;
        for n in 0..6 {
            end(site.journal.append_control(vec![meta(n, most)])).await.unwrap();
        }
        assert_eq!(site.durable().len(), 6);
    });
}

#[test]
fn a_fenced_journal_takes_nothing_more() {
    run(5, async |rt| {
        let media = FakeMedia::new(5);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        end(site.journal.append(vec![hole(1)])).await.unwrap();
        let n = media.with(|inner| inner.changes);
        media.fault_at(n + 1, Fault::Refused(CallErrorKind::Fenced));
        let first = site.journal.append(vec![hole(2)]);
        let queued = site.journal.append(vec![write(3, 8000)]);
        let rotation = site.journal.rotate();
        assert_eq!(end(first).await.unwrap_err().kind, JournalErrorKind::Fenced);
        assert_eq!(end(queued).await.unwrap_err().kind, JournalErrorKind::Fenced);
        let _ = end(rotation).await;
        assert_eq!(end(site.journal.append(vec![hole(4)])).await.unwrap_err().kind, JournalErrorKind::Fenced);
        assert_eq!(site.durable().len(), 1);
        site.journal.close().await;
    });
}

/// How long an answer may take once a newer incarnation has taken over.
const FENCED_WITHIN: Duration = Duration::from_secs(1);

/// Appends to one lane until an append fails; how it failed.
async fn appends_until_one_fails(append: impl Fn(u64) -> crate::Append) -> JournalErrorKind {
    for n in 0.. {
        if let Err(error) = end(append(n)).await {
            return error.kind;
        }
    }
    unreachable!()
}

/// Writers in every lane, those that wait for room in a full journal among them, when request `at` from now on meets a
/// newer incarnation; the recording of the position when there is none.
async fn fenced_at(rt: &seam::Rt, full: bool, at: Option<u64>) {
    let what = format!("full: {full}, request {at:?}");
    let media = FakeMedia::new(5);
    let site = Site::open(rt, &media, None, Options::default()).await.unwrap();
    let journal = &site.journal;
    let mut waiting = Vec::new();
    if full {
        waiting.push(fill(rt, &site).await.1);
        loop {
            let mut append = journal.append_meta(vec![meta(0, 4000)]);
            if waits(rt, &mut append).await {
                waiting.push(append);
                break;
            }
        }
    }
    match at {
        Some(at) => {
            let changes = media.with(|inner| inner.changes);
            media.fault_at(changes + at, Fault::Refused(CallErrorKind::Fenced));
        }
        None => site.set_answers(Answers::Never),
    }
    let long = (0..12).map(|n| meta(n, 3000)).collect();
    waiting.push(journal.append_control(long));
    let rotation = journal.rotate();
    let lanes = seam::join_all([
        Box::pin(appends_until_one_fails(|n| journal.append(vec![write(n, 900)])))
            as seam::BoxFuture<'_, JournalErrorKind>,
        Box::pin(appends_until_one_fails(|n| journal.append_meta(vec![meta(n, 900)]))),
        Box::pin(appends_until_one_fails(|n| journal.append_control(vec![meta(n, 900)]))),
    ]);
    let lanes = seam::timeout(&**rt, FENCED_WITHIN, lanes).await;
    assert_eq!(lanes.ok(), Some(vec![JournalErrorKind::Fenced; 3]), "{what}");
    for append in waiting {
        let answer = seam::timeout(&**rt, FENCED_WITHIN, end(append)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what}: an append is not answered"));
        assert_eq!(answer.map_err(|error| error.kind), Err(JournalErrorKind::Fenced), "{what}");
    }
    let rotated = seam::timeout(&**rt, FENCED_WITHIN, end(rotation)).await;
    assert!(rotated.is_ok(), "{what}: a rotation is not answered");
    // Whoever comes later hears it at once, and no medium hears of him.
    let (changes, seen) = (media.with(|inner| inner.changes), site.durable().len());
    let mut refused = [
        journal.append(vec![hole(1)]),
        journal.append_meta(vec![meta(1, 10)]),
        journal.append_control(vec![meta(2, 10)]),
        journal.rotate(),
    ];
    for append in &mut refused {
        let answer = append.try_recv().unwrap_or_else(|_| panic!("{what}: not at once"));
        assert_eq!(answer.unwrap_err().kind, JournalErrorKind::Fenced, "{what}");
    }
    let closed = seam::timeout(&**rt, FENCED_WITHIN, journal.close()).await;
    assert!(closed.is_ok(), "{what}: the journal does not close");
    assert_eq!((media.with(|inner| inner.changes), site.durable().len()), (changes, seen), "{what}");
}

#[test]
fn a_fenced_journal_answers_every_lane_soon() {
    for full in [false, true] {
        // Opening a segment, its start record, and the batches behind it.
        for at in (0..14).map(Some).chain([None]) {
            run(10 + at.unwrap_or(20), async |rt| fenced_at(&rt, full, at).await);
        }
    }
}

#[test]
fn a_position_that_cannot_be_recorded_ends_the_journal_and_keeps_the_segment() {
    run(6, async |rt| {
        let media = FakeMedia::new(3);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        end(site.journal.append(vec![hole(1)])).await.unwrap();
        site.set_answers(Answers::Never);
        assert_eq!(end(site.journal.rotate()).await.unwrap_err().kind, JournalErrorKind::Fenced);
        assert_eq!(end(site.journal.append(vec![hole(2)])).await.unwrap_err().kind, JournalErrorKind::Fenced);
        // The record may have been made: the segment it may name must be there.
        let mut last = site.witness().unwrap();
        last.number += 1;
        let recovered =
            crate::recover(&*media, &media.ids(), &KEY, &by_last(Some(last))).await.unwrap().unwrap();
        assert_eq!(data_of(&recovered).len(), 1);
    });
}

#[test]
fn an_append_over_several_batches_fails_as_one() {
    run(7, async |rt| {
        let media = FakeMedia::new(3);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        let n = media.with(|inner| inner.changes);
        // The second batch meets the end of all media.
        media.fault_at(n + 3, Fault::Crash);
        let long = site.journal.append((0..10).map(|n| write(n, 3000)).collect());
        let next = site.journal.append(vec![hole(1)]);
        assert_eq!(end(long).await.unwrap_err().kind, JournalErrorKind::TooFewMedia);
        assert_eq!(end(next).await.unwrap_err().kind, JournalErrorKind::TooFewMedia);
        let seen = site.durable().len();
        assert!(seen < 10, "the rest of a failed append is dropped");
        site.media.with(|inner| inner.media.values_mut().for_each(|m| m.down = false));
        site.pool.out.lock().unwrap().clear();
        end(site.journal.append(vec![hole(2)])).await.unwrap();
        assert_eq!(site.durable().len(), seen + 1);
    });
}

#[test]
fn a_journal_that_does_not_open_gives_its_segments_back() {
    run(8, async |rt| {
        let media = FakeMedia::new(3);
        media.fault_at(2, Fault::Refused(CallErrorKind::Failed));
        media.fault_at(5, Fault::Refused(CallErrorKind::Failed));
        media.fault_at(4, Fault::Refused(CallErrorKind::Failed));
        assert!(Site::open(&rt, &media, None, Options::default()).await.is_err());
        rt.sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(media.with(|inner| inner.media.values().map(|m| m.segments.len()).sum::<usize>()), 0);
    });
}

#[test]
fn writers_that_were_answered_together_share_the_next_batch() {
    const WRITERS: u64 = 8;
    const ROUNDS: u64 = 20;
    run(1, async |rt| {
        let media = FakeMedia::new(2);
        media.with(|inner| inner.slow = Some((rt.clone(), MILLISECOND)));
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        let writers = (0..WRITERS).map(|writer| {
            let journal = site.journal.clone();
            async move {
                for round in 0..ROUNDS {
                    end(journal.append(vec![hole(writer * ROUNDS + round)])).await.unwrap();
                    // The way to the guest and back.
                    for _ in 0..2 * writer {
                        seam::yield_now().await;
                    }
                }
            }
        });
        let begun = rt.now();
        seam::join_all(writers).await;
        let batches = (rt.now() - begun).as_nanos() / MILLISECOND.as_nanos();
        // One for each round, and some to come together; without waiting for each other it is two.
        assert!((20..30).contains(&batches), "{batches}");
    });
}

#[test]
fn metadata_leaves_slots_for_what_makes_room() {
    run(4, async |rt| {
        let media = FakeMedia::new(3);
        media.with(|inner| inner.slots = 16);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        let mut waiting = site.journal.append_meta(vec![meta(0, 4000)]);
        for n in 1.. {
            if waits(&rt, &mut waiting).await {
                break;
            }
            assert!(n < 200, "it never waits");
            waiting = site.journal.append_meta(vec![meta(n, 4000)]);
        }
        assert_eq!(live(&site), 8 + 4);
        // A commit and a new segment find room, and with the trim behind them all goes on.
        let covered = site.journal.next_seq();
        end(site.journal.append_control(vec![commit(1, covered)])).await.unwrap();
        end(site.journal.rotate()).await.unwrap();
        site.journal.trim(covered);
        end(waiting).await.unwrap();
    });
}
