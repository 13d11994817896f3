//! Goal: segments follow each other while the witness is away, and one medium more may fail; whatever it did with what it
//! did not answer, no record is acknowledged on an ensemble that it does not hold, and whoever seals a member of each that
//! it holds finds every acknowledged record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::SegmentId;
use seam::Rt;
use units::{MediumId, Seq};

use super::fake::*;
use crate::registry::{Choice, Registry};
use crate::{
    ENSEMBLES_MAX, Ensemble, Ensembles, JournalErrorKind, Record, RecoverErrorKind, Registered, recover,
};

fn leased() -> Options {
    Options { leases: true, segments_max: 60, ..Options::default() }
}

async fn open(rt: &Rt, media: u8) -> Site {
    let site = Site::open(rt, &FakeMedia::new(media), None, leased()).await.unwrap();
    rt.sleep(Duration::from_secs(3)).await;
    site
}

/// A segment that is full; how long it took.
async fn roll(rt: &Rt, site: &Site, n: u64) -> Duration {
    let begun = rt.now();
    end(site.journal.append(vec![write(n, 3000)])).await.unwrap();
    end(site.journal.rotate()).await.unwrap();
    rt.now() - begun
}

fn ensemble(members: &[u8]) -> Ensemble {
    Ensemble::new(&members.iter().map(|n| medium(*n)).collect::<Vec<_>>()).unwrap()
}

fn covered(site: &Site) -> usize {
    let ids = site.media.ids();
    let without = |lost: &&MediumId| site.registered().ensembles.iter().any(|e| !e.members().contains(lost));
    ids.iter().filter(without).count()
}

#[test]
fn segments_follow_each_other_without_the_witness() {
    for media in 3..=7 {
        run(u64::from(media), async |rt| {
            let site = open(&rt, media).await;
            site.set_answers(Answers::Never);
            for n in 0..30 {
                let took = roll(&rt, &site, n).await;
                assert!(took < Duration::from_millis(1), "{took:?} for segment {n} of {media} media");
            }
            assert_eq!(site.durable().len(), 30);
        });
    }
}

#[test]
fn a_site_that_is_well_stores_no_more_once_all_is_registered() {
    run(1, async |rt| {
        for media in (3..=30).step_by(3) {
            let site = open(&rt, media).await;
            for n in 0..20 {
                roll(&rt, &site, n).await;
                rt.sleep(Duration::from_millis(700)).await;
            }
            let stores = site.stores();
            for n in 0..30 {
                roll(&rt, &site, n).await;
                rt.sleep(Duration::from_millis(700)).await;
            }
            assert_eq!(site.stores(), stores, "{media} media");
            assert!(site.registered().ensembles.iter().all(|ensemble| ensemble.members().len() == 3));
        }
    });
}

#[test]
fn any_one_medium_may_fail_while_the_witness_is_away() {
    for media in 4..=5 {
        for lost in 1..=media {
            run(u64::from(lost), async |rt| {
                let site = open(&rt, media).await;
                assert_eq!(covered(&site), usize::from(media), "the loss of each leaves an ensemble");
                site.set_answers(Answers::Never);
                roll(&rt, &site, 1).await;
                site.media.with(|inner| inner.media.get_mut(&medium(lost)).unwrap().down = true);
                for n in 2..20 {
                    let took = roll(&rt, &site, n).await;
                    assert!(took < Duration::from_secs(1), "{took:?} for segment {n}");
                }
                // The next failure is one too many; when the witness is back all goes on.
                let next = site.media.ids().into_iter().find(|id| *id != medium(lost)).unwrap();
                site.media.with(|inner| inner.media.get_mut(&next).unwrap().down = true);
                let mut append = site.journal.append(vec![hole(1)]);
                assert!(waits(&rt, &mut append).await || media > 4);
                site.set_answers(Answers::Well);
                if media == 4 {
                    end(append).await.unwrap();
                }
                end(site.journal.append(vec![hole(2)])).await.unwrap();
            });
        }
    }
}

