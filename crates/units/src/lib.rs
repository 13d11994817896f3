//! The words every room shares: ids, sizes, positions, page-aligned buffers.
//!
//! Each id and unit is its own type, so that a block number can never pass for a byte offset.
//! What it does not do: no I/O, no policy, no format beyond the plain encoding of an id.

mod hash;
mod ids;
mod page;

pub use hash::{Map, Set, UnitHasher};
pub use ids::{
    Address, ContainerId, DiskId, Epoch, Fingerprint, Incarnation, Lba, MediumId, NodeId, Seq, SiteId,
};
pub use page::{PAGE, PageBuf, PageSlice, pages_for, round_up_page};

/// Bytes in a block: the unit of deduplication and of a disk's map.
pub const BLOCK: usize = 4096;
/// [`BLOCK`] as a 64-bit number.
pub const BLOCK_U64: u64 = BLOCK as u64;

/// CRC-32C (Castagnoli) of `bytes`: finds torn and rotten data without a key. Never a proof of integrity.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The algorithm's result has 32 bits.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
