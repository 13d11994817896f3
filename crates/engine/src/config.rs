//! What an engine is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::Transport;
use seal::Sealer;
use seam::Rt;
use units::{MediumId, NodeId};

use crate::losses::OnLoss;
use crate::outcome::MetaThrough;
use crate::witness::Witness;

/// What an engine stands on.
#[derive(Clone)]
pub struct Deps {
    /// Clock, randomness, spawn.
    pub rt: Rt,
    /// The way to the media.
    pub transport: Arc<dyn Transport>,
    /// All media of the site, in order.
    pub media: Vec<MediumId>,
    /// The data nodes they are on; empty where this process has them all.
    pub nodes: BTreeMap<MediumId, NodeId>,
    /// Those that are there.
    pub up: Vec<MediumId>,
    /// Those whose contents are to move to the others.
    pub leaving: Vec<MediumId>,
    /// The site's keys.
    pub sealer: Arc<Sealer>,
    /// Outside memory of the journal's position.
    pub witness: Arc<dyn Witness>,
}

/// Room may be made, media may come back; well below the 30 s after which guests give up on a disk.
const WRITE_PATIENCE: Duration = Duration::from_secs(9);
/// Long enough for a reboot of a shelf or a cable that is put back; short against the time until the next failure.
const REBUILD_AFTER: Duration = Duration::from_secs(600);
/// Fragments moved, bytes written each second: a part of what one disk does, so that guests keep the rest.
const REBUILD_BYTES_PER_SECOND: u64 = 100 << 20;

/// A quarter of what a start record may have: the rows take up to half.
const START_BACKLOG_BYTES: usize = 16 << 10;

/// Sizes and limits. Nothing here can be tuned wrong by a user (R40): a site derives them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Largest container, bytes.
    pub container_bytes: u32,
    /// Journal segment, bytes.
    pub segment_bytes: u32,
    /// Journal segments that may hold uncovered records.
    pub segments_max: u32,
    /// Largest journal batch, bytes.
    pub batch_bytes: usize,
    /// Writes under way and in the write buffer, bytes; beyond it writers wait.
    pub write_buffer_bytes: u64,
    /// Plaintext blocks in RAM, bytes.
    pub block_cache_bytes: u64,
    /// Decoded map pages in RAM, bytes.
    pub page_cache_bytes: u64,
    /// Fingerprint index, bytes.
    pub index_bytes: usize,
    /// Bits of a fingerprint in an entry of the index; fewer make wrong guesses, which tests want.
    pub index_tag_bits: u32,
    /// Map changes kept in RAM before a checkpoint: 1 M are about 100 MB and a second of recovery.
    pub overlay_entries_max: usize,
    /// Commits that no checkpoint has before one is taken: about 70 bytes each.
    pub commits_max: usize,
    /// Bytes of metadata records that no checkpoint has before one is taken.
    pub meta_bytes_max: usize,
    /// Keys of a stretch of metadata that a checkpoint takes over as it is, on average: a piece of normal
    /// containers has the records of some hundred, and tiny ones tests have some each.
    pub meta_keys_per_chunk: u64,
    /// Bytes of commits, deletions and metadata behind the last checkpoint that a start record carries, at most. With rows
    /// and live segments it stays below [`journal::START_BYTES_MAX`].
    pub start_backlog_bytes: usize,
    /// How long writes wait while nothing can be flushed, for want of room or media, before they are refused.
    pub write_patience: Duration,
    /// How long a medium is down before what it held is rebuilt on others.
    pub rebuild_after: Duration,
    /// Bytes of fragments moved to other media each second, at most.
    pub rebuild_bytes_per_second: u64,
    /// How long leases hold that media grant; zero where no other process can take over.
    pub lease: Duration,
    /// What an opening does about losses.
    pub on_loss: OnLoss,
    /// What stands between the engine and its metadata store: nothing but in tests.
    pub meta_through: Option<MetaThrough>,
}

impl Config {
    /// The limits for a site with these sizes.
    pub fn for_params(container_bytes: u32, segment_bytes: u32, segments_max: u32) -> Self {
        let container = u64::from(container_bytes);
        Self {
            container_bytes,
            segment_bytes,
            segments_max,
            batch_bytes: (segment_bytes as usize / 8).min(1 << 20),
            write_buffer_bytes: container * 8,
            block_cache_bytes: container * 16,
            page_cache_bytes: container * 8,
            index_bytes: container as usize * 16,
            index_tag_bits: 32,
            overlay_entries_max: (container as usize / 8).max(256),
            commits_max: (segment_bytes as usize / 8192).clamp(8, 1024),
            meta_bytes_max: segment_bytes as usize / 16,
            meta_keys_per_chunk: u64::from(container_bytes >> 15).clamp(4, 128),
            start_backlog_bytes: (segment_bytes as usize / 4).min(START_BACKLOG_BYTES),
            write_patience: WRITE_PATIENCE,
            rebuild_after: REBUILD_AFTER,
            rebuild_bytes_per_second: REBUILD_BYTES_PER_SECOND,
            lease: Duration::ZERO,
            on_loss: OnLoss::Refuse,
            meta_through: None,
        }
    }

    /// Longest metadata record: fits a sealed unit, and a segment holds several.
    pub fn meta_record_bytes(&self) -> usize {
        seal::PLAIN_BYTES_MAX.min(self.segment_bytes as usize / 8)
    }
}
