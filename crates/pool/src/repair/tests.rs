//! Goal: the queue is bounded, holds a container once, and loses no proof.

use units::{Incarnation, MediumId};

use super::*;
use crate::CLASSES;

const NOW: Duration = Duration::from_secs(1000);

fn stripe(number: u32) -> Stripe {
    let container = ContainerId { incarnation: Incarnation(1), number, class: 0, row: 0 };
    Stripe {
        container,
        class: CLASSES[0],
        members: vec![MediumId([1; 16])],
        target: Vec::new(),
        fragment_pages: 1,
    }
}

#[test]
fn the_queue_is_bounded_and_holds_a_container_once() {
    let mut repairs = Repairs::default();
    assert!(repairs.enter(stripe(0), 0, NOW), "the first starts the task");
    for number in 0..2 * REPAIRS_MAX as u32 {
        assert!(!repairs.enter(stripe(number), 0, NOW));
    }
    assert_eq!((repairs.queue.len(), repairs.queued.len()), (REPAIRS_MAX, REPAIRS_MAX));
    for number in 0..REPAIRS_MAX as u32 {
        let (next, wrong) = repairs.next().unwrap();
        assert_eq!(next.container.number, number, "in order");
        repairs.done(next, wrong, Some(NOW));
    }
    assert!(repairs.next().is_none() && repairs.queued.is_empty());
    assert_eq!(repairs.failed.len(), REPAIRS_MAX);
    assert!(repairs.enter(stripe(u32::MAX), 0, NOW), "the task ended and is started again");
    let (next, wrong) = repairs.next().unwrap();
    repairs.done(next, wrong, Some(NOW));
    assert_eq!(repairs.failed.len(), REPAIRS_MAX, "failures are remembered up to the same bound");
    let later = NOW + REPAIR_PAUSE;
    repairs.enter(stripe(0), 0, later);
    assert!(repairs.next().is_some(), "and forgotten in time");
}

#[test]
fn a_proof_that_comes_while_mending_is_not_lost() {
    let mut repairs = Repairs::default();
    repairs.enter(stripe(0), 0, NOW);
    let (first, wrong) = repairs.next().unwrap();
    assert_eq!(wrong, 0);
    assert!(!repairs.enter(stripe(0), 0b10, NOW));
    repairs.done(first, wrong, Some(NOW));
    let (again, wrong) = repairs.next().expect("it is mended again, with what is known now");
    assert_eq!(wrong, 0b10);
    repairs.done(again, wrong, Some(NOW));
    assert!(repairs.next().is_none());
    assert!(!repairs.enter(stripe(0), 0, NOW), "it failed, and waits");
    assert!(repairs.enter(stripe(0), 0b100, NOW), "a proof does not wait");
}
