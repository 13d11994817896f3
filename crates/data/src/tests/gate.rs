//! Goal: a sealed medium takes nothing from incarnations before, whatever they had under way, and whatever happens to it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use proto::{CallErrorKind, Request, Response, Transport};
use units::{Epoch, PAGE};

use super::common::*;
use super::medium::Log;
use crate::{LocalTransport, MediumNode, OpenErrorKind};

const TERM: Duration = Duration::from_secs(3);
const OLD: Epoch = Epoch(4);
const NEW: Epoch = Epoch(5);

async fn ask(
    rt: &seam::Rt,
    node: &MediumNode,
    by: Epoch,
    request: Request,
) -> Result<Response, CallErrorKind> {
    node.serve(&**rt, by, request).await.map_err(|error| error.kind)
}

fn open(number: u32) -> Request {
    Request::SegmentOpen { id: segment(number), header: segment_header(segment(number)) }
}

fn append(number: u32, page: u32) -> Request {
    let offset = page * PAGE as u32;
    Request::SegmentAppend { id: segment(number), offset, bytes: batch(number, offset) }
}

#[test]
fn a_sealed_medium_takes_changes_of_later_incarnations_alone() {
    run(1, async |rt| {
        let (medium, node) = node(&Log::default()).await;
        ask(&rt, &node, OLD, open(1)).await.unwrap();
        ask(&rt, &node, OLD, append(1, 1)).await.unwrap();
        ask(&rt, &node, OLD, write_request(0, 1, false)).await.unwrap();
        ask(&rt, &node, NEW, Request::Seal).await.unwrap();
        ask(&rt, &node, NEW, Request::Seal).await.expect("asked twice it is done once");
        for node in [node.clone(), reopen(&medium).await] {
            assert_eq!(info(&node).await.sealed, NEW);
            let changes = [
                open(2),
                append(1, 2),
                Request::SegmentFree(vec![segment(1)]),
                write_request(0, 2, false),
                Request::FragmentFree(vec![container(1)]),
                Request::FragmentFreeAt(vec![(container(1), 0)]),
                Request::FragmentLock { containers: vec![container(1)], until_ms: 1 },
                Request::Lease,
                Request::Seal,
            ];
            for change in changes {
                for by in [Epoch(0), OLD] {
                    let name = format!("{change:?}");
                    let answer = ask(&rt, &node, by, change.clone()).await;
                    assert_eq!(answer.err(), Some(CallErrorKind::Fenced), "{by:?}: {name}");
                }
            }
            // What is there can be read by anybody, and nothing of it has changed.
            let read = Request::SegmentRead { id: segment(1), offset: PAGE as u32, length: 2 * PAGE as u32 };
            let Ok(Response::Bytes(bytes)) = ask(&rt, &node, OLD, read).await else { panic!() };
            assert_eq!(bytes.as_ref()[..PAGE], *batch(1, PAGE as u32).as_ref());
            assert_eq!(list(&node).await, [1]);
            get(&node, 1).await.unwrap();
        }
        let node = reopen(&medium).await;
        ask(&rt, &node, NEW, open(3)).await.unwrap();
        ask(&rt, &node, Epoch(9), write_request(0, 3, false)).await.unwrap();
        assert_eq!(list(&node).await, [1, 3]);
    });
}

/// An append that is on its way to the medium may still be acknowledged: the seal is answered behind it.
#[test]
fn a_seal_waits_for_what_is_under_way() {
    run(2, async |rt| {
        let (_medium, node) = node(&Log::default()).await;
        let transport = Arc::new(LocalTransport::new(rt.clone()));
        transport.attach(node.clone());
        transport.call_by(OLD, node.id(), open(1)).await.unwrap();
        let mut appending = transport.call_by(OLD, node.id(), append(1, 1));
        let mut sealing = transport.call_by(NEW, node.id(), Request::Seal);
        poll_fn(|cx| {
            assert!(appending.as_mut().poll(cx).is_pending(), "the medium takes its time");
            assert!(sealing.as_mut().poll(cx).is_pending(), "an append is under way");
            Poll::Ready(())
        })
        .await;
        // Those that come now hear at once that they are late.
        let late = transport.call_by(OLD, node.id(), append(1, 2)).await.unwrap_err();
        assert_eq!(late.kind, CallErrorKind::Fenced);
        // Nobody waits for the append any more: it goes on, and the seal still waits for it.
        drop(appending);
        sealing.await.unwrap();
        let read = Request::SegmentRead { id: segment(1), offset: PAGE as u32, length: PAGE as u32 };
        let Ok(Response::Bytes(bytes)) = transport.call(node.id(), read).await else { panic!() };
        assert_eq!(bytes.as_ref(), batch(1, PAGE as u32).as_ref(), "it is there when the seal is answered");
    });
}

#[test]
fn a_seal_is_answered_when_no_lease_holds() {
    run(3, async |rt| {
        let (medium, node) = node(&Log::default()).await;
        node.use_leases(TERM, rt.now());
        ask(&rt, &node, OLD, open(1)).await.unwrap();
        rt.sleep(TERM).await;
        for grant in [Request::Lease, append(1, 1), open(2)] {
            ask(&rt, &node, OLD, grant).await.unwrap();
            rt.sleep(TERM / 2).await;
        }
        let granted = rt.now() - TERM / 2;
        let (begun, refused) = (rt.now(), ask(&rt, &node, OLD, Request::Seal).await);
        refused.expect("an incarnation may seal for itself");
        assert!(rt.now() >= granted + TERM && rt.now() < begun + TERM, "{:?}", rt.now() - begun);
        ask(&rt, &node, OLD, Request::Lease).await.unwrap();
        let granted = rt.now();
        ask(&rt, &node, NEW, Request::Seal).await.unwrap();
        assert!(rt.now() >= granted + TERM);
        // A node that starts anew does not know whom it granted what.
        let node = reopen(&medium).await;
        let started = rt.now();
        node.use_leases(TERM, started);
        ask(&rt, &node, Epoch(6), Request::Seal).await.unwrap();
        assert!(rt.now() >= started + TERM);
    });
}

