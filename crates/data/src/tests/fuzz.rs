//! Goal: decoders answer any input with a value or an error: sound inputs, mutated by seed.

use seam::testing::replay;
use units::PAGE;

use super::common::{container, superblock};
use crate::Superblock;
use crate::fuzz::fuzz_body;
use crate::table::{Change, Extent, Table, TablePlace, decode_log, encode_log};

const MUTATIONS: u64 = 20_000;

/// Sound inputs.
fn corpus() -> Vec<Vec<u8>> {
    let extent = |page: u64| Extent { offset: page * PAGE as u64, payload: PAGE as u32, allocation: page };
    let adds = [3, 9, 30].map(|page| Change::Add((container(page as u32), 0), extent(page)));
    let mut table = Table::new(0, 1 << 20, 64);
    adds.iter().for_each(|change| table.apply(*change));
    vec![
        superblock(0).encode().as_ref()[..300].to_vec(),
        encode_log(5, &adds, 0).as_ref().to_vec(),
        table.encode(6).as_ref().to_vec(),
        Superblock { recovered_ms: 7, ..superblock(0) }.encode().as_ref()[..1100].to_vec(),
    ]
}

/// Puts check sums right where there are some, or little gets behind them.
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
fn damaged_input() {
    let corpus = corpus();
    assert!(Superblock::decode(&corpus[0]).is_some() && decode_log(&corpus[1]).is_some());
    assert!(TablePlace::peek(&corpus[2], 64).is_some());
    replay(&corpus, MUTATIONS, |input| {
        fuzz_body(input);
        let mut input = input.to_vec();
        mend(&mut input);
        fuzz_body(&input);
    });
}
