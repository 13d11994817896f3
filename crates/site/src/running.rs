//! A site that runs: its parts, what can be asked of it, and its end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::types::{AttachInfo, Status, Task, TaskState};
use api::{Error, Result, VmName, code};
use budget::Budget;
use catalog::{Catalog, Transfers};
use data::Superblock;
use engine::{Engine, EngineError, EngineErrorKind};
use seal::KeyRing;
use seam::{BoxFuture, Rt};
use task::{Tasks, Troubles};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use units::MediumId;

use crate::reconcilers;
use crate::rekey::Rekey;
use crate::status::{Judging, judge};
use machine::ClientLimits;
use machine::Directory;
use machine::Lock;
use machine::{Away, Home};

/// How long clients have to take their replies when the site stops.
const CLIENTS_WITHIN: Duration = Duration::from_secs(10);
/// How long the engine has to write its buffer; what it does not, the journal holds.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);

/// How often is looked whether the engine has ended by itself.
const ENDED_LOOK: Duration = Duration::from_secs(1);
/// How long an engine that writes nothing any more may take to end.
const ABANDON_WITHIN: Duration = Duration::from_secs(5);

/// What a site is made of.
pub(crate) struct Parts {
    pub(crate) rt: Rt,
    pub(crate) home: Arc<dyn Home>,
    pub(crate) directory: Directory,
    pub(crate) engine: Engine,
    /// Media that could not be opened, with the reason.
    pub(crate) absent: Vec<(MediumId, String)>,
    /// The superblock whose keys every medium must carry, as it was at the start.
    pub(crate) keys_from: Superblock,
    /// The site's secrets, opened.
    pub(crate) ring: KeyRing,
    /// How long clients of tasks may be silent; else as tasks have it.
    pub(crate) task_patience: Option<Duration>,
    /// What clients may take of the server.
    pub(crate) clients: ClientLimits,
    /// Pause between two looks whether media are there.
    pub(crate) probe_pause: Duration,
    /// Whether the built-in group of a new site makes points.
    pub(crate) default_points: bool,
    /// Who else may open the disks.
    pub(crate) nbd_group: Option<u32>,
    /// Held as long as the site runs.
    pub(crate) _lock: Arc<Lock>,
}

pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) catalog: Catalog,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) transfers: Transfers,
    away: Mutex<BTreeMap<MediumId, Away>>,
    server: tokio::sync::Mutex<Option<nbd::Server>>,
    /// What VMs and snapshots take, as last computed.
    pub(crate) space: Mutex<Option<Arc<api::types::Space>>>,
    /// The superblock whose keys every medium must carry.
    pub(crate) keys: tokio::sync::Mutex<Superblock>,
    /// What is to be done of a rotation of the data key.
    pub(crate) rekey: Mutex<Rekey>,
    /// A drain is at work, or comes to its end.
    pub(crate) draining: Mutex<bool>,
    /// Why the media of a node that is to be emptied do not leave.
    pub(crate) drain_refused: Mutex<Option<String>>,
    /// What was found lost before the start is known to the engine.
    pub(crate) damage_is_loaded: AtomicBool,
    /// Held while media join or leave.
    pub(crate) media_turn: tokio::sync::Mutex<()>,
    /// Held while the record of scrubs is changed.
    pub(crate) scrubbing: tokio::sync::Mutex<()>,
    /// What media lacked when a scrub was last begun for it, and how often each had come back.
    pub(crate) scrubbed_for: Mutex<BTreeMap<MediumId, (u64, u64)>>,
    /// Looks at whether media are there, so far.
    pub(crate) probed: AtomicU32,
    /// When the site time was last kept.
    pub(crate) time_kept: Mutex<Option<Duration>>,
    /// Groups, points and what is due.
    pub(crate) protection: crate::protection::Protection,
    /// What cannot be looked after.
    pub(crate) troubles: Arc<Troubles>,
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
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Site({})", self.shared.parts.directory.root().display())
    }
}

