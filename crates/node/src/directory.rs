//! A node's directory: who it is, and what it was told of its media.
//!
//! ```text
//!  node.json      {"version": 1, "media": [{"path": "/dev/sdb", "id": "<32 hex digits>", "made": false,
//!                  "formatting": true or absent}, ...]}
//!  node.key       the private key, PKCS#8
//!  node.crt       the node's certificate, DER: its id, role and site
//!  authority.crt  the certificate of the site's authority, DER
//!  revoked.crl    the list of revoked certificates, DER; absent before the first
//!  lock           empty; locked by the one process
//! ```

use std::path::{Path, PathBuf};

use api::{Error, Result, code};
use serde::{Deserialize, Serialize};
use units::MediumId;

const VERSION: u32 = 1;

/// The directory of a node.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The directory at `root`, which need not exist.
    ///
    /// # Errors
    /// When there is no current directory to start from.
    pub fn new(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|error| Error::file(root, &error))?;
        Ok(Self { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where a medium's path leads: relative ones start in the directory.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

/// What a node remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    pub(crate) media: Vec<Entry>,
}

/// A medium of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Where it is: absolute, or from the node's directory on.
    pub(crate) path: PathBuf,
    /// The id that it has from the node as long as it is blank.
    id: String,
    /// A file that the node made itself.
    pub(crate) made: bool,
    /// It was being formatted: what stands on it is of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) formatting: bool,
}

impl Entry {
    pub(crate) fn new(path: PathBuf, id: MediumId, made: bool) -> Self {
        Self { path, id: id.to_string(), made, formatting: false }
    }

    pub(crate) fn id(&self) -> Option<MediumId> {
        let plain = self.id.len() == 32 && self.id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = plain.then(|| u128::from_str_radix(&self.id, 16).ok()).flatten()?;
        Some(MediumId(number.to_be_bytes()))
    }
}

impl Record {
    pub(crate) fn new() -> Self {
        Self { version: VERSION, media: Vec::new() }
    }

    /// Reads what [`Record::store`] wrote; the error says what is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.version != VERSION {
            return Err(format!("version {}, and this program knows {VERSION}", record.version));
        }
        if record.media.len() > api::MEDIA_MAX {
            return Err(format!("{} media, and a node has at most {}", record.media.len(), api::MEDIA_MAX));
        }
        if record.media.iter().any(|entry| entry.id().is_none()) {
            return Err("a medium's id has 32 lower-case hex digits".to_owned());
        }
        Ok(record)
    }

    pub(crate) fn load(directory: &Directory) -> Result<Self> {
        let path = directory.file("node.json");
        let Some(bytes) = machine::read_file(&path)? else { return Ok(Self::new()) };
        Self::decode(&bytes).map_err(|reason| {
            let reason = format!("{}: {reason}", path.display());
            Error::new(code::MANIFEST_DAMAGED, reason)
        })
    }

    pub(crate) fn store(&self, directory: &Directory) -> Result<()> {
        let path = directory.file("node.json");
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::new(code::INVALID_PATH, format!("{}: {error}", path.display())))?;
        bytes.push(b'\n');
        machine::replace_file(&path, &bytes)
    }
}
