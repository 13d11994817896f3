//! Goal: the record of a task is stored as it was: what is written here is read, and written again to the
//! byte.

use super::*;

const RECORDS: [&str; 2] = [
    r#"{"version":1,"kind":"clean","target":"site","state":"running","started_ms":5,"done_bytes":6,"total_bytes":7,"message":""}"#,
    r#"{"version":1,"kind":"export","target":"web01/disk0","state":"failed","started_ms":5,"ended_ms":9,"done_bytes":6,"total_bytes":7,"message":"to standard output","error":"the reader went away","counts":{"blocks":3},"findings":["one"],"forks":[{"disk":"disk0","id":12,"bytes":4096}]}"#,
];

#[test]
fn records_are_stored_as_they_were() {
    for record in RECORDS {
        let read = Record::decode(record.as_bytes()).expect("a sound record");
        let again = read.encode().expect("encodes");
        assert_eq!(String::from_utf8(again).expect("text"), record);
    }
}
