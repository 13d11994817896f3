//! Takeovers that race the owner before: several compute nodes, one site, one disk (sections 7.2 and 11 of docs/design.md).
//!
//! Guests on every compute node read and write as long as an engine there answers, also when another has taken over: an
//! owner that was paused or cut off does not know. The nemesis kills, pauses and cuts off nodes, has messages lost, late,
//! doubled and out of order, takes the metadata store away, and has other compute nodes take over at any time. The model
//! judges every answer of every node as one history: an old owner may refuse, and may never show what is no more. When the
//! faults stop, one takeover must succeed in time, nobody else may answer, and all that was acknowledged must be there. In
//! a third of the schedules the metadata store alone goes away first, for long, and running disks must go on.

mod away;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data::{Layout, Params};
use engine::{Engine, EngineError};
use meta::Txn;
use seam::{BoxFuture, Runtime};
use tokio::sync::oneshot;
use units::{BLOCK, BLOCK_U64, DiskId, Lba};

use super::{Family, Outcome, plan};
use crate::cluster::{Cluster, Compute};
use crate::executor::{Control, Limits, SimRuntime, Simulation};
use crate::ground::SiteSpec;
use crate::model::{Contents, Fill, Model, OpId};
use crate::net::LinkPolicy;
use crate::rng::{MILLION, Rng};

const DISK: DiskId = DiskId(1);
/// How long leases hold.
const LEASE: Duration = Duration::from_secs(3);
/// In this time a takeover is through where all nodes are well: leases run out, the journal is read, the tail is settled.
const TAKEOVER_MAX: Duration = Duration::from_secs(8);
/// Virtual time in which every request has an answer once the faults have stopped.
const ANSWERS_MAX: Duration = Duration::from_secs(300);
/// How long the metadata store takes each way when it is slow, at most: few of its answers are in time.
const SLOW: Duration = Duration::from_secs(6);
/// Owners before the newest that may still run.
const ZOMBIES_MAX: usize = 3;

/// A schedule.
#[derive(Debug)]
struct Plan {
    spec: SiteSpec,
    fill: Fill,
    hosts: usize,
    guests: usize,
    blocks: u64,
    pause: Duration,
    calm: Duration,
    acts: u64,
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        let nodes = [2, 3, 3, 4, 5][rng.index(5)];
        let media = nodes * (1 + rng.index(2));
        let pause = Duration::from_micros([10_000, 60_000, 400_000][rng.index(3)]);
        Self {
            spec: spec(rng, nodes, media),
            fill: Fill { seed: rng.next_u64(), ..Fill::default() },
            hosts: 2 + rng.index(2),
            guests: 1 + rng.index(3),
            blocks: [4, 16, 200][rng.index(3)],
            pause,
            calm: Duration::from_millis([20, 300, 3000][rng.index(3)]),
            acts: 4 + rng.below(20),
        }
    }
}

fn spec(rng: &mut Rng, nodes: usize, media: usize) -> SiteSpec {
    let params = Params {
        container_bytes: 64 << 10,
        segment_bytes: [64, 128][rng.index(2)] << 10,
        segments_max: 6 + rng.below(5) as u32,
        log_pages: 64,
        fragments_max: 1024,
    };
    let least = Layout::new(params, 1 << 30).map_or(0, |layout| layout.data + layout.largest_extent());
    SiteSpec {
        media,
        nodes,
        spares: 0,
        medium_bytes: (least + (16 << 20)).next_multiple_of(units::PAGE as u64),
        params,
        block_cache_bytes: [8 << 10, 1 << 20][rng.index(2)],
        page_cache_bytes: 1 << 20,
        overlay_entries_max: [32, 256][rng.index(2)],
        commits_max: 24,
        start_backlog_bytes: plan::start_backlog_bytes(params),
        meta_keys_per_chunk: [1, 4][rng.index(2)],
        lost_answers: false,
        index_tag_bits: 32,
        rebuild_after: Duration::from_millis([5000, 60_000][rng.index(2)]),
        rebuild_bytes_per_second: 100 << 20,
    }
}

