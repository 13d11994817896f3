//! Goal: reconciling frees what was never committed, all of it, and nothing else.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use container::FragmentHeader;
use proto::{CallErrorKind, Request};
use seam::Runtime;
use units::{ContainerId, Incarnation, PageBuf};

use super::script::{Fate, Kind, Rule};
use super::site::{Site, medium_id, site};
use crate::stripe::lock;
use crate::{ReconcileReport, class_for};

const MANY: u32 = 2500;

fn id(number: u32) -> ContainerId {
    ContainerId { incarnation: Incarnation(5), number, class: 0, row: 0 }
}

fn is_committed(id: ContainerId) -> bool {
    !id.number.is_multiple_of(3)
}

/// A medium with more fragments than one page of the list holds.
fn crowded() -> Site {
    let site = super::site::site_of(&[32 << 20]);
    let payload = PageBuf::copy_of(&[9; 4096]).share();
    site.run(async {
        for number in 0..MANY {
            let header = FragmentHeader {
                container: id(number),
                index: 0,
                k: 1,
                m: 0,
                container_bytes: 100,
                allocation: 0,
                locked_until: 0,
                members: vec![medium_id(0)],
                page_crcs: FragmentHeader::crcs_of(&payload),
            };
            let payload = payload.clone();
            let request = Request::FragmentWrite { header: Box::new(header), payload, replace: false };
            site.direct(medium_id(0), request).await.unwrap();
        }
    });
    site
}

fn reconcile(site: &Site) -> (ReconcileReport, BTreeSet<ContainerId>) {
    let kept = Mutex::new(BTreeSet::new());
    let keep = |id| {
        lock(&kept).insert(id);
    };
    let report = site.run(site.pool.reconcile(medium_id(0), &is_committed, &keep));
    (report, kept.into_inner().unwrap())
}

#[test]
fn uncommitted_fragments_go_page_by_page() {
    let site = crowded();
    let committed: BTreeSet<_> = (0..MANY).map(id).filter(|id| is_committed(*id)).collect();
    let (kept, freed) = (committed.len() as u64, u64::from(MANY) - committed.len() as u64);
    let (report, seen) = reconcile(&site);
    assert_eq!(report, ReconcileReport { kept, freed, left: 0, complete: true, refused: Vec::new() });
    assert_eq!(seen, committed);
    let left: BTreeSet<_> = site.run(site.fragments(medium_id(0))).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, committed);
    assert_eq!(
        reconcile(&site).0,
        ReconcileReport { kept, freed: 0, left: 0, complete: true, refused: Vec::new() }
    );
}

#[test]
fn what_could_not_be_listed_or_freed_is_said_and_found_again() {
    let site = crowded();
    site.script.strike(Kind::Free, 0, 1, Fate::Refused(CallErrorKind::NoSpace));
    let (report, _) = reconcile(&site);
    assert!(report.complete && report.left > 300, "{report:?}");
    assert_eq!(report.left + report.freed, 834);
    site.script.strike(Kind::List, 1, 1, Fate::Refused(CallErrorKind::Corrupt));
    let (half, _) = reconcile(&site);
    assert!(!half.complete && half.freed == report.left, "{half:?}");
    let (rest, _) = reconcile(&site);
    assert!(rest.complete && rest.freed == 0);
    // A medium that repeats itself ends the list.
    site.script.clear();
    let repeat = Rule { kind: Kind::List, medium: None, skip: 1, times: 1, fate: Fate::Nonsense };
    site.script.rule(repeat);
    assert!(!reconcile(&site).0.complete);
    site.take(medium_id(0));
    assert_eq!(reconcile(&site).0, ReconcileReport::default(), "nothing is known of a medium away");
}

#[test]
fn a_medium_that_comes_back_loses_what_was_given_up_meanwhile() {
    let site = site(4);
    let first = site.put();
    // The last medium takes its fragment, fails to say so, and is away when the stripe is given up.
    let medium = medium_id(3);
    site.script.strike_all(Kind::Write, medium, Fate::AnswerLost);
    let second = site.put();
    assert_eq!(second.stripe.class, class_for(3).unwrap());
    site.script.clear();
    assert_eq!(site.run(site.fragments(medium)).len(), 2, "one of them nobody will ever ask for");
    site.pool.restore(medium);
    let committed = |id: ContainerId| id == first.id() || id == second.id();
    let report = site.run(site.pool.reconcile(medium, &committed, &|_| ()));
    assert_eq!(report, ReconcileReport { kept: 1, freed: 1, left: 0, complete: true, refused: Vec::new() });
}

/// What is done at once.
type Work<'a> = Pin<Box<dyn Future<Output = Option<ReconcileReport>> + 'a>>;

/// Fragments of a row that has moved away are about to go, and wait for their turn; meanwhile the row moves
/// back.
#[test]
fn a_row_that_comes_back_meanwhile_keeps_its_fragments() {
    let site = site(7);
    let kept = site.put();
    let row = site.pool.row(kept.id().class, kept.id().row).unwrap();
    let medium = row.members[0];
    let spare = *site.ids.iter().find(|id| !row.members.contains(id)).expect("wider than a stripe");
    let elsewhere: Vec<_> = [spare].into_iter().chain(row.members[1..].iter().copied()).collect();
    let away = row.changed(elsewhere.clone(), Vec::new());
    let back = away.changed(elsewhere.clone(), row.members.clone());
    let gone = back.changed(elsewhere, Vec::new());
    site.pool.load_rows(&[away]);
    let (committed, keep) = (|_: ContainerId| true, |_: ContainerId| ());
    let reconcile = || site.pool.reconcile(medium, &committed, &keep);
    let reports = site.run(async {
        let turn = site.pool.turn().await;
        let reconciling: Work<'_> = Box::pin(async { Some(reconcile().await) });
        let changing: Work<'_> = Box::pin(async {
            // By now the other has seen what has no place there, and waits.
            site.rt.sleep(Duration::from_secs(1)).await;
            site.pool.load_rows(&[back]);
            drop(turn);
            None
        });
        seam::join_all([reconciling, changing]).await
    });
    assert_eq!(reports[0].clone().map(|report| (report.freed, report.left)), Some((0, 0)));
    assert_eq!(site.run(site.fragments(medium)), [(kept.id(), 0)], "the row moves there");
    site.pool.load_rows(&[gone]);
    assert_eq!(site.run(reconcile()).freed, 1);
    assert!(site.run(site.fragments(medium)).is_empty());
}
