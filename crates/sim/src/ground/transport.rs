//! The transport of a simulated site: every message crosses a link.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use proto::{CallError, CallErrorKind, Request, Response, SegmentId, Transport};
use seam::{BoxFuture, Rt};
use tokio::sync::oneshot;
use units::{Epoch, MediumId};

use super::files::SimFiles;
use super::members;
use super::pause::{Barrier, Pause};
use crate::executor::TRAP;
use crate::net::{Fate, Link};

/// No answer within this time counts as none, as in `data::LocalTransport`.
const DEADLINE: Duration = Duration::from_secs(30);

/// The two directions between the engine and one medium.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) there: Link,
    pub(super) back: Link,
}

/// All wires of a site; they outlive processes.
#[derive(Debug)]
pub(super) struct Wires {
    /// To each medium that there is, in order.
    wires: Vec<Wire>,
    /// Which medium has which number, as far as it was asked for.
    numbers: BTreeMap<MediumId, usize>,
    files: SimFiles,
}

impl Wires {
    pub(super) fn new(wires: Vec<Wire>, files: SimFiles) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { wires, numbers: BTreeMap::new(), files }))
    }

    pub(super) fn number(&mut self, number: usize) -> Option<&mut Wire> {
        self.wires.get_mut(number)
    }

    fn to(&mut self, medium: MediumId) -> Option<&mut Wire> {
        if !self.numbers.contains_key(&medium) {
            self.numbers.extend(members(&self.files).iter().map(|member| (member.id, member.number)));
        }
        let number = *self.numbers.get(&medium)?;
        self.wires.get_mut(number)
    }
}

/// A kind of requests.
pub(super) type Kind = fn(&Request) -> bool;

type Answer = Result<Response, CallError>;

struct Inner {
    rt: Rt,
    wires: Arc<Mutex<Wires>>,
    /// The way on, from where a request has arrived.
    on: OnceLock<Arc<dyn Transport>>,
    appends: Mutex<Appends>,
    /// Whoever sends the next request of this kind panics.
    trap: Mutex<Option<Kind>>,
    /// Whoever sends the next request of a kind waits there.
    barrier: Mutex<Option<Barrier>>,
}

/// The newest batches of the journal: where each stands, and when it was sent first.
#[derive(Debug, Default)]
struct Appends {
    newest: Option<((SegmentId, u32), Duration)>,
    before: Option<Duration>,
}

impl Appends {
    fn note(&mut self, place: (SegmentId, u32), now: Duration) {
        if self.newest.is_some_and(|(newest, _)| newest == place) {
            return;
        }
        self.before = self.newest.map(|(_, at)| at);
        self.newest = Some((place, now));
    }
}

/// Carries requests to the data nodes of one process, and loses, doubles and delays them by the wires' policies.
///
/// A change goes on to its end whether or not anybody still waits for it, and may arrive twice, the second time long
/// after the caller was answered.
#[derive(Clone)]
pub(super) struct SimTransport {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimTransport {
    pub(super) fn new(rt: Rt, wires: Arc<Mutex<Wires>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                rt,
                wires,
                on: OnceLock::new(),
                appends: Mutex::default(),
                trap: Mutex::default(),
                barrier: Mutex::default(),
            }),
        }
    }

    /// Where requests go that arrive.
    pub(super) fn lead_to(&self, transport: Arc<dyn Transport>) {
        let _ = self.inner.on.set(transport);
    }

    /// When the last batch but one of the journal was sent; `None` when the process wrote fewer. What was acknowledged
    /// later stands in the newest two batches.
    pub(super) fn newest_appends(&self) -> Option<Duration> {
        let appends = lock(&self.inner.appends);
        appends.before.or(appends.newest.map(|(_, at)| at))
    }

    /// Has whoever sends the next request of a kind panic.
    pub(super) fn set_trap(&self, kind: Kind) {
        *lock(&self.inner.trap) = Some(kind);
    }

    /// Has whoever sends the next request of a kind wait.
    pub(super) fn pause(&self, kind: Kind) -> Pause {
        let (pause, barrier) = Pause::before(kind);
        *lock(&self.inner.barrier) = Some(barrier);
        pause
    }

    fn decide(&self, medium: MediumId, there: bool) -> Fate {
        let now = self.inner.rt.now();
        match lock(&self.inner.wires).to(medium) {
            Some(wire) if there => wire.there.decide(now),
            Some(wire) => wire.back.decide(now),
            None => Fate::Drop,
        }
    }

    /// One arrival of a request, and its answer on the way back.
    fn arrive(
        &self,
        after: Duration,
        (by, medium): (Epoch, MediumId),
        request: Request,
        answers: Option<oneshot::Sender<Answer>>,
    ) {
        let this = self.clone();
        let work = async move {
            this.inner.rt.sleep(after).await;
            let answer = match this.inner.on.get() {
                Some(on) => on.call_by(by, medium, request).await,
                None => Err(no_answer(medium)),
            };
            let Some(answers) = answers else { return };
            match this.decide(medium, false) {
                Fate::Deliver(after) | Fate::Twice(after, _) => {
                    this.inner.rt.sleep(after).await;
                    let _ = answers.send(answer);
                }
                // The caller hears nothing and waits for its deadline.
                Fate::Drop => this.inner.rt.sleep(DEADLINE).await,
            }
        };
        self.inner.rt.spawn("message", Box::pin(work));
    }
}

impl Transport for SimTransport {
    fn tell_time(&self, ms: u64) {
        if let Some(on) = self.inner.on.get() {
            on.tell_time(ms);
        }
    }

    fn call_by(&self, by: Epoch, medium: MediumId, request: Request) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let sprung = lock(&self.inner.trap).take_if(|kind| kind(&request));
            assert!(sprung.is_none(), "{TRAP}");
            let barrier = lock(&self.inner.barrier).take_if(|barrier| barrier.is_for(&request));
            if let Some(barrier) = barrier {
                barrier.wait().await;
            }
            if let Request::SegmentAppend { id, offset, .. } = &request {
                lock(&self.inner.appends).note((*id, *offset), self.inner.rt.now());
            }
            let (sender, answer) = oneshot::channel();
            match self.decide(medium, true) {
                Fate::Deliver(after) => self.arrive(after, (by, medium), request, Some(sender)),
                Fate::Drop => {
                    self.inner.rt.sleep(DEADLINE).await;
                    return Err(no_answer(medium));
                }
                Fate::Twice(first, second) => {
                    self.arrive(first, (by, medium), request.clone(), Some(sender));
                    // The caller is answered once; what the second does is done behind its back.
                    self.arrive(second, (by, medium), request, None);
                }
            }
            match seam::timeout(&*self.inner.rt, DEADLINE, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(seam::Elapsed) => Err(no_answer(medium)),
            }
        })
    }
}

fn no_answer(medium: MediumId) -> CallError {
    let reason = format!("no answer within {} s", DEADLINE.as_secs());
    CallError { kind: CallErrorKind::Unreachable, medium, reason }
}