/// A compute node that runs.
struct Running {
    host: usize,
    number: u64,
    compute: Compute,
}

struct Shared {
    model: Model,
    /// The newest last.
    running: Vec<Arc<Running>>,
    started: u64,
    over: bool,
    /// Guests ask for nothing.
    is_quiet: bool,
    answered: u64,
    wrong: Option<String>,
}

struct Stage {
    control: Control,
    rt: Arc<SimRuntime>,
    plan: Plan,
    cluster: Cluster,
    shared: Mutex<Shared>,
    tracing: bool,
}

/// Runs the schedule of `seed`.
pub(super) fn run(seed: u64, tracing: bool) -> Outcome {
    let sim = Simulation::new(seed, Limits { steps: 8_000_000, ..Limits::default() });
    let mut rng = sim.rng("schedule");
    let plan = Plan::new(&mut rng);
    let control = sim.world().control();
    let main = async {
        let cluster = Cluster::format(&control, plan.spec.clone(), plan.hosts, LEASE).await;
        let model = Model::new(plan.fill);
        let shared = Shared {
            model,
            running: Vec::new(),
            started: 0,
            over: false,
            is_quiet: false,
            answered: 0,
            wrong: None,
        };
        let (rt, shared) = (control.world(), Mutex::new(shared));
        let stage = Arc::new(Stage { control: control.clone(), rt, plan, cluster, shared, tracing });
        stage.note(format!("{:?}", stage.plan));
        stage.play(&mut rng).await;
        stage
    };
    let (wrong, answered) = match sim.run_until(main) {
        Ok(stage) => {
            let shared = stage.lock();
            (shared.wrong.clone(), shared.answered)
        }
        Err(stuck) => (Some(stuck.to_string()), 0),
    };
    Outcome { seed, family: Family::Takeover, digest: sim.digest(), wrong, answered, steps: sim.steps() }
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, text: impl AsRef<str>) {
        self.control.trace(text.as_ref().as_bytes());
        if self.tracing {
            eprintln!("{:>14?} {}", self.control.now(), text.as_ref());
        }
    }

    fn wrong(&self, text: impl ToString) {
        let text = text.to_string();
        self.note(format!("WRONG: {text}"));
        let mut shared = self.lock();
        shared.wrong.get_or_insert(text);
        shared.over = true;
    }

    /// Has a compute node take the site over.
    fn take_over(&self, host: usize) -> Arc<Running> {
        let compute = self.cluster.start_compute(host);
        let mut shared = self.lock();
        shared.started += 1;
        let running = Arc::new(Running { host, number: shared.started, compute });
        shared.running.push(running.clone());
        drop(shared);
        self.note(format!("compute {} on host {host} begins to take over", running.number));
        running
    }

    fn kill(&self, running: &Running) {
        self.note(format!("compute {} dies", running.number));
        self.lock().running.retain(|other| other.number != running.number);
        self.cluster.kill_compute(&running.compute);
    }

    async fn opened(&self, running: &Running, limit: Duration) -> Option<Engine> {
        let end = self.control.now() + limit;
        while self.control.now() < end {
            if let Some(engine) = running.compute.engine()
                && engine.is_writable()
            {
                return Some(engine);
            }
            self.rt.sleep(Duration::from_millis(20)).await;
        }
        None
    }

    async fn play(self: &Arc<Self>, rng: &mut Rng) {
        let first = self.take_over(0);
        let Some(engine) = self.opened(&first, ANSWERS_MAX).await else {
            return self.wrong("the site never opens");
        };
        let bytes = self.plan.blocks * BLOCK_U64;
        let made = self.ask(&first, None, move |engine| {
            Box::pin(async move { engine.apply(Txn::new(), &[(DISK, bytes)], &[]).await })
        });
        if !matches!(made.await, Some(Ok(true))) {
            return self.wrong("no disk can be made");
        }
        drop(engine);
        for host in 0..self.plan.hosts {
            for _ in 0..self.plan.guests {
                let guest = Guest { stage: self.clone(), host, rng: self.control.rng("guest") };
                self.rt.spawn("guest", Box::pin(guest.run()));
            }
        }
        for _ in 0..self.plan.acts {
            self.rt.sleep(Duration::from_nanos(rng.below(self.plan.calm.as_nanos() as u64))).await;
            if self.lock().over {
                return;
            }
            self.act(rng).await;
        }
        self.rt.sleep(self.plan.calm).await;
        if rng.index(3) == 0 {
            self.without_store(rng).await;
        }
        self.lock().over = true;
        self.last_look(rng).await;
    }

    async fn act(self: &Arc<Self>, rng: &mut Rng) {
        let host = rng.index(self.plan.hosts);
        let node = rng.index(self.plan.spec.nodes);
        let most = [100, 2000, 12_000][rng.index(3)];
        let span = Duration::from_millis(rng.below(most));
        match rng.below(10) {
            0..=2 => {
                // Where too many run the oldest goes.
                let running = self.lock().running.clone();
                let oldest = running.first().filter(|_| running.len() > ZOMBIES_MAX).cloned();
                if let Some(oldest) = oldest {
                    self.kill(&oldest);
                }
                self.take_over(host);
            }
            3 => {
                let newest = self.lock().running.last().cloned();
                if let Some(newest) = newest {
                    self.kill(&newest);
                }
                self.take_over(host);
            }
            4 => {
                let running = self.lock().running.clone();
                let Some(running) = running.get(rng.index(running.len().max(1))).cloned() else { return };
                self.note(format!("compute {} is paused for {span:?}", running.number));
                let process = running.compute.runtime().id();
                self.control.pause(process);
                let stage = self.clone();
                self.later(span, move || stage.control.resume(process));
            }
            5 => {
                self.note(format!("data node {node} is paused for {span:?}"));
                self.cluster.pause_data(node, true);
                let stage = self.clone();
                self.later(span, move || stage.cluster.pause_data(node, false));
            }
            6 => self.crash_data(node, rng.coin(), span),
            7 => self.cut(rng, host, span),
            8 => self.disorder(host, span),
            _ => {
                let span = span * [1, 10][rng.index(2)];
                let slow = rng.coin().then_some(SLOW);
                self.note(format!("the metadata store is away for {span:?}, or as slow as {slow:?}"));
                let claim = self.cluster.claim();
                claim.set_slow(slow);
                claim.set_away(slow.is_none());
                let stage = self.clone();
                self.later(span, move || stage.cluster.claim().set_well());
            }
        }
    }

    fn later(&self, after: Duration, what: impl FnOnce() + Send + 'static) {
        let rt = self.rt.clone();
        let work = async move {
            rt.sleep(after).await;
            what();
        };
        self.rt.spawn("later", Box::pin(work));
    }

    fn crash_data(self: &Arc<Self>, node: usize, power_cut: bool, span: Duration) {
        self.note(format!("data node {node} crashes, power cut {power_cut}, for {span:?}"));
        self.cluster.kill_data(node, power_cut);
        let stage = self.clone();
        let work = async move {
            stage.rt.sleep(span).await;
            stage.cluster.start_data(node).await;
        };
        self.rt.spawn("restart", Box::pin(work));
    }

    /// Cuts a host off from some data nodes, in one direction or both.
    fn cut(self: &Arc<Self>, rng: &mut Rng, host: usize, span: Duration) {
        let sound = LinkPolicy::default();
        let dead = LinkPolicy { drop_ppm: MILLION, ..sound };
        let (there, back) = [(dead, dead), (dead, sound), (sound, dead)][rng.index(3)];
        let most = 1 + rng.index(self.plan.spec.nodes);
        self.note(format!("host {host} is cut off from the first {most} data nodes for {span:?}"));
        (0..most).for_each(|node| self.cluster.set_wire(host, node, there, back));
        let stage = self.clone();
        self.later(span, move || (0..most).for_each(|node| stage.cluster.set_wire(host, node, sound, sound)));
    }

    fn disorder(self: &Arc<Self>, host: usize, span: Duration) {
        let bad = LinkPolicy {
            rare_ppm: 100_000,
            rare_max: Duration::from_secs(4),
            drop_ppm: 5_000,
            twice_ppm: 100_000,
            twice_max: Duration::from_secs(20),
            reorder_ppm: 500_000,
            ..LinkPolicy::default()
        };
        self.note(format!("messages of host {host} are lost, late and doubled for {span:?}"));
        let all = move |stage: &Self, policy: LinkPolicy| {
            (0..stage.plan.spec.nodes).for_each(|node| stage.cluster.set_wire(host, node, policy, policy));
        };
        all(self, bad);
        let stage = self.clone();
        self.later(span, move || all(&stage, LinkPolicy::default()));
    }

    /// Runs a request within a compute node; `None` when that died.
    async fn ask<T: Send + 'static>(
        &self,
        running: &Running,
        patience: Option<Duration>,
        request: impl FnOnce(Engine) -> BoxFuture<'static, Result<T, EngineError>>,
    ) -> Option<Result<T, EngineError>> {
        let engine = running.compute.engine()?;
        let (sender, answer) = oneshot::channel();
        let (work, rt) = (request(engine), running.compute.runtime());
        let task = async move {
            let answer = work.await;
            let _ = sender.send(answer);
        };
        rt.spawn("guest's request", Box::pin(task));
        let answer = match patience {
            Some(patience) => seam::timeout(&*self.rt, patience, answer).await.ok()?.ok(),
            None => answer.await.ok(),
        };
        self.lock().answered += 1;
        answer
    }

    /// The faults stop.
    async fn heal(self: &Arc<Self>) {
        let sound = LinkPolicy::default();
        self.cluster.claim().set_well();
        for node in 0..self.plan.spec.nodes {
            (0..self.plan.hosts).for_each(|host| self.cluster.set_wire(host, node, sound, sound));
            self.cluster.pause_data(node, false);
            self.cluster.start_data(node).await;
        }
        let running = self.lock().running.clone();
        running.iter().for_each(|running| self.control.resume(running.compute.runtime().id()));
        // What was late or doubled arrives, and who was taking over has done so.
        self.lock().is_quiet = true;
        self.rt.sleep(Duration::from_secs(40)).await;
        self.lock().is_quiet = false;
        self.note("the faults have stopped");
    }

    /// Once the faults have stopped one takeover succeeds, nobody else answers, everything is there.
    async fn last_look(self: &Arc<Self>, rng: &mut Rng) {
        self.heal().await;
        let before = self.lock().running.clone();
        let last = self.take_over(rng.index(self.plan.hosts));
        if self.opened(&last, TAKEOVER_MAX).await.is_none() {
            let state = last.compute.engine().map(|engine| engine.check_writable());
            return self.wrong(format!("no takeover within {TAKEOVER_MAX:?} though all is sound: {state:?}"));
        }
        for old in before {
            self.is_out(&old).await;
        }
        let bytes = self.plan.blocks * BLOCK_U64;
        let whole = self.ask(&last, Some(ANSWERS_MAX), move |engine| {
            Box::pin(async move { engine.read(DISK, 0, bytes as usize).await })
        });
        match whole.await {
            Some(Ok(found)) => {
                let now = self.control.now();
                let checked = self.lock().model.final_check(DISK, &found, now);
                if let Err(violations) = checked {
                    let first = violations.first().map(ToString::to_string).unwrap_or_default();
                    self.wrong(format!("{} blocks are wrong at the end: {first}", violations.len()));
                }
            }
            other => self.wrong(format!("the disk cannot be read at the end: {other:?}")),
        }
    }

    /// An owner of before answers nothing.
    async fn is_out(&self, old: &Running) {
        let read = self
            .ask(old, Some(ANSWERS_MAX), |engine| Box::pin(async move { engine.read(DISK, 0, BLOCK).await }));
        let read = read.await;
        let write = self.ask(old, Some(ANSWERS_MAX), |engine| {
            Box::pin(async move { engine.punch(DISK, 0, BLOCK_U64, false).await })
        });
        let write = write.await;
        if matches!(read, Some(Ok(_))) || matches!(write, Some(Ok(_))) {
            self.wrong(format!("compute {} answers though another has taken over", old.number));
        }
    }
}

