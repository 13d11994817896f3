//! Goal: decoders answer any input with a value or an error: sound inputs, mutated by seed.

use engine::WitnessState;
use journal::Ensemble;
use seal::RecoveryKey;
use seam::testing::replay;
use units::{Epoch, MediumId};

use crate::fuzz::fuzz_body;

const MUTATIONS: u64 = 20_000;
/// Where the state stands in a witness's slot.
const STATE: usize = 20;

/// Puts the check sums of a witness's slot right, or nothing gets behind them.
fn mend(input: &mut [u8]) {
    let Some(bytes) = input.get(16..STATE).and_then(|bytes| bytes.try_into().ok()) else { return };
    let end = STATE + u32::from_le_bytes(bytes) as usize % 4096;
    for (start, sum) in [(STATE, end.saturating_sub(4)), (0, end)] {
        if sum >= start && input.len() >= sum + 4 {
            let whole = units::crc32c(&input[start..sum]);
            input[sum..sum + 4].copy_from_slice(&whole.to_le_bytes());
        }
    }
}

#[test]
fn damaged_input() {
    let ensemble = Ensemble::new(&[MediumId([1; 16]), MediumId([2; 16])]).unwrap();
    let state = WitnessState { epoch: Epoch(4), last: None, ensembles: vec![ensemble] }.encode();
    let mut slot = b"HFWS\x02\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    slot.extend((state.len() as u32).to_le_bytes());
    slot.extend(state);
    slot.extend(units::crc32c(&slot).to_le_bytes());
    let manifest = br#"{"version":1,"site":"07070707070707070707070707070707","media":[
        {"id":"01010101010101010101010101010101","path":"media/00.img","bytes":4096,"made":true},
        {"id":"02020202020202020202020202020202","path":"/dev/x","bytes":4096,"made":false}],
        "recovery_key_file":"/r"}"#;
    let recovery = RecoveryKey::from_bytes([0x5a; 32]).to_text();
    assert!(crate::witness::decode(&slot).is_some());
    assert!(crate::manifest::Manifest::decode(manifest).is_ok());
    assert!(
        crate::keys::recovery_of(recovery.as_bytes()).is_some() && crate::keys::key_of(&[7; 32]).is_some()
    );
    let corpus =
        [slot, manifest.to_vec(), recovery.into_bytes(), vec![7; 32], b"correct horse\r\n\n".to_vec()];
    replay(&corpus, MUTATIONS, |input| {
        fuzz_body(input);
        let mut input = input.to_vec();
        mend(&mut input);
        fuzz_body(&input);
    });
}
