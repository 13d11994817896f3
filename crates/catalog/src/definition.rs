//! A text stored with a VM, most likely its libvirt XML: whoever starts the VM elsewhere finds it there.

use api::{DEFINITION_BYTES_MAX, Error, Result, VmName, code};
use meta::{Key, Op, Txn};

use crate::catalog::Catalog;
use crate::schema::DEFINITIONS;

/// Share of a journal segment that a definition may take: a segment takes several.
const SEGMENT_SHARE: u32 = 16;

/// A clone's definition of more than this share of the longest is brought into a checkpoint before the clone is answered:
/// so few are under way at once. Shorter ones are as any other metadata.
const CLONED_SHARE: usize = 16;

const _: () = assert!(DEFINITION_BYTES_MAX + meta::KEY_BYTES_MAX < meta::VALUE_BYTES_MAX);

/// Key of a definition.
pub(crate) fn key(number: u64) -> Result<Key> {
    Ok(DEFINITIONS.key().number(number).end()?)
}

/// Longest definition in a site with journal segments of this size, bytes.
pub(crate) fn bytes_max(segment_bytes: u32) -> usize {
    DEFINITION_BYTES_MAX.min((segment_bytes / SEGMENT_SHARE) as usize)
}

/// Whether the definition of a new clone, of this length, wants a checkpoint.
pub(crate) fn clone_is_large(bytes: usize, bytes_max: usize) -> bool {
    bytes > bytes_max / CLONED_SHARE
}

impl Catalog {
    /// Stores a text with a VM; an empty one removes what was stored.
    pub(crate) async fn try_set_definition(&self, name: &VmName, text: &str) -> Result<()> {
        let most = self.definition_bytes_max;
        if text.len() > most {
            let reason = format!("a definition of {} bytes; this site takes {most}", text.len());
            return Err(Error::new(code::DEFINITION_TOO_LARGE, reason));
        }
        // One at a time, and none before the last is in a checkpoint: see SEGMENT_SHARE.
        let _turn = self.definitions.lock().await;
        let (kv, mut record) = self.find_ready(name).await?;
        let txn = match (record.definition, text.is_empty()) {
            (None, true) => return Ok(()),
            (Some(number), true) => {
                record.definition = None;
                match self.users_of(number).await? {
                    0 => Txn::new().then(Op::delete(&key(number)?)),
                    _ => Txn::new(),
                }
            }
            (known, false) => {
                let own = match known {
                    Some(number) if self.users_of(number).await? == 0 => Some(number),
                    _ => None,
                };
                let number = match own {
                    Some(number) => number,
                    // A number that was never used, whatever for; what a snapshot has is never changed.
                    None => self.engine.new_disk_id().await?.0,
                };
                record.definition = Some(number);
                Txn::new().then(Op::put(key(number)?, text.as_bytes()))
            }
        };
        self.replace(name, &kv, &record, txn, &[], &[]).await?;
        tracing::info!(vm = %name, bytes = text.len(), "definition stored");
        self.checkpoint_definition().await;
        Ok(())
    }

    /// Brings a long definition into a checkpoint; it is stored whether or not there can be one.
    pub(crate) async fn checkpoint_definition(&self) {
        if let Err(error) = self.engine.checkpoint().await {
            tracing::warn!(%error, "no checkpoint behind a definition");
        }
    }

    /// The text stored with a VM.
    ///
    /// # Errors
    /// `no_definition`.
    pub async fn definition(&self, name: &VmName) -> Result<String> {
        let (_, record) = self.find(name).await?;
        let none = || {
            Error::new(code::NO_DEFINITION, format!("VM {name} has no definition"))
                .hint("`vm set-definition` stores one")
        };
        let number = record.definition.ok_or_else(none)?;
        let kv = self.engine.meta().get(&key(number)?).await?.kv.ok_or_else(none)?;
        String::from_utf8(kv.value.to_vec()).map_err(|_| {
            let reason = format!("the definition of VM {name} is no text");
            Error::new(code::RECORD_DAMAGED, reason)
        })
    }
}