/// Reads and writes the disk through whatever runs on its host.
struct Guest {
    stage: Arc<Stage>,
    host: usize,
    rng: Rng,
}

impl Guest {
    async fn run(mut self) {
        let stage = self.stage.clone();
        loop {
            let most = stage.plan.pause.as_nanos() as u64;
            stage.rt.sleep(Duration::from_nanos(1000 + self.rng.below(most))).await;
            let here: Vec<Arc<Running>> = {
                let shared = stage.lock();
                if shared.over {
                    return;
                }
                if shared.is_quiet {
                    continue;
                }
                shared.running.iter().filter(|running| running.host == self.host).cloned().collect()
            };
            let Some(running) = here.get(self.rng.index(here.len().max(1))) else { continue };
            if running.compute.engine().is_none() {
                continue;
            }
            let hot = [2, 200][self.rng.index(2)];
            let first = self.rng.below(stage.plan.blocks.min(hot));
            let count = 1 + self.rng.below((stage.plan.blocks - first).min(3));
            if self.rng.coin() {
                self.read(running, first, count).await;
            } else {
                self.write(running, first, count).await;
            }
        }
    }

    async fn read(&mut self, running: &Running, first: u64, count: u64) {
        let stage = &self.stage;
        let read = stage.lock().model.begin_read(stage.control.now());
        let (offset, length) = (first * BLOCK_U64, (count * BLOCK_U64) as usize);
        let answer = stage.ask(running, None, move |engine| {
            Box::pin(async move { engine.read(DISK, offset, length).await })
        });
        let answer = answer.await;
        let now = stage.control.now();
        let mut shared = stage.lock();
        let Some(Ok(found)) = answer else { return shared.model.abandon_read(read) };
        let checked = shared.model.check_read(read, DISK, Lba(first), &found, now);
        drop(shared);
        stage.note(format!("compute {} read {first}+{count}", running.number));
        if let Err(violation) = checked {
            stage.wrong(format!("compute {} answers a read: {violation}", running.number));
        }
    }

    /// Whether it was answered well.
    async fn write(&mut self, running: &Running, first: u64, count: u64) -> bool {
        let stage = &self.stage;
        let (op, bytes) = {
            let mut shared = stage.lock();
            let contents: Vec<Contents> = (0..count)
                .map(|_| if self.rng.chance(100_000) { Contents::Zero } else { shared.model.next_value() })
                .collect();
            let bytes: Vec<u8> = contents.iter().flat_map(|contents| shared.model.bytes(contents)).collect();
            let op: OpId = shared.model.begin_write(DISK, Lba(first), &contents, stage.control.now());
            (op, bytes)
        };
        let answer = stage.ask(running, None, move |engine| {
            Box::pin(async move { engine.write(DISK, first * BLOCK_U64, &bytes).await })
        });
        let answer = answer.await;
        let now = stage.control.now();
        let is_done = matches!(answer, Some(Ok(())));
        stage.note(format!("compute {} wrote {first}+{count}: {is_done}", running.number));
        let mut shared = stage.lock();
        if is_done {
            shared.model.end_write(op, now)
        } else {
            shared.model.fail_write(op, now)
        }
        is_done
    }
}
