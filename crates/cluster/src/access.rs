//! The way to the metadata store.
//!
//! ```text
//!  etcd.json  {"version": 1, "endpoints": ["https://10.0.0.1:2379", ...], "managers": ["10.0.0.1:7400", ...],
//!              "listen": "10.0.0.7:7420" or absent}
//! ```
//! in a node's directory: where etcd and the managers are, and where the node listens, as it said when it joined.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::{Error, Result, code};
use etcd::Etcd;
use meta::{Get, Key, KeyRange, Lease, LeaseId, Page, Revision, Store, Txn, TxnResult, Watch};
use node::Directory;
use seam::{BoxFuture, Rt};
use serde::{Deserialize, Serialize};
use trust::Identity;
use trust::rustls::pki_types::CertificateDer;

use crate::records::NODES;
use crate::text::hex;

const FILE: &str = "etcd.json";
const VERSION: u32 = 1;
/// Members of etcd, and managers, that are named at most.
pub(crate) const ADDRESSES_MAX: usize = 16;
const ENDPOINT_MAX: usize = 300;

/// Where a node finds the metadata store and the managers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdAccess {
    pub(crate) version: u32,
    /// Addresses of etcd's members, `https://host:port`.
    pub endpoints: Vec<String>,
    /// Addresses of managers.
    pub managers: Vec<SocketAddr>,
    /// Where the node listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::new(code::MANIFEST_DAMAGED, format!("{FILE}: {reason}"))
}

impl EtcdAccess {
    /// Of these addresses.
    ///
    /// # Errors
    /// `invalid_address` when they are none, too many or not `https://`.
    pub fn new(endpoints: Vec<String>, managers: Vec<SocketAddr>) -> Result<Self> {
        let access = Self { version: VERSION, endpoints, managers, listen: None };
        access.check().map_err(|why| Error::new(code::INVALID_ADDRESS, why))?;
        Ok(access)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.endpoints.is_empty() || self.endpoints.len() > ADDRESSES_MAX {
            return Err(format!("etcd has 1 to {ADDRESSES_MAX} addresses, not {}", self.endpoints.len()));
        }
        if self.managers.len() > ADDRESSES_MAX {
            return Err(format!("there are at most {ADDRESSES_MAX} managers"));
        }
        let is_good = |it: &&String| it.starts_with("https://") && it.len() <= ENDPOINT_MAX;
        match self.endpoints.iter().find(|endpoint| !is_good(endpoint)) {
            Some(endpoint) => {
                let shown: String = endpoint.chars().filter(|c| !c.is_control()).take(ENDPOINT_MAX).collect();
                Err(format!("{shown:?} is no https:// address of etcd"))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let access: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        if access.version != VERSION {
            return Err(damaged(format!("version {}, and this program knows {VERSION}", access.version)));
        }
        access.check().map_err(damaged)?;
        Ok(access)
    }

    /// What a directory has.
    ///
    /// # Errors
    /// `not_joined` when it has none; `manifest_damaged`.
    pub fn load(directory: &Directory) -> Result<Self> {
        let path = directory.file(FILE);
        let bytes = machine::read_file(&path)?.ok_or_else(|| {
            let reason = format!("{}: the node has joined no site", path.display());
            Error::new(code::NOT_JOINED, reason)
        })?;
        Self::decode(&bytes)
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, directory: &Directory) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(damaged)?;
        bytes.push(b'\n');
        machine::replace_file(&directory.file(FILE), &bytes)
    }
}

/// What a store said as an error of the site.
pub fn store_error(error: &meta::Error) -> Error {
    let reason = format!("the metadata store: {error}");
    match error.kind {
        meta::ErrorKind::Full => Error::new(code::METADATA_FULL, reason),
        meta::ErrorKind::Unavailable | meta::ErrorKind::Unknown | meta::ErrorKind::Stopped => {
            Error::new(code::METADATA_UNAVAILABLE, reason)
        }
        _ => Error::new(code::INTERNAL, reason),
    }
}

async fn dial(rt: &Rt, identity: &Identity, access: &EtcdAccess) -> meta::Result<Etcd> {
    let site = identity.member().site;
    let mut options = etcd::Options::new(access.endpoints.clone(), format!("/holdfast/{}/", hex(&site.0)));
    // Every node may read that, and not everything.
    options.probe = NODES.all();
    options.tls = Some(etcd::Tls {
        authority: trust::certificate_pem(identity.authority()),
        certificate: trust::certificate_pem(identity.certificate()),
        key: trust::key_pem(identity.key()),
        name: Some(trust::etcd_name(site)),
    });
    Etcd::connect(rt.clone(), options).await
}

/// Connects to the metadata store as a node.
///
/// # Errors
/// `metadata_unavailable`.
pub async fn connect(rt: &Rt, identity: &Identity, access: &EtcdAccess) -> Result<Arc<Meta>> {
    let store = dial(rt, identity, access).await.map_err(|error| store_error(&error))?;
    let (rt, access) = (rt.clone(), access.clone());
    Ok(Arc::new(Meta { rt, access, store: RwLock::new((Arc::new(store), identity.certificate().clone())) }))
}

/// The metadata store, with the newest certificate of the node.
pub struct Meta {
    rt: Rt,
    access: EtcdAccess,
    store: RwLock<(Arc<Etcd>, CertificateDer<'static>)>,
}

impl std::fmt::Debug for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meta")
    }
}

impl Meta {
    /// What is asked now.
    pub(crate) fn etcd(&self) -> Arc<Etcd> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Goes on with another certificate. Watches that run go on with the one they began with, and fail when etcd ends
    /// them for it: whoever watches begins anew.
    ///
    /// # Errors
    /// `metadata_unavailable`: then all stays as it was.
    pub async fn renew(&self, identity: &Identity) -> Result<()> {
        let store = dial(&self.rt, identity, &self.access).await.map_err(|error| store_error(&error))?;
        let next = (Arc::new(store), identity.certificate().clone());
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The same, when the certificate is not the one that is in use.
    pub(crate) async fn renew_if_older(&self, identity: &Identity) -> Result<()> {
        let same = {
            let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
            store.1 == *identity.certificate()
        };
        if same { Ok(()) } else { self.renew(identity).await }
    }
}

impl Store for Meta {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, meta::Result<Get>> {
        Box::pin(async move { self.etcd().get(key).await })
    }

    fn range(
        &self,
        range: KeyRange,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, meta::Result<Page>> {
        Box::pin(async move { self.etcd().range(range, limit, at).await })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, meta::Result<TxnResult>> {
        Box::pin(async move { self.etcd().txn(txn).await })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, meta::Result<Box<dyn Watch>>> {
        Box::pin(async move { self.etcd().watch(range, from).await })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, meta::Result<Lease>> {
        Box::pin(async move { self.etcd().grant(ttl).await })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, meta::Result<Duration>> {
        Box::pin(async move { self.etcd().keep_alive(lease).await })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, meta::Result<()>> {
        Box::pin(async move { self.etcd().revoke(lease).await })
    }
}
