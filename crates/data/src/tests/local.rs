//! The transport of one process.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use proto::{Request, Response, Transport};

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
