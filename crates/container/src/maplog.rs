//! The map log: every map change a container's flush made.
//!
//! postcard encoding of a version number and the changes, sealed as one unit. Order matters: a later change of the
//! same block wins.

use serde::{Deserialize, Serialize};
use units::{Address, DiskId, Fingerprint, Lba, Seq};

use crate::FormatError;

const VERSION: u8 = 1;

/// One change of a disk's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The block now lies in a slot of this container.
    Put {
        /// The disk.
        disk: DiskId,
        /// The block.
        lba: Lba,
        /// Journal position of the write.
        seq: Seq,
        /// Slot in this container.
        slot: u16,
    },
    /// The block equals one that a committed container already holds.
    Hit {
        /// The disk.
        disk: DiskId,
        /// The block.
        lba: Lba,
        /// Journal position of the write.
        seq: Seq,
        /// Name of the block.
        fingerprint: Fingerprint,
        /// Where it lies.
        address: Address,
    },
    /// The blocks `lba .. lba + count` are holes.
    Hole {
        /// The disk.
        disk: DiskId,
        /// First block.
        lba: Lba,
        /// Number of blocks.
        count: u64,
        /// Journal position of the trim or zero write.
        seq: Seq,
    },
}

/// The changes of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MapLog {
    version: u8,
    /// The changes, in the order they apply.
    pub changes: Vec<Change>,
}

impl MapLog {
    /// A log of `changes`.
    pub fn new(changes: Vec<Change>) -> Self {
        Self { version: VERSION, changes }
    }

    /// The stored form, before sealing.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain values always encode")
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the bytes do not decode, have another version or something behind them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bad = |reason| FormatError { what: "map log", reason };
        let (log, rest): (Self, _) =
            postcard::take_from_bytes(bytes).map_err(|_| bad("the bytes do not decode"))?;
        if log.version != VERSION || !rest.is_empty() {
            return Err(bad("this is no map log of version 1"));
        }
        Ok(log)
    }
}
