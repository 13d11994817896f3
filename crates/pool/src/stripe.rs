//! The pool itself: media, layout, codes and counters in one place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use container::{FragmentHeader, fragment_bytes};
use erasure::Code;
use journal::{Ensembles, Fitness, Row};
use proto::{CallError, CallErrorKind, Request, Response, Transport};
use seam::Rt;
use units::{ContainerId, MediumId, NodeId, PageSlice};

use crate::geometry::{CLASSES, Class};
use crate::health::{Health, MediumHealth};
use crate::hurt::Hurt;
use crate::layout::Layout;
use crate::read::Stripe;
use crate::repair::Repairs;
use crate::space::Space;

/// How often a medium that gives no answer is asked before it counts as failed: a lost message costs one attempt, two
/// in a row are rare, and each attempt may take the transport's whole deadline.
pub(crate) const CALL_ATTEMPTS: u32 = 3;
/// Pause before a medium is asked again, times the attempts so far. A data node that is still busy with the first
/// attempt says so at once, and needs this time.
const CALL_PAUSE: Duration = Duration::from_millis(200);

/// What the pool has done since the start.
#[derive(Debug, Default)]
pub struct PoolStats {
    /// Answers that a fragment is missing or damaged; a fragment counts each time it is met.
    pub faults: AtomicU64,
    /// Reads that had to decode.
    pub decoded: AtomicU64,
    /// Fragments written again.
    pub repaired: AtomicU64,
    /// Containers given up half-way.
    pub abandoned: AtomicU64,
}

pub(crate) struct Shared {
    pub(crate) rt: Rt,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) health: Mutex<Health>,
    pub(crate) layout: Mutex<Layout>,
    pub(crate) repairs: Mutex<Repairs>,
    pub(crate) hurt: Mutex<Hurt>,
    /// Held while a container is mended.
    pub(crate) mending: tokio::sync::Mutex<()>,
    pub(crate) space: Mutex<Space>,
    pub(crate) stats: PoolStats,
    pub(crate) container_bytes: u32,
    codes: [Code; CLASSES.len()],
}

