//! Goal: decoders answer any input with a value or an error: sound inputs, mutated by seed.

use seal::{KeyRing, Kind, Sealer};
use seam::testing::replay;
use units::{PAGE, crc32c, round_up_page};

use super::{built, fragment_header};
use crate::fuzz::fuzz_body;
use crate::{FragmentHeader, Head, MapLog, PRELUDE_BYTES};

const MUTATIONS: u64 = 10_000;

/// A head as the fuzz body takes it, prelude and directory; a map log, opened; a fragment header.
fn corpus() -> [Vec<u8>; 3] {
    let built = built(2);
    let (bytes, place) = (built.bytes.as_ref(), built.head.place());
    let head = [&bytes[..PRELUDE_BYTES], &bytes[place.directory()]].concat();
    let mut map_log = Vec::new();
    let sealer = Sealer::new(&KeyRing::for_tests(1));
    sealer.open(Kind::MapLog, built.head.map_log, &bytes[place.map_log()], &mut map_log).expect("opens");
    [head, map_log, fragment_header().encode()]
}

/// Puts check sums right where there are some, or nothing gets behind them.
fn mend(input: &mut [u8]) {
    let number = |at: usize| Some(u32::from_le_bytes(*input.get(at..)?.first_chunk()?) as usize);
    match input.first_chunk() {
        Some(b"HFCO") => {
            let end = number(28).map(|entries| PRELUDE_BYTES.saturating_add(entries.saturating_mul(32)));
            put(input, 36, &[36, 56], end);
            put(input, 56, &[56], Some(PRELUDE_BYTES));
        }
        Some(b"HFFR") => {
            let end = number(32).map(|payload| round_up_page(320 + payload / PAGE * 4));
            put(input, 308, &[308], end);
        }
        _ => {}
    }
}

/// Puts at `at` the check sum of all up to `end`, taken with these check sums zero.
fn put(input: &mut [u8], at: usize, zero: &[usize], end: Option<usize>) {
    let Some(end) = end.filter(|end| *end <= input.len()) else { return };
    zero.iter().for_each(|at| input[*at..at + 4].fill(0));
    let sum = crc32c(&input[..end]);
    input[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn damaged_input() {
    let corpus = corpus();
    let [head, map_log, fragment] = &corpus;
    let (prelude, directory) = head.split_at(PRELUDE_BYTES);
    assert!(Head::decode(prelude, directory).is_ok());
    assert!(MapLog::decode(map_log).is_ok() && FragmentHeader::decode(fragment).is_ok());
    for sound in &corpus {
        let mut mended = sound.clone();
        mend(&mut mended);
        assert_eq!(mended, *sound, "what is whole needs no mending");
    }
    replay(&corpus, MUTATIONS, |input| {
        fuzz_body(input);
        let mut input = input.to_vec();
        mend(&mut input);
        fuzz_body(&input);
    });
}
