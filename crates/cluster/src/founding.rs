//! The first manager: the site's authority and key, and certificates for the etcd that will serve it.
//!
//! ```text
//!  authority.key     private key of the authority, PKCS#8
//!  key               what opens the site's data, 32 bytes
//!  birth.json        what the site begins with (birth.rs)
//!  recovery-key      what opens the site's data when all else is lost; for the administrator to take away
//!  manager.json      {"version": 1, "name": "m1", "listen": "10.0.0.1:7400"}
//!  etcd-authority.key, etcd-authority.crt
//!                    of the authority by which members of etcd know each other: it names nobody else
//!  etcd/NAME/        for a member of etcd: server.crt, server.key, authority.crt for clients; peer.crt, peer.key,
//!                    peer-authority.crt for the other members; all PEM; and etcd.yaml
//!  node.crt          last: with it the site is founded
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::{Error, Result, code};
use node::Directory;
use seal::RecoveryKey;
use seam::Rt;
use serde::{Deserialize, Serialize};
use trust::{Authority, Identity, Member, NewIdentity, Role, TrustError};
use units::{NodeId, SiteId};

use crate::KEY_FILE;
use crate::access::{ADDRESSES_MAX, EtcdAccess};
use crate::birth::Birth;
use crate::manager::CERTIFICATE_LIFE;
use crate::text::{check_name, hex};

const VERSION: u32 = 1;
const AUTHORITY_KEY: &str = "authority.key";
const ETCD_AUTHORITY_KEY: &str = "etcd-authority.key";
const ETCD_AUTHORITY: &str = "etcd-authority.crt";
const RECORD: &str = "manager.json";
const RECOVERY_KEY: &str = "recovery-key";
/// Ports of etcd, as it has them by itself.
const ETCD_PEER_PORT: u16 = 2380;
/// Members of etcd have certificates for so long: nothing renews them.
const ETCD_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What a site is founded with.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The first manager's name.
    pub name: String,
    /// Where nodes find it.
    pub listen: SocketAddr,
    /// Members of etcd: a name, and where it answers to clients.
    pub etcd: Vec<(String, SocketAddr)>,
    /// So many data nodes have media before the first compute node makes the site.
    pub data_nodes: usize,
    /// File for the recovery key; else it goes into the directory, as `recovery-key`.
    pub recovery_key_file: Option<PathBuf>,
}

impl Founding {
    /// The file for the recovery key.
    pub fn recovery_key_file(&self, directory: &Directory) -> PathBuf {
        self.recovery_key_file.clone().unwrap_or_else(|| directory.file(RECOVERY_KEY))
    }

    /// Keeps the recovery key; only in the directory itself it takes the place of one of a founding that was cut off.
    fn keep(&self, directory: &Directory, recovery: &RecoveryKey) -> Result<()> {
        match &self.recovery_key_file {
            Some(path) => machine::write_recovery_file(&machine::LocalFiles, path, recovery),
            None => machine::replace_file(
                &directory.file(RECOVERY_KEY),
                format!("{}\n", recovery.to_text()).as_bytes(),
            ),
        }
    }
}

/// A founded site, as its manager's directory has it.
pub struct Founded {
    /// The site's authority.
    pub authority: Authority,
    /// Who the manager is.
    pub identity: Identity,
    /// Where etcd and the managers are.
    pub access: EtcdAccess,
    /// What opens the site's data.
    pub key: [u8; 32],
    /// What the site begins with; `None` in the directory of a manager that joined.
    pub birth: Option<Birth>,
    /// The manager's name.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
}

impl std::fmt::Debug for Founded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Founded({})", self.name)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    name: String,
    listen: SocketAddr,
}

fn damaged(what: &str, reason: impl std::fmt::Display) -> Error {
    Error::new(code::IDENTITY_DAMAGED, format!("{what}: {reason}"))
}

fn failed(error: &TrustError) -> Error {
    Error::new(code::INTERNAL, format!("a certificate cannot be made: {error}"))
}

