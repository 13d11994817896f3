//! A whole-engine schedule from one seed: a site, guests, an administrator, and a nemesis (section 11 of docs/design.md).
//!
//! A schedule has a few **lives** of the node's process. Within each the guests work and the nemesis strikes; it ends
//! by a clean close, a kill or a power cut, sometimes while recovery is still running. The model judges every read.
//! Then the faults stop, and the last look demands that all is there, right, and whole again. Victims, the only media
//! that lose or spoil anything, are never more than the geometry tolerates, unless the family goes beyond.

mod admin;
mod borders;
mod bulk;
mod cleaner;
mod forks;
mod guest;
mod holds;
mod judge;
mod media;
mod nemesis;
mod plan;
mod takeover;
mod vms;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::Engine;
use seam::Runtime;

use crate::executor::{Limits, Simulation};
use crate::ground::{Life, Site};
use crate::rng::Rng;
use admin::Admin;
use cleaner::Cleaner;
use media::Media;
use nemesis::Nemesis;
pub use plan::Family;
use plan::{End, Plan};
use vms::Vms;
use world::World;

/// Virtual time after which a life ends though its guests did not get far.
const LIFE_MAX: Duration = Duration::from_secs(400);
/// The name of guests' tasks.
const GUEST: &str = "guest";
/// Virtual time in which every request must have an answer once the faults have stopped.
const ANSWERS_MAX: Duration = Duration::from_secs(600);
/// How many in a million starts are cut short.
const SHORT_START_PPM: u32 = 250_000;

/// How a schedule went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Its family.
    pub family: Family,
    /// Hash over all that happened: the same in every run of the seed.
    pub digest: u128,
    /// What was wrong; `None` when nothing was.
    pub wrong: Option<String>,
    /// Requests of guests that were answered.
    pub answered: u64,
    /// Polls of tasks.
    pub steps: u64,
}

/// Runs the schedule of `seed`. With `tracing` it tells on standard error what happens.
pub fn run(seed: u64, family: Option<Family>, tracing: bool) -> Outcome {
    let family = family.unwrap_or(Family::of(seed));
    match family {
        Family::Takeover => return takeover::run(seed, tracing),
        Family::Bulk => return bulk::run(seed, tracing),
        Family::Within | Family::Beyond => {}
    }
    let sim = Simulation::new(seed, Limits { steps: 4_000_000, ..Limits::default() });
    let mut rng = sim.rng("schedule");
    let plan = Plan::new(&mut rng, family);
    let control = sim.world().control();
    let main = async {
        let site = Site::format(&control, plan.spec.clone()).await;
        let world = Arc::new(World::new(&control, plan, site, tracing));
        world.note(format_args!("{:?}", world.plan));
        play(&world, &mut rng).await;
        world
    };
    let (wrong, answered) = match sim.run_until(main) {
        Ok(world) => (world.verdict(), world.lock().answered),
        Err(stuck) => (Some(stuck.to_string()), 0),
    };
    Outcome { seed, family, digest: sim.digest(), wrong, answered, steps: sim.steps() }
}

async fn play(world: &Arc<World>, rng: &mut Rng) {
    let mut nemesis = Nemesis::new(world);
    nemesis.prepare();
    world.rt.spawn("admin", Box::pin(Admin::new(world).run()));
    if world.plan.menu.cleaner {
        world.rt.spawn("cleaner", Box::pin(Cleaner::new(world).run()));
    }
    if world.plan.menu.vms {
        world.rt.spawn("VMs", Box::pin(Vms::new(world).run()));
    }
    if world.plan.menu.media {
        world.rt.spawn("media", Box::pin(Media::new(world).run()));
    }
    world.rt.spawn("nemesis", Box::pin(Nemesis::new(world).run()));
    let lives = world.plan.lives.clone();
    let mut left = None;
    for (number, (end, requests)) in lives.iter().enumerate() {
        let last = number + 1 == lives.len() && !world.plan.restart_at_end;
        let Some((life, engine)) = start(world, rng).await else { break };
        live(world, &life, &engine, *requests).await;
        if world.verdict().is_some() || last {
            left = Some((life, engine));
            break;
        }
        finish(world, rng, life, engine, *end).await;
        nemesis.between_lives();
    }
    world.lock().over = true;
    relieve(world);
    // What ran into the end of the faults is not the engine's to lose.
    world.set_host_full(true);
    let left = drain(world, left).await;
    if world.verdict().is_none() {
        world.last_look(rng, left).await;
    }
}

