//! Goal: a slot holds one segment, requests that come twice or out of order change nothing, and what was freed is free.

use media::MediaErrorKind;
use proto::CallErrorKind;
use units::PAGE;

use super::common::*;
use super::medium::Log;

const P: u32 = PAGE as u32;

#[test]
fn batches_are_taken_in_order_and_once() {
    run(1, async |_| {
        let (_, node) = node(&Log::default()).await;
        assert_eq!(append(&node, 1, P).await, Err(CallErrorKind::NotFound));
        open_segment(&node, 1).await.unwrap();
        assert_eq!(append(&node, 1, 2 * P).await, Err(CallErrorKind::Invalid), "one before it is missing");
        append(&node, 1, P).await.unwrap();
        append(&node, 1, P).await.unwrap();
        append(&node, 1, 2 * P).await.unwrap();
        append(&node, 1, P).await.unwrap();
        assert!(holds(&node, 1, P).await && holds(&node, 1, 2 * P).await && !holds(&node, 1, 3 * P).await);
        assert_eq!(append(&node, 1, SEGMENT).await, Err(CallErrorKind::Invalid));
        assert_eq!(append(&node, 1, u32::MAX - P + 1).await, Err(CallErrorKind::Invalid));
    });
}

/// Two requests to open one segment, under way at once, must not take two slots: after a restart the empty one could be
/// taken for the segment.
#[test]
fn a_repeated_open_takes_one_slot() {
    for seed in 0..50 {
        run(seed, async |_| {
            let (medium, node) = node(&Log::default()).await;
            let free_before = info(&node).await.slots_free;
            let opens = seam::join_all((0..3).map(|_| open_segment(&node, 1))).await;
            assert!(opens.contains(&Ok(())));
            assert!(opens.iter().all(|o| matches!(o, Ok(()) | Err(CallErrorKind::Unreachable))));
            open_segment(&node, 1).await.unwrap();
            append(&node, 1, P).await.unwrap();
            assert_eq!(info(&node).await.slots_free, free_before - 1);
            let again = reopen(&medium).await;
            assert_eq!(segments(&again).await, [1]);
            assert!(holds(&again, 1, P).await);
        });
    }
}

/// An open that failed may have left its header: the retry goes to the same slot.
#[test]
fn an_open_tried_again_takes_the_same_slot() {
    run(1, async |_| {
        for skip in 0..2 {
            let (medium, node) = node(&Log::default()).await;
            open_segment(&node, 1).await.unwrap();
            open_segment(&node, 2).await.unwrap();
            // The last write of the open lands and its sync fails to say so.
            medium.fail_write(16 + skip, MediaErrorKind::Io);
            let failed = open_segment(&node, 3).await;
            free_segments(&node, &[1]).await.unwrap();
            open_segment(&node, 3).await.unwrap();
            append(&node, 3, P).await.unwrap();
            let _ = failed;
            let mut found = segments(&*reopen(&medium).await).await;
            found.sort_unstable();
            assert_eq!(found, [2, 3]);
        }
    });
}

#[test]
fn segments_found_at_the_start_take_no_appends() {
    run(1, async |_| {
        let (medium, node) = node(&Log::default()).await;
        open_segment(&node, 1).await.unwrap();
        append(&node, 1, P).await.unwrap();
        let again = reopen(&medium).await;
        open_segment(&again, 1).await.unwrap();
        for offset in [P, 2 * P] {
            assert_eq!(append(&again, 1, offset).await, Err(CallErrorKind::Invalid));
        }
        assert!(holds(&again, 1, P).await);
        open_segment(&again, 2).await.unwrap();
        append(&again, 2, P).await.unwrap();
        assert!(holds(&again, 1, P).await && holds(&again, 2, P).await);
    });
}

#[test]
fn freed_slots_are_free_and_stay_free() {
    run(1, async |_| {
        let (medium, node) = node(&Log::default()).await;
        let slots = info(&node).await.slots;
        for round in 0..3 {
            for n in 0..slots {
                open_segment(&node, round * 100 + n).await.unwrap();
                append(&node, round * 100 + n, P).await.unwrap();
            }
            assert_eq!(info(&node).await.slots_free, 0);
            assert_eq!(open_segment(&node, 999).await, Err(CallErrorKind::NoSpace));
            let all: Vec<u32> = (0..slots).map(|n| round * 100 + n).chain([77_777]).collect();
            free_segments(&node, &all).await.unwrap();
            assert_eq!(info(&node).await.slots_free, slots);
            assert_eq!(segments(&*reopen(&medium).await).await, [0; 0]);
        }
    });
}

/// A free that meets a segment still being written leaves all of them as they are.
#[test]
fn a_free_that_is_refused_frees_nothing() {
    for seed in 0..30 {
        run(seed, async |rt| {
            let (_, node) = node(&Log::default()).await;
            for n in 1..=3 {
                open_segment(&node, n).await.unwrap();
            }
            let other = node.clone();
            rt.spawn("append", Box::pin(async move { append(&other, 2, P).await.unwrap_or_default() }));
            for _ in 0..2 {
                seam::yield_now().await;
            }
            match free_segments(&node, &[1, 2, 3]).await {
                Ok(()) => {}
                Err(kind) => {
                    assert_eq!(kind, CallErrorKind::Unreachable);
                    rt.sleep(std::time::Duration::from_secs(1)).await;
                    assert_eq!(segments(&node).await.len(), 3);
                    append(&node, 1, P).await.unwrap();
                    free_segments(&node, &[1, 2, 3]).await.unwrap();
                }
            }
            rt.sleep(std::time::Duration::from_secs(1)).await;
            assert_eq!(info(&node).await.slots_free, info(&node).await.slots);
        });
    }
}

#[test]
fn a_failed_append_may_be_tried_again_and_a_failed_sync_ends_the_medium() {
    run(1, async |_| {
        let (medium, node) = node(&Log::default()).await;
        open_segment(&node, 1).await.unwrap();
        medium.fail_write(0, MediaErrorKind::Io);
        assert_eq!(append(&node, 1, P).await, Err(CallErrorKind::Failed));
        assert_eq!(append(&node, 1, 2 * P).await, Err(CallErrorKind::Invalid), "nothing was taken");
        append(&node, 1, P).await.unwrap();
        medium.fail_write(0, MediaErrorKind::NoSpace);
        assert_eq!(append(&node, 1, 2 * P).await, Err(CallErrorKind::NoSpace));
        medium.fail_sync(0);
        assert_eq!(append(&node, 1, 2 * P).await, Err(CallErrorKind::Failed));
        assert_eq!(append(&node, 1, 2 * P).await, Err(CallErrorKind::Failed));
        assert_eq!(put(&node, 1).await, Err(CallErrorKind::Failed));
        assert_eq!(list(&node).await, [0; 0]);
    });
}

#[test]
fn headers_that_do_not_match_are_refused() {
    run(1, async |_| {
        let (_, node) = node(&Log::default()).await;
        let open = |id, header| proto::Request::SegmentOpen { id, header };
        let refused = async |request| node.handle(request).await.unwrap_err().kind == CallErrorKind::Invalid;
        assert!(refused(open(segment(1), segment_header(segment(2)))).await);
        assert!(refused(open(segment(1), batch(1, P))).await);
        let read = |offset, length| proto::Request::SegmentRead { id: segment(1), offset, length };
        open_segment(&node, 1).await.unwrap();
        for (offset, length) in [(1, P), (P, 1), (SEGMENT, P), (u32::MAX, P), (P, 0)] {
            assert!(refused(read(offset, length)).await, "{offset}, {length}");
        }
    });
}