/// Founds a site of many nodes in the directory of its first manager.
///
/// # Errors
/// `already_joined` when the directory is a node's already; `invalid_name`, `invalid_address`, and when files cannot be
/// written.
pub fn found(rt: &Rt, directory: &Directory, founding: &Founding) -> Result<SiteId> {
    check_name(&founding.name)?;
    Birth::check(founding.data_nodes)?;
    let refused = |reason: String| Err(Error::new(code::INVALID_ADDRESS, reason));
    if founding.etcd.is_empty() || founding.etcd.len() > ADDRESSES_MAX {
        return refused(format!("etcd has 1 to {ADDRESSES_MAX} members, not {}", founding.etcd.len()));
    }
    if founding.listen.port() == 0 || founding.listen.ip().is_unspecified() {
        return refused(format!("{}: nodes need an address and port that they can reach", founding.listen));
    }
    for (at, (name, address)) in founding.etcd.iter().enumerate() {
        check_name(name)?;
        if founding.etcd[..at].iter().any(|(other, taken)| other == name || taken == address) {
            return refused(format!("{name}={address}: a member of etcd has that name or address"));
        }
    }
    if machine::read_file(&directory.file("node.crt"))?.is_some() {
        let reason = format!("{}: the directory is a node's already", directory.root().display());
        return Err(Error::new(code::ALREADY_JOINED, reason));
    }
    if let Some(path) = &founding.recovery_key_file {
        machine::check_no_recovery_file(&machine::LocalFiles, path)?;
    }
    let mut random = [0; 16];
    rt.fill_random(&mut random);
    let site = SiteId(random);
    let authority = Authority::create(&**rt, site).map_err(|error| failed(&error))?;
    machine::make_directory(directory.root())?;
    machine::replace_file(&directory.file(AUTHORITY_KEY), &authority.key())?;
    let mut key = [0; 32];
    rt.fill_random(&mut key);
    machine::replace_file(&directory.file(KEY_FILE), &key)?;
    let (birth, recovery) = Birth::new(rt, founding.data_nodes, &key);
    birth.save(directory)?;
    let record = Record { version: VERSION, name: founding.name.clone(), listen: founding.listen };
    let record = serde_json::to_vec_pretty(&record).map_err(|error| damaged(RECORD, error))?;
    machine::replace_file(&directory.file(RECORD), &record)?;
    let endpoints = founding.etcd.iter().map(|(_, address)| format!("https://{address}")).collect();
    EtcdAccess::new(endpoints, vec![founding.listen])?.save(directory)?;
    let peers = Authority::create(&**rt, site).map_err(|error| failed(&error))?;
    machine::replace_file(&directory.file(ETCD_AUTHORITY_KEY), &peers.key())?;
    let certificate = trust::certificate_pem(peers.certificate());
    machine::replace_file(&directory.file(ETCD_AUTHORITY), certificate.as_bytes())?;
    for (name, address) in &founding.etcd {
        equip(rt, directory, [&authority, &peers], (site, founding), (name, *address))?;
    }
    rt.fill_random(&mut random);
    let member = Member { site, role: Role::Manager, node: NodeId(random) };
    let new = NewIdentity::create().map_err(|error| failed(&error))?;
    let request = new.request().map_err(|error| failed(&error))?;
    let certificate = authority.issue(&**rt, &request, &member, CERTIFICATE_LIFE);
    let certificate = certificate.map_err(|error| failed(&error))?;
    let identity = new.complete(certificate, authority.certificate().clone());
    let identity = identity.map_err(|error| failed(&error))?;
    founding.keep(directory, &recovery)?;
    let saved = node::save_identity(directory, &identity);
    if let (Err(_), Some(path)) = (&saved, &founding.recovery_key_file) {
        // It would open nothing, and be in the way of the next attempt.
        let _ = std::fs::remove_file(path);
    }
    saved.map(|()| site)
}

