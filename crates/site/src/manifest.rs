//! `site.json`: what a site is made of.
//!
//! ```text
//!  {"version": 1, "site": "<32 hex digits>",
//!   "media": [{"id": "<32 hex digits>", "path": "media/00.img", "bytes": 68719476736, "made": true,
//!              "leaving": true or absent}, ...],
//!   "recovery_key_file": "/path" or absent}
//! ```
//! JSON, so that an administrator can read it and mend a path. `made` says that the site made the file itself.
//! `leaving`: what it holds is to move to the others, and then it is to go. `recovery_key_file` stands in `first-start.json` only.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use units::{MediumId, SiteId};

use crate::error::{ErrorKind, Result, SiteError};

const VERSION: u32 = 1;
/// Most media of a site on one machine: more than a chassis holds, and each has threads of its own.
pub const MEDIA_MAX: usize = 64;

/// A site as its directory knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    version: u32,
    #[serde(with = "hex")]
    site: [u8; 16],
    /// In the site's order.
    pub(crate) media: Vec<Entry>,
    /// Where an unfinished first start puts the recovery key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recovery_key_file: Option<PathBuf>,
}

/// A medium of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    #[serde(with = "hex")]
    id: [u8; 16],
    /// Where it was: absolute, or from the site's directory on.
    pub(crate) path: PathBuf,
    /// Bytes when it was formatted.
    pub(crate) bytes: u64,
    /// A file the site made itself.
    pub(crate) made: bool,
    /// What it holds is to move to the others, and then it is to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) leaving: bool,
}

impl Entry {
    pub(crate) fn new(id: MediumId, path: &Path, bytes: u64, made: bool) -> Self {
        Self { id: id.0, path: path.to_owned(), bytes, made, leaving: false }
    }

    pub(crate) fn id(&self) -> MediumId {
        MediumId(self.id)
    }
}

impl Manifest {
    pub(crate) fn new(site: SiteId, media: Vec<Entry>) -> Self {
        Self { version: VERSION, site: site.0, media, recovery_key_file: None }
    }

    pub(crate) fn site(&self) -> SiteId {
        SiteId(self.site)
    }

    pub(crate) fn ids(&self) -> Vec<MediumId> {
        self.media.iter().map(Entry::id).collect()
    }

    /// Those whose contents are to move to the others.
    pub(crate) fn leaving(&self) -> Vec<MediumId> {
        self.media.iter().filter(|entry| entry.leaving).map(Entry::id).collect()
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| SiteError::invalid("invalid_path", format!("site.json: {error}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what [`Manifest::encode`] wrote; the error says what is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.version != VERSION {
            return Err(format!("version {}, and this program knows {VERSION}", manifest.version));
        }
        if manifest.media.is_empty() || manifest.media.len() > MEDIA_MAX {
            return Err(format!("{} media, not 1 to {MEDIA_MAX}", manifest.media.len()));
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
    pub(crate) fn load(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = crate::directory::read(path)? else { return Ok(None) };
        Self::decode(&bytes).map(Some).map_err(|reason| {
            let reason = format!("{}: {reason}", path.display());
            SiteError::new(ErrorKind::Failed, "manifest_damaged", reason)
                .hint("put a sound copy of the file in its place")
        })
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
