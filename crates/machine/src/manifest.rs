//! `site.json`: what a site is made of.
//!
//! ```text
//!  {"version": 1, "site": "<32 hex digits>",
//!   "media": [{"id": "<32 hex digits>", "path": "media/00.img", "bytes": 68719476736, "made": true,
//!              "leaving": true or absent, "with_node": true or absent}, ...],
//!   "recovered_ms": 1767225599999 or absent, "recovery_key_file": "/path" or absent}
//! ```
//! JSON, so that an administrator can read it and mend a path. A path that is no text stands there as the list of its
//! bytes. `made` says that the site made the file itself. `leaving`: what it holds is to move to the others, and then
//! it is to go; `with_node`: because its node is. `recovered_ms`: when the directory was made anew from the media. `recovery_key_file` stands in `first-start.json` only.

use std::path::{Path, PathBuf};

use api::{Error, Result, code};
use serde::{Deserialize, Serialize};
use units::{MediumId, NodeId, SiteId};

use crate::directory::Directory;

const VERSION: u32 = 1;
/// Most media of a site of many nodes: its list stays well below what a metadata store takes in one value.
const LISTED_MAX: usize = 1024;

/// A site as its directory knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    #[serde(with = "hex")]
    site: [u8; 16],
    /// In the site's order.
    pub media: Vec<Entry>,
    /// When this list was made anew from the media, ms since the Unix epoch; 0 where it is the site's first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) recovered_ms: u64,
    /// Where an unfinished first start puts the recovery key.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "path_or_none")]
    pub(crate) recovery_key_file: Option<PathBuf>,
}

/// A medium of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    #[serde(with = "hex")]
    id: [u8; 16],
    /// Where it was: absolute, or from the site's directory on.
    #[serde(with = "as_path")]
    pub path: PathBuf,
    /// Bytes when it was formatted.
    pub bytes: u64,
    /// A file the site made itself.
    pub made: bool,
    /// What it holds is to move to the others, and then it is to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// It leaves because its node does, and stays when that is to stay after all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_node: bool,
    /// The data node that holds it, where the site has such.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_or_none")]
    node: Option<[u8; 16]>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    /// A medium at `path`; `made` says that the site made the file itself.
    pub fn new(id: MediumId, path: &Path, bytes: u64, made: bool) -> Self {
        Self { id: id.0, path: path.to_owned(), bytes, made, leaving: false, with_node: false, node: None }
    }

    /// The same on a data node.
    #[must_use]
    pub fn on_node(mut self, node: Option<NodeId>) -> Self {
        self.node = node.map(|node| node.0);
        self
    }

    /// Which it is.
    pub fn id(&self) -> MediumId {
        MediumId(self.id)
    }

    /// The data node that holds it.
    pub fn node(&self) -> Option<NodeId> {
        self.node.map(NodeId)
    }
}

impl Manifest {
    /// Of these media, in order.
    pub fn new(site: SiteId, media: Vec<Entry>) -> Self {
        Self { version: VERSION, site: site.0, media, recovered_ms: 0, recovery_key_file: None }
    }

    /// The site.
    pub fn site(&self) -> SiteId {
        SiteId(self.site)
    }

    /// The media, in order.
    pub fn ids(&self) -> Vec<MediumId> {
        self.media.iter().map(Entry::id).collect()
    }

    /// Those whose contents are to move to the others.
    pub fn leaving(&self) -> Vec<MediumId> {
        self.media.iter().filter(|entry| entry.leaving).map(Entry::id).collect()
    }

    /// The stored form: JSON.
    ///
    /// # Errors
    /// None that is known of.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::new(code::MANIFEST_DAMAGED, format!("site.json: {error}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what [`Manifest::encode`] wrote; the error says what is wrong.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.version != VERSION {
            return Err(format!("version {}, and this program knows {VERSION}", manifest.version));
        }
        if manifest.media.is_empty() || manifest.media.len() > LISTED_MAX {
            return Err(format!("{} media, not 1 to {LISTED_MAX}", manifest.media.len()));
        }
        let mut ids = manifest.ids();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != manifest.media.len() {
            return Err("a medium stands in it twice".to_owned());
        }
        Ok(manifest)
    }

    /// Reads a manifest from a file; `None` when it is not there.
    pub(crate) fn load(directory: &Directory, path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = directory.read(path)? else { return Ok(None) };
        Self::decode(&bytes).map(Some).map_err(|reason| {
            let reason = format!("{}: {reason}", path.display());
            Error::new(code::MANIFEST_DAMAGED, reason).hint("put a sound copy of the file in its place")
        })
    }
}

/// A path as text, or as the list of its bytes where it is none.
mod as_path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => path.as_os_str().as_bytes().serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Text(text) => text.into(),
            Stored::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

/// The same where there may be none.
mod path_or_none {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Stored(#[serde(with = "super::as_path")] PathBuf);

    pub(super) fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.clone().map(Stored).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Stored>::deserialize(deserializer)?.map(|stored| stored.0))
    }
}

/// 16 bytes as 32 lower-case hex digits.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:032x}", u128::from_be_bytes(*bytes)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(&text, 16) {
            Ok(number) if plain => Ok(number.to_be_bytes()),
            _ => Err(D::Error::custom("an id has 32 lower-case hex digits")),
        }
    }
}

/// The same where there may be none.
mod hex_or_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Id(#[serde(with = "super::hex")] [u8; 16]);

    pub(super) fn serialize<S: Serializer>(id: &Option<[u8; 16]>, serializer: S) -> Result<S::Ok, S::Error> {
        id.map(Id).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 16]>, D::Error> {
        Ok(Option::<Id>::deserialize(deserializer)?.map(|id| id.0))
    }
}