/// A medium that is to leave is let go of, though a pair is all that is left.
#[test]
fn a_medium_that_leaves_is_in_no_ensemble() {
    run(1, async |rt| {
        let site = open(&rt, 3).await;
        roll(&rt, &site, 1).await;
        site.pool.leaving.lock().unwrap().insert(medium(2));
        let took = roll(&rt, &site, 2).await;
        assert!(took < Duration::from_millis(100), "{took:?}");
        rt.sleep(Duration::from_secs(3)).await;
        assert_eq!(site.registered().ensembles, [ensemble(&[1, 3])]);
        let covered = site.journal.next_seq();
        end(site.journal.append_control(vec![commit(1, covered)])).await.unwrap();
        assert!(site.journal.is_on(medium(2)));
        site.journal.trim(covered);
        assert!(!site.journal.is_on(medium(2)) && site.journal.is_on(medium(3)));
        // While the witness is away its last word counts.
        site.set_answers(Answers::Never);
        site.pool.leaving.lock().unwrap().clear();
        rt.sleep(Duration::from_secs(5)).await;
        assert!(site.journal.is_on(medium(2)), "it may be registered");
    });
}

/// With three media no pair is registered ahead: the third alone could not tell any more whether the others went on.
#[test]
fn three_media_wait_for_the_witness_when_one_fails() {
    run(1, async |rt| {
        let site = open(&rt, 3).await;
        assert_eq!(site.registered().ensembles, [ensemble(&[1, 2, 3])]);
        site.set_answers(Answers::Never);
        site.media.with(|inner| inner.media.get_mut(&medium(3)).unwrap().down = true);
        let mut append = site.journal.append(vec![hole(1)]);
        assert!(waits(&rt, &mut append).await);
        site.set_answers(Answers::Well);
        end(append).await.unwrap();
        rt.sleep(Duration::from_secs(3)).await;
        assert_eq!(site.registered().ensembles, [ensemble(&[1, 2])]);
        // The third comes back while the witness is away: the pair still serves, after a look for something better.
        site.set_answers(Answers::Never);
        site.media.with(|inner| inner.media.get_mut(&medium(3)).unwrap().down = false);
        site.pool.restore();
        let took = roll(&rt, &site, 2).await;
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(2), "{took:?}");
        rt.sleep(Duration::from_secs(5)).await;
        let took = roll(&rt, &site, 3).await;
        assert!(took < Duration::from_millis(1), "it is known that nobody answers: {took:?}");
        // Then the pair goes, and with it what it costs.
        site.set_answers(Answers::Well);
        rt.sleep(Duration::from_secs(5)).await;
        roll(&rt, &site, 3).await;
        rt.sleep(Duration::from_secs(3)).await;
        assert_eq!(site.registered().ensembles, [ensemble(&[1, 2, 3])]);
    });
}

#[test]
fn writers_hear_in_time_that_nothing_can_be_registered() {
    run(1, async |rt| {
        let site = open(&rt, 3).await;
        site.set_answers(Answers::Never);
        site.media.with(|inner| inner.media.get_mut(&medium(3)).unwrap().down = true);
        let begun = rt.now();
        let error = end(site.journal.append(vec![hole(1)])).await.unwrap_err();
        assert_eq!(error.kind, JournalErrorKind::TooFewMedia);
        assert!((20..30).contains(&(rt.now() - begun).as_secs()), "guests wait 30 s");
        site.set_answers(Answers::Well);
        end(site.journal.append(vec![hole(2)])).await.unwrap();
    });
}

