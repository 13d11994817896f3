//! What the executor knows: tasks, processes, timers, and the choice of the next step. No future is polled, woken or
//! dropped here, because all of it stands behind one lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use seam::{BoxFuture, PanicNote};

use crate::digest::{Digest, Event};
use crate::rng::Rng;

use super::{Limits, StuckReason};

/// The process of the harness itself: never killed.
pub(super) const WORLD: u32 = 0;
/// Slot of the future given to `run_until`.
pub(super) const MAIN_SLOT: u32 = 0;
/// One task in so many lags in a seed that has laggards.
const LAGGARD_ONE_IN: u64 = 8;
/// Where others may come in between, they do at one place in so many; one of these is drawn for each seed.
const BETWEEN_ONE_IN: [u64; 4] = [u64::MAX, 64, 16, 4];
/// One wait of these in so many lasts until others are done with a few messages; the rest, until others had their turn.
const LONG_BETWEEN_ONE_IN: u64 = 4;
/// The longest of them.
const BETWEEN_MAX: Duration = Duration::from_millis(2);
/// How often the choice passes over a laggard while others are ready.
const LAGGARD_REDRAWS: usize = 4;

/// A task and the life of its slot it belongs to: stale ids are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

pub(super) struct Task {
    /// `None` while it is being polled, and always for the main future.
    future: Option<BoxFuture<'static, ()>>,
    process: u32,
    name: &'static str,
    waker: Waker,
    queued: bool,
    laggard: bool,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    task: Option<Task>,
}

pub(super) struct Process {
    pub(super) name: String,
    pub(super) alive: bool,
    pub(super) paused: bool,
    pub(super) wall_jump_ms: i64,
    /// Ready tasks held back while it is paused.
    parked: Vec<TaskId>,
    /// Tasks of it that sprang a trap.
    pub(super) panics: Vec<PanicNote>,
}

struct Timer {
    process: u32,
    waker: Waker,
}

/// A timer: when it fires, and a count that tells equal times apart.
pub(super) type TimerKey = (Duration, u64);

/// What the executor does next.
pub(super) enum Step {
    Main(Waker),
    Task(TaskId, BoxFuture<'static, ()>, Waker),
    Fire(Vec<Waker>),
    Stuck(StuckReason),
}

pub(super) struct State {
    pub(super) seed: u64,
    pub(super) now: Duration,
    pub(super) wall_jump_ms: i64,
    pub(super) steps: u64,
    pub(super) limits: Limits,
    pub(super) digest: Digest,
    pub(super) random: Rng,
    /// Streams handed out so far: two of the same label differ.
    pub(super) streams: u64,
    pub(super) processes: Vec<Process>,
    /// A test's own choice of when others come in between, and for how long.
    pub(super) say_between: Option<Arc<dyn Fn() -> Option<Duration> + Send + Sync>>,
    schedule: Rng,
    laggards: bool,
    between: Rng,
    between_one_in: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: usize,
    ready: Vec<TaskId>,
    timers: BTreeMap<TimerKey, Timer>,
    timer_count: u64,
}

/// The state behind its lock. The executor has one thread: the lock is there for `Send + Sync` only.
pub(super) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(seed: u64, limits: Limits) -> Self {
        Self { state: Mutex::new(State::new(seed, limits)) }
    }

    /// The state. A panic of a task never leaves it half-changed: nothing foreign runs under the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one task. Weak, because wakers lie in channels that outlive the simulation.
struct TaskWaker {
    shared: Weak<Shared>,
    id: TaskId,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().make_ready(self.id);
        }
    }
}

impl State {
    fn new(seed: u64, limits: Limits) -> Self {
        let mut schedule = Rng::new(seed, "schedule");
        let laggards = schedule.coin();
        let mut between = Rng::new(seed, "between");
        let between_one_in = BETWEEN_ONE_IN[between.index(BETWEEN_ONE_IN.len())];
        let mut state = Self {
            seed,
            now: Duration::ZERO,
            wall_jump_ms: 0,
            steps: 0,
            limits,
            digest: Digest::new(seed),
            random: Rng::new(seed, "random"),
            streams: 0,
            processes: Vec::new(),
            say_between: None,
            schedule,
            laggards,
            between,
            between_one_in,
            slots: vec![Slot::default()],
            free: Vec::new(),
            live: 0,
            ready: Vec::new(),
            timers: BTreeMap::new(),
            timer_count: 0,
        };
        state.add_process("world");
        state
    }

