use super::*;

const S: Duration = Duration::from_secs(1);
const A: LeaseId = LeaseId(7);
const B: LeaseId = LeaseId(8);

#[test]
fn a_lease_lives_until_its_deadline_and_no_longer() {
    let mut leases = Leases::default();
    leases.grant(A, 10 * S, S);
    assert_eq!(leases.live(A, 10 * S), Some(10 * S));
    assert_eq!(leases.renew(A, 10 * S), Some(10 * S));
    assert_eq!(leases.next_deadline(), Some(20 * S));
    assert_eq!(leases.due(20 * S - Duration::from_nanos(1)), None);
    // At the deadline it is ended, even when nobody looked yet.
    assert_eq!(leases.renew(A, 20 * S), None);
    assert_eq!(leases.due(20 * S), Some(A));
    assert_eq!(leases.live(A, 15 * S), None, "nothing brings it back");
    assert_eq!(leases.due(20 * S), Some(A), "it stays due until its keys are gone");
    leases.remove(A);
    assert_eq!((leases.due(99 * S), leases.len(), leases.next_deadline()), (None, 0, None));
}

#[test]
fn an_ended_lease_is_due_at_once() {
    let mut leases = Leases::default();
    leases.grant(A, 10 * S, S);
    leases.grant(B, 5 * S, S);
    assert!(leases.end(A, 2 * S));
    assert!(!leases.end(A, 2 * S));
    assert_eq!(leases.due(2 * S), Some(A));
    leases.remove(A);
    assert_eq!(leases.next_deadline(), Some(6 * S));
}
