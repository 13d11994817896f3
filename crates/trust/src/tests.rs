//! Goal: nodes of the site in a role that may ask get through to the node they asked for; nobody else gets anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use seam::{BoxFuture, Rt, Runtime, TokioRuntime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use units::{NodeId, SiteId};

use crate::{Authority, Identity, Member, NewIdentity, Revoked, Role, serial};

const SITE: SiteId = SiteId([0x5a; 16]);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const NOW_MS: u64 = 1_800_000_000_000;

/// The real runtime with a clock that tests set.
struct Clocked {
    inner: TokioRuntime,
    ms: AtomicU64,
}

impl Runtime for Clocked {
    fn now(&self) -> Duration {
        self.inner.now()
    }
    fn wall_ms(&self) -> u64 {
        self.ms.load(Ordering::Relaxed)
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.inner.spawn(name, task);
    }
    fn spawn_blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        self.inner.spawn_blocking(name, work);
    }
    fn fill_random(&self, out: &mut [u8]) {
        self.inner.fill_random(out);
    }
}

fn rt() -> Arc<Clocked> {
    let inner = TokioRuntime::new(tokio::runtime::Handle::current());
    Arc::new(Clocked { inner, ms: AtomicU64::new(NOW_MS) })
}

fn member(role: Role, node: u8) -> Member {
    Member { site: SITE, role, node: NodeId([node; 16]) }
}

fn issued(rt: &dyn Runtime, authority: &Authority, member: &Member) -> Identity {
    let new = NewIdentity::create().unwrap();
    let certificate = authority.issue(rt, &new.request().unwrap(), member, YEAR).unwrap();
    new.complete(certificate, authority.certificate().clone()).unwrap()
}

/// One exchange over TLS; what kept it from happening otherwise.
async fn exchange(
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    server: Arc<ServerConfig>,
) -> Result<(), String> {
    let (here, there) = tokio::io::duplex(4096);
    let asks = async move {
        let mut stream = tokio_rustls::TlsConnector::from(client).connect(name, here).await?;
        stream.write_all(b"ask").await?;
        stream.flush().await?;
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"answer");
        std::io::Result::Ok(())
    };
    let answers = async move {
        let mut stream = tokio_rustls::TlsAcceptor::from(server).accept(there).await?;
        let mut asked = [0; 3];
        stream.read_exact(&mut asked).await?;
        stream.write_all(b"answer").await?;
        stream.flush().await?;
        std::io::Result::Ok(())
    };
    let (asked, answered) = tokio::join!(asks, answers);
    match (asked, answered) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), Ok(())) => panic!("the server answered whom it does not know: {error}"),
        // What each end says of it.
        (asked, Err(error)) => Err(format!("{error}; {asked:?}")),
    }
}

struct World {
    rt: Arc<Clocked>,
    authority: Authority,
    data: Identity,
    compute: Identity,
}

impl World {
    fn new() -> Self {
        let rt = rt();
        let authority = Authority::create(&*rt, SITE).unwrap();
        let data = issued(&*rt, &authority, &member(Role::Data, 1));
        let compute = issued(&*rt, &authority, &member(Role::Compute, 2));
        Self { rt, authority, data, compute }
    }

    fn rt(&self) -> Rt {
        self.rt.clone()
    }

    /// `client` asks `server`, which serves compute nodes, by the name it expects.
    async fn ask(
        &self,
        client: &Identity,
        expected: &Member,
        server: &Identity,
        revoked: Option<&CertificateRevocationListDer<'static>>,
    ) -> Result<(), String> {
        let served = server.server(&self.rt(), &[Role::Compute], revoked).unwrap().tls.clone();
        let asking = client.client(&self.rt(), revoked).unwrap().tls.clone();
        exchange(asking, expected.server_name().unwrap(), served).await
    }
}

#[tokio::test]
async fn who_may_ask_is_answered_and_nobody_else() {
    let world = World::new();
    let (rt, data, compute) = (&*world.rt, &world.data, &world.compute);
    let wanted = data.member();
    world.ask(compute, &wanted, data, None).await.unwrap();

    // Another role; another node, role or site than the one that was asked for.
    let other_role = issued(rt, &world.authority, &member(Role::Manager, 3));
    assert!(world.ask(&other_role, &wanted, data, None).await.unwrap_err().contains("Verification"));
    for expected in
        [member(Role::Data, 9), member(Role::Compute, 1), Member { site: SiteId([1; 16]), ..wanted }]
    {
        world.ask(compute, &expected, data, None).await.unwrap_err();
    }
    // Another authority, that calls itself the same; and one of another site.
    for site in [SITE, SiteId([1; 16])] {
        let foreign = Authority::create(rt, site).unwrap();
        let stranger = issued(rt, &foreign, &Member { site, ..compute.member() });
        let certificate = stranger.certificate().clone();
        let posing =
            Identity::load(certificate, world.authority.certificate().clone(), stranger.key()).unwrap();
        world.ask(&posing, &wanted, data, None).await.unwrap_err();
        world.ask(compute, &compute.member(), &posing, None).await.unwrap_err();
    }
    // An authority names no node of another site, even when it signs one.
    let elsewhere = Member { site: SiteId([1; 16]), ..compute.member() };
    let misled = issued(rt, &world.authority, &elsewhere);
    world.ask(&misled, &wanted, data, None).await.unwrap_err();
    // No certificate at all.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(world.authority.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let nobody = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let served = data.server(&world.rt(), &[Role::Compute], None).unwrap().tls.clone();
    exchange(Arc::new(nobody), wanted.server_name().unwrap(), served).await.unwrap_err();
}