#[test]
fn a_seal_waits_no_longer_for_leases_that_are_given_back() {
    run(3, async |rt| {
        let (_medium, node) = node(&Log::default()).await;
        node.use_leases(TERM, rt.now());
        ask(&rt, &node, OLD, Request::Lease).await.unwrap();
        // What was granted before this process began, to nobody knows whom, is not its to give back.
        ask(&rt, &node, OLD, Request::Release).await.unwrap();
        ask(&rt, &node, NEW, Request::Seal).await.unwrap();
        assert!(rt.now() >= TERM);
        let newer = Epoch(NEW.0 + 1);
        ask(&rt, &node, NEW, Request::Lease).await.unwrap();
        // Others cannot give back what is not theirs, nor can it twice.
        ask(&rt, &node, OLD, Request::Release).await.unwrap();
        let begun = rt.now();
        let mut sealing = Box::pin(ask(&rt, &node, newer, Request::Seal));
        assert!(seam::timeout(&*rt, TERM / 4, &mut sealing).await.is_err());
        ask(&rt, &node, NEW, Request::Release).await.unwrap();
        sealing.await.unwrap();
        assert!(rt.now() < begun + TERM / 2, "{:?}", rt.now() - begun);
        // One that was late on the way ends nothing of its successor's.
        ask(&rt, &node, newer, Request::Lease).await.unwrap();
        let granted = rt.now();
        ask(&rt, &node, NEW, Request::Release).await.unwrap();
        ask(&rt, &node, Epoch(newer.0 + 1), Request::Seal).await.unwrap();
        assert!(rt.now() >= granted + TERM);
    });
}

/// Power may fail at any write of a seal: what was answered holds, and the medium can be used.
#[test]
fn a_seal_survives_a_power_cut_at_any_point() {
    let log = Log::default();
    let answered = run(4, async |rt| {
        let (_medium, node) = node(&log).await;
        let mut answered = vec![(log.len(), Epoch(0))];
        for epoch in (1..6).map(Epoch) {
            ask(&rt, &node, epoch, Request::Seal).await.unwrap();
            answered.push((log.len(), epoch));
        }
        answered
    });
    for end in answered[0].0..=log.len() {
        let least = answered.iter().rev().find(|(at, _)| *at <= end).map_or(Epoch(0), |(_, epoch)| *epoch);
        for mode in 0..8 {
            run(1, async |_| {
                let (_medium, node) = open_image(log.cut(0, end, mode)).await;
                let sealed = info(&node).await.sealed;
                assert!(
                    sealed == least || sealed == Epoch(least.0 + 1),
                    "cut at {end}, mode {mode}: {sealed:?}"
                );
            });
        }
    }
}

/// A copy that rots is repaired at the next opening, and written before the sound one by the next seal; without any, the
/// medium is not used: nobody can tell who may write to it.
#[test]
fn copies_that_rot_are_repaired_or_named() {
    let bit = |place: u64| (place + 9) * 8;
    run(5, async |rt| {
        let (medium, node) = node(&Log::default()).await;
        ask(&rt, &node, NEW, Request::Seal).await.unwrap();
        for place in crate::gate::PLACES {
            medium.flip(bit(place));
            assert_eq!(info(&*reopen(&medium).await).await.sealed, NEW);
        }
        crate::gate::PLACES.iter().for_each(|place| medium.flip(bit(*place)));
        let error = crate::open(medium.clone(), SITE).await.unwrap_err();
        assert_eq!(error.kind, OpenErrorKind::Medium);
        assert!(error.to_string().contains("both copies"), "{error}");
    });
    // Whatever becomes of the first write of a seal, it is not over the only sound copy.
    let [first, second] = crate::gate::PLACES;
    for (rotten, sound) in [(first, second), (second, first)] {
        run(6, async |rt| {
            let (medium, node) = node(&Log::default()).await;
            ask(&rt, &node, OLD, Request::Seal).await.unwrap();
            let before = medium.image()[&(sound / PAGE as u64)].clone();
            medium.flip(bit(rotten));
            medium.fail_write(1, media::MediaErrorKind::Io);
            ask(&rt, &node, NEW, Request::Seal).await.unwrap_err();
            assert!(medium.image()[&(sound / PAGE as u64)] == before, "the rotten one is written first");
        });
    }
}

/// One process that asks its own media goes on where a seal finds no room; a node that others ask does not.
#[test]
fn a_seal_without_room_holds_in_memory_for_one_process_alone() {
    run(7, async |rt| {
        for (term, sealed) in [(Duration::ZERO, true), (TERM, false)] {
            let (medium, node) = node(&Log::default()).await;
            node.use_leases(term, Duration::ZERO);
            medium.fail_write(0, media::MediaErrorKind::NoSpace);
            let answer = ask(&rt, &node, NEW, Request::Seal).await;
            assert_eq!(answer.err(), (!sealed).then_some(CallErrorKind::NoSpace));
            let late = ask(&rt, &node, OLD, open(1)).await;
            assert_eq!(late.err(), Some(CallErrorKind::Fenced));
        }
    });
}
