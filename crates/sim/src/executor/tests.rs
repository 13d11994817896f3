//! Goal: same seed same run, kills and pauses mean what they say, and a run that cannot go on says so.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use seam::{Rt, join_all, random_u64, timeout, yield_now};
use tokio::sync::{Notify, mpsc, oneshot};

use super::*;

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Three processes exchange messages over channels, sleep, draw randomness; one is killed half-way.
fn toy(seed: u64) -> (u128, u64) {
    let sim = Simulation::new(seed, Limits::default());
    let sum = Arc::new(AtomicU64::new(0));
    let (tx, mut rx) = mpsc::channel::<u64>(4);
    let doomed = sim.process("doomed");
    for (count, rt) in [(20, sim.process("a")), (30, sim.process("b")), (1000, doomed.clone())] {
        for _ in 0..3 {
            let (tx, rt_in) = (tx.clone(), rt.clone());
            rt.spawn(
                "sender",
                Box::pin(async move {
                    for _ in 0..count {
                        let pause = random_u64(&*rt_in) % 1000;
                        rt_in.sleep(Duration::from_micros(pause)).await;
                        if tx.send(pause).await.is_err() {
                            return;
                        }
                    }
                }),
            );
        }
    }
    drop(tx);
    let control = sim.world().control();
    let total = sum.clone();
    let received = sim.run_until(async move {
        let mut received = 0;
        while let Some(value) = rx.recv().await {
            received += 1;
            total.fetch_add(value * received, Ordering::Relaxed);
            if received == 100 {
                control.kill(doomed.id());
            }
        }
        received
    });
    assert!(received.expect("the senders end") >= 150);
    (sim.digest(), sum.load(Ordering::Relaxed))
}

#[test]
fn same_seed_same_digest() {
    let mut digests = std::collections::BTreeSet::new();
    for seed in 0..1000 {
        let first = toy(seed);
        if seed % 4 == 0 {
            assert_eq!(first, toy(seed), "seed {seed}");
        }
        digests.insert(first.0);
    }
    assert_eq!(digests.len(), 1000, "every seed has its own run");
}

/// The order in which three tasks, all ready at once, run first.
fn first_order(seed: u64) -> Vec<u8> {
    let sim = Simulation::new(seed, Limits::default());
    let order = Arc::new(Mutex::new(Vec::new()));
    for task in 0..3 {
        let order = order.clone();
        sim.world().spawn("one", Box::pin(async move { order.lock().unwrap().push(task) }));
    }
    sim.run_until(sim.world().sleep(secs(1))).unwrap();
    order.lock().unwrap().clone()
}

#[test]
fn ready_tasks_run_in_every_order() {
    let orders: std::collections::BTreeSet<_> = (0..200).map(first_order).collect();
    assert_eq!(orders.len(), 6);
}

#[test]
fn time_jumps_to_timers_in_order() {
    let sim = Simulation::new(7, Limits::default());
    let rt: Rt = sim.world();
    let seen = sim.run_until(async {
        let wait = |ms| {
            let rt = rt.clone();
            async move {
                rt.sleep(Duration::from_millis(ms)).await;
                rt.now()
            }
        };
        join_all([wait(3000), wait(10), wait(0), wait(10)]).await
    });
    let expected: Vec<_> = [3000, 10, 0, 10].map(Duration::from_millis).to_vec();
    assert_eq!(seen.unwrap(), expected);
    let late = sim.run_until(timeout(&*rt, secs(1), std::future::pending::<()>())).unwrap();
    assert!(late.is_err());
    assert_eq!(sim.now(), secs(4), "a dropped timer leaves nothing behind, a later call goes on");
}

/// The order in which a kill drops three tasks.
fn drop_order(seed: u64) -> Vec<u8> {
    struct Last(u8, Arc<Mutex<Vec<u8>>>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let sim = Simulation::new(seed, Limits::default());
    let (order, process) = (Arc::new(Mutex::new(Vec::new())), sim.process("node"));
    for task in 0..3 {
        let last = Last(task, order.clone());
        process.spawn(
            "one",
            Box::pin(async move {
                let _last = last;
                std::future::pending::<()>().await;
            }),
        );
    }
    sim.kill(process.id());
    order.lock().unwrap().clone()
}

#[test]
fn a_kill_drops_in_every_order() {
    let orders: std::collections::BTreeSet<_> = (0..200).map(drop_order).collect();
    assert_eq!(orders.len(), 6);
}

/// Counts its drop, and wakes somebody by it.
struct Grave(Arc<AtomicU64>, Arc<Notify>);

impl Drop for Grave {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.notify_one();
    }
}

