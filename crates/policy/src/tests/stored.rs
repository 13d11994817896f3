//! What administrators write and what is stored.

use meta::Stored;
use proptest::prelude::*;

use crate::{
    Consistency, EVERY_S_MAX, Group, Groups, Retention, Rules, Schedule, When, Zone, format_span, parse_span,
};

/// A group as it is stored.
pub(super) const RECORD: &str = concat!(
    r#"{"version":1,"name":"web","priority":5,"zone":"Europe/Berlin","paused":false,"include":{"tags":["prod"],"#,
    r#""patterns":["web*"]},"exclude":{"vms":["web99"],"regexes":["web-old.*"]},"schedules":[{"name":"often","#,
    r#""when":{"every_s":15},"keep":{"last":10,"hourly":24,"daily":7,"weekly":4,"monthly":12,"yearly":3,"#,
    r#""for_s":3600},"consistency":"crash","lock_s":0,"paused":false},{"name":"nightly","when":{"cron":"0 2 * * *","#,
    r#""zone":"UTC"},"keep":{"last":0,"hourly":0,"daily":30,"weekly":0,"monthly":0,"yearly":0,"for_s":0},"#,
    r#""consistency":"application","lock_s":1209600,"paused":true}]}"#
);

fn web() -> Group {
    let mut often = Retention::default();
    often.set_last("10").unwrap();
    often.set_buckets("hourly=24,daily=7,weekly=4,monthly=12,yearly=3").unwrap();
    often.set_for("1h").unwrap();
    let nightly = Retention { daily: 30, ..Retention::default() };
    let list = |text: &str| vec![text.to_owned()];
    Group {
        priority: 5,
        zone: "Europe/Berlin".to_owned(),
        include: Rules { tags: list("prod"), patterns: list("web*"), ..Rules::default() },
        exclude: Rules { vms: list("web99"), regexes: list("web-old.*"), ..Rules::default() },
        schedules: vec![
            Schedule::new("often", When::every("15s").unwrap(), often),
            Schedule {
                consistency: Consistency::parse("application").unwrap(),
                lock_s: Schedule::parse_lock("14d").unwrap(),
                paused: true,
                ..Schedule::new("nightly", When::cron("0 2 * * *", Some("UTC")).unwrap(), nightly)
            },
        ],
        ..Group::new("web")
    }
}

