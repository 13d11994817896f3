//! Goal: every slot of a schedule has the point it must have, once, with the members of that moment, and retention keeps
//! exactly what it says, whatever comes in between.
//! Model: groups over plain lists of VMs and points; clocks that jump; restarts.

use std::collections::{BTreeMap, BTreeSet};

use api::VmName;
use api::types::{ChangeAttributes, GroupSpec, Keep, ListPoints, PointSummary, Rules, Schedule};
use catalog::Deletion;
use policy::{Point, Retention, Zone};

use super::Bench;
use super::trash::Clocks;
use crate::Site;

pub(super) const HOUR_MS: u64 = 3_600_000;
const STEPS: usize = 120;

pub(super) fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

/// A group with one schedule.
pub(super) fn group(name: &str, rules: Rules, every: &str, keep: Keep, lock: Option<&str>) -> GroupSpec {
    let schedule = Schedule {
        name: "main".to_owned(),
        every: Some(every.to_owned()),
        keep,
        lock: lock.map(str::to_owned),
        ..Schedule::default()
    };
    GroupSpec {
        name: name.to_owned(),
        zone: "UTC".to_owned(),
        include: rules,
        schedules: vec![schedule],
        ..GroupSpec::default()
    }
}

pub(super) fn like(pattern: &str) -> Rules {
    Rules { match_names: vec![pattern.to_owned()], ..Rules::default() }
}

/// Far from the borders of hours: the clock goes on while a test runs.
pub(super) fn to_the_middle_of_an_hour(site: &Site, clocks: &Clocks) {
    let now_ms = site.engine().site_time_ms();
    clocks.pass(HOUR_MS - now_ms % HOUR_MS + HOUR_MS / 3);
}