/// Opens the site; now and then it is killed on the way and has to start over.
async fn start(world: &Arc<World>, rng: &mut Rng) -> Option<(Life, Engine)> {
    while rng.chance(SHORT_START_PPM) {
        let life = world.site.boot();
        let most = [300, 3000, 30_000][rng.index(3)];
        let span = Duration::from_micros(rng.below(most));
        world.rt.sleep(span).await;
        let power_cut = rng.coin();
        world.note(format_args!("start cut short after {span:?}, power cut {power_cut}"));
        world.end_life(life, power_cut);
    }
    let mut opened = world.open("start").await;
    if opened.is_none() && world.verdict().is_none() {
        // With all media there and room it must open.
        relieve(world);
        opened = world.open("second start").await;
        if opened.is_none() && world.verdict().is_none() && world.plan.family == Family::Within {
            world.wrong("the site does not open though all media are there");
        }
    }
    if let Some((life, engine)) = &opened {
        world.note(format_args!("open, epoch {}", engine.epoch().0));
        world.check_time(engine);
        world.settle_doubts(engine).await;
        world.serve(engine.clone(), life);
    }
    opened
}

/// Media that are away come back, and there is room below.
fn relieve(world: &World) {
    for (medium, store) in world.site.stores().iter().enumerate() {
        store.heal();
        store.set_capacity(None);
        world.set_gone(medium, false);
        world.site.set_wire(medium, crate::net::LinkPolicy::default());
    }
    world.set_host_full(false);
}

/// Lets the guests work until so many requests more are answered.
async fn live(world: &Arc<World>, life: &Life, engine: &Engine, requests: u64) {
    let until = world.lock().answered + requests;
    let begun = world.now();
    let end = begun + LIFE_MAX;
    let running = Arc::new(AtomicBool::new(false));
    let mut checkpoints = world.control.rng("checkpoints");
    while world.lock().answered < until && world.now() < end && !world.is_over() {
        world.rt.sleep(world::look_again(world.now() - begun)).await;
        if checkpoints.chance(2000) && !running.swap(true, Ordering::Relaxed) {
            let (engine, running) = (engine.clone(), running.clone());
            let task = async move {
                let _ = engine.checkpoint().await;
                running.store(false, Ordering::Relaxed);
            };
            life.runtime().spawn("checkpoint now", Box::pin(task));
        }
    }
}

async fn finish(world: &Arc<World>, rng: &mut Rng, life: Life, engine: Engine, end: End) {
    world.note(format_args!("the life ends: {end:?}"));
    if end == End::Close {
        world.lock().closing = true;
        let (sender, closed) = tokio::sync::oneshot::channel();
        let task = async move { drop(sender.send(engine.close().await)) };
        life.runtime().spawn("close", Box::pin(task));
        match seam::timeout(&*world.rt, ANSWERS_MAX, closed).await {
            Ok(Ok(result)) => world.note(format_args!("closed: {result:?}")),
            _ => world.wrong("the engine does not close"),
        }
    } else {
        drop(engine);
        world.rt.sleep(Duration::from_micros(rng.below(1000))).await;
    }
    world.end_life(life, end == End::PowerCut);
}

/// Waits for the last answers. `left`: the process that gives them; gives it back unless it was ended.
async fn drain(world: &Arc<World>, mut left: Option<(Life, Engine)>) -> Option<(Life, Engine)> {
    let mut until = world.now() + ANSWERS_MAX;
    while world.rt.tasks() > 0 && world.verdict().is_none() {
        if world.now() > until {
            let who = world.rt.task_names();
            // Changes of metadata wait, also for media that only a start brings back; guests do not.
            let is_theirs = !who.contains(&GUEST);
            let waiting = match &left {
                Some((life, engine)) if is_theirs && world.waits_for_a_start(life, engine).await => {
                    left.take()
                }
                _ => None,
            };
            let Some((life, _)) = waiting else {
                let whose = if left.is_none() { "without a process" } else { "though all is sound again" };
                world.wrong(format_args!("{} requests get no answer {whose}: {who:?}", who.len()));
                break;
            };
            world.note(format_args!("{who:?} wait for media that only a start brings back"));
            world.end_life(life, false);
            until = world.now() + ANSWERS_MAX;
        }
        world.rt.sleep(Duration::from_millis(100)).await;
    }
    world.set_host_full(false);
    left
}