#[test]
fn a_record_has_these_bytes() {
    assert_eq!(String::from_utf8(web().encode().unwrap()).unwrap(), RECORD);
    let read = Group::decode(RECORD.as_bytes()).unwrap();
    assert_eq!(read, web());
    read.check().unwrap();
    assert_eq!(read.running().map(|schedule| schedule.name.as_str()).collect::<Vec<_>>(), ["often"]);
    assert!(
        read.schedule("NIGHTLY").is_some_and(|schedule| schedule.when.to_string() == "at '0 2 * * *' UTC")
    );
    let least = Group::decode(br#"{"version":1,"name":"a","zone":"UTC"}"#).unwrap();
    assert_eq!(least, Group::new("a"));
    let later = RECORD.replace(r#""version":1"#, r#""version":2"#);
    assert_eq!(Group::decode(later.as_bytes()).unwrap_err(), "version 2, and this program knows 1");
    Group::built_in().check().unwrap();
}

#[test]
fn what_is_wrong_with_a_group_is_said() {
    let with = |change: fn(&mut Group)| {
        let mut group = web();
        change(&mut group);
        group.check().unwrap_err()
    };
    type Case<'a> = (fn(&mut Group), &'a str);
    let cases: [Case<'_>; 13] = [
        (|group| group.name = "-".to_owned(), "\"-\" is no name for a group"),
        (|group| group.name = "Default".to_owned(), "group Default takes what no other group takes"),
        (|group| group.priority = 1001, "group web cannot have priority 1001"),
        (|group| group.zone = "Mars".to_owned(), "group web: \"Mars\" is no time zone"),
        (|group| group.include.tags[0].push('/'), "group web: \"prod/\" is no name for a tag"),
        (|group| group.include.patterns[0].push('['), "group web: \"web*[\" is no pattern for names"),
        (|group| group.exclude.folders = vec!["x".to_owned()], "what group web excludes: \"x\" is no folder"),
        (
            |group| group.exclude.regexes = vec!["a)(b".to_owned()],
            "what group web excludes: \"a)(b\" is no regular",
        ),
        (|group| group.exclude.regexes = vec!["(a{99}){99}".to_owned()], "too large a regular expression"),
        (|group| group.schedules[1].name = "Often".to_owned(), "group web has two schedules Often"),
        (
            |group| group.schedules[0].keep = Retention::default(),
            "schedule often of group web: this retention keeps nothing",
        ),
        (
            |group| group.schedules[0].when = When::Every { every_s: 0 },
            "schedule often of group web: a schedule cannot run every 0s",
        ),
        (
            |group| group.schedules[0].lock_s = u64::MAX,
            "schedule often of group web: points cannot be locked for",
        ),
    ];
    for (change, expected) in cases {
        let error = with(change);
        assert!(error.reason.contains(expected) && !error.hint.is_empty(), "{expected}: {error}");
    }
    let list = |text: &str, count: usize| vec![text.to_owned(); count];
    let mut many = web();
    many.include.tags = list("a", 65);
    assert!(many.check().unwrap_err().reason.contains("67 rules, and 64 are the most"));
    many = web();
    many.include.regexes = list("a", 8);
    assert!(many.check().unwrap_err().reason.contains("9 regular expressions"));
    many = web();
    many.include.vms = list("a", 256);
    assert!(many.check().unwrap_err().reason.contains("257 VMs by name"));
    many = web();
    many.schedules = vec![many.schedules[0].clone(); 9];
    assert!(many.check().unwrap_err().reason.contains("9 schedules"));
    let twice = Groups::new(vec![web(), Group { name: "WEB".to_owned(), ..web() }]).unwrap_err();
    assert!(twice.reason.contains("two groups"));
    assert!(Groups::new((0..1001).map(|number| Group::new(&format!("g{number}"))).collect()).is_err());
}

#[test]
fn retention_is_read_as_it_is_written() {
    let mut keep = Retention::default();
    for wrong in
        ["", "hourly", "hourly=", "hourly=x", "hourly=-1", "daily=1,daily=2", "minutely=5", "hourly=100001"]
    {
        let error = keep.set_buckets(wrong).unwrap_err();
        assert!(error.code == api::code::INVALID_REQUEST && !error.hint.is_empty(), "{wrong}");
    }
    assert!(keep.set_last("1e3").is_err() && keep.set_last("99999999999").is_err());
    assert!(keep.set_for("30").is_err() && keep.set_for("40000d").is_err() && keep.set_for("1mo").is_err());
    assert!(keep.check().is_err() && keep == Retention::default(), "what is refused changes nothing");
    keep.set_buckets(" hourly = 24 , yearly=3").unwrap();
    assert_eq!(keep.to_string(), "--keep hourly=24,yearly=3");
    assert!(Consistency::parse("none").is_err() && Schedule::parse_lock("0").unwrap() == 0);
    assert_eq!(Consistency::Application.to_string(), "application");
    assert_eq!(When::every("90m").unwrap().to_string(), "every 90m");
}

#[test]
fn spans_are_of_fixed_length() {
    for (text, seconds) in
        [("15s", 15), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("30d", 2_592_000), ("2w", 1_209_600)]
    {
        assert_eq!(parse_span(text).unwrap(), seconds, "{text}");
    }
    for (seconds, text) in [(0, "0s"), (90, "90s"), (5400, "90m"), (86_400, "1d"), (90_000, "25h")] {
        assert_eq!(format_span(seconds), text);
    }
    assert!(parse_span("1y").unwrap_err().reason.contains("no fixed length"));
}

#[test]
fn zones_are_those_of_the_program() {
    assert_eq!(Zone::parse("europe/berlin").unwrap().name(), "Europe/Berlin");
    assert_eq!((Zone::parse("UTC").unwrap(), Zone::utc().name()), (Zone::utc(), "UTC"));
    for wrong in ["", "Berlin/Europe", "Etc/Unknown", "../../etc/passwd", "CET-1CEST", "+02:00"] {
        assert!(Zone::parse(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(seconds in 1..EVERY_S_MAX, numbers in proptest::array::uniform6(0..100u32)) {
        prop_assert_eq!(parse_span(&format_span(seconds)).unwrap(), seconds);
        let when = When::every(&format_span(seconds)).unwrap();
        prop_assert_eq!(when.to_string().strip_prefix("every ").map(When::every).unwrap().unwrap(), when);
        let [last, hourly, daily, weekly, monthly, yearly] = numbers;
        let keep = Retention { last, hourly, daily, weekly, monthly, yearly, for_s: seconds };
        let mut read = Retention::default();
        let written = keep.to_string();
        let mut words = written.split(' ');
        while let (Some(option), Some(value)) = (words.next(), words.next()) {
            match option {
                "--keep-last" => read.set_last(value).unwrap(),
                "--keep" => read.set_buckets(value).unwrap(),
                _ => read.set_for(value).unwrap(),
            }
        }
        prop_assert_eq!(read, keep);
    }
}
