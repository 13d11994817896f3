//! A database at its quota.

use std::time::Duration;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
use meta::{ErrorKind, KeyRange, Op, Store, Txn};

use super::cluster::{Cluster, Shape};
use super::{all, commit, get, key, put, run, store};

const QUOTA: &str = "4194304";

/// Puts are refused as `Full` and not done, deletions are; after room was made it goes on.
#[test]
fn a_full_database_refuses_puts_until_there_is_room() {
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(1).with(&["--quota-backend-bytes", QUOTA])).await;
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", Duration::from_secs(5)).await;
        commit(&*store, put("small", "1")).await;
        let mut number = 0;
        let error = loop {
            assert!(number < 100, "the quota is in force");
            match store.txn(put(&format!("big/{number}"), vec![7; 200_000])).await {
                Ok(_) => number += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, ErrorKind::Full, "{error}");
        assert!(number > 4 && get(&*store, &format!("big/{number}")).await.is_none(), "nothing was done");
        for _ in 0..2 {
            let error = store.txn(put("small", "2")).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Full, "{error}");
        }
        assert_eq!(get(&*store, "small").await.unwrap().version, 1);
        let error = store.grant(Duration::from_secs(9)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Full, "{error}");
        // Deleting goes on, and reads do.
        let gone = commit(&*store, Txn::new().then(Op::Delete(all("big/")))).await;
        assert_eq!(store.range(KeyRange::all(), 9, None).await.unwrap().kvs.len(), 1);

        cluster.compact(gone.0).await;
        let mut admin = cluster.client(0).await;
        admin.defragment().await.unwrap();
        let alarms = admin.alarm(AlarmAction::Get, AlarmType::Nospace, None).await.unwrap();
        let mut options = AlarmOptions::new();
        options.with_member(alarms.alarms()[0].member_id());
        admin.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options)).await.unwrap();
        commit(&*store, put("small", "2")).await;
        commit(&*store, Txn::new().then(Op::put(key("big/again"), vec![7; 200_000]))).await;
        assert_eq!(get(&*store, "small").await.unwrap().version, 2);
    });
}

/// Many writers fill it at once. The one that goes over the edge is done, and etcd calls that full: what a writer was told
/// must still be true.
#[test]
fn full_means_that_nothing_was_done() {
    run(async |rt| {
        let cluster = Cluster::start(&rt, Shape::of(1).with(&["--quota-backend-bytes", QUOTA])).await;
        let store = store(&rt, &cluster.endpoints_from(0), "/a/", Duration::from_secs(5)).await;
        let mut writers = Vec::new();
        for task in 0..16 {
            let store = store.clone();
            writers.push(super::background(&rt, async move {
                let mut outcomes = Vec::new();
                for round in 0..20 {
                    let name = format!("w/{task}/{round}");
                    let outcome = store.txn(put(&name, vec![7; 60_000])).await.map_err(|error| error.kind);
                    outcomes.push((name, outcome));
                }
                outcomes
            }));
        }
        let (mut done, mut full) = (0, 0);
        for writer in writers {
            for (name, outcome) in writer.await.unwrap() {
                let there = get(&*store, &name).await.is_some();
                match outcome {
                    Ok(_) => assert!(there, "{name} was acknowledged"),
                    Err(ErrorKind::Full) => assert!(!there, "{name} was not done"),
                    Err(kind) => assert_eq!(kind, ErrorKind::Unknown),
                }
                done += usize::from(outcome.is_ok());
                full += usize::from(outcome == Err(ErrorKind::Full));
            }
        }
        // etcd finds out late how full it is: how many are refused depends on its disk.
        assert!(done > 10 && full > 10, "{done} done, {full} refused");
    });
}
