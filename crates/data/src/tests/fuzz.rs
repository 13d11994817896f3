//! Goal: decoders answer any input with a value or an error: sound inputs, mutated by seed.

use units::PAGE;

use super::common::{container, superblock};
use crate::fuzz::fuzz_body;
use crate::table::{Change, Extent, Table, encode_log};

const ROUNDS: u64 = 20_000;

/// Sound inputs; their check sums are mended after half of the mutations, or few would get behind them.
fn corpus() -> Vec<Vec<u8>> {
    let extent = |page: u64| Extent { offset: page * PAGE as u64, payload: PAGE as u32, allocation: page };
    let adds = [3, 9, 30].map(|page| Change::Add((container(page as u32), 0), extent(page)));
    let mut table = Table::new(0, 1 << 20, 64);
    adds.iter().for_each(|change| table.apply(*change));
    vec![
        superblock(0).encode().as_ref()[..300].to_vec(),
        encode_log(5, &adds).as_ref().to_vec(),
        table.encode(6).as_ref().to_vec(),
        Vec::new(),
    ]
}

fn mend(input: &mut [u8]) {
    let (at, end) = match input.get(..4) {
        Some(b"HFAL") => (16, PAGE),
        Some(b"HFAT") => (28, 32 + 48 * 3),
        Some(b"HFSB") => (252, 256),
        _ => return,
    };
    if input.len() >= end {
        input[at..at + 4].fill(0);
        let crc = units::crc32c(&input[..end]);
        input[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn mutated_inputs() {
    let corpus = corpus();
    for seed in 1..=ROUNDS {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |sides: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % sides.max(1) as u64) as usize
        };
        let mut input = corpus[roll(corpus.len())].clone();
        for _ in 0..=roll(4) {
            // Most of the time where the fields are.
            let near = if roll(3) == 0 { input.len() } else { input.len().min(200) };
            let at = roll(near);
            match roll(4) {
                0 if !input.is_empty() => input[at] ^= 1 << roll(8),
                1 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][roll(5)],
                2 if roll(5) == 0 => input.truncate(at),
                _ if at + 8 <= input.len() => input[at..at + 8].copy_from_slice(&[0xff; 8]),
                _ => {}
            }
        }
        if roll(2) == 0 {
            mend(&mut input);
        }
        fuzz_body(&input);
    }
}
