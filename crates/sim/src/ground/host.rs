//! The machine that one process of a simulated site is on: files, media that are there, and the wires to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::{Config, MetaThrough};
use machine::{Files, Host, OpenMedia};
use media::{MediaError, MediaErrorKind, Medium};
use proto::Transport;
use seam::Rt;
use units::NodeId;

use super::files::SimFiles;
use super::transport::SimTransport;
use super::{SiteSpec, number_of};
use crate::medium::SimStore;

/// Pause between two looks whether media are there.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct SimHost {
    pub(super) rt: Rt,
    pub(super) files: SimFiles,
    /// The media, in order: those that are there.
    pub(super) stores: Vec<Option<SimStore>>,
    pub(super) transport: SimTransport,
    pub(super) spec: SiteSpec,
    pub(super) meta_through: Option<MetaThrough>,
}

impl std::fmt::Debug for SimHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimHost")
    }
}

impl Host for SimHost {
    fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.files.clone())
    }

    fn media(&self) -> Arc<dyn OpenMedia> {
        Arc::new(self.clone())
    }

    fn way(&self, transport: Arc<dyn Transport>) -> Arc<dyn Transport> {
        self.transport.lead_to(transport);
        Arc::new(self.transport.clone())
    }

    fn set_up(&self, config: &mut Config) {
        let spec = &self.spec;
        config.block_cache_bytes = spec.block_cache_bytes;
        config.page_cache_bytes = spec.page_cache_bytes;
        config.overlay_entries_max = spec.overlay_entries_max;
        config.commits_max = spec.commits_max;
        config.start_backlog_bytes = spec.start_backlog_bytes;
        config.meta_keys_per_chunk = spec.meta_keys_per_chunk;
        config.index_tag_bits = spec.index_tag_bits;
        config.rebuild_after = spec.rebuild_after;
        config.rebuild_bytes_per_second = spec.rebuild_bytes_per_second;
        config.meta_through.clone_from(&self.meta_through);
    }

    fn probe_pause(&self) -> Duration {
        PROBE_PAUSE
    }
}

impl OpenMedia for SimHost {
    fn open(&self, path: &Path, create_size: Option<u64>) -> media::Result<Arc<dyn Medium>> {
        let refused = |kind, reason: &str| MediaError {
            kind,
            medium: path.display().to_string(),
            operation: "open".to_owned(),
            reason: reason.to_owned(),
        };
        if create_size.is_some() {
            return Err(refused(MediaErrorKind::Invalid, "no files are made here"));
        }
        let store = number_of(path).and_then(|number| self.stores.get(number)?.as_ref());
        let store = store.ok_or_else(|| refused(MediaErrorKind::Gone, "it is not there"))?;
        Ok(Arc::new(store.open(self.rt.clone())?))
    }

    fn same_device(&self, paths: &[PathBuf]) -> Vec<Vec<usize>> {
        (0..paths.len()).map(|path| vec![path]).collect()
    }

    fn node_of(&self, path: &Path) -> Option<NodeId> {
        self.spec.node_id(number_of(path)?)
    }
}
