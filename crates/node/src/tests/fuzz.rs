//! Goal: the decoder of `node.json` answers any input with a value or an error: sound records, mutated by seed.

use seam::testing::replay;
use units::MediumId;

use crate::directory::{Entry, Record};
use crate::fuzz::fuzz_body;

const MUTATIONS: u64 = 20_000;

#[test]
fn damaged_input() {
    let mut record = Record::new();
    let empty = serde_json::to_vec(&record).unwrap();
    record.media.push(Entry::new("/dev/sdb".into(), MediumId([7; 16]), false));
    record.media.push(Entry::new("media/00.img".into(), MediumId([0xfe; 16]), true));
    record.media[1].formatting = true;
    let full = serde_json::to_vec_pretty(&record).unwrap();
    assert_eq!(Record::decode(&full).as_ref(), Ok(&record));
    replay(&[empty, full], MUTATIONS, fuzz_body);
}