impl Site {
    pub(crate) fn new(parts: Parts) -> Self {
        let rt = parts.rt.clone();
        let tasks = Arc::new(Tasks::new(rt.clone(), parts.engine.clone(), parts.task_patience));
        let segment_bytes = parts.keys_from.params.segment_bytes;
        let catalog = Catalog::new(rt.clone(), parts.engine.clone(), tasks.running().clone(), segment_bytes);
        let transfers = Transfers::new(catalog.clone(), tasks.clone());
        let away = parts.absent.iter().cloned().map(|(id, reason)| (id, Away::for_now(reason)));
        let away = Mutex::new(away.collect());
        let (stopping, _) = watch::channel(false);
        let is_due = crate::rekey::is_due(&parts.keys_from.epochs);
        let rekey = Mutex::new(if is_due { Rekey::Due } else { Rekey::Idle });
        let keys = tokio::sync::Mutex::new(parts.keys_from.clone());
        let shared = Arc::new(Shared {
            parts,
            catalog,
            tasks,
            transfers,
            away,
            server: tokio::sync::Mutex::default(),
            space: Mutex::default(),
            draining: Mutex::default(),
            drain_refused: Mutex::default(),
            damage_is_loaded: AtomicBool::new(false),
            media_turn: tokio::sync::Mutex::default(),
            scrubbing: tokio::sync::Mutex::default(),
            scrubbed_for: Mutex::default(),
            keys,
            rekey,
            probed: AtomicU32::new(0),
            time_kept: Mutex::default(),
            protection: crate::protection::Protection::default(),
            troubles: Arc::default(),
            stopping,
        });
        reconcilers::start(&shared);
        Self { shared }
    }

