//! A site that runs: its parts, what can be asked of it, and its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data::{LocalTransport, Superblock};
use engine::{Engine, EngineError, EngineErrorKind};
use seam::Rt;
use tokio::sync::watch;
use units::MediumId;

use crate::directory::Directory;
use crate::error::{ErrorKind, Result, SiteError};
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::media_set::Opener;
use crate::names::VmName;
use crate::probe;
use crate::status::{Status, judge};
use crate::uses::Uses;
use crate::vms::{Vm, VmSummary, Vms};

/// How long clients have to take their replies when the site stops.
const CLIENTS_WITHIN: Duration = Duration::from_secs(10);
/// How long the engine has to write its buffer; what it does not, the journal holds.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);

/// What a site is made of.
pub(crate) struct Parts {
    pub(crate) rt: Rt,
    pub(crate) opener: Opener,
    pub(crate) directory: Directory,
    pub(crate) manifest: Manifest,
    pub(crate) engine: Engine,
    pub(crate) transport: Arc<LocalTransport>,
    /// Media that could not be opened, with the reason.
    pub(crate) absent: Vec<(MediumId, String)>,
    /// The superblock whose keys every medium must carry.
    pub(crate) keys_from: Superblock,
    pub(crate) shared_devices: Vec<Vec<PathBuf>>,
    /// Held as long as the site runs.
    pub(crate) _lock: Lock,
}

/// A medium that is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Away {
    /// Why, for people.
    pub(crate) reason: String,
    /// It may come back only at the next start.
    pub(crate) barred: bool,
}

pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) vms: Vms,
    away: Mutex<BTreeMap<MediumId, Away>>,
    server: tokio::sync::Mutex<Option<nbd::Server>>,
    pub(crate) stopping: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn away(&self) -> MutexGuard<'_, BTreeMap<MediumId, Away>> {
        // Whole after every statement.
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a close that failed so is one that the next start completes.
fn can_wait(error: &EngineError) -> bool {
    matches!(error.kind, EngineErrorKind::TooFewMedia | EngineErrorKind::NoSpace)
}

/// A running site. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Site({})", self.shared.parts.directory.root().display())
    }
}

impl Site {
    pub(crate) fn new(parts: Parts) -> Self {
        let vms = Vms { engine: parts.engine.clone(), uses: Arc::new(Uses::default()) };
        let away = parts.absent.iter().cloned().map(|(id, reason)| (id, Away { reason, barred: false }));
        let away = Mutex::new(away.collect());
        let (stopping, _) = watch::channel(false);
        let rt = parts.rt.clone();
        let shared = Arc::new(Shared { parts, vms, away, server: tokio::sync::Mutex::default(), stopping });
        rt.spawn(
            "media probe",
            Box::pin(probe::run(Arc::downgrade(&shared), shared.stopping.subscribe(), rt.clone())),
        );
        Self { shared }
    }

    /// The site's directory.
    pub fn directory(&self) -> &Directory {
        &self.shared.parts.directory
    }

    /// The runtime it runs on.
    pub fn runtime(&self) -> &Rt {
        &self.shared.parts.rt
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.shared.parts.engine
    }

    /// Serves the disks on the NBD socket.
    ///
    /// # Errors
    /// `nbd_socket` when the socket cannot be claimed.
    pub async fn serve(&self) -> Result<()> {
        let mut server = self.shared.server.lock().await;
        if server.is_some() {
            return Ok(());
        }
        let exports = Arc::new(self.shared.vms.clone());
        let path = self.directory().nbd_socket();
        let started =
            nbd::Server::start(self.runtime().clone(), exports, &path, nbd::Limits::default()).await;
        *server = Some(started.map_err(|error| {
            let kind = match error.kind {
                nbd::ServerErrorKind::Busy => ErrorKind::Busy,
                nbd::ServerErrorKind::NotASocket => ErrorKind::Conflict,
                nbd::ServerErrorKind::Io => ErrorKind::Failed,
            };
            SiteError::new(kind, "nbd_socket", error.to_string())
        })?);
        Ok(())
    }

    /// Stops in good order: clients are answered and cut off, the write buffer goes to the log, the journal ends.
    /// What could not be written is in the journal and found at the next start.
    ///
    /// That is no error while media are missing or full.
    ///
    /// # Errors
    /// When the engine could not write all for another reason, or not in time. The site is stopped all the same.
    pub async fn stop(&self) -> Result<()> {
        self.shared.stopping.send_replace(true);
        if let Some(server) = self.shared.server.lock().await.take() {
            let cut_off = server.stop(CLIENTS_WITHIN).await;
            if cut_off > 0 {
                tracing::warn!(cut_off, "clients did not take their replies in time");
            }
        }
        match seam::timeout(&**self.runtime(), CLOSE_WITHIN, self.engine().close()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if can_wait(&error) => {
                tracing::warn!(%error, "the write buffer stays in the journal until the next start");
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(seam::Elapsed) => {
                let reason = format!("the write buffer was not written within {} s", CLOSE_WITHIN.as_secs());
                Err(SiteError::new(ErrorKind::Failed, "close_timeout", reason)
                    .hint("nothing is lost: the journal holds it until the next start"))
            }
        }
    }

    /// How the site is.
    pub async fn status(&self) -> Result<Status> {
        let engine = self.engine().status().await;
        let vms = self.shared.vms.records().await?.len();
        let parts = &self.shared.parts;
        let path = |entry: &crate::manifest::Entry| parts.directory.resolve(&entry.path);
        let media = parts.manifest.media.iter().map(|entry| (entry.id(), path(entry), entry.bytes)).collect();
        let away = self.shared.away().clone();
        let writable = self.engine().is_writable();
        Ok(judge(parts.manifest.site(), engine, writable, media, &away, &parts.shared_devices, vms))
    }

    /// Makes a VM with disks `disk0`, `disk1`, ... of these sizes in bytes.
    ///
    /// # Errors
    /// `vm_exists`, `invalid_size`, `disk_count`, `too_many_vms`, and what the engine says.
    pub async fn create_vm(&self, name: &VmName, disks: &[u64]) -> Result<Vm> {
        self.shared.vms.create(&**self.runtime(), name, disks).await
    }

    /// Every VM, by name.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn vms(&self) -> Result<Vec<VmSummary>> {
        self.shared.vms.summaries().await
    }

    /// A VM by name.
    ///
    /// # Errors
    /// `vm_not_found`.
    pub async fn vm(&self, name: &VmName) -> Result<Vm> {
        self.shared.vms.show(name).await
    }

    /// Deletes a VM with its disks.
    ///
    /// # Errors
    /// `vm_not_found`; `vm_in_use` while a client has a disk open; `vm_changed` when another was faster.
    pub async fn delete_vm(&self, name: &VmName) -> Result<()> {
        self.shared.vms.delete(name).await
    }
}

#[cfg(test)]
impl Site {
    /// One round of the probe, now.
    pub(crate) async fn probe(&self) {
        probe::round(&self.shared, &mut BTreeMap::new()).await;
    }

    pub(crate) fn exports(&self) -> Vms {
        self.shared.vms.clone()
    }
}
