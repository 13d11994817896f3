//! Goal: repairs write what is wrong, where it belongs, once; and never make things worse.

use proto::{CallErrorKind, Request, Response};
use seam::{BoxFuture, Runtime};
use std::time::Duration;

use super::script::{Fate, Kind};
use super::site::{Bad, Site, assert_lost, site};
use crate::PoolErrorKind;

fn writes(site: &Site) -> usize {
    site.script.take_log().iter().filter(|(_, kind)| *kind == Kind::Write).count()
}

#[test]
fn many_reads_of_one_damaged_container_repair_it_once() {
    let site = site(6);
    let kept = site.put();
    site.spoil(&kept, 0, Bad::Flipped);
    site.script.take_log();
    site.run(async {
        let results = seam::join_all((0..50).map(|_| site.read_all(&kept))).await;
        assert!(results.iter().all(Result::is_ok));
    });
    site.settle();
    let log = site.script.take_log();
    let asked = |wanted| log.iter().filter(|(_, kind)| *kind == wanted).count();
    assert_eq!((site.repaired(), asked(Kind::Write)), (1, 1));
    assert!(asked(Kind::Header) <= 12, "fifty reads have the stripe mended once, at most once again");
    site.run(site.read_all(&kept)).unwrap();
    site.settle();
    assert_eq!(site.repaired(), 1, "a second read finds nothing");
}

#[test]
fn mends_of_one_container_wait_for_each_other() {
    let site = site(6);
    let kept = site.put();
    site.spoil(&kept, 0, Bad::Missing);
    site.spoil(&kept, 5, Bad::Header);
    site.script.take_log();
    site.run(async {
        let mend =
            |_| -> BoxFuture<'_, u64> { Box::pin(async { site.pool.mend(&kept.stripe).await.unwrap() }) };
        let read: BoxFuture<'_, u64> = Box::pin(async { site.read_all(&kept).await.map(|()| 0).unwrap() });
        let counts = seam::join_all((0..3).map(mend).chain([read])).await;
        assert_eq!(counts.iter().sum::<u64>(), 2, "each fragment is written by one of them");
    });
    site.settle();
    assert_eq!(writes(&site), 2);
    assert_eq!(site.up(), 6, "none of them takes a medium for failed");
    assert_eq!(site.run(site.whole(&kept)), 6);
}

#[test]
fn a_write_that_is_still_under_way_takes_no_medium_down() {
    let site = site(3);
    let kept = site.put();
    site.spoil(&kept, 1, Bad::Missing);
    // The message is carried out twice at once: the second is told to wait.
    site.script.strike(Kind::Write, 0, 1, Fate::Twice);
    site.run(site.pool.mend(&kept.stripe)).unwrap();
    assert_eq!((site.up(), site.run(site.whole(&kept))), (3, 3));
}

#[test]
fn repaired_fragments_carry_the_right_header() {
    let site = site(6);
    let written = site.run(site.write(60_000)).unwrap();
    let kept = site.kept(&written);
    let header = |index: usize| {
        let request = Request::FragmentHeader { container: kept.id(), index: index as u8 };
        match site.run(site.direct(kept.stripe.members[index], request)) {
            Ok(Response::Header(header)) => *header,
            other => panic!("{other:?}"),
        }
    };
    let before: Vec<_> = (0..6).map(header).collect();
    assert!(before.iter().all(|header| header.container_bytes == written.built.head.total));
    site.spoil(&kept, 2, Bad::Flipped);
    site.spoil(&kept, 4, Bad::Missing);
    assert_eq!(site.run(site.pool.mend(&kept.stripe)).unwrap(), 2);
    for (index, old) in before.iter().enumerate() {
        let new = header(index);
        let expected = container::FragmentHeader { allocation: new.allocation, ..old.clone() };
        assert_eq!(new, expected, "fragment {index}");
    }
    let counts: Vec<usize> = site.ids.iter().map(|id| site.run(site.fragments(*id)).len()).collect();
    assert_eq!(counts, [1; 6], "each medium holds its own fragment and no other");
    assert_eq!(site.run(site.pool.mend(&kept.stripe)).unwrap(), 0);
}

