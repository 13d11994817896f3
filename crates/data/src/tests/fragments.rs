//! Goal: a fragment is there whole or not at all, room is used again and runs out with an error, and a failure in the
//! middle leaves everything else as it was.

use container::FragmentHeader;
use media::MediaErrorKind;
use proto::{CallErrorKind, Request, Response};
use units::PAGE;

use super::common::*;
use super::medium::Log;

#[test]
fn written_read_listed_freed() {
    run(1, async |_| {
        let (medium, node) = node(&Log::default()).await;
        let empty = info(&node).await;
        for n in 0..10 {
            put(&node, n).await.unwrap();
            put(&node, n).await.unwrap();
        }
        assert_eq!(list(&node).await, (0..10).collect::<Vec<_>>());
        for n in 0..10 {
            get(&node, n).await.unwrap();
        }
        assert_eq!(get(&node, 10).await, Err(CallErrorKind::NotFound));
        for n in 0..5 {
            free(&node, n).await.unwrap();
            free(&node, n).await.unwrap();
            assert_eq!(get(&node, n).await, Err(CallErrorKind::NotFound));
        }
        let again = reopen(&medium).await;
        assert_eq!(list(&again).await, (5..10).collect::<Vec<_>>());
        assert_eq!(info(&again).await, info(&node).await);
        for n in 5..10 {
            get(&again, n).await.unwrap();
            free(&again, n).await.unwrap();
        }
        assert_eq!(info(&again).await, empty);
    });
}

#[test]
fn parts_are_read_and_bounds_are_kept() {
    run(1, async |_| {
        let (_, node) = node(&Log::default()).await;
        put(&node, 3).await.unwrap();
        let whole = payload(3);
        let length = whole.len() as u32;
        for (offset, length) in [(0, 1), (4095, 2), (1, 4096), (5000, 9000), (length - 1, 1), (0, length)] {
            for verify in [false, true] {
                let read =
                    Request::FragmentRead { container: container(3), index: 0, offset, length, verify };
                let Ok(Response::Bytes(bytes)) = node.handle(read).await else { panic!("{offset} {length}") };
                let range = offset as usize..(offset + length) as usize;
                assert!(bytes.as_ref() == &whole.as_ref()[range]);
            }
        }
        for (offset, length) in [(0, 0), (length, 1), (0, length + 1), (u32::MAX, 1), (1, u32::MAX)] {
            let read =
                Request::FragmentRead { container: container(3), index: 0, offset, length, verify: false };
            assert_eq!(node.handle(read).await.unwrap_err().kind, CallErrorKind::Invalid);
        }
    });
}

#[test]
fn room_runs_out_with_an_error_and_comes_back() {
    run(1, async |_| {
        let (_, node) = node(&Log::default()).await;
        for round in 0..6 {
            let mut n = round * 100;
            while put(&node, n).await.is_ok() {
                n += 1;
            }
            assert_eq!(put(&node, n).await, Err(CallErrorKind::NoSpace));
            assert!(n - round * 100 > 5);
            for n in round * 100..n {
                get(&node, n).await.unwrap();
            }
            for n in round * 100..n {
                free(&node, n).await.unwrap();
            }
        }
        assert_eq!(info(&node).await.free, info(&node).await.capacity);
    });
}

#[test]
fn many_writers_at_once_never_overrun_the_log() {
    for seed in 0..30 {
        run(seed, async |_| {
            let (medium, node) = node(&Log::default()).await;
            for round in 0..8 {
                // 16 pages of log: each round is more than half of it.
                let numbers: Vec<u32> = (0..10).map(|n| round * 16 + n * 16 % 160 + n / 10).collect();
                let put = seam::join_all(numbers.iter().map(|n| put(&node, *n))).await;
                let freed = seam::join_all(numbers.iter().map(|n| free(&node, *n))).await;
                assert!(put.iter().all(|p| matches!(p, Ok(()) | Err(CallErrorKind::NoSpace))), "{put:?}");
                assert!(freed.iter().all(Result::is_ok));
            }
            assert_eq!(list(&*reopen(&medium).await).await, [0; 0]);
        });
    }
}

#[test]
fn a_replaced_fragment_is_one_or_the_other() {
    run(1, async |_| {
        let (medium, node) = node(&Log::default()).await;
        put(&node, 1).await.unwrap();
        let free_before = info(&node).await.free;
        for _ in 0..40 {
            replace(&node, 1).await.unwrap();
            get(&node, 1).await.unwrap();
        }
        assert_eq!(info(&node).await.free, free_before, "the older copies are given back");
        get(&*reopen(&medium).await, 1).await.unwrap();
    });
}