/// Files for one member of etcd.
fn equip(
    rt: &Rt,
    directory: &Directory,
    [clients, peers]: [&Authority; 2],
    (site, founding): (SiteId, &Founding),
    (name, address): (&str, SocketAddr),
) -> Result<()> {
    let folder = directory.file("etcd").join(name);
    machine::make_directory(&folder)?;
    let put = |file: String, text: &str| machine::replace_file(&folder.join(file), text.as_bytes());
    for (authority, own, trusted) in [(clients, "server", "authority"), (peers, "peer", "peer-authority")] {
        let issued = authority.issue_etcd(&**rt, site, name, &[address.ip()], ETCD_LIFE);
        let (certificate, key) = issued.map_err(|error| failed(&error))?;
        put(format!("{own}.crt"), &trust::certificate_pem(&certificate))?;
        put(format!("{own}.key"), &trust::key_pem(&key))?;
        put(format!("{trusted}.crt"), &trust::certificate_pem(authority.certificate()))?;
    }
    put("etcd.yaml".to_owned(), &etcd_yaml(site, founding, name, address, &folder.display().to_string()))
}

/// Where members of etcd on one address reach each other: behind the usual port, one for each.
fn peer_port(founding: &Founding, address: SocketAddr) -> u16 {
    let same = founding.etcd.iter().filter(|(_, other)| other.ip() == address.ip());
    if same.count() == 1 { ETCD_PEER_PORT } else { address.port().wrapping_add(1) }
}

/// A configuration file of etcd; JSON is YAML too, and JSON strings need no thought.
fn etcd_yaml(site: SiteId, founding: &Founding, name: &str, address: SocketAddr, folder: &str) -> String {
    let quoted = |text: String| serde_json::Value::String(text).to_string();
    let client = quoted(format!("https://{address}"));
    let peer_of = |at: SocketAddr| format!("https://{}", SocketAddr::new(at.ip(), peer_port(founding, at)));
    let peer = quoted(peer_of(address));
    let members: Vec<String> =
        founding.etcd.iter().map(|(name, at)| format!("{name}={}", peer_of(*at))).collect();
    let security = |label: &str, own: &str, trusted: &str| {
        let file = |file: &str| quoted(format!("{folder}/{file}.crt"));
        let (certificate, authority) = (file(own), file(trusted));
        let key = quoted(format!("{folder}/{own}.key"));
        format!(
            "{label}-transport-security:\n  cert-file: {certificate}\n  key-file: {key}\n  \
             trusted-ca-file: {authority}\n  client-cert-auth: true\n"
        )
    };
    format!(
        "# etcd --config-file {folder}/etcd.yaml; on another host, change the paths\n\
         name: {}\ndata-dir: {}\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n\
         listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: {}\n\
         initial-cluster-token: {}\ninitial-cluster-state: new\nauto-compaction-mode: periodic\n\
         auto-compaction-retention: \"1h\"\nquota-backend-bytes: 2147483648\nmax-txn-ops: {}\n\
         enable-grpc-gateway: false\n{}{}",
        quoted(name.to_owned()),
        quoted(format!("{folder}/data")),
        quoted(members.join(",")),
        quoted(hex(&site.0)),
        meta::TXN_OPS_MAX,
        security("client", "server", "authority"),
        security("peer", "peer", "peer-authority"),
    )
}

/// Reads a manager's directory.
///
/// # Errors
/// `not_joined` when it is none's; `identity_damaged`, `manifest_damaged`.
pub fn load_founded(directory: &Directory) -> Result<Founded> {
    let (identity, _) = node::load_identity(directory)?;
    let need = |name: &str| -> Result<Vec<u8>> {
        let path = directory.file(name);
        let missing =
            || damaged(&path.display().to_string(), "it is missing: this is no manager's directory");
        machine::read_file(&path)?.ok_or_else(missing)
    };
    let authority = Authority::load(identity.authority().clone(), &need(AUTHORITY_KEY)?)
        .map_err(|error| damaged(AUTHORITY_KEY, error))?;
    let key = need(KEY_FILE)?;
    let key = key.try_into().map_err(|_| damaged(KEY_FILE, "it is not 32 bytes long"))?;
    let record: Record = serde_json::from_slice(&need(RECORD)?).map_err(|error| damaged(RECORD, error))?;
    if record.version != VERSION {
        return Err(damaged(RECORD, format!("version {}, and this program knows {VERSION}", record.version)));
    }
    let access = EtcdAccess::load(directory)?;
    let birth = Birth::load(directory)?;
    Ok(Founded { authority, identity, access, key, birth, name: record.name, listen: record.listen })
}
