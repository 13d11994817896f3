//! Hostile input for both decoders and for replay.

use crate::embedded::{Options, checkpoint, rebuild};
use crate::format::{decode_record, encode_record};
use crate::limits::RECORD_BYTES_MAX;

/// Feeds `data` to the decoders and checks what they accept.
///
/// The first byte says how to read the rest: 0, one record; 1, one checkpoint; else a checkpoint and records, each
/// behind its length in three bytes, little-endian, the checkpoint left out when its length is 0.
///
/// # Panics
/// When something accepted breaks an invariant: what a fuzzer looks for.
pub fn fuzz_body(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    match mode {
        0 => fuzz_record(body),
        1 => fuzz_rebuild(Some(body), &[]),
        _ => {
            let pieces = split(body);
            let (first, records) = pieces.split_first().map_or((None, [].as_slice()), |(c, r)| (Some(*c), r));
            fuzz_rebuild(first.filter(|piece| !piece.is_empty()), records);
        }
    }
}

fn fuzz_record(bytes: &[u8]) {
    let Ok(record) = decode_record(bytes) else { return };
    let again = encode_record(&record);
    assert!(again.len() <= RECORD_BYTES_MAX, "what was decoded encodes within the limit");
    assert_eq!(decode_record(&again).as_ref(), Ok(&record), "a record survives encoding");
}

fn fuzz_rebuild(first: Option<&[u8]>, records: &[&[u8]]) {
    let options = Options { history_events: 16, history_bytes: 1 << 16, ..Options::default() };
    let Ok(state) = rebuild(options, first, records) else { return };
    assert!(state.derived_agrees(), "derived_agrees");
    let taken = checkpoint(&state);
    // Replay skips what the checkpoint covers, so the same records change nothing.
    let again = rebuild(options, Some(&taken.bytes), records).expect("a checkpoint just made can be read");
    assert!(again.derived_agrees(), "derived_agrees");
    assert_eq!(checkpoint(&again), taken, "a state survives its checkpoint");
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let [a, b, c, rest @ ..] = bytes {
        let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        bytes = behind;
    }
    pieces
}

#[cfg(test)]
mod tests;
