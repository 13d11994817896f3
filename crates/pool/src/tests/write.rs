//! Goal: a stripe stands whole on distinct media that are up, or nothing of it counts; whatever request fails.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use journal::Ensembles;
use proto::CallErrorKind;
use seam::{BoxFuture, Runtime};

use super::script::{Fate, Kind};
use super::site::{Kept, Site, medium_id, site};
use crate::stripe::lock;
use crate::{PoolErrorKind, class_for};

/// The container stands on every member, and each member up to now holds nothing else but what is in `also`.
fn assert_stands(site: &Site, kept: &Kept, also: &[Kept]) {
    let width = kept.stripe.class.width();
    assert_eq!(kept.stripe.members.iter().collect::<BTreeSet<_>>().len(), width);
    assert_eq!(site.run(site.whole(kept)), width, "{} is whole", kept.id());
    site.run(site.read_all(kept)).unwrap();
    let mut expected = Vec::new();
    for one in also.iter().chain([kept]) {
        expected.extend((0..one.stripe.class.width()).map(|index| (one.id(), index as u8)));
    }
    expected.sort_unstable();
    assert_eq!(site.run(site.all_fragments()), expected, "nothing else is left on the media");
}

#[test]
fn every_number_of_media_writes_and_reads() {
    for media in 1..=12 {
        let site = site(media);
        let mut all: Vec<Kept> = Vec::new();
        for bytes in [1, 4000, 20_000, 60_000] {
            let kept = site.put_bytes(bytes);
            assert_eq!(kept.stripe.class, class_for(media).unwrap());
            assert_stands(&site, &kept, &all);
            let fragment = kept.stripe.fragment_bytes();
            for (offset, length) in [(0, 1), (kept.bytes.len() - 1, 1), (77, kept.bytes.len() - 200)] {
                site.run(site.read(&kept, offset, length)).unwrap();
            }
            if kept.stripe.class.k > 1 {
                site.run(site.read(&kept, fragment - 3, 6)).unwrap();
                site.run(site.read(&kept, fragment, fragment)).unwrap();
            }
            all.push(kept);
        }
        assert_eq!((site.decoded(), site.repaired()), (0, 0), "sound media need neither");
    }
}

#[test]
fn fragments_spread_evenly() {
    for media in [3, 5, 7, 9, 11] {
        let site = site(media);
        (0..40).for_each(|_| drop(site.put_bytes(100)));
        let held: Vec<usize> = site.ids.iter().map(|id| site.run(site.fragments(*id)).len()).collect();
        let spread = held.iter().max().unwrap() - held.iter().min().unwrap();
        assert!(spread <= 2, "{held:?}");
    }
}

/// What a write may come to when request `n` of its first stripe meets `fate`.
fn strike_one(media: usize, n: u64, fate: Fate) {
    let site = site(media);
    let before = site.put();
    site.script.strike(Kind::Write, n, if persists(fate) { 3 } else { 1 }, fate);
    let result = site.run(site.write(60_000));
    assert!(site.script.fired() > 0, "{media} media, request {n}, {fate:?}");
    site.script.clear();
    let what = format!("{media} media, request {n}, {fate:?}");
    let downs = matches!(fate, Fate::Refused(CallErrorKind::Failed | CallErrorKind::Unreachable));
    let full = fate == Fate::Refused(CallErrorKind::NoSpace);
    let width = before.stripe.class.width();
    let written = match result {
        Ok(written) => written,
        Err(error) if full => {
            assert_eq!((error.kind, media), (PoolErrorKind::NoSpace, width), "{what}: {error}");
            assert_eq!(site.run(site.all_fragments()).len(), width, "{what}: nothing is left");
            return;
        }
        Err(error) => {
            assert_eq!(error.kind, PoolErrorKind::TooFewMedia, "{what}: {error}");
            assert!(media <= 2 && downs, "{what}: {error}");
            return;
        }
    };
    site.settle();
    let kept = site.kept(&written);
    assert_eq!(site.up(), media - usize::from(downs), "{what}");
    assert_eq!(kept.stripe.class, class_for(site.up()).unwrap(), "{what}");
    let again = downs || full || matches!(fate, Fate::Refused(_) | Fate::Nonsense);
    assert_eq!(lock(&site.abandoned).len(), usize::from(again), "{what}");
    assert!(!again || kept.id().number > before.id().number + 1, "{what}: a number is never used twice");
    assert_stands(&site, &kept, &[before]);
}

/// Three strikes where each attempt must be struck for the request to fail.
fn persists(fate: Fate) -> bool {
    fate == Fate::Refused(CallErrorKind::Unreachable)
}

#[test]
fn any_failed_request_leaves_a_whole_stripe_or_none() {
    use CallErrorKind::{Corrupt, Failed, Invalid, NoSpace, Unreachable};
    for media in [1, 2, 3, 4, 5, 6, 7, 10, 12] {
        let width = class_for(media).unwrap().width() as u64;
        for n in 0..width {
            for kind in [Failed, NoSpace, Corrupt, Invalid] {
                strike_one(media, n, Fate::Refused(kind));
            }
            for fate in [Fate::Dropped, Fate::AnswerLost, Fate::Twice, Fate::Late, Fate::Slow, Fate::Nonsense]
            {
                strike_one(media, n, fate);
            }
        }
        // Three requests in a row without an answer: all of one medium when there is one.
        if media == 1 {
            strike_one(media, 0, Fate::Refused(Unreachable));
        }
    }
}

