//! Retention against a model that groups all points by calendar, and over time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{a_zone, ms, zone};
use crate::zone::stamp;
use crate::{Point, Reasons, Retention, Zone, keep};

const MINUTE: u64 = 60_000;

fn point(id: u64, at_ms: u64) -> Point<'static> {
    Point { id, at_ms, schedule: "s", locked_until_ms: 0, is_held: false, is_good: true }
}

/// The buckets of an instant, in words.
fn names(zone: &Zone, at_ms: u64) -> [String; 5] {
    let local = zone.local(at_ms);
    let offset = zone.inner().to_offset(stamp(at_ms));
    let week = local.date().iso_week_date();
    let date = local.date();
    [
        format!("{date} {} {offset}", local.hour()),
        date.to_string(),
        format!("{} {}", week.year(), week.week()),
        format!("{} {}", date.year(), date.month()),
        date.year().to_string(),
    ]
}

/// What stays, by the words of the guarantee.
fn model(points: &[Point<'_>], retention: &Retention, zone: &Zone, now_ms: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse((points[*at].at_ms, points[*at].id)));
    let mut stays = vec![false; points.len()];
    order.iter().take(1.max(retention.last as usize)).for_each(|at| stays[*at] = true);
    order.iter().filter(|at| points[**at].is_good).take(1).for_each(|at| stays[*at] = true);
    let Retention { hourly, daily, weekly, monthly, yearly, .. } = *retention;
    for (kind, count) in [hourly, daily, weekly, monthly, yearly].into_iter().enumerate() {
        let mut buckets: Vec<(String, Vec<usize>)> = Vec::new();
        for at in &order {
            let name = names(zone, points[*at].at_ms)[kind].clone();
            match buckets.iter_mut().find(|(known, _)| *known == name) {
                Some((_, of)) => of.push(*at),
                None => buckets.push((name, vec![*at])),
            }
        }
        for (_, of) in buckets.iter().take(count as usize) {
            let good = of.iter().find(|at| points[**at].is_good);
            stays[*good.unwrap_or(&of[0])] = true;
        }
    }
    for (point, stays) in points.iter().zip(&mut stays) {
        *stays |= point.is_held || point.locked_until_ms > now_ms;
        *stays |= now_ms < point.at_ms + retention.for_s * 1000;
    }
    stays
}

fn retention() -> impl Strategy<Value = Retention> {
    let for_s = prop_oneof![2 => Just(0), 1 => 0..200_000u64];
    (0..5u32, 0..6u32, 0..5u32, 0..4u32, 0..4u32, 0..3u32, for_s).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, for_s)| Retention {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            for_s,
        },
    )
}

/// Points in the order in which they are made: minutes since the last, lock in minutes, held, good.
fn history() -> impl Strategy<Value = Vec<(u64, u64, bool, bool)>> {
    let gap = prop_oneof![5 => 1..40u64, 4 => 40..2000u64, 1 => 2000..100_000u64];
    let lock = prop_oneof![4 => Just(0), 1 => 1..5000u64];
    let one = (gap, lock, proptest::bool::weighted(0.05), proptest::bool::weighted(0.8));
    proptest::collection::vec(one, 0..60)
}

fn points(history: &[(u64, u64, bool, bool)], from_ms: u64) -> Vec<Point<'static>> {
    let mut at_ms = from_ms;
    let made = history.iter().zip(1..).map(|((gap, lock, is_held, is_good), id)| {
        at_ms += gap * MINUTE;
        let locked_until_ms = if *lock > 0 { at_ms + lock * MINUTE } else { 0 };
        Point { id, at_ms, schedule: "s", locked_until_ms, is_held: *is_held, is_good: *is_good }
    });
    made.collect()
}

/// Shortly before clocks change somewhere.
fn begin() -> impl Strategy<Value = u64> {
    let begins =
        ["2026-03-27T00:00:00Z", "2026-10-24T00:00:00Z", "2011-12-28T00:00:00Z", "2006-10-28T00:00:00Z"];
    (proptest::sample::select(begins.to_vec()), 0..1440u64).prop_map(|(at, more)| ms(at) + more * MINUTE)
}

