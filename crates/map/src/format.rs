//! Pages as stored.
//!
//! ```text
//! fingerprint part  version u8 | level u8 | present u64 | fingerprints 16 each | blocks u64 each (level > 0)
//! address part      version u8 | containers u8 | zero u16
//!                   | (container id 16 | fragment pages u16) each | (container u8, slot u16, offset u32, length u32) each
//! ```
//! Little-endian. Container 255 is the one this page lies in itself.

use units::{Address, ContainerId, Fingerprint};

use crate::page::{Entry, Page, Place};

const VERSION: u8 = 1;
const FPS_HEADER: usize = 10;
const ADDRESSES_HEADER: usize = 4;
const CONTAINER: usize = 18;
const ADDRESS: usize = 11;
const OWN: u8 = 255;
const LEVEL_MAX: u8 = 10;

/// The bytes are no map page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("map page: {0}")]
pub struct MapFormatError(pub &'static str);

/// The two parts of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageParts {
    /// Fingerprints and counts: its keyed hash is the page's name.
    pub fingerprints: Vec<u8>,
    /// Addresses.
    pub addresses: Vec<u8>,
}

/// Encodes a page. `resolve` gives the address of a pending place, or `None` when it is in the container the page
/// itself goes to.
pub fn encode_page(page: &Page, resolve: &dyn Fn(u32) -> Option<(ContainerId, u16)>) -> PageParts {
    let mut fingerprints = vec![VERSION, page.level];
    fingerprints.extend_from_slice(&page.present.to_le_bytes());
    for entry in &page.entries {
        fingerprints.extend_from_slice(&entry.fingerprint.0);
    }
    if page.level > 0 {
        for entry in &page.entries {
            fingerprints.extend_from_slice(&entry.blocks.to_le_bytes());
        }
    }
    let mut containers: Vec<(ContainerId, u16)> = Vec::new();
    let mut places = Vec::new();
    for entry in &page.entries {
        let (holder, slot, offset, length) = match entry.place {
            Place::Stored(a) => (Some((a.container, a.fragment_pages)), a.slot, a.offset, a.length),
            Place::Pending { container, slot, offset, length } => (resolve(container), slot, offset, length),
        };
        let number = holder.map_or(OWN, |holder| {
            let known = containers.iter().position(|have| *have == holder);
            known.unwrap_or_else(|| {
                containers.push(holder);
                containers.len() - 1
            }) as u8
        });
        places.push(number);
        places.extend_from_slice(&slot.to_le_bytes());
        places.extend_from_slice(&offset.to_le_bytes());
        places.extend_from_slice(&length.to_le_bytes());
    }
    let mut addresses = vec![VERSION, containers.len() as u8, 0, 0];
    for (container, pages) in &containers {
        addresses.extend_from_slice(&container.to_bytes());
        addresses.extend_from_slice(&pages.to_le_bytes());
    }
    addresses.extend_from_slice(&places);
    PageParts { fingerprints, addresses }
}

/// Reads a page that lies in `container`, cut into fragments of `fragment_pages`.
///
/// # Errors
/// When the parts are damaged or do not fit together.
pub fn decode_page(
    fingerprints: &[u8],
    addresses: &[u8],
    container: ContainerId,
    fragment_pages: u16,
) -> Result<Page, MapFormatError> {
    let (head, rest) =
        fingerprints.split_first_chunk::<FPS_HEADER>().ok_or(MapFormatError("it is cut short"))?;
    let [VERSION, level, present @ ..] = *head else { return Err(MapFormatError("unknown version")) };
    let present = u64::from_le_bytes(present);
    let count = present.count_ones() as usize;
    let counts = if level > 0 { count * 8 } else { 0 };
    if level > LEVEL_MAX || rest.len() != count * 16 + counts {
        return Err(MapFormatError("its lengths make no sense"));
    }
    let (names, counts) = rest.split_at(count * 16);
    let places = decode_addresses(addresses, count, (container, fragment_pages))?;
    let entries = names
        .chunks_exact(16)
        .zip(places)
        .enumerate()
        .map(|(i, (name, address))| {
            let mut fingerprint = Fingerprint::default();
            fingerprint.0.copy_from_slice(name);
            let blocks = counts.chunks_exact(8).nth(i).map_or(1, number);
            Entry { fingerprint, place: Place::Stored(address), blocks }
        })
        .collect();
    Ok(Page { level, present, entries })
}

fn decode_addresses(
    bytes: &[u8],
    count: usize,
    own: (ContainerId, u16),
) -> Result<Vec<Address>, MapFormatError> {
    let (head, rest) =
        bytes.split_first_chunk::<ADDRESSES_HEADER>().ok_or(MapFormatError("its addresses are cut short"))?;
    let [VERSION, holders, 0, 0] = *head else { return Err(MapFormatError("unknown version of addresses")) };
    let holders = usize::from(holders);
    if rest.len() != holders * CONTAINER + count * ADDRESS {
        return Err(MapFormatError("the lengths of its addresses make no sense"));
    }
    let (containers, places) = rest.split_at(holders * CONTAINER);
    let mut known = Vec::with_capacity(holders);
    for raw in containers.chunks_exact(CONTAINER) {
        let mut id = [0; ContainerId::BYTES];
        id.copy_from_slice(&raw[..ContainerId::BYTES]);
        let id = ContainerId::from_bytes(id).ok_or(MapFormatError("a container id makes no sense"))?;
        known.push((id, number(&raw[ContainerId::BYTES..]) as u16));
    }
    let address = |raw: &[u8]| {
        let holder = if raw[0] == OWN { Some(own) } else { known.get(usize::from(raw[0])).copied() };
        let (container, fragment_pages) = holder.ok_or(MapFormatError("an address names no container"))?;
        Ok(Address {
            container,
            fragment_pages,
            slot: number(&raw[1..3]) as u16,
            offset: number(&raw[3..7]) as u32,
            length: number(&raw[7..11]) as u32,
        })
    };
    places.chunks_exact(ADDRESS).map(address).collect()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
