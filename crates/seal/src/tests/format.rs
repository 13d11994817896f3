//! Goal: what is stored is what the golden file has, of every kind and codec and under a later key epoch; and
//! the tag of a unit covers all that says what the unit is.

use aws_lc_rs::aead::Aad;
use zerocopy::FromBytes;

use super::*;
use crate::unit::{aead_key, associated, nonce};

const GOLDEN: &str = include_str!("golden.txt");

const KINDS: [Kind; 7] = [
    Kind::Data,
    Kind::Page(0),
    Kind::Page(1),
    // Beyond the levels whose keys are prepared.
    Kind::Page(12),
    Kind::PageAddresses,
    Kind::MapLog,
    Kind::Meta,
];

/// What compresses, what does not, and nothing.
const PLAINS: [(&str, &[u8]); 3] = [("lz4", &[7; 64]), ("raw", b"holdfast"), ("empty", b"")];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).expect("hex"), 16).expect("hex")).collect()
}

/// A ring with the key of a second epoch.
fn later(ring: &KeyRing) -> (EpochKeys, KeyRing) {
    let epochs = EpochKeys::default().next(ring, &[9; 32], &[3; 12]).expect("there is room");
    let opened = epochs.open(ring).expect("opens");
    (epochs, opened)
}

/// A unit: its name in the golden file, its kind, plaintext, fingerprint and bytes.
type Unit = (String, Kind, &'static [u8], Fingerprint, Vec<u8>);

/// Every unit of the golden file.
fn units() -> Vec<Unit> {
    let sealer = sealer();
    let mut units = Vec::new();
    for epoch in [1, 2] {
        if epoch == 2 {
            assert!(sealer.adopt(&later(&KeyRing::for_tests(7)).1));
        }
        for kind in KINDS {
            for (codec, plain) in PLAINS {
                let fp = sealer.fingerprint(kind, plain);
                let mut unit = Vec::new();
                sealer.seal(kind, fp, plain, &mut unit);
                units.push((format!("unit {kind:?} {codec} epoch{epoch}"), kind, plain, fp, unit));
            }
        }
    }
    units
}

/// The format is a promise: these bytes must open for ever. (Another packing of LZ4 would change its lines
/// alone, and would not break it: then the old lines are kept beside.)
#[test]
fn units_and_keys_are_stored_as_the_golden_file_has_them() {
    let units = units();
    let mut now = String::new();
    for (name, _, _, fp, unit) in &units {
        now += &format!("{name}: {fp:?} {}\n", hex(unit));
    }
    let ring = KeyRing::for_tests(7);
    let (kek, recovery) = (Kek::from_bytes([4; 32]), RecoveryKey::from_bytes([5; 32]));
    now += &format!(
        "keys by a file: {}\n",
        hex(&WrappedKeys::by_key_file(&ring, &kek, &recovery, &[6; 40]).encode())
    );
    let passphrase = WrappedKeys::by_passphrase(&ring, b"correct horse", &recovery, &[6; 40]);
    now += &format!("keys by a passphrase: {}\n", hex(&passphrase.expect("wraps").encode()));
    now += &format!("epochs: {}\n", hex(&later(&ring).0.encode()));
    now += &format!("recovery key: {}\n", recovery.to_text());
    if std::env::var_os("HOLDFAST_REGENERATE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/golden.txt"), &now).expect("writes");
        return;
    }
    assert_eq!(now, GOLDEN, "made anew with HOLDFAST_REGENERATE=1");
}

