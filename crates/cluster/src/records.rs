//! Records of the metadata store: nodes, tokens, revoked certificates.
//!
//! ```text
//!  node/<32 hex>       {"version": 1, "role": "data", "name": "d1", "address": "10.0.0.7:7420", "state": "active",
//!                       "joined_ms": <Unix ms>, "certificates": [{"serial": "<hex>", "ends_ms": <Unix ms>}, ...]}
//!  node-name/NAME      <32 hex>: the node that has the name
//!  token/<64 hex>      {"version": 1, "role": "data", "expires_ms": <Unix ms>, "code": "<64 hex>",
//!                       "used": {"request": "<64 hex>", "node": "<32 hex>", "certificate": "<hex>"}}
//!  revoked/<16 zeros>  {"version": 1, "number": <count>, "entries": [{"serial": "<hex>", "at_ms": <Unix ms>,
//!                       "ends_ms": <Unix ms>}, ...], "list": "<hex>"}
//! ```
//! A token's key is SHA-256 of its secret; its `code` is made with the authority's key. `used` is there once it was, `request` being SHA-256 of the request and
//! `certificate` what was answered. `list` is the list as the authority signed it, DER, the `number`th.

use std::net::SocketAddr;

use api::{Error, Result, code};
use meta::{Key, Site, Table};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trust::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use trust::{Authority, Role};
use units::NodeId;

use crate::text::{check_name, hex, node_id, of_hex, of_hex_exact};

const VERSION: u32 = 1;
pub(crate) const NODES: Table<Site> = Table::new("node");
pub(crate) const NAMES: Table<Site> = Table::new("node-name");
pub(crate) const TOKENS: Table<Site> = Table::new("token");
pub(crate) const REVOKED: Table<Site> = Table::new("revoked");

/// Certificates of one node that have not ended: a node that loses answers asks again, and not for ever.
pub(crate) const CERTIFICATES_MAX: usize = 32;
/// Revoked certificates at once: their record stays below 1 MiB.
pub(crate) const REVOKED_MAX: usize = 3000;
/// Longest certificate or request, bytes.
pub(crate) const DER_MAX: usize = 4096;
const SERIAL_MAX: usize = 20;
pub(crate) const LIST_MAX: usize = 512 << 10;

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It takes part.
    Active,
    /// What it holds is to move elsewhere.
    Draining,
}

impl State {
    /// As it stands in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }
}

/// A certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// When it ends, ms since the Unix epoch.
    pub ends_ms: u64,
}

/// A node of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What it does.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// Where other nodes find it, if it listens.
    pub address: Option<SocketAddr>,
    /// What becomes of it.
    pub state: State,
    /// When it joined, ms since the Unix epoch.
    pub joined_ms: u64,
    /// Its certificates that have not ended, oldest first.
    pub certificates: Vec<Certificate>,
}

/// A token, by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) role: Role,
    pub(crate) expires_ms: u64,
    /// Shows that a manager gave it out: any node may write to the metadata store.
    pub(crate) code: [u8; 32],
    pub(crate) used: Option<Used>,
}

/// By which request a token was used, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) request: [u8; 32],
    pub(crate) node: NodeId,
    pub(crate) certificate: CertificateDer<'static>,
}

