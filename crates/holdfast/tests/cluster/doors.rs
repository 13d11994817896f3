//! Goal: whoever has no certificate, or a wrong, expired or revoked one, or one of another role, gets nowhere at any port of
//! a site.
//! Model: a table of who may come in where; a port lets somebody in when it answers in its own protocol.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use etcd::Etcd;
use meta::{KeyRange, Op, Store, Txn};
use node::Directory;
use proto::wire::{HELLO_BYTES, Hello};
use seam::{Rt, TokioRuntime};
use trust::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use trust::rustls::crypto::{CryptoProvider, aws_lc_rs};
use trust::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use trust::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned, version,
};
use trust::{Authority, Identity, Member, NewIdentity, Role};
use units::{NodeId, SiteId};

use super::{join, site};
use crate::etcd::Site;

const PATIENCE: Duration = Duration::from_secs(20);

/// A port, and what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Data,
    Disks,
    Interface,
    Manager,
    EtcdClients,
    EtcdPeers,
    /// NBD behind STARTTLS.
    Clients,
}

const DOORS: [Door; 7] = [
    Door::Data,
    Door::Disks,
    Door::Interface,
    Door::Manager,
    Door::EtcdClients,
    Door::EtcdPeers,
    Door::Clients,
];

/// Somebody who knocks: with a certificate and its key, or with none.
struct Caller {
    name: String,
    shown: Option<(CertificateDer<'static>, Vec<u8>)>,
    comes_in: Vec<Door>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Takes whoever answers for the right one: it is the other end that is tried.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Caller {
    fn new(name: &str, identity: &Identity, comes_in: &[Door]) -> Self {
        let shown = Some((identity.certificate().clone(), identity.key().to_vec()));
        Self { name: name.to_owned(), shown, comes_in: comes_in.to_vec() }
    }

    /// With a certificate that `authority` makes for it.
    fn made(name: String, rt: &Rt, authority: &Authority, member: &Member, valid: Duration) -> Self {
        let new = NewIdentity::create().unwrap();
        let certificate = authority.issue(&**rt, &new.request().unwrap(), member, valid).unwrap();
        Self { name, shown: Some((certificate, new.key())), comes_in: Vec::new() }
    }

    fn config(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
        let mut config = match &self.shown {
            Some((certificate, key)) => {
                let key = PrivatePkcs8KeyDer::from(key.clone()).into();
                config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        if !protocol.is_empty() {
            config.alpn_protocols = vec![protocol.to_vec()];
        }
        Arc::new(config)
    }

    /// The first bytes that come back for `said`, at most `bytes`; fewer where the other end hangs up.
    fn ask(&self, address: &str, protocol: &[u8], said: &[u8], bytes: usize) -> Vec<u8> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.ask_on(stream, address, protocol, said, bytes)
    }

    /// The same behind STARTTLS.
    fn ask_nbd(&self, address: &str, said: &[u8], bytes: usize) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut [0; 18]).unwrap();
        stream.write_all(&[&3_u32.to_be_bytes()[..], b"IHAVEOPT\0\0\0\x05\0\0\0\0"].concat()).unwrap();
        stream.read_exact(&mut [0; 20]).unwrap();
        self.ask_on(stream, address, b"", said, bytes)
    }

    fn ask_on(
        &self,
        stream: TcpStream,
        address: &str,
        protocol: &[u8],
        said: &[u8],
        bytes: usize,
    ) -> Vec<u8> {
        let name = ServerName::try_from("nobody.example").unwrap();
        let tls = ClientConnection::new(self.config(protocol), name).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        // What goes wrong shows in what comes back.
        let _ = stream.write_all(said);
        let mut answer = vec![0; bytes];
        let mut read = 0;
        while read < bytes {
            match stream.read(&mut answer[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) => {
                    let waits = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
                    assert!(!waits.contains(&error.kind()), "{self}: {address} says nothing and hangs on");
                    break;
                }
            }
        }
        answer.truncate(read);
        answer
    }

    fn gets_in(&self, rt: &Rt, world: &World, door: Door) -> bool {
        let address = world.address(door);
        let request = |line: &str| format!("{line}\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes();
        match door {
            Door::Data => {
                let hello = Hello::new(0, NodeId([9; 16])).encode();
                let answer = self.ask(&address, b"", &hello, HELLO_BYTES);
                <[u8; HELLO_BYTES]>::try_from(answer).is_ok_and(|it| matches!(Hello::decode(&it), Ok(Ok(_))))
            }
            Door::Disks => self.ask(&address, b"holdfast-nbd/1", b"", 8) == b"NBDMAGIC",
            Door::Interface => {
                let answer =
                    self.ask(&address, b"holdfast-api/1", &request("GET /api/v1/status HTTP/1.1"), 12);
                answer == b"HTTP/1.1 200"
            }
            // A member is told that its request is malformed, anybody else that it is nobody.
            Door::Manager => {
                let answer = self.ask(&address, b"", &request("POST /v1/renew HTTP/1.1"), 12);
                let known = answer.is_empty() || answer == b"HTTP/1.1 422" || answer == b"HTTP/1.1 403";
                assert!(known, "{self}: {}", answer.escape_ascii());
                answer == b"HTTP/1.1 422"
            }
            Door::EtcdClients => self.reads_and_writes(rt, world, &address),
            Door::Clients => {
                let list = b"IHAVEOPT\0\0\0\x03\0\0\0\0";
                self.ask_nbd(&address, list, 8) == 0x0003_e889_0455_65a9_u64.to_be_bytes()
            }
            Door::EtcdPeers => !self.ask(&address, b"", &request("GET /version HTTP/1.1"), 4).is_empty(),
        }
    }

    /// Whether it may read who the nodes are; and what it may do beside is what its role may.
    fn reads_and_writes(&self, rt: &Rt, world: &World, address: &str) -> bool {
        let Some((certificate, key)) = &self.shown else {
            return !self
                .ask(address, b"h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 1)
                .is_empty();
        };
        let site = world.site_id;
        let prefix = format!("/holdfast/{:032x}/", u128::from_be_bytes(site.0));
        let table = |name: &str| KeyRange::prefix(format!("{name}/").into_bytes());
        let tls = etcd::Tls {
            authority: trust::certificate_pem(world.authority.certificate()),
            certificate: trust::certificate_pem(certificate),
            key: trust::key_pem(key),
            name: Some(trust::etcd_name(site)),
        };
        let options = etcd::Options {
            tls: Some(tls),
            deadline: Duration::from_secs(1),
            probe: table("node"),
            ..etcd::Options::new([format!("https://{address}")], prefix)
        };
        world.tokio.block_on(async {
            let Ok(store) = Etcd::connect(rt.clone(), options).await else { return false };
            let role = Member::of(certificate).unwrap().role;
            let key = |name: &str| meta::Key::new(name).unwrap();
            let put = |name: &str| Txn::new().then(Op::put(key(name), b"x".as_slice()));
            let writes = store.txn(put("claim/other")).await.is_ok();
            assert_eq!(writes, role != Role::Data, "{self}");
            let forges = store.txn(put("token/other")).await.is_ok();
            assert_eq!(forges, role == Role::Manager, "{self}");
            let tokens = store.range(table("token"), 1, None).await.is_ok();
            assert_eq!(tokens, role == Role::Manager, "{self}");
            true
        })
    }
}

struct World {
    tokio: tokio::runtime::Runtime,
    site: Site,
    site_id: SiteId,
    authority: Authority,
}

impl World {
    fn address(&self, door: Door) -> String {
        let list = self.site.json(&["node", "list", "--dir", &self.site.dir("m")]);
        let of = |role: &str| {
            let nodes = list["items"].as_array().unwrap();
            nodes.iter().find(|node| node["role"] == role).unwrap()["address"].as_str().unwrap().to_owned()
        };
        let setting = |key: &str| {
            let yaml = std::fs::read_to_string(self.site.path("m/etcd/e1/etcd.yaml")).unwrap();
            let line = yaml.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
            line.split_once("https://").unwrap().1.trim_end_matches('"').to_owned()
        };
        match door {
            Door::Data => of("data"),
            Door::Disks | Door::Interface => {
                // Any compute node but the one that stands by: that one hands nobody on who comes over the network.
                let (serving, _) = super::serving(&self.site);
                let nodes = list["items"].as_array().unwrap();
                let node = nodes.iter().find(|node| node["name"] == serving).unwrap();
                node["address"].as_str().unwrap().to_owned()
            }
            Door::Manager => of("manager"),
            Door::Clients => super::nbd_address(&self.site, "c1"),
            Door::EtcdClients => setting("listen-client-urls"),
            Door::EtcdPeers => setting("listen-peer-urls"),
        }
    }

    fn identity(&self, dir: &str) -> Identity {
        node::load_identity(&Directory::new(&self.site.path(dir)).unwrap()).unwrap().0
    }

    /// A node that was removed.
    fn removed(&self, role: &str, name: &str) -> Caller {
        join(&self.site, role, name);
        let caller = Caller::new(&format!("a removed {role} node"), &self.identity(name), &[]);
        let removed = self.site.ask(&["node", "remove", name, "--dir", &self.site.dir("m"), "--yes"]);
        assert_eq!(removed.code, 0, "{removed:?}");
        caller
    }
}

#[test]
fn a_certificate_opens_the_doors_of_its_role_and_no_other() {
    let site = site();
    let founded = cluster::load_founded(&Directory::new(&site.path("m")).unwrap()).unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let rt: Rt = Arc::new(TokioRuntime::new(tokio.handle().clone()));
    let site_id = founded.identity.member().site;
    let world = World { tokio, site, site_id, authority: founded.authority };

    let mut callers = vec![
        Caller { name: "nobody".to_owned(), shown: None, comes_in: Vec::new() },
        Caller::new("a data node", &world.identity("d2"), &[Door::Manager, Door::EtcdClients]),
        Caller::new(
            "a compute node",
            &world.identity("c1"),
            &[Door::Data, Door::Disks, Door::Interface, Door::Manager, Door::EtcdClients],
        ),
        Caller::new(
            "a manager",
            &founded.identity,
            &[Door::Disks, Door::Interface, Door::Manager, Door::EtcdClients],
        ),
        world.removed("data", "d8"),
        world.removed("compute", "c8"),
    ];
    let stranger = Authority::create(&*rt, site_id).unwrap();
    let day = Duration::from_secs(86_400);
    let client = Member { site: site_id, role: Role::Client, node: NodeId([5; 16]) };
    let client = Caller::made("a client".to_owned(), &rt, &world.authority, &client, day);
    callers.push(Caller { comes_in: vec![Door::Clients], ..client });
    for role in [Role::Data, Role::Compute, Role::Manager, Role::Client] {
        let member = |site| Member { site, role, node: NodeId([7; 16]) };
        let named = |what: &str| format!("{what} {}", role.as_str());
        let own = member(site_id);
        callers.push(Caller::made(named("of another authority, a"), &rt, &stranger, &own, day));
        callers.push(Caller::made(named("of yesterday, a"), &rt, &world.authority, &own, Duration::ZERO));
        let elsewhere = member(SiteId([3; 16]));
        callers.push(Caller::made(named("of another site, a"), &rt, &world.authority, &elsewhere, day));
    }
    // Certificates end with their second.
    std::thread::sleep(Duration::from_millis(1100));
    let mut wrong = Vec::new();
    for caller in &callers {
        for door in DOORS {
            let (gets_in, may) = (caller.gets_in(&rt, &world, door), caller.comes_in.contains(&door));
            if gets_in != may {
                wrong.push(format!("{caller} {} at {door:?}", if may { "is shut out" } else { "gets in" }));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Plain text is no hand-shake: nothing but an end comes back.
    for door in DOORS {
        let mut stream = TcpStream::connect(world.address(door)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"NBDMAGICIHAVEOPT\0\x03GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let is_no_more = answer.len() < 64 && !answer.windows(5).any(|word| word == b"web01")
            || answer.starts_with(b"HTTP/1.0 400");
        assert!(is_no_more, "{door:?}: a stranger is told {}", answer.escape_ascii());
    }
    // None of them did any harm.
    let host = world.site.dir("c1");
    let status = world.site.ask(&["--site", &host, "status"]);
    assert_eq!(status.code, 0, "{status:?}");
}