#[test]
fn whoever_is_superseded_ends() {
    run(1, async |rt| {
        let site = open(&rt, 4).await;
        site.set_answers(Answers::Superseded);
        // Nothing has to be registered, so nothing is noticed; what seals the media is.
        roll(&rt, &site, 1).await;
        site.media.with(|inner| inner.media.get_mut(&medium(1)).unwrap().down = true);
        for n in 2..6 {
            drop(end(site.journal.append(vec![write(n, 3000)])).await);
            drop(end(site.journal.rotate()).await);
        }
        rt.sleep(Duration::from_secs(2)).await;
        let changes = site.media.with(|inner| inner.changes);
        assert_eq!(end(site.journal.append(vec![hole(1)])).await.unwrap_err().kind, JournalErrorKind::Fenced);
        assert_eq!(site.media.with(|inner| inner.changes), changes);
    });
    run(2, async |rt| {
        let options = Options { answers: Answers::Superseded, ..leased() };
        let error = Site::open(&rt, &FakeMedia::new(4), None, options).await.err().unwrap();
        assert_eq!(error.kind, JournalErrorKind::Fenced);
    });
}

#[test]
fn a_member_of_each_registered_ensemble_must_be_there() {
    run(1, async |rt| {
        let site = open(&rt, 5).await;
        for n in 0..9 {
            roll(&rt, &site, n).await;
            rt.sleep(Duration::from_millis(700)).await;
        }
        let (media, known) = (site.media.restarted(), site.registered());
        assert!(known.ensembles.len() >= 5 && known.last.is_some());
        let (mut whole, mut refused) = (0, 0);
        for here in subsets(&media.ids(), 4) {
            let unknown = |e: &Ensemble| !e.members().iter().any(|member| here.contains(member));
            match recover(&*media, &here, &KEY, &known).await {
                Ok(recovered) => {
                    assert!(!known.ensembles.iter().any(unknown), "{here:?}");
                    assert_eq!(data_of(&recovered.unwrap()).len(), 9);
                    whole += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind, RecoverErrorKind::TooFewMedia, "{error}");
                    let named = known.ensembles.iter().filter(|e| unknown(e)).map(ToString::to_string);
                    assert!(named.into_iter().all(|media| error.reason.contains(&media)), "{error}");
                    assert!(here.len() < 3, "two may be lost");
                    refused += 1;
                }
            }
        }
        assert!(whole >= 16 && refused > 0);
        // One that is there and cannot say what it holds does not count.
        media.with(|inner| inner.media.values_mut().for_each(|m| m.down = true));
        let error = recover(&*media, &media.ids(), &KEY, &known).await.unwrap_err();
        assert_eq!(error.kind, RecoverErrorKind::TooFewMedia);
    });
}

/// The hint lies behind the newest segment, which may have been freed by then.
#[test]
fn a_hint_that_lags_is_no_loss() {
    run(1, async |rt| {
        let site = open(&rt, 5).await;
        let early = site.registered();
        for n in 0..20 {
            roll(&rt, &site, n).await;
        }
        let seq = site.journal.next_seq();
        end(site.journal.append_control(vec![commit(1, seq)])).await.unwrap();
        end(site.journal.append(vec![write(50, 100)])).await.unwrap();
        site.journal.trim(seq);
        rt.sleep(Duration::from_secs(2)).await;
        let hint = early.last.unwrap();
        assert!(!site.media.with(|inner| inner.media.values().any(|m| m.segments.contains_key(&hint))));
        let known = Registered { last: early.last, ..site.registered() };
        for here in subsets(&site.media.ids(), 2) {
            let recovered = recover(&*site.media, &here, &KEY, &known).await.unwrap().unwrap();
            assert!(data_of(&recovered).contains_key(&Seq(seq.0 + 1)));
        }
        // Media that were rolled back behind it are noticed.
        let newest: Vec<SegmentId> =
            site.media.with(|inner| inner.media[&medium(1)].segments.keys().copied().collect());
        let known = Registered { last: newest.last().copied(), ensembles: Vec::new() };
        let old = FakeMedia::new(5);
        assert_eq!(recover(&*old, &old.ids(), &KEY, &known).await.unwrap_err().kind, RecoverErrorKind::Lost);
    });
}

