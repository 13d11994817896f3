//! The record of something in the trash, in the metadata store under `trash/NUMBER`.

use meta::Stored;
use serde::{Deserialize, Serialize};

use crate::record::Record as VmRecord;
use crate::snapshots::SnapshotRecord;

const VERSION: u32 = 1;

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// A VM: its snapshots stay under its number.
    Vm(VmRecord),
    /// A snapshot.
    Snapshot {
        /// The number of its VM.
        vm: u64,
        record: SnapshotRecord,
    },
}

/// The record of something in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// The VM's name, or `VM@SNAPSHOT`, when it was deleted.
    pub(super) name: String,
    pub(super) deleted_ms: u64,
    /// Site time; 0 while it is being emptied.
    pub(super) expires_ms: u64,
    pub(super) bytes: u64,
    pub(super) used_bytes: u64,
    #[serde(default)]
    pub(super) snapshots: u64,
    pub(crate) what: What,
}

impl Stored for Record {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Record {
    pub(super) fn new(name: String, deleted_ms: u64, keep_ms: u64, what: What) -> Self {
        let expires_ms = deleted_ms.saturating_add(keep_ms);
        Self { version: VERSION, name, deleted_ms, expires_ms, bytes: 0, used_bytes: 0, snapshots: 0, what }
    }

    /// As it is from when on it cannot be restored any more.
    pub(super) fn going(&self) -> Self {
        Self { expires_ms: 0, ..self.clone() }
    }

    /// It cannot be restored any more: a part of it may be gone.
    pub(super) fn is_being_emptied(&self) -> bool {
        self.expires_ms == 0
    }
}
