//! The map log: every map change a container's flush made.
//!
//! postcard encoding of a version number and the changes, sealed as one unit: that bounds how many changes a container
//! takes, however small its units are. Order matters: a later change of the same block wins.

use serde::{Deserialize, Serialize};
use units::{Address, DiskId, Fingerprint, Lba, Seq};

use crate::FormatError;

const VERSION: u8 = 1;
/// Most bytes of a number of 16, 32 and 64 bits in postcard.
const U16_BYTES_MAX: usize = 3;
const U32_BYTES_MAX: usize = 5;
const U64_BYTES_MAX: usize = 10;
/// Most bytes of an address: incarnation, number, class, row; slot, pages; offset, length.
const ADDRESS_BYTES_MAX: usize =
    U64_BYTES_MAX + U32_BYTES_MAX + 1 + U16_BYTES_MAX + 2 * U16_BYTES_MAX + 2 * U32_BYTES_MAX;
/// Most bytes of a change. The longest is a hit: its kind, disk, block and position, a name, an address.
pub const CHANGE_BYTES_MAX: usize = 1 + 3 * U64_BYTES_MAX + size_of::<Fingerprint>() + ADDRESS_BYTES_MAX;
/// Most bytes of a log besides: its version and the number of changes.
const FIXED_BYTES_MAX: usize = 1 + U64_BYTES_MAX;

/// Most changes of a map log: whatever they are, the log fits one sealed unit.
pub const CHANGES_MAX: usize = (seal::PLAIN_BYTES_MAX - FIXED_BYTES_MAX) / CHANGE_BYTES_MAX;

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