/// A stream that ends anyhow, while media fail and the witness does as it likes; then what it says is enough to find all.
async fn life(
    rt: &Rt,
    media: &Arc<FakeMedia>,
    told: &mut BTreeMap<Seq, Record>,
    known: &Registered,
    epoch: u64,
    seed: u64,
) -> Registered {
    let ids = media.ids();
    let recovered = recover(&**media, &ids, &KEY, known).await.unwrap();
    if let Some(recovered) = &recovered {
        let found = data_of(recovered);
        for (seq, record) in &*told {
            assert_eq!(found.get(seq), Some(record), "seed {seed}: acknowledged seq {} is there", seq.0);
        }
        *told = found;
    }
    let dice = |n: u64| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (7 * n)) % 64;
    let changes = media.with(|inner| inner.changes);
    media.fault_at(changes + dice(epoch), Fault::Down);
    media.fault_at(changes + 20 + 2 * dice(epoch + 3), Fault::Crash);
    let options = Options {
        epoch,
        registered: known.clone(),
        answers: Answers::AsItLikes(seed * 3 + epoch),
        ..leased()
    };
    let Ok(site) = Site::open(rt, media, recovered.as_ref(), options).await else {
        return known.clone();
    };
    for n in 0..30 {
        if end(site.journal.append(vec![write(epoch * 100 + n, 2500), hole(n)])).await.is_err() {
            break;
        }
        match dice(n % 5 + epoch) % 4 {
            0 => drop(end(site.journal.rotate()).await),
            1 => rt.sleep(Duration::from_millis(dice(n % 7) * 40)).await,
            _ => {}
        }
    }
    told.extend(site.durable().iter().map(|(seq, e)| (*seq, record(e))).filter(|(_, r)| is_data(r)));
    rt.sleep(Duration::from_millis(dice(4) * 50)).await;
    site.registered()
}

#[test]
fn what_the_witness_says_is_enough_whatever_it_answered() {
    for seed in 0..120 {
        run(seed, async |rt| {
            let (mut told, mut known) = (BTreeMap::new(), Registered::default());
            let mut media = FakeMedia::new(4 + (seed % 3) as u8);
            for epoch in 1..4 {
                known = life(&rt, &media, &mut told, &known, epoch, seed).await;
                media = media.restarted();
                for here in subsets(&media.ids(), 2) {
                    let found = recover(&*media, &here, &KEY, &known).await;
                    let found = found.unwrap_or_else(|error| panic!("seed {seed}, on {here:?}: {error}"));
                    let found = found.as_ref().map(data_of).unwrap_or_default();
                    for (seq, record) in &told {
                        assert_eq!(found.get(seq), Some(record), "seed {seed}, epoch {epoch}, on {here:?}");
                    }
                }
            }
        });
    }
}

#[test]
fn the_list_stays_bounded_and_keeps_those_of_the_streams_before() {
    let media: Vec<MediumId> = (1..=60).map(medium).collect();
    let pool = FakePool { media, width: 3, ..FakePool::default() };
    // Takeovers that all end before they have a segment, each without the media that the one before would have used.
    let mut registered = Registered::default();
    for round in 0..40 {
        let mut registry = Registry::new(registered.clone());
        let choice = registry.choose(&pool, 0);
        if let Some(next) = registry.next_store(&pool) {
            assert_eq!(choice, Choice::Unregistered);
            assert!(registered.ensembles.iter().all(|ensemble| next.ensembles.contains(ensemble)));
            assert!(next.ensembles.len() <= registered.ensembles.len() + 1);
            registered = next;
        }
        assert!(registered.ensembles.len() <= ENSEMBLES_MAX);
        if round < 15 {
            pool.failed(pool.ensemble(0)[0], 0, false, "gone");
        }
    }
    // Once one has a segment the others go.
    let mut registry = Registry::new(registered);
    let Choice::Fit(members) = registry.choose(&pool, 0) else { panic!("it is registered") };
    registry.open(&members);
    registry.opened(SegmentId { epoch: units::Epoch(9), stream: units::Incarnation(9), number: 0 });
    let next = registry.next_store(&pool).unwrap();
    assert!(next.ensembles.contains(&Ensemble::new(&members).unwrap()) && next.ensembles.len() <= 9);
}