    pub(super) fn add_process(&mut self, name: &str) -> u32 {
        self.processes.push(Process {
            name: name.to_owned(),
            alive: true,
            paused: false,
            wall_jump_ms: 0,
            parked: Vec::new(),
            panics: Vec::new(),
        });
        u32::try_from(self.processes.len() - 1).expect("a simulation makes fewer than 2^32 processes")
    }

    /// How long others come in between now; `None` where they do not.
    pub(super) fn between(&mut self) -> Option<Duration> {
        if self.between_one_in == u64::MAX || self.between.below(self.between_one_in) > 0 {
            return None;
        }
        let is_long = self.between.below(LONG_BETWEEN_ONE_IN) == 0;
        Some(if is_long {
            Duration::from_nanos(self.between.below(nanos(BETWEEN_MAX)))
        } else {
            Duration::ZERO
        })
    }

    pub(super) fn process(&mut self, process: u32) -> &mut Process {
        &mut self.processes[process as usize]
    }

    pub(super) fn alive(&self, process: u32) -> bool {
        self.processes[process as usize].alive
    }

    /// Takes the task in, ready to run; gives it back when its process is dead.
    pub(super) fn add_task(
        &mut self,
        shared: &Arc<Shared>,
        process: u32,
        name: &'static str,
        future: BoxFuture<'static, ()>,
    ) -> Option<BoxFuture<'static, ()>> {
        if !self.alive(process) {
            return Some(future);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("Limits::tasks stops a run long before 2^32 tasks")
        });
        self.live += 1;
        self.occupy(shared, slot, process, name, Some(future));
        None
    }

    /// Makes the future of `run_until` ready.
    pub(super) fn begin_main(&mut self, shared: &Arc<Shared>) {
        self.end_main();
        self.occupy(shared, MAIN_SLOT, WORLD, "run_until", None);
    }

    pub(super) fn end_main(&mut self) {
        self.vacate(MAIN_SLOT);
        self.ready.retain(|id| id.slot != MAIN_SLOT);
    }

    fn occupy(
        &mut self,
        shared: &Arc<Shared>,
        slot: u32,
        process: u32,
        name: &'static str,
        future: Option<BoxFuture<'static, ()>>,
    ) {
        let laggard = self.laggards && slot != MAIN_SLOT && self.schedule.below(LAGGARD_ONE_IN) == 0;
        let place = &mut self.slots[slot as usize];
        let id = TaskId { slot, generation: place.generation };
        let waker = Waker::from(Arc::new(TaskWaker { shared: Arc::downgrade(shared), id }));
        place.task = Some(Task { future, process, name, waker, queued: true, laggard });
        self.ready.push(id);
    }

    fn vacate(&mut self, slot: u32) -> Option<Task> {
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.task.take()
    }

    fn task(&mut self, id: TaskId) -> Option<&mut Task> {
        let slot = &mut self.slots[id.slot as usize];
        if slot.generation == id.generation { slot.task.as_mut() } else { None }
    }

    fn make_ready(&mut self, id: TaskId) {
        if let Some(task) = self.task(id)
            && !task.queued
        {
            task.queued = true;
            self.ready.push(id);
        }
    }

    /// Chooses the next step.
    pub(super) fn next_step(&mut self) -> Step {
        if self.steps >= self.limits.steps {
            return Step::Stuck(StuckReason::Steps);
        }
        if self.live > self.limits.tasks {
            return Step::Stuck(StuckReason::Tasks);
        }
        while let Some(id) = self.draw() {
            let Some(task) = self.task(id) else { continue };
            let process = task.process as usize;
            if self.processes[process].paused {
                self.processes[process].parked.push(id);
                continue;
            }
            return self.begin_poll(id);
        }
        self.jump()
    }

    /// Takes one of the ready tasks, by the seed.
    fn draw(&mut self) -> Option<TaskId> {
        if self.ready.is_empty() {
            return None;
        }
        let mut index = self.schedule.index(self.ready.len());
        if self.laggards {
            for _ in 0..LAGGARD_REDRAWS {
                let id = self.ready[index];
                if !self.task(id).is_some_and(|task| task.laggard) {
                    break;
                }
                index = self.schedule.index(self.ready.len());
            }
        }
        Some(self.ready.swap_remove(index))
    }

    fn begin_poll(&mut self, id: TaskId) -> Step {
        self.steps += 1;
        self.digest.fold(Event::Poll, &[u64::from(id.slot) << 32 | u64::from(id.generation)]);
        let task = self.task(id).expect("the caller found the task alive");
        task.queued = false;
        let waker = task.waker.clone();
        match task.future.take() {
            Some(future) => Step::Task(id, future, waker),
            None => Step::Main(waker),
        }
    }

    /// Nothing is ready: moves time to the next timers and takes them out.
    fn jump(&mut self) -> Step {
        let Some((&(at, _), _)) = self.timers.first_key_value() else {
            return Step::Stuck(StuckReason::Deadlock);
        };
        if at > self.limits.time {
            return Step::Stuck(StuckReason::Time);
        }
        self.now = self.now.max(at);
        self.digest.fold(Event::Time, &[nanos(self.now)]);
        let mut wakers = Vec::new();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            wakers.push(entry.remove().waker);
        }
        Step::Fire(wakers)
    }

    /// Puts a polled task back, or ends it. Returns the future when it is to be dropped.
    pub(super) fn end_poll(
        &mut self,
        id: TaskId,
        future: BoxFuture<'static, ()>,
        done: bool,
    ) -> (Option<BoxFuture<'static, ()>>, Option<Task>) {
        let Some(task) = self.task(id) else {
            return (Some(future), None);
        };
        if done {
            let task = self.remove(id.slot);
            return (Some(future), task);
        }
        task.future = Some(future);
        (None, None)
    }

    fn remove(&mut self, slot: u32) -> Option<Task> {
        self.free.push(slot);
        self.live -= 1;
        self.vacate(slot)
    }

    /// Sets or moves a timer of a living process; the waker it replaces is given back.
    pub(super) fn set_timer(
        &mut self,
        key: Option<TimerKey>,
        at: Duration,
        process: u32,
        waker: Waker,
    ) -> (TimerKey, Option<Waker>) {
        let key = key.unwrap_or_else(|| {
            self.timer_count += 1;
            (at, self.timer_count)
        });
        (key, self.timers.insert(key, Timer { process, waker }).map(|old| old.waker))
    }

    pub(super) fn clear_timer(&mut self, key: TimerKey) -> Option<Waker> {
        self.timers.remove(&key).map(|timer| timer.waker)
    }

    /// Ends a process: its tasks in a seeded order and the wakers of its timers, all for the caller to drop.
    pub(super) fn kill(&mut self, process: u32) -> (Vec<Task>, Vec<Waker>) {
        let entry = self.process(process);
        if !entry.alive {
            return (Vec::new(), Vec::new());
        }
        entry.alive = false;
        self.digest.fold(Event::Kill, &[u64::from(process)]);
        let doomed: Vec<u32> = (0..)
            .zip(&self.slots)
            .skip(1)
            .filter(|(_, slot)| slot.task.as_ref().is_some_and(|task| task.process == process))
            .map(|(slot, _)| slot)
            .collect();
        let mut tasks: Vec<Task> = doomed.into_iter().filter_map(|slot| self.remove(slot)).collect();
        self.schedule.shuffle(&mut tasks);
        let slots = &self.slots;
        self.ready.retain(|id| slots[id.slot as usize].generation == id.generation);
        let timers = self.timers.extract_if(.., |_, timer| timer.process == process);
        let wakers = timers.map(|(_, timer)| timer.waker).collect();
        (tasks, wakers)
    }

    /// Holds back or lets go the tasks of a process. Its timers run on: it finds out late.
    pub(super) fn set_paused(&mut self, process: u32, paused: bool) {
        let entry = self.process(process);
        entry.paused = paused;
        if !paused {
            let parked = std::mem::take(&mut entry.parked);
            self.ready.extend(parked);
        }
    }

    /// `process/task` of up to `count` unfinished tasks.
    pub(super) fn task_names(&self, count: usize) -> Vec<String> {
        let tasks = self.slots.iter().filter_map(|slot| slot.task.as_ref());
        tasks
            .take(count)
            .map(|task| format!("{}/{}", self.processes[task.process as usize].name, task.name))
            .collect()
    }

    /// Names of the unfinished tasks of a process.
    pub(super) fn live_tasks(&self, process: u32) -> impl Iterator<Item = &'static str> {
        let tasks = self.slots.iter().skip(1).filter_map(|slot| slot.task.as_ref());
        tasks.filter(move |task| task.process == process).map(|task| task.name)
    }
}

/// Nanoseconds of a time that the limits keep below 584 years.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