#[tokio::test]
async fn certificates_end() {
    let world = World::new();
    let wanted = world.data.member();
    let ask = async || world.ask(&world.compute, &wanted, &world.data, None).await;
    for (ms, is_valid) in [
        (NOW_MS - 80_000_000, true),
        (NOW_MS - 90_000_000, false),
        (NOW_MS + YEAR.as_millis() as u64 - 1000, true),
        (NOW_MS + YEAR.as_millis() as u64 + 1000, false),
    ] {
        world.rt.ms.store(ms, Ordering::Relaxed);
        assert_eq!(ask().await.is_ok(), is_valid, "{ms}");
    }
    // A new one is of the same member, and goes on.
    let compute = issued(&*world.rt, &world.authority, &world.compute.member());
    let data = issued(&*world.rt, &world.authority, &wanted);
    world.ask(&compute, &wanted, &data, None).await.unwrap();
    world.ask(&world.compute, &wanted, &data, None).await.unwrap_err();
}

#[tokio::test]
async fn what_is_revoked_is_refused_by_both_ends() {
    let world = World::new();
    let wanted = world.data.member();
    let list = |revoked: &[&Identity]| {
        let of =
            |identity: &&Identity| Revoked { serial: serial(identity.certificate()).unwrap(), at_ms: NOW_MS };
        world.authority.revoke(&*world.rt, 1, &revoked.iter().map(of).collect::<Vec<_>>()).unwrap()
    };
    let none = list(&[]);
    world.ask(&world.compute, &wanted, &world.data, Some(&none)).await.unwrap();
    let client = list(&[&world.compute]);
    assert!(
        world.ask(&world.compute, &wanted, &world.data, Some(&client)).await.unwrap_err().contains("Revoked")
    );
    let server = list(&[&world.data]);
    assert!(
        world.ask(&world.compute, &wanted, &world.data, Some(&server)).await.unwrap_err().contains("Revoked")
    );
    let other = issued(&*world.rt, &world.authority, &world.compute.member());
    world.ask(&other, &wanted, &world.data, Some(&client)).await.unwrap();
    // Connections that are there: who is on the list is told apart.
    let access = world.data.server(&world.rt(), &[Role::Compute], Some(&client)).unwrap();
    assert!(access.forbids(world.compute.certificate()) && !access.forbids(other.certificate()));
    assert!(access.forbids(&CertificateDer::from(vec![1, 2, 3])), "what makes no sense is none of ours");
    let open = world.data.server(&world.rt(), &[Role::Compute], None).unwrap();
    assert!(!open.forbids(world.compute.certificate()));
    // A list of another authority is none.
    let foreign = Authority::create(&*world.rt, SITE).unwrap().revoke(&*world.rt, 1, &[]).unwrap();
    world.ask(&world.compute, &wanted, &world.data, Some(&foreign)).await.unwrap_err();
}

#[tokio::test]
async fn the_authority_and_identities_are_kept_and_loaded() {
    let world = World::new();
    let loaded = Authority::load(world.authority.certificate().clone(), &world.authority.key()).unwrap();
    let compute = issued(&*world.rt, &loaded, &world.compute.member());
    let again =
        Identity::load(compute.certificate().clone(), loaded.certificate().clone(), compute.key()).unwrap();
    world.ask(&again, &world.data.member(), &world.data, None).await.unwrap();
    // A key of another certificate, and requests that are none.
    let mixed = Identity::load(compute.certificate().clone(), loaded.certificate().clone(), world.data.key());
    assert!(mixed.is_err());
    let mut request = NewIdentity::create().unwrap().request().unwrap();
    for at in [0, request.len() / 2, request.len() - 1] {
        request[at] ^= 4;
        assert!(loaded.issue(&*world.rt, &request, &compute.member(), YEAR).is_err(), "byte {at}");
        request[at] ^= 4;
    }
    assert!(loaded.issue(&*world.rt, &request, &compute.member(), YEAR).is_ok());
    assert!(Authority::load(CertificateDer::from(vec![1, 2, 3]), &loaded.key()).is_err());
    assert!(!format!("{again:?} {loaded:?}").contains("key"));
}

#[test]
fn names_are_read_as_they_are_written() {
    for role in [Role::Data, Role::Compute, Role::Manager] {
        let member = member(role, 0xf0);
        assert_eq!(Member::parse(&member.name()), Some(member));
    }
    let name = member(Role::Data, 1).name();
    for wrong in [
        name.to_uppercase(),
        name.replace("data", "root"),
        name.replace("holdfast", "other"),
        format!("a.{name}"),
        format!("{name}."),
        name[1..].to_owned(),
        format!("+{}", &name[1..]),
        String::new(),
    ] {
        assert_eq!(Member::parse(&wrong), None, "{wrong}");
    }
}
