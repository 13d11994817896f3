//! What a site uses of the machine it is on. A simulated machine takes the place of the real one here, and nowhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::Result;
use engine::Config;
use media::{Backend, Medium};
use proto::Transport;
use seam::Rt;
use units::NodeId;

use crate::directory::Directory;
use crate::files::Files;
use crate::media_set::Opener;

/// Opens media by their paths.
pub trait OpenMedia: Send + Sync {
    /// Opens a medium; with `create_size` makes its file of so many bytes. Blocks for milliseconds.
    ///
    /// # Errors
    /// As [`media::open`].
    fn open(&self, path: &Path, create_size: Option<u64>) -> media::Result<Arc<dyn Medium>>;

    /// Groups `paths` by the physical device below them, as [`media::same_device`] does.
    fn same_device(&self, paths: &[PathBuf]) -> Vec<Vec<usize>>;

    /// What a medium fails together with, where a path says that.
    fn node_of(&self, path: &Path) -> Option<NodeId> {
        let _ = path;
        None
    }
}

/// A simulated machine, and how a site on it differs from one as it is shipped.
pub trait Host: std::fmt::Debug + Send + Sync {
    /// Its files.
    fn files(&self) -> Arc<dyn Files>;

    /// Its media.
    fn media(&self) -> Arc<dyn OpenMedia>;

    /// The way that requests take to the media behind `transport`.
    fn way(&self, transport: Arc<dyn Transport>) -> Arc<dyn Transport>;

    /// Changes sizes and bounds of the engine.
    fn set_up(&self, config: &mut Config);

    /// Pause between two looks whether media are there.
    fn probe_pause(&self) -> Duration;
}

/// The directory at `root` of the machine.
pub(crate) fn directory(host: Option<&dyn Host>, root: &Path) -> Result<Directory> {
    match host {
        Some(host) => Directory::within(host.files(), root),
        None => Directory::new(root),
    }
}

/// What opens media of the machine.
pub(crate) fn opener(host: Option<&dyn Host>, rt: &Rt, backend: Backend) -> Result<Arc<dyn OpenMedia>> {
    Ok(match host {
        Some(host) => host.media(),
        None => Arc::new(Opener::new(rt, backend)?),
    })
}
