//! What is to come against making every point and applying retention each time.

use proptest::prelude::*;

use super::{a_zone, ms, zone};
use crate::{Group, Point, Retention, Schedule, When, keep, simulate};

const MINUTE: u64 = 60_000;
const DAY: u64 = 1440 * MINUTE;

fn group(when: When, keep: Retention, lock_s: u64, zone: &str) -> Group {
    let schedule = Schedule { lock_s, ..Schedule::new("s", when, keep) };
    Group { schedules: vec![schedule], zone: zone.to_owned(), ..Group::new("g") }
}

fn retention() -> impl Strategy<Value = Retention> {
    let few = prop_oneof![Just(0u32), 1..6u32];
    let for_s = prop_oneof![2 => Just(0), 1 => 0..200_000u64];
    let last = prop_oneof![1 => Just(0u32), 2 => 1..60u32];
    (last, few.clone(), few.clone(), few.clone(), few.clone(), few, for_s)
        .prop_map(|(last, hourly, daily, weekly, monthly, yearly, for_s)| Retention {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            for_s,
        })
        .prop_filter("keeps nothing", |keep| *keep != Retention::default())
}

fn when() -> impl Strategy<Value = When> {
    let every = prop_oneof![300..8000u64, 8000..200_000u64];
    let cron = proptest::sample::select(vec!["*/20 * * * *", "5 2,3 * * *", "0 0 * * 1", "7 */6 1-9 * *"]);
    prop_oneof![
        every.prop_map(|every_s| When::Every { every_s }),
        cron.prop_map(|cron| When::cron(cron, None).unwrap()),
    ]
}

/// Points that there are already: minutes before the begin, lock in minutes after, held, good.
fn existing() -> impl Strategy<Value = Vec<(u64, u64, bool, bool)>> {
    let minutes = prop_oneof![1..3000u64, 1..100_000u64];
    let lock = prop_oneof![3 => Just(0), 1 => 1..5000u64];
    proptest::collection::vec(
        (minutes, lock, proptest::bool::weighted(0.1), proptest::bool::weighted(0.7)),
        0..12,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn what_is_to_come_is_what_comes(
        when in when(), retention in retention(), name in a_zone(), existing in existing(), days in 0..6u32,
        lock_s in prop_oneof![3 => Just(0u64), 1 => 1..300_000u64],
    ) {
        let now = ms("2026-10-23T17:33:20Z");
        let group = group(when, retention, lock_s, name);
        let mut points: Vec<Point<'_>> = (existing.iter().zip(0..))
            .map(|((minutes, lock, is_held, is_good), id)| Point {
                id,
                at_ms: now - minutes * MINUTE - id,
                schedule: "S",
                locked_until_ms: if *lock > 0 { now + lock * MINUTE } else { 0 },
                is_held: *is_held,
                is_good: *is_good,
            })
            .collect();
        let timeline = simulate(&group, &points, now, days).unwrap().remove(0);
        let zone = zone(name);
        let timer = group.schedules[0].timer(&group).unwrap();
        let mut made = 0;
        let mut slots = timer.slots(now).peekable();
        for (number, day) in timeline.days.iter().enumerate() {
            let at_ms = now + number as u64 * DAY;
            let let_go = |points: &mut Vec<Point<'_>>, now_ms: u64| {
                let stays = keep(points, |_| Some(&group.schedules[0].keep), &zone, now_ms);
                let mut stays = stays.iter();
                points.retain(|_| stays.next().is_some_and(|reasons| reasons.stays()));
            };
            while let Some(slot) = slots.next_if(|slot| *slot <= at_ms) {
                made += 1;
                let locked_until_ms = slot + lock_s * 1000;
                let id = 1000 + made;
                points.push(Point { id, at_ms: slot, schedule: "S", locked_until_ms, is_held: false, is_good: true });
                let_go(&mut points, slot);
            }
            let_go(&mut points, at_ms);
            prop_assert_eq!((day.at_ms, day.points), (at_ms, points.len() as u64));
            prop_assert_eq!(day.oldest_ms, points.iter().map(|point| point.at_ms).min());
        }
        prop_assert_eq!((timeline.made, timeline.days.len()), (made, days as usize + 1));
        let listed = |point: &&Point<'_>| point.id < 1000 || point.at_ms < timeline.all_from_ms;
        let mut expected: Vec<(u64, Option<u64>)> = (points.iter().filter(listed))
            .map(|point| (point.at_ms, (point.id < 1000).then_some(point.id)))
            .collect();
        expected.sort_unstable();
        let kept: Vec<(u64, Option<u64>)> = timeline.kept.iter().map(|kept| (kept.at_ms, kept.id)).collect();
        prop_assert_eq!((kept.len() as u64 + timeline.all, kept), (points.len() as u64, expected));
        prop_assert!(timeline.kept.iter().all(|kept| kept.reasons.stays()));
    }
}

#[test]
fn more_than_a_year_of_a_point_every_15_seconds() {
    let retention =
        Retention { last: 240, hourly: 24, daily: 7, weekly: 4, monthly: 12, yearly: 3, for_s: 3600 * 6 };
    let now = ms("2026-01-01T00:00:07Z");
    let group = group(When::every("15s").unwrap(), retention, 7200, "Europe/Berlin");
    let timeline = simulate(&group, &[], now, 400).unwrap().remove(0);
    assert_eq!((timeline.made, timeline.days.len()), (400 * 5760, 401));
    let last = timeline.days.last().unwrap();
    assert_eq!((timeline.all, last.points), (1440, 1440 + timeline.kept.len() as u64));
    // It ends at 01:00:07. Since 19:00:07 all are there; hours, days and so on that end later need none other.
    let words =
        |word: &str| timeline.kept.iter().filter(|kept| kept.reasons.words().any(|own| own == word)).count();
    assert_eq!((words("hourly"), words("daily"), words("weekly")), (17, 5, 3));
    assert_eq!((words("monthly"), words("yearly")), (11, 1));
    let minutely = Group {
        schedules: vec![Schedule::new("s", When::cron("* * * * *", None).unwrap(), retention)],
        ..group
    };
    assert_eq!(simulate(&minutely, &[], now, 400).unwrap()[0].made, 400 * 1440);
}

#[test]
fn a_paused_schedule_makes_none_and_its_points_age() {
    let retention = Retention { for_s: 3 * 86_400, ..Retention::default() };
    let now = ms("2026-06-01T00:00:00Z");
    let mut group = group(When::every("1h").unwrap(), retention, 0, "UTC");
    group.paused = true;
    let point = |id: u64| Point {
        id,
        at_ms: now - id * DAY,
        schedule: "s",
        locked_until_ms: 0,
        is_held: false,
        is_good: true,
    };
    let timeline = simulate(&group, &[point(0), point(1), point(2), point(3)], now, 4).unwrap().remove(0);
    assert_eq!(timeline.days.iter().map(|day| day.points).collect::<Vec<_>>(), [3, 2, 1, 1, 1]);
    assert_eq!((timeline.made, timeline.all, timeline.kept[0].id), (0, 0, Some(0)));
    assert!(simulate(&group, &[], now, 3661).is_err());
}
