//! Goal: what is locked is not freed before its time, over restarts, damage and copies that supersede, and no lock gets
//! shorter.

use proto::{CallErrorKind, Request, Response};
use units::PAGE;

use super::common::*;
use super::medium::Log;
use crate::MediumNode;

const DAY: u64 = 86_400_000;

async fn lock(node: &MediumNode, number: u32, until_ms: u64) {
    let containers = vec![container(number), container(999)];
    let locked = node.handle(Request::FragmentLock { containers, until_ms }).await;
    assert!(matches!(locked, Ok(Response::Done)), "{locked:?}");
}

async fn locks(node: &MediumNode) -> Vec<(u32, u64)> {
    match node.handle(Request::LockList { after: None, limit: 100 }).await.unwrap() {
        Response::Locks(found) => found.into_iter().map(|(id, until)| (id.number, until)).collect(),
        other => panic!("{other:?}"),
    }
}

async fn header(node: &MediumNode, number: u32) -> u64 {
    match node.handle(Request::FragmentHeader { container: container(number), index: 0 }).await.unwrap() {
        Response::Header(header) => header.locked_until,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_locked_fragment_is_freed_by_nobody_before_its_time() {
    run(1, async |_| {
        let (medium, node) = node(&Log::default()).await;
        node.tell_time(DAY);
        for n in 0..4 {
            put(&node, n).await.unwrap();
        }
        lock(&node, 1, 3 * DAY).await;
        lock(&node, 1, 2 * DAY).await;
        lock(&node, 2, DAY).await;
        assert_eq!(locks(&node).await, [(1, 3 * DAY)], "a lock is never lowered; one that is past is none");
        assert_eq!(free(&node, 1).await, Err(CallErrorKind::Locked));
        // The others of one request go.
        let both = Request::FragmentFree(vec![container(0), container(1), container(3)]);
        assert_eq!(node.handle(both).await.unwrap_err().kind, CallErrorKind::Locked);
        assert_eq!(list(&node).await, [1, 2]);
        replace(&node, 1).await.unwrap();
        assert_eq!((header(&node, 1).await, header(&node, 2).await), (3 * DAY, DAY));
        // Changes until tables were written over and over.
        for _ in 0..3 * PARAMS.log_pages {
            put(&node, 9).await.unwrap();
            free(&node, 9).await.unwrap();
        }
        let again = reopen(&medium).await;
        assert_eq!(free(&again, 1).await, Err(CallErrorKind::Locked));
        assert_eq!((locks(&again).await, header(&again, 1).await), (vec![(1, 3 * DAY)], 3 * DAY));
        // A clock that was set back is not believed, one that goes on is.
        again.tell_time(0);
        free(&again, 2).await.unwrap();
        again.tell_time(3 * DAY - 1);
        assert_eq!(free(&again, 1).await, Err(CallErrorKind::Locked));
        again.tell_time(3 * DAY);
        free(&again, 1).await.unwrap();
        put(&again, 1).await.unwrap();
        assert_eq!(header(&again, 1).await, 0, "a new fragment knows nothing of an old lock");
    });
}

#[test]
fn a_lock_outlives_both_tables_and_comes_with_a_mended_fragment() {
    run(1, async |_| {
        let (medium, node) = node(&Log::default()).await;
        node.tell_time(DAY);
        put(&node, 1).await.unwrap();
        lock(&node, 1, 3 * DAY).await;
        // Written anew from the others, whose headers say until when.
        let Request::FragmentWrite { mut header, payload, replace } = write_request(0, 2, true) else {
            panic!("a write")
        };
        header.locked_until = 2 * DAY;
        node.handle(Request::FragmentWrite { header, payload, replace }).await.unwrap();
        let wanted = vec![(1, 3 * DAY), (2, 2 * DAY)];
        assert_eq!(locks(&node).await, wanted);
        for table in node.layout().tables {
            let noise = units::PageBuf::copy_of(&[7; PAGE]).share();
            media::Medium::write_durable(&*medium, table, noise).await.unwrap();
        }
        let again = reopen(&medium).await;
        assert_eq!(locks(&again).await, wanted);
        assert_eq!(free(&again, 2).await, Err(CallErrorKind::Locked));
    });
}

/// A fragment is to be freed and waits until the ring of the log has room; what makes that room locks it. It
/// stays, wherever in the ring that happens.
#[test]
fn a_lock_that_comes_while_a_fragment_waits_to_be_freed_keeps_it() {
    let mut overtaken = 0;
    for changes in 0..PARAMS.log_pages {
        run(1, async |_| {
            let (_, node) = node(&Log::default()).await;
            node.tell_time(DAY);
            put(&node, 1).await.unwrap();
            for _ in 0..changes {
                lock(&node, 1, DAY).await;
            }
            let containers = vec![container(1)];
            let both = [
                Request::FragmentLock { containers: containers.clone(), until_ms: 3 * DAY },
                Request::FragmentFree(containers),
            ];
            let answers = seam::join_all(both.map(|request| node.handle(request))).await;
            assert!(matches!(answers[0], Ok(Response::Done)), "{answers:?}");
            assert_eq!(list(&node).await, [1], "{changes} changes before: {answers:?}");
            get(&node, 1).await.unwrap();
            assert_eq!(locks(&node).await, [(1, 3 * DAY)]);
            assert_eq!(free(&node, 1).await, Err(CallErrorKind::Locked));
            overtaken += usize::from(answers[1].is_ok());
        });
    }
    assert!(overtaken > 0, "no lock came while a fragment waited");
}
