//! The transport of one process.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use proto::{CallErrorKind, Request, Response, Transport};
use units::PAGE;

use super::common::*;
use super::medium::Log;
use crate::LocalTransport;

#[test]
fn a_change_that_nobody_waits_for_goes_on_to_its_end() {
    run(1, async |rt| {
        let (_medium, node) = node(&Log::default()).await;
        let transport = LocalTransport::new(rt.clone());
        transport.attach(node.clone());
        let Request::FragmentWrite { header, payload, .. } = write_request(0, 1, false) else { panic!() };
        let (container, index) = (header.container, header.index);
        let write = Request::FragmentWrite { header, payload, replace: false };
        let mut call = transport.call(node.id(), write);
        poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending(), "the medium takes its time");
            Poll::Ready(())
        })
        .await;
        drop(call);
        rt.sleep(Duration::from_secs(1)).await;
        let found = transport.call(node.id(), Request::FragmentHeader { container, index }).await;
        assert!(matches!(found, Ok(Response::Header(_))), "{found:?}");
    });
}

/// The caller may be the journal, whose end would be the end of the site.
#[test]
fn a_panic_in_a_request_is_an_error_of_that_request() {
    run(2, async |rt| {
        let (medium, node) = node(&Log::default()).await;
        let transport = LocalTransport::new(rt.clone());
        transport.attach(node.clone());
        put(&node, 1).await.unwrap();
        put(&node, 3).await.unwrap();
        open_segment(&node, 1).await.unwrap();
        open_segment(&node, 2).await.unwrap();
        let open = |n| Request::SegmentOpen { id: segment(n), header: segment_header(segment(n)) };
        let append = |n| {
            let offset = PAGE as u32;
            Request::SegmentAppend { id: segment(n), offset, bytes: batch(n, offset) }
        };
        let changes = [
            ("segment append", append(1)),
            ("segment free", Request::SegmentFree(vec![segment(2)])),
            ("segment open", open(3)),
            ("fragment write", write_request(0, 2, false)),
            ("fragment replace", write_request(0, 3, true)),
            ("fragment free", Request::FragmentFree(vec![container(1)])),
        ];
        for (n, (what, change)) in (4..).zip(changes) {
            medium.panic_at_next_write();
            let error = transport.call(node.id(), change).await.unwrap_err();
            assert_eq!((error.kind, error.medium), (CallErrorKind::Failed, node.id()), "{what}: {error}");
            // The medium goes on with all else.
            for request in [open(4), append(4), write_request(0, n, false), write_request(0, n, true)] {
                transport.call(node.id(), request).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            assert!(holds(&node, 4, PAGE as u32).await, "{what}");
            assert_eq!(get(&node, n).await, Ok(()), "{what}");
            let freed = Request::SegmentFree(vec![segment(4)]);
            transport.call(node.id(), freed).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(free(&node, n).await, Ok(()), "{what}");
        }
        // A restart finds it sound.
        let again = reopen(&medium).await;
        assert_eq!(put(&again, 20).await, Ok(()));
        assert_eq!(get(&again, 20).await, Ok(()));
    });
}
