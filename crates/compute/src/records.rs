//! Records of the metadata store.
//!
//! ```text
//!  serving/<16 zeros>  {"version": 1, "node": "<32 hex>", "name": "c1", "address": "10.0.0.4:7410"}, with a lease
//!  media/<16 zeros>    the site's media, as a site on one machine has them in site.json
//!  claim/<16 zeros>    who owns the site: 16 random bytes of whoever wrote it, then `engine::WitnessState` as it is stored
//! ```

use std::net::SocketAddr;

use api::{Error, Result, code};
use cluster::{CLAIM, MEDIA, SERVING};
use meta::Key;
use serde::{Deserialize, Serialize};
use units::NodeId;

const VERSION: u32 = 1;
/// A name is shorter.
const NAME_MAX: usize = 64;

pub(crate) fn serving_key() -> Result<Key> {
    Ok(SERVING.key().number(0).end()?)
}

pub(crate) fn serving_range() -> meta::KeyRange {
    SERVING.all()
}

pub(crate) fn media_key() -> Result<Key> {
    Ok(MEDIA.key().number(0).end()?)
}

pub(crate) fn claim_key() -> Result<Key> {
    Ok(CLAIM.key().number(0).end()?)
}

/// Which compute node serves the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serving {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    /// Where its door on the network is.
    pub(crate) address: SocketAddr,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    node: String,
    name: String,
    address: SocketAddr,
}

fn damaged(reason: impl std::fmt::Display) -> Error {
    let reason = format!("the record of who serves, in the metadata store: {reason}");
    Error::new(code::RECORD_DAMAGED, reason)
}

impl Serving {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let node = format!("{:032x}", u128::from_be_bytes(self.node.0));
        let text = Text { version: VERSION, node, name: self.name.clone(), address: self.address };
        serde_json::to_vec(&text).map_err(damaged)
    }

    /// Reads what [`Serving::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text: Text = serde_json::from_slice(bytes).map_err(damaged)?;
        if text.version != VERSION {
            return Err(damaged(format!("version {}, and this program knows {VERSION}", text.version)));
        }
        let plain =
            text.node.len() == 32 && text.node.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let node = plain.then(|| u128::from_str_radix(&text.node, 16).ok()).flatten();
        let node = node.ok_or_else(|| damaged("its node is none"))?;
        if text.name.len() > NAME_MAX {
            return Err(damaged("its name is too long"));
        }
        Ok(Self { node: NodeId(node.to_be_bytes()), name: text.name, address: text.address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_serves_reads_back() {
        let serving = Serving {
            node: NodeId([7; 16]),
            name: "c1".to_owned(),
            address: "10.0.0.4:7410".parse().unwrap(),
        };
        let bytes = serving.encode().unwrap();
        assert_eq!(Serving::decode(&bytes).unwrap(), serving);
        for end in 0..bytes.len() {
            assert_eq!(Serving::decode(&bytes[..end]).unwrap_err().code, "record_damaged");
        }
    }
}
