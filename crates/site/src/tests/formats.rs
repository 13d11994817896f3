//! Names, sizes, the judgement.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::types::{Health, MediumState, Status, TrashTotals};
use api::{Version, VmName, format_size, parse_size};
use engine::EngineStatus;
use units::{MediumId, SiteId};

use crate::status::judge;

#[test]
fn names() {
    for good in ["a", "0", "web01", "Web01", "A", "a.b_c-d", "9-", &"x".repeat(63)] {
        assert_eq!(VmName::parse(good).unwrap().as_str(), good);
    }
    let long = "x".repeat(64);
    for bad in ["", ".a", "-a", "_a", "a/b", "a b", "ä", "a\0", "a\n", &long] {
        assert_eq!(VmName::parse(bad).unwrap_err().code, "invalid_name", "{bad:?}");
    }
    for good in ["a", "a@b", "A@B", "web01@before-upgrade"] {
        assert_eq!(Version::parse(good).unwrap().to_string(), good);
        let with_disk = format!("{good}/disk0");
        let (version, disk) = Version::parse_with_disk(&with_disk).unwrap();
        assert_eq!((version.to_string().as_str(), disk), (good, Some("disk0")));
    }
    let name = |text| VmName::parse(text).unwrap();
    assert!(name("Web01") == name("wEB01") && name("web01") != name("web02"));
    assert_eq!(
        (name("Web01").folded().as_str(), name("Web01").spelled().as_deref()),
        ("web01", Some("Web01"))
    );
    assert_eq!((name("web01").folded().as_str(), name("web01").spelled()), ("web01", None));
    for bad in ["", "@", "a@", "@b", "a@b@c", "a/b"] {
        assert_eq!(Version::parse(bad).unwrap_err().code, "invalid_name", "{bad:?}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("7B", 7),
        ("1K", 1024),
        ("64k", 64 << 10),
        ("3MiB", 3 << 20),
        ("20G", 20 << 30),
        ("20gib", 20 << 30),
        ("2T", 2 << 40),
        ("1P", 1 << 50),
    ] {
        assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
    }
    for bad in [
        "",
        "G",
        "iB",
        "1iB",
        "1GB",
        "1.5G",
        "-1",
        "+1",
        " 1",
        "1 G",
        "0x10",
        "99999999999999999999",
        "99999999P",
    ] {
        assert_eq!(parse_size(bad).unwrap_err().code, "invalid_size", "{bad:?}");
    }
    assert_eq!(format_size(1023), "1023 B");
    assert_eq!(format_size(20 << 30), "20.0 GiB");
    assert_eq!(format_size(u64::MAX), "16384.0 PiB");
}

fn engine_status(up: &[bool]) -> EngineStatus {
    let health = |(number, up): (usize, &bool)| pool::MediumHealth {
        medium: MediumId([number as u8; 16]),
        up: *up,
        full: false,
        leaving: false,
        reason: (!up).then(|| "it broke".to_owned()),
    };
    EngineStatus {
        logical_bytes: 1,
        unique_bytes: 2,
        stored_bytes: 3,
        raw_bytes: 4,
        usable_bytes: 5,
        likely_bytes: 5,
        below_short_bytes: 0,
        garbage_bytes: None,
        raw_capacity: 6,
        buffered_bytes: 7,
        journal_used_percent: 8,
        class: pool::class_for(up.iter().filter(|up| **up).count()),
        media: up.iter().enumerate().map(health).collect(),
        exposure: engine::Exposure {
            can_lose: pool::class_for(up.len())
                .map_or(0, |class| class.m)
                .saturating_sub(up.iter().filter(|up| !**up).count()),
            ..engine::Exposure::default()
        },
        lacking: BTreeMap::new(),
        limit: None,
        moving: Vec::new(),
        recovering_index: false,
        faults: 0,
        repaired: 0,
        stuck: None,
        losses: Vec::new(),
        cleaning_blocked: None,
        checkpoint_trouble: None,
        panics: Vec::new(),
    }
}

fn judged(engine: EngineStatus) -> Status {
    with_trash(engine, TrashTotals::default())
}

fn with_trash(engine: EngineStatus, trash: TrashTotals) -> Status {
    let media = engine.media.iter().map(|medium| (medium.medium, PathBuf::from("m"), 1)).collect();
    let mut judging = judge(SiteId([0; 16]), engine, true, media, (&BTreeMap::new(), &[]), &[], 0);
    judging.add_trash(trash);
    judging.0
}

#[test]
fn health_has_its_reasons() {
    let sound = judged(engine_status(&[true; 6]));
    assert_eq!((sound.health, sound.can_lose_now, sound.reasons.len()), (Health::Ok, 2, 0));
    let mut up = [true; 6];
    up[3] = false;
    let one_down = judged(engine_status(&up));
    assert_eq!((one_down.health, one_down.can_lose_now), (Health::Degraded, 1));
    assert_eq!(one_down.reasons, ["medium m is down: it broke"]);
    assert_eq!(one_down.media[3].state, MediumState::Down);
    up[4] = false;
    let two_down = judged(engine_status(&up));
    assert!(two_down.reasons.iter().any(|reason| reason.contains("one more")), "{two_down:?}");
    let none = judged(EngineStatus { usable_bytes: 0, ..engine_status(&[false; 6]) });
    assert_eq!(none.health, Health::Failed);
    assert!(!none.reasons.iter().any(|reason| reason.contains("full")), "{none:?}");
    let single = judged(engine_status(&[true]));
    assert_eq!((single.health, single.can_lose_now, single.notices.len()), (Health::Ok, 0, 1));
}

/// What media lack, what became of their files, and which of them ends the room is told by name, with what to do.
#[test]
fn media_that_lack_something_or_limit_the_pool_are_named() {
    let sound = engine_status(&[true; 6]);
    let first = sound.media[0].medium;
    let lacking = judged(EngineStatus { lacking: BTreeMap::from([(first, 7)]), ..sound.clone() });
    assert_eq!(lacking.health, Health::Degraded);
    assert!(lacking.reasons[0].contains("lacks up to 7 fragments"), "{lacking:?}");
    assert!(lacking.next[0].contains("scrub"), "{lacking:?}");
    let limit = Some(pool::Limit { medium: first, stranded_bytes: 1 << 30 });
    let limited = judged(EngineStatus { limit, ..sound.clone() });
    assert_eq!(limited.health, Health::Ok);
    assert!(limited.notices[0].contains("1.0 GiB stay unused"), "{limited:?}");
    let media = vec![(first, PathBuf::from("m"), 1)];
    let removed = judge(SiteId([0; 16]), sound, true, media, (&BTreeMap::new(), &[first]), &[], 0).0;
    assert_eq!(removed.health, Health::Degraded);
    assert!(removed.next[0].contains("media replace"), "{removed:?}");
}

#[test]
fn a_pool_that_fills_says_so_before_it_is_full_and_what_makes_room() {
    // 6000 bytes on six media, 4+2: 4000 without parity, 5 % of it 200.
    let pool = ["`clean`", "`media add`"];
    let below = ["make room on the file systems", "`clean`"];
    for (usable_bytes, below_short_bytes, says, next) in [
        (0, 0, "the pool is full: writes are refused", pool),
        (1, 0, "the pool is nearly full: 1 B can be written", pool),
        (199, 0, "the pool is nearly full: 199 B can be written", pool),
        // A little more would fit if the file systems had room: not enough to be the cause.
        (0, 199, "the pool is full: writes are refused", pool),
        (
            0,
            200,
            "the file systems that hold media are full: writes are refused; the media have room for 200 B",
            below,
        ),
        (100, 4000, "the file systems that hold media are nearly full: 100 B can be written", below),
        (200, 0, "", ["", ""]),
        (200, 4000, "", ["", ""]),
    ] {
        let status =
            EngineStatus { usable_bytes, below_short_bytes, raw_capacity: 6000, ..engine_status(&[true; 6]) };
        let judged = judged(status);
        let what = format!("{usable_bytes} {below_short_bytes}: {judged:?}");
        let health = if says.is_empty() { Health::Ok } else { Health::Degraded };
        assert_eq!((judged.health, judged.reasons.len()), (health, usize::from(!says.is_empty())), "{what}");
        assert!(judged.reasons.iter().all(|reason| reason.starts_with(says)), "{what}");
        assert_eq!(judged.next.len(), if says.is_empty() { 0 } else { 2 }, "{what}");
        assert!(judged.next.iter().zip(next).all(|(said, wanted)| said.contains(wanted)), "{what}");
    }
}

#[test]
fn what_makes_room_says_how_much_where_that_is_known() {
    let full = EngineStatus {
        usable_bytes: 0,
        garbage_bytes: Some(3 << 30),
        raw_capacity: 6000,
        ..engine_status(&[true; 6])
    };
    let totals = TrashTotals { items: 2, used_bytes: 5 << 20, ..api::types::TrashTotals::default() };
    let status = with_trash(full.clone(), totals);
    assert!(
        status.next[0].starts_with("`trash empty --yes`") && status.next[0].contains("up to 5.0 MiB"),
        "{status:?}"
    );
    assert!(status.next[1].contains("`clean`: about 3.0 GiB"), "{status:?}");
    let unknown = judged(EngineStatus { garbage_bytes: None, ..full });
    assert!(unknown.next[0].ends_with("`clean`"), "{unknown:?}");
}
