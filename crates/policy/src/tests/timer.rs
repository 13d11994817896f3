//! Slots against a scan of the clock, minute by minute: what a daemon would do that looks at the clock on the
//! wall.

use std::collections::BTreeSet;

use jiff::ToSpan;
use jiff::civil::DateTime;
use proptest::prelude::*;

use super::{ms, text, zone};
use crate::{Timer, When, Zone};

const MINUTE: u64 = 60_000;

/// Where something happens: changes of the clock by an hour, half an hour, a quarter and a day, leap days,
/// ends of months and years.
const SCENES: [(&str, &str); 14] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Asia/Kathmandu", "1985-12-31T18:30:00Z"),
    ("Asia/Kathmandu", "2026-06-30T18:15:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("America/St_Johns", "2006-10-29T02:31:00Z"),
    ("America/St_Johns", "2006-04-02T03:31:00Z"),
    ("UTC", "2024-02-29T12:00:00Z"),
    ("Europe/Berlin", "2027-02-28T23:00:00Z"),
    ("America/New_York", "2027-01-01T05:00:00Z"),
];

/// A cron expression as sets of numbers; none is a star.
#[derive(Debug, Clone)]
struct Fields {
    minutes: BTreeSet<i8>,
    hours: Option<BTreeSet<i8>>,
    days: Option<BTreeSet<i8>>,
    months: Option<BTreeSet<i8>>,
    weekdays: Option<BTreeSet<i8>>,
}

impl Fields {
    fn expression(&self) -> String {
        let list = |set: &BTreeSet<i8>| set.iter().map(i8::to_string).collect::<Vec<_>>().join(",");
        let field = |set: &Option<BTreeSet<i8>>| set.as_ref().map_or("*".to_owned(), list);
        let rest = [&self.hours, &self.days, &self.months, &self.weekdays].map(field);
        format!("{} {}", list(&self.minutes), rest.join(" "))
    }

    fn has(&self, local: DateTime) -> bool {
        let has =
            |set: &Option<BTreeSet<i8>>, number: i8| set.as_ref().is_none_or(|set| set.contains(&number));
        let weekday = local.date().weekday().to_sunday_zero_offset();
        let (day, week) = (has(&self.days, local.day()), has(&self.weekdays, weekday));
        let date = match (&self.days, &self.weekdays) {
            (Some(_), Some(_)) => day || week,
            _ => day && week,
        };
        let time = self.minutes.contains(&local.minute()) && has(&self.hours, local.hour());
        time && date && has(&self.months, local.month())
    }

    fn is_every_hour(&self) -> bool {
        self.hours.as_ref().is_none_or(|hours| hours.len() == 24)
    }

    /// The runs between two instants, in whole minutes.
    fn scan(&self, zone: &Zone, from_ms: u64, until_ms: u64) -> Vec<u64> {
        let mut runs = Vec::new();
        let mut latest = zone.local(from_ms - 2 * 86_400_000);
        for at in (from_ms - 2 * 86_400_000..until_ms).step_by(MINUTE as usize) {
            let local = zone.local(at);
            let is_new = local > latest;
            let mut made_up = latest.saturating_add(1.minute());
            let mut is_due = self.has(local) && (is_new || self.is_every_hour());
            while made_up < local {
                is_due |= self.has(made_up);
                made_up = made_up.saturating_add(1.minute());
            }
            latest = latest.max(local);
            if is_due && at > from_ms {
                runs.push(at);
            }
        }
        runs
    }
}

fn some(range: std::ops::Range<i8>, most: usize) -> impl Strategy<Value = BTreeSet<i8>> {
    proptest::collection::btree_set(range, 1..=most)
}

fn fields() -> impl Strategy<Value = Fields> {
    let minutes = prop_oneof![some(0..60, 1), some(0..60, 6), Just((0..60).step_by(15).collect())];
    let hours = prop_oneof![Just(None), some(0..4, 2).prop_map(Some), some(0..24, 5).prop_map(Some)];
    let days =
        prop_oneof![3 => Just(None), 1 => some(1..29, 8).prop_map(Some), 1 => some(28..32, 3).prop_map(Some)];
    let months = prop_oneof![3 => Just(None), 1 => some(1..13, 9).prop_map(Some)];
    let weekdays = prop_oneof![3 => Just(None), 1 => some(0..7, 4).prop_map(Some)];
    (minutes, hours, days, months, weekdays).prop_map(|(minutes, hours, days, months, weekdays)| Fields {
        minutes,
        hours,
        days,
        months,
        weekdays,
    })
}

