//! The executor: one thread, virtual time, tasks in groups that can be killed.

mod sleep;
mod state;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use seam::{BoxFuture, PanicNote, Panicked, Runtime};

use crate::digest::Event;
use crate::rng::Rng;
use sleep::SimSleep;
use state::{Shared, Step, WORLD, nanos};

/// Wall-clock time at the start of every simulation: 2026-01-01, in milliseconds since the Unix epoch.
const WALL_START_MS: u64 = 1_767_225_600_000;
/// Unfinished tasks that [`Stuck`] names: enough to see the knot, few enough to print.
const STUCK_TASKS_MAX: usize = 64;
/// How late work that may block begins.
const BLOCKING_MAX: Duration = Duration::from_micros(400);

/// Where a simulation stops by itself.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Polls of tasks: a run beyond it spins.
    pub steps: u64,
    /// Virtual time: a run beyond it waits for something that does not come.
    pub time: Duration,
    /// Unfinished tasks: a run beyond it leaks them.
    pub tasks: usize,
}

impl Default for Limits {
    /// 100 million polls, one virtual day, 100 000 tasks.
    fn default() -> Self {
        Self { steps: 100_000_000, time: Duration::from_secs(86_400), tasks: 100_000 }
    }
}

/// Why a run ended without an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StuckReason {
    /// Nothing is ready and no timer is set (or what is ready belongs to paused processes).
    Deadlock,
    /// [`Limits::steps`] reached.
    Steps,
    /// The next timer lies beyond [`Limits::time`].
    Time,
    /// More than [`Limits::tasks`] tasks.
    Tasks,
}

/// The future given to [`Simulation::run_until`] cannot complete.
#[derive(Debug, Clone, thiserror::Error)]
#[error("seed {seed}: stuck ({reason:?}) at {time:?} after {steps} steps; unfinished: {tasks:?}")]
pub struct Stuck {
    /// The seed that replays it.
    pub seed: u64,
    /// Which limit, or a deadlock.
    pub reason: StuckReason,
    /// Virtual time.
    pub time: Duration,
    /// Polls so far.
    pub steps: u64,
    /// Unfinished tasks as `process/task`, the first 64.
    pub tasks: Vec<String>,
}

/// A process of the simulation. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(u32);

/// What a panic says that a test wants.
pub(crate) const TRAP: &str = "a trap of the test";

/// Owns a simulation: runs it, and drops every task when it is dropped.
#[derive(Debug)]
pub struct Simulation {
    control: Control,
}

/// The hand of the harness on a running simulation. Cheap to clone; usable from within tasks.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.lock();
        write!(f, "Control(seed {}, {:?}, {} steps)", state.seed, state.now, state.steps)
    }
}

impl Deref for Simulation {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Simulation {
    /// A simulation at time zero.
    pub fn new(seed: u64, limits: Limits) -> Self {
        Self { control: Control { shared: Arc::new(Shared::new(seed, limits)) } }
    }

    /// Runs all tasks until `future` completes. Other tasks stay where they are; a later call goes on with them.
    ///
    /// # Errors
    /// [`Stuck`] when nothing can make progress or a limit is reached; `future` is then dropped.
    pub fn run_until<F: Future>(&self, future: F) -> Result<F::Output, Stuck> {
        let mut future = pin!(future);
        let shared = &self.control.shared;
        shared.lock().begin_main(shared);
        loop {
            let step = shared.lock().next_step();
            match step {
                Step::Main(waker) => {
                    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                        shared.lock().end_main();
                        return Ok(output);
                    }
                }
                Step::Task(id, mut task, waker) => {
                    let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
                    let over = shared.lock().end_poll(id, task, done);
                    drop(over);
                }
                Step::Fire(wakers) => wakers.into_iter().for_each(std::task::Waker::wake),
                Step::Stuck(reason) => return Err(self.stuck(reason)),
            }
        }
    }

    fn stuck(&self, reason: StuckReason) -> Stuck {
        let mut state = self.control.shared.lock();
        let tasks = state.task_names(STUCK_TASKS_MAX);
        state.end_main();
        Stuck { seed: state.seed, reason, time: state.now, steps: state.steps, tasks }
    }
}

impl Drop for Simulation {
    /// Drops all tasks, the world's last: they hold handles on the simulation, which would keep it alive for ever.
    fn drop(&mut self) {
        let processes = self.control.shared.lock().processes.len();
        for process in (1..processes).chain([WORLD as usize]) {
            self.control.end(process as u32);
        }
    }
}

impl Control {
    /// The seed.
    pub fn seed(&self) -> u64 {
        self.shared.lock().seed
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.shared.lock().now
    }

    /// Polls so far.
    pub fn steps(&self) -> u64 {
        self.shared.lock().steps
    }

    /// The digest of everything so far.
    pub fn digest(&self) -> u128 {
        self.shared.lock().digest.value()
    }

    /// Folds an event of the harness into the digest.
    pub fn trace(&self, event: &[u8]) {
        self.shared.lock().digest.fold_bytes(Event::Trace, event);
    }

    pub(crate) fn trace_words(&self, event: Event, words: &[u64]) {
        self.shared.lock().digest.fold(event, words);
    }

