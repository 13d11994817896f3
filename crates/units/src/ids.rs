//! Ids and positions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of a block or page: keyed BLAKE3 of its plaintext, cut to 128 bits (section 3 of docs/design.md).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The first eight bytes as a number: uniform, for hash tables and sampling.
    pub fn head(&self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(word)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

/// Identity of a site: random, in the superblock of every medium.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteId(pub [u8; 16]);

/// Identity of a medium: random, made when the medium is formatted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct MediumId(pub [u8; 16]);

/// Identity of a node: random, made when the node joins its site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 16]);

macro_rules! hex_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0)
            }
        }
    };
}
hex_id!(SiteId);
hex_id!(MediumId);
hex_id!(NodeId);

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// One run of a compute node: a random number, the unit of fencing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// Order of incarnations: each recovery takes the next. A higher epoch supersedes a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Epoch(pub u64);

/// A virtual disk. Never reused within a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskId(pub u64);

/// Block number within a disk: byte offset / 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lba(pub u64);

/// Position in the journal stream; counts records, goes on across incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The position `count` records later.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// A container: minted by one incarnation for one row of one geometry class, never reused (section 4.6 of docs/design.md).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    /// The incarnation that wrote it.
    pub incarnation: Incarnation,
    /// Count within the incarnation, from 0.
    pub number: u32,
    /// Geometry class, an index into the pool's table of classes.
    pub class: u8,
    /// Row of that class in the layout: which media hold the fragments.
    pub row: u16,
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}.c{}r{}", self.incarnation.0, self.number, self.class, self.row)
    }
}

impl ContainerId {
    /// Bytes of the plain encoding.
    pub const BYTES: usize = 16;

    /// Incarnation (8), number (4), row (2), class (1), zero (1); little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.incarnation.0.to_le_bytes());
        out[8..12].copy_from_slice(&self.number.to_le_bytes());
        out[12..14].copy_from_slice(&self.row.to_le_bytes());
        out[14] = self.class;
        out
    }

    /// Reads the plain encoding; `None` when the spare byte is not zero.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, n0, n1, n2, n3, r0, r1, class, spare] = bytes;
        (spare == 0).then_some(Self {
            incarnation: Incarnation(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            number: u32::from_le_bytes([n0, n1, n2, n3]),
            row: u16::from_le_bytes([r0, r1]),
            class,
        })
    }
}

/// Where a sealed unit lies: container, slot of its directory, and the bytes within the container.
///
/// `offset` and `length` repeat what the directory says under `slot`, and `fragment_pages` tells how the container
/// is cut, so that a cold read needs neither directory nor any table of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The container.
    pub container: ContainerId,
    /// Index into the container's directory.
    pub slot: u16,
    /// Payload of each of the container's fragments, in pages.
    pub fragment_pages: u16,
    /// Byte offset of the unit within the container.
    pub offset: u32,
    /// Bytes of the unit, header and tag included.
    pub length: u32,
}
