//! Where things lie on a medium.

use container::{fragment_bytes, header_bytes};
use units::{PAGE, round_up_page};

/// Offset of the second superblock.
pub(crate) const SUPERBLOCK_COPY: u64 = 64 * 1024;
/// Where the copies of what seals the medium lie.
pub(crate) const SEALS: [u64; 2] = [PAGE as u64, SUPERBLOCK_COPY + PAGE as u64];
const LOG_START: u64 = SUPERBLOCK_COPY + 2 * PAGE as u64;

/// Sizes chosen when a site is created; the same on all its media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Largest container, bytes.
    pub container_bytes: u32,
    /// Journal segment, bytes, header page included.
    pub segment_bytes: u32,
    /// Journal segments of a stream that may hold uncovered records.
    pub segments_max: u32,
    /// Pages of the table log.
    pub log_pages: u32,
    /// Most fragments on a medium.
    pub fragments_max: u32,
}

impl Params {
    /// Slots a medium has beyond `segments_max`: for segments of the stream before, for those being freed, and for
    /// those given up half-way.
    const SPARE_SLOTS: u32 = 8;
    /// Containers whose bytes a medium has at least. The journal takes 36 and tables less than one; of the 91 that are left to a
    /// site of one medium eight are in reserve.
    const CONTAINERS_MIN: u64 = 128;

    /// The sizes of a real site on media of `medium_bytes`.
    pub fn for_medium(medium_bytes: u64) -> Self {
        // One fragment for each 256 KiB: full stripes are larger, small ones are rare.
        let fragments = (medium_bytes / (256 * 1024)).clamp(4096, 1 << 24);
        Self {
            container_bytes: 8 << 20,
            segment_bytes: 8 << 20,
            segments_max: 28,
            log_pages: 1024,
            fragments_max: fragments as u32,
        }
    }

    /// Least bytes of a medium for users to give a site, whatever the number of its media: beside journal and tables it has
    /// room for what is in reserve, for the cleaner to move, and for data many times that. 1 GiB with the containers of a real site. Media of sites that are there may be smaller.
    pub fn least_medium_bytes(&self) -> u64 {
        u64::from(self.container_bytes) * Self::CONTAINERS_MIN
    }

    /// Whether the sizes make sense together.
    pub fn are_sane(&self) -> bool {
        let page = PAGE as u32;
        (16 * page..=64 << 20).contains(&self.container_bytes)
            && (16 * page..=64 << 20).contains(&self.segment_bytes)
            && self.segment_bytes.is_multiple_of(page)
            && (4..=1024).contains(&self.segments_max)
            && (16..=1 << 20).contains(&self.log_pages)
            && (16..=1 << 28).contains(&self.fragments_max)
    }
}

/// The regions of one medium, byte offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The sizes it follows from.
    pub params: Params,
    /// Table log.
    pub log: u64,
    /// The two tables.
    pub tables: [u64; 2],
    /// Bytes of each table.
    pub table_bytes: u64,
    /// Journal slots.
    pub slots: u64,
    /// Number of slots.
    pub slot_count: u32,
    /// Fragments.
    pub data: u64,
    /// Behind the last fragment.
    pub end: u64,
}

impl Layout {
    /// The regions of a medium of `medium_bytes`; `None` when it is too small for the journal and one container.
    pub fn new(params: Params, medium_bytes: u64) -> Option<Self> {
        if !params.are_sane() {
            return None;
        }
        let log_bytes = u64::from(params.log_pages) * PAGE as u64;
        let table_bytes = crate::table::table_bytes(params.fragments_max);
        let slot_count = params.segments_max + Params::SPARE_SLOTS;
        let tables = [LOG_START + log_bytes, LOG_START + log_bytes + table_bytes];
        let slots = tables[1] + table_bytes;
        let data = slots + u64::from(slot_count) * u64::from(params.segment_bytes);
        let end = medium_bytes / PAGE as u64 * PAGE as u64;
        let layout = Self { params, log: LOG_START, tables, table_bytes, slots, slot_count, data, end };
        (data + layout.largest_extent() <= end).then_some(layout)
    }

    /// Bytes of the largest fragment with its header: a whole container on one medium.
    pub fn largest_extent(&self) -> u64 {
        let payload = fragment_bytes(self.params.container_bytes as usize, 1);
        (header_bytes(payload) + round_up_page(payload)) as u64
    }

    /// Byte offset of a slot.
    pub(crate) fn slot(&self, slot: u32) -> u64 {
        self.slots + u64::from(slot) * u64::from(self.params.segment_bytes)
    }
}