    /// Waits until the engine has ended by itself: it serves nothing any more, and the site is to be started again.
    pub async fn ended(&self) {
        while !self.engine().is_superseded() {
            self.runtime().sleep(ENDED_LOOK).await;
        }
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
    /// `nbd_socket` when the socket cannot be claimed; `permission_denied` when it cannot be given to its group.
    pub async fn serve(&self) -> Result<()> {
        let mut server = self.shared.server.lock().await;
        if server.is_some() {
            return Ok(());
        }
        let exports = Arc::new(self.shared.catalog.clone());
        let path = self.directory().nbd_socket();
        let budget = self.budget().clone();
        let started =
            nbd::Server::start(self.runtime().clone(), exports, &path, self.nbd_limits(), budget).await;
        *server =
            Some(started.map_err(|error| Error::new(code::NBD_SOCKET, error.to_string()).caused_by(error))?);
        self.shared.parts.nbd_group.map_or(Ok(()), |group| machine::admit_group(self.directory(), group))
    }

    /// Serves the disks to those whom [`Site::serve_client`] is given.
    pub async fn serve_without_socket(&self) {
        let mut server = self.shared.server.lock().await;
        if server.is_none() {
            let exports = Arc::new(self.shared.catalog.clone());
            let (rt, budget) = (self.runtime().clone(), self.budget().clone());
            *server = Some(nbd::Server::without_socket(rt, exports, self.nbd_limits(), budget));
        }
    }

    fn nbd_limits(&self) -> nbd::Limits {
        nbd::Limits { connections: self.shared.parts.clients.connections, ..nbd::Limits::default() }
    }

    /// Memory for what clients send and are sent: every front end asks it.
    pub fn budget(&self) -> &Budget {
        &self.shared.parts.clients.budget
    }

    /// Serves an NBD client whom another port let in, until it leaves or is hung up on, as when disks are not served.
    /// Dropping what is given hangs up.
    pub async fn serve_client<S>(&self, stream: S) -> BoxFuture<'static, ()>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        match &*self.shared.server.lock().await {
            Some(server) => server.serve(stream),
            None => Box::pin(async {}),
        }
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
                Err(Error::new(code::CLOSE_TIMEOUT, reason)
                    .hint("nothing is lost: the journal holds it until the next start"))
            }
        }
    }

    /// Ends what serves a site that another process has taken over: clients are hung up on, and find it there.
    pub async fn abandon(&self) {
        self.shared.stopping.send_replace(true);
        drop(self.shared.server.lock().await.take());
        // It can write nothing any more; what it was told of as done the other has.
        let closed = seam::timeout(&**self.runtime(), ABANDON_WITHIN, self.engine().close()).await;
        tracing::debug!(?closed, "the engine is given up");
    }

    /// How the site is.
    pub async fn status(&self) -> Result<Status> {
        let engine = self.engine().status().await;
        let exposure = self.shared.named_exposure(engine.exposure.clone()).await;
        let blocked = engine.cleaning_blocked.clone();
        let (vms, provisioned_bytes) = self.catalog().totals().await?;
        let parts = &self.shared.parts;
        let (manifest, shared_devices) = (parts.home.manifest(), parts.home.shared_devices());
        let shown = |entry: &machine::Entry| (entry.id(), parts.home.shown(entry), entry.bytes);
        let media = manifest.media.iter().map(shown).collect();
        let away = self.shared.away().clone();
        let writable = self.engine().is_writable();
        let removed = parts.home.removed();
        let mut status =
            judge(manifest.site(), engine, writable, media, (&away, &removed), &shared_devices, vms);
        let trash = self.catalog().trash_totals().await?;
        status.0.provisioned_bytes = provisioned_bytes;
        status.add_trash(trash);
        status.add_unreadable(self.shared.unreadable(&exposure).await?);
        if let Some(blocked) = blocked {
            status.add_blocked(&blocked, &self.shared.names_of(&blocked.disks).await?);
        }
        status.add_troubles(&self.shared.troubles.list());
        status.add_protection(self.shared.protection_totals().await?, &self.shared.failing_runs());
        status.add_clock(self.clock());
        status.add_keys(&self.keys().await);
        // Held while the server starts and stops, when it has none.
        let clients =
            self.shared.server.try_lock().ok().and_then(|server| server.as_ref().map(nbd::Server::clients));
        status.add_clients(&self.shared.parts.clients, clients);
        let refused = self.shared.drain_refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Judging(mut status) = status;
        let running = |task: &Task| task.state == TaskState::Running;
        status.tasks = self.tasks().tasks().await?.into_iter().filter(running).collect();
        status.notices.extend(refused.map(|why| format!("a node that is to be emptied cannot be: {why}")));
        Ok(status)
    }

    /// The VMs, with all that belongs to them.
    pub fn catalog(&self) -> &Catalog {
        &self.shared.catalog
    }

    /// The tasks, running and past.
    pub fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    /// What clients import and export.
    pub fn transfers(&self) -> &Transfers {
        &self.shared.transfers
    }

    /// How a guest gets a disk, or a file as a CD-ROM.
    ///
    /// # Errors
    /// `vm_not_found`, `disk_not_found`, `vm_importing`.
    pub async fn attach_info(&self, name: &VmName, disk: &str) -> Result<AttachInfo> {
        let (vm, position, is_file) = self.shared.catalog.disk_position(name, disk).await?;
        let (export, socket) = (format!("{vm}/{disk}"), self.directory().nbd_socket());
        Ok(if is_file {
            crate::attach::file(&export, position, &socket)
        } else {
            crate::attach::disk(&export, position, &socket)
        })
    }
}

#[cfg(test)]
impl Site {
    /// One round of the probe, now.
    pub(crate) async fn probe(&self) {
        crate::probe::round(&self.shared).await;
    }

    /// One round of protection, now.
    pub(crate) async fn protect(&self) {
        self.shared.protect().await.expect("points are made");
    }

    /// Clears away what tasks left behind; false when something is left.
    pub(crate) async fn clear_tasks(&self) -> bool {
        self.shared.transfers.round().await.expect("the store takes it")
    }

    pub(crate) fn exports(&self) -> Catalog {
        self.shared.catalog.clone()
    }
}
