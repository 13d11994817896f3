//! What a node and a manager say to each other: JSON bodies of HTTP requests.
//!
//! ```text
//!  POST /v1/join   {"version": 1, "secret": "<32 hex>", "name": "d1", "address": "10.0.0.7:7420" or absent,
//!                   "request": "<hex of the certificate request>"}
//!             200  {"version": 1, "certificate": "<hex>", "authority": "<hex>", "endpoints": [...], "managers": [...],
//!                   "revoked": "<hex>" or absent, "key": "<64 hex>" or absent}
//!  POST /v1/renew  {"version": 1, "request": "<hex>"}, under a certificate of the node
//!             200  {"version": 1, "certificate": "<hex>"}
//!  refused         {"code": "token_used", "message": "..."}, with the code's status
//! ```

use std::net::SocketAddr;

use api::{Code, Error, Result, code};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::records::{DER_MAX, LIST_MAX};
use crate::text::{hex, of_hex, of_hex_exact};

const VERSION: u32 = 1;
/// Longest request, bytes.
pub(crate) const REQUEST_MAX: usize = 16 << 10;
/// Longest answer, bytes.
pub(crate) const ANSWER_MAX: usize = 2 * (LIST_MAX + 4 * DER_MAX);

fn malformed(reason: impl std::fmt::Display) -> Error {
    let reason = format!("what the other end says cannot be read: {reason}");
    Error::new(code::INVALID_REQUEST, reason)
}

fn read<T: DeserializeOwned>(bytes: &[u8], version: impl Fn(&T) -> u32) -> Result<T> {
    let text: T = serde_json::from_slice(bytes).map_err(malformed)?;
    match version(&text) {
        VERSION => Ok(text),
        other => Err(malformed(format!("version {other}, and this program knows {VERSION}"))),
    }
}

fn write(text: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(text).map_err(malformed)
}

fn der(text: &str, most: usize) -> Result<Vec<u8>> {
    of_hex(text, most).ok_or_else(|| malformed("hex digits are none, or too many"))
}

/// A node wants to join.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) secret: [u8; 16],
    pub(crate) name: String,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) request: Vec<u8>,
}

/// A node has joined.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) certificate: Vec<u8>,
    pub(crate) authority: Vec<u8>,
    pub(crate) endpoints: Vec<String>,
    pub(crate) managers: Vec<SocketAddr>,
    pub(crate) revoked: Option<Vec<u8>>,
    /// What opens the site's data.
    pub(crate) key: Option<[u8; 32]>,
}

/// A node wants its next certificate.
pub(crate) struct Renew(pub(crate) Vec<u8>);

/// The next certificate.
pub(crate) struct Renewed(pub(crate) Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinText {
    version: u32,
    secret: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    request: String,
}

#[derive(Serialize, Deserialize)]
struct JoinedText {
    version: u32,
    certificate: String,
    authority: String,
    endpoints: Vec<String>,
    managers: Vec<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewText {
    version: u32,
    request: String,
}

#[derive(Serialize, Deserialize)]
struct RenewedText {
    version: u32,
    certificate: String,
}

#[derive(Serialize, Deserialize)]
struct RefusalText {
    code: String,
    message: String,
}

impl Join {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let (name, address) = (self.name.clone(), self.address);
        let (secret, request) = (hex(&self.secret), hex(&self.request));
        write(&JoinText { version: VERSION, secret, name, address, request })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text: JoinText = read(bytes, |text: &JoinText| text.version)?;
        let secret = of_hex_exact(&text.secret).ok_or_else(|| malformed("the secret is none"))?;
        let request = der(&text.request, DER_MAX)?;
        Ok(Self { secret, name: text.name, address: text.address, request })
    }
}

impl Joined {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        write(&JoinedText {
            version: VERSION,
            certificate: hex(&self.certificate),
            authority: hex(&self.authority),
            endpoints: self.endpoints.clone(),
            managers: self.managers.clone(),
            revoked: self.revoked.as_ref().map(|list| hex(list)),
            key: self.key.as_ref().map(|key| hex(key)),
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text: JoinedText = read(bytes, |text: &JoinedText| text.version)?;
        let key = match text.key {
            Some(key) => Some(of_hex_exact(&key).ok_or_else(|| malformed("the key is none"))?),
            None => None,
        };
        Ok(Self {
            certificate: der(&text.certificate, DER_MAX)?,
            authority: der(&text.authority, DER_MAX)?,
            endpoints: text.endpoints,
            managers: text.managers,
            revoked: text.revoked.map(|list| der(&list, LIST_MAX)).transpose()?,
            key,
        })
    }
}

impl Renew {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        write(&RenewText { version: VERSION, request: hex(&self.0) })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text: RenewText = read(bytes, |text: &RenewText| text.version)?;
        der(&text.request, DER_MAX).map(Self)
    }
}

impl Renewed {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        write(&RenewedText { version: VERSION, certificate: hex(&self.0) })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text: RenewedText = read(bytes, |text: &RenewedText| text.version)?;
        der(&text.certificate, DER_MAX).map(Self)
    }
}

/// The body of an answer that refuses.
pub(crate) fn refuse(error: &Error) -> Vec<u8> {
    let text = RefusalText { code: error.code.name.to_owned(), message: error.reason.clone() };
    serde_json::to_vec(&text).unwrap_or_default()
}

/// What an answer that refuses says: a code of the table, or that it cannot be read.
pub(crate) fn refusal(bytes: &[u8]) -> Error {
    const SHOWN_MAX: usize = 500;
    let Ok(text) = serde_json::from_slice::<RefusalText>(bytes) else {
        return malformed("it refuses, without a reason");
    };
    let message: String = text.message.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect();
    match Code::find(&text.code).filter(|code| [404, 403, 409, 503, 507, 500, 422].contains(&code.status)) {
        Some(code) => Error::new(code, message),
        None => malformed(format!("it refuses: {message}")),
    }
}