/// A replacement that fails, at whichever write, costs neither copy: not now and not after a restart.
#[test]
fn a_replacement_that_fails_leaves_the_older_copy() {
    for skip in 0..3 {
        for kind in [MediaErrorKind::Io, MediaErrorKind::NoSpace] {
            run(skip, async |_| {
                let (medium, node) = node(&Log::default()).await;
                for n in 0..4 {
                    put(&node, n).await.unwrap();
                }
                medium.fail_write(skip, kind);
                replace(&node, 1).await.unwrap_err();
                get(&node, 1).await.unwrap();
                // Others take whatever room is left.
                let mut n = 100;
                while put(&node, n).await.is_ok() {
                    n += 1;
                }
                for node in [&node, &reopen(&medium).await] {
                    for n in (0..4).chain(100..n) {
                        assert_eq!(
                            get(node, n).await,
                            Ok(()),
                            "fragment {n} after a failure at write {skip}"
                        );
                    }
                }
            });
        }
    }
}

#[test]
fn a_write_that_fails_leaves_nothing() {
    for skip in 0..3 {
        run(skip, async |_| {
            let (medium, node) = node(&Log::default()).await;
            put(&node, 1).await.unwrap();
            let free_before = info(&node).await.free;
            medium.fail_write(skip, MediaErrorKind::NoSpace);
            assert_eq!(put(&node, 2).await, Err(CallErrorKind::NoSpace));
            assert_eq!((list(&node).await, info(&node).await.free), (vec![1], free_before));
            // The room goes to another; what the log may say of the first must not hurt it.
            put(&node, 3).await.unwrap();
            put(&node, 2).await.unwrap();
            let again = reopen(&medium).await;
            for n in 1..4 {
                get(&again, n).await.unwrap();
            }
        });
    }
}

/// The node went down between the page of the log and the payload, and the request comes again.
#[test]
fn a_copy_that_never_landed_does_not_answer_a_write() {
    run(1, async |_| {
        let (medium, node) = node(&Log::default()).await;
        put(&node, 1).await.unwrap();
        put(&node, 2).await.unwrap();
        let bit = (node.layout().data + 2 * PAGE as u64) * 8;
        drop(node);
        medium.flip(bit);
        let again = reopen(&medium).await;
        assert_eq!(get(&again, 1).await, Err(CallErrorKind::Corrupt));
        put(&again, 1).await.unwrap();
        put(&again, 2).await.unwrap();
        get(&again, 1).await.unwrap();
        get(&again, 2).await.unwrap();
        get(&*reopen(&medium).await, 1).await.unwrap();
    });
}

#[test]
fn a_fragment_on_its_way_is_neither_written_twice_nor_passed_over_by_a_free() {
    for seed in 0..40 {
        run(seed, async |rt| {
            let (_, node) = node(&Log::default()).await;
            put(&node, 5).await.unwrap();
            let other = node.clone();
            rt.spawn("write", Box::pin(async move { put(&other, 1).await.unwrap() }));
            while !list(&node).await.contains(&1) {
                seam::yield_now().await;
            }
            let twice = put(&node, 1).await;
            assert!(matches!(twice, Ok(()) | Err(CallErrorKind::Unreachable)), "{twice:?}");
            let freed = node.handle(Request::FragmentFree(vec![container(5), container(1)])).await;
            rt.sleep(std::time::Duration::from_secs(1)).await;
            let left = list(&node).await;
            match freed {
                Ok(_) => assert_eq!(left, [0; 0], "freed for good"),
                Err(error) => assert_eq!((error.kind, left), (CallErrorKind::Unreachable, vec![1])),
            }
        });
    }
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    run(1, async |_| {
        let (_, node) = node(&Log::default()).await;
        let with = |act: fn(&mut FragmentHeader)| {
            let Request::FragmentWrite { mut header, payload, replace } = write_request(0, 1, false) else {
                panic!("a write")
            };
            act(&mut header);
            Request::FragmentWrite { header, payload, replace }
        };
        let wrong: [fn(&mut FragmentHeader); 7] = [
            |h| h.index = 1,
            |h| h.index = 9,
            |h| h.k = 0,
            |h| h.container_bytes = 1 << 20,
            |h| h.members.truncate(1),
            |h| h.members = vec![medium_id(3), medium_id(4)],
            |h| h.page_crcs.push(1),
        ];
        for (i, act) in wrong.into_iter().enumerate() {
            assert_eq!(node.handle(with(act)).await.unwrap_err().kind, CallErrorKind::Invalid, "case {i}");
        }
        assert_eq!(list(&node).await, [0; 0]);
    });
}
