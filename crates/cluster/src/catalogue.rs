//! The catalogue: a copy of what the metadata store has of the site, in each manager's directory, for the day when the
//! store is lost.
//!
//! ```text
//!  catalogue.json  {"version": 1, "taken_ms": <Unix ms>, "entries": [["<hex of a key>", "<hex of its value>"], ...]}
//! ```
//! It has nodes, their names, revoked certificates, what the site began with, and the list of media. It has no tokens, no
//! turn and no claim: who owns a site whose store was lost is found out on its media.

use std::sync::Arc;
use std::time::Duration;

use api::{Error, Result, code};
use meta::{Compare, Key, KeyRange, Op, Site, Store, Table, Txn};
use node::Directory;
use seam::Rt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::access::store_error;
use crate::birth;
use crate::manager::Manager;
use crate::members::Roster;
use crate::records::{NAMES, NODES, Node, REVOKED};
use crate::text::{hex, node_id, of_hex};
use crate::users::{CLAIM, MEDIA};

const VERSION: u32 = 1;
const FILE: &str = "catalogue.json";
/// Everything but media, which come last: with them the site is restored.
const TABLES: [Table<Site>; 4] = [birth::TABLE, REVOKED, NAMES, NODES];
/// Entries of a table.
const ENTRIES_MAX: usize = 2048;
/// Longest key and value, bytes.
const KEY_MAX: usize = 512;
const VALUE_MAX: usize = 2 << 20;
/// It is taken anew at least so often.
const EVERY: Duration = Duration::from_secs(60);
/// Pause behind news, so that many of them make one copy.
const REST: Duration = Duration::from_secs(1);

/// A copy of what the metadata store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// When it was taken, ms since the Unix epoch.
    pub taken_ms: u64,
    entries: Vec<(Key, Vec<u8>)>,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredSite {
    /// When the copy was taken, ms since the Unix epoch.
    pub taken_ms: u64,
    /// Nodes of the site.
    pub nodes: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    taken_ms: u64,
    entries: Vec<(String, String)>,
}

fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::new(code::RECORD_DAMAGED, format!("{FILE}: {reason}"))
}

async fn list(store: &dyn Store, range: KeyRange) -> Result<Vec<meta::KeyValue>> {
    let (kvs, _) = meta::list(store, range, ENTRIES_MAX).await.map_err(|error| store_error(&error))?;
    Ok(kvs)
}

impl Catalogue {
    /// What the store has now.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn take(rt: &Rt, store: &dyn Store) -> Result<Self> {
        let mut entries = Vec::new();
        for table in TABLES.into_iter().chain([MEDIA]) {
            entries.extend(list(store, table.all()).await?.into_iter().map(|kv| (kv.key, kv.value.to_vec())));
        }
        Ok(Self { taken_ms: rt.wall_ms(), entries })
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let entries = self.entries.iter().map(|(key, value)| (hex(key.as_bytes()), hex(value))).collect();
        let text = Text { version: VERSION, taken_ms: self.taken_ms, entries };
        serde_json::to_vec(&text).map_err(damaged)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text: Text = serde_json::from_slice(bytes).map_err(damaged)?;
        if text.version != VERSION {
            return Err(damaged(format!("version {}, and this program knows {VERSION}", text.version)));
        }
        let entry = |(key, value): (String, String)| {
            let key = of_hex(&key, KEY_MAX).ok_or_else(|| damaged("a key is none"))?;
            let key = Key::new(key).map_err(damaged)?;
            let known = TABLES.into_iter().chain([MEDIA]).any(|table| table.all().contains(&key));
            let value = of_hex(&value, VALUE_MAX).filter(|_| known);
            Ok((key, value.ok_or_else(|| damaged("an entry makes no sense"))?))
        };
        let entries = text.entries.into_iter().map(entry).collect::<Result<_>>()?;
        Ok(Self { taken_ms: text.taken_ms, entries })
    }

    /// What a manager's directory has.
    ///
    /// # Errors
    /// `no_catalogue`, `record_damaged`.
    pub fn load(directory: &Directory) -> Result<Self> {
        let path = directory.file(FILE);
        let bytes = machine::read_file(&path)?.ok_or_else(|| {
            let reason = format!("{}: there is no copy of the metadata store", path.display());
            Error::new(code::NO_CATALOGUE, reason)
        })?;
        Self::decode(&bytes)
    }

    /// Whether it knows of media: a store that was just made has none, and is no reason to forget a copy that has.
    fn has_media(&self) -> bool {
        self.entries.iter().any(|(key, _)| MEDIA.all().contains(key))
    }

    /// Keeps a copy in a manager's directory, fresh as long as it is polled.
    pub async fn keep(
        rt: &Rt,
        store: Arc<dyn Store>,
        directory: &Directory,
        mut roster: watch::Receiver<Arc<Roster>>,
    ) {
        let mut kept = Self::load(directory).ok();
        loop {
            match Self::take(rt, &*store).await {
                Ok(taken) => {
                    let is_news = kept.as_ref().is_none_or(|kept| kept.entries != taken.entries);
                    let is_less = kept.as_ref().is_some_and(Self::has_media) && !taken.has_media();
                    if is_less {
                        tracing::warn!(
                            "the metadata store knows of no media, and its copy here does: it stays"
                        );
                    } else if is_news {
                        let written = taken
                            .encode()
                            .and_then(|bytes| machine::replace_file(&directory.file(FILE), &bytes));
                        match written {
                            Ok(()) => kept = Some(taken),
                            Err(error) => tracing::warn!(%error, "the metadata store is not copied"),
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "the metadata store is not copied"),
            }
            rt.sleep(REST).await;
            if let Ok(Err(_)) = seam::timeout(&**rt, EVERY, roster.changed()).await {
                return;
            }
        }
    }

    /// Puts it into a store that knows nothing of the site but its founding manager; the same again where it was cut off.
    ///
    /// # Errors
    /// `site_exists` when the store knows of media, or that somebody owns the site; `metadata_unavailable`.
    pub async fn restore(&self, store: &dyn Store, manager: &Manager) -> Result<RestoredSite> {
        for range in [MEDIA.all(), KeyRange::one(&CLAIM.key().number(0).end()?)] {
            if !list(store, range).await?.is_empty() {
                let reason = "the metadata store knows the site: nothing is to be restored";
                return Err(Error::new(code::SITE_EXISTS, reason));
            }
        }
        let (media, others): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|(key, _)| MEDIA.all().contains(key));
        let mut nodes = 0;
        for (key, value) in others.into_iter().chain(media) {
            let absent = Compare::absent(key.clone());
            let put = Txn::new().when(absent).then(Op::put(key.clone(), value.clone()));
            // What is there is of an attempt before, or the founding manager's own.
            store.txn(put).await.map_err(|error| store_error(&error))?;
            let id = NODES.segments(key).and_then(|mut segments| node_id(segments.text()?));
            if let Some(id) = id {
                manager.readmit(&Node::decode(id, value)?).await?;
                nodes += 1;
            }
        }
        Ok(RestoredSite { taken_ms: self.taken_ms, nodes })
    }
}
