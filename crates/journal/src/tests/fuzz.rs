//! Goal: decoders answer any input with a value or an error: sound inputs, mutated by seed.

use proto::SegmentId;
use seam::testing::replay;
use units::{Epoch, Incarnation, Seq};

use super::fake::{commit, hole, medium, meta, write};
use crate::format::SEGMENT_FIXED;
use crate::fuzz::fuzz_body;
use crate::records::Tail;
use crate::*;

const MUTATIONS: u64 = 20_000;

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
    let backlog = BacklogAt::Here(Backlog { meta, ..Backlog::default() });
    let rows = vec![Row::new(1, 2, vec![medium(3)])];
    Start { backlog, rows, ..Start::default() }.encode(&mut start);
    Tail { first: Seq(1), count: 0, payload: Vec::new() }.encode(&mut start);
    vec![header.encode(&key)[..300].to_vec(), batch, records, start]
}

/// Puts the check sum of a segment header right: data nodes read it without the key.
fn mend(input: &mut [u8]) {
    if let Some(header) = input.first_chunk_mut::<SEGMENT_FIXED>() {
        let (checked, sum) = header.split_at_mut(SEGMENT_FIXED - 4);
        sum.fill(0);
        let whole = units::crc32c(&[checked, sum].concat());
        sum.copy_from_slice(&whole.to_le_bytes());
    }
}

#[test]
fn damaged_input() {
    let corpus = corpus();
    let key = [1; 32];
    assert!(SegmentPlace::decode(&corpus[0]).is_ok() && SegmentHeader::decode(&corpus[0], &key).is_ok());
    assert!(BatchHeader::peek(&corpus[1]).is_ok_and(|header| header.verify(&corpus[1], &key).is_ok()));
    assert!(decode_records(Seq(1), 4, &corpus[2]).is_ok() && Tail::of_start(&corpus[3]).is_some());
    replay(&corpus, MUTATIONS, |input| {
        fuzz_body(input);
        let mut input = input.to_vec();
        mend(&mut input);
        fuzz_body(&input);
    });
}
