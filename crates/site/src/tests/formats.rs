//! Names, sizes, `site.json`, the witness, records, the judgement.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use api::types::{Health, MediumState, Status, TrashTotals};
use api::{Version, VmName, format_size, parse_size};
use engine::{EngineStatus, Witness, WitnessState};
use journal::{ENSEMBLES_MAX, Ensemble};
use units::{Epoch, MediumId, SiteId};

use super::Bench;
use crate::aside::NAMES_MAX;
use crate::manifest::{Entry, Manifest};
use crate::status::judge;
use crate::witness::{FileWitness, SLOT_BYTES, make};

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

fn manifest() -> Manifest {
    let entry = |id: u8, path: &str, made| Entry::new(MediumId([id; 16]), &PathBuf::from(path), 4096, made);
    Manifest::new(SiteId([7; 16]), vec![entry(1, "media/00.img", true), entry(2, "/dev/x", false)])
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let bytes = manifest().encode().unwrap();
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
    let text = String::from_utf8(bytes).unwrap();
    // Golden: what administrators and later versions rely on.
    let compact: String = text.split_whitespace().collect();
    assert_eq!(
        compact,
        "{\"version\":1,\"site\":\"07070707070707070707070707070707\",\"media\":[{\"id\":\
         \"01010101010101010101010101010101\",\"path\":\"media/00.img\",\"bytes\":4096,\"made\":true},{\"id\":\
         \"02020202020202020202020202020202\",\"path\":\"/dev/x\",\"bytes\":4096,\"made\":false}]}"
    );
    let odd = PathBuf::from(std::ffi::OsStr::from_bytes(b"/m/\xff"));
    let mut with_odd = manifest();
    with_odd.media[1].path.clone_from(&odd);
    with_odd.recovery_key_file = Some(odd);
    let bytes = with_odd.encode().unwrap();
    assert_eq!(Manifest::decode(&bytes).unwrap(), with_odd);
    let compact: String = String::from_utf8(bytes).unwrap().split_whitespace().collect();
    assert!(compact.contains("\"path\":[47,109,47,255]"), "{compact}");
    for (from, to, why) in [
        ("\"version\": 1", "\"version\": 2", "version 2"),
        ("02020202", "0202020", "32 lower-case hex"),
        ("02020202", "0202020G", "32 lower-case hex"),
        ("02020202020202020202020202020202", "01010101010101010101010101010101", "twice"),
        ("\"bytes\": 4096", "\"bytes\": -1", "invalid"),
        ("\"made\"", "\"more\"", "unknown field"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        let error = Manifest::decode(changed.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let empty = Manifest::new(SiteId([7; 16]), Vec::new()).encode().unwrap();
    assert!(Manifest::decode(&empty).unwrap_err().contains("0 media"));
}

fn state(epoch: u64) -> WitnessState {
    WitnessState { epoch: Epoch(epoch), ..WitnessState::default() }
}

#[test]
fn a_torn_slot_of_the_witness_leaves_the_older_state() {
    let bench = Bench::new();
    let path = bench.path("witness");
    make(&path).unwrap();
    let load = || {
        let witness = FileWitness::open(bench.rt(), &path).map_err(|error| error.code.name)?;
        Ok(bench.runtime.block_on(witness.load()).unwrap())
    };
    assert_eq!(load(), Ok(WitnessState::default()));
    let witness = FileWitness::open(bench.rt(), &path).unwrap();
    for epoch in 1..=5 {
        bench.runtime.block_on(witness.store(state(epoch))).unwrap();
        assert_eq!(load(), Ok(state(epoch)));
    }
    // The newest stands in one slot, the one before in the other, whichever is which.
    let whole = std::fs::read(&path).unwrap();
    let mut seen = Vec::new();
    for slot in 0..2 {
        for at in [0, 4, 8, 16, 20, 40, 58, 61] {
            let mut torn = whole.clone();
            torn[slot * SLOT_BYTES + at] ^= 1;
            std::fs::write(&path, torn).unwrap();
            seen.push(load().unwrap().epoch.0);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [[4; 8], [5; 8]].concat());
    // A store on top of a damaged slot mends it: the damaged one is the one written.
    let mut torn = whole.clone();
    torn[9] ^= 1;
    std::fs::write(&path, torn).unwrap();
    let witness = FileWitness::open(bench.rt(), &path).unwrap();
    bench.runtime.block_on(witness.store(state(9))).unwrap();
    assert_eq!(load(), Ok(state(9)));
    std::fs::write(&path, vec![0; 2 * SLOT_BYTES]).unwrap();
    assert_eq!(load(), Err("witness_lost"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(load(), Err("witness_lost"));
}

#[test]
fn a_slot_holds_the_longest_state() {
    let bench = Bench::new();
    let path = bench.path("witness");
    make(&path).unwrap();
    let ensemble = |n: u8| {
        let members: Vec<MediumId> = (n..n + 4).map(|n| MediumId([n; 16])).collect();
        Ensemble::new(&members).unwrap()
    };
    let longest = WitnessState { ensembles: (0..ENSEMBLES_MAX as u8).map(ensemble).collect(), ..state(3) };
    let witness = FileWitness::open(bench.rt(), &path).unwrap();
    bench.runtime.block_on(witness.store(longest.clone())).unwrap();
    drop(witness);
    let witness = FileWitness::open(bench.rt(), &path).unwrap();
    assert_eq!(bench.runtime.block_on(witness.load()).unwrap(), longest);
}

#[test]
fn a_witness_that_cannot_be_written_is_made_anew() {
    let bench = Bench::new();
    let path = bench.path("witness");
    make(&path).unwrap();
    let witness = FileWitness::open(bench.rt(), &path).unwrap();
    let store = |epoch| bench.runtime.block_on(witness.store(state(epoch)));
    store(1).unwrap();
    witness.spoil();
    let before = std::fs::metadata(&path).unwrap().ino();
    // No room for another file: the state is not stored, and the old one stays.
    let beside = |number| bench.path(&format!(".witness.{number}.part"));
    (0..NAMES_MAX).for_each(|number| std::fs::create_dir(beside(number)).unwrap());
    assert!(store(2).unwrap_err().to_string().contains("witness"));
    let load = || bench.runtime.block_on(FileWitness::open(bench.rt(), &path).unwrap().load()).unwrap();
    assert_eq!(load(), state(1));
    (0..NAMES_MAX).for_each(|number| std::fs::remove_dir(beside(number)).unwrap());
    for epoch in 3..6 {
        store(epoch).unwrap();
        assert_eq!(load(), state(epoch));
    }
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), before, "the file that failed is not written again");
}

#[test]
fn a_slot_has_its_golden_bytes() {
    let bench = Bench::new();
    let path = bench.path("witness");
    make(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 2 * SLOT_BYTES);
    assert_eq!(bytes[..20], *b"HFWS\x02\0\0\0\x01\0\0\0\0\0\0\0\x28\0\0\0");
    assert_eq!(bytes[20..60], WitnessState::default().encode());
    assert_eq!(bytes[60..64], units::crc32c(&bytes[..60]).to_le_bytes());
    assert!(seal::is_zero(&bytes[64..SLOT_BYTES]));
    assert_eq!(bytes[SLOT_BYTES + 8], 2);
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
