//! Goal: what is held is there until its time, whatever is done in whatever order, and what is not held goes when told.
//! Model: the VMs with their snapshots and until when each is held; a VM is held as long as any of its snapshots.

use std::collections::BTreeMap;

use api::{Version, VmName};
use catalog::Deletion;

use super::Bench;
use super::trash::Clocks;
use crate::Site;

const HOUR_MS: u64 = 3_600_000;
const STEPS: usize = 300;
/// Nearer to its end than this nobody can say whether a hold is over: the clock goes on.
const NEAR_MS: u64 = 300_000;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { Some(&all[self.below(all.len())]) }
    }
}

/// Snapshots of a VM, with the site time until when each is held.
type Snapshots = BTreeMap<String, u64>;

#[derive(Default)]
struct Model {
    vms: BTreeMap<String, Snapshots>,
    /// By its number: a VM's snapshots, or until when a snapshot was held.
    trash: BTreeMap<u64, Result<Snapshots, u64>>,
    made: usize,
}

impl Model {
    fn fresh(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}", self.made)
    }

    fn a_vm(&self, random: &mut Random) -> Option<String> {
        random.of(&self.vms.keys().cloned().collect::<Vec<_>>()).cloned()
    }

    fn a_snapshot(&self, random: &mut Random) -> Option<(String, String)> {
        let of = |(vm, snapshots): (&String, &Snapshots)| {
            snapshots.keys().map(|snapshot| (vm.clone(), snapshot.clone())).collect::<Vec<_>>()
        };
        random.of(&self.vms.iter().flat_map(of).collect::<Vec<_>>()).cloned()
    }
}

/// Whether it is held; `None` when that is about to change.
fn is_held(until_ms: u64, site: &Site) -> Option<bool> {
    let now_ms = site.engine().site_time_ms();
    (now_ms.abs_diff(until_ms) > NEAR_MS).then_some(now_ms < until_ms)
}

/// What was done, or why not.
fn code<T>(done: api::Result<T>) -> Result<T, &'static str> {
    done.map_err(|error| error.code.name)
}