#[test]
fn units_of_the_golden_file_open() {
    let sealer = sealer();
    assert!(sealer.adopt(&later(&KeyRing::for_tests(7)).1));
    for (name, kind, plain, fp, _) in units() {
        let line = GOLDEN.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        let (_, unit) = line.and_then(|line| line.split_once(' ')).expect("a line of the file");
        let (unit, mut opened) = (of_hex(unit), Vec::new());
        let codec = Header::decode(&unit).map(|_| unit[1]);
        assert_eq!(codec, Some(u8::from(name.contains(" lz4 "))), "{name}");
        assert_eq!(sealer.open(kind, fp, &unit, &mut opened).map_err(|error| error.reason), Ok(unit.len()));
        assert_eq!(opened, plain, "{name}");
        for other in KINDS.iter().filter(|other| **other != kind) {
            assert!(sealer.open(*other, fp, &unit, &mut opened).is_err(), "{name} as {other:?}");
        }
    }
}

/// What the tag covers beside the sealed bytes, and where it stands in the header; the name stands behind it.
const COVERED: [(&str, std::ops::Range<usize>); 9] = [
    ("format", 0..1),
    ("codec", 1..2),
    ("kind", 2..3),
    ("level", 3..4),
    ("key epoch", 4..6),
    ("domain", 6..8),
    ("plain bytes", 8..12),
    ("body bytes", 12..16),
    ("fingerprint", 16..32),
];

/// Each by itself, and by the tag alone: no other check is asked.
#[test]
fn the_tag_covers_every_field_of_the_header_and_the_name() {
    let mut at = 0;
    for (name, bytes) in &COVERED {
        assert_eq!(bytes.start, at, "{name}");
        at = bytes.end;
    }
    assert_eq!(at, HEADER_BYTES + size_of::<Fingerprint>(), "every byte has its line");
    let ring = KeyRing::for_tests(7);
    let (_, key) = ring.epochs().next().expect("the first epoch");
    let key = aead_key(key);
    for plain in [&[7; 64][..], b"holdfast"] {
        let (fp, unit) = sealed(Kind::Page(3), plain);
        let (header, body) = unit.split_at(HEADER_BYTES);
        let told: Vec<u8> = [header, &fp.0].concat();
        // The nonce stays, so that of the name too it is the tag that tells.
        let opens = |told: &[u8]| {
            let (header, name) = told.split_at(HEADER_BYTES);
            let header = Header::read_from_bytes(header).expect("a header");
            let name = Fingerprint(name.try_into().expect("a name"));
            key.open_in_place(nonce(fp), Aad::from(associated(&header, name)), &mut body.to_vec()).is_ok()
        };
        assert!(opens(&told));
        for (name, bytes) in COVERED {
            for bit in bytes.start * 8..bytes.end * 8 {
                let mut told = told.clone();
                told[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(&told), "{name}: bit {} is not covered", bit - bytes.start * 8);
            }
        }
    }
}

/// The same through the door: and all else that a unit is opened with.
#[test]
fn nothing_opens_with_anything_else() {
    let sealer = sealer();
    assert!(sealer.adopt(&later(&KeyRing::for_tests(7)).1));
    for (name, kind, _, fp, unit) in units() {
        let mut plain = Vec::new();
        let told: Vec<u8> = [&unit[..HEADER_BYTES], &fp.0].concat();
        for (field, bytes) in COVERED {
            for bit in bytes.start * 8..bytes.end * 8 {
                let (mut told, mut bad) = (told.clone(), unit.clone());
                told[bit / 8] ^= 1 << (bit % 8);
                bad[..HEADER_BYTES].copy_from_slice(&told[..HEADER_BYTES]);
                let other = Fingerprint(told[HEADER_BYTES..].try_into().expect("a name"));
                assert!(sealer.open(kind, other, &bad, &mut plain).is_err(), "{name}: {field}, bit {bit}");
            }
        }
        assert!(sealer.open(kind, fp, &unit[..unit.len() - 1], &mut plain).is_err(), "{name}: cut short");
        let longer = [&unit[..], &[0]].concat();
        assert_eq!(sealer.open(kind, fp, &longer, &mut plain).ok(), Some(unit.len()), "{name}: and more");
        let other = Sealer::new(&later(&KeyRing::for_tests(8)).1);
        assert!(other.open(kind, fp, &unit, &mut plain).is_err(), "{name}: keys of another site");
    }
}