#[test]
fn media_that_fail_one_after_the_other_shrink_the_class() {
    let site = site(7);
    let mut all = vec![site.put()];
    for failed in 0..5 {
        site.script.strike_all(Kind::Write, medium_id(failed), Fate::Refused(CallErrorKind::Failed));
        let kept = loop {
            let kept = site.put();
            all.push(kept.clone());
            if site.up() == 6 - failed {
                break kept;
            }
        };
        assert_eq!(kept.stripe.class, class_for(6 - failed).unwrap());
        assert!(!kept.stripe.members.contains(&medium_id(failed)));
    }
    // One of seven: nothing that a single loss would take is acknowledged.
    site.script.strike_all(Kind::Write, medium_id(5), Fate::Refused(CallErrorKind::Failed));
    let error = site.run(site.write(100)).unwrap_err();
    assert_eq!(error.kind, PoolErrorKind::TooFewMedia);
    assert_eq!(site.pool.current_class(), None);
    let numbers = site.next.load(Ordering::Relaxed);
    site.run(site.write(100)).unwrap_err();
    assert_eq!(site.next.load(Ordering::Relaxed), numbers, "no number is spent on what cannot be written");
    for kept in &all[..1] {
        // Down for the pool, though they still answer.
        super::site::assert_lost(site.run(site.read_all(kept)), kept);
    }
    site.script.clear();
    site.ids.iter().for_each(|id| site.pool.restore(*id));
    for kept in &all {
        site.run(site.read_all(kept)).unwrap();
    }
    assert_eq!(site.put().stripe.class, class_for(7).unwrap());
}

#[test]
fn two_media_fail_in_one_stripe() {
    let site = site(6);
    for failed in [1, 4] {
        site.script.strike_all(Kind::Write, medium_id(failed), Fate::Refused(CallErrorKind::Failed));
    }
    let kept = site.put();
    assert_eq!(kept.stripe.class, class_for(4).unwrap());
    assert_eq!(lock(&site.abandoned).len(), 1, "both were left out at once");
}

#[test]
fn one_lost_message_takes_no_medium_down_three_do() {
    let site = site(3);
    let medium = medium_id(1);
    for (times, up) in [(1, 3), (2, 3), (3, 2)] {
        let rule = super::script::Rule {
            kind: Kind::Write,
            medium: Some(medium),
            skip: 0,
            times,
            fate: Fate::Dropped,
        };
        site.script.rule(rule);
        site.put();
        assert_eq!(site.up(), up, "{times} messages lost");
        site.script.clear();
    }
    let health = site.pool.health();
    assert!(health[1].reason.is_some() && !health[1].up);
}

#[test]
fn a_failure_from_before_a_restore_is_not_held_against_the_medium() {
    let site = site(3);
    let write = |restored: bool| {
        site.script.strike(Kind::Write, 0, 1, Fate::SlowFailure);
        let write: BoxFuture<'_, ()> = Box::pin(async { drop(site.write(60_000).await.unwrap()) });
        let restore: BoxFuture<'_, ()> = Box::pin(async {
            site.rt.sleep(Duration::from_secs(1)).await;
            if restored {
                site.ids.iter().for_each(|id| site.pool.restore(*id));
            }
        });
        site.run(seam::join_all([write, restore]));
        site.up()
    };
    assert_eq!(write(true), 3);
    assert_eq!(write(false), 2);
}

#[test]
fn the_journal_too_says_when_it_asked() {
    let site = site(3);
    let medium = site.ids[1];
    let asked = site.pool.restores(medium);
    site.pool.restore(medium);
    Ensembles::failed(&site.pool, medium, asked, false, "it was away");
    assert_eq!(site.up(), 3);
    Ensembles::failed(&site.pool, medium, site.pool.restores(medium), false, "it is away");
    assert_eq!(site.up(), 2);
}

#[test]
fn a_late_duplicate_of_an_abandoned_fragment_stays_until_reconciled() {
    let site = site(4);
    // The second fragment's message is lost and comes late; the third medium fails, so the stripe is given up.
    site.script.strike(Kind::Write, 1, 1, Fate::Late);
    site.script.strike(Kind::Write, 2, 1, Fate::Refused(CallErrorKind::Failed));
    let kept = site.put();
    site.settle();
    let left: Vec<_> =
        site.run(site.all_fragments()).into_iter().filter(|(id, _)| *id != kept.id()).collect();
    assert_eq!(left.len(), 1, "the late message put it there: {left:?}");
    for id in &site.ids {
        site.pool.restore(*id);
        site.run(site.pool.reconcile(*id, &|container| container == kept.id(), &|_| ()));
    }
    assert_stands(&site, &kept, &[]);
}
