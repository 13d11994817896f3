//! Goal: decoders answer any input with a value or an error: sound inputs, mutated by seed.

use proto::SegmentId;
use units::{Epoch, Incarnation, Seq};

use super::fake::{commit, hole, medium, meta, write};
use crate::fuzz::fuzz_body;
use crate::records::Tail;
use crate::*;

const ROUNDS: u64 = 20_000;

fn corpus() -> Vec<Vec<u8>> {
    let key = [1; 32]; // the key of the fuzz body
    let id = SegmentId { epoch: Epoch(1), stream: Incarnation(2), number: 3 };
    let header = SegmentHeader { id, slot_bytes: 65536, members: vec![medium(1), medium(2)] };
    let mut records = Vec::new();
    for entry in [write(1, 20), hole(2), meta(3, 9), commit(4, Seq(2))] {
        entry.encode(&mut records);
    }
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch.extend_from_slice(&records);
    let unsealed = BatchHeader {
        segment: id,
        index: 1,
        first_seq: Seq(5),
        records: 4,
        payload_bytes: records.len() as u32,
        previous: [0; 16],
        mac: [0; 16],
    };
    unsealed.seal(&mut batch, &key);
    let mut start = Vec::new();
    let meta = vec![(Seq(1), units::Fingerprint([1; 16]), vec![5; 40])];
    Start { meta, rows: vec![Row { class: 1, row: 2, members: vec![medium(3)] }], ..Start::default() }
        .encode(&mut start);
    Tail { first: Seq(1), count: 0, payload: Vec::new() }.encode(&mut start);
    vec![header.encode(&key)[..300].to_vec(), batch, records, start, Vec::new()]
}

/// xorshift: the mutations only have to be many and the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }
}

#[test]
fn mutated_inputs() {
    let corpus = corpus();
    for seed in 1..=ROUNDS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut input = corpus[dice.roll(corpus.len())].clone();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(input.len());
            match dice.roll(5) {
                0 if !input.is_empty() => input[at] ^= 1 << dice.roll(8),
                1 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][dice.roll(5)],
                2 => input.truncate(at),
                3 => input.extend_from_slice(&corpus[dice.roll(corpus.len())]),
                _ if at + 4 <= input.len() => input[at..at + 4].copy_from_slice(&[0xff; 4]),
                _ => {}
            }
        }
        fuzz_body(&input);
    }
}
