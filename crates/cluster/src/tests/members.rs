//! Goal: a node joins by a token that it alone used, is known to all, has its next certificate in time, and is nobody when
//! it was removed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use meta::{Embedded, Op, Options, Store, Txn};
use node::Directory;
use seam::{BoxFuture, Rt, TokioRuntime};
use tempfile::TempDir;
use tokio::sync::watch;
use trust::{Member, Role};
use units::NodeId;

use crate::founding::{Founded, Founding, found, load_founded};
use crate::joining::{Joining, join, renew};
use crate::manager::{Manager, TOKEN_LIFE};
use crate::port::Port;
use crate::records::Token;
use crate::token::JoinToken;
use crate::users::{Differing, Users};
use crate::wire::Join;
use crate::{Birth, KEY_FILE, members};

const SOON: Duration = Duration::from_secs(10);

/// Who may use the store, as etcd would have it.
#[derive(Default)]
struct Known(Mutex<BTreeSet<NodeId>>);

impl Known {
    fn set(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.0.lock().unwrap()
    }
}

impl Users for Known {
    fn require<'a>(&'a self, manager: &'a Member) -> BoxFuture<'a, api::Result<()>> {
        self.admit(manager)
    }

    fn admit<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, api::Result<()>> {
        self.set().insert(member.node);
        Box::pin(async { Ok(()) })
    }

    fn dismiss(&self, node: NodeId) -> BoxFuture<'_, api::Result<()>> {
        self.set().remove(&node);
        Box::pin(async { Ok(()) })
    }

    fn differ<'a>(&'a self, known: &'a [Member]) -> BoxFuture<'a, api::Result<Differing>> {
        let users = self.set();
        let missing = known.iter().filter(|member| !users.contains(&member.node)).copied().collect();
        let is_unknown = |node: &&NodeId| !known.iter().any(|member| member.node == **node);
        let left_over = users.iter().filter(is_unknown).copied().collect();
        Box::pin(async { Ok(Differing { missing, left_over }) })
    }
}

struct World {
    rt: Rt,
    folder: TempDir,
    store: Arc<dyn Store>,
    users: Arc<Known>,
    founded: Founded,
    manager: Arc<Manager>,
    port: Port,
}

impl World {
    async fn new() -> Self {
        let rt: Rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
        let folder = TempDir::new().unwrap();
        let directory = Directory::new(&folder.path().join("m1")).unwrap();
        let founding = Founding {
            name: "m1".to_owned(),
            listen: "127.0.0.1:7400".parse().unwrap(),
            etcd: vec![("e1".to_owned(), "127.0.0.1:2379".parse().unwrap())],
            data_nodes: 3,
            recovery_key_file: None,
        };
        let site = found(&rt, &directory, &founding).unwrap();
        let founded = load_founded(&directory).unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(rt.clone(), Options::default()));
        let again = load_founded(&directory).unwrap();
        let users = Arc::new(Known::default());
        let manager =
            Manager::new(&rt, store.clone(), users.clone(), again.authority, site, again.access, again.key);
        let manager = Arc::new(manager);
        let allowed = [Role::Data, Role::Compute, Role::Manager];
        let access = founded.identity.open_server(&rt, &allowed, None).unwrap();
        // The sender may go: what it was last is served with.
        let (_, access) = watch::channel(access);
        let port = Port::start(&rt, manager.clone(), access, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let birth = founded.birth.as_ref();
        assert_eq!(birth.map(|birth| birth.data_nodes), Some(3));
        manager.enrol(&founded.identity, "m1", port.address(), birth).await.unwrap();
        assert_eq!(Birth::find(&*store).await.unwrap().as_ref(), birth);
        Self { rt, folder, store, users, founded, manager, port }
    }

    fn directory(&self, name: &str) -> Directory {
        Directory::new(&self.folder.path().join(name)).unwrap()
    }

    async fn token(&self, role: Role) -> JoinToken {
        self.manager.new_token(role, self.port.address(), TOKEN_LIFE).await.unwrap()
    }

    async fn join(&self, name: &str, token: &JoinToken) -> api::Result<Member> {
        let address: SocketAddr = "127.0.0.1:7420".parse().unwrap();
        let joining = Joining { name: name.to_owned(), address: Some(address) };
        join(&self.rt, &self.directory(name), token, &joining).await
    }

    async fn refused(&self, name: &str, token: &JoinToken) -> &'static str {
        self.join(name, token).await.unwrap_err().code.name
    }
}

