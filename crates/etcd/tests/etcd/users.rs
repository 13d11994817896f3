//! Goal: etcd asks who somebody is. A user does what its role may and nothing else, nobody else does anything, and a removed
//! user nothing any more, whatever connections it has.

use std::sync::Arc;
use std::time::Duration;

use ::etcd::{Etcd, Options, Right, UserRole};
use meta::{Compare, ErrorKind, KeyRange, Op, Result, Store, Txn};
use seam::Rt;

use super::cluster::{Cluster, Shape};
use super::tls::Authority;
use super::{commit, get, key, names, put, run};

fn of(table: &str) -> KeyRange {
    KeyRange::prefix(format!("{table}/").into_bytes())
}

struct World {
    rt: Rt,
    authority: Authority,
    cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start(rt: &Rt) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let cluster = Cluster::start(rt, authority.guard(Shape::of(3), folder.path())).await;
        Self { rt: rt.clone(), authority, cluster, _folder: folder }
    }

    async fn connect(&self, name: &str) -> Result<Arc<Etcd>> {
        let tls = Some(self.authority.client_as(name, &self.authority));
        let (deadline, probe) = (Duration::from_secs(5), of("node"));
        let options = Options { tls, deadline, probe, ..Options::new(self.cluster.endpoints_from(0), "/a/") };
        Etcd::connect(self.rt.clone(), options).await.map(Arc::new)
    }
}

fn refused<T>(outcome: Result<T>) {
    let error = outcome.err().expect("that is not for everybody");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.context.contains("permission denied"), "{error}");
}

#[test]
fn a_user_does_what_its_role_may() {
    run(async |rt| {
        let world = World::start(&rt).await;
        let admin = world.connect("m1").await.unwrap();
        for _ in 0..2 {
            admin.require_users("m1").await.unwrap();
            admin.set_role("data", &[(of("node"), Right::Read)]).await.unwrap();
            let grants = [(of("node"), Right::Read), (of("claim"), Right::Write)];
            admin.set_role("compute", &grants).await.unwrap();
            admin.set_user("d1", UserRole::Of("data")).await.unwrap();
            admin.set_user("c1", UserRole::Of("compute")).await.unwrap();
        }
        assert_eq!(admin.users().await.unwrap().len(), 4, "with root, for which there is no certificate");
        assert!(admin.has_role("d1", &["data", "other"]).await.unwrap());
        assert!(!admin.has_role("c1", &["data"]).await.unwrap());
        assert!(!admin.has_role("nobody", &["data"]).await.unwrap());
        let from = commit(&*admin, put("node/d1", "here")).await;
        commit(&*admin, put("token/t", "secret")).await;

        let (data, compute) = (world.connect("d1").await.unwrap(), world.connect("c1").await.unwrap());
        assert_eq!(&*get(&*data, "node/d1").await.unwrap().value, b"here");
        let mut watch = data.watch(of("node"), from).await.unwrap();
        assert_eq!(names(&rt, &mut *watch, 1).await, ["node/d1=here"]);
        for other in ["token/t", "claim/0", "node0"] {
            refused(data.get(&key(other)).await);
        }
        refused(data.range(KeyRange::all(), 10, None).await);
        refused(data.txn(put("node/d1", "there")).await);
        refused(data.txn(put("claim/0", "mine")).await);
        refused(data.set_user("d2", UserRole::Of("data")).await);
        refused(data.set_user("d1", UserRole::Administrator).await);
        refused(data.users().await);

        let lease = compute.grant(Duration::from_secs(5)).await.unwrap().id;
        let claim = Op::put_leased(key("claim/0"), b"c1".as_slice(), lease);
        commit(&*compute, Txn::new().when(Compare::absent(key("claim/0"))).then(claim)).await;
        refused(
            compute
                .txn(
                    Txn::new()
                        .when(Compare::absent(key("token/t")))
                        .then(Op::put(key("claim/0"), b"".as_slice())),
                )
                .await,
        );
        refused(compute.txn(put("node/d1", "gone")).await);
        compute.keep_alive(lease).await.unwrap();
        refused(data.revoke(lease).await);
        compute.revoke(lease).await.unwrap();
        assert!(get(&*admin, "claim/0").await.is_none());
        refused(world.connect("nobody").await);
        refused(world.connect("root/").await);
    });
}

#[test]
fn a_removed_user_does_nothing_any_more() {
    run(async |rt| {
        let world = World::start(&rt).await;
        let admin = world.connect("m1").await.unwrap();
        admin.require_users("m1").await.unwrap();
        admin.set_role("compute", &[(of("node"), Right::Read), (of("claim"), Right::Write)]).await.unwrap();
        for user in ["c1", "c2"] {
            admin.set_user(user, UserRole::Of("compute")).await.unwrap();
        }
        let (one, two) = (world.connect("c1").await.unwrap(), world.connect("c2").await.unwrap());
        commit(&*one, put("claim/0", "c1")).await;
        admin.remove_user("c1").await.unwrap();
        admin.remove_user("c1").await.unwrap();
        for _ in 0..3 {
            refused(one.txn(put("claim/0", "again")).await);
            refused(one.get(&key("claim/0")).await);
        }
        refused(world.connect("c1").await);
        assert_eq!(&*get(&*two, "claim/0").await.unwrap().value, b"c1");

        // Users that come and go beside them do not disturb the others.
        let (own, busy) = (admin.clone(), rt.clone());
        let coming = super::background(&busy, async move {
            for at in 0..20 {
                let user = format!("d{at}");
                own.set_user(&user, UserRole::Of("compute")).await.unwrap();
                own.remove_user(&user).await.unwrap();
            }
        });
        for at in 0..100 {
            commit(&*two, put("claim/0", at.to_string())).await;
        }
        coming.await.unwrap();
    });
}