    /// A new stream of random numbers, independent of all others. Streams of one label differ by order of asking.
    pub fn rng(&self, label: &str) -> Rng {
        let mut state = self.shared.lock();
        state.streams += 1;
        Rng::new(state.seed, &format!("{}/{label}", state.streams))
    }

    /// Starts a process: a runtime of its own. A restart of a node is a new process.
    pub fn process(&self, name: &str) -> Arc<SimRuntime> {
        let process = self.shared.lock().add_process(name);
        Arc::new(SimRuntime { shared: self.shared.clone(), process })
    }

    /// The runtime of the harness itself, which no kill ends.
    pub fn world(&self) -> Arc<SimRuntime> {
        Arc::new(SimRuntime { shared: self.shared.clone(), process: WORLD })
    }

    /// Kills a process: drops all its tasks at once, in a seeded order; its timers never fire, its spawns do nothing.
    /// When the caller is a task of that process it runs on to its next await. Killing it again, or the world,
    /// does nothing.
    pub fn kill(&self, process: ProcessId) {
        if process.0 != WORLD {
            self.end(process.0);
        }
    }

    fn end(&self, process: u32) {
        let doomed = self.shared.lock().kill(process);
        drop(doomed);
    }

    /// Stops a process where it stands, as a long stall would; its timers run on meanwhile.
    pub fn pause(&self, process: ProcessId) {
        self.shared.lock().set_paused(process.0, true);
    }

    /// Lets a paused process go on.
    pub fn resume(&self, process: ProcessId) {
        self.shared.lock().set_paused(process.0, false);
    }

    /// Has `say` tell, in the place of the seed, how long others come in between, at each place where they may.
    pub fn say_between(&self, say: impl Fn() -> Option<Duration> + Send + Sync + 'static) {
        self.shared.lock().say_between = Some(Arc::new(say));
    }

    /// Moves the wall clock of every process by `delta_ms`.
    pub fn jump_wall(&self, delta_ms: i64) {
        let mut state = self.shared.lock();
        state.wall_jump_ms = state.wall_jump_ms.saturating_add(delta_ms);
    }
}

/// The simulated runtime of one process.
pub struct SimRuntime {
    shared: Arc<Shared>,
    process: u32,
}

impl std::fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimRuntime({} of process {})", self.name(), self.process)
    }
}

impl SimRuntime {
    /// Which process this is.
    pub fn id(&self) -> ProcessId {
        ProcessId(self.process)
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.shared.lock().process(self.process).name.clone()
    }

    /// Whether it was not killed.
    pub fn is_alive(&self) -> bool {
        self.shared.lock().alive(self.process)
    }

    /// Its unfinished tasks.
    pub fn tasks(&self) -> usize {
        self.shared.lock().live_tasks(self.process).count()
    }

    /// Their names, sorted.
    pub fn task_names(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.shared.lock().live_tasks(self.process).collect();
        names.sort_unstable();
        names
    }

    /// Moves the wall clock of this process by `delta_ms`.
    pub fn jump_wall(&self, delta_ms: i64) {
        let mut state = self.shared.lock();
        let process = state.process(self.process);
        process.wall_jump_ms = process.wall_jump_ms.saturating_add(delta_ms);
    }

    /// The hand on the simulation it belongs to.
    pub fn control(&self) -> Control {
        Control { shared: self.shared.clone() }
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Duration {
        self.shared.lock().now
    }

    fn wall_ms(&self) -> u64 {
        let mut state = self.shared.lock();
        let elapsed_ms = nanos(state.now) / 1_000_000;
        let jump_ms = state.wall_jump_ms.saturating_add(state.process(self.process).wall_jump_ms);
        (WALL_START_MS + elapsed_ms).saturating_add_signed(jump_ms)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(SimSleep::new(&self.shared, self.process, duration))
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let refused = self.shared.lock().add_task(&self.shared, self.process, name, task);
        drop(refused);
    }

    fn spawn_blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        let wait = Duration::from_nanos(seam::random_u64(self) % nanos(BLOCKING_MAX));
        let wait = self.sleep(wait);
        self.spawn(
            name,
            Box::pin(async move {
                wait.await;
                work();
            }),
        );
    }

    fn fill_random(&self, out: &mut [u8]) {
        let mut state = self.shared.lock();
        state.random.fill(out);
        state.digest.fold_bytes(Event::Random, out);
    }

    fn between(&self) -> Option<BoxFuture<'static, ()>> {
        let said = self.shared.lock().say_between.clone();
        let span = match said {
            Some(say) => say()?,
            None => self.shared.lock().between()?,
        };
        Some(if span.is_zero() { Box::pin(seam::yield_now()) } else { self.sleep(span) })
    }

    /// Only a trap is survived: whatever else panics is a bug.
    fn note_panic(&self, task: &'static str, panicked: Panicked) {
        assert!(panicked.0 == TRAP, "{task}: {}", panicked.0);
        let mut state = self.shared.lock();
        let panics = &mut state.process(self.process).panics;
        match panics.iter_mut().find(|note| note.task == task) {
            Some(note) => note.count += 1,
            None => panics.push(PanicNote { task, said: panicked.0, count: 1 }),
        }
    }

    fn panics(&self) -> Vec<PanicNote> {
        self.shared.lock().process(self.process).panics.clone()
    }
}