#[tokio::test]
async fn a_node_joins_with_a_token_that_nobody_else_can_use() {
    let world = World::new().await;
    let token = world.token(Role::Data).await;
    let typed = JoinToken::parse(&token.to_text()).unwrap();
    let member = world.join("d1", &typed).await.unwrap();
    assert_eq!(member.role, Role::Data);
    let (identity, revoked) = node::load_identity(&world.directory("d1")).unwrap();
    assert_eq!((identity.member(), revoked), (member, None));
    assert_eq!(
        machine::read_file(&world.directory("d1").file(KEY_FILE)).unwrap(),
        None,
        "data nodes have no key"
    );
    let nodes = members::nodes(&*world.store).await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["d1", "m1"]);
    assert_eq!(nodes[0].id, member.node);

    assert_eq!(world.refused("d2", &token).await, "token_refused", "it was used");
    assert_eq!(world.refused("d1", &token).await, "already_joined", "the directory is a node's");
    let other = world.token(Role::Compute).await;
    let joining = Joining { name: "m1".to_owned(), address: None };
    let taken = join(&world.rt, &world.directory("c0"), &other, &joining).await;
    assert_eq!(taken.unwrap_err().code, "node_name_taken");
    world.join("c1", &other).await.unwrap();
    let key = machine::read_file(&world.directory("c1").file(KEY_FILE)).unwrap();
    assert_eq!(key.as_deref(), Some(&world.founded.key[..]));
    let forged = JoinToken::new(&*world.rt, world.port.address(), token.authority);
    assert_eq!(world.refused("d3", &forged).await, "token_refused", "nobody gave it out");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let world = World::new().await;
    let token = world.token(Role::Data).await;
    let request = || trust::NewIdentity::create().unwrap().request().unwrap();
    let asked = Join { secret: *token.secret(), name: "d1".to_owned(), address: None, request: request() };
    let first = world.manager.join(&asked).await.unwrap();
    let again = world.manager.join(&asked).await.unwrap();
    assert!(first == again, "the same request has the same answer");
    let other = Join { request: request(), ..asked };
    assert_eq!(world.manager.join(&other).await.err().map(|error| error.code.name), Some("token_refused"));
    assert_eq!(members::nodes(&*world.store).await.unwrap().len(), 2);

    // A node that was cut off behind its question asks the same again.
    let (token, directory) = (world.token(Role::Data).await, world.directory("d2"));
    let new = trust::NewIdentity::create().unwrap();
    let asked = new.request().unwrap();
    machine::make_directory(directory.root()).unwrap();
    machine::replace_file(&directory.file("joining.key"), &new.key()).unwrap();
    machine::replace_file(&directory.file("joining.csr"), &asked).unwrap();
    let asked = Join { secret: *token.secret(), name: "d2".to_owned(), address: None, request: asked };
    world.manager.join(&asked).await.unwrap();
    world.join("d2", &token).await.unwrap();
    assert!(!directory.file("joining.key").exists());
}

#[tokio::test]
async fn who_writes_to_the_store_names_nobody() {
    let world = World::new().await;
    // Any node may write there, and knows what a record looks like.
    let own = JoinToken::new(&*world.rt, world.port.address(), world.token(Role::Data).await.authority);
    let expires_ms = world.rt.wall_ms() + 60_000;
    let forged = Token { role: Role::Compute, expires_ms, code: [7; 32], used: None };
    let given = Token::new(&world.founded.authority, own.secret(), Role::Data, expires_ms);
    for record in [forged, Token { role: Role::Compute, ..given.clone() }] {
        let (key, value) = (Token::key(own.secret()).unwrap(), record.encode().unwrap());
        world.store.txn(Txn::new().then(Op::put(key, value))).await.unwrap();
        assert_eq!(world.refused("c1", &own).await, "token_refused");
    }
    let (key, value) = (Token::key(own.secret()).unwrap(), given.encode().unwrap());
    world.store.txn(Txn::new().then(Op::put(key, value))).await.unwrap();
    assert_eq!(world.join("c1", &own).await.unwrap().role, Role::Data);
}

#[tokio::test]
async fn another_authority_is_told_nothing() {
    let (world, other) = (World::new().await, World::new().await);
    let token = world.token(Role::Data).await;
    let mut misled = token.clone();
    misled.manager = other.port.address();
    assert_eq!(world.refused("d1", &misled).await, "manager_unreachable");
    world.join("d1", &token).await.unwrap();
}

#[tokio::test]
async fn tokens_end() {
    let world = World::new().await;
    let token = world.manager.new_token(Role::Data, world.port.address(), Duration::from_millis(1)).await;
    world.rt.sleep(Duration::from_millis(20)).await;
    assert_eq!(world.refused("d1", &token.unwrap()).await, "token_refused");
    let endless = Duration::from_secs(8 * 86_400);
    let refused = world.manager.new_token(Role::Data, world.port.address(), endless).await;
    assert_eq!(refused.unwrap_err().code, "token_life");
}

