//! Goal: decoders answer any input with a value or an error: sound inputs, mutated by seed.

use meta::Stored;
use seam::testing::replay;

use crate::fuzz::fuzz_body;

const MUTATIONS: u64 = 20_000;

#[test]
fn damaged_input() {
    let task = br#"{"version":1,"kind":"import","target":"web01","state":"done","started_ms":5,"ended_ms":9,
        "done_bytes":4096,"total_bytes":18446744073709551615,"message":"from a","error":"why"}"#;
    assert!(task::Record::decode(task).is_ok());
    let corpus = [task.to_vec(), b"web01".to_vec(), b"20GiB".to_vec(), b"16383P".to_vec()];
    replay(&corpus, MUTATIONS, fuzz_body);
}
