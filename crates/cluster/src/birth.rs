//! What a site of many nodes begins with, until the first compute node has made it.
//!
//! ```text
//!  site/<16 zeros>  {"version": 1, "data_nodes": 3, "keys": "<hex>"}
//! ```
//! in the metadata store, and the same as `birth.json` in the founding manager's directory: how many data nodes have media
//! before the first compute node formats them, and the site's keys, wrapped by the key that compute nodes get when they join
//! and by the recovery key. Once there are media, each carries the wrapped keys, and these count.

use api::{Error, Result, code};
use meta::{Key, Site, Store, Table};
use node::Directory;
use seal::{Kek, KeyRing, RecoveryKey, WRAPPED_BYTES, WrappedKeys};
use seam::Rt;
use serde::{Deserialize, Serialize};

use crate::access::store_error;
use crate::text::{hex, of_hex_exact};

const VERSION: u32 = 1;
pub(crate) const TABLE: Table<Site> = Table::new("site");
const FILE: &str = "birth.json";
/// Data nodes that may be waited for.
const NODES_MAX: usize = 64;

/// What a site begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// So many data nodes have media before the site is made.
    pub data_nodes: usize,
    /// The site's keys.
    pub keys: WrappedKeys,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    data_nodes: usize,
    keys: String,
}

fn damaged(reason: impl std::fmt::Display) -> Error {
    let reason = format!("the record of what the site begins with: {reason}");
    Error::new(code::RECORD_DAMAGED, reason)
}

impl Birth {
    /// New keys, opened by `key` and by the recovery key that is given.
    pub(crate) fn new(rt: &Rt, data_nodes: usize, key: &[u8; 32]) -> (Self, RecoveryKey) {
        let (mut master, mut recovery, mut random) = ([0; 32], [0; 32], [0; 40]);
        rt.fill_random(&mut master);
        rt.fill_random(&mut recovery);
        rt.fill_random(&mut random);
        let (ring, recovery) = (KeyRing::from_master(master), RecoveryKey::from_bytes(recovery));
        let keys = WrappedKeys::by_key_file(&ring, &Kek::from_bytes(*key), &recovery, &random);
        (Self { data_nodes, keys }, recovery)
    }

    /// Whether so many data nodes may be waited for.
    pub(crate) fn check(data_nodes: usize) -> Result<()> {
        if (1..=NODES_MAX).contains(&data_nodes) {
            return Ok(());
        }
        let reason = format!("a site begins with 1 to {NODES_MAX} data nodes, not {data_nodes}");
        Err(Error::new(code::INVALID_REQUEST, reason))
    }

    /// The key of the record.
    pub(crate) fn key() -> Result<Key> {
        Ok(TABLE.key().number(0).end()?)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let keys = hex(&self.keys.encode());
        serde_json::to_vec(&Text { version: VERSION, data_nodes: self.data_nodes, keys }).map_err(damaged)
    }

    /// Reads what [`Birth::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text: Text = serde_json::from_slice(bytes).map_err(damaged)?;
        if text.version != VERSION {
            return Err(damaged(format!("version {}, and this program knows {VERSION}", text.version)));
        }
        Self::check(text.data_nodes)?;
        let keys = of_hex_exact::<WRAPPED_BYTES>(&text.keys).and_then(|keys| WrappedKeys::decode(&keys));
        let keys = keys.ok_or_else(|| damaged("the keys are none"))?;
        Ok(Self { data_nodes: text.data_nodes, keys })
    }

    pub(crate) fn save(&self, directory: &Directory) -> Result<()> {
        machine::replace_file(&directory.file(FILE), &self.encode()?)
    }

    /// What the founding manager's directory has; `None` in another manager's.
    pub(crate) fn load(directory: &Directory) -> Result<Option<Self>> {
        machine::read_file(&directory.file(FILE))?.map(|bytes| Self::decode(&bytes)).transpose()
    }

    /// What the metadata store has; `None` before the founding manager was there.
    ///
    /// # Errors
    /// `metadata_unavailable`, `record_damaged`.
    pub async fn find(store: &dyn Store) -> Result<Option<Self>> {
        let got = store.get(&Self::key()?).await.map_err(|error| store_error(&error))?;
        got.kv.map(|kv| Self::decode(&kv.value)).transpose()
    }
}