async fn step(site: &Site, clocks: &Clocks, model: &mut Model, random: &mut Random) {
    let catalog = site.catalog();
    match random.below(12) {
        0 | 1 if model.vms.len() < 6 => {
            let vm = model.fresh("vm");
            catalog.create_vm(&name(&vm), &[4096]).await.unwrap();
            model.vms.insert(vm, Snapshots::new());
        }
        2 | 3 => {
            let Some(vm) = model.a_vm(random) else { return };
            let snapshot = model.fresh("s");
            catalog.snapshot(&name(&vm), Some(&name(&snapshot))).await.unwrap();
            model.vms.get_mut(&vm).unwrap().insert(snapshot, 0);
        }
        4 | 5 => {
            let Some((vm, snapshot)) = model.a_snapshot(random) else { return };
            let hours = 1 + random.below(40) as u64;
            let until_ms = site.engine().site_time_ms() + hours * HOUR_MS;
            let known = model.vms.get_mut(&vm).unwrap().get_mut(&snapshot).unwrap();
            let held = catalog.hold_snapshot(&name(&vm), &name(&snapshot), &format!("{hours}h")).await;
            if known.abs_diff(until_ms) > NEAR_MS {
                match code(held) {
                    Ok(held) => {
                        assert!(until_ms > *known, "{vm}@{snapshot}: a hold was made shorter");
                        *known = held.held_until_ms;
                    }
                    Err(why) => {
                        assert!(why == "hold_shorter" && until_ms < *known, "{vm}@{snapshot}: {why}");
                    }
                }
            } else if let Ok(held) = held {
                *known = held.held_until_ms;
            }
        }
        6 => {
            let Some((vm, snapshot)) = model.a_snapshot(random) else { return };
            let new = model.fresh("s");
            catalog.rename_snapshot(&name(&vm), &name(&snapshot), &name(&new)).await.unwrap();
            let snapshots = model.vms.get_mut(&vm).unwrap();
            let until_ms = snapshots.remove(&snapshot).unwrap();
            snapshots.insert(new, until_ms);
        }
        7 => {
            let Some(vm) = model.a_vm(random) else { return };
            let new = model.fresh("vm");
            catalog.rename_vm(&name(&vm), &name(&new)).await.unwrap();
            let snapshots = model.vms.remove(&vm).unwrap();
            model.vms.insert(new, snapshots);
        }
        8 => {
            let Some((vm, snapshot)) = model.a_snapshot(random) else { return };
            let Some(held) = is_held(model.vms[&vm][&snapshot], site) else { return };
            let now = random.below(2) == 0;
            let done = code(catalog.delete_snapshot(&name(&vm), &name(&snapshot), now).await);
            assert_eq!(done.as_ref().err(), held.then_some(&"snapshot_held"), "{vm}@{snapshot}");
            if let Ok(item) = done {
                let was = model.vms.get_mut(&vm).unwrap().remove(&snapshot).unwrap();
                item.map(|item| model.trash.insert(item.id, Err(was)));
            }
        }
        9 => {
            let Some(vm) = model.a_vm(random) else { return };
            let until_ms = model.vms[&vm].values().copied().max().unwrap_or(0);
            let Some(held) = is_held(until_ms, site) else { return };
            let how = Deletion { now: random.below(2) == 0, with_snapshots: true };
            let done = code(catalog.delete_vm(&name(&vm), how).await);
            assert_eq!(done.as_ref().err(), held.then_some(&"snapshot_held"), "{vm}");
            if let Ok(item) = done {
                let snapshots = model.vms.remove(&vm).unwrap();
                item.map(|item| model.trash.insert(item.id, Ok(snapshots)));
            }
        }
        10 => {
            let items: Vec<u64> = model.trash.keys().copied().collect();
            let Some(id) = random.of(&items).copied() else { return };
            let gone = model.trash.remove(&id).unwrap();
            // It may have expired by itself, and the VM of a snapshot may be gone or have another name.
            if let Ok(called) = catalog.restore(id, None).await {
                match gone {
                    Ok(snapshots) => drop(model.vms.insert(called, snapshots)),
                    Err(until_ms) => {
                        let Version { vm, snapshot } = Version::parse(&called).unwrap();
                        let snapshots = model.vms.get_mut(vm.as_str()).unwrap();
                        snapshots.insert(snapshot.unwrap().as_str().to_owned(), until_ms);
                    }
                }
            }
        }
        _ => {
            let Some((vm, snapshot)) = model.a_snapshot(random) else { return };
            match random.below(3) {
                0 => {
                    let (_, kept) = catalog.revert(&name(&vm), &name(&snapshot)).await.unwrap();
                    model.vms.get_mut(&vm).unwrap().insert(kept.name, 0);
                }
                1 if model.vms.len() < 6 => {
                    let new = model.fresh("vm");
                    let from = Version::parse(&format!("{vm}@{snapshot}")).unwrap();
                    catalog.clone_vm(&from, &name(&new)).await.unwrap();
                    model.vms.insert(new, Snapshots::new());
                }
                _ => clocks.pass((1 + random.below(9) as u64) * HOUR_MS),
            }
        }
    }
}

/// All that the model has is there, and is held as it says.
async fn judge(site: &Site, model: &Model) {
    for (vm, snapshots) in &model.vms {
        site.catalog().vm(&name(vm)).await.unwrap();
        for (snapshot, until_ms) in snapshots {
            let shown = site.catalog().show_snapshot(&name(vm), &name(snapshot)).await;
            let shown = shown.unwrap_or_else(|error| panic!("{vm}@{snapshot}: {error}"));
            assert_eq!(shown.held_until_ms, *until_ms, "{vm}@{snapshot}");
        }
    }
}

#[test]
fn what_is_held_stays_and_what_is_not_goes_in_any_order() {
    let pick: u64 = std::env::var("HOLDFAST_PICK").ok().and_then(|pick| pick.parse().ok()).unwrap_or(0);
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let (mut model, mut random) = (Model::default(), Random(pick ^ 0x5eed));
    for life in 0..3 {
        let site = clocks.start(&bench, life == 0);
        bench.runtime.block_on(async {
            judge(&site, &model).await;
            for _ in 0..STEPS / 3 {
                step(&site, &clocks, &mut model, &mut random).await;
            }
            judge(&site, &model).await;
        });
        bench.stop(&site);
        drop(site);
    }
    // When all holds are over everything goes.
    let site = clocks.start(&bench, false);
    bench.runtime.block_on(async {
        clocks.pass(100 * HOUR_MS);
        for vm in model.vms.keys() {
            let how = Deletion { now: true, with_snapshots: true };
            site.catalog().delete_vm(&name(vm), how).await.unwrap();
        }
    });
    bench.stop(&site);
}