#[test]
fn kill_drops_tasks_and_their_timers() {
    let sim = Simulation::new(3, Limits::default());
    let (dead, wake) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let fired = Arc::new(AtomicU64::new(0));
    let process = sim.process("node");
    for _ in 0..5 {
        let (grave, fired, rt) = (Grave(dead.clone(), wake.clone()), fired.clone(), process.clone());
        process.spawn(
            "sleeper",
            Box::pin(async move {
                let _grave = grave;
                rt.sleep(secs(10)).await;
                fired.fetch_add(1, Ordering::Relaxed);
            }),
        );
    }
    let mut escaped = process.sleep(secs(500)); // held outside: must not fire either
    let (tx, rx) = oneshot::channel::<()>();
    process.spawn(
        "holder",
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(tx);
        }),
    );
    sim.run_until(async {
        let waited = timeout(&*sim.world(), secs(5), &mut escaped).await;
        assert!(waited.is_err() && process.tasks() == 6);
        sim.kill(process.id());
        assert_eq!(dead.load(Ordering::Relaxed), 5, "dropped at once");
        wake.notified().await;
        assert!(rx.await.is_err(), "the other end of a channel sees it");
        process.spawn("late", Box::pin(async { panic!("a dead process runs nothing") }));
        process.spawn_blocking("late", Box::new(|| panic!("a dead process runs nothing")));
        sim.world().sleep(secs(100)).await;
    })
    .unwrap();
    assert_eq!((fired.load(Ordering::Relaxed), process.tasks(), process.is_alive()), (0, 0, false));
    assert_eq!(sim.run_until(std::future::pending::<()>()).unwrap_err().reason, StuckReason::Deadlock);
    assert_eq!(sim.now(), secs(105), "no timer of the dead process moved time");
    assert_eq!(sim.run_until(escaped).unwrap_err().reason, StuckReason::Deadlock);
}

#[test]
fn a_task_may_kill_its_own_process() {
    let sim = Simulation::new(3, Limits::default());
    let dead = Arc::new(AtomicU64::new(0));
    let (process, control) = (sim.process("node"), sim.world().control());
    let (grave, id) = (Grave(dead.clone(), Arc::default()), process.id());
    process.spawn(
        "suicide",
        Box::pin(async move {
            let _grave = grave;
            control.kill(id);
            yield_now().await;
            unreachable!("nothing of a killed process is polled again");
        }),
    );
    sim.run_until(sim.world().sleep(secs(1))).unwrap();
    assert_eq!(dead.load(Ordering::Relaxed), 1);
}

#[test]
fn a_paused_process_stands_still_and_wakes_late() {
    let sim = Simulation::new(11, Limits::default());
    let process = sim.process("node");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (list, rt) = (seen.clone(), process.clone());
    process.spawn(
        "ticker",
        Box::pin(async move {
            for _ in 0..3 {
                rt.sleep(secs(1)).await;
                list.lock().unwrap().push(rt.now());
            }
        }),
    );
    sim.run_until(async {
        let world = sim.world();
        world.sleep(Duration::from_millis(1500)).await;
        sim.pause(process.id());
        world.sleep(secs(8)).await;
        sim.resume(process.id());
        world.sleep(secs(5)).await;
    })
    .unwrap();
    let late = Duration::from_millis(9500);
    assert_eq!(*seen.lock().unwrap(), [secs(1), late, late + secs(1)]);
}

#[test]
fn stuck_runs_say_why() {
    let limits = Limits { steps: 1000, time: secs(60), tasks: 10 };
    let sim = Simulation::new(5, limits);
    let process = sim.process("node");
    process.spawn("waits", Box::pin(std::future::pending()));
    let stuck = sim.run_until(std::future::pending::<()>()).unwrap_err();
    assert_eq!(stuck.reason, StuckReason::Deadlock);
    assert_eq!(stuck.tasks, ["world/run_until", "node/waits"]);
    assert_eq!(sim.run_until(process.sleep(secs(61))).unwrap_err().reason, StuckReason::Time);
    for _ in 0..10 {
        process.spawn("leak", Box::pin(std::future::pending()));
    }
    assert_eq!(sim.run_until(async {}).unwrap_err().reason, StuckReason::Tasks);
    let sim = Simulation::new(5, limits);
    let spin = async {
        loop {
            yield_now().await;
        }
    };
    assert_eq!(sim.run_until(spin).unwrap_err().reason, StuckReason::Steps);
}

#[test]
fn clocks_and_randomness_follow_the_seed() {
    let draw = |seed| {
        let sim = Simulation::new(seed, Limits::default());
        random_u64(&*sim.world())
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let sim = Simulation::new(1, Limits::default());
    let (a, b) = (sim.process("a"), sim.process("b"));
    assert_eq!(a.wall_ms(), WALL_START_MS);
    a.jump_wall(-5000);
    sim.jump_wall(1000);
    sim.run_until(a.sleep(secs(2))).unwrap();
    assert_eq!((a.wall_ms(), b.wall_ms()), (WALL_START_MS - 2000, WALL_START_MS + 3000));
    assert_eq!(a.now(), secs(2), "the monotonic clock never jumps");
}

#[test]
fn blocking_work_runs_a_little_later() {
    let sim = Simulation::new(1, Limits::default());
    let (tx, rx) = oneshot::channel();
    sim.world().spawn_blocking("work", Box::new(move || tx.send(6 * 7).unwrap()));
    assert_eq!(sim.run_until(rx).unwrap(), Ok(42));
    assert!(sim.now() < Duration::from_millis(1));
}

#[test]
fn a_dropped_simulation_frees_its_tasks() {
    let sim = Simulation::new(1, Limits::default());
    let dead = Arc::new(AtomicU64::new(0));
    for rt in [sim.world(), sim.process("node")] {
        let (grave, held) = (Grave(dead.clone(), Arc::default()), rt.clone());
        rt.spawn(
            "cycle",
            Box::pin(async move {
                let _grave = grave;
                held.sleep(secs(10)).await;
            }),
        );
    }
    sim.run_until(sim.world().sleep(secs(1))).unwrap();
    drop(sim);
    assert_eq!(dead.load(Ordering::Relaxed), 2);
}