fn timer(expression: &str, name: &str) -> Timer {
    When::cron(expression, Some(name)).unwrap().timer(&Zone::utc()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn slots_are_those_of_a_clock_on_the_wall(
        fields in fields(), scene in proptest::sample::select(SCENES.to_vec()),
        since in 0..4000u64, passed in 0..4000u64,
    ) {
        let (name, at) = scene;
        let (from, until) = (ms(at) - 36 * 60 * MINUTE, ms(at) + 60 * 60 * MINUTE);
        let made = When::cron(&fields.expression(), Some(name));
        prop_assume!(made.is_ok()); // 31 February is none
        let timer = made.unwrap().timer(&Zone::utc()).unwrap();
        let runs = fields.scan(&zone(name), from, until);
        let slots: Vec<u64> = timer.slots(from).take_while(|slot| *slot < until).collect();
        prop_assert_eq!(&slots, &runs, "{} in {}", fields.expression(), name);
        for (at, slot) in slots.iter().enumerate() {
            prop_assert_eq!(timer.next_after(slot - 1), Some(*slot));
            prop_assert!(timer.next_after(*slot).is_none_or(|next| slots.get(at + 1).is_none_or(|known| next == *known)));
        }
        let since = from + since * MINUTE + 1;
        let now = (since + passed * MINUTE + 12_345).min(until - 1);
        let due = runs.iter().rev().find(|run| **run <= now && **run > since);
        prop_assert_eq!(timer.due(now, since), due.copied());
    }

    #[test]
    fn intervals_are_counted_from_the_epoch(every in 1..400_000u64, after in 0..1u64 << 41, passed in 0..1u64 << 34) {
        let timer = When::Every { every_s: every }.timer(&Zone::utc()).unwrap();
        let next = timer.next_after(after).unwrap();
        prop_assert!(next > after && next - after <= every * 1000 && next.is_multiple_of(every * 1000));
        let now = after + passed;
        let due = timer.due(now, after);
        prop_assert_eq!(due.is_some(), next <= now);
        if let Some(slot) = due {
            prop_assert!(slot <= now && now - slot < every * 1000 && slot.is_multiple_of(every * 1000));
            prop_assert_eq!(timer.due(now, slot), None);
        }
        prop_assert_eq!(timer.interval_at(now), Some(every * 1000));
    }
}

#[test]
fn changes_of_the_clock() {
    let cases: [(&str, &str, &str, &[&str]); 9] = [
        // 02:30 is left out: the first instant after.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T02:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        // 02:30 comes twice: once.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        // From within the hour that comes again.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", &["2026-10-26T01:30:00Z"]),
        // All that is left out is one run.
        (
            "*/20 2 * * *",
            "Europe/Berlin",
            "2026-03-28T22:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"],
        ),
        // Every hour is every hour.
        (
            "0 * * * *",
            "America/New_York",
            "2026-11-01T04:30:00Z",
            &["2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z"],
        ),
        (
            "15 * * * *",
            "Australia/Lord_Howe",
            "2026-10-03T15:00:00Z",
            &["2026-10-03T15:30:00Z", "2026-10-03T16:15:00Z"],
        ),
        // A day that never was.
        (
            "0 2 * * *",
            "Pacific/Apia",
            "2011-12-29T12:30:00Z",
            &["2011-12-30T10:00:00Z", "2011-12-30T12:00:00Z", "2011-12-31T12:00:00Z"],
        ),
        ("0 0 31 * *", "UTC", "2026-01-31T00:00:00Z", &["2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"]),
        ("0 12 29 2 *", "UTC", "2096-02-29T12:00:00Z", &["2104-02-29T12:00:00Z", "2108-02-29T12:00:00Z"]),
    ];
    for (expression, name, after, expected) in cases {
        let slots =
            timer(expression, name).slots(ms(after)).take(expected.len()).map(text).collect::<Vec<_>>();
        assert_eq!(slots, expected, "{expression} in {name}");
    }
}

#[test]
fn what_was_missed_is_one_run() {
    let minutes = timer("* * * * *", "Europe/Berlin");
    let (since, now) = (ms("2006-01-01T00:00:00Z"), ms("2026-06-01T10:20:30Z"));
    assert_eq!(minutes.due(now, since).map(text).as_deref(), Some("2026-06-01T10:20:00Z"));
    let seconds = When::every("15s").unwrap().timer(&Zone::utc()).unwrap();
    let slot = seconds.due(now, since).unwrap();
    assert_eq!(text(slot), "2026-06-01T10:20:30Z");
    // A clock that went back makes nothing due, and none again.
    assert_eq!((seconds.due(since, now), seconds.due(now + 14_999, slot)), (None, None));
    assert_eq!(seconds.due(now + 15_000, slot), Some(slot + 15_000));
    let leap = timer("0 0 29 2 *", "UTC");
    assert_eq!(leap.due(now, since).map(text).as_deref(), Some("2024-02-29T00:00:00Z"));
    assert_eq!((leap.next_after(u64::MAX), seconds.next_after(u64::MAX)), (None, None));
    // A run at two whose point is made some seconds later is a day from the next.
    let nightly = timer("0 2 * * *", "UTC");
    assert_eq!(nightly.interval_at(ms("2026-06-01T02:00:07Z")), Some(86_400_000));
}

#[test]
fn what_is_no_schedule_is_refused_with_a_reason() {
    for text in ["0s", "367d", "soon", "", "-5m", "1mo", "1.5s", "5"] {
        let error = When::every(text).unwrap_err();
        assert!(error.code == api::code::INVALID_TIME && !error.hint.is_empty(), "{text}");
    }
    for text in [
        "",
        "* * * *",
        "* * * * * *",
        "61 * * * *",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "a b c d e",
        "@soon",
        "ä * * * *",
    ] {
        let error = When::cron(text, None).unwrap_err();
        assert!(error.code == api::code::INVALID_TIME && !error.hint.is_empty(), "{text}");
    }
    assert!(When::cron("0 2 * * *", Some("Europe/Berln")).is_err());
    for text in ["@daily", "0 2 * * MON-FRI", "*/5 8-18 * * 1-5", "0 0 29 2 *", "0 0 L * *", "0 0 29 2 +1"] {
        assert!(When::cron(text, Some("europe/berlin")).is_ok(), "{text}");
    }
}