pub(super) async fn points(site: &Site) -> Vec<PointSummary> {
    let all = site.points(&ListPoints::default()).await.unwrap();
    assert!(all.next.is_none());
    all.items
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A group as the model has it.
struct Rule {
    group: &'static str,
    period_ms: u64,
    keep: Retention,
    lock_ms: u64,
    after_ms: u64,
}

#[derive(Debug, Clone)]
struct Made {
    group: &'static str,
    due_ms: u64,
    at_ms: u64,
    locked_until_ms: u64,
    members: BTreeSet<String>,
}

struct Model {
    rules: Vec<Rule>,
    /// VMs, and whether they have the tag.
    vms: BTreeMap<String, bool>,
    made: Vec<Made>,
}

impl Model {
    fn members(&self, group: &str) -> BTreeSet<String> {
        let is_in = |(name, tagged): &(&String, &bool)| match group {
            "db" => **tagged,
            _ => !**tagged && name.starts_with("web"),
        };
        self.vms.iter().filter(is_in).map(|(name, _)| name.clone()).collect()
    }

    /// The runs that a round at `now_ms` makes.
    fn run(&mut self, now_ms: u64) {
        for at in 0..self.rules.len() {
            let members = self.members(self.rules[at].group);
            let rule = &mut self.rules[at];
            let due_ms = now_ms / rule.period_ms * rule.period_ms;
            if due_ms <= rule.after_ms {
                continue;
            }
            rule.after_ms = due_ms;
            if !members.is_empty() {
                let locked_until_ms = if rule.lock_ms > 0 { now_ms + rule.lock_ms } else { 0 };
                self.made.push(Made { group: rule.group, due_ms, at_ms: now_ms, locked_until_ms, members });
            }
        }
    }

    /// What retention keeps of all that was ever made.
    fn kept(&self, now_ms: u64) -> Vec<&Made> {
        let mut kept = Vec::new();
        for rule in &self.rules {
            let of_group: Vec<&Made> = self.made.iter().filter(|made| made.group == rule.group).collect();
            let points: Vec<Point<'_>> = of_group
                .iter()
                .zip(1..)
                .map(|(made, id)| Point {
                    id,
                    at_ms: made.at_ms,
                    schedule: "main",
                    locked_until_ms: made.locked_until_ms,
                    is_held: false,
                    is_good: true,
                })
                .collect();
            let reasons = policy::keep(&points, |_| Some(&rule.keep), &Zone::utc(), now_ms);
            kept.extend(
                of_group.into_iter().zip(reasons).filter(|(_, why)| why.stays()).map(|(made, _)| made),
            );
        }
        kept.sort_by_key(|made| (made.at_ms, made.group));
        kept
    }
}

async fn judge(site: &Site, model: &Model, seed: u64) {
    let mut found = Vec::new();
    for point in points(site).await {
        let point = site.point(point.id).await.unwrap();
        assert!(point.is_good, "seed {seed}: {point:?}");
        let members: BTreeSet<String> = point.members.iter().map(|member| member.vm.clone()).collect();
        assert_eq!(members.len(), point.members.len());
        found.push((point.due_ms.unwrap(), point.group, members));
    }
    found.sort();
    let now_ms = site.engine().site_time_ms();
    let mut right: Vec<_> = model
        .kept(now_ms)
        .into_iter()
        .map(|made| (made.due_ms, made.group.to_owned(), made.members.clone()))
        .collect();
    right.sort();
    assert_eq!(found, right, "seed {seed}");
    // Snapshots are those of the points, no more and no fewer.
    let snapshots = site.catalog().snapshots(None, None, 1000).await.unwrap();
    let of_live = |(_, _, members): &(u64, String, BTreeSet<String>)| {
        members.iter().filter(|vm| model.vms.contains_key(*vm)).count()
    };
    assert_eq!(snapshots.len(), found.iter().map(of_live).sum::<usize>(), "seed {seed}");
}

async fn step(site: &Site, clocks: &Clocks, model: &mut Model, random: &mut Random, count: &mut u64) {
    match random.below(8) {
        0 | 1 => {
            *count += 1;
            let vm = format!("{}{count}", if random.below(4) == 0 { "x" } else { "web" });
            site.catalog().create_vm(&name(&vm), &[1 << 20]).await.unwrap();
            model.vms.insert(vm, false);
        }
        2 => {
            let Some(vm) = model.vms.keys().nth(random.below(6) as usize).cloned() else { return };
            let tagged = !model.vms[&vm];
            let tags = vec!["db".to_owned()];
            let change = if tagged {
                ChangeAttributes { add_tags: tags, ..ChangeAttributes::default() }
            } else {
                ChangeAttributes { remove_tags: tags, ..ChangeAttributes::default() }
            };
            site.catalog().change_attributes(&name(&vm), &change).await.unwrap();
            model.vms.insert(vm, tagged);
        }
        3 => {
            let Some(vm) = model.vms.keys().nth(random.below(6) as usize).cloned() else { return };
            let now_ms = site.engine().site_time_ms();
            let is_locked =
                model.made.iter().any(|made| made.locked_until_ms > now_ms && made.members.contains(&vm));
            match site.catalog().delete_vm(&name(&vm), Deletion::default()).await {
                Ok(_) => {
                    assert!(!is_locked, "{vm}");
                    model.vms.remove(&vm);
                }
                Err(error) => assert!(is_locked && error.code == "snapshot_held", "{error:?}"),
            }
        }
        _ => {
            clocks.pass((1 + random.below(9)) * HOUR_MS);
            site.protect().await;
            model.run(site.engine().site_time_ms());
        }
    }
}

#[test]
fn every_slot_has_its_point_once_and_retention_is_exact() {
    let pick: u64 = std::env::var("HOLDFAST_PICK").ok().and_then(|pick| pick.parse().ok()).unwrap_or(0);
    let (bench, clocks) = (Bench::new(), Clocks::default());
    let (mut random, mut count) = (Random(pick ^ 0x9e37), 0);
    let keep = Keep { last: 2, hourly: 4, daily: 2, ..Keep::default() };
    let long = Keep { young: Some("2d".to_owned()), ..Keep::default() };
    let mut model = Model { rules: Vec::new(), vms: BTreeMap::new(), made: Vec::new() };
    for life in 0..4 {
        let site = clocks.start(&bench, life == 0);
        bench.runtime.block_on(async {
            if life == 0 {
                to_the_middle_of_an_hour(&site, &clocks);
                site.create_group(&group("web", like("web*"), "1h", keep.clone(), None)).await.unwrap();
                let tagged = Rules { tags: vec!["db".to_owned()], ..Rules::default() };
                site.create_group(&group("db", tagged, "6h", long.clone(), Some("3h"))).await.unwrap();
                site.protect().await;
                let after_ms = site.engine().site_time_ms();
                let web = Retention { last: 2, hourly: 4, daily: 2, ..Retention::default() };
                let db = Retention { for_s: 2 * 86_400, ..Retention::default() };
                let rule = |group, hours, keep, lock_ms| Rule {
                    group,
                    period_ms: hours * HOUR_MS,
                    keep,
                    lock_ms,
                    after_ms,
                };
                model.rules = vec![rule("web", 1, web, 0), rule("db", 6, db, 3 * HOUR_MS)];
            }
            site.protect().await;
            judge(&site, &model, pick).await;
            for _ in 0..STEPS / 4 {
                step(&site, &clocks, &mut model, &mut random, &mut count).await;
                site.protect().await;
                judge(&site, &model, pick).await;
            }
            // Hours pass here within the moment between two looks at what is to be kept of the clock.
            site.engine().keep_time().await.unwrap();
        });
        bench.stop(&site);
        drop(site);
        // Slots that pass while nothing runs: the newest is made up for.
        if random.below(2) == 0 {
            clocks.pass(7 * HOUR_MS);
            let site = clocks.start(&bench, false);
            bench.runtime.block_on(async {
                site.protect().await;
                model.run(site.engine().site_time_ms());
                judge(&site, &model, pick).await;
                site.engine().keep_time().await.unwrap();
            });
            bench.stop(&site);
        }
    }
    assert!(model.made.len() > 5, "{} {:?}", model.made.len(), model.vms);
}