/// Zones in which a date never comes back: the model orders buckets by their newest point.
fn a_plain_zone() -> impl Strategy<Value = &'static str> {
    a_zone().prop_filter("a date comes back", |name| *name != "America/St_Johns")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]
    #[test]
    fn retention_keeps_what_the_model_keeps(
        history in history(), retention in retention(), name in a_plain_zone(), begin in begin(), later in 0..3000u64,
        turn in 0..60usize,
    ) {
        let zone = zone(name);
        let mut points = points(&history, begin);
        let now = points.last().map_or(begin, |point| point.at_ms) + later * MINUTE;
        let middle = turn.min(points.len());
        points.rotate_left(middle);
        let reasons = keep(&points, |_| Some(&retention), &zone, now);
        let stays: Vec<bool> = reasons.iter().map(|reasons| reasons.stays()).collect();
        prop_assert_eq!(stays, model(&points, &retention, &zone, now));
    }

    #[test]
    fn what_was_let_go_is_never_missed(
        history in history(), retention in retention(), name in a_zone(), begin in begin(),
    ) {
        let zone = zone(name);
        let all = points(&history, begin);
        let mut left: Vec<Point<'_>> = Vec::new();
        for (at, point) in all.iter().enumerate() {
            left.push(*point);
            let stays = |points: &[Point<'static>]| -> Vec<Point<'static>> {
                let reasons = keep(points, |_| Some(&retention), &zone, point.at_ms);
                points.iter().zip(reasons).filter(|(_, reasons)| reasons.stays()).map(|(point, _)| *point).collect()
            };
            left = stays(&left);
            prop_assert_eq!(&left, &stays(&all[..=at]));
            prop_assert!(left.contains(point), "the newest stays");
            let good = all[..=at].iter().rfind(|point| point.is_good);
            prop_assert!(good.is_none_or(|good| left.contains(good)), "the newest good one stays");
            let Retention { last, hourly, daily, weekly, monthly, yearly, for_s } = retention;
            let most = 2 + last + hourly + daily + weekly + monthly + yearly;
            let is_safe = |point: &&Point<'_>| point.is_held || point.locked_until_ms > all[at].at_ms;
            let safe = left.iter().filter(is_safe).count();
            prop_assert!(for_s > 0 || left.len() <= most as usize + safe);
        }
    }
}

#[test]
fn hours_without_a_point_are_not_counted() {
    let retention = Retention { hourly: 3, ..Retention::default() };
    let begin = ms("2026-06-01T00:00:00Z");
    // A point every ten minutes for two hours, a week without one, then one.
    let mut points: Vec<Point<'_>> = (0..12).map(|at| point(at, begin + at * 10 * MINUTE)).collect();
    points.push(point(12, begin + 7 * 1440 * MINUTE));
    let reasons = keep(&points, |_| Some(&retention), &Zone::utc(), points[12].at_ms);
    let stays: Vec<usize> = (0..13).filter(|at| reasons[*at].stays()).collect();
    assert_eq!(stays, [5, 11, 12]);
    assert_eq!(reasons[12].to_string(), "newest, newest good, hourly");
    assert_eq!(reasons[5].words().collect::<Vec<_>>(), ["hourly"]);
    assert!(!reasons[5].has(Reasons::NEWEST) && reasons[0] == Reasons::default());
}

#[test]
fn an_hour_that_comes_twice_is_two() {
    let retention = Retention { hourly: 9, ..Retention::default() };
    let at = |text: &str| ms(&format!("2026-10-25T{text}:00Z"));
    let times = ["00:10", "00:50", "01:10", "01:50", "02:10"];
    let points: Vec<Point<'_>> = times.iter().zip(0..).map(|(time, id)| point(id, at(time))).collect();
    let reasons = keep(&points, |_| Some(&retention), &zone("Europe/Berlin"), at("03:00"));
    let stays: Vec<bool> = reasons.iter().map(|reasons| reasons.stays()).collect();
    assert_eq!(stays, [false, true, false, true, true]);
}

#[test]
fn a_schedule_that_is_gone_keeps_its_points_and_each_has_its_own_newest() {
    let retention = Retention { last: 1, ..Retention::default() };
    let schedules = ["a", "b", "gone", "a", "b", "gone"];
    let points: Vec<Point<'_>> =
        schedules.iter().zip(0..).map(|(schedule, id)| Point { schedule, ..point(id, 5 + id) }).collect();
    let reasons = keep(&points, |name| (name != "gone").then_some(&retention), &Zone::utc(), 100);
    let words: BTreeMap<u64, String> = (0..).zip(reasons.iter().map(Reasons::to_string)).collect();
    let newest = "newest, newest good, last";
    let expected = ["", "", "no schedule", newest, newest, "no schedule"];
    assert_eq!(words.into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn a_bad_point_takes_no_good_ones_place() {
    let retention = Retention { daily: 2, ..Retention::default() };
    let day = 1440 * MINUTE;
    let bad = |id, at_ms| Point { is_good: false, ..point(id, at_ms) };
    let points =
        [point(0, 10 * day), bad(1, 10 * day + 5), bad(2, 11 * day), bad(3, 11 * day + 5), point(4, 9 * day)];
    let reasons = keep(&points, |_| Some(&retention), &Zone::utc(), 12 * day);
    let words: Vec<String> = reasons.iter().map(Reasons::to_string).collect();
    assert_eq!(words, ["newest good, daily", "", "", "newest, daily", ""]);
}
