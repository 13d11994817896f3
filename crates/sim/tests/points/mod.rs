//! Goal: points are whole or absent, one for each slot, and of one instant, whenever the site is killed.
//! Model: a group whose points take several transactions each, made every few seconds; a guest that writes numbers to
//! two VMs in turn; kills and power cuts around the moments at which points are made and let go of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::VmName;
use api::types::{GroupSpec, Keep, ListPoints, Rules, Schedule};
use seam::Runtime;
use sim::{Life, Limits, Rng, Simulation, Site};
use units::{BLOCK, DiskId};

const SEEDS: u64 = 24;
const LIVES: u64 = 8;
const VMS: usize = 14;
const EVERY_MS: u64 = 5_000;
const KEPT: u32 = 3;
/// A round comes within a second, and makes and deletes in moments.
const SOON: Duration = Duration::from_secs(3);

fn vm(number: usize) -> VmName {
    VmName::parse(&format!("vm{number:02}")).expect("a name")
}

fn group() -> GroupSpec {
    GroupSpec {
        name: "all".to_owned(),
        zone: "UTC".to_owned(),
        include: Rules { match_names: vec!["*".to_owned()], ..Rules::default() },
        schedules: vec![Schedule {
            name: "main".to_owned(),
            every: Some("5s".to_owned()),
            keep: Keep { last: KEPT, ..Keep::default() },
            ..Schedule::default()
        }],
        ..GroupSpec::default()
    }
}

async fn disk_of(site: &site::Site, name: &str) -> DiskId {
    site.catalog().disks_of(&[name.to_owned()]).await.expect("it is there")[0]
}

async fn number(site: &site::Site, name: &str) -> u64 {
    let disk = disk_of(site, name).await;
    let _open = site.engine().open_disk(disk).await.expect("opens");
    let block = site.engine().read(disk, 0, BLOCK).await.expect("reads");
    u64::from_le_bytes(block[..8].try_into().expect("eight bytes"))
}

/// Writes one number more to the first VM, then to the second, and so on.
async fn write(site: site::Site) {
    let disks = [disk_of(&site, "vm00").await, disk_of(&site, "vm01").await];
    let mut last = number(&site, "vm00").await;
    loop {
        last += 1;
        for disk in disks {
            let mut block = vec![7; BLOCK];
            block[..8].copy_from_slice(&last.to_le_bytes());
            if site.engine().write(disk, 0, &block).await.is_err() {
                return;
            }
        }
        site.runtime().sleep(Duration::from_millis(20)).await;
    }
}

/// All that is there of points is whole, and no slot has two.
async fn judge(site: &site::Site, slots: &mut BTreeMap<u64, u64>, seed: u64) {
    let points = site.points(&ListPoints::default()).await.expect("lists").items;
    let mut right = BTreeSet::new();
    for summary in &points {
        let point = site.point(summary.id).await.expect("it is there");
        assert!(point.is_good && point.members.len() == VMS, "seed {seed}: {point:?}");
        let due_ms = point.due_ms.expect("its run was due");
        let known = slots.entry(due_ms).or_insert(point.id);
        assert_eq!(*known, point.id, "seed {seed}: the slot {due_ms} has two points");
        right.extend(point.members.iter().map(|member| member.snapshot.clone().expect("its VM is there")));
        let (first, second) = (
            number(site, &format!("vm00@{}", point.name)).await,
            number(site, &format!("vm01@{}", point.name)).await,
        );
        assert!(second <= first && first <= second + 1, "seed {seed}: {first} and {second}");
    }
    let found = site.catalog().snapshots(None, None, 1000).await.expect("lists");
    let found: BTreeSet<String> = found.into_iter().map(|one| format!("{}@{}", one.vm, one.name)).collect();
    assert_eq!(found, right, "seed {seed}");
    assert!(points.len() <= KEPT as usize + 1, "seed {seed}: {} points", points.len());
}

async fn opened(life: &mut Life, seed: u64) -> site::Site {
    life.opened().await.expect("it lives").unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    life.site().expect("it is open")
}

async fn run(seed: u64, ground: &Site, rng: &mut Rng) {
    let mut slots = BTreeMap::new();
    for round in 0..LIVES {
        let mut life = ground.boot();
        let site = opened(&mut life, seed).await;
        let rt = life.runtime();
        if round == 0 {
            for number in 0..VMS {
                site.catalog().create_vm(&vm(number), &[1 << 20]).await.expect("a VM");
            }
            site.create_group(&group()).await.expect("a group");
        } else {
            rt.sleep(SOON).await;
            judge(&site, &mut slots, seed).await;
            let now_ms = site.engine().site_time_ms();
            let newest = slots.last_key_value().map_or(0, |(due_ms, _)| *due_ms);
            assert!(newest + EVERY_MS + 3_000 > now_ms, "seed {seed}: {newest} is the newest at {now_ms}");
        }
        rt.spawn("guest", Box::pin(write(site.clone())));
        // To some moment near a slot.
        let slots_on = 1 + rng.below(4);
        let now_ms = site.engine().site_time_ms();
        let wait_ms = EVERY_MS - now_ms % EVERY_MS + slots_on * EVERY_MS + rng.below(400);
        rt.sleep(Duration::from_millis(wait_ms)).await;
        drop(site);
        ground.end(life, rng.below(2) == 0);
    }
    let mut life = ground.boot();
    let site = opened(&mut life, seed).await;
    life.runtime().sleep(SOON).await;
    judge(&site, &mut slots, seed).await;
    assert!(slots.len() > LIVES as usize, "seed {seed}: {} slots", slots.len());
    ground.end(life, false);
}

#[test]
fn points_are_whole_and_one_for_each_slot_whenever_the_site_is_killed() {
    for seed in 0..SEEDS {
        let sim = Simulation::new(seed, Limits { steps: 50_000_000, ..Limits::default() });
        let control = (*sim).clone();
        let mut rng = sim.rng("points");
        let work = async {
            let ground = Site::format(&control, super::room::spec(16 << 20)).await;
            run(seed, &ground, &mut rng).await;
        };
        sim.run_until(work).expect("it ends");
    }
}
