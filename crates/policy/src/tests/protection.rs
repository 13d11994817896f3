use super::ms;
use crate::{State, Timer, When, Zone, protection, slack_ms};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn every(text: &str) -> Timer {
    When::every(text).unwrap().timer(&Zone::utc()).unwrap()
}

#[test]
fn the_age_of_the_newest_good_point_is_held_against_the_shortest_interval() {
    let timers = [every("1d"), every("1h")];
    let now = ms("2026-06-01T12:34:56Z");
    let of = |age: Option<u64>| protection(&timers, age.map(|age| now - age), now);
    let cases = [
        (Some(0), State::Ok),
        (Some(HOUR + 6 * MINUTE), State::Ok),
        (Some(HOUR + 6 * MINUTE + 1), State::Late),
        (Some(2 * HOUR + 6 * MINUTE), State::Late),
        (Some(3 * HOUR), State::Severe),
        (Some(4 * HOUR + 7 * MINUTE), State::Critical),
        (None, State::Never),
    ];
    for (age, state) in cases {
        let found = of(age);
        assert_eq!((found.state, found.age_ms, found.target_ms), (state, age, Some(HOUR)), "{age:?}");
    }
    assert_eq!(protection(&[], Some(now), now).state, State::Excluded);
    assert_eq!(protection(&[], None, now).target_ms, None);
    assert!(State::Ok < State::Late && State::Critical < State::Never);
    assert_eq!((slack_ms(5_000), slack_ms(HOUR), slack_ms(24 * HOUR)), (2_000, 6 * MINUTE, 10 * MINUTE));
    // A point from the future, after a clock was set back, is no age at all.
    assert_eq!(protection(&timers, Some(now + 5), now).age_ms, Some(0));
}

#[test]
fn a_schedule_that_rests_over_the_weekend_is_not_late_then() {
    let office = When::cron("0 8-18 * * 1-5", Some("Europe/Berlin")).unwrap().timer(&Zone::utc()).unwrap();
    let friday = ms("2026-06-05T16:00:03Z");
    let of = |now: &str| protection([&office], Some(friday), ms(now));
    assert_eq!((of("2026-06-07T16:00:00Z").state, of("2026-06-08T06:05:00Z").state), (State::Ok, State::Ok));
    assert_eq!(of("2026-06-08T07:00:00Z").state, State::Late);
    assert_eq!(of("2026-06-08T07:00:00Z").target_ms, Some(62 * HOUR));
    let monday = ms("2026-06-08T06:00:03Z");
    assert_eq!(protection([&office], Some(monday), monday + 3 * HOUR).state, State::Severe);
}