/// The containers of a site and the media they lie on.
#[derive(Clone)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} media)", self.lock_health().media().len())
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain data, valid after every statement: a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The pool over `media`, of which those in `up` are there. `container_bytes` is the size of a full container.
    pub fn new(
        rt: Rt,
        transport: Arc<dyn Transport>,
        media: &[MediumId],
        up: &[MediumId],
        container_bytes: u32,
    ) -> Self {
        let code = |class: &Class| Code::new(class.k, class.m).expect("every class is a valid code");
        let shared = Shared {
            transport,
            health: Mutex::new(Health::new(media, up, rt.now())),
            rt,
            layout: Mutex::default(),
            repairs: Mutex::default(),
            hurt: Mutex::default(),
            mending: tokio::sync::Mutex::default(),
            space: Mutex::default(),
            stats: PoolStats::default(),
            container_bytes,
            codes: CLASSES.each_ref().map(code),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes over the layout that recovery read from the journal, oldest row first. Before the first write.
    pub fn load_rows(&self, rows: &[Row]) {
        let mut layout = lock(&self.shared.layout);
        rows.iter().for_each(|row| layout.load(row.clone()));
    }

    /// A record of `row` is durable in the journal: writes no longer report it as new, and the row is as it says.
    pub fn row_journalled(&self, row: &Row) {
        lock(&self.shared.layout).journalled(row);
    }

    /// The layout, with rows that are not journalled yet.
    pub fn rows(&self) -> Vec<Row> {
        lock(&self.shared.layout).rows()
    }

    /// Health of every medium, in the site's order.
    pub fn health(&self) -> Vec<MediumHealth> {
        self.lock_health().list()
    }

    /// Counters.
    pub fn stats(&self) -> &PoolStats {
        &self.shared.stats
    }

    /// A medium that was down is there again, and takes part in new stripes and segments. What it missed: fragments
    /// of containers given up meanwhile stay on it until [`Pool::reconcile`]; damage that could not be mended while
    /// it was away is mended when next met. What requests from before this call still answer is not held against it.
    pub fn restore(&self, medium: MediumId) {
        self.lock_health().restored(medium, self.shared.rt.now());
        lock(&self.shared.repairs).forget_failures();
        self.look_again();
    }

    /// `medium` is on `node`: media of one node fail together.
    pub fn set_node(&self, medium: MediumId, node: NodeId) {
        self.lock_health().set_node(medium, node);
    }

    /// `media` by failure domain: the node; where all media of the site are on one, each medium by itself.
    pub fn domains(&self, media: &[MediumId]) -> Vec<Vec<MediumId>> {
        self.lock_health().domains(media)
    }

    /// Whether two media fail together.
    pub fn fail_together(&self, a: MediumId, b: MediumId) -> bool {
        self.lock_health().fail_together(a, b)
    }

    /// How many losses, each of a medium or of a whole failure domain, leave at least `k` of `members`. Those that are
    /// down are gone already.
    pub fn survives(&self, members: &[MediumId], k: usize) -> usize {
        self.lock_health().survives(members, k)
    }

    /// How many of `members` are up.
    pub fn count_up(&self, members: &[MediumId]) -> usize {
        let health = self.lock_health();
        members.iter().filter(|medium| health.is_up(**medium)).count()
    }

    /// The class new containers get now; `None` when too few media are up.
    pub fn current_class(&self) -> Option<Class> {
        class_of(&self.lock_health())
    }

    pub(crate) fn lock_health(&self) -> MutexGuard<'_, Health> {
        lock(&self.shared.health)
    }

    pub(crate) fn code(&self, class: &Class) -> &Code {
        &self.shared.codes[usize::from(class.number)]
    }

    /// The stripe of a container cut into fragments of `fragment_pages` pages; `None` when its row is unknown.
    pub fn stripe(&self, container: ContainerId, fragment_pages: u16) -> Option<Stripe> {
        let class = *CLASSES.get(usize::from(container.class))?;
        let row = lock(&self.shared.layout).row((container.class, container.row))?.clone();
        let (members, target) = (row.members, row.target);
        (members.len() == class.width()).then_some(Stripe {
            container,
            class,
            members,
            target,
            fragment_pages,
        })
    }

    /// Pages of each fragment of a container of `total` bytes in class number `class`.
    pub fn fragment_pages(class: u8, total: u32) -> u16 {
        let k = CLASSES.get(usize::from(class)).map_or(1, |class| class.k);
        (fragment_bytes(total as usize, k) / units::PAGE) as u16
    }

    /// Asks a medium, again when there is no answer; a medium that fails is down from then on.
    pub(crate) async fn ask(&self, medium: MediumId, request: Request) -> Result<Response, CallError> {
        self.ask_for(medium, request, true).await
    }

    /// [`Pool::ask`]; what is not there counts as a fault only when it is `expected`.
    pub(crate) async fn ask_for(
        &self,
        medium: MediumId,
        request: Request,
        expected: bool,
    ) -> Result<Response, CallError> {
        let mut attempt = 1;
        loop {
            let restores = {
                let health = self.lock_health();
                if !health.is_up(medium) {
                    let reason = "the medium is down".into();
                    return Err(CallError { kind: CallErrorKind::Failed, medium, reason });
                }
                health.restores(medium)
            };
            match self.shared.transport.call(medium, request.clone()).await {
                Err(error) if error.kind == CallErrorKind::Unreachable && attempt < CALL_ATTEMPTS => {
                    self.shared.rt.sleep(CALL_PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(error) => {
                    if expected || error.kind != CallErrorKind::NotFound {
                        self.note(medium, &error, restores);
                    }
                    return Err(error);
                }
                Ok(response) => return Ok(response),
            }
        }
    }

    /// Makes a fragment durable on `medium`.
    pub(crate) async fn put_fragment(
        &self,
        medium: MediumId,
        header: FragmentHeader,
        payload: PageSlice,
        replace: bool,
    ) -> Result<(), CallError> {
        let request = Request::FragmentWrite { header: Box::new(header), payload, replace };
        match self.ask(medium, request).await? {
            Response::Done => {
                self.lock_health().set_full(medium, false);
                Ok(())
            }
            _ => {
                let reason = "the answer to a fragment makes no sense".to_owned();
                Err(CallError { kind: CallErrorKind::Invalid, medium, reason })
            }
        }
    }

    /// Takes note of what an error says of the medium that was asked. One from before a restore says nothing.
    fn note(&self, medium: MediumId, error: &CallError, restores: u64) {
        match error.kind {
            CallErrorKind::Failed | CallErrorKind::Unreachable => {
                let mut health = self.lock_health();
                let current = restores == health.restores(medium);
                if current && health.failed(medium, &error.reason, self.shared.rt.now()) {
                    tracing::error!(%medium, reason = error.reason, "medium failed");
                }
            }
            CallErrorKind::NoSpace => self.lock_health().set_full(medium, true),
            CallErrorKind::NotFound | CallErrorKind::Corrupt => {
                self.shared.stats.faults.fetch_add(1, Ordering::Relaxed);
            }
            CallErrorKind::Fenced | CallErrorKind::Invalid | CallErrorKind::Locked => {}
        }
    }
}

/// The class of new containers.
pub(crate) fn class_of(health: &Health) -> Option<Class> {
    let fit = health.domains(&health.fit()).len();
    // One of several is no redundancy at all: nothing new is acknowledged or written there.
    (fit >= health.least_domains()).then(|| crate::class_for(fit)).flatten()
}

impl Ensembles for Pool {
    fn ensemble(&self, turn: u32) -> Vec<MediumId> {
        self.lock_health().ensemble(turn)
    }

    fn spare(&self, turn: u32, lost: MediumId) -> Vec<MediumId> {
        self.lock_health().spare(turn, lost)
    }

    fn fitness(&self, members: &[MediumId]) -> Fitness {
        self.lock_health().fitness(members)
    }

    fn fail_together(&self, a: MediumId, b: MediumId) -> bool {
        self.lock_health().fail_together(a, b)
    }

    fn restores(&self, medium: MediumId) -> u64 {
        self.lock_health().restores(medium)
    }

    fn failed(&self, medium: MediumId, restores: u64, full: bool, reason: &str) {
        let kind = if full { CallErrorKind::NoSpace } else { CallErrorKind::Failed };
        self.note(medium, &CallError { kind, medium, reason: reason.to_owned() }, restores);
    }
}