#[test]
fn one_fragment_that_cannot_be_written_does_not_stop_the_other() {
    let site = site(6);
    let kept = site.put();
    site.spoil(&kept, 1, Bad::Missing);
    site.spoil(&kept, 3, Bad::Missing);
    site.script.strike_all(Kind::Write, kept.stripe.members[1], Fate::Refused(CallErrorKind::NoSpace));
    let error = site.run(site.pool.mend(&kept.stripe)).unwrap_err();
    assert_eq!(error.kind, PoolErrorKind::NoSpace);
    assert!(error.reason.contains(&kept.id().to_string()));
    assert_eq!(site.run(site.whole(&kept)), 5);
    site.script.clear();
    assert_eq!(site.run(site.pool.mend(&kept.stripe)).unwrap(), 1);
}

#[test]
fn a_repair_that_failed_is_left_alone_for_a_while() {
    let site = site(6);
    let kept = site.put();
    site.spoil(&kept, 0, Bad::Missing);
    site.script.strike_all(Kind::Write, kept.stripe.members[0], Fate::Refused(CallErrorKind::NoSpace));
    for _ in 0..5 {
        site.run(site.read_all(&kept)).unwrap();
        site.run(site.rt.sleep(Duration::from_secs(2)));
    }
    assert_eq!(writes(&site), 7, "six for the container, one for all five reads");
    assert!(site.pool.is_repaired(), "nothing waits");
    site.script.clear();
    site.run(site.rt.sleep(Duration::from_secs(60)));
    site.run(site.read_all(&kept)).unwrap();
    site.settle();
    assert_eq!(site.run(site.whole(&kept)), 6);
    // A medium that comes back ends the wait.
    let other = site.put();
    site.spoil(&other, 0, Bad::Missing);
    site.script.strike(Kind::Write, 0, 1, Fate::Refused(CallErrorKind::NoSpace));
    site.run(site.read_all(&other)).unwrap();
    site.settle();
    assert_eq!(site.run(site.whole(&other)), 5);
    site.pool.restore(other.stripe.members[0]);
    site.run(site.read_all(&other)).unwrap();
    site.settle();
    assert_eq!(site.run(site.whole(&other)), 6);
}

#[test]
fn a_medium_that_fails_under_repair_goes_down_and_is_repaired_later() {
    let site = site(6);
    let kept = site.put();
    let medium = kept.stripe.members[0];
    site.spoil(&kept, 0, Bad::Missing);
    site.script.strike_all(Kind::Write, medium, Fate::Refused(CallErrorKind::Failed));
    let error = site.run(site.pool.mend(&kept.stripe)).unwrap_err();
    assert_eq!((error.kind, site.up()), (PoolErrorKind::TooFewMedia, 5));
    site.script.clear();
    let report = site.run(site.pool.scrub(&kept.stripe)).unwrap();
    assert_eq!((report.sound, report.repaired, report.away), (5, 0, 1));
    site.pool.restore(medium);
    assert_eq!(site.run(site.pool.mend(&kept.stripe)).unwrap(), 1);
}

#[test]
fn contradicting_fragments_are_no_source_of_repairs() {
    let site = site(6);
    let kept = site.put();
    site.spoil(&kept, 1, Bad::Wrong);
    site.spoil(&kept, 3, Bad::Missing);
    site.script.take_log();
    assert_lost(site.run(site.pool.scrub(&kept.stripe)).map(drop), &kept);
    assert_eq!(writes(&site), 0, "nothing is written from what may be wrong");
    // A checked read knows which one lies, and then both are mended.
    site.run(site.read_all(&kept)).unwrap();
    site.settle();
    assert_eq!(site.run(site.whole(&kept)), 6);
}

#[test]
fn a_stripe_that_is_not_what_the_caller_says_is_left_alone() {
    let site = site(6);
    let kept = site.put();
    let mut stripe = kept.stripe.clone();
    stripe.fragment_pages += 1;
    assert_lost(site.run(site.pool.mend(&stripe)).map(drop), &kept);
    let mut stripe = kept.stripe.clone();
    stripe.members.rotate_left(1);
    // Where fragments are the layout says, which may have changed since the caller looked.
    assert_eq!(site.run(site.pool.mend(&stripe)).unwrap(), 0);
    let mut stripe = kept.stripe.clone();
    stripe.members.swap(0, 1);
    assert_eq!(site.run(site.pool.mend(&stripe)).unwrap(), 0);
    assert_eq!(writes(&site), 6, "those of the container itself");
    assert_eq!(site.run(site.whole(&kept)), 6);
}
