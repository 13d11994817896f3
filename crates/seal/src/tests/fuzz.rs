//! Goal: decoders answer any input with a value or an error: sound inputs, mutated by seed.

use seam::testing::replay;

use crate::fuzz::fuzz_body;
use crate::{Kek, KeyError, KeyRing, Kind, RecoveryKey, Sealer, WRAPPED_BYTES, WrappedKeys};

const MUTATIONS: u64 = 5000;
const CHECKED_BYTES: usize = WRAPPED_BYTES - 4;

fn wrapped() -> WrappedKeys {
    let recovery = RecoveryKey::from_bytes([5; 32]);
    WrappedKeys::by_key_file(&KeyRing::for_tests(3), &Kek::from_bytes([1; 32]), &recovery, &[6; 40])
}

/// A unit behind its name.
fn unit(plain: &[u8]) -> Vec<u8> {
    let sealer = Sealer::new(&KeyRing::for_tests(1)); // the ring of the fuzz body
    let name = sealer.fingerprint(Kind::Data, plain);
    let mut out = name.0.to_vec();
    sealer.seal(Kind::Data, name, plain, &mut out);
    assert!(sealer.open(Kind::Data, name, &out[16..], &mut Vec::new()).is_ok());
    out
}

/// Puts the check sum of wrapped keys right, or nothing gets behind it.
fn mended(input: &[u8]) -> Option<Vec<u8>> {
    let checked = input.get(..CHECKED_BYTES)?;
    Some([checked, &units::crc32c(checked).to_le_bytes()].concat())
}

#[test]
fn damaged_input() {
    let keys = wrapped().encode().to_vec();
    assert!(WrappedKeys::decode(&keys).is_some());
    let noise: Vec<u8> = (0..600_u32).map(|i| ((i * i * 7919) >> 5) as u8).collect();
    let recovery = RecoveryKey::from_bytes([0xab; 32]).to_text().into_bytes();
    let corpus = [unit(&[7; 4096]), unit(&noise), unit(&[]), keys, recovery, "ÿ-".repeat(40).into_bytes()];
    replay(&corpus, MUTATIONS, |input| {
        fuzz_body(input);
        mended(input).iter().for_each(|input| fuzz_body(input));
    });
}

#[test]
fn costs_of_a_passphrase_that_make_no_sense_are_refused_and_not_paid() {
    let phrase = |memory_kib: u32, passes: u32| {
        let mut keys = wrapped().encode();
        keys[5] = 1;
        keys[8..12].copy_from_slice(&memory_kib.to_le_bytes());
        keys[12..16].copy_from_slice(&passes.to_le_bytes());
        let keys = mended(&keys).and_then(|keys| WrappedKeys::decode(&keys)).expect("the check sum is right");
        keys.unwrap_with_passphrase(b"x").err()
    };
    for (memory_kib, passes) in
        [(0, 3), (7, 3), (u32::MAX, 1), (1 << 21, 1), (64, 0), (64, 17), (64, u32::MAX)]
    {
        assert_eq!(
            phrase(memory_kib, passes),
            Some(KeyError::Parameters),
            "{memory_kib} KiB, {passes} passes"
        );
    }
    assert_eq!(phrase(64, 1), Some(KeyError::Wrong));
}
