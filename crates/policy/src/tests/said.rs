use proptest::prelude::*;

use super::{a_zone, ms, text, zone};
use crate::{Zone, parse_instant};

#[test]
fn times_are_what_people_mean() {
    let now = ms("2026-11-30T20:15:30.500Z"); // 21:15:30 in Berlin
    let cases = [
        ("now", "2026-11-30T20:15:30Z"),
        (" NOW ", "2026-11-30T20:15:30Z"),
        ("2h ago", "2026-11-30T18:15:30Z"),
        ("1d12h ago", "2026-11-29T08:15:30Z"),
        ("90 min ago", "2026-11-30T18:45:30Z"),
        ("30d", "2026-10-31T20:15:30Z"),
        // The same time of day, on the other side of a change of the clock.
        ("45d ago", "2026-10-16T19:15:30Z"),
        ("1y", "2025-11-30T20:15:30Z"),
        ("today", "2026-11-29T23:00:00Z"),
        ("today 09:30", "2026-11-30T08:30:00Z"),
        ("yesterday", "2026-11-28T23:00:00Z"),
        ("Yesterday 18:00", "2026-11-29T17:00:00Z"),
        ("yesterday  8:05:07", "2026-11-29T07:05:07Z"),
        ("2026-11-29", "2026-11-28T23:00:00Z"),
        ("2026-11-29 18:00", "2026-11-29T17:00:00Z"),
        ("2026-11-29T18:00:05", "2026-11-29T17:00:05Z"),
        ("2026-11-29T18:00:00Z", "2026-11-29T18:00:00Z"),
        ("2026-11-29t18:00:00+05:45", "2026-11-29T12:15:00Z"),
        ("2026-11-29 18:00:00-08:00", "2026-11-30T02:00:00Z"),
        // A time that is left out, and one that comes twice.
        ("2026-03-29 02:30", "2026-03-29T01:00:00Z"),
        ("2026-10-25 02:30", "2026-10-25T00:30:00Z"),
    ];
    for (said, meant) in cases {
        let found = parse_instant(said, now, &zone("Europe/Berlin"));
        assert_eq!(text(found.unwrap()), meant, "{said}");
    }
    // Midnight is left out there, and a whole day.
    let apia = parse_instant("2011-12-30 15:00", now, &zone("Pacific/Apia")).unwrap();
    assert_eq!(text(apia), "2011-12-30T10:00:00Z");
}

#[test]
fn what_is_no_time_is_refused_with_examples() {
    for said in [
        "",
        " ",
        "soon",
        "yesterday 25:00",
        "yesterday 18",
        "tomorrow",
        "2026-13-01",
        "2026-02-30 10:00",
        "18:00 ",
        "-2h",
        "2h ago ago",
        "ago",
        "1969-12-31",
        "9999y",
        "2026-11-29 18:00:61x",
        "9001-01-01T00:00:00Z",
        "ä",
        "yesterday 1:2:3:4",
        "18:00:00",
        "2026-11-29 +8:00",
    ] {
        let error = parse_instant(said, ms("2026-11-30T00:00:00Z"), &Zone::utc()).unwrap_err();
        assert!(error.code == api::code::INVALID_TIME && error.hint.contains("yesterday"), "{said}");
    }
    assert!(parse_instant(&"1d ".repeat(40), 1 << 40, &Zone::utc()).is_err());
}

proptest! {
    #[test]
    fn what_is_shown_can_be_said(at in 0..4_000_000_000u64, name in a_zone(), now in 0..1u64 << 42) {
        let (at, zone) = (at * 1000, zone(name));
        prop_assert_eq!(parse_instant(&text(at), now, &zone).unwrap(), at);
        let local = zone.local(at);
        let said = parse_instant(&local.to_string().replace('T', " "), now, &zone).unwrap();
        prop_assert!(said <= at && zone.local(said) == local);
    }
}