/// Certificates that are not to be trusted any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revocations {
    pub(crate) number: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) list: CertificateRevocationListDer<'static>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) serial: Vec<u8>,
    pub(crate) at_ms: u64,
    /// When the certificate ends anyway, and the entry goes.
    pub(crate) ends_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeText {
    version: u32,
    role: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    state: State,
    joined_ms: u64,
    certificates: Vec<CertificateText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateText {
    serial: String,
    ends_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenText {
    version: u32,
    role: String,
    expires_ms: u64,
    code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<UsedText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedText {
    request: String,
    node: String,
    certificate: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationsText {
    version: u32,
    number: u64,
    entries: Vec<EntryText>,
    list: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    serial: String,
    at_ms: u64,
    ends_ms: u64,
}

fn damaged(what: &str, reason: impl std::fmt::Display) -> Error {
    let reason = format!("the record of {what} in the metadata store: {reason}");
    Error::new(code::RECORD_DAMAGED, reason)
}

fn read<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| damaged(what, error))
}

fn write(text: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(text).map_err(|error| damaged("a node", error))
}

fn known(what: &str, version: u32) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(damaged(what, format!("version {version}, and this program knows {VERSION}")))
}

fn role(what: &str, name: &str) -> Result<Role> {
    Role::parse(name).ok_or_else(|| damaged(what, "it has no role that is known"))
}

fn serial(what: &str, text: &str) -> Result<Vec<u8>> {
    let serial = of_hex(text, SERIAL_MAX).filter(|serial| !serial.is_empty());
    serial.ok_or_else(|| damaged(what, "a serial number is none"))
}

impl Node {
    /// The key of a node's record.
    pub(crate) fn key(id: NodeId) -> Result<Key> {
        Ok(NODES.key().text(&hex(&id.0)).end()?)
    }

    /// The key by which a name is taken.
    pub(crate) fn name_key(name: &str) -> Result<Key> {
        Ok(NAMES.key().text(name).end()?)
    }

    /// When the newest certificate ends, ms since the Unix epoch; 0 when there is none.
    pub fn ends_ms(&self) -> u64 {
        self.certificates.iter().map(|certificate| certificate.ends_ms).max().unwrap_or(0)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let certificates = self.certificates.iter();
        write(&NodeText {
            version: VERSION,
            role: self.role.as_str().to_owned(),
            name: self.name.clone(),
            address: self.address,
            state: self.state,
            joined_ms: self.joined_ms,
            certificates: certificates
                .map(|known| CertificateText { serial: hex(&known.serial), ends_ms: known.ends_ms })
                .collect(),
        })
    }

    /// Reads what [`Node::encode`] wrote.
    pub(crate) fn decode(id: NodeId, bytes: &[u8]) -> Result<Self> {
        let what = "a node";
        let text: NodeText = read(what, bytes)?;
        known(what, text.version)?;
        check_name(&text.name)?;
        if text.certificates.len() > CERTIFICATES_MAX {
            return Err(damaged(what, "it has more certificates than a node can have"));
        }
        let certificates = text
            .certificates
            .iter()
            .map(|known| Ok(Certificate { serial: serial(what, &known.serial)?, ends_ms: known.ends_ms }));
        Ok(Self {
            id,
            role: role(what, &text.role)?,
            name: text.name,
            address: text.address,
            state: text.state,
            joined_ms: text.joined_ms,
            certificates: certificates.collect::<Result<_>>()?,
        })
    }
}

impl Token {
    /// A token that was not used.
    pub(crate) fn new(authority: &Authority, secret: &[u8; 16], role: Role, expires_ms: u64) -> Self {
        Self { role, expires_ms, code: Self::code(authority, secret, role, expires_ms), used: None }
    }

    /// Whether a manager gave it out, for this role and time.
    pub(crate) fn is_genuine(&self, authority: &Authority, secret: &[u8; 16]) -> bool {
        self.code == Self::code(authority, secret, self.role, self.expires_ms)
    }

    fn code(authority: &Authority, secret: &[u8; 16], role: Role, expires_ms: u64) -> [u8; 32] {
        let text = format!("token {} {} {expires_ms}", hex(&trust::sha256(secret)), role.as_str());
        authority.code_of(text.as_bytes())
    }

    /// The key of the token with this secret.
    pub(crate) fn key(secret: &[u8; 16]) -> Result<Key> {
        Ok(TOKENS.key().text(&hex(&trust::sha256(secret))).end()?)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let used = self.used.as_ref().map(|used| UsedText {
            request: hex(&used.request),
            node: hex(&used.node.0),
            certificate: hex(&used.certificate),
        });
        let role = self.role.as_str().to_owned();
        let code = hex(&self.code);
        write(&TokenText { version: VERSION, role, expires_ms: self.expires_ms, code, used })
    }

    /// Reads what [`Token::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let what = "a token";
        let text: TokenText = read(what, bytes)?;
        known(what, text.version)?;
        let used = text.used.map(|used| {
            Some(Used {
                request: of_hex_exact(&used.request)?,
                node: node_id(&used.node)?,
                certificate: CertificateDer::from(of_hex(&used.certificate, DER_MAX)?),
            })
        });
        let used = match used {
            Some(None) => {
                return Err(damaged(what, "what it was used for is not hex digits of a fit length"));
            }
            used => used.flatten(),
        };
        let code = of_hex_exact(&text.code).ok_or_else(|| damaged(what, "its code is none"))?;
        Ok(Self { role: role(what, &text.role)?, expires_ms: text.expires_ms, code, used })
    }
}

impl Revocations {
    pub(crate) fn key() -> Result<Key> {
        Ok(REVOKED.key().number(0).end()?)
    }

    pub(crate) fn has(&self, serial: &[u8]) -> bool {
        self.entries.iter().any(|entry| entry.serial == serial)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let entry = |entry: &Entry| EntryText {
            serial: hex(&entry.serial),
            at_ms: entry.at_ms,
            ends_ms: entry.ends_ms,
        };
        let entries = self.entries.iter().map(entry).collect();
        write(&RevocationsText { version: VERSION, number: self.number, entries, list: hex(&self.list) })
    }

    /// Reads what [`Revocations::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let what = "revoked certificates";
        let text: RevocationsText = read(what, bytes)?;
        known(what, text.version)?;
        if text.entries.len() > REVOKED_MAX {
            return Err(damaged(what, format!("it has more than {REVOKED_MAX} entries")));
        }
        let entries = text.entries.iter().map(|entry| {
            Ok(Entry { serial: serial(what, &entry.serial)?, at_ms: entry.at_ms, ends_ms: entry.ends_ms })
        });
        let list = of_hex(&text.list, LIST_MAX).ok_or_else(|| damaged(what, "the list is not hex digits"))?;
        let entries = entries.collect::<Result<_>>()?;
        Ok(Self { number: text.number, entries, list: CertificateRevocationListDer::from(list) })
    }
}