#[tokio::test]
async fn a_removed_node_is_revoked_and_gets_no_certificate() {
    let world = World::new().await;
    let (mut roster, _refresher) = members::watch(&world.rt, world.store.clone()).await.unwrap();
    let token = world.token(Role::Data).await;
    let member = world.join("d1", &token).await.unwrap();
    let (identity, _) = node::load_identity(&world.directory("d1")).unwrap();
    let is_known =
        seam::timeout(&*world.rt, SOON, roster.wait_for(|it| it.node(member.node).is_some())).await.is_ok();
    assert!(is_known, "the roster has news of nodes that join");

    let manager = world.founded.identity.member();
    let next = renew(&world.rt, &identity, &manager, world.port.address()).await.unwrap();
    assert_ne!(next.certificate(), identity.certificate());
    assert_eq!(next.member(), member);
    let wrong = Member { node: member.node, ..manager };
    let refused = renew(&world.rt, &identity, &wrong, world.port.address()).await.unwrap_err();
    assert_eq!(refused.code, "manager_unreachable", "only the manager that is asked for is told anything");

    let removed = world.manager.remove("d1").await.unwrap();
    assert_eq!((removed.id, removed.certificates.len()), (member.node, 2));
    let known = seam::timeout(&*world.rt, SOON, roster.wait_for(|it| it.revoked.is_some())).await;
    let list = known.unwrap().unwrap().revoked.clone().unwrap();
    let access = world.founded.identity.server(&world.rt, &[Role::Data], Some(&list)).unwrap();
    for certificate in [identity.certificate(), next.certificate()] {
        assert!(access.forbids(certificate), "all its certificates are revoked");
    }
    assert!(!access.forbids(world.founded.identity.certificate()));
    let refused = renew(&world.rt, &next, &manager, world.port.address()).await.unwrap_err();
    assert_eq!(refused.code, "node_removed");
    assert_eq!(world.manager.remove("d1").await.unwrap_err().code, "node_not_found");
    // The name is free again.
    let token = world.token(Role::Data).await;
    let joining = Joining { name: "d1".to_owned(), address: None };
    join(&world.rt, &world.directory("new"), &token, &joining).await.unwrap();
}

#[tokio::test]
async fn the_store_lets_in_who_belongs_to_the_site() {
    let world = World::new().await;
    let (token, manager) = (world.token(Role::Data).await, world.founded.identity.member().node);
    let d1 = world.join("d1", &token).await.unwrap().node;
    assert_eq!(*world.users.set(), BTreeSet::from([manager, d1]));

    // A join that was cut off before its last step, and a removal.
    let (asks, leaves) = (world.token(Role::Compute).await, world.token(Role::Data).await);
    let request = trust::NewIdentity::create().unwrap().request().unwrap();
    let asked = Join { secret: *asks.secret(), name: "c1".to_owned(), address: None, request };
    world.manager.join(&asked).await.unwrap();
    let c1 = world.manager.node("c1").await.unwrap().id;
    let d2 = world.join("d2", &leaves).await.unwrap().node;
    assert_eq!(*world.users.set(), BTreeSet::from([manager, d1, c1, d2]));
    world.manager.remove("d2").await.unwrap();
    assert_eq!(*world.users.set(), BTreeSet::from([manager, d1, c1]));
    world.users.set().remove(&c1);
    world.users.set().insert(d2);
    world.manager.settle_users().await.unwrap();
    assert_eq!(*world.users.set(), BTreeSet::from([manager, d1, c1]));
    world.users.set().remove(&c1);
    world.manager.join(&asked).await.unwrap();
    assert_eq!(*world.users.set(), BTreeSet::from([manager, d1, c1]), "the same request ends what it began");

    // Who has the answer to a request of before and is removed does not come in again by it.
    world.manager.remove("c1").await.unwrap();
    assert_eq!(world.manager.join(&asked).await.err().map(|error| error.code.name), Some("node_removed"));
    assert_eq!(*world.users.set(), BTreeSet::from([manager, d1]));
}

#[tokio::test]
async fn what_is_founded_once_stays() {
    let world = World::new().await;
    let directory = world.directory("m1");
    let etcd = vec![("e1".to_owned(), "127.0.0.1:2379".parse().unwrap())];
    let (name, listen) = ("m1".to_owned(), "127.0.0.1:7400".parse().unwrap());
    let founding = Founding { name, listen, etcd, data_nodes: 3, recovery_key_file: None };
    assert_eq!(found(&world.rt, &directory, &founding).unwrap_err().code, "already_joined");
    let anywhere = Founding { listen: "0.0.0.0:7400".parse().unwrap(), ..founding.clone() };
    let refused = found(&world.rt, &world.directory("m2"), &anywhere).unwrap_err();
    assert_eq!(refused.code, "invalid_address");
    assert!(!world.directory("m2").root().exists(), "nothing is left of it");
    let yaml = std::fs::read_to_string(directory.file("etcd/e1/etcd.yaml")).unwrap();
    assert!(yaml.contains("client-cert-auth: true") && yaml.contains("https://127.0.0.1:2380"), "{yaml}");
}
