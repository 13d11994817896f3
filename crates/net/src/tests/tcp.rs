//! Goal: on a real port only nodes of the site in a role that may ask are served, whatever else connects to it.

use std::sync::Arc;
use std::time::Duration;

use proto::{CallErrorKind, Response, Transport};
use seam::{Rt, Runtime, TokioRuntime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use trust::{Authority, Identity, Member, NewIdentity, Role};
use units::{NodeId, SiteId};

use super::{MEDIUM, NODE, content, limits, read, server};
use crate::{Limits, Listener, Remote, SeatLimits, Server, TcpDial};

const SITE: SiteId = SiteId([3; 16]);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const CONNECTIONS: usize = 20;
const SEATS: SeatLimits = SeatLimits { knocking: 20, knocking_each: 19, seated: 20, seated_each: 6 };

fn issued(rt: &dyn Runtime, authority: &Authority, role: Role, node: NodeId) -> Identity {
    let (new, member) = (NewIdentity::create().unwrap(), Member { site: SITE, role, node });
    let certificate = authority.issue(rt, &new.request().unwrap(), &member, YEAR).unwrap();
    new.complete(certificate, authority.certificate().clone()).unwrap()
}

/// A transport to the node at `address` as `identity`.
fn remote(rt: &Rt, identity: &Identity, address: std::net::SocketAddr) -> Remote {
    let (_, tls) = watch::channel(identity.client(rt, None).unwrap());
    let dial = TcpDial::new(rt.clone(), &identity.member(), Role::Data, limits(), tls);
    dial.set_address(NODE, address);
    let remote = Remote::new(rt.clone(), Arc::new(dial));
    remote.place(MEDIUM, NODE);
    remote
}

async fn is_served(remote: &Remote) -> bool {
    match remote.call(MEDIUM, read(3, 50_000)).await {
        Ok(Response::Bytes(bytes)) => {
            assert!(bytes.as_ref() == &content(3, 50_000).as_ref()[..50_000]);
            true
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            assert_eq!(error.kind, CallErrorKind::Unreachable, "{error}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_serves_whom_it_may_and_nobody_else() {
    let rt: Rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
    let authority = Authority::create(&*rt, SITE).unwrap();
    let data = issued(&*rt, &authority, Role::Data, NODE);
    let compute = issued(&*rt, &authority, Role::Compute, NodeId([8; 16]));
    let short = Limits { handshake: Duration::from_millis(700), ..limits() };
    let node = Server { limits: short, ..server(&rt).0 };
    let config = data.server(&rt, &[Role::Compute], None).unwrap();
    let (tls, served) = watch::channel(config);
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), node, served, SEATS).await.unwrap();
    let address = listener.address().unwrap();
    let (stop, stopped) = watch::channel(false);
    let (ended, running) = tokio::sync::oneshot::channel();
    let work = async move {
        listener.run(stopped).await;
        ended.send(()).unwrap();
    };
    rt.spawn("listener", Box::pin(work));

    let right = remote(&rt, &compute, address);
    assert!(is_served(&right).await);
    // Another role, another authority, a node that is not the one that answers.
    for identity in [
        issued(&*rt, &authority, Role::Data, NodeId([8; 16])),
        issued(&*rt, &authority, Role::Manager, NodeId([8; 16])),
        issued(&*rt, &Authority::create(&*rt, SITE).unwrap(), Role::Compute, NodeId([8; 16])),
    ] {
        assert!(!is_served(&remote(&rt, &identity, address)).await, "{identity:?}");
    }
    let other = remote(&rt, &compute, address);
    other.place(MEDIUM, NodeId([1; 16]));
    assert!(!is_served(&other).await);
    // The protocol without TLS, bytes that are none, and one that says nothing: closed, the last after its time.
    for hello in [&proto::wire::Hello::new(0, NodeId([8; 16])).encode()[..], &[0; 3000][..], b""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(hello).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 50, "no more than an alert: {answer:?}");
    }
    // More connections than there may be: the others are served all the same.
    let mut idle = Vec::new();
    for _ in 0..3 * CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(is_served(&right).await);
    // They are all of one address: there is room left for others.
    let elsewhere = tokio::net::TcpSocket::new_v4().unwrap();
    elsewhere.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut elsewhere = elsewhere.connect(address).await.unwrap();
    elsewhere.write_all(b"no hand-shake").await.unwrap();
    assert!(
        elsewhere.read(&mut [0; 64]).await.is_ok_and(|told| told > 0),
        "it is told why, not just shut out"
    );
    rt.sleep(Duration::from_secs(1)).await;
    assert!(is_served(&remote(&rt, &compute, address)).await, "who says nothing is gone");
    // What is served with changes: those who come now are looked at anew, and those who are there.
    let revoked =
        trust::Revoked { serial: trust::serial(compute.certificate()).unwrap(), at_ms: rt.wall_ms() };
    let list = authority.revoke(&*rt, 1, &[revoked]).unwrap();
    tls.send(data.server(&rt, &[Role::Compute], Some(&list)).unwrap()).unwrap();
    assert!(!is_served(&remote(&rt, &compute, address)).await);
    assert!(!is_served(&right).await, "the connection that was there has ended");
    let right = remote(&rt, &issued(&*rt, &authority, Role::Compute, NodeId([8; 16])), address);
    assert!(is_served(&right).await);
    assert!(
        is_served(&remote(&rt, &issued(&*rt, &authority, Role::Compute, NodeId([8; 16])), address)).await
    );
    // It stops: nothing answers any more.
    stop.send(true).unwrap();
    running.await.unwrap();
    assert!(!is_served(&right).await);
}
