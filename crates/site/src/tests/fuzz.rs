//! Hostile bytes for every decoder.

use engine::WitnessState;

use crate::fuzz::fuzz_body;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % bound as u64) as usize
    }
}

#[test]
fn damaged_input_does_not_panic() {
    let mut slot = b"HFWS\x01\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    slot.extend(WitnessState::default().encode());
    slot.extend(units::crc32c(&slot).to_le_bytes());
    let seeds: [&[u8]; 5] = [
        &slot,
        br#"{"version":1,"site":"07070707070707070707070707070707","media":[{"id":"01010101010101010101010101010101","path":"m","bytes":1,"made":true}]}"#,
        br#"{"version":1,"created_ms":5,"disks":[{"name":"disk0","id":3}]}"#,
        b"web01",
        b"20GiB",
    ];
    let mut random = Random(1);
    for round in 0..5000 {
        let mut input = seeds[round % seeds.len()].to_vec();
        fuzz_body(&input);
        for _ in 0..=random.below(4) {
            let at = random.below(input.len().max(1));
            match random.below(4) {
                _ if input.is_empty() => break,
                0 => input.truncate(at),
                1 => input[at] ^= 1 << random.below(8),
                2 => input[at] = [0, 0xff, b'9', b'"'][random.below(4)],
                _ => input.insert(at, random.below(256) as u8),
            }
        }
        fuzz_body(&input);
    }
}
